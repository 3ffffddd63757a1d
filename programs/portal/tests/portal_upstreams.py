# SPDX-License-Identifier: Apache-2.0
"""Stand-ins on loopback for Prometheus, Alertmanager, the log store and Consul. They answer in the shapes that the real ones were recorded
with, about a site of three nodes, and can be told to be down, slow, or to talk nonsense; they evaluate no query."""

from __future__ import annotations

import asyncio
import json
import math
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

from aiohttp import web

NOW = 1_800_000_000.0
NODES = ("node1", "node2", "node3")


def stamp(at: float) -> str:
    return datetime.fromtimestamp(at, timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.123456789Z")


def sample(value: float, **labels: str) -> dict[str, Any]:
    return {"metric": labels, "value": [NOW, str(value)]}


@dataclass
class Upstream:
    """All four at one address. `mood`: "", "down" (503), "slow" (never within a test), "garbage", "huge", "odd" (JSON of another shape)."""

    components: dict[str, tuple[str, ...]] = field(default_factory=dict)
    now: float = NOW
    mood: str = ""
    text: str = ""
    alerts: list[dict[str, Any]] = field(default_factory=list)
    down: set[tuple[str, str]] = field(default_factory=set)
    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    told: list[dict[str, Any]] = field(default_factory=list)

    def application(self) -> web.Application:
        made = web.Application()
        made.router.add_route("*", "/{tail:.*}", self.answer)
        return made

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.asked.append((request.path, dict(request.query)))
        if self.mood == "slow":
            await asyncio.sleep(30)
        if self.mood == "down":
            return web.Response(status=503, text="Service Unavailable")
        if self.mood == "garbage":
            return web.Response(body=b"<html>\xff\x00 not what you asked for")
        if self.mood == "huge":
            return web.Response(body=b'{"status":"' + b"x" * (5 << 20))
        if self.mood == "odd":
            return web.json_response({"status": "success", "data": {"resultType": "vector", "result": [{"metric": 3}]}, "hits": 7})
        if request.path == "/session-ended":
            self.told.append(await request.json())
            return web.Response(status=204)
        if request.path == "/api/v1/query":
            return web.json_response({"status": "success", "data": {"resultType": "vector", "result": self.instant(request.query["query"])}})
        if request.path == "/api/v1/query_range":
            return web.json_response({"status": "success", "data": {"resultType": "matrix", "result": self.range(request.query)}})
        if request.path == "/api/v1/alerts":
            listed = [{**one, "state": "firing", "activeAt": one["startsAt"], "value": "1e+00"} for one in self.alerts]
            return web.json_response({"status": "success", "data": {"alerts": listed}})
        if request.path == "/api/v2/alerts":
            return web.json_response(self.alerts)
        if request.path == "/select/logsql/query":
            return web.Response(text="".join(json.dumps(line) + "\n" for line in self.lines(request.query)), content_type="application/stream+json")
        if request.path == "/select/logsql/hits":
            return web.json_response({"hits": [self.hits(request.query)]})
        if request.path == "/v1/health/state/any":
            return web.json_response([])
        if request.path == "/v1/catalog/services":
            return web.json_response({"web": ["http"], "shop": []})
        if request.path.startswith("/v1/health/service/"):
            return web.json_response(self.service(request.path.rpartition("/")[2]))
        return web.Response(status=404)

    def instant(self, query: str) -> list[dict[str, Any]]:
        if query.startswith("min by (component, node) (up)"):
            return [
                sample(0.0 if (component, node) in self.down else 1.0, component=component, node=node)
                for component, nodes in self.components.items()
                for node in nodes
            ]
        if query.startswith("count by (node)"):
            return [sample(4, node=node) for node in NODES]
        if "ashlar_certificate" in query:
            names = [(component, name) for component in ("etcd", "kubernetes_control", "consul", "haproxy") for name in ("server", "client", "peer")]
            return [
                sample(self.now + 86400 * (364 if place else 12), __name__="ashlar_certificate_not_after_seconds", component=component, name=name, node="node1")
                for place, (component, name) in enumerate(names)
            ]
        if "node_load1" in query:
            made = []
            for place, node in enumerate(NODES):
                made += [
                    sample(0.42 + place, __name__="node_load1", node=node),
                    sample(8 << 30, __name__="node_memory_MemTotal_bytes", node=node),
                    sample((8 << 30) * (0.6 - place * 0.25), __name__="node_memory_MemAvailable_bytes", node=node),
                    sample(self.now - 400_000, __name__="node_boot_time_seconds", node=node),
                    sample(80 << 30, __name__="node_filesystem_size_bytes", mountpoint="/", node=node),
                    sample((80 << 30) * 0.31, __name__="node_filesystem_avail_bytes", mountpoint="/", node=node),
                    sample(1, __name__="node_uname_info", release="6.12.57-amd64", node=node),
                    sample(1, __name__="node_os_info", pretty_name=self.text or "Debian GNU/Linux 13 (trixie)", node=node),
                ]
            return made
        return []

    def range(self, query: Any) -> list[dict[str, Any]]:
        start, end, step = (float(query[name]) for name in ("start", "end", "step"))
        times = [start + step * number for number in range(int((end - start) / step) + 1)]
        text = query["query"]
        names, label = (("GET", "LIST", "POST", "PUT"), "verb") if "apiserver" in text else (NODES, "node")
        if "code" in text:
            names, label = ("2xx", "4xx", "5xx"), "code"
        if "phase" in text:
            names, label = ("Running", "Pending"), "phase"
        size = 100e6 if "network" in text else 0.004 if "fsync" in text else 40
        return [
            {
                "metric": {label: self.text + name},
                "values": [[at, str(size * (0.5 + 0.3 * math.sin(at / 700 + place) + 0.1 * math.sin(at / 90 + place)) / (1 + place))] for at in times],
            }
            for place, name in enumerate(names)
        ]

    def lines(self, query: Any) -> list[dict[str, str]]:
        texts = ("etcdserver: request timed out, possibly due to previous leader failure", "connection reset by peer", "Failed to pull image: not found")
        return [
            {
                "_time": stamp(self.now - 40 * number),
                "_msg": self.text or f"{texts[number % 3]} (try {number})",
                "level": "error" if number % 3 else "warning",
                "node": NODES[number % 3],
                "component": ("etcd", "haproxy", "kubernetes_node")[number % 3],
                **({"namespace": "team", "pod": "deployment-" + "0123456789abcdef" * 4, "container": "main"} if number == 2 else {}),
            }
            for number in range(min(8, int(query["limit"])))
        ]

    def hits(self, query: Any) -> dict[str, Any]:
        start, end, step = float(query["start"]), float(query["end"]), float(query["step"].rstrip("s"))
        times = [start + step * number for number in range(int((end - start) / step))]
        return {"fields": {}, "timestamps": [stamp(at) for at in times], "values": [int(8 + 8 * math.sin(at / 400)) for at in times], "total": 9}

    def service(self, name: str) -> list[dict[str, Any]]:
        return [
            {
                "Node": {"Node": node},
                "Service": {"Service": name, "Meta": {"route-host": f"{name}.three.test", "route-path": "/"}},
                "Checks": [{"Status": "passing" if (name, node) not in self.down else "critical"}],
            }
            for node in NODES[:2]
        ]
