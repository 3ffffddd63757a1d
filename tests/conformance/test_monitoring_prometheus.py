# SPDX-License-Identifier: Apache-2.0
"""Everything that components have to tell is read by every replica, by nobody else, and outlives the replica."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from .support.catalogue import Catalogue
from .support.cluster import Workload, deployment, random_name, service
from .support.figures import Tell, judged
from .support.monitoring import CLIENT, PORTS, Monitoring
from .support.nodes import Node
from .support.plan import Plan
from .support.waiting import at_once, until

pytestmark = [pytest.mark.needs("monitoring"), pytest.mark.needs("prometheus")]
LABELS = {"site", "class", "node", "component", "job", "endpoint", "instance"}

PLAIN = r"""
import http.client, json, sys
host, port, path = json.loads(sys.argv[1])
try:
    connection = http.client.HTTPConnection(host, port, timeout=5)
    connection.request("GET", path)
    answer = connection.getresponse()
    print(json.dumps([answer.status, answer.read(2000).decode(errors="replace")]))
except Exception as error:
    print(json.dumps([0, str(error)]))
"""

MEMORY = r"""
import json, sys
found = {}
for line in open("/proc/%d/smaps_rollup" % json.loads(sys.argv[1])[0]):
    name, _, rest = line.partition(":")
    if name in ("Pss", "Pss_Anon", "Pss_File"):
        found[name] = int(rest.split()[0]) * 1024
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def monitoring(plan: Plan, nodes: dict[str, Node]) -> Monitoring:
    return Monitoring(plan, nodes)


def expected(plan: Plan) -> set[tuple[str, str, str]]:
    """(component, endpoint, node) of everything that manifests tell to read."""
    return {(entry["component"], entry["name"], node) for entry in plan.shared["site_metrics"] for node in plan.on(entry["component"])}


def of(target: dict[str, Any]) -> tuple[str, str, str]:
    return target["labels"]["component"], target["labels"]["endpoint"], target["labels"]["node"]


def test_every_replica_reads_every_endpoint_of_every_node(plan: Plan, monitoring: Monitoring) -> None:
    def missing(replica: str) -> set[tuple[str, str, str]]:
        return expected(plan) - {of(target) for target in monitoring.targets(replica) if target["health"] == "up"}

    def look() -> bool:
        left = {replica: sorted(missing(replica)) for replica in monitoring.replicas()}
        assert not any(left.values()), left
        return True

    until("every endpoint is up in every replica", look, pause=3)


def test_targets_have_the_labels_that_all_have_and_no_others(plan: Plan, monitoring: Monitoring) -> None:
    for replica in monitoring.replicas():
        targets = monitoring.targets(replica)
        assert targets, f"{replica} reads nothing"
        for target in targets:
            labels = target["labels"]
            if of(target) not in expected(plan):
                continue
            assert set(labels) == LABELS, labels
            assert labels["site"] == plan.site
            assert labels["class"] == ",".join(plan.machines[labels["node"]].variables["node_classes"])
            assert labels["job"] == labels["component"]
            assert labels["instance"] == labels["node"]


def test_replicas_are_on_nodes_of_their_own(plan: Plan, monitoring: Monitoring) -> None:
    replicas = monitoring.replicas()
    assert len(set(replicas)) == min(2, len(plan.machines))
    for replica in replicas:
        assert monitoring.get("prometheus", replica, "/api/v1/status/flags")["web.config.file"] == "/etc/prometheus/web.yml"


def test_figures_stay_within_their_budget(monitoring: Monitoring, tell: Tell) -> None:
    """At most 4,000 series a node on average, so that memory stays small; printed with -s."""
    for replica in monitoring.replicas():
        series = float(monitoring.query(replica, f'prometheus_tsdb_head_series{{node="{replica}"}}')[0]["value"][1])
        count = len(monitoring.plan.machines)
        for component in ("prometheus", "alertmanager"):
            if replica not in monitoring.replicas(component):
                continue
            number = int(monitoring.nodes[replica].run(f"systemctl show --property=MainPID --value {component}.service"))
            memory = monitoring.nodes[replica].python(MEMORY, number)
            tell(f"{component} of {replica}: {', '.join(f'{name} {size} bytes' for name, size in memory.items())}")
        tell(f"{replica}: {series:.0f} series")
        # A restart of programs leaves the series of those before it in memory for up to three hours.
        fresh = sum(float(one["value"][1]) for one in monitoring.query(replica, "sum(scrape_samples_post_metric_relabeling)"))
        assert fresh <= 4000 * max(count, 3), f"{replica} keeps {fresh:.0f} series of {count} nodes"


@pytest.mark.parametrize("component", ["prometheus", "alertmanager"])
def test_nothing_answers_without_a_known_certificate(component: str, plan: Plan, monitoring: Monitoring) -> None:
    if not plan.has(component):
        pytest.skip(f"the site has no {component}")
    for replica in monitoring.replicas(component):
        node, url = monitoring.nodes[replica], monitoring.url(component, replica)
        for path in ("/metrics", "/-/healthy", "/api/v1/targets", "/api/v2/status"):
            reply = node.https(url + path, "site")
            assert reply.status == 0, f"{replica}: {path} without a certificate: {reply}"
            assert "certificate" in reply.error or "alert" in reply.error.lower() or "reset" in reply.error.lower(), reply.error
        known = node.https(f"{url}/-/healthy", "site", CLIENT[component])
        assert known.status == 200, known
        if plan.has("metrics_gateway"):
            other = node.https(f"{url}/-/healthy", "site", "metrics_gateway/probe")
            assert other.status == 0, f"{replica}: a certificate of another client is taken: {other}"
        status, body = node.python(PLAIN, node.address, PORTS[component], "/metrics")
        assert status in (0, 400), f"{replica}: plain HTTP is answered with {status}"
        assert "process_" not in body


def test_rules_are_loaded_and_none_fails(plan: Plan, monitoring: Monitoring) -> None:
    for replica in monitoring.replicas():
        groups = monitoring.get("prometheus", replica, "/api/v1/rules")["groups"]
        rules = [rule for group in groups for rule in group["rules"]]
        assert "Watchdog" in {rule["name"] for rule in rules}
        assert [f"{rule['name']}: {rule.get('lastError')}" for rule in rules if rule["health"] == "err"] == []
        for rule in rules:
            if rule["type"] == "alerting":
                assert rule["labels"].get("severity") in ("critical", "warning", "info", "none"), rule["name"]
                assert rule["annotations"].get("summary"), rule["name"]
                assert rule["annotations"].get("remedy"), rule["name"]


def test_retention_is_bounded_by_time_and_size(plan: Plan, monitoring: Monitoring) -> None:
    for replica in monitoring.replicas():
        text = monitoring.get("prometheus", replica, "/api/v1/status/config")["yaml"]
        assert "retention:" in text and "size: " in text.partition("retention:")[2][:80], text[-500:]


@pytest.mark.needs("kubernetes_control", "kubernetes_node")
def test_pods_and_services_that_ask_for_it_are_read(monitoring: Monitoring, workload: Workload) -> None:
    """By annotation, without anybody telling Prometheus."""
    asks = {"prometheus.io/scrape": "true", "prometheus.io/port": "8080"}
    made = deployment("measured", 1, workload.image)
    template = made["spec"]["template"]
    template["metadata"]["annotations"] = asks
    template["spec"]["containers"][0]["command"] = [
        "sh",
        "-c",
        "echo 'conformance_measured 5' > /www/metrics; echo here > /www/index.html; exec httpd -f -p 8080 -h /www",
    ]
    workload.cluster.create(made, workload.namespace)
    behind = service("measured")
    behind["metadata"]["annotations"] = asks
    workload.cluster.create(behind, workload.namespace)
    try:
        pod = workload.running("measured", 1)[0]["metadata"]["name"]
        for replica in monitoring.replicas():
            for component in ("kubernetes_pods", "kubernetes_services"):
                expression = f'conformance_measured{{component="{component}",namespace="{workload.namespace}"}}'
                found = until(f"{replica} has read the pod by {component}", lambda: monitoring.query(replica, expression), pause=2)  # noqa: B023
                assert found[0]["value"][1] == "5"
                assert found[0]["metric"]["pod"] == pod
                assert found[0]["metric"]["site"] == monitoring.plan.site
                assert found[0]["metric"]["node"] in monitoring.plan.machines
    finally:
        workload.remove("measured")


@pytest.mark.needs("consul")
def test_services_of_the_catalogue_that_ask_for_it_are_read(plan: Plan, monitoring: Monitoring) -> None:
    """By tag. Nothing listens at this one, so it is found and down; the platform's own services are left to their manifests."""
    catalogue, node = Catalogue(plan), monitoring.nodes[plan.on("consul")[-1]]
    name = random_name("conformance")
    body = {"ID": name, "Name": name, "Address": "127.0.0.1", "Port": 9, "Tags": ["metrics"], "Meta": {"metrics-path": "/figures"}}
    catalogue.put(node, "/v1/agent/service/register", body)
    try:
        for replica in monitoring.replicas():

            def look(replica: str = replica) -> list[dict[str, Any]]:
                return [target for target in monitoring.targets(replica) if target["labels"]["component"] == "consul_services"]

            found = until(f"{replica} has found the service", lambda: [one for one in look() if one["labels"]["endpoint"] == name], pause=2)  # noqa: B023
            assert found[0]["scrapeUrl"] == "http://127.0.0.1:9/figures"
            assert found[0]["labels"]["node"] == node.name
            ours = {component.replace("_", "-") for component in plan.components}
            assert not {one["labels"]["endpoint"] for one in look()} & ours
    finally:
        catalogue.forget(node, name)


@pytest.mark.scenario("monitoring")
@pytest.mark.disruptive
def test_a_killed_replica_is_back_with_its_figures(plan: Plan, monitoring: Monitoring, tell: Tell) -> None:
    """By itself, with everything it had, and at most one scrape later than it would have been."""
    interval = int(plan.option("prometheus", "prometheus_scrape_interval_seconds"))
    for replica in monitoring.replicas():
        selector = f'up{{node="{replica}",component="node_exporter"}}' if plan.has("node_exporter") else f'up{{node="{replica}",component="prometheus"}}'
        until(f"{replica} has read for a while", lambda: len(samples(monitoring, replica, f"{selector}[2m]")) >= 3, pause=3)  # noqa: B023
        before = samples(monitoring, replica, f"{selector}[10m]")
        number = monitoring.kill("prometheus", replica)
        killed = time.monotonic()
        until(f"Prometheus of {replica} is ready again", lambda: monitoring.ask("prometheus", replica, "/-/ready").status == 200, pause=0.5)  # noqa: B023
        tell(f"prometheus of {replica}: ready {time.monotonic() - killed:.1f} s after SIGKILL")
        assert number != int(monitoring.nodes[replica].run("systemctl show --property=MainPID --value prometheus.service"))
        until(f"{replica} reads again", lambda: len(newer(monitoring, replica, selector, before)) >= 2, pause=2)  # noqa: B023
        after = samples(monitoring, replica, f"{selector}[10m]")
        # The window has moved on meanwhile.
        lost = {at for at in before if at >= after[0]} - set(after)
        assert not lost, f"{replica} lost figures: {sorted(lost)}"
        gaps = [later - earlier for earlier, later in zip(after, after[1:], strict=False) if later > before[-1]]
        tell(judged(f"prometheus of {replica}: longest gap at a scrape every {interval} s", max(gaps), 2 * interval + 1))
        assert monitoring.query(replica, f'prometheus_tsdb_wal_corruptions_total{{node="{replica}"}} > 0') == []


def samples(monitoring: Monitoring, replica: str, selector: str) -> list[float]:
    """When a series was read, in seconds."""
    found = monitoring.query(replica, selector)
    return [float(at) for at, _ in found[0]["values"]] if found else []


def newer(monitoring: Monitoring, replica: str, selector: str, before: list[float]) -> list[float]:
    return [at for at in samples(monitoring, replica, f"{selector}[2m]") if at > before[-1]]


def test_answers_are_the_same_in_all_replicas(plan: Plan, monitoring: Monitoring) -> None:
    def up(replica: str) -> str:
        found = {of({"labels": one["metric"]}) for one in monitoring.query(replica, 'up{class!=""} == 1')}
        return json.dumps(sorted(found))

    until("all replicas see the same", lambda: len(set(at_once(up, monitoring.replicas()))) == 1, pause=3)
