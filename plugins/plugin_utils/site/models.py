# SPDX-License-Identifier: Apache-2.0
"""What a site is made of. Plain data; whoever makes one of these has checked it before."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

LAYERS = ("base", "runtime", "coordination", "orchestration", "network", "ingress", "storage", "observability", "management")
NETWORK_KINDS = ("containers", "virtual")
TASKS = ("removable", "leave", "drain", "resume", "stop", "forget", "precheck", "backup", "restore", "restored", "rotate")
"""Keys of `life` that name a task file of the role."""
NODE_CLASSES = ("control", "worker", "edge", "storage")
EVERY_NODE = "nodes"
"""The group of all hosts of the inventory that are nodes."""
RETIRING = "retiring"
"""The group of the nodes that a component leaves; empty as a rule."""
SITE_FOLDERS = ("credentials", "releases", "stacks", "state")
"""Folders of a site that are not inventory sources, though Ansible walks into them."""

Key = str | int
Path_ = tuple[Key, ...]


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong with a site.

    ``path`` leads into the file (keys and list indexes), ``text`` says what was found, what is allowed and what to do.
    ``file`` is empty where no file is to blame.
    """

    file: str
    path: Path_
    text: str


class SiteError(Exception):
    """The site cannot be planned. Carries every problem that was found, not only the first."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__(f"{len(problems)} problems")
        self.problems = problems


@dataclass(frozen=True, slots=True)
class Slot:
    """A job every platform needs done. ``node_class``: a class that some node must have when the slot is filled."""

    name: str
    description: str
    single: bool
    needed: str
    node_class: str | None = None


@dataclass(frozen=True, slots=True)
class Port:
    """``first`` and ``last`` are equal but for a range. ``sources``: components, networks of components, ``nodes``, ``admin`` or ``any``.

    Either may be an option's (``option``, ``sources_option``): then they are 0 and empty until ``resolve`` puts its value there.

    ``route``: host, path and protocol by which the edge serves it, as written in the manifest; empty when it doesn't.
    ``address``: the one address at which it listens, a template; empty when that is not known.
    ``published``: what comes in there is sent elsewhere, so it is known by the port that the sender addressed.
    """

    name: str
    first: int
    last: int
    protocol: str
    sources: tuple[str, ...]
    route: Mapping[str, str] = field(default_factory=dict)
    address: str = ""
    published: bool = False
    option: str = ""
    sources_option: str = ""

    @property
    def shown(self) -> int | str:
        return self.first if self.first == self.last else f"{self.first}-{self.last}"

    def overlaps(self, first: int, last: int, protocol: str) -> bool:
        """Whether a listener on ``first`` to ``last`` would be in the way."""
        return protocol == self.protocol and self.first <= last and first <= self.last


@dataclass(frozen=True, slots=True)
class NetworkSpec:
    """A network that a component takes from the site. ``kind``: ``containers`` (addresses of applications) or ``virtual`` (addresses that nobody has).

    ``node_prefix``: prefix length of a node's part of it; None when it is not divided. ``shortest`` and ``longest``: allowed prefix lengths.
    """

    kind: str
    default: str
    node_prefix: int | None
    shortest: int
    longest: int


@dataclass(frozen=True, slots=True)
class Placement:
    """On which nodes: all of ``node_class`` (``all`` for every node), at most ``most`` of them where that is set; a name is an option's."""

    node_class: str = "all"
    odd: bool = False
    most: int | str | None = None


@dataclass(frozen=True, slots=True)
class Memory:
    """What is remembered of a site: component, or group of a component's nodes -> names of the nodes that carry it; nodes that were removed; and
    component that decides by majority -> names of those of its first members that never lost their data. Others join these."""

    file: str = ""
    carriers: Mapping[str, frozenset[str]] = field(default_factory=dict)
    removed: frozenset[str] = frozenset()
    founders: Mapping[str, frozenset[str]] = field(default_factory=dict)


NOTHING = Memory()
"""What is remembered before the first run."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """roles/<name>/meta/component.yml. ``certificates``, ``health``, ``warnings``, ``failures``, ``metrics`` and ``page`` are as written
    there: their texts are templates.

    ``accepts``: what others may contribute to it, kind -> a sentence. ``contributes``: component -> kind -> name -> content, a template.
    ``groups``: some of its nodes, by a name that is a group of the inventory. ``life`` and ``plays`` are as written there.
    ``replaces``: units of the host that are stopped where no component runs them. ``domains``: DNS domains that it answers for, or options that
    name one. ``node_labels``: label of nodes -> who sets it. ``secrets``: what rotate.yml calls them -> entries as written there.
    """

    name: str
    description: str
    layer: str
    file: str
    fills: tuple[str, ...] = ()
    placement: Placement = Placement()
    requires: tuple[str, ...] = ()
    conflicts: tuple[str, ...] = ()
    ports: tuple[Port, ...] = ()
    authorities: tuple[str, ...] = ()
    certificates: tuple[Mapping[str, Any], ...] = ()
    artifacts: tuple[str, ...] = ()
    stepwise: tuple[str, ...] = ()
    kernel: tuple[str, ...] = ()
    health: tuple[Mapping[str, Any], ...] = ()
    warnings: tuple[Mapping[str, Any], ...] = ()
    failures: tuple[Mapping[str, Any], ...] = ()
    metrics: tuple[Mapping[str, Any], ...] = ()
    page: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    accepts: Mapping[str, str] = field(default_factory=dict)
    contributes: Mapping[str, Mapping[str, Mapping[str, Any]]] = field(default_factory=dict)
    limits: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    groups: Mapping[str, Placement] = field(default_factory=dict)
    life: Mapping[str, Any] = field(default_factory=dict)
    plays: tuple[Mapping[str, str], ...] = ()
    networks: Mapping[str, NetworkSpec] = field(default_factory=dict)
    domains: tuple[str, ...] = ()
    replaces: tuple[str, ...] = ()
    node_labels: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, tuple[Mapping[str, Any], ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Upgrade:
    """From the installed ``release``: artifact -> (version before, version after), own programs excepted. ``begun``: by a run that did not complete it.
    ``done``: nodes that it is done with."""

    release: str
    artifacts: Mapping[str, tuple[str, str]]
    begun: bool
    done: frozenset[str]


@dataclass(frozen=True, slots=True)
class Stack:
    """A named choice. ``planned``: what is still to come, by slot; nothing of it is installed."""

    name: str
    description: str
    file: str
    slots: Mapping[str, tuple[str, ...]]
    planned: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Release:
    """Artifact -> version, proven together."""

    name: str
    file: str
    versions: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Node:
    """A machine of the inventory. ``ssh_port`` is where Ansible reaches it."""

    name: str
    address: IPv4Address
    classes: tuple[str, ...]
    zone: str
    region: str
    labels: Mapping[str, str]
    ssh_port: int
    file: str


@dataclass(frozen=True, slots=True)
class Networks:
    """The site's IPv4 networks; ``admin`` may reach SSH and the API. ``inner``: those of components, by name."""

    admin: tuple[IPv4Network, ...]
    inner: Mapping[str, IPv4Network]


@dataclass(frozen=True, slots=True)
class Site:
    """The site file, its structure checked. ``networks``, ``slots`` and ``options`` are as written there, choices as tuples."""

    name: str
    domain: str
    stack: str
    release: str
    file: str
    directory: Path
    networks: Mapping[str, Any]
    slots: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    extras: tuple[str, ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    checksums: str = "published"
    backup: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Plan:
    """What the inventory becomes.

    ``groups``: group -> host names, a group for each component of the collection, its own groups and each node class, empty ones too.
    ``variables``: of the group ``all``. ``options``: the site file's, as Ansible read them (``!unsafe`` texts are no templates).
    ``defaults``: of the chosen components, which anything else that sets one of them
    overrides. ``hosts``: host -> its variables; hosts with the same components share the objects.
    """

    groups: Mapping[str, list[str]]
    variables: Mapping[str, Any]
    options: Mapping[str, Any]
    defaults: Mapping[str, Any]
    hosts: Mapping[str, Mapping[str, Any]]
