# SPDX-License-Identifier: Apache-2.0
"""Our own programs: ``programs/<name>/`` is the source, and the source is the version.

A number kept by hand is forgotten once, and then a node goes on running the old code under the new code's name.
"""

from __future__ import annotations

import hashlib
import os
import stat
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

# What lies beside the source and changes nothing that runs: the page, the tests, and what tools and editors leave behind.
LEFT_OUT = ("README.md", "tests", "*_test.go", "testdata", "__pycache__", "*.pyc", ".*", "*~", "#*#")


@dataclass(frozen=True, order=True)
class SourceFile:
    """A file of a program: its path below the program's folder and its mode on hosts."""

    path: str
    mode: str


def folder(catalogue: Path, name: str) -> Path:
    """Where the source of an artifact of the directory ``catalogue`` lies: ``programs/`` stands beside it."""
    return catalogue.parent / "programs" / name


def files(program: Path) -> tuple[SourceFile, ...]:
    """The program's own files, sorted; empty when there is no such folder."""
    found = []
    for top, folders, names in os.walk(program):
        folders[:] = [name for name in folders if not _left_out(name)]
        for name in names:
            if not _left_out(name):
                path = Path(top) / name
                found.append(SourceFile(path.relative_to(program).as_posix(), "0755" if path.stat().st_mode & stat.S_IXUSR else "0644"))
    return tuple(sorted(found))


def version(program: Path) -> str:
    """``own-<12 hex>``: the digest of names, modes and bytes of the program's files.

    :raises OSError: when one of them can't be read.
    """
    digest = hashlib.sha256()
    for file in files(program):
        content = hashlib.sha256((program / file.path).read_bytes()).hexdigest()
        digest.update(f"{content} {file.mode} {file.path}\n".encode())
    return f"own-{digest.hexdigest()[:12]}"


def _left_out(name: str) -> bool:
    return any(fnmatch(name, pattern) for pattern in LEFT_OUT)
