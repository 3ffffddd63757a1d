# SPDX-License-Identifier: Apache-2.0
"""Nodes are taken out of service, changed and put back, and nobody who uses the site notices."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from .support import sample
from .support.clients import Clients
from .support.cluster import Cluster, Workload, random_name
from .support.figures import Tell
from .support.nodes import Node
from .support.plan import Plan
from .support.site import playbook, run, words
from .support.waiting import until

pytestmark = [pytest.mark.disruptive, pytest.mark.needs("kubernetes_node")]

BOOTED = "systemctl show --property=UserspaceTimestampMonotonic --value"
ANNOTATION = "ashlar.io/cordoned"


def assert_in_service(cluster: Cluster, node: str) -> None:
    found = cluster.get(f"/api/v1/nodes/{node}")
    assert not found["spec"].get("unschedulable") and ANNOTATION not in found["metadata"]["annotations"]


@pytest.mark.needs("sample", "haproxy", "key_value")
def test_a_node_is_rebooted_and_nobody_notices(
    plan: Plan, nodes: dict[str, Node], cluster: Cluster, clients: Callable[..., Clients], tell: Tell
) -> None:
    edges = plan.on("haproxy")
    names = [name for name in plan.on("kubernetes_node") if name not in edges]
    if not names:
        pytest.skip("every node is an edge, and a client has to be told to use another one")
    sample.placed_anew(cluster, plan)
    before = {name: nodes[name].run(BOOTED) for name in names}
    using = clients(names)
    using.during(lambda: run(plan, "maintain", "-e", f"nodes={','.join(names)}", "-e", "reboot=true"))
    for name in names:
        nodes[name].disconnect()
        assert nodes[name].run(BOOTED) != before[name], f"{name} was rebooted"
        assert_in_service(cluster, name)
    using.unnoticed(tell)


@pytest.fixture
def guarded(workload: Workload) -> Iterator[tuple[str, str]]:
    """A Deployment with a single pod that its budget does not allow to be away: the name of both, and the pod's node."""
    name = random_name("guarded")
    workload.start(name, 1)
    spec = {"minAvailable": 1, "selector": {"matchLabels": {"app": name}}}
    budget = {"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": name}, "spec": spec}
    workload.cluster.create(budget, workload.namespace)
    [instance] = workload.instances(name, 1)
    until("the budget knows its pod", lambda: workload.cluster.get(workload.path("PodDisruptionBudget", name))["status"].get("currentHealthy") == 1)
    yield name, instance.node
    workload.cluster.delete(workload.path("PodDisruptionBudget", name))
    workload.remove(name)


def test_a_budget_that_is_in_the_way_is_named_and_the_node_stays_in_service(
    guarded: tuple[str, str], plan: Plan, nodes: dict[str, Node], cluster: Cluster
) -> None:
    name, node = guarded
    before = nodes[node].run(BOOTED)
    code, said = playbook(plan, "maintain", "-e", f"nodes={node}", "--check")
    assert code == 0 and f"disruption budget {name} needs 1 healthy pods" in said, "check mode says so before"
    code, said = playbook(plan, "maintain", "-e", f"nodes={node}", "-e", "reboot=true", "-e", "kubernetes_node_drain_timeout_seconds=10")
    said = words(said)
    assert code == 2
    assert f"{node} was not drained within 10 s and is in service again" in said
    assert f"disruption budget {name} needs 1 healthy pods and has 1 currently" in said
    assert nodes[node].run(BOOTED) == before
    assert_in_service(cluster, node)


# A package of the distribution, in a version that is installed and a newer one in the node's only source.
PACKAGE = r"""
cd "$(mktemp -d)"
for version in 1 2; do
  mkdir -p build/DEBIAN
  printf 'Package: conformance-package\nVersion: %s\nArchitecture: all\nMaintainer: conformance\nDescription: test\n' $version >build/DEBIAN/control
  dpkg-deb --build build $version.deb
done
dpkg -i 1.deb
mkdir -p /var/tmp/conformance-apt
mv 2.deb /var/tmp/conformance-apt/
cd /var/tmp/conformance-apt
{ dpkg-deb -f 2.deb; printf 'Filename: ./2.deb\nSize: %s\nSHA256: %s\n' "$(stat -c %s 2.deb)" "$(sha256sum 2.deb | cut -d' ' -f1)"; } >Packages
mv /etc/apt/sources.list.d /etc/apt/sources.list.d.conformance
mkdir /etc/apt/sources.list.d
echo 'deb [trusted=yes] file:/var/tmp/conformance-apt ./' >/etc/apt/sources.list.d/conformance.list
"""
CLEARED = r"""
rm -rf /var/tmp/conformance-apt /etc/apt/sources.list.d
mv /etc/apt/sources.list.d.conformance /etc/apt/sources.list.d
dpkg --purge conformance-package
"""
VERSION = "dpkg-query --showformat='${Version}' --show conformance-package"


@pytest.fixture
def outdated(plan: Plan, nodes: dict[str, Node]) -> Iterator[Node]:
    """A node with a package of which there is a newer version."""
    node = nodes[plan.on("kubernetes_node")[-1]]
    node.run(PACKAGE)
    yield node
    node.run(CLEARED)


@pytest.mark.long
def test_packages_are_upgraded_and_the_node_is_rebooted_if_the_system_asks_for_it(outdated: Node, plan: Plan, cluster: Cluster) -> None:
    arguments = ("-e", f"nodes={outdated.name}", "-e", "packages=upgrade", "-e", "reboot=needed")
    before = outdated.run(BOOTED)
    assert "~ The distribution's packages are upgraded" in run(plan, "maintain", *arguments)
    assert (outdated.run(VERSION), outdated.run(BOOTED)) == ("2", before), "upgraded, and nothing asked for a reboot"
    outdated.run("touch /run/reboot-required")
    assert "~ The distribution's packages are upgraded" not in run(plan, "maintain", *arguments), "nothing is left to upgrade"
    outdated.disconnect()
    assert outdated.run(BOOTED) != before
    assert_in_service(cluster, outdated.name)

    outdated.run("mv /var/tmp/conformance-apt/Packages /var/tmp/conformance-apt/gone")
    code, said = playbook(plan, "maintain", *arguments)
    assert code == 2 and f"apt could not upgrade the packages of {outdated.name}, which is in service again: E: " in words(said), said
    assert_in_service(cluster, outdated.name)
