# SPDX-License-Identifier: Apache-2.0
"""Where no kubelet measures containers, cAdvisor does."""

from __future__ import annotations

import pytest

from .support.monitoring import INVENTED, LABEL, Monitoring
from .support.nodes import Node
from .support.plan import Plan
from .support.waiting import until

pytestmark = [pytest.mark.needs("monitoring"), pytest.mark.needs("cadvisor", "containerd", "prometheus")]


def test_a_container_is_measured_by_name_and_with_chosen_labels(measured: tuple[Node, str], plan: Plan, nodes: dict[str, Node]) -> None:
    node, name = measured
    monitoring = Monitoring(plan, nodes)

    for replica in monitoring.replicas():
        expression = f'container_memory_working_set_bytes{{component="cadvisor",name="{name}"}}'
        found = until(f"{replica} has figures of the container", lambda: monitoring.query(replica, expression))  # noqa: B023
        assert len(found) == 1 and float(found[0]["value"][1]) > 0
        labels = found[0]["metric"]
        assert (labels["site"], labels["node"]) == (plan.site, node.name)
        assert labels[f"container_label_{LABEL.replace('.', '_')}"] == "measured"
        assert not [label for label in labels if INVENTED in label], "what nobody chose is no label"


def test_every_node_is_measured_as_a_whole(plan: Plan, nodes: dict[str, Node]) -> None:
    monitoring = Monitoring(plan, nodes)

    def look(replica: str) -> bool:
        found = {series["metric"]["node"]: float(series["value"][1]) for series in monitoring.query(replica, "machine_memory_bytes")}
        assert set(found) == set(plan.on("cadvisor")) and all(value > 2**28 for value in found.values()), found
        return True

    for replica in monitoring.replicas():
        until(f"{replica} has figures of every node", lambda replica=replica: look(replica))  # type: ignore[misc]
