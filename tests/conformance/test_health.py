# SPDX-License-Identifier: Apache-2.0
"""The verb `health`: for people, and as JSON for machines."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from .support.nodes import Node
from .support.plan import Plan
from .support.site import playbook

pytestmark = [pytest.mark.disruptive, pytest.mark.needs("node_exporter")]

UNIT = "node-exporter.service"


@pytest.fixture
def broken(plan: Plan, nodes: dict[str, Node]) -> Iterator[Node]:
    """A node on which a component does not run."""
    node = nodes[plan.on("node_exporter")[-1]]
    node.run(f"systemctl stop {UNIT}")
    yield node
    node.run(f"systemctl start {UNIT}")


def test_a_healthy_site_is_said_to_be_so(plan: Plan, tmp_path: Path) -> None:
    code, said = playbook(plan, "health", "-e", f"report={tmp_path}/health.json")
    assert code == 0, said
    report = json.loads((tmp_path / "health.json").read_text())
    assert report["site"] == plan.site and report["healthy"]
    assert {name: (node["state"], node["checks"] > 0) for name, node in report["nodes"].items()} == dict.fromkeys(plan.machines, ("healthy", True))


def test_what_is_broken_is_named_with_what_to_do(broken: Node, plan: Plan, tmp_path: Path) -> None:
    code, said = playbook(plan, "health", "-e", f"report={tmp_path}/health.json", "-e", "seconds=3")
    assert code == 2 and f"{UNIT} is inactive" in said and "What to do:" in said
    nodes = json.loads((tmp_path / "health.json").read_text())["nodes"]
    assert [check["component"] for check in nodes[broken.name]["failed"]] == ["node_exporter"]
    assert all(node["state"] == "healthy" for name, node in nodes.items() if name != broken.name)
