# SPDX-License-Identifier: Apache-2.0
"""What a site no longer wants leaves its nodes and the API without a trace, and comes back when it is wanted again."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator
from typing import Any

import pytest
import yaml

from .support.cluster import Cluster
from .support.nodes import Node
from .support.plan import Plan
from .support.site import changes, site_file, site_yml
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
def change(plan: Plan) -> Iterator[Callable[..., None]]:
    """Writes other slots and extras into the site file; the site has its own again afterwards."""
    file = site_file(plan)
    text = file.read_text()

    def change(slots: dict[str, Any], without: Collection[str]) -> None:
        content = yaml.safe_load(text)
        content["slots"] = {**content.get("slots", {}), **slots}
        content["extras"] = [name for name in content.get("extras", []) if name not in without]
        content["options"] = {name: values for name, values in content.get("options", {}).items() if name not in without}
        file.write_text(yaml.safe_dump(content))

    try:
        yield change
    finally:
        file.write_text(text)
        site_yml(plan)


def trees_of(node: Node, components: Collection[str]) -> dict[str, Any]:
    """What a node remembers of their trees."""
    files = node.run("ls /var/lib/ashlar/trees").split()
    return {name: json.loads(node.run(f"cat /var/lib/ashlar/trees/{name}.json")) for name in components if f"{name}.json" in files}


def test_a_component_that_is_no_longer_wanted_leaves_nothing_behind(change: Callable[..., None], plan: Plan, every: list[Node], cluster: Cluster) -> None:
    change({"logging": []}, LEAVING)
    trees = dict(zip((node.name for node in every), at_once(lambda node: trees_of(node, LEAVING), every)))
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
    assert changes(site_yml(plan)) == {"0"}, "what has left does not leave again"


# What the site keeps besides its base, by slot.
KEPT = {
    **dict.fromkeys(("runtime", "scheduler", "orchestrator", "overlay"), ()),
    "key_value": ("consul",),
    "discovery": ("consul",),
    "load_balancer": ("haproxy",),
    "monitoring": ("metrics_gateway", "node_exporter", "prometheus", "alertmanager"),
}
# Words by which what leaves would be found where files, units, processes, interfaces, tables and users are.
WORDS = "kube|cni|containerd|etcd|flannel|coredns|crictl|runc|api-balancer|nri"
STAYING = r"""
find / -xdev \( -path /proc -o -path /sys -o -path /tmp -o -path /usr/share -o -path /usr/bin -o -path /usr/lib -o -path /var/lib/dpkg \
  -o -path /var/log/journal -o -path /var/lib/ashlar/retired -o -path /var/log/ashlar-retired \) -prune -o -print | grep -E "/[^/]*\b($words)[^/]*$"
systemctl list-units --all --plain --no-legend | grep -oE "^[^ ]*\b($words)[^ ]*"
nft list tables | grep -E "\b($words)"
ip -oneline link | grep -E "cni0|flannel|veth"
ps -eo comm= | grep -E "^($words)|^pause"
getent passwd | grep -oE "^($words)[^:]*"
ss -Hltn | grep -oE ":(6443|2379|2380|10250|10257|10259)\b"
true
"""


@pytest.mark.needs("kubernetes_control", "etcd", "consul", "haproxy")
def test_an_orchestrator_leaves_with_its_store_its_runtime_and_its_network(change: Callable[..., None], plan: Plan, every: list[Node]) -> None:
    kept = {name for names in KEPT.values() for name in names}
    gone = [name for name, layer in plan.shared["component_layers"].items() if name not in kept and layer not in ("base", "management")]
    change({slot: [name for name in names if plan.has(name)] for slot, names in KEPT.items()}, [*gone, "sample"])

    def staying(node: Node) -> list[str]:
        return node.run(f"words='{WORDS}'\n{STAYING}").splitlines()

    assert all(len(found) > 50 for found in at_once(staying, every)), "there is something to take away"
    site_yml(plan, "-e", "retire=etcd,kubernetes_control")
    assert at_once(staying, every) == [[]] * len(every)
    assert changes(site_yml(plan)) == {"0"}, "what stays works, and nothing is left to do"
