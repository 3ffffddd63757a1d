# SPDX-License-Identifier: Apache-2.0
"""The edge follows the catalogue: what asks for a name is reached by it from outside, what is gone is not asked, and nothing is lost meanwhile."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from .support.catalogue import CLIENT, Catalogue
from .support.cluster import Workload, random_name
from .support.edge import Routes, addresses, steady, straight, who
from .support.figures import Tell
from .support.load import Connection
from .support.nodes import Node
from .support.orchestrator import Applications
from .support.plan import Plan, converge
from .support.power import Power
from .support.remote import LISTEN
from .support.waiting import at_once, until

pytestmark = pytest.mark.needs("haproxy", "consul", "orchestrator")

@pytest.fixture(scope="module")
def domain(plan: Plan) -> str:
    return str(plan.shared["site_domain"])


@pytest.fixture(scope="module")
def edges(plan: Plan, nodes: dict[str, Node]) -> list[Node]:
    return [nodes[name] for name in plan.on("haproxy")]


@pytest.fixture
def routes(plan: Plan, nodes: dict[str, Node]) -> Iterator[Routes]:
    made = Routes(plan, Catalogue(plan), nodes[plan.on("consul")[0]])
    yield made
    made.clear()


def test_a_name_is_served_by_every_edge_with_the_sites_certificate(
    routes: Routes, applications: Applications, edges: list[Node], domain: str, tell: Tell
) -> None:
    name = random_name("routed")
    host = f"{name}.{domain}"
    for address in addresses(applications):
        routes.add(name, address, route_host=host)
    names = set(who(applications).values())
    start = time.monotonic()
    for edge in edges:
        routes.served(edge, host)
    tell(f"a new name is served after {time.monotonic() - start:.1f} s")
    for edge in edges:
        until("every instance is asked", lambda edge=edge: {routes.ask(edge, host).body.decode().strip() for _ in range(20)} == names)


def test_paths_divide_a_host_and_other_names_are_not_there(routes: Routes, applications: Applications, edges: list[Node], domain: str) -> None:
    host = f"{random_name('paths')}.{domain}"
    first, *_, last = addresses(applications)
    routes.add(random_name("root"), first, route_host=host)
    routes.add(random_name("cgi"), last, route_host=host, route_path="/cgi-bin")
    by_address = who(applications)
    for edge in edges:

        def server(path: str, edge: Node = edge) -> str:
            return str(routes.ask(edge, host, path).body.decode().split()[0])

        until(f"{edge.name} gives /cgi-bin to the other one", lambda server=server: server("/cgi-bin/who") == by_address[last], pause=0.1)
        assert server("/") == by_address[first]
        assert routes.ask(edge, f"{random_name('nobody')}.{domain}").status == 404


def test_an_instance_that_is_taken_away_is_not_asked_any_more(routes: Routes, applications: Applications, edges: list[Node], domain: str, tell: Tell) -> None:
    name = random_name("leaving")
    host = f"{name}.{domain}"
    instances = {address: routes.add(name, address, route_host=host) for address in addresses(applications)}
    by_address = who(applications)
    gone = min(instances)
    for edge in edges:
        until("every instance is asked", lambda edge=edge: len({routes.ask(edge, host).body for _ in range(20)}) == len(instances))
    routes.remove(instances[gone])
    start = time.monotonic()
    for edge in edges:
        until(
            f"{edge.name} asks the others alone",
            lambda edge=edge: by_address[gone] not in {routes.ask(edge, host).body.decode().strip() for _ in range(20)},
            pause=0.05,
        )
    tell(f"an instance that was taken away is left after {time.monotonic() - start:.1f} s")


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
    routes: Routes, applications: Applications, edges: list[Node], domain: str, meta: dict[str, str], says: str
) -> None:
    good, bad = random_name("good"), random_name("bad")
    host = f"{good}.{domain}"
    routes.add(bad, addresses(applications)[0], **{key: text.replace("HOST", f"{bad}.{domain}") for key, text in meta.items()})
    routes.add(good, addresses(applications)[0], route_host=host)
    for edge in edges:
        routes.served(edge, host)

        def refused(edge: Node = edge) -> bool:
            return any(one["service"] == bad and says in one["reason"] for one in routes.status(edge)["refused"])

        until(f"{edge.name} says why {bad} is refused", refused)
        assert bad in edge.run("journalctl -u consul-template --since -60s --no-pager -o cat")


def test_of_two_that_ask_for_one_name_the_first_keeps_it(routes: Routes, applications: Applications, edges: list[Node], domain: str) -> None:
    first, second = f"zz-{random_name('first')}", f"aa-{random_name('second')}"
    host = f"{first}.{domain}"
    one, *_, other = addresses(applications)
    routes.add(first, one, route_host=host)
    routes.add(second, other, route_host=host)
    for edge in edges:
        until(f"{edge.name} refuses the second", lambda edge=edge: [x for x in routes.status(edge)["refused"] if x["service"] == second])
        assert {x["service"] for x in routes.status(edge)["routes"] if x["route"] == f"{host}/"} == {first}


def test_where_a_login_is_asked_for_the_sites_own_passes(
    routes: Routes, applications: Applications, edges: list[Node], domain: str, plan: Plan
) -> None:
    import base64

    name = random_name("login")
    routes.add(name, addresses(applications)[0], route_host=f"{name}.{domain}", route_login="true")
    password = (Path(plan.credentials) / "logins" / "admin").read_text().strip()
    for edge in edges:
        routes.served(edge, f"{name}.{domain}", status=401)
        right = base64.b64encode(f"admin:{password}".encode()).decode()
        assert routes.ask(edge, f"{name}.{domain}", headers={"Authorization": f"Basic {right}"}).status == 200
        assert routes.ask(edge, f"{name}.{domain}", headers={"Authorization": "Basic YWRtaW46YWRtaW4="}).status == 401
        assert password not in edge.run("grep -rs '^  user' /etc/haproxy /var/lib/ashlar-edge || true")


def test_who_tries_passwords_is_stopped(routes: Routes, applications: Applications, edges: list[Node], domain: str, plan: Plan) -> None:
    name, edge = random_name("guessed"), edges[0]
    allowed = int(plan.option("haproxy", "haproxy_failed_logins_per_minute"))
    routes.add(name, addresses(applications)[0], route_host=f"{name}.{domain}", route_login="true")
    routes.served(edge, f"{name}.{domain}", status=401)
    try:
        answers = [routes.ask(edge, f"{name}.{domain}", headers={"Authorization": "Basic YWRtaW46YWRtaW4="}) for _ in range(allowed + 5)]
        assert [answer.status for answer in answers[:allowed]] == [401] * allowed
        assert (answers[-1].status, answers[-1].headers["retry-after"]) == (429, "60")
    finally:
        edge.python(COMMAND, "/run/haproxy/admin.sock", "clear table clients")


COMMAND = r"""
import json, socket, sys
path, command = json.loads(sys.argv[1])
with socket.socket(socket.AF_UNIX) as connection:
    connection.connect(path)
    connection.sendall(command.encode() + b"\n")
    print(json.dumps(connection.recv(65536).decode()))
"""


def test_what_the_sites_own_components_serve_is_reached_by_its_name(routes: Routes, edges: list[Node], plan: Plan) -> None:
    ports = [port for machine in plan.machines.values() for port in machine.ports if "route" in port]
    if not ports:
        pytest.skip("no component of this site has a route in its manifest")
    for port in ports:
        host = port["route"]["host"].replace("{{ site_domain }}", str(plan.shared["site_domain"])).split(",")[0]
        for edge in edges:
            path = port["route"].get("path", "/")
            look = partial(routes.ask, edge, host, path)
            until(f"{edge.name} leads {host}{path} to {port['component']}", lambda look=look: look().status < 500)


def test_metrics_are_for_the_edges_own_probe(edges: list[Node]) -> None:
    for edge in edges:
        url = f"https://{edge.address}:8404/metrics"
        assert "haproxy_frontend_http_requests_total" in edge.https(url, "site", "haproxy/probe").body
        assert edge.https(url, "site", "artifacts/node").status == 403, "another client of the same CA"
        assert edge.https(url, "site").status == 0


@pytest.fixture
def scaled(applications: Applications) -> Iterator[str]:
    name = random_name("scaled")
    applications.start(name, 3)
    yield name
    applications.remove(name)


def test_nothing_is_lost_while_instances_come_go_and_die_and_routes_change(
    routes: Routes, applications: Applications, edges: list[Node], scaled: str, domain: str, tell: Tell
) -> None:
    """200 requests a second while a service has 3, 10 and 2 instances, one is killed, and fifty routes change."""
    host = f"{scaled}.{domain}"
    instances = {one.address: routes.add(scaled, one.address, route_host=host) for one in applications.instances(scaled, 3)}
    for edge in edges:
        routes.served(edge, host)

    def work() -> None:
        found = applications.scale(scaled, 10)
        for one in found:
            instances[one.address] = routes.add(scaled, one.address, route_host=host)
        applications.kill(found[0])
        time.sleep(3)
        for number in range(50):
            routes.add(f"other{number % 5}", "192.0.2.1", route_host=f"o{number}.{domain}", route_path=f"/{number}")
        applications.keep(found[1:3])
        kept = {one.address for one in found[1:3]}
        for address in sorted(set(instances) - kept):
            routes.remove(instances.pop(address))
        time.sleep(3)
        applications.scale(scaled, 2)

    load = steady(edges[0], host, work)
    tell(f"3, 10 and 2 instances, one killed, 50 routes changed: through the edge: {load.text()}")
    assert load.failures == []


@pytest.mark.long
def test_latency_beside_a_pod_asked_directly(routes: Routes, applications: Applications, edges: list[Node], domain: str, tell: Tell) -> None:
    name = random_name("latency")
    routes.add(name, addresses(applications)[0], route_host=f"{name}.{domain}")
    routes.served(edges[0], f"{name}.{domain}")
    through = steady(edges[0], f"{name}.{domain}", lambda: time.sleep(8))
    tell(f"nothing changes: through the edge: {through.text()}; {straight(edges[0], addresses(applications)[0], seconds=8)}")
    assert through.failures == []


@pytest.mark.needs("consul_sync")
def test_an_annotated_service_is_served_and_follows_its_pods(
    routes: Routes, applications: Applications, workload: Workload, edges: list[Node], scaled: str, domain: str, tell: Tell
) -> None:
    host = f"{scaled}.{domain}"
    applications.instances(scaled, 3)
    workload.cluster.patch(workload.path("Service", scaled), {"metadata": {"annotations": {"ashlar.io/route-host": host}}})
    for edge in edges:
        routes.served(edge, host)

    def work() -> None:
        applications.scale(scaled, 10)
        applications.scale(scaled, 2)

    load = steady(edges[0], host, work)
    tell(f"a Service scaled to 3, 10 and 2: through the edge: {load.text()}")
    assert load.failures == []


@pytest.mark.disruptive
def test_the_edge_serves_what_it_knows_while_the_catalogue_is_away(
    routes: Routes, applications: Applications, edges: list[Node], domain: str
) -> None:
    name = random_name("known")
    host, edge = f"{name}.{domain}", edges[0]
    routes.add(name, addresses(applications)[0], route_host=host)
    routes.served(edge, host)
    edge.run("systemctl stop consul")
    try:
        edge.run("systemctl restart haproxy consul-template")
        routes.served(edge, host)
    finally:
        edge.run("systemctl start consul")
    other = random_name("later")
    until("the catalogue is writable again", lambda: routes.add(other, addresses(applications)[0], route_host=f"{other}.{domain}"))
    routes.served(edge, f"{other}.{domain}")


@pytest.mark.disruptive
def test_what_the_catalogue_says_while_an_edge_starts_is_not_lost(routes: Routes, applications: Applications, edges: list[Node], domain: str) -> None:
    """HAProxy has read its files, and answers nobody yet: here it starts with files from before the change."""
    live, drop_in = "/var/lib/ashlar-edge/live", "/run/systemd/system/haproxy.service.d"
    # A copy: of the generations themselves only the last few are kept, and a busy edge makes several a second.
    older = "/var/lib/ashlar-edge/conformance"
    name = random_name("meanwhile")
    host, edge = f"{name}.{domain}", edges[0]
    edge.run("systemctl stop haproxy")
    try:
        # A file may be replaced while it is copied.
        edge.run(f"for number in $(seq 30); do rm -rf {older}; cp -aL {live}/ {older} && exit; sleep 1; done; exit 1")
        routes.add(name, addresses(applications)[0], route_host=host)
        until("the files have the route", lambda: host in edge.run(f"cat {live}/routes.map"), pause=0.1)
        line = f"ExecStartPre=+/bin/ln -sfn conformance {live}"
        edge.run(f"mkdir -p {drop_in}; printf '[Service]\\n{line}\\n' > {drop_in}/older.conf; systemctl daemon-reload")
        edge.run("systemctl start haproxy")
    finally:
        edge.run(f"rm -rf {drop_in}; systemctl daemon-reload; systemctl start --no-block haproxy")
    routes.served(edge, host)
    edge.run(f"rm -rf {older}")


@pytest.mark.disruptive
def test_an_edge_that_cannot_start_tries_until_it_can_and_says_why(routes: Routes, applications: Applications, edges: list[Node], domain: str) -> None:
    """Something else has its port, and HAProxy's files are gone: the first start fails, and nobody starts it again."""
    name = random_name("retried")
    host, edge = f"{name}.{domain}", edges[0]
    routes.add(name, addresses(applications)[0], route_host=host)
    routes.served(edge, host)
    since = edge.run("date +%s").strip()

    def restarts() -> int:
        return int(edge.run("systemctl show --property=NRestarts --value haproxy"))

    edge.run("systemctl stop haproxy; rm -rf $(readlink -f /var/lib/ashlar-edge/live)")
    try:
        edge.run(f"systemd-run --quiet --collect --unit={name} python3 -c '{LISTEN}' 0.0.0.0 443")
        # A HAProxy that was left behind would share the port with the next one, and answer whoever asks whether it is taken.
        until("the listener alone has the port", lambda: "python3" in (found := edge.run("ss -Hltnp 'sport = :443'")) and "haproxy" not in found)
        edge.run("systemctl start --no-block haproxy")
        # While the port is taken, and before anything is counted: until it is really started, systemd shows the restarts of an earlier run.
        log = f"journalctl -u haproxy --since @{since} --no-pager -o cat"
        until("HAProxy says that its port is taken", lambda: "Address already in use" in edge.run(log))
        before = restarts()
        until("it tries again", lambda: restarts() > before)
        assert edge.ask(f"systemctl is-active {name}").code == 0, "the port was not taken all the time"
    finally:
        edge.run(f"systemctl stop {name} || true")
    routes.served(edge, host)


@pytest.mark.disruptive
def test_nothing_is_lost_while_a_node_with_an_instance_is_off(
    routes: Routes, applications: Applications, edges: list[Node], nodes: dict[str, Node], domain: str, power: Power, plan: Plan, tell: Tell
) -> None:
    """Without a word, as in a power cut: what was under way there is asked of another instance."""
    edge = edges[0]
    gone = next((node for name, node in reversed(nodes.items()) if name in applications.nodes and node not in (edge, routes.node)), None)
    if gone is None:
        pytest.skip("every instance is on a node that the load needs")
    name = random_name("survives")
    host = f"{name}.{domain}"
    found = addresses(applications)
    for address in found:
        routes.add(name, address, route_host=host)
    routes.served_by(edge, host, len(found))
    beside = straight(edge, found[0])

    def work() -> None:
        power.off(gone)
        time.sleep(15)

    load = steady(edge, host, work)
    tell(f"{gone.name} off: through the edge: {load.text()}; {beside}")
    assert len(load.answered) == len(found), "the instance that went was asked before"
    assert load.failures == []


@pytest.mark.long
@pytest.mark.disruptive
def test_nothing_is_lost_while_the_catalogue_loses_its_leader(
    routes: Routes, applications: Applications, edges: list[Node], nodes: dict[str, Node], domain: str, tell: Tell
) -> None:
    """It is killed and stays away for a while: the edges go on, and follow as soon as there is another leader."""
    catalogue = routes.catalogue
    leader = next(node for node in nodes.values() if node.address == catalogue.leader(routes.node))
    if len(catalogue.servers(routes.node)) < 3:
        pytest.skip("with one server there is no other leader")
    routes.node = next(node for node in nodes.values() if node is not leader)
    following = [edge for edge in edges if edge is not leader]
    name, later = random_name("leaderless"), random_name("later")
    host, found = f"{name}.{domain}", addresses(applications)
    for address in found:
        routes.add(name, address, route_host=host)
    for edge in edges:
        routes.served(edge, host)
    beside = straight(edges[0], found[0])
    took: list[float] = []

    def work() -> None:
        leader.run("systemctl kill --signal=KILL consul; systemctl stop consul")
        start = time.monotonic()
        try:
            until("the catalogue takes writes", lambda: routes.add(later, found[0], route_host=f"{later}.{domain}"), pause=0.1)
            took.append(time.monotonic() - start)
            for edge in following:
                routes.served(edge, f"{later}.{domain}")
            took.append(time.monotonic() - start)
            time.sleep(2)
        finally:
            leader.run("systemctl start --no-block consul")
        for edge in edges:
            routes.served(edge, f"{later}.{domain}")

    load = steady(edges[0], host, work)
    tell(f"leader {leader.name} killed: writes after {took[0]:.1f} s, edges follow after {took[1]:.1f} s; through the edge: {load.text()}; {beside}")
    assert load.failures == []


SHOWN = r"""
import hashlib, json, socket, ssl, sys
address, port, name, pair = json.loads(sys.argv[1])
context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
if pair:
    context.load_cert_chain(*pair)
with socket.create_connection((address, port), 5) as plain, context.wrap_socket(plain, server_hostname=name) as connection:
    print(json.dumps(hashlib.sha256(connection.getpeercert(binary_form=True)).hexdigest()))
"""


@pytest.mark.disruptive
def test_nothing_is_lost_while_certificates_rotate(
    routes: Routes, applications: Applications, edges: list[Node], nodes: dict[str, Node], domain: str, plan: Plan, tmp_path: Path, tell: Tell
) -> None:
    """All keys and certificates of discovery and of the edge are made anew, and everybody is told."""
    parts = [name for name in ("consul", "consul_sync", "haproxy", "haproxy_ingress") if plan.has(name)]
    name = random_name("rotated")
    host, found = f"{name}.{domain}", addresses(applications)
    for address in found:
        routes.add(name, address, route_host=host)
    for edge in edges:
        routes.served(edge, host)
    beside = straight(edges[0], found[0])

    def shown() -> list[str]:
        agents = [nodes[one].python(SHOWN, "127.0.0.1", 8501, "localhost", CLIENT) for one in plan.on("consul")]
        return agents + [edge.python(SHOWN, edge.address, 443, host, None) for edge in edges]

    before = shown()

    def work() -> None:
        for part in parts:
            for node in plan.on(part):
                shutil.rmtree(plan.credentials / "nodes" / node / part)
        converge(plan, ["certificates", *parts], tmp_path)
        time.sleep(2)

    load = steady(edges[0], host, work)
    tell(f"certificates of {', '.join(parts)} made anew: through the edge: {load.text()}; {beside}")
    until("every agent and edge shows another certificate", lambda: all(old != new for old, new in zip(before, shown(), strict=True)))
    assert load.failures == []
    later = random_name("later")
    routes.add(later, found[0], route_host=f"{later}.{domain}")
    for edge in edges:
        routes.served(edge, f"{later}.{domain}")


@pytest.mark.disruptive
@pytest.mark.needs("keepalived")
def test_the_virtual_address_goes_to_another_edge(
    plan: Plan, routes: Routes, applications: Applications, edges: list[Node], domain: str, power: Power, tell: Tell
) -> None:
    if len(edges) < 2:
        pytest.fail("one edge cannot take an address from another: give a second node the class edge, or leave keepalived out")
    virtual = str(plan.option("keepalived", "keepalived_virtual_address"))
    name = random_name("virtual")
    host = f"{name}.{domain}"
    routes.add(name, addresses(applications)[0], route_host=host)

    def holders() -> list[Node]:
        return [edge for edge in edges if virtual in edge.run("ip -4 -o address show")]

    def answers() -> bool:
        async def once() -> int:
            return (await asyncio.wait_for(Connection(443, host, address=virtual, context=routes.trusted).ask(), 3)).status

        return asyncio.run(once()) == 200

    until("one edge has the virtual address", lambda: len(holders()) == 1 and answers())
    holder = holders()[0]
    holder.run("systemctl stop haproxy")
    try:
        start = time.monotonic()
        until("another edge answers for it", lambda: answers(), pause=0.1)
        tell(f"the virtual address answers again after {time.monotonic() - start:.1f} s")
        assert holders() != [holder]
    finally:
        holder.run("systemctl start haproxy")
    at_once(lambda edge: routes.served(edge, host), edges)
