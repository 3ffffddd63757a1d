# SPDX-License-Identifier: Apache-2.0
"""Where backups are kept: a folder of the controller, one that SSH reaches, or a bucket. All do the same; this says what, and reads how they are named."""

from __future__ import annotations

import hashlib
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from .age import Readable
from .errors import BackupError
from .names import NAME

ALLOWED = "Allowed: an absolute folder such as /srv/backups, ssh://user@host[:port]/absolute/folder, or s3://bucket/prefix."
SSH = re.compile(r"ssh://(?P<user>[A-Za-z_][\w.-]*)@(?P<host>[A-Za-z0-9][\w.-]*|\[[0-9A-Fa-f:.]+\])(:(?P<port>\d{1,5}))?(?P<folder>/[^\0-\x1f]+)", re.ASCII)
S3 = re.compile(r"s3://(?P<bucket>[a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(/(?P<prefix>[^\0-\x1f]*))?")


class Incoming(ABC):
    """A file on its way to a place. It is there under its name once it is committed, and not at all if it is given up."""

    def __init__(self) -> None:
        self.size = 0
        self.digest = hashlib.sha256()

    def write(self, data: bytes) -> None:
        """:raises BackupError: the place takes no more."""
        self.digest.update(data)
        self.size += len(data)
        self.put(data)

    @abstractmethod
    def put(self, data: bytes) -> None:
        """Send the next bytes."""

    @abstractmethod
    def commit(self) -> None:
        """Prove that all has arrived, and give the file its name.

        :raises BackupError: it has not.
        """

    @abstractmethod
    def give_up(self) -> None:
        """Remove what has arrived. Raises nothing."""


class Place(ABC):
    """A destination. ``shown``: as the operator writes it, without a slash at its end. Every method raises ``BackupError``."""

    shown: str

    def where(self, name: str) -> str:
        """A file there, as the option `source` of backup_open takes it."""
        return f"{self.shown}/{name}"

    @abstractmethod
    def names(self) -> list[str]:
        """Names of what is there; nothing where the folder is yet to be made."""

    @abstractmethod
    def receive(self, name: str) -> Incoming:
        """Begin a file. The last folder is made if it is missing, those around it are not: perhaps a disk is not mounted."""

    @abstractmethod
    def read(self, name: str) -> AbstractContextManager[Readable]:
        """A file's bytes."""

    @abstractmethod
    def remove(self, names: Sequence[str]) -> None:
        """Remove files. One that is gone already is none the worse."""


def place(text: str, option: str = "to") -> Place:
    """The destination that ``text`` names.

    :raises BackupError: it names none. ``option`` is what it was given as.
    """
    # Each needs a program or a library that the others do not.
    if match := SSH.fullmatch(text):
        from .ssh import Ssh

        port = int(match["port"]) if match["port"] else None
        folder = match["folder"].rstrip("/")
        if folder and ".." not in folder.split("/") and (port is None or 0 < port < 65536):
            return Ssh(match["user"], match["host"].strip("[]"), port, folder)
    elif match := S3.fullmatch(text):
        from .s3 import Bucket

        return Bucket(match["bucket"], (match["prefix"] or "").strip("/"))
    elif text.startswith("/") and "\0" not in text:
        from .folder import Folder

        return Folder(Path(os.path.normpath(text)))
    # What stands before the host may be a password.
    raise BackupError(f"{option}: {re.sub(r'//.*@', '//...@', text)!r} is no destination. {ALLOWED}")


def source(text: str) -> tuple[Place, str | None]:
    """The place and the name of one backup; None for the newest one there.

    :raises BackupError: it names neither a file nor a destination.
    """
    if "://" in text:
        above, _, last = text.rpartition("/")
        return (place(above, "source"), last) if NAME.fullmatch(last) else (place(text, "source"), None)
    from .folder import Folder

    path = Path(text).expanduser().absolute()
    if path.is_dir():
        return Folder(path), None
    if not path.is_file():
        raise BackupError(f"source: {path} is neither a file nor a folder of the controller. {ALLOWED} A backup's name may follow.")
    return Folder(path.parent), path.name
