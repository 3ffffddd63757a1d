# SPDX-License-Identifier: Apache-2.0
"""How the bytes of a download are known to be right: publishers' checksum files, and the site's lock file that holds them to their word."""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from .errors import ArtifactError, SourceUnavailable

POLICIES = ("published", "pinned")
LOCK = "artifacts.lock.txt"
HEADER = """\
# The sha256 of what was downloaded from publishers, checked by their own checksum files at first use. From then on these hold: other bytes
# stop the run. Written by Ashlar, to be committed with the site. Remove a line only if its publisher says why the file was replaced.
"""

# sha256sum(1) and sha512sum(1), also of a signed message or with a folder before the name; their --tag; a checksum alone.
_LINE = re.compile(r"([0-9a-fA-F]{64}|[0-9a-fA-F]{128}) [ *]?(\S+)")
_TAGGED = re.compile(r"SHA(?:256|512) \((\S+)\) = ([0-9a-fA-F]{64}|[0-9a-fA-F]{128})")
_ALONE = re.compile(r"[0-9a-fA-F]{64}|[0-9a-fA-F]{128}")


@dataclass(frozen=True)
class Expected:
    """A checksum (sha256 or sha512, in hexadecimal digits) and where it stands."""

    checksum: str
    said_by: str


def published(text: str, name: str, where: str) -> str:
    """The sha256 or sha512 of the file ``name`` in a publisher's checksum file, the longer where there are both.

    :raises SourceUnavailable: when the text is no such file, has nothing of that name, or contradicts itself.
    """
    if _ALONE.fullmatch(text.strip()):
        return text.strip().lower()
    known = _release(text) if text.lstrip().startswith("{") else _lines(text)
    if not known:
        raise SourceUnavailable(f"{where} is no checksum file: it begins with {' '.join(text[:60].split())!r}")
    found = {checksum for path, checksum in known if PurePosixPath(path).name == name}
    if not found:
        listed = ", ".join(sorted({PurePosixPath(path).name for path, _ in known})[:3])
        raise SourceUnavailable(f"{where} has no sha256 or sha512 of {name}, but of {listed}{' and others' if len(known) > 3 else ''}")
    longest = [checksum for checksum in found if len(checksum) == max(map(len, found))]
    if len(longest) > 1:
        raise SourceUnavailable(f"{where} has {len(longest)} different checksums of {name}")
    return longest[0]


def _lines(text: str) -> list[tuple[str, str]]:
    """(path, checksum) of every line that is one."""
    matches = [(match[2], match[1]) for line in text.splitlines() if (match := _LINE.fullmatch(line.strip()))]
    tagged = [(match[1], match[2]) for line in text.splitlines() if (match := _TAGGED.fullmatch(line.strip()))]
    return [(path, checksum.lower()) for path, checksum in matches + tagged]


def _release(text: str) -> list[tuple[str, str]]:
    """(name, checksum) of the files of a release on GitHub (docs.github.com/rest/releases/releases, "get a release by tag name")."""
    try:
        data: Any = json.loads(text)
        assets = [(str(asset["name"]), str(asset.get("digest") or "").rpartition(":")[2].lower()) for asset in data["assets"]]
    except (ValueError, KeyError, TypeError, AttributeError):
        return []
    return [(name, checksum) for name, checksum in assets if _ALONE.fullmatch(checksum)]


class Lock:
    """The lock file of a site: URL -> sha256. A new version or architecture is a new URL, so what was locked before stays true."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> dict[str, str]:
        """:raises ArtifactError: at a line that is none, or at two that disagree (which a merge may leave behind)."""
        try:
            lines = self.path.read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            return {}
        except (OSError, UnicodeDecodeError) as error:
            raise ArtifactError(f"{self.path} cannot be read: {error}") from error
        locked: dict[str, str] = {}
        for number, line in enumerate(lines, 1):
            if not line.strip() or line.startswith("#"):
                continue
            match = re.fullmatch(r"([0-9a-f]{64})  (https?://\S+)", line.rstrip())
            if not match:
                raise ArtifactError(f"{self.path}, line {number}: {line!r} is not `<64 hex>  <URL>`. Mend it, or take the file from version control again")
            if locked.setdefault(match[2], match[1]) != match[1]:
                raise ArtifactError(f"{self.path}, line {number}: another line has another sha256 of {match[2]}. Remove the wrong one")
        return locked

    def add(self, checksums: Mapping[str, str]) -> list[str]:
        """Lock what is not locked yet; returns those URLs. The caller keeps other processes out meanwhile."""
        known = self.read()
        added = sorted(set(checksums) - set(known))
        if added:
            merged = dict(checksums) | known
            self._replace(HEADER + "".join(f"{merged[url]}  {url}\n" for url in sorted(merged)))
        return added

    def _replace(self, text: str) -> None:
        try:
            descriptor, scratch = tempfile.mkstemp(dir=self.path.parent, prefix=f".{self.path.name}.")
            try:
                with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
                    stream.write(text)
                    os.fchmod(stream.fileno(), 0o644)
                os.rename(scratch, self.path)
            except BaseException:
                Path(scratch).unlink(missing_ok=True)
                raise
        except OSError as error:
            raise ArtifactError(f"{self.path} cannot be written: {error.strerror or error}. It keeps what publishers' checksums were at first use") from error
