# SPDX-License-Identifier: Apache-2.0
"""An orchestrator as tests use it that need something that runs, and do not care by what it is run.

Each orchestrator has one adapter, named in `ADAPTERS` by its component. What is particular to one (its API, its kinds of objects) is asked of that one,
by tests that say so with `needs`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

ADAPTERS = {"kubernetes_control": "workload"}
"""Component -> the fixture that is its adapter."""
WEB_PORT = 8080
BLOB_KIB = 4096


@dataclass(frozen=True)
class Instance:
    """A running web server: it answers its name at `/` of port 8080, `<name> <node> <asker>` at `/cgi-bin/who`, and, where it
    is the one of a node, BLOB_KIB of noise at `/blob`."""

    name: str
    node: str
    address: str


class Applications(Protocol):
    """Small web servers on a site's nodes. One is on each node all the time; others are started and removed by tests."""

    @property
    def nodes(self) -> list[str]:
        """Names of the nodes that run applications."""
        ...

    def everywhere(self) -> dict[str, Instance]:
        """Node -> its web server, as they are now: those that are ready. After a node was off, its own has another address."""
        ...

    def start(self, name: str, count: int) -> None:
        """Starts so many web servers under a name; waits for nothing."""
        ...

    def instances(self, name: str, count: int) -> list[Instance]:
        """The ready ones of a name, once there are so many."""
        ...

    def scale(self, name: str, count: int) -> list[Instance]:
        """The ready ones of a name once there are so many, because there have to be."""
        ...

    def keep(self, instances: Sequence[Instance]) -> None:
        """These are the last to go when there are to be fewer."""
        ...

    def kill(self, instance: Instance) -> None:
        """Ends one without a word; the orchestrator is to replace it."""
        ...

    def remove(self, name: str) -> None:
        """Removes all of a name and waits until they are gone."""
        ...

    def run_in(self, instance: Instance, command: str, seconds: float = 120) -> str:
        """Output of a shell command in an instance that has to succeed."""
        ...
