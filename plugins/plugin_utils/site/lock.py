# SPDX-License-Identifier: Apache-2.0
"""state/lock.json: which run changes a site now, so that a second one does not begin beside it.

A run holds the site while its process lives. It need not release it: a process that was killed is not there any more. Of a run on another machine
nobody can tell, so it holds the site until it has released it or the operator takes over.
"""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from ansible_collections.ashlar.stack.plugins.module_utils.host.folders import make_folder

LOCK = Path("state") / "lock.json"
"""Below the site's folder."""


@dataclass(frozen=True)
class Holder:
    """A run. ``process``: its ID on ``host``; ``started``: when this process began, as its host tells it; ``since``: UTC; ``doing``: its playbooks."""

    user: str
    host: str
    process: int
    started: str
    since: str
    doing: str


def started(process: int) -> str:
    """When a process of this machine began; empty when there is none of this ID."""
    shown = subprocess.run(["ps", "-o", "lstart=", "-p", str(process)], capture_output=True, text=True, check=False, env={**os.environ, "LC_ALL": "C"})
    return " ".join(shown.stdout.split())


def hold(folder: Path, me: Holder, take: bool = False, began: Callable[[int], str] = started) -> Holder | None:
    """Hold the site for a run; the other one that holds it, None when it is ours now.

    :param folder: the site's. ``take``: whether to take over from whoever holds it. ``began``: see ``started``.
    """
    with _File(folder / LOCK) as file:
        other = file.holder
        if other and not take and not _over(other, me, began):
            return other
        file.write(me)
    return None


def release(folder: Path, me: Holder) -> bool:
    """Whether the site was ours and is free now."""
    if not (folder / LOCK).exists():
        return False
    with _File(folder / LOCK) as file:
        other = file.holder
        ours = other is not None and _same(other, me)
        if ours:
            file.write(None)
    return ours


def _same(other: Holder, me: Holder) -> bool:
    return (other.host, other.process, other.started) == (me.host, me.process, me.started)


def _over(other: Holder, me: Holder, began: Callable[[int], str]) -> bool:
    """Whether this run may go on: the other one is itself, or is over."""
    return _same(other, me) or (other.host == me.host and began(other.process) != other.started)


def _read(text: str) -> Holder | None:
    """None for what is no holder: nobody but this module writes there, and an empty file is a free site."""
    try:
        return Holder(**json.loads(text))
    except (ValueError, TypeError):
        return None


class _File:
    """The file, by one run at a time."""

    def __init__(self, path: Path) -> None:
        make_folder(str(path.parent))
        self.stream = open(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644), "r+", encoding="utf-8")

    def __enter__(self) -> _File:
        fcntl.flock(self.stream, fcntl.LOCK_EX)
        return self

    def __exit__(self, *_reason: object) -> None:
        self.stream.close()

    @property
    def holder(self) -> Holder | None:
        self.stream.seek(0)
        return _read(self.stream.read())

    def write(self, holder: Holder | None) -> None:
        self.stream.seek(0)
        self.stream.truncate()
        if holder:
            self.stream.write(json.dumps(asdict(holder), indent=4) + "\n")
        self.stream.flush()
