# SPDX-License-Identifier: Apache-2.0
"""Grafana up to its program: the archive from a mirror, unpacked on the node; pages as files; the site's people as its users.

The program itself is stood in for by a shell script in an archive of the same shape, and its API by a server of the recorded shape on the loopback.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.machinery
import importlib.util
import io
import json
import stat
import subprocess
import tarfile
import threading
import urllib.request
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from ansible_collections.ashlar.stack.plugins.plugin_utils.artifacts.catalogue import ArtifactCatalogue
from ansible_collections.ashlar.stack.plugins.plugin_utils.artifacts.errors import ArtifactError
from ansible_collections.ashlar.stack.plugins.plugin_utils.artifacts.obtain import Obtainer, Options
from ansible_collections.ashlar.stack.plugins.plugin_utils.artifacts.store import Index, Store, StoredFile

ROOT = Path(__file__).parents[3]
VERSIONS: dict[str, str] = yaml.safe_load(max((ROOT / "releases").glob("*.yml")).read_text())["versions"]


def load() -> ModuleType:
    path = str(ROOT / "roles/grafana/templates/usr/local/libexec/ashlar/grafana-prepare")
    spec = importlib.util.spec_from_loader("grafana_prepare", importlib.machinery.SourceFileLoader("grafana_prepare", path))
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


prepare = load()


def archive(version: str, **more: bytes) -> bytes:
    """Like Grafana's own: everything below one folder, the program executable."""
    out = io.BytesIO()
    files = {"bin/grafana": b"#!/bin/sh\necho stand-in for grafana\n", "conf/defaults.ini": b"[server]\n", **more}
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for path, content in files.items():
            entry = tarfile.TarInfo(f"grafana-{version}/{path}")
            entry.size, entry.mode = len(content), 0o755 if path.startswith("bin/") else 0o644
            tar.addfile(entry, io.BytesIO(content))
    return out.getvalue()


def plugin() -> bytes:
    """Like the plugin's own, whose folder has the plugin's name."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as zipped:
        zipped.writestr("victoriametrics-logs-datasource/plugin.json", "{}")
        zipped.writestr("victoriametrics-logs-datasource/gpx_linux_amd64", "#!/bin/sh\n")
    return out.getvalue()


# ------------------------------------------------------------------------------------------------------------------------------ archive


@pytest.fixture
def mirror(tmp_path: Path) -> Iterator[str]:
    """An operator's mirror: another store behind a web server, with stand-ins of the right shape."""
    root = tmp_path / "mirror"
    for name, path, content in (("grafana", "grafana.tar.gz", archive("x")), ("grafana_victorialogs", "plugin.zip", plugin())):
        digest = hashlib.sha256(content).hexdigest()
        index = Index(name, VERSIONS[name], "amd64", "upstream", (StoredFile(path, digest, len(content), "0644"),))
        for file, data in ((f"index/{name}/{VERSIONS[name]}/amd64.json", index.dump().encode()), (f"sha256/{digest[:2]}/{digest}", content)):
            (root / file).parent.mkdir(parents=True, exist_ok=True)
            (root / file).write_bytes(data)

    class Handler(SimpleHTTPRequestHandler):
        def __init__(self, *arguments: Any, **more: Any) -> None:
            super().__init__(*arguments, directory=str(root), **more)

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def test_the_archives_come_from_a_mirror_and_are_unpacked_to_a_program(mirror: str, tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    obtainer = Obtainer(store, ArtifactCatalogue([ROOT / "artifacts"]), Options(architectures=["amd64"], mirror=mirror), lambda line: None, interval=0.05)
    wanted = {name: VERSIONS[name] for name in ("grafana", "grafana_victorialogs")}
    assert [one.source for one in obtainer.ensure(wanted)] == ["mirror", "mirror"]
    places = {}
    for name in wanted:
        index = store.read(name, wanted[name], "amd64")
        assert index
        places[name] = store.blob(index.files[0].sha256)
    assert prepare.unpack(places["grafana"], tmp_path / "program/1", "bin/grafana")
    assert prepare.unpack(places["grafana_victorialogs"], tmp_path / "plugins/1", "victoriametrics-logs-datasource/plugin.json")
    said = subprocess.run([tmp_path / "program/1/bin/grafana"], capture_output=True, text=True, timeout=120, check=True).stdout
    assert said == "stand-in for grafana\n"
    assert (tmp_path / "plugins/1/victoriametrics-logs-datasource/gpx_linux_amd64").stat().st_mode & stat.S_IXUSR


def test_without_a_source_one_error_says_what_to_do(tmp_path: Path) -> None:
    options = Options(architectures=["amd64"], sources=["mirror"])
    obtainer = Obtainer(Store(tmp_path), ArtifactCatalogue([ROOT / "artifacts"]), options, lambda line: None, interval=0.05)
    with pytest.raises(ArtifactError, match=r"Reach one of the sources, name a mirror \(artifacts_mirror\), or import a bundle"):
        obtainer.ensure({"grafana": VERSIONS["grafana"]})


def test_an_archive_is_unpacked_once_and_the_version_before_goes(tmp_path: Path) -> None:
    for version in ("1", "2"):
        (tmp_path / f"{version}.tar.gz").write_bytes(archive(version))
    assert prepare.unpack(tmp_path / "1.tar.gz", tmp_path / "program/1", "bin/grafana")
    assert not prepare.unpack(tmp_path / "1.tar.gz", tmp_path / "program/1", "bin/grafana")
    assert prepare.unpack(tmp_path / "2.tar.gz", tmp_path / "program/2", "bin/grafana")
    assert [path.name for path in (tmp_path / "program").iterdir()] == ["2"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "is not there; run site.yml"),
        (b"nonsense", "can't be unpacked"),
        (archive("1")[:-200], "can't be unpacked"),
        (plugin(), "has no bin/grafana; it is another program's archive, or damaged"),
    ],
)
def test_a_bad_archive_is_one_sentence_and_leaves_nothing(content: bytes | None, said: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "a").write_bytes(content)
    with pytest.raises(prepare.PrepareError, match=said):
        prepare.unpack(tmp_path / "a", tmp_path / "program/1", "bin/grafana")
    assert not list(tmp_path.glob("program/*"))


def test_an_archive_writes_nowhere_else(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(archive("1", **{"../../../escaped": b"x"}))
    assert prepare.unpack(tmp_path / "a", tmp_path / "program/1", "bin/grafana")
    assert not list(tmp_path.rglob("escaped"))


# -------------------------------------------------------------------------------------------------------------------------------- pages


def test_pages_are_files_of_their_folders_and_what_is_no_longer_a_page_goes(tmp_path: Path) -> None:
    source = tmp_path / "pages.json"
    source.write_text(json.dumps({"Platform": {"a": {"title": "A"}, "b": {"title": "B"}}, "Site": {"c": {"title": "C"}}}))
    assert prepare.pages(source, tmp_path / "pages") == 3
    assert prepare.pages(source, tmp_path / "pages") == 0
    source.write_text(json.dumps({"Platform": {"a": {"title": "New"}}}))
    assert prepare.pages(source, tmp_path / "pages") == 3
    assert [str(path.relative_to(tmp_path / "pages")) for path in (tmp_path / "pages").rglob("*.json")] == ["Platform/a.json"]
    assert json.loads((tmp_path / "pages/Platform/a.json").read_text()) == {"title": "New"}


# ------------------------------------------------------------------------------------------------------------------------------- people


class Pretended:
    """Grafana's users behind its API; `calls` that changed something."""

    def __init__(self) -> None:
        self.users: dict[str, dict[str, Any]] = {"ashlar": {"id": 1, "login": "ashlar", "email": "admin@localhost", "password": "secret", "role": "Admin"}}
        self.calls: list[str] = []
        pretended = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                data = json.loads(self.rfile.read(length)) if length else None
                name, _, password = base64.b64decode(self.headers["Authorization"].removeprefix("Basic ")).decode().partition(":")
                if pretended.users.get(name, {}).get("password") != password:
                    status, body = 401, {"message": "Invalid username or password"}
                else:
                    status, body = pretended.answer(self.command, self.path.partition("?")[0], data)
                text = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = answer

            def log_message(self, *_: object) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def answer(self, method: str, path: str, data: Any) -> tuple[int, Any]:
        if method != "GET":
            self.calls.append(f"{method} {path}")
        by_number = {str(user["id"]): user for user in self.users.values()}
        match method, path.strip("/").split("/"):
            case "GET", ["api", "health"]:
                return 200, {"database": "ok"}
            case "GET", ["api", "users"] | ["api", "user"]:
                return 200, [{key: user[key] for key in ("id", "login", "email")} for user in self.users.values()]
            case "GET", ["api", "orgs", "1", "users"]:
                return 200, [{"userId": user["id"], "login": user["login"], "role": user["role"]} for user in self.users.values()]
            case "POST", ["api", "admin", "users"]:
                number = max(user["id"] for user in self.users.values()) + 1
                self.users[data["login"]] = {**data, "id": number, "role": "Viewer"}
                return 200, {"id": number, "message": "User created"}
            case "PUT", ["api", "user", "password"]:
                self.users["ashlar"]["password"] = data["newPassword"]
                return 200, {"message": "User password changed"}
            case "PUT", ["api", "admin", "users", number, "password"]:
                by_number[number]["password"] = data["password"]
                return 200, {"message": "User password updated"}
            case "PATCH", ["api", "orgs", "1", "users", number]:
                by_number[number]["role"] = data["role"]
                return 200, {"message": "Organization user updated"}
            case "DELETE", ["api", "admin", "users", number]:
                del self.users[by_number[number]["login"]]
                return 200, {"message": "User deleted"}
        return 404, {"message": "Not found"}


@pytest.fixture
def grafana() -> Iterator[Pretended]:
    made = Pretended()
    yield made
    made.server.shutdown()


def connected(grafana: Pretended, password: str = "secret") -> Any:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    return prepare.Grafana(f"http://127.0.0.1:{grafana.server.server_port}", "n", "", password, opener)


def tell(grafana: Pretended, password: str = "secret", **people: tuple[str, str]) -> int:
    settings = {"domain": "site.example", "people": {name: {"password": word, "role": role} for name, (word, role) in people.items()}}
    return int(prepare.people(settings, connected(grafana, password)))


def test_the_administrator_gets_a_rotated_password_once(grafana: Pretended) -> None:
    assert not prepare.administrator(connected(grafana), ["secret"])
    assert not prepare.administrator(connected(grafana), ["secret", "next"])
    assert prepare.administrator(connected(grafana, "next"), ["next", "secret"])
    assert grafana.users["ashlar"]["password"] == "next"
    assert not prepare.administrator(connected(grafana, "next"), ["next", "secret"])
    assert not prepare.administrator(connected(grafana, "other"), ["other"]), "people() says what to do"


def test_people_come_get_other_passwords_and_roles_and_go(grafana: Pretended) -> None:
    grafana.users["guest"] = {"id": 9, "login": "guest", "email": "guest@elsewhere", "password": "g", "role": "Viewer"}
    assert tell(grafana, admin=("one", "Admin"), eve=("two", "Viewer")) == 3
    assert (grafana.users["admin"]["role"], grafana.users["admin"]["password"]) == ("Admin", "one")
    assert tell(grafana, admin=("one", "Admin"), eve=("two", "Viewer")) == 0
    assert tell(grafana, admin=("new", "Editor")) == 3
    assert (grafana.users["admin"]["role"], grafana.users["admin"]["password"]) == ("Editor", "new")
    assert set(grafana.users) == {"ashlar", "guest", "admin"}


def test_an_administrator_with_another_password_is_told_what_to_do(grafana: Pretended) -> None:
    with pytest.raises(prepare.PrepareError, match="reset-admin-password"):
        tell(grafana, password="wrong", admin=("one", "Admin"))


def test_a_silent_grafana_is_waited_for_and_then_told(grafana: Pretended) -> None:
    grafana.server.shutdown()
    grafana.server.server_close()
    with pytest.raises(prepare.PrepareError, match="has not answered for 2 s"):
        prepare.wait(connected(grafana), 2)
