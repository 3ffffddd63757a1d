# SPDX-License-Identifier: Apache-2.0
"""Downloads that resume: HTTP range requests (RFC 9110, section 14) into a file that survives an interrupt."""

from __future__ import annotations

import http.client
import itertools
import urllib.error
from collections.abc import Callable
from pathlib import Path
from time import sleep
from typing import TypeVar

from .errors import ArtifactError, Cancelled, ChecksumMismatch, SourceUnavailable, Unreachable
from .progress import Progress, size
from .store import CHUNK, algorithm_of, checksum_message, digest
from .trust import Expected
from .web import get, plain, reason

T = TypeVar("T")
ATTEMPTS = 4
# Where not a byte came, the server is not there rather than slow.
ATTEMPTS_WITHOUT_ANSWER = 2


def fetch(
    url: str,
    target: Path,
    expected: Expected | None,
    progress: Progress,
    cancelled: Callable[[], bool] = lambda: False,
    attempts: int = ATTEMPTS,
) -> None:
    """Download ``url`` to ``target``, going on where an earlier try ended.

    :param expected: the checksum it must have; None trusts the connection.
    :raises SourceUnavailable: when the server cannot be reached or does not have it.
    :raises ChecksumMismatch: when the bytes are others.
    """
    before, tries = _size(target), 0

    def once() -> None:
        nonlocal tries
        tries += 1
        _transfer(url, target, progress, cancelled)

    _patiently(url, once, attempts, answered=lambda: _size(target) != before)
    if expected and (found := digest(target, algorithm_of(expected.checksum))) != expected.checksum:
        target.unlink()
        if before or tries > 1:
            # The beginning may be of another file that once lay at this address: one try from the start decides.
            fetch(url, target, expected, progress, cancelled, attempts)
            return
        raise ChecksumMismatch(checksum_message(plain(url), expected.checksum, found, expected.said_by))


def read(url: str, limit: int = 4 << 20) -> bytes:
    """A small file.

    :raises SourceUnavailable: when it cannot be had.
    """

    def once() -> bytes:
        with get(url) as answer:
            data: bytes = answer.read(limit + 1)
            return data

    data = _patiently(url, once, ATTEMPTS)
    if len(data) > limit:
        raise ArtifactError(f"{plain(url)} is larger than {size(limit)}; this is not what it should be")
    return data


def _patiently(url: str, once: Callable[[], T], attempts: int, answered: Callable[[], bool] = lambda: False) -> T:
    """Try again where that may help. ``answered``: whether something came from the server before the connection failed."""
    for attempt in itertools.count(1):
        try:
            return once()
        except urllib.error.HTTPError as error:
            if error.code < 500 and error.code not in (408, 429):
                raise SourceUnavailable(f"{plain(url)} answers {error.code} {error.reason}") from error
            problem: Exception = error
            limit = attempts
        except (OSError, http.client.HTTPException) as error:
            problem = error
            limit = attempts if answered() else min(attempts, ATTEMPTS_WITHOUT_ANSWER)
        if attempt >= limit:
            raise Unreachable(f"{plain(url)} cannot be reached: {reason(problem)}") from problem
        sleep(min(0.5 * 2**attempt, 8.0))
    raise AssertionError


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _transfer(url: str, target: Path, progress: Progress, cancelled: Callable[[], bool]) -> None:
    have = _size(target)
    try:
        answer = get(url, have)
    except urllib.error.HTTPError as error:
        if error.code != 416 or not have:
            raise
        total = (error.headers.get("Content-Range") or "").rpartition("/")[2]
        if total == str(have):
            return
        target.unlink()
        have, answer = 0, get(url)
    with answer:
        if have and not (answer.status == 206 and (answer.headers.get("Content-Range") or "").startswith(f"bytes {have}-")):
            have = 0
        length = answer.headers.get("Content-Length")
        total_size = have + int(length) if length else None
        with target.open("ab" if have else "wb") as stream:
            while chunk := answer.read1(CHUNK):
                stream.write(chunk)
                have += len(chunk)
                if cancelled():
                    raise Cancelled(f"{plain(url)}: given up")
                progress.still(f"downloading, {size(have)}" + (f" of {size(total_size)}" if total_size else ""))
        if total_size is not None and have < total_size:
            raise ConnectionError(f"the connection ended after {size(have)} of {size(total_size)}")
