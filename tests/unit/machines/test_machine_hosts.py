# SPDX-License-Identifier: Apache-2.0
"""Machines as hosts: which address, which user, and what ssh itself makes of the options."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
from ansible.inventory.data import InventoryData
from ansible_collections.ashlar.stack.plugins.plugin_utils.machines.contract import Bastion, Machine, parse_machines
from ansible_collections.ashlar.stack.plugins.plugin_utils.machines.hosts import HostOptions, host_variables, site_ssh, ssh_arguments, write_hosts
from ansible_collections.ashlar.stack.plugins.plugin_utils.site.models import SiteError
from states import machine

BASTION = {"host": "198.51.100.9", "user": "jump"}


def machines(**changes: Any) -> dict[str, Machine]:
    parsed, problems = parse_machines({"a": machine(1, **changes)}, "x")
    assert not problems
    return parsed


def variables(options: HostOptions | None = None, **changes: Any) -> dict[str, Any]:
    return host_variables(machines(**changes), options or HostOptions())["a"]


def test_every_field_becomes_its_variable() -> None:
    assert variables() == {
        "node_address": "10.0.0.2",
        "node_classes": ["worker"],
        "node_zone": "eu-1a",
        "node_region": "eu-1",
        "node_labels": {"disk": "ssd"},
        "node_id": "i-0001",
        "node_volumes": [{"name": "data", "size_gib": 100, "device": "/dev/disk/by-id/data"}],
        "node_load_balancers": {"control": "lb.example.com"},
        "node_ssh_host_keys": ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ"],
        "node_management": {"protocol": "redfish", "address": "https://192.0.2.7"},
        "ansible_host": "198.51.100.2",
        "ansible_user": "admin",
        "ansible_become": True,
        "ansible_port": 22,
    }


def test_what_a_machine_does_not_say_is_not_said() -> None:
    bare, _ = parse_machines({"a": {"classes": ["edge"], "private_ip": "10.0.0.1", "user": "root"}}, "x")
    assert host_variables(bare, HostOptions())["a"] == {
        "node_address": "10.0.0.1",
        "node_classes": ["edge"],
        "ansible_host": "10.0.0.1",
        "ansible_user": "root",
    }


@pytest.mark.parametrize(
    ("address", "public", "bastion", "used", "proxied"),
    [
        ("auto", True, False, "public", False),
        ("auto", False, False, "private", False),
        ("auto", True, True, "private", True),
        ("private", True, False, "private", False),
        ("private", True, True, "private", True),
        ("public", True, True, "public", False),
    ],
)
def test_which_address_is_used(address: Any, public: bool, bastion: bool, used: str, proxied: bool) -> None:
    of_host = variables(HostOptions(address=address), public_ip="198.51.100.2" if public else None, bastion=BASTION if bastion else None)
    assert of_host["ansible_host"] == {"public": "198.51.100.2", "private": "10.0.0.2"}[used]
    assert ("ProxyCommand" in of_host.get("ansible_ssh_common_args", "")) == proxied
    assert of_host.get("node_bastion") == (BASTION if bastion else None)


def test_a_public_address_that_is_wanted_and_not_there_is_an_error() -> None:
    inventory = InventoryData()
    with pytest.raises(SiteError) as caught:
        write_hosts(inventory, machines(public_ip=None), HostOptions(address="public", where="file"))
    assert [(problem.file, problem.path, problem.text) for problem in caught.value.problems] == [
        ("file", ("a",), "has no public address. Choose `address: private` or `auto`, or give the machine one.")
    ]
    assert not inventory.hosts


def test_options_stand_over_what_machines_say() -> None:
    options = HostOptions(user="root", bastion=Bastion("jump.example.com", "me", 2222))
    of_host = variables(options, bastion=BASTION)
    assert of_host["ansible_user"] == "root"
    assert "ansible_become" not in of_host
    assert "-p 2222" in of_host["ansible_ssh_common_args"]
    assert "jump.example.com" in of_host["ansible_ssh_common_args"]
    inside = variables(HostOptions(bastion=Bastion("x", "y"), use_bastion=False), bastion=BASTION)
    assert inside["ansible_host"] == "198.51.100.2"
    assert "ansible_ssh_common_args" not in inside


@pytest.mark.parametrize("folder", ["site", "a site", 'it\'s 100% "ours" %h $HOME;`id`'])
def test_ssh_reads_the_options_as_they_are_meant(tmp_path: Path, folder: str) -> None:
    ssh = tmp_path / folder / "credentials" / "ssh"
    ssh.mkdir(parents=True)
    assert site_ssh(tmp_path / folder) == (None, None)
    for name in ("known_hosts", "id_ed25519"):
        (ssh / name).write_text("")
    known_hosts, key = site_ssh(tmp_path / folder)
    assert (known_hosts, key) == (ssh / "known_hosts", ssh / "id_ed25519")
    arguments = shlex.split(ssh_arguments(Bastion("198.51.100.9", "jump", 2222), known_hosts, key))
    read = settings(*arguments, "10.0.0.5")
    assert read["userknownhostsfile"] == str(ssh / "known_hosts")
    assert (read["stricthostkeychecking"], read["identitiesonly"]) == ("true", "yes")
    # What ssh would run: it puts the target in, and a shell takes it apart.
    command = read["proxycommand"].replace("%%", "\0").replace("%h", "10.0.0.5").replace("%p", "22").replace("\0", "%")
    words = subprocess.run(["sh", "-c", f"printf '%s\\n' {command}"], capture_output=True, text=True, check=True).stdout.splitlines()
    assert words[0] == "ssh"
    assert words[-5:] == ["[10.0.0.5]:22", "-l", "jump", "--", "198.51.100.9"]
    hop = settings(*words[1:-6], *words[-4:])
    assert hop["userknownhostsfile"] == str(ssh / "known_hosts")
    assert hop["identityfile"] == str(ssh / "id_ed25519").replace("%", "%%")
    assert (hop["stricthostkeychecking"], hop["identitiesonly"], hop["port"], hop["user"]) == ("true", "yes", "2222", "jump")


def test_a_bastion_cannot_smuggle_a_command() -> None:
    arguments = shlex.split(ssh_arguments(Bastion("-oProxyCommand=touch x; `id` $(id) %h", "jump"), None, None))
    command = settings(*arguments, "10.0.0.5")["proxycommand"]
    words = shlex.split(command)
    assert words[-2:] == ["--", "-oProxyCommand=touch x; `id` $(id) %%h"]


def test_connections_of_sites_with_the_same_addresses_are_not_mixed_up() -> None:
    paths = {
        variables(bastion={"host": "198.51.100.9", "user": "jump"})["ansible_control_path"],
        variables(bastion={"host": "198.51.100.8", "user": "jump"})["ansible_control_path"],
        variables(bastion={"host": "198.51.100.9", "user": "jump"}, id="i-9999")["ansible_control_path"],
    }
    assert len(paths) == 3
    assert "ansible_control_path" not in variables()


def settings(*arguments: str) -> dict[str, str]:
    """What ssh would do with these arguments."""
    done = subprocess.run(["ssh", "-F", "none", "-G", *arguments], capture_output=True, text=True, check=True)
    return dict(line.split(" ", 1) for line in done.stdout.splitlines() if " " in line)
