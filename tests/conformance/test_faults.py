# SPDX-License-Identifier: Apache-2.0
"""What a highly available platform does without: any one node, its network, and for a moment all of them."""

from __future__ import annotations

import asyncio
import json
import time
import urllib.request
from collections.abc import Iterator

import pytest

from .support import sample
from .support.cluster import Cluster, Workload, condition, random_name
from .support.figures import Tell, judged
from .support.key_value import KeyValueStore
from .support.load import Load, loaded
from .support.nodes import CommandError, Node
from .support.plan import Plan
from .support.power import Power, reachable
from .support.waiting import at_once, holds, until

pytestmark = [pytest.mark.disruptive, pytest.mark.needs("kubernetes_control"), pytest.mark.needs("etcd")]


@pytest.fixture(autouse=True)
def several(key_value: KeyValueStore) -> None:
    """There is something to fall back on."""
    if len(key_value.members) < 3:
        pytest.skip("a site with fewer than three control nodes has nothing to fall back on")


def balanced(node: Node) -> bool:
    """Whether a node's own balancer leads to an API server that is ready."""
    reply = node.https("https://127.0.0.1:6443/readyz", "kubernetes")
    return (reply.status, reply.body) == (200, "ok")


def test_the_platform_works_while_a_control_node_is_off(
    control_node: str,
    nodes: dict[str, Node],
    power: Power,
    key_value: KeyValueStore,
    workload: Workload,
    tell: Tell,
) -> None:
    """Switched off without a word: the others answer, take writes, start pods, and it catches up when it is back."""
    cluster, gone = workload.cluster, nodes[control_node]
    others = [node for node in nodes.values() if node is not gone]
    members = [node for node in key_value.members if node is not gone]
    name, key = random_name("while-off"), f"/ashlar-conformance/{random_name('off')}"
    key_value.put(gone, f"{key}/before", "kept")
    others_api = Cluster(cluster.kubeconfig, {node: context for node, context in cluster.contexts.items() if node != control_node})

    power.off(gone)
    start = time.monotonic()
    until(f"the store takes writes without {control_node}", lambda: key_value.put(members[0], f"{key}/meanwhile", "kept", 10))
    at_once(lambda node: until(f"the API answers on {node.name} by its balancer", lambda: balanced(node)), others)
    config = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"written": "meanwhile"}}
    until("the API takes writes", lambda: others_api.create(config, workload.namespace))
    tell(f"{control_node} off: writes again after {time.monotonic() - start:.1f} s")

    path = workload.path("ConfigMap", name)
    holds(
        f"the API takes and gives while {control_node} is off",
        lambda: others_api.patch(path, {"data": {"at": str(time.time())}})["data"]["written"] == "meanwhile",
        3,
        0.1,
    )
    at_once(lambda node: until(f"the API still answers on {node.name} by its balancer", lambda: balanced(node)), others)
    for node in members:
        assert key_value.get(node, f"{key}/", below=True) == ["kept", "kept"], node.name

    power.on(gone)
    until(f"{control_node} answers by SSH", lambda: reachable(gone))
    until(
        f"the member on {control_node} has what was written meanwhile",
        lambda: key_value.get(gone, f"{key}/", below=True, own=True) == ["kept", "kept"],
        90,
    )
    until(f"the API server of {control_node} gives what was written meanwhile", lambda: cluster.ask(control_node, "GET", path)[0] == 200)
    key_value.forget(gone, key)


def holder(cluster: Cluster, lease: str) -> str:
    """Name of the node whose instance leads."""
    return str(cluster.get(f"/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/{lease}")["spec"].get("holderIdentity", "")).rpartition("_")[0]


@pytest.mark.parametrize("lease", ["kube-controller-manager", "kube-scheduler"])
def test_a_leader_that_is_stopped_gives_up_its_lease(lease: str, cluster: Cluster, nodes: dict[str, Node]) -> None:
    path = f"/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/{lease}"
    leader = until(f"{lease} has a leader", lambda: holder(cluster, lease))
    before = cluster.get(path)["spec"]["holderIdentity"]
    nodes[leader].run(f"systemctl stop {lease}.service")
    try:
        assert cluster.get(path)["spec"].get("holderIdentity") != before, "the next one need not wait until it expires"
        until("another one leads", lambda: holder(cluster, lease) not in ("", leader))
    finally:
        nodes[leader].run(f"systemctl start {lease}.service")


@pytest.fixture
def lasting(workload: Workload, plan: Plan) -> Iterator[str]:
    """Three web servers spread over the nodes, which move five seconds after their node is known to be gone."""
    tolerations = [
        {"key": f"node.kubernetes.io/{state}", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 5} for state in ("unreachable", "not-ready")
    ]
    constraint = {
        "maxSkew": 1,
        "topologyKey": "kubernetes.io/hostname",
        "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchLabels": {"app": "lasting"}},
    }
    workload.deployment("lasting", 3, tolerations=tolerations, topologySpreadConstraints=[constraint])
    yield "lasting"
    workload.remove("lasting")


def test_a_deployment_survives_a_stopped_node(workload: Workload, lasting: str, nodes: dict[str, Node], power: Power, plan: Plan, tell: Tell) -> None:
    """The node that leads the controllers goes, with a replica on it: the Service forgets it, and a new one is started elsewhere."""
    cluster = workload.cluster
    before = workload.running(lasting, 3)
    places = {pod["spec"]["nodeName"] for pod in before}
    assert len(places) == 3, places
    leader = holder(cluster, "kube-controller-manager")
    gone = nodes.get(leader) or nodes[sorted(places)[0]]
    survivors = {pod["metadata"]["name"] for pod in before if pod["spec"]["nodeName"] != gone.name}
    address = cluster.get(workload.path("Service", lasting))["spec"]["clusterIP"]
    askers = [name for name in workload.pods if name != gone.name]

    power.off(gone)
    start = time.monotonic()

    def endpoints() -> set[str]:
        slices = cluster.items(f"/apis/discovery.k8s.io/v1/namespaces/{workload.namespace}/endpointslices?labelSelector=kubernetes.io/service-name={lasting}")
        listed = [endpoint for one in slices for endpoint in one["endpoints"] or []]
        return {endpoint["nodeName"] for endpoint in listed if endpoint["conditions"].get("ready")}

    # Meanwhile at least the replicas on other nodes answer whoever asks them.
    found = set()
    for pod in before:
        if pod["metadata"]["name"] in survivors:
            found.add(workload.shell(askers[0], f"wget -q -T 5 -O - http://{pod['status']['podIP']}:8080/").strip())
    assert found == survivors

    until("the Service has forgotten the node that is off", lambda: (there := endpoints()) and gone.name not in there)
    tell(f"{gone.name} off: the Service forgot it after {time.monotonic() - start:.0f} s")

    def asks(source: str) -> bool:
        out = workload.shell(source, f"for i in 1 2 3 4 5 6 7 8 9 10; do wget -q -T 5 -O - http://{address}/ || echo lost; done")
        return len(out.split()) == 10 and "lost" not in out

    until("proxies on the other nodes follow", lambda: all(at_once(asks, askers)))
    holds("every request is answered", lambda: all(at_once(asks, askers)), 5)

    def replaced() -> bool:
        ready = [pod for pod in cluster.pods(workload.namespace, f"app={lasting}") if condition(pod, "Ready") == "True"]
        return len(ready) == 3 and gone.name not in {pod["spec"]["nodeName"] for pod in ready}

    until("three replicas are ready on the nodes that are left", replaced)
    assert survivors <= {pod["metadata"]["name"] for pod in cluster.pods(workload.namespace, f"app={lasting}")}, "what was well was left alone"

    power.on(gone)
    until(f"{gone.name} is ready again", lambda: gone.name in cluster.ready_nodes())


WHOLE = 45
"""Seconds that the sample may lack replicas when a node goes: until the node is marked, its pods have left and others have started."""


@pytest.mark.long
@pytest.mark.needs("sample")
def test_the_sample_answers_while_its_node_is_off_and_is_soon_whole_again(
    cluster: Cluster, nodes: dict[str, Node], power: Power, plan: Plan, tell: Tell
) -> None:
    """The node with most replicas goes. Nodes that have a replica, and edges, answer every request; the lost replicas are started elsewhere."""
    replicas, port = (plan.option("sample", f"sample_{name}") for name in ("replicas", "node_port"))
    host = sample.host(plan)

    before = sample.placed_anew(cluster, plan)
    leader = holder(cluster, "kube-controller-manager")
    [(name, _), *_] = sorted(before.items(), key=lambda item: (-item[1], item[0] != leader))
    gone = nodes[name]
    askable = [nodes[name].address for name in sorted(set(before) - {gone.name})]
    edges = [nodes[name].address for name in plan.on("haproxy") if name != gone.name] if plan.has("consul_sync") else []
    loads = [Load(port, host, 20, tls=False, address=address) for address in askable] + [Load(443, host, 20, address=address) for address in edges]

    def work() -> float:
        power.off(gone)
        start = time.monotonic()

        def whole() -> bool:
            now = sample.places(cluster)
            return sum(now.values()) == replicas and gone.name not in now

        until("all replicas are ready on the nodes that are left", whole)
        return time.monotonic() - start

    took = asyncio.run(loaded(loads, work))
    led = ", with the controllers led from there" if gone.name == leader else ""
    tell(judged(f"{gone.name} off{led}: the sample has all replicas again after", took, WHOLE))
    for load in loads:
        assert load.answered, f"{load.address}:{load.port} answered nothing"
        assert load.failures == [], f"{load.address}:{load.port}: {load.text()}"

    power.on(gone)
    until(f"{gone.name} is ready again", lambda: gone.name in cluster.ready_nodes())


@pytest.fixture
def cut(nodes: dict[str, Node], key_value: KeyValueStore) -> Iterator[Node]:
    """A control node whose packets to and from all other nodes are lost; it heals by itself after a minute, whatever becomes of the test."""
    node = key_value.members[-1]
    peers = ", ".join(other.address for other in nodes.values() if other is not node)
    directions = {"input": "saddr", "output": "daddr", "forward": "daddr"}
    chains = [f"chain {hook} {{\ntype filter hook {hook} priority -300\nip {field} {{ {peers} }} drop\n}}" for hook, field in directions.items()]
    rules = "\n".join(["table inet ashlar_cut {", *chains, "}"])
    node.run("systemd-run --quiet --collect --unit=ashlar-conformance-heal --on-active=60 nft delete table inet ashlar_cut")
    node.run(f"echo '{rules}' | nft -f -")
    yield node
    node.run("nft delete table inet ashlar_cut; systemctl stop ashlar-conformance-heal.timer")


def test_a_node_that_is_cut_off_takes_no_writes_and_the_others_go_on(
    cut: Node, nodes: dict[str, Node], key_value: KeyValueStore, workload: Workload
) -> None:
    others = [node for node in nodes.values() if node is not cut]
    key = f"/ashlar-conformance/{random_name('cut')}"
    member = next(node for node in key_value.members if node is not cut)
    until("the majority takes writes", lambda: key_value.put(member, key, "majority", 10))
    # Of a key of its own: a write that was not confirmed may still arrive when the packet that carries it is sent again.
    with pytest.raises(CommandError):  # A member without a majority takes no write.
        key_value.put(cut, f"{key}/unknown", "minority", 9)
    at_once(lambda node: until(f"the API answers on {node.name}", lambda: balanced(node)), others)
    until(f"the API server of {cut.name} says that it is not ready", lambda: workload.cluster.ask(cut.name, "GET", "/readyz")[0] != 200)
    cut.run("nft flush table inet ashlar_cut")
    until("the member that was cut off has what the majority wrote", lambda: key_value.get(cut, key) == ["majority"])
    key_value.forget(member, key)


def test_everything_off_and_on_comes_back_by_itself(
    nodes: dict[str, Node], power: Power, plan: Plan, key_value: KeyValueStore, workload: Workload, tell: Tell
) -> None:
    """A power cut of the whole site: nobody runs anything, and what was written is there and what ran answers."""
    cluster = workload.cluster
    key = f"/ashlar-conformance/{random_name('all-off')}"
    key_value.put(key_value.members[0], key, "kept")
    names = {name: pod["metadata"]["name"] for name, pod in workload.pods.items()}

    at_once(power.off, nodes.values())
    assert not any(at_once(reachable, nodes.values())), "all nodes are off"
    start = time.monotonic()
    at_once(power.on, nodes.values())
    at_once(lambda node: until(f"{node.name} answers by SSH", lambda: reachable(node)), nodes.values())
    at_once(
        lambda name: until(f"the API server of {name} is ready", lambda: cluster.ask(name, "GET", "/readyz")[1] == "ok", 120), plan.on("kubernetes_control")
    )
    tell(f"all nodes off and on: the API is ready on all control nodes {time.monotonic() - start:.0f} s after the power came back")
    for member in key_value.members:
        assert key_value.get(member, key) == ["kept"], member.name
    key_value.forget(key_value.members[0], key)

    # A kubelet's own sight is older than the cut for a moment: what counts is that pods answer.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def through(name: str) -> set[str]:
        url = f"http://{nodes[name].address}:{workload.node_port}/"
        return {opener.open(url, timeout=5).read().decode().strip() for _ in range(12)}

    wanted = set(names.values())
    at_once(lambda name: until(f"all pods answer through {name}", lambda: through(name) == wanted, 120), workload.pods)
    tell(f"all nodes off and on: all pods answer through all nodes after {time.monotonic() - start:.0f} s")

    def by_name(name: str) -> bool:
        return workload.shell(name, "wget -q -T 5 -O - http://probe/").strip() in wanted

    at_once(lambda name: until(f"the pod on {name} resolves and reaches its Service", lambda: by_name(name), 60), workload.pods)
    at_once(
        lambda node: until(f"{node.name} has no failed unit", lambda: node.run("systemctl list-units --failed --no-legend --plain") == "", 60), nodes.values()
    )
    for node in nodes.values():
        rules = json.loads(node.run("nft -j list tables"))["nftables"] if "firewall" in node.machine.components else []
        assert not rules or any(one.get("table", {}).get("name") == "ashlar" for one in rules), f"{node.name} came back without its firewall"
