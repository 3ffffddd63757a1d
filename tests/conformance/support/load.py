# SPDX-License-Identifier: Apache-2.0
"""A client that loads a balancer and counts what is lost. It tries nothing twice."""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

T = TypeVar("T")

# Which certificate is shown is proved by tests of its own.
UNPROVED = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
UNPROVED.check_hostname, UNPROVED.verify_mode = False, ssl.CERT_NONE

# Seconds; an edge keeps a connection for 30.
IDLE = 10


@dataclass
class Answer:
    """An answer: status, headers by small name, body."""

    status: int
    headers: dict[str, str]
    body: bytes


class Connection:
    """HTTP/1.1 without any second try."""

    def __init__(self, port: int, host: str, tls: bool = True, address: str = "127.0.0.1", context: ssl.SSLContext = UNPROVED) -> None:
        self.port, self.host, self.tls, self.address, self.context = port, host, tls, address, context
        self.streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self.phase, self.used = "", 0.0

    async def open(self) -> None:
        self.phase = "opening"
        tls: dict[str, Any] = {"ssl": self.context, "server_hostname": self.host} if self.tls else {}
        self.streams = await asyncio.open_connection(self.address, self.port, **tls)
        self.used = time.monotonic()

    async def ask(self, path: str = "/", method: str = "GET", headers: dict[str, str] | None = None) -> Answer:
        # One that rested for long may be closed by the server at this very moment.
        if self.streams is not None and (self.streams[0].at_eof() or time.monotonic() - self.used > IDLE):
            self.close()
        if self.streams is None:
            await self.open()
        assert self.streams is not None
        reader, writer = self.streams
        self.phase = "waiting"
        extra = "".join(f"{name}: {value}\r\n" for name, value in (headers or {}).items())
        writer.write(f"{method} {path} HTTP/1.1\r\nHost: {self.host}\r\n{extra}\r\n".encode())
        await writer.drain()
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        found = {line.partition(":")[0].lower(): line.partition(":")[2].strip() for line in head[1:] if ":" in line}
        body = await reader.readexactly(int(found["content-length"])) if "content-length" in found else b""
        if found.get("connection") == "close":
            if "content-length" not in found:
                body = await reader.read()
            self.close()
        self.used = time.monotonic()
        return Answer(int(head[0].split()[1]), found, body)

    def close(self) -> None:
        if self.streams is not None:
            self.streams[1].close()
            self.streams = None


@dataclass
class Load:
    """Requests at a steady rate. Milliseconds of each that was answered; what went wrong with the others; by whom (the first word) they were answered.

    On a busy machine `at_once` holds the rate back: with many under way a handshake would take longer than the 10 s that an edge allows.
    """

    port: int
    host: str
    rate: int
    tls: bool = True
    address: str = "127.0.0.1"
    at_once: int = 20
    latencies: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    answered: dict[str, int] = field(default_factory=dict)

    async def run(self, seconds: float, until: asyncio.Event | None = None) -> None:
        """For so long, or until told to end. Nine in ten requests on connections that are kept, the others on new ones."""
        kept: list[Connection] = []
        start = time.monotonic()
        room = asyncio.Semaphore(self.at_once)

        async def one(number: int) -> None:
            fresh = number % 10 == 0
            connection = Connection(self.port, self.host, self.tls, self.address) if fresh or not kept else kept.pop()
            began = time.monotonic()
            try:
                answer = await asyncio.wait_for(connection.ask(), 30)
                self.latencies.append((time.monotonic() - began) * 1000)
                if answer.status != 200:
                    self.failures.append(f"{number}: {answer.status}")
                else:
                    who = answer.body.decode().split()[0]
                    self.answered[who] = self.answered.get(who, 0) + 1
            except (OSError, EOFError, asyncio.TimeoutError, asyncio.IncompleteReadError) as error:
                now = time.monotonic()
                how = f"{'new' if fresh else 'kept'} connection, {connection.phase} for {now - began:.2f} s"
                self.failures.append(f"{number} at {now - start:.2f} s ({how}): {error!r}")
                connection.close()
                return
            finally:
                room.release()
            if fresh:
                connection.close()
            else:
                kept.append(connection)

        tasks = []
        number, due = 0, start
        while number < seconds * self.rate and not (until and until.is_set()):
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            await room.acquire()
            # A machine that is late does not make up for it by a burst.
            due = max(due, time.monotonic() - 0.1) + 1 / self.rate
            tasks.append(asyncio.ensure_future(one(number)))
            number += 1
        await asyncio.gather(*tasks)
        for connection in kept:
            connection.close()

    def percentile(self, part: float) -> float:
        """Milliseconds that so many of the answers stay below."""
        return float("nan") if not self.latencies else sorted(self.latencies)[min(len(self.latencies) - 1, int(len(self.latencies) * part))]

    def text(self) -> str:
        figures = f"{len(self.latencies)} answers, p50 {self.percentile(0.5):.1f} ms, p99 {self.percentile(0.99):.1f} ms"
        return f"{figures}, {len(self.failures)} failed" + (f": {json.dumps(self.failures[:5])}" if self.failures else "")


async def loaded(loads: Sequence[Load], work: Callable[[], T], seconds: float = 300) -> T:
    """What `work` gives, which is done under these loads; they begin a second before it and end a second after."""
    done = asyncio.Event()
    tasks = [asyncio.create_task(load.run(seconds, done)) for load in loads]
    await asyncio.sleep(1)
    try:
        result = await asyncio.get_running_loop().run_in_executor(None, work)
        await asyncio.sleep(1)
    finally:
        done.set()
        await asyncio.gather(*tasks)
    return result
