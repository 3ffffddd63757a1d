# SPDX-License-Identifier: Apache-2.0
"""Services of Kubernetes and their ready endpoints are in the site's catalogue, at once, as long as they are there, and whatever fails meanwhile."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest

from .support.catalogue import Catalogue
from .support.cluster import FOLDERS, Cluster, Object, Workload, random_name, service
from .support.figures import Tell, judged, mostly
from .support.nodes import Node
from .support.plan import Plan
from .support.waiting import at_once, holds, until

pytestmark = [pytest.mark.needs("consul_sync")]

APPEARS = 1.0
"""Seconds, of the median."""
TAKEOVER = 20.0
"""Seconds; five to nine are usual."""
SLICES = "/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices"
LEASE = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/ashlar-consul-sync"


@pytest.fixture(scope="module")
def catalogue(plan: Plan) -> Catalogue:
    return Catalogue(plan)


@pytest.fixture(scope="module")
def one(nodes: dict[str, Node], plan: Plan) -> Node:
    """A node to ask."""
    return nodes[plan.on("consul")[-1]]


@pytest.fixture(scope="module")
def synthetic(plan: Plan) -> str:
    return str(plan.option("consul", "consul_sync_node"))


@pytest.fixture
def made(workload: Workload) -> Iterator[Callable[..., str]]:
    """Makes a Service without pods and its EndpointSlice of the same name; both are gone afterwards."""
    names: list[str] = []

    def make(addresses: list[str], annotations: dict[str, str] | None = None) -> str:
        name = random_name("synced")
        names.append(name)
        body = service(name)
        del body["spec"]["selector"]
        body["metadata"]["annotations"] = annotations or {}
        workload.cluster.create(body, workload.namespace)
        workload.cluster.request("POST", SLICES.format(namespace=workload.namespace), endpoints(name, addresses))
        return name

    yield make
    for name in names:
        workload.cluster.delete(workload.path("Service", name))


def endpoints(name: str, addresses: list[str]) -> Object:
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": name, "labels": {"kubernetes.io/service-name": name, "endpointslice.kubernetes.io/managed-by": "conformance"}},
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
        "endpoints": [{"addresses": [address], "conditions": {"ready": True}} for address in addresses],
    }


def move(workload: Workload, name: str, addresses: list[str]) -> None:
    path = f"{SLICES.format(namespace=workload.namespace)}/{name}"
    until(
        f"the API takes the endpoints of {name}",
        lambda: workload.cluster.patch(path, {"endpoints": endpoints(name, addresses)["endpoints"]}),
        pause=0.1,
    )


def named(workload: Workload, name: str) -> str:
    return f"{name}--{workload.namespace}"


def instances(catalogue: Catalogue, node: Node, name: str) -> list[Object]:
    return list(catalogue.get(node, f"/v1/catalog/service/{name}?consistent"))


def addresses(catalogue: Catalogue, node: Node, name: str) -> set[str]:
    return {str(one["ServiceAddress"]) for one in instances(catalogue, node, name)}


def becomes(catalogue: Catalogue, node: Node, name: str, wanted: set[str]) -> float:
    """Seconds until the catalogue has these addresses of a name and no others."""
    start = time.monotonic()
    until(f"{name} is at {sorted(wanted)}", lambda: addresses(catalogue, node, name) == wanted, pause=0.05)
    return time.monotonic() - start


def active(cluster: Cluster) -> str:
    return str(cluster.get(LEASE)["spec"].get("holderIdentity") or "")


def events(workload: Workload, name: str) -> list[str]:
    found = workload.cluster.items(f"/api/v1/namespaces/{workload.namespace}/events?fieldSelector=involvedObject.name={name}")
    return [str(event["message"]) for event in found if event["reason"] == "NotInCatalogue"]


def figures(node: Node, plan: Plan) -> dict[str, float]:
    text = node.run(f"curl -sf http://127.0.0.1:{plan.option('consul_sync', 'consul_sync_status_port')}/metrics")
    return {line.split()[0]: float(line.split()[1]) for line in text.splitlines() if not line.startswith("#")}


def test_an_endpoint_is_in_the_names_of_all_nodes_at_once(
    workload: Workload, made: Callable[..., str], catalogue: Catalogue, nodes: dict[str, Node], plan: Plan, tell: Tell, rounds: int
) -> None:
    name = made(["192.0.2.1"])
    asking = [nodes[node] for node in plan.on("consul")]
    becomes(catalogue, asking[0], named(workload, name), {"192.0.2.1"})
    ahead = {node.name: node.ahead() for node in asking}
    came: list[float] = []
    for number in range(rounds):
        address = f"198.51.100.{number + 1}"

        def work(node: Node | None, address: str = address) -> float:
            if node is None:
                time.sleep(0.5)
                move(workload, name, [address])
                return time.time()
            at = catalogue.appears_at_agent(node, named(workload, name), address)
            assert at is not None, f"{node.name} does not know {address}"
            return at - ahead[node.name]

        # The API's answer comes after the endpoint is there for all who watch, so a time may be below nothing.
        start, *seen = at_once(work, [None, *asking])
        came += [at - start for at in seen]
    tell(mostly("an endpoint is in DNS", came, APPEARS))


def test_a_deployment_is_followed_from_its_first_pod_to_its_end(workload: Workload, catalogue: Catalogue, one: Node, synthetic: str, tell: Tell) -> None:
    name = random_name("followed")
    found = named(workload, name)
    workload.deployment(name, 3)
    took = []
    try:
        for count in (3, 10, 2):
            if count != 3:
                workload.cluster.patch(f"{FOLDERS['Deployment'].format(namespace=workload.namespace)}/{name}", {"spec": {"replicas": count}})
            pods = workload.running(name, count)
            took.append(becomes(catalogue, one, found, {pod["status"]["podIP"] for pod in pods}))
        tell(f"scaled to 3, 10 and 2, the catalogue agreed {', '.join(f'{value:.2f}' for value in took)} s after the pods were seen ready")
        instance = instances(catalogue, one, found)[0]
        assert (instance["Node"], instance["ServicePort"], instance["ServiceTags"]) == (synthetic, 8080, ["http"])
        expected = {
            "external-source": "kubernetes",
            "owner": "consul_sync",
            "kubernetes-namespace": workload.namespace,
            "kubernetes-service": name,
            "kubernetes-port-name": "http",
        }
        assert instance["ServiceMeta"] == expected
        workload.cluster.delete(workload.path("Service", name))
        becomes(catalogue, one, found, set())
    finally:
        workload.remove(name)


def test_a_pod_that_is_not_ready_is_not_in_the_catalogue(workload: Workload, catalogue: Catalogue, one: Node) -> None:
    name = random_name("unready")
    workload.deployment(name, 2)
    try:
        pods = workload.running(name, 2)
        becomes(catalogue, one, named(workload, name), {pod["status"]["podIP"] for pod in pods})
        gone, stays = pods
        workload.cluster.shell(workload.namespace, gone["metadata"]["name"], "rm /www/index.html")
        becomes(catalogue, one, named(workload, name), {stays["status"]["podIP"]})
    finally:
        workload.remove(name)


def test_annotations_name_it_route_it_and_leave_it_out(workload: Workload, made: Callable[..., str], catalogue: Catalogue, one: Node) -> None:
    given = random_name("given")
    name = made(["192.0.2.1"], {"ashlar.io/consul-name": given, "ashlar.io/route-host": "{{ odd }}.$(example)", "ashlar.io/route-login": "true"})
    becomes(catalogue, one, given, {"192.0.2.1"})
    assert addresses(catalogue, one, named(workload, name)) == set()
    meta = instances(catalogue, one, given)[0]["ServiceMeta"]
    assert {key: value for key, value in meta.items() if key.startswith("route-")} == {"route-host": "{{ odd }}.$(example)", "route-login": "true"}
    path = workload.path("Service", name)
    workload.cluster.patch(path, {"metadata": {"annotations": {"ashlar.io/consul-name": None}}})
    becomes(catalogue, one, named(workload, name), {"192.0.2.1"})
    becomes(catalogue, one, given, set())
    # A route that can't be had whole is not had at all, or a login would be missing from it.
    workload.cluster.patch(path, {"metadata": {"annotations": {"ashlar.io/route-path": "/" * 10000}}})
    until("the routes are left out", lambda: "route-host" not in instances(catalogue, one, named(workload, name))[0]["ServiceMeta"])
    until("an Event says why", lambda: any("10000 characters" in text for text in events(workload, name)))
    workload.cluster.patch(path, {"metadata": {"annotations": {"ashlar.io/consul": "false"}}})
    becomes(catalogue, one, named(workload, name), set())


@pytest.mark.parametrize("name", ["$(reboot)", "{{ site }}", "a.b", "Capital", "x" * 10000, "", "consul", "kubernetes-control"])
def test_a_name_that_cannot_be_is_refused_alone(name: str, workload: Workload, made: Callable[..., str], catalogue: Catalogue, one: Node) -> None:
    before = {key for key in catalogue.get(one, "/v1/catalog/services") if "synced" not in key}
    address = "203.0.113.77"
    odd = made([address], {"ashlar.io/consul-name": name})
    plain = made(["192.0.2.2"])
    becomes(catalogue, one, named(workload, plain), {"192.0.2.2"})
    until("an Event says why", lambda: any("ashlar.io/consul-name" in text for text in events(workload, odd)))
    assert {key for key in catalogue.get(one, "/v1/catalog/services") if "synced" not in key} == before
    if name in ("consul", "kubernetes-control"):
        assert address not in {str(entry["ServiceAddress"]) for entry in instances(catalogue, one, name)}


def test_a_name_is_held_by_one_service(workload: Workload, made: Callable[..., str], catalogue: Catalogue, one: Node) -> None:
    given = random_name("shared")
    first = made(["192.0.2.1"], {"ashlar.io/consul-name": given})
    becomes(catalogue, one, given, {"192.0.2.1"})
    time.sleep(1.1)  # Ages are told in seconds.
    second = made(["192.0.2.2"], {"ashlar.io/consul-name": given})
    until("an Event says who holds it", lambda: any(f"held by the Service {workload.namespace}/{first}" in text for text in events(workload, second)))
    assert addresses(catalogue, one, given) == {"192.0.2.1"}
    workload.cluster.delete(workload.path("Service", first))
    becomes(catalogue, one, given, {"192.0.2.2"})


def test_what_others_registered_is_left_alone(workload: Workload, made: Callable[..., str], catalogue: Catalogue, one: Node, synthetic: str) -> None:
    name = made(["192.0.2.1"])
    found = named(workload, name)
    becomes(catalogue, one, found, {"192.0.2.1"})
    try:
        for node, identity in ((synthetic, "by-hand"), (one.name, "by-hand-too")):
            entry = {"ID": identity, "Service": found, "Address": "203.0.113.1", "Port": 1}
            catalogue.put(one, "/v1/catalog/register", {"Node": node, "Address": "127.0.0.1", "SkipNodeUpdate": True, "Service": entry})
        move(workload, name, ["192.0.2.2"])
        becomes(catalogue, one, found, {"192.0.2.2", "203.0.113.1"})
        workload.cluster.delete(workload.path("Service", name))
        becomes(catalogue, one, found, {"203.0.113.1"})
        left = [entry for entry in instances(catalogue, one, found) if entry["Node"] == synthetic]
        assert [entry["ServiceID"] for entry in left] == ["by-hand"]
    finally:
        for node, identity in ((synthetic, "by-hand"), (one.name, "by-hand-too")):
            catalogue.put(one, "/v1/catalog/deregister", {"Node": node, "ServiceID": identity})


def leading(nodes: dict[str, Node], plan: Plan) -> list[str]:
    """Nodes that say of themselves that they are active."""
    return [name for name in plan.on("consul_sync") if figures(nodes[name], plan)["ashlar_consul_sync_active"] == 1]


def test_one_node_is_active_and_the_others_are_ready(workload: Workload, nodes: dict[str, Node], plan: Plan, tell: Tell) -> None:
    members = [nodes[name] for name in plan.on("consul_sync")]
    until("one alone is active", lambda: leading(nodes, plan) == [active(workload.cluster)])
    assert figures(nodes[active(workload.cluster)], plan)["ashlar_consul_sync_instances"] >= len(workload.pods)
    memory = {node.name: int(node.run("systemctl show -P MainPID consul-sync | xargs -I{} grep VmRSS /proc/{}/status").split()[1]) // 1024 for node in members}
    tell(f"consul_sync: resident memory, MiB: {memory}; active: {active(workload.cluster)}")
    assert max(memory.values()) < 128


def test_its_rights_end_where_its_work_ends(workload: Workload, plan: Plan, nodes: dict[str, Node], catalogue: Catalogue) -> None:
    node = nodes[plan.on("consul_sync")[0]]
    pair = "--cacert /etc/ashlar/pki/ca/kubernetes.crt --cert /etc/ashlar/pki/consul_sync/kubernetes.crt --key /etc/ashlar/pki/consul_sync/kubernetes.key"

    def ask(path: str, method: str = "GET", body: str = "") -> str:
        sent = f"-H 'Content-Type: application/json' -d '{body}'" if body else ""
        return node.run(f"curl -s -o /dev/null -w '%{{http_code}}' {pair} -X {method} {sent} https://127.0.0.1:6443{path}")

    leases = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases"
    assert ask("/api/v1/services") == ask(f"{leases}/ashlar-consul-sync") == "200"
    lease = '{"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "other"}}'
    refused = {path: ask(path) for path in ("/api/v1/secrets", "/api/v1/pods", "/api/v1/nodes", leases, f"{leases}/kube-controller-manager")}
    refused["make a Lease"] = ask(leases, "POST", lease)
    refused["delete a Service"] = ask(f"/api/v1/namespaces/{workload.namespace}/services/probe", "DELETE")
    assert set(refused.values()) == {"403"}, refused
    assert node.run("stat -c '%a %U' /etc/consul-sync/consul-token").split() == ["600", "consul-sync"]
    for name in plan.on("consul_sync"):
        shown = nodes[name].run("cd /proc/$(systemctl show -P MainPID consul-sync) && cat cmdline environ; journalctl -u consul-sync --no-pager -o cat")
        assert catalogue.token("sync") not in shown


@pytest.mark.disruptive
def test_killed_on_the_active_node_it_catches_up(
    workload: Workload, made: Callable[..., str], catalogue: Catalogue, nodes: dict[str, Node], one: Node, tell: Tell
) -> None:
    name = made(["192.0.2.1"])
    becomes(catalogue, one, named(workload, name), {"192.0.2.1"})
    where = nodes[active(workload.cluster)]
    where.run("systemctl kill --signal=KILL consul-sync")
    move(workload, name, ["192.0.2.2", "192.0.2.3"])
    took = becomes(catalogue, one, named(workload, name), {"192.0.2.2", "192.0.2.3"})
    tell(judged(f"consul_sync killed on {where.name}: caught up, active is {active(workload.cluster)}", took, TAKEOVER))


@pytest.mark.disruptive
def test_silent_on_the_active_node_another_takes_over_and_it_writes_no_more(
    workload: Workload, made: Callable[..., str], catalogue: Catalogue, nodes: dict[str, Node], plan: Plan, one: Node, tell: Tell
) -> None:
    """It stops in the middle of its life and wakes up later without having noticed: the worst way to lose a lease."""
    if len(plan.on("consul_sync")) < 2:
        pytest.skip("one node alone has nobody to take over")
    name = made(["192.0.2.1"])
    becomes(catalogue, one, named(workload, name), {"192.0.2.1"})
    where = nodes[active(workload.cluster)]
    where.run("systemctl kill --signal=STOP consul-sync")
    try:
        move(workload, name, ["192.0.2.2"])
        took = becomes(catalogue, one, named(workload, name), {"192.0.2.2"})
        now = active(workload.cluster)
        tell(judged(f"consul_sync of {where.name} silent: {now} has caught up", took, TAKEOVER))
        assert now != where.name
    finally:
        where.run("systemctl kill --signal=CONT consul-sync")
    move(workload, name, ["192.0.2.4"])
    becomes(catalogue, one, named(workload, name), {"192.0.2.4"})
    assert holds("the catalogue stays right", lambda: addresses(catalogue, one, named(workload, name)) == {"192.0.2.4"}, 5)
    until("one alone is active, and knows it", lambda: leading(nodes, plan) == [active(workload.cluster)])


@pytest.mark.disruptive
@pytest.mark.parametrize("whose", ["the leader's", pytest.param("the active node's", marks=pytest.mark.long)])
def test_a_server_of_consul_is_killed(
    whose: str, workload: Workload, made: Callable[..., str], catalogue: Catalogue, nodes: dict[str, Node], plan: Plan, tell: Tell
) -> None:
    if len(plan.on("consul_sync")) < 3:
        pytest.skip("one server alone has nobody to go on")
    name = made(["192.0.2.1"])
    some = next(iter(nodes.values()))
    if whose == "the leader's":
        leader = catalogue.leader(some)
        gone = next(node for node in nodes.values() if node.address == leader)
    else:
        gone = nodes[active(workload.cluster)]
    other = next(node for node in nodes.values() if node is not gone)
    becomes(catalogue, other, named(workload, name), {"192.0.2.1"})
    gone.run("systemctl kill --signal=KILL consul && systemctl stop consul")
    try:
        move(workload, name, ["192.0.2.2", "192.0.2.3"])
        took = becomes(catalogue, other, named(workload, name), {"192.0.2.2", "192.0.2.3"})
        # Consul has another leader first, and then another node is active.
        tell(judged(f"{whose} Consul killed on {gone.name}: caught up, active is {active(workload.cluster)}", took, 2 * TAKEOVER))
    finally:
        gone.run("systemctl start --no-block consul")
        until("Consul is back", lambda: catalogue.leader(gone))
    move(workload, name, ["192.0.2.4"])
    becomes(catalogue, gone, named(workload, name), {"192.0.2.4"})


@pytest.mark.disruptive
def test_api_servers_start_again(
    workload: Workload, made: Callable[..., str], catalogue: Catalogue, nodes: dict[str, Node], plan: Plan, one: Node, tell: Tell
) -> None:
    name = made(["192.0.2.1"])
    becomes(catalogue, one, named(workload, name), {"192.0.2.1"})
    for number, node in enumerate([nodes[name_] for name_ in plan.on("kubernetes_control")]):
        node.run("systemctl restart kube-apiserver")
        wanted = f"192.0.2.{10 + number}"
        move(workload, name, [wanted])
        took = becomes(catalogue, one, named(workload, name), {wanted})
        tell(f"API server of {node.name} started again: followed after {took:.2f} s")
    control = plan.on("kubernetes_control")
    until("all API servers are ready", lambda: all(workload.cluster.ask(name_, "GET", "/readyz")[1] == "ok" for name_ in control))
