# SPDX-License-Identifier: Apache-2.0
"""Conformance tests speak to what fills a slot: which of them a site has, and what the first adapters ask for."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conformance.conftest import spoken_to
from conformance.support.cluster import Workload
from conformance.support.key_value import Etcd
from conformance.support.orchestrator import Instance


@pytest.mark.parametrize(
    ("fixtures", "with_kubernetes", "with_etcd_alone", "with_neither"),
    [
        ((), True, True, True),
        (("workload", "cluster"), True, False, False),
        (("applications",), True, False, False),
        (("key_value", "nodes"), True, True, False),
        (("applications", "key_value"), True, False, False),
    ],
)
def test_a_test_is_left_out_where_nothing_is_there_to_speak_to(
    fixtures: tuple[str, ...], with_kubernetes: bool, with_etcd_alone: bool, with_neither: bool
) -> None:
    item: Any = SimpleNamespace(fixturenames=fixtures)
    sites = {("kubernetes_control", "etcd"): with_kubernetes, ("etcd",): with_etcd_alone, ("consul",): with_neither}
    for components, wanted in sites.items():
        plan: Any = SimpleNamespace(has=components.__contains__)
        assert spoken_to(item, plan) is wanted, components


class Api:
    """A cluster with a ready pod on each of two nodes and one that is not ready."""

    kubeconfig = Path("none")

    def __init__(self) -> None:
        self.asked: list[Any] = []

    def pods(self, namespace: str, labels: str) -> list[dict[str, Any]]:
        def pod(node: str, ready: str) -> dict[str, Any]:
            status = {"podIP": f"10.244.0.{len(node)}", "conditions": [{"type": "Ready", "status": ready}]}
            return {"metadata": {"name": f"probe-{node}"}, "spec": {"nodeName": node}, "status": status}

        return [pod("three", "True"), pod("one", "True"), pod("gone", "False")]

    def patch(self, path: str, body: Any) -> None:
        self.asked.append((path, body))

    def delete(self, path: str, grace_seconds: int | None = None) -> None:
        self.asked.append((path, grace_seconds))


def test_kubernetes_instances_are_ready_pods() -> None:
    api: Any = Api()
    workload = Workload(api, "lab", "image", {"one": {}, "three": {}, "gone": {}}, {})
    one = Instance("probe-one", "one", "10.244.0.3")
    assert workload.everywhere() == {"one": one, "three": Instance("probe-three", "three", "10.244.0.5")}
    assert workload.nodes == ["one", "three", "gone"]
    workload.keep([one])
    workload.kill(one)
    path = "/api/v1/namespaces/lab/pods/probe-one"
    assert api.asked == [(path, {"metadata": {"annotations": {"controller.kubernetes.io/pod-deletion-cost": "1000"}}}), (path, 0)]


def test_etcd_names_its_leader_and_is_given_less_time_than_its_caller_waits() -> None:
    asked: list[tuple[str, int]] = []

    def run(command: str, seconds: int) -> str:
        asked.append((command.partition("etcdctl ")[2], seconds))
        if "member list" in command:
            return '{"members": [{"name": "alpha", "ID": 9372538179322589801}, {"name": "beta", "ID": 7, "isLearner": true}]}'
        return '[{"Status": {"leader": 9372538179322589801}}]' if "status" in command else "kept\nkept\n"

    node: Any = SimpleNamespace(name="alpha", run=run)
    store = Etcd([node])
    assert (store.leader(node), store.voters(node)) == ("alpha", {"alpha"})
    asked.clear()
    assert store.get(node, "/a/", below=True, own=True) == ["kept", "kept"]
    assert not store.put(node, "/a/b", "word", 9)
    assert asked == [
        ("--command-timeout=15s get --print-value-only --prefix --consistency=s /a/", 20),
        ("--command-timeout=4s put /a/b word", 9),
    ]
