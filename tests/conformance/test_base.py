# SPDX-License-Identifier: Apache-2.0
"""What every node is, whatever its stack: healthy units, the versions of the plan, the settings that were laid down."""

from __future__ import annotations

import time

import pytest

from .support.nodes import Node, inactive, wanted
from .support.plan import Plan
from .support.waiting import at_once, until

# systemd's own scale, 0 (shut) to 10 (open). Most services stay below the first; these are root by what they do: they make containers,
# change the network of the host, or mount.
EXPOSURE = 6.0
PRIVILEGED = {
    "containerd.service": 9.8,
    "kubelet.service": 9.8,
    "kube-proxy.service": 9.0,
    "flannel.service": 9.0,
    "ashlar-images.service": 9.6,
    "ashlar-firewall.service": 9.0,
    "ceph-mount.service": 7.0,
}


def test_no_unit_has_failed(every: list[Node]) -> None:
    for node, failed in zip(every, at_once(lambda node: node.run("systemctl list-units --failed --no-legend --plain"), every), strict=True):
        assert failed == "", f"{node.name}: {failed}"


def test_every_unit_of_the_platform_is_active_and_starts_with_the_node(every: list[Node]) -> None:
    for node in every:
        assert wanted(node), f"{node.name}: Ashlar remembers no unit"
        assert inactive(node) == [], node.name


def test_no_unit_restarts_again_and_again(every: list[Node]) -> None:
    """A unit that crashes is active most of the time; its count of restarts tells."""

    def count(node: Node) -> str:
        services = [unit for unit in wanted(node) if unit.endswith(".service")]
        return node.run(f"systemctl show --property=Id,NRestarts {' '.join(services)}")

    before = at_once(count, every)
    time.sleep(5)
    assert at_once(count, every) == before


def test_every_health_check_of_the_plan_names_a_unit_that_is_there(every: list[Node]) -> None:
    for node in every:
        named = {check["unit"] for check in node.machine.variables["node_health"] if "unit" in check}
        assert named, f"no health check of {node.name} names a unit"
        active = dict(zip(named, node.run(f"systemctl is-active {' '.join(named)} || true").split(), strict=True))
        assert set(active.values()) <= {"active"}, (node.name, active)


def test_the_versions_of_the_plan_are_current(every: list[Node], plan: Plan) -> None:
    seen = 0
    for node in every:
        for artifact in node.machine.variables["node_artifacts"]:
            if artifact == "node_packages" or not node.host.file(f"/opt/ashlar/{artifact}").exists:
                continue
            link = node.run(f"readlink -f /opt/ashlar/{artifact}/current").strip()
            assert link == f"/opt/ashlar/{artifact}/{plan.versions[artifact]}", node.name
            seen += 1
    assert seen, "no node has an artifact"


def test_services_can_read_and_run_what_is_installed(every: list[Node]) -> None:
    """Whatever umask the host gives its logins."""
    for node in every:
        closed = node.run("find /opt/ashlar -path /opt/ashlar/.store -prune -o -type d ! -perm -055 -print -o -type f ! -perm -044 -print")
        assert closed == "", f"{node.name}: {closed}"


def test_what_is_installed_can_be_changed_by_root_only(every: list[Node]) -> None:
    def writable(node: Node) -> str:
        return node.run(
            "find /opt/ashlar /etc/ashlar /etc/kubernetes /etc/etcd /etc/systemd/system /usr/local/libexec/ashlar ! -type l -perm /022 2>/dev/null || true"
        )

    for node, found in zip(every, at_once(writable, every), strict=True):
        assert found == "", f"{node.name}: writable by others than root:\n{found}"


def test_services_are_hardened(every: list[Node]) -> None:
    node = every[0]
    services = [unit for unit in wanted(node) if unit.endswith(".service") and not unit.startswith("systemd-")]
    assert services, f"{node.name} has no service of the platform"

    def exposure(unit: str) -> float:
        out = node.run(f"systemd-analyze security --no-pager {unit} | tail -1")
        return float(out.split(":")[1].split()[0])

    found = dict(zip(services, at_once(exposure, services), strict=True))
    print("exposure:", ", ".join(f"{unit} {value}" for unit, value in sorted(found.items(), key=lambda item: item[1])))
    over = {unit: value for unit, value in found.items() if value > PRIVILEGED.get(unit, EXPOSURE)}
    assert not over, f"`systemd-analyze security <unit>` on {node.name} says what is open: {over}"


def test_nodes_agree_on_the_time(every: list[Node]) -> None:
    def times() -> list[float]:
        return at_once(lambda node: float(node.run("date +%s.%N")), every)

    until("clocks are within two seconds", lambda: max(found := times()) - min(found) < 2)


@pytest.mark.needs("orchestrator")
def test_packets_are_forwarded(every: list[Node]) -> None:
    for node in every:
        assert node.run("sysctl -n net.ipv4.ip_forward").strip() == "1", node.name
