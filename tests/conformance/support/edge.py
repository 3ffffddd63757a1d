# SPDX-License-Identifier: Apache-2.0
"""The site's edge as a test uses it: routes that are registered and gone afterwards, and a load on them while something is done."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Callable
from typing import Any

from .catalogue import Catalogue
from .figures import brief
from .load import Connection, Load, loaded
from .nodes import Node
from .orchestrator import WEB_PORT, Applications
from .plan import Plan
from .waiting import until

SYNTHETIC = "conformance-edge"

# The same rate on connections of their own, as a client on the edge's host; prints milliseconds at 50 and 99 of 100.
STRAIGHT = r"""
import http.client, json, sys, time
address, port, rate, seconds = json.loads(sys.argv[1])
taken, start = [], time.monotonic()
for number in range(int(rate * seconds)):
    time.sleep(max(0, start + number / rate - time.monotonic()))
    began = time.monotonic()
    connection = http.client.HTTPConnection(address, port, timeout=5)
    connection.request("GET", "/")
    connection.getresponse().read()
    connection.close()
    taken.append((time.monotonic() - began) * 1000)
taken.sort()
print(json.dumps([taken[len(taken) // 2], taken[int(len(taken) * 0.99)]]))
"""


class Routes:
    """Registers instances that ask for routes, and asks edges as a client of theirs."""

    def __init__(self, plan: Plan, catalogue: Catalogue, node: Node) -> None:
        self.plan, self.catalogue, self.node = plan, catalogue, node
        self.trusted = ssl.create_default_context(cafile=str(plan.credentials / "authorities" / "site" / "ca.crt"))
        self.made: set[str] = set()

    def add(self, name: str, address: str, port: int = WEB_PORT, **meta: str) -> str:
        instance = f"{name[:60]}-{address}-{port}"
        texts = {key.replace("_", "-"): value for key, value in meta.items()}
        body = {"ID": instance, "Service": name, "Address": address, "Port": port, "Meta": texts}
        self.put("/v1/catalog/register", {"Node": SYNTHETIC, "Address": "127.0.0.1", "Service": body})
        self.made.add(instance)
        return instance

    def put(self, path: str, body: Any) -> None:
        """As any client that writes to the catalogue: a leader may change at any time, and a write that was not confirmed is sent again."""
        until(f"the catalogue takes PUT {path}", lambda: self.catalogue.put(self.node, path, body), pause=0.1)

    def remove(self, instance: str) -> None:
        self.put("/v1/catalog/deregister", {"Node": SYNTHETIC, "ServiceID": instance})
        self.made.discard(instance)

    def clear(self) -> None:
        """Removes all that was added."""
        for instance in sorted(self.made):
            self.remove(instance)
        self.catalogue.call(self.node, "PUT", "/v1/catalog/deregister", {"Node": SYNTHETIC})

    def ask(self, edge: Node, host: str, path: str = "/", **options: Any) -> Any:
        async def once() -> Any:
            connection = Connection(443, host, address=edge.address, context=self.trusted)
            try:
                return await asyncio.wait_for(connection.ask(path, **options), 30)
            finally:
                connection.close()

        return asyncio.run(once())

    def answers(self, edge: Node, host: str, path: str = "/", status: int = 200) -> bool:
        return bool(self.ask(edge, host, path).status == status)

    def served(self, edge: Node, host: str, status: int = 200) -> None:
        """Waits until an edge answers for a name so."""
        until(f"{edge.name} answers for {host} with {status}", lambda: self.answers(edge, host, status=status), pause=0.1)

    def served_by(self, edge: Node, host: str, count: int) -> None:
        """Waits until so many instances have answered for a name."""
        answered: set[str] = set()

        def asked() -> bool:
            answer = self.ask(edge, host)
            if answer.status == 200:
                answered.add(answer.body.decode().split()[0])
            return len(answered) == count

        until(f"{count} instances answer for {host} at {edge.name}", asked, pause=0.1)

    def status(self, edge: Node) -> dict[str, Any]:
        return dict(json.loads(edge.run("cat /run/ashlar-edge/status.json")))


def who(applications: Applications) -> dict[str, str]:
    """Address -> name of the web servers as they are now."""
    return {one.address: one.name for one in applications.everywhere().values()}


def addresses(applications: Applications) -> list[str]:
    """Their addresses, once there is one on each node."""
    return until("a web server is ready on each node", lambda: list(found) if len(found := who(applications)) == len(applications.nodes) else [])


def steady(edge: Node, host: str, work: Callable[[], None], rate: int = 200) -> Load:
    """What a load has met while something was done, and one second before and after."""

    load = Load(443, host, rate, address=edge.address, at_once=4 if brief() else 200)
    asyncio.run(loaded([load], work))
    return load


def straight(edge: Node, address: str, port: int = WEB_PORT, rate: int = 200, seconds: int = 5) -> str:
    """What the same load meets that goes from the edge's host to one instance, in words; nothing where no figures are asked for."""
    if brief():
        return ""
    middle, high = edge.python(STRAIGHT, address, port, rate, seconds, seconds=seconds + 40)
    return f"a pod from the edge's host: p50 {middle:.1f} ms, p99 {high:.1f} ms"
