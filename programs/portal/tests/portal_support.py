# SPDX-License-Identifier: Apache-2.0
"""The portal in front of stand-ins for its upstreams."""

from __future__ import annotations

import asyncio
import hashlib
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlencode

import aiohttp
from aiohttp import web
from ashlar_portal import ask, charts, figures, login, model, questions, views
from ashlar_portal.sources import Reading
from ashlar_portal.web import Portal
from portal_upstreams import NODES, NOW, Upstream

__all__ = ["Reading", "Running", "charts", "figures", "login", "model", "questions", "running", "served", "site", "views", "wait_for"]
PASSWORD = "correct horse battery staple"


def hashed(password: str, n: int = 16) -> str:
    """A password as the role lays it down, cheaper."""
    salt = b"saltsalt"
    return f"scrypt${n}$8$1${login.encode(salt)}${login.encode(hashlib.scrypt(password.encode(), salt=salt, n=n, r=8, p=1, dklen=32))}"


def site() -> model.Site:
    layers = {
        "base": ["base", "firewall"],
        "runtime": ["containerd"],
        "coordination": ["etcd", "consul"],
        "orchestration": ["kubernetes_control", "kubernetes_node", "api_balancer"],
        "ingress": ["haproxy"],
        "observability": ["node_exporter", "prometheus", "kube_state_metrics"],
        "management": ["portal"],
    }
    components = tuple(
        model.Component(
            name,
            layer,
            f"What {name} is.",
            "1.2.3",
            NODES[:2] if name in ("haproxy", "prometheus") else NODES,
            (f"{name}.service",),
            layer not in ("base", "management"),
            layer != "base",
        )
        for layer, names in layers.items()
        for name in names
    )
    nodes = tuple(model.Node(name, f"10.0.0.{place}", ("control", "worker")) for place, name in enumerate(NODES, 1))
    return model.Site("three", "three.test", "mantl", "2026.11", nodes, tuple(layers), components, (model.Link("Handbook", "https://handbook.three.test/"),))


SETTINGS = model.Settings(
    address="127.0.0.1", port=0, name="portal.three.test", certificate="", key="", authority="", client_certificate="", client_key="",
    proxies=frozenset({"10.9.9.9"}), attempts_per_address=4, attempts_per_name=3, attempts_window_seconds=60, timeout_seconds=30.0,
)  # fmt: skip
SECRETS = model.Secrets(b"k" * 44, {"admin": hashed(PASSWORD), "eve": hashed("another password")}, "token-of-consul")


@dataclass
class Clock:
    """A clock that is set by hand."""

    now: float = NOW

    def __call__(self) -> float:
        return self.now


@dataclass
class Running:
    """A portal that answers on loopback, its upstream, and a browser of sorts that keeps cookies by hand (they are for TLS only)."""

    portal: Portal
    upstream: Upstream
    clock: Clock
    url: str
    session: aiohttp.ClientSession
    cookies: dict[str, str]

    async def get(self, path: str, **headers: str) -> tuple[int, str, Any]:
        return await self._ask("GET", path, None, headers)

    async def session_get(self, path: str, parameters: dict[str, str]) -> tuple[int, str, Any]:
        return await self.get(f"{path}?{urlencode(parameters)}")

    async def post(self, path: str, form: dict[str, str], **headers: str) -> tuple[int, str, Any]:
        return await self._ask("POST", path, form, headers)

    async def _ask(self, method: str, path: str, form: dict[str, str] | None, headers: dict[str, str]) -> tuple[int, str, Any]:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if self.cookies:
            sent["Cookie"] = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        async with self.session.request(method, self.url + path, data=form, headers=sent, allow_redirects=False) as answer:
            for name, morsel in answer.cookies.items():
                if morsel["max-age"] == "0" or not morsel.value:
                    self.cookies.pop(name, None)
                else:
                    self.cookies[name] = morsel.value
            return answer.status, await answer.text(), answer.headers

    async def token(self) -> str:
        _, text, _ = await self.get("/login")
        return text.split('name="token" value="')[1].split('"')[0]

    async def log_in(self, name: str = "admin", password: str = PASSWORD, target: str = "/", **headers: str) -> tuple[int, str, Any]:
        return await self.post("/login", {"name": name, "password": password, "token": await self.token(), "next": target}, **headers)


@asynccontextmanager
async def served(application: web.Application, tls: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        place = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
        await place.start()
        yield f"http{'s' if tls else ''}://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def running(
    described: model.Site | None = None, upstream: Upstream | None = None, tls: ssl.SSLContext | None = None, **changed: Any
) -> AsyncIterator[Running]:
    """A portal with an upstream that plays all four; `changed` are settings."""
    described = described or site()
    upstream = upstream or Upstream({one.name: one.nodes for one in described.components if one.metrics})
    clock = Clock(upstream.now)
    async with served(upstream.application()) as above, aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as session:
        settings = replace(
            SETTINGS, **{"prometheus": (above,), "alertmanager": (above,), "logs": (above,), "consul": {"url": above}, "peers": (above,), **changed}
        )
        asker = ask.Upstreams(settings, SECRETS, session, None, None, clock)
        portal = Portal(settings, SECRETS, described, asker, clock)
        async with served(portal.application(), tls) as url:
            yield Running(portal, upstream, clock, url, session, {})


def wait_for(work: Any, seconds: float = 180) -> Any:
    return asyncio.run(asyncio.wait_for(work, seconds))
