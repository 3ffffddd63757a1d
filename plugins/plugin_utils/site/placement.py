# SPDX-License-Identifier: Apache-2.0
"""Which component runs where, and whether they can live together on a node."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ansible_collections.ashlar.stack.plugins.plugin_utils.site.catalogue import ComponentCatalogue
from ansible_collections.ashlar.stack.plugins.plugin_utils.site.models import NODE_CLASSES, Manifest, Memory, Node, Placement, Port, Problem, Site
from ansible_collections.ashlar.stack.plugins.plugin_utils.site.reading import listed, quoted

RESERVED = {(68, "udp"): "the DHCP client", (123, "udp"): "the clock (NTP)"}
"""Ports of every host that only components which are part of every site may use; SSH's comes to these, host by host."""


def place(placement: Placement, nodes: Sequence[Node], remembered: Collection[str] = ()) -> list[Node]:
    """The nodes that a component runs on, in the inventory's order. Where they are limited, those that carry it already come first.

    :param placement: its limit is a number.
    :param remembered: names of the nodes that carry it.
    """
    wanted = placement.node_class
    candidates = [node for node in nodes if wanted == "all" or wanted in node.classes]
    if placement.most is None:
        return candidates
    size = min(len(candidates), int(placement.most))
    if placement.odd and size:
        size -= 1 - size % 2
    # Sorting is stable: within both halves the inventory's order stays.
    taken = {node.name for node in sorted(candidates, key=lambda node: node.name not in remembered)[:size]}
    return [node for node in candidates if node.name in taken]


def place_groups(
    manifests: Iterable[Manifest], nodes: Sequence[Node], memory: Memory, settings: Mapping[str, Any], file: str
) -> tuple[dict[str, list[Node]], list[Problem]]:
    """The nodes of the groups of components, and limits that are none.

    :param settings: variable -> value of all hosts, for limits that are options.
    """
    placed: dict[str, list[Node]] = {}
    problems: list[Problem] = []
    for manifest in manifests:
        for name, placement in manifest.groups.items():
            most = settings.get(placement.most) if isinstance(placement.most, str) else placement.most
            if most is not None and (not isinstance(most, int) or isinstance(most, bool) or most < 1):
                text = f"is {quoted(most)}. It says how many nodes are in the group {name}. Allowed: a whole number from 1, and no template."
                problems.append(Problem(file, ("options", manifest.name, str(placement.most)), text))
                continue
            placed[name] = place(replace(placement, most=most), nodes, memory.carriers.get(name, ()))
    return placed, problems


def founders_of(manifests: Iterable[Manifest], memory: Memory, placed: Mapping[str, Sequence[Node]]) -> dict[str, list[str]]:
    """Component that decides by majority -> names of those of its nodes that may begin its cluster: the members of the first run."""
    found = {}
    for manifest in manifests:
        if manifest.placement.odd:
            names = [node.name for node in placed.get(manifest.name, ())]
            # A site that ran before founders were remembered has those that carry it.
            first = memory.founders.get(manifest.name, memory.carriers.get(manifest.name, names))
            found[manifest.name] = [name for name in names if name in first]
    return found


def leaving(memory: Memory, placed: Mapping[str, Sequence[Node]], nodes: Iterable[Node]) -> dict[str, list[str]]:
    """Component or group -> names of the nodes that carry it, are still there, and shall carry it no longer. Those without one are left out."""
    names = [node.name for node in nodes]
    found = {}
    for name, carriers in memory.carriers.items():
        stay = {node.name for node in placed.get(name, ())}
        if gone := [node for node in names if node in carriers and node not in stay]:
            found[name] = gone
    return found


def check_counts(site: Site, chosen: Sequence[str], catalogue: ComponentCatalogue, nodes: Sequence[Node]) -> Iterable[Problem]:
    """Components without a node, and those that vote without an odd number of them."""
    members = {name: [node.name for node in nodes if name in node.classes] for name in NODE_CLASSES}
    members["all"] = [node.name for node in nodes]
    blame = nodes[0].file if nodes else site.file
    missing: dict[str, list[str]] = defaultdict(list)
    even: dict[str, list[str]] = defaultdict(list)
    for component in chosen:
        placement = catalogue.manifests[component].placement
        count = len(members[placement.node_class])
        if not count:
            missing[placement.node_class].append(component)
        elif placement.odd and count % 2 == 0:
            even[placement.node_class].append(component)
    for slot in catalogue.slots.values():
        if slot.node_class and not members[slot.node_class]:
            missing[slot.node_class] += [
                component for component in chosen if slot.name in catalogue.manifests[component].fills and component not in missing[slot.node_class]
            ]
    for name, components in missing.items():
        if components:
            who = f"{listed(components)} {'needs' if len(components) == 1 else 'need'}"
            yield Problem(blame, (), f"no node has the class {name}, which {who}. Add {name} to node_classes of a node.")
    for name, components in even.items():
        count = len(members[name])
        who = f"{listed(components)} {'decides' if len(components) == 1 else 'decide'}"
        text = (
            f"{count} nodes have the class {name}, {listed(members[name])}: an even number. {who} by majority, "
            f"so that {count} survive no more failures than {count - 1}. Allowed: 1, 3, 5, 7. Add or remove one."
        )
        yield Problem(blame, (), text)


def check_ports(placed: Mapping[str, Sequence[Node]], catalogue: ComponentCatalogue) -> Iterable[Problem]:
    """Two that listen on the same port of a node. Nodes that carry the same components are looked at once, and each pair is said once."""
    seen: set[tuple[tuple[str, ...], int]] = set()
    said: set[tuple[str, str]] = set()
    for node, components in components_of(placed):
        if (components, node.ssh_port) in seen:
            continue
        seen.add((components, node.ssh_port))
        for manifest, ours, theirs, remedy in _clashes([catalogue.manifests[name] for name in components], node.ssh_port):
            if (ours, theirs) not in said:
                said.add((ours, theirs))
                yield Problem(manifest.file, ("ports",), f"{ours} is taken on {node.name} by {theirs}. {remedy}")


def _clashes(manifests: Sequence[Manifest], ssh_port: int) -> Iterable[tuple[Manifest, str, str, str]]:
    """Manifest, its port and what is there already, in words, and what to do."""
    reserved = {**RESERVED, (ssh_port, "tcp"): "SSH"}
    taken: list[tuple[Manifest, Port]] = []
    for manifest in manifests:
        for port in manifest.ports:
            use = next((use for (number, protocol), use in reserved.items() if port.overlaps(number, number, protocol)), None)
            if manifest.fills and use:
                yield manifest, _words(manifest, port), use, "Give one of them another port."
                continue
            for other, theirs in taken:
                if other is not manifest and port.overlaps(theirs.first, theirs.last, theirs.protocol):
                    remedy = "Choose other components, or place them on different nodes."
                    yield manifest, _words(manifest, port), _words(other, theirs), remedy
            taken.append((manifest, port))


def _words(manifest: Manifest, port: Port) -> str:
    return f"{manifest.name}'s port {port.name} ({port.shown}/{port.protocol})"


def components_of(placed: Mapping[str, Sequence[Node]]) -> Iterable[tuple[Node, tuple[str, ...]]]:
    """Every node that carries something, with its components in layer order."""
    carried: dict[str, list[str]] = defaultdict(list)
    by_name: dict[str, Node] = {}
    for component, nodes in placed.items():
        for node in nodes:
            by_name[node.name] = node
            carried[node.name].append(component)
    return [(by_name[name], tuple(components)) for name, components in carried.items()]
