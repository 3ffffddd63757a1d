# SPDX-License-Identifier: Apache-2.0
"""Waiting for a file's lock, with a limit. Who waits says in words of its own what it waited for."""

from __future__ import annotations

import fcntl
import time
from typing import IO, Callable

PAUSE_SECONDS = 0.05


def acquire(
    file: int | IO[str],
    seconds: float,
    kind: int = fcntl.LOCK_EX,
    take: Callable[[int | IO[str], int], None] = fcntl.flock,
    waiting: Callable[[], None] | None = None,
) -> bool:
    """Whether the lock of an open file could be had within `seconds`; it is held until the file is closed.

    :param kind: fcntl.LOCK_EX or fcntl.LOCK_SH.
    :param take: fcntl.flock, or fcntl.lockf where another program uses that one.
    :param waiting: called about once a second while another process holds the lock.
    """
    start = time.monotonic()
    told = start
    while True:
        try:
            take(file, kind | fcntl.LOCK_NB)
            return True
        except OSError as error:
            if not isinstance(error, (BlockingIOError, PermissionError)):
                raise
        now = time.monotonic()
        if now - start >= seconds:
            return False
        if waiting is not None and now - told >= 1.0:
            told = now
            waiting()
        time.sleep(PAUSE_SECONDS)
