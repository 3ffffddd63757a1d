# SPDX-License-Identifier: Apache-2.0
"""The filter that makes one report of what the nodes of a site said of their health."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

DOCUMENTATION = """
name: health_report
short_description: Makes a report of the results of M(ashlar.stack.ready) on all nodes
version_added: 1.0.0
description:
  - A node is C(healthy), C(unhealthy), C(unreachable), or C(unknown) where it was not asked.
options:
  _input:
    description: Node to the result of M(ashlar.stack.ready); a node that was not asked has none.
    type: dict
    required: true
author: [The Ashlar authors]
"""

EXAMPLES = """
report: "{{ {'node1': hostvars.node1.health} | ashlar.stack.health_report }}"
"""

RETURN = """
_value:
  description:
    - C(healthy), whether all nodes are, and C(nodes), node to C(state), C(checks), how many it has, and C(failed), those that fail, each with
      C(component), C(name), C(seen), what came instead, C(cause) if it is known, and C(remedy).
  type: dict
"""

KEYS = ("component", "name", "seen", "cause", "remedy")


def health_report(results: Mapping[str, Any]) -> dict[str, Any]:
    """See C(DOCUMENTATION)."""
    nodes = {name: _node(result or {}) for name, result in results.items()}
    return {"healthy": all(node["state"] == "healthy" for node in nodes.values()), "nodes": nodes}


def _node(result: Mapping[str, Any]) -> dict[str, Any]:
    if result.get("unreachable"):
        return {"state": "unreachable", "checks": 0, "failed": [], "reason": str(result.get("msg", ""))}
    if "checks" not in result:
        return {"state": "unknown", "checks": 0, "failed": []}
    failed = [{key: check[key] for key in KEYS if check.get(key)} for check in result.get("not_ready", ())]
    return {"state": "unhealthy" if failed else "healthy", "checks": len(result["checks"]), "failed": failed}


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Name -> filter."""
        return {"health_report": health_report}
