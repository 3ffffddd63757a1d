# SPDX-License-Identifier: Apache-2.0
"""The words of the edge: what a catalogue claims, what the edge grants, and what a HAProxy is given."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

PROTOCOLS = ("http", "https", "h2")
# What is shown of a text that somebody else wrote.
SHOWN = 60


class EdgeError(Exception):
    """What is wrong, where, and what to do, for the journal and the status."""


def shown(text: object) -> str:
    """A foreign text for a message: on one line, printable, and short."""
    whole = text if isinstance(text, str) else json.dumps(text, default=str)
    return json.dumps(whole[:SHOWN]) + (f" ... ({len(whole)} characters)" if len(whole) > SHOWN else "")


@dataclass(frozen=True)
class Settings:
    """/etc/haproxy/edge.json: where things lie, and what is allowed.

    `tcp_ports`: first and last port of TCP routes. `certificates`: file of the users' certificates, a JSON list of {hosts, certificate, key} in
    PEM. `wrong_logins`: a minute and client address, 0 for no limit. `host_services`: what the site's own components register, which nobody
    else can: they have the hosts that they ask for, whoever had them before, and their https is proved by `site_authority`, that of others by
    `backend_authority` where there is one. `consul`: {address, port, ca, certificate, key, token, server_name} for questions about create
    indexes; none: not asked.
    """

    base: str = "/etc/haproxy/base.cfg"
    home: str = "/var/lib/ashlar-edge"
    status: str = "/run/ashlar-edge/status.json"
    admin_socket: str = "/run/haproxy/admin.sock"
    master_socket: str = "/run/haproxy/master.sock"
    haproxy: str = "/usr/sbin/haproxy"
    default_certificate: str = "/etc/ashlar/pki/haproxy/default"
    operator_certificate: str = "/etc/ashlar/pki/haproxy/operator"
    certificates: str = "/etc/haproxy/certificates.json"
    bind: tuple[str, ...] = ("0.0.0.0",)
    tcp_ports: tuple[int, int] = (20000, 20999)
    max_routes: int = 2000
    max_instances: int = 256
    min_slots: int = 16
    rate: int = 500
    wrong_logins: int = 10
    reload_interval_ms: int = 1000
    drain_seconds: int = 30
    check_interval_ms: int = 1000
    server_max_connections: int = 0
    backend_authority: str = ""
    site_authority: str = "/etc/ashlar/pki/ca/site.crt"
    host_services: tuple[str, ...] = ()
    consul: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str, where: str) -> Settings:
        """From JSON; EdgeError names the option that is not known or of another type."""
        try:
            values = json.loads(text)
        except ValueError as error:
            raise EdgeError(f"{where} is not JSON ({error}); lay it down again with site.yml") from None
        known = dict(cls.__dataclass_fields__.items())
        if not isinstance(values, dict):
            raise EdgeError(f"{where} must hold one JSON object; lay it down again with site.yml")
        taken: dict[str, Any] = {}
        for name, value in values.items():
            if name not in known:
                raise EdgeError(f"{where}: unknown option {shown(name)}; known are {', '.join(sorted(known))}")
            taken[name] = tuple(value) if isinstance(value, list) else value
        return cls(**taken)


@dataclass(frozen=True)
class Claim:
    """One instance of a service that asks for a route: the texts of its metadata, unchecked."""

    service: str
    instance: str
    address: str
    port: int
    passing: bool
    meta: Mapping[str, str]
    created: int | None = None


@dataclass(frozen=True)
class Refusal:
    """A route that is not granted, and why."""

    service: str
    route: str
    reason: str

    def text(self) -> str:
        return f"route refused: service {shown(self.service)}, {self.route}: {self.reason}"


@dataclass(frozen=True, order=True)
class Endpoint:
    """Where an instance listens."""

    address: str
    port: int


@dataclass(frozen=True)
class Backend:
    """What one service serves under one path (or one TCP port), with the names it is reached by. `rate` 0: the site's."""

    name: str
    service: str
    kind: str
    hosts: tuple[str, ...] = ()
    path: str = "/"
    port: int = 0
    protocol: str = "http"
    login: bool = False
    rate: int = 0
    check: str = ""
    endpoints: tuple[Endpoint, ...] = ()


@dataclass(frozen=True)
class Certificate:
    """A certificate that may be used: its names for SNI (none: the default one) and certificate, chain and key as one PEM text."""

    name: str
    hosts: tuple[str, ...]
    pem: str


@dataclass(frozen=True)
class Slot:
    """One server line of a backend. `state`: up, drain (no new requests; may finish those it has), free."""

    endpoint: Endpoint | None = None
    state: str = "free"
    since: float = 0.0


@dataclass(frozen=True)
class State:
    """What the edge remembers: who owns a route ("host/path" or "tcp:port" -> service), who owned it before and since when not (seconds since
    the epoch), slots by backend, its TCP ports."""

    owners: Mapping[str, str] = field(default_factory=dict)
    former: Mapping[str, tuple[str, float]] = field(default_factory=dict)
    slots: Mapping[str, tuple[Slot, ...]] = field(default_factory=dict)
    ports: tuple[int, ...] = ()

    def text(self) -> str:
        def told(slot: Slot) -> dict[str, Any] | None:
            return {**vars(slot.endpoint), "state": slot.state, "since": slot.since} if slot.endpoint else None

        slots = {name: [told(slot) for slot in all_] for name, all_ in self.slots.items()}
        former = {route: list(one) for route, one in self.former.items()}
        return json.dumps({"owners": dict(self.owners), "former": former, "slots": slots, "ports": list(self.ports)}, indent=1, sort_keys=True) + "\n"

    @classmethod
    def parse(cls, text: str) -> State:
        """From JSON; what can't be read is forgotten, for all of it can be found again."""
        try:
            values = json.loads(text)
            slots: dict[str, tuple[Slot, ...]] = {}
            for name, all_ in values["slots"].items():
                made: list[Slot] = []
                for one in all_:
                    made.append(
                        Slot(Endpoint(str(one["address"]), int(one["port"])), str(one["state"]), float(one["since"])) if one else Slot()
                    )
                slots[str(name)] = tuple(made)
            owners = {str(key): str(value) for key, value in values["owners"].items()}
            former = {str(key): (str(service), float(since)) for key, (service, since) in values.get("former", {}).items()}
            return cls(owners, former, slots, tuple(int(port) for port in values["ports"]))
        except (ValueError, KeyError, TypeError, AttributeError):
            return cls()
