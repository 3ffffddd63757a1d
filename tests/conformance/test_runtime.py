# SPDX-License-Identifier: Apache-2.0
"""A runtime starts containers within their limits, keeps the images it can't get back, and does not take containers with it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from .support.cluster import Workload, condition, pod_template
from .support.nodes import Node
from .support.plan import Plan
from .support.waiting import at_once, until

pytestmark = [pytest.mark.needs("runtime"), pytest.mark.needs("containerd")]
CRICTL = "/opt/ashlar/crictl/current/crictl"


@pytest.fixture(scope="module")
def hosts(plan: Plan, nodes: dict[str, Node]) -> list[Node]:
    return [nodes[name] for name in plan.on("containerd")]


def test_the_runtime_and_its_network_are_ready(hosts: list[Node], workload: Workload) -> None:
    for node in hosts:
        info = json.loads(node.run(f"{CRICTL} info"))
        states = {item["type"]: item["status"] for item in info["status"]["conditions"]}
        assert states["RuntimeReady"], node.name
        assert states["NetworkReady"], node.name


def test_the_version_is_the_plan_s(hosts: list[Node], plan: Plan) -> None:
    for node in hosts:
        told = node.run(f"{CRICTL} version")
        assert f"RuntimeVersion:  v{plan.versions['containerd']}" in told or f"RuntimeVersion:  {plan.versions['containerd']}" in told, (node.name, told)


def test_images_no_registry_could_bring_back_are_pinned(hosts: list[Node], plan: Plan) -> None:
    for node in hosts:
        images = json.loads(node.run(f"{CRICTL} images --output json"))["images"]
        own = {tag: image["pinned"] for image in images for tag in image["repoTags"] if tag.startswith("registry.ashlar.internal/")}
        assert own.get(f"registry.ashlar.internal/pause:{plan.versions['pause']}"), (node.name, own)
        assert all(own.values()), (node.name, own)


def test_containers_are_confined(workload: Workload) -> None:
    """No privilege can be gained, system calls are filtered, nothing but the volume can be written."""
    node = next(iter(workload.pods))
    told = dict(line.split(":", 1) for line in workload.shell(node, "cat /proc/self/status").splitlines() if ":" in line)
    assert told["Seccomp"].strip() == "2"
    assert told["NoNewPrivs"].strip() == "1"
    assert int(told["CapEff"].strip(), 16) == 0
    assert workload.execute(node, "touch /here")[0] != 0


def test_a_container_over_its_memory_is_killed_and_only_it(workload: Workload) -> None:
    body = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "greedy"}, **pod_template("greedy", workload.image)}
    body["metadata"] = {"name": "greedy", "labels": {"app": "greedy"}}
    container = body["spec"]["containers"][0]
    container["command"] = ["sh", "-c", "tail /dev/zero"]
    del container["readinessProbe"]
    body["spec"]["restartPolicy"] = "Never"
    workload.cluster.create(body, workload.namespace)
    try:

        def ended() -> dict[str, Any]:
            pod = workload.cluster.get(workload.path("Pod", "greedy"))
            return dict(pod["status"].get("containerStatuses", [{}])[0].get("state", {}).get("terminated") or {})

        told = until("the container that takes all memory has ended", ended)
        assert told["exitCode"] == 137, told
    finally:
        workload.cluster.delete(workload.path("Pod", "greedy"), 0)


@pytest.mark.disruptive
def test_containers_live_on_when_their_runtime_and_kubelet_restart(workload: Workload, hosts: list[Node]) -> None:
    node = next(node for node in hosts if node.name in workload.pods)
    name = workload.pods[node.name]["metadata"]["name"]

    def started() -> list[str]:
        pod = workload.cluster.get(workload.path("Pod", name))
        assert condition(pod, "Ready") == "True"
        return [f"{one['containerID']} {one['restartCount']}" for one in pod["status"]["containerStatuses"]]

    before = until("the pod is ready", started)
    node.run("systemctl restart containerd.service kubelet.service", 90)
    until(f"the runtime of {node.name} answers again", lambda: node.ask(f"{CRICTL} info").code == 0)
    until(f"{node.name} is ready", lambda: node.name in workload.cluster.ready_nodes())
    until("the pod is ready and no container of it was started again", lambda: started() == before)
    until("commands run in it", lambda: workload.shell(node.name, "echo web").strip() == "web")


def test_no_container_is_left_without_a_pod(hosts: list[Node], workload: Workload) -> None:
    """What runs is what the API knows of."""

    def left(node: Node) -> set[str]:
        known = {pod["metadata"]["uid"] for pod in workload.cluster.items("/api/v1/pods") if pod["spec"].get("nodeName") == node.name}
        pods = json.loads(node.run(f"{CRICTL} pods --state ready --output json"))["items"]
        assert pods, f"{node.name} runs no pod, though one of the tests' is on every node"
        return {pod["metadata"]["name"] for pod in pods if pod["metadata"]["uid"] not in known}

    until("no node runs a pod the API does not know", lambda: not any(at_once(left, hosts)))
