# SPDX-License-Identifier: Apache-2.0
"""A server that replays recorded answers, with faults where a test wants them, and the credentials that go with it."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import parse_qs, parse_qsl, urlsplit
from urllib.request import Request, urlopen

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

RECORDINGS = Path(__file__).parent / "recordings"
SECRETS = ("example-secret-of-aws", "example-secret-of-openstack", "example-secret-of-application", "recorded-token", "PRIVATE KEY", "example-refresh-token")
"""None of these may ever be said."""
CUT = 0
"""Instead of a status: the connection is broken."""


@dataclass
class Asked:
    """A request as it came. ``form``: of a body that is one; ``json``: of one that is JSON."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: str

    @property
    def form(self) -> dict[str, str]:
        return dict(parse_qsl(self.body))

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Answer:
    status: int = 200
    body: Any = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 0.0


class Replay:
    """Answers as recorded: the first exchange whose method, path, query and headers are those of the request.

    ``faults``: what comes before the right answer for paths that begin with the key, a list used up one by one.
    ``routes``: functions that answer instead, for what would be too long to record.
    """

    def __init__(self, recording: str | None) -> None:
        self.exchanges: list[dict[str, Any]] = json.loads((RECORDINGS / f"{recording}.json").read_text())["exchanges"] if recording else []
        self.asked: list[Asked] = []
        self.faults: dict[str, list[Answer]] = {}
        self.routes: dict[str, Callable[[Asked], Answer]] = {}
        replay = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
                parts = urlsplit(self.path)
                query = {key: values[-1] for key, values in parse_qs(parts.query, keep_blank_values=True).items()}
                headers = {name.lower(): value for name, value in self.headers.items()}
                asked = Asked(self.command, parts.path, query, headers, body)
                replay.asked.append(asked)
                answer = replay.answer(asked)
                time.sleep(answer.seconds)
                if answer.status == CUT:
                    self.close_connection = True
                    self.connection.shutdown(socket.SHUT_RDWR)
                    return
                data = answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body).replace("{server}", replay.url).encode()
                self.send_response(answer.status)
                for name, value in {"Content-Type": "application/json", **answer.headers, "Content-Length": str(len(data))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(data)

            do_POST = do_GET

            def log_message(self, format: str, *args: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request: Any, client_address: Any) -> None:
                """Clients that gave up are no news."""

        self.server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def answer(self, asked: Asked) -> Answer:
        for start, faults in self.faults.items():
            if asked.path.startswith(start) and faults:
                return faults.pop(0)
        for start, route in self.routes.items():
            if asked.path.startswith(start):
                return route(asked)
        for exchange in self.exchanges:
            request = exchange["request"]
            same = request["method"] == asked.method and request["path"] == asked.path and request.get("query", asked.query) == asked.query
            if same and request.get("headers", {}).items() <= asked.headers.items():
                response = exchange["response"]
                return Answer(response["status"], response["body"], response.get("headers", {}))
        return Answer(404, {"error": {"code": 404, "message": f"nothing is recorded for {asked.method} {asked.path} {asked.query}"}})

    def paths(self, start: str = "") -> list[str]:
        return [asked.path for asked in self.asked if asked.path.startswith(start)]

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()


def proxy_to(replay: Replay, url: str) -> Replay:
    """The server passes on what it is asked, faults aside."""

    def pass_on(asked: Asked) -> Answer:
        headers = {name: value for name, value in asked.headers.items() if name not in ("content-length", "accept-encoding")}
        try:
            with urlopen(Request(f"{url}{asked.path}", asked.body.encode() or None, headers, method=asked.method), timeout=60) as response:
                return Answer(response.status, response.read(), {"Content-Type": response.headers["Content-Type"]})
        except HTTPError as error:
            return Answer(error.code, error.read(), {"Content-Type": error.headers["Content-Type"]})

    replay.routes["/"] = pass_on
    return replay


@cache
def private_key() -> str:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def key_file(file: Path, token_uri: str, **changes: Any) -> Path:
    """A key file of a service account, or what ``changes`` makes of it; None leaves a key out."""
    content = {
        "type": "service_account",
        "project_id": "example",
        "private_key_id": "0123456789abcdef",
        "private_key": private_key(),
        "client_email": "inventory@example.iam.gserviceaccount.com",
        "token_uri": token_uri,
    }
    file.write_text(json.dumps({key: value for key, value in {**content, **changes}.items() if value is not None}))
    return file


def openrc(url: str) -> dict[str, str]:
    return {
        "OS_AUTH_URL": f"{url}/v3",
        "OS_USERNAME": "inventory",
        "OS_PASSWORD": "example-secret-of-openstack",
        "OS_PROJECT_NAME": "platform",
        "OS_USER_DOMAIN_NAME": "Default",
        "OS_PROJECT_DOMAIN_NAME": "Default",
    }
