# SPDX-License-Identifier: Apache-2.0
"""Waits that end."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")
A = TypeVar("A")
R = TypeVar("R")

PATIENCE = 180
"""Seconds that a test waits for what takes a few where nothing is wrong: a busy machine is no fault of the platform's."""


def until(what: str, look: Callable[[], T], seconds: float = PATIENCE, pause: float = 0.3) -> T:
    """The first truthy answer of `look`; an AssertionError that says what was waited for, how long, and what was seen last.

    An exception of `look` counts as "not yet": while a node is down, everything that talks to it fails.
    """
    start = time.monotonic()
    while True:
        try:
            answer = look()
            if answer:
                return answer
            seen = repr(answer)
        except Exception as error:
            seen = f"{type(error).__name__}: {error}"
        if time.monotonic() - start >= seconds:
            raise AssertionError(f"waited {seconds:.0f} s in vain until {what}; seen last: {seen[:2000]}")
        time.sleep(pause)


def holds(what: str, look: Callable[[], object], seconds: float, pause: float = 0.3) -> int:
    """How often `look` was truthy, once and again for so long; an AssertionError at the first time that it was not."""
    start, count = time.monotonic(), 0
    while time.monotonic() - start < seconds:
        answer = look()
        assert answer, f"{what}: no longer so after {time.monotonic() - start:.1f} s and {count} looks: {answer!r}"
        count += 1
        time.sleep(pause)
    return count


@contextmanager
def beside(work: Callable[[threading.Event], object]) -> Iterator[None]:
    """Does some work in a thread until the block ends, of which an event tells it; its error is raised then."""
    end = threading.Event()
    with ThreadPoolExecutor(max_workers=1) as pool:
        working = pool.submit(work, end)
        try:
            yield
        finally:
            end.set()
        working.result()


def at_once(work: Callable[[A], R], items: Iterable[A]) -> list[R]:
    """`work` on all items at the same time, answers in their order; the first error is raised."""
    listed = list(items)
    if not listed:
        return []
    with ThreadPoolExecutor(max_workers=min(16, len(listed))) as pool:
        return list(pool.map(work, listed))
