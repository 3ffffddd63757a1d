# SPDX-License-Identifier: Apache-2.0
"""Control nodes come, go and are replaced while a site is used: nobody notices, and nothing restarts on the others."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from .support.clients import Clients
from .support.cluster import Cluster
from .support.figures import Tell
from .support.key_value import Etcd, KeyValueStore
from .support.nodes import Node, connect
from .support.plan import Plan, read
from .support.power import Power, containers
from .support.site import changes, killed, moment, playbook, run, site_yml, words
from .support.waiting import at_once, until

pytestmark = [pytest.mark.disruptive, pytest.mark.destructive, pytest.mark.needs("etcd"), pytest.mark.scenario("etcd", "life")]

THIS_START = "journalctl --no-pager _SYSTEMD_INVOCATION_ID=$(systemctl show --property=InvocationID --value etcd.service)"
# Component -> its services that run -> their processes.
PROCESSES = """
import glob, json, os, subprocess
found = {}
for path in glob.glob("/var/lib/ashlar/trees/*.json"):
    units = [unit for unit in json.load(open(path))["units"] if unit.endswith(".service")]
    if units:
        shown = subprocess.run(["systemctl", "show", "--property=Id,Type,MainPID", *units], capture_output=True, text=True, check=True).stdout
        listed = [dict(line.split("=", 1) for line in one.splitlines()) for one in shown.split("\\n\\n") if one]
        running = {unit["Id"]: unit["MainPID"] for unit in listed if unit["Type"] != "oneshot" and unit["MainPID"] != "0"}
        found[os.path.basename(path)[:-5]] = running
print(json.dumps(found))
"""
PEERS_BY_ADDRESS = ("observability", "management")
"""Layers whose components are started with the addresses of others, and so again when one changes. They serve nobody's applications."""


@pytest.fixture
def etcd(key_value: KeyValueStore) -> Etcd:
    assert isinstance(key_value, Etcd)
    if len(key_value.members) != 3:
        pytest.skip("these tests are about three members")
    return key_value


@dataclass(frozen=True)
class Spare:
    """A machine of the inventory that is no node, and the file that says so."""

    file: Path
    name: str

    @property
    def address(self) -> str:
        return str(yaml.safe_load(self.file.read_text())["all"]["hosts"][self.name]["node_address"])

    def becomes(self, node: str) -> None:
        """From now on this machine is the node of that name."""
        content = yaml.safe_load(self.file.read_text())
        hosts = content["all"]["hosts"]
        spare = hosts.pop(self.name)
        hosts[node] |= {key: spare[key] for key in ("ansible_host", "node_address")}
        self.file.write_text(yaml.safe_dump(content, sort_keys=False))


@pytest.fixture
def spare(plan: Plan) -> Iterator[Spare]:
    file = Path(plan.shared["site_directory"]) / "10-nodes.yml"
    text = file.read_text() if file.exists() else ""
    hosts: dict[str, Any] = yaml.safe_load(text)["all"]["hosts"] if text else {}
    name = next((name for name, host in hosts.items() if host.get("node_classes") == []), None)
    if name is None:
        pytest.skip("the inventory has no machine that is no node")
    yield Spare(file, name)
    file.write_text(text)


Quietly = Callable[[Sequence[Node], Callable[[], Any]], None]


@pytest.fixture
def quietly(plan: Plan, nodes: dict[str, Node], clients: Callable[[Sequence[str]], Clients], tell: Tell) -> Quietly:
    """Does some work on nodes, while which nobody who uses the others notices anything, and nothing that applications depend on restarts on these."""

    def processes(node: Node) -> dict[str, str]:
        found = node.python(PROCESSES).items()
        return {unit: process for name, units in found if plan.shared["component_layers"][name] not in PEERS_BY_ADDRESS for unit, process in units.items()}

    def does(changed: Sequence[Node], work: Callable[[], Any]) -> None:
        names = {node.name for node in changed}
        others = [node for name, node in nodes.items() if name not in names]
        before = at_once(processes, others)
        using = clients(sorted(names))
        using.during(work)
        for node, old, new in zip(others, before, at_once(processes, others)):
            restarted = [unit for unit in old.keys() & new.keys() if old[unit] != new[unit]]
            assert old and not restarted, f"{node.name}: {restarted} were restarted"
        using.unnoticed(tell)

    return does


def agree(etcd: Etcd, plan: Plan) -> None:
    """All members that the plan has are voters, and each of them says so."""
    for node in etcd.members:
        until(f"{node.name} counts the members of the plan", lambda node=node: etcd.voters(node) == set(plan.on("etcd")))


def settled(plan: Plan) -> None:
    assert changes(site_yml(plan)) == {"0"}


def test_a_member_whose_data_is_gone_is_recognised_and_joins_again(etcd: Etcd, plan: Plan, key: str, quietly: Quietly) -> None:
    first, *_, member = etcd.members
    member.run("systemctl stop etcd.service; rm -rf /var/lib/etcd/data; systemctl start --no-block etcd.service")
    code, said = playbook(plan, "site")
    assert code == 2 and f"playbooks/replace_node.yml -e node={member.name}" in words(said), said[-3000:]
    code, said = playbook(plan, "replace_node", "-e", f"node={member.name}")
    assert code == 2 and "-e wipe=true" in said, "what is on it is removed only when asked for"
    etcd.put(first, key, "meanwhile")
    quietly([member], lambda: run(plan, "replace_node", "-e", f"node={member.name}", "-e", "wipe=true"))
    agree(etcd, plan)
    assert etcd.get(member, key, own=True) == ["meanwhile"], "it has what was written while it was gone"
    settled(plan)


def test_the_first_member_is_replaced_by_a_machine_with_another_address(
    etcd: Etcd, plan: Plan, key: str, power: Power, spare: Spare, quietly: Quietly, request: pytest.FixtureRequest
) -> None:
    first, *others = etcd.members
    text, address = spare.file.read_text(), spare.address
    code, said = playbook(plan, "replace_node", "-e", f"node={first.name}")
    assert code == 2 and "still carries the platform" in words(said)
    power.off(first)
    code, said = playbook(plan, "replace_node", "-e", f"node={first.name}")
    assert code == 2 and "does not answer" in words(said), "there has to be a machine to lay it on"

    if plan.has("kubernetes_node"):
        # Otherwise it would be given pods that can't start there.
        cluster: Cluster = request.getfixturevalue("cluster")
        until(f"{first.name} is known to be off", lambda: first.name not in cluster.ready_nodes())
    spare.becomes(first.name)
    etcd.put(others[0], key, "meanwhile")
    quietly([first], lambda: run(plan, "replace_node", "-e", f"node={first.name}"))
    moved = read(str(plan.inventory))
    # Under a name of its own, as connections are kept by name.
    new = connect(replace(moved.machines[first.name], name=spare.name))
    assert new.address == address != first.address
    agree(replace(etcd, members=[new, *others]), plan)
    assert etcd.get(new, key, own=True) == ["meanwhile"], "it has what was written while it was gone"
    settled(plan)

    # The old machine comes back, and nobody lets it in.
    power.on(first)
    until("the old member has tried to reach the others", lambda: "failed to publish local member" in first.run(THIS_START))
    assert first.run("systemctl is-active etcd.service || true").strip() == "activating"
    agree(replace(etcd, members=[new, *others]), plan)

    subprocess.run(["podman", "kill", containers()[address]], check=True, capture_output=True, timeout=60)
    new.disconnect()
    spare.file.write_text(text)
    quietly([first], lambda: run(plan, "replace_node", "-e", f"node={first.name}", "-e", "wipe=true"))
    agree(etcd, plan)
    settled(plan)


@pytest.mark.scenario("etcd")
def test_a_replacement_that_is_killed_goes_on(etcd: Etcd, plan: Plan, quietly: Quietly) -> None:
    member = etcd.members[-1]
    arguments = ["replace_node", "-e", f"node={member.name}", "-e", "wipe=true"]

    def replaced() -> None:
        with killed(plan, moment(2, 25), *arguments):
            run(plan, *arguments)

    quietly([member], replaced)
    agree(etcd, plan)
    settled(plan)


def test_three_members_become_one_and_three_again(etcd: Etcd, plan: Plan, quietly: Quietly) -> None:
    first, *others = etcd.members
    names = ",".join(node.name for node in others)
    code, said = playbook(plan, "remove_nodes", "-e", f"nodes={others[0].name}")
    assert code == 2 and "an even number" in words(said)
    code, said = playbook(plan, "remove_nodes", "-e", f"nodes={names}", "-e", f"gone={names}")
    assert code == 2 and "no majority is left" in words(said)
    etcd.make_leader(others[0])
    quietly(others, lambda: run(plan, "remove_nodes", "-e", f"nodes={names}"))
    assert etcd.voters(first) == {first.name}
    settled(plan)
    quietly(others, lambda: run(plan, "add_nodes", "-e", f"nodes={names}"))
    agree(etcd, plan)
    settled(plan)
    code, said = playbook(plan, "add_nodes")
    assert code == 2 and "in the site already" in words(said)
