# SPDX-License-Identifier: Apache-2.0
"""Every line of every unit and pod is found in every log store, soon, with its labels and without its secrets, whatever is killed meanwhile."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any
from urllib.parse import urlencode

import pytest

from .support.cluster import Object, Workload, pod_template, random_name
from .support.figures import Tell, mostly
from .support.nodes import Node
from .support.plan import Plan
from .support.waiting import at_once, until

pytestmark = [pytest.mark.needs("logging"), pytest.mark.needs("victorialogs"), pytest.mark.needs("log_collector")]

SOON = 5
"""Seconds within which a line is found."""
LINES = 5
"""So many lines, one a second, are written to see how soon."""
COLLECTOR_MIB = 96
"""Memory that a collector may have had at most after all that is done to it here."""


class Store:
    """One replica, asked from its own node, as its health check asks."""

    def __init__(self, node: Node) -> None:
        self.node = node

    def get(self, path: str, certificate: str | None = "victorialogs/probe", **parameters: Any) -> Any:
        return self.node.https(f"https://{self.node.address}:9428{path}?{urlencode(parameters)}", "site", certificate, seconds=20)

    def search(self, query: str, limit: int = 100) -> list[dict[str, str]]:
        reply = self.get("/select/logsql/query", query=f"_time:1h {query}", limit=limit)
        assert reply.status == 200, reply
        return [json.loads(line) for line in reply.body.splitlines()]

    def count(self, query: str) -> tuple[int, int]:
        """Lines, and how many of them differ."""
        found = self.search(f"{query} | stats count() lines, count_uniq(_msg) different")[0]
        return int(found["lines"]), int(found["different"])

    def has(self, query: str, different: int) -> bool:
        return self.count(query)[1] == different

    def answers(self) -> bool:
        return bool(self.get("/health").status == 200)


@pytest.fixture(scope="module")
def stores(plan: Plan, nodes: dict[str, Node]) -> list[Store]:
    made = [Store(nodes[name]) for name in plan.on("victorialogs")]
    for store in made:
        until(f"the log store of {store.node.name} answers", store.answers)
    return made


@pytest.fixture(scope="module")
def everywhere(stores: list[Store]) -> Callable[[str], list[list[dict[str, str]]]]:
    """Waits until a search finds something in every store, and gives what."""

    def found(query: str) -> list[list[dict[str, str]]]:
        return at_once(lambda store: until(f"{store.node.name} finds {query}", lambda: store.search(query)), stores)

    return found


def telling(word: str) -> str:
    """A shell script that writes lines which say when they were written."""
    return f'i=0; while [ $i -lt {LINES} ]; do i=$((i + 1)); echo "{word} $i at $(date +%s)"; sleep 1; done'


def delays(stores: list[Store], query: str, node: Node) -> list[float]:
    """Seconds from each of those lines to the moment when each store finds it; up to one too many, as they tell no parts of a second."""
    ahead = node.ahead()

    def one(store: Store) -> list[float]:
        found: dict[str, float] = {}

        def look() -> bool:
            for line in store.search(query):
                found.setdefault(line["_msg"], time.time() + ahead)
            return len(found) == LINES

        until(f"{store.node.name} finds all of {query}", look, pause=0.1)
        return [at - float(text.split()[-1]) for text, at in found.items()]

    return [delay for those in at_once(one, stores) for delay in those]


class Pods:
    """Pods that print something and stay."""

    def __init__(self, workload: Workload, node: str) -> None:
        self.workload, self.node, self.made = workload, node, list[str]()

    def run(self, script: str) -> str:
        """The name of a pod on this node that runs a shell script; once it has begun."""
        name = random_name("logs")
        spec: Object = pod_template(name, self.workload.image)["spec"]
        container = spec["containers"][0]
        container.update({"name": "main", "command": ["sh", "-c", f"{script}\nsleep 3600"], "readinessProbe": None, "ports": []})
        container["resources"]["limits"]["memory"] = "96Mi"
        spec |= {"nodeName": self.node, "restartPolicy": "Never"}
        self.workload.cluster.create({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}, self.workload.namespace)
        self.made.append(name)

        def running() -> bool:
            return bool(self.workload.cluster.get(self.workload.path("Pod", name))["status"].get("phase") == "Running")

        until(f"pod {name} runs", running, 60, pause=0.05)
        return name

    def query(self, name: str) -> str:
        return f'namespace:="{self.workload.namespace}" pod:="{name}"'


@pytest.fixture
def pods(plan: Plan, workload: Workload) -> Iterator[Pods]:
    """On a node that carries no store, where there is one."""
    spared = [name for name in plan.on("kubernetes_node") if name not in plan.on("victorialogs")]
    made = Pods(workload, (spared or plan.on("kubernetes_node"))[0])
    yield made
    for name in made.made:
        workload.cluster.delete(workload.path("Pod", name), grace_seconds=0)


def peak_mib(node: Node, unit: str) -> float:
    """The most memory that the main process of a unit has had."""
    return int(node.run(f"awk '/^VmHWM/ {{print $2}}' /proc/$(systemctl show -p MainPID --value {unit})/status")) / 1024


def now_mib(node: Node, unit: str) -> float:
    """The memory of a unit's main process, shared pages by their share."""
    return int(node.run(f"awk '/^Pss:/ {{print $2}}' /proc/$(systemctl show -p MainPID --value {unit})/smaps_rollup")) / 1024


def restarts(node: Node, unit: str) -> int:
    return int(node.run(f"systemctl show -p NRestarts --value {unit}"))


def test_a_line_of_a_unit_is_found_with_its_labels(plan: Plan, every: list[Node], everywhere: Any) -> None:
    for node in every:
        marker = random_name("unit")
        node.run(f"systemd-run --quiet --unit=conformance-{marker} sh -c 'echo \"ERROR {marker} says so\"'")
        for lines in everywhere(f'"{marker}" "says so" stream:=stdout'):
            line = lines[0]
            wanted = {
                "site": plan.site,
                "node": node.name,
                "class": ",".join(node.machine.variables["node_classes"]),
                "level": "error",
                "_msg": f"ERROR {marker} says so",
            }
            wanted |= {"unit": f"conformance-{marker}.service", "component": f"conformance-{marker}.service"}
            assert {key: line.get(key) for key in wanted} == wanted


def test_a_line_of_a_unit_is_found_soon(every: list[Node], stores: list[Store], tell: Tell) -> None:
    node, marker = every[-1], random_name("unit")
    node.run(f"systemd-run --quiet --unit=conformance-{marker} sh -c '{telling(marker)}'")
    tell(mostly("a line of a unit is found", delays(stores, f'"{marker}" stream:=stdout', node), SOON))


def test_lines_of_components_bear_their_names(plan: Plan, stores: list[Store]) -> None:
    for store in stores:
        known = {(line["node"], line["component"]) for line in store.search("* | uniq by (node, component)", 10000) if "component" in line}
        missing = {(name, component) for component in ("log_collector", "victorialogs") for name in plan.on(component)} - known
        assert not missing, f"the store of {store.node.name} has no lines of {sorted(missing)}"


def test_a_line_of_a_pod_is_found_with_its_labels(plan: Plan, workload: Workload, pods: Pods, everywhere: Any) -> None:
    name = pods.run("echo 'level=warn one line'; echo another >&2; printf begun; sleep 1; echo ' and ended'")
    for lines in everywhere(f'{pods.query(name)} "one line"'):
        wanted = {
            "site": plan.site,
            "node": pods.node,
            "namespace": workload.namespace,
            "pod": name,
            "container": "main",
            "stream": "stdout",
            "level": "warning",
        }
        assert {key: lines[0].get(key) for key in wanted} == wanted
    for lines in everywhere(f"{pods.query(name)} another"):
        assert lines[0]["stream"] == "stderr"
    for lines in everywhere(f'{pods.query(name)} "begun and ended"'):
        assert len(lines) == 1


def test_a_line_of_a_pod_is_found_soon(nodes: dict[str, Node], pods: Pods, stores: list[Store], tell: Tell) -> None:
    name = pods.run(telling("pod"))
    tell(mostly("a line of a pod is found", delays(stores, pods.query(name), nodes[pods.node]), SOON))


def test_secrets_are_not_found(pods: Pods, stores: list[Store], everywhere: Any) -> None:
    secret = random_name("geheim").replace("-", "") + "Xy9"
    body = "MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQC7VJTUt9Us8cKj"
    name = pods.run(
        f"echo 'Authorization: Bearer {secret}'; echo '{{\"password\": \"{secret}\", \"user\": \"me\"}}'; echo 'API_KEY={secret} x'; echo 'postgres://me:{secret}@db/x';"
        f"echo 'X-Consul-Token: {secret}'; echo '-----BEGIN PRIVATE KEY-----'; echo {body}; echo {secret}==; echo '-----END PRIVATE KEY-----';"
        "echo all was said"
    )
    for lines in everywhere(f'{pods.query(name)} "all was said"'):
        assert len(lines) == 1
    for store in stores:
        texts = [line["_msg"] for line in store.search(pods.query(name))]
        assert len(texts) == 10, texts
        assert not [text for text in texts if secret in text or body in text]
        assert sum("***" in text for text in texts) >= 8, texts
        assert store.search(f'"{secret}"') == []
        assert [text for text in texts if '"user": "me"' in text], "more than the secret is gone"


def test_a_burst_of_one_pod_is_found_whole_within_bounded_memory(nodes: dict[str, Node], pods: Pods, stores: list[Store], tell: Tell) -> None:
    count = 100_000
    start = time.monotonic()
    name = pods.run(f'awk \'BEGIN {{ for (i = 0; i < {count}; i++) print "burst number " i " of a pod that has much to say and says it all at once" }}\'')
    for store in stores:
        query = f"{pods.query(name)} burst"
        until(f"all of the burst is in {store.node.name}", partial(store.has, query, count), 90, pause=1)
        tell(f"{count} lines are in {store.node.name} after {time.monotonic() - start:.1f} s; its memory: {now_mib(store.node, 'victorialogs'):.0f} MiB")
    collector = peak_mib(nodes[pods.node], "log-collector")
    tell(f"memory of the collector after {count} lines at most: {collector:.0f} MiB")
    assert collector < COLLECTOR_MIB


def test_a_flood_is_limited_and_counted(plan: Plan, nodes: dict[str, Node], pods: Pods, stores: list[Store], tell: Tell) -> None:
    burst, rate = int(plan.option("log_collector", "log_collector_burst_lines")), int(plan.option("log_collector", "log_collector_lines_per_second"))
    count = burst + 30 * rate
    name = pods.run(f"awk 'BEGIN {{ for (i = 0; i < {count}; i++) print \"flood \" i }}'")
    start = time.monotonic()
    told = until("the pod's own log says how many lines were dropped", lambda: stores[0].search(f'{pods.query(name)} "lines were dropped"'), 60, pause=1)
    dropped = sum(int(line["_msg"].split()[0]) for line in told)
    lines, _ = until("what passed is found", lambda: stores[0].count(f"{pods.query(name)} flood"))
    tell(f"of {count} lines {lines} passed, {dropped} were dropped and counted, told after {time.monotonic() - start:.0f} s")
    assert burst <= lines < count
    assert told[0]["level"] == "warning"
    assert peak_mib(nodes[pods.node], "log-collector") < COLLECTOR_MIB


def test_long_lines_and_bytes_that_are_no_text_are_bounded(nodes: dict[str, Node], pods: Pods, stores: list[Store], everywhere: Any) -> None:
    units = [(nodes[pods.node], "log-collector")] + [(store.node, "victorialogs") for store in stores]
    before = [restarts(*unit) for unit in units]
    name = pods.run(
        "head -c 1000000 /dev/zero | tr '\\0' x; echo; head -c 3000000 /dev/zero | tr '\\0' y; echo;"
        "printf 'binary \\000\\001\\377\\376 bytes\\n'; head -c 500000 /dev/urandom; echo; echo still here"
    )
    for lines in everywhere(f'{pods.query(name)} "still here"'):
        assert len(lines) == 1
    limit = 1024 * 1024
    for store in stores:
        sizes = {
            line["first"]: line
            for line in store.search(
                f'{pods.query(name)} (~"^x{{100}}" or ~"^y{{100}}") | len(_msg) size | extract_regexp "(?P<first>.)" | fields first, size, cut_bytes'
            )
        }
        assert int(sizes["x"]["size"]) == 1_000_000
        assert int(sizes["y"]["size"]) == limit
        assert int(sizes["y"]["cut_bytes"]) == 3_000_000 - limit
        assert store.search(f'{pods.query(name)} "binary" "bytes"')[0]["_msg"] == "binary \ufffd bytes"
    assert [restarts(*unit) for unit in units] == before
    assert peak_mib(nodes[pods.node], "log-collector") < COLLECTOR_MIB


def test_nobody_without_the_right_certificate_gets_an_answer(plan: Plan, stores: list[Store]) -> None:
    for store in stores:
        assert store.get("/select/logsql/query", None, query="*").status == 0
        assert store.get("/select/logsql/query", "log_collector/client", query="*").status == 403, "a collector may search"
        assert store.get("/insert/jsonline").status == 403, "who searches may write"
        for path in (
            "/",
            "/delete/run_task",
            "/internal/force_flush",
            "/select/../internal/force_flush",
            "/select/logsql/../../metrics",
            "//metrics",
            "/insert/loki/api/v1/push",
        ):
            assert store.get(path).status in (400, 403), path
        plain = store.node.run(f"curl -s -o /dev/null -w '%{{http_code}}' -m 5 http://{store.node.address}:9428/health || true")
        assert plain in ("000", "400")
        # Processes of the node are not asked for a certificate, but for a password.
        assert store.node.run("curl -s -o /dev/null -w '%{http_code}' -m 5 'http://127.0.0.1:9429/select/logsql/query?query=*'") == "401"


def numbered(count: int, seconds: int) -> str:
    return (
        f'i=0; while [ $i -lt {count} ]; do n=0; while [ $n -lt {count // seconds} ]; do echo "number $i"; i=$((i + 1)); n=$((n + 1)); done; sleep 0.95; done'
    )


@pytest.mark.disruptive
def test_no_line_is_lost_when_collector_and_stores_are_killed_under_load(nodes: dict[str, Node], pods: Pods, stores: list[Store], tell: Tell) -> None:
    count, seconds = 6000, 24
    name = pods.run(numbered(count, seconds))
    victims = [
        (nodes[pods.node], "log-collector"),
        (stores[0].node, "victorialogs"),
        (nodes[pods.node], "log-collector"),
        (stores[-1].node, "victorialogs"),
        (stores[0].node, "victorialogs-front"),
    ]
    for node, unit in victims:
        time.sleep(4)
        node.run(f"systemctl kill -s KILL {unit}")
    for store in stores:
        query = f"{pods.query(name)} number"
        until(f"all numbers are in {store.node.name}", partial(store.has, query, count), 60, pause=1)
        lines, different = store.count(query)
        tell(f"collector and stores killed: {store.node.name} has {different} lines, {lines - different} of them twice")
        assert lines - different < count / 2, "much more is sent again than the last seconds"


@pytest.mark.disruptive
def test_a_store_that_is_down_delays_no_other_and_gets_everything_later(every: list[Node], pods: Pods, stores: list[Store], tell: Tell) -> None:
    if len(stores) < 2:
        pytest.skip("the site has one store")
    down, other = stores[-1], stores[0]
    down.node.run("systemctl stop victorialogs")
    try:
        name = pods.run("for i in 1 2 3 4 5 6 7 8 9; do echo number $i; done")
        start = time.monotonic()
        until("the other store has the lines", lambda: other.count(f"{pods.query(name)} number")[1] == 9, pause=0.1)
        tell(f"a store is down: the other has the lines after {time.monotonic() - start:.1f} s")
        pods.workload.cluster.delete(pods.workload.path("Pod", name), grace_seconds=0)
        time.sleep(3)
        at_once(lambda node: node.run("systemctl kill -s KILL log-collector"), every)
    finally:
        down.node.run("systemctl start victorialogs")
    start = time.monotonic()
    until("the store has them, too, though the pod is gone", lambda: down.count(f"{pods.query(name)} number")[1] == 9, pause=0.2)
    tell(f"the store that was down has the lines {time.monotonic() - start:.1f} s after its start")
