# SPDX-License-Identifier: Apache-2.0
"""Reads the catalogue that consul-template writes.

`{"services": [{"service", "id", "node", "address", "port", "status", "meta": {...}, "created"?}], "unreadable": [names]}`: instances whose metadata ask
for a route, and services whose name nothing can ask Consul for.
"""

from __future__ import annotations

import ipaddress
import json
from typing import Any

from .model import Claim, EdgeError, Refusal, shown
from .routes import NAMES

KEYS = ("route-host", "route-path", "route-tcp-port", "route-protocol", "route-login", "route-rate", "route-check")


def read(text: str) -> tuple[list[Claim], list[Refusal]]:
    """Claims in the catalogue's order, and what is no claim although it asks. EdgeError when the whole is not a catalogue."""
    try:
        whole = json.loads(text)
        instances = whole["services"]
        unreadable = whole.get("unreadable") or []
        if not isinstance(instances, list) or not isinstance(unreadable, list):
            raise TypeError("services and unreadable must be lists")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise EdgeError(f"the catalogue is not readable ({type(error).__name__}: {error}); the edge keeps what it has") from None
    claims: list[Claim] = []
    refusals = [Refusal(str(name), "the whole service", NAMES) for name in unreadable]
    for raw in instances:
        claim = _claim(raw, refusals)
        if claim is not None:
            claims.append(claim)
    return claims, refusals


def _claim(raw: Any, refusals: list[Refusal]) -> Any:
    if not isinstance(raw, dict) or not isinstance(raw.get("service"), str) or not isinstance(raw.get("meta"), dict):
        refusals.append(Refusal("?", "an instance", f"an entry of the catalogue has no service and metadata: {shown(raw)}"))
        return None
    meta = {key: raw["meta"][key] for key in KEYS if raw["meta"].get(key) not in (None, "")}
    if not ("route-host" in meta or "route-tcp-port" in meta):
        return None
    service, instance = raw["service"], str(raw.get("id") or "")
    what = f"instance {shown(instance)}"
    for key, value in meta.items():
        if not isinstance(value, str):
            refusals.append(Refusal(service, what, f"{key} must be a text, found {shown(value)}"))
            return None
    port, address = raw.get("port"), raw.get("address")
    if not isinstance(port, int) or isinstance(port, bool) or not 1 <= port <= 65535:
        refusals.append(Refusal(service, what, f"its port is {shown(port)}; it must be registered with a port from 1 to 65535"))
        return None
    try:
        canonical = str(ipaddress.ip_address(address if isinstance(address, str) else ""))
    except ValueError:
        refusals.append(Refusal(service, what, f"its address is {shown(address)}; it must be registered with an IP address"))
        return None
    created = raw.get("created")
    passing = raw.get("status") in ("passing", "warning")
    return Claim(service, instance, canonical, port, passing, meta, created if isinstance(created, int) else None)
