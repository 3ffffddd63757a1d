# SPDX-License-Identifier: Apache-2.0
"""What goes wrong is told within a minute, to every Alertmanager, once, and no longer when it is over."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from .support.backups import Keys
from .support.figures import Tell
from .support.monitoring import Monitoring
from .support.nodes import Node
from .support.plan import Plan
from .support.power import Power, reachable
from .support.site import run
from .support.waiting import at_once, holds, until

pytestmark = [pytest.mark.needs("monitoring"), pytest.mark.needs("alertmanager")]

SILENCE = "/opt/ashlar/alertmanager/current/amtool silence"


@pytest.fixture(scope="module")
def monitoring(plan: Plan, nodes: dict[str, Node]) -> Monitoring:
    return Monitoring(plan, nodes)


def everywhere(monitoring: Monitoring, look: Callable[[str], object], replicas: list[str] | None = None) -> bool:
    return all(at_once(look, replicas or monitoring.replicas("alertmanager")))


def test_replicas_know_each_other(monitoring: Monitoring) -> None:
    wanted = set(monitoring.replicas("alertmanager"))
    if len(wanted) < 2:
        pytest.skip("one replica has nobody to know")

    def look(replica: str) -> bool:
        cluster = monitoring.get("alertmanager", replica, "/api/v2/status")["cluster"]
        assert cluster["status"] == "ready" and {peer["name"] for peer in cluster["peers"]} == wanted, cluster
        return True

    for replica in wanted:
        until(f"{replica} knows {', '.join(sorted(wanted))}", lambda replica=replica: look(replica))  # type: ignore[misc]


def test_the_watchdog_fires_in_every_replica_as_one_alert(monitoring: Monitoring) -> None:
    """Both replicas of Prometheus send it, and it is the same alert."""
    for replica in monitoring.replicas("alertmanager"):
        found = until(f"the watchdog is known to {replica}", lambda: monitoring.alerts(replica, alertname="Watchdog"), pause=2)  # noqa: B023
        assert len(found) == 1, found
        assert "replica" not in found[0]["labels"]
        assert found[0]["annotations"]["remedy"]


def test_gossip_is_for_replicas_only(monitoring: Monitoring) -> None:
    replicas = monitoring.replicas("alertmanager")
    if len(replicas) < 2:
        pytest.skip("one replica does not listen for others")
    for replica in replicas:
        node = monitoring.nodes[replica]
        for certificate in (None, "alertmanager/client"):
            reply = node.https(f"https://{node.address}:9094/", "site", certificate)
            assert reply.status == 0, f"{replica}: {certificate} is taken: {reply}"


def test_the_configuration_is_for_alertmanager_only(monitoring: Monitoring) -> None:
    for replica in monitoring.replicas("alertmanager"):
        assert monitoring.nodes[replica].run("stat -c '%U %a' /etc/alertmanager/alertmanager.yml").split() == ["alertmanager", "400"]


@pytest.mark.scenario("monitoring")
@pytest.mark.disruptive
@pytest.mark.needs("node_exporter")
def test_a_stopped_program_is_told_and_then_no_longer(plan: Plan, monitoring: Monitoring, tell: Tell) -> None:
    node = monitoring.nodes[plan.on("node_exporter")[-1]]
    labels = {"alertname": "TargetMissing", "component": "node_exporter", "node": node.name}
    node.run("systemctl stop node-exporter.service")
    start = time.monotonic()
    try:
        until("every Alertmanager has the alert", lambda: everywhere(monitoring, lambda replica: monitoring.alerts(replica, **labels)), pause=1)
        tell(f"TargetMissing fired after {time.monotonic() - start:.0f} s")
        assert len(monitoring.alerts(monitoring.replicas("alertmanager")[0], **labels)) == 1
    finally:
        node.run("systemctl start node-exporter.service")
    start = time.monotonic()
    until("no Alertmanager has it any more", lambda: everywhere(monitoring, lambda replica: not monitoring.alerts(replica, **labels)), pause=1)
    tell(f"TargetMissing cleared after {time.monotonic() - start:.0f} s")


@pytest.mark.scenario("monitoring")
@pytest.mark.disruptive
@pytest.mark.needs("node_exporter")
def test_a_node_that_stops_is_one_alert(plan: Plan, monitoring: Monitoring, nodes: dict[str, Node], power: Power, tell: Tell) -> None:
    """Within a minute, by every replica that is left, without an alert for each of its programs; and it clears."""
    victim = nodes[list(plan.machines)[-1]]
    left = [replica for replica in monitoring.replicas("alertmanager") if replica != victim.name]
    labels = {"alertname": "NodeDown", "node": victim.name}
    until("there is no such alert yet", lambda: everywhere(monitoring, lambda replica: not monitoring.alerts(replica, **labels), left), pause=1)
    power.off(victim)
    start = time.monotonic()
    try:
        until("every Alertmanager has the alert", lambda: everywhere(monitoring, lambda replica: monitoring.alerts(replica, **labels), left), pause=1)
        fired = time.monotonic() - start
        tell(f"NodeDown fired after {fired:.0f} s")
        loud = [alert for alert in monitoring.alerts(left[0], node=victim.name) if alert["status"]["state"] == "active"]
        assert {alert["labels"]["alertname"] for alert in loud} == {"NodeDown"}, [alert["labels"] for alert in loud]
    finally:
        power.on(victim)
    until(f"{victim.name} answers by SSH", lambda: reachable(victim))
    start = time.monotonic()
    until("no Alertmanager has it any more", lambda: everywhere(monitoring, lambda replica: not monitoring.alerts(replica, **labels), left), pause=1)
    tell(f"NodeDown cleared {time.monotonic() - start:.0f} s after the node was back")


@pytest.mark.scenario("monitoring")
@pytest.mark.disruptive
def test_a_killed_alertmanager_forgets_nothing(monitoring: Monitoring, tell: Tell) -> None:
    """Another replica has the alerts all the while, and silences are there when it is back."""
    replicas = monitoring.replicas("alertmanager")
    if len(replicas) < 2:
        pytest.skip("nobody else would know")
    for number, replica in enumerate(replicas):
        other = replicas[number - 1]
        node = monitoring.nodes[replica]
        silence = node.run(f"{SILENCE} add --author=conformance --comment=probe --duration=5m alertname=AshlarConformance{number}").strip()
        try:
            until("the other replica knows the silence", lambda: silence in known(monitoring, other))  # noqa: B023
            until(f"{replica} knows the watchdog", lambda: monitoring.alerts(replica, alertname="Watchdog"), pause=1)  # noqa: B023
            monitoring.kill("alertmanager", replica)
            start = time.monotonic()
            holds("the other replica has the watchdog", lambda: monitoring.alerts(other, alertname="Watchdog"), 5)  # noqa: B023
            until(f"{replica} is ready", lambda: monitoring.ask("alertmanager", replica, "/-/ready").status == 200)  # noqa: B023
            until(f"{replica} has the silence again", lambda: silence in known(monitoring, replica))  # noqa: B023
            until(f"{replica} has the watchdog again", lambda: monitoring.alerts(replica, alertname="Watchdog"), pause=1)  # noqa: B023
            tell(f"alertmanager of {replica}: everything is back {time.monotonic() - start:.0f} s after SIGKILL")
            until("the replicas are a cluster again", lambda: len(peers(monitoring, other)) == len(replicas))  # noqa: B023
        finally:
            node.run(f"{SILENCE} expire {silence}")


@pytest.mark.scenario("monitoring")
@pytest.mark.disruptive
@pytest.mark.destructive
def test_silences_come_back_with_a_backup(monitoring: Monitoring, plan: Plan, tmp_path: Path) -> None:
    keys, node = Keys.made(tmp_path), monitoring.nodes[monitoring.replicas("alertmanager")[0]]
    lost, kept = (node.run(f"{SILENCE} add --author={name} --comment=probe --duration=1h alertname=AshlarConformance").strip() for name in ("lost", "kept"))
    try:
        keys.written(plan)
        node.run(f"{SILENCE} expire {lost}")
        run(plan, *keys.restore, "-e", f"restore={plan.site}")
        found = json.loads(node.run(f"{SILENCE} query --output=json alertname=AshlarConformance"))
        assert sorted((one["createdBy"], one["id"] == kept) for one in found) == [("kept", True), ("lost", False)], found
    finally:
        node.run(f"{SILENCE} query --quiet alertname=AshlarConformance | xargs -r {SILENCE} expire")


def peers(monitoring: Monitoring, replica: str) -> list[dict[str, str]]:
    return list(monitoring.get("alertmanager", replica, "/api/v2/status")["cluster"]["peers"])


def known(monitoring: Monitoring, replica: str) -> set[str]:
    return {one["id"] for one in monitoring.get("alertmanager", replica, "/api/v2/silences") if one["status"]["state"] == "active"}


@pytest.mark.scenario("monitoring")
@pytest.mark.disruptive
def test_an_alert_outlives_the_prometheus_that_sent_it(monitoring: Monitoring) -> None:
    def fires() -> bool:
        return everywhere(monitoring, lambda one: monitoring.alerts(one, alertname="Watchdog"))

    # A Prometheus that was started a moment ago has not sent it yet.
    until("the watchdog fires", fires, pause=1)
    for replica in monitoring.replicas("prometheus"):
        monitoring.kill("prometheus", replica)
        holds("the watchdog fires", fires, 20, 1)
        until(f"Prometheus of {replica} is ready again", lambda: monitoring.ask("prometheus", replica, "/-/ready").status == 200, pause=0.5)  # noqa: B023
        firing = json.dumps(monitoring.get("prometheus", replica, "/api/v1/alerts")["alerts"])
        until(f"it fires in {replica}", lambda: "Watchdog" in firing or monitoring.query(replica, 'ALERTS{alertname="Watchdog",alertstate="firing"}'), pause=1)  # noqa: B023
