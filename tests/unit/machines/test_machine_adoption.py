# SPDX-License-Identifier: Apache-2.0
"""Resources as machines: the built-in types, mappings of one's own, and who gets which classes."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.ashlar.stack.plugins.plugin_utils.machines.adopt import (
    Adoption,
    Rule,
    adopt,
    as_labels,
    class_words,
    mappings_of,
    node_labels,
)
from ansible_collections.ashlar.stack.plugins.plugin_utils.machines.getters import Getter, Resources, parse_getters
from ansible_collections.ashlar.stack.plugins.plugin_utils.machines.states.model import Resource, StateFault
from ansible_collections.ashlar.stack.plugins.plugin_utils.site.nodes import safe_name
from states import aws

GOOGLE = {
    "id": "projects/p/zones/europe-west1-b/instances/g1",
    "instance_id": "7001",
    "name": "g1",
    "zone": "https://www.googleapis.com/compute/v1/projects/p/zones/europe-west1-b",
    "labels": {"ashlar_classes": "control-worker", "disk": "ssd"},
    "network_interface": [{"network_ip": "10.1.0.2", "access_config": []}, {"network_ip": "10.2.0.2", "access_config": [{"nat_ip": "203.0.113.4"}]}],
}
OPENSTACK = {
    "id": "5e0c",
    "name": "o1",
    "availability_zone": "nova",
    "region": "RegionOne",
    "access_ip_v4": "192.0.2.9",
    "power_state": "active",
    "metadata": {"ashlar_classes": "storage"},
    "network": [{"fixed_ip_v4": "", "port": "p0"}, {"fixed_ip_v4": "10.3.0.2", "port": "p1"}],
}


def adoption(
    user: str | None = "admin", rules: tuple[Rule, ...] = (), own: dict[str, dict[str, Any]] | None = None, classes_from: str = "ashlar_classes"
) -> Adoption:
    parsed = {type_: {name: parse_getters(value) for name, value in fields.items()} for type_, fields in (own or {}).items()}
    return Adoption(classes_from, rules, mappings_of(parsed), user)


def adopted(*resources: Resource, **options: Any) -> dict[str, dict[str, Any]]:
    return adopt(resources, adoption(**options), "nodes").machines


def instance(number: int = 1, address: str = "", tainted: bool = False, **changes: Any) -> Resource:
    return Resource(address or f"aws_instance.node[{number - 1}]", "aws_instance", aws(number, **changes), tainted)


def test_the_built_in_types() -> None:
    found = adopted(
        instance(1, public_ip="198.51.100.1", tags={"Name": "web 1", "ashlar_classes": "edge, worker", "team": "a b", "disk": "ssd", "aws:x": "y"}),
        Resource("google_compute_instance.g", "google_compute_instance", GOOGLE),
        Resource("openstack_compute_instance_v2.o", "openstack_compute_instance_v2", OPENSTACK),
    )
    assert found == {
        "web-1": {
            "id": "i-0001",
            "classes": ["edge", "worker"],
            "private_ip": "10.0.0.1",
            "public_ip": "198.51.100.1",
            "user": "admin",
            "zone": "eu-central-1a",
            "region": "eu-central-1",
            "labels": {"disk": "ssd"},
        },
        "g1": {
            "id": "7001",
            "classes": ["control", "worker"],
            "private_ip": "10.1.0.2",
            "public_ip": "203.0.113.4",
            "user": "admin",
            "zone": "europe-west1-b",
            "region": "europe-west1",
            "labels": {"disk": "ssd"},
        },
        "o1": {"id": "5e0c", "classes": ["storage"], "private_ip": "10.3.0.2", "user": "admin", "zone": "nova", "region": "RegionOne"},
    }


@pytest.mark.parametrize(
    ("zone", "region"),
    [
        ("us-east-1f", "us-east-1"),
        ("us-gov-west-1a", "us-gov-west-1"),
        ("us-west-2-lax-1a", "us-west-2"),
        ("us-east-1-wl1-bos-wlz-1", "us-east-1"),
    ],
)
def test_the_region_of_amazon_is_the_beginning_of_its_zones(zone: str, region: str) -> None:
    assert adopted(instance(1, availability_zone=zone))["node-1"]["region"] == region
    assert adopted(instance(1, availability_zone=zone, region="eu-west-1"))["node-1"]["region"] == "eu-west-1"


@pytest.mark.parametrize(
    ("companion", "address"),
    [
        (Resource("aws_eip.x", "aws_eip", {"instance": "i-0001", "public_ip": "203.0.113.1"}), "203.0.113.1"),
        (Resource("aws_eip_association.x", "aws_eip_association", {"instance_id": "i-0001", "public_ip": "203.0.113.2"}), "203.0.113.2"),
        (Resource("aws_eip.other", "aws_eip", {"instance": "i-0002", "public_ip": "203.0.113.1"}), None),
    ],
)
def test_an_address_of_its_own_resource_is_the_machines(companion: Resource, address: str | None) -> None:
    assert adopted(instance(1), companion)["node-1"].get("public_ip") == address


def test_floating_addresses_come_by_the_machine_or_its_port() -> None:
    server = Resource("openstack_compute_instance_v2.o", "openstack_compute_instance_v2", OPENSTACK)
    by_id = Resource("a", "openstack_compute_floatingip_associate_v2", {"instance_id": "5e0c", "floating_ip": "203.0.113.5"})
    by_port = Resource("a", "openstack_networking_floatingip_associate_v2", {"port_id": "p1", "floating_ip": "203.0.113.6"})
    assert adopted(server, by_id)["o1"]["public_ip"] == "203.0.113.5"
    assert adopted(server, by_port)["o1"]["public_ip"] == "203.0.113.6"


def test_what_is_gone_is_left_out_and_what_is_tainted_is_told() -> None:
    gone = (instance(2, instance_state="terminated"), instance(3, instance_state="shutting-down"), Resource("aws_instance.lost", "aws_instance", {}))
    found = adopt((instance(1), *gone, instance(4, tainted=True), instance(5, instance_state="stopped")), adoption(), "nodes")
    assert list(found.machines) == ["node-1", "node-4", "node-5"]
    assert found.warnings == ["aws_instance.node[3] (node-4) is tainted: the next apply replaces it."]


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("aws_instance.web", "web"),
        ("aws_instance.web[2]", "web-2"),
        ('aws_instance.web["eu.1/A"]', "web-eu-1-a"),
        ('module.pools["a.b"].module.node[1].aws_instance.this["x\\"]y"]', "pools-a-b-node-1-this-x-y"),
        ("module.module.aws_instance.module", "module-module"),
    ],
)
def test_a_machine_without_a_name_is_named_by_its_address(address: str, name: str) -> None:
    assert list(adopted(instance(1, address, tags={"ashlar_classes": "worker"}))) == [name]


def test_classes_are_said_by_the_machine_then_by_the_first_rule() -> None:
    rules = (
        Rule((), labels={"team": "db"}),
        Rule(("control",), name="cp-*"),
        Rule(("edge",), type="google_compute_instance"),
        Rule(("worker",), name="node-*", type="aws_instance"),
    )
    found = adopt(
        (
            instance(1, tags={"Name": "cp-1"}),
            instance(2, tags={"Name": "cp-2", "ashlar_classes": "storage"}),
            instance(3, tags={"Name": "cp-3", "team": "db"}),
            instance(4, tags={"Name": "node-4"}),
            instance(5, tags={"Name": "other"}),
            Resource("google_compute_instance.g", "google_compute_instance", {**GOOGLE, "labels": {}}),
        ),
        adoption(rules=rules),
        "nodes",
    )
    assert {name: one["classes"] for name, one in found.machines.items()} == {"cp-1": ["control"], "cp-2": ["storage"], "node-4": ["worker"], "g1": ["edge"]}
    assert found.warnings == [
        "Left out, since no node class is said for aws_instance.node[4]: tag them with ashlar_classes, "
        "or write a rule under classes (an empty list leaves them out)."
    ]


def test_a_rule_that_leaves_machines_out_or_names_the_tag_counts_before_the_tag() -> None:
    rules = (Rule((), labels={"Role": "database"}), Rule(("edge",), labels={"Role": "gateway"}), Rule(("control",), name="*"))
    found = adopted(
        instance(1, tags={"Name": "db", "Role": "database"}),
        instance(2, tags={"Name": "gw", "Role": "gateway"}),
        instance(3, tags={"Name": "w", "Role": "worker"}),
        instance(4, tags={"Name": "other"}),
        rules=rules,
        classes_from="Role",
    )
    assert {name: one["classes"] for name, one in found.items()} == {"gw": ["edge"], "w": ["worker"], "other": ["control"]}
    with pytest.raises(StateFault, match='says "database" in Role, which is no node class'):
        adopted(instance(1, tags={"Name": "db", "Role": "database"}), rules=rules[1:], classes_from="Role")


@pytest.mark.parametrize(
    ("addresses", "name", "names"),
    [
        (["aws_instance.n[0]", "aws_instance.n[1]"], "web", ["web-0", "web-1"]),
        (['aws_instance.n["A"]', 'aws_instance.n["b.c"]'], "web.example.com", ["web-a.example.com", "web-b-c.example.com"]),
        (["module.pool[0].aws_instance.n", "module.pool[1].aws_instance.n"], "web", ["web-0", "web-1"]),
        (["module.a.aws_instance.n", "module.b.aws_instance.n"], "web", ["web-a", "web-b"]),
        (['module.p["a"].aws_instance.n[0]', 'module.p["b"].aws_instance.n[0]', 'module.p["a"].aws_instance.n[1]'], "x", ["x-a-0", "x-b-0", "x-a-1"]),
        (["module.a.aws_instance.n[0]", "module.b.aws_instance.n[0]", "module.b.aws_instance.n[1]"], "x", ["x-a-0", "x-b-0", "x-b-1"]),
        (["aws_instance.n[0]"], "web", ["web"]),
    ],
)
def test_namesakes_have_their_index_or_module_behind_the_name(addresses: list[str], name: str, names: list[str]) -> None:
    tags = {"Name": name, "ashlar_classes": "worker"}
    found = adopt([instance(number, address, tags=tags) for number, address in enumerate(addresses, 1)], adoption(), "nodes")
    assert list(found.machines) == names
    assert [f"behind it: {', '.join(names[:-1])} and {names[-1]}" in warning for warning in found.warnings] == [True] * (len(names) > 1)


def test_who_is_left_out_is_nobodys_namesake() -> None:
    tags = {"Name": "web", "ashlar_classes": "worker"}
    found = adopted(instance(1, tags=tags), instance(2, tags={**tags, "team": "db"}), rules=(Rule((), labels={"team": "db"}),))
    assert list(found) == ["web"]


def test_a_suffix_does_not_take_the_name_of_another_machine() -> None:
    same = {"Name": "web", "ashlar_classes": "worker"}
    first, second = (instance(number, f"module.m.aws_instance.n[{number - 1}]", tags=same) for number in (1, 2))
    other = instance(3, "aws_instance.other", tags={**same, "Name": "web-1"})
    assert list(adopted(first, second, other)) == ["web-m-0", "web-m-1", "web-1"]


def test_a_field_may_be_followed_into_another_resource() -> None:
    own = {
        "vm": {
            "private_ip": {"resource": "nic", "by": "vm", "path": "addresses.*.ip", "where": {"kind": "private"}},
            "public_ip": {"resource": "ip", "of": {"resource": "nic", "by": "vm", "path": "ip_id"}, "path": "address"},
            "classes": {"value": "worker"},
        }
    }
    found = adopted(
        Resource("vm.a", "vm", {"id": 7, "name": "a"}),
        Resource("nic.other", "nic", {"vm": "8", "addresses": [{"kind": "private", "ip": "10.0.0.8"}]}),
        Resource("nic.a", "nic", {"vm": "7", "ip_id": "x", "addresses": [{"kind": "public", "ip": "10.0.0.6"}, {"kind": "private", "ip": "10.0.0.7"}]}),
        Resource("data.ip.a", "ip", {"id": "X", "address": "203.0.113.7/32"}, managed=False),
        own=own,
    )
    assert found == {"a": {"id": "7", "classes": ["worker"], "private_ip": "10.0.0.7", "public_ip": "203.0.113.7", "user": "admin"}}


def test_mappings_of_ones_own() -> None:
    own = {
        "proxmox_vm_qemu": {
            "private_ip": ["default_ipv4_address", {"path": "ipconfig0", "match": "ip=([0-9.]+)"}],
            "zone": "target_node",
            "classes": "tags",
            "user": "ciuser",
            "port": "ssh_port",
        },
        "hcloud_server": {
            "private_ip": "network.*.ip",
            "public_ip": "ipv4_address",
            "user": {"value": "root"},
            "labels": "labels",
            "classes": 'labels."x.y/role"',
        },
    }
    vm = {"name": "pve-1", "ipconfig0": "ip=10.4.0.7/24,gw=10.4.0.1", "tags": "k8s;control;blue", "target_node": "pve2", "ciuser": "debian", "ssh_port": "2222"}
    server = {"id": 42, "name": "h1", "network": [{"ip": "10.5.0.2"}], "ipv4_address": "203.0.113.8", "labels": {"x.y/role": "edge", "kubernetes.io/x": "y"}}
    found = adopted(Resource("proxmox_vm_qemu.a", "proxmox_vm_qemu", vm), Resource("hcloud_server.b", "hcloud_server", server), own=own, user=None)
    assert found == {
        "pve-1": {
            "classes": ["control"],
            "private_ip": "10.4.0.7",
            "user": "debian",
            "port": 2222,
            "zone": "pve2",
            "labels": {"k8s": "", "control": "", "blue": ""},
        },
        "h1": {"id": "42", "classes": ["edge"], "private_ip": "10.5.0.2", "public_ip": "203.0.113.8", "user": "root", "labels": {"x.y/role": "edge"}},
    }


def test_a_mapping_changes_single_fields_of_a_built_in_type() -> None:
    own = {"aws_instance": {"name": [], "user": 'tags."ssh user"'}}
    found = adopted(instance(1, tags={"Name": "same", "ashlar_classes": "worker", "ssh user": "ec2-user"}), own=own, user=None)
    assert {name: (one["user"], one["private_ip"]) for name, one in found.items()} == {"node-0": ("ec2-user", "10.0.0.1")}


@pytest.mark.parametrize(
    ("resources", "options", "said"),
    [
        ((instance(1, "aws_instance.a"), instance(2, "aws_instance.b", tags=aws(1)["tags"])), {}, "aws_instance.a and aws_instance.b are both named node-1"),
        ((instance(1, private_ip=""),), {}, "aws_instance.node[0] has no private IPv4 address; say where it stands"),
        ((instance(1, private_ip="fd00::1"),), {}, 'has no private IPv4 address, only "fd00::1"; say where it stands'),
        ((instance(1, private_ip="127.0.0.1"),), {}, "has no private IPv4 address; say where it stands"),
        ((instance(1),), {"user": None}, "aws_instance.node[0] doesn't say the user of SSH; set the option user"),
        ((instance(1, tags={"ashlar_classes": "wroker"}),), {}, 'says "wroker" in ashlar_classes, which is no node class (Did you mean "worker"?)'),
        ((instance(1, tags={"Name": "x"}),), {}, "has machines, but no node class is said for aws_instance.node[0]"),
        ((Resource("aws_vpc.a", "aws_vpc", {}),), {}, 'has no output "nodes", and none of its resources is a machine that is known: aws_vpc (1).'),
        ((), {}, "none of its resources is a machine that is known: none."),
    ],
)
def test_what_cannot_be_adopted_is_an_error(resources: tuple[Resource, ...], options: dict[str, Any], said: str) -> None:
    with pytest.raises(StateFault) as caught:
        adopted(*resources, **options)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("a", {"b": [{"c.d": 1}, {"e": "x"}]}),
        ("a.b.0", {"c.d": 1}),
        ('a.b.0."c.d"', 1),
        ("a.b.*.e", "x"),
        ("a.*.1.e", "x"),
        ("a.b.7", None),
        ("a.x.y", None),
        ("n", "10"),
        ("n.0", None),
    ],
)
def test_paths(path: str, value: Any) -> None:
    (getter,) = parse_getters(path)
    assert next(getter.all({"a": {"b": [{"c.d": 1}, {"e": "x"}]}, "n": "10"}, Resources()), None) == value


@pytest.mark.parametrize(
    "wrong",
    [
        "",
        "a..b",
        ".a",
        "a.",
        'a."b',
        '"a"b',
        7,
        None,
        {},
        {"path": "a", "value": 1},
        {"path": "a", "other": 1},
        {"path": "a", "match": "("},
        {"path": "a", "where": "b"},
        {"path": "a", "by": "b"},
        {"resource": "", "path": "a"},
        {"resource": "x"},
        {"resource": "x", "path": "a", "of": 1},
    ],
)
def test_what_is_no_way_to_a_value_is_refused(wrong: Any) -> None:
    with pytest.raises(ValueError, match="Allowed|regular expression"):
        parse_getters(wrong)


def test_a_match_takes_the_first_text_of_a_list_that_fits() -> None:
    (getter,) = parse_getters({"path": "tags", "match": "^role=(.*)"})
    assert list(getter.all({"tags": ["x", "role=edge", "role=worker"]}, Resources())) == ["edge", "worker"]
    assert list(getter.all({"tags": ["x"]}, Resources())) == []
    assert list(Getter(value="a").all({}, Resources())) == ["a"]


def test_names_labels_and_words() -> None:
    assert as_labels(["a=b=c", "d:e", "f", 7, ""]) == as_labels("a=b=c; d:e,f") == {"a": "b=c", "d": "e", "f": ""}
    assert as_labels({"a": True, "b": 1, "c": [1]}) == {"a": "true", "b": "1"}
    assert as_labels(None) == {}
    assert [safe_name(text) for text in ("Web 1", "a.b_c.", "ÄÖ", None, 7, "x" * 70)] == ["web-1", "a.b-c", "", "", "7", "x" * 63]
    tags = {"a": "b", "Name": "x", "k8s.io/x": "y", "sub.kubernetes.io/x": "y", "aws:x": "y", "a b": "c", "example.com/disk": "ssd", "d": "not this", "e": ""}
    assert node_labels(tags, {"Name"}) == {"a": "b", "example.com/disk": "ssd", "e": ""}
    assert class_words("Control, worker;control_edge") == ["control", "worker", "edge"]
    assert class_words(["a-b", 1, None, "storage"]) == ["a", "b", "storage"]
