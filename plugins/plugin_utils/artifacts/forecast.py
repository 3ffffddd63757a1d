# SPDX-License-Identifier: Apache-2.0
"""How many of a run's builds are done, and about how long the rest takes: the catalogue says what each takes alone, the run how fast this machine is."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

# Share of the work that must be done before the run's own pace is believed.
ENOUGH = 0.15


class Forecast:
    """Counts builds, each known by its title, with the seconds that the catalogue expects. Safe for several threads."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._expected: dict[str, float] = {}
        self._done: set[str] = set()
        self._running: set[str] = set()
        # Seconds of the machine that each build has had: builds at the same time share them.
        self._spent: dict[str, float] = {}
        self._counted = clock()

    def expect(self, title: str, seconds: float) -> None:
        with self._lock:
            self._expected[title] = seconds

    def begin(self, title: str) -> None:
        with self._lock:
            self._count()
            self._running.add(title)

    def end(self, title: str) -> None:
        with self._lock:
            self._count()
            self._running.discard(title)
            if title in self._expected:
                self._done.add(title)

    def _count(self) -> None:
        now = self._clock()
        for title in self._running:
            self._spent[title] = self._spent.get(title, 0.0) + (now - self._counted) / len(self._running)
        self._counted = now

    def _seconds_left(self) -> float:
        """Of this run, at the pace it has had so far."""
        self._count()
        done = sum(self._expected.get(title, 0.0) for title in self._done)
        spent = sum(self._spent.get(title, 0.0) for title in self._done)
        pace = max(spent, 0.01) / done if done > ENOUGH * sum(self._expected.values()) else 1.0
        left = (max(0.0, seconds * pace - self._spent.get(title, 0.0)) for title, seconds in self._expected.items() if title not in self._done)
        return sum(left)

    def __str__(self) -> str:
        """``3 of 17 built, about 12 min left``; empty for a single build, whose own line says enough."""
        with self._lock:
            if len(self._expected) < 2:
                return ""
            minutes = self._seconds_left() / 60
            left = f"about {minutes:.0f} min left" if minutes >= 1.5 else "about a minute left"
            return f"{len(self._done)} of {len(self._expected)} built, {left}"
