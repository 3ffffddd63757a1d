# SPDX-License-Identifier: Apache-2.0
"""The firewall that a node gets from the ports of its components."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template

ROLE = Path(__file__).parents[3] / "roles" / "firewall"
TEMPLATE = ROLE / "templates/etc/ashlar/firewall.nft.j2"
PORTS = [
    {"component": "etcd", "name": "client", "port": 2379, "protocol": "tcp", "from": ["etcd", "kubernetes_control"]},
    {"component": "etcd", "name": "peer", "port": 2380, "protocol": "tcp", "from": ["etcd"]},
    {"component": "flannel", "name": "vxlan", "port": 8472, "protocol": "udp", "from": ["nodes"]},
    {"component": "kubernetes_control", "name": "api", "port": 6443, "protocol": "tcp", "from": ["nodes", "pods", "admin"]},
    {"component": "ingress", "name": "https", "port": 443, "protocol": "tcp", "from": ["any"]},
    {"component": "serf", "name": "gossip", "port": "7946-7950", "protocol": "udp", "from": ["absent_component", "nodes"]},
]


def rules(nodes: int = 3, **changed: Any) -> str:
    """The rules of the first node of a site whose nodes are all members of etcd and of the control plane."""
    addresses = [f"10.0.0.{number}" for number in range(11, 11 + nodes)]
    variables = {
        **yaml.safe_load((ROLE / "defaults/main.yml").read_text()),
        "ansible_facts": {"node_ssh_port": 22},
        "firewall_ssh_ports": [22],
        "node_ports": PORTS,
        "site_ports": PORTS,
        "site_nodes": {f"n{number}": {"address": address} for number, address in enumerate(addresses)},
        "site_networks": {"pods": "10.244.0.0/16", "services": "10.96.0.0/16", "admin": ["192.0.2.0/24", "192.0.2.128/25"]},
        "network_kinds": {"containers": ["pods"], "virtual": ["services"]},
        "component_addresses": {"etcd": addresses[:3], "kubernetes_control": addresses[:3], "flannel": addresses},
        "contributions": {"firewall": {"incoming": {}}},
        **changed,
    }
    templar = Templar(loader=DataLoader(), variables=variables)
    rendered = templar.template(trust_as_template(TEMPLATE.read_text()), escape_backslashes=False)
    assert isinstance(rendered, str)
    return rendered


def members(text: str, name: str) -> set[str]:
    found = re.search(rf"set {name} \{{[^}}]*?elements = \{{ ([^}}]*) \}}", text)
    return set(found[1].split(", ")) if found else set()


def chain(text: str, name: str) -> list[str]:
    found = re.search(rf"\tchain {name} \{{\n(.*?)\n\t\}}", text, re.DOTALL)
    assert found
    return [line.strip() for line in found[1].splitlines() if line.strip()]


def test_every_port_of_a_manifest_is_open_to_its_sources_and_nothing_else_is() -> None:
    assert chain(rules(), "allowed") == [
        'ip saddr @admin tcp dport 22 accept comment "host ssh, from admin"',
        'ip saddr @nodes tcp dport 22 accept comment "host ssh, from nodes"',
        'ip saddr @of_etcd tcp dport 2379 accept comment "etcd client, from etcd"',
        'ip saddr @of_kubernetes_control tcp dport 2379 accept comment "etcd client, from kubernetes_control"',
        'ip saddr @of_etcd tcp dport 2380 accept comment "etcd peer, from etcd"',
        'ip saddr @nodes udp dport 8472 accept comment "flannel vxlan, from nodes"',
        'ip saddr @nodes tcp dport 6443 accept comment "kubernetes_control api, from nodes"',
        'ip saddr @pods tcp dport 6443 accept comment "kubernetes_control api, from pods"',
        'ip saddr @admin tcp dport 6443 accept comment "kubernetes_control api, from admin"',
        'tcp dport 443 accept comment "ingress https, from any"',
        'ip saddr @nodes udp dport 7946-7950 accept comment "serf gossip, from nodes"',
    ]


def test_sets_hold_who_the_sources_are() -> None:
    text = rules()
    nodes = {"10.0.0.11", "10.0.0.12", "10.0.0.13"}
    assert members(text, "nodes") == nodes
    assert members(text, "pods") == nodes | {"10.244.0.0/16"}
    assert members(text, "containers") == {"10.244.0.0/16"}
    assert members(text, "admin") == {"192.0.2.0/24", "192.0.2.128/25"}
    assert members(text, "of_etcd") == nodes
    assert "absent_component" not in text


def test_a_new_node_changes_members_of_sets_and_no_rule() -> None:
    without_members = [re.sub(r"elements = .*", "", rules(nodes)) for nodes in (3, 4)]
    assert without_members[0] == without_members[1]
    assert members(rules(4), "nodes") - members(rules(3), "nodes") == {"10.0.0.14"}
    assert members(rules(4), "of_etcd") == members(rules(3), "of_etcd")


def test_what_is_not_named_is_dropped() -> None:
    text = rules(node_ports=[])
    assert "type filter hook input priority filter; policy drop;" in chain(text, "incoming")
    assert "type filter hook forward priority filter; policy drop;" in chain(text, "passing")
    assert len(chain(text, "allowed")) == 2


def test_ports_of_the_host_are_open_also_when_a_container_answers() -> None:
    text = rules(firewall_extra_ports=[{"name": "web", "port": "80", "protocol": "tcp", "from": ["any"]}])
    assert 'tcp dport 80 accept comment "host web, from any"' in chain(text, "allowed")
    assert 'meta l4proto tcp ct original proto-dst 80 accept comment "host web, from any"' in chain(text, "published")


def test_node_ports_are_open_to_whom_the_site_says() -> None:
    port = {"component": "kubernetes_node", "name": "node-ports", "port": "30000-30999", "protocol": "sctp", "from": ["admin"], "published": True}
    text = rules(node_ports=[*PORTS, port])
    assert chain(text, "published") == [
        'ip saddr @admin meta l4proto sctp ct original proto-dst 30000-30999 accept comment "kubernetes_node node-ports, from admin"'
    ]
    assert chain(text, "allowed") == chain(rules(), "allowed")


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("nft"), reason="asks the kernel through nft, as root")
@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"site_networks": {"pods": "10.244.0.0/16", "services": "10.96.0.0/16", "admin": ["0.0.0.0/0", "192.0.2.0/24"]}},
        {"site_networks": {"pods": "10.244.0.0/16", "services": "10.96.0.0/16", "admin": []}},
        {"site_networks": {"admin": []}, "network_kinds": {"containers": [], "virtual": []}},
        {"firewall_log_drops": True, "node_ports": []},
        {"firewall_extra_ports": [{"name": "web", "port": "80", "protocol": "tcp", "from": ["any", "etcd"]}]},
    ],
)
def test_nft_accepts_the_rules(changed: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "firewall.nft"
    path.write_text(rules(**changed))
    checked = subprocess.run(["nft", "--check", "--file", str(path)], capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stderr) == (0, "")


def test_a_pod_does_not_get_its_nodes_rights_on_other_nodes() -> None:
    assert "ip saddr @containers ip daddr @nodes jump to_nodes" in chain(rules(), "passing")
    ports = [{"component": "api", "name": "api", "port": 6443, "protocol": "tcp", "from": ["nodes", "pods"]}]
    ports += [{"component": "etcd", "name": "client", "port": 2379, "protocol": "tcp", "from": ["etcd", "nodes"]}]
    from_pods = chain(rules(site_ports=ports), "to_nodes")
    assert [line.split(" comment")[0] for line in from_pods] == ["icmp type echo-request accept", "tcp dport 6443 accept", "drop"]


def test_components_let_in_what_has_no_port_on_their_own_nodes() -> None:
    manifest = yaml.safe_load((ROLE.parent / "keepalived/meta/component.yml").read_text())
    incoming = {name: trust_as_template(rule) for name, rule in manifest["contributes"]["firewall"]["incoming"].items()}
    site = {"contributions": {"firewall": {"incoming": incoming}}, "component_addresses": {"keepalived": ["10.0.0.12", "10.0.0.11"]}}
    rule = 'ip protocol vrrp ip saddr { 10.0.0.11, 10.0.0.12 } accept comment "keepalived vrrp"'
    assert rule in chain(rules(node_components=["keepalived"], **site), "incoming")
    assert "vrrp" not in rules(node_components=["etcd"], **site)
