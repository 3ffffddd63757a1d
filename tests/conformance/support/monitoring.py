# SPDX-License-Identifier: Apache-2.0
"""Prometheus and Alertmanager as their clients see them: asked from a node that has a client certificate, each replica by name."""

from __future__ import annotations

import json
import secrets
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from .nodes import Node
from .plan import Plan
from .remote import Reply

CLIENT = {"prometheus": "prometheus/scrape", "alertmanager": "alertmanager/client"}
PORTS = {"prometheus": 9090, "alertmanager": 9093}
# A label that figures of containers carry, and one that nobody chose.
LABEL, INVENTED = "com.docker.compose.service", "invented"
UNITS = {"prometheus": "prometheus.service", "alertmanager": "alertmanager.service"}


@dataclass(frozen=True)
class Monitoring:
    """Both programs of a site; a replica is the node that carries it."""

    plan: Plan
    nodes: dict[str, Node]

    def replicas(self, component: str = "prometheus") -> list[str]:
        return self.plan.on(component)

    def url(self, component: str, replica: str) -> str:
        return f"https://{self.nodes[replica].address}:{PORTS[component]}"

    def ask(self, component: str, replica: str, path: str, asker: str | None = None, **parameters: Any) -> Reply:
        """A GET from a node that carries the component, by default the replica itself."""
        query = f"?{urllib.parse.urlencode(parameters, doseq=True)}" if parameters else ""
        return self.nodes[asker or replica].https(f"{self.url(component, replica)}{path}{query}", "site", CLIENT[component], 10)

    def get(self, component: str, replica: str, path: str, **parameters: Any) -> Any:
        """The JSON of a GET that has to succeed; of Prometheus what is under `data`."""
        reply = self.ask(component, replica, path, **parameters)
        assert reply.status == 200, f"{component} of {replica}: {path}: {reply}"
        answer = json.loads(reply.body)
        return answer["data"] if component == "prometheus" else answer

    def query(self, replica: str, expression: str) -> list[dict[str, Any]]:
        return list(self.get("prometheus", replica, "/api/v1/query", query=expression)["result"])

    def targets(self, replica: str) -> list[dict[str, Any]]:
        return list(self.get("prometheus", replica, "/api/v1/targets", state="active")["activeTargets"])

    def alerts(self, replica: str, **labels: str) -> list[dict[str, Any]]:
        """Alerts that an Alertmanager has, of these labels."""
        found = self.get("alertmanager", replica, "/api/v2/alerts", filter=[f'{name}="{value}"' for name, value in labels.items()])
        return list(found)

    def kill(self, component: str, replica: str) -> int:
        """Ends a program as the kernel does when memory is short; its process number."""
        unit = UNITS[component]
        number = int(self.nodes[replica].run(f"systemctl show --property=MainPID --value {unit}"))
        assert number > 0, f"{unit} does not run on {replica}"
        self.nodes[replica].run(f"kill -9 {number}")
        return number


@contextmanager
def container(plan: Plan, nodes: dict[str, Node]) -> Iterator[tuple[Node, str]]:
    """A container where cAdvisor measures: the node, and its name, of 64 hexadecimal digits as tools above containerd give them.

    It runs on a node that is only watched where there is one.
    """
    carriers = plan.on("cadvisor")
    node = nodes[next((name for name in carriers if name not in plan.on("prometheus")), carriers[0])]
    ctr = f"/opt/ashlar/containerd/current/ctr --namespace {plan.option('cadvisor', 'cadvisor_containerd_namespace')}"
    image, name = f"registry.ashlar.internal/pause:{plan.versions['pause']}", secrets.token_hex(32)
    node.run(f"{ctr} images import /opt/ashlar/pause/current/*.oci.tar")
    node.run(f"{ctr} run --detach --label {LABEL}=measured --label {INVENTED}=secret {image} {name}")
    try:
        yield node, name
    finally:
        node.run(f"{ctr} tasks rm --force {name}; {ctr} containers rm {name}; {ctr} images rm {image}")
