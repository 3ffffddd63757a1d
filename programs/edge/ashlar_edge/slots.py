# SPDX-License-Identifier: Apache-2.0
"""Gives instances server lines of their backend that they keep, so that those who come and go are told to the running HAProxy without a reload."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .model import Backend, Endpoint, Settings, Slot


def size(needed: int, before: int, least: int) -> int:
    """How many lines a backend gets: a power of two with a quarter to spare; as many as before unless that is too few or absurd."""
    wanted = max(1, least)
    while wanted * 3 < needed * 4:
        wanted *= 2
    return before if max(needed, least) <= before <= 8 * wanted else wanted


def assign(before: Sequence[Slot], endpoints: Sequence[Endpoint], settings: Settings, now: float) -> tuple[Slot, ...]:
    """The lines of one backend. Whoever has one keeps it; who left drains for `drain_seconds` before another takes the line, unless none is free."""
    wanted = set(endpoints)
    slots = list(before)
    for place, slot in enumerate(slots):
        if slot.endpoint in wanted:
            wanted.discard(slot.endpoint)
            slots[place] = Slot(slot.endpoint, "up", slot.since if slot.state == "up" else now)
        elif slot.state == "up":
            slots[place] = Slot(slot.endpoint, "drain", now)
        elif slot.state == "drain" and not 0 <= now - slot.since < settings.drain_seconds:
            slots[place] = Slot()
    total = size(len(endpoints), len(before), settings.min_slots)
    if total < len(slots):
        slots = [slot for slot in slots if slot.state == "up"]
    slots += [Slot()] * (total - len(slots))
    places = [place for place, slot in enumerate(slots) if slot.state == "free"]
    places += sorted((place for place, slot in enumerate(slots) if slot.state == "drain"), key=lambda place: slots[place].since)
    for place, endpoint in zip(places, sorted(wanted)):
        slots[place] = Slot(endpoint, "up", now)
    return tuple(slots)


def assign_all(
    before: Mapping[str, tuple[Slot, ...]], backends: Sequence[Backend], settings: Settings, now: float
) -> dict[str, tuple[Slot, ...]]:
    """Backend -> its lines."""
    return {backend.name: assign(before.get(backend.name, ()), backend.endpoints, settings, now) for backend in backends}
