# SPDX-License-Identifier: Apache-2.0
"""One archive that installs a site without any network: this collection, the Python wheels of its lock file, the store's files of the site.

Layout below ``ashlar-<site>-<release>/``::

    bundle.json     what the archive was made of; first in the archive, so that an archive that is still current is recognised quickly
    install.sh      makes the virtual environment from the wheels and puts the files into the store
    ashlar/         the collection
    wheels/         what requirements.txt pins, for one version of Python
    store/          sha256/ and index/ as in the store
"""

from __future__ import annotations

import argparse
import gzip
import io
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from .errors import ArtifactError, ChecksumMismatch, SourceUnavailable
from .progress import Progress, size
from .store import SHA256, Index, Store, checksum_message, digest

FORMATS = (".tar.gz", ".tar.zst", ".tar")
# zip, which wheels and eggs are made with, knows no time before 1980.
TIME = 315532800
# Not of the collection: secrets, caches, what runs leave behind.
LEFT_OUT = {".git", ".venv", ".cache", ".state", ".ansible", "__pycache__", ".pytest_cache", ".mypy_cache", ".ruff_cache", "credentials", "state"}

INSTALL = """\
#!/bin/sh
# Prepares this machine to install the site without any network. Needs {python} or the same minor version, and tar.
set -eu
cd "$(dirname "$0")/ashlar"
python="${{PYTHON:-{python}}}"
"$python" -c 'import sys, sysconfig; sys.exit(sysconfig.get_config_var("py_version_short") != "{short}")' || {{
  echo "install.sh: the wheels of this bundle are for Python {short}; name one: PYTHON=/path/to/python{short} $0" >&2
  exit 1
}}
"$python" -m venv --without-pip .venv
pip=$(ls ../wheels/pip-*.whl)
.venv/bin/python "$pip/pip" install --quiet --no-index --find-links ../wheels --requirement requirements.txt
PYTHONPATH=.collections .venv/bin/python -m ansible_collections.ashlar.stack.plugins.plugin_utils.artifacts.bundle ../store
echo "Ready. Describe your machines in $PWD/inventories/, then: cd $PWD && .venv/bin/ansible-playbook -i inventories/<site> site.yml"
"""


@dataclass(frozen=True)
class Contents:
    """What goes into a bundle. ``requirements`` is the lock file whose wheels are added; None leaves them out."""

    name: str
    collection: Path
    files: tuple[Path, ...]
    indexes: tuple[Index, ...]
    requirements: Path | None


def describe(contents: Contents) -> bytes:
    """bundle.json: what decides the bytes of the archive; equal descriptions mean equal contents."""
    pinned = contents.requirements
    data: dict[str, Any] = {
        "name": contents.name,
        "files": {str(path): _state(contents.collection / path) for path in contents.files},
        "artifacts": [json.loads(index.dump()) for index in contents.indexes],
        "requirements": digest(pinned) if pinned else None,
        "python": sysconfig.get_config_var("py_version_short") if pinned else None,
        "platform": sysconfig.get_platform() if pinned else None,
    }
    return json.dumps(data, indent=1, sort_keys=True).encode()


def collection_files(root: Path) -> tuple[Path, ...]:
    """The collection's files relative to ``root``: what git tracks and has, else all but what runs leave behind. Never credentials."""
    done = subprocess.run(["git", "-C", str(root), "ls-files", "-z", "--cached", "--others", "--exclude-standard"], capture_output=True, check=False)
    if done.returncode == 0 and done.stdout:
        names = [Path(name) for name in done.stdout.decode().split("\0") if name]
    else:
        names = [path.relative_to(root) for path in root.rglob("*") if path.is_symlink() or path.is_file()]
    kept = {name for name in names if not LEFT_OUT.intersection(name.parts[:-1]) and ((root / name).is_file() or (root / name).is_symlink())}
    # The link .collections/.../stack points at the root: what lies "below" it is the collection once more.
    return tuple(sorted(name for name in kept if not any((root / parent).is_symlink() for parent in list(name.parents)[:-1])))


def write(store: Store, contents: Contents, target: Path, progress: Progress) -> bool:
    """Write the bundle; False when ``target`` has these contents already.

    :raises SourceUnavailable: when the wheels cannot be had.
    :raises ArtifactError: when ``target`` has no known ending, or its compressor is missing.
    """
    if not target.name.endswith(FORMATS):
        raise ArtifactError(f"{target}: allowed endings of a bundle: {', '.join(FORMATS)}")
    manifest = describe(contents)
    if current(target) == manifest:
        return False
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = target.with_name(f".{target.name}.part")
    with tempfile.TemporaryDirectory() as directory:
        wheels = _wheels(contents.requirements, Path(directory), progress) if contents.requirements else []
        try:
            with _compressed(scratch, target.name) as stream, tarfile.open(fileobj=stream, mode="w|", format=tarfile.PAX_FORMAT) as archive:
                _fill(archive, store, contents, wheels, manifest, progress)
            scratch.rename(target)
        finally:
            scratch.unlink(missing_ok=True)
    return True


def current(target: Path) -> bytes | None:
    """The description in an existing bundle; None when there is none that can be read."""
    try:
        with _opened(target) as stream, tarfile.open(fileobj=stream, mode="r|") as archive:
            first = archive.next()
            content = archive.extractfile(first) if first and first.name.endswith("/bundle.json") else None
            return content.read() if content else None
    except (OSError, tarfile.TarError, EOFError):
        return None


def load(source: Path, store: Store) -> list[Index]:
    """Put the artifacts of an unpacked bundle (its directory ``store``) into a store, every file verified.

    :raises ChecksumMismatch: when a file is damaged; what came before it stays.
    """
    indexes = []
    with store.adding():
        for path in sorted((source / "index").glob("*/*/*.json")):
            index = Index.parse(path.read_text(encoding="utf-8"), str(path))
            with store.lock(f"{index.name}-{index.architecture}"), store.scratch() as scratch:
                for file in index.files:
                    if not store.has_blob(file.sha256, file.size):
                        blob = source / "sha256" / file.sha256[:2] / file.sha256
                        if not blob.is_file():
                            raise ArtifactError(f"{blob} is missing: the bundle was not unpacked to its end; unpack it again")
                        shutil.copyfile(blob, scratch / file.sha256)
                        store.add_blob(scratch / file.sha256, file.sha256, f"{index.name} {index.version}: {file.path}")
                store.write(index)
            indexes.append(index)
    if not indexes:
        raise ArtifactError(f"{source} has no index/: it is not the directory `store` of an unpacked bundle")
    return indexes


def _fill(archive: tarfile.TarFile, store: Store, contents: Contents, wheels: Sequence[Path], manifest: bytes, progress: Progress) -> None:
    top = contents.name
    _add_bytes(archive, f"{top}/bundle.json", manifest, 0o644)
    python = f"python{sysconfig.get_config_var('py_version_short')}"
    script = INSTALL.format(python=python, short=sysconfig.get_config_var("py_version_short"))
    _add_bytes(archive, f"{top}/install.sh", script.encode(), 0o755)
    for name in contents.files:
        _add_file(archive, f"{top}/ashlar/{name}", contents.collection / name)
    for wheel in wheels:
        _add_file(archive, f"{top}/wheels/{wheel.name}", wheel)
    written = 0
    for sha256 in sorted({file.sha256 for index in contents.indexes for file in index.files}):
        blob = store.blob(sha256)
        if not SHA256.fullmatch(sha256) or (found := digest(blob)) != sha256:
            raise ChecksumMismatch(checksum_message(str(blob), sha256, found) + " Run playbooks/artifacts.yml -e artifacts_verify_store=true.")
        _add_file(archive, f"{top}/store/sha256/{sha256[:2]}/{sha256}", blob)
        written += blob.stat().st_size
        progress.still(f"writing, {size(written)}")
    for index in contents.indexes:
        _add_bytes(archive, f"{top}/store/index/{index.name}/{index.version}/{index.architecture}.json", index.dump().encode(), 0o644)


def _wheels(requirements: Path, directory: Path, progress: Progress) -> list[Path]:
    progress.now("downloading wheels")
    for arguments in (["--requirement", str(requirements)], ["pip"]):
        done = subprocess.run(
            [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet", "--only-binary=:all:", "--dest", str(directory), *arguments],
            capture_output=True,
            text=True,
            check=False,
            timeout=1800,
        )
        if done.returncode:
            lines = (done.stderr or done.stdout).strip().splitlines()
            raise SourceUnavailable(f"wheels of {requirements} cannot be had: {lines[-1] if lines else 'pip failed'}; or leave them out with wheels: false")
    return sorted(directory.glob("*.whl"))


def _state(path: Path) -> str:
    if path.is_symlink():
        return f"link {os.readlink(path)}"
    return f"{'755' if os.access(path, os.X_OK) else '644'} {digest(path)}"


def _entry(name: str, mode: int) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.mode, entry.mtime, entry.uname, entry.gname = mode, TIME, "root", "root"
    return entry


def _add_bytes(archive: tarfile.TarFile, name: str, data: bytes, mode: int) -> None:
    entry = _entry(name, mode)
    entry.size = len(data)
    archive.addfile(entry, io.BytesIO(data))


def _add_file(archive: tarfile.TarFile, name: str, path: Path) -> None:
    if path.is_symlink():
        entry = _entry(name, 0o777)
        entry.type, entry.linkname = tarfile.SYMTYPE, os.readlink(path)
        archive.addfile(entry)
        return
    entry = _entry(name, 0o755 if os.access(path, os.X_OK) and path.suffix != ".whl" and "/store/" not in name else 0o644)
    entry.size = path.stat().st_size
    with path.open("rb") as stream:
        archive.addfile(entry, stream)


@contextmanager
def _compressed(path: Path, name: str) -> Iterator[IO[bytes]]:
    with path.open("wb") as raw:
        if name.endswith(".tar.gz"):
            with gzip.GzipFile(filename="", mode="wb", compresslevel=1, fileobj=raw, mtime=0) as stream:
                yield stream  # type: ignore[misc]
        elif name.endswith(".tar.zst"):
            try:
                process = subprocess.Popen(["zstd", "-q", "-T0", "-3", "-c"], stdin=subprocess.PIPE, stdout=raw)
            except FileNotFoundError:
                raise ArtifactError(f"{name}: zstd is not on this machine; install it, or name the bundle .tar.gz") from None
            assert process.stdin
            try:
                yield process.stdin
            finally:
                process.stdin.close()
                code = process.wait(600)
            if code:
                raise ArtifactError(f"{name}: zstd failed with {code}")
        else:
            yield raw
        raw.flush()
        os.fsync(raw.fileno())


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    if path.name.endswith(".tar.zst"):
        process = subprocess.Popen(["zstd", "-q", "-d", "-c", str(path)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        assert process.stdout
        try:
            yield process.stdout
        finally:
            process.stdout.close()
            process.kill()
            process.wait(10)
    elif path.name.endswith(".gz"):
        with gzip.open(path) as stream:
            yield stream  # type: ignore[misc]
    else:
        with path.open("rb") as raw:
            yield raw


def main(arguments: Iterable[str]) -> int:
    """What install.sh of a bundle calls."""
    parser = argparse.ArgumentParser(description="Put the artifacts of an unpacked bundle into the store.")
    parser.add_argument("source", type=Path, help="the directory `store` of the unpacked bundle")
    parser.add_argument("--store", help="default $ASHLAR_STORE, then ~/.cache/ashlar/store")
    options = parser.parse_args(list(arguments))
    store = Store(options.store)
    try:
        indexes = load(options.source, store)
    except ArtifactError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{len(indexes)} artifacts, {size(sum(index.size for index in indexes))}, are in {store.root}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
