# SPDX-License-Identifier: Apache-2.0
"""The host's half: files, owners, users, removal and the diff, below a temporary root."""

from __future__ import annotations

import json
import os
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.ashlar.stack.plugins.modules import certificates as module

ME = (os.geteuid(), os.getegid())
CRT = "/etc/ashlar/pki/etcd/server.crt"
KEY = "/etc/ashlar/pki/etcd/server.key"
CA = "/etc/ashlar/pki/ca/etcd.crt"


def files(**content: str) -> list[module.File]:
    return [
        module.File(CA, content.get("ca", "CA"), "root", 0o644, {"common_name": "etcd authority"}),
        module.File(CRT, content.get("crt", "CRT"), "root", 0o644, {"common_name": content.get("name", "node1"), "dns": ["localhost", "node1"]}),
        module.File(KEY, content.get("key", "SECRET"), "etcd", 0o600, {"owner": "etcd"}),
    ]


class Machine:
    """A host below a root, on which every user exists but those in `unknown`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.unknown: set[str] = set()
        self.made: list[str] = []

    def account(self, user: str) -> tuple[int, int] | None:
        return None if user in self.unknown else ME

    def make(self, user: str) -> None:
        self.made.append(user)
        self.unknown.discard(user)

    def lay(self, wanted: list[module.File] | None = None, check: bool = False, prune: bool = True) -> module.Outcome:
        laying = module.Laying(str(self.root), check, self.account, self.make)
        return laying.run(files() if wanted is None else wanted, prune)

    def read(self, path: str) -> str:
        return (self.root / path[1:]).read_text()

    def mode(self, path: str) -> int:
        return stat.S_IMODE((self.root / path[1:]).stat().st_mode)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_a_first_run_lays_everything_down(machine: Machine) -> None:
    outcome = machine.lay()
    assert outcome.written == [CA, CRT, KEY]
    assert (machine.read(CRT), machine.read(KEY)) == ("CRT", "SECRET")
    assert (machine.mode(CRT), machine.mode(KEY)) == (0o644, 0o600)
    assert machine.mode("/etc/ashlar/pki/etcd") == 0o755


def test_a_second_run_changes_nothing(machine: Machine) -> None:
    machine.lay()
    before = {path: path.stat().st_mtime_ns for path in machine.root.rglob("*")}
    assert not machine.lay().changed
    assert {path: path.stat().st_mtime_ns for path in machine.root.rglob("*")} == before


def test_what_differs_is_written_again(machine: Machine) -> None:
    machine.lay()
    assert machine.lay(files(crt="NEW")).written == [CRT]
    (machine.root / KEY[1:]).write_text("broken")
    (machine.root / CA[1:]).chmod(0o600)
    assert machine.lay(files(crt="NEW")).written == [CA, KEY]
    assert (machine.read(KEY), machine.mode(CA)) == ("SECRET", 0o644)


def test_a_link_is_replaced_and_not_followed(machine: Machine) -> None:
    machine.lay()
    target = machine.root / "target"
    target.write_text("CRT")
    path = machine.root / CRT[1:]
    path.unlink()
    path.symlink_to(target)
    assert machine.lay(files(crt="NEW")).written == [CRT]
    assert not path.is_symlink() and target.read_text() == "CRT"


def test_what_is_no_longer_asked_for_goes(machine: Machine) -> None:
    machine.lay()
    outcome = machine.lay(files()[:1])
    assert outcome.removed == [CRT, KEY]
    assert not (machine.root / "etc/ashlar/pki/etcd").exists()
    assert not machine.lay(files()[:1]).changed


def test_foreign_files_stay(machine: Machine) -> None:
    machine.lay()
    foreign = machine.root / "etc/ashlar/pki/etcd/own.crt"
    foreign.write_text("mine")
    machine.lay([])
    assert foreign.read_text() == "mine"


def test_a_part_can_be_laid_down_alone(machine: Machine) -> None:
    machine.lay()
    assert not machine.lay(files()[:1], prune=False).changed
    assert machine.read(CRT) == "CRT"
    assert machine.lay([]).removed == [CA, CRT, KEY]


def test_a_damaged_memory_removes_nothing_else(machine: Machine) -> None:
    precious = machine.root / "etc/passwd"
    precious.parent.mkdir(parents=True)
    precious.write_text("root")
    memory = machine.root / module.MEMORY[1:]
    memory.parent.mkdir(parents=True)
    memory.write_text(json.dumps({"files": {"/etc/passwd": {}, "/etc/ashlar/pki/../../passwd": {}}}))
    assert machine.lay().removed == []
    assert precious.exists()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"files": 1}'])
def test_an_unreadable_memory_is_as_good_as_none(machine: Machine, text: str) -> None:
    machine.lay()
    (machine.root / module.MEMORY[1:]).write_text(text)
    assert not machine.lay().changed
    assert machine.lay([]).removed == [CA, CRT, KEY]


def test_users_that_are_missing_are_made_first(machine: Machine) -> None:
    machine.unknown = {"etcd"}
    outcome = machine.lay()
    assert outcome.users == machine.made == ["etcd"]
    assert not machine.lay().users


def test_check_mode_writes_nothing(machine: Machine) -> None:
    machine.unknown = {"etcd"}
    outcome = machine.lay(check=True)
    assert outcome.changed and outcome.users == ["etcd"] and outcome.written == [CA, CRT, KEY]
    assert machine.made == [] and list(machine.root.iterdir()) == []
    machine.unknown = set()
    machine.lay()
    assert machine.lay([], check=True).removed == [CA, CRT, KEY]
    assert machine.read(KEY) == "SECRET"


def test_the_diff_shows_facts_and_no_key(machine: Machine) -> None:
    machine.lay()
    outcome = machine.lay(files(crt="NEW", name="node2", key="OTHER"))
    before, after = module._page(outcome.before), module._page(outcome.after)
    assert "common_name: node1" in before and "common_name: node2" in after and "dns: localhost, node1" in after
    for text in (before, after, machine.read(module.MEMORY)):
        assert "SECRET" not in text and "OTHER" not in text


def test_the_memory_has_nothing_of_a_key(machine: Machine) -> None:
    machine.lay()
    assert json.loads(machine.read(module.MEMORY))["files"][KEY] == {"facts": {"owner": "etcd"}}


def test_a_file_in_a_folders_place_is_told(machine: Machine) -> None:
    (machine.root / "etc").write_text("")
    with pytest.raises(module.LayingError, match="cannot be made"):
        machine.lay()


def test_no_half_written_file_is_seen(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.lay()

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(module.LayingError, match="No space left on device"):
        machine.lay(files(crt="NEW"))
    assert machine.read(CRT) == "CRT"
    assert sorted(os.listdir(machine.root / "etc/ashlar/pki/etcd")) == ["server.crt", "server.key"]


class TestSysusers:
    def test_the_declaration_is_given_inline(self, monkeypatch: pytest.MonkeyPatch) -> None:
        seen: list[list[str]] = []

        def run(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
            seen.append(command)
            return subprocess.CompletedProcess(command, 0, "", "")

        monkeypatch.setattr(subprocess, "run", run)
        module.sysusers("etcd")
        assert seen == [["systemd-sysusers", "--inline", 'u etcd - "Ashlar etcd" /var/lib/etcd /usr/sbin/nologin']]

    @pytest.mark.parametrize(
        ("outcome", "message"),
        [
            (FileNotFoundError(), "systemd-sysusers is not there"),
            (subprocess.TimeoutExpired("x", 1), "was not made within 30 seconds"),
            (subprocess.CompletedProcess([], 1, "", "Failed to lock"), "user etcd cannot be made: Failed to lock"),
        ],
    )
    def test_failures_are_told(self, monkeypatch: pytest.MonkeyPatch, outcome: Any, message: str) -> None:
        def run(*_: Any, **__: Any) -> Any:
            if isinstance(outcome, Exception):
                raise outcome
            return outcome

        monkeypatch.setattr(subprocess, "run", run)
        with pytest.raises(module.LayingError, match=message):
            module.sysusers("etcd")


@pytest.mark.usefixtures("hardened")
def test_services_get_at_their_keys_whatever_the_umask(machine: Machine) -> None:
    machine.lay()
    assert {machine.mode(path) for path in ("/etc/ashlar", "/etc/ashlar/pki", "/etc/ashlar/pki/etcd", "/var/lib/ashlar")} == {0o755}
    assert (machine.mode(CRT), machine.mode(KEY), machine.mode(module.MEMORY)) == (0o644, 0o600, 0o644)
