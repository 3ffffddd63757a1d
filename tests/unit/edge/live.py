# SPDX-License-Identifier: Apache-2.0
"""A HAProxy, instances and clients on loopback, as processes of their own."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import socket
import ssl
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from ashlar_edge import runtime
from ashlar_edge.model import Settings

INSTANCE = r"""
import asyncio, signal, sys
port = int(sys.argv[1])
busy = 0
async def serve(reader, writer):
    global busy
    try:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            busy += 1
            names = {line.split(b":")[0].lower(): line.split(b":", 1)[1].strip() for line in head.split(b"\r\n")[1:] if b":" in line}
            if b"content-length" in names:
                await reader.readexactly(int(names[b"content-length"]))
            await asyncio.sleep(0.005)
            seen = head if b"/headers" in head.split(b"\r\n")[0] else b""
            body = b"%d\n" % port + seen
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
            await writer.drain()
            busy -= 1
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()
async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", port)
    print("ready", flush=True)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await stop.wait()
    server.close()
    while busy:
        await asyncio.sleep(0.01)
asyncio.run(main())
"""


# The edge's certificate is one of the test's own; who proves it looks at it by itself.
UNPROVED = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
UNPROVED.check_hostname, UNPROVED.verify_mode = False, ssl.CERT_NONE


def free_port(first: int = 0, last: int = 0) -> int:
    """A port that nobody listens on."""
    for port in range(first, last + 1) if first else [0]:
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return int(probe.getsockname()[1])
    raise AssertionError(f"no free port from {first} to {last}")


class Instance:
    """One instance of a service."""

    def __init__(self) -> None:
        self.port = free_port()
        self.process = subprocess.Popen([sys.executable, "-S", "-c", INSTANCE, str(self.port)], stdout=subprocess.PIPE)
        assert self.process.stdout is not None and self.process.stdout.readline() == b"ready\n"

    def end(self, how: signal.Signals = signal.SIGTERM) -> None:
        self.process.send_signal(how)
        self.process.wait(10)


class Live:
    """HAProxy as its unit starts it, in a folder of the test's own."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self.settings = settings
        self.log = (folder / "haproxy.log").open("w+")
        command = [settings.haproxy, "-W", "-f", f"{settings.home}/live/haproxy.cfg", "-S", f"{settings.master_socket},level,admin"]
        self.process = subprocess.Popen(command, stdout=self.log, stderr=subprocess.STDOUT)
        end = time.monotonic() + 10
        while not runtime.structure(settings):
            assert time.monotonic() < end and self.process.poll() is None, f"HAProxy did not start:\n{self.said()}"
            time.sleep(0.05)

    def said(self) -> str:
        self.log.flush()
        return Path(self.log.name).read_text()

    def end(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(10)
        self.log.close()


@dataclass
class Answer:
    """An answer: status, headers by small name, body."""

    status: int
    headers: dict[str, str]
    body: bytes


class Connection:
    """HTTP/1.1 without any second try."""

    def __init__(self, port: int, host: str, tls: bool = True, server_name: str = "") -> None:
        self.port, self.host, self.tls, self.server_name = port, host, tls, server_name or host
        self.streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def open(self) -> None:
        context = UNPROVED if self.tls else None
        self.streams = await asyncio.open_connection("127.0.0.1", self.port, ssl=context, server_hostname=self.server_name if self.tls else None)

    async def ask(self, path: str = "/", method: str = "GET", headers: dict[str, str] | None = None) -> Answer:
        if self.streams is not None and self.streams[0].at_eof():
            self.close()
        if self.streams is None:
            await self.open()
        assert self.streams is not None
        reader, writer = self.streams
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
        return Answer(int(head[0].split()[1]), found, body)

    def close(self) -> None:
        if self.streams is not None:
            self.streams[1].close()
            self.streams = None


@dataclass
class Load:
    """Requests at a steady rate. Milliseconds of each that was answered; what went wrong with the others; by whom they were answered."""

    port: int
    host: str
    rate: int
    tls: bool = True
    latencies: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    answered: dict[int, int] = field(default_factory=dict)

    async def run(self, seconds: float, until: asyncio.Event | None = None) -> None:
        """For so long, or until told to end. Nine in ten requests on connections that are kept, the others on new ones; 200 at a time at most."""
        kept: list[Connection] = []
        start = time.monotonic()
        room = asyncio.Semaphore(200)

        async def one(number: int) -> None:
            fresh = number % 10 == 0
            connection = Connection(self.port, self.host, self.tls) if fresh or not kept else kept.pop()
            began = time.monotonic()
            try:
                answer = await asyncio.wait_for(connection.ask(), 30)
                self.latencies.append((time.monotonic() - began) * 1000)
                if answer.status != 200:
                    self.failures.append(f"{number}: {answer.status}")
                else:
                    port = int(answer.body.split()[0])
                    self.answered[port] = self.answered.get(port, 0) + 1
            except (OSError, EOFError, asyncio.TimeoutError, asyncio.IncompleteReadError) as error:
                self.failures.append(f"{number} at {time.monotonic() - start:.2f} s ({'new' if fresh else 'kept'} connection): {error!r}")
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
