# SPDX-License-Identifier: Apache-2.0
"""Clients that use a platform all the time while something is done to it, and what each of them has noticed in the end."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

import kubernetes.client
import kubernetes.watch

from .catalogue import Catalogue
from .cluster import Cluster, Object, Workload, condition, pod_template, random_name, service
from .figures import Tell
from .load import Load, loaded
from .nodes import Node
from .waiting import beside, until

T = TypeVar("T")

# How often a name was asked for in a pod, and how often in vain.
NAMES = """
cd /www; rm -f stop names; (
  asked=0; failed=0
  until [ -e stop ]; do
    asked=$((asked + 1)); nslookup {name}. >/dev/null 2>&1 || failed=$((failed + 1))
    sleep {pause}
  done
  echo $asked $failed >names.new; mv names.new names
) >/dev/null 2>&1 &
"""
CONFIG_MAPS = "/api/v1/namespaces/default/configmaps"


class Client(Protocol):
    """Something that uses a platform."""

    def active(self) -> AbstractContextManager[None]:
        """It is at work as long as the block takes."""
        ...

    def text(self) -> str:
        """What it did, in figures."""
        ...

    def complaints(self) -> list[str]:
        """What it noticed that nobody is to notice."""
        ...


@dataclass
class Repeated:
    """Does one thing again and again, with a pause of seconds; counts what was confirmed, and the longest time in seconds between two confirmations."""

    pause: float
    confirmed: int = 0
    longest: float = 0.0
    errors: list[str] = field(default_factory=list)

    def once(self, number: int) -> None:
        """Does it for the nth time; an exception: it was not confirmed."""
        raise NotImplementedError

    def repeated(self) -> AbstractContextManager[None]:
        return beside(self._run)

    def _run(self, end: threading.Event) -> None:
        last = time.monotonic()
        while not end.is_set():
            try:
                self.once(self.confirmed + 1)
                self.confirmed += 1
                self.longest = max(self.longest, time.monotonic() - last)
                last = time.monotonic()
            except Exception as error:
                self.errors.append(f"{type(error).__name__}: {error}"[:200])
            end.wait(self.pause)
        self.longest = max(self.longest, time.monotonic() - last)

    def figures(self, what: str) -> str:
        return f"{self.confirmed} {what}, at most {self.longest:.1f} s apart; {len(self.errors)} refused: {self.errors[:3]}"


@dataclass
class ApiWriter(Repeated):
    """Writes an object of Kubernetes all the time, and watches it: the last number that was confirmed is the last that the watch sees."""

    cluster: Cluster = field(kw_only=True)
    name: str = field(default_factory=lambda: random_name("written"))
    seen: int = 0
    watches: int = 0

    @contextmanager
    def active(self) -> Iterator[None]:
        self.cluster.request("POST", CONFIG_MAPS, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": self.name}, "data": {"n": "0"}})
        with beside(self._watch):
            with self.repeated():
                yield
            until("the watch sees the last write", lambda: self.seen >= self.confirmed)
        self.stored = int(self.cluster.get(f"{CONFIG_MAPS}/{self.name}")["data"]["n"])
        self.cluster.delete(f"{CONFIG_MAPS}/{self.name}")

    def once(self, number: int) -> None:
        try:
            self.cluster.patch(f"{CONFIG_MAPS}/{self.name}", {"data": {"n": str(number)}})
        except Exception:
            # The administrator's certificate may be one of those that are replaced.
            self.cluster.log_in_again()
            raise

    def _watch(self, end: threading.Event) -> None:
        nodes = list(self.cluster.contexts)
        limits = {"timeout_seconds": 15, "_request_timeout": (5, 20)}
        while not end.is_set():
            api = kubernetes.client.CoreV1Api(self.cluster.client(nodes[self.watches % len(nodes)]))
            self.watches += 1
            # A server that goes away ends the watches of its clients, who begin another.
            with suppress(Exception):
                listed = api.list_namespaced_config_map
                for event in kubernetes.watch.Watch().stream(listed, "default", field_selector=f"metadata.name={self.name}", **limits):
                    self.seen = max(self.seen, int(event["object"].data["n"]))
            end.wait(0.2)

    def text(self) -> str:
        return f"{self.figures('writes to the API')}; {self.watches} watches"

    def complaints(self) -> list[str]:
        # A write that was not confirmed may have happened all the same.
        return [] if self.stored >= self.confirmed > 0 else [f"{self.confirmed} writes to the API were confirmed, {self.stored} is stored"]


@dataclass
class CatalogueWriter(Repeated):
    """Writes keys of Consul's store, through the agents of these nodes in turn."""

    catalogue: Catalogue = field(kw_only=True)
    nodes: Sequence[Node] = field(kw_only=True)
    prefix: str = field(default_factory=lambda: f"ashlar-conformance/{random_name('written')}")
    tried: int = 0

    @contextmanager
    def active(self) -> Iterator[None]:
        with self.repeated():
            yield
        path = f"/v1/kv/{self.prefix}/"
        self.kept = len(until("the catalogue tells what it keeps", lambda: self.catalogue.get(self.nodes[0], f"{path}?keys=true")))
        self.catalogue.call(self.nodes[0], "DELETE", f"{path}?recurse=true")

    def once(self, number: int) -> None:
        self.tried += 1
        node = self.nodes[self.tried % len(self.nodes)]
        try:
            made = self.catalogue.call(node, "PUT", f"/v1/kv/{self.prefix}/{number:06}", number, seconds=4).reply
        except RuntimeError:
            node.disconnect()
            raise
        assert made.status == 200 and made.body.strip() == "true", f"{node.name}: {made}"

    def text(self) -> str:
        return self.figures("writes to the catalogue")

    def complaints(self) -> list[str]:
        return [] if self.kept >= self.confirmed > 0 else [f"{self.confirmed} writes to the catalogue were confirmed, {self.kept} are kept"]


@dataclass
class Names:
    """A pod of a node resolves a name all the time."""

    workload: Workload
    node: str
    name: str
    pause: float
    asked: int = 0
    in_vain: int = 0

    @contextmanager
    def active(self) -> Iterator[None]:
        pod = self.workload.everywhere()[self.node]
        self.workload.run_in(pod, NAMES.format(name=self.name, pause=self.pause))
        try:
            yield
        finally:
            self.workload.cluster.log_in_again()
            text = self.workload.run_in(pod, "touch /www/stop; until [ -e /www/names ]; do sleep 0.2; done; cat /www/names", 60)
            self.asked, self.in_vain = (int(word) for word in text.split())

    def text(self) -> str:
        return f"{self.asked} names were asked for in a pod, {self.in_vain} in vain"

    def complaints(self) -> list[str]:
        return [] if self.asked and not self.in_vain else [self.text()]


@dataclass
class Replicas:
    """A StatefulSet of three whose budget wants two; `least` is how many were ready when they were fewest."""

    workload: Workload
    cluster: Cluster
    name: str = field(default_factory=lambda: random_name("kept"))
    least: int = 3

    def _set(self) -> Object:
        labels = {"app": self.name}
        # A node that is drained is not one over which they are to be spread.
        spread = {"maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "DoNotSchedule", "nodeTaintsPolicy": "Honor"}
        template = pod_template(self.name, self.workload.image, topologySpreadConstraints=[{**spread, "labelSelector": {"matchLabels": labels}}])
        # Fewer are ready when pods are gone, not when a busy machine answers late.
        template["spec"]["containers"][0]["readinessProbe"] |= {"timeoutSeconds": 10, "failureThreshold": 6}
        spec = {"serviceName": self.name, "replicas": 3, "podManagementPolicy": "Parallel", "selector": {"matchLabels": labels}, "template": template}
        return {"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": self.name}, "spec": spec}

    @contextmanager
    def active(self) -> Iterator[None]:
        namespace = self.workload.namespace
        budget = {"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": self.name}}
        objects = [
            service(self.name, headless=True),
            self._set(),
            {**budget, "spec": {"minAvailable": 2, "selector": {"matchLabels": {"app": self.name}}}},
        ]
        for thing in objects:
            self.cluster.create(thing, namespace)
        until("three replicas are ready", lambda: self._ready() == 3)
        with beside(self._look):
            yield
        self.cluster.log_in_again()
        until("three replicas are ready again", lambda: self._ready() == 3)
        for thing in objects:
            self.cluster.delete(self.workload.path(thing["kind"], self.name))

    def _ready(self) -> int:
        return sum(condition(pod, "Ready") == "True" for pod in self.cluster.pods(self.workload.namespace, f"app={self.name}"))

    def _look(self, end: threading.Event) -> None:
        while not end.wait(0.5):
            try:
                self.least = min(self.least, self._ready())
            except Exception:
                self.cluster.log_in_again()

    def text(self) -> str:
        return f"{self.least} of three replicas were ready when they were fewest"

    def complaints(self) -> list[str]:
        return [] if self.least >= 2 else [f"{self.text()}; their budget is two"]


@dataclass
class Clients:
    """All that use a site at the same time."""

    loads: list[Load]
    others: list[Client]

    def during(self, work: Callable[[], T], seconds: float = 3600) -> T:
        """What `work` gives, while which they are all at work."""
        with ExitStack() as stack:
            for client in self.others:
                stack.enter_context(client.active())
            return asyncio.run(loaded(self.loads, work, seconds))

    def unnoticed(self, tell: Tell) -> None:
        """Tells what each did; an AssertionError where one of them noticed something."""
        for text in [*(f"{load.address}: {load.text()}" for load in self.loads), *(client.text() for client in self.others)]:
            tell(text)
        complaints = [f"{load.address}: {load.text()}" for load in self.loads if load.failures or not load.answered]
        complaints += [said for client in self.others for said in client.complaints()]
        assert not complaints, complaints
