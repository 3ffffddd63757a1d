# SPDX-License-Identifier: Apache-2.0
"""Asks what others know: of several replicas the one that answers, for a bounded time, and never more often than is of use.

What was read last stays when nobody answers any more, together with the reason and its age.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar
from urllib.parse import urlsplit

import aiohttp

T = TypeVar("T")
MOST_BYTES = 4 << 20


class SourceError(Exception):
    """Somebody does not answer, or not as expected; the message is for people."""


@dataclass(frozen=True)
class Reading(Generic[T]):
    """What was read, when (seconds since 1970; None: never), and why it is not of now ("" when it is)."""

    value: T | None = None
    at: float | None = None
    reason: str = ""


def why(error: BaseException, seconds: float) -> str:
    """An error of a connection in the words of an operator."""
    if isinstance(error, SourceError):
        return str(error)
    if isinstance(error, asyncio.TimeoutError):
        return f"no answer within {seconds:g} s"
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return "its certificate is not of this site's authority"
    if isinstance(error, ConnectionRefusedError) or isinstance(getattr(error, "os_error", None), ConnectionRefusedError):
        return "connection refused"
    if isinstance(error, (aiohttp.ClientSSLError, ssl.SSLError)):
        return "it does not speak TLS with the portal's certificate"
    if isinstance(error, aiohttp.ClientConnectorError):
        return error.os_error.strerror or "not reachable"
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return "it closed the connection"
    return f"{type(error).__name__}"


class Replicas:
    """One kind of upstream. A replica that does not answer soon is not waited for: the next is asked beside it, and the first answer counts."""

    def __init__(
        self,
        name: str,
        urls: Sequence[str],
        session: aiohttp.ClientSession,
        tls: ssl.SSLContext | None = None,
        seconds: float = 2.0,
        names: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.name, self.urls, self.seconds = name, list(urls), seconds
        self._session, self._tls = session, tls
        # Not a copy: names may change.
        self._names = names if names is not None else {}
        self._headers = dict(headers or {})

    def _label(self, url: str) -> str:
        host = urlsplit(url).hostname or url
        return self._names.get(host, host)

    async def _one(self, url: str, path: str, parameters: Mapping[str, str], parse: Callable[[str], T]) -> T:
        options: dict[str, Any] = {} if self._tls is None else {"ssl": self._tls}
        async with self._session.get(url + path, params=parameters, headers=self._headers, allow_redirects=False, **options) as answer:
            parts, size = [], 0
            async for part in answer.content.iter_chunked(1 << 16):
                size += len(part)
                if size > MOST_BYTES:
                    raise SourceError(f"its answer is larger than {MOST_BYTES >> 20} MiB")
                parts.append(part)
            text = b"".join(parts).decode(errors="replace")
            if answer.status != 200:
                # Prometheus and the log store say in the body what a question lacks; it is shown as text only.
                raise SourceError(f"it answers {answer.status}" + (f" ({' '.join(text.split())[:120]})" if text and answer.status in (400, 422) else ""))
        try:
            return parse(text)
        except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
            raise SourceError(f"its answer makes no sense ({type(error).__name__})") from None

    async def ask(self, path: str, parameters: Mapping[str, str], parse: Callable[[str], T]) -> T:
        """The first answer that `parse` takes.

        :raises SourceError: when no replica gives one in time; it names each with its reason.
        """
        if not self.urls:
            raise SourceError(f"This site has no {self.name.removeprefix('the ')}")
        waiting = list(self.urls)
        running: dict[asyncio.Task[T], str] = {}
        reasons: dict[str, str] = {}
        deadline = time.monotonic() + self.seconds
        try:
            while waiting or running:
                if waiting:
                    url = waiting.pop(0)
                    running[asyncio.ensure_future(self._one(url, path, parameters, parse))] = url
                left = deadline - time.monotonic()
                if left <= 0:
                    break
                done, _ = await asyncio.wait(running, timeout=min(left, self.seconds / 4) if waiting else left, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    url = running.pop(task)
                    error = task.exception()
                    if error is None:
                        if self.urls[0] != url:
                            self.urls.remove(url)
                            self.urls.insert(0, url)
                        return task.result()
                    reasons[url] = why(error, self.seconds)
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
        for url in self.urls:
            reasons.setdefault(url, f"no answer within {self.seconds:g} s")
        said = "; ".join(f"{self._label(url)}: {reason}" for url, reason in sorted(reasons.items()))
        raise SourceError(f"{self.name[0].upper()}{self.name[1:]} does not answer ({said})")


class Memory:
    """Readings by key. Several who want the same at once share one question; `most` of them are kept."""

    def __init__(self, most: int = 48, clock: Callable[[], float] = time.time, failure_seconds: float = 3.0) -> None:
        self._most, self._clock, self._failure = most, clock, failure_seconds
        self._kept: OrderedDict[str, Reading[Any]] = OrderedDict()
        self._tried: dict[str, float] = {}
        self._asked: dict[str, asyncio.Future[Reading[Any]]] = {}

    async def read(self, key: str, work: Callable[[], Awaitable[T]], fresh: float) -> Reading[T]:
        """What `work` gives, asked again once it is older than `fresh` seconds; after a failure that of before, with the reason."""
        now, kept = self._clock(), self._kept.get(key, Reading())
        if now - self._tried.get(key, float("-inf")) < (self._failure if kept.reason else fresh):
            self._kept.move_to_end(key)
            return kept
        if key not in self._asked:
            self._asked[key] = asyncio.ensure_future(self._look(key, work, kept))
        return await asyncio.shield(self._asked[key])

    async def _look(self, key: str, work: Callable[[], Awaitable[T]], kept: Reading[T]) -> Reading[T]:
        try:
            made: Reading[T] = Reading(await work(), self._clock())
        except SourceError as error:
            made = replace(kept, reason=str(error))
        finally:
            del self._asked[key]
        self._kept[key] = made
        self._kept.move_to_end(key)
        self._tried[key] = self._clock()
        while len(self._kept) > self._most:
            gone, _ = self._kept.popitem(last=False)
            self._tried.pop(gone, None)
        return made


def lines(text: str) -> list[Any]:
    """JSON, one value a line."""
    return [json.loads(line) for line in text.splitlines() if line.strip()]
