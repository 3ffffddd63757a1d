# SPDX-License-Identifier: Apache-2.0
"""Answers browsers. Without a session there is the login page, what it is drawn with, and /health."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import math
import secrets as random
import time
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import aiohttp
import jinja2
from aiohttp import web

from . import charts, figures, login, questions, views
from .ask import Upstreams
from .model import Secrets, Settings, Site

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
HERE = Path(__file__).parent
LOG = logging.getLogger("portal")
# Whose request is answered.
WHO: ContextVar[login.Session | None] = ContextVar("who", default=None)
SESSION, KNOWN, FORM = "__Host-portal", "__Host-portal-known", "__Host-portal-form"
KNOWN_SECONDS = 90 * 86400
VERIFYING_MOST = 8
MOST_ENDED = 10_000
STATIC = {"portal.css": "text/css", "portal.js": "text/javascript", "mark.svg": "image/svg+xml"}
FOR_ALL = {"/health", "/login", "/session-ended", "/static/portal.css", "/static/mark.svg"}
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    # With no-referrer browsers would send `Origin: null` along with forms.
    "Referrer-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=(), payment=(), usb=()",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
    "Server": "portal",
}


def forget(answer: web.StreamResponse, name: str, same_site: str) -> None:
    """Have the browser drop a cookie: with the attributes it has, which the `del_cookie` of Debian 12's aiohttp does not know."""
    answer.set_cookie(name, "", max_age=0, expires="Thu, 01 Jan 1970 00:00:00 GMT", path="/", secure=True, httponly=True, samesite=same_site)


class Portal:
    """The portal of a site. `site` and `secrets` may be replaced while it runs."""

    def __init__(self, settings: Settings, secrets: Secrets, site: Site, upstreams: Upstreams, clock: Callable[[], float] = time.time) -> None:
        self.settings, self.secrets, self.upstreams, self.clock = settings, secrets, upstreams, clock
        self.keyring = login.Keyring(secrets.session_key, secrets.logins)
        self.by_address = login.Limiter(settings.attempts_per_address, settings.attempts_window_seconds)
        self.by_name = login.Limiter(settings.attempts_per_name, settings.attempts_window_seconds)
        self.ended: dict[str, float] = {}
        self._verifying = 0
        self._gate = asyncio.Semaphore(1)
        self._notices: set[asyncio.Task[None]] = set()
        self.static = {name: (HERE / "static" / name).read_bytes() for name in STATIC}
        self.versions = {name: hashlib.sha256(content).hexdigest()[:12] for name, content in self.static.items()}
        self.pages = jinja2.Environment(loader=jinja2.FileSystemLoader(HERE / "pages"), autoescape=True, undefined=jinja2.StrictUndefined, auto_reload=False)
        self.pages.trim_blocks = self.pages.lstrip_blocks = True
        self.pages.globals.update(ago=views.ago, moment=views.moment, machine_time=views.machine_time, ranges=list(views.RANGES), number=charts.number)
        self.pages.filters.update(soft=views.soft, marked=views.marked)
        self.pages.filters["path"] = lambda text: quote(str(text), safe="")
        # Compiled now, what that takes is given back before anything is kept.
        for name in self.pages.list_templates():
            self.pages.get_template(name)
        self.use(site)

    def use(self, site: Site) -> None:
        """Another description of the site."""
        self.site = site
        self.upstreams.called(site)

    def application(self) -> web.Application:
        """What aiohttp serves."""
        made = web.Application(middlewares=[self.guarded], client_max_size=16 << 10)
        made.router.add_get("/health", self.health)
        made.router.add_get("/login", self.login_page)
        made.router.add_post("/login", self.log_in)
        made.router.add_post("/logout", self.log_out)
        made.router.add_post("/session-ended", self.session_ended)
        made.router.add_get("/static/{name}", self.static_file)
        made.router.add_get("/", self.overview)
        made.router.add_get("/nodes/{name}", self.node)
        made.router.add_get("/logs", self.logs)
        return made

    # Around every answer

    @web.middleware
    async def guarded(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Nobody gets past the login page, no error gets out, and every answer says what browsers may do with it."""
        session = self.keyring.who(request.cookies.get(SESSION, ""), self.clock())
        if session is not None and session.identity in self.ended:
            session = None
        WHO.set(session)
        try:
            if session is None and request.path not in FOR_ALL:
                answer = self.to_login(request)
            else:
                answer = await handler(request)
        except web.HTTPException as error:
            text = {404: "There is no such page.", 405: "This page is not asked in that way.", 413: "That is too much."}.get(error.status, error.reason)
            answer = self.message(request, error.status, text)
        except asyncio.CancelledError:
            raise
        except Exception:
            number = random.token_hex(4)
            LOG.exception("error %s while answering %r", number, request.path[:200])
            answer = self.message(request, 500, f"That went wrong here. The journal of portal.service on this node has it as error {number}.")
        answer.headers.update({name: value for name, value in HEADERS.items() if name not in answer.headers or name == "Server"})
        if request.host.partition(":")[0] == self.settings.name:
            answer.headers["Strict-Transport-Security"] = "max-age=31536000"
        return answer

    def to_login(self, request: web.Request) -> web.StreamResponse:
        """To the login page who looks at pages; just no to everybody else."""
        if request.method in ("GET", "HEAD") and "part" not in request.query and "text/html" in request.headers.get("Accept", "text/html"):
            target = login.inside(request.path_qs)
            return web.Response(status=303, headers={"Location": "/login" + (f"?{urlencode({'next': target})}" if target != "/" else "")})
        return web.Response(status=401, text="Log in first, at /login.\n")

    def page(self, request: web.Request, template: str, status: int = 200, **values: Any) -> web.Response:
        """A page, or its changing part alone where the portal's script asks for that."""
        session = WHO.get()
        binding = session.identity if session else ""
        text = self.pages.get_template(template).render(
            site=self.site,
            session=session,
            form_token=self.keyring.form(binding) if binding else "",
            versions=self.versions,
            refresh=self.settings.refresh_seconds,
            part="part" in request.query,
            path=request.path,
            now=self.clock(),
            **values,
        )
        return web.Response(status=status, text=text, content_type="text/html")

    def message(self, request: web.Request, status: int, text: str) -> web.Response:
        """A sentence instead of a page."""
        if WHO.get() is None:
            return web.Response(status=status, text=text + "\n")
        return self.page(request, "message.html", status, title=text, text="")

    # For everybody

    async def health(self, request: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def static_file(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        if name not in self.static:
            raise web.HTTPNotFound
        lasting = request.query.get("v") == self.versions[name]
        headers = {"Cache-Control": "public, max-age=31536000, immutable" if lasting else "no-cache"}
        return web.Response(body=self.static[name], content_type=STATIC[name], charset="utf-8", headers=headers)

    async def login_page(self, request: web.Request) -> web.StreamResponse:
        target = login.inside(request.query.get("next", "/"))
        if WHO.get() is not None:
            return web.Response(status=303, headers={"Location": target})
        return self._login_page(request, 200, target)

    def _login_page(self, request: web.Request, status: int, target: str, problem: str = "", name: str = "", wait: float = 0) -> web.Response:
        binding = request.cookies.get(FORM, "")
        fresh = not 16 <= len(binding) <= 64
        if fresh:
            binding = random.token_urlsafe(24)
        answer = self.page(request, "login.html", status, title="Log in", target=target, problem=problem, name=name[:64], token=self.keyring.form(binding))
        if fresh:
            answer.set_cookie(FORM, binding, path="/", secure=True, httponly=True, samesite="Strict")
        if wait:
            answer.headers["Retry-After"] = str(math.ceil(wait))
        return answer

    def _same_origin(self, request: web.Request) -> bool:
        origin = request.headers.get("Origin")
        return (origin is None or origin.lower() == f"https://{request.host.lower()}") and request.headers.get("Sec-Fetch-Site", "same-origin") in (
            "same-origin",
            "none",
        )

    async def log_in(self, request: web.Request) -> web.StreamResponse:
        """Tries are counted before they are verified, so that many at the same time are many tries."""
        form = await request.post()
        name, password, target = (str(form.get(field, "")) for field in ("name", "password", "next"))
        target = login.inside(target)
        binding = request.cookies.get(FORM, "")
        if not self._same_origin(request) or not self.keyring.form_is_ours(binding, str(form.get("token", ""))):
            return self._login_page(request, 403, target, "This form was too old, or not ours. Please try once more.", name)
        now, address = self.clock(), login.origin(login.client(request.remote or "", request.headers.get("X-Forwarded-For", ""), self.settings.proxies))
        known = self.keyring.knows(request.cookies.get(KNOWN, ""), name, now)
        # A browser that somebody has logged in with has tries of its own: strangers who try a name lock out only strangers.
        owner = f"known {name}" if known else name[:64]
        wait = self.by_address.wait(address, now)
        if wait:
            LOG.warning("login from %s refused: too many wrong ones from there", address)
            return self._login_page(request, 429, target, f"Too many wrong logins from your address. Try again in {_minutes(wait)}.", name, wait)
        wait = self.by_name.wait(owner, now)
        if wait:
            LOG.warning("login of %r from %s refused: too many wrong ones of that name", name[:64], address)
            return self._login_page(request, 429, target, f"This name is locked after too many wrong logins. Try again in {_minutes(wait)}.", name, wait)
        if self._verifying >= VERIFYING_MOST:
            return self._login_page(request, 503, target, "Too many people log in at this moment. Please try once more.", name, 2)
        self.by_address.count(address, now)
        self.by_name.count(owner, now)
        stored = self.secrets.logins.get(name)
        self._verifying += 1
        try:
            async with self._gate:
                right = await asyncio.get_running_loop().run_in_executor(None, login.verify, password[:1024], stored or login.NOBODY)
        finally:
            self._verifying -= 1
        if not right or stored is None:
            LOG.warning("login of %r from %s refused: wrong name or password", name[:64], address)
            return self._login_page(request, 401, target, "Wrong name or password.", name)
        self.by_address.forgive(address, now)
        self.by_name.forgive(owner, now)
        LOG.info("%s has logged in from %s", name, address)
        seconds = int(self.settings.session_hours * 3600)
        answer = web.Response(status=303, headers={"Location": target})
        answer.set_cookie(SESSION, self.keyring.session(name, now + seconds), max_age=seconds, path="/", secure=True, httponly=True, samesite="Lax")
        answer.set_cookie(KNOWN, self.keyring.known(name, now + KNOWN_SECONDS), max_age=KNOWN_SECONDS, path="/", secure=True, httponly=True, samesite="Strict")
        forget(answer, FORM, "Strict")
        return answer

    # For who has logged in

    async def log_out(self, request: web.Request) -> web.StreamResponse:
        session = WHO.get()
        assert session is not None
        form = await request.post()
        if not self._same_origin(request) or not self.keyring.form_is_ours(session.identity, str(form.get("token", ""))):
            return self.message(request, 403, "This form was not ours. Open the portal anew and log out there.")
        self.end(session.identity, session.until)
        LOG.info("%s has logged out", session.name)
        task = asyncio.ensure_future(self._tell(session.identity, int(session.until)))
        self._notices.add(task)
        task.add_done_callback(self._notices.discard)
        answer = web.Response(status=303, headers={"Location": "/login"})
        forget(answer, SESSION, "Lax")
        return answer

    def end(self, identity: str, until: float) -> None:
        """From now on this session is none."""
        now = self.clock()
        self.ended = {one: end for one, end in self.ended.items() if end > now}
        while len(self.ended) >= MOST_ENDED:
            self.ended.pop(next(iter(self.ended)))
        self.ended[identity] = until

    async def _tell(self, identity: str, until: int) -> None:
        """The other replicas end it, too; one that does not answer does not hinder."""
        body = {"identity": identity, "until": until, "signature": self.keyring.notice(identity, until)}

        async def one(url: str) -> None:
            try:
                await self.upstreams.notify(url + "/session-ended", body)
            except (aiohttp.ClientError, OSError, asyncio.TimeoutError) as error:
                LOG.warning("%s was not told of a logout (%s)", url, type(error).__name__)

        await asyncio.gather(*(one(url) for url in self.settings.peers))

    async def session_ended(self, request: web.Request) -> web.StreamResponse:
        """A replica tells that somebody has logged out there."""
        try:
            body = await request.json()
            identity, until, signature = str(body["identity"]), int(body["until"]), str(body["signature"])
        except (ValueError, KeyError, TypeError, RecursionError):
            return self.to_login(request)
        if len(identity) > 64 or not self.keyring.notice_is_ours(identity, until, signature):
            return self.to_login(request)
        self.end(identity, until)
        return web.Response(status=204)

    def _span(self, request: web.Request) -> tuple[str, int]:
        name = request.query.get("range", "1h")
        name = name if name in views.RANGES else "1h"
        return name, views.RANGES[name]

    async def overview(self, request: web.Request) -> web.StreamResponse:
        name, span = self._span(request)
        ask = self.upstreams
        (samples, cores, certificates), facts, routes, panels, logs = await asyncio.gather(
            asyncio.gather(ask.instant(figures.NODES, 10), ask.instant(figures.CORES, 300), ask.instant(figures.CERTIFICATES, 60)),
            ask.facts(),
            ask.routes(),
            ask.panels(questions.of_site(self.site), span),
            ask.log_lines("", span, errors_only=True, limit=8),
        )
        now = self.clock()
        courses, rows = views.wall(self.site, facts), views.rows(self.site, facts, samples, cores, now)
        expiries = views.expiries(certificates, now)
        every = request.query.get("nodes") == "all"
        ordered = rows if len(rows) <= views.NODES_SHOWN else sorted(rows, key=lambda row: views.RANK[row.level])
        alerts = figures.grouped(facts.alerts.value or [])
        return self.page(
            request,
            "overview.html",
            title=f"{self.site.name}",
            range=name,
            verdict=views.verdict(self.site, courses, rows, facts, expiries),
            courses=courses,
            facts=facts,
            alerts=alerts,
            alerts_note=await ask.fallen_back() if not facts.alerts.reason else "",
            watchdog=views.watchdog(facts.alerts),
            rows=ordered if every else ordered[: views.NODES_SHOWN],
            hidden=0 if every else max(0, len(rows) - views.NODES_SHOWN),
            samples=samples,
            panels=panels,
            links=self.site.links,
            routes=replace(routes, value=[route for route in routes.value or [] if route.url != f"https://{self.settings.name}/"]),
            consul=bool(self.settings.consul),
            expiries=expiries,
            certificates=certificates,
            logs=logs,
        )

    async def node(self, request: web.Request) -> web.StreamResponse:
        node = self.site.node(request.match_info["name"])
        if node is None:
            return self.message(request, 404, "This site has no such node.")
        name, span = self._span(request)
        ask = self.upstreams
        facts, samples, cores, panels, logs, certificates = await asyncio.gather(
            ask.facts(),
            ask.instant(figures.NODES, 10),
            ask.instant(figures.CORES, 300),
            ask.panels(questions.NODE, span, node.name),
            ask.log_lines("", span, errors_only=True, node=node.name),
            ask.instant(f"ashlar_certificate_not_after_seconds{{node={figures.quoted(node.name)}}}", 60),
        )
        now = self.clock()
        row = next(row for row in views.rows(self.site, facts, samples, cores, now) if row.name == node.name)
        answers = views.answering(facts.up)
        mine = [
            (component, answers.get(component.name, {}).get(node.name) if not facts.up.reason else None)
            for component in self.site.components
            if node.name in component.nodes and component.service
        ]
        alerts = figures.grouped([alert for alert in facts.alerts.value or [] if alert.node == node.name])
        return self.page(
            request,
            "node.html",
            title=f"{node.name} · {self.site.name}",
            range=name,
            node=node,
            row=row,
            facts=facts,
            mine=mine,
            alerts=alerts,
            panels=panels,
            samples=samples,
            logs=logs,
            expiries=views.expiries(certificates, now),
            certificates=certificates,
        )

    async def logs(self, request: web.Request) -> web.StreamResponse:
        name, span = self._span(request)
        words = request.query.get("q", "")[:400]
        every = request.query.get("level", "errors") == "all"
        node = request.query.get("node", "")
        node = node if self.site.node(node) else ""
        found = await self.upstreams.log_lines(words, span, errors_only=not every, node=node, limit=200)
        return self.page(request, "logs.html", title=f"Logs · {self.site.name}", range=name, words=words, every=every, node=node, logs=found)


def _minutes(seconds: float) -> str:
    minutes = math.ceil(seconds / 60)
    return f"{minutes} minutes" if minutes > 1 else f"{math.ceil(seconds)} seconds"
