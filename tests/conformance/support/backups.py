# SPDX-License-Identifier: Apache-2.0
"""Backups of a site, and who may open them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pyrage

from .plan import Plan
from .site import run


def key_pair(folder: Path, name: str = "identity.txt") -> tuple[str, Path]:
    """A new recipient, and the file of its identity as age-keygen writes it."""
    identity = pyrage.x25519.Identity.generate()
    file = folder / name
    file.touch(0o600)
    file.write_text(f"# created: 2026-11-29T10:15:00Z\n# public key: {identity.to_public()}\n{identity}\n")
    return str(identity.to_public()), file


@dataclass(frozen=True)
class Keys:
    """Who may open backups: a public key, and the file with the secret one. `folder` is where backups are."""

    public: str
    file: Path
    folder: Path

    @classmethod
    def made(cls, folder: Path) -> Keys:
        """A new key pair in this folder, and an empty one below it for backups."""
        public, file = key_pair(folder)
        (folder / "there").mkdir()
        return cls(public, file, folder / "there")

    @property
    def backup(self) -> list[str]:
        """The words of a backup."""
        return ["backup", "-e", f"to={self.folder}", "-e", f"recipients={self.public}"]

    def written(self, plan: Plan) -> None:
        """There is one more backup."""
        run(plan, *self.backup)

    @property
    def restore(self) -> list[str]:
        """The words of a restore of the last one, which lacks the site's name."""
        return ["restore", "-e", f"backup={self.folder}", "-e", f"identity={self.file}"]
