# SPDX-License-Identifier: Apache-2.0
"""The lookup that gives a secret of the site, and makes it when it is asked for the first time."""

from __future__ import annotations

import base64
import fcntl
import os
import re
import secrets
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleError
from ansible.plugins.lookup import LookupBase

DOCUMENTATION = r"""
name: secret
short_description: A secret of the site, generated on the controller at first use
version_added: 1.0.0
author: Ashlar developers (@ashlar)
description:
  - Reads C(credentials/<name>) of the site. A missing file is created, once, with a secret of O(kind), mode 0600 in folders of mode 0700.
  - Concurrent runs and hosts get the same secret. A file encrypted by ansible-vault is decrypted with the run's vault secrets.
  - To replace a secret, remove its file and run again.
options:
  _terms:
    description: Names of secrets, paths below C(credentials/) such as C(consul/tokens/edge).
    type: list
    elements: str
    required: true
  kind:
    description:
      - What to generate. V(uuid) is a random UUID, V(key32) 32 random bytes in base64, V(password) 32 random letters and digits.
    type: str
    choices: [uuid, key32, password]
    default: uuid
  credentials:
    description: The site's folder for secrets; by default the variable C(site_credentials).
    type: path
notes:
  - In check mode nothing is written; a missing secret is a fixed text of the same format then.
"""

EXAMPLES = r"""
token: "{{ lookup('ashlar.stack.secret', 'consul/tokens/edge') }}"
gossip: "{{ lookup('ashlar.stack.secret', 'consul/gossip_key', kind='key32') }}"
"""

RETURN = r"""
_raw:
  description: The secrets, without a trailing newline.
  type: list
  elements: str
"""

ALPHABET = "abcdefghijkmnopqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789"
MAKERS: dict[str, Callable[[], str]] = {
    "uuid": lambda: str(uuid.UUID(bytes=secrets.token_bytes(16), version=4)),
    "key32": lambda: base64.b64encode(secrets.token_bytes(32)).decode(),
    "password": lambda: "".join(secrets.choice(ALPHABET) for _ in range(32)),
}
IN_CHECK_MODE = {"uuid": str(uuid.UUID(int=0)), "key32": base64.b64encode(bytes(32)).decode(), "password": "x" * 32}
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*(/[A-Za-z0-9_][A-Za-z0-9_.-]*)*")


class SecretError(Exception):
    """A secret cannot be had; the message says which, why, and what to do."""


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """One at a time makes secrets, of all hosts and runs of this controller."""
    descriptor = os.open(folder / ".secrets.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def obtain(root: Path, name: str, kind: str, dry_run: bool, decrypt: Callable[[bytes], bytes] = bytes) -> str:
    """The secret `name` below the folder `root`; made if it is missing.

    :raises SecretError: when its name, its file or its content will not do.
    """
    if not NAME.fullmatch(name):
        raise SecretError(f"secret '{name}': allowed are words of letters, digits, '_', '.' and '-', parted by '/', such as consul/tokens/edge.")
    path = root / name
    try:
        found = _read(path, decrypt)
        if found is None and dry_run:
            return IN_CHECK_MODE[kind]
        if found is None:
            for folder in reversed([parent for parent in path.parents if parent == root or root in parent.parents]):
                folder.mkdir(mode=0o700, parents=folder == root, exist_ok=True)
            with locked(root):
                found = _read(path, decrypt)
                if found is None:
                    found = MAKERS[kind]()
                    _write(path, found)
    except OSError as error:
        raise SecretError(f"{error.filename or path}: {error.strerror}. Secrets lie in a folder of the user who runs Ansible; see who owns it.") from None
    if not found:
        raise SecretError(f"{path} is empty. Put the secret back from your backup, or remove the file to get a new one.")
    return found


def _read(path: Path, decrypt: Callable[[bytes], bytes]) -> str | None:
    try:
        return decrypt(path.read_bytes()).decode().strip()
    except FileNotFoundError:
        return None
    except UnicodeDecodeError:
        raise SecretError(f"{path} is no text. Put the secret back from your backup, or remove the file to get a new one.") from None


def _write(path: Path, text: str) -> None:
    """Whole or not at all, and on the disk before anybody uses it."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(text + "\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


class LookupModule(LookupBase):
    """Ansible's way in."""

    def run(self, terms: list[str], variables: dict[str, Any] | None = None, **kwargs: Any) -> list[str]:
        self.set_options(var_options=variables, direct=kwargs)
        values = variables or {}
        folder = self.get_option("credentials") or (self._templar.template(values.get("site_credentials")) if self._templar else None)
        if not folder:
            raise AnsibleError("credentials: no folder is given and the variable site_credentials is not set (the stack inventory plugin sets it).")
        try:
            return [
                obtain(Path(folder).expanduser().absolute(), str(term), self.get_option("kind"), bool(values.get("ansible_check_mode")), self._decrypt)
                for term in terms
            ]
        except SecretError as error:
            raise AnsibleError(str(error)) from None

    def _decrypt(self, data: bytes) -> bytes:
        if not data.startswith(b"$ANSIBLE_VAULT") or self._loader is None:
            return data
        return bytes(self._loader._vault.decrypt(data))
