# SPDX-License-Identifier: Apache-2.0
"""The seam between a module and the programs of its host: tests put their own runner in its place."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

# A service manager's own limit for stopping a unit is 90 seconds by default; a program that takes longer than this is stuck.
LIMIT = 180.0
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


PEM = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL)
BEARER = re.compile(r"(?i)\b(bearer|basic)(\s+)[A-Za-z0-9+/._~=-]{8,}")
IN_ADDRESS = re.compile(r"(://[^/\s:@]*:)[^/\s@]+@")
NAMED = re.compile(
    r"(?i)([\w.-]*(?:passw(?:or)?d|passphrase|secret|token|api[_-]?key|private[_-]?key|encryption[_-]?key|credential)[\w.-]*)"
    r"(\\?[\"']?\s*[=:]\s*|\s+)(\\?\"[^\"]*\"|'[^']*'|[^\s,;\"'}]+)"
)
# A word after one of these names that is plainly no secret, as in "password: is required" or "token not found".
PLAIN = re.compile(
    r"(?i)(?:is|are|was|not|no|must|cannot|could|has|from|for|in|of|to|and|or|file|auth\w*|required|missing|invalid|expired|[/.].*)\Z"
)


def masked(text: str) -> str:
    """The text without what looks like a secret: private keys, passwords and tokens by name, in addresses and in headers."""

    def hide(found: re.Match[str]) -> str:
        if not re.search(r"[=:]", found[2]) and (PLAIN.match(found[3]) or not re.search(r"\d", found[3]) or len(found[3]) < 8):
            return found[0]
        return found[0] if PLAIN.match(found[3]) else found[1] + found[2] + "(hidden)"

    text = PEM.sub("(private key hidden)", text)
    text = BEARER.sub(r"\1\2(hidden)", text)
    text = IN_ADDRESS.sub(r"\1(hidden)@", text)
    return NAMED.sub(hide, text)


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
            return Completed(124, err=f"{' '.join(command)} did not end within {limit:.0f} seconds")
        return Completed(done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace"))

    def finds(self, program: str) -> bool:
        """Whether the program is there, by path or in PATH."""
        if "/" in program:
            return os.access(program, os.X_OK)
        return any(os.access(os.path.join(folder, program), os.X_OK) for folder in PATH.split(":"))
