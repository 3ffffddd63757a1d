# SPDX-License-Identifier: Apache-2.0
"""What a survey of a host calls intact, and what the controller then leaves out."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.ashlar.stack.plugins.action.tree import fingerprint
from ansible_collections.ashlar.stack.plugins.module_utils.host.files import HostFiles
from ansible_collections.ashlar.stack.plugins.module_utils.tree.apply import Tree
from ansible_collections.ashlar.stack.plugins.module_utils.tree.bundle import Source
from ansible_collections.ashlar.stack.plugins.module_utils.tree.spec import spec_of
from ansible_collections.ashlar.stack.plugins.module_utils.tree.survey import task_record, trees
from fake_host import FakeHost, FakeOwners
from test_tree_action import Controller

UNIT = "[Service]\nExecStart=/usr/bin/app\n[Install]\nWantedBy=multi-user.target\n"
SOURCES = [
    Source("/etc/app/app.conf", b"a=1\n"),
    Source("/etc/systemd/system/app.service", UNIT.encode()),
    Source("/usr/local/bin/app", b"#!/bin/sh\n", True),
]


def arguments(**given: Any) -> dict[str, Any]:
    unit = {"name": "app.service", "state": "started", "enabled": None, "files": None, "watch": ["/etc/pki/app.crt"], "reload": []}
    return {
        "name": "app",
        "state": "present",
        "files": [{"path": "/etc/app/*", "owner": "root", "group": "root", "mode": "0640"}],
        "directories": [{"path": "/var/lib/app", "owner": "root", "group": "root", "mode": "0700"}],
        "links": [{"path": "/etc/app/link", "target": "app.conf"}],
        "validate": [],
        "units": [unit],
        "fingerprint": "f1",
        **given,
    }


def lay(host: FakeHost, sources: list[Source] | None = None, **given: Any) -> None:
    told = arguments(**given)
    files = HostFiles(str(host.root))
    try:
        Tree(spec_of(told), sources or SOURCES, files, host, FakeOwners(host.users), asked=task_record(told, sources or SOURCES)).lay()
    finally:
        files.close()


def look(host: FakeHost) -> dict[str, str]:
    files = HostFiles(str(host.root))
    try:
        return trees(files, host, FakeOwners(host.users))
    finally:
        files.close()


@pytest.fixture
def laid(host: FakeHost) -> FakeHost:
    host.put("/etc/pki/app.crt", "first")
    lay(host)
    assert look(host) == {"app": "f1"}
    return host


def test_a_host_without_trees_has_none(host: FakeHost):
    assert look(host) == {}


def test_looking_changes_nothing(laid: FakeHost):
    def all_of(folder: Path) -> dict[str, tuple[int, bytes]]:
        return {str(file): (file.stat().st_mtime_ns, file.read_bytes()) for file in folder.rglob("*") if file.is_file()}

    before, starts = all_of(laid.root), laid.units["app.service"].starts
    look(laid)
    assert (all_of(laid.root), laid.units["app.service"].starts) == (before, starts)


def change_content(host: FakeHost) -> None:
    host.put("/etc/app/app.conf", "a=2\n")


def change_mode(host: FakeHost) -> None:
    host.path("/etc/app/app.conf").chmod(0o644)


def remove_file(host: FakeHost) -> None:
    host.path("/usr/local/bin/app").unlink()


def take_executable_bit(host: FakeHost) -> None:
    host.path("/usr/local/bin/app").chmod(0o644)


def move_link(host: FakeHost) -> None:
    host.path("/etc/app/link").unlink()
    os.symlink("elsewhere", host.path("/etc/app/link"))


def open_folder(host: FakeHost) -> None:
    host.path("/var/lib/app").chmod(0o755)


def remove_folder(host: FakeHost) -> None:
    host.path("/var/lib/app").rmdir()


def stop_unit(host: FakeHost) -> None:
    host.units["app.service"].active = "inactive"


def fail_unit(host: FakeHost) -> None:
    host.units["app.service"].active = "failed"


def disable_unit(host: FakeHost) -> None:
    host.units["app.service"].enabled = False


def renew_certificate(host: FakeHost) -> None:
    host.put("/etc/pki/app.crt", "second")


def forget(host: FakeHost) -> None:
    host.path("/var/lib/ashlar/trees/app.json").unlink()


def garble(host: FakeHost) -> None:
    host.put("/var/lib/ashlar/trees/app.json", '{"asked": {"arguments": 1}, "paths": {}')


def put_a_folder_in_the_place_of_a_file(host: FakeHost) -> None:
    remove_file(host)
    host.path("/usr/local/bin/app").mkdir()


@pytest.mark.parametrize(
    "harm",
    [
        change_content,
        change_mode,
        remove_file,
        take_executable_bit,
        move_link,
        open_folder,
        remove_folder,
        stop_unit,
        fail_unit,
        disable_unit,
        renew_certificate,
        forget,
        garble,
        put_a_folder_in_the_place_of_a_file,
    ],
)
def test_a_tree_that_something_happened_to_is_not_intact(laid: FakeHost, harm: Callable[[FakeHost], None]):
    harm(laid)
    assert look(laid) == {}


def test_another_tree_stays_intact_beside_one_that_does_not(laid: FakeHost):
    lay(laid, [Source("/etc/other/file", b"x\n")], name="other", files=[], directories=[], links=[], units=[], fingerprint="f2")
    change_content(laid)
    assert look(laid) == {"other": "f2"}


def test_systemd_is_asked_once_for_the_units_of_all_trees(laid: FakeHost):
    unit = {**arguments()["units"][0], "name": "other.service", "watch": []}
    lay(laid, [Source("/etc/systemd/system/other.service", UNIT.encode())], name="other", files=[], directories=[], links=[], units=[unit], fingerprint="f2")
    laid.calls.clear()
    assert look(laid) == {"app": "f1", "other": "f2"}
    assert [call[:2] for call in laid.calls] == [["systemctl", "show"]]
    assert laid.calls[0][-2:] == ["app.service", "other.service"]


def test_a_kernel_setting_that_did_not_hold_is_tried_again_once_it_may(laid: FakeHost):
    setting = [Source("/etc/sysctl.d/90-other.conf", b"vm.not_there = 1\n")]
    lay(laid, setting, name="other", files=[], directories=[], links=[], units=[], fingerprint="f2")
    assert look(laid) == {"app": "f1", "other": "f2"}
    laid.put("/proc/sys/vm/not_there", "0\n")
    assert look(laid) == {"app": "f1"}
    assert laid.text("/proc/sys/vm/not_there") == "0\n"


def test_a_tree_laid_down_without_a_fingerprint_is_left_to_its_task(host: FakeHost):
    host.put("/etc/pki/app.crt", "first")
    lay(host, fingerprint=None)
    assert look(host) == {}


def test_no_content_is_remembered(laid: FakeHost):
    lay(laid, [*SOURCES, Source("/etc/app/key", b"very-secret\n")], fingerprint="f3")
    assert "very-secret" not in laid.text("/var/lib/ashlar/trees/app.json")
    assert look(laid) == {"app": "f3"}


# ---- the controller


@pytest.fixture
def controller(tmp_path: Path) -> Controller:
    made = Controller(tmp_path)
    made.put("etc/app/app.conf.j2", "a={{ a }}\n")
    made.run({"a": 1})
    return made


def known(controller: Controller, changed: bool = False, **more: Any) -> dict[str, Any]:
    found = {"app": controller.sent["fingerprint"]}
    controller.sent = {}
    return {"a": 1, "base_survey": {"survey": {"trees": found}}, "ansible_facts": {"ashlar_host_changed": changed}, **more}


def test_what_is_intact_and_asked_again_is_not_sent(controller: Controller):
    controller.run(known(controller))
    assert controller.sent == {}
    assert controller.result["changed"] is False
    assert controller.result["changed_paths"] == []


def test_other_content_is_sent(controller: Controller):
    controller.run(known(controller, a=2))
    assert controller.sent


def test_other_arguments_are_sent(controller: Controller):
    controller.run(known(controller), directories=[{"path": "/srv"}])
    assert controller.sent


def test_a_tree_that_is_to_go_is_always_sent(controller: Controller):
    controller.run(known(controller), state="absent")
    assert controller.sent["state"] == "absent"
    assert "fingerprint" not in controller.sent


def test_a_change_ends_what_the_survey_has_found(controller: Controller):
    controller.run({"a": 3})
    assert controller.result["ansible_facts"] == {"ashlar_host_changed": True}
    controller.run(known(controller, changed=True))
    assert controller.sent


def test_what_another_run_found_counts_for_nothing(controller: Controller):
    variables = known(controller)
    controller.run({"a": 1, "ansible_facts": {**variables["ansible_facts"], "base_survey": variables["base_survey"]}})
    assert controller.sent


def test_a_fingerprint_is_of_everything_that_is_asked():
    one = Source("/a", b"x")
    made = {
        fingerprint({"name": "app"}, [one]),
        fingerprint({"name": "app"}, [Source("/a", b"y")]),
        fingerprint({"name": "app"}, [Source("/b", b"x")]),
        fingerprint({"name": "app"}, [Source("/a", b"x", True)]),
        fingerprint({"name": "app", "units": []}, [one]),
        fingerprint({"name": "other"}, [one]),
    }
    assert len(made) == 6
    assert fingerprint({"a": 1, "b": 2}, [one, Source("/c", b"")]) == fingerprint({"b": 2, "a": 1}, [Source("/c", b""), one])
