# SPDX-License-Identifier: Apache-2.0
"""Folders and modes that do not depend on the umask of the host, of sudo or of whoever logs in."""

from __future__ import annotations

import os

UMASK = 0o022


def own_umask() -> None:
    """Called first by every module that writes: what it makes, and what the programs it runs make, is as on any other host.

    A hardened host gives its logins 077, which would close to services what is made for them. What must be private says so itself.
    """
    os.umask(UMASK)


def make_folder(path: str) -> None:
    """Make a folder, and what is missing above it, that everybody may enter and only the owner change (0755)."""
    missing = []
    while not os.path.isdir(path):
        missing.append(path)
        path = os.path.dirname(path)
    for folder in reversed(missing):
        os.mkdir(folder)
        os.chmod(folder, 0o755)
