# SPDX-License-Identifier: Apache-2.0
"""The store: nothing half is ever visible, what is damaged is noticed, and collecting removes what nothing needs and nothing else."""

from __future__ import annotations

import multiprocessing
import time
from pathlib import Path

import pytest
from ansible_collections.ashlar.stack.plugins.plugin_utils.artifacts.errors import ArtifactError, ChecksumMismatch
from ansible_collections.ashlar.stack.plugins.plugin_utils.artifacts.store import Index, Store, StoredFile

from .conftest import sha, visible


def add(store: Store, name: str, data: bytes, version: str = "1") -> Index:
    with store.scratch() as scratch:
        (scratch / "tool").write_bytes(data)
        blob = store.add_blob(scratch / "tool")
    index = Index(name, version, "amd64", "go", (StoredFile("tool", blob.sha256, blob.size, "0755"),))
    store.write(index)
    return index


def test_what_was_written_is_read_again(store: Store) -> None:
    index = add(store, "etcd", b"one")
    assert store.read("etcd", "1", "amd64") == index
    assert store.blob(sha(b"one")).read_bytes() == b"one"
    assert store.blob(sha(b"one")).stat().st_mode & 0o777 == 0o444


def test_the_index_file_is_as_the_contract_says(store: Store) -> None:
    import json

    add(store, "etcd", b"one")
    data = json.loads((store.root / "index/etcd/1/amd64.json").read_text())
    assert data == {
        "name": "etcd",
        "version": "1",
        "architecture": "amd64",
        "source": "go",
        "files": [{"path": "tool", "sha256": sha(b"one"), "size": 3, "mode": "0755"}],
    }


def test_a_blob_with_another_checksum_never_becomes_visible(store: Store) -> None:
    with store.scratch() as scratch:
        (scratch / "tool").write_bytes(b"evil")
        with pytest.raises(ChecksumMismatch, match=f"expected sha256 {sha(b'good')}, found {sha(b'evil')}"):
            store.add_blob(scratch / "tool", expected=sha(b"good"))
    assert visible(store) == []


def test_an_index_is_refused_while_a_blob_is_missing(store: Store) -> None:
    with pytest.raises(ArtifactError, match="no blob for tool"):
        store.write(Index("etcd", "1", "amd64", "go", (StoredFile("tool", "0" * 64, 1, "0755"),)))
    assert visible(store) == []


@pytest.mark.parametrize("harm", ["gone", "short"])
def test_an_artifact_whose_blob_is_not_whole_counts_as_missing(store: Store, harm: str) -> None:
    add(store, "etcd", b"one")
    blob = store.blob(sha(b"one"))
    blob.unlink()
    if harm == "short":
        blob.write_bytes(b"o")
    assert store.read("etcd", "1", "amd64") is None


@pytest.mark.parametrize(
    "text",
    ["", "[]", '{"name": 1}', '{"name":"a","version":"1","architecture":"amd64","source":"go","files":[{"path":"../x","sha256":"0","size":1,"mode":"0755"}]}'],
)
def test_a_broken_index_file_is_named(store: Store, text: str) -> None:
    path = store.index_path("etcd", "1", "amd64")
    path.parent.mkdir(parents=True)
    path.write_text(text)
    with pytest.raises(ArtifactError, match=str(path)):
        store.read("etcd", "1", "amd64")


def test_damage_is_found_and_discarded(store: Store) -> None:
    add(store, "etcd", b"one")
    blob = store.blob(sha(b"one"))
    blob.chmod(0o644)
    blob.write_bytes(b"two")
    assert store.read("etcd", "1", "amd64") is not None, "a quick look sees sizes only"
    assert "etcd 1 amd64: tool is missing or damaged" in store.verify()[0]
    assert store.discard_damaged() == [sha(b"one")]
    assert store.read("etcd", "1", "amd64") is None


def test_collecting_keeps_what_an_index_names(store: Store) -> None:
    add(store, "etcd", b"one")
    add(store, "flannel", b"one")
    with store.scratch() as scratch:
        (scratch / "x").write_bytes(b"left over")
        store.add_blob(scratch / "x")
    removed, freed = store.collect()
    assert (removed, freed) == ([sha(b"left over")], len(b"left over"))
    removed, _ = store.collect(keep=[("flannel", "1")])
    assert removed == ["etcd 1 amd64"]
    assert store.read("flannel", "1", "amd64") and not (store.root / "index/etcd").exists()


def test_a_dry_collection_removes_nothing(store: Store) -> None:
    add(store, "etcd", b"one")
    before = visible(store)
    assert store.collect(keep=[], dry=True)[0] == [sha(b"one"), "etcd 1 amd64"]
    assert visible(store) == before


def test_collecting_removes_stale_scratch(store: Store) -> None:
    (store.root / "work" / "tmpdead").mkdir(parents=True)
    store.collect()
    assert not (store.root / "work").exists()


def test_scratch_of_who_was_killed_is_swept_but_not_that_of_who_adds(store: Store) -> None:
    with store.adding(), store.scratch() as scratch:
        store.sweep()
        assert scratch.exists()
    (store.root / "work" / "tmpdead").mkdir(parents=True)
    store.sweep()
    assert not (store.root / "work").exists()


def hold(root: Path, marks: Path, name: str) -> None:
    store = Store(root)
    with store.lock("etcd"):
        (marks / f"{name}.in").write_text(str(time.monotonic()))
        time.sleep(0.2)
        (marks / f"{name}.out").write_text(str(time.monotonic()))


def test_a_lock_is_held_by_one_process_at_a_time(store: Store, tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=hold, args=(store.root, tmp_path, str(number))) for number in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    spans = sorted((float((tmp_path / f"{n}.in").read_text()), float((tmp_path / f"{n}.out").read_text())) for n in range(3))
    assert all(first[1] <= second[0] for first, second in zip(spans, spans[1:], strict=False))


def test_a_lock_that_is_not_freed_is_an_error_with_its_name(store: Store) -> None:
    with store.lock("etcd"), pytest.raises(ArtifactError, match=r"etcd\.lock: another run"), store.lock("etcd", limit=0.05):
        pass


def test_collecting_waits_for_who_adds(store: Store) -> None:
    with store.adding(), store.adding(), pytest.raises(ArtifactError, match="another run"), store._flock(".store", 2, None, 0.05):
        pass
