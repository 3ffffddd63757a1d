# SPDX-License-Identifier: Apache-2.0
"""Downloads go on where they ended, and never pass off other bytes."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.ashlar.stack.plugins.plugin_utils.artifacts.download import fetch, read
from ansible_collections.ashlar.stack.plugins.plugin_utils.artifacts.errors import (
    ArtifactError,
    Cancelled,
    ChecksumMismatch,
    SourceUnavailable,
    Unreachable,
)
from ansible_collections.ashlar.stack.plugins.plugin_utils.artifacts.progress import Progress
from ansible_collections.ashlar.stack.plugins.plugin_utils.artifacts.trust import Expected
from ansible_collections.ashlar.stack.plugins.plugin_utils.artifacts.web import plain

from .conftest import Web, sha

DATA = bytes(range(256)) * 2000
RIGHT = Expected(sha(DATA), "a test")


@pytest.fixture
def progress() -> Progress:
    return Progress("etcd 1", lambda line: None)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "partial"


def test_a_cut_connection_is_resumed_where_it_ended(web: Web, target: Path, progress: Progress) -> None:
    web.files["/x"], web.cut = DATA, [100_000, 50_000]
    fetch(web.url("/x"), target, RIGHT, progress)
    assert target.read_bytes() == DATA
    assert [asked for _, asked in web.requests] == ["", "bytes=100000-", "bytes=150000-"]


def test_the_beginning_of_an_earlier_run_is_used(web: Web, target: Path, progress: Progress) -> None:
    web.files["/x"] = DATA
    target.write_bytes(DATA[:1234])
    fetch(web.url("/x"), target, RIGHT, progress)
    assert target.read_bytes() == DATA and web.requests == [("/x", "bytes=1234-")]


def test_a_whole_file_of_an_earlier_run_is_not_fetched_again(web: Web, target: Path, progress: Progress) -> None:
    web.files["/x"] = DATA
    target.write_bytes(DATA)
    fetch(web.url("/x"), target, RIGHT, progress)
    assert target.read_bytes() == DATA


def test_a_server_without_ranges_is_asked_from_the_start(web: Web, target: Path, progress: Progress) -> None:
    web.files["/x"], web.ranges = DATA, False
    target.write_bytes(DATA[:1234])
    fetch(web.url("/x"), target, RIGHT, progress)
    assert target.read_bytes() == DATA


def test_the_beginning_of_another_file_is_thrown_away(web: Web, target: Path, progress: Progress) -> None:
    web.files["/x"] = DATA
    target.write_bytes(b"something else")
    fetch(web.url("/x"), target, RIGHT, progress)
    assert target.read_bytes() == DATA


def test_a_wrong_checksum_stops_and_leaves_nothing(web: Web, target: Path, progress: Progress) -> None:
    web.files["/x"] = b"evil"
    with pytest.raises(ChecksumMismatch, match=f"expected sha256 {sha(DATA)}, found {sha(b'evil')}"):
        fetch(web.url("/x"), target, RIGHT, progress)
    assert not target.exists() and len(web.requests) == 1


def test_a_server_that_stumbles_is_asked_again(web: Web, target: Path, progress: Progress) -> None:
    web.files["/x"], web.errors = DATA, [503, 500]
    fetch(web.url("/x"), target, RIGHT, progress)
    assert target.read_bytes() == DATA and len(web.requests) == 3


def test_what_is_not_there_is_asked_for_once(web: Web, target: Path, progress: Progress) -> None:
    with pytest.raises(SourceUnavailable, match="answers 404"):
        fetch(web.url("/x"), target, None, progress)
    assert len(web.requests) == 1


def test_a_server_that_keeps_cutting_is_given_up_and_the_beginning_kept(web: Web, target: Path, progress: Progress) -> None:
    web.files["/x"], web.cut = DATA, [10, 10, 10, 10]
    with pytest.raises(Unreachable, match="the connection ended after 40 B"):
        fetch(web.url("/x"), target, RIGHT, progress)
    assert target.read_bytes() == DATA[:40]


def test_no_server_at_all(target: Path, progress: Progress) -> None:
    with pytest.raises(Unreachable, match="127.0.0.1:9/x cannot be reached"):
        fetch("http://127.0.0.1:9/x", target, None, progress)


def test_a_download_ends_when_the_run_is_given_up(web: Web, target: Path, progress: Progress) -> None:
    web.files["/x"] = DATA
    with pytest.raises(Cancelled):
        fetch(web.url("/x"), target, None, progress, cancelled=lambda: True)


def test_user_and_password_go_into_the_request_and_into_no_message(web: Web, target: Path, progress: Progress) -> None:
    address = web.address.replace("http://", "http://joe:s%40cret@")
    with pytest.raises(SourceUnavailable) as caught:
        fetch(f"{address}/x", target, None, progress)
    assert web.headers[0]["Authorization"] == "Basic am9lOnNAY3JldA=="
    assert "cret" not in str(caught.value) and plain(f"{address}/x") == web.url("/x")


def test_other_schemes_are_refused(target: Path, progress: Progress) -> None:
    with pytest.raises(ArtifactError, match="begins with http"):
        fetch("file:///etc/passwd", target, None, progress)


def test_a_small_file_that_is_large_is_refused(web: Web) -> None:
    web.files["/x"] = b"0" * 100
    with pytest.raises(ArtifactError, match="larger"):
        read(web.url("/x"), limit=50)


def test_progress_says_first_and_last_and_now_and_then() -> None:
    now = [0.0]
    said: list[str] = []
    progress = Progress("etcd 1", said.append, 10.0, lambda: now[0])
    progress.now("building")
    for now[0] in range(1, 26):
        progress.still("building")
    assert said == ["etcd 1: building", "etcd 1: building, 10 s", "etcd 1: building, 20 s"]
