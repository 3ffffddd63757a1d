# SPDX-License-Identifier: Apache-2.0
"""Figures of every node and pod are served, and to those who may see them."""

from __future__ import annotations

from typing import Any

import pytest

from .support.cluster import Cluster, Workload, condition
from .support.nodes import Node
from .support.plan import Plan
from .support.waiting import until

pytestmark = [pytest.mark.needs("monitoring"), pytest.mark.needs("metrics_server")]


def cpu(text: str) -> float:
    """Cores."""
    scale = {"n": 1e-9, "u": 1e-6, "m": 1e-3}
    return float(text[:-1]) * scale[text[-1]] if text[-1] in scale else float(text)


def memory(text: str) -> float:
    """Bytes."""
    scale = {"Ki": 1024, "Mi": 1024**2, "Gi": 1024**3}
    return float(text[:-2]) * scale[text[-2:]] if text[-2:] in scale else float(text)


def test_the_metrics_api_is_part_of_the_api(cluster: Cluster) -> None:
    found = cluster.get("/apis/apiregistration.k8s.io/v1/apiservices/v1beta1.metrics.k8s.io")
    assert condition(found, "Available") == "True", found["status"]


def test_every_node_has_figures(cluster: Cluster, plan: Plan) -> None:
    def look() -> dict[str, dict[str, Any]]:
        found = {item["metadata"]["name"]: item["usage"] for item in cluster.items("/apis/metrics.k8s.io/v1beta1/nodes")}
        return found if set(found) == set(plan.on("kubernetes_node")) else {}

    for name, usage in until("every node has figures", look, 60).items():
        assert cpu(usage["cpu"]) > 0, name
        assert memory(usage["memory"]) > 50 * 1024**2, name


def test_every_replica_answers(plan: Plan, nodes: dict[str, Node]) -> None:
    asker = nodes[plan.on("kubernetes_control")[0]]
    for endpoint in plan.endpoints["metrics_server"]["api"]:
        assert asker.https(f"https://{endpoint}/readyz", "kubernetes").status == 200, endpoint
        reply = asker.https(f"https://{endpoint}/apis/metrics.k8s.io/v1beta1/nodes", "kubernetes")
        assert reply.status in (401, 403), f"figures are given to anybody: {endpoint}: {reply.status}"


def test_kubectl_top_shows_all_nodes(plan: Plan, nodes: dict[str, Node]) -> None:
    """As the administrator, on the controller's behalf, from a node: the program that people use."""
    node = nodes[plan.on("kubernetes_control")[0]]
    kubeconfig = node.run("mktemp").strip()
    try:
        text = (plan.credentials / "admin.kubeconfig").read_text()
        node.python("import json,sys; path, text = json.loads(sys.argv[1]); open(path, 'w').write(text); print(0)", kubeconfig, text)
        lines = node.run(f"/opt/ashlar/kubernetes/current/kubectl --kubeconfig {kubeconfig} top nodes --no-headers").splitlines()
    finally:
        node.run(f"rm -f {kubeconfig}")
    assert {line.split()[0] for line in lines} == set(plan.on("kubernetes_node"))


def test_every_pod_has_figures(workload: Workload) -> None:
    names = {pod["metadata"]["name"] for pod in workload.pods.values()}
    path = f"/apis/metrics.k8s.io/v1beta1/namespaces/{workload.namespace}/pods"
    until("the pods of the tests have figures", lambda: names <= {item["metadata"]["name"] for item in workload.cluster.items(path)})
