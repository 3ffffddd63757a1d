# SPDX-License-Identifier: Apache-2.0
"""Ingress objects of Kubernetes are served by the same edges, beside the catalogue's names."""

from __future__ import annotations

import asyncio
import base64
import ssl
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from .support.cluster import Object, Workload, random_name
from .support.load import Connection
from .support.nodes import Node
from .support.plan import Plan
from .support.waiting import until

pytestmark = pytest.mark.needs("haproxy_ingress", "kubernetes_control")

INGRESSES = "/apis/networking.k8s.io/v1/namespaces/{namespace}/ingresses"


@pytest.fixture(scope="module")
def edges(plan: Plan, nodes: dict[str, Node]) -> list[Node]:
    return [nodes[name] for name in plan.on("haproxy_ingress")]


@pytest.fixture
def ingress(workload: Workload) -> Iterator[Callable[..., str]]:
    """Makes an Ingress to the Service `probe`; returns its name."""
    made: list[str] = []

    def make(host: str, path: str = "/", tls: Object | None = None, kind: str | None = None) -> str:
        name = random_name("ingress")
        made.append(name)
        backend = {"service": {"name": "probe", "port": {"number": 80}}}
        spec: Object = {"rules": [{"host": host, "http": {"paths": [{"path": path, "pathType": "Prefix", "backend": backend}]}}]}
        spec.update({"tls": [tls]} if tls else {}, **({"ingressClassName": kind} if kind else {}))
        body = {"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": {"name": name}, "spec": spec}
        workload.cluster.request("POST", INGRESSES.format(namespace=workload.namespace), body)
        return name

    yield make
    for name in made:
        workload.cluster.delete(f"{INGRESSES.format(namespace=workload.namespace)}/{name}")


def ask(edge: Node, host: str, path: str = "/", trusted: ssl.SSLContext | None = None) -> Any:
    async def once() -> Any:
        connection = Connection(
            443 if trusted else 80, host, tls=trusted is not None, address=edge.address, **({"context": trusted} if trusted else {})
        )
        try:
            return await asyncio.wait_for(connection.ask(path), 10)
        finally:
            connection.close()

    return asyncio.run(once())


@pytest.fixture(scope="module")
def site(plan: Plan) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(Path(plan.credentials) / "authorities" / "site" / "ca.crt"))


def test_an_ingress_without_a_class_is_served_by_every_edge(
    workload: Workload, edges: list[Node], ingress: Callable[..., str], plan: Plan, site: ssl.SSLContext
) -> None:
    host = f"{random_name('ing')}.{plan.shared['site_domain']}"
    ingress(host, tls={"hosts": [host]})
    names = {pod["metadata"]["name"] for pod in workload.pods.values()}
    for edge in edges:
        until(f"{edge.name} serves {host}", lambda edge=edge: ask(edge, host, trusted=site).status == 200)
        assert {ask(edge, host, trusted=site).body.decode().strip() for _ in range(20)} <= names
        assert ask(edge, host).status in (301, 302, 307, 308), "HTTP leads to HTTPS where the Ingress has TLS"


def test_plain_http_is_served_where_an_ingress_has_no_tls(edges: list[Node], ingress: Callable[..., str]) -> None:
    host = f"{random_name('plain')}.example.test"
    ingress(host)
    for edge in edges:
        until(f"{edge.name} serves http://{host}", lambda edge=edge: ask(edge, host).status == 200)


def test_a_secret_is_the_certificate(workload: Workload, edges: list[Node], ingress: Callable[..., str], tmp_path: Path) -> None:
    host, secret = f"{random_name('tls')}.example.test", random_name("tls")
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-days",
        "2",
        "-subj",
        f"/CN={host}",
    ]
    command += ["-addext", f"subjectAltName=DNS:{host}", "-keyout", str(tmp_path / "key"), "-out", str(tmp_path / "crt")]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    data = {f"tls.{part}": base64.b64encode((tmp_path / part).read_bytes()).decode() for part in ("crt", "key")}
    body = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": secret}, "type": "kubernetes.io/tls", "data": data}
    workload.cluster.create(body, workload.namespace)
    ingress(host, tls={"hosts": [host], "secretName": secret})
    trusted = ssl.create_default_context(cafile=str(tmp_path / "crt"))
    for edge in edges:
        until(f"{edge.name} shows the secret's certificate", lambda edge=edge: ask(edge, host, trusted=trusted).status == 200)


def test_the_status_names_the_edges(workload: Workload, plan: Plan, ingress: Callable[..., str]) -> None:
    name = ingress(f"{random_name('status')}.example.test")
    virtual = plan.option("keepalived", "keepalived_virtual_address") if plan.has("keepalived") else None
    wanted = {virtual} if virtual else {plan.machines[edge].address for edge in plan.on("haproxy_ingress")}

    def addresses() -> set[str]:
        found = workload.cluster.get(f"{INGRESSES.format(namespace=workload.namespace)}/{name}")
        return {str(one.get("ip")) for one in found["status"].get("loadBalancer", {}).get("ingress", [])}

    until(f"the status of {name} is {sorted(wanted)}", lambda: addresses() == wanted)


def test_an_ingress_of_another_class_is_left_alone(edges: list[Node], ingress: Callable[..., str]) -> None:
    other, ours = f"{random_name('other')}.example.test", f"{random_name('ours')}.example.test"
    ingress(other, kind="somebody-elses")
    ingress(ours)
    for edge in edges:
        until(f"{edge.name} serves {ours}", lambda edge=edge: ask(edge, ours).status == 200)
        assert ask(edge, other).status == 404
