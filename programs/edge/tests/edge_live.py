# SPDX-License-Identifier: Apache-2.0
"""A HAProxy, instances and clients on loopback, as processes of their own."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

from ashlar_edge import runtime
from ashlar_edge.model import Settings
from support.ports import free_port

INSTANCE = r"""
import asyncio, signal, ssl, sys
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
    tls = None
    if len(sys.argv) > 2:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(sys.argv[2] + ".crt", sys.argv[2] + ".key")
    server = await asyncio.start_server(serve, "127.0.0.1", port, ssl=tls)
    print("ready", flush=True)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await stop.wait()
    server.close()
    while busy:
        await asyncio.sleep(0.01)
asyncio.run(main())
"""


class Instance:
    """One instance of a service; by HTTPS with `<certificate>.crt` and `.key` where that is given."""

    def __init__(self, certificate: Path | None = None) -> None:
        self.port = free_port()
        more = [str(certificate)] if certificate else []
        self.process = subprocess.Popen([sys.executable, "-S", "-c", INSTANCE, str(self.port), *more], stdout=subprocess.PIPE)
        assert self.process.stdout is not None and self.process.stdout.readline() == b"ready\n"

    def end(self, how: signal.Signals = signal.SIGTERM) -> None:
        self.process.send_signal(how)
        self.process.wait(120)


class Live:
    """HAProxy as its unit starts it, in a folder of the test's own."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self.settings = settings
        self.log = (folder / "haproxy.log").open("w+")
        command = [settings.haproxy, "-W", "-f", f"{settings.home}/live/haproxy.cfg", "-S", f"{settings.master_socket},level,admin"]
        self.process = subprocess.Popen(command, stdout=self.log, stderr=subprocess.STDOUT)
        end = time.monotonic() + 120
        while not runtime.structure(settings):
            assert time.monotonic() < end and self.process.poll() is None, f"HAProxy did not start:\n{self.said()}"
            time.sleep(0.05)

    def said(self) -> str:
        self.log.flush()
        return Path(self.log.name).read_text()

    def end(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(120)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(120)
        self.log.close()
