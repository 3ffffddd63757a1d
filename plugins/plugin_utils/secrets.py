# SPDX-License-Identifier: Apache-2.0
"""Secrets of a site: small files below its ``credentials/``, made when they are first asked for.

A file has the secret in its first line. While it is rotated, a further line has the one that comes next or the previous one; both are accepted
wherever the secret is checked, and only the first line is used by those who show it::

    0b8ac1f5-3c0e-4f43-9d8c-d6b1d2f2d0a5
    next 9a7c4dd0-6e0b-4b68-8f0e-0c4dd6d4c7c3
"""

from __future__ import annotations

import base64
import fcntl
import hashlib
import os
import re
import secrets
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

ALPHABET = "abcdefghijkmnopqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789"
MAKERS: dict[str, Callable[[], str]] = {
    "uuid": lambda: str(uuid.UUID(bytes=secrets.token_bytes(16), version=4)),
    "ceph": lambda: base64.b64encode(secrets.token_bytes(16)).decode(),
    "key32": lambda: base64.b64encode(secrets.token_bytes(32)).decode(),
    "password": lambda: "".join(secrets.choice(ALPHABET) for _ in range(32)),
}
# What stands for a secret that is not there yet, from its name: secrets of different names are not the same.
IN_CHECK_MODE: dict[str, Callable[[str], str]] = {
    "uuid": lambda name: str(uuid.uuid5(uuid.NAMESPACE_URL, name)),
    "ceph": lambda name: base64.b64encode(hashlib.sha256(name.encode()).digest()[:16]).decode(),
    "key32": lambda name: base64.b64encode(hashlib.sha256(name.encode()).digest()).decode(),
    "password": lambda name: hashlib.sha256(name.encode()).hexdigest()[:32],
}
# What stands before the secret itself wherever it is used. For Ceph: the type of the key (AES), no time of its making, and its length, 16.
HEADERS = {"ceph": "AQAAAAAAAAAAABAA"}
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*(/[A-Za-z0-9_][A-Za-z0-9_.-]*)*")


class SecretError(Exception):
    """A secret cannot be had; the message says which, why, and what to do."""


def decrypter(loader: Any) -> Callable[[bytes], bytes]:
    """What opens a file that ansible-vault may have encrypted, by the vault secrets of the run, whose loader it is."""

    def decrypt(data: bytes) -> bytes:
        return bytes(loader._vault.decrypt(data)) if data.startswith(b"$ANSIBLE_VAULT") and loader is not None else data

    return decrypt


@dataclass(frozen=True)
class Secret:
    """What a file has: the secret that is used, and the others that are accepted, each "" when there is none."""

    current: str = field(repr=False)
    next: str = field(default="", repr=False)
    previous: str = field(default="", repr=False)

    @property
    def accepted(self) -> list[str]:
        """All of them, the current one first."""
        return [text for text in (self.current, self.next, self.previous) if text]

    def introduced(self, kind: str) -> Secret:
        """The same with one that comes next, of `kind` (a key of `MAKERS`), unless there is one."""
        return self if self.next else replace(self, next=MAKERS[kind]())

    def switched(self) -> Secret:
        """The next one is used, and the current one is the previous one from now on. Without a next one it is so already."""
        return Secret(self.next, previous=self.current) if self.next else self

    def dropped(self) -> Secret:
        """Without the previous one."""
        return replace(self, previous="")

    def complete(self, kind: str) -> Secret:
        """As it is used: each with what stands before a secret of this kind."""
        return Secret(*(text and HEADERS.get(kind, "") + text for text in (self.current, self.next, self.previous)))

    @property
    def text(self) -> str:
        """The file's content."""
        others = {"next": self.next, "previous": self.previous}
        return "".join(f"{line}\n" for line in [self.current, *(f"{name} {text}" for name, text in others.items() if text)])


def parse(text: str) -> Secret:
    """The reverse of `Secret.text`."""
    first, *others = text.strip().split("\n")
    return Secret(first.strip(), **{name: text.strip() for name, _, text in (line.partition(" ") for line in others) if name in ("next", "previous")})


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """One at a time makes secrets, of all hosts and runs of this controller."""
    descriptor = os.open(folder / ".secrets.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def obtain(root: Path, name: str, kind: str, dry_run: bool, decrypt: Callable[[bytes], bytes] = bytes) -> Secret:
    """The secret `name` below the folder `root`, as it is used; made if it is missing.

    :raises SecretError: when its name, its file or its content will not do.
    """
    if not NAME.fullmatch(name):
        raise SecretError(f"secret '{name}': allowed are words of letters, digits, '_', '.' and '-', parted by '/', such as consul/tokens/edge.")
    path = root / name
    try:
        found = read(path, decrypt)
        if found is None and dry_run:
            return Secret(IN_CHECK_MODE[kind](name)).complete(kind)
        if found is None:
            for folder in reversed([parent for parent in path.parents if parent == root or root in parent.parents]):
                folder.mkdir(mode=0o700, parents=folder == root, exist_ok=True)
            with locked(root):
                found = read(path, decrypt)
                if found is None:
                    found = Secret(MAKERS[kind]())
                    write(path, found.text.encode())
    except OSError as error:
        raise SecretError(f"{error.filename or path}: {error.strerror}. Secrets lie in a folder of the user who runs Ansible; see who owns it.") from None
    return found.complete(kind)


def read(path: Path, decrypt: Callable[[bytes], bytes] = bytes) -> Secret | None:
    """The secret in a file; None when there is no file.

    :raises SecretError: when the file has none.
    """
    try:
        found = parse(decrypt(path.read_bytes()).decode())
    except FileNotFoundError:
        return None
    except UnicodeDecodeError:
        raise SecretError(f"{path} is no text. Put the secret back from your backup, or remove the file to get a new one.") from None
    if not found.current:
        raise SecretError(f"{path} is empty. Put the secret back from your backup, or remove the file to get a new one.")
    return found


def write(path: Path, data: bytes) -> None:
    """Whole or not at all, and on the disk before anybody uses it."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
