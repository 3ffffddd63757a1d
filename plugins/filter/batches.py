# SPDX-License-Identifier: Apache-2.0
"""The filter that says in which batches nodes are taken out of service."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

from ansible.errors import AnsibleFilterError

DOCUMENTATION = """
name: batches
short_description: Divides nodes into batches that may be out of service together
version_added: 1.0.0
description:
  - Control nodes come first, then edges, storage nodes and workers, each zone by zone, in the given order otherwise.
  - A batch has nodes of one zone, and at most as many members of a component that restarts in turns as may be away at the same time (C(max_unavailable)).
options:
  _input:
    description: Names of the nodes.
    type: list
    elements: str
    required: true
  nodes:
    description: C(site_nodes), node to C(classes) and C(zone).
    type: dict
    required: true
  rolling:
    description: C(component_rolling), component to C(members) and C(max_unavailable).
    type: dict
    required: true
  size:
    description: How many nodes a batch has at most, as a number from 1, or as a percentage of the given nodes such as V(25%).
    type: str
    default: "1"
author: [The Ashlar authors]
"""

EXAMPLES = """
batches: "{{ groups.worker | ashlar.stack.batches(site_nodes, component_rolling, '25%') }}"
"""

RETURN = """
_value:
  description: The batches, each a list of names.
  type: list
  elements: list
"""

ORDER = ("control", "edge", "storage", "worker")


def size_of(size: Any, total: int) -> int:
    """A batch's size in nodes, at least 1."""
    text = str(size).strip()
    number = text.removesuffix("%")
    if not number.isdecimal() or int(number) < 1 or (text.endswith("%") and int(number) > 100):
        raise AnsibleFilterError(f"a batch is {text!r}. Allowed: a number of nodes from 1, or a percentage of them from 1% to 100%.")
    return max(1, math.floor(total * int(number) / 100)) if text.endswith("%") else int(number)


def batches(names: Iterable[str], nodes: Mapping[str, Any], rolling: Mapping[str, Any], size: Any = 1) -> list[list[str]]:
    """See C(DOCUMENTATION)."""

    def rank(name: str) -> tuple[int, str]:
        classes: Collection[str] = nodes[name]["classes"]
        return next((place for place, kind in enumerate(ORDER) if kind in classes), len(ORDER)), str(nodes[name].get("zone") or "")

    ordered = sorted(names, key=rank)
    most = size_of(size, len(ordered))
    limits = [(frozenset(each["members"]), int(each["max_unavailable"])) for each in rolling.values()]
    found: list[list[str]] = []
    for name in ordered:
        batch = found[-1] if found else []
        fits = len(batch) < most and all(rank(name) == rank(other) for other in batch[:1])
        if fits and batch and all(name not in members or len(members.intersection(batch)) < limit for members, limit in limits):
            batch.append(name)
        else:
            found.append([name])
    return found


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Name -> filter."""
        return {"batches": batches}
