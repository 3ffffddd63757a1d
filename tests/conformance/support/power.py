# SPDX-License-Identifier: Apache-2.0
"""Ways to switch a node off and on: at once, without telling it, as a power cut does.

1. `conformance_power` of the inventory: {"off": command, "on": command} for this machine, `{node}` and `{address}` filled in.
2. Local nodes: the podman container that has the node's address.
3. Else all units of the platform and all pods are killed over SSH; the machine itself stays up.
"""

from __future__ import annotations

import json
import shlex
import subprocess
from dataclasses import dataclass, field
from typing import Protocol

from .nodes import Node
from .plan import Plan


def reachable(node: Node) -> bool:
    """Whether a node is on and answers by SSH."""
    try:
        return node.ask("true", 5).code == 0
    except RuntimeError:
        node.disconnect()
        return False


class Power(Protocol):
    """A switch for nodes."""

    def off(self, node: Node) -> None: ...

    def on(self, node: Node) -> None: ...


def _here(command: list[str]) -> str:
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=True).stdout


@dataclass(frozen=True)
class CommandPower:
    """Commands of the site's own, run on the controller."""

    commands: dict[str, str]

    def off(self, node: Node) -> None:
        _here(shlex.split(self.commands["off"].format(node=node.name, address=node.address)))
        node.disconnect()

    def on(self, node: Node) -> None:
        _here(shlex.split(self.commands["on"].format(node=node.name, address=node.address)))


@dataclass(frozen=True)
class PodmanPower:
    """Local nodes; node name -> container."""

    containers: dict[str, str]

    def off(self, node: Node) -> None:
        _here(["podman", "kill", self.containers[node.name]])
        node.disconnect()

    def on(self, node: Node) -> None:
        _here(["podman", "start", self.containers[node.name]])


@dataclass(frozen=True)
class UnitPower:
    """What a test can do over SSH alone."""

    stopped: dict[str, list[str]] = field(default_factory=dict)

    def off(self, node: Node) -> None:
        names = node.run("cd /var/lib/ashlar/units && ls | sed 's/[.]json$//'").split()
        self.stopped[node.name] = [unit for unit in names if unit.endswith(".service") and "firewall" not in unit]
        units = " ".join(self.stopped[node.name])
        node.run(f"systemctl kill --signal=KILL {units}; systemctl stop {units}; systemctl kill --signal=KILL kubepods.slice || true", 90)

    def on(self, node: Node) -> None:
        node.run(f"systemctl start --no-block {' '.join(self.stopped[node.name])}")


def containers() -> dict[str, str]:
    """Address -> container of everything podman runs on this machine."""
    try:
        names = _here(["podman", "ps", "--format", "{{.Names}}"]).split()
        described = json.loads(_here(["podman", "inspect", *names])) if names else []
    except (OSError, subprocess.SubprocessError):
        return {}
    found = {}
    for container in described:
        for network in (container["NetworkSettings"].get("Networks") or {}).values():
            if network.get("IPAddress"):
                found[network["IPAddress"]] = container["Name"]
    return found


def switch(plan: Plan) -> Power:
    """The way that fits the site."""
    if "conformance_power" in plan.shared:
        return CommandPower(plan.shared["conformance_power"])
    found = containers()
    if all(machine.address in found for machine in plan.machines.values()):
        return PodmanPower({machine.name: found[machine.address] for machine in plan.machines.values()})
    return UnitPower()
