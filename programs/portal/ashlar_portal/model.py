# SPDX-License-Identifier: Apache-2.0
"""What the portal knows of the site before it has asked anybody, and how it is told to work. Both are files that the role renders."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


class PortalError(Exception):
    """Something cannot be done; the message says what, where, and what to do."""


@dataclass(frozen=True)
class Node:
    """A machine of the site."""

    name: str
    address: str
    classes: tuple[str, ...] = ()
    zone: str = ""


@dataclass(frozen=True)
class Component:
    """One component of the stack: `metrics` when Prometheus reads figures of it, `units` its systemd units, `service` whether anything of it runs."""

    name: str
    layer: str
    description: str = ""
    version: str = ""
    nodes: tuple[str, ...] = ()
    units: tuple[str, ...] = ()
    metrics: bool = False
    service: bool = True


@dataclass(frozen=True)
class Link:
    """Something a person may want to open."""

    name: str
    url: str
    description: str = ""


@dataclass(frozen=True)
class Site:
    """/etc/portal/site.json: `layers` are names in the order they go down in; the components of each are in `components`."""

    name: str
    domain: str
    stack: str
    release: str
    nodes: tuple[Node, ...] = ()
    layers: tuple[str, ...] = ()
    components: tuple[Component, ...] = ()
    links: tuple[Link, ...] = ()

    def node(self, name: str) -> Node | None:
        """The node of that name."""
        return next((node for node in self.nodes if node.name == name), None)

    def has(self, component: str) -> bool:
        """Whether the site has a component."""
        return any(one.name == component for one in self.components)


@dataclass(frozen=True)
class Settings:
    """/etc/portal/portal.json. URLs are those of replicas, in the order they are asked in; an empty list: the site has no such thing."""

    address: str
    port: int
    name: str
    certificate: str
    key: str
    authority: str
    client_certificate: str
    client_key: str
    prometheus: tuple[str, ...] = ()
    alertmanager: tuple[str, ...] = ()
    logs: tuple[str, ...] = ()
    consul: dict[str, str] = field(default_factory=dict)
    proxies: frozenset[str] = frozenset()
    peers: tuple[str, ...] = ()
    session_hours: float = 12
    attempts_per_address: int = 10
    attempts_per_name: int = 10
    attempts_window_seconds: int = 300
    refresh_seconds: int = 15
    timeout_seconds: float = 2.0


@dataclass(frozen=True)
class Secrets:
    """/etc/portal/secrets.json: the key that signs sessions, hashes of passwords by name, and the token for Consul."""

    session_key: bytes
    logins: dict[str, str]
    consul_token: str = ""

    def __repr__(self) -> str:
        return f"Secrets(logins={sorted(self.logins)})"


def _read(path: str) -> dict[str, Any]:
    try:
        whole = json.loads(Path(path).read_text())
    except (OSError, ValueError) as error:
        raise PortalError(f"{path} can't be read ({error}); site.yml lays it down again.") from None
    if not isinstance(whole, dict):
        raise PortalError(f"{path} must hold an object; site.yml lays it down again.")
    return whole


def read_settings(path: str) -> Settings:
    """:raises PortalError: when the file is missing, no JSON, or has settings that this program does not know."""
    raw = _read(path)
    for name in ("prometheus", "alertmanager", "logs", "peers"):
        raw[name] = tuple(raw.get(name) or ())
    raw["proxies"] = frozenset(raw.get("proxies") or ())
    try:
        return Settings(**raw)
    except TypeError as error:
        raise PortalError(f"{path} does not fit this program ({error}); site.yml lays it down again.") from None


def read_secrets(path: str) -> Secrets:
    """:raises PortalError: when the file is missing or lacks the key."""
    raw = _read(path)
    key = str(raw.get("session_key") or "")
    if len(key) < 32:
        raise PortalError(f"{path} has no session_key of 32 characters or more; site.yml lays it down again.")
    logins = {str(name): str(value) for name, value in dict(raw.get("logins") or {}).items()}
    return Secrets(key.encode(), logins, str(raw.get("consul_token") or "").strip())


def read_site(path: str) -> Site:
    """:raises PortalError: when the file is missing or not of this shape."""
    raw = _read(path)
    try:
        nodes = tuple(Node(one["name"], one["address"], tuple(one.get("classes") or ()), one.get("zone") or "") for one in raw["nodes"])
        components = tuple(
            Component(
                name=one["name"],
                layer=layer["name"],
                description=one.get("description") or "",
                version=one.get("version") or "",
                nodes=tuple(one.get("nodes") or ()),
                units=tuple(one.get("units") or ()),
                metrics=bool(one.get("metrics")),
                service=bool(one.get("service")),
            )
            for layer in raw["layers"]
            for one in layer["components"]
        )
        links = tuple(Link(one["name"], one["url"], one.get("description") or "") for one in raw.get("links") or ())
        layers = tuple(layer["name"] for layer in raw["layers"])
        return Site(raw["name"], raw["domain"], raw["stack"], str(raw["release"]), nodes, layers, components, links)
    except (KeyError, TypeError, AttributeError) as error:
        raise PortalError(f"{path} is not the site as this program expects it ({error!r}); site.yml lays it down again.") from None
