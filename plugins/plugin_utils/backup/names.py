# SPDX-License-Identifier: Apache-2.0
"""Names of backups, ``<site>-<UTC time>.tar.age``, and which of them are kept. Names of one site sort by time."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import datetime, timedelta, timezone

from .errors import BackupError

PART = ".part"
"""What a name ends with until the backup is complete."""
STAMP = "%Y%m%dT%H%M%SZ"
SITE = re.compile(r"[a-z0-9]([a-z0-9-]{0,18}[a-z0-9])?")
NAME = re.compile(rf"(?P<site>{SITE.pattern})-(?P<stamp>\d{{8}}T\d{{6}}Z)\.tar\.age")
ABANDONED = timedelta(days=1)


def name_of(site: str, created: datetime) -> str:
    """:raises BackupError: ``site`` is no name of a site."""
    if not isinstance(site, str) or not SITE.fullmatch(site):
        raise BackupError(f"about: site is {site!r}. Allowed: the site's name, 1 to 20 small letters, digits and hyphens.")
    return f"{site}-{created.astimezone(timezone.utc).strftime(STAMP)}.tar.age"


def backups(names: Iterable[str], site: str | None = None) -> list[str]:
    """Complete backups among names of files, the oldest first; of one site, or of all."""
    found = [match for name in names if (match := NAME.fullmatch(name)) and site in (None, match["site"])]
    return [match[0] for match in sorted(found, key=lambda match: match["stamp"])]


def superseded(names: Iterable[str], new: str, keep: int) -> list[str]:
    """Backups of the site of ``new`` that go once it is complete: those older than it that are not among the newest ``keep``."""
    site = _site(new)
    all_ = sorted({*backups(names, site), new})
    return [name for name in all_[:-keep] if name < new]


def abandoned(names: Iterable[str], new: str, now: datetime) -> list[str]:
    """Incomplete files of the same site that a run which was killed has left: a day old, so that no run can still be writing them."""
    oldest = name_of(_site(new), now - ABANDONED)
    return [f"{name}{PART}" for name in backups((name.removesuffix(PART) for name in names if name.endswith(PART)), _site(new)) if name < oldest]


def newest(names: Iterable[str], shown: str, site: str | None = None) -> str:
    """The newest backup of the one site that has any. ``shown`` is the destination, for errors.

    :raises BackupError: there is none, or there are some of several sites.
    """
    found = backups(names, site)
    if not found:
        of = f" of the site {site}" if site else ""
        raise BackupError(f"{shown} holds no backup{of}, whose name would be like {site or 'prod'}-20261129T101500Z.tar.age. Correct source.")
    sites = sorted({_site(name) for name in found})
    if len(sites) > 1:
        raise BackupError(f"{shown} holds backups of several sites: {', '.join(sites)}. Name one by `site`, or one backup: {shown}/{found[-1]}")
    return found[-1]


def _site(name: str) -> str:
    match = NAME.fullmatch(name)
    assert match, name
    return match["site"]
