# SPDX-License-Identifier: Apache-2.0
"""Keys of age: recipients (public, for whom a backup is made) and identities (secret, by which it is opened)."""

from __future__ import annotations

import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .errors import BackupError, explained
from .library import pyrage, require

ALLOWED = "Allowed: public keys of age (age1..., as age-keygen prints them) and of SSH (ssh-ed25519 AAAA...)."
IDENTITIES = "Allowed: what age-keygen writes (AGE-SECRET-KEY-1...), or an OpenSSH private key of type ed25519 without passphrase."
LARGEST_BYTES = 1 << 20


def recipients(texts: Sequence[str]) -> list[Any]:
    """What pyrage encrypts for.

    :raises BackupError: none, or some are no public keys; all of these are named.
    """
    require()
    if not texts:
        raise BackupError(f"recipients is empty, so nobody could open the backup. {ALLOWED}")
    keys, wrong = [], []
    for number, text in enumerate(texts, 1):
        try:
            keys.append(_recipient(str(text).strip()))
        except pyrage.RecipientError:
            # Whoever gives a secret key by mistake must not find it in a log.
            secret = "PRIVATE KEY" in text or "SECRET-KEY" in text.upper()
            wrong.append(f"number {number} is {'a secret key; give the public one that belongs to it' if secret else repr(str(text)[:40])}")
    if wrong:
        raise BackupError(f"recipients: {', '.join(wrong)}. {ALLOWED}")
    return keys


def _recipient(text: str) -> Any:
    if text.startswith("age1"):
        return pyrage.x25519.Recipient.from_str(text)
    if text.startswith("ssh-ed25519 "):
        return pyrage.ssh.Recipient.from_str(text)
    raise pyrage.RecipientError(text)


def identities(file: Path) -> list[Any]:
    """What pyrage decrypts by.

    :raises BackupError: the file can't be read, can be read by others, or holds no identity.
    """
    require()
    try:
        state = file.stat()
        if not stat.S_ISREG(state.st_mode):
            raise BackupError(f"identity: {file} is no file. {IDENTITIES}")
        if state.st_mode & 0o077:
            mode = f"{stat.S_IMODE(state.st_mode):04o}"
            raise BackupError(f"identity: {file} can be read by others (its mode is {mode}), and opens backups. Run: chmod 600 {file}")
        if state.st_size > LARGEST_BYTES:
            raise BackupError(f"identity: {file} is no identity. {IDENTITIES}")
        content = file.read_bytes()
    except FileNotFoundError:
        raise BackupError(f"identity: {file} is not there. Name the file with the secret key of one of the backup's recipients.") from None
    except OSError as error:
        raise explained(error, str(file)) from None
    if b"-----BEGIN OPENSSH PRIVATE KEY-----" in content:
        return [_openssh(content, file)]
    if content.startswith((b"age-encryption.org/", b"-----BEGIN AGE ENCRYPTED FILE-----")):
        raise BackupError(f"identity: {file} is protected by a passphrase. Decrypt it first: (umask 077; age -d -o identity {file})")
    lines = [line.strip() for line in content.decode("utf-8", "replace").splitlines()]
    try:
        found = [pyrage.x25519.Identity.from_str(line) for line in lines if line and not line.startswith("#")]
    except pyrage.IdentityError:
        found = []
    if not found:
        raise BackupError(f"identity: {file} holds no identity. {IDENTITIES}")
    return found


def _openssh(content: bytes, file: Path) -> Any:
    try:
        return pyrage.ssh.Identity.from_buffer(content)
    except pyrage.IdentityError as error:
        if "decrypted first" in str(error):
            raise BackupError(f"identity: {file} is protected by a passphrase. Make a copy without: ssh-keygen -p -N '' -f <copy>") from None
        raise BackupError(f"identity: {file} is no key that age knows ({error}). {IDENTITIES}") from None
