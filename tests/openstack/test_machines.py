# SPDX-License-Identifier: Apache-2.0
"""terraform/openstack and both inventory plugins against a real control plane. The tests go through a site's life, in this order."""

from __future__ import annotations

import copy
import json
from typing import Any

from .conftest import VARIABLES
from .support.api import LISTS, Api
from .support.site import Site

NODES = {"openstack-control-1", "openstack-control-2", "openstack-control-3", "openstack-edge-1", "openstack-worker-1"}
SAID = ("ansible_user", "node_address", "node_classes", "node_id", "node_labels", "node_volumes", "node_zone")
CLOUD = {"plugin": "ashlar.stack.cloud", "provider": "openstack", "filters": {"ashlar_site": "openstack"}}


def test_every_node_runs_in_its_zone_and_says_what_it_is_for(site: Site, api: Api, nodes: dict[str, Any]) -> None:
    servers = {server["name"]: server for server in api.list("servers")}
    assert set(nodes) == NODES and set(servers) == NODES | {"openstack-bastion"}
    assert {server["status"] for server in servers.values()} == {"ACTIVE"}
    zones = {name: server["OS-EXT-AZ:availability_zone"] for name, server in servers.items()}
    assert [zones[f"openstack-control-{number}"] for number in (1, 2, 3)] == ["zone-a", "zone-b", "zone-a"]
    assert {name: node["zone"] for name, node in nodes.items()} == {name: zones[name] for name in NODES}
    assert servers["openstack-worker-1"]["metadata"] == {
        "ashlar_site": "openstack",
        "ashlar_pool": "worker",
        "ashlar_classes": "worker_storage",
        "ashlar_user": "ashlar",
        "ashlar_labels": "disk=ssd",
    }
    assert all(server["config_drive"] for server in servers.values())
    [group] = api.list("server_groups")
    assert group["policies"] == ["soft-anti-affinity"]
    assert set(group["members"]) == {servers[f"openstack-control-{number}"]["id"] for number in (1, 2, 3)}


def test_outside_addresses_are_the_bastions_and_of_public_pools(api: Api, nodes: dict[str, Any]) -> None:
    ports = {port["id"]: port for port in api.list("ports")}
    outside = {address["floating_ip_address"]: ports[address["port_id"]]["name"] for address in api.list("floatingips")}
    assert outside == {nodes["openstack-edge-1"]["public_ip"]: "openstack-edge-1", nodes["openstack-worker-1"]["bastion"]["host"]: "openstack-bastion"}
    assert nodes["openstack-worker-1"]["public_ip"] is None


def test_what_comes_in_is_what_manifests_open(api: Api) -> None:
    groups = {group["name"].removeprefix("openstack-"): group for group in api.list("security_groups")}
    assert set(groups) == {"nodes", "control", "worker", "edge", "storage", "bastion"}
    names = {group["id"]: name for name, group in groups.items()}
    opened = {
        name: {
            (rule["protocol"], rule["port_range_min"], rule["port_range_max"], names.get(rule["remote_group_id"]) or rule["remote_ip_prefix"])
            for rule in group["security_group_rules"]
            if rule["direction"] == "ingress"
        }
        for name, group in groups.items()
    }
    assert opened["nodes"] == set()
    assert opened["bastion"] == {("tcp", 22, 22, "198.51.100.0/24"), ("tcp", 22, 22, "10.20.0.0/20")}
    # etcd is asked by its own members and the API servers, which run on the same class; nobody else reaches it.
    assert {rule for rule in opened["control"] if rule[1] in (2379, 2380)} == {("tcp", 2379, 2379, "control"), ("tcp", 2380, 2380, "control")}
    assert all(("tcp", 22, 22, "bastion") in opened[name] for name in ("control", "worker", "edge", "storage"))
    # To anyone: what stands at the edge, and on every node the server that hands artifacts on to others.
    anyone = {name: {rule[1] for rule in rules if rule[3] in (None, "0.0.0.0/0")} for name, rules in opened.items()}
    assert anyone == {"nodes": set(), "bastion": set(), "control": {9443}, "worker": {9443}, "storage": {9443}, "edge": {80, 443, 9443}}
    assert sum(1 for group in groups.values() for rule in group["security_group_rules"] if rule["direction"] == "egress") == 2


def test_applied_again_nothing_changes(site: Site) -> None:
    assert site.plan() == {}


def test_the_inventory_lists_the_nodes(site: Site, api: Api, nodes: dict[str, Any]) -> None:
    hosts = site.hosts("nodes.terraform.yml", {"plugin": "ashlar.stack.terraform", "sources": [{"root": str(site.root)}]})
    addresses = {port["name"]: port["fixed_ips"][0]["ip_address"] for port in api.list("ports") if port["name"] in NODES}
    assert {name: host["node_address"] for name, host in hosts.items()} == addresses
    worker = hosts["openstack-worker-1"]
    [volume] = api.list("volumes")
    assert worker["node_classes"] == ["worker", "storage"]
    assert worker["node_volumes"] == [{"name": "data", "size_gib": 10, "device": f"/dev/disk/by-id/virtio-{volume['id'][:20]}"}]
    assert volume["attachments"][0]["server_id"] == worker["node_id"]
    assert nodes["openstack-worker-1"]["bastion"]["host"] in worker["ansible_ssh_common_args"]


def test_the_cloud_itself_lists_the_same_nodes(site: Site) -> None:
    by_state = site.hosts("nodes.terraform.yml", {"plugin": "ashlar.stack.terraform", "sources": [{"root": str(site.root)}]})
    by_cloud = site.hosts("nodes.cloud.yml", CLOUD)
    assert set(by_cloud) == NODES
    # What a node lacks, an empty list or nothing, is the same.
    told = {name: {key: host.get(key) or None for key in SAID} for name, host in by_cloud.items()}
    assert told == {name: {key: host.get(key) or None for key in SAID} for name, host in by_state.items()}


def test_the_site_is_planned_from_these_nodes(site: Site) -> None:
    plan = site.inventory_of(site.inventory)
    assert set(plan["kubernetes_control"]["hosts"]) == {name for name in NODES if "control" in name}
    assert set(plan["kubernetes_node"]["hosts"]) >= {"openstack-worker-1"}
    site.ansible("ansible-playbook", "-i", str(site.inventory), "playbooks/validate.yml")


def test_plain_servers_of_a_state_are_adopted(site: Site, nodes: dict[str, Any]) -> None:
    state = json.loads((site.root / "terraform.tfstate").read_text())
    path = site.folder / "adopted.tfstate"
    path.write_text(json.dumps({**state, "outputs": {}}))
    rules = [{"name": "openstack-bastion", "classes": []}]
    hosts = site.hosts("adopted.terraform.yml", {"plugin": "ashlar.stack.terraform", "sources": [{"state": str(path)}], "user": "ashlar", "classes": rules})
    by_state = site.hosts("nodes.terraform.yml", {"plugin": "ashlar.stack.terraform", "sources": [{"root": str(site.root)}]})
    assert set(hosts) == NODES
    for key in ("node_address", "node_classes", "node_zone", "node_id"):
        assert {name: host[key] for name, host in hosts.items()} == {name: host[key] for name, host in by_state.items()}
    # The bastion is none of the state's words about a node, so the one that has a floating address is reached by it.
    assert hosts["openstack-edge-1"]["ansible_host"] == nodes["openstack-edge-1"]["public_ip"]


def test_another_count_touches_only_the_node_that_comes_or_goes(site: Site, api: Api) -> None:
    before = {server["id"] for server in api.list("servers")}
    volumes = {volume["id"] for volume in api.list("volumes")}
    more = copy.deepcopy(VARIABLES)
    more["pools"]["worker"]["count"] = 2  # type: ignore[index]
    site.write(more)
    changes = site.plan()
    assert changes and all('"openstack-worker-2' in address and actions == ["create"] for address, actions in changes.items()), changes
    site.tofu("apply", "-input=false", "plan")
    servers = {server["id"]: server["name"] for server in api.list("servers")}
    assert [servers[one] for one in set(servers) - before] == ["openstack-worker-2"] and before <= set(servers)
    assert "openstack-worker-2" in site.hosts("nodes.cloud.yml", CLOUD)

    site.write(VARIABLES)
    changes = site.plan()
    assert changes and all('"openstack-worker-2' in address and actions == ["delete"] for address, actions in changes.items()), changes
    site.tofu("apply", "-input=false", "plan")
    assert {server["id"] for server in api.list("servers")} == before
    assert {volume["id"] for volume in api.list("volumes")} == volumes


def test_another_image_or_login_is_for_new_nodes(site: Site, api: Api) -> None:
    server = next(server for server in api.list("servers") if server["name"] == "openstack-worker-1")
    keys = site.inventory / "credentials/ssh"
    (keys / "other.pub").write_text((keys / "id_ed25519.pub").read_text().strip().rsplit(" ", 1)[0] + " other\n")
    assert site.plan("-var", f"image={server['image']['id']}", "-var", f"ssh_public_key={keys / 'other.pub'}") == {}


def test_a_node_that_is_replaced_keeps_address_and_volume(site: Site, api: Api, nodes: dict[str, Any]) -> None:
    before = nodes["openstack-worker-1"]
    site.tofu("apply", "-auto-approve", "-input=false", '-replace=module.nodes.openstack_compute_instance_v2.node["openstack-worker-1"]')
    after = json.loads(site.tofu("output", "-json", "nodes"))
    assert after["openstack-worker-1"] == {**before, "id": after["openstack-worker-1"]["id"]}
    assert after["openstack-worker-1"]["id"] != before["id"]
    assert {name: node for name, node in after.items() if name != "openstack-worker-1"} == {n: m for n, m in nodes.items() if n != "openstack-worker-1"}
    [volume] = api.list("volumes")
    assert volume["attachments"][0]["server_id"] == after["openstack-worker-1"]["id"]


def test_destroy_leaves_nothing(site: Site, api: Api) -> None:
    site.tofu("destroy", "-auto-approve", "-input=false")
    assert {what: [one.get("name") or one.get("id") for one in api.list(what)] for what in LISTS} == {what: [] for what in LISTS}
    plan = site.inventory_of(site.inventory)
    assert not plan.get("_meta", {}).get("hostvars")
