# SPDX-License-Identifier: Apache-2.0
"""The portal tells how the site is, to who may know it and to nobody else, and stays useful while what it asks is gone."""

from __future__ import annotations

import asyncio
import html
import http.client
import os
import re
import ssl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from .support.browser import browser, program
from .support.cluster import random_name
from .support.figures import Tell, mostly
from .support.nodes import Node
from .support.plan import Plan
from .support.waiting import at_once, until

pytestmark = [pytest.mark.needs("dashboard"), pytest.mark.needs("portal")]

PORT = 9444
MEMORY_MIB = 48
GUARDED = ("/", "/?part=1", "/logs?q=etcd", "/nodes/{node}", "/static/portal.js", "/metrics", "/api/v1/query?query=up", "/etc/portal/site.json")

# The pictures of docs/portal.md, written to the folder ASHLAR_PICTURES: path, width and height in CSS pixels, scheme, scale.
PICTURES = {
    "wide": ("/", 1280, 1400, "light", 0.6),
    "node": ("/nodes/{node}", 1280, 1300, "light", 0.55),
    "dark": ("/", 1280, 1500, "dark", 0.55),
    "phone": ("/", 360, 1100, "light", 1.0),
}

# Tries from a node: what is locked by them is that node's address, not ours.
TRY = r"""
import http.client, json, re, ssl, sys, urllib.parse
address, authority, name, times = json.loads(sys.argv[1])
context = ssl.create_default_context(cafile=authority)
answers = []
for _ in range(times):
    connection = http.client.HTTPSConnection(address, 9444, context=context, timeout=10)
    connection.request("GET", "/login")
    page = connection.getresponse()
    cookie, text = page.headers["Set-Cookie"].split(";")[0], page.read().decode()
    token = re.search('name="token" value="([^"]*)"', text)[1]
    form = urllib.parse.urlencode({"name": name, "password": "wrong", "token": token})
    connection.request("POST", "/login", form, {"Cookie": cookie, "Content-Type": "application/x-www-form-urlencoded"})
    answer = connection.getresponse()
    text = answer.read().decode()
    said = re.search('class="problem"[^>]*>([^<]*)<', text)
    answers.append([answer.status, said and said[1], answer.headers["Retry-After"]])
print(json.dumps(answers))
"""
MEMORY = r"""
import json, subprocess
pid = subprocess.run(["systemctl", "show", "-p", "MainPID", "--value", "portal"], capture_output=True, text=True).stdout.strip()
print(json.dumps(next(int(line.split()[1]) for line in open("/proc/%s/smaps_rollup" % pid) if line.startswith("Pss:"))))
"""


class Visitor:
    """A browser of sorts: keeps cookies, follows nothing."""

    def __init__(self, plan: Plan, address: str, port: int = PORT, host: str = "") -> None:
        self.context = ssl.create_default_context(cafile=str(plan.credentials / "authorities/site/ca.crt"))
        self.address, self.port, self.host = address, port, host
        self.cookies: dict[str, str] = {}

    def ask(self, path: str, form: dict[str, str] | None = None, **headers: str) -> tuple[int, str, http.client.HTTPMessage]:
        connection = _Connection(self.host or self.address, self.port, self.address, self.context)
        if self.cookies:
            headers["Cookie"] = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        if form is not None:
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        try:
            connection.request("GET" if form is None else "POST", path, urlencode(form) if form is not None else None, {"Accept": "text/html", **headers})
            answer = connection.getresponse()
            for cookie in answer.headers.get_all("Set-Cookie") or []:
                name, _, value = cookie.split(";")[0].partition("=")
                self.cookies[name] = value.strip('"')
                if not self.cookies[name]:
                    del self.cookies[name]
            return answer.status, answer.read().decode(), answer.headers
        finally:
            connection.close()

    def token(self, path: str = "/login") -> str:
        found = re.search('name="token" value="([^"]*)"', self.ask(path)[1])
        assert found, f"{path} has no form"
        return found[1]

    def log_in(self, name: str, password: str) -> tuple[int, str, http.client.HTTPMessage]:
        return self.ask("/login", {"name": name, "password": password, "token": self.token(), "next": "/"})

    def page(self, path: str = "/") -> str:
        status, text, _ = self.ask(path)
        assert status == 200, f"{path}: {status}"
        return text


class _Connection(http.client.HTTPSConnection):
    """To an address, under a name."""

    def __init__(self, host: str, port: int, address: str, context: ssl.SSLContext) -> None:
        super().__init__(host, port, timeout=15, context=context)
        self.target, self.tls = address, context

    def connect(self) -> None:
        import socket

        self.sock = self.tls.wrap_socket(socket.create_connection((self.target, self.port), 15), server_hostname=self.host)


class Hidden(str):
    """A password that reports of tests do not show."""

    def __repr__(self) -> str:
        return "'hidden'"


def boxes(text: str) -> dict[str, str]:
    """The words of each box."""
    found = re.split(r'<section id="([a-z]+)"', text)[1:]
    words = (re.sub(r"<[^>]+>", " ", part.replace("<wbr>", "")) for part in found[1::2])
    return {name: " ".join(html.unescape(one).split()) for name, one in zip(found[::2], words)}


def notes(text: str) -> list[str]:
    """What the page says that it can't reach."""
    return [" ".join(re.sub(r"<[^>]+>", " ", one).split()) for one in re.findall(r'<p class="note" role="note">(.*?)</p>', text, re.S)]


@pytest.fixture(scope="module")
def portals(plan: Plan, nodes: dict[str, Node]) -> list[Node]:
    return [nodes[name] for name in plan.on("portal")]


@pytest.fixture(scope="module")
def person(plan: Plan) -> tuple[str, str]:
    """Somebody who may log in."""
    name = str(plan.option("portal", "portal_logins")[0])
    return name, Hidden((Path(plan.credentials) / "logins" / name).read_text().strip())


@pytest.fixture
def visitors(plan: Plan, portals: list[Node], person: tuple[str, str]) -> Iterator[list[Visitor]]:
    """Who has logged in at each replica."""
    made = [Visitor(plan, node.address) for node in portals]
    for visitor in made:
        status, text, _ = visitor.log_in(*person)
        assert status == 303, f"{visitor.address}: {status} {' '.join(re.sub(r'<[^>]+>', ' ', text).split())[:300]}"
    yield made


def test_who_logs_in_is_in_at_every_replica_and_who_logs_out_is_out_of_all(visitors: list[Visitor], person: tuple[str, str]) -> None:
    first = visitors[0]
    assert person[0] in first.page()
    for other in visitors[1:]:
        other.cookies = dict(first.cookies)
        assert person[0] in other.page()
    kept = dict(first.cookies)
    assert first.ask("/logout", {"token": first.token("/")})[0] == 303
    for visitor in visitors:
        visitor.cookies = dict(kept)

    def out() -> bool:
        return all(visitor.ask("/")[0] == 303 for visitor in visitors)

    until("the session has ended at every replica", out)


def test_without_a_login_there_is_the_login_page_and_health_and_nothing_else(plan: Plan, portals: list[Node]) -> None:
    for node in portals:
        stranger = Visitor(plan, node.address)
        assert stranger.ask("/health")[:2] == (200, "ok\n")
        status, text, _ = stranger.ask("/login")
        assert status == 200 and "Password" in text
        assert not any(f">{name}<" in text for name in plan.machines), "it tells nothing of the site but its name"
        for path in GUARDED:
            status, text, headers = stranger.ask(path.format(node=node.name))
            if "part=1" in path:
                assert (status, text) == (401, "Log in first, at /login.\n"), "the page's script is not sent on"
            else:
                assert (status, text) == (303, "") and headers["Location"].startswith("/login"), path
            assert stranger.ask(path.format(node=node.name), Accept="*/*")[:2] == (401, "Log in first, at /login.\n")
        stranger.cookies = {"__Host-portal": "WyJhZG1pbiIsIDk5OTk5OTk5OTksICJ4Il0.AAAA"}
        assert stranger.ask("/")[0] == 303, "a session can't be made up"
        plain = http.client.HTTPConnection(node.address, PORT, timeout=5)
        with pytest.raises((http.client.HTTPException, OSError)):
            plain.request("GET", "/health")
            plain.getresponse()


def test_wrong_passwords_are_limited(plan: Plan, portals: list[Node], person: tuple[str, str]) -> None:
    allowed = int(min(plan.option("portal", f"portal_attempts_per_{what}", portals[0].name) for what in ("name", "address")))
    target, source = portals[0], portals[-1]
    answers = source.python(TRY, target.address, "/etc/ashlar/pki/ca/site.crt", random_name("nobody"), allowed + 2, seconds=120)
    statuses = [status for status, _, _ in answers]
    assert statuses[:1] == [401] or 429 in statuses, answers[0]
    assert 401 not in statuses[allowed:] and statuses[-1] == 429
    assert re.match(
        r"(Too many wrong logins from your address|This name is locked after too many wrong logins)\. Try again in \d+ (seconds|minutes)\.", answers[-1][1]
    )
    assert int(answers[-1][2]) > 0
    assert Visitor(plan, target.address).log_in(*person)[0] == 303, "others may go on"


def test_every_box_has_live_data(plan: Plan, visitors: list[Visitor]) -> None:
    def look() -> bool:
        for visitor in visitors:
            text = visitor.page()
            found = boxes(text)
            assert notes(text) == []
            for component in plan.components:
                assert component in found["wall"], component
            assert "no figures" not in found["wall"] + found["nodes"], "everything is known"
            for name, machine in plan.machines.items():
                assert re.search(rf"{name} {re.escape(machine.address)}", found["nodes"]), name
            assert len(re.findall(r"\d+ %", found["nodes"])) >= 2 * len(plan.machines), "memory and disk of each"
            assert text.count('role="img" aria-label="Processor in use') == 1
            charts = 3 + sum(plan.has(name) for name in ("kubernetes_control", "etcd", "kube_state_metrics"))
            assert text.count("<svg ") >= charts
            assert re.search(r"\d+ d", found["certificates"]) and "server" in found["certificates"] + text
            assert "as of" in found["alerts"]
            if plan.has("victorialogs"):
                assert "as of" in found["logs"]
        return True

    until("every box of every replica has live data", look, pause=2)


def test_the_page_of_a_node_has_its_figures_and_charts(plan: Plan, visitors: list[Visitor]) -> None:
    def look(name: str) -> bool:
        text = visitors[0].page(f"/nodes/{name}?range=1h")
        found = boxes(text)
        assert notes(text) == []
        assert plan.machines[name].address in found["verdict"] and "%" in found["node"]
        assert text.count("<figure ") >= 5
        assert all(component in found["components"] for component in plan.machines[name].components if component == "etcd")
        return True

    for name in plan.machines:
        # A node that was just set up has been read once or twice, and a line needs two points.
        until(f"the page of {name} has everything", lambda name=name: look(name), pause=2)  # type: ignore[misc]


@pytest.mark.needs("victorialogs")
def test_a_line_of_a_log_is_found_by_who_searches_for_it(plan: Plan, nodes: dict[str, Node], visitors: list[Visitor]) -> None:
    mark = random_name("portal-search")
    node = next(iter(nodes.values()))
    node.run(f"logger -t conformance -p user.err 'looked for {mark} <b>here</b>'")
    for query in ({"q": mark}, {"q": f"-nowhere {mark}", "level": "all", "node": node.name}, {"q": f'"looked for {mark}"', "level": "all"}):
        until("the line is found", lambda query=query: f"looked for {mark} &lt;b&gt;here&lt;/b&gt;" in visitors[0].page("/logs?" + urlencode(query)), pause=1)  # type: ignore[misc]
    assert mark not in boxes(visitors[0].page("/logs?" + urlencode({"q": f"-{mark}", "level": "all"})))["logs"].partition("lines")[2]


@pytest.mark.needs("haproxy")
def test_the_edge_leads_to_it(plan: Plan, nodes: dict[str, Node], person: tuple[str, str]) -> None:
    host = f"portal.{plan.shared['site_domain']}"
    for name in plan.on("haproxy"):
        visitor = Visitor(plan, nodes[name].address, 443, host)

        def look(visitor: Visitor = visitor) -> bool:
            return visitor.log_in(*person)[0] == 303

        until(f"{name} leads to the portal", look, pause=1)
        until("the page is whole", lambda visitor=visitor: notes(visitor.page()) == [], pause=1)  # type: ignore[misc]
        assert visitor.ask("/")[2]["Strict-Transport-Security"]


@pytest.mark.skipif(program() is None, reason="no Chromium on this machine")
def test_it_is_whole_in_a_browser(plan: Plan, portals: list[Node], person: tuple[str, str]) -> None:
    async def work() -> None:
        async with browser() as page:
            await page.open(f"https://{portals[0].address}:{PORT}/")
            for field, value in zip(("name", "password"), person):
                await page.run(f"document.querySelector('#{field}').value = '{value}'")
            await page.loads(lambda: page.run("document.querySelector('main form button').click()"))
            for path in ("/", f"/nodes/{portals[0].name}", "/logs?level=all"):
                for width, scheme in ((1440, "light"), (360, "dark")):
                    await page.look(width, 800, scheme, phone=width < 800)
                    await page.open(f"https://{portals[0].address}:{PORT}{path}")
                    assert await page.run("document.documentElement.scrollWidth") <= width, (path, width)
            assert page.problems == []
            folder = os.environ.get("ASHLAR_PICTURES")
            for name, (path, width, height, scheme, scale) in PICTURES.items() if folder else ():
                await page.look(width, 900, scheme, phone=width < 800)
                await page.open(f"https://{portals[0].address}:{PORT}{path.format(node=portals[0].name)}")
                await page.picture(Path(str(folder)) / f"portal-{name}.png", height, scale)

    asyncio.run(asyncio.wait_for(work(), 90))


def test_it_is_small_and_soon(plan: Plan, portals: list[Node], visitors: list[Visitor], tell: Tell) -> None:
    times = []
    for visitor in visitors:
        for _ in range(5):
            start = time.monotonic()
            visitor.page()
            times.append(time.monotonic() - start)
    def memory() -> dict[str, float]:
        return {node.name: int(node.python(MEMORY)) / 1024 for node in portals}

    # What it keeps when nobody looks: its connections end after some seconds.
    until(f"each portal keeps at most {MEMORY_MIB} MiB", lambda: max(memory().values()) <= MEMORY_MIB, pause=2)
    tell(mostly(f"portal: {', '.join(f'{name} {mib:.1f} MiB' for name, mib in memory().items())}; a page", times, 1))


@pytest.mark.disruptive
@pytest.mark.needs("prometheus")
def test_it_stays_useful_while_every_prometheus_is_stopped(plan: Plan, nodes: dict[str, Node], visitors: list[Visitor]) -> None:
    replicas = [nodes[name] for name in plan.on("prometheus")]
    visitor = visitors[0]
    visitor.page()

    def gone() -> Any:
        start = time.monotonic()
        text = visitor.page()
        taken = time.monotonic() - start
        found = boxes(text)
        assert "Prometheus does not answer" in found["wall"] and "Prometheus does not answer" in found["nodes"]
        assert "connection refused" in found["nodes"] and re.search(r"What is shown is \d+ (s|min) old", found["nodes"])
        assert all(machine.address in found["nodes"] for machine in plan.machines.values())
        assert "as of" in found["alerts"] and "Prometheus does not answer" not in found["alerts"], "Alertmanager still says what fires"
        assert "Prometheus" not in found["services"] + found["logs"].partition("of this time")[0][:200]
        assert taken < 5, f"it took {taken:.1f} s"
        assert visitor.ask("/health")[0] == 200
        return True

    def back() -> bool:
        return notes(visitor.page()) == []

    try:
        at_once(lambda node: node.run("systemctl stop prometheus.service"), replicas)
        until("the portal says that Prometheus is gone, and the rest", gone, pause=1)
    finally:
        at_once(lambda node: node.run("systemctl start prometheus.service"), replicas)
    until("the portal has figures again", back, pause=2)
