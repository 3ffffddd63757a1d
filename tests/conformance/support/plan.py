# SPDX-License-Identifier: Apache-2.0
"""The plan of a site, as `ansible-inventory --list` tells it: the tests know nothing of a site but this."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[3]


class PlanError(Exception):
    """The inventory can't be read, or holds no site."""


@dataclass(frozen=True)
class Machine:
    """A node of the plan; `variables` are all its inventory variables."""

    name: str
    variables: dict[str, Any]

    @property
    def address(self) -> str:
        return str(self.variables["node_address"])

    @property
    def components(self) -> list[str]:
        return list(self.variables["node_components"])

    @property
    def ports(self) -> list[dict[str, Any]]:
        return list(self.variables["node_ports"])


@dataclass(frozen=True)
class Plan:
    """A site: its machines and what they are to be."""

    inventory: Path
    machines: dict[str, Machine]

    @cached_property
    def shared(self) -> dict[str, Any]:
        """The variables that are the same on all hosts."""
        return next(iter(self.machines.values())).variables

    @property
    def site(self) -> str:
        return str(self.shared["site_name"])

    @property
    def credentials(self) -> Path:
        return Path(self.shared["site_credentials"])

    @property
    def components(self) -> list[str]:
        return list(self.shared["site_components"])

    @property
    def versions(self) -> dict[str, str]:
        return dict(self.shared["artifact_versions"])

    @property
    def networks(self) -> dict[str, Any]:
        return dict(self.shared["site_networks"])

    @property
    def endpoints(self) -> dict[str, dict[str, list[str]]]:
        return dict(self.shared["endpoints"])

    @cached_property
    def slots(self) -> dict[str, list[str]]:
        """Slot -> the chosen components whose manifest says that they fill it."""
        slots: dict[str, list[str]] = {}
        for component in self.components:
            filled = manifest(component).get("fills") or []
            for slot in [filled] if isinstance(filled, str) else filled:
                slots.setdefault(slot, []).append(component)
        return slots

    def has(self, name: str) -> bool:
        """Whether a slot is filled, or a component chosen."""
        return name in self.slots or name in self.components

    def on(self, component: str) -> list[str]:
        """Names of the nodes that carry a component."""
        return list(self.shared["component_nodes"].get(component, []))

    def option(self, component: str, name: str, node: str | None = None) -> Any:
        """A component's variable: the inventory's, else the role's default."""
        variables = self.machines[node].variables if node else self.shared
        return variables.get(name, defaults(component).get(name))


def manifest(component: str) -> dict[str, Any]:
    return _read(ROOT / "roles" / component / "meta" / "component.yml")


def defaults(component: str) -> dict[str, Any]:
    return _read(ROOT / "roles" / component / "defaults" / "main.yml")


def _read(path: Path) -> dict[str, Any]:
    return (yaml.safe_load(path.read_text()) or {}) if path.exists() else {}


def bare(value: Any) -> Any:
    """Values without the wrapping by which ansible-inventory marks strings that are no templates."""
    if isinstance(value, dict):
        return value["__ansible_unsafe"] if set(value) == {"__ansible_unsafe"} else {key: bare(one) for key, one in value.items()}
    return [bare(one) for one in value] if isinstance(value, list) else value


def read(inventory: str) -> Plan:
    """The plan of an inventory folder or file (relative to the checkout)."""
    path = (ROOT / inventory).resolve()
    if not path.exists():
        raise PlanError(f"{path}: no such inventory; ASHLAR_INVENTORY names a site's folder, such as inventories/local")
    command = [str(Path(sys.executable).parent / "ansible-inventory"), "-i", str(path), "--list"]
    environment = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=False)
    if done.returncode != 0:
        raise PlanError(f"{path}: ansible-inventory says:\n{done.stderr.strip()}")
    hosts = bare(json.loads(done.stdout)["_meta"]["hostvars"])
    machines = {name: Machine(name, variables) for name, variables in hosts.items() if "node_components" in variables}
    if not machines:
        raise PlanError(f"{path}: no host has node_components; is there a 20-stack.yml for the ashlar.stack.stack plugin?")
    return Plan(path, machines)


def converge(plan: Plan, roles: list[str], folder: Path, seconds: int = 300) -> str:
    """Runs roles of these names on their nodes, in this order; what the run said. An AssertionError when it fails."""
    playbook = folder / "converge.yml"
    playbook.write_text(yaml.safe_dump([{"name": role, "hosts": role, "roles": [f"ashlar.stack.{role}"]} for role in roles]))
    command = [str(Path(sys.executable).parent / "ansible-playbook"), "-i", str(plan.inventory), str(playbook)]
    environment = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=seconds, check=False)
    assert done.returncode == 0, f"{', '.join(roles)}: {done.stdout[-3000:]} {done.stderr[-1000:]}"
    return done.stdout
