# SPDX-License-Identifier: Apache-2.0
"""A catalogue, a store and a web server that can be told to misbehave."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml
from ansible_collections.ashlar.stack.plugins.plugin_utils.artifacts import download
from ansible_collections.ashlar.stack.plugins.plugin_utils.artifacts import web as web_module
from ansible_collections.ashlar.stack.plugins.plugin_utils.artifacts.catalogue import ArtifactCatalogue
from ansible_collections.ashlar.stack.plugins.plugin_utils.artifacts.obtain import Obtainer, Options
from ansible_collections.ashlar.stack.plugins.plugin_utils.artifacts.store import Store


@dataclass
class Web:
    """A server on 127.0.0.1: ``files`` by path. ``cut`` ends answers after so many bytes, once for each entry; ``errors`` are answered first.
    Where ``hosts`` is set, it is many servers: files and redirects (to whole URLs) are found by host and path.

    ``meeting``, where there is one, holds every answer back until so many are asked for at the same time.
    """

    address: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    cut: list[int] = field(default_factory=list)
    errors: list[int] = field(default_factory=list)
    redirects: dict[str, str] = field(default_factory=dict)
    hosts: bool = False
    ranges: bool = True
    seconds_a_chunk: float = 0.0
    meeting: threading.Barrier | None = None
    requests: list[tuple[str, str]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)

    def url(self, path: str) -> str:
        return f"{self.address}{path}"


def handler(web: Web) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            asked = self.headers.get("Range", "")
            web.requests.append((self.path, asked))
            web.headers.append(dict(self.headers))
            self.close_connection = True
            if web.meeting:
                web.meeting.wait(120)
            place = self.headers["Host"].partition(":")[0] + self.path if web.hosts else self.path
            if web.errors:
                self.answer(web.errors.pop(0), b"")
            elif place in web.redirects:
                self.answer(302, b"", {"Location": web.redirects[place]})
            elif place not in web.files:
                self.answer(404, b"")
            else:
                data = web.files[place]
                begin = int(asked.removeprefix("bytes=").rstrip("-")) if asked and web.ranges else 0
                if begin >= len(data) and begin:
                    self.answer(416, b"", {"Content-Range": f"bytes */{len(data)}"})
                elif begin:
                    self.answer(206, data[begin:], {"Content-Range": f"bytes {begin}-{len(data) - 1}/{len(data)}"})
                else:
                    self.answer(200, data)

        def answer(self, code: int, data: bytes, headers: dict[str, str] | None = None) -> None:
            self.send_response(code)
            for key, value in ({"Content-Length": str(len(data))} | (headers or {})).items():
                self.send_header(key, value)
            self.end_headers()
            body = data[: web.cut.pop(0)] if data and web.cut else data
            step = 65536 if web.seconds_a_chunk else len(body) or 1
            try:
                for at in range(0, len(body), step):
                    self.wfile.write(body[at : at + step])
                    threading.Event().wait(web.seconds_a_chunk)
            except OSError:
                pass  # the client was killed, as the test wants it

        def log_message(self, *_: object) -> None: ...

    return Handler


@pytest.fixture
def web() -> Iterator[Web]:
    state = Web()
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler(state))
    server.daemon_threads = True
    state.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield state
    server.shutdown()
    server.server_close()


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (download, web_module):
        monkeypatch.setattr(module, "sleep", lambda seconds: None)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "cache" / "store")


@dataclass
class Shelf:
    """A catalogue that tests put artifacts into, and the obtainer for it; ``said`` are its lines."""

    directory: Path
    store: Store
    said: list[str] = field(default_factory=list)

    def put(self, name: str, sources: list[dict[str, object]], sums: dict[str, str] | None = None, version: str = "1.0.0", **more: object) -> None:
        folder = self.directory / name / version
        folder.mkdir(parents=True, exist_ok=True)
        data = {"description": "Something to test with.", "versions": {version: {}}, "sources": sources} | (
            {"files": ["tool"]} if "packages" not in more else {}
        )
        (self.directory / name / "artifact.yml").write_text(yaml.safe_dump(data | more))
        if sums:
            (folder / "SHA256SUMS").write_text("".join(f"{sha}  {key}\n" for key, sha in sums.items()))

    def obtainer(self, **options: object) -> Obtainer:
        chosen = {"architectures": ["amd64"]} | options
        return Obtainer(self.store, ArtifactCatalogue([self.directory]), Options(**chosen), self.said.append, interval=0.05)  # type: ignore[arg-type]


@pytest.fixture
def shelf(tmp_path: Path, store: Store) -> Shelf:
    return Shelf(tmp_path / "artifacts", store)


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def visible(store: Store) -> list[str]:
    """Everything a reader of the store would find."""
    return sorted(path.name for folder in ("sha256", "index") for path in (store.root / folder).rglob("*") if path.is_file())


from .internet import internet, keys  # noqa: E402, F401 - fixtures for all, which need what is above
