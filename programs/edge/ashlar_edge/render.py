# SPDX-License-Identifier: Apache-2.0
"""Writes what HAProxy reads: one configuration, maps, certificates. Pure: texts in, texts out.

Nothing that somebody else wrote gets here unchecked: names are made of digests, hosts, paths and addresses passed `routes`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .model import Backend, Certificate, Settings, Slot

CONFIGURATION = "haproxy.cfg"
HOSTS, ROUTES = "hosts.map", "routes.map"
CERTIFICATES = "certificates.list"
DEFAULT, OPERATOR = "default", "operator"
# In the base configuration: the folder that all files lie in, and what the running process says it was started with.
FOLDER, STRUCTURE = "@folder@", "@structure@"
NOWHERE = "127.0.0.1:1"


@dataclass(frozen=True)
class Rendered:
    """Files by name, below any folder (the text names it `@folder@`), and the digest of all that needs a reload when it changes."""

    files: Mapping[str, str]
    structure: str

    def at(self, folder: str) -> dict[str, str]:
        """Files as they are written into a folder."""
        return {name: text.replace(FOLDER, folder).replace(STRUCTURE, self.structure) for name, text in self.files.items()}


def render(
    base: str, backends: Sequence[Backend], slots: Mapping[str, Sequence[Slot]], certificates: Sequence[Certificate], settings: Settings
) -> Rendered:
    """Everything of one state of the edge. `base` is the configuration that the role laid down; of certificates those without hosts are named
    in it, or are the default."""
    files = {
        HOSTS: lines(hosts_map(backends)),
        ROUTES: lines(routes_map(backends)),
        CERTIFICATES: certificate_list(certificates),
        **{f"{one.name}.pem": one.pem for one in certificates},
    }
    structural = [base, files[CERTIFICATES], *(files[name] for name in sorted(files) if name.endswith(".pem"))]
    parts, shape = [base.rstrip("\n") + "\n"], []
    for backend in backends:
        made = slots[backend.name]
        parts.append(section(backend, made, settings))
        shape.append(section(backend, [Slot()] * len(made), settings))
    files[CONFIGURATION] = "\n".join(parts)
    digest = hashlib.sha256("\0".join([*structural, *shape]).encode()).hexdigest()[:32]
    return Rendered(files, digest)


def lines(table: Mapping[str, str]) -> str:
    """A map as HAProxy reads it: key and value, a space between."""
    return "".join(f"{key} {value}\n" for key, value in sorted(table.items()))


def hosts_map(backends: Sequence[Backend]) -> dict[str, str]:
    """Host, or wildcard as `*.rest` -> 1: what belongs to the edge by its name."""
    return {host: "1" for backend in backends for host in backend.hosts}


def routes_map(backends: Sequence[Backend]) -> dict[str, str]:
    """`host/path/` -> backend. Every key ends with a slash, and so does what is looked up: /foo is no prefix of /foobar."""
    return {
        host + (backend.path if backend.path == "/" else backend.path + "/"): backend.name for backend in backends for host in backend.hosts
    }


def certificate_list(certificates: Sequence[Certificate]) -> str:
    """HAProxy's crt-list: the first is the default; names are explicit, whatever the certificates themselves say."""
    listed = [f"{FOLDER}/{DEFAULT}.pem"]
    listed += [f"{FOLDER}/{one.name}.pem {' '.join(one.hosts)}" for one in certificates if one.hosts]
    return "\n".join(listed) + "\n"


def section(backend: Backend, slots: Sequence[Slot], settings: Settings) -> str:
    """A backend, and of a TCP route its frontend."""
    return "\n".join(_tcp(backend, slots, settings) if backend.kind == "tcp" else _http(backend, slots, settings)) + "\n"


def _server(number: int, slot: Slot, options: str) -> str:
    if slot.endpoint is None:
        return f"  server s{number} {NOWHERE} disabled{options}"
    address = f"[{slot.endpoint.address}]" if ":" in slot.endpoint.address else slot.endpoint.address
    return f"  server s{number} {address}:{slot.endpoint.port}{'' if slot.state == 'up' else ' disabled'}{options}"


def _checks(settings: Settings) -> str:
    limit = f" maxconn {settings.server_max_connections}" if settings.server_max_connections else ""
    return (
        f"  default-server check inter {settings.check_interval_ms} fastinter {max(50, settings.check_interval_ms // 5)} "
        f"downinter {settings.check_interval_ms} fall 3 rise 1 observe layer4 error-limit 3 on-error sudden-death tcp-ut 3s{limit}"
    )


def _http(backend: Backend, slots: Sequence[Slot], settings: Settings) -> list[str]:
    made = [f"backend {backend.name}", "  mode http", "  balance leastconn"]
    if backend.login:
        if settings.wrong_logins:
            # Before anything is compared: who tries on and on learns nothing, and costs nothing.
            made.append(
                '  http-request return status 429 content-type text/plain hdr Retry-After 60 string "Too many wrong logins; try again in a minute." '
                f"if {{ sc_gpc0_rate(0) ge {settings.wrong_logins} }}"
            )
        made.append("  http-request set-var(txn.login) bool(true) if { http_auth(administrators) }")
        made.append("  http-request sc-inc-gpc0(0) if { req.hdr(Authorization) -m found } !{ var(txn.login) -m found }")
        made.append('  http-request auth realm "administration" unless { var(txn.login) -m found }')
        # The edge has asked; the application need not learn the password.
        made.append("  http-request del-header Authorization")
    if backend.rate:
        made.append("  stick-table type ipv6 size 100k expire 30s store http_req_rate(10s)")
        made.append("  http-request track-sc1 src")
        made.append(f"  http-request deny deny_status 429 if {{ sc_http_req_rate(1) gt {backend.rate * 10} }}")
    elif settings.rate:
        made.append(f"  http-request deny deny_status 429 if {{ sc_http_req_rate(0) gt {settings.rate * 10} }}")
    # Only what may be sent twice is (RFC 9110, 9.2.2); a connection that was refused is tried again for every request.
    made.append("  http-request disable-l7-retry unless { method GET HEAD OPTIONS TRACE PUT DELETE }")
    if backend.check:
        made.append("  option httpchk")
        made.append(
            f"  http-check send meth GET uri {backend.check} ver HTTP/1.1 hdr Host {backend.hosts[0].lstrip('*.') if backend.hosts else 'localhost'}"
        )
        made.append("  http-check expect rstatus ^[23]")
    made.append(_checks(settings))
    authority = settings.site_authority if backend.service in settings.host_services else settings.backend_authority
    # With `sni` the certificate must be good for the name that was asked for, too.
    verify = f"verify required ca-file {authority}" if authority else "verify none"
    options = {"http": "", "h2": " proto h2", "https": f" ssl {verify} sni var(txn.host) alpn h2,http/1.1"}[backend.protocol]
    if backend.protocol == "h2" and backend.check:
        options += " check-proto h2"
    return made + [_server(number, slot, options) for number, slot in enumerate(slots, 1)]


def _tcp(backend: Backend, slots: Sequence[Slot], settings: Settings) -> list[str]:
    made = [f"frontend {backend.name}", "  mode tcp", *(f"  bind {address}:{backend.port}" for address in settings.bind)]
    made += [
        "  option tcplog",
        "  tcp-request connection track-sc0 src table clients",
        "  tcp-request connection reject if { sc_conn_cur(0) gt 1000 }",
    ]
    made += [f"  default_backend {backend.name}", "", f"backend {backend.name}", "  mode tcp", "  balance leastconn", _checks(settings)]
    return made + [_server(number, slot, " on-marked-down shutdown-sessions") for number, slot in enumerate(slots, 1)]


def tcp_ports(backends: Sequence[Backend]) -> tuple[int, ...]:
    """The ports of TCP routes."""
    return tuple(sorted(backend.port for backend in backends if backend.kind == "tcp"))
