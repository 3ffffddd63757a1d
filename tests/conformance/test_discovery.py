# SPDX-License-Identifier: Apache-2.0
"""Names lead to what answers, on every node, and what is gone is forgotten."""

from __future__ import annotations

import ipaddress

import pytest

from .support.cluster import Workload, service
from .support.nodes import Node
from .support.plan import Plan
from .support.waiting import at_once, until

pytestmark = pytest.mark.needs("discovery", "coredns", "kubernetes_control")

NO_SUCH_NAME = 3


@pytest.fixture(scope="module")
def server(plan: Plan) -> str:
    return str(plan.option("coredns", "coredns_address"))


@pytest.fixture(scope="module")
def domain(plan: Plan) -> str:
    return str(plan.option("kubernetes_control", "kubernetes_control_cluster_domain"))


@pytest.fixture(scope="module")
def one(nodes: dict[str, Node], plan: Plan) -> Node:
    """A node that answers names."""
    return nodes[plan.on("coredns")[0]]


def test_pods_on_every_node_reach_a_service_by_its_names(workload: Workload, domain: str) -> None:
    names = {pod["metadata"]["name"] for pod in workload.pods.values()}
    spoken = ["probe", f"probe.{workload.namespace}", f"probe.{workload.namespace}.svc.{domain}"]

    def ask(node: str) -> list[str]:
        return workload.shell(node, f"for name in {' '.join(spoken)}; do wget -q -T 5 -O - http://$name/ || echo $name is silent; done").splitlines()

    for node, answers in zip(workload.pods, at_once(ask, workload.pods), strict=True):
        assert len(answers) == len(spoken)
        assert set(answers) <= names, f"from the pod on {node}: {answers}"


def test_every_node_answers_over_udp_and_tcp(workload: Workload, server: str, domain: str, nodes: dict[str, Node], plan: Plan) -> None:
    name = f"probe.{workload.namespace}.svc.{domain}"
    for node in plan.on("coredns"):
        for protocol in ("udp", "tcp"):
            found = nodes[node].resolve(server, name, protocol=protocol)
            assert found.answers == [workload.virtual_address], f"{node} over {protocol}: {found}"


def test_pods_ask_the_answerer_of_their_own_node(workload: Workload, server: str, domain: str) -> None:
    text = workload.shell(next(iter(workload.pods)), "cat /etc/resolv.conf")
    servers = [line.split()[1] for line in text.splitlines() if line.startswith("nameserver")]
    assert servers == [server]
    [search] = [line.split()[1:] for line in text.splitlines() if line.startswith("search")]
    assert search == [f"{workload.namespace}.svc.{domain}", f"svc.{domain}", domain], "the host's search list does not leak into pods"


def test_a_headless_service_is_the_addresses_of_its_pods(workload: Workload, server: str, domain: str, one: Node) -> None:
    found = one.resolve(server, f"probe-headless.{workload.namespace}.svc.{domain}")
    assert found.answers == sorted(workload.address(name) for name in workload.pods)


def test_a_named_port_has_a_service_record(workload: Workload, server: str, domain: str, one: Node) -> None:
    base = f"{workload.namespace}.svc.{domain}"
    found = one.resolve(server, f"_http._tcp.probe.{base}", "SRV")
    assert found.answers == [f"80 probe.{base}"]
    headless = one.resolve(server, f"_http._tcp.probe-headless.{base}", "SRV")
    assert len(headless.answers) == len(workload.pods)
    assert all(answer.startswith("8080 ") and answer.endswith(f".probe-headless.{base}") for answer in headless.answers), headless


def test_an_address_leads_back_to_its_service(workload: Workload, server: str, domain: str, one: Node) -> None:
    found = one.resolve(server, ipaddress.ip_address(workload.virtual_address).reverse_pointer, "PTR")
    assert found.answers == [f"probe.{workload.namespace}.svc.{domain}"]


def test_a_name_that_is_not_there_is_denied_at_once(workload: Workload, server: str, domain: str, one: Node) -> None:
    assert one.resolve(server, f"nothing.{workload.namespace}.svc.{domain}").code == NO_SUCH_NAME


def test_a_removed_service_is_forgotten(workload: Workload, server: str, domain: str, nodes: dict[str, Node], plan: Plan) -> None:
    made = workload.cluster.create(service("brief", app="probe"), workload.namespace)
    name = f"brief.{workload.namespace}.svc.{domain}"

    def answers() -> list[list[str]]:
        return [found.answers for found in at_once(lambda node: nodes[node].resolve(server, name), plan.on("coredns"))]

    until("every node knows a new Service", lambda: answers() == [[made["spec"]["clusterIP"]]] * len(plan.on("coredns")))
    workload.cluster.delete(workload.path("Service", "brief"))
    until("every node has forgotten a removed Service", lambda: answers() == [[]] * len(plan.on("coredns")))


def test_other_names_are_answered_as_the_node_itself_is_answered(server: str, every: list[Node]) -> None:
    """With or without internet: what the node's own resolver says is what the platform's says; where it is silent, a failure comes, not silence."""
    for node in every:
        # Where the host itself asks the answerer first, those it had before are written down for the answerer.
        files = "cat /var/lib/ashlar/resolver/upstream.conf 2>/dev/null || cat /etc/resolv.conf"
        own = [line.split()[1] for line in node.run(files).splitlines() if line.startswith("nameserver")]
        assert own
        assert server not in own, "the answerer would ask itself"
        for name in ("example.com", "no-such-name.invalid"):
            direct = node.resolve(own[0], name, seconds=8)
            through = node.resolve(server, name, seconds=12)
            if direct.code >= 0:
                assert through.code == direct.code, f"{node.name}: {name}: {direct} by itself, {through} through {server}"
            else:
                assert through.code == 2, f"{node.name}: {name}: {through}, though its own resolver is silent"


def test_names_are_not_answered_to_other_machines(server: str, every: list[Node]) -> None:
    """The answerer listens on each node's own link-local address only, so a node can't be made an open resolver."""
    for node in every:
        listeners = node.run("ss -tulnH 'sport = :53'").split()
        addresses = {word.rpartition(":")[0] for word in listeners if word.endswith(":53")}
        assert server in addresses
        assert all(ipaddress.ip_address(address.split("%")[0].strip("[]")).is_loopback or address == server for address in addresses), (node.name, addresses)
