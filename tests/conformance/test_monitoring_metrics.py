# SPDX-License-Identifier: Apache-2.0
"""What the manifests say is measured can be read on every node, at one port, by Prometheus and by nobody else."""

from __future__ import annotations

import re
from itertools import product

import pytest

from .support.nodes import Node
from .support.plan import Plan
from .support.remote import Reply
from .support.waiting import at_once, until

pytestmark = [pytest.mark.needs("monitoring"), pytest.mark.needs("metrics_gateway", "prometheus")]
SAMPLE = re.compile(r"^[a-zA-Z_:][\w:]*(\{.*\})? [-+]?(\d|Inf|NaN)", re.MULTILINE)

PLAIN = "curl -s -m 5 -o /dev/null -w '%{{http_code}}' http://{address}:9100{path}"


@pytest.fixture(scope="module")
def asker(plan: Plan, nodes: dict[str, Node]) -> Node:
    """A node that has Prometheus' certificate, and that firewalls let through."""
    return nodes[plan.on("prometheus")[0]]


def paths(node: Node) -> list[str]:
    return [f"/{entry['component']}/{entry['name']}" for entry in node.machine.variables["node_metrics"]]


def of_the_active_one(node: Node) -> set[str]:
    return {f"/{entry['component']}/{entry['name']}" for entry in node.machine.variables["node_metrics"] if entry.get("active_only")}


def read(asker: Node, node: Node, path: str, certificate: str | None = "prometheus/scrape") -> Reply:
    return asker.https(f"https://{node.address}:9100{path}", "site", certificate, seconds=10)


@pytest.fixture(scope="module")
def every(nodes: dict[str, Node]) -> list[Node]:
    """The nodes that have something to measure."""
    return [node for node in nodes.values() if node.machine.variables["node_metrics"]]


def test_every_endpoint_of_every_node_answers_with_figures(every: list[Node], asker: Node) -> None:
    def look(node: Node, path: str) -> None:
        # What was just started, here or by another test, may need a moment.
        until(f"{node.name} shows {path}", lambda: (reply := read(asker, node, path)).status == 200 and SAMPLE.search(reply.body))

    at_once(lambda pair: look(*pair), [(node, path) for node in every for path in paths(node) if path not in of_the_active_one(node)])


def test_where_only_one_is_active_it_alone_has_figures_and_the_others_are_not_missing(every: list[Node], asker: Node) -> None:
    def figures(path: str) -> list[bool]:
        replies = [read(asker, node, path) for node in every if path in paths(node)]
        assert all(reply.status == 200 for reply in replies), f"{path}: {[reply.status for reply in replies]}"
        return [bool(SAMPLE.search(reply.body)) for reply in replies]

    for path in set().union(*(of_the_active_one(node) for node in every)):
        until(f"one node shows {path}", lambda path=path: sum(figures(path)) == 1)  # type: ignore[misc]


def test_the_site_knows_all_endpoints_of_its_nodes(every: list[Node], plan: Plan) -> None:
    known = {(entry["component"], entry["name"]) for entry in plan.shared["site_metrics"]}
    there = {(entry["component"], entry["name"]) for node in every for entry in node.machine.variables["node_metrics"]}
    assert known and known == there


def test_who_is_known_but_not_prometheus_sees_nothing(every: list[Node], asker: Node) -> None:
    """Certificates of the same authority: the gateway's own probe, and the one by which a node fetches artifacts."""
    for node, certificate in product(every, ("metrics_gateway/probe", "artifacts/node")):
        for path in paths(node)[:3] + ["/", "/metrics"]:
            reply = read(asker, node, path, certificate)
            assert reply.status == 403, f"{node.name} answers {path} to {certificate} with {reply.status}"
            assert not SAMPLE.search(reply.body)


def test_who_is_unknown_gets_no_answer(every: list[Node], asker: Node, plan: Plan) -> None:
    strangers: list[str | None] = [None]
    if plan.has("etcd") and asker.name in plan.on("etcd"):
        strangers.append("etcd/operator")  # of another authority
    for node, certificate in product(every, strangers):
        for path in ("/health", paths(node)[0]):
            reply = read(asker, node, path, certificate)
            assert reply.status == 0, f"{node.name} answers {path} to {certificate or 'somebody without a certificate'} with {reply.status}"


def test_plain_http_is_not_spoken(every: list[Node], asker: Node) -> None:
    for node in every:
        assert asker.ask(PLAIN.format(address=node.address, path=paths(node)[0])).out in ("000", "400")


def test_only_nodes_of_prometheus_reach_the_gateway(every: list[Node], plan: Plan) -> None:
    allowed = set(plan.on("prometheus"))
    others = [node for node in every if node.name not in allowed]
    if not others:
        pytest.skip("every node of this site has a Prometheus, so nobody is there to be kept out")
    for node in others:
        other = next(other for other in every if other.name != node.name)
        assert node.connects(other.address, 9100) != "open", f"{node.name} reaches the gateway of {other.name}"


def test_nothing_else_answers_beyond_the_loopback(every: list[Node]) -> None:
    """Endpoints on the loopback are on the loopback only."""
    for node in every:
        urls = [entry["url"] for entry in node.machine.variables["node_metrics"]]
        ports = sorted({int(found[1]) for url in urls if (found := re.match(r"https?://127\.0\.0\.1:(\d+)/", url))})
        assert ports
        named = {entry["port"] for entry in node.machine.ports}
        listening = {int(port) for port in node.run(f"ss -Hltn src {node.address} | awk '{{print $4}}' | sed 's/.*://'").split()}
        assert not (set(ports) - named) & listening, f"{node.name} shows figures at {node.address}"
        assert "0.0.0.0:9100" not in node.run("ss -Hltn"), "the gateway listens at the node's address only"


def test_what_is_not_measured_is_not_found_and_what_is_down_is_said(every: list[Node], asker: Node) -> None:
    node = next(node for node in every if node.name != asker.name)
    assert read(asker, node, "/etcd/other").status == 404
    assert read(asker, node, "/../etcd/server").status in (400, 404)
    if "node_exporter" not in node.machine.components:
        return
    others = [path for path in paths(node) if path != "/node_exporter/host"]
    node.run("systemctl stop node-exporter.service")
    try:
        assert read(asker, node, "/node_exporter/host").status == 502
        assert read(asker, node, others[0]).status == 200, "one that is down takes no other along"
    finally:
        node.run("systemctl start node-exporter.service")
    until("it is read again", lambda: read(asker, node, "/node_exporter/host").status == 200)


@pytest.mark.needs("node_exporter")
def test_hosts_tell_when_their_certificates_end(every: list[Node], asker: Node) -> None:
    for node in every:
        body = read(asker, node, "/node_exporter/host").body
        assert node.machine.variables["node_certificates"], f"the plan has no certificate for {node.name}"
        for entry in node.machine.variables["node_certificates"]:
            if entry.get("kind", "certificate") == "certificate":
                wanted = f'ashlar_certificate_not_after_seconds{{component="{entry["component"]}",name="{entry["name"]}"}}'
                assert wanted in body, f"{node.name} does not tell of {entry['component']}/{entry['name']}"
        assert "ashlar_certificates_unread 0" in body
        failed = re.findall(r'node_scrape_collector_success\{collector="(\w+)"\} 0', body)
        assert not failed, f"{node.name} can't measure {failed}"


def test_the_gateway_keeps_secrets_to_itself(every: list[Node]) -> None:
    for node in every:
        assert node.run("stat -c '%a %U' /etc/metrics-gateway/haproxy.cfg").strip() == "600 root"
        assert node.run("ps -o user= -p $(systemctl show -p MainPID --value metrics-gateway.service)").strip() == "metrics-gateway"


def test_a_refusal_is_in_the_journal_and_a_reading_is_not(every: list[Node], asker: Node) -> None:
    node = next(node for node in every if node.name != asker.name)
    since = node.run("date +%s").strip()
    read(asker, node, paths(node)[0])
    read(asker, node, paths(node)[0], "metrics_gateway/probe")
    log = f"journalctl -u metrics-gateway.service --since @{since} -o cat"
    said = until("the refusal is in the journal", lambda: node.run(log))
    lines = [line for line in said.splitlines() if paths(node)[0] in line]
    assert lines and all("probe got 403 for" in line for line in lines), lines
