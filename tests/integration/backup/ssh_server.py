# SPDX-License-Identifier: Apache-2.0
"""A server of SSH that a test has started."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass
class Sshd:
    """A server. ``url``: that of a user who may log in; ``folder``: its files; ``config``: that of `ssh`, which the tests' own `ssh` reads."""

    url: str
    folder: Path
    config: Path

    def configure(self, known_hosts: Path | None = None, identity: Path | None = None) -> None:
        """What `ssh` knows and shows from now on."""
        lines = [f"UserKnownHostsFile {known_hosts or self.folder / 'known_hosts'}", f"IdentityFile {identity or self.folder / 'user'}"]
        self.config.write_text("\n".join([*lines, "GlobalKnownHostsFile none", "IdentitiesOnly yes", "IdentityAgent none"]) + "\n")
