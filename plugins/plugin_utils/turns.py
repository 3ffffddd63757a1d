# SPDX-License-Identifier: Apache-2.0
"""Whose turn it is to be away: at most so many members of a component at once, over all forks and runs on this controller."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PAUSE = 0.2
"""Seconds between two looks: short beside a restart, and next to nothing for the controller."""


class TurnError(Exception):
    """No turn was given; says why and what to do."""


@contextmanager
def turn(folder: Path, component: str, member: str, run: str, slots: int, limit: float) -> Iterator[None]:
    """Hold one of a component's turns while the body runs; wait for it at most `limit` seconds.

    A body that fails ends the turns of this run: the next member would be away together with one that did not come back.
    A later run begins anew. The kernel releases the turn of a process that was killed.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    failed = folder / f"{component}.{run}.failed"
    descriptor = _slot(folder, component, failed, slots, limit)
    try:
        try:
            yield
        except BaseException:
            failed.write_text(member)
            raise
    finally:
        os.close(descriptor)


def _slot(folder: Path, component: str, failed: Path, slots: int, limit: float) -> int:
    """The descriptor of a locked slot."""
    end = time.monotonic() + limit
    while True:
        for number in range(slots):
            descriptor = os.open(folder / f"{component}.{number}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(descriptor)
                continue
            # Only now: whoever held the slot before notes its failure before it lets go.
            if failed.exists():
                os.close(descriptor)
                raise TurnError(
                    f"{component} is not restarted here: {failed.read_text()} did not come back after its restart. Repair it and run the playbook again"
                )
            return descriptor
        if time.monotonic() >= end:
            raise TurnError(
                f"{component} is not restarted here: it got no turn within {limit:.0f} s, because {slots} of its members may be away"
                " at once and others still are. See whether another run is busy, and run the playbook again"
            )
        time.sleep(PAUSE)
