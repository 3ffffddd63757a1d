# SPDX-License-Identifier: Apache-2.0
"""What is in a project of an OpenStack, asked of its APIs and of nothing of ours."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

LIMIT_SECONDS = 60
LISTS = {
    "servers": ("compute", "/servers/detail"),
    "server_groups": ("compute", "/os-server-groups"),
    "keypairs": ("compute", "/os-keypairs"),
    "networks": ("network", "/v2.0/networks"),
    "subnets": ("network", "/v2.0/subnets"),
    "routers": ("network", "/v2.0/routers"),
    "ports": ("network", "/v2.0/ports"),
    "floatingips": ("network", "/v2.0/floatingips"),
    "security_groups": ("network", "/v2.0/security-groups"),
    "volumes": ("volumev3", "/volumes/detail"),
}


@dataclass(frozen=True)
class Api:
    """A token, the project it is for, and the addresses of its services."""

    token: str
    project: str
    addresses: Mapping[str, str]

    @classmethod
    def login(cls, auth: Mapping[str, str]) -> Api:
        """By the password of a clouds.yaml."""
        domain = {"id": "default"}
        user = {"name": auth["username"], "password": auth["password"], "domain": domain}
        scope = {"project": {"name": auth["project_name"], "domain": domain}}
        body = {"auth": {"identity": {"methods": ["password"], "password": {"user": user}}, "scope": scope}}
        with _asked(f"{auth['auth_url']}/auth/tokens", {}, body) as answer:
            token = json.load(answer)["token"]
            addresses = {entry["type"]: point["url"] for entry in token["catalog"] for point in entry["endpoints"] if point["interface"] == "public"}
            return cls(answer.headers["X-Subject-Token"], token["project"]["id"], addresses)

    def list(self, what: str) -> list[dict[str, Any]]:
        """What the project has of a kind; not what is shared with it, nor the security group that every project is born with."""
        service, path = LISTS[what]
        with _asked(self.addresses[service].rstrip("/") + path, {"X-Auth-Token": self.token}) as answer:
            found = json.load(answer)[what]
        own = [one for one in found if one.get("project_id", one.get("tenant_id", self.project)) == self.project]
        return [one for one in own if not (what == "security_groups" and one["name"] == "default")]


def _asked(url: str, headers: Mapping[str, str], body: Any = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json", "Accept": "application/json", **headers})
    # No proxy of this machine is asked for a cloud that is on it.
    return urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=LIMIT_SECONDS)
