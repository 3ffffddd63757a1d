# SPDX-License-Identifier: Apache-2.0
"""A client that writes to the site's store all the time and remembers what was confirmed."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TypeVar

from .key_value import KeyValueStore
from .nodes import CommandError, Node
from .waiting import PATIENCE, beside

T = TypeVar("T")


@dataclass
class Writer:
    """Writes to a store without a pause, on whichever member takes it."""

    store: KeyValueStore
    key: str
    confirmed: list[str] = field(default_factory=list)
    longest: float = 0.0
    """Seconds between two writes that were confirmed, at most."""

    def active(self) -> AbstractContextManager[None]:
        """Writes as long as the block takes."""
        return beside(self._run)

    def during(self, work: Callable[[], T]) -> T:
        """What some work gives, while which it writes."""
        with self.active():
            return work()

    def text(self) -> str:
        return f"{len(self.confirmed)} writes to the store, at most {self.longest:.1f} s apart"

    def complaints(self) -> list[str]:
        """What it noticed that nobody is to notice."""
        lost = self.lost(self.store.members[0])
        return [] if self.confirmed and not lost else [f"{self.text()}; lost are {sorted(lost)}"]

    def lost(self, member: Node) -> set[str]:
        """What was confirmed and a member does not have."""
        return set(self.confirmed) - set(self.store.get(member, f"{self.key}/", below=True))

    def _run(self, end: threading.Event) -> None:
        last = time.monotonic()
        for number in range(1_000_000):
            if end.is_set():
                return
            member = self.store.members[number % len(self.store.members)]
            try:
                written = self.store.put(member, f"{self.key}/{number:06}", f"v{number:06}", 20)
            except (CommandError, RuntimeError):
                # Its host may be going down, and the connection with it.
                member.disconnect()
                written = False
            if written:
                self.confirmed.append(f"v{number:06}")
                self.longest = max(self.longest, time.monotonic() - last)
                last = time.monotonic()
            assert time.monotonic() - last < PATIENCE, "no member takes a write"
