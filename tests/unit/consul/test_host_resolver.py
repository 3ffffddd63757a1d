# SPDX-License-Identifier: Apache-2.0
"""A host asks its own name server first, never loses those it had, and gets its resolv.conf back."""

from __future__ import annotations

import importlib.machinery
import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

FILE = Path(__file__).parents[3] / "roles/coredns/templates/usr/local/libexec/ashlar/host-resolver"
OURS = "169.254.20.10"
CLOUD = "# by the cloud\nsearch example.internal\nnameserver 10.0.0.2\nnameserver 10.0.0.3\nnameserver 10.0.0.4\noptions edns0 rotate timeout:5\n"


def _load() -> ModuleType:
    loader = importlib.machinery.SourceFileLoader("host_resolver", str(FILE))
    spec = importlib.util.spec_from_loader("host_resolver", loader)
    assert spec
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


program: Any = _load()


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/resolv.conf").write_text(CLOUD)
    made = program.Host(str(tmp_path))
    made.calls = []
    monkeypatch.setattr(made, "systemctl", lambda *arguments: made.calls.append(arguments))
    return made


def resolv(host: Any) -> str:
    return str(host.read("etc/resolv.conf"))


def test_ours_is_first_and_the_former_follow(host: Any) -> None:
    program.enter(host, OURS, ["consul"])
    assert program.servers(resolv(host)) == [OURS, "10.0.0.2", "10.0.0.3"]
    assert "search example.internal\n" in resolv(host)
    assert "options timeout:1 attempts:2 edns0\n" in resolv(host)
    assert program.servers(host.read("var/lib/ashlar/resolver/upstream.conf")) == ["10.0.0.2", "10.0.0.3", "10.0.0.4"]


def test_again_changes_nothing(host: Any) -> None:
    program.enter(host, OURS, [])
    inode = (host.root / "etc/resolv.conf").stat().st_ino
    host.calls.clear()
    program.enter(host, OURS, [])
    assert (host.root / "etc/resolv.conf").stat().st_ino == inode
    assert host.calls == []


def test_it_is_given_back_to_the_byte(host: Any) -> None:
    program.enter(host, OURS, [])
    program.leave(host)
    assert resolv(host) == CLOUD
    program.leave(host)
    assert resolv(host) == CLOUD


def test_a_lease_becomes_what_was_before(host: Any) -> None:
    program.enter(host, OURS, [])
    (host.root / "etc/resolv.conf").write_text("nameserver 192.0.2.1\n")
    host.calls.clear()
    program.enter(host, OURS, [])
    assert program.servers(resolv(host)) == [OURS, "192.0.2.1"]
    assert program.servers(host.read("var/lib/ashlar/resolver/upstream.conf")) == ["192.0.2.1"]
    assert host.calls == [("--no-block", "try-reload-or-restart", "coredns.service")]
    program.leave(host)
    assert resolv(host) == "nameserver 192.0.2.1\n"


def test_ours_is_never_asked_by_itself(host: Any) -> None:
    (host.root / "etc/resolv.conf").write_text(f"nameserver {OURS}\n")
    program.enter(host, OURS, [])
    assert program.servers(host.read("var/lib/ashlar/resolver/upstream.conf")) == ["127.0.0.1"]


def test_a_link_is_followed_and_stays(host: Any) -> None:
    (host.root / "run").mkdir()
    (host.root / "run/resolv.conf").write_text(CLOUD)
    (host.root / "etc/resolv.conf").unlink()
    (host.root / "etc/resolv.conf").symlink_to("../run/resolv.conf")
    program.enter(host, OURS, [])
    assert (host.root / "etc/resolv.conf").is_symlink()
    assert program.servers(resolv(host))[0] == OURS


def test_a_mounted_file_is_written_in_place(host: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    replace = program.os.replace

    def busy(source: Any, target: Any) -> None:
        if str(target).endswith("etc/resolv.conf"):
            raise OSError(16, "Device or resource busy")
        replace(source, target)

    monkeypatch.setattr(program.os, "replace", busy)
    inode = (host.root / "etc/resolv.conf").stat().st_ino
    program.enter(host, OURS, [])
    assert (host.root / "etc/resolv.conf").stat().st_ino == inode
    assert program.servers(resolv(host))[0] == OURS
    assert [path.name for path in (host.root / "etc").iterdir()] == ["resolv.conf"], "nothing is left beside it"


def test_systemd_resolved_is_told_and_keeps_its_file(host: Any) -> None:
    folder = host.root / "run/systemd/resolve"
    folder.mkdir(parents=True)
    (folder / "resolv.conf").write_text(f"nameserver {OURS}\nnameserver 10.0.0.2\n")
    (folder / "stub-resolv.conf").write_text("nameserver 127.0.0.53\n")
    (host.root / "etc/resolv.conf").unlink()
    (host.root / "etc/resolv.conf").symlink_to("../run/systemd/resolve/stub-resolv.conf")
    program.enter(host, OURS, ["consul", "cluster.local"])
    assert resolv(host) == "nameserver 127.0.0.53\n"
    assert host.read("run/systemd/resolved.conf.d/ashlar.conf").endswith(f"[Resolve]\nDNS={OURS}\nDomains=~consul ~cluster.local\n")
    assert program.servers(host.read("var/lib/ashlar/resolver/upstream.conf")) == ["10.0.0.2"], "or the name server would ask itself"
    program.leave(host)
    assert not (host.root / "run/systemd/resolved.conf.d/ashlar.conf").exists()
    assert ("--no-block", "try-reload-or-restart", "systemd-resolved.service") in host.calls
