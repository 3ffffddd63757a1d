# SPDX-License-Identifier: Apache-2.0
"""A site, keys and the two action plugins, for tests of backups."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from ansible_collections.ashlar.stack.plugins.action import backup, backup_open
from conformance.support.backups import key_pair

ABOUT = {"site": "prod", "release": "2026.11", "versions": {"etcd": "3.7.3"}, "nodes": ["alpha", "beta"]}
FILES = {
    "10-nodes.yml": (b"all: {}\n", 0o644),
    "credentials/ca/platform.key": (b"a key\n", 0o600),
    "credentials/logins/admin": (b"a password\n", 0o640),
    "state/placement.yml": (b"", 0o644),
}


def site(folder: Path) -> Path:
    """A site's folder with everything that a backup must keep, and what it must not."""
    place = folder / "site"
    for name, (content, mode) in FILES.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(content)
        (place / name).chmod(mode)
    (place / "credentials").chmod(0o700)
    (place / "state/restore").mkdir()
    for name in ("state/lock.json", "state/restore/manifest.json", "20-stack.yml~", ".20-stack.yml.swp", "#20-stack.yml#"):
        (place / name).write_text("not of the site")
    (place / ".#20-stack.yml").symlink_to("somebody@somewhere.4711")
    return place


def contents(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Files of a folder as ``FILES`` has them."""
    return {str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mode & 0o7777) for path in folder.rglob("*") if not path.is_dir()}


def make(directory: Path, to: str | Path, recipients: Sequence[str], check: bool = False, **more: Any) -> dict[str, Any]:
    """ashlar.stack.backup."""
    arguments = {"directory": str(directory), "parts": {}, "about": ABOUT, "to": str(to), "recipients": list(recipients), **more}
    return backup.ActionModule(SimpleNamespace(args=arguments, check_mode=check), None, None, None, None, None).act({})


def unseal(source: str | Path, identity: Path, into: Path, check: bool = False, **more: Any) -> dict[str, Any]:
    """ashlar.stack.backup_open."""
    arguments = {"source": str(source), "identity": str(identity), "into": str(into), **more}
    return backup_open.ActionModule(SimpleNamespace(args=arguments, check_mode=check), None, None, None, None, None).act({})


@dataclass
class Stage:
    """``root``: everything lies below it; ``site``: the site's folder; ``vault``: where backups go; ``recipient`` and ``identity`` belong together."""

    root: Path
    site: Path
    vault: Path
    recipient: str
    identity: Path

    def make(self, **more: Any) -> dict[str, Any]:
        return make(more.pop("directory", self.site), more.pop("to", self.vault), more.pop("recipients", [self.recipient]), **more)

    def open(self, source: str | Path | None = None, **more: Any) -> dict[str, Any]:
        return unseal(source or self.vault, more.pop("identity", self.identity), more.pop("into", self.root / "opened"), **more)

    def opened(self) -> list[str]:
        """What opening has left."""
        return sorted(path.name for path in self.root.glob("opened*"))


def stage(folder: Path) -> Stage:
    """A site and a place for its backups, which is not there yet, in a folder."""
    recipient, identity = key_pair(folder)
    return Stage(folder, site(folder), folder / "vault", recipient, identity)
