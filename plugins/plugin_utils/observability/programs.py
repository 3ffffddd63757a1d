# SPDX-License-Identifier: Apache-2.0
"""Programs out of the store that run on the controller: promtool and amtool."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from ansible_collections.ashlar.stack.plugins.plugin_utils.artifacts.builder import machine
from ansible_collections.ashlar.stack.plugins.plugin_utils.artifacts.store import Store

SECONDS = 60


class ProgramError(Exception):
    """A program of the store cannot be run; the message says which, why, and what to do."""


def program(artifact: str, version: str, name: str, store: Store | None = None, folder: Path | None = None) -> Path | None:
    """A file of an artifact as a program of this machine; None when the store has none for its architecture.

    The store's blobs are not executable, so there is a copy, made once for each digest.

    :param folder: where copies lie; default ``~/.cache/ashlar/programs``.
    """
    store = store or Store()
    index = store.read(artifact, version, machine())
    file = next((file for file in index.files if file.path == name), None) if index else None
    if file is None:
        return None
    folder = folder or Path("~/.cache/ashlar/programs").expanduser()
    target = folder / f"{name}-{file.sha256[:16]}"
    try:
        if not target.is_file() or target.stat().st_size != file.size:
            folder.mkdir(parents=True, exist_ok=True)
            _copy(store.blob(file.sha256), target)
            for old in folder.glob(f"{name}-*"):
                if old != target:
                    old.unlink(missing_ok=True)
    except OSError as error:
        raise ProgramError(f"{name} of {artifact} {version} cannot be copied to {folder}: {error.strerror}; make room there, or see who owns it.") from None
    return target


def run(command: Sequence[str | Path]) -> tuple[int, str]:
    """Status and output, both streams together.

    :raises ProgramError: when it can't be started, or says nothing for a minute.
    """
    try:
        done = subprocess.run(
            [str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, timeout=SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        raise ProgramError(f"{Path(command[0]).name} did not end within {SECONDS} s; run it by hand: {' '.join(map(str, command[:4]))}") from None
    except OSError as error:
        raise ProgramError(f"{command[0]} cannot be started: {error.strerror}; remove it, then it is copied again.") from None
    return done.returncode, done.stdout.decode(errors="replace")


def _copy(source: Path, target: Path) -> None:
    """By rename, so that nobody starts half of a program."""
    descriptor, temporary = tempfile.mkstemp(dir=target.parent, prefix=".")
    os.close(descriptor)
    try:
        shutil.copyfile(source, temporary)
        os.chmod(temporary, 0o755)
        os.replace(temporary, target)
    except BaseException:
        os.unlink(temporary)
        raise
