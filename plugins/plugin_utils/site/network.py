# SPDX-License-Identifier: Apache-2.0
"""The site's networks: IPv4, apart from each other and from the nodes, large enough."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from ipaddress import IPv4Network, IPv6Network
from typing import Any

from ansible_collections.ashlar.stack.plugins.plugin_utils.site.models import Networks, NetworkSpec, Node, Path_, Problem
from ansible_collections.ashlar.stack.plugins.plugin_utils.site.reading import did_you_mean, listed, quoted

ADMIN = ("0.0.0.0/0",)

_UNUSABLE = tuple(IPv4Network(text) for text in ("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/4", "240.0.0.0/4"))


def parse_networks(raw: Mapping[str, Any], file: str, specs: Mapping[str, NetworkSpec], takers: Mapping[str, str]) -> tuple[Networks, list[Problem]]:
    """``networks`` of a site file whose structure was checked; those that are no networks are left out.

    :param specs: networks that the site's components take. ``takers``: network of any component -> who takes it.
    """
    problems: list[Problem] = []
    for name in raw:
        allowed = sorted(["admin", *specs])
        if name in takers and name not in specs:
            text = f"is a network of {takers[name]}, which is not part of this site. Remove it, or choose {takers[name]}."
            problems.append(Problem(file, ("networks", name), text))
        elif name not in allowed:
            problems.append(Problem(file, ("networks", name), f"is an unknown key.{did_you_mean(name, allowed)} Allowed: {listed(allowed)}."))
    inner = {}
    for name, spec in specs.items():
        network = _network(raw.get(name, spec.default), file, ("networks", name), problems)
        unusable = next((other for other in _UNUSABLE if network and network.overlaps(other)), None)
        if unusable:
            private = "10.0.0.0/8, 172.16.0.0/12 or 192.168.0.0/16"
            text = f"is {network}, which has addresses of {unusable}, not usable for hosts. Take a network in {private}."
            problems.append(Problem(file, ("networks", name), text))
        elif network:
            inner[name] = network
    admin = [_network(text, file, ("networks", "admin", index), problems) for index, text in enumerate(raw.get("admin", ADMIN))]
    return Networks(tuple(network for network in admin if network), inner), problems


def check_networks(networks: Networks, specs: Mapping[str, NetworkSpec], nodes: Sequence[Node], carriers: int, file: str) -> Iterable[Problem]:
    """What is wrong between the networks and the nodes.

    :param carriers: how many nodes have a part of a network that is divided.
    """
    for (one, first), (other, second) in itertools.combinations(networks.inner.items(), 2):
        if first.overlaps(second):
            yield Problem(file, ("networks", other), f"is {second}, which overlaps {one} {first}. Give networks that have no address in common.")
    for name, network in networks.inner.items():
        spec = specs[name]
        inside = [node for node in nodes if node.address in network]
        if inside:
            others = f" and {len(inside) - 1} more" if len(inside) > 1 else ""
            text = f"is {network}, which holds the address {inside[0].address} of {inside[0].name}{others}. Give a network that no node is in."
            yield Problem(file, ("networks", name), text)
        if not spec.shortest <= network.prefixlen <= spec.longest:
            text = f"is {network}, {network.num_addresses:,} addresses. Allowed: a prefix length from {spec.shortest} to {spec.longest}."
            yield Problem(file, ("networks", name), text)
        elif spec.node_prefix and carriers > 2 ** (spec.node_prefix - network.prefixlen):
            found = f"is {network}, with room for {2 ** (spec.node_prefix - network.prefixlen)} nodes of a /{spec.node_prefix} each"
            fits = spec.node_prefix - (carriers - 1).bit_length()
            yield Problem(file, ("networks", name), f"{found}; there are {carriers}. Allowed: a prefix length of {fits} or less.")


def _network(text: Any, file: str, path: Path_, problems: list[Problem]) -> IPv4Network | None:
    example = "for example 10.244.0.0/16"
    try:
        network = IPv4Network(text, strict=False)
    except ValueError:
        try:
            IPv6Network(text, strict=False)
        except ValueError:
            problems.append(Problem(file, path, f"is {quoted(text)}, not a network. Allowed: an IPv4 network in CIDR notation, {example}."))
        else:
            reason = "an IPv6 network. Allowed: an IPv4 network; IPv6 is not supported yet. Write"
            problems.append(Problem(file, path, f"is {quoted(text)}, {reason} an IPv4 network, {example}."))
        return None
    if "/" not in text or str(network.network_address) != text.partition("/")[0]:
        problems.append(Problem(file, path, f"is {quoted(text)}, an address in a network. Allowed: the network itself. Write {network}."))
        return None
    return network
