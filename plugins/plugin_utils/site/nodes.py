# SPDX-License-Identifier: Apache-2.0
"""Who is there: the hosts of the inventory, checked one by one and against each other."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import Any

from ansible_collections.ashlar.stack.plugins.plugin_utils.site.models import NODE_CLASSES, Manifest, Node, Path_, Problem
from ansible_collections.ashlar.stack.plugins.plugin_utils.site.reading import did_you_mean, listed, quoted

LOCALHOST = ("localhost", "127.0.0.1", "::1")
_LABEL_VALUE = re.compile(r"([A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)?")
_DNS_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_VALUE_WORDS = "at most 63 letters, digits, '-', '_' and '.', starting and ending with a letter or digit"


@dataclass(frozen=True, slots=True)
class RawNode:
    """A host as the inventory has it: its variables, templated, and the file that named it first."""

    name: str
    variables: Mapping[str, Any]
    file: str


def parse_nodes(raw: Iterable[RawNode], groups: Collection[str] = ()) -> tuple[list[Node], list[Problem]]:
    """The nodes that are right, in the inventory's order, and everything that is wrong with the others.

    A host whose ``node_classes`` is empty is none of ours.

    :param groups: names that a host may not have because a group has them.
    """
    nodes: list[Node] = []
    problems: list[Problem] = []
    for host in raw:
        if _words(host.variables.get("node_classes")) == []:
            continue
        if host.name in LOCALHOST:
            text = "is the controller itself, which would be installed on. Remove it: Ansible knows localhost without an entry."
            problems.append(Problem(host.file, ("hosts", host.name), text))
            continue
        found = list(_name(host, groups))
        address = _address(host, found)
        classes = _classes(host, found)
        zone, region = (_place(host, f"node_{name}", found) for name in ("zone", "region"))
        labels = _labels(host, found)
        port = _ssh_port(host, found)
        problems += found
        if not found and address is not None:
            nodes.append(Node(host.name, address, classes, zone, region, labels, port, host.file))
    problems += _twice(nodes)
    return nodes, problems


def check_labels(nodes: Iterable[Node], manifests: Iterable[Manifest]) -> Iterable[Problem]:
    """Labels among the nodes' own that a component sets."""
    setters = {label: who for manifest in manifests for label, who in manifest.node_labels.items()}
    for node in nodes:
        for label in (label for label in node.labels if label in setters):
            yield Problem(node.file, ("hosts", node.name, "node_labels", label), f"is set by {setters[label]}. Remove it here.")


def safe_name(text: Any) -> str:
    """A node name made of a text: small letters, digits, hyphens and dots, at most 63 characters; empty where nothing is left."""
    if not isinstance(text, (str, int)):
        return ""
    labels = (re.sub(r"[^a-z0-9]+", "-", label).strip("-") for label in str(text).lower().split("."))
    return ".".join(label for label in labels if label)[:63].rstrip("-.")


def _name(host: RawNode, groups: Collection[str]) -> Iterable[Problem]:
    allowed = (
        # RFC 1123 allows longer ones; a host name of Linux and a label of Kubernetes, which a node's name becomes, are no longer.
        "Allowed: a name of RFC 1123: labels of small letters, digits and hyphens, separated by dots, at most 63 characters in all. Rename it, for example to"
    )
    if len(host.name) > 63 or not all(_DNS_LABEL.fullmatch(label) for label in host.name.split(".")):
        # In quotes, or the full stop behind it would make `web.` of `web` again.
        yield Problem(host.file, ("hosts", host.name), f"is not a valid host name. {allowed} {quoted(safe_name(host.name) or 'node-1')}.")
    elif all(label.isdigit() for label in host.name.split(".")):
        yield Problem(host.file, ("hosts", host.name), f"is a number or an address, not a host name. {allowed} {quoted('node-' + host.name.split('.')[-1])}.")
    elif host.name in groups:
        text = "is also the name of a group: a component, a node class or a group of the inventory. Patterns would mean both. Rename the host."
        yield Problem(host.file, ("hosts", host.name), text)


def _address(host: RawNode, problems: list[Problem]) -> IPv4Address | None:
    where: Path_ = ("hosts", host.name, "node_address")
    target = host.variables.get("ansible_host")
    if isinstance(target, str) and _is_ipv6(target):
        text = f"is {quoted(target)}, an IPv6 address. The firewall's rules are for IPv4, so SSH would be locked out. Give an IPv4 address."
        problems.append(Problem(host.file, ("hosts", host.name, "ansible_host"), text))
    value = host.variables.get("node_address")
    if value is None:
        text = "is missing. It is the private IPv4 address by which nodes reach each other, for example 10.0.0.11. Add it."
        problems.append(Problem(host.file, where, text))
        return None
    try:
        address = IPv4Address(str(value))
    except AddressValueError:
        if _is_ipv6(str(value)):
            text = f"is {quoted(value)}, an IPv6 address. Allowed: an IPv4 address; IPv6 is not supported yet. Give the node's IPv4 address."
        else:
            text = f"is {quoted(value)}, not an address. Allowed: an IPv4 address without a prefix length, for example 10.0.0.11."
        problems.append(Problem(host.file, where, text))
        return None
    for wrong, kind in (
        (address.is_loopback, "a loopback address"),
        (address.is_unspecified, "the unspecified address"),
        (address.is_multicast, "a multicast address"),
        (address.is_link_local, "a link-local address"),
        (address == IPv4Address("255.255.255.255"), "the broadcast address"),
    ):
        if wrong:
            text = f"is {address}, {kind}, which other nodes cannot reach. Give the node's private address."
            problems.append(Problem(host.file, where, text))
            return None
    return address


def _classes(host: RawNode, problems: list[Problem]) -> tuple[str, ...]:
    where: Path_ = ("hosts", host.name, "node_classes")
    given = host.variables.get("node_classes")
    if given is None:
        text = f"is missing. Allowed: a list of {listed(NODE_CLASSES)}, or [] for a host that is no node. Add it."
        problems.append(Problem(host.file, where, text))
        return ()
    value = _words(given)
    if not isinstance(value, list):
        text = f"is {quoted(given)}. Allowed: a list of {listed(NODE_CLASSES)}, for example [control, worker], or [] for a host that is no node."
        problems.append(Problem(host.file, where, text))
        return ()
    for index, name in enumerate(value):
        if name not in NODE_CLASSES:
            text = f"is {quoted(name)}, an unknown node class.{did_you_mean(str(name), NODE_CLASSES)} Allowed: {listed(NODE_CLASSES)}."
            problems.append(Problem(host.file, (*where, index), text))
    twice = sorted({str(name) for name in value if value.count(name) > 1})
    if twice:
        problems.append(Problem(host.file, where, f"names {listed(twice)} twice. Remove one."))
    return tuple(str(name) for name in value)


def _words(value: Any) -> Any:
    """A list that was written as text, as in INI files (``'["control"]'``, ``control,worker``); anything else as it is."""
    if not isinstance(value, str):
        return value
    return re.findall(r"[^\s,'\"]+", value[1:-1] if value.startswith("[") and value.endswith("]") else value)


def _place(host: RawNode, variable: str, problems: list[Problem]) -> str:
    value = host.variables.get(variable)
    if value is None or value == "":
        return ""
    if not isinstance(value, str) or not _LABEL_VALUE.fullmatch(value):
        text = f"is {quoted(value)}. Allowed: {_VALUE_WORDS}; in quotation marks if it is a number."
        problems.append(Problem(host.file, ("hosts", host.name, variable), text))
        return ""
    return str(value)


def _labels(host: RawNode, problems: list[Problem]) -> dict[str, str]:
    where: Path_ = ("hosts", host.name, "node_labels")
    value = host.variables.get("node_labels")
    if value is None:
        return {}
    if not isinstance(value, dict):
        problems.append(Problem(host.file, where, f"is {quoted(value)}. Allowed: a mapping of label to value, for example {{disk: ssd}}."))
        return {}
    for key, content in value.items():
        prefix, slash, name = str(key).rpartition("/")
        bad_prefix = slash and (len(prefix) > 253 or not all(_DNS_LABEL.fullmatch(label) for label in prefix.split(".")))
        if bad_prefix or not name or not _LABEL_VALUE.fullmatch(name):
            text = f"is not a label's name. Allowed: {_VALUE_WORDS}, with a DNS name and a slash before it if need be (example.com/disk)."
            problems.append(Problem(host.file, (*where, str(key)), text))
        if not isinstance(content, str) or not _LABEL_VALUE.fullmatch(content):
            text = f"is {quoted(content)}. Allowed: a text of {_VALUE_WORDS}, or empty; numbers and true/false in quotation marks."
            problems.append(Problem(host.file, (*where, str(key)), text))
    return {str(key): str(content) for key, content in value.items()}


def _ssh_port(host: RawNode, problems: list[Problem]) -> int:
    value = host.variables.get("ansible_port", 22)
    text = str(value)
    if not text.isdecimal() or not 1 <= int(text) <= 65535:
        problems.append(Problem(host.file, ("hosts", host.name, "ansible_port"), f"is {quoted(value)}. Allowed: a number from 1 to 65535."))
        return 22
    return int(text)


def _twice(nodes: list[Node]) -> Iterable[Problem]:
    owners: dict[IPv4Address, list[Node]] = defaultdict(list)
    short: dict[str, list[Node]] = defaultdict(list)
    for node in nodes:
        owners[node.address].append(node)
        short[node.name.split(".")[0]].append(node)
    for address, several in owners.items():
        if len(several) > 1:
            text = f"is {address}, the address of {listed(node.name for node in several)}. Addresses are unique: correct all but one."
            yield Problem(several[1].file, ("hosts", several[1].name, "node_address"), text)
    for name, several in short.items():
        if len(several) > 1:
            others = listed(node.name for node in several if node is not several[1])
            text = f"has the same first label as {others}: both hosts would call themselves {name}. Rename one."
            yield Problem(several[1].file, ("hosts", several[1].name), text)


def _is_ipv6(text: str) -> bool:
    try:
        IPv6Address(text.strip("[]").split("/")[0])
    except AddressValueError:
        return False
    return True
