# SPDX-License-Identifier: Apache-2.0
"""The artifact server and its client, over real TLS on this machine."""

from __future__ import annotations

import hashlib
import http.client
import os
import random
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible_collections.ashlar.stack.plugins.action.artifact import program
from ansible_collections.ashlar.stack.plugins.module_utils.artifact import fetch as client
from ansible_collections.ashlar.stack.plugins.module_utils.artifact import server
from ansible_collections.ashlar.stack.plugins.plugin_utils import pki

ORGANIZATION = "ashlar:artifacts"
BLOBS = {hashlib.sha256(content).hexdigest(): content for content in (b"small", b"", *map(random.Random(1).randbytes, (3 << 20, 700_001)))}
SIZES = {sha256: len(content) for sha256, content in BLOBS.items()}
LARGE = max(SIZES, key=lambda sha256: SIZES[sha256])


def credentials(folder: Path, name: str, authority: str = "site", organization: str = ORGANIZATION, address: str = "127.0.0.1") -> dict[str, str]:
    made = pki.Credentials(folder / "credentials")
    asked = {"component": "artifacts", "name": name, "authority": authority, "organizations": [organization], "addresses": [address]}
    spec = pki.parse_spec({**asked, "usages": ["server", "client"]})
    made.certificate(spec, Path("nodes/test"))
    base = folder / "credentials/nodes/test"
    return {"certificate": f"{base}/{name}.crt", "key": f"{base}/{name}.key", "authority": str(folder / f"credentials/authorities/{authority}/ca.crt")}


class Running:
    def __init__(self, store: Path, files: dict[str, str]) -> None:
        context = server.tls(files["certificate"], files["key"], files["authority"])
        self.server = server.Server(("127.0.0.1", 0), str(store), context, ORGANIZATION)
        self.port = self.server.server_address[1]
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self.thread.start()

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for sha256, content in BLOBS.items():
        path = tmp_path / "store/sha256" / sha256[:2] / sha256
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    (tmp_path / "store/secret").write_text("not a blob")
    return tmp_path


@pytest.fixture
def running(folder: Path) -> Iterator[Running]:
    started = Running(folder / "store", credentials(folder, "node"))
    yield started
    started.stop()


def source(folder: Path, port: int, name: str = "node", **changes: str) -> client.Source:
    return client.Source("127.0.0.1", port, **credentials(folder, name, **changes))


def ask(folder: Path, port: int, path: str, method: str = "GET", headers: dict[str, str] | None = None, **changes: str) -> tuple[int, bytes]:
    name = changes.pop("name", "node")
    connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=120, context=client.context_of(source(folder, port, name, **changes)))
    connection.request(method, path, headers=headers or {})
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer.status, body


class TestFetch:
    def test_every_blob_arrives(self, folder: Path, running: Running) -> None:
        client.fetch(source(folder, running.port), SIZES, str(folder / "in"))
        assert {path.name: path.read_bytes() for path in (folder / "in").iterdir()} == BLOBS

    def test_a_download_resumes_where_it_was_cut(self, folder: Path, running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
        (folder / "in").mkdir()
        (folder / "in" / f"{LARGE}.part").write_bytes(BLOBS[LARGE][: 1 << 20])
        asked: list[str] = []
        real = http.client.HTTPSConnection.request

        def request(self: http.client.HTTPSConnection, *values: object, **named: dict[str, str]) -> None:
            asked.append(named["headers"].get("Range", ""))
            real(self, *values, **named)  # type: ignore[arg-type]

        monkeypatch.setattr(http.client.HTTPSConnection, "request", request)
        client.fetch(source(folder, running.port), {LARGE: SIZES[LARGE]}, str(folder / "in"))
        assert asked == [f"bytes={1 << 20}-"]
        assert (folder / "in" / LARGE).read_bytes() == BLOBS[LARGE]

    @pytest.mark.parametrize("left", [BLOBS[LARGE], BLOBS[LARGE] + b"more"], ids=["finished", "overlong"])
    def test_a_finished_or_overlong_part(self, folder: Path, running: Running, left: bytes) -> None:
        (folder / "in").mkdir()
        (folder / "in" / f"{LARGE}.part").write_bytes(left)
        client.fetch(source(folder, running.port), {LARGE: SIZES[LARGE]}, str(folder / "in"))
        assert (folder / "in" / LARGE).read_bytes() == BLOBS[LARGE]

    def test_a_damaged_part_is_discarded_and_the_next_try_is_whole(self, folder: Path, running: Running) -> None:
        (folder / "in").mkdir()
        (folder / "in" / f"{LARGE}.part").write_bytes(bytes(1 << 20))
        with pytest.raises(client.FetchError, match="with another content"):
            client.fetch(source(folder, running.port), {LARGE: SIZES[LARGE]}, str(folder / "in"))
        client.fetch(source(folder, running.port), {LARGE: SIZES[LARGE]}, str(folder / "in"))
        assert (folder / "in" / LARGE).exists()

    def test_a_damaged_blob_of_the_server_is_never_taken(self, folder: Path, running: Running) -> None:
        (folder / "store/sha256" / LARGE[:2] / LARGE).write_bytes(bytes(SIZES[LARGE]))
        with pytest.raises(client.FetchError, match="with another content"):
            client.fetch(source(folder, running.port), SIZES, str(folder / "in"))
        assert not (folder / "in" / LARGE).exists()

    def test_a_missing_blob_is_told(self, folder: Path, running: Running) -> None:
        with pytest.raises(client.FetchError, match="answers 404"):
            client.fetch(source(folder, running.port), {"0" * 64: 3}, str(folder / "in"))

    def test_nobody_listens(self, folder: Path) -> None:
        with pytest.raises(client.FetchError, match="refused"):
            client.fetch(source(folder, 1), SIZES, str(folder / "in"), pause=0.01)

    def test_a_server_of_another_authority_is_not_trusted(self, folder: Path, running: Running) -> None:
        with pytest.raises(client.FetchError, match="does not prove that it is the artifact server"):
            client.fetch(source(folder, running.port, "other", authority="other"), SIZES, str(folder / "in"), pause=0.01)

    def test_a_server_of_another_address_is_not_trusted(self, folder: Path) -> None:
        elsewhere = Running(folder / "store", credentials(folder, "elsewhere", address="10.0.0.9"))
        try:
            with pytest.raises(client.FetchError, match="does not prove"):
                client.fetch(source(folder, elsewhere.port), SIZES, str(folder / "in"), pause=0.01)
        finally:
            elsewhere.stop()

    def test_an_unusable_certificate_is_told(self, folder: Path, running: Running) -> None:
        with pytest.raises(client.FetchError, match="cannot be used"):
            client.fetch(client.Source("127.0.0.1", running.port, "/none.crt", "/none.key", "/none"), SIZES, str(folder / "in"))

    def test_a_server_that_dies_and_comes_back(self, folder: Path, running: Running) -> None:
        port = running.port
        running.stop()
        failed: list[BaseException] = []

        def fetch() -> None:
            try:
                client.fetch(source(folder, port), SIZES, str(folder / "in"), pause=0.2)
            except client.FetchError as error:
                failed.append(error)

        thread = threading.Thread(target=fetch)
        thread.start()
        time.sleep(0.1)
        files = credentials(folder, "node")
        again = server.Server(("127.0.0.1", port), str(folder / "store"), server.tls(files["certificate"], files["key"], files["authority"]), ORGANIZATION)
        threading.Thread(target=again.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        thread.join(120)
        again.shutdown()
        again.server_close()
        assert not failed and len(list((folder / "in").iterdir())) == len(BLOBS)


class TestServer:
    def test_nobody_without_a_certificate(self, folder: Path, running: Running) -> None:
        context = ssl.create_default_context(cafile=credentials(folder, "node")["authority"])
        connection = http.client.HTTPSConnection("127.0.0.1", running.port, timeout=120, context=context)
        with pytest.raises((ssl.SSLError, ConnectionError)):
            connection.request("GET", f"/{LARGE}")
            connection.getresponse()

    def test_nobody_of_another_authority(self, folder: Path, running: Running) -> None:
        stranger = credentials(folder, "other", authority="other")
        context = ssl.create_default_context(cafile=credentials(folder, "node")["authority"])
        context.load_cert_chain(stranger["certificate"], stranger["key"])
        connection = http.client.HTTPSConnection("127.0.0.1", running.port, timeout=120, context=context)
        with pytest.raises((ssl.SSLError, ConnectionError)):
            connection.request("GET", f"/{LARGE}")
            connection.getresponse()

    def test_nobody_whose_certificate_is_for_something_else(self, folder: Path, running: Running) -> None:
        assert ask(folder, running.port, f"/{LARGE}", name="kubelet", organization="system:nodes")[0] == 403

    def test_nothing_old_is_spoken(self, folder: Path, running: Running) -> None:
        context = client.context_of(source(folder, running.port))
        assert context.minimum_version == ssl.TLSVersion.TLSv1_2

    @pytest.mark.parametrize("path", ["/", "/secret", "/../secret", "/%2e%2e/secret", "/sha256", f"/sha256/{LARGE[:2]}/{LARGE}", f"/{LARGE}/.."])
    def test_nothing_but_blobs(self, folder: Path, running: Running, path: str) -> None:
        assert ask(folder, running.port, path) == (404, b"")

    @pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
    def test_nothing_is_written(self, folder: Path, running: Running, method: str) -> None:
        assert ask(folder, running.port, f"/{LARGE}", method)[0] == 501

    def test_ranges(self, folder: Path, running: Running) -> None:
        assert ask(folder, running.port, f"/{LARGE}", headers={"Range": "bytes=100-"}) == (206, BLOBS[LARGE][100:])
        assert ask(folder, running.port, f"/{LARGE}", headers={"Range": f"bytes={SIZES[LARGE]}-"})[0] == 416
        assert ask(folder, running.port, f"/{LARGE}", headers={"Range": "lines=1-2"}) == (200, BLOBS[LARGE])
        assert ask(folder, running.port, f"/{LARGE}", "HEAD") == (200, b"")

    def test_a_silent_client_holds_up_nobody(self, folder: Path, running: Running) -> None:
        import socket

        with socket.create_connection(("127.0.0.1", running.port)):
            assert ask(folder, running.port, f"/{LARGE}")[0] == 200


class TestProgram:
    def command(self, folder: Path, port: int, idle: float) -> list[str]:
        script = folder / "serve.py"
        script.write_text(program())
        files = credentials(folder, "node")
        return [
            sys.executable, "-I", str(script), "--address", "127.0.0.1", "--port", str(port), "--store", str(folder / "store"),
            "--certificate", files["certificate"], "--key", files["key"], "--authority", files["authority"], "--organization", ORGANIZATION,
            "--idle-seconds", str(idle),
        ]  # fmt: skip

    def test_it_tells_systemd_and_ends_when_nobody_asks(self, folder: Path) -> None:
        import socket

        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
            told.bind(str(folder / "notify"))
            told.settimeout(120)
            environment = {**os.environ, "NOTIFY_SOCKET": str(folder / "notify")}
            with subprocess.Popen(self.command(folder, 0, 0.5), env=environment) as process:
                assert told.recv(100) == b"READY=1"
                assert process.wait(120) == 0

    def test_a_taken_port_is_told(self, folder: Path, running: Running) -> None:
        done = subprocess.run(self.command(folder, running.port, 5), capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 1 and "cannot serve" in done.stderr and "Traceback" not in done.stderr
