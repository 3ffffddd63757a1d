# SPDX-License-Identifier: Apache-2.0
"""A port of a manifest that the edge serves: its route is its node's to register, and one that can't work is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar
from ansible_collections.ashlar.stack.plugins.plugin_utils.site.catalogue import load
from ansible_collections.ashlar.stack.plugins.plugin_utils.site.models import SiteError
from sites import inventory_of, write_collection, write_site

ROUTE = {"host": "portal.{{ site_domain }}", "path": "/", "protocol": "https"}
PORT = {"name": "https", "port": 9443, "from": ["kubernetes_node", "admin"], "route": ROUTE}
HEALTH = [{"name": "the portal runs", "unit": "portal.service"}]


def collection_with(root: Path, port: dict[str, Any], health: list[dict[str, Any]]) -> Path:
    """The small collection and a portal."""
    write_collection(root)
    manifest = {"description": "A page about the site.", "fills": "extra", "layer": "management", "ports": [port], "health": health}
    for name, content in {"meta/component.yml": manifest, "meta/argument_specs.yml": {}, "defaults/main.yml": {}}.items():
        file = root / "roles" / "portal" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(yaml.safe_dump(content))
    return root


def test_a_route_is_known_to_the_node_of_its_port_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = collection_with(tmp_path / "collection", PORT, HEALTH)
    inventory = inventory_of(write_site(tmp_path / "site", {"extras": ["portal"]}), root, monkeypatch)
    variables, shared = inventory.hosts["node1"].vars, inventory.groups["all"].vars
    templar = Templar(loader=DataLoader(), variables={**shared, **variables})
    ports = {(port["component"], port["name"]): port for port in templar.template(variables["node_ports"])}
    assert ports[("portal", "https")]["route"] == {"host": "portal.prod.example.com", "path": "/", "protocol": "https"}
    assert "route" not in ports[("etcd", "client")]
    assert not [port for port in shared["site_ports"] if "route" in port]


@pytest.mark.parametrize(
    ("change", "health", "said"),
    [
        ({"protocol": "udp"}, HEALTH, "on one TCP port"),
        ({"port": "9443-9444"}, HEALTH, "on one TCP port"),
        ({"from": ["admin"]}, HEALTH, "not open to the edge"),
        ({}, [], "Add health checks"),
        ({"route": {"path": "/"}}, HEALTH, "host"),
        ({"route": {**ROUTE, "protocol": "ftp"}}, HEALTH, "ftp"),
        ({"route": {**ROUTE, "login": True}}, HEALTH, "login"),
    ],
)
def test_a_route_that_cannot_work_is_refused(tmp_path: Path, change: dict[str, Any], health: list[dict[str, Any]], said: str) -> None:
    root = collection_with(tmp_path / "collection", {**PORT, **change}, health)
    with pytest.raises(SiteError) as caught:
        load(root)
    [problem] = caught.value.problems
    assert problem.file.endswith("roles/portal/meta/component.yml")
    assert problem.path[0] == "ports"
    assert said in f"{problem.path} {problem.text}"
