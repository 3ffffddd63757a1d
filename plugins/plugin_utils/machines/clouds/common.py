# SPDX-License-Identifier: Apache-2.0
"""What all providers share: the question, the answer, errors, retries, pages, and several regions at once."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from ipaddress import IPv4Address, ip_address
from typing import TypeVar

Result = TypeVar("Result")

MOST_REGIONS_AT_ONCE = 8
MOST_PAGES = 10_000
LONGEST_PAUSE = 20.0
"""Seconds; a server that asks for more (Retry-After) is asked again sooner."""


@dataclass(frozen=True, slots=True)
class Disk:
    """A data volume of an instance. ``device`` is a path that stays the same across boots; ``tags`` are the volume's own."""

    id: str
    name: str
    size_gib: int
    device: str
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Instance:
    """A machine as a provider describes it. Addresses are IPv4; ``tags`` are what the provider calls tags, labels or metadata."""

    id: str
    name: str
    region: str
    zone: str
    running: bool
    private_ip: str | None = None
    public_ip: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    disks: tuple[Disk, ...] = ()
    size: str = ""
    image: str = ""


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked of a provider, and how.

    ``filters``: tag -> the values that are wanted, any of them; all tags must match.
    ``tags``: names of tags that are needed, where a provider has places of which all can't be read.
    ``timeout``: seconds of each call; ``attempts``: of each call, the first included.
    ``verify``: None for the provider's usual ways, False for none, or the path of a bundle of CAs.
    """

    regions: tuple[str, ...] = ()
    filters: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    tags: tuple[str, ...] = ()
    running: bool = True
    timeout: float = 30.0
    attempts: int = 5
    endpoint: str | None = None
    verify: bool | str | None = None
    profile: str | None = None
    project: str | None = None
    cloud: str | None = None
    network: str | None = None
    disks: bool = True


class CloudError(Exception):
    """The provider gave no answer that can be used. ``text``: what happened and what to do; ``where``: the region, if it is one's own."""

    def __init__(self, text: str, where: str = "") -> None:
        super().__init__(text)
        self.text = text
        self.where = where


class CloudErrors(Exception):
    """Several of them, one for each region that failed."""

    def __init__(self, errors: Sequence[CloudError]) -> None:
        super().__init__(f"{len(errors)} errors")
        self.errors = tuple(errors)


class Transient(Exception):
    """A failure that may be gone at the next attempt. ``final`` is raised when it is not; ``pause``: seconds that the server asks for."""

    def __init__(self, final: CloudError, pause: float = 0.0) -> None:
        super().__init__(final.text)
        self.final = final
        self.pause = pause


def retry(call: Callable[[], Result], attempts: int, sleep: Callable[[float], None] = time.sleep, chance: Callable[[], float] = random.random) -> Result:
    """``call``'s result, asked again when it raises Transient: after 0 to 0.5, 0 to 1, 0 to 2 ... seconds, so that many callers don't come back at once.

    :raises CloudError: the last failure, after so many ``attempts``.
    """
    for attempt in range(1, max(1, attempts) + 1):
        try:
            return call()
        except Transient as failure:
            if attempt >= attempts:
                raise failure.final from None
            sleep(min(LONGEST_PAUSE, max(failure.pause, chance() * 0.5 * 2 ** (attempt - 1))))
    raise AssertionError("unreachable: the last attempt returns or raises")


def pages(first: Callable[[str | None], tuple[list[Result], str | None]], what: str) -> Iterator[list[Result]]:
    """Pages of a list: ``first(marker)`` gives a page and the marker of the next one, None at the end.

    :raises CloudError: the markers go round in a circle, or there are more than MOST_PAGES.
    """
    marker: str | None = None
    seen: set[str] = set()
    for _ in range(MOST_PAGES):
        page, marker = first(marker)
        yield page
        if marker is None:
            return
        if marker in seen:
            break
        seen.add(marker)
    raise CloudError(f"{what}: the pages of the list never end (the API gives the same marker again). Nothing was listed; tell who runs the API.")


def in_regions(work: Mapping[str, Callable[[], list[Instance]]]) -> list[Instance]:
    """The answers of all regions in the order of ``work``, asked at the same time.

    :raises CloudErrors: from all regions that failed; half an inventory would look like nodes that are gone.
    """
    if not work:
        return []
    errors: list[CloudError] = []
    found: list[Instance] = []
    with ThreadPoolExecutor(min(MOST_REGIONS_AT_ONCE, len(work)), "ashlar-cloud") as pool:
        for region, answer in [(region, pool.submit(ask)) for region, ask in work.items()]:
            try:
                found += answer.result()
            except CloudError as error:
                errors.append(CloudError(error.text, error.where or region))
    if errors:
        raise CloudErrors(errors)
    return found


def sentences(errors: Iterable[CloudError]) -> list[str]:
    """What went wrong, regions with the same trouble together."""
    together: dict[str, list[str]] = {}
    for error in errors:
        together.setdefault(error.text, []).append(error.where)
    return [": ".join(part for part in (", ".join(sorted({where for where in places if where})), text) if part) for text, places in together.items()]


def without(text: str, secrets: Iterable[str | None]) -> str:
    """``text`` on one line, cut at 400 characters, with no secret in it. A server's words may repeat what it was sent."""
    for secret in secrets:
        if secret and len(secret) >= 4:
            text = text.replace(secret, "***")
    text = re.sub(r"(?i)\b(bearer|basic)\s+[\w.~+/=-]{8,}", r"\1 ***", text)
    text = re.sub(r"(?i)(://[^/@\s:]+):[^/@\s]+@", r"\1:***@", text)
    text = " ".join(text.split())
    return text if len(text) <= 400 else f"{text[:397]}..."


def matches(tags: Mapping[str, str], filters: Mapping[str, tuple[str, ...]]) -> bool:
    return all(tags.get(tag) in values for tag, values in filters.items())


def address(value: object) -> IPv4Address | None:
    """An IPv4 address, or None for anything else, IPv6 included: nodes reach each other by IPv4."""
    try:
        parsed = ip_address(str(value))
    except ValueError:
        return None
    return parsed if isinstance(parsed, IPv4Address) else None


def format_filters(filters: Mapping[str, tuple[str, ...]]) -> str:
    """Filters as a person writes them: ``ashlar_site=prod, ashlar_pool=workers|edge``."""
    return ", ".join(f"{tag}={'|'.join(values)}" for tag, values in filters.items()) or "no filter"
