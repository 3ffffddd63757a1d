# SPDX-License-Identifier: Apache-2.0
"""The content-addressed store: blobs named by their sha256 and small index files that say which blobs an artifact is.

Layout (docs/architecture.md, "Artifacts")::

    sha256/<2>/<64 hex>                              a blob, mode 0444
    index/<name>/<version>/<architecture>.json       {"name", "version", "architecture", "source", "files": [...]}
    locks/<name>.lock                                held while an artifact is being obtained
    partial/                                         downloads that may be resumed
    work/                                            scratch of the process that holds a lock

A blob and an index file appear under their names by rename alone, after their bytes are on disk, so a reader never sees half of one.
A store is shared by several checkouts: whoever obtains an artifact holds its lock, and everyone who adds holds the store's lock shared, so
that the garbage collection (which takes it exclusively) cannot remove a blob whose index file is about to appear.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ansible_collections.ashlar.stack.plugins.module_utils.host.locks import acquire

from .errors import ArtifactError, ChecksumMismatch

CHUNK = 1 << 20
SHA256 = re.compile(r"[0-9a-f]{64}")
PARTIAL_DAYS = 7.0


def default_store() -> Path:
    """The store of this user: ``$ASHLAR_STORE``, else ``~/.cache/ashlar/store``."""
    return Path(os.environ.get("ASHLAR_STORE") or "~/.cache/ashlar/store").expanduser()


def digest(path: Path, algorithm: str = "sha256") -> str:
    """The checksum of a file in hexadecimal digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, algorithm).hexdigest()


def algorithm_of(checksum: str) -> str:
    """Which of the accepted algorithms a checksum is of, by its length."""
    return {64: "sha256", 128: "sha512"}[len(checksum)]


@dataclass(frozen=True, order=True)
class StoredFile:
    """One file of an artifact: where it goes below ``/opt/ashlar/<name>/<version>/`` and which blob it is."""

    path: str
    sha256: str
    size: int
    mode: str


@dataclass(frozen=True)
class Index:
    """One artifact of one version and architecture, as the store remembers it.

    ``download``: the sha256 of what was downloaded from its publisher, which the files were taken out of; "" for other sources.
    """

    name: str
    version: str
    architecture: str
    source: str
    files: tuple[StoredFile, ...] = field(default_factory=tuple)
    download: str = ""

    @property
    def size(self) -> int:
        return sum(file.size for file in self.files)

    def dump(self) -> str:
        data = asdict(self)
        if not self.download:
            del data["download"]
        data["files"] = [asdict(file) for file in sorted(self.files)]
        return json.dumps(data, indent=1) + "\n"

    @classmethod
    def parse(cls, text: str, where: str) -> Index:
        """Read an index file.

        :raises ArtifactError: when it is not one, naming ``where`` it was read.
        """
        try:
            data: dict[str, Any] = json.loads(text)
            files = tuple(StoredFile(f["path"], f["sha256"], int(f["size"]), f["mode"]) for f in data["files"])
            index = cls(data["name"], data["version"], data["architecture"], data["source"], files, str(data.get("download", "")))
        except (ValueError, KeyError, TypeError) as error:
            raise ArtifactError(f"{where}: not an index file of the store ({error!r}); remove it, then the artifact is obtained again") from error
        for file in index.files:
            if not SHA256.fullmatch(file.sha256) or file.path.startswith("/") or ".." in Path(file.path).parts:
                raise ArtifactError(f"{where}: {file.path!r} with sha256 {file.sha256!r} is not a file of an artifact; remove the index file")
        return index


class Store:
    """A content-addressed store below ``root``; made when it is not there yet."""

    def __init__(self, root: Path | str | None = None) -> None:
        self.root = Path(root).expanduser().absolute() if root else default_store().absolute()

    def __repr__(self) -> str:
        return f"Store({str(self.root)!r})"

    def blob(self, sha256: str) -> Path:
        """Where the blob of this sha256 lies or would lie."""
        return self.root / "sha256" / sha256[:2] / sha256

    def index_path(self, name: str, version: str, architecture: str) -> Path:
        return self.root / "index" / name / version / f"{architecture}.json"

    def has_blob(self, sha256: str, size: int | None = None) -> bool:
        try:
            found = self.blob(sha256).stat()
        except OSError:
            return False
        return size is None or found.st_size == size

    def read(self, name: str, version: str, architecture: str) -> Index | None:
        """The index of an artifact whose blobs are all there with their sizes; else None."""
        path = self.index_path(name, version, architecture)
        try:
            text = path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return None
        index = Index.parse(text, str(path))
        return index if all(self.has_blob(file.sha256, file.size) for file in index.files) else None

    def indexes(self) -> Iterator[Index]:
        """Every index in the store, whole or not."""
        for path in sorted((self.root / "index").glob("*/*/*.json")):
            yield Index.parse(path.read_text(encoding="utf-8"), str(path))

    def add_blob(self, source: Path, expected: str | None = None, what: str = "") -> StoredFile:
        """Move a finished file of the same filesystem into the store; returns its digest and size, path and mode are the caller's to fill.

        :param expected: the sha256 it must have; checked before it becomes visible.
        :raises ChecksumMismatch: when it has another.
        """
        sha256 = digest(source)
        if expected and sha256 != expected:
            raise ChecksumMismatch(checksum_message(what or source.name, expected, sha256))
        size = source.stat().st_size
        target = self.blob(sha256)
        if self.has_blob(sha256, size):
            source.unlink()
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            source.chmod(0o444)
            _sync(source)
            source.rename(target)
            _sync(target.parent)
        return StoredFile(path="", sha256=sha256, size=size, mode="")

    def write(self, index: Index) -> None:
        """Make an artifact known, after all its blobs are there."""
        missing = [file.path for file in index.files if not self.has_blob(file.sha256, file.size)]
        if missing or not index.files:
            raise ArtifactError(f"{index.name} {index.version}: the store has no blob for {', '.join(missing) or 'any file'}")
        self._replace(self.index_path(index.name, index.version, index.architecture), index.dump())

    def _replace(self, path: Path, text: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, scratch = tempfile.mkstemp(dir=path.parent, prefix=".new-")
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
                stream.write(text)
                stream.flush()
                os.fsync(stream.fileno())
                os.fchmod(stream.fileno(), 0o644)
            os.rename(scratch, path)
        except BaseException:
            Path(scratch).unlink(missing_ok=True)
            raise
        _sync(path.parent)

    def partial(self, key: str) -> Path:
        """Where the beginning of a download is kept so that it can be resumed; ``key`` tells downloads apart."""
        directory = self.root / "partial"
        directory.mkdir(parents=True, exist_ok=True)
        return directory / hashlib.sha256(key.encode()).hexdigest()

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """A directory on the store's filesystem that is gone afterwards."""
        (self.root / "work").mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self.root / "work") as directory:
            yield Path(directory)

    @contextmanager
    def lock(self, name: str, waiting: Callable[[], None] | None = None, limit: float = 7200.0) -> Iterator[None]:
        """Hold the lock ``name`` over processes and threads; ``waiting`` is called once a second while another holds it.

        :param limit: seconds to wait.
        :raises ArtifactError: when it is not free by then.
        """
        with self._flock(f"{name}.lock", fcntl.LOCK_EX, waiting, limit):
            yield

    @contextmanager
    def adding(self, waiting: Callable[[], None] | None = None) -> Iterator[None]:
        """Keep the garbage collection out while blobs are added whose index comes later."""
        with self._flock(".store", fcntl.LOCK_SH, waiting, 600.0):
            yield

    @contextmanager
    def _flock(self, name: str, kind: int, waiting: Callable[[], None] | None, limit: float) -> Iterator[None]:
        directory = self.root / "locks"
        directory.mkdir(parents=True, exist_ok=True)
        with (directory / name).open("a") as stream:
            if not acquire(stream, limit, kind, waiting=waiting):
                raise ArtifactError(f"{stream.name}: another run has held this lock for {limit:.0f} s; let it finish or end it, then run again")
            yield

    def sweep(self) -> None:
        """Remove the scratch of processes that were killed, unless somebody is adding just now."""
        try:
            with self._flock(".store", fcntl.LOCK_EX, None, 0.0):
                shutil.rmtree(self.root / "work", ignore_errors=True)
        except ArtifactError:
            pass

    def verify(self) -> list[str]:
        """Read every blob that an index names; return a sentence for each that is missing or not what its name says."""
        problems = []
        seen: dict[str, bool] = {}
        for index in self.indexes():
            for file in index.files:
                if file.sha256 not in seen:
                    path = self.blob(file.sha256)
                    seen[file.sha256] = path.is_file() and digest(path) == file.sha256
                if not seen[file.sha256]:
                    problems.append(f"{index.name} {index.version} {index.architecture}: {file.path} is missing or damaged ({self.blob(file.sha256)})")
        return problems

    def discard_damaged(self) -> list[str]:
        """Remove blobs whose bytes are not what their name says, so that they are obtained again; return what was removed."""
        with self._flock(".store", fcntl.LOCK_EX, None, 600.0):
            damaged = [path for path in self._blobs() if digest(path) != path.name]
            for path in damaged:
                path.unlink()
        return [path.name for path in damaged]

    def _blobs(self) -> list[Path]:
        return [path for path in sorted((self.root / "sha256").glob("*/*")) if SHA256.fullmatch(path.name)]

    def collect(self, keep: Iterable[tuple[str, str]] | None = None, dry: bool = False) -> tuple[list[str], int]:
        """Remove what nothing refers to: blobs without an index, stale partial downloads and scratch.

        :param keep: (name, version) of the artifacts to keep; the indexes of others are removed first. None keeps every index.
        :param dry: say it, remove nothing.
        :returns: the sorted indexes and blobs removed, and the bytes freed.
        """
        wanted = None if keep is None else set(keep)
        removed: list[str] = []
        freed = 0
        with self._flock(".store", fcntl.LOCK_EX, None, 600.0):
            used: set[str] = set()
            for path in sorted((self.root / "index").glob("*/*/*.json")):
                index = Index.parse(path.read_text(encoding="utf-8"), str(path))
                if wanted is not None and (index.name, index.version) not in wanted:
                    removed.append(f"{index.name} {index.version} {index.architecture}")
                    if not dry:
                        path.unlink()
                        _prune(path.parent, self.root / "index")
                else:
                    used.update(file.sha256 for file in index.files)
            for path in self._blobs():
                if path.name not in used:
                    removed.append(path.name)
                    freed += path.stat().st_size
                    if not dry:
                        path.unlink()
            now = time.time()
            for path in (self.root / "partial").glob("*"):
                if now - path.stat().st_mtime > PARTIAL_DAYS * 86400:
                    freed += path.stat().st_size
                    if not dry:
                        path.unlink()
            # Nobody adds while this lock is held, so whatever scratch lies here was left by a process that was killed.
            if not dry:
                shutil.rmtree(self.root / "work", ignore_errors=True)
        return sorted(removed), freed


def checksum_message(what: str, expected: str, found: str, said_by: str = "") -> str:
    """The sentence for bytes that are not what was recorded. ``said_by``: where the expected checksum stands."""
    return (
        f"{what}: wrong checksum: expected {algorithm_of(expected)} {expected}, found {found}. "
        + (f"The expected one is from {said_by}. " if said_by else "")
        + "Nothing was installed. Compare it with what the publisher says today: correct the record if the file was replaced on purpose, "
        "else do not use this source."
    )


def _prune(directory: Path, top: Path) -> None:
    while directory != top and not any(directory.iterdir()):
        directory.rmdir()
        directory = directory.parent


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
