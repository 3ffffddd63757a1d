# SPDX-License-Identifier: Apache-2.0
"""Units run with what lies on disk, whatever happened before; and with nothing done when nothing differs."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest
from ansible_collections.ashlar.stack.plugins.module_utils.tree.apply import TreeError, TreeSpec
from ansible_collections.ashlar.stack.plugins.module_utils.tree.units import (
    Digests,
    UnitRecord,
    UnitSpec,
    UnitState,
    decide,
    glob_regex,
    install_section,
    restart_paths,
    template_of,
    unit_of,
    valid_name,
)
from fake_host import FakeHost, FakeUnit

UNIT = "[Service]\nExecStart=/bin/app\n[Install]\nWantedBy=multi-user.target\n"
FILE = "/etc/systemd/system/app.service"
CONF = "/etc/app/app.conf"
APP = TreeSpec("app", units=(UnitSpec("app.service"),))
SOURCES = {FILE: UNIT, CONF: "a=1\n"}


def app(**options) -> TreeSpec:
    return TreeSpec("app", units=(UnitSpec("app.service", **options),))


@pytest.fixture
def running(host: FakeHost) -> FakeHost:
    host.reads["app.service"] = [CONF, "/etc/outside"]
    host.lay(APP, SOURCES)
    host.calls.clear()
    return host


def test_a_new_unit_is_enabled_loaded_and_started_without_waiting(host: FakeHost):
    result = host.lay(APP, SOURCES)
    assert result.started == ["app.service"]
    assert host.verbs() == ["enable app.service", "daemon-reload", "start app.service"]
    assert "--no-block" in host.calls[-1]
    assert host.units["app.service"].enabled


def test_a_second_run_asks_systemd_once_and_does_nothing(running: FakeHost):
    result = running.lay(APP, SOURCES)
    assert not result.changed
    assert [call[:2] for call in running.calls] == [["systemctl", "show"]]


def test_a_tree_without_units_does_not_ask_systemd(host: FakeHost):
    host.lay(TreeSpec("app"), {CONF: "1"})
    host.lay(TreeSpec("app"), {CONF: "2"})
    assert host.calls == []


def test_many_units_are_few_calls(host: FakeHost):
    names = [f"app{number}.service" for number in range(5)]
    spec = TreeSpec("app", units=tuple(UnitSpec(name) for name in names))
    host.lay(spec, {f"/etc/systemd/system/{name}": UNIT for name in names})
    assert [call[1].replace("--no-reload", "enable").replace("--no-block", "start") for call in host.calls] == [
        "show",
        "enable",
        "daemon-reload",
        "start",
    ]


def test_a_changed_file_restarts_and_a_changed_unit_file_is_loaded_first(running: FakeHost):
    assert running.lay(APP, {**SOURCES, CONF: "a=2\n"}).restarted == ["app.service"]
    assert running.verbs() == ["restart app.service"]
    running.calls.clear()
    assert running.lay(APP, {FILE: UNIT.replace("app\n", "app -v\n"), CONF: "a=2\n"}).restarted == ["app.service"]
    assert running.verbs() == ["daemon-reload", "restart app.service"]
    assert running.units["app.service"].started_with == running.now("app.service")


def test_a_held_restart_is_pending_until_a_run_that_does_not_hold(running: FakeHost):
    changed = {FILE: UNIT.replace("app\n", "app -v\n").replace("multi-user", "ashlar"), CONF: "a=2\n"}
    for verbs in (["reenable app.service", "daemon-reload"], []):
        result = running.lay(replace(APP, hold=True), changed)
        assert (result.pending, result.restarted) == (["app.service"], [])
        assert running.verbs() == verbs
        running.calls.clear()
    assert running.lay(APP, changed).restarted == ["app.service"]
    assert not running.lay(replace(APP, hold=True), changed).pending


def test_a_unit_of_unknown_start_is_held_and_its_restart_stays_owed(running: FakeHost):
    (running.root / "var/lib/ashlar/units/app.service.json").unlink()
    for _ in range(2):
        assert running.lay(replace(APP, hold=True), SOURCES).pending == ["app.service"]
    assert running.verbs() == []


def test_what_cannot_reload_is_held_and_what_does_not_run_starts(host: FakeHost):
    held = replace(app(reload=(CONF,)), hold=True)
    assert host.lay(held, SOURCES).started == ["app.service"]
    host.units["app.service"].can_reload = False
    assert host.lay(held, {**SOURCES, CONF: "a=2\n"}).pending == ["app.service"]


def test_a_changed_place_to_be_enabled_is_enabled_anew(running: FakeHost):
    running.lay(APP, {FILE: UNIT.replace("multi-user", "ashlar"), CONF: "a=1\n"})
    assert running.verbs()[0] == "reenable app.service"


def test_a_drop_in_of_another_trees_unit_is_loaded_and_does_not_restart_it(running: FakeHost):
    spec = TreeSpec("other")
    drop = {"/etc/systemd/system/app.service.d/10-limits.conf": "[Service]\nLimitNOFILE=1\n"}
    running.lay(spec, drop)
    assert running.verbs() == ["daemon-reload"]
    running.calls.clear()
    running.lay(spec, drop)
    assert running.verbs() == []


def test_a_unit_file_changed_by_a_killed_run_is_loaded_by_the_next(running: FakeHost):
    running.put(FILE, UNIT + "# changed\n")
    running.lay(APP, {FILE: UNIT + "# changed\n", CONF: "a=1\n"})
    assert running.verbs() == ["daemon-reload", "restart app.service"]


def test_a_reload_file_reloads_and_others_restart(host: FakeHost):
    host.reads["app.service"] = [CONF]
    spec = app(reload=(CONF,))
    host.lay(spec, SOURCES)
    result = host.lay(spec, {**SOURCES, CONF: "a=2\n"})
    assert (result.reloaded, result.restarted) == (["app.service"], [])
    assert host.units["app.service"].started_with == host.now("app.service")
    assert not host.lay(spec, {**SOURCES, CONF: "a=2\n"}).changed
    assert host.lay(spec, {FILE: UNIT + "#\n", CONF: "a=3\n"}).restarted == ["app.service"]


def test_a_unit_that_cannot_reload_is_restarted_instead(host: FakeHost):
    spec = app(reload=(CONF,))
    host.lay(spec, SOURCES)
    host.units["app.service"].can_reload = False
    assert host.lay(spec, {**SOURCES, CONF: "a=2\n"}).restarted == ["app.service"]


def test_a_reload_file_outside_the_tree_counts(host: FakeHost):
    spec = app(reload=("/etc/outside",))
    host.put("/etc/outside", "1")
    host.lay(spec, SOURCES)
    host.put("/etc/outside", "2")
    assert host.lay(spec, SOURCES).reloaded == ["app.service"]


def test_a_watched_file_that_appears_changes_and_goes_restarts_each_time(running: FakeHost):
    spec = app(watch=("/etc/outside",))
    running.lay(spec, SOURCES)
    for content in ("1", "2", None):
        if content is None:
            running.path("/etc/outside").unlink()
        else:
            running.put("/etc/outside", content)
        assert running.lay(spec, SOURCES).restarted == ["app.service"]
        assert not running.lay(spec, SOURCES).changed


def test_a_watched_link_counts_by_where_it_points(host: FakeHost):
    for version in ("1", "2"):
        host.put(f"/opt/app/{version}/app", "the same binary")
    host.path("/opt/app/current").symlink_to("1")
    spec = app(watch=("/opt/app/current",))
    host.lay(spec, SOURCES)
    assert not host.lay(spec, SOURCES).changed
    host.path("/opt/app/current").unlink()
    host.path("/opt/app/current").symlink_to("2")
    assert host.lay(spec, SOURCES).restarted == ["app.service"]


def test_watched_globs_and_folders_count_by_what_is_in_them(host: FakeHost):
    host.put("/etc/pki/a.crt", "1")
    host.put("/etc/folder/deep/x", "1")
    spec = app(watch=("/etc/pki/*.crt", "/etc/folder"))
    host.lay(spec, SOURCES)
    for path in ("/etc/pki/b.crt", "/etc/folder/deep/y"):
        host.put(path, "new")
        assert host.lay(spec, SOURCES).restarted == ["app.service"], path
    host.put("/etc/pki/a.key", "not watched")
    assert not host.lay(spec, SOURCES).changed


def test_a_big_watched_file_is_read_once_and_again_when_it_changes(host: FakeHost, monkeypatch: pytest.MonkeyPatch):
    host.put("/opt/big", "x" * (2 << 20))
    spec = app(watch=("/opt/big",))
    host.lay(spec, SOURCES)
    import hashlib

    hashed: list[int] = []

    class Counting:
        def __init__(self, data: bytes = b"") -> None:
            self.inner = plain(data)

        def update(self, data: bytes) -> None:
            hashed.append(len(data))
            self.inner.update(data)

        def hexdigest(self) -> str:
            return self.inner.hexdigest()

    plain = hashlib.sha256
    monkeypatch.setattr(hashlib, "sha256", Counting)
    assert not host.lay(spec, SOURCES).changed
    assert hashed == []
    host.put("/opt/big", "y" * (2 << 20))
    assert host.lay(spec, SOURCES).restarted == ["app.service"]
    assert sum(hashed) == 2 << 20
    # The same bytes written anew are read again, and nothing is restarted.
    os.utime(host.path("/opt/big"))
    assert not host.lay(spec, SOURCES).changed
    assert not host.lay(spec, SOURCES).changed


def test_a_unit_that_ran_before_is_restarted_once(host: FakeHost):
    host.put(FILE, UNIT)
    host.put(CONF, "a=1\n")
    host.units["app.service"] = FakeUnit(active="active", enabled=True, loaded=UNIT)
    assert host.lay(APP, SOURCES).restarted == ["app.service"]
    assert not host.lay(APP, SOURCES).changed


def test_a_stopped_unit_is_started_and_a_failed_one_after_its_start_limit_is_cleared(running: FakeHost):
    running.units["app.service"].active = "inactive"
    assert running.lay(APP, SOURCES).started == ["app.service"]
    running.calls.clear()
    running.units["app.service"].active = "failed"
    assert running.lay(APP, SOURCES).started == ["app.service"]
    assert running.verbs() == ["reset-failed app.service", "start app.service"]


def test_a_disabled_unit_is_enabled_again(running: FakeHost):
    running.units["app.service"].enabled = False
    result = running.lay(APP, SOURCES)
    assert result.changed
    assert result.restarted == result.started == []
    assert running.units["app.service"].enabled


def test_enabled_false_disables_and_leaves_it_running(running: FakeHost):
    assert running.lay(app(enabled=False), SOURCES).changed
    assert not running.units["app.service"].enabled
    assert running.units["app.service"].active == "active"
    assert not running.lay(app(enabled=False), SOURCES).changed


def test_a_unit_without_install_section_is_only_started(host: FakeHost):
    sources = {FILE: "[Service]\n"}
    host.lay(APP, sources)
    host.calls.clear()
    assert not host.lay(APP, sources).changed


@pytest.mark.parametrize("state", ["stopped", "absent", "masked"])
def test_a_unit_that_shall_not_run_is_stopped_and_started_again_when_it_shall(running: FakeHost, state: str):
    result = running.lay(app(state=state), SOURCES)
    unit = running.units["app.service"]
    assert result.stopped == ["app.service"]
    assert (unit.active, unit.enabled, unit.masked) == ("inactive", state != "absent", state == "masked")
    assert not running.lay(app(state=state), SOURCES).changed
    assert running.lay(APP, SOURCES).started == ["app.service"]
    assert (unit.active, unit.enabled, unit.masked) == ("active", True, False)


def test_a_unit_unknown_to_the_host_may_be_absent_or_stopped(host: FakeHost):
    for state in ("absent", "stopped"):
        assert not host.lay(TreeSpec("app", units=(UnitSpec("never.service", state=state),))).changed


def test_a_unit_that_does_not_exist_cannot_be_started_and_that_is_told(host: FakeHost):
    with pytest.raises(TreeError, match=r"never.service.*does not exist.*systemctl status never.service"):
        host.lay(TreeSpec("app", units=(UnitSpec("never.service"),)))


def test_a_unit_that_leaves_the_tree_is_stopped_before_its_file_goes(running: FakeHost):
    order = []
    running.tick = lambda name: order.append(name)
    result = running.lay(TreeSpec("app"), {CONF: "a=1\n"})
    assert result.stopped == ["app.service"]
    assert result.removed_paths == [FILE]
    assert not running.units["app.service"].enabled
    assert running.verbs() == ["stop app.service", "disable app.service", "daemon-reload"]
    assert order.index("after systemctl stop") < order.index("before remove")
    assert not running.path("/var/lib/ashlar/units/app.service.json").exists()


def test_a_unit_file_that_was_never_declared_is_stopped_too(running: FakeHost):
    helper = "/etc/systemd/system/helper.timer"
    running.lay(APP, {**SOURCES, helper: UNIT})
    running.units["helper.timer"].active = "active"
    assert running.lay(APP, SOURCES).stopped == ["helper.timer"]


def test_instances_are_stopped_when_their_template_goes(host: FakeHost):
    template = "/etc/systemd/system/node@.service"
    spec = TreeSpec("app", units=(UnitSpec("node@a.service"), UnitSpec("node@b.service")))
    host.lay(spec, {template: UNIT})
    assert host.units["node@a.service"].active == "active"
    assert sorted(host.lay(TreeSpec("app"), {}).stopped) == ["node@a.service", "node@b.service"]


def test_a_packaged_unit_that_is_no_longer_named_is_left_alone(host: FakeHost):
    host.units["haproxy.service"] = FakeUnit(packaged=True)
    spec = TreeSpec("app", units=(UnitSpec("haproxy.service"),))
    host.lay(spec, {CONF: "1"})
    host.lay(TreeSpec("app"), {CONF: "1"})
    assert host.units["haproxy.service"].active == "active"


def test_an_absent_tree_stops_all_its_units(host: FakeHost):
    host.units["haproxy.service"] = FakeUnit(packaged=True)
    spec = TreeSpec("app", units=(UnitSpec("haproxy.service"), UnitSpec("app.service")))
    host.lay(spec, SOURCES)
    told = host.lay(TreeSpec("app", absent=True), check=True)
    done = host.lay(TreeSpec("app", absent=True))
    assert sorted(done.stopped) == sorted(told.stopped) == ["app.service", "haproxy.service"]
    assert not host.path("/var/lib/ashlar/units").exists() or not list(host.path("/var/lib/ashlar/units").iterdir())


def test_a_unit_of_the_system_stays_when_the_tree_goes(host: FakeHost):
    host.units["systemd-journald.service"] = FakeUnit(packaged=True)
    host.lay(TreeSpec("app", units=(UnitSpec("systemd-journald.service", own=False), UnitSpec("app.service"))), SOURCES)
    assert host.lay(TreeSpec("app", absent=True)).stopped == ["app.service"]
    assert host.units["systemd-journald.service"].active == "active"


def test_a_one_shot_unit_runs_once_for_what_it_depends_on(host: FakeHost):
    host.units["app.service"] = FakeUnit(once=True)
    host.lay(APP, SOURCES)
    assert not host.lay(APP, SOURCES).changed
    assert host.lay(APP, {**SOURCES, CONF: "a=2\n"}).started == ["app.service"]
    assert host.units["app.service"].starts == 2


def test_a_refused_start_is_told_and_made_good_by_the_next_run(host: FakeHost):
    host.programs["systemctl"] = lambda command: host_refuses(command)

    def host_refuses(command):
        if "start" in command:
            from ansible_collections.ashlar.stack.plugins.module_utils.host.run import Completed

            return Completed(1, err="Failed to start app.service: Transaction is destructive.")
        del host.programs["systemctl"]
        done = host._run(command)
        host.programs["systemctl"] = lambda command: host_refuses(command)
        return done

    with pytest.raises(TreeError, match="Transaction is destructive"):
        host.lay(APP, SOURCES)
    host.programs.clear()
    assert host.lay(APP, SOURCES).started == ["app.service"]


def test_check_mode_foretells_what_units_would_do(running: FakeHost):
    assert running.lay(APP, {**SOURCES, CONF: "a=2\n"}, check=True).restarted == ["app.service"]
    assert running.lay(TreeSpec("app"), {CONF: "a=1\n"}, check=True).stopped == ["app.service"]
    assert running.verbs() == []


# ---- decisions


@pytest.mark.parametrize(
    ("active", "record", "expected"),
    [
        ("inactive", None, "start"),
        ("failed", UnitRecord(restart="r", reload="l"), "start"),
        ("active", UnitRecord(restart="r", reload="l"), ""),
        ("activating", UnitRecord(restart="r", reload="l"), ""),
        ("reloading", UnitRecord(restart="r", reload="l"), ""),
        ("deactivating", UnitRecord(restart="r", reload="l"), "start"),
        ("active", UnitRecord(restart="r", reload="x"), "reload"),
        ("activating", UnitRecord(restart="r", reload="x"), "restart"),
        ("active", UnitRecord(restart="x", reload="l"), "restart"),
        ("active", None, "restart"),
    ],
)
def test_decisions(active: str, record: UnitRecord | None, expected: str):
    state = UnitState("a.service", load="loaded", active=active, can_reload=True)
    assert decide(UnitSpec("a.service"), state, Digests("r", "l"), record) == expected
    stopped = decide(UnitSpec("a.service", state="stopped"), state, Digests("r", "l"), record)
    assert stopped == ("" if active in ("inactive", "failed") else "stop")


PATHS = [
    CONF,
    "/etc/other/x",
    FILE,
    "/etc/systemd/system/app.service.d/10.conf",
    "/etc/systemd/system/service.d/all.conf",
    "/etc/systemd/system/app.timer",
    "/etc/systemd/system/helper.service",
    "/etc/sysctl.d/1.conf",
    "/etc/sysusers.d/app.conf",
    "/etc/tmpfiles.d/app.conf",
]
OWN = [FILE, "/etc/systemd/system/app.service.d/10.conf", "/etc/systemd/system/service.d/all.conf"]


def test_what_restarts_a_unit():
    spec = UnitSpec("app.service")
    assert set(restart_paths(spec, PATHS)) == {CONF, "/etc/other/x", *OWN}
    assert set(restart_paths(replace(spec, files=("/etc/app/*",)), PATHS)) == {CONF, *OWN}
    assert set(restart_paths(replace(spec, files=()), PATHS)) == set(OWN)
    assert set(restart_paths(replace(spec, reload=(CONF,)), PATHS)) == {"/etc/other/x", *OWN}
    assert restart_paths(UnitSpec("app.timer"), PATHS) == ["/etc/systemd/system/app.timer"]
    assert "/etc/systemd/system/node@.service" in restart_paths(UnitSpec("node@a.service"), ["/etc/systemd/system/node@.service"])


@pytest.mark.parametrize(
    ("pattern", "path", "matches"),
    [
        ("/etc/a/*", "/etc/a/b", True),
        ("/etc/a/*", "/etc/a/b/c", False),
        ("/etc/a/**", "/etc/a/b/c", True),
        ("/etc/**/c", "/etc/c", True),
        ("/etc/**/c", "/etc/a/b/c", True),
        ("/etc/**/c", "/etc/ac", False),
        ("/etc/?.conf", "/etc/a.conf", True),
        ("/etc/[ab].conf", "/etc/b.conf", True),
        ("/etc/[!ab].conf", "/etc/b.conf", False),
        ("/etc/a.conf", "/etc/aXconf", False),
        ("/etc/[a", "/etc/[a", True),
    ],
)
def test_globs(pattern: str, path: str, matches: bool):
    assert bool(glob_regex(pattern).match(path)) is matches


def test_names_of_units():
    assert [valid_name(name) for name in ("a.service", "a@b.service", "a-b.c.timer", "a", "a.conf", "a b.service", "../a.service")] == [
        True,
        True,
        True,
        False,
        False,
        False,
        False,
    ]
    assert template_of("node@a-b.service") == "node@.service"
    assert template_of("a.service") == "a.service"
    assert unit_of("/etc/systemd/system/a.service.d/x.conf") == "a.service"
    assert unit_of("/etc/systemd/system/multi-user.target.wants/a.service") is None
    assert unit_of("/etc/a.service") is None


def test_the_install_section():
    assert install_section("[Unit]\nAlias=no\n[Install]\n# comment\nWantedBy=a\n\n[X]\nWantedBy=b\n") == "WantedBy=a"
