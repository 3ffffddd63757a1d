# SPDX-License-Identifier: Apache-2.0
"""A changed setting restarts one member after another, and who uses them loses nothing."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import pytest

from .support.clients import Clients
from .support.figures import Tell, brief
from .support.nodes import Node
from .support.plan import Plan
from .support.site import site_yml
from .support.waiting import at_once

pytestmark = pytest.mark.disruptive

CHANGES = {
    "etcd": ("etcd.service", {"etcd_heartbeat_interval_ms": 120}),
    "consul": ("consul.service", {"consul_raft_multiplier": 4}),
    "kubernetes_control": ("kube-apiserver.service", {"kubernetes_control_audit_log_files_max": 11}),
    "metrics_server": ("metrics-server.service", {"metrics_server_resolution_seconds": 16}),
    "prometheus": ("prometheus.service", {"prometheus_query_timeout_seconds": 31}),
    "alertmanager": ("alertmanager.service", {"alertmanager_retention_hours": 121}),
    "victorialogs": ("victorialogs.service", {"victorialogs_retention_days": 13}),
}
BRIEF = ("etcd", "consul")
"""Component -> a unit of its members, and settings that it reads at its start only."""

# When the unit began to stop and when it had started again, in microseconds of the host's clock.
RESTART = """
import datetime, json, subprocess, sys
shown = subprocess.run(["systemctl", "show", "--timestamp=us+utc", "--property=ActiveExitTimestamp,ActiveEnterTimestamp", json.loads(sys.argv[1])[0]],
                       capture_output=True, text=True, check=True).stdout
times = dict(line.split("=", 1) for line in shown.split("\\n") if line)
def since(text):
    moment = datetime.datetime.strptime(text, "%a %Y-%m-%d %H:%M:%S.%f %Z").replace(tzinfo=datetime.timezone.utc) if text else None
    return round(moment.timestamp() * 1e6) if moment else 0
print(json.dumps([since(times["ActiveExitTimestamp"]), since(times["ActiveEnterTimestamp"])]))
"""


@pytest.fixture
def changed(plan: Plan) -> Iterator[dict[str, tuple[str, dict[str, int]]]]:
    """What is changed on this site; it is as before afterwards."""
    names = [name for name in CHANGES if plan.has(name) and (name in BRIEF or not brief())]
    found = {name: CHANGES[name] for name in names if len(plan.shared["component_rolling"][name]["members"]) > 1}
    if not found:
        pytest.skip("no component has several members")
    yield found
    site_yml(plan, "--tags", ",".join(found))


@pytest.mark.needs("key_value", "consul", "sample", "haproxy")
def test_members_of_a_majority_restart_one_after_another_and_nothing_is_lost(
    changed: dict[str, tuple[str, dict[str, int]]], plan: Plan, nodes: dict[str, Node], clients: Callable[[], Clients], tell: Tell
) -> None:
    members = {name: [nodes[member] for member in plan.shared["component_rolling"][name]["members"]] for name in changed}

    def restarts(name: str) -> list[list[int]]:
        return at_once(lambda node: list(node.python(RESTART, changed[name][0])), members[name])

    before = {name: restarts(name) for name in changed}
    using = clients()
    settings = {name: value for _unit, options in changed.values() for name, value in options.items()}
    said = using.during(lambda: site_yml(plan, "--tags", ",".join(changed), "-e", json.dumps(settings)))
    for name, (unit, _options) in changed.items():
        assert unit in said, f"the run tells that {unit} was restarted"
        after = restarts(name)
        for node, old, new in zip(members[name], before[name], after, strict=True):
            assert new[0] > old[1], f"{name} was restarted on {node.name}"
        turns = sorted(after)
        assert all(one[1] <= other[0] for one, other in zip(turns, turns[1:])), f"{name}: two were away at once: {turns}"
    using.unnoticed(tell)
