# SPDX-License-Identifier: Apache-2.0
"""Puts the questions of pages to the upstreams that this site has. Everything comes back as a `Reading`; nothing here raises."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp

from . import charts, figures, questions, views
from .figures import Alert, Check, LogLine, Route, Sample, Series
from .model import PortalError, Secrets, Settings, Site
from .sources import Memory, Reading, Replicas

MOST_ROUTES = 200


@dataclass(frozen=True)
class Panel:
    """A chart of a page, or why there is none."""

    name: str
    title: str
    drawn: charts.Drawn | None
    reading: Reading[list[Series]]


@dataclass(frozen=True)
class Logs:
    """Log lines, how many there were by time, and the question."""

    lines: Reading[list[LogLine]]
    drawn: charts.Drawn | None
    count: int


def context(authority: str, certificate: str, key: str) -> ssl.SSLContext:
    """How upstreams are spoken to: TLS 1.2 or newer, by an authority of the site, with a certificate of the portal's own.

    :raises PortalError: when a file is missing or unusable.
    """
    try:
        made = ssl.create_default_context(cafile=authority)
        made.minimum_version = ssl.TLSVersion.TLSv1_2
        made.load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as error:
        raise PortalError(f"{certificate}, {key} or {authority} can't be used ({error}); site.yml issues them again.") from None
    return made


class Upstreams:
    """Prometheus, Alertmanager, the log store and Consul of a site."""

    def __init__(
        self,
        settings: Settings,
        secrets: Secrets,
        session: aiohttp.ClientSession,
        tls: ssl.SSLContext | None,
        consul_tls: ssl.SSLContext | None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.settings, self.clock = settings, clock
        self._session, self._tls = session, tls
        self.names: dict[str, str] = {}
        self.memory = Memory(clock=clock)

        def replicas(name: str, urls: Sequence[str]) -> Replicas:
            return Replicas(name, urls, session, tls, settings.timeout_seconds, self.names)

        self.prometheus = replicas("Prometheus", settings.prometheus)
        self.alertmanager = replicas("Alertmanager", settings.alertmanager)
        self.logs = replicas("the log store", settings.logs)
        url = settings.consul.get("url")
        token = {"X-Consul-Token": secrets.consul_token} if secrets.consul_token else {}
        self.consul = Replicas("Consul", [url] if url else [], session, consul_tls, settings.timeout_seconds, self.names, token)

    def called(self, site: Site) -> None:
        """Replicas are named by their nodes where they are complained about."""
        self.names.clear()
        self.names.update({node.address: node.name for node in site.nodes})
        self.names["127.0.0.1"] = "the agent of this node"

    async def notify(self, url: str, body: dict[str, object]) -> None:
        """Tells another replica of the portal something; errors are the caller's."""
        options: dict[str, Any] = {} if self._tls is None else {"ssl": self._tls}
        async with self._session.post(url, json=body, allow_redirects=False, **options) as answer:
            await answer.read()

    async def instant(self, query: str, fresh: float = 5) -> Reading[list[Sample]]:
        """What an instant query gives."""
        return await self.memory.read(f"i {query}", lambda: self.prometheus.ask("/api/v1/query", {"query": query, "timeout": "2s"}, figures.vector), fresh)

    async def facts(self) -> views.Facts:
        """All that says how the site is."""
        up, failed, active, alerts, checks = await asyncio.gather(
            self.instant(figures.UP), self.instant(figures.FAILED_UNITS), self.instant(figures.ACTIVE_UNITS), self.alerts(), self.checks()
        )
        return views.Facts(up, failed, active, alerts, checks)

    async def alerts(self) -> Reading[list[Alert]]:
        """What fires: by Alertmanager, which knows silences; while that does not answer, by Prometheus."""
        own: Reading[list[Alert]] = await self.memory.read(
            "alerts",
            lambda: self.alertmanager.ask("/api/v2/alerts", {"active": "true", "silenced": "false", "inhibited": "false"}, figures.alerts_of_alertmanager),
            5,
        )
        if not own.reason:
            return own
        other: Reading[list[Alert]] = await self.memory.read(
            "alerts of prometheus", lambda: self.prometheus.ask("/api/v1/alerts", {}, figures.alerts_of_prometheus), 5
        )
        return other if not other.reason and self.settings.prometheus else own

    async def fallen_back(self) -> str:
        """Why alerts are those of Prometheus; "" when they are Alertmanager's."""
        if not self.settings.alertmanager:
            return ""
        kept: Reading[list[Alert]] = await self.memory.read("alerts", self._nothing, float("inf"))
        return kept.reason

    async def _nothing(self) -> list[Alert]:
        return []

    async def checks(self) -> Reading[list[Check]]:
        """Consul's health checks that do not pass."""
        return await self.memory.read(
            "checks", lambda: self.consul.ask("/v1/health/state/any", {"stale": "", "filter": 'Status != "passing"'}, figures.checks), 5
        )

    async def routes(self) -> Reading[list[Route]]:
        """What the edge leads to."""
        return await self.memory.read("routes", self._routes, 15)

    async def _routes(self) -> list[Route]:
        names = await self.consul.ask("/v1/catalog/services", {"stale": "", "filter": '"route-host" in ServiceMeta'}, figures.service_names)
        gate = asyncio.Semaphore(8)

        async def one(name: str) -> list[Route]:
            async with gate:
                return await self.consul.ask(f"/v1/health/service/{name}", {"stale": ""}, figures.routes)

        usable = [name for name in names if name.replace("-", "").replace("_", "").replace(".", "").isalnum()][:MOST_ROUTES]
        found = await asyncio.gather(*(one(name) for name in usable))
        return sorted((route for routes in found for route in routes), key=lambda route: route.url)

    def _times(self, span: int, points: int = 120) -> tuple[float, float, float]:
        """Start, end and step of a chart; they stay until the next step, so that a page that is read again does not tremble."""
        step = max(15.0, span / points)
        end = self.clock() // step * step
        return end - span, end, step

    async def panel(self, question: questions.Question, span: int, node: str = "") -> Panel:
        """A chart of Prometheus' figures."""
        start, end, step = self._times(span)
        query = questions.written(question, step, node)
        parameters = {"query": query, "start": f"{start:.0f}", "end": f"{end:.0f}", "step": f"{step:.0f}", "timeout": "2s"}
        reading = await self.memory.read(
            f"r {span} {query}", lambda: self.prometheus.ask("/api/v1/query_range", parameters, figures.matrix), min(60.0, max(10.0, step / 2))
        )
        drawn = None
        if reading.value:
            lines = charts.lines_of(reading.value, lambda one: one.labels.get(question.label) or question.title)
            drawn = charts.draw(question.title, lines, start, end, step, question.unit, parts=question.label not in ("node", "way"))
        return Panel(question.name, question.title, drawn, reading)

    async def panels(self, listed: Sequence[questions.Question], span: int, node: str = "") -> list[Panel]:
        """Charts that have something to show, or could not be asked for."""
        made = await asyncio.gather(*(self.panel(question, span, node) for question in listed))
        return [panel for panel in made if panel.drawn is not None or panel.reading.reason]

    async def log_lines(self, words: str, span: int, errors_only: bool, node: str = "", limit: int = 12) -> Logs:
        """The newest lines of the log store that have the words."""
        start, end, step = self._times(span, 60)
        query = figures.log_question(words, errors_only, node)
        key = f"{span} {limit} {query}"
        now = self.clock()
        found, counted = await asyncio.gather(
            self.memory.read(
                f"l {key}", lambda: self.logs.ask("/select/logsql/query", _logsql(query, now - span, now, limit=str(limit)), figures.log_lines), 5
            ),
            self.memory.read(f"h {key}", lambda: self.logs.ask("/select/logsql/hits", _logsql(query, start, end, step=f"{step:.0f}s"), figures.hits), 15),
        )
        drawn, count = None, 0
        if counted.value is not None:
            count = int(sum(value for one in counted.value for _, value in one.points))
            drawn = charts.draw("Log lines", charts.lines_of(counted.value, lambda one: "lines"), start, end, step, "", bars=True)
        if found.value is not None:
            found = Reading(sorted(found.value, key=lambda line: -(line.at or 0)), found.at, found.reason)
        return Logs(found, drawn, count)


def _logsql(query: str, start: float, end: float, **more: str) -> dict[str, str]:
    return {"query": query, "start": f"{start:.3f}", "end": f"{end:.3f}", "timeout": "2s", **more}
