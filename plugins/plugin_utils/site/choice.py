# SPDX-License-Identifier: Apache-2.0
"""From a stack and a site's overrides to the components of the site."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ansible_collections.ashlar.stack.plugins.plugin_utils.site.catalogue import ComponentCatalogue
from ansible_collections.ashlar.stack.plugins.plugin_utils.site.models import LAYERS, Manifest, Path_, Problem, Site, Stack
from ansible_collections.ashlar.stack.plugins.plugin_utils.site.reading import did_you_mean, listed, quoted


@dataclass(frozen=True, slots=True)
class _Choice:
    """Why a component is here: the slot it was chosen for, and where that stands."""

    slot: str
    component: str
    file: str
    path: Path_


def choose(site: Site, stack: Stack, catalogue: ComponentCatalogue) -> tuple[list[str], list[Problem]]:
    """The chosen components in layer order (in a layer: what is required before what requires it, then by name), and what is wrong."""
    choices = list(_choices(site, stack))
    problems = list(_unknown(choices, site, stack, catalogue))
    known = [choice for choice in choices if choice.component in catalogue.manifests]
    problems += _misplaced(known, catalogue)
    problems += _crowded(known, catalogue)
    chosen = {*catalogue.core, *(choice.component for choice in known)}
    # What a planned component would have required or filled can't be judged: its absence has been said already.
    if not problems:
        problems += _relations(known, chosen, catalogue, site)
    return in_order(chosen, catalogue.manifests), problems


def in_order(names: Iterable[str], manifests: Mapping[str, Manifest]) -> list[str]:
    """By layer; in a layer a component comes after those it requires, else by name. A circle of requirements is cut where it is met."""
    chosen = set(names)
    ordered: list[str] = []
    for layer in LAYERS:
        members = {name for name in chosen if manifests[name].layer == layer}
        waits = {name: {other for other in manifests[name].requires if other in members} - {name} for name in members}
        ready = [name for name in members if not waits[name]]
        heapq.heapify(ready)
        while members:
            name = heapq.heappop(ready) if ready else min(members)
            if name not in members:
                continue
            members.remove(name)
            ordered.append(name)
            for other in members:
                if name in waits[other]:
                    waits[other].remove(name)
                    if not waits[other]:
                        heapq.heappush(ready, other)
    return ordered


def _choices(site: Site, stack: Stack) -> Iterable[_Choice]:
    for slot, components in {**stack.slots, **site.slots}.items():
        own = slot in site.slots
        for component in components:
            yield _Choice(slot, component, site.file if own else stack.file, ("slots", slot))
    for index, component in enumerate(site.extras):
        yield _Choice("extra", component, site.file, ("extras", index))


def _unknown(choices: Sequence[_Choice], site: Site, stack: Stack, catalogue: ComponentCatalogue) -> Iterable[Problem]:
    to_come: dict[str, list[str]] = {}
    for choice in choices:
        if choice.component in catalogue.manifests:
            continue
        if choice.file == site.file:
            fit = [name for name, manifest in catalogue.manifests.items() if choice.slot in manifest.fills]
            allowed = f"Components that fill {choice.slot}: {listed(fit)}."
            if choice.component in catalogue.planned:
                remedy = f"{allowed} Choose one of these, or leave it out." if fit else f"No component fills {choice.slot} yet. Leave it out."
                text = f"is {quoted(choice.component)}, a component that is still to come. {remedy}"
            else:
                hint = did_you_mean(choice.component, list(catalogue.manifests))
                text = f"is {quoted(choice.component)}, an unknown component.{hint} {allowed}"
            yield Problem(choice.file, choice.path, text)
        elif choice.component in catalogue.planned:
            slots = to_come.setdefault(choice.component, [])
            if choice.slot not in slots:
                slots.append(choice.slot)
        else:
            hint = did_you_mean(choice.component, list(catalogue.manifests))
            text = f"is {quoted(choice.component)}, an unknown component.{hint} Allowed: {listed(sorted(catalogue.manifests))}."
            yield Problem(choice.file, choice.path, text)
    if to_come:
        names = listed(f"{component} ({', '.join(slots)})" for component, slots in to_come.items())
        text = (
            f"is {quoted(stack.name)}, whose components are not all there yet. Still to come: {names}. "
            'Choose the stack "tectonic", which is complete, or fill these slots with components that exist (slots: in this file).'
        )
        yield Problem(site.file, ("stack",), text)


def _misplaced(choices: Sequence[_Choice], catalogue: ComponentCatalogue) -> Iterable[Problem]:
    for choice in choices:
        fills = catalogue.manifests[choice.component].fills
        if choice.slot not in fills:
            what = f"it fills {listed(fills)}" if fills else "it is part of every site"
            fit = [name for name, manifest in catalogue.manifests.items() if choice.slot in manifest.fills]
            text = f"is {quoted(choice.component)}, which does not fill the slot {choice.slot}: {what}. Allowed: {listed(fit)}."
            yield Problem(choice.file, choice.path, text)


def _crowded(choices: Sequence[_Choice], catalogue: ComponentCatalogue) -> Iterable[Problem]:
    for slot in catalogue.slots.values():
        inside = [choice for choice in choices if choice.slot == slot.name]
        names = list(dict.fromkeys(choice.component for choice in inside))
        if slot.single and len(names) > 1:
            why = "since they would do the same job twice on a node"
            text = f"names {len(names)} components, {listed(names)}. Allowed: one, {why}. Keep one of them."
            yield Problem(inside[0].file, inside[0].path, text)


def _relations(choices: Sequence[_Choice], chosen: set[str], catalogue: ComponentCatalogue, site: Site) -> Iterable[Problem]:
    filled = {choice.slot: choice.component for choice in choices}
    for name in sorted(chosen):
        manifest = catalogue.manifests[name]
        where: tuple[str, Path_] = next(((choice.file, choice.path) for choice in choices if choice.component == name), (site.file, ("stack",)))
        for needed in manifest.requires:
            if needed in catalogue.slots and needed not in filled:
                fit = [other for other, offer in catalogue.manifests.items() if needed in offer.fills]
                remedy = f"Fill it in slots: of the site file, with {listed(fit, 'or')}" if fit else f"No component fills it yet: leave {name} out"
                blame: tuple[str, Path_] = (site.file, ("slots", needed)) if needed in site.slots else where
                yield Problem(*blame, f"{name} requires that the slot {needed} is filled, and it is empty. {remedy}.")
            elif needed in catalogue.manifests and needed not in chosen:
                slots = catalogue.manifests[needed].fills
                # The override that left it out is to blame, rather than the stack that named the one which needs it.
                blame = next(((site.file, ("slots", slot)) for slot in slots if slot in site.slots), where)
                remedy = f"Choose it for the slot {listed(slots, 'or')}, or leave {name} out."
                text = f"{name} requires the component {needed}, which is not chosen. {remedy}"
                yield Problem(*blame, text)
        for enemy in manifest.conflicts:
            other = filled.get(enemy) if enemy in catalogue.slots else enemy
            if other and other != name and other in chosen:
                text = f"{name} cannot be together with {other}. Choose one of them in slots: of the site file."
                yield Problem(*where, text)
