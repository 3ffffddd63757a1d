# SPDX-License-Identifier: Apache-2.0
"""Opening a backup: its contents are in their folder once all of it is proven, and not before."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from ansible_collections.ashlar.stack.plugins.module_utils.host.folders import make_folder

from .age import Decrypted
from .archive import unpack
from .contents import MANIFEST, PARTS, SITE, Manifest
from .errors import BackupError, explained
from .keys import identities
from .names import newest
from .places import Place, source


def open_backup(text: str, identity: Path, into: Path, site: str | None = None, check: bool = False) -> dict[str, Any]:
    """What ashlar.stack.backup_open returns.

    :param text: a file, a destination and a name, or a destination alone: the newest one there, of ``site`` if it is given.
    :param check: everything is proven, and nothing written.
    :raises BackupError: ``into`` is as it was.
    """
    try:
        return _open_backup(text, identity, into, site, check)
    except OSError as error:
        raise explained(error, str(into)) from None


def _open_backup(text: str, identity: Path, into: Path, site: str | None, check: bool) -> dict[str, Any]:
    if into.exists() and not _ours(into):
        raise BackupError(f"into: {into} is there and is no opened backup; it would be replaced. Name a folder that is not there.")
    keys = identities(identity)
    place, name = source(text)
    name = name or newest(place.names(), place.shown, site)
    manifest = _prove(place, name, keys, None) if check else _open(place, name, keys, into)
    parts: dict[str, dict[str, str]] = {}
    for path in manifest.files:
        kind, component, *file = path.split("/")
        if kind == PARTS:
            parts.setdefault(component, {})[file[0]] = str(into / path)
    return {"changed": True, "name": name, "about": manifest.about, "created": manifest.created, "parts": parts, "site": str(into / SITE)}


def _open(place: Place, name: str, keys: list[Any], into: Path) -> Manifest:
    part, old = (into.with_name(into.name + ending) for ending in (".part", ".old"))
    for left in (part, old):
        if left.exists():
            shutil.rmtree(left)
    make_folder(str(into.parent))
    part.mkdir(mode=0o700)
    try:
        part.chmod(0o700)
        manifest = _prove(place, name, keys, part)
        if into.exists():
            into.rename(old)
        part.rename(into)
    finally:
        # After the renames there is no such folder any more.
        shutil.rmtree(part, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)
    return manifest


def _prove(place: Place, name: str, keys: list[Any], folder: Path | None) -> Manifest:
    shown = place.where(name)
    with place.read(name) as stream, Decrypted(stream, keys, shown) as plain:
        return unpack(plain, folder, shown)


def _ours(folder: Path) -> bool:
    """Whether nothing is lost when it is replaced: it was made here, or is empty."""
    if folder.is_symlink() or not folder.is_dir():
        return False
    inside = {child.name for child in folder.iterdir()}
    return not inside or MANIFEST in inside <= {MANIFEST, SITE, PARTS}
