# SPDX-License-Identifier: Apache-2.0
"""A component that left a host leaves nothing behind but its data, put aside; a run that was killed anywhere is completed by the next."""

from __future__ import annotations

import json
import re

import pytest
from ansible_collections.ashlar.stack.plugins.module_utils.host.files import HostFiles
from ansible_collections.ashlar.stack.plugins.module_utils.host.run import Completed
from ansible_collections.ashlar.stack.plugins.module_utils.retire import Leftovers, Retired, Retirement
from ansible_collections.ashlar.stack.plugins.module_utils.tree.apply import Attributes, Tree, TreeSpec
from ansible_collections.ashlar.stack.plugins.module_utils.tree.bundle import Source
from ansible_collections.ashlar.stack.plugins.module_utils.tree.units import UnitSpec
from fake_host import FakeHost, FakeOwners, FakeUnit, KilledError, TickingFiles

UNIT = "[Service]\nExecStart=/bin/x\n[Install]\nWantedBy=multi-user.target\n"
LEFTOVERS = Leftovers(
    mounts=("/var/lib/app/mounts/**",),
    interfaces=("app*",),
    tables=("ip app",),
    units=("app-*.slice",),
    paths=("/run/app", "/etc/shared/app.conf"),
    data=("/var/lib/more",),
)
ASIDE = "/var/lib/ashlar/retired/app-20261128T190000Z"
NOW = 1795892400.0


def lay(host: FakeHost, name: str, paths: dict[str, str], folders: tuple[str, ...] = (), component: str = "") -> None:
    spec = TreeSpec(name, directories=tuple(Attributes(path, mode=0o700) for path in folders), units=(UnitSpec(f"{name}.service"),))
    sources = [Source(path, text.encode()) for path, text in {f"/etc/systemd/system/{name}.service": UNIT, **paths}.items()]
    asked = {"arguments": {"directories": [{"path": path} for path in folders]}}
    files = HostFiles(str(host.root))
    Tree(spec, sources, files, host, owners=FakeOwners(host.users), asked=asked, component=component).lay()
    files.close()


def delete(host: FakeHost, command: list[str]) -> Completed:
    host.users.discard(command[-1])
    return Completed(0)


def network(host: FakeHost, command: list[str]) -> Completed:
    if command[:3] == ["ip", "link", "delete"]:
        host.path(f"/sys/class/net/{command[-1]}").rmdir()
    return Completed(0)


def tables(host: FakeHost, command: list[str]) -> Completed:
    if command[1] == "delete":
        host.put("/tables", host.text("/tables").replace("table ip app\n", ""))
    return Completed(0, host.text("/tables"))


def unmount(host: FakeHost, command: list[str]) -> Completed:
    host.put("/proc/self/mounts", re.sub(rf".* {command[-1]} .*\n", "", host.text("/proc/self/mounts")))
    return Completed(0)


def run_programs(host: FakeHost) -> None:
    host.programs = {
        "userdel": lambda command: delete(host, list(command)),
        "groupdel": lambda command: delete(host, list(command)),
        "ip": lambda command: network(host, list(command)),
        "nft": lambda command: tables(host, list(command)),
        "umount": lambda command: unmount(host, list(command)),
    }


def furnish(host: FakeHost) -> None:
    """A host with the component `other`, as it was before `app` came."""
    run_programs(host)
    host.put("/tables", "table inet ashlar\n")
    host.put("/proc/self/mounts", "proc /proc proc rw 0 0\n")
    host.path("/sys/class/net/eth0").mkdir(parents=True)
    host.path("/etc/sysusers.d").mkdir(parents=True)
    host.path("/etc/shared").mkdir(parents=True)
    lay(host, "other", {"/etc/sysusers.d/other.conf": "u both - - -\n", "/etc/other/x": "1"}, ("/var/lib/other",))


def install(host: FakeHost) -> None:
    people = "u app - - /var/lib/app\nu both - - -\n"
    lay(host, "app_first", {"/etc/sysusers.d/app.conf": people, "/etc/app/sub/x": "1"}, ("/var/lib/app", "/etc/cni"), "app")
    lay(host, "app", {"/etc/app/y": "1"}, ("/var/cache/app",))  # of the time before trees knew their component
    host.put("/var/lib/app/data", "precious")
    host.put("/var/lib/more/data", "precious too")
    host.put("/var/cache/app/x", "worthless")
    host.put("/run/app/socket")
    host.put("/etc/shared/app.conf")
    host.path("/sys/class/net/app0").mkdir()
    host.units["app-1.slice"] = FakeUnit(active="active")
    host.put("/tables", host.text("/tables") + "table ip app\n")
    host.put("/proc/self/mounts", host.text("/proc/self/mounts") + "tmpfs /var/lib/app/mounts/one tmpfs rw 0 0\n")


def retire(host: FakeHost, check: bool = False) -> Retired:
    files = TickingFiles(str(host.root))
    files.tick = host.tick
    try:
        return Retirement("app", LEFTOVERS, files, host, FakeOwners(host.users), NOW).retire(check)
    finally:
        files.close()


def without_data(host: FakeHost) -> dict[str, str]:
    return {path: what for path, what in host.snapshot().items() if not path.startswith("/var/lib/ashlar/retired") and path != "/var/cache"}


def test_nothing_is_left_but_data_put_aside(host: FakeHost) -> None:
    furnish(host)
    before, people = without_data(host), set(host.users)
    install(host)
    done = retire(host)
    assert without_data(host) == before
    assert host.users == people
    assert host.units["app.service"].active == host.units["app_first.service"].active == "inactive"
    assert host.units["other.service"].active == "active"
    assert host.units["app-1.slice"].active == "inactive"
    assert done.changed and sorted(done.stopped) == ["app.service", "app_first.service"]
    assert sorted(done.removed) == ["interface app0", "mount /var/lib/app/mounts/one", "table ip app", "unit app-1.slice", "user app"]
    assert done.moved == {"/var/lib/app": f"{ASIDE}/var-lib-app", "/var/lib/more": f"{ASIDE}/var-lib-more"}
    assert host.text(f"{ASIDE}/var-lib-app/data") == "precious"
    assert host.path(ASIDE).stat().st_mode & 0o777 == host.path(ASIDE).parent.stat().st_mode & 0o777 == 0o700


def test_a_second_run_changes_nothing(host: FakeHost) -> None:
    furnish(host)
    install(host)
    retire(host)
    before = host.snapshot()
    assert not retire(host).changed
    assert host.snapshot() == before


def test_check_mode_tells_everything_and_touches_nothing(host: FakeHost) -> None:
    furnish(host)
    install(host)
    before, calls = host.snapshot(), len(host.verbs())
    told = retire(host, check=True)
    assert host.snapshot() == before and len(host.verbs()) == calls
    done = retire(host)
    assert (told.stopped, told.removed, told.moved) == (done.stopped, done.removed, done.moved)
    assert set(told.removed_paths) <= set(done.removed_paths)


def test_a_run_that_was_killed_anywhere_is_completed_by_the_next(tmp_path_factory: pytest.TempPathFactory) -> None:
    def prepared() -> FakeHost:
        host = FakeHost(tmp_path_factory.mktemp("root"))
        furnish(host)
        install(host)
        return host

    steps = 0
    expected = prepared()

    def count(name: str) -> None:
        nonlocal steps
        steps += 1

    expected.tick = count
    retire(expected)
    for point in range(1, steps + 1, 3):
        host = prepared()
        left = point

        def tick(name: str, host: FakeHost = host) -> None:
            nonlocal left
            left -= 1
            if left == 0:
                host.tick = lambda name: None
                raise KilledError(name)

        host.tick = tick
        with pytest.raises(KilledError):
            retire(host)
        host.tick = lambda name: None
        retire(host)
        assert host.snapshot() == expected.snapshot(), f"killed at step {point} of {steps}"
        assert host.users == expected.users


def test_a_folder_that_another_component_has_as_well_stays(host: FakeHost) -> None:
    furnish(host)
    lay(host, "app", {}, ("/var/lib/other",))
    host.put("/var/lib/other/data", "of both")
    assert not retire(host).moved
    assert host.text("/var/lib/other/data") == "of both"


def test_a_program_that_outlives_its_unit_is_killed_with_what_it_started(host: FakeHost) -> None:
    for number, parent, program in ((7, 1, "/opt/ashlar/app/1/shim (deleted)"), (8, 7, "/bin/contained"), (9, 8, "/bin/x"), (10, 1, "/bin/other")):
        host.put(f"/proc/{number}/stat", f"{number} (a ) b) S {parent} 0 0")
        host.path(f"/proc/{number}/exe").symlink_to(program)
    host.programs["kill"] = lambda command: Completed(0)
    files = HostFiles(str(host.root))
    done = Retirement("app", Leftovers(processes=("/opt/ashlar/app/*/shim",)), files, host, FakeOwners(host.users), NOW).retire()
    files.close()
    assert ["kill", "-KILL", "7", "8", "9"] in host.calls
    assert done.removed == ["process 7", "process 8", "process 9"]


def test_a_tree_knows_its_component(host: FakeHost) -> None:
    furnish(host)
    install(host)
    assert json.loads(host.text("/var/lib/ashlar/trees/app_first.json"))["component"] == "app"


def test_a_folder_that_several_components_use_goes_with_the_last(host: FakeHost) -> None:
    furnish(host)
    lay(host, "app", {"/etc/suite/app/x": "1"})
    lay(host, "second", {"/etc/suite/second/x": "1"})
    retire(host)
    assert host.path("/etc/suite/second/x").exists() and not host.path("/etc/suite/app").exists()
    files = HostFiles(str(host.root))
    Retirement("second", Leftovers(), files, host, FakeOwners(host.users), NOW).retire()
    files.close()
    assert not host.path("/etc/suite").exists()


def test_logs_on_a_file_system_of_their_own_are_put_aside_there(host: FakeHost, monkeypatch: pytest.MonkeyPatch) -> None:
    furnish(host)
    lay(host, "app", {}, ("/var/log/app", "/var/lib/app"))
    host.put("/var/log/app/x")
    host.put("/var/lib/app/x")
    devices = {"/var/log": 2, "/var/lib": 1}
    monkeypatch.setattr(Retirement, "_device", lambda _self, path: next(device for place, device in devices.items() if path.startswith(place)))
    done = retire(host)
    assert done.moved["/var/lib/app"].startswith("/var/lib/ashlar/retired/app-")
    assert done.moved["/var/log/app"].startswith("/var/log/ashlar-retired/app-")
    assert host.path("/var/log/ashlar-retired").stat().st_mode & 0o777 == 0o700
    assert not done.warnings
