# SPDX-License-Identifier: Apache-2.0
"""Backups in a folder of the controller, such as a disk that is mounted there."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from .age import Readable
from .errors import BackupError, explained
from .names import PART
from .places import Incoming, Place


class Folder(Place):
    """Files are 0600, and 0700 a folder that is made."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.shown = str(path)

    def names(self) -> list[str]:
        try:
            if self.path.is_dir():
                return os.listdir(self.path)
            self._needed()
            return []
        except OSError as error:
            raise explained(error, self.shown) from None

    def receive(self, name: str) -> Incoming:
        try:
            if not self.path.is_dir():
                self._needed()
                self.path.mkdir()
                self.path.chmod(0o700)
            return _Incoming(self.path / name)
        except OSError as error:
            raise explained(error, self.shown) from None

    def _needed(self) -> None:
        if self.path.exists() or not self.path.parent.is_dir():
            wrong = f"{self.path} is a file" if self.path.exists() else f"{self.path.parent} is not there"
            raise BackupError(f"{wrong}, so backups can't be kept in {self.path}. Mount the disk or make the folder, or correct the path.")

    @contextmanager
    def read(self, name: str) -> Iterator[Readable]:
        try:
            stream = (self.path / name).open("rb")
        except FileNotFoundError:
            raise BackupError(f"{self.where(name)} is not there. Correct the path.") from None
        except OSError as error:
            raise explained(error, self.where(name)) from None
        with stream:
            yield _Outgoing(stream, self.where(name))

    def remove(self, names: Sequence[str]) -> None:
        try:
            for name in names:
                (self.path / name).unlink(missing_ok=True)
        except OSError as error:
            raise explained(error, self.shown) from None


class _Incoming(Incoming):
    """``<name>.part`` until its bytes were read back from the file system."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self.part = path.with_name(path.name + PART)
        self.part.unlink(missing_ok=True)
        self.stream = os.fdopen(os.open(self.part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb")
        os.fchmod(self.stream.fileno(), 0o600)

    def put(self, data: bytes) -> None:
        try:
            self.stream.write(data)
        except OSError as error:
            raise explained(error, str(self.part)) from None

    def commit(self) -> None:
        try:
            self.stream.flush()
            os.fsync(self.stream.fileno())
            self.stream.close()
            with self.part.open("rb") as stream:
                written = hashlib.file_digest(stream, "sha256").hexdigest()
            if written != self.digest.hexdigest():
                raise BackupError(f"{self.part} does not hold what was written to it (its sha256 differs). Look at the disk.")
            self.part.rename(self.path)
            folder = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError as error:
            raise explained(error, str(self.part)) from None

    def give_up(self) -> None:
        for step in (self.stream.close, lambda: self.part.unlink(missing_ok=True)):
            try:
                step()
            except OSError:
                pass


class _Outgoing:
    def __init__(self, stream: IO[bytes], shown: str) -> None:
        self.stream, self.shown = stream, shown

    def read(self, size: int, /) -> bytes:
        try:
            return self.stream.read(size)
        except OSError as error:
            raise explained(error, self.shown) from None
