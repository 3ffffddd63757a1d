# SPDX-License-Identifier: Apache-2.0
"""The site's catalogue: what runs somewhere has a name everywhere, what does not run has none, and nobody reads or writes it without a token."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from .support.catalogue import Catalogue
from .support.cluster import random_name
from .support.figures import Tell, judged, mostly
from .support.nodes import Node, snapshot
from .support.orchestrator import Applications, Instance
from .support.plan import Plan, manifest
from .support.power import Power, reachable
from .support.remote import LISTEN
from .support.waiting import at_once, until

pytestmark = [pytest.mark.needs("discovery"), pytest.mark.needs("consul", "coredns")]

APPEARS, DISAPPEARS = 1.0, 3.0
"""Seconds, of the median."""
WRITES = 20.0
"""Seconds; five to seven are usual."""
PORT = 18473


@pytest.fixture(scope="module")
def catalogue(plan: Plan) -> Catalogue:
    return Catalogue(plan)


@pytest.fixture(scope="module")
def server(plan: Plan) -> str:
    return str(plan.option("coredns", "coredns_address"))


@pytest.fixture(scope="module")
def voters(catalogue: Catalogue, nodes: dict[str, Node]) -> list[Node]:
    """The nodes whose servers decide."""
    some = next(iter(nodes.values()))
    until("there is a leader", lambda: catalogue.leader(some))
    return [nodes[one["Node"]] for one in catalogue.servers(some)]


@pytest.fixture
def service(catalogue: Catalogue, every: list[Node]) -> Iterator[str]:
    """A name for a service; whoever registered it, it is gone afterwards."""
    name = random_name("conformance")
    yield name
    for node in every:
        catalogue.call(node, "PUT", f"/v1/agent/service/deregister/{name}")


def wanted_services(plan: Plan) -> dict[str, set[str]]:
    """Service -> addresses: every TCP port that a manifest with health checks opens to more than pods."""
    found: dict[str, set[str]] = {}
    for machine in plan.machines.values():
        for port in machine.ports:
            watched = bool(manifest(port["component"]).get("health"))
            if port["protocol"] == "tcp" and watched and port["component"] != "consul" and port["from"] != ["pods"] and "-" not in str(port["port"]):
                found.setdefault(port["component"].replace("_", "-"), set()).add(machine.address)
    return found


def asked(node: Node, name: str) -> set[str]:
    """Addresses of a name as any program of the host gets them."""
    out = node.ask(f"getent ahostsv4 {name}", 10).out
    return {line.split()[0] for line in out.splitlines()}


def knows(node: Node, name: str, addresses: set[str]) -> None:
    """Waits until the host itself finds exactly these addresses."""

    def look() -> bool:
        found = asked(node, name)
        assert found == addresses, f"{sorted(found)}"
        return True

    until(f"{node.name} finds {name} at {sorted(addresses)}", look)


def test_every_host_finds_what_runs_on_every_node(plan: Plan, every: list[Node], catalogue: Catalogue) -> None:
    services = wanted_services(plan)
    assert services
    for service, addresses in services.items():
        at_once(partial(knows, name=catalogue.name(service), addresses=addresses), every)


def test_a_port_has_its_name_as_tag_and_a_record_of_its_number(plan: Plan, every: list[Node], server: str, catalogue: Catalogue) -> None:
    service = sorted(wanted_services(plan))[0]
    ports = [port for machine in plan.machines.values() for port in machine.ports if port["component"].replace("_", "-") == service]
    port = next(port for port in ports if port["protocol"] == "tcp")
    found = every[0].resolve(server, f"{port['name']}.{catalogue.name(service)}", "SRV")
    assert {answer.split()[0] for answer in found.answers} == {str(port["port"])}, found


def test_what_is_not_in_the_catalogue_has_no_name(every: list[Node], server: str, catalogue: Catalogue) -> None:
    for node in every:
        assert node.resolve(server, catalogue.name("no-such-service")).code == 3


def test_a_service_registered_on_one_node_resolves_on_all_others_at_once(
    every: list[Node], server: str, catalogue: Catalogue, service: str, tell: Tell, rounds: int
) -> None:
    took = []
    for number in range(rounds):
        here = every[number % len(every)]
        others = [node for node in every if node is not here]
        name = f"{service}-{number}"

        def work(node: Node | None, name: str = name, here: Node = here) -> float:
            if node is None:
                time.sleep(1.0)
                return catalogue.register(here, name, PORT)
            at = catalogue.appears(node, server, name, here.address)
            assert at is not None, f"{node.name} does not know {name}"
            return at

        # The others have asked before it is there, so that an answer kept too long would be seen.
        start, *seen = at_once(work, [None, *others])
        took += [at - start for at in seen]
        catalogue.forget(here, name)
    tell(mostly("a service registered elsewhere resolves", took, APPEARS))


def test_a_killed_instance_leaves_the_names_of_all_nodes(
    every: list[Node], server: str, catalogue: Catalogue, service: str, tell: Tell, rounds: int
) -> None:
    here, took = every[-1], []
    for _ in range(rounds):
        here.run(f"systemd-run --quiet --collect --unit={service} python3 -c '{LISTEN}' 0.0.0.0 {PORT}")
        until("the instance listens", lambda: here.connects(here.address, PORT) == "open")
        catalogue.register(here, service, PORT, check=True)
        at_once(lambda node: catalogue.appears(node, server, service, here.address), every)

        def work(node: Node | None) -> float:
            if node is None:
                time.sleep(0.5)
                return float(here.run(f"systemctl kill --signal=KILL {service} && date +%s.%N"))
            at = catalogue.disappears(node, server, service, here.address)
            assert at is not None, f"{node.name} still names an instance that was killed"
            return at

        start, *seen = at_once(work, [None, *every])
        took += [at - start for at in seen]
        catalogue.forget(here, service)
        here.ask(f"systemctl stop {service}; systemctl reset-failed {service}")
    tell(mostly("a killed instance has left DNS", took, DISAPPEARS))


def test_nothing_is_read_without_a_token(every: list[Node], catalogue: Catalogue) -> None:
    node = every[0]
    assert catalogue.get(node, "/v1/catalog/services"), "with a token there is something to read"
    for path in ("catalog/nodes", "catalog/services", "agent/services", "agent/checks", "health/state/any", "agent/members", "kv/?recurse", "query"):
        reply = catalogue.call(node, "GET", f"/v1/{path}", token=None).reply
        assert reply.status in (401, 403, 404) or reply.body.strip() in ("[]", "{}"), f"{path}: {reply}"
    for path in ("agent/self", "agent/metrics", "acl/tokens", "acl/policies", "operator/raft/configuration"):
        reply = catalogue.call(node, "GET", f"/v1/{path}", token=None).reply
        assert reply.status in (401, 403), f"{path}: {reply}"
    # A leader that refuses a snapshot hangs up, which the agent in between may hear before the reason.
    assert catalogue.call(node, "GET", "/v1/snapshot", token=None).reply.status in (403, 500)


def test_nothing_is_written_without_a_token(every: list[Node], catalogue: Catalogue, service: str) -> None:
    node = every[0]
    asks: dict[str, Any] = {
        "kv/ashlar/conformance": "x",
        "agent/service/register": {"Name": service, "Port": PORT},
        "catalog/register": {"Node": "conformance", "Address": "127.0.0.1", "Service": {"Service": service}},
        "acl/bootstrap": None,
        "acl/token": {},
        "agent/leave": None,
        "agent/maintenance?enable=true": None,
        "session/create": {},
        f"event/fire/{service}": None,
    }
    for path, body in asks.items():
        reply = catalogue.call(node, "PUT", f"/v1/{path}", body, token=None).reply
        assert reply.status in (400, 401, 403) and "denied" in reply.body.lower() + (" denied" if "bootstrap" in reply.body else ""), f"{path}: {reply}"


def test_tokens_may_do_what_they_are_for_and_no_more(every: list[Node], plan: Plan, catalogue: Catalogue, service: str) -> None:
    node = every[0]
    host_service = sorted(wanted_services(plan))[0]
    assert host_service in catalogue.get(node, "/v1/catalog/services", token="dns")
    given = plan.shared["contributions"]["consul"]["tokens"]
    of_others = [(token, name) for token, name in (("edge", service), ("sync", host_service)) if token in given]
    for token, name in [("dns", service), ("metrics", service), *of_others]:
        body = {"Node": plan.option("consul", "consul_sync_node"), "Address": "127.0.0.1", "SkipNodeUpdate": True, "Service": {"Service": name, "Port": 1}}
        reply = catalogue.call(node, "PUT", "/v1/catalog/register", body, token=token).reply
        assert reply.status == 403, f"{token} registered {name}: {reply}"
        assert catalogue.call(node, "GET", "/v1/acl/tokens", token=token).reply.status == 403, token
    other = every[-1]
    if other is not node:
        reply = catalogue.call(node, "PUT", "/v1/catalog/register", {"Node": other.name, "Address": "192.0.2.1"}, token=f"agent-{node.name}").reply
        assert reply.status == 403, f"an agent wrote a node that is not its own: {reply}"


def test_the_api_is_for_its_own_node_by_certificate_alone(every: list[Node], catalogue: Catalogue) -> None:
    node, other = every[0], every[-1]
    assert catalogue.call(node, "GET", "/v1/status/leader").reply.status == 200
    bare = catalogue.call(node, "GET", "/v1/status/leader", certificate=False).reply
    assert bare.status == 0, f"without a client certificate: {bare}"
    assert at_once(lambda port: node.connects("127.0.0.1", port), (8500, 8502, 8503)) == ["refused"] * 3
    plain = node.ask("curl -s -m 5 -o /dev/null -w '%{http_code}' http://127.0.0.1:8501/v1/status/leader").out
    assert plain in ("000", "400"), f"plain HTTP is answered with {plain}"
    ports = (8500, 8501, 8600)
    assert at_once(lambda port: node.connects(node.address, port), ports) == ["refused"] * 3, "it listens beyond the loopback"
    if other is not node:
        assert "open" not in at_once(lambda port: other.connects(node.address, port), ports)


def test_servers_speak_to_agents_of_the_site_alone(voters: list[Node], every: list[Node], catalogue: Catalogue) -> None:
    """Gossip is encrypted, and the servers' port wants a certificate."""
    keys = catalogue.get(every[0], "/v1/operator/keyring")
    assert keys and all(ring["PrimaryKeys"] for ring in keys), "gossip is not encrypted"
    for node in voters:
        reply = every[0].https(f"https://{node.address}:8300/", "consul")
        assert reply.status == 0, reply


def test_no_secret_is_open(every: list[Node], plan: Plan, catalogue: Catalogue) -> None:
    secrets = {file.read_text().strip() for file in (plan.credentials / "consul").rglob("*") if file.is_file()}
    assert len(secrets) > 5
    for node in every:
        listed = node.run("stat -c '%a %U %n' /etc/consul/tokens.json /etc/consul/gossip.json /var/lib/consul")
        assert [line.split()[:2] for line in listed.splitlines()] == [["400", "consul"], ["400", "consul"], ["700", "consul"]], (node.name, listed)
        shown = node.run("cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ 2>/dev/null | tr '\\0' '\\n'; journalctl -u consul --no-pager -o cat")
        assert not [secret for secret in secrets if secret in shown], f"{node.name}: a secret stands in arguments, environment or journal"
    for file in (plan.credentials / "consul").rglob("*"):
        assert file.stat().st_mode & 0o077 == 0, file


def test_pods_ask_the_catalogue_for_names_and_reach_nothing_else_of_it(
    applications: Applications, plan: Plan, catalogue: Catalogue, nodes: dict[str, Node], server: str
) -> None:
    service, addresses = sorted(wanted_services(plan).items())[0]

    def tries(instance: Instance) -> None:
        name = instance.node
        found = applications.run_in(instance, f"nslookup {catalogue.name(service)}. | tail -n +3")
        assert all(address in found for address in addresses), (name, found)
        # Of its own node by every address that the node has, those of its bridges and of its name server among them.
        own = nodes[name].run("ip -4 -o address show | awk '{print $4}' | cut -d/ -f1").split()
        there = sorted({*own, *(machine.address for machine in plan.machines.values())})
        assert server in there
        tried = "(nc -w 2 $address $port </dev/null >/dev/null 2>&1 && echo $address:$port) &"
        each = f"for address in {' '.join(there)}; do for port in 8300 8301 8500 8501 8502 8503 8600; do {tried} done; wait; done"
        reached = applications.run_in(instance, each, 60).split()
        assert not reached, f"the pod on {name} reaches {reached}"

    instances = applications.everywhere()
    assert set(instances) == set(applications.nodes)
    at_once(tries, instances.values())


def test_the_host_still_resolves_names_while_its_name_server_is_down(every: list[Node], catalogue: Catalogue, plan: Plan) -> None:
    node = every[0]
    known = next((name for name in [*plan.machines, "example.com"] if name != node.name and asked(node, name)), None)
    if known is None:
        pytest.skip("this node's own name servers know neither other nodes nor the world")
    node.run("systemctl stop coredns")
    try:
        until(f"{known} is resolved without the node's name server", lambda: asked(node, known))
    finally:
        node.run("systemctl start coredns")


def test_what_something_else_writes_into_resolv_conf_is_asked_and_given_back(every: list[Node], server: str) -> None:
    node = every[-1]
    if node.ask("systemctl is-active systemd-resolved").out.strip() == "active":
        pytest.skip("systemd-resolved keeps /etc/resolv.conf here")
    before = node.run("cat /var/lib/ashlar/resolver/former.conf")
    lease = "# by a lease\nsearch lease.invalid\nnameserver 192.0.2.53\n" + before

    def first() -> list[str]:
        return [line.split()[1] for line in node.run("cat /etc/resolv.conf").splitlines() if line.startswith("nameserver")]

    try:
        node.run(f"cat > /etc/resolv.conf <<'END'\n{lease}END")
        until("the node's own name server is first again", lambda: first()[:2] == [server, "192.0.2.53"])
        assert node.run("cat /var/lib/ashlar/resolver/former.conf") == lease
        assert node.run("head -n 1 /var/lib/ashlar/resolver/upstream.conf").split() == ["nameserver", "192.0.2.53"]
        node.run("systemctl stop ashlar-resolver.path ashlar-resolver.service")
        assert node.run("cat /etc/resolv.conf") == lease
    finally:
        node.run(f"cat > /etc/resolv.conf <<'END'\n{before}END")
        node.run("systemctl start ashlar-resolver.service ashlar-resolver.path")
    assert first()[0] == server


def test_a_snapshot_can_be_taken_and_read(voters: list[Node]) -> None:
    node = voters[0]
    newest = snapshot(node, "consul-snapshot.service", "/var/lib/consul-snapshots")
    assert "Register" in node.run(f"/opt/ashlar/consul/current/consul snapshot inspect {newest}")
    kept = node.run("ls /var/lib/consul-snapshots").split()
    assert all(name.endswith(".snap") for name in kept), f"what a killed run has left is still there: {kept}"


def test_all_servers_vote_and_agree(voters: list[Node], every: list[Node], catalogue: Catalogue, plan: Plan) -> None:
    assert {node.name for node in voters} == set(plan.shared["component_groups"]["consul_servers"])
    assert all(one["Voter"] for one in catalogue.servers(every[0]))
    assert len(set(at_once(catalogue.leader, every))) == 1
    assert {node["Node"] for node in catalogue.get(every[0], "/v1/catalog/nodes")} >= set(plan.machines)


@pytest.fixture
def several(voters: list[Node]) -> None:
    """There is something to fall back on."""
    if len(voters) < 3:
        pytest.skip("with one server there is nothing to fall back on")


def write(catalogue: Catalogue, node: Node, key: str, value: str) -> bool:
    return catalogue.call(node, "PUT", f"/v1/kv/ashlar/conformance/{key}", value).reply.status == 200


def read(catalogue: Catalogue, node: Node, key: str) -> str:
    return str(json.loads(catalogue.call(node, "GET", f"/v1/kv/ashlar/conformance/{key}?raw").reply.body))


@pytest.mark.scenario("consul")
@pytest.mark.disruptive
def test_names_are_answered_and_writes_come_back_while_the_leader_is_off(
    several: None, nodes: dict[str, Node], voters: list[Node], power: Power, server: str, catalogue: Catalogue, service: str, tell: Tell
) -> None:
    leader = catalogue.leader(voters[0])
    gone = next(node for node in voters if node.address == leader)
    others = [node for node in nodes.values() if node is not gone]
    here = others[0]
    catalogue.register(here, service, PORT)
    at_once(lambda node: catalogue.appears(node, server, service, here.address), others)
    key = random_name("leader")

    def work(node: Node | None) -> Any:
        if node is not None:
            return catalogue.steady(node, server, service, here.address, 10)
        time.sleep(2)
        power.off(gone)
        start = time.monotonic()
        until("the catalogue takes writes", lambda: write(catalogue, here, key, "kept"), pause=0.1)
        return time.monotonic() - start

    took, *seen = at_once(work, [None, *others])
    names = f"names meanwhile never away for more than {max(longest for _, longest in seen):.2f} s"
    tell(judged(f"leader {gone.name} off: {names}; writes again", took, WRITES))
    for node, (counts, _) in zip(others, seen, strict=True):
        assert set(counts) == {"right"}, f"{node.name}: {counts}"
    power.on(gone)
    until(f"{gone.name} answers by SSH", lambda: reachable(gone))
    until(f"{gone.name} has what was written meanwhile", lambda: read(catalogue, gone, key) == "kept")


@pytest.mark.scenario("consul")
@pytest.mark.disruptive
def test_what_was_registered_outlives_the_loss_of_the_majority(
    several: None, nodes: dict[str, Node], voters: list[Node], power: Power, server: str, catalogue: Catalogue, service: str, tell: Tell
) -> None:
    lost = [*voters[1:]] if len(voters) == 3 else voters[len(voters) // 2 :]
    last = voters[0]
    key = random_name("majority")
    catalogue.register(last, service, PORT)
    assert write(catalogue, last, key, "kept")
    assert catalogue.appears(last, server, service, last.address)
    at_once(power.off, lost)
    counts, _ = catalogue.steady(last, server, service, last.address, 5)
    assert set(counts) == {"right"}, f"names on the last server: {counts}"
    # Under a key of its own: a write that nobody confirmed may still come through when the others are back.
    assert not write(catalogue, last, f"{key}-minority", "unconfirmed"), "a server without a majority took a write"
    at_once(power.on, lost)
    at_once(lambda node: until(f"{node.name} answers by SSH", lambda: reachable(node)), lost)
    start = time.monotonic()
    until("the catalogue takes writes", lambda: write(catalogue, last, f"{key}-after", "after"))
    tell(f"two servers back: writes again {time.monotonic() - start:.1f} s after they answer by SSH")
    at_once(lambda node: until(f"{node.name} gives what was written before", lambda: read(catalogue, node, key) == "kept"), voters)
    for node in voters:
        assert catalogue.appears(node, server, service, last.address) is not None


@pytest.mark.scenario("consul")
@pytest.mark.disruptive
def test_everything_off_and_on_in_any_order_comes_back_by_itself(
    several: None, nodes: dict[str, Node], voters: list[Node], power: Power, plan: Plan, server: str, catalogue: Catalogue, tell: Tell
) -> None:
    key = random_name("all-off")
    assert write(catalogue, voters[0], key, "kept")
    at_once(power.off, nodes.values())
    order = random.sample(list(nodes.values()), len(nodes))
    print(f"on again in the order {[node.name for node in order]}")
    for node in order:
        power.on(node)
        time.sleep(random.uniform(0, 3))
    start = time.monotonic()
    at_once(lambda node: until(f"{node.name} answers by SSH", lambda: reachable(node)), order)
    until("the catalogue takes writes", lambda: write(catalogue, voters[0], f"{key}-after", "after"))
    tell(f"all nodes off and on: the catalogue takes writes {time.monotonic() - start:.1f} s after the last node was switched on")
    until("another server gives what was written before", lambda: read(catalogue, voters[-1], key) == "kept")
    for service, addresses in wanted_services(plan).items():
        at_once(partial(knows, name=catalogue.name(service), addresses=addresses), order)
    catalogue.call(voters[0], "DELETE", "/v1/kv/ashlar/conformance/?recurse")
    tell(f"all nodes off and on: all services of hosts are found on all nodes after {time.monotonic() - start:.1f} s")
