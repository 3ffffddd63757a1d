# SPDX-License-Identifier: Apache-2.0
"""What a site no longer wants leaves its nodes and the API without a trace, and comes back when it is wanted again."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from .support.cluster import Cluster
from .support.nodes import Node
from .support.plan import Plan
from .support.site import site_yml
from .support.waiting import at_once, until

pytestmark = [pytest.mark.disruptive, pytest.mark.long, pytest.mark.needs("victorialogs", "log_collector", "sample")]

LEAVING = ["victorialogs", "log_collector", "sample"]

# What a node knows of components: paths and units of their trees, their users, and what they left of their names where files are.
TRACES = r"""
import glob, json, os, pwd, subprocess, sys
trees, programs, users, ports = json.loads(sys.argv[1])
paths, units = [], []
for tree in trees.values():
    paths += [path for path in tree["paths"] if os.path.lexists(path)]
    units += tree["units"]
shown = subprocess.run(["systemctl", "list-units", "--all", "--plain", "--no-legend", *units], capture_output=True, text=True).stdout.split("\n")
known = {user.pw_name for user in pwd.getpwall()}
listening = subprocess.run(["ss", "-Hltn"], capture_output=True, text=True).stdout
print(json.dumps({
    "paths": paths,
    "units": [line.split()[0] for line in shown if line.strip()] if units else [],
    "programs": [name for name in programs if os.path.exists("/opt/ashlar/" + name)],
    "keys": [name for name in programs if os.path.exists("/etc/ashlar/pki/" + name)],
    "users": [name for name in users if name in known],
    "ports": [port for port in ports if ":%s " % port in listening],
    "firewall": [port for port in ports if str(port) in open("/etc/ashlar/firewall.nft").read().replace(",", " ").split()],
}))
"""


@pytest.fixture
def without(plan: Plan) -> Iterator[Path]:
    """The site file without these components; the site has them again afterwards."""
    [file] = Path(plan.shared["site_directory"]).glob("*stack.yml")
    text = file.read_text()
    content = yaml.safe_load(text)
    content["slots"] = {**content.get("slots", {}), "logging": []}
    content["extras"] = [name for name in content.get("extras", []) if name not in LEAVING]
    file.write_text(yaml.safe_dump(content))
    try:
        yield file
    finally:
        file.write_text(text)
        site_yml(plan)


def trees_of(node: Node) -> dict[str, Any]:
    """What a node remembers of their trees."""
    files = node.run("ls /var/lib/ashlar/trees").split()
    return {name: json.loads(node.run(f"cat /var/lib/ashlar/trees/{name}.json")) for name in LEAVING if f"{name}.json" in files}


def test_a_component_that_is_no_longer_wanted_leaves_nothing_behind(without: Path, plan: Plan, every: list[Node], cluster: Cluster) -> None:
    trees = dict(zip((node.name for node in every), at_once(trees_of, every)))
    ports = {node.name: [port["port"] for port in node.machine.ports if port["component"] in LEAVING] for node in every}
    assert all(trees.values()) and any(ports.values()), "there is something to take away"
    users = ["victorialogs", "log-collector"]

    def traces(node: Node) -> dict[str, list[Any]]:
        return dict(node.python(TRACES, trees[node.name], LEAVING, users, ports[node.name]))

    assert all(before["paths"] and before["units"] and before["users"] for before in at_once(traces, every))
    assert "log-collector.service" in site_yml(plan, "--check"), "check mode says what would leave"
    assert all(before["paths"] for before in at_once(traces, every)), "check mode takes nothing away"

    site_yml(plan)
    for node, left in zip(every, at_once(traces, every)):
        assert not any(left.values()), f"{node.name} still has {left}"
        kept = node.run("ls /var/lib/ashlar/retired 2>/dev/null || true")
        assert ("victorialogs-" in kept) == (node.name in plan.on("victorialogs")), "data was put aside"
        assert not kept or node.run("stat -c '%a %U' /var/lib/ashlar/retired").split() == ["700", "root"], "for root alone"
    until("the namespace is gone", lambda: cluster.ask(plan.on("kubernetes_control")[0], "GET", "/api/v1/namespaces/sample")[0] == 404)
    assert set(re.findall(r"changed=(\d+)", site_yml(plan))) == {"0"}, "what has left does not leave again"
