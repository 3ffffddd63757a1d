# SPDX-License-Identifier: Apache-2.0
"""Packages with a dpkg of our own that remembers what it was told."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
from ansible_collections.ashlar.stack.plugins.module_utils.artifact import debian
from ansible_collections.ashlar.stack.plugins.module_utils.artifact import install as artifact
from ansible_collections.ashlar.stack.plugins.modules import artifact as module

from .conftest import ARCHITECTURE, Machine, TinyStore

PLATFORM = f"{ARCHITECTURE}-trixie"


class Dpkg:
    """Installs files whose content is ``package version``; `fail` are packages whose first unpacking fails (Pre-Depends)."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.installed: dict[str, str] = {}
        self.calls: list[list[str]] = []
        self.fail: set[str] = set()
        self.broken: set[str] = set()
        self.policy = ""
        (root / "var/lib/dpkg/updates").mkdir(parents=True)
        (root / "usr/sbin").mkdir(parents=True)
        (root / "var/lib/dpkg/status").write_text("")

    def run(self, command: Sequence[str], seconds: int = 60, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        command = list(command)
        self.calls.append(command)
        status, out, err = 0, "", ""
        if command[0] == "dpkg-query":
            out = "".join(f"{name}\tinstalled\t{self.installed[name]}\n" for name in command[4:] if name in self.installed)
        elif command[0] == "dpkg-deb":
            name, version = Path(command[-1]).read_text().split()
            out = f"{name}\t{version}"
        elif "--compare-versions" in command:
            status = 0 if [int(p) for p in command[2].split(".")] < [int(p) for p in command[4].split(".")] else 1
        elif "-i" in command:
            assert environment and environment["DEBIAN_FRONTEND"] == "noninteractive" and environment["DPKG_FRONTEND_LOCKED"]
            self.policy = (self.root / "usr/sbin/policy-rc.d").read_text()
            for path in command[command.index("-i") + 1 :]:
                name, version = Path(path).read_text().split()
                if name in self.broken or name in self.fail:
                    self.fail.discard(name)
                    status, err = 1, f"dpkg: error processing {name}\n"
                else:
                    self.installed[name] = version
            (self.root / "var/lib/dpkg/status").write_text(str(self.installed))
        return subprocess.CompletedProcess(command, status, out, err)

    def count(self, *words: str) -> int:
        return len([call for call in self.calls if all(word in call for word in words)])


@pytest.fixture
def dpkg(machine: Machine, store: TinyStore, monkeypatch: pytest.MonkeyPatch) -> Dpkg:
    fake = Dpkg(machine.root)
    monkeypatch.setattr(debian, "_run", fake.run)
    store.add("tools", "1", {"socat_1.8_amd64.deb": "socat 1.8", "kmod_34.2_amd64.deb": "kmod 34.2"}, platform=PLATFORM)
    return fake


def test_missing_packages_are_installed_in_one_call(machine: Machine, dpkg: Dpkg) -> None:
    done = machine.bring(tools="1")
    assert done["packages"] == {"socat": "1.8", "kmod": "34.2"} == dpkg.installed
    assert dpkg.count("-i") == 1


def test_then_dpkg_is_not_even_asked(machine: Machine, dpkg: Dpkg) -> None:
    machine.bring(tools="1")
    dpkg.calls.clear()
    assert not machine.inspect(tools="1")["changed"] and dpkg.calls == []


def test_when_its_database_changed_it_is_asked_once(machine: Machine, dpkg: Dpkg) -> None:
    machine.bring(tools="1")
    (machine.root / "var/lib/dpkg/status").write_text("something else was installed")
    dpkg.calls.clear()
    assert not machine.inspect(tools="1")["changed"] and dpkg.count("dpkg-query") == 1
    dpkg.calls.clear()
    assert not machine.inspect(tools="1")["changed"] and dpkg.calls == []


def test_a_removed_package_comes_back(machine: Machine, dpkg: Dpkg) -> None:
    machine.bring(tools="1")
    del dpkg.installed["kmod"]
    (machine.root / "var/lib/dpkg/status").write_text("removed")
    dpkg.calls.clear()
    done = machine.bring(tools="1")
    assert done["lacking"]["tools"]["reason"] == "package kmod is not installed" and done["packages"] == {"kmod": "34.2"}


def test_equal_and_newer_packages_stay_and_are_not_even_sent(machine: Machine, dpkg: Dpkg) -> None:
    dpkg.installed = {"kmod": "35.0", "socat": "1.8"}
    assert machine.bring(send=False, tools="1")["packages"] == {}
    assert dpkg.count("-i") == 0 and dpkg.installed["kmod"] == "35.0"


def test_older_packages_are_upgraded(machine: Machine, dpkg: Dpkg) -> None:
    dpkg.installed = {"kmod": "33.0", "socat": "1.8"}
    assert machine.bring(tools="1")["packages"] == {"kmod": "34.2"}


def test_an_epoch_in_the_file_name_and_one_left_out(machine: Machine, dpkg: Dpkg) -> None:
    assert artifact.package_of("a/dbus_1%3a2.3-4_amd64.deb") == ("dbus", "1:2.3-4")
    dpkg.installed = {"kmod": "1:34.2", "socat": "1.8"}
    assert machine.bring(send=False, tools="1")["packages"] == {}


def test_other_names_are_refused() -> None:
    raw = {"name": "a", "version": "1", "digest": "", "files": [{"path": "kmod.deb", "sha256": "0" * 64, "size": 1, "mode": "0644"}]}
    with pytest.raises(artifact.InstallError, match="must be named <package>_<version>_<architecture>.deb"):
        artifact.parse_index(raw)


def test_services_may_not_start_meanwhile(machine: Machine, dpkg: Dpkg) -> None:
    machine.bring(tools="1")
    assert "exit 101" in dpkg.policy
    assert not (machine.root / "usr/sbin/policy-rc.d").exists()


def test_a_policy_of_the_hosts_own_comes_back(machine: Machine, dpkg: Dpkg) -> None:
    policy = machine.root / "usr/sbin/policy-rc.d"
    policy.write_text("own")
    machine.bring(tools="1")
    assert "exit 101" in dpkg.policy and policy.read_text() == "own" and not policy.with_name("policy-rc.d.ashlar").exists()


def test_a_kill_meanwhile_loses_no_policy(machine: Machine, dpkg: Dpkg) -> None:
    policy = machine.root / "usr/sbin/policy-rc.d"
    policy.write_text(debian.POLICY_TEXT)
    policy.with_name("policy-rc.d.ashlar").write_text("own")
    machine.bring(tools="1")
    assert policy.read_text() == "own"


@pytest.mark.parametrize("status", ["Package: x\nStatus: install ok half-configured\n", "Package: x\nStatus: install ok unpacked\n"])
def test_an_interrupted_dpkg_is_finished_first(machine: Machine, dpkg: Dpkg, status: str) -> None:
    (machine.root / "var/lib/dpkg/status").write_text(status)
    machine.bring(tools="1")
    assert [("--configure" in call) for call in dpkg.calls if call[0] == "dpkg" and "--compare-versions" not in call] == [True, False]


def test_a_journal_that_was_left_counts_as_interrupted(machine: Machine, dpkg: Dpkg) -> None:
    (machine.root / "var/lib/dpkg/updates/0001").write_text("")
    assert debian.interrupted(str(machine.root))


def test_an_order_that_needs_two_passes(machine: Machine, dpkg: Dpkg) -> None:
    dpkg.fail = {"socat"}
    machine.bring(tools="1")
    assert dpkg.installed == {"socat": "1.8", "kmod": "34.2"} and dpkg.count("-i") == 2


def test_a_package_that_cannot_be_installed_is_one_clear_error(machine: Machine, dpkg: Dpkg) -> None:
    dpkg.broken = {"socat"}
    with pytest.raises(artifact.InstallError, match=r"dpkg could not install socat: dpkg: error processing socat.*dpkg --configure -a"):
        machine.bring(tools="1")
    assert not (machine.root / "usr/sbin/policy-rc.d").exists()
    assert not machine.path("tools/current").exists()
    dpkg.broken = set()
    assert machine.bring(tools="1")["packages"] == {"socat": "1.8"}


def test_a_held_lock_is_waited_for_and_then_told(machine: Machine, dpkg: Dpkg) -> None:
    path = machine.root / "var/lib/dpkg/lock-frontend"
    path.write_text("")
    # A record lock belongs to a process, so the holder must be another one.
    code = f"import fcntl,sys; f=open({str(path)!r},'a'); fcntl.lockf(f, fcntl.LOCK_EX); print('held', flush=True); sys.stdin.read()"
    import sys

    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout and holder.stdout.readline()
        with pytest.raises(artifact.InstallError, match="is held by another program"), debian.lock(str(machine.root), 0.3):
            pass
        holder.communicate()
    with debian.lock(str(machine.root), 0.3):
        pass


def test_packages_and_files_of_one_artifact(machine: Machine, dpkg: Dpkg, store: TinyStore) -> None:
    store.add("mixed", "1", {"kmod_34.2_amd64.deb": "kmod 34.2", "bin/tool": "tool"}, platform=PLATFORM)
    machine.bring(mixed="1")
    assert machine.read("mixed/current/bin/tool") == "tool" and dpkg.installed == {"kmod": "34.2"}
    assert not list(machine.path("mixed").rglob("*.deb"))
    assert not machine.inspect(mixed="1")["changed"]


def test_packages_only_still_have_a_version_in_use(machine: Machine, dpkg: Dpkg) -> None:
    machine.bring(tools="1")
    assert machine.host().current("tools") == "1" and machine.path("tools/current").is_dir()
    assert not machine.inspect(options=module.Options(verify=True), tools="1")["changed"]
