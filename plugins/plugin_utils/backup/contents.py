# SPDX-License-Identifier: Apache-2.0
"""What is in a backup: the site's folder, what components handed over, and the manifest that names all of it."""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import BackupError

FORMAT = 1
MANIFEST = "manifest.json"
SITE, PARTS = "site", "parts"
CHUNK = 1 << 20
LEFT_OUT = {"state/lock.json", "state/restore"}
"""Of the site's folder: which run changes it now, and the backup that a restore has opened."""
EDITORS = re.compile(r".*~|\.#.*|#.*#|\..*\.sw[a-z]|4913")
"""Names that editors leave behind: emacs, vim."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A file or folder. ``name``: its path in the backup; ``path``: where it is on the controller; ``mode``: permissions alone; ``modified``: Unix time."""

    name: str
    path: Path
    mode: int
    modified: float
    folder: bool = False


@dataclass(frozen=True, slots=True)
class Content:
    """What a file must be: ``sha256`` in hexadecimal digits, ``size`` in bytes."""

    sha256: str
    size: int


@dataclass(frozen=True, slots=True)
class Manifest:
    """``created``: UTC, as 2026-11-29T10:15:00Z; ``about``: what the site says of itself; ``files``: path in the backup -> content."""

    created: str
    about: Mapping[str, Any]
    files: Mapping[str, Content]

    def dump(self) -> bytes:
        files = {name: {"sha256": file.sha256, "size": file.size} for name, file in self.files.items()}
        return (json.dumps({"format": FORMAT, "created": self.created, "about": self.about, "files": files}, indent=1) + "\n").encode()


def parse(text: bytes, shown: str) -> Manifest:
    """:raises BackupError: no manifest, or one of a newer format. ``shown`` is the backup, for errors."""
    try:
        data = json.loads(text)
        format_ = data["format"]
        if isinstance(format_, int) and format_ > FORMAT:
            raise BackupError(f"{shown} was written by a newer version: format {format_}, this one reads {FORMAT}. Open it with the version that wrote it.")
        if format_ != FORMAT or not isinstance(data["about"], dict):
            raise ValueError
        files = {str(name): Content(str(file["sha256"]), int(file["size"])) for name, file in data["files"].items()}
        return Manifest(str(data["created"]), data["about"], files)
    except (ValueError, KeyError, TypeError, AttributeError):
        raise BackupError(f"{shown} is no backup of a site: its {MANIFEST} is not one. Choose another.") from None


def collect(site: Path, parts: Mapping[str, Mapping[str, str]]) -> list[Entry]:
    """Everything that goes in, sorted.

    :param parts: component -> file name -> path on the controller.
    :raises BackupError: something can't be read; all of it is named.
    """
    problems: list[str] = []
    if not site.is_dir():
        raise BackupError(f"directory: {site} is no folder. Give the site's folder on the controller.")
    entries = list(_walk(site, SITE, (), problems))
    for component, files in sorted(parts.items()):
        if not _plain(component) or not isinstance(files, Mapping):
            problems.append(f"parts: {component!r} is {files!r}; allowed: component -> file name -> path on the controller")
            continue
        for name, text in sorted(files.items()):
            path = Path(str(text))
            if not _plain(name):
                problems.append(f"parts: {component} hands over {name!r}, which is no plain file name")
            elif not path.is_file():
                problems.append(f"parts: {component} hands over {path}, which is no file of the controller")
            else:
                entries.append(_entry(f"{PARTS}/{component}/{name}", path, problems))
    if problems:
        raise BackupError(f"The backup would not be whole: {'; '.join(problems)}. Nothing was written.")
    return entries


def _walk(folder: Path, name: str, above: tuple[tuple[int, int], ...], problems: list[str]) -> Iterator[Entry]:
    """A folder and what is in it. Links are followed: what they point at is a part of the site. ``above``: device and inode of the folders around it."""
    try:
        state = folder.stat()
        inside = sorted(os.listdir(folder))
    except OSError as error:
        problems.append(f"{folder}: {error.strerror}")
        return
    me = (state.st_dev, state.st_ino)
    if me in above:
        problems.append(f"{folder} is a link to a folder around it; remove it")
        return
    yield Entry(name, folder, stat.S_IMODE(state.st_mode) & 0o777, state.st_mtime, folder=True)
    for child in inside:
        path, called = folder / child, f"{name}/{child}"
        if EDITORS.fullmatch(child) or called.removeprefix(f"{SITE}/") in LEFT_OUT:
            continue
        try:
            mode = path.stat().st_mode
        except OSError as error:
            problems.append(f"{path} is a link to what is not there; correct or remove it" if path.is_symlink() else f"{path}: {error.strerror}")
            continue
        if stat.S_ISDIR(mode):
            yield from _walk(path, called, (*above, me), problems)
        elif stat.S_ISREG(mode):
            yield _entry(called, path, problems)
        # Else a socket, such as SSH's control paths, a pipe or a device: there is nothing in it to keep.


def _entry(name: str, path: Path, problems: list[str]) -> Entry:
    if not os.access(path, os.R_OK):
        problems.append(f"{path} can't be read by the user who runs Ansible")
    state = path.stat()
    return Entry(name, path, stat.S_IMODE(state.st_mode) & 0o777, state.st_mtime)


def _plain(name: Any) -> bool:
    return isinstance(name, str) and bool(name) and "/" not in name and "\0" not in name and name not in (".", "..")


def describe(entries: Sequence[Entry], about: Mapping[str, Any], created: str) -> Manifest:
    """Reads every file for its checksum."""
    return Manifest(created, about, {entry.name: content_of(entry.path) for entry in entries if not entry.folder})


def content_of(path: Path) -> Content:
    """The checksum and size of a file, as it is now."""
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as stream:
        while chunk := stream.read(CHUNK):
            digest.update(chunk)
            size += len(chunk)
    return Content(digest.hexdigest(), size)
