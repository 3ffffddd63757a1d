# SPDX-License-Identifier: Apache-2.0
"""Streams of age: what is encrypted or decrypted is never in memory, nor on a disk, as a whole.

pyrage reads from one object and writes to another, and turns what they raise into errors of its own; so both remember it.
"""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import IO, Any, Protocol

from .errors import BackupError
from .library import pyrage

MAGIC = (b"age-encryption.org/", b"-----BEGIN AGE")
CHUNK = 1 << 20


class Readable(Protocol):
    """What is read from until it returns nothing."""

    def read(self, size: int, /) -> bytes: ...


class _Chunks(io.RawIOBase):
    """An iterator of bytes as a stream."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self.chunks = chunks
        self.rest = memoryview(b"")
        self.fault: BaseException | None = None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            while not self.rest:
                self.rest = memoryview(next(self.chunks))
        except StopIteration:
            return 0
        except BaseException as error:
            self.fault = error
            raise
        size = min(len(buffer), len(self.rest))
        buffer[:size] = self.rest[:size]
        self.rest = self.rest[size:]
        return size


class _Sink:
    """A function that takes bytes as a stream."""

    def __init__(self, write: Callable[[bytes], object]) -> None:
        self.put = write
        self.fault: BaseException | None = None

    def write(self, data: bytes) -> int:
        try:
            self.put(data)
        except BaseException as error:
            self.fault = error
            raise
        return len(data)

    def flush(self) -> None:
        """Nothing is held back."""


class _Source:
    """A stream that remembers how it began and what went wrong."""

    def __init__(self, stream: Readable) -> None:
        self.stream = stream
        self.head = b""
        self.fault: BaseException | None = None

    def read(self, size: int) -> bytes:
        try:
            data = self.stream.read(size)
        except BaseException as error:
            self.fault = error
            raise
        if len(self.head) < len(MAGIC[0]):
            self.head += data[: len(MAGIC[0])]
        return data


def encrypt(chunks: Iterator[bytes], write: Callable[[bytes], object], recipients: Sequence[Any]) -> None:
    """Encrypts ``chunks`` for ``recipients`` and gives the result to ``write``. What these raise is raised."""
    source, sink = _Chunks(chunks), _Sink(write)
    try:
        pyrage.encrypt_io(source, sink, list(recipients))
    except BaseException as error:
        raise (sink.fault or source.fault or error) from None
    if fault := sink.fault or source.fault:
        # pyrage says nothing of what goes wrong with the last bytes, which it holds back until its end.
        raise fault


class Decrypted:
    """A context whose stream is what is in an age file; it ends well only if the file was authentic to its last byte.

    :raises BackupError: (at its end) wrong key, damaged, cut short, or no age file. ``shown`` is the file, for errors.
    """

    def __init__(self, stream: Readable, identities: Sequence[Any], shown: str) -> None:
        self.source = _Source(stream)
        self.identities = list(identities)
        self.shown = shown
        self.fault: BaseException | None = None
        out, into = os.pipe()
        self.out: IO[bytes] = os.fdopen(out, "rb")
        self.into: IO[bytes] = os.fdopen(into, "wb")
        self.thread = threading.Thread(target=self._work, name="age", daemon=True)

    def _work(self) -> None:
        sink, said = _Sink(self.into.write), None
        try:
            pyrage.decrypt_io(self.source, sink, self.identities)
        except BaseException as error:
            said = error
        finally:
            # That nobody reads any more has a reason of its own, which is told instead.
            self.fault = None if isinstance(sink.fault, BrokenPipeError) else self.source.fault or sink.fault or said
            try:
                self.into.close()
            except BrokenPipeError:
                pass

    def __enter__(self) -> IO[bytes]:
        self.thread.start()
        return self.out

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if error is None:
            while self.out.read(CHUNK):
                pass
        self.out.close()
        self.thread.join()
        if self.fault is not None and (error is None or isinstance(error, Exception)):
            raise self._explained(self.fault) from None

    def _explained(self, fault: BaseException) -> BaseException:
        if fault is self.source.fault:
            return fault
        said = str(fault)
        if not self.source.head.startswith(MAGIC):
            return BackupError(f"{self.shown} is no backup: it is no file of age (age-encryption.org/v1). Choose another.")
        if "No matching keys" in said:
            return BackupError(f"{self.shown} was not made for this identity, or its beginning is damaged. Give the secret key of one of its recipients.")
        if "truncated" in said or "Incomplete header" in said:
            return BackupError(f"{self.shown} is cut short, so nothing of it was taken. Copy it again, or choose another backup.")
        return BackupError(f"{self.shown} is damaged, cut short or was changed: it is not what was written ({said}). Copy it again, or choose another backup.")
