# SPDX-License-Identifier: Apache-2.0
"""The plan is what a run would do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from .support.nodes import Node
from .support.plan import Plan
from .support.site import changes, run, words
from .support.waiting import at_once, until

pytestmark = pytest.mark.scenario("default")

STARTED = "systemctl show --property=ExecMainStartTimestampMonotonic --value etcd.service"


def planned(plan: Plan, folder: Path, *arguments: str) -> tuple[str, dict[str, Any]]:
    """What plan.yml printed, and the plan that it wrote: node -> component -> verb -> names."""
    file = folder / "plan.json"
    said = run(plan, "plan", "-e", f"plan_file={file}", *arguments)
    assert changes(said) == {"0"}
    return words(said), json.loads(file.read_text())["plan"]


def test_nothing_is_planned_for_a_site_that_is_as_it_is_described(plan: Plan, tmp_path: Path) -> None:
    # Of an object of the API whose status changes in the moment it is compared, kubernetes.core says that it would change.
    until("nothing is planned", lambda: planned(plan, tmp_path)[1] == {}, seconds=300)


@pytest.mark.needs("etcd")
def test_a_changed_option_is_planned_with_what_it_interrupts(plan: Plan, nodes: dict[str, Node], tmp_path: Path) -> None:
    members = [nodes[name] for name in plan.on("etcd")]
    before = at_once(lambda node: node.run(STARTED), members)
    said, found = planned(plan, tmp_path, "--tags", "etcd", "-e", json.dumps({"etcd_heartbeat_interval_ms": 150}))
    assert {name for name, would in found.items() if "etcd.service" in would.get("etcd", {}).get("restart", ())} == set(plan.on("etcd")), said
    assert "interrupts etcd.service in turn" in said
    assert at_once(lambda node: node.run(STARTED), members) == before
