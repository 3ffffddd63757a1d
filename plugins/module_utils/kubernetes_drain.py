# SPDX-License-Identifier: Apache-2.0
"""A node out of service and back: who of its pods goes elsewhere, what is in the way, and what is told of it.

A node that was cordoned by somebody else stays so. Whether it was Ashlar is remembered in an annotation of the node.
"""

from __future__ import annotations

import time
from typing import Any, Callable, Mapping, Protocol

CORDONED = "ashlar.io/cordoned"
MIRROR = "kubernetes.io/config.mirror"
AWAY = ("node.kubernetes.io/unschedulable", "node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")
FINISHED = ("Succeeded", "Failed")
PAUSE = 1.0
RETRY = 5.0
"""Seconds between two tries to evict a pod whose budget does not allow it yet."""
SHOWN = 10
SILENT_SECONDS = 60.0
"""How long a node that is put back into service may lack reports from its kubelet, which sends one when it starts."""
GO_ON = "What to do: switch it on, see `journalctl -u kubelet` there, and run the same command again; replace_node.yml if it is gone for good."

Object = Mapping[str, Any]


class Api(Protocol):
    """What a drain asks of Kubernetes."""

    def node(self, name: str) -> Object | None:
        """None when there is no such node."""

    def patch(self, name: str, body: Object) -> None:
        """A JSON merge patch of a node."""

    def pods(self, node: str) -> list[Object]:
        """All pods of a node."""

    def evict(self, pod: Object, dry_run: bool) -> str:
        """Asks for an eviction; why it was refused, empty when it was not."""


class DrainError(Exception):
    """The node could not be drained and is in service as before; says what was in the way."""


def name_of(pod: Object) -> str:
    return f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"


def owner_of(pod: Object) -> Object | None:
    """The controller that makes another pod in its place."""
    return next((owner for owner in pod["metadata"].get("ownerReferences") or [] if owner.get("controller")), None)


def goes(pod: Object) -> bool:
    """Whether a drain moves it: not what has finished, and not what belongs to this very node (a DaemonSet's and static pods)."""
    if (pod.get("status") or {}).get("phase") in FINISHED or MIRROR in (pod["metadata"].get("annotations") or {}):
        return False
    owner = owner_of(pod)
    return owner is None or owner["kind"] != "DaemonSet"


def cordoned(node: Object) -> bool:
    return bool((node.get("spec") or {}).get("unschedulable"))


def away(node: Object) -> list[str]:
    """Taints that keep pods from a node until Kubernetes has seen that it is back."""
    return [taint["key"] for taint in (node.get("spec") or {}).get("taints") or [] if taint["key"] in AWAY]


def silent(node: Object) -> str:
    """Since when its kubelet has sent no report, as far as the control plane has noticed; empty while it does."""
    conditions = (node.get("status") or {}).get("conditions") or []
    return next((str(each.get("lastHeartbeatTime")) for each in conditions if each["type"] == "Ready" and each["status"] == "Unknown"), "")


def ours(node: Object) -> bool:
    """Whether Ashlar cordoned it."""
    return CORDONED in (node["metadata"].get("annotations") or {})


def _listed(lines: list[str]) -> str:
    more = [f"and {len(lines) - SHOWN} more"] if len(lines) > SHOWN else []
    return "\n".join(f"- {line}" for line in lines[:SHOWN] + more)


class Drain:
    """One node. ``patched``: whether the node was changed; ``evicted``: pods whose eviction was accepted, in order."""

    def __init__(self, api: Api, node: str, clock: Callable[[], float] = time.monotonic, sleep: Callable[[float], None] = time.sleep) -> None:
        self.api, self.node = api, node
        self.clock, self.sleep = clock, sleep
        self.patched = False
        self.evicted: list[str] = []

    def blocked(self, unmanaged: bool) -> dict[str, str]:
        """Pod -> why it could not be evicted now. Nothing is changed."""
        pods = [pod for pod in self.api.pods(self.node) if goes(pod)]
        refusals = {name_of(pod): self.api.evict(pod, dry_run=True) for pod in pods}
        lost = {name_of(pod): "it has no controller and would be gone for good" for pod in pods if owner_of(pod) is None and not unmanaged}
        return {pod: why for pod, why in (refusals | lost).items() if why}

    def drain(self, timeout: float, unmanaged: bool) -> None:
        """Cordons the node and evicts its pods as their disruption budgets allow it, until all have gone.

        :param timeout: seconds. ``unmanaged``: whether pods may go that nothing makes anew.
        :raises DrainError: it took longer, or there are such pods. The node is as it was before.
        """
        live = self.api.node(self.node)
        if live is None:
            return
        if not unmanaged:
            lost = sorted(name_of(pod) for pod in self.api.pods(self.node) if goes(pod) and owner_of(pod) is None)
            if lost:
                raise DrainError(
                    f"{self.node} was not drained, because these pods have no controller and would be gone for good:\n{_listed(lost)}\n"
                    "What to do: move or delete them, or allow it with -e kubernetes_node_drain_unmanaged=true."
                )
        if not cordoned(live):
            self._patch({"spec": {"unschedulable": True}, "metadata": {"annotations": {CORDONED: "true"}}})
        try:
            self._evict_all(timeout, reported=not silent(live))
        except BaseException:
            self._uncordon()
            raise

    def _evict_all(self, timeout: float, reported: bool) -> None:
        end = self.clock() + timeout
        refusals: dict[str, str] = {}
        due: dict[str, float] = {}
        while True:
            pods = [pod for pod in self.api.pods(self.node) if goes(pod)]
            if not pods:
                return
            now = self.clock()
            for pod in pods:
                name = name_of(pod)
                if pod["metadata"].get("deletionTimestamp"):
                    refusals[name] = "has not ended yet"
                elif now >= due.get(name, 0):
                    refusals[name] = self.api.evict(pod, dry_run=False)
                    due[name] = now + RETRY
                    if not refusals[name]:
                        refusals[name] = "has not ended yet"
                        self.evicted.append(name)
            since = silent(self.api.node(self.node) or {}) if reported else ""
            if since:
                raise DrainError(
                    f"{self.node} went down while it was drained: its kubelet has sent no report since {since}, so its pods can't end. It is uncordoned.\n"
                    f"{GO_ON}"
                )
            if now >= end:
                left = [f"{name_of(pod)}: {refusals[name_of(pod)]}" for pod in pods]
                raise DrainError(
                    f"{self.node} was not drained within {timeout:.0f} s and is in service again. These pods were in the way:\n{_listed(left)}\n"
                    "What to do: give their application another replica or a budget that allows one to be away, and run the same command again; "
                    "or wait longer with -e kubernetes_node_drain_timeout_seconds=..."
                )
            self.sleep(PAUSE)

    def resume(self, timeout: float) -> None:
        """Uncordons the node if Ashlar has cordoned it, and waits until pods may be placed there.

        :param timeout: seconds.
        :raises DrainError: its taints were not removed by then, or its kubelet does not report.
        """
        end, heard = self.clock() + timeout, self.clock()
        self._uncordon()
        while True:
            live = self.api.node(self.node)
            left = away(live) if live is not None and not cordoned(live) else []
            if not left:
                return
            since = silent(live) if live is not None else ""
            heard = heard if since else self.clock()
            if self.clock() >= heard + SILENT_SECONDS:
                raise DrainError(
                    f"{self.node} is uncordoned, but its kubelet has sent no report since {since}, so no pod is placed there.\n"
                    f"{GO_ON}"
                )
            if self.clock() >= end:
                raise DrainError(
                    f"{self.node} is uncordoned, and after {timeout:.0f} s still has the taint {', '.join(left)}, which keeps pods away.\n"
                    "What to do: the leader among the controller managers removes it; `journalctl -u kube-controller-manager` on the control nodes."
                )
            self.sleep(PAUSE)

    def _uncordon(self) -> None:
        live = self.api.node(self.node)
        if live is not None and ours(live):
            self._patch({"spec": {"unschedulable": None}, "metadata": {"annotations": {CORDONED: None}}})

    def _patch(self, body: Object) -> None:
        self.api.patch(self.node, body)
        self.patched = True
