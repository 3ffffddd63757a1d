# SPDX-License-Identifier: Apache-2.0
"""state/placement.yml: which node carries which component, so that an edit of the inventory moves nothing and what leaves is known."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml
from ansible_collections.ashlar.stack.plugins.plugin_utils.site.models import Memory, SiteError
from ansible_collections.ashlar.stack.plugins.plugin_utils.site.reading import read_yaml
from ansible_collections.ashlar.stack.plugins.plugin_utils.site.structure import check

PLACEMENT = Path("state") / "placement.yml"
"""Below the site's folder: ``{nodes: [node], components: {component: [node]}, founders: {component: [node]}, removed: [node]}``."""
EVERY = "all"
"""Instead of the names of all of ``nodes``, so that a site of 1,000 nodes has a line for a component and not 1,000."""
HEAD = """\
# Which node carries which component, written by site.yml, which takes away what leaves a node: see "Removing a component" in docs/operating.md.
# A component that runs on some nodes of its class stays where it is, wherever others stand in the inventory.
"""


def recall(root: Path, site_directory: Path) -> Memory:
    """What is remembered of a site; nothing before its first run.

    :param root: the collection's folder.
    :raises SiteError: the file can't be read or is not what a run leaves there.
    """
    file = site_directory / PLACEMENT
    if not file.exists():
        return Memory(str(file))
    content = read_yaml(file)
    if problems := check(root, "placement", content, str(file)):
        raise SiteError(problems)
    everybody = frozenset(content["nodes"])
    carriers = {name: everybody if nodes == EVERY else frozenset(nodes) for name, nodes in content["components"].items()}
    founders = {name: frozenset(nodes) for name, nodes in content.get("founders", {}).items()}
    return Memory(str(file), carriers, frozenset(content.get("removed", ())), founders)


def remember(
    memory: Memory,
    planned: Mapping[str, Collection[str]],
    nodes: Iterable[str],
    retired: Collection[str] = (),
    removed: Collection[str] = (),
    founders: Mapping[str, Collection[str]] = MappingProxyType({}),
    returned: Collection[str] = (),
) -> Memory:
    """What is to be remembered from now on: what was, and what is planned. Hosts that are no longer there are forgotten.

    :param planned: component or group -> names of its nodes. ``nodes``: of all hosts that are nodes, or were. ``retired``: those from which everything
        has gone that is not planned. ``removed``: those that are no nodes from now on. ``founders``: as the plan has them.
        ``returned``: removed ones that are nodes again.
    """
    there = frozenset(nodes)
    gone = (memory.removed - frozenset(returned) | frozenset(removed)) & there
    carriers = {}
    for name in {*memory.carriers, *planned}:
        wanted = frozenset(planned.get(name, ())) - gone
        if kept := (memory.carriers.get(name, frozenset()) - frozenset(retired) | wanted) & there:
            carriers[name] = kept
    first = {name: frozenset(names) & carriers[name] for name, names in founders.items() if name in carriers}
    return Memory(memory.file, carriers, gone, first)


def text_of(memory: Memory, nodes: Iterable[str]) -> str:
    """The file, in an order of its own: the inventory's may change without anything being moved."""
    everybody = frozenset(nodes)
    content: dict[str, Any] = {
        "nodes": sorted(everybody),
        "components": {name: EVERY if names == everybody else sorted(names) for name, names in sorted(memory.carriers.items())},
    }
    if memory.founders:
        content["founders"] = {name: sorted(names) for name, names in sorted(memory.founders.items())}
    if memory.removed:
        content["removed"] = sorted(memory.removed)
    return HEAD + yaml.safe_dump(content, default_flow_style=None, sort_keys=False, width=140, allow_unicode=True)
