# SPDX-License-Identifier: Apache-2.0
"""Which pods leave a node, how long is waited for them, and that a node is never left out of service by a drain that failed."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import pytest
from ansible_collections.ashlar.stack.plugins.module_utils.kubernetes_drain import CORDONED, MIRROR, Drain, DrainError, goes
from ansible_collections.ashlar.stack.plugins.modules.kubernetes_drain import refusal

BUDGET = "The disruption budget web needs 2 healthy pods and has 2 currently"


def pod(name: str, owner: str = "ReplicaSet", phase: str = "Running", **annotations: str) -> dict[str, Any]:
    owners = [{"kind": owner, "name": "x", "controller": True}] if owner else []
    return {
        "metadata": {"name": name, "namespace": "shop", "uid": f"uid-{name}", "ownerReferences": owners, "annotations": annotations},
        "status": {"phase": phase},
    }


@dataclass
class Cluster:
    """One node; an evicted pod takes `ending` seconds to end. `budgets`: pod -> when its eviction is allowed."""

    running: list[dict[str, Any]]
    budgets: dict[str, float] = field(default_factory=dict)
    ending: float = 2
    now: float = 0
    spec: dict[str, Any] = field(default_factory=dict)
    annotations: dict[str, str] = field(default_factory=dict)
    tries: list[str] = field(default_factory=list)
    registered: bool = True
    down: float = 1e9

    def node(self, name: str) -> dict[str, Any] | None:
        ready = {"type": "Ready", "status": "True" if self.now < self.down else "Unknown", "lastHeartbeatTime": "12:00"}
        live = {"metadata": {"name": name, "annotations": dict(self.annotations)}, "spec": dict(self.spec), "status": {"conditions": [ready]}}
        return live if self.registered else None

    def patch(self, name: str, body: Any) -> None:
        for target, change in ((self.spec, body.get("spec", {})), (self.annotations, body["metadata"]["annotations"])):
            target.update(change)
            for key in [key for key, value in change.items() if value is None]:
                del target[key]

    def pods(self, node: str) -> list[dict[str, Any]]:
        self.running = [each for each in self.running if each["metadata"].get("deletionTimestamp", self.now + 1) > self.now]
        return self.running

    def evict(self, pod: Any, dry_run: bool) -> str:
        name = pod["metadata"]["name"]
        if not dry_run:
            self.tries.append(name)
        if self.now < self.budgets.get(name, 0):
            return BUDGET
        if not dry_run:
            pod["metadata"]["deletionTimestamp"] = self.now + self.ending
        return ""

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def drain(self) -> Drain:
        return Drain(self, "worker-1", clock=lambda: self.now, sleep=self.sleep)


@pytest.mark.parametrize(
    ("it", "leaves"),
    [
        (pod("of a Deployment"), True),
        (pod("of nobody", owner=""), True),
        (pod("of a DaemonSet", owner="DaemonSet"), False),
        (pod("static", owner="Node", **{MIRROR: "x"}), False),
        (pod("finished", owner="Job", phase="Succeeded"), False),
        (pod("crashed", owner="Job", phase="Failed"), False),
    ],
)
def test_what_belongs_to_the_node_or_has_finished_stays(it: dict[str, Any], leaves: bool) -> None:
    assert goes(it) is leaves


def test_a_drained_node_is_cordoned_and_has_no_pods_and_a_second_drain_changes_nothing() -> None:
    cluster = Cluster([pod("a"), pod("b"), pod("d", owner="DaemonSet")])
    first = cluster.drain()
    first.drain(300, unmanaged=False)
    assert first.evicted == ["shop/a", "shop/b"]
    assert cluster.spec == {"unschedulable": True} and CORDONED in cluster.annotations
    assert [each["metadata"]["name"] for each in cluster.running] == ["d"]
    again = cluster.drain()
    again.drain(300, unmanaged=False)
    assert not again.patched and not again.evicted


def test_an_eviction_that_a_budget_refuses_is_tried_again_without_pressing() -> None:
    cluster = Cluster([pod("a")], budgets={"a": 21})
    cluster.drain().drain(300, unmanaged=False)
    assert not cluster.running
    assert len(cluster.tries) == 6, "every five seconds"


def test_a_drain_that_takes_too_long_puts_the_node_back_and_names_pod_and_budget() -> None:
    cluster = Cluster([pod("a"), pod("b")], budgets={"a": 1e9})
    with pytest.raises(DrainError) as error:
        cluster.drain().drain(30, unmanaged=False)
    assert f"shop/a: {BUDGET}" in str(error.value) and "within 30 s" in str(error.value) and "shop/b" not in str(error.value)
    assert cluster.spec == {} and cluster.annotations == {}


def test_a_node_that_the_operator_cordoned_stays_so() -> None:
    cluster = Cluster([pod("a")], budgets={"a": 1e9}, spec={"unschedulable": True})
    with pytest.raises(DrainError):
        cluster.drain().drain(10, unmanaged=False)
    assert cluster.spec == {"unschedulable": True}
    cluster.budgets.clear()
    cluster.drain().drain(10, unmanaged=False)
    cluster.drain().resume(60)
    assert cluster.spec == {"unschedulable": True} and cluster.annotations == {}


def test_a_node_of_a_run_that_was_killed_is_resumed_by_the_next() -> None:
    cluster = Cluster([pod("a")], spec={"unschedulable": True}, annotations={CORDONED: "true"})
    cluster.drain().drain(300, unmanaged=False)
    cluster.drain().resume(60)
    assert cluster.spec == {} and cluster.annotations == {}


def test_a_node_is_in_service_when_pods_may_be_placed_on_it() -> None:
    taints = [{"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}, {"key": "mine", "effect": "NoSchedule"}]
    cluster = Cluster([], spec={"unschedulable": True, "taints": taints}, annotations={CORDONED: "true"})

    def seen(seconds: float) -> None:
        cluster.now += seconds
        if cluster.now >= 17:
            cluster.spec["taints"] = taints[1:]

    Drain(cluster, "worker-1", clock=lambda: cluster.now, sleep=seen).resume(60)
    assert cluster.now == 17

    cluster = Cluster([], spec={"unschedulable": True, "taints": taints}, annotations={CORDONED: "true"})
    with pytest.raises(DrainError, match="after 60 s still has the taint node.kubernetes.io/unschedulable, which"):
        cluster.drain().resume(60)


def test_pods_that_would_be_gone_for_good_are_named_before_anything_is_changed() -> None:
    cluster = Cluster([pod("a"), pod("pet", owner="")])
    with pytest.raises(DrainError, match="- shop/pet\n.*kubernetes_node_drain_unmanaged"):
        cluster.drain().drain(300, unmanaged=False)
    assert cluster.spec == {} and not cluster.tries
    cluster.drain().drain(300, unmanaged=True)
    assert not cluster.running


def test_an_interrupted_drain_puts_the_node_back() -> None:
    cluster = Cluster([pod("a")], budgets={"a": 1e9})

    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Drain(cluster, "worker-1", clock=lambda: cluster.now, sleep=interrupt).drain(300, unmanaged=False)
    assert cluster.spec == {}


def test_what_would_be_in_the_way_is_known_without_a_change() -> None:
    cluster = Cluster([pod("a"), pod("b"), pod("d", owner="DaemonSet")], budgets={"a": 1e9})
    assert cluster.drain().blocked(unmanaged=True) == {"shop/a": BUDGET}
    cluster.running.append(pod("pet", owner=""))
    assert list(cluster.drain().blocked(unmanaged=False)) == ["shop/a", "shop/pet"]
    assert not cluster.tries and cluster.spec == {}


def test_a_node_that_has_never_registered_has_nothing_to_drain() -> None:
    cluster = Cluster([], registered=False)
    it = cluster.drain()
    it.drain(300, unmanaged=False)
    it.resume(60)
    assert not it.patched


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ({"message": "Cannot evict pod as it would violate the pod's disruption budget.", "details": {"causes": [{"message": BUDGET}]}}, BUDGET),
        ({"message": "This pod has more than one PodDisruptionBudget"}, "This pod has more than one PodDisruptionBudget"),
        ("no JSON", "the API refuses to evict it"),
        (None, "the API refuses to evict it"),
    ],
)
def test_a_refusal_is_told_in_the_words_of_the_api(body: Any, told: str) -> None:
    assert refusal(json.dumps(body) if isinstance(body, dict) else body) == told


def test_a_node_that_goes_down_is_not_waited_for() -> None:
    cluster = Cluster([pod("web")], ending=1e9, down=20)
    with pytest.raises(DrainError, match="worker-1 went down while it was drained: its kubelet has sent no report since 12:00"):
        cluster.drain().drain(300, False)
    assert cluster.now < 30 and not cluster.spec


def test_a_node_that_was_down_before_is_drained_all_the_same() -> None:
    cluster = Cluster([pod("web")], down=0)
    cluster.drain().drain(300, False)
    assert cluster.spec["unschedulable"]


def test_a_node_whose_kubelet_says_nothing_is_not_waited_for_when_it_is_put_back() -> None:
    cluster = Cluster([], spec={"unschedulable": True, "taints": [{"key": "node.kubernetes.io/unreachable"}]}, annotations={CORDONED: "true"}, down=0)
    with pytest.raises(DrainError, match="worker-1 is uncordoned, but its kubelet has sent no report since 12:00"):
        cluster.drain().resume(300)
    assert 60 <= cluster.now < 70
