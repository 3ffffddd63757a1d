# SPDX-License-Identifier: Apache-2.0
"""Where certificates are on a host, and one digest of them all, which controller and host compute alike."""

from __future__ import annotations

import hashlib
import json
import os
import pwd
import stat
from collections.abc import Iterable
from typing import NamedTuple

PKI = "/etc/ashlar/pki"
MEMORY = "/var/lib/ashlar/certificates.json"


class Installed(NamedTuple):
    """A file of the pki folder with everything that a run compares; `owner` is a user's name, whose group is its own."""

    path: str
    content: bytes
    owner: str
    mode: int


def digest_of(files: Iterable[Installed]) -> str:
    """64 hexadecimal digits. It is of all files together and never stored: nobody can tell a single key by it."""
    state = hashlib.sha256()
    for item in sorted(files):
        head = json.dumps([item.path, item.owner, item.mode, len(item.content)])
        state.update(head.encode() + b"\n" + item.content)
    return state.hexdigest()


def installed_digest(root: str = "/") -> str:
    """The digest of what earlier runs installed below `root`; "" when one of the files is missing or not as a run leaves it."""
    root = root.rstrip("/")
    files = []
    try:
        with open(root + MEMORY, encoding="utf-8") as stream:
            paths = json.load(stream)["files"]
        for path in paths:
            status = os.lstat(root + path)
            account = pwd.getpwuid(status.st_uid)
            if not stat.S_ISREG(status.st_mode) or account.pw_gid != status.st_gid:
                return ""
            with open(root + path, "rb") as content:
                files.append(Installed(path, content.read(), account.pw_name, status.st_mode & 0o7777))
    except (OSError, ValueError, KeyError, TypeError):
        return ""
    return digest_of(files)
