# SPDX-License-Identifier: Apache-2.0
"""A run that is killed at any point is completed by the next, to exactly what an undisturbed run gives."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.ashlar.stack.plugins.module_utils.host.run import Completed
from ansible_collections.ashlar.stack.plugins.module_utils.tree.apply import Attributes, TreeSpec, Validator
from ansible_collections.ashlar.stack.plugins.module_utils.tree.units import UnitSpec
from fake_host import FakeHost, KilledError

UNIT = "[Service]\nExecStart=/bin/x\n[Install]\nWantedBy=multi-user.target\n"
SYSTEMD = "/etc/systemd/system"

OLD = (
    TreeSpec(
        "app",
        files=(Attributes("/etc/app/*", mode=0o640),),
        directories=(Attributes("/var/lib/app", mode=0o700),),
        links={"/usr/bin/app": "/opt/1/app"},
        units=(
            UnitSpec("app.service", watch=("/etc/outside",)),
            UnitSpec("gone.service"),
            UnitSpec("soft.service", reload=("/etc/app/soft.conf",)),
        ),
    ),
    {
        "/etc/app/app.conf": "1",
        "/etc/app/soft.conf": "1",
        "/etc/app/gone.d/x": "1",
        f"{SYSTEMD}/app.service": UNIT,
        f"{SYSTEMD}/gone.service": UNIT,
        f"{SYSTEMD}/soft.service": UNIT,
    },
)
NEW = (
    TreeSpec(
        "app",
        files=(Attributes("/etc/app/*", owner="app", mode=0o600),),
        directories=(Attributes("/var/lib/app", owner="app", mode=0o750), Attributes("/var/lib/more")),
        links={"/usr/bin/app": "/opt/2/app"},
        validate=(Validator("/etc/app/app.conf", ("appcheck", "{}")),),
        units=(
            UnitSpec("app.service", watch=("/etc/outside",)),
            UnitSpec("soft.service", files=(), reload=("/etc/app/soft.conf",)),
            UnitSpec("fresh.service"),
            UnitSpec("other.service", state="masked"),
        ),
    ),
    {
        "/etc/sysusers.d/app.conf": "u app - -\n",
        "/etc/tmpfiles.d/app.conf": "d /run/app\n",
        "/etc/sysctl.d/app.conf": "vm.swappiness = 5\n",
        "/etc/modules-load.d/app.conf": "br-net\n",
        "/etc/app/app.conf": "2",
        "/etc/app/soft.conf": "2",
        "/etc/app/sub/new": "2",
        f"{SYSTEMD}/app.service": UNIT + "# 2\n",
        f"{SYSTEMD}/app.service.d/10.conf": "[Service]\nLimitNOFILE=9\n",
        f"{SYSTEMD}/soft.service": UNIT,
        f"{SYSTEMD}/fresh.service": UNIT,
    },
)


def make(folder: Path) -> FakeHost:
    folder.mkdir()
    host = FakeHost(folder, loadable={"br-net"})
    host.programs["appcheck"] = lambda command: Completed(0)
    host.reads = {
        "app.service": ["/etc/app/app.conf", "/etc/app/soft.conf", "/etc/app/sub/new", "/etc/outside"],
        "soft.service": ["/etc/app/soft.conf"],
        "fresh.service": ["/etc/app/app.conf"],
    }
    host.put("/etc/outside", "1")
    host.lay(*OLD)
    host.put("/etc/outside", "2")
    return host


def settled(host: FakeHost) -> tuple[object, ...]:
    """All that must be the same in the end; how often a unit was restarted is not part of it."""
    units = {
        name: (unit.active, unit.enabled, unit.masked, unit.loaded, unit.started_with if unit.active == "active" else None)
        for name, unit in host.units.items()
        if unit.loaded is not None or unit.active != "inactive" or unit.masked
    }
    return host.snapshot(), units, host.users, set(host.made), sorted(path.name for path in host.path("/sys/module").iterdir())


def steps(host: FakeHost, run: tuple[TreeSpec, dict]) -> list[str]:
    told: list[str] = []
    host.tick = told.append
    host.lay(*run)
    host.tick = lambda name: None
    return told


def kill_at(number: int):
    count = 0

    def tick(name: str) -> None:
        nonlocal count
        if count == number:
            raise KilledError(name)
        count += 1

    return tick


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory):
    host = make(tmp_path_factory.mktemp("reference") / "root")
    told = steps(host, NEW)
    end = settled(host)
    assert not host.lay(*NEW).changed
    return end, told


def test_the_undisturbed_run_is_worth_comparing_with(reference):
    (files, units, users, made, modules), told = reference
    assert len(told) > 80
    assert files["/proc/sys/vm/swappiness"].endswith("b'5\\n'")
    assert units["app.service"][4] == (UNIT + "# 2\n\n[Service]\nLimitNOFILE=9\n", "2", "2", "2", "2")
    assert units["soft.service"][4][1] == "2"
    assert units["fresh.service"][0] == "active"
    assert units["other.service"][2]
    assert "gone.service" not in units
    assert "/etc/app/gone.d" not in files
    assert (users, made, modules) == ({"root", "app"}, {"/etc/tmpfiles.d/app.conf"}, ["br_net"])


def test_killed_anywhere_once_and_run_again(tmp_path: Path, reference):
    end, told = reference
    for number, name in enumerate(told):
        host = make(tmp_path / f"root{number}")
        host.tick = kill_at(number)
        with pytest.raises(KilledError):
            host.lay(*NEW)
        host.tick = lambda name: None
        host.lay(*NEW)
        assert settled(host) == end, f"killed at step {number}: {name}"
        again = host.lay(*NEW)
        assert not again.changed, f"killed at step {number}: {name}"


def test_killed_again_and_again_one_step_further(tmp_path: Path, reference):
    end, told = reference
    host = make(tmp_path / "root")
    for number in range(len(told) + 40):
        host.tick = kill_at(number)
        try:
            host.lay(*NEW)
            break
        except KilledError:
            continue
    host.tick = lambda name: None
    host.lay(*NEW)
    assert settled(host) == end


def test_killed_anywhere_and_the_tree_taken_back(tmp_path: Path, reference):
    """The new tree was wrong, its run was killed, and the old one is laid again: nothing of the new may stay."""
    _, told = reference
    origin = make(tmp_path / "origin")
    origin.lay(*OLD)
    end = settled(origin)[0]
    # Users, folders that hold data and what the kernel was told are not undone by taking a file away.
    for number, name in enumerate(told):
        host = make(tmp_path / f"root{number}")
        host.tick = kill_at(number)
        with pytest.raises(KilledError):
            host.lay(*NEW)
        host.tick = lambda name: None
        host.lay(*OLD)
        files = settled(host)[0]
        kept = {"/proc/sys/vm/swappiness", "/sys/module/br_net"}
        units = {path for path in set(files) ^ set(end) if not path.startswith("/run")} - kept
        assert not units, f"killed at step {number}: {name}"
        assert {path for path in end if files[path] != end[path]} - kept <= set(), f"killed at step {number}: {name}"
        for unit in ("app.service", "gone.service", "soft.service"):
            assert host.units[unit].started_with == host.now(unit), f"{unit}, killed at step {number}: {name}"
        assert host.units.get("fresh.service") is None or host.units["fresh.service"].active == "inactive", (
            f"killed at step {number}: {name}"
        )


def test_an_absent_run_killed_anywhere_leaves_nothing(tmp_path: Path):
    gone = (TreeSpec("app", absent=True), {})
    told = steps(make(tmp_path / "reference"), gone)
    for number, name in enumerate(told):
        host = make(tmp_path / f"root{number}")
        host.tick = kill_at(number)
        with pytest.raises(KilledError):
            host.lay(*gone)
        host.tick = lambda name: None
        host.lay(*gone)
        left = [path for path in host.snapshot() if any(part in path for part in ("/app", "gone", "soft", "ashlar-new"))]
        assert left == [], f"killed at step {number}: {name}"
        assert all(unit.active == "inactive" for unit in host.units.values()), f"killed at step {number}: {name}"
