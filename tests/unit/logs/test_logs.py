# SPDX-License-Identifier: Apache-2.0
"""What the roles of logs give to their programs."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import jinja2
import yaml

ROOT = Path(__file__).parents[3]
COLLECTOR = ROOT / "roles/log_collector"
STORE = ROOT / "roles/victorialogs"


def units(components: list[str], health: list[dict[str, Any]]) -> dict[str, str]:
    text = yaml.safe_load((COLLECTOR / "vars/main.yml").read_text())["_log_collector_units"]
    found = ast.literal_eval(jinja2.Environment().from_string(text).render(node_components=components, node_health=health).strip())
    assert isinstance(found, dict)
    return found


def test_a_unit_is_of_the_component_with_its_name_before_any_other() -> None:
    health = [
        {"component": "haproxy", "name": "a", "url": "x", "log_unit": "consul-template.service"},
        {"component": "edge_probe", "name": "b", "url": "x", "log_unit": "haproxy.service"},
        {"component": "kubernetes_node", "name": "c", "url": "x", "log_unit": "kubelet.service"},
        {"component": "kubernetes_control", "name": "d", "unit": "kube-scheduler.service"},
    ]
    found = units(["haproxy", "kubernetes_node", "log_collector"], health)
    assert found["consul-template.service"] == "haproxy"
    assert found["haproxy.service"] == "haproxy"
    assert found["kubelet.service"] == "kubernetes_node"
    assert found["kube-scheduler.service"] == "kubernetes_control"
    assert found["log-collector.service"] == "log_collector"


def test_every_setting_is_one_that_the_collector_knows() -> None:
    known = set(re.findall(r'json:"([a-z_]+)', "".join(path.read_text() for path in (ROOT / "programs/log_collector").glob("*.go"))))
    given = set(re.findall(r"'([a-z_]+)':", (COLLECTOR / "templates/etc/log-collector/settings.json.j2").read_text()))
    assert given <= known


def test_retention_of_nothing_is_out_of_the_limits() -> None:
    limits = yaml.safe_load((STORE / "meta/component.yml").read_text())["limits"]
    assert limits["victorialogs_retention_days"]["minimum"] >= 1
    assert limits["victorialogs_retention_size_mib"]["minimum"] >= 1


def test_what_is_taken_again_reaches_further_back_than_what_may_be_unwritten() -> None:
    """A store has a line on its disk after a second in its buffer, one interval until it is due and one until that is noticed."""
    text = (COLLECTOR / "templates/etc/log-collector/settings.json.j2").read_text()
    factor, more = re.search(r"'settle_seconds': (\d+) \* \(.*\) \+ (\d+),", text).groups()  # type: ignore[union-attr]
    limit = yaml.safe_load((STORE / "meta/component.yml").read_text())["limits"]["victorialogs_flush_seconds"]
    for flush in (limit["minimum"], limit["maximum"]):
        assert int(factor) * flush + int(more) >= 1 + 2 * flush + 3


def test_searching_and_writing_are_for_different_clients() -> None:
    text = (STORE / "templates/etc/victorialogs/haproxy.cfg.j2").read_text()
    allowed = [line.strip() for line in text.splitlines() if line.strip().startswith("http-request allow")]
    assert [line for line in allowed if "/insert/" in line] == ["http-request allow if { path /insert/jsonline } METH_POST collector"]
    assert "http-request allow if search client" in allowed
    assert "http-request deny deny_status 403" in text
    collector = yaml.safe_load((COLLECTOR / "meta/component.yml").read_text())["certificates"]
    assert not any("permitted_by" in certificate for certificate in collector), "who writes logs may not search them"
