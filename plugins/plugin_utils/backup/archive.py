# SPDX-License-Identifier: Apache-2.0
"""The archive inside of a backup: a tar, compressed by gzip, whose first member is the manifest.

gzip, since Python before 3.14 knows no zstd; at level 1, which keeps up with a network and halves what databases consist of.
"""

from __future__ import annotations

import hashlib
import os
import tarfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

from .contents import CHUNK, MANIFEST, PARTS, SITE, Content, Entry, Manifest, parse
from .errors import BackupError

LARGEST_MANIFEST_BYTES = 64 << 20


def pack(entries: Iterable[Entry], manifest: Manifest) -> Iterator[bytes]:
    """The archive's bytes.

    :raises BackupError: a file is not what the manifest says, so somebody has written there meanwhile.
    """
    press = zlib.compressobj(1, zlib.DEFLATED, 31)
    for chunk in _tar(entries, manifest):
        if packed := press.compress(chunk):
            yield packed
    yield press.flush()


def _tar(entries: Iterable[Entry], manifest: Manifest) -> Iterator[bytes]:
    text = manifest.dump()
    yield _head(MANIFEST, 0o600, len(text))
    yield text + _padding(len(text))
    for entry in entries:
        if entry.folder:
            yield _head(entry.name, entry.mode, 0, entry.modified, tarfile.DIRTYPE)
            continue
        content = manifest.files[entry.name]
        yield _head(entry.name, entry.mode, content.size, entry.modified)
        yield from _read(entry.path, content)
        yield _padding(content.size)
    yield bytes(2 * tarfile.BLOCKSIZE)


def _head(name: str, mode: int, size: int, modified: float = 0, kind: bytes = tarfile.REGTYPE) -> bytes:
    info = tarfile.TarInfo(name)
    info.mode, info.size, info.mtime, info.type = mode, size, int(modified), kind
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


def _padding(size: int) -> bytes:
    return bytes(-size % tarfile.BLOCKSIZE)


def _read(path: Path, content: Content) -> Iterator[bytes]:
    digest, left = hashlib.sha256(), content.size
    with path.open("rb") as stream:
        while chunk := stream.read(min(CHUNK, left)):
            digest.update(chunk)
            left -= len(chunk)
            yield chunk
        grown = stream.read(1)
    if left or grown or digest.hexdigest() != content.sha256:
        raise BackupError(f"{path} was changed while it was backed up. Make the backup again when nothing writes there.")


def unpack(stream: IO[bytes], folder: Path | None, shown: str) -> Manifest:
    """Proves an archive and puts what is in it into ``folder``, which is empty; nothing is written when that is None.

    :raises BackupError: no backup, a newer format, or anything in it is not as the manifest says. ``folder`` may have a part of it then.
    """
    try:
        with tarfile.open(fileobj=stream, mode="r|gz") as archive:
            manifest = _manifest(archive, shown)
            if folder is not None:
                _write(folder / MANIFEST, iter([manifest.dump()]), 0o600)
            modes = _members(archive, manifest, folder, shown)
    except (tarfile.TarError, zlib.error, EOFError):
        raise BackupError(f"{shown} is no backup of a site: there is no such archive in it. Choose another.") from None
    for path, mode in sorted(modes.items(), reverse=True):
        path.chmod(mode)
    return manifest


def _manifest(archive: tarfile.TarFile, shown: str) -> Manifest:
    first = archive.next()
    content = archive.extractfile(first) if first and first.name == MANIFEST and _regular(first) and first.size <= LARGEST_MANIFEST_BYTES else None
    if content is None:
        raise BackupError(f"{shown} is no backup of a site: it does not begin with {MANIFEST}. Choose another.")
    return parse(content.read(), shown)


def _members(archive: tarfile.TarFile, manifest: Manifest, folder: Path | None, shown: str) -> dict[Path, int]:
    """Folders and the modes that they get once all is in them."""
    modes: dict[Path, int] = {}
    seen: set[str] = set()
    # Iterating over the archive would begin with the manifest once more.
    while member := archive.next():
        _check(member, shown)
        if member.isdir():
            if folder is not None:
                _folder(folder, folder / member.name)
                # Its owner must be able to use and to remove it, whatever it was.
                modes[folder / member.name] = member.mode & 0o777 | 0o700
            continue
        content = manifest.files.get(member.name)
        if content is None or member.name in seen:
            raise BackupError(f"{shown} holds {member.name!r}, which its manifest does not name, or holds it twice. Do not use it.")
        if member.size != content.size:
            raise BackupError(f"{shown}: {member.name} has {member.size} bytes instead of the {content.size} of the manifest. Do not use it.")
        seen.add(member.name)
        stream = archive.extractfile(member)
        assert stream is not None
        digest = hashlib.sha256()
        chunks = _hashed(stream, digest)
        if folder is None:
            for _ in chunks:
                pass
        else:
            _folder(folder, (folder / member.name).parent)
            _write(folder / member.name, chunks, member.mode & 0o777)
        if digest.hexdigest() != content.sha256:
            raise BackupError(f"{shown}: {member.name} is not what the manifest says (its sha256 differs). Do not use it.")
    if missing := sorted(set(manifest.files) - seen):
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise BackupError(f"{shown} lacks {', '.join(missing[:3])}{more}, which its manifest names. Choose another backup.")
    return modes


def _check(member: tarfile.TarInfo, shown: str) -> None:
    """Nothing but files and folders below site/ and parts/."""
    words = member.name.split("/")
    if words[0] not in (SITE, PARTS) or any(word in ("", ".", "..") for word in words) or (words[0] == PARTS and not member.isdir() and len(words) != 3):
        raise BackupError(f"{shown} holds {member.name!r}, which would be elsewhere than in its folders {SITE} and {PARTS}. Do not use it.")
    if not (member.isdir() or _regular(member)):
        raise BackupError(f"{shown} holds {member.name!r}, which is neither a file nor a folder. Do not use it.")


def _regular(member: tarfile.TarInfo) -> bool:
    return member.type in (tarfile.REGTYPE, tarfile.AREGTYPE) and member.sparse is None


def _hashed(stream: IO[bytes], digest: hashlib._Hash) -> Iterator[bytes]:
    while chunk := stream.read(CHUNK):
        digest.update(chunk)
        yield chunk


def _folder(root: Path, folder: Path) -> None:
    """Make a folder below ``root``, and what is missing between, for the owner alone whatever the umask is."""
    for path in reversed([folder, *(above for above in folder.parents if above.is_relative_to(root) and above != root)]):
        if not path.is_dir():
            path.mkdir(mode=0o700)
            path.chmod(0o700)


def _write(path: Path, chunks: Iterable[bytes], mode: int) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600), "wb") as stream:
        for chunk in chunks:
            stream.write(chunk)
        os.fchmod(stream.fileno(), mode)
