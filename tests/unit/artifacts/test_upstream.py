# SPDX-License-Identifier: Apache-2.0
"""Publishers' releases, through a proxy and a CA as companies have them: every artifact comes out right, and nothing else is ever taken."""

from __future__ import annotations

import re
import shutil
import socket
import threading
import time
from pathlib import Path

import pytest
import yaml
from ansible_collections.ashlar.stack.plugins.plugin_utils.artifacts import web as web_module
from ansible_collections.ashlar.stack.plugins.plugin_utils.artifacts.builder import Builder
from ansible_collections.ashlar.stack.plugins.plugin_utils.artifacts.catalogue import ArtifactCatalogue, Upstream
from ansible_collections.ashlar.stack.plugins.plugin_utils.artifacts.download import read
from ansible_collections.ashlar.stack.plugins.plugin_utils.artifacts.errors import (
    ArtifactError,
    ChecksumMismatch,
    NotAsked,
    Unreachable,
)
from ansible_collections.ashlar.stack.plugins.plugin_utils.artifacts.obtain import Obtainer, Options
from ansible_collections.ashlar.stack.plugins.plugin_utils.artifacts.store import Store
from ansible_collections.ashlar.stack.plugins.plugin_utils.artifacts.trust import HEADER, Lock, published
from ansible_collections.ashlar.stack.plugins.plugin_utils.artifacts.web import Servers, route

from .conftest import Shelf, Web, sha, visible
from .internet import PUBLISHERS, Internet, content

ROOT = Path(__file__).parents[3]
REAL = ArtifactCatalogue([ROOT / "artifacts"])
UPSTREAM = sorted(name for name in REAL.names() if any(isinstance(source, Upstream) for source in REAL.get(name).sources))
DATA = b"a program\n" * 30_000


def copied(folder: Path, name: str) -> ArtifactCatalogue:
    """An artifact of the real catalogue whose recorded checksums are left out, as the servers of these tests have other bytes."""
    shutil.copytree(REAL.get(name).directory, folder / name)
    for sums in (folder / name).glob("*/SHA*SUMS"):
        sums.unlink()
    return ArtifactCatalogue([folder])


def obtainer(store: Store, catalogue: ArtifactCatalogue, said: list[str], **options: object) -> Obtainer:
    return Obtainer(store, catalogue, Options(**({"sources": ["upstream"], "architectures": ["amd64", "arm64"]} | options)), said.append, 60)  # type: ignore[arg-type]


def test_every_upstream_source_is_written_down_here_too() -> None:
    assert sorted(PUBLISHERS) == UPSTREAM


@pytest.mark.parametrize("name", UPSTREAM)
def test_every_artifact_comes_out_of_its_release(name: str, internet: Internet, store: Store, tmp_path: Path) -> None:
    catalogue = copied(tmp_path / "catalogue", name)
    artifact = catalogue.get(name)
    for version in artifact.versions:
        internet.publish(PUBLISHERS[name].files(version))
        for architecture in ("amd64", "arm64"):
            if not PUBLISHERS[name].checksums:
                data = PUBLISHERS[name].archive(version, architecture)
                download = next(source for source in artifact.sources if isinstance(source, Upstream)).download(version, architecture)
                with (artifact.folder(version) / "SHA256SUMS").open("a") as sums:
                    sums.write(f"{sha(data)}  upstream/{architecture}/{download.name}\n")
        said: list[str] = []
        obtainer(store, catalogue, said).ensure({name: version})
        for architecture in ("amd64", "arm64"):
            index = store.read(name, version, architecture)
            assert index, said
            assert {file.path: file.mode for file in index.files} == {file.path: file.mode for file in artifact.files}
            source = next(source for source in artifact.sources if isinstance(source, Upstream))
            archive = PUBLISHERS[name].archive(version, architecture)
            assert index.download == sha(archive)
            for file in index.files:
                member = source.members[file.path].replace("{version}", version).replace("{architecture}", architecture)
                assert store.blob(file.sha256).read_bytes() == (content(member, version, architecture) if member else archive)


@pytest.mark.parametrize("name", UPSTREAM)
def test_a_checksum_of_the_catalogue_stops_a_release_with_other_bytes(name: str, internet: Internet, store: Store) -> None:
    """What is recorded today names the real downloads: every one of them refuses the made-up bytes of this server."""
    artifact = REAL.get(name)
    for version in artifact.versions:
        sums = artifact.sums(version)
        internet.publish(PUBLISHERS[name].files(version))
        for architecture in ("amd64", "arm64"):
            recorded = [key.split("/", 2)[2] for key in sums if key.startswith(f"upstream/{architecture}/")]
            if recorded:
                assert set(recorded) <= {PUBLISHERS[name].asset.replace("{v}", version).replace("{a}", architecture), *artifact.parts()}
                with pytest.raises(ChecksumMismatch, match=re.escape(str(artifact.folder(version) / "SHA256SUMS"))):
                    obtainer(store, REAL, [], architectures=[architecture]).ensure({name: version})
                assert store.read(name, version, architecture) is None


# --------------------------------------------------------------------------------------------- one artifact, everything that can go wrong

URL = "https://github.com/tool/releases/tool-{version}-{architecture}"
SOURCE = {"kind": "upstream", "url": URL, "members": {"tool": ""}, "checksums": "SHA256SUMS"}
GO = {"kind": "go", "build": {"tool": "example.com/tool"}}
FILE = "github.com/tool/releases/tool-1.0.0-amd64"
SUMS = "github.com/tool/releases/SHA256SUMS"
ADDRESS = f"https://{FILE}"


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    calls: list[str] = []

    def build(self: Builder, artifact: object, source: object, version: str, architecture: str, scratch: Path, progress: object) -> dict[str, Path]:
        calls.append(version)
        (scratch / "tool").write_bytes(b"built")
        return {"tool": scratch / "tool"}

    monkeypatch.setattr(Builder, "build", build)
    return calls


@pytest.fixture
def released(internet: Internet, shelf: Shelf) -> Internet:
    """A tool whose publisher has it, and a source to fall through to."""
    internet.publish({FILE: DATA, SUMS: f"{sha(DATA)}  tool-1.0.0-amd64\n".encode()})
    shelf.put("tool", [SOURCE, GO])
    return internet


def taken(shelf: Shelf, **options: object) -> str:
    """Where the tool came from."""
    (one,) = shelf.obtainer(**options).ensure({"tool": "1.0.0"})
    return one.source


def lock(tmp_path: Path) -> Lock:
    return Lock(tmp_path / "site" / "artifacts.lock.txt")


@pytest.fixture
def site(tmp_path: Path) -> Path:
    (tmp_path / "site").mkdir()
    return tmp_path / "site" / "artifacts.lock.txt"


def test_the_first_use_is_written_down_and_holds(released: Internet, shelf: Shelf, site: Path, tmp_path: Path, built: list[str]) -> None:
    assert taken(shelf, lock=site) == "upstream"
    assert site.read_text() == f"{HEADER}{sha(DATA)}  {ADDRESS}\n"
    before = len(released.web.requests)
    again = shelf.obtainer(lock=site)
    assert not again.ensure({"tool": "1.0.0"})[0].changed and again.locked == [] and len(released.web.requests) == before

    # Another controller of the same team, after the publisher's page was changed, checksum file and all.
    released.publish({FILE: b"evil", SUMS: f"{sha(b'evil')}  tool-1.0.0-amd64\n".encode()})
    other = Shelf(shelf.directory, Store(tmp_path / "other" / "store"))
    with pytest.raises(ChecksumMismatch) as caught:
        taken(other, lock=site)
    for word in (ADDRESS, sha(DATA), sha(b"evil"), str(site), "Nothing was installed", "publisher"):
        assert word in str(caught.value)
    assert built == [] and visible(other.store) == [] and site.read_text().count("\n") == HEADER.count("\n") + 1


def test_a_new_version_and_another_architecture_add_lines_and_keep_the_old(released: Internet, shelf: Shelf, site: Path) -> None:
    taken(shelf, lock=site)
    released.publish({FILE.replace("amd64", "arm64"): b"arm", FILE.replace("1.0.0", "2.0.0"): b"two"})
    released.publish({SUMS: f"{sha(DATA)}  tool-1.0.0-amd64\n{sha(b'arm')}  tool-1.0.0-arm64\n{sha(b'two')} *tool-2.0.0-amd64\n".encode()})
    shelf.obtainer(lock=site, architectures=["amd64", "arm64"]).ensure({"tool": "1.0.0"})
    shelf.put("tool", [SOURCE, GO], version="2.0.0")
    shelf.obtainer(lock=site).ensure({"tool": "2.0.0"})
    assert sorted(Lock(site).read().values()) == sorted([sha(DATA), sha(b"arm"), sha(b"two")])


def test_a_second_site_that_finds_the_store_full_gets_its_lock_all_the_same(released: Internet, shelf: Shelf, site: Path, tmp_path: Path) -> None:
    taken(shelf, lock=site)
    second = tmp_path / "second.lock.txt"
    obtainer = shelf.obtainer(lock=second)
    assert not obtainer.ensure({"tool": "1.0.0"})[0].changed
    assert obtainer.locked == [ADDRESS] and second.read_text() == site.read_text()


def test_what_the_store_has_is_not_used_where_the_lock_says_otherwise(released: Internet, shelf: Shelf, site: Path, built: list[str]) -> None:
    taken(shelf)
    Lock(site).add({ADDRESS: sha(b"what it was last year")})
    with pytest.raises(ChecksumMismatch, match=re.escape(str(site))):
        taken(shelf, lock=site)


def test_the_catalogues_checksum_needs_no_file_of_the_publisher_and_no_lock(released: Internet, shelf: Shelf, site: Path) -> None:
    shelf.put("tool", [SOURCE, GO], {"upstream/amd64/tool-1.0.0-amd64": sha(DATA)})
    assert taken(shelf, lock=site, checksums="pinned") == "upstream"
    assert not site.exists() and not any("SHA256SUMS" in path for path, _ in released.web.requests)


def test_sha512_of_the_catalogue(released: Internet, shelf: Shelf) -> None:
    import hashlib

    record = shelf.directory / "tool" / "1.0.0" / "SHA512SUMS"
    record.write_text(f"{hashlib.sha512(DATA).hexdigest()}  upstream/amd64/tool-1.0.0-amd64\n")
    assert taken(shelf, checksums="pinned") == "upstream"
    record.write_text(f"{'0' * 128}  upstream/amd64/tool-1.0.0-amd64\n")
    shutil.rmtree(shelf.store.root)
    with pytest.raises(ChecksumMismatch, match=f"expected sha512 0000.*{re.escape(str(record))}"):
        taken(shelf)


def test_pinned_takes_nothing_on_the_publishers_word(released: Internet, shelf: Shelf, site: Path, built: list[str]) -> None:
    assert taken(shelf, lock=site, checksums="pinned") == "go" and released.web.requests == [] and not site.exists()
    shelf.put("tool", [SOURCE])
    shutil.rmtree(shelf.store.root)
    with pytest.raises(ArtifactError, match="the catalogue has no checksum of tool-1.0.0-amd64, and the site's `checksums: pinned` accepts no other"):
        taken(shelf, lock=site, checksums="pinned")


def test_pinned_does_not_take_what_another_site_put_into_the_store_on_the_publishers_word(released: Internet, shelf: Shelf, built: list[str]) -> None:
    assert taken(shelf) == "upstream"
    assert taken(shelf, checksums="pinned") == "go" and built == ["1.0.0"]


def test_a_file_of_an_archive_that_is_recorded_is_checked_beside_the_publishers_word(released: Internet, shelf: Shelf, built: list[str]) -> None:
    shelf.put("tool", [SOURCE, GO], {"upstream/amd64/tool": "0" * 64})
    with pytest.raises(ChecksumMismatch, match="expected sha256 0000"):
        taken(shelf)
    assert built == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "answers 404"),
        (b"<html>Please log in</html>", "is no checksum file: it begins with '<html>Please log in"),
        (b"", "is no checksum file"),
        (f"{'a' * 64}  tool-1.0.0-arm64\n".encode(), "has no sha256 or sha512 of tool-1.0.0-amd64, but of tool-1.0.0-arm64"),
        (f"{'a' * 40}  tool-1.0.0-amd64\n".encode(), "is no checksum file"),
        (f"{'a' * 64}  tool-1.0.0-amd64\n{'b' * 64}  x/tool-1.0.0-amd64\n".encode(), "has 2 different checksums of tool-1.0.0-amd64"),
        (b'{"message": "API rate limit exceeded"}', "is no checksum file"),
    ],
    ids=["missing", "page", "empty", "another", "sha1", "contradiction", "rate limit"],
)
def test_a_checksum_file_that_is_of_no_use_falls_through(released: Internet, shelf: Shelf, built: list[str], text: bytes | None, words: str) -> None:
    released.publish({SUMS: text or b""})
    if text is None:
        released.web.redirects.pop(SUMS)
    assert taken(shelf) == "go"
    (line,) = [line for line in shelf.said if "cannot be used" in line]
    assert words in line and "next: go" in line and not any("tool-1.0.0" in path for path, _ in released.web.requests)


def test_the_forms_that_checksum_files_have() -> None:
    one, two, long = "a" * 64, "b" * 64, "c" * 128
    assert published(f"{one}\n", "x", "w") == one
    assert published(f"{one}  y\n{two} *./x\n", "x", "w") == two
    assert published(f"SHA256 (x) = {two.upper()}\nSHA256 (y) = {one}\n", "x", "w") == two
    assert published(f"{one}  x\n{long}  x\n", "x", "w") == long


def test_wrong_bytes_stop_and_ask_nobody_else(released: Internet, shelf: Shelf, built: list[str]) -> None:
    released.publish({FILE: b"evil"})
    with pytest.raises(ChecksumMismatch, match=f"expected sha256 {sha(DATA)}, found {sha(b'evil')}.*https://{SUMS}"):
        taken(shelf)
    assert built == [] and visible(shelf.store) == []


def test_a_cut_download_is_resumed(released: Internet, shelf: Shelf) -> None:
    released.web.cut = [1000, 100_000]  # the checksum file is shorter than that
    assert taken(shelf) == "upstream"
    assert [asked for path, asked in released.web.requests if asked] == ["bytes=100000-", "bytes=100000-"], "the redirect is asked for the rest as well"


def test_a_download_that_keeps_being_cut_falls_through(released: Internet, shelf: Shelf, built: list[str]) -> None:
    released.web.cut = [1000, 10, 10, 10, 10, 10]
    assert taken(shelf) == "go"
    assert any("the connection ended after 40 B of 293 KiB" in line for line in shelf.said), shelf.said


@pytest.mark.parametrize("place", [FILE, SUMS])
def test_a_redirect_to_http_is_refused(released: Internet, shelf: Shelf, web: Web, built: list[str], place: str) -> None:
    web.files["/x"] = DATA
    released.web.redirects[place] = f"{web.address}/x"
    assert taken(shelf) == "go" and web.requests == []
    assert any(f"https://{place} redirects from https to {web.address}/x, which is refused" in line for line in shelf.said), shelf.said


def test_redirects_in_a_circle_end(released: Internet, shelf: Shelf, built: list[str]) -> None:
    released.web.redirects[FILE] = ADDRESS
    assert taken(shelf) == "go"


def test_a_password_does_not_follow_a_redirect_to_another_server(internet: Internet) -> None:
    internet.web.files["dl.k8s.io/x"] = b"x"
    internet.web.redirects["github.com/x"] = "https://dl.k8s.io/x"
    assert read("https://joe:secret@github.com/x") == b"x"
    assert ["Authorization" in headers for headers in internet.web.headers] == [True, False]


def test_a_checksum_file_has_to_come_over_tls(shelf: Shelf) -> None:
    shelf.put("tool", [SOURCE | {"checksums": "http://example.com/SHA256SUMS"}])
    with pytest.raises(ArtifactError, match=r"sources\[0\].checksums is 'http://example.com/SHA256SUMS'; allowed: an address that begins with https://"):
        taken(shelf)


# --------------------------------------------------------------------------------------------------------------- the way into the web


def test_downloads_go_through_the_proxy(released: Internet, shelf: Shelf) -> None:
    assert taken(shelf) == "upstream"
    assert set(released.proxy.asked) == {"github.com:443", "release-assets.githubusercontent.com:443"}


def test_a_proxy_that_wants_a_password(released: Internet, shelf: Shelf, built: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    released.proxy.password = "joe:se@cret"
    assert taken(shelf) == "go"
    (line,) = [line for line in shelf.said if "cannot be used" in line]
    assert "407 Proxy Authentication Required. Give the proxy its user and password: https_proxy=http://user:password@host:port" in line
    shutil.rmtree(shelf.store.root)
    monkeypatch.setenv("https_proxy", released.proxy.address.replace("http://", "http://joe:se%40cret@"))
    assert taken(shelf) == "upstream" and not any("cret" in line for line in shelf.said)


def test_a_proxy_that_is_not_there_is_named_once(shelf: Shelf, internet: Internet, built: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "http://joe:secret@127.0.0.1:9")
    for name in ("one", "three", "two"):
        shelf.put(name, [SOURCE, GO])
    shelf.obtainer().ensure(dict.fromkeys(("one", "two", "three"), "1.0.0"))
    lines = [line for line in shelf.said if "cannot be used" in line]
    assert len(lines) == 1 and "github.com cannot be reached through the proxy 127.0.0.1:9: Connection refused" in lines[0], shelf.said


@pytest.mark.parametrize("value", ["socks5://127.0.0.1:1080", "https://proxy:3128", "http://joe:sec/ret@proxy", "http://"])
def test_a_proxy_that_cannot_be_used_is_one_clear_error(internet: Internet, shelf: Shelf, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("https_proxy", value)
    shelf.put("tool", [SOURCE, GO])
    with pytest.raises(ArtifactError, match="https_proxy is not the address of an HTTP proxy; allowed: http://proxy.example.com:3128") as caught:
        taken(shelf)
    assert "ret" not in str(caught.value).replace("secret", "")


def test_no_proxy_leaves_the_proxy_out(internet: Internet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1,.example.com")
    internet.web.files["127.0.0.1/x"] = b"x"
    assert read(f"{internet.web.address}/x") == b"x" and internet.proxy.asked == []
    assert route("https://mirror.example.com/x") == ("mirror.example.com", 443, "")
    assert "through the proxy" in route("https://github.com/x")[2]


@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
def test_a_private_ca(released: Internet, shelf: Shelf, built: list[str], monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.delenv("REQUESTS_CA_BUNDLE")
    assert taken(shelf) == "go"
    (line,) = [line for line in shelf.said if "cannot be used" in line]
    assert "its certificate is not trusted" in line and "set REQUESTS_CA_BUNDLE to the file of its CA" in line
    shutil.rmtree(shelf.store.root)
    monkeypatch.setenv(variable, str(released.authority))
    assert taken(shelf) == "upstream"


@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"])
def test_a_file_of_authorities_that_is_none_is_named(internet: Internet, shelf: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    shelf.put("tool", [SOURCE, GO])
    for path in (tmp_path / "missing.pem", tmp_path / "empty.pem"):
        (tmp_path / "empty.pem").write_text("nothing")
        monkeypatch.setenv(variable, str(path))
        with pytest.raises(ArtifactError, match=f"{variable} names {re.escape(str(path))}, which is no file of certificates in PEM"):
            taken(shelf)


def test_a_network_that_swallows_everything_costs_one_wait(internet: Internet, shelf: Shelf, built: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """No answer and no refusal, neither of the resolver nor of the server: one server is waited for once, whatever wants something of it."""
    waits: list[str] = []
    released = threading.Event()

    def nothing(address: tuple[str, int], timeout: float) -> socket.socket:
        waits.append(address[0])
        released.wait(60)
        raise TimeoutError

    monkeypatch.setattr(web_module.socket, "create_connection", nothing)
    names = [f"tool{number}" for number in range(12)]
    for name in names:
        shelf.put(name, [SOURCE, GO])
    obtainer = shelf.obtainer()
    obtainer.context.servers = Servers(seconds=0.2)
    start = time.monotonic()
    obtainer.ensure(dict.fromkeys(names, "1.0.0"))
    released.set()
    assert len(waits) == 1 and len(built) == 12 and time.monotonic() - start < 60
    assert len([line for line in shelf.said if "cannot be used" in line]) == 1


def test_a_server_is_tried_once_and_its_state_remembered() -> None:
    servers = Servers(seconds=0.5)
    with pytest.raises(Unreachable, match="127.0.0.1:9 cannot be reached: Connection refused"):
        servers.check("https://127.0.0.1:9/a")
    with pytest.raises(NotAsked, match="did not answer before"):
        servers.check("https://127.0.0.1:9/b")


# ---------------------------------------------------------------------------------------------------------------------- the lock file


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("<<<<<<< HEAD\n", "line 1: '<<<<<<< HEAD' is not `<64 hex>  <URL>`"),
        (f"# x\n{'a' * 64}  https://x/y\n{'b' * 64}  https://x/y\n", "line 3: another line has another sha256 of https://x/y. Remove the wrong one"),
        (f"{'a' * 63}  https://x/y\n", "line 1"),
    ],
)
def test_a_lock_file_that_was_merged_badly_is_one_clear_error(released: Internet, shelf: Shelf, site: Path, text: str, words: str) -> None:
    site.write_text(text)
    with pytest.raises(ArtifactError, match=re.escape(f"{site}, {words}")):
        taken(shelf, lock=site)


def test_a_lock_file_that_cannot_be_written_says_so(released: Internet, shelf: Shelf, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"nowhere/artifacts.lock.txt cannot be written: No such file or directory"):
        taken(shelf, lock=tmp_path / "nowhere" / "artifacts.lock.txt")


def test_ansible_takes_the_lock_file_for_no_inventory() -> None:
    from ansible import constants
    from ansible_collections.ashlar.stack.plugins.plugin_utils.artifacts.trust import LOCK

    assert LOCK.endswith(tuple(constants.INVENTORY_IGNORE_EXTS))


def test_comments_of_the_catalogue_name_where_each_checksum_is_from() -> None:
    """A checksum of a publisher's download is a fact taken over from somewhere, and says from where."""
    for name in UPSTREAM:
        for version in REAL.get(name).versions:
            path = REAL.get(name).folder(version) / "SHA256SUMS"
            lines = path.read_text().splitlines() if path.exists() else []
            for number, line in enumerate(lines):
                if "  upstream/" in line:
                    assert lines[number - 1].startswith("# "), f"{path}: {line}"


def test_every_release_has_checksums_that_can_be_had() -> None:
    """flannel's publisher has none."""
    without = []
    for name in UPSTREAM:
        raw = yaml.safe_load((REAL.get(name).directory / "artifact.yml").read_text())
        without += [name for source in raw["sources"] if source["kind"] == "upstream" and not source.get("checksums")]
        kinds = [source["kind"] for source in raw["sources"]]
        assert kinds.index("upstream") < kinds.index("go") if "go" in kinds else True
    assert without == ["flannel"]
