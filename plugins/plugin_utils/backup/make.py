# SPDX-License-Identifier: Apache-2.0
"""Making a backup: everything is checked, then streamed to its place, proven there, and only then older ones go."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from .age import encrypt
from .archive import pack
from .contents import collect, describe
from .errors import BackupError, explained
from .folder import Folder
from .keys import recipients as keys_of
from .names import abandoned, name_of, superseded
from .places import Place, place


@dataclass(frozen=True, slots=True)
class Wanted:
    """The options of ashlar.stack.backup."""

    directory: Path
    parts: Mapping[str, Mapping[str, str]]
    about: Mapping[str, Any]
    to: str
    recipients: Sequence[str]
    keep: int = 14


def now() -> datetime:
    """The time, to the second."""
    return datetime.now(timezone.utc).replace(microsecond=0)


def make(wanted: Wanted, check: bool = False) -> dict[str, Any]:
    """What ashlar.stack.backup returns. ``check``: nothing is written, and the parts need not be there yet.

    :raises BackupError: nothing was kept, but for one that says so.
    """
    try:
        return _make(wanted, check)
    except OSError as error:
        raise explained(error, str(wanted.directory)) from None


def _make(wanted: Wanted, check: bool) -> dict[str, Any]:
    if wanted.keep < 1:
        raise BackupError(f"keep is {wanted.keep}. Allowed: 1 or more, the number of backups of this site that are kept.")
    target = place(wanted.to)
    keys = keys_of(wanted.recipients)
    name_of(wanted.about.get("site", ""), now())
    _check_outside(target, wanted.directory)
    there = target.names()
    created, name = _free_name(wanted.about["site"], there)
    removed = superseded(there, name, wanted.keep)
    told: dict[str, Any] = {"changed": True, "name": name, "where": target.where(name), "removed": removed}
    if check:
        return told
    told["size"] = _write(wanted, target, name, created, keys)
    try:
        target.remove([*removed, *abandoned(there, name, created)])
    except BackupError as error:
        raise BackupError(f"The backup {name} is complete, but older ones can't be removed. {error}") from None
    return told


def _write(wanted: Wanted, target: Place, name: str, created: datetime, keys: Sequence[Any]) -> int:
    """The backup's size in bytes."""
    entries = collect(wanted.directory, wanted.parts)
    manifest = describe(entries, wanted.about, created.strftime("%Y-%m-%dT%H:%M:%SZ"))
    incoming = target.receive(name)
    try:
        encrypt(pack(entries, manifest), incoming.write, keys)
        incoming.commit()
    except BaseException:
        incoming.give_up()
        raise
    return incoming.size


def _free_name(site: str, there: Sequence[str]) -> tuple[datetime, str]:
    """A time and its name that no backup has yet: names are of seconds."""
    created = now()
    while (name := name_of(site, created)) in there:
        time.sleep(0.1)
        created = now()
    return created, name


def _check_outside(target: Place, directory: Path) -> None:
    if isinstance(target, Folder) and target.path.resolve().is_relative_to(directory.resolve()):
        raise BackupError(f"to: {target.path} is in the site's folder, so every backup would hold those before it. Choose a folder elsewhere.")


def plain(value: Any) -> Any:
    """A value without the marks that Ansible's texts carry."""
    return json.loads(json.dumps(value, default=str))
