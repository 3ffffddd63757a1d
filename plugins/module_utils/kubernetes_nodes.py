# SPDX-License-Identifier: Apache-2.0
"""What the nodes of a site are to Kubernetes: labels, roles and taints, and the patch that brings a node there.

Labels and taints that somebody else set are left alone. What Ashlar set is remembered in an annotation of the node, so that it goes when
the site file no longer has it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Mapping

APPLIED = "ashlar.io/applied"
ROLE = "node-role.kubernetes.io/"
ROLES = {"control": "control-plane", "worker": "worker", "edge": "edge", "storage": "storage"}
ZONE = "topology.kubernetes.io/zone"
REGION = "topology.kubernetes.io/region"
NO_LOAD_BALANCER = "node.kubernetes.io/exclude-from-external-load-balancers"

Object = Mapping[str, Any]


@dataclass(frozen=True)
class Wanted:
    """Labels, and the keys of NoSchedule taints, of a node."""

    labels: Mapping[str, str]
    taints: tuple[str, ...]


def wanted(node: Object) -> Wanted:
    """What a node of `site_nodes` shall have. One that is no worker repels applications, by a taint for each of its roles."""
    classes = node["classes"]
    roles = [ROLE + ROLES[name] for name in classes]
    labels = {**(node.get("labels") or {}), **dict.fromkeys(roles, "")}
    for key, value in ((ZONE, node.get("zone")), (REGION, node.get("region"))):
        if value:
            labels[key] = value
    applications = "worker" in classes
    if "control" in classes and not applications:
        labels[NO_LOAD_BALANCER] = ""
    return Wanted(labels, () if applications else tuple(roles))


def patch(live: Object, target: Wanted) -> dict[str, Any]:
    """The JSON merge patch that a node needs; empty when it has all it shall have."""
    metadata = live["metadata"]
    labels, annotations = metadata.get("labels") or {}, metadata.get("annotations") or {}
    before = _remembered(annotations.get(APPLIED))
    changed: dict[str, Any] = {key: value for key, value in target.labels.items() if labels.get(key) != value}
    changed.update({key: None for key in before["labels"] if key in labels and key not in target.labels})
    taints = list((live.get("spec") or {}).get("taints") or [])
    ours = [{"key": key, "effect": "NoSchedule"} for key in target.taints]
    gone = {key for key in before["taints"] if key not in target.taints}
    kept = [taint for taint in taints if not (taint["effect"] == "NoSchedule" and taint["key"] in gone)]
    present = {taint["key"] for taint in kept if taint["effect"] == "NoSchedule"}
    new = kept + [taint for taint in ours if taint["key"] not in present]
    memory = json.dumps({"labels": sorted(target.labels), "taints": sorted(target.taints)})

    result: dict[str, Any] = {}
    if changed:
        result["labels"] = changed
    if annotations.get(APPLIED) != memory:
        result["annotations"] = {APPLIED: memory}
    body: dict[str, Any] = {"metadata": result} if result else {}
    if new != taints:
        # A list is replaced as a whole: whoever else adds a taint meanwhile must not lose it.
        body["spec"] = {"taints": new}
        body["metadata"] = {**result, "resourceVersion": metadata["resourceVersion"]}
    return body


def _remembered(text: str | None) -> dict[str, list[str]]:
    try:
        found = json.loads(text or "{}")
        return {key: [str(item) for item in found.get(key, [])] for key in ("labels", "taints")}
    except (ValueError, AttributeError, TypeError):
        return {"labels": [], "taints": []}


def lacking(names: list[str], live: Mapping[str, Object]) -> dict[str, str]:
    """Node -> why it does not run applications yet; empty when all are registered and Ready."""
    reasons = {}
    for name in names:
        if name not in live:
            reasons[name] = "has not registered"
            continue
        conditions = (live[name].get("status") or {}).get("conditions") or []
        ready = next((item for item in conditions if item["type"] == "Ready"), None)
        if ready is None:
            reasons[name] = "has not reported yet"
        elif ready["status"] != "True":
            reasons[name] = f"is not Ready: {ready.get('message') or ready.get('reason') or ready['status']}"
    return reasons


def story(reasons: Mapping[str, str], total: int, seconds: float) -> str:
    """What is told when time is up."""
    lines = [f"{total - len(reasons)} of {total} nodes are Ready after {seconds:.0f} s, and nothing was applied to them:"]
    lines += [f"- {name} {reason}" for name, reason in sorted(reasons.items())[:20]]
    if len(reasons) > 20:
        lines.append(f"- and {len(reasons) - 20} more")
    lines.append("What to do: `journalctl -u kubelet` on these nodes has the cause; mend it and run site.yml again.")
    return "\n".join(lines)
