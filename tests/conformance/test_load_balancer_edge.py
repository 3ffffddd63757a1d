# SPDX-License-Identifier: Apache-2.0
"""The edge follows the catalogue: what asks for a name is reached by it from outside, what is gone is not asked, and nothing is lost meanwhile."""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from .support.catalogue import Catalogue
from .support.cluster import Object, Workload, random_name
from .support.load import Connection, Load
from .support.nodes import Node
from .support.plan import Plan
from .support.power import Power
from .support.waiting import at_once, until

pytestmark = pytest.mark.needs("haproxy", "consul", "orchestrator")

SYNTHETIC = "conformance-edge"


@pytest.fixture(scope="module")
def domain(plan: Plan) -> str:
    return str(plan.shared["site_domain"])


@pytest.fixture(scope="module")
def edges(plan: Plan, nodes: dict[str, Node]) -> list[Node]:
    return [nodes[name] for name in plan.on("haproxy")]


class Routes:
    """Registers instances that ask for routes, and asks edges as a client of theirs."""

    def __init__(self, plan: Plan, catalogue: Catalogue, node: Node) -> None:
        self.plan, self.catalogue, self.node = plan, catalogue, node
        self.trusted = ssl.create_default_context(cafile=str(Path(plan.credentials) / "authorities" / "site" / "ca.crt"))
        self.made: set[str] = set()

    def add(self, name: str, address: str, port: int = 8080, **meta: str) -> str:
        instance = f"{name[:60]}-{address}-{port}"
        texts = {key.replace("_", "-"): value for key, value in meta.items()}
        body = {"ID": instance, "Service": name, "Address": address, "Port": port, "Meta": texts}
        self.catalogue.put(self.node, "/v1/catalog/register", {"Node": SYNTHETIC, "Address": "127.0.0.1", "Service": body})
        self.made.add(instance)
        return instance

    def remove(self, instance: str) -> None:
        self.catalogue.put(self.node, "/v1/catalog/deregister", {"Node": SYNTHETIC, "ServiceID": instance})
        self.made.discard(instance)

    def ask(self, edge: Node, host: str, path: str = "/", **options: Any) -> Any:
        async def once() -> Any:
            connection = Connection(443, host, address=edge.address, context=self.trusted)
            try:
                return await asyncio.wait_for(connection.ask(path, **options), 10)
            finally:
                connection.close()

        return asyncio.run(once())

    def answers(self, edge: Node, host: str, path: str = "/", status: int = 200) -> bool:
        return bool(self.ask(edge, host, path).status == status)

    def status(self, edge: Node) -> dict[str, Any]:
        return dict(json.loads(edge.run("cat /run/ashlar-edge/status.json")))


@pytest.fixture
def routes(plan: Plan, nodes: dict[str, Node]) -> Iterator[Routes]:
    made = Routes(plan, Catalogue(plan), nodes[plan.on("consul")[0]])
    yield made
    for instance in sorted(made.made):
        made.remove(instance)
    made.catalogue.call(made.node, "PUT", "/v1/catalog/deregister", {"Node": SYNTHETIC})


def pods(workload: Workload) -> list[str]:
    return [str(pod["status"]["podIP"]) for pod in workload.pods.values()]


def test_a_name_is_served_by_every_edge_with_the_sites_certificate(
    routes: Routes, workload: Workload, edges: list[Node], domain: str
) -> None:
    name = random_name("routed")
    host = f"{name}.{domain}"
    names = {pod["metadata"]["name"] for pod in workload.pods.values()}
    for address in pods(workload):
        routes.add(name, address, route_host=host)
    start = time.monotonic()
    for edge in edges:
        until(f"{edge.name} serves {host}", lambda edge=edge: routes.answers(edge, host), 10, 0.1)
    print(f"a new name is served after {time.monotonic() - start:.1f} s")
    for edge in edges:
        until("every instance is asked", lambda edge=edge: {routes.ask(edge, host).body.decode().strip() for _ in range(20)} == names, 20)


def test_paths_divide_a_host_and_other_names_are_not_there(routes: Routes, workload: Workload, edges: list[Node], domain: str) -> None:
    host = f"{random_name('paths')}.{domain}"
    first, *_, last = pods(workload)
    routes.add(random_name("root"), first, route_host=host)
    routes.add(random_name("cgi"), last, route_host=host, route_path="/cgi-bin")
    by_address = {str(pod["status"]["podIP"]): str(pod["metadata"]["name"]) for pod in workload.pods.values()}
    for edge in edges:
        until(f"{edge.name} serves {host}", lambda edge=edge: routes.answers(edge, host, "/cgi-bin/who"), 10, 0.1)
        assert routes.ask(edge, host).body.decode().split()[0] == by_address[first]
        assert routes.ask(edge, host, "/cgi-bin/who").body.decode().split()[0] == by_address[last]
        assert routes.ask(edge, f"{random_name('nobody')}.{domain}").status == 404


def test_an_instance_that_is_taken_away_is_not_asked_any_more(routes: Routes, workload: Workload, edges: list[Node], domain: str) -> None:
    name = random_name("leaving")
    host = f"{name}.{domain}"
    instances = {address: routes.add(name, address, route_host=host) for address in pods(workload)}
    by_address = {str(pod["status"]["podIP"]): str(pod["metadata"]["name"]) for pod in workload.pods.values()}
    gone = min(instances)
    for edge in edges:
        until("every instance is asked", lambda edge=edge: len({routes.ask(edge, host).body for _ in range(20)}) == len(instances), 20)
    routes.remove(instances[gone])
    start = time.monotonic()
    for edge in edges:
        until(
            f"{edge.name} asks the others alone",
            lambda edge=edge: by_address[gone] not in {routes.ask(edge, host).body.decode().strip() for _ in range(20)},
            10,
            0.05,
        )
    print(f"an instance that was taken away is left after {time.monotonic() - start:.1f} s")


@pytest.mark.parametrize(
    ("meta", "says"),
    [
        ({"route_host": "not a name"}, "RFC 1123"),
        ({"route_host": "a" * 500}, "at most 253"),
        ({"route_host": "$(reboot).{{ x }}"}, "RFC 1123"),
        ({"route_host": "HOST", "route_path": "/a/../b"}, "no parts of a path"),
        ({"route_host": "HOST", "route_path": "none"}, "begins with"),
        ({"route_tcp_port": "8404"}, "route-tcp-port must be"),
    ],
)
def test_a_bad_route_is_refused_and_the_others_work(
    routes: Routes, workload: Workload, edges: list[Node], domain: str, meta: dict[str, str], says: str
) -> None:
    good, bad = random_name("good"), random_name("bad")
    host = f"{good}.{domain}"
    routes.add(bad, pods(workload)[0], **{key: text.replace("HOST", f"{bad}.{domain}") for key, text in meta.items()})
    routes.add(good, pods(workload)[0], route_host=host)
    for edge in edges:
        until(f"{edge.name} serves {host}", lambda edge=edge: routes.answers(edge, host), 10, 0.1)

        def refused(edge: Node = edge) -> bool:
            return any(one["service"] == bad and says in one["reason"] for one in routes.status(edge)["refused"])

        until(f"{edge.name} says why {bad} is refused", refused, 10)
        assert bad in edge.run("journalctl -u consul-template --since -60s --no-pager -o cat")


def test_of_two_that_ask_for_one_name_the_first_keeps_it(routes: Routes, workload: Workload, edges: list[Node], domain: str) -> None:
    first, second = f"zz-{random_name('first')}", f"aa-{random_name('second')}"
    host = f"{first}.{domain}"
    one, *_, other = pods(workload)
    routes.add(first, one, route_host=host)
    routes.add(second, other, route_host=host)
    for edge in edges:
        until(
            f"{edge.name} refuses the second", lambda edge=edge: [x for x in routes.status(edge)["refused"] if x["service"] == second], 10
        )
        assert {x["service"] for x in routes.status(edge)["routes"] if x["route"] == f"{host}/"} == {first}


def test_where_a_login_is_asked_for_the_sites_own_passes(
    routes: Routes, workload: Workload, edges: list[Node], domain: str, plan: Plan
) -> None:
    import base64

    name = random_name("login")
    routes.add(name, pods(workload)[0], route_host=f"{name}.{domain}", route_login="true")
    password = (Path(plan.credentials) / "logins" / "admin").read_text().strip()
    for edge in edges:
        until("a stranger is asked for a login", lambda edge=edge: routes.answers(edge, f"{name}.{domain}", status=401), 10, 0.1)
        right = base64.b64encode(f"admin:{password}".encode()).decode()
        assert routes.ask(edge, f"{name}.{domain}", headers={"Authorization": f"Basic {right}"}).status == 200
        assert routes.ask(edge, f"{name}.{domain}", headers={"Authorization": "Basic YWRtaW46YWRtaW4="}).status == 401
        assert password not in edge.run("grep -rs '^  user' /etc/haproxy /var/lib/ashlar-edge || true")


def test_figures_are_for_who_shows_a_certificate(edges: list[Node]) -> None:
    for edge in edges:
        url = f"https://{edge.address}:8404/metrics"
        ca, pair = "/etc/ashlar/pki/ca/site.crt", "/etc/ashlar/pki/haproxy/probe"
        assert "haproxy_frontend_http_requests_total" in edge.run(f"curl -sS --cacert {ca} --cert {pair}.crt --key {pair}.key {url}")
        assert edge.ask(f"curl -sS --cacert {ca} {url}").code != 0


def steady(edge: Node, host: str, work: Callable[[], None], rate: int = 200) -> Load:
    """What a load has met while something was done, and one second more."""

    async def run() -> Load:
        load, done = Load(443, host, rate, address=edge.address), asyncio.Event()
        task = asyncio.create_task(load.run(300, done))
        await asyncio.sleep(1)
        try:
            await asyncio.get_running_loop().run_in_executor(None, work)
            await asyncio.sleep(1)
        finally:
            done.set()
            await task
        return load

    return asyncio.run(run())


@pytest.fixture
def scaled(workload: Workload) -> Iterator[str]:
    name = random_name("scaled")
    workload.deployment(name, 3)
    yield name
    workload.remove(name)


def scale(workload: Workload, name: str, count: int) -> list[Object]:
    workload.cluster.patch(workload.path("Deployment", name), {"spec": {"replicas": count}})
    return workload.running(name, count, 120)


def test_nothing_is_lost_while_instances_come_go_and_die_and_routes_change(
    routes: Routes, workload: Workload, edges: list[Node], scaled: str, domain: str
) -> None:
    """200 requests a second while a service has 3, 10 and 2 instances, one is killed, and fifty routes change."""
    host = f"{scaled}.{domain}"
    instances = {
        str(pod["status"]["podIP"]): routes.add(scaled, str(pod["status"]["podIP"]), route_host=host) for pod in workload.running(scaled, 3)
    }
    for edge in edges:
        until(f"{edge.name} serves {host}", lambda edge=edge: routes.answers(edge, host), 10, 0.1)

    def work() -> None:
        found = scale(workload, scaled, 10)
        for pod in found:
            address = str(pod["status"]["podIP"])
            instances[address] = routes.add(scaled, address, route_host=host)
        victim = found[0]
        workload.cluster.delete(f"/api/v1/namespaces/{workload.namespace}/pods/{victim['metadata']['name']}", grace_seconds=0)
        time.sleep(3)
        for number in range(50):
            routes.add(f"other{number % 5}", "192.0.2.1", route_host=f"o{number}.{domain}", route_path=f"/{number}")
        kept = []
        for pod in found[1:3]:
            kept.append(str(pod["status"]["podIP"]))
            path = f"/api/v1/namespaces/{workload.namespace}/pods/{pod['metadata']['name']}"
            workload.cluster.patch(path, {"metadata": {"annotations": {"controller.kubernetes.io/pod-deletion-cost": "1000"}}})
        for address in sorted(set(instances) - set(kept)):
            routes.remove(instances.pop(address))
        time.sleep(3)
        scale(workload, scaled, 2)

    load = steady(edges[0], host, work)
    print(f"through the edge: {load.text()}")
    assert load.failures == []


def test_latency_beside_a_pod_asked_directly(routes: Routes, workload: Workload, edges: list[Node], domain: str) -> None:
    name = random_name("latency")
    routes.add(name, pods(workload)[0], route_host=f"{name}.{domain}")
    until("it is served", lambda: routes.answers(edges[0], f"{name}.{domain}"), 10, 0.1)
    through = steady(edges[0], f"{name}.{domain}", lambda: time.sleep(8))
    straight = edges[0].python(STRAIGHT, pods(workload)[0], 8080, 200, 8, seconds=40)
    print(f"through the edge: {through.text()}; a pod from the edge's host: p50 {straight[0]:.1f} ms, p99 {straight[1]:.1f} ms")
    assert through.failures == []


STRAIGHT = r"""
import http.client, json, sys, time
address, port, rate, seconds = json.loads(sys.argv[1])
taken, start = [], time.monotonic()
for number in range(int(rate * seconds)):
    time.sleep(max(0, start + number / rate - time.monotonic()))
    began = time.monotonic()
    connection = http.client.HTTPConnection(address, port, timeout=5)
    connection.request("GET", "/")
    connection.getresponse().read()
    connection.close()
    taken.append((time.monotonic() - began) * 1000)
taken.sort()
print(json.dumps([taken[len(taken) // 2], taken[int(len(taken) * 0.99)]]))
"""


@pytest.mark.needs("consul_sync")
def test_an_annotated_service_is_served_and_follows_its_pods(
    routes: Routes, workload: Workload, edges: list[Node], scaled: str, domain: str
) -> None:
    host = f"{scaled}.{domain}"
    workload.running(scaled, 3)
    workload.cluster.patch(workload.path("Service", scaled), {"metadata": {"annotations": {"ashlar.io/route-host": host}}})
    for edge in edges:
        until(f"{edge.name} serves {host}", lambda edge=edge: routes.answers(edge, host), 20, 0.1)

    def work() -> None:
        scale(workload, scaled, 10)
        scale(workload, scaled, 2)

    load = steady(edges[0], host, work)
    print(f"through the edge, as the catalogue follows the API: {load.text()}")
    assert load.failures == []


@pytest.mark.disruptive
def test_the_edge_serves_what_it_knows_while_the_catalogue_is_away(
    routes: Routes, workload: Workload, edges: list[Node], domain: str
) -> None:
    name = random_name("known")
    host, edge = f"{name}.{domain}", edges[0]
    routes.add(name, pods(workload)[0], route_host=host)
    until(f"{edge.name} serves {host}", lambda: routes.answers(edge, host), 10, 0.1)
    edge.run("systemctl stop consul")
    try:
        edge.run("systemctl restart haproxy consul-template", 60)
        until(f"{edge.name} serves {host} after a start without Consul", lambda: routes.answers(edge, host), 20, 0.1)
    finally:
        edge.run("systemctl start consul")
    other = random_name("later")
    until("the catalogue is writable again", lambda: routes.add(other, pods(workload)[0], route_host=f"{other}.{domain}"), 60)
    until(f"{edge.name} follows again", lambda: routes.answers(edge, f"{other}.{domain}"), 60)


@pytest.mark.disruptive
@pytest.mark.needs("keepalived")
def test_the_virtual_address_goes_to_another_edge(
    plan: Plan, routes: Routes, workload: Workload, edges: list[Node], domain: str, power: Power
) -> None:
    if len(edges) < 2:
        pytest.fail("one edge cannot take an address from another: give a second node the class edge, or leave keepalived out")
    virtual = str(plan.option("keepalived", "keepalived_virtual_address"))
    name = random_name("virtual")
    host = f"{name}.{domain}"
    routes.add(name, pods(workload)[0], route_host=host)

    def holders() -> list[Node]:
        return [edge for edge in edges if virtual in edge.run("ip -4 -o address show")]

    def answers() -> bool:
        async def once() -> int:
            return (await asyncio.wait_for(Connection(443, host, address=virtual, context=routes.trusted).ask(), 3)).status

        return asyncio.run(once()) == 200

    until("one edge has the virtual address", lambda: len(holders()) == 1 and answers(), 30)
    holder = holders()[0]
    holder.run("systemctl stop haproxy")
    try:
        start = time.monotonic()
        until("another edge answers for it", lambda: answers(), 15, 0.1)
        print(f"the virtual address answers again after {time.monotonic() - start:.1f} s")
        assert holders() != [holder]
    finally:
        holder.run("systemctl start haproxy")
    at_once(lambda edge: until(f"{edge.name} serves {host}", lambda: routes.answers(edge, host), 30), edges)
