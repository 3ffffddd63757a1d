# SPDX-License-Identifier: Apache-2.0
"""The artifact server: blobs of a store over TLS to clients with a certificate, nothing else. Runs by itself, on the first control node.

``GET /<sha256>`` and ``HEAD``, with one ``Range: bytes=N-`` (RFC 9110, section 14) so that a download resumes. No listing, no writing.
It ends when nobody asked for anything for a while. The action plugin sends this file to the host; it needs the standard library only.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import socket
import ssl
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

CHUNK = 1 << 18
CONNECTIONS = 128
SOCKET_SECONDS = 60
_BLOB = re.compile(r"/([0-9a-f]{64})")
_RANGE = re.compile(r"bytes=(\d+)-")


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "ashlar-artifacts"
    sys_version = ""
    timeout = SOCKET_SECONDS
    server: Server

    def do_GET(self) -> None:
        self._answer(body=True)

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def _answer(self, body: bool) -> None:
        self.server.last_request = time.monotonic()
        organizations = [value for part in self.connection.getpeercert().get("subject", ()) for key, value in part if key == "organizationName"]
        if self.server.organization not in organizations:
            self._refuse(403)
            return
        match = _BLOB.fullmatch(self.path)
        if match is None:
            self._refuse(404)
            return
        name = match.group(1)
        try:
            stream = open(f"{self.server.store}/sha256/{name[:2]}/{name}", "rb")  # noqa: SIM115
        except OSError:
            self._refuse(404)
            return
        with stream:
            size = os.fstat(stream.fileno()).st_size
            start = 0
            asked = _RANGE.fullmatch(self.headers.get("Range", ""))
            if asked:
                start = int(asked.group(1))
                if start >= size:
                    self._refuse(416, {"Content-Range": f"bytes */{size}"})
                    return
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {start}-{size - 1}/{size}")
            else:
                self.send_response(200)
            self.send_header("Accept-Ranges", "bytes")
            self.send_header("Content-Type", "application/octet-stream")
            self.send_header("Content-Length", str(size - start))
            self.end_headers()
            if not body:
                return
            stream.seek(start)
            buffer = memoryview(bytearray(CHUNK))
            while True:
                count = stream.readinto(buffer)
                if not count:
                    break
                self.wfile.write(buffer[:count])
                self.server.last_request = time.monotonic()

    def _refuse(self, status: int, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_request(self, code: object = "-", size: object = "-") -> None:
        """Only what went wrong is logged; a line a blob and node would say nothing."""

    def log_message(self, format: str, *values: object) -> None:
        sys.stderr.write(f"{self.client_address[0]} {format % values}\n")


class Server(ThreadingHTTPServer):
    """A thread a connection, CONNECTIONS at most; the handshake happens in that thread, so a slow client holds up nobody."""

    daemon_threads = True
    request_queue_size = 512

    def __init__(self, address: tuple[str, int], store: str, context: ssl.SSLContext, organization: str) -> None:
        self.store = store
        self.organization = organization
        self.last_request = time.monotonic()
        self._context = context
        self._slots = threading.BoundedSemaphore(CONNECTIONS)
        super().__init__(address, Handler)

    def server_bind(self) -> None:
        # HTTPServer would look up the host's name here, which may take long where there is no DNS yet.
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def process_request_thread(self, request: socket.socket, client_address: tuple[str, int]) -> None:  # type: ignore[override]
        with self._slots:
            try:
                request.settimeout(SOCKET_SECONDS)
                secured = self._context.wrap_socket(request, server_side=True)
            except (OSError, ValueError) as error:
                sys.stderr.write(f"{client_address[0]} refused: {error}\n")
                with contextlib.suppress(OSError):
                    request.close()
                return
            super().process_request_thread(secured, client_address)

    def handle_error(self, request: object, client_address: tuple[str, int]) -> None:
        sys.stderr.write(f"{client_address[0]} left: {sys.exc_info()[1]}\n")


def tls(certificate: str, key: str, authority: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(certificate, key)
    context.load_verify_locations(authority)
    return context


def notify_ready() -> None:
    """Tells systemd (sd_notify(3)) that the socket listens."""
    path = os.environ.get("NOTIFY_SOCKET")
    if path:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.connect("\0" + path[1:] if path.startswith("@") else path)
            sender.sendall(b"READY=1")


def main() -> int:
    parser = argparse.ArgumentParser(description="Serves the blobs of an artifact store over TLS.")
    parser.add_argument("--address", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--store", required=True)
    parser.add_argument("--certificate", required=True)
    parser.add_argument("--key", required=True)
    parser.add_argument("--authority", required=True)
    parser.add_argument("--organization", required=True)
    parser.add_argument("--idle-seconds", type=float, required=True)
    options = parser.parse_args()
    try:
        context = tls(options.certificate, options.key, options.authority)
        server = Server((options.address, options.port), options.store, context, options.organization)
    except (OSError, ssl.SSLError) as error:
        sys.stderr.write(f"cannot serve {options.store} on {options.address}:{options.port}: {error}\n")
        return 1

    def watch() -> None:
        while time.monotonic() - server.last_request < options.idle_seconds:
            time.sleep(min(5.0, options.idle_seconds / 4))
        server.shutdown()

    threading.Thread(target=watch, daemon=True).start()
    notify_ready()
    server.serve_forever(poll_interval=1)
    return 0


if __name__ == "__main__":
    sys.exit(main())
