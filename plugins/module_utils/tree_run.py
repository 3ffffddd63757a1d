# SPDX-License-Identifier: Apache-2.0
"""The seam between a module and the programs of its host: tests put their own runner in its place."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

# A service manager's own limit for stopping a unit is 90 seconds by default; a program that takes longer than this is stuck.
LIMIT = 180.0
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True)
class Completed:
    """How a program ended: exit code, standard output and standard error. 127: not found; 124: over its time."""

    code: int
    out: str = ""
    err: str = ""

    @property
    def said(self) -> str:
        """Everything it printed, errors first, without surrounding white space."""
        return "\n".join(part.strip() for part in (self.err, self.out) if part.strip())


class Runner(Protocol):
    """Runs a program and waits for it, at most `limit` seconds."""

    def run(self, command: Sequence[str], limit: float = LIMIT) -> Completed:
        """How it ended; never raises for a program that fails."""

    def finds(self, program: str) -> bool:
        """Whether the program is there."""


class HostRunner:
    """Programs of this host, in the C locale and with the administrator's PATH."""

    def __init__(self) -> None:
        self._environment = dict(os.environ, LC_ALL="C", SYSTEMD_COLORS="0", SYSTEMD_PAGER="", PATH=PATH)

    def run(self, command: Sequence[str], limit: float = LIMIT) -> Completed:
        """How it ended; 127 when it is not there, 124 when it took longer than `limit` seconds."""
        try:
            done = subprocess.run(
                list(command), stdin=subprocess.DEVNULL, capture_output=True, timeout=limit, env=self._environment, check=False
            )
        except (FileNotFoundError, PermissionError) as error:
            return Completed(127, err=f"{command[0]}: {error.strerror}")
        except subprocess.TimeoutExpired:
            return Completed(124, err="%s did not end within %d seconds" % (" ".join(command), limit))
        return Completed(done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace"))

    def finds(self, program: str) -> bool:
        """Whether the program is there, by path or in PATH."""
        if "/" in program:
            return os.access(program, os.X_OK)
        return any(os.access(os.path.join(folder, program), os.X_OK) for folder in PATH.split(":"))
