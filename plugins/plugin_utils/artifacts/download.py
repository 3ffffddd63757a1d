# SPDX-License-Identifier: Apache-2.0
"""Downloads that resume: HTTP range requests (RFC 9110, section 14) into a file that survives an interrupt."""

from __future__ import annotations

import base64
import http.client
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path
from time import sleep
from typing import Any

from .errors import ArtifactError, Cancelled, ChecksumMismatch, SourceUnavailable, Unreachable
from .progress import Progress, size
from .store import CHUNK, checksum_message, digest

ATTEMPTS = 4
TIMEOUT_SECONDS = 30


def plain(url: str) -> str:
    """The URL without user and password, for messages."""
    parts = urllib.parse.urlsplit(url)
    return urllib.parse.urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def fetch(
    url: str,
    target: Path,
    expected: str | None,
    progress: Progress,
    cancelled: Callable[[], bool] = lambda: False,
    attempts: int = ATTEMPTS,
) -> None:
    """Download ``url`` to ``target``, going on where an earlier try ended.

    :param expected: the sha256 it must have; None trusts the connection.
    :raises SourceUnavailable: when the server cannot be reached or does not have it.
    :raises ChecksumMismatch: when the bytes are others.
    """
    resumed = target.exists() and target.stat().st_size > 0
    for attempt in range(1, attempts + 1):
        try:
            _transfer(url, target, progress, cancelled)
            break
        except urllib.error.HTTPError as error:
            if error.code < 500 and error.code not in (408, 429):
                raise SourceUnavailable(f"{plain(url)} answers {error.code} {error.reason}") from error
            reason: Exception = error
        except (OSError, http.client.HTTPException) as error:
            reason = error
        if attempt == attempts:
            raise Unreachable(f"{plain(url)} cannot be reached: {_reason(reason)}") from reason
        resumed = resumed or target.exists()
        sleep(min(0.5 * 2**attempt, 8.0))
    if expected and (found := digest(target)) != expected:
        target.unlink()
        if resumed:
            # The beginning may be of another file that once lay at this address: one try from the start decides.
            fetch(url, target, expected, progress, cancelled, attempts)
            return
        raise ChecksumMismatch(checksum_message(plain(url), expected, found))


def read(url: str, limit: int = 4 << 20) -> bytes:
    """A small file.

    :raises SourceUnavailable: when it cannot be had.
    """
    try:
        with _open(url, 0) as answer:
            data: bytes = answer.read(limit + 1)
    except urllib.error.HTTPError as error:
        raise SourceUnavailable(f"{plain(url)} answers {error.code} {error.reason}") from error
    except (OSError, http.client.HTTPException) as error:
        raise Unreachable(f"{plain(url)} cannot be reached: {_reason(error)}") from error
    if len(data) > limit:
        raise ArtifactError(f"{plain(url)} is larger than {size(limit)}; this is not what it should be")
    return data


def _transfer(url: str, target: Path, progress: Progress, cancelled: Callable[[], bool]) -> None:
    have = target.stat().st_size if target.exists() else 0
    try:
        answer = _open(url, have)
    except urllib.error.HTTPError as error:
        if error.code != 416 or not have:
            raise
        total = (error.headers.get("Content-Range") or "").rpartition("/")[2]
        if total == str(have):
            return
        target.unlink()
        have, answer = 0, _open(url, 0)
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


def _open(url: str, offset: int) -> Any:
    parts = urllib.parse.urlsplit(url)
    headers = {"User-Agent": "ashlar", "Accept-Encoding": "identity"}
    if parts.scheme not in ("http", "https"):
        raise ArtifactError(f"{plain(url)}: the address of a source begins with http:// or https://")
    if parts.username is not None:
        token = f"{urllib.parse.unquote(parts.username)}:{urllib.parse.unquote(parts.password or '')}"
        headers["Authorization"] = "Basic " + base64.b64encode(token.encode()).decode()
    if offset:
        headers["Range"] = f"bytes={offset}-"
    return urllib.request.urlopen(urllib.request.Request(plain(url), headers=headers), timeout=TIMEOUT_SECONDS)


def _reason(error: Exception) -> str:
    inner = error.reason if isinstance(error, urllib.error.URLError) else error
    return str(inner) or type(inner).__name__
