# SPDX-License-Identifier: Apache-2.0
"""A Service answers under its address, its port on every node, and from inside of itself; and it follows its endpoints."""

from __future__ import annotations

import ipaddress
import json
import urllib.request
from collections.abc import Iterator

import pytest

from .support.cluster import Workload, service
from .support.nodes import Node
from .support.plan import Plan
from .support.waiting import at_once, until

pytestmark = pytest.mark.needs("load_balancer", "kubernetes_control")

ASK = r"""
import json, sys, urllib.request
url, count = json.loads(sys.argv[1])
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
answers = []
for _ in range(count):
    try:
        answers.append(opener.open(url, timeout=10).read().decode().strip())
    except OSError as error:
        answers.append("error: %s" % error)
print(json.dumps(answers))
"""


def web(url: str, seconds: float = 10) -> str:
    """A GET from the controller."""
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=seconds) as answer:
        return str(answer.read().decode().strip())


@pytest.fixture(scope="module")
def names(workload: Workload) -> set[str]:
    return {pod["metadata"]["name"] for pod in workload.pods.values()}


def test_the_virtual_address_is_of_the_service_network(plan: Plan, workload: Workload) -> None:
    assert ipaddress.ip_address(workload.virtual_address) in ipaddress.ip_network(plan.networks["services"])


def test_pods_on_every_node_reach_all_endpoints_by_the_virtual_address(workload: Workload, names: set[str]) -> None:
    def ask(node: str) -> list[str]:
        return workload.shell(node, f"for i in $(seq 30); do wget -q -T 10 -O - http://{workload.virtual_address}/ || echo silence; done").split()

    for node, answers in zip(workload.pods, at_once(ask, workload.pods), strict=True):
        assert set(answers) == names, f"from the pod on {node}"


def test_every_host_reaches_all_endpoints_by_the_virtual_address(workload: Workload, names: set[str], nodes: dict[str, Node]) -> None:
    answers = at_once(lambda name: nodes[name].python(ASK, f"http://{workload.virtual_address}/", 30), workload.pods)
    for name, found in zip(workload.pods, answers, strict=True):
        assert set(found) == names, f"from {name}"


def test_the_node_port_answers_on_every_node_from_every_host(workload: Workload, names: set[str], nodes: dict[str, Node]) -> None:
    def ask(name: str) -> dict[str, list[str]]:
        return {to: nodes[name].python(ASK, f"http://{nodes[to].address}:{workload.node_port}/", 4) for to in workload.pods}

    for name, found in zip(workload.pods, at_once(ask, workload.pods), strict=True):
        for to, answers in found.items():
            assert set(answers) <= names, f"from {name} to {to}: {answers}"


def test_the_node_port_answers_from_outside_and_from_pods(workload: Workload, names: set[str], nodes: dict[str, Node]) -> None:
    source = next(iter(workload.pods))
    for name in workload.pods:
        assert web(f"http://{nodes[name].address}:{workload.node_port}/") in names, f"from the controller to {name}"
        assert workload.shell(source, f"wget -q -T 10 -O - http://{nodes[name].address}:{workload.node_port}/").strip() in names, f"from a pod to {name}"


@pytest.fixture
def alone(workload: Workload) -> Iterator[str]:
    """A Service with one pod behind it."""
    workload.deployment("alone", 1)
    yield "alone"
    workload.remove("alone")


def test_a_pod_reaches_itself_through_its_service_and_the_service_follows_its_pod(workload: Workload, alone: str) -> None:
    [pod] = workload.running(alone, 1)
    name = pod["metadata"]["name"]
    address = workload.cluster.get(workload.path("Service", alone))["spec"]["clusterIP"]

    def ask(of: str) -> str:
        return workload.cluster.shell(workload.namespace, of, f"wget -q -T 5 -O - http://{address}/").strip()

    until("a pod reaches itself through its Service", lambda: ask(name) == name)

    workload.cluster.delete(workload.path("Pod", name))
    [other] = workload.running(alone, 1)
    assert other["metadata"]["name"] != name
    asker = next(iter(workload.pods.values()))["metadata"]["name"]
    until("the Service leads to the new pod", lambda: ask(asker) == other["metadata"]["name"])


def test_a_service_without_endpoints_refuses_at_once(workload: Workload) -> None:
    made = workload.cluster.create(service("empty", app="nobody"), workload.namespace)
    source = next(iter(workload.pods))
    try:
        command = f"time nc -w 8 {made['spec']['clusterIP']} 80 < /dev/null"
        out = until(
            "an empty Service refuses",
            lambda: (lambda answer: answer[1] if answer[0] != 0 and "refused" in answer[1] else "")(workload.execute(source, command)),
            10,
        )
        assert "refused" in out
    finally:
        workload.cluster.delete(workload.path("Service", "empty"))


def test_a_client_sticks_to_its_endpoint_where_the_service_says_so(workload: Workload, names: set[str]) -> None:
    body = service("sticky", app="probe")
    body["spec"]["sessionAffinity"] = "ClientIP"
    made = workload.cluster.create(body, workload.namespace)
    source = next(iter(workload.pods))
    url = f"http://{made['spec']['clusterIP']}/"
    try:
        until("the sticky Service answers", lambda: workload.shell(source, f"wget -q -T 5 -O - {url}").strip() in names)
        answers = workload.shell(source, f"for i in $(seq 20); do wget -q -T 10 -O - {url}; done").split()
        assert len(answers) == 20
        assert len(set(answers)) == 1, json.dumps(answers)
    finally:
        workload.cluster.delete(workload.path("Service", "sticky"))
