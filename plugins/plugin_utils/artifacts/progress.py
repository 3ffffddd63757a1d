# SPDX-License-Identifier: Apache-2.0
"""Lines that tell a waiting person what is going on: what is being obtained, what is done with it now, seconds so far."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


class Progress:
    """Progress of one artifact: the first and the last line are always said, others at most every ``interval`` seconds."""

    def __init__(
        self,
        what: str,
        say: Callable[[str], None],
        interval: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
        outlook: Callable[[], str] = str,
    ) -> None:
        """``outlook`` says how far the whole run is, behind lines that say that this one goes on."""
        self.what, self._say, self._interval, self._clock, self._outlook = what, say, interval, clock, outlook
        self._begin = clock()
        self._last = 0.0
        self._lock = threading.Lock()

    @property
    def seconds(self) -> float:
        return self._clock() - self._begin

    def restart(self) -> None:
        """Count seconds from here: what came before was waiting in line."""
        self._begin = self._clock()

    def now(self, doing: str) -> None:
        """Say it at once."""
        with self._lock:
            self._last = self._clock()
        self._say(f"{self.what}: {doing}" + (f", {self.seconds:.0f} s" if self.seconds >= 1 else ""))

    def still(self, doing: str) -> None:
        """Say it when nothing was said for a while."""
        with self._lock:
            if self._clock() - max(self._last, self._begin) < self._interval:
                return
            self._last = self._clock()
        outlook = self._outlook()
        self._say(f"{self.what}: {doing}, {self.seconds:.0f} s" + (f"; {outlook}" if outlook else ""))


def size(count: float) -> str:
    """Bytes for people: ``466 MiB``."""
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"
