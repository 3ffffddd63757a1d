# SPDX-License-Identifier: Apache-2.0
"""Every query of every dashboard, asked of the site's own Prometheus and log store: none is refused, and none shows nothing that should have something.

The dashboards are proven through their queries, whether or not the site has a Grafana to draw them.
"""

from __future__ import annotations

import itertools
import json
import shlex
import sys
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .support.nodes import Node
from .support.plan import Plan
from .support.waiting import until

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / ".collections"))

from ansible_collections.ashlar.stack.plugins.plugin_utils.observability import dashboards  # noqa: E402
from ansible_collections.ashlar.stack.plugins.plugin_utils.observability.dashboards import Dashboard, Question, Variable  # noqa: E402

pytestmark = [pytest.mark.needs("monitoring"), pytest.mark.needs("prometheus")]

SOURCES = sorted(path.stem for path in (ROOT / "roles").glob("*/dashboards/*.yml"))
# Of a variable with one value at a time, so many of its values are tried.
VALUES = 3

# One connection after another from the node whose certificate Prometheus knows; answers are made small there: status, error, number of series.
ASK = r"""
import http.client, json, ssl, sys, urllib.parse
host, port, authority, pair, paths = json.loads(sys.argv[1])
context = ssl.create_default_context(cafile=authority)
context.load_cert_chain(*pair)
replies = []
connection = http.client.HTTPSConnection(host, port, timeout=30, context=context)
for path in paths:
    connection.request("GET", path)
    answer = connection.getresponse()
    body = answer.read()
    try:
        said = json.loads(body)
        data = said.get("data") or []
        found = data.get("result", []) if isinstance(data, dict) else data
        replies.append([answer.status, said.get("error", ""), found if "/label/" in path else len(found)])
    except ValueError:
        replies.append([answer.status, body[:300].decode(errors="replace"), 0])
print(json.dumps(replies))
"""


def ask(node: Node, port: int, certificate: str, paths: list[str]) -> list[tuple[int, str, Any]]:
    """(status, error, number of series or the values) of each path, asked by a node of the program that runs on it."""
    pki = "/etc/ashlar/pki"
    pair = [f"{pki}/{certificate}.crt", f"{pki}/{certificate}.key"]
    replies: list[tuple[int, str, Any]] = []
    # An argument of a process has its limits.
    for at in range(0, len(paths), 60):
        replies += node.python(ASK, node.address, port, f"{pki}/ca/site.crt", pair, paths[at : at + 60], seconds=120)
    return replies


def choices(node: Node, page: Dashboard) -> Iterator[dict[str, str]]:
    """Values for the page's variables, from the figures that are there: of `several` all at once, else one after another."""
    paths = [f"/api/v1/label/{one.label}/values?{urllib.parse.urlencode({'match[]': one.series})}" for one in page.variables]
    found = [values for _, _, values in ask(node, 9090, "prometheus/scrape", paths)]
    assert all(found), f"{page.title}: no series has values for {[one.name for one in page.variables]}"
    for picked in itertools.product(*(pick(one, values) for one, values in zip(page.variables, found, strict=True))):
        yield dict(zip((one.name for one in page.variables), picked, strict=True))


def pick(variable: Variable, values: list[str]) -> list[str]:
    return ["|".join(values)] if variable.several else values[:VALUES]


@pytest.fixture(scope="module")
def asker(plan: Plan, nodes: dict[str, Node]) -> Node:
    """A node with Prometheus, which has read every target often enough for a rate."""
    node = nodes[plan.on("prometheus")[0]]
    path = "/api/v1/query?" + urllib.parse.urlencode({"query": 'min(sum_over_time(up{class!=""}[90s])) >= 5'})
    until("every target of the nodes was read five times without a miss", lambda: ask(node, 9090, "prometheus/scrape", [path])[0][2], 180, 5)
    return node


@pytest.fixture(scope="module")
def pages(plan: Plan) -> dict[str, Dashboard]:
    """The pages of this site by name."""
    found, problems = dashboards.read(ROOT, dashboards.find(ROOT, Path(str(plan.shared["site_directory"]))), plan.components)
    assert problems == []
    return {page.name: page for page in found}


@pytest.fixture(scope="module")
def nothing(plan: Plan, asker: Node, request: pytest.FixtureRequest) -> set[str]:
    """Panels that have nothing to show on this site. Where cAdvisor measures, a container runs from here on."""
    if not plan.has("cadvisor"):
        return set()
    _, name = request.getfixturevalue("measured")
    path = "/api/v1/query?" + urllib.parse.urlencode({"query": f'rate(container_cpu_usage_seconds_total{{name="{name}"}}[1m])'})
    until("the container was read twice", lambda: ask(asker, 9090, "prometheus/scrape", [path])[0][2], pause=3)
    # Networks of containers are those of pods and of Docker; containerd alone gives none.
    return set() if plan.has("orchestrator") or plan.has("docker") else {"Network"}


@pytest.mark.parametrize("name", SOURCES)
def test_every_query_of_a_page_is_answered(name: str, pages: dict[str, Dashboard], asker: Node, nothing: set[str]) -> None:
    if name not in pages:
        pytest.skip(f"the site has nothing that the page {name} is about")
    page = pages[name]
    asked: dict[str, Question] = {}
    for values in choices(asker, page):
        for question in dashboards.questions(page, values):
            if question.source == "prometheus":
                asked["/api/v1/query?" + urllib.parse.urlencode({"query": question.query})] = question
    assert asked, f"{page.title} asks nothing of Prometheus"

    def answered() -> bool:
        wrong = []
        for (status, error, found), question in zip(ask(asker, 9090, "prometheus/scrape", list(asked)), asked.values(), strict=True):
            if status != 200:
                wrong.append(f"{question.panel}: refused with {status}, {error}: {question.query}")
            elif not found and not question.may_be_empty and not (name == "containers" and question.panel in nothing):
                wrong.append(f"{question.panel}: shows nothing: {question.query}")
        assert not wrong, "\n".join(wrong)
        return True

    # A rate takes two readings, and Ceph's daemons report to a manager some time after it has become the active one.
    until(f"every question of {page.title} is answered", answered, pause=3)


@pytest.mark.needs("victorialogs")
def test_every_question_to_the_logs_is_answered(pages: dict[str, Dashboard], plan: Plan, nodes: dict[str, Node]) -> None:
    node = nodes[plan.on("victorialogs")[0]]
    asked = [question for page in pages.values() for question in dashboards.questions(page) if question.source == "logs"]
    assert asked
    pki = "/etc/ashlar/pki"
    for question in asked:
        form = urllib.parse.urlencode({"query": f"_time:1h {question.query}", "limit": 5})
        command = (
            f"curl --silent --show-error --max-time 20 --cacert {pki}/ca/site.crt --cert {pki}/victorialogs/probe.crt --key {pki}/victorialogs/probe.key "
            f"--write-out '%{{http_code}}' {shlex.quote(f'https://{node.address}:9428/select/logsql/query?{form}')}"
        )
        lines = node.run(command, 30).splitlines()
        status, answers = lines[-1][-3:], [json.loads(line) for line in lines[:-1]]
        assert status == "200", f"{question.panel}: refused with {status}: {question.query}: {lines[:3]}"
        assert answers or question.may_be_empty, f"{question.panel}: shows nothing: {question.query}"
