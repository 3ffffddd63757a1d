# SPDX-License-Identifier: Apache-2.0
"""What pages say: of a healthy site, of a failing one, with hostile words in it, and while what they ask is down, slow or talks nonsense."""

from __future__ import annotations

import re
import time
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import pytest
from portal_support import Reading, Running, charts, figures, model, questions, running, site, views, wait_for
from portal_upstreams import NODES, NOW, Upstream, stamp

HOSTILE = """"'><script>alert(1)</script><img src=x onerror=alert(1)>{{7*7}}\u202e</title>"""
BOXES = ("verdict", "wall", "alerts", "nodes", "charts", "services", "certificates", "logs")
VOID = {"meta", "link", "input", "img", "br", "wbr"}


class Page(HTMLParser):
    """A page as a browser takes it: boxes and their texts, and what is in it that must not be."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.boxes: dict[str, str] = {}
        self.tags: list[str] = []
        self.links: list[str] = []
        self.open: list[tuple[str, str]] = []
        self.faults: list[str] = []
        self.glue = False
        self.feed(text)
        if self.open:
            self.faults.append(f"never closed: {self.open}")

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.glue = self.glue or tag == "wbr"
        found = dict(attrs)
        self.faults += [f"{tag} {name}" for name in found if name.startswith("on") or name == "style"]
        self.links += [str(found[name]) for name in ("href", "src", "action") if name in found]
        if tag not in VOID:
            self.open.append((tag, found.get("id") or "" if "data-box" in found else ""))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open[-1][0] != tag:
            self.faults.append(f"</{tag}> closes {self.open[-1:]}")
        else:
            self.open.pop()

    def handle_data(self, data: str) -> None:
        for _, box in self.open:
            if box:
                self.boxes[box] = " ".join(f"{self.boxes.get(box, '')}{'' if self.glue else ' '}{data}".split())
        self.glue = False


async def looked(found: Running, path: str = "/") -> Page:
    if not found.cookies:
        assert (await found.log_in())[0] == 303
    status, text, _ = await found.get(path)
    assert status == 200 and "Traceback" not in text, text[:500]
    page = Page(text)
    assert page.faults == []
    return page


def alert(name: str = "EtcdSlow", severity: str = "warning", **labels: str) -> dict[str, Any]:
    return {
        "labels": {"alertname": name, "severity": severity, **labels},
        "annotations": {"summary": f"{name} on {labels.get('node', 'the site')}.", "remedy": "Look at `systemctl status etcd`."},
        "startsAt": stamp(NOW - 601),
        "status": {"state": "active"},
    }


WATCHDOG = alert("Watchdog", "none")


def test_a_healthy_site_is_said_to_be_well() -> None:
    async def work() -> None:
        async with running() as found:
            found.upstream.alerts = [WATCHDOG]
            page = await looked(found)
            assert set(BOXES) <= set(page.boxes)
            # A certificate that ends in 12 days is the one blemish.
            assert page.boxes["verdict"].startswith("Needs attention 1 certificate")
            assert "Nothing fires." in page.boxes["alerts"]
            assert all(name in page.boxes["nodes"] for name in NODES)
            assert "0.42 on 4 cores" in page.boxes["nodes"] and "40 %" in page.boxes["nodes"] and "Debian GNU/Linux 13 (trixie)" in page.boxes["nodes"]
            assert "Processor in use" in page.boxes["charts"] and "Requests to the Kubernetes API" in page.boxes["charts"]
            assert page.tags.count("svg") >= 6
            assert "Handbook" in page.boxes["services"] and "shop.three.test/ 2 of 2 answer" in page.boxes["services"]
            assert "etcd server · node1 12 d" in page.boxes["certificates"]
            assert "etcdserver: request timed out" in page.boxes["logs"]

    wait_for(work())


def test_what_is_wrong_is_said_where_it_is() -> None:
    async def work() -> None:
        async with running() as found:
            found.upstream.down = {("etcd", "node2"), ("haproxy", "node1"), ("haproxy", "node2"), ("shop", "node1")}
            found.upstream.alerts = [alert(component="etcd", node=node) for node in NODES[:2]] + [alert("Lone", "critical")]
            page = await looked(found)
            assert page.boxes["verdict"].startswith("Something is failing")
            assert "etcd 1.2.3 · 2 of 3 nodes" in page.boxes["wall"] and "does not answer on node2" in page.boxes["wall"]
            assert "does not answer on node1, node2" in page.boxes["wall"]
            words = page.boxes["alerts"]
            assert words.index("Lone on the site.") < words.index("EtcdSlow on node1.") and "EtcdSlow on node2." not in words
            assert "2 nodes" in words and "for 10 min" in words and "Look at systemctl status etcd ." in words
            assert "The watchdog" in words
            assert "1 of 2 answer" in page.boxes["services"]

    wait_for(work())


@pytest.mark.parametrize("path", ["/", "/nodes/node1", "/logs?level=all"])
@pytest.mark.parametrize("where", ["upstream", "site"])
def test_hostile_words_stay_words(path: str, where: str) -> None:
    async def work() -> None:
        described = site()
        upstream = Upstream({one.name: one.nodes for one in described.components})
        if where == "site":
            components = tuple(replace(one, description=HOSTILE, version=HOSTILE) for one in described.components)
            described = replace(described, name=HOSTILE, domain=HOSTILE, components=components, links=(model.Link(HOSTILE, "https://x.test/", HOSTILE),))
        else:
            upstream.text = HOSTILE
            upstream.alerts = [alert(HOSTILE, HOSTILE, node="node1", component=HOSTILE)]
        async with running(described, upstream) as found:
            page = await looked(found, path)
            assert page.tags.count("script") == 1
            assert {"img", "script"} & set(page.tags) == {"img", "script"} and page.tags.count("img") == 1
            assert not [link for link in page.links if not re.match(r"/(?!/)|https://[a-z]|\?|#", link)]
            assert not any("49" == word for word in page.boxes.get("verdict", "").split())
            assert "<script>alert(1)</script>" in " ".join(page.boxes.values()) or path == "/logs?level=all" and where == "site"

    wait_for(work())


def test_what_is_searched_for_stays_words() -> None:
    async def work() -> None:
        async with running() as found:
            await found.log_in()
            _, text, _ = await found.session_get("/logs", {"q": HOSTILE, "range": HOSTILE, "level": HOSTILE, "node": HOSTILE})
            page = Page(text)
            assert page.faults == [] and page.tags.count("script") == 1 and page.tags.count("img") == 1

    wait_for(work())


@pytest.mark.parametrize(
    ("mood", "reason"),
    [
        ("down", "it answers 503"),
        ("slow", "no answer within 4 s"),
        ("garbage", "its answer makes no sense"),
        ("odd", "its answer makes no sense"),
        ("huge", "its answer is larger than 4 MiB"),
    ],
)
@pytest.mark.parametrize("path", ["/", "/nodes/node2", "/logs"])
def test_what_does_not_answer_is_said_and_the_rest_is_of_use(mood: str, reason: str, path: str) -> None:
    async def work() -> None:
        # Only what is silent costs its whole time.
        async with running(**({"timeout_seconds": 4.0} if mood == "slow" else {})) as found:
            await found.log_in()
            found.upstream.mood = mood
            start = time.monotonic()
            page = await looked(found, path)
            assert time.monotonic() - start < 7 * 4 or mood != "slow", "everybody is asked at the same time"
            boxes = ["wall", "alerts", "nodes", "charts", "services", "certificates", "logs"] if path == "/" else ["logs"]
            for box in boxes:
                assert reason in page.boxes[box], (box, page.boxes[box][:300])
            if path == "/":
                assert page.boxes["verdict"].startswith("Not all can be seen")
                assert all(name in page.boxes["nodes"] for name in NODES), "what the site is needs no upstream"
                assert "kubernetes_control" in page.boxes["wall"] and "Handbook" in page.boxes["services"]

    wait_for(work())


def test_nobody_listens() -> None:
    async def work() -> None:
        gone = ("https://127.0.0.1:1",)
        async with running(prometheus=gone, alertmanager=gone, logs=gone, consul={"url": gone[0]}) as found:
            page = await looked(found)
            assert "Prometheus does not answer (the agent of this node: connection refused)" in page.boxes["wall"]

    wait_for(work())


def test_what_was_read_last_stays_with_its_age_and_comes_back() -> None:
    async def work() -> None:
        async with running() as found:
            await looked(found)
            found.upstream.mood = "down"
            found.clock.now += 90
            page = await looked(found)
            assert "Prometheus does not answer" in page.boxes["nodes"] and "What is shown is 1 min old" in page.boxes["nodes"]
            assert "0.42 on 4 cores" in page.boxes["nodes"]
            assert "Processor in use" in page.boxes["charts"] and "etcdserver: request timed out" in page.boxes["logs"]
            assert "answers on all nodes" not in page.boxes["wall"] and "no figures: Prometheus does not answer" in page.boxes["wall"]
            found.upstream.mood = ""
            found.clock.now += 90
            page = await looked(found)
            assert "does not answer" not in page.boxes["nodes"] and "old" not in page.boxes["nodes"]

    wait_for(work())


def test_the_replica_that_answers_is_asked() -> None:
    async def work() -> None:
        async with running() as found:
            upstream = found.portal.upstreams.prometheus
            upstream.urls.insert(0, "http://127.0.0.1:1")
            page = await looked(found)
            assert "0.42 on 4 cores" in page.boxes["nodes"] and "does not answer (" not in page.boxes["nodes"]
            assert upstream.urls[-1] == "http://127.0.0.1:1", "and stays the first"

    wait_for(work())


def test_a_replica_that_is_silent_costs_a_moment_only() -> None:
    async def work() -> None:
        silent = Upstream({}, mood="slow")
        from portal_support import served

        async with served(silent.application()) as url, running(timeout_seconds=10.0) as found:
            await found.log_in()
            found.portal.upstreams.prometheus.urls.insert(0, url)
            start = time.monotonic()
            page = await looked(found)
            assert 2.5 <= time.monotonic() - start < 10, "the other is asked after a quarter of the time that an answer may take"
            assert "0.42 on 4 cores" in page.boxes["nodes"]

    wait_for(work())


def test_while_alertmanager_is_away_prometheus_says_what_fires() -> None:
    async def work() -> None:
        async with running(alertmanager=("http://127.0.0.1:1",)) as found:
            found.upstream.alerts = [alert(node="node1"), WATCHDOG]
            page = await looked(found)
            assert "EtcdSlow on node1." in page.boxes["alerts"]
            assert "Alertmanager does not answer" in page.boxes["alerts"] and "which knows of no silences" in page.boxes["alerts"]

    wait_for(work())


def test_a_site_without_observability_is_shown_as_far_as_it_is_known() -> None:
    async def work() -> None:
        async with running(prometheus=(), alertmanager=(), logs=(), consul={}) as found:
            page = await looked(found)
            assert "This site has no Prometheus" in page.boxes["nodes"] and "This site has no log store" in page.boxes["logs"]
            assert "node3" in page.boxes["nodes"] and found.upstream.asked == []

    wait_for(work())


def test_many_readers_ask_once() -> None:
    async def work() -> None:
        async with running() as found:
            await looked(found)
            count = len(found.upstream.asked)
            for _ in range(5):
                await looked(found)
            assert len(found.upstream.asked) == count
            found.clock.now += 6
            await looked(found)
            assert count < len(found.upstream.asked) < 2 * count, "what changes slowly is not asked again yet"

    wait_for(work())


def test_only_the_changing_part_is_sent_to_the_script() -> None:
    async def work() -> None:
        async with running() as found:
            await found.log_in()
            status, text, _ = await found.get("/?part=1")
            assert status == 200 and '<nav aria-label="Pages">' not in text and 'id="wall"' in text
            found.cookies.clear()
            assert (await found.get("/?part=1", Accept="text/html"))[0] == 401

    wait_for(work())


def test_an_error_of_ours_is_a_sentence_with_a_number_for_the_journal(caplog: pytest.LogCaptureFixture) -> None:
    async def work() -> None:
        async with running() as found:
            await found.log_in()
            found.portal.site = None  # type: ignore[assignment]
            found.cookies.clear()
            status, text, _ = await found.get("/login")
            assert status == 500 and "Traceback" not in text and "AttributeError" not in text
            number = re.search(r"error ([0-9a-f]{8})", text)
            assert number and number[1] in caplog.text

    wait_for(work())


def test_ranges_and_pages() -> None:
    async def work() -> None:
        async with running() as found:
            for name, words in (("1h", "The last hour"), ("6h", "The last six hours"), ("24h", "The last day"), ("99y", "The last hour")):
                assert words in (await looked(found, f"/?range={name}")).boxes["charts"]
            asked = [query for path, query in found.upstream.asked if path == "/api/v1/query_range" and query["step"] == "720"]
            assert asked and all(float(query["end"]) - float(query["start"]) == 86400 for query in asked)
            page = await looked(found, "/nodes/node2")
            assert "10.0.0.2" in page.boxes["verdict"] and "containerd" in page.boxes["components"]
            assert any('node="node2"' in query.get("query", "") for _, query in found.upstream.asked)
            for path in ("/nodes/node9", "/nodes/%22%7D", "/nope"):
                status, text, _ = await found.get(path)
                assert status == 404 and "There is no such page." in text or "This site has no such node." in text

    wait_for(work())


def test_a_thousand_nodes_are_a_page_still() -> None:
    async def work() -> None:
        names = tuple(f"node{number}" for number in range(1000))
        described = site()
        nodes = tuple(model.Node(name, f"10.1.{number // 250}.{number % 250}") for number, name in enumerate(names))
        components = tuple(replace(one, nodes=names) for one in described.components)
        upstream = Upstream({one.name: names for one in components}, down={("containerd", "node777")})
        async with running(replace(described, nodes=nodes, components=components), upstream) as found:
            await found.log_in()
            start = time.process_time()
            status, text, _ = await found.get("/")
            assert status == 200 and len(text) < 400_000 and time.process_time() - start < 5
            page = Page(text)
            assert "node777" in page.boxes["nodes"] and "940 more, which are no worse" in page.boxes["nodes"]
            assert "999 of 1000 nodes" in page.boxes["wall"]

    wait_for(work())


# What pages are made of


@pytest.mark.parametrize(
    ("words", "errors", "query"),
    [
        ("", False, "*"),
        ("", True, "level:in(" + ",".join(figures.LEVELS) + ")"),
        ("disk full", False, '"disk"* "full"*'),
        ('"disk full"', False, '"disk full"'),
        ("component:etcd slow", False, 'component:="etcd" "slow"*'),
        ("-noise", False, '!"noise"*'),
        ("-node:node1", False, '!node:="node1"'),
        ("_time:5m", False, '"_time:5m"*'),
        ("a | delete", False, '"a"* "|"* "delete"*'),
        ('x" or *', False, '"x\\""* "or"* "*"*'),
        ("back\\slash", False, '"back\\\\slash"*'),
        ('""', False, "*"),
    ],
)
def test_what_is_typed_is_searched_for_and_nothing_else(words: str, errors: bool, query: str) -> None:
    assert figures.log_question(words, errors) == query


def test_a_node_of_any_name_is_a_literal() -> None:
    assert figures.log_question("", False, 'a"b\\') == 'node:="a\\"b\\\\"'
    written = questions.written(questions.NODE[1], 30, 'a"} or vector(1)')
    assert '{node="a\\"} or vector(1)"}' in written


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0, "", "0"), (12, "", "12"), (1234, "", "1.23 k"), (0.42, "", "0.42"), (5e6, "", "5 M"),
        (0, "B", "0 B"), (1536, "B", "1.5 KiB"), (8 << 30, "B", "8 GiB"), (1e6, "B/s", "977 KiB/s"), (-2048, "B", "-2 KiB"),
        (0.004, "s", "4 ms"), (0.0000042, "s", "4.2 µs"), (1.5, "s", "1.5 s"), (0, "s", "0 s"),
        (7.25, "%", "7.2 %"), (93.7, "%", "94 %"), (0, "%", "0 %"), (1500, "/s", "1.5 k/s"),
    ],
)  # fmt: skip
def test_numbers_are_as_people_read_them(value: float, unit: str, text: str) -> None:
    assert charts.number(value, unit) == text


@pytest.mark.parametrize(("value", "unit"), [(0, ""), (0.0042, "s"), (7, ""), (99, ""), (1023, "B"), (5 << 30, "B/s"), (3, "%"), (51, "%"), (1e9, "")])
def test_scales_end_at_a_round_number_above(value: float, unit: str) -> None:
    top = charts.ceiling(value, unit)
    assert value <= top <= max(1, value * 2.6)


def test_a_chart_leaves_holes_where_nothing_was_measured() -> None:
    points = tuple((float(at), 1.0) for at in (*range(0, 300, 30), *range(600, 900, 30)))
    drawn = charts.draw("Load", [charts.Line("node1", points)], 0, 900, 30)
    assert drawn is not None
    line = re.search(r'class="line c1" d="([^"]*)"', str(drawn.svg))
    assert line and line[1].count("M") == 2
    assert drawn.sentence == "Load, 00:00 to 00:15 UTC. Latest: node1 1."
    assert "<title>00:00 UTC\nnode1: 1</title>" in str(drawn.svg)
    assert charts.draw("Load", [], 0, 900, 30) is None
    assert charts.draw("Load", [charts.Line("x", ((5000.0, 1.0),))], 0, 900, 30) is None


def test_many_lines_become_few_that_can_be_told_apart() -> None:
    lines = [charts.Line(f"node{number}", ((0.0, float(number)), (30.0, float(number)))) for number in range(1, 41)]
    assert [(line.label, line.last) for line in charts.gather(lines)] == [("highest", 40), ("median of 40", 21), ("lowest", 1)]
    parts = charts.gather(lines, parts=True)
    assert [line.label for line in parts] == ["node36", "node37", "node38", "node39", "node40", "others"]
    assert parts[-1].last == sum(range(1, 36))
    assert [line.label for line in charts.gather(lines[1:3] + lines[9:10])] == ["node2", "node3", "node10"]


def test_answers_of_another_shape_are_refused() -> None:
    for parse in (figures.vector, figures.matrix, figures.alerts_of_prometheus, figures.alerts_of_alertmanager, figures.hits, figures.checks, figures.routes):
        for text in ("", "nonsense", "[1]", '{"status": "error"}', '{"status":"success","data":{"resultType":"vector","result":[3]}}', "3", '"x"'):
            with pytest.raises((ValueError, KeyError, TypeError, AttributeError, IndexError)):
                parse(text)
    assert figures.vector('{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"value":[1,"NaN"]}]}}') == []


def test_times_are_read_as_they_are_written() -> None:
    assert figures.seconds("1970-01-01T00:01:40Z") == 100
    assert figures.seconds("1970-01-01T01:01:40.5+01:00") == 100.5
    assert figures.seconds("1970-01-01T00:01:40.123456789Z") == pytest.approx(100.123456789)
    for bad in ("", "yesterday", "1970-13-01T00:00:00Z", None, 7):
        assert figures.seconds(bad) is None


def test_routes_that_are_no_names_are_not_linked() -> None:
    def route(host: str, path: str) -> str:
        return f'[{{"Service": {{"Service": "x", "Meta": {{"route-host": {host}, "route-path": {path}}}}}}}]'

    assert [one.url for one in figures.routes(route('"A.test."', '"/b"'))] == ["https://a.test/b"]
    for host, path in (('"a.test/x"', '"/"'), ('"a b"', '"/"'), ('"javascript:alert(1)"', '"/"'), ('"a.test"', '"//\\" onclick=x"'), ('"u@a"', '"/"')):
        assert figures.routes(route(host, path)) == []


def facts(**given: Any) -> views.Facts:
    return views.Facts(**{name: Reading(value, NOW) for name, value in {"up": [], "failed": [], "active": [], "alerts": [], "checks": [], **given}.items()})


def up(value: float, node: str, component: str = "etcd") -> figures.Sample:
    return figures.Sample({"component": component, "node": node}, value)


ETCD = model.Component("etcd", "coordination", nodes=NODES, units=("etcd.service",), metrics=True)


@pytest.mark.parametrize(
    ("given", "level", "text"),
    [
        ({"up": [up(1, node) for node in NODES]}, "ok", "answers on all nodes"),
        ({"up": [up(0, "node1"), up(1, "node2"), up(1, "node3")]}, "warning", "does not answer on node1"),
        ({"up": [up(0, node) for node in NODES]}, "critical", "does not answer on node1, node2, node3"),
        ({"up": [up(1, "node1")]}, "unknown", "no figures of node2, node3"),
        ({}, "unknown", "no figures yet"),
        ({"up": [up(1, node) for node in NODES], "checks": [figures.Check("node2", "etcd", "critical", "x")]}, "warning", "Consul's checks fail on node2"),
        (
            {"up": [up(1, node) for node in NODES], "failed": [figures.Sample({"name": "etcd.service", "node": "node3"}, 1)]},
            "warning",
            "etcd.service has failed on node3",
        ),
        (
            {"up": [up(1, node) for node in NODES], "alerts": [figures.Alert("A", "critical", "It burns.", "", "", "etcd", None)]},
            "critical",
            "It burns.",
        ),
    ],
)
def test_how_a_component_is(given: dict[str, Any], level: str, text: str) -> None:
    found = facts(**given)
    stone = views.stone(ETCD, found, views.answering(found.up))
    assert (stone.level, stone.text) == (level, text)


def test_a_component_without_figures_is_known_by_its_units() -> None:
    flannel = replace(ETCD, metrics=False)
    for count, level in ((3, "ok"), (2, "warning")):
        found = facts(active=[figures.Sample({"name": "etcd.service"}, count)])
        assert views.stone(flannel, found, {}).level == level
    assert views.stone(flannel, facts(), {}).level == "idle"


def test_certificates_are_ordered_by_their_end() -> None:
    days = {"a": 300.0, "b": 2.5, "c": 20.0, "d": -1.0}
    reading = Reading(
        [figures.Sample({"component": "node_exporter", "exported_component": name, "name": "x"}, NOW + end * 86400) for name, end in days.items()], NOW
    )
    assert [(one.component, one.days, one.level) for one in views.expiries(reading, NOW)] == [
        ("d", -1, "critical"),
        ("b", 2, "critical"),
        ("c", 20, "warning"),
        ("a", 300, "ok"),
    ]


@pytest.mark.parametrize("text", ["`a` b `c`", "no commands", "one ` only", "<b>`<i>`</b>"])
def test_commands_in_sentences_are_marked(text: str) -> None:
    made = str(views.marked(text))
    assert "<b>" not in made and "<i>" not in made
    assert made.count("<code>") == (text.count("`") // 2 if text.count("`") % 2 == 0 else 0)


def test_files_that_are_no_settings_are_told_in_a_sentence(tmp_path: Any) -> None:
    path = tmp_path / "x.json"
    for text in ("", "[]", "{", '{"unknown": 1}'):
        path.write_text(text)
        for read in (model.read_settings, model.read_secrets, model.read_site):
            with pytest.raises(model.PortalError, match="lays it down again"):
                read(str(path))
