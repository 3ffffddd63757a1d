# SPDX-License-Identifier: Apache-2.0
"""The site's networks: IPv4, apart from each other and from the nodes, large enough."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from ipaddress import IPv4Network, IPv6Network
from typing import Any

from ansible_collections.ashlar.stack.plugins.plugin_utils.site.models import Networks, Node, Path_, Problem
from ansible_collections.ashlar.stack.plugins.plugin_utils.site.reading import quoted

PODS = "10.244.0.0/16"
SERVICES = "10.96.0.0/16"
ADMIN = ("0.0.0.0/0",)
NODE_PREFIX = 24
"""Each node has a network of this prefix length for its pods."""

_UNUSABLE = tuple(IPv4Network(text) for text in ("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/4", "240.0.0.0/4"))


def parse_networks(raw: Mapping[str, Any], file: str) -> tuple[Networks | None, list[Problem]]:
    """``networks`` of a site file whose structure was checked; None with the problems if one of them is no network."""
    problems: list[Problem] = []
    pods = _network(raw.get("pods", PODS), file, ("networks", "pods"), problems)
    services = _network(raw.get("services", SERVICES), file, ("networks", "services"), problems)
    admin = [_network(text, file, ("networks", "admin", index), problems) for index, text in enumerate(raw.get("admin", ADMIN))]
    for name, network in (("pods", pods), ("services", services)):
        unusable = next((other for other in _UNUSABLE if network and network.overlaps(other)), None)
        if unusable:
            private = "10.0.0.0/8, 172.16.0.0/12 or 192.168.0.0/16"
            text = f"is {network}, which has addresses of {unusable}, not usable for hosts. Take a network in {private}."
            problems.append(Problem(file, ("networks", name), text))
    if problems or pods is None or services is None:
        return None, problems
    return Networks(pods, services, tuple(network for network in admin if network)), []


def check_networks(networks: Networks, nodes: Sequence[Node], pod_nodes: int, file: str) -> Iterable[Problem]:
    """What is wrong between the networks and the nodes.

    :param pod_nodes: how many nodes carry pods; 0 when the site has no overlay.
    """
    pods, services = networks.pods, networks.services
    if pods.overlaps(services):
        yield Problem(file, ("networks", "services"), f"is {services}, which overlaps pods {pods}. Give networks that have no address in common.")
    for name, network in (("pods", pods), ("services", services)):
        inside = [node for node in nodes if node.address in network]
        if inside:
            others = f" and {len(inside) - 1} more" if len(inside) > 1 else ""
            text = f"is {network}, which holds the address {inside[0].address} of {inside[0].name}{others}. Give a network that no node is in."
            yield Problem(file, ("networks", name), text)
    if pod_nodes:
        room = 2 ** (NODE_PREFIX - pods.prefixlen) if pods.prefixlen <= NODE_PREFIX else 0
        if room < pod_nodes:
            found = f"is {pods}, with room for {room} nodes of a /{NODE_PREFIX} each"
            fits = NODE_PREFIX - (pod_nodes - 1).bit_length()
            text = f"{found}; there are {pod_nodes}. Allowed: a prefix length of {fits} or less."
            yield Problem(file, ("networks", "pods"), text)
        if pods.prefixlen < 8:
            yield Problem(file, ("networks", "pods"), f"is {pods}. Allowed: at most 65,536 nodes' networks, a prefix length of 8 or more.")
        if services.prefixlen > 24:
            text = f"is {services}, {services.num_addresses} addresses. Allowed: at least 256, a prefix length of 24 or less."
            yield Problem(file, ("networks", "services"), text)
        if services.prefixlen < 12:
            text = f"is {services}. Allowed: at most 20 bits for Services, a prefix length of 12 or more (a limit of the API server)."
            yield Problem(file, ("networks", "services"), text)


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
