# SPDX-License-Identifier: Apache-2.0
"""Machines become hosts of the inventory: the table of docs/architecture.md, section Machines."""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ansible_collections.ashlar.stack.plugins.plugin_utils.machines.contract import Bastion, Machine
from ansible_collections.ashlar.stack.plugins.plugin_utils.site.models import Problem, SiteError

Address = Literal["auto", "public", "private"]
ADDRESSES: tuple[Address, ...] = ("auto", "public", "private")


@dataclass(frozen=True, slots=True)
class HostOptions:
    """How the machines are reached.

    ``address``: ``public`` or ``private`` says which one SSH goes to; ``auto`` is the private one where SSH goes through a bastion, else
    the public one where the machine has one, else the private one. ``user`` and ``bastion`` stand for what the machines say;
    ``use_bastion`` false ignores every bastion, since the controller is inside. ``known_hosts`` and ``key`` are absolute paths of files
    that exist, or None. ``where`` is what an error blames.
    """

    address: Address = "auto"
    user: str | None = None
    bastion: Bastion | None = None
    use_bastion: bool = True
    known_hosts: Path | None = None
    key: Path | None = None
    where: str = ""


def site_ssh(directory: Path) -> tuple[Path | None, Path | None]:
    """``credentials/ssh/known_hosts`` and ``credentials/ssh/id_ed25519`` of a site's folder, absolute; None for what isn't there."""
    folder = directory.absolute() / "credentials" / "ssh"
    files = (folder / "known_hosts", folder / "id_ed25519")
    known_hosts, key = (file if file.is_file() else None for file in files)
    return known_hosts, key


def write_hosts(inventory: Any, machines: Mapping[str, Machine], options: HostOptions) -> None:
    """Adds a host for every machine and sets its variables.

    :param inventory: Ansible's InventoryData.
    :raises SiteError: with every machine that can't be reached as the options want; nothing was added then.
    """
    variables = host_variables(machines, options)
    for name, of_host in variables.items():
        inventory.add_host(name, group="all")
        # Not by inventory.set_variable, which would look for each variable's host once more, thousands of times.
        inventory.hosts[name].vars.update(of_host)


def host_variables(machines: Mapping[str, Machine], options: HostOptions) -> dict[str, dict[str, Any]]:
    """Host -> its variables. Machines with the same bastion share what is said about it.

    :raises SiteError: with every machine that has no address of the kind that is asked for.
    """
    problems: list[Problem] = []
    hosts: dict[str, dict[str, Any]] = {}
    arguments: dict[Bastion | None, str] = {}
    for name, machine in machines.items():
        bastion = (options.bastion or machine.bastion) if options.use_bastion else None
        if options.address == "public" or (options.address == "auto" and bastion is None and machine.public_ip is not None):
            bastion, address = None, machine.public_ip
            if address is None:
                text = "has no public address. Choose `address: private` or `auto`, or give the machine one."
                problems.append(Problem(options.where, (name,), text))
                continue
        else:
            address = machine.private_ip
        of_host = _facts(machine)
        of_host["ansible_host"] = address
        of_host["ansible_user"] = options.user or machine.user
        if of_host["ansible_user"] != "root":
            of_host["ansible_become"] = True
        if machine.port is not None:
            of_host["ansible_port"] = machine.port
        if options.key:
            of_host["ansible_ssh_private_key_file"] = str(options.key)
        if bastion not in arguments:
            arguments[bastion] = ssh_arguments(bastion, options.known_hosts, options.key)
        if arguments[bastion]:
            of_host["ansible_ssh_common_args"] = arguments[bastion]
        if bastion is not None:
            of_host["ansible_control_path"] = _control_path(bastion, machine, address)
            # A bastion's sshd drops connections at random when many knock at once (MaxStartups).
            of_host["ansible_ssh_retries"] = 3
        hosts[name] = of_host
    if problems:
        raise SiteError(problems)
    return hosts


def ssh_arguments(bastion: Bastion | None, known_hosts: Path | None, key: Path | None) -> str:
    """The options of ssh, as ``ansible_ssh_common_args`` wants them: one text that is split as a shell would.

    A bastion becomes a ProxyCommand and not ``-J``: of the options on the command line ssh gives neither the key nor the known hosts to
    the ssh that it starts for ``-J``, so the bastion's key would be looked for elsewhere.
    """
    words = _host_key_words(known_hosts, key)
    if bastion is not None:
        inner = ["ssh", *words]
        if key:
            # Not -i, which looks for the file before it has taken tokens for what they mean.
            inner += ["-o", f"IdentityFile={_file(key)}"]
        inner += ["-o", "BatchMode=yes", "-o", "ConnectTimeout=10", "-o", "ControlPath=none"]
        if bastion.port is not None:
            inner += ["-p", str(bastion.port)]
        # ssh runs the text by a shell, after it has put the target in for %h and %p and a percent sign for two.
        command = " ".join(shlex.quote(word).replace("%", "%%") for word in inner)
        command += f" -W '[%h]:%p' -l {shlex.quote(bastion.user)} -- {shlex.quote(bastion.host).replace('%', '%%')}"
        words += ["-o", f"ProxyCommand={command}"]
    return shlex.join(words)


def _facts(machine: Machine) -> dict[str, Any]:
    facts: dict[str, Any] = {"node_address": machine.private_ip, "node_classes": list(machine.classes)}
    for name, value in (
        ("node_zone", machine.zone),
        ("node_region", machine.region),
        ("node_labels", dict(machine.labels)),
        ("node_id", machine.id),
        ("node_volumes", [{"name": volume.name, "size_gib": volume.size_gib, "device": volume.device} for volume in machine.volumes]),
        ("node_load_balancers", dict(machine.load_balancers)),
        ("node_ssh_host_keys", list(machine.ssh_host_keys)),
        ("node_bastion", machine.bastion and _bastion(machine.bastion)),
        ("node_management", machine.management and {"protocol": machine.management.protocol, "address": machine.management.address}),
    ):
        if value:
            facts[name] = value
    return facts


def _bastion(bastion: Bastion) -> dict[str, Any]:
    return {"host": bastion.host, "user": bastion.user, **({} if bastion.port is None else {"port": bastion.port})}


def _host_key_words(known_hosts: Path | None, key: Path | None) -> list[str]:
    words: list[str] = []
    if known_hosts:
        words += ["-o", f"UserKnownHostsFile={_file(known_hosts)}", "-o", "StrictHostKeyChecking=yes"]
    if key:
        words += ["-o", "IdentitiesOnly=yes"]
    return words


def _file(path: Path) -> str:
    # ssh takes a text with blanks for several files unless it is quoted, and %-signs for tokens.
    escaped = str(path).replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{escaped}"'


def _control_path(bastion: Bastion, machine: Machine, address: str) -> str:
    # Ansible's own name for a connection that is kept open knows the address only, and private addresses of two sites may be the same:
    # without the bastion and the machine in it, a command could go to another site's machine.
    identity = f"{bastion.host} {bastion.port} {bastion.user} {address} {machine.port} {machine.id}"
    return f"%(directory)s/{hashlib.sha256(identity.encode()).hexdigest()[:12]}-%%r"
