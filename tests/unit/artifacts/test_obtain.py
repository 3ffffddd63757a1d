# SPDX-License-Identifier: Apache-2.0
"""Sources fall through, wrong bytes do not, runs that are killed go on, and runs that meet share."""

from __future__ import annotations

import io
import multiprocessing
import os
import re
import signal
import tarfile
import threading
import time
import zipfile
from pathlib import Path

import pytest
from ansible_collections.ashlar.stack.plugins.plugin_utils.artifacts.builder import Builder
from ansible_collections.ashlar.stack.plugins.plugin_utils.artifacts.catalogue import Artifact
from ansible_collections.ashlar.stack.plugins.plugin_utils.artifacts.errors import ArtifactError, ChecksumMismatch, SourceUnavailable
from ansible_collections.ashlar.stack.plugins.plugin_utils.artifacts.forecast import Forecast
from ansible_collections.ashlar.stack.plugins.plugin_utils.artifacts.progress import Progress
from ansible_collections.ashlar.stack.plugins.plugin_utils.artifacts.store import Index, StoredFile

from .conftest import Shelf, Web, sha, visible

BYTES = os.urandom(300_000)
MIRROR = {"kind": "mirror"}
RAW = {"kind": "upstream", "url": "URL/tool-{version}-{architecture}", "members": {"tool": ""}}
GO = {"kind": "go", "build": {"tool": "example.com/tool"}}


def upstream(web: Web, **more: object) -> dict[str, object]:
    return RAW | {"url": f"{web.address}/tool-{{version}}-{{architecture}}"} | more


def recorded(data: bytes = BYTES) -> dict[str, str]:
    return {"upstream/amd64/tool-1.0.0-amd64": sha(data)}


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Stands for the builder; returns what was built."""
    calls: list[str] = []

    def build(self: Builder, artifact: object, source: object, version: str, architecture: str, scratch: Path, progress: object) -> dict[str, Path]:
        calls.append(f"{artifact.name} {version} {architecture}")  # type: ignore[attr-defined]
        (scratch / "tool").write_bytes(BYTES)
        return {"tool": scratch / "tool"}

    monkeypatch.setattr(Builder, "build", build)
    return calls


def mirrored(web: Web, name: str = "tool", data: bytes = BYTES, source: str = "go", claim: str | None = None) -> None:
    """Let the server be another store."""
    index = Index(name, "1.0.0", "amd64", source, (StoredFile("tool", claim or sha(data), len(data), "0755"),))
    web.files[f"/index/{name}/1.0.0/amd64.json"] = index.dump().encode()
    web.files[f"/sha256/{sha(data)[:2]}/{claim or sha(data)}"] = data


def test_upstream_with_a_recorded_checksum(web: Web, shelf: Shelf) -> None:
    web.files["/tool-1.0.0-amd64"] = BYTES
    shelf.put("tool", [upstream(web)], recorded())
    (one,) = shelf.obtainer().ensure({"tool": "1.0.0"})
    assert (one.source, one.changed) == ("upstream", True)
    index = shelf.store.read("tool", "1.0.0", "amd64")
    assert index and index.files == (StoredFile("tool", sha(BYTES), len(BYTES), "0755"),)
    (again,) = shelf.obtainer().ensure({"tool": "1.0.0"})
    assert not again.changed and len(web.requests) == 1


def test_upstream_without_a_recorded_checksum_is_never_asked(web: Web, shelf: Shelf, built: list[str]) -> None:
    web.files["/tool-1.0.0-amd64"] = BYTES
    shelf.put("tool", [upstream(web), GO])
    (one,) = shelf.obtainer().ensure({"tool": "1.0.0"})
    assert one.source == "go" and web.requests == [] and built == ["tool 1.0.0 amd64"]


def test_recording_writes_what_upstream_serves(web: Web, shelf: Shelf) -> None:
    web.files["/tool-1.0.0-amd64"] = BYTES
    shelf.put("tool", [upstream(web)])
    shelf.obtainer(record=True).ensure({"tool": "1.0.0"})
    assert shelf.obtainer().catalogue.get("tool").sums("1.0.0") == recorded() | {"upstream/amd64/tool": sha(BYTES)}


def test_recording_writes_what_was_built(shelf: Shelf, built: list[str]) -> None:
    shelf.put("tool", [GO])
    shelf.obtainer(record=True).ensure({"tool": "1.0.0"})
    assert shelf.obtainer().catalogue.get("tool").sums("1.0.0") == {"go/amd64/tool": sha(BYTES)}


def test_an_unreachable_source_falls_through_with_one_line(shelf: Shelf, built: list[str]) -> None:
    shelf.put("tool", [MIRROR, GO])
    shelf.obtainer(mirror="http://127.0.0.1:9").ensure({"tool": "1.0.0"})
    lines = [line for line in shelf.said if "cannot be used" in line]
    assert len(lines) == 1 and re.search(r"tool 1.0.0 amd64: mirror cannot be used \(.*127.0.0.1:9.*\); next: go", lines[0])


def test_a_dead_server_is_not_asked_again(shelf: Shelf, built: list[str]) -> None:
    for name in ("one", "three", "two"):
        shelf.put(name, [MIRROR, GO])
    shelf.obtainer(mirror="http://127.0.0.1:9", downloads=1).ensure({"one": "1.0.0", "two": "1.0.0", "three": "1.0.0"})
    assert sum("cannot be used" in line for line in shelf.said) == 1, shelf.said


def test_a_file_that_upstream_no_longer_has_falls_through(web: Web, shelf: Shelf, built: list[str]) -> None:
    shelf.put("tool", [upstream(web), GO], recorded())
    (one,) = shelf.obtainer().ensure({"tool": "1.0.0"})
    assert one.source == "go"


def test_a_wrong_checksum_stops_and_asks_nobody_else(web: Web, shelf: Shelf, built: list[str]) -> None:
    web.files["/tool-1.0.0-amd64"] = b"evil"
    shelf.put("tool", [upstream(web), GO], recorded())
    with pytest.raises(ChecksumMismatch, match=f"expected sha256 {sha(BYTES)}, found {sha(b'evil')}"):
        shelf.obtainer().ensure({"tool": "1.0.0"})
    assert built == [] and visible(shelf.store) == []


def test_a_build_with_other_bytes_than_recorded_stops(shelf: Shelf, built: list[str]) -> None:
    shelf.put("tool", [GO], {"go/amd64/tool": "0" * 64})
    with pytest.raises(ChecksumMismatch, match="expected sha256 0000"):
        shelf.obtainer().ensure({"tool": "1.0.0"})
    assert visible(shelf.store) == []


def test_all_sources_out_of_reach_is_one_error_with_every_reason(web: Web, shelf: Shelf) -> None:
    shelf.put("tool", [MIRROR, upstream(web)], recorded())
    with pytest.raises(ArtifactError, match=r"cannot be obtained: mirror: .*127.0.0.1:9.*; upstream: .*404.*Reach one of the sources"):
        shelf.obtainer(mirror="http://127.0.0.1:9").ensure({"tool": "1.0.0"})


def test_a_source_kind_that_is_not_allowed_is_not_asked(web: Web, shelf: Shelf, built: list[str]) -> None:
    shelf.put("tool", [upstream(web), GO], recorded())
    with pytest.raises(ArtifactError, match="none of its sources is allowed"):
        shelf.obtainer(sources=["package"]).ensure({"tool": "1.0.0"})
    assert web.requests == [] and built == []


def test_the_order_of_sources_may_be_the_sites(web: Web, shelf: Shelf, built: list[str]) -> None:
    web.files["/tool-1.0.0-amd64"] = BYTES
    shelf.put("tool", [upstream(web), GO], recorded())
    (one,) = shelf.obtainer(sources=["go", "upstream"]).ensure({"tool": "1.0.0"})
    assert one.source == "go" and web.requests == []


def test_another_store_is_a_mirror(web: Web, shelf: Shelf) -> None:
    mirrored(web)
    shelf.put("tool", [MIRROR])
    (one,) = shelf.obtainer(mirror=web.address).ensure({"tool": "1.0.0"})
    index = shelf.store.read("tool", "1.0.0", "amd64")
    assert one.source == "mirror" and index and index.source == "go"


def test_a_mirror_that_contradicts_the_catalogue_stops(web: Web, shelf: Shelf, built: list[str]) -> None:
    mirrored(web)
    shelf.put("tool", [MIRROR, GO], {"go/amd64/tool": "0" * 64})
    with pytest.raises(ChecksumMismatch):
        shelf.obtainer(mirror=web.address).ensure({"tool": "1.0.0"})
    assert visible(shelf.store) == [] and built == []


def test_a_mirror_whose_blob_is_not_what_its_index_says_stops(web: Web, shelf: Shelf, built: list[str]) -> None:
    mirrored(web, claim="1" * 64)
    web.files["/sha256/11/" + "1" * 64] = b"evil"
    shelf.put("tool", [MIRROR, GO])
    with pytest.raises(ChecksumMismatch):
        shelf.obtainer(mirror=web.address).ensure({"tool": "1.0.0"})
    assert visible(shelf.store) == [] and built == []


def test_plain_files_with_recorded_checksums_are_a_mirror_too(web: Web, shelf: Shelf) -> None:
    web.files["/pub/tool/1.0.0/amd64/tool"] = BYTES
    shelf.put("tool", [MIRROR], {"go/amd64/tool": sha(BYTES)})
    shelf.obtainer(mirror=f"{web.address}/pub/").ensure({"tool": "1.0.0"})
    assert shelf.store.read("tool", "1.0.0", "amd64")


def test_a_mirror_without_the_artifact_falls_through(web: Web, shelf: Shelf, built: list[str]) -> None:
    shelf.put("tool", [MIRROR, GO])
    (one,) = shelf.obtainer(mirror=web.address).ensure({"tool": "1.0.0"})
    assert one.source == "go"


def tarball() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, data in (("./pkg/bin/tool", BYTES), ("../../evil", b"evil"), ("/etc/evil", b"evil")):
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


def zipped() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("pkg/bin/tool", BYTES)
    return buffer.getvalue()


@pytest.mark.parametrize("archive", [tarball(), zipped()], ids=["tar", "zip"])
def test_a_member_of_an_archive(web: Web, shelf: Shelf, archive: bytes, tmp_path: Path) -> None:
    web.files["/tool-1.0.0-amd64"] = archive
    shelf.put("tool", [upstream(web, members={"tool": "pkg/bin/tool"})], recorded(archive))
    shelf.obtainer().ensure({"tool": "1.0.0"})
    assert shelf.store.blob(sha(BYTES)).read_bytes() == BYTES
    assert not list(tmp_path.rglob("evil"))


@pytest.mark.parametrize("archive", [tarball(), zipped(), b"no archive"], ids=["tar", "zip", "garbage"])
def test_an_archive_without_the_member_is_an_error_of_the_catalogue(web: Web, shelf: Shelf, archive: bytes, built: list[str]) -> None:
    web.files["/tool-1.0.0-amd64"] = archive
    shelf.put("tool", [upstream(web, members={"tool": "pkg/other"}), GO], recorded(archive))
    with pytest.raises(ArtifactError, match=r"correct .*members"):
        shelf.obtainer().ensure({"tool": "1.0.0"})
    assert visible(shelf.store) == []


def test_an_image_is_packed_of_what_a_source_gives(web: Web, shelf: Shelf) -> None:
    web.files["/tool-1.0.0-amd64"] = BYTES
    image = {"path": "tool.oci.tar", "image": {"reference": "registry.example/tool:{version}", "programs": {"/tool": "tool"}}}
    shelf.put("tool", [upstream(web)], recorded(), files=[image])
    shelf.obtainer().ensure({"tool": "1.0.0"})
    index = shelf.store.read("tool", "1.0.0", "amd64")
    assert index and [(file.path, file.mode) for file in index.files] == [("tool.oci.tar", "0644")]
    with tarfile.open(shelf.store.blob(index.files[0].sha256)) as archive:
        assert b"registry.example/tool:1.0.0" in archive.extractfile("index.json").read()  # type: ignore[union-attr]


def test_packages_have_one_index_for_each_distribution(shelf: Shelf) -> None:
    shelf.put("debs", [{"kind": "package", "packages": ["x"]}], packages=True)
    targets = shelf.obtainer(codenames=["trixie", "bookworm"], architectures=["amd64", "arm64"]).targets({"debs": "1.0.0"})
    assert [target.key for target in targets] == ["amd64-trixie", "amd64-bookworm", "arm64-trixie", "arm64-bookworm"]


def test_downloads_come_several_at_once_and_builds_two_by_two(web: Web, shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ansible_collections.ashlar.stack.plugins.plugin_utils.artifacts.obtain.BUILDS", 2)
    at_once, most, pair = [0], [0], threading.Barrier(2)

    def build(self: Builder, artifact: object, source: object, version: str, architecture: str, scratch: Path, progress: object) -> dict[str, Path]:
        at_once[0] += 1
        most[0] = max(most[0], at_once[0])
        pair.wait(30)
        at_once[0] -= 1
        (scratch / "tool").write_bytes(BYTES)
        return {"tool": scratch / "tool"}

    monkeypatch.setattr(Builder, "build", build)
    web.meeting = threading.Barrier(4)
    web.files["/tool-1.0.0-amd64"] = BYTES
    for number in range(4):
        shelf.put(f"down{number}", [upstream(web)], recorded())
        shelf.put(f"build{number}", [GO])
    done = shelf.obtainer().ensure({f"{kind}{number}": "1.0.0" for kind in ("down", "build") for number in range(4)})
    assert len(done) == 8 and most[0] == 2


def test_the_longest_build_comes_first_and_lines_say_how_many_are_left(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ansible_collections.ashlar.stack.plugins.plugin_utils.artifacts.obtain.BUILDS", 1)
    for name, seconds in {"short": 5, "long": 300, "middle": 60}.items():
        shelf.put(name, [GO | {"seconds": seconds}])
    obtainer = shelf.obtainer(downloads=1)
    order: list[str] = []

    def build(self: Builder, artifact: Artifact, source: object, version: str, architecture: str, scratch: Path, progress: Progress) -> dict[str, Path]:
        order.append(artifact.name)
        while "of 3 built" not in str(obtainer.forecast) or not any("of 3 built" in line for line in shelf.said):
            progress.still("building")
            time.sleep(0.01)
        (scratch / "tool").write_bytes(BYTES)
        return {"tool": scratch / "tool"}

    monkeypatch.setattr(Builder, "build", build)
    obtainer.ensure(dict.fromkeys(("short", "long", "middle"), "1.0.0"))
    assert order == ["long", "middle", "short"]
    assert "; 0 of 3 built, about 6 min left" in next(line for line in shelf.said if "of 3 built" in line)


def test_a_forecast_follows_the_pace_of_the_machine() -> None:
    now = [0.0]
    forecast = Forecast(lambda: now[0])
    assert str(forecast) == ""
    for title, seconds in {"a": 120, "b": 120, "c": 240}.items():
        forecast.expect(title, seconds)
    assert str(forecast) == "0 of 3 built, about 8 min left"
    forecast.begin("a")
    forecast.begin("b")
    now[0] = 480.0
    forecast.end("a")
    assert str(forecast) == "1 of 3 built, about 8 min left", "twice as slow as expected; b has had as much of the machine as a"
    forecast.end("b")
    forecast.begin("c")
    now[0] = 900.0
    assert str(forecast) == "2 of 3 built, about a minute left"



def test_one_failure_ends_the_others_and_is_told(web: Web, shelf: Shelf, built: list[str]) -> None:
    web.files["/tool-1.0.0-amd64"] = b"evil" * 10
    shelf.put("bad", [upstream(web)], recorded())
    shelf.put("fine", [GO])
    with pytest.raises(ChecksumMismatch, match="wrong checksum"):
        shelf.obtainer(sources=["upstream", "go"], downloads=1).ensure({"bad": "1.0.0", "fine": "1.0.0"})


def ensure_in_child(shelf: Shelf) -> None:
    shelf.obtainer().ensure({"tool": "1.0.0"})


def test_a_run_that_is_killed_half_way_goes_on_where_it_was(web: Web, shelf: Shelf) -> None:
    web.files["/tool-1.0.0-amd64"], web.seconds_a_chunk = BYTES, 0.2
    shelf.put("tool", [upstream(web)], recorded())
    child = multiprocessing.get_context("fork").Process(target=ensure_in_child, args=(shelf,))
    child.start()
    partial = shelf.store.root / "partial"
    end = time.monotonic() + 120
    while not any(path.stat().st_size for path in partial.glob("*")) and time.monotonic() < end:
        time.sleep(0.01)
    time.sleep(0.25)
    os.kill(child.pid or 0, signal.SIGKILL)
    child.join(120)
    assert visible(shelf.store) == []
    web.seconds_a_chunk = 0.0
    shelf.obtainer().ensure({"tool": "1.0.0"})
    index = shelf.store.read("tool", "1.0.0", "amd64")
    assert index and shelf.store.blob(index.files[0].sha256).read_bytes() == BYTES
    assert re.fullmatch(r"bytes=\d+-", web.requests[-1][1]), "the second run asked for the rest only"


def test_two_runs_that_meet_obtain_an_artifact_once(web: Web, shelf: Shelf) -> None:
    web.files["/tool-1.0.0-amd64"], web.seconds_a_chunk = BYTES, 0.05
    shelf.put("tool", [upstream(web)], recorded())
    children = [multiprocessing.get_context("fork").Process(target=ensure_in_child, args=(shelf,)) for _ in range(3)]
    for child in children:
        child.start()
    for child in children:
        child.join(120)
    assert [child.exitcode for child in children] == [0, 0, 0]
    assert len(web.requests) == 1 and shelf.store.read("tool", "1.0.0", "amd64")


def test_a_reader_never_sees_half_a_file(web: Web, shelf: Shelf) -> None:
    """While artifacts are obtained, whatever an index names is there with its size, and every visible blob is whole."""
    web.files["/tool-1.0.0-amd64"], web.seconds_a_chunk = BYTES, 0.01
    shelf.put("tool", [upstream(web)], recorded())
    child = multiprocessing.get_context("fork").Process(target=ensure_in_child, args=(shelf,))
    child.start()
    while child.is_alive():
        for path in (shelf.store.root / "sha256").glob("*/*"):
            assert path.stat().st_size == len(BYTES)
        for index in shelf.store.indexes():
            assert shelf.store.read(index.name, index.version, index.architecture)
    child.join()
    assert child.exitcode == 0


def test_what_is_there_is_neither_fetched_nor_built_again(web: Web, shelf: Shelf, built: list[str]) -> None:
    names = {f"tool{number}": "1.0.0" for number in range(20)}
    for name in names:
        shelf.put(name, [GO])
    shelf.obtainer().ensure(names)
    assert len(built) == 20
    assert not any(one.changed for one in shelf.obtainer().ensure(names))
    assert len(built) == 20 and web.requests == []


def test_caches_go_after_the_last_build_unless_they_are_to_stay(shelf: Shelf, built: list[str]) -> None:
    cache = shelf.store.root.parent / "build" / "gocache" / "x"
    cache.mkdir(parents=True)
    shelf.put("tool", [GO])
    shelf.put("other", [GO])
    shelf.obtainer(keep_caches=True).ensure({"tool": "1.0.0"})
    assert cache.exists()
    cache.chmod(0o555)
    shelf.obtainer().ensure({"other": "1.0.0"})
    assert not cache.parent.exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"architectures": ["riscv"]}, "architectures has 'riscv'; allowed: amd64, arm64"),
        ({"codenames": ["../x"]}, "codenames has '../x'"),
        ({"sources": ["torrent"]}, "sources has 'torrent'; allowed: mirror, upstream, go, package"),
        ({"mirror": "ftp://x"}, "mirror is 'ftp://x'; allowed: an address that begins with"),
    ],
)
def test_wrong_options_say_what_is_allowed(shelf: Shelf, options: dict[str, object], words: str) -> None:
    with pytest.raises(ArtifactError, match=re.escape(words)):
        shelf.obtainer(**options)


def test_a_disk_that_fails_is_an_error_and_no_traceback(web: Web, shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    def build(*_: object, **__: object) -> dict[str, Path]:
        raise OSError(28, "No space left on device", "/x")

    monkeypatch.setattr(Builder, "build", build)
    shelf.put("tool", [GO])
    with pytest.raises(ArtifactError, match="tool 1.0.0 amd64: .*No space left"):
        shelf.obtainer().ensure({"tool": "1.0.0"})


def test_what_the_store_has_is_obtained_anew_when_the_catalogue_records_other_bytes(shelf: Shelf, built: list[str]) -> None:
    shelf.put("tool", [GO])
    shelf.obtainer().ensure({"tool": "1.0.0"})
    shelf.put("tool", [GO], {"go/amd64/tool": sha(BYTES)})
    assert not shelf.obtainer().ensure({"tool": "1.0.0"})[0].changed
    shelf.put("tool", [GO], {"go/amd64/tool": "0" * 64})
    with pytest.raises(ChecksumMismatch, match="If its source was changed, remove the lines of go/amd64 from"):
        shelf.obtainer().ensure({"tool": "1.0.0"})
    assert len(built) == 2


def test_a_plan_obtains_nothing(web: Web, shelf: Shelf) -> None:
    shelf.put("tool", [upstream(web), GO], recorded())
    obtainer = shelf.obtainer()
    plan = obtainer.plan({"tool": "1.0.0"})
    assert [target.title for target in plan.missing] == ["tool 1.0.0 amd64"] and plan.present == []
    assert obtainer.kinds(plan.missing[0].artifact) == ["upstream", "go"]
    assert web.requests == [] and not shelf.store.root.exists()


def test_a_build_that_cannot_be_falls_through(web: Web, shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    def build(*_: object, **__: object) -> dict[str, Path]:
        raise SourceUnavailable("no proxy")

    monkeypatch.setattr(Builder, "build", build)
    web.files["/tool-1.0.0-amd64"] = BYTES
    shelf.put("tool", [GO, upstream(web)], recorded())
    (one,) = shelf.obtainer().ensure({"tool": "1.0.0"})
    assert one.source == "upstream" and any("go cannot be used (no proxy); next: upstream" in line for line in shelf.said)


def program(shelf: Shelf, **files: str) -> Path:
    """An artifact `own` that is a program beside the catalogue."""
    folder = shelf.directory.parent / "programs" / "own"
    for name, text in files.items():
        (folder / name.replace("__", "/")).parent.mkdir(parents=True, exist_ok=True)
        (folder / name.replace("__", "/")).write_text(text)
    (shelf.directory / "own").mkdir(parents=True, exist_ok=True)
    text = "description: A program of our own.\nprogram: true\nsources: [{kind: program}]\n"
    (shelf.directory / "own" / "artifact.yml").write_text(text)
    return folder


def test_a_program_of_ours_is_taken_from_the_checkout_whatever_sources_are_allowed(shelf: Shelf) -> None:
    folder = program(shelf, tool="#!/bin/sh\n", lib__part="x", tests__test_part="assert 0")
    (folder / "tool").chmod(0o755)
    (version,) = shelf.obtainer().catalogue.get("own").versions
    shelf.obtainer(sources=["mirror"]).ensure({"own": version})
    index = shelf.store.read("own", version, "amd64")
    assert index and [(file.path, file.mode) for file in index.files] == [("lib/part", "0644"), ("tool", "0755")]
    assert shelf.store.blob(index.files[0].sha256).read_text() == "x"
    assert (folder / "lib/part").read_text() == "x", "the source stays where it is"


def test_a_program_that_was_changed_is_another_artifact(shelf: Shelf) -> None:
    folder = program(shelf, tool="one")
    (before,) = shelf.obtainer().catalogue.get("own").versions
    shelf.obtainer().ensure({"own": before})
    (folder / "tool").write_text("two")
    with pytest.raises(ArtifactError, match=rf"own {before} is not what .*/programs/own holds, which is own-\w+"):
        shelf.obtainer().ensure({"own": before})
    (after,) = shelf.obtainer().catalogue.get("own").versions
    shelf.obtainer().ensure({"own": after})
    index = shelf.store.read("own", after, "amd64")
    assert index and shelf.store.blob(index.files[0].sha256).read_text() == "two"
    assert shelf.store.read("own", before, "amd64"), "a node that runs it can still have it"
