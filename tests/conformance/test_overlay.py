# SPDX-License-Identifier: Apache-2.0
"""An overlay carries packets between instances of applications, on all nodes, whole and with their own addresses."""

from __future__ import annotations

import ipaddress

import pytest

from .support.cluster import Workload
from .support.nodes import Node
from .support.orchestrator import BLOB_KIB, WEB_PORT, Applications, Instance
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


def test_every_pod_reaches_every_pod_by_ip_and_is_seen_under_its_own_address(applications: Applications) -> None:
    instances = list(applications.everywhere().values())
    assert {one.node for one in instances} == set(applications.nodes)
    targets = " ".join(one.address for one in instances)

    def ask(source: Instance) -> list[str]:
        return applications.run_in(
            source, f"for ip in {targets}; do wget -q -T 5 -O - http://$ip:{WEB_PORT}/cgi-bin/who || echo $ip is silent; done"
        ).splitlines()

    for source, lines in zip(instances, at_once(ask, instances), strict=True):
        assert lines == [f"{one.name} {one.node} {source.address}" for one in instances], f"from the one on {source.node}"


def test_a_large_transfer_between_nodes_arrives_whole(applications: Applications) -> None:
    """Where the overlay's MTU is wrong, small answers come through and this does not."""
    instances = list(applications.everywhere().values())
    assert len(instances) == len(applications.nodes)
    pairs = list(zip(instances, instances[1:] + instances[:1], strict=True))

    def sums(pair: tuple[Instance, Instance]) -> tuple[str, str]:
        source, target = pair
        sent = applications.run_in(target, "md5sum < /www/blob; wc -c < /www/blob")
        got = applications.run_in(
            source, f"wget -q -T 20 -O - http://{target.address}:{WEB_PORT}/blob > /www/got; md5sum < /www/got; wc -c < /www/got; rm /www/got"
        )
        return sent, got

    for pair, (sent, got) in zip(pairs, at_once(sums, pairs), strict=True):
        assert got == sent, f"from {pair[1].node} to {pair[0].node}"
        assert sent.split()[-1] == str(BLOB_KIB * 1024)


def test_every_node_reaches_the_pods_of_every_node(applications: Applications, nodes: dict[str, Node]) -> None:
    instances = applications.everywhere()
    assert set(instances) == set(applications.nodes)

    def states(name: str) -> dict[str, str]:
        return {target: nodes[name].connects(one.address, WEB_PORT) for target, one in instances.items()}

    for name, found in zip(instances, at_once(states, instances), strict=True):
        assert set(found.values()) == {"open"}, f"from {name}: {found}"


def test_a_pod_reaches_the_api_on_every_node(plan: Plan, workload: Workload) -> None:
    source = next(iter(workload.pods))
    addresses = " ".join(endpoint.replace(":", " ") for endpoint in plan.endpoints["kubernetes_control"]["api"]).split()
    for address, port in zip(addresses[::2], addresses[1::2], strict=True):
        code, out = workload.execute(source, f"nc -w 3 {address} {port} < /dev/null")
        assert code == 0, f"{address}:{port}: {out}"
