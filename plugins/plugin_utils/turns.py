# SPDX-License-Identifier: Apache-2.0
"""Whose turn it is to be away: at most so many members of a component at once, over all forks of a run."""

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
def turn(folder: Path, component: str, member: str, slots: int, limit: float) -> Iterator[None]:
    """Hold one of a component's turns while the body runs; wait for it at most `limit` seconds.

    A body that fails ends all turns: the next member might be away together with one that did not come back. The kernel releases the turn
    of a process that was killed.

    :param folder: of this run alone, which all its forks share.
    :param slots: how many members may be away at once.
    :raises TurnError: another member's turn failed, or none was free in time.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    failed = folder / f"{component}.failed"
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
                raise TurnError(f"the turn of {failed.read_text()} failed, see there. Repair that one and run the playbook again")
            return descriptor
        if time.monotonic() >= end:
            raise TurnError(f"it got no turn within {limit:.0f} s, because only {slots} may be away at once and the others took longer. Run the playbook again")
        time.sleep(PAUSE)
