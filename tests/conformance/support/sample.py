# SPDX-License-Identifier: Apache-2.0
"""The sample application: where its replicas are, and how they are placed anew."""

from __future__ import annotations

from collections import Counter

from .cluster import Cluster, condition, random_name
from .plan import Plan
from .waiting import until

DEPLOYMENT = "/apis/apps/v1/namespaces/sample/deployments/hello"


def host(plan: Plan) -> str:
    """The name by which the edge knows it."""
    return str(plan.option("sample", "sample_host")).replace("{{ site_domain }}", plan.shared["site_domain"])


def places(cluster: Cluster) -> Counter[str]:
    """Node -> ready replicas on it."""
    return Counter(pod["spec"]["nodeName"] for pod in cluster.pods("sample", "app=hello") if condition(pod, "Ready") == "True")


def placed_anew(cluster: Cluster, plan: Plan) -> Counter[str]:
    """Rolls the Deployment, since after faults replicas may share a node, and sees that they are spread over the workers."""
    replicas = plan.option("sample", "sample_replicas")
    restart = {"spec": {"template": {"metadata": {"annotations": {"conformance/restarted": random_name("at")}}}}}
    generation = cluster.patch(DEPLOYMENT, restart)["metadata"]["generation"]

    def rolled() -> bool:
        status = cluster.get(DEPLOYMENT)["status"]
        # Before its controller has seen the patch, the status is that of the rollout before.
        if status.get("observedGeneration", 0) < generation:
            return False
        return status.get("updatedReplicas") == replicas == status.get("availableReplicas") == len(cluster.pods("sample", "app=hello"))

    until("the replicas are placed anew", rolled)
    workers = [name for name in plan.on("kubernetes_node") if "worker" in plan.shared["site_nodes"][name]["classes"]]
    found = places(cluster)
    assert max(found.values()) - min(found.get(name, 0) for name in workers) <= 1, found
    return found
