# SPDX-License-Identifier: Apache-2.0
"""An overlay carries packets between pods, on all nodes, whole and with their own addresses."""

from __future__ import annotations

import ipaddress

import pytest

from .support.cluster import Workload
from .support.nodes import Node
from .support.plan import Plan
from .support.waiting import at_once

pytestmark = pytest.mark.needs("overlay", "orchestrator")


def test_every_node_has_a_part_of_the_pod_network(plan: Plan, workload: Workload) -> None:
    whole = ipaddress.IPv4Network(plan.networks["pods"])
    parts = {node["metadata"]["name"]: ipaddress.IPv4Network(node["spec"]["podCIDR"]) for node in workload.cluster.items("/api/v1/nodes")}
    assert len(set(parts.values())) == len(parts)
    for name in workload.pods:
        assert parts[name].subnet_of(whole), (name, parts[name])
        assert ipaddress.ip_address(workload.address(name)) in parts[name]


def test_every_pod_reaches_every_pod_by_ip_and_is_seen_under_its_own_address(workload: Workload) -> None:
    targets = " ".join(workload.address(name) for name in workload.pods)

    def ask(source: str) -> list[str]:
        out = workload.shell(source, f"for ip in {targets}; do wget -q -T 5 -O - http://$ip:8080/cgi-bin/who || echo $ip is silent; done")
        return out.splitlines()

    for source, lines in zip(workload.pods, at_once(ask, workload.pods), strict=True):
        assert lines == [f"{workload.pods[name]['metadata']['name']} {name} {workload.address(source)}" for name in workload.pods], f"from the pod on {source}"


def test_a_large_transfer_between_nodes_arrives_whole(workload: Workload) -> None:
    """Where the overlay's MTU is wrong, small answers come through and this does not."""
    names = list(workload.pods)
    pairs = list(zip(names, names[1:] + names[:1], strict=True))

    def sums(pair: tuple[str, str]) -> tuple[str, str]:
        source, target = pair
        sent = workload.shell(target, "md5sum < /www/blob; wc -c < /www/blob")
        got = workload.shell(
            source, f"wget -q -T 20 -O - http://{workload.address(target)}:8080/blob > /www/got; md5sum < /www/got; wc -c < /www/got; rm /www/got"
        )
        return sent, got

    for pair, (sent, got) in zip(pairs, at_once(sums, pairs), strict=True):
        assert got == sent, f"from {pair[1]} to {pair[0]}"
        assert sent.split()[-1] == str(4096 * 1024)


def test_every_node_reaches_the_pods_of_every_node(workload: Workload, nodes: dict[str, Node]) -> None:
    def states(name: str) -> dict[str, str]:
        return {target: nodes[name].connects(workload.address(target), 8080) for target in workload.pods}

    for name, found in zip(workload.pods, at_once(states, workload.pods), strict=True):
        assert set(found.values()) == {"open"}, f"from {name}: {found}"


def test_a_pod_reaches_the_api_on_every_node(plan: Plan, workload: Workload) -> None:
    source = next(iter(workload.pods))
    addresses = " ".join(endpoint.replace(":", " ") for endpoint in plan.endpoints["kubernetes_control"]["api"]).split()
    for address, port in zip(addresses[::2], addresses[1::2], strict=True):
        code, out = workload.execute(source, f"nc -w 3 {address} {port} < /dev/null")
        assert code == 0, f"{address}:{port}: {out}"
