# SPDX-License-Identifier: Apache-2.0
"""Decides which routes are granted. A bad one costs itself alone."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from .model import PROTOCOLS, Backend, Claim, Endpoint, Refusal, Settings, shown

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
# Fewer characters than RFC 3986 allows: none that a shell, a template, a map file or a regular expression reads as its own.
SEGMENT = re.compile(r"[A-Za-z0-9._~@:+=-]+")
NUMBER = re.compile(r"[0-9]{1,9}")
NAMES = "its name must be of 1 to 128 letters, digits, '.', '_' and '-'; register it under another one"
HOST_LIMIT, PATH_LIMIT, HOSTS_LIMIT = 253, 255, 64
# Service names -> service -> smallest create index, for those that are known.
Created = Callable[[Iterable[str]], Mapping[str, int]]


@dataclass(frozen=True)
class Decision:
    """The backends that are granted, by name; the refusals; who owns what ("host/path", "tcp:port" -> service)."""

    backends: tuple[Backend, ...]
    refusals: tuple[Refusal, ...]
    owners: Mapping[str, str]


@dataclass
class _Group:
    """What the instances of one service ask for under one path, or one port."""

    service: str
    kind: str
    path: str
    port: int
    hosts: set[str] = field(default_factory=set)
    claims: list[Claim] = field(default_factory=list)
    protocols: dict[str, int] = field(default_factory=dict)
    login: bool = False
    rate: int = 0
    checks: set[str] = field(default_factory=set)
    members: list[tuple[Claim, str]] = field(default_factory=list)

    @property
    def name(self) -> str:
        where = self.path if self.kind == "http" else str(self.port)
        digest = hashlib.sha256(f"{self.service}\n{self.kind}\n{where}".encode()).hexdigest()[:10]
        return f"{self.kind}_{re.sub('[^A-Za-z0-9]', '_', self.service)[:40]}_{digest}"


def host_problem(host: str) -> str:
    """Why a text is no host name of a route (RFC 1123, or `*.` before one); "" when it is."""
    if len(host) > HOST_LIMIT:
        return f"a host name has at most {HOST_LIMIT} characters"
    bare = host[2:] if host.startswith("*.") else host
    labels = bare.split(".")
    if not all(LABEL.fullmatch(label) for label in labels):
        return "a host name is made of labels of 1 to 63 letters, digits and '-', joined by dots (RFC 1123); '*.' may stand before it"
    if labels[-1].isdigit():
        return "an address is no host name"
    if host.startswith("*.") and len(labels) < 2:
        return "a wildcard needs a name of two labels or more behind it"
    return ""


def path_problem(path: str) -> str:
    """Why a text is no path prefix of a route; "" when it is."""
    if len(path) > PATH_LIMIT:
        return f"a path has at most {PATH_LIMIT} characters"
    if not path.startswith("/"):
        return "a path begins with '/'"
    for segment in path.strip("/").split("/") if path.strip("/") else []:
        if segment in (".", ".."):
            return "'.' and '..' are no parts of a path"
        if not SEGMENT.fullmatch(segment):
            return "a path is made of letters, digits and . _ ~ @ : + = - between single slashes"
    if "//" in path:
        return "a path is made of letters, digits and . _ ~ @ : + = - between single slashes"
    return ""


def number(text: str, least: int, most: int) -> int | None:
    """A whole number in a range, without signs and spaces; None when it is something else."""
    return int(text) if NUMBER.fullmatch(text) and least <= int(text) <= most else None


def decide(
    claims: Sequence[Claim],
    settings: Settings,
    owners: Mapping[str, str],
    created: Created,
    busy: frozenset[int] = frozenset(),
    banned: Mapping[str, str] = {},
    former: Mapping[str, str] = {},
) -> Decision:
    """Grant what may be granted.

    `owners` is who owned a route before and keeps it while it asks, but for who owned it before that one (`former`) and asks for it again; among
    newcomers the smallest create index wins. A host that a service of the
    site's own asks for is that one's under every path: whoever had a part of it would be taken for it. `busy` are TCP ports that other programs
    listen on; `banned` names backends that HAProxy did not take, with its reason.
    """
    refusals: dict[tuple[str, str, str], Refusal] = {}

    def refuse(service: str, route: str, reason: str) -> None:
        refusals.setdefault((service, route, reason), Refusal(service, route, reason))

    groups: dict[tuple[str, str, str], _Group] = {}
    for claim in claims:
        if not NAME.fullmatch(claim.service):
            refuse(claim.service, "the whole service", NAMES)
        elif "route-tcp-port" in claim.meta:
            _tcp(claim, settings, busy, groups, refuse)
        else:
            _http(claim, groups, refuse)

    wanted = {key: group for key, group in groups.items() if group.name not in banned}
    for _key, group in groups.items():
        if group.name in banned:
            refuse(group.service, _label(group), f"HAProxy does not take it: {banned[group.name]}")
    kept, granted = _owned(wanted, owners, former, created, frozenset(settings.host_services), refuse)
    backends = [_backend(group, kept[key], settings, refuse) for key, group in wanted.items() if key in kept]
    backends.sort(key=lambda backend: backend.name)
    count = 0
    taken: list[Backend] = []
    for backend in sorted(backends, key=lambda one: (granted[_first(one)][1], one.name)):
        count += max(1, len(backend.hosts))
        if count > settings.max_routes:
            refuse(
                backend.service,
                _where(backend),
                f"the edge carries at most {settings.max_routes} routes (haproxy_routes_max), and older ones come first",
            )
        else:
            taken.append(backend)
    taken.sort(key=lambda backend: backend.name)
    names = {backend.name for backend in taken}
    final = {key: service for key, (service, _, name) in granted.items() if name in names}
    return Decision(tuple(taken), tuple(refusals[key] for key in sorted(refusals)), final)


def _tcp(
    claim: Claim,
    settings: Settings,
    busy: frozenset[int],
    groups: dict[tuple[str, str, str], _Group],
    refuse: Callable[[str, str, str], None],
) -> None:
    text = claim.meta["route-tcp-port"]
    first, last = settings.tcp_ports
    port = number(text, max(1024, first), min(65535, last))
    label = f"TCP port {shown(text)}"
    if "route-host" in claim.meta:
        refuse(claim.service, label, "a route is by route-host or by route-tcp-port, not by both; take one of them away")
    elif port is None:
        refuse(claim.service, label, f"route-tcp-port must be a number from {first} to {last} (haproxy_tcp_ports)")
    elif port in busy:
        refuse(claim.service, label, "another program of the edge's host listens there; choose another port")
    else:
        key = (claim.service, "tcp", str(port))
        groups.setdefault(key, _Group(claim.service, "tcp", "", port)).members.append((claim, "tcp"))
        groups[key].claims.append(claim)


def _http(claim: Claim, groups: dict[tuple[str, str, str], _Group], refuse: Callable[[str, str, str], None]) -> None:
    path = claim.meta.get("route-path", "/").strip()
    problem = path_problem(path)
    if problem:
        refuse(claim.service, f"path {shown(path)}", problem)
        return
    path = path.rstrip("/") or "/"
    protocol = claim.meta.get("route-protocol", "http").strip()
    if protocol not in PROTOCOLS:
        refuse(claim.service, f"path {shown(path)}", f"route-protocol is {shown(protocol)}; allowed are {', '.join(PROTOCOLS)}")
        return
    login = claim.meta.get("route-login", "false").strip().lower()
    if login not in ("true", "false"):
        refuse(claim.service, f"path {shown(path)}", f"route-login is {shown(login)}; allowed are true and false")
        return
    rate = number(claim.meta.get("route-rate", "0").strip(), 0 if "route-rate" not in claim.meta else 1, 1_000_000)
    if rate is None:
        refuse(
            claim.service, f"path {shown(path)}", f"route-rate is {shown(claim.meta['route-rate'])}; it must be a number from 1 to 1000000"
        )
        return
    check = claim.meta.get("route-check", "").strip()
    if check and path_problem(check):
        refuse(claim.service, f"path {shown(path)}", f"route-check is {shown(check)}: {path_problem(check)}")
        return
    texts = claim.meta["route-host"].split(",")
    if len(texts) > HOSTS_LIMIT:
        refuse(claim.service, f"{len(texts)} hosts", f"route-host names at most {HOSTS_LIMIT} hosts; use a wildcard, or several services")
        return
    hosts: list[str] = []
    for text in texts:
        host = text.strip().lower()
        host = host[:-1] if host.endswith(".") else host
        problem = host_problem(host)
        if problem:
            refuse(claim.service, f"host {shown(text.strip())}", problem)
        else:
            hosts.append(host)
    if not hosts:
        return
    group = groups.setdefault((claim.service, "http", path), _Group(claim.service, "http", path, 0))
    group.hosts.update(hosts)
    group.claims.append(claim)
    group.members.append((claim, protocol))
    group.protocols[protocol] = group.protocols.get(protocol, 0) + 1
    group.login = group.login or login == "true"
    group.rate = min(rate, group.rate) if rate and group.rate else rate or group.rate
    if check:
        group.checks.add(check)


def _label(group: _Group) -> str:
    return f"TCP port {group.port}" if group.kind == "tcp" else f"{', '.join(sorted(group.hosts)[:3])}{group.path}"


def _where(backend: Backend) -> str:
    return f"TCP port {backend.port}" if backend.kind == "tcp" else f"{', '.join(backend.hosts[:3])}{backend.path}"


def route_keys(kind: str, hosts: Iterable[str], path: str, port: int) -> list[str]:
    """What is owned: "host/path" for each host, or "tcp:port"."""
    return [f"tcp:{port}"] if kind == "tcp" else [f"{host}{path}" for host in sorted(hosts)]


def _first(backend: Backend) -> str:
    return route_keys(backend.kind, backend.hosts, backend.path, backend.port)[0]


Key = tuple[str, str, str]


def _owned(
    groups: Mapping[Key, _Group],
    owners: Mapping[str, str],
    former: Mapping[str, str],
    created: Created,
    own: frozenset[str],
    refuse: Callable[[str, str, str], None],
) -> tuple[dict[Key, set[str]], dict[str, tuple[str, int, str]]]:
    """Settle who owns each route. Returns group -> its hosts that it owns, and route -> (service, create index or a stand-in, backend)."""
    asked: dict[str, list[Key]] = {}
    reserved = {host: group.service for group in groups.values() if group.service in own for host in group.hosts}
    for key, group in groups.items():
        for route in route_keys(group.kind, group.hosts, group.path, group.port):
            holder = reserved.get(route.partition("/")[0])
            if holder and group.service not in own:
                refuse(group.service, route, f"the host belongs to the site's own service {shown(holder)}; choose another one")
                continue
            asked.setdefault(route, []).append(key)
    index: dict[str, int] = {}
    for group in groups.values():
        known = [claim.created for claim in group.claims if claim.created is not None]
        if known:
            index[group.service] = min([*known, index.get(group.service, known[0])])
    contested = {
        key[0] for route, keys in asked.items() if len(keys) > 1 and not {owners.get(route), former.get(route)} & {key[0] for key in keys} for key in keys
    }
    unknown = contested - set(index)
    if unknown:
        index.update(created(sorted(unknown)))
    kept: dict[Key, set[str]] = {}
    granted: dict[str, tuple[str, int, str]] = {}
    last = 1 << 62
    for route, keys in asked.items():
        owner = former[route] if former.get(route) in {key[0] for key in keys} else owners.get(route)
        keys = sorted(keys, key=lambda key: (key[0] != owner, index.get(key[0], last), key[0]))
        winner = keys[0]
        # Owners of before come first when there are too many routes.
        granted[route] = (winner[0], -1 if winner[0] == owner else index.get(winner[0], last), groups[winner].name)
        kept.setdefault(winner, set())
        if winner[1] == "http":
            kept[winner].add(route[: len(route) - len(winner[2])])
        for loser in keys[1:]:
            label, other = (f"TCP port {loser[2]}", "port") if loser[1] == "tcp" else (route, "host or path")
            refuse(loser[0], label, f"it belongs to service {shown(winner[0])}, which was there first; choose another {other}")
    return kept, granted


def _backend(group: _Group, hosts: set[str], settings: Settings, refuse: Callable[[str, str, str], None]) -> Backend:
    protocol = "tcp"
    if group.kind == "http":
        oldest = min(group.members, key=lambda one: (one[0].created if one[0].created is not None else 1 << 62, one[0].instance))
        protocol = oldest[1]
        if len(group.protocols) > 1:
            others = ", ".join(sorted(set(group.protocols) - {protocol}))
            refuse(
                group.service,
                f"its instances with protocol {others}",
                f"route-protocol must be the same for all of them; the oldest says {protocol}",
            )
    endpoints = sorted({Endpoint(claim.address, claim.port) for claim, spoken in group.members if claim.passing and spoken == protocol})
    if len(endpoints) > settings.max_instances:
        refuse(
            group.service,
            f"{len(endpoints) - settings.max_instances} of its {len(endpoints)} instances",
            f"a route has at most {settings.max_instances} instances (haproxy_instances_max)",
        )
    return Backend(
        name=group.name,
        service=group.service,
        kind=group.kind,
        hosts=tuple(sorted(hosts)),
        path=group.path or "/",
        port=group.port,
        protocol=protocol,
        login=group.login,
        rate=group.rate,
        check=min(group.checks) if group.checks else "",
        endpoints=tuple(endpoints[: settings.max_instances]),
    )
