# SPDX-License-Identifier: Apache-2.0
"""What goes into a bundle comes out of it into a fresh store, and no secret goes in."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from ansible_collections.ashlar.stack.plugins.plugin_utils.artifacts import bundle
from ansible_collections.ashlar.stack.plugins.plugin_utils.artifacts.errors import ArtifactError, ChecksumMismatch
from ansible_collections.ashlar.stack.plugins.plugin_utils.artifacts.progress import Progress
from ansible_collections.ashlar.stack.plugins.plugin_utils.artifacts.store import Index, Store

from .conftest import visible
from .test_store import add

ROOT = Path(__file__).parents[3]


@pytest.fixture
def progress() -> Progress:
    return Progress("bundle", lambda line: None)


@pytest.fixture
def collection(tmp_path: Path) -> Path:
    root = tmp_path / "collection"
    for name in ("site.yml", "plugins/x.py", "inventories/a/20-stack.yml", "inventories/a/credentials/admin.key", ".venv/bin/python", "roles/r/state/x"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    (root / "run").write_text("#!/bin/sh\n")
    (root / "run").chmod(0o755)
    link = root / ".collections/ansible_collections/ashlar/stack"
    link.parent.mkdir(parents=True)
    link.symlink_to("../../..")
    return root


def contents(store: Store, collection: Path) -> bundle.Contents:
    indexes: tuple[Index, ...] = (add(store, "etcd", b"one" * 1000), add(store, "flannel", b"two", "2"))
    return bundle.Contents("ashlar-a-1", collection, bundle.collection_files(collection), indexes, None)


@pytest.mark.parametrize("ending", [".tar", ".tar.gz", pytest.param(".tar.zst", marks=pytest.mark.skipif(not shutil.which("zstd"), reason="no zstd"))])
def test_a_bundle_fills_a_fresh_store(store: Store, collection: Path, tmp_path: Path, progress: Progress, ending: str) -> None:
    target = tmp_path / f"out/b{ending}"
    assert bundle.write(store, contents(store, collection), target, progress)
    subprocess.run(["tar", "-xf", str(target), "-C", str(tmp_path)], check=True)
    place = tmp_path / "ashlar-a-1"
    fresh = Store(tmp_path / "fresh")
    assert [index.name for index in bundle.load(place / "store", fresh)] == ["etcd", "flannel"]
    assert visible(fresh) == visible(store) and fresh.verify() == []
    assert (place / "ashlar/plugins/x.py").read_text() == "plugins/x.py"
    assert os.access(place / "ashlar/run", os.X_OK) and os.access(place / "install.sh", os.X_OK)
    assert os.readlink(place / "ashlar/.collections/ansible_collections/ashlar/stack") == "../../.."


def test_secrets_and_leftovers_stay_out(collection: Path) -> None:
    names = [str(path) for path in bundle.collection_files(collection)]
    assert names == [".collections/ansible_collections/ashlar/stack", "inventories/a/20-stack.yml", "plugins/x.py", "run", "site.yml"]


def test_in_a_checkout_git_says_what_belongs_to_the_collection(collection: Path) -> None:
    subprocess.run(["git", "init", "-q", str(collection)], check=True)
    (collection / ".gitignore").write_text("plugins/\n")
    names = [str(path) for path in bundle.collection_files(collection)]
    assert "site.yml" in names and "plugins/x.py" not in names and not any("credentials" in name or ".venv" in name for name in names)


def test_a_current_bundle_is_not_written_again(store: Store, collection: Path, tmp_path: Path, progress: Progress) -> None:
    target = tmp_path / "b.tar.gz"
    assert bundle.write(store, contents(store, collection), target, progress)
    before = target.stat().st_mtime_ns
    assert not bundle.write(store, contents(store, collection), target, progress)
    assert target.stat().st_mtime_ns == before
    (collection / "site.yml").write_text("changed")
    assert bundle.write(store, contents(store, collection), target, progress)


def test_the_same_contents_give_the_same_bytes(store: Store, collection: Path, tmp_path: Path, progress: Progress) -> None:
    for name in ("a.tar.gz", "b.tar.gz"):
        bundle.write(store, contents(store, collection), tmp_path / name, progress)
    assert (tmp_path / "a.tar.gz").read_bytes() == (tmp_path / "b.tar.gz").read_bytes()


def test_a_damaged_blob_does_not_get_into_a_bundle(store: Store, collection: Path, tmp_path: Path, progress: Progress) -> None:
    chosen = contents(store, collection)
    blob = store.blob(chosen.indexes[0].files[0].sha256)
    blob.chmod(0o644)
    blob.write_bytes(b"evil" * 750)
    with pytest.raises(ChecksumMismatch):
        bundle.write(store, chosen, tmp_path / "b.tar", progress)
    assert list(tmp_path.glob("*b.tar*")) == []


def test_a_damaged_bundle_does_not_get_into_a_store(store: Store, collection: Path, tmp_path: Path, progress: Progress) -> None:
    bundle.write(store, contents(store, collection), tmp_path / "b.tar", progress)
    with tarfile.open(tmp_path / "b.tar") as archive:
        archive.extractall(tmp_path, filter="data")
    source = tmp_path / "ashlar-a-1/store"
    for blob in source.glob("sha256/*/*"):
        blob.write_bytes(b"evil")
    fresh = Store(tmp_path / "fresh")
    with pytest.raises(ChecksumMismatch):
        bundle.load(source, fresh)
    assert visible(fresh) == []


def test_unknown_endings_and_directories_are_errors(store: Store, collection: Path, tmp_path: Path, progress: Progress) -> None:
    with pytest.raises(ArtifactError, match=r"allowed endings of a bundle: \.tar\.gz, \.tar\.zst, \.tar"):
        bundle.write(store, contents(store, collection), tmp_path / "b.rar", progress)
    with pytest.raises(ArtifactError, match="not the directory `store` of an unpacked bundle"):
        bundle.load(tmp_path, store)


def test_install_sh_calls_what_there_is(store: Store, collection: Path, tmp_path: Path, progress: Progress) -> None:
    """The last line of install.sh, as it stands there, without Ansible and without a network."""
    bundle.write(store, contents(store, collection), tmp_path / "b.tar", progress)
    with tarfile.open(tmp_path / "b.tar") as archive:
        archive.extractall(tmp_path, filter="data")
    script = (tmp_path / "ashlar-a-1/install.sh").read_text()
    subprocess.run(["sh", "-n", str(tmp_path / "ashlar-a-1/install.sh")], check=True)
    module = "ansible_collections.ashlar.stack.plugins.plugin_utils.artifacts.bundle"
    assert f"-m {module} ../store" in script
    done = subprocess.run(
        [sys.executable, "-m", module, str(tmp_path / "ashlar-a-1/store"), "--store", str(tmp_path / "fresh")],
        env={"PYTHONPATH": str(ROOT / ".collections"), "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "") and done.stdout.startswith("2 artifacts, ")
