# SPDX-License-Identifier: Apache-2.0
"""A key-value store as tests use it, asked of one member at a time. etcd is the first implementation."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Protocol

from .nodes import Node, snapshot
from .plan import Plan


class KeyValueStore(Protocol):
    """Each call is answered by the member on `node`; a CommandError when it does not answer within `seconds`."""

    @property
    def members(self) -> list[Node]:
        """The nodes that are to be members."""
        ...

    def put(self, node: Node, key: str, value: str, seconds: int = 20) -> bool:
        """Writes; whether the store has confirmed it."""
        ...

    def get(self, node: Node, key: str, below: bool = False, own: bool = False) -> list[str]:
        """The value of a key, or those of all that begin with it, each one word; `own`: as the member itself knows them, without asking the others."""
        ...

    def forget(self, node: Node, key: str) -> None:
        """Removes all keys that begin so."""
        ...

    def voters(self, node: Node) -> set[str]:
        """Names of the members that have a vote."""
        ...

    def leader(self, node: Node) -> str:
        """Name of the member that leads, as this one knows it; empty: nobody."""
        ...

    def snapshot(self, node: Node) -> str:
        """Has a snapshot taken as the schedule does; the path of its file."""
        ...


@dataclass(frozen=True)
class Etcd:
    """etcd, by the etcdctl of each member."""

    members: list[Node]

    def control(self, node: Node, command: str, seconds: int = 20) -> str:
        """Output of an etcdctl command."""
        return node.run(f"set -a; . /etc/etcd/etcdctl.env; /opt/ashlar/etcd/current/etcdctl --command-timeout={seconds - 5}s {command}", seconds)

    def put(self, node: Node, key: str, value: str, seconds: int = 20) -> bool:
        return "OK" in self.control(node, f"put {key} {value}", seconds)

    def get(self, node: Node, key: str, below: bool = False, own: bool = False) -> list[str]:
        options = " ".join(["--print-value-only", *(["--prefix"] if below else []), *(["--consistency=s"] if own else [])])
        return self.control(node, f"get {options} {key}").split()

    def forget(self, node: Node, key: str) -> None:
        self.control(node, f"del --prefix {key}")

    def _listed(self, node: Node) -> list[dict[str, Any]]:
        return list(json.loads(self.control(node, "member list --write-out=json"))["members"])

    def status(self, node: Node) -> dict[str, Any]:
        """What the member says of itself."""
        return dict(json.loads(self.control(node, "endpoint status --write-out=json"))[0]["Status"])

    def voters(self, node: Node) -> set[str]:
        return {str(member["name"]) for member in self._listed(node) if not member.get("isLearner")}

    def leader(self, node: Node) -> str:
        number = self.status(node)["leader"]
        return next((str(member["name"]) for member in self._listed(node) if member["ID"] == number), "")

    def make_leader(self, node: Node) -> None:
        leader = self.leader(node)
        if leader != node.name:
            own = self.status(node)["header"]["member_id"]
            self.control(next(member for member in self.members if member.name == leader), f"move-leader {own:x}")

    def snapshot(self, node: Node) -> str:
        return snapshot(node, "etcd-snapshot.service", "/var/lib/etcd-snapshots")


ADAPTERS = {"etcd": Etcd}
"""Component -> its adapter. Consul's own store is looked at in test_discovery_catalogue."""


def store(plan: Plan, nodes: dict[str, Node]) -> KeyValueStore:
    """The adapter of the component that fills the slot."""
    component = next(name for name in plan.slots["key_value"] if name in ADAPTERS)
    return ADAPTERS[component]([nodes[name] for name in plan.on(component)])
