# SPDX-License-Identifier: Apache-2.0
"""Whose host key is right, and until when a machine is waited for."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.ashlar.stack.plugins.plugin_utils.machines.apply import MachinesError
from ansible_collections.ashlar.stack.plugins.plugin_utils.machines.reach import Reach, Site, Waiter, command, explained, fingerprint, know, reach_of, remember

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl"
OTHER = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAICDC+G+GJDLOLoEt8qBSPwnmSRLIFa27TCO6Gm+pJGUc"


def reach(name: str = "a", host: str = "192.0.2.1", **more: Any) -> Reach:
    return Reach(name, host, **more)


def test_keys_that_the_maker_says_stand() -> None:
    known = know([reach(keys=(KEY,))], ["192.0.2.1 " + OTHER, "elsewhere " + OTHER], {})
    assert known.lines == ("elsewhere " + OTHER, "192.0.2.1 " + KEY) and known.first == ()
    assert know([reach(keys=(KEY,))], known.lines, {}) == known, "a second time changes nothing"


def test_a_key_that_nobody_knows_is_to_be_learned_on_first_sight() -> None:
    machine = reach(port=2222, bastion=("198.51.100.1", 22))
    assert know([machine], [], {}).first == ("198.51.100.1", "[192.0.2.1]:2222")
    assert know([machine], ["198.51.100.1 " + KEY, "[192.0.2.1]:2222 " + KEY], {}).first == ()


@pytest.mark.parametrize(
    ("remembered", "dropped"),
    [
        ({"a": {"id": "i-1", "known_as": "192.0.2.1"}}, ()),
        ({"a": {"id": "i-0", "known_as": "192.0.2.1"}}, ("a",)),
        ({"b": {"id": "i-0", "known_as": "192.0.2.1"}}, ("a",)),
        ({"a": {"id": None, "known_as": "192.0.2.1"}}, ()),
        ({}, ()),
    ],
    ids=["the same", "made anew", "another had its address", "was not known by id", "nothing remembered"],
)
def test_a_machine_that_was_made_anew_may_have_another_key(remembered: dict[str, Any], dropped: tuple[str, ...]) -> None:
    known = know([reach(id="i-1")], ["192.0.2.1 " + OTHER], remembered)
    assert known.dropped == dropped and (known.lines == ()) == bool(dropped) and (known.first != ()) == bool(dropped)


def test_machines_that_are_no_more_and_addresses_they_left_lose_their_lines() -> None:
    remembered = remember([reach("a", id="i-1"), reach("b", "192.0.2.2", id="i-2")])
    lines = ["192.0.2.1 " + KEY, "192.0.2.2 " + KEY, "198.51.100.9 " + KEY]
    assert know([reach("a", "192.0.2.7", id="i-1")], lines, remembered).lines == ("198.51.100.9 " + KEY,)


def test_how_a_machine_is_reached() -> None:
    variables = {
        "ansible_host": "192.0.2.1", "ansible_port": 2222, "ansible_user": "admin", "node_id": "i-1", "node_ssh_host_keys": [KEY],
        "ansible_ssh_common_args": "-o 'ProxyCommand=ssh -W [%h]:%p jump'", "node_bastion": {"host": "jump", "user": "j", "port": None},
    }  # fmt: skip
    machine = reach_of("a", variables)
    assert (machine.known_as, machine.user, machine.bastion, machine.arguments) == (
        "[192.0.2.1]:2222", "admin", ("jump", 22), ("-o", "ProxyCommand=ssh -W [%h]:%p jump"),
    )  # fmt: skip
    assert reach_of("a", {**variables, "ansible_ssh_common_args": ""}).bastion is None, "a bastion that is not used"
    assert reach_of("name", {}).host == "name"


def test_only_a_key_that_is_not_known_yet_is_trusted(tmp_path: Path) -> None:
    site = Site(tmp_path)
    assert "StrictHostKeyChecking=accept-new" in command(reach(), site, {"192.0.2.1"}, 10)
    assert "StrictHostKeyChecking=yes" in command(reach(), site, {"192.0.2.2"}, 10)


CHANGED = "@@@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @@@\nHost key verification failed.\n"


def test_what_ssh_said_is_explained() -> None:
    final, said = explained(reach(id="i-1", port=2222), CHANGED, "/site/known_hosts")
    assert final and "though it is the same machine (i-1)" in said and "ssh-keygen -f /site/known_hosts -R '[192.0.2.1]:2222'" in said
    final, said = explained(reach(user="admin"), "admin@192.0.2.1: Permission denied (publickey).\n", "k")
    assert not final and "admin@192.0.2.1 does not accept the key" in said
    assert explained(reach(), "ssh: connect to host 192.0.2.1 port 22: Connection refused\n", "k")[1].endswith("Connection refused")


def test_a_fingerprint_is_that_of_ssh_keygen() -> None:
    assert fingerprint(KEY).startswith("ssh-ed25519 SHA256:") and len(fingerprint(KEY)) == len("ssh-ed25519 SHA256:") + 43


@pytest.fixture
def ssh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Puts a shell script in the place of ssh; the host is its $HOST."""

    def place(script: str) -> None:
        file = tmp_path / "bin" / "ssh"
        file.parent.mkdir(exist_ok=True)
        file.write_text(f'#!/bin/sh\nwhile [ $# -gt 2 ]; do shift; done\nHOST=$1\n{script}\n')
        file.chmod(0o755)
        monkeypatch.setenv("PATH", f"{file.parent}:{os.environ['PATH']}")

    return place


def wait(tmp_path: Path, *machines: Reach, seconds: int = 20) -> None:
    site = Site(tmp_path / "site")
    site.touch()
    Waiter(site, (), seconds, lambda line: None).wait(machines)


def test_a_machine_is_waited_for_until_it_answers(tmp_path: Path, ssh: Any) -> None:
    ssh(f'echo x >>{tmp_path}/$HOST; [ "$(wc -l <{tmp_path}/$HOST)" -ge 2 ] && exit 0; echo "Connection refused" >&2; exit 255')
    wait(tmp_path, reach(), reach("b", "192.0.2.2"))
    assert (tmp_path / "192.0.2.2").read_text() == "x\nx\n"


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ('echo "ssh: connect to host: Connection timed out" >&2; exit 255', "b: ssh@192.0.2.2 does not answer by SSH: .*timed out .for 2 s."),
        ('echo "Permission denied (publickey)." >&2; exit 255', "b: ssh@192.0.2.2 does not accept the key"),
        ('echo "cloud-init failed: status: error"; exit 42', "b: cloud-init failed: status: error; look there: /var/log/cloud-init-output.log"),
        ('echo "Host key verification failed." >&2; exit 255', "b: 192.0.2.2 has a different host key"),
    ],
    ids=["silent", "key", "cloud-init", "changed"],
)
def test_a_machine_that_is_not_ready_is_named_with_why(script: str, words: str, tmp_path: Path, ssh: Any) -> None:
    ssh(f"[ $HOST = 192.0.2.1 ] && exit 0; {script}")
    with pytest.raises(MachinesError, match=words) as caught:
        wait(tmp_path, reach(), reach("b", "192.0.2.2"), seconds=2)
    assert str(caught.value).startswith("A machine is not ready for Ansible:\n") and "  a:" not in str(caught.value)


def test_the_sites_key_and_what_is_remembered(tmp_path: Path) -> None:
    site = Site(tmp_path)
    assert site.make_key() and not site.make_key()
    assert stat.S_IMODE((tmp_path / "credentials").stat().st_mode) == 0o700
    public = site.key.with_suffix(".pub")
    made = public.read_text().split()[:2]
    public.unlink()
    assert site.make_key() and public.read_text().split()[:2] == made
    site.write_memory(remember([reach(id="i-1")]))
    assert site.remembered() == {"a": {"id": "i-1", "known_as": "192.0.2.1"}}
    site.memory.write_text("[1")
    assert site.remembered() == {}
    (tmp_path / "state" / "installed.json").write_text(json.dumps({}))
    site.touch()
    assert len(site.forget()) == 3 and site.forget() == [] and site.key.exists()
