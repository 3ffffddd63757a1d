# SPDX-License-Identifier: Apache-2.0
"""What an agent registers of its own node: ports that somebody else may reach, with their checks and routes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template

ROLE = Path(__file__).parents[3] / "roles" / "consul"


def services(ports: list[dict[str, Any]], health: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    variables = {**yaml.safe_load((ROLE / "defaults/main.yml").read_text()), **yaml.safe_load((ROLE / "vars/main.yml").read_text())}
    variables |= {"node_ports": ports, "node_health": health, "node_address": "192.0.2.1", "site_domain": "prod.example.com"}
    variables["network_kinds"] = {"containers": ["pods"], "virtual": []}
    text = (ROLE / "templates/etc/consul/services.json.j2").read_text()
    made = Templar(loader=DataLoader(), variables=variables).template(trust_as_template(text))
    return {entry["id"]: entry for entry in (json.loads(made) if isinstance(made, str) else made)["services"]}


def port(component: str, number: int | str, **more: Any) -> dict[str, Any]:
    return {"component": component, "name": "main", "port": number, "protocol": "tcp", "from": ["nodes"], **more}


def test_a_port_is_registered_under_its_component_with_its_checks() -> None:
    made = services([port("metrics_server", 9000)], [{"component": "metrics_server", "name": "it runs", "unit": "metrics.service"}])
    [entry] = made.values()
    assert (entry["name"], entry["tags"], entry["port"]) == ("metrics-server", ["main"], 9000)
    assert [check.get("tcp") or check["args"] for check in entry["checks"]] == ["192.0.2.1:9000", ["/usr/bin/systemctl", "is-active", "metrics.service"]]
    assert "meta" not in entry


def test_a_route_is_its_metadata_and_its_check_speaks_tls() -> None:
    route = {"host": trust_as_template("portal.{{ site_domain }}"), "path": "/", "protocol": "https"}
    health = [{"component": name, "name": "it runs", "unit": f"{name}.service"} for name in ("portal", "plain")]
    made = services([port("portal", 9443, route=route), port("plain", 9444, route={"host": "plain.example.com"})], health)
    assert made["portal-main"]["meta"] == {"route-host": "portal.prod.example.com", "route-path": "/", "route-protocol": "https"}
    assert made["plain-main"]["meta"] == {"route-host": "plain.example.com"}
    assert [made[name]["checks"][0].get("tcp_use_tls", False) for name in ("portal-main", "plain-main")] == [True, False]


def test_what_nobody_watches_or_only_pods_reach_is_no_service() -> None:
    ports = [port("unwatched", 1), port("pods_only", 2, **{"from": ["pods"]}), port("ranged", "3-4"), port("datagrams", 5, protocol="udp")]
    health = [{"component": name, "name": "it runs", "unit": "x.service"} for name in ("pods_only", "ranged", "datagrams")]
    assert services(ports, health) == {}
