# SPDX-License-Identifier: Apache-2.0
"""The AWS and Google roots worked out by the real program, their resources made up (stubs.py): what they make, what another count changes, who gets in."""

from __future__ import annotations

import json
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import hcl2
import jsonschema
import pytest
import yaml
from ansible_collections.ashlar.stack.plugins.plugin_utils.machines.contract import parse_machines
from ansible_collections.ashlar.stack.plugins.plugin_utils.machines.hosts import HostOptions, host_variables
from ansible_collections.ashlar.stack.plugins.plugin_utils.site.catalogue import load
from ansible_collections.ashlar.stack.plugins.plugin_utils.site.compile import plan_site
from ansible_collections.ashlar.stack.plugins.plugin_utils.site.nodes import RawNode

from .checker import reachable
from .conftest import ROOT
from .hcl import arguments, read
from .stubs import stubbed
from .tofu import TERRAFORM, Workspace

CONTROL = {"classes": ["control"], "count": 3, "size": "s"}
WORKER = {"classes": ["worker"], "count": 2, "size": "m", "volumes": [{"name": "data", "size_gib": 10}, {"name": "logs", "size_gib": 5}]}
EDGE = {"classes": ["edge", "worker"], "count": 1, "size": "m", "public": True, "labels": {"disk": "ssd"}}
POOLS = {"control": CONTROL, "worker": WORKER, "edge": EDGE}


def name_of(applied: Workspace) -> str:
    return applied.folder.name


def site_of(applied: Workspace) -> Path:
    return applied.folder.parents[1] / "inventories" / name_of(applied)


@pytest.fixture(scope="module")
def full(applied: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """The same root with everything that can be had, applied. Beside the first, which stays as the example site has it."""
    target = tmp_path_factory.mktemp("full")
    for name in ("roles", "stacks"):
        (target / name).symlink_to(ROOT / name)
    workspace = Workspace(applied.program, stubbed(TERRAFORM / name_of(applied), target / "terraform")).init()
    (target / "inventories").mkdir()
    shutil.copytree(site_of(applied), target / "inventories" / name_of(applied))
    file = site_of(workspace) / "20-stack.yml"
    content = yaml.safe_load(file.read_text())
    content["networks"]["admin"] += ["35.191.0.0/16", "209.85.152.0/22", "209.85.204.0/22"]
    file.write_text(yaml.safe_dump(content))
    result = workspace.apply(**everything(workspace))
    assert result.code == 0, result.problems or result.output
    return workspace


def everything(workspace: Workspace, **pools: Any) -> dict[str, Any]:
    zone = {"aws": "example.com", "gce": "example-zone"}[name_of(workspace)]
    return {"pools": POOLS | pools, "api_load_balancer": True, "dns_zone": zone, "kms_key": "key", "snapshot_volumes": True, "control_spread": True}


@cache
def instances(workspace: Workspace) -> dict[str, dict[str, Any]]:
    """Of the state, which is applied once: address of what was made up -> its arguments and answers."""
    state = json.loads(workspace.run("show", "-json").stdout)
    waiting = [state["values"]["root_module"]]
    found: dict[str, dict[str, Any]] = {}
    while waiting:
        module = waiting.pop()
        waiting += module.get("child_modules", [])
        found |= {resource["address"]: resource["values"]["output"] for resource in module.get("resources", [])}
    return found


def of_type(workspace: Workspace, type_: str) -> dict[str, dict[str, Any]]:
    return {address: values for address, values in instances(workspace).items() if f"terraform_data.{type_}__" in address}


def test_an_example_site_gets_machines_after_the_schema(applied: Workspace) -> None:
    nodes = applied.outputs()["nodes"]
    jsonschema.validate(nodes, json.loads((ROOT / "schemas/machines.json").read_text()), format_checker=jsonschema.FormatChecker())
    name = name_of(applied)
    assert list(nodes) == [f"{name}-{pool}-{number}" for pool, count in (("control", 3), ("edge", 2), ("worker", 2)) for number in range(1, count + 1)]
    assert len({node["zone"] for node in nodes.values() if "control" in node["classes"]}) == 3
    assert len({node["private_ip"] for node in nodes.values()}) == len({node["id"] for node in nodes.values()}) == 7
    assert all(node["public_ip"] is None and node["bastion"]["user"] == "ashlar" for node in nodes.values())
    assert [list(nodes[f"{name}-{pool}-1"]["load_balancers"]) for pool in ("control", "edge", "worker")] == [[], ["edge"], []]


def test_an_example_site_is_one_that_the_stack_plugin_plans(applied: Workspace) -> None:
    machines, problems = parse_machines(applied.outputs()["nodes"], "output nodes")
    assert not problems
    hosts = host_variables(machines, HostOptions())
    file = ROOT / "inventories" / name_of(applied) / "20-stack.yml"
    plan = plan_site(load(ROOT), yaml.safe_load(file.read_text()), file, [RawNode(name, variables, "nodes") for name, variables in hosts.items()])
    assert [len(plan.groups[name]) for name in ("control", "worker", "edge", "etcd", "kubernetes_node")] == [3, 2, 2, 3, 7]


def test_the_example_inventory_names_its_root_and_its_variables() -> None:
    for name in ("aws", "gce"):
        folder = ROOT / "inventories" / name
        (source,) = yaml.safe_load((folder / "10-nodes.terraform.yml").read_text())["sources"]
        assert (folder / source["root"]).resolve() == TERRAFORM / name
        assert all((folder / file).is_file() for file in source["var_files"])
        variables = set(read(TERRAFORM / name).variables)
        assert {key for key, _ in arguments(_tfvars(folder / "machines.tfvars"))} <= variables


def _tfvars(file: Path) -> dict[str, Any]:
    content: dict[str, Any] = hcl2.loads(file.read_text())
    return content


def test_everything_that_can_be_had(full: Workspace) -> None:
    nodes = full.outputs()["nodes"]
    site = name_of(full)
    edge = nodes[f"{site}-edge-1"]
    assert edge["public_ip"] and edge["labels"] == {"disk": "ssd"} and sorted(edge["load_balancers"]) == ["edge"]
    assert list(nodes[f"{site}-control-1"]["load_balancers"]) == ["control"]
    devices = [volume["device"] for volume in nodes[f"{site}-worker-1"]["volumes"]]
    assert len(set(devices)) == 2 and all(device.startswith("/dev/disk/by-id/") for device in devices)
    records = {values["name"].rstrip(".") for address, values in instances(full).items() if "route53_record" in address or "dns_record_set" in address}
    assert records == {f"api.{site}.example.com", f"*.{site}.example.com"}
    again = full.plan(**everything(full))
    assert (again.code, again.changes) == (0, {})


@pytest.mark.parametrize(("worker", "edge"), [(3, 2), (1, 0)])
def test_another_count_touches_no_other_node(worker: int, edge: int, full: Workspace) -> None:
    result = full.plan(**everything(full, worker=WORKER | {"count": worker}, edge=EDGE | {"count": edge}))
    assert result.code == 0
    changes = result.changes
    nodes = ["-worker-3", "-edge-2"] if worker == 3 else ["-worker-2", "-edge-1"]
    # The load balancer of a class without nodes, and the record of its addresses, belong to no node.
    others = {address: action for address, action in changes.items() if not any(node in address for node in nodes)}
    assert not [address for address in others if "dns" not in address and 'load_balancer["edge"]' not in address], others
    assert all(action == ("create" if worker == 3 else "delete") for address, action in changes.items() if "dns" not in address)
    for node, volumes in zip(nodes, (4, 0)):
        assert len([address for address in changes if node in address and "module.volumes" in address]) == volumes
        assert [address for address in changes if node in address and "module.nodes" in address]


def test_another_pool_and_another_zone_touch_no_node(full: Workspace) -> None:
    region = {"aws": "eu-central-1", "gce": "europe-west3-"}[name_of(full)]
    variables = everything(full, storage={"classes": ["storage"], "count": 1, "size": "l", "zones": [f"{region}d"]})
    result = full.plan(**variables, zones=[f"{region}{letter}" for letter in "abcd"])
    assert result.code == 0
    # Where a node stands was decided when it was made: the real roots ignore what would move it, which a made-up resource can't.
    assert not [address for address, action in result.changes.items() if action in ("delete", "replace")]
    assert any("-storage-1" in address for address in result.changes)


VARIANTS: dict[str, dict[str, Any]] = {
    "public with an own image": {"access": "public", "pools": {name: pool | {"image": "own"} for name, pool in POOLS.items()}, "image": "other"},
    "one node": {"pools": {"all": {"classes": ["control", "worker", "edge", "storage"], "count": 1, "size": "m"}}, "edge_load_balancer": False, "zones": 1},
    "nothing": {"pools": {}},
}


@pytest.mark.parametrize("name", VARIANTS)
def test_variants_can_be_planned(name: str, full: Workspace) -> None:
    variables = everything(full) | {"control_spread": False} | VARIANTS[name]
    if "zones" in variables:
        variables["zones"] = [{"aws": "eu-central-1a", "gce": "europe-west3-a"}[name_of(full)]]
    result = full.plan(**variables)
    assert result.code == 0, result.problems


WRONG: dict[str, tuple[dict[str, Any], list[list[str]]]] = {
    "values": (
        {"access": "vpn", "network_cidr": "10.0.0.0/24"},
        [['access is "vpn". Allowed: bastion, public.'], ['network_cidr is "10.0.0.0/24"', "prefix length of 16"]],
    ),
    "pools and networks": (
        {"pools": {"c": CONTROL | {"count": 2}}, "network_cidr": "10.244.0.0/16", "ssh_public_key": "nowhere.pub"},
        [
            ["make 2 nodes of the class control"],
            ["The nodes' network 10.244.0.0/16 overlaps networks.pods"],
            ["without 10.244.0.0/20 (the bastion)", "Add it to networks.admin"],
            ["There is no SSH public key nowhere.pub", "ssh-keygen"],
        ],
    ),
    "zones": (
        {"pools": {"c": CONTROL | {"zones": ["x"]}}, "region": "eu-west-1", "api_load_balancer": False},
        [["Pools name the zones x"], ["and region is eu-west-1", "Allowed: "]],
    ),
    "site": ({"site_folder": "nowhere"}, [["There is no site file nowhere/20-stack.yml"]]),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_would_not_work_is_refused_in_the_plan(case: str, applied: Workspace) -> None:
    variables, expected = WRONG[case]
    result = applied.plan(**variables)
    assert result.code == 1
    for words in expected:
        assert [problem for problem in result.problems if all(word in problem for word in words)], (words, result.problems)


def test_what_only_one_cloud_refuses(applied: Workspace, tmp_path: Path) -> None:
    if name_of(applied) == "aws":
        problems = applied.plan(dns_zone="other.example.org").problems
        assert any("dns_zone is other.example.org, and the site's domain aws.example.com does not lie in it" in problem for problem in problems), problems
    else:
        site = shutil.copytree(site_of(applied), tmp_path / "site")
        (site / "20-stack.yml").write_text((site / "20-stack.yml").read_text().replace("site: gce", "site: 1gce"))
        problems = applied.plan(site_folder=str(site)).problems
        assert any("The site is called 1gce. Allowed on Google Compute Engine: a name that begins with a letter." in problem for problem in problems), problems
        problems = applied.plan(api_load_balancer=True).problems
        assert any("health checks of the API's load balancer, 35.191.0.0/16" in problem for problem in problems), problems


def test_names_keep_to_the_clouds_limits(full: Workspace) -> None:
    longest = 20 - len(name_of(full))  # characters that a site's name may be longer than this one's
    for type_, most in (("aws_lb", 32), ("aws_lb_target_group", 32), ("aws_security_group", 255), ("google", 63)):
        for address, values in of_type(full, type_).items() if type_ != "google" else instances(full).items():
            if type_ != "google" or "google_compute" in address:
                assert len(values.get("name", "")) + longest <= most, address


# -- security -------------------------------------------------------------------------------------------------------------------------------


def expected_from_anyone(site: Path) -> set[tuple[str, str, str]]:
    """Class, protocol and port of what the manifests open to anyone, and the edges' 80 and 443."""
    file = site / "20-stack.yml"
    nodes = [RawNode(f"n-{name}", {"node_address": f"192.0.2.{number}", "node_classes": [name]}, "") for number, name in enumerate(CLASSES, start=1)]
    plan = plan_site(load(ROOT), yaml.safe_load(file.read_text()), file, nodes)
    found = {("edge", "tcp", "80"), ("edge", "tcp", "443")}
    for host, variables in plan.hosts.items():
        found |= {(host.removeprefix("n-"), port["protocol"], str(port["port"])) for port in variables["node_ports"] if "any" in port["from"]}
    return found


CLASSES = ("control", "worker", "edge", "storage")


def test_the_world_reaches_what_the_manifests_open_to_anyone_and_nothing_else(full: Workspace) -> None:
    found = set()
    for address, rule in of_type(full, "aws_vpc_security_group_ingress_rule").items():
        assert bool(rule.get("cidr_ipv4")) != bool(rule.get("referenced_security_group_id")), address
        if rule.get("cidr_ipv4") == "0.0.0.0/0":
            first, last = rule["from_port"], rule["to_port"]
            found.add((rule["tags"]["Name"].split("/")[0], rule["ip_protocol"], str(first) if first == last else f"{first}-{last}"))
    for address, rule in of_type(full, "google_compute_firewall").items():
        assert rule["direction"] == "INGRESS" and rule["target_tags"], address
        assert rule.get("source_ranges") or rule.get("source_tags"), address
        if "0.0.0.0/0" in (rule.get("source_ranges") or []):
            class_ = rule["target_tags"][0].removeprefix(f"{name_of(full)}-")
            found |= {(class_, allow["protocol"], port) for allow in rule["allow"] for port in allow["ports"]}
    assert found == expected_from_anyone(site_of(full))


def test_with_a_bastion_ssh_reaches_nodes_from_it_alone(full: Workspace) -> None:
    groups = {values["id"]: address for address, values in of_type(full, "aws_security_group").items()}
    for address, rule in of_type(full, "aws_vpc_security_group_ingress_rule").items():
        if rule["from_port"] <= 22 <= rule["to_port"] and "__bastion" not in address:
            assert 'class["bastion"]' in groups[rule["referenced_security_group_id"]], address
    for address, rule in of_type(full, "google_compute_firewall").items():
        if any("22" in allow["ports"] for allow in rule["allow"]) and "__bastion" not in address:
            assert (rule["source_tags"], rule.get("source_ranges")) == (["gce-bastion"], None), address


def test_every_disk_is_encrypted_and_every_machine_guarded(full: Workspace) -> None:
    machines = of_type(full, "aws_instance") | of_type(full, "google_compute_instance")
    volumes = of_type(full, "aws_ebs_volume") | of_type(full, "google_compute_disk")
    assert len(machines) == 7 and len(volumes) == 4
    for address, machine in machines.items():
        if "aws" in address:
            (options,), (disk,) = machine["metadata_options"], machine["root_block_device"]
            assert (options["http_tokens"], options["http_put_response_hop_limit"]) == ("required", 1), address
            assert (disk["encrypted"], disk["kms_key_id"], disk["delete_on_termination"]) == (True, "key", True), address
            assert "iam_instance_profile" not in machine and "key_name" not in machine
        else:
            (shield,), (disk,) = machine["shielded_instance_config"], machine["boot_disk"]
            assert shield == {"enable_secure_boot": True, "enable_vtpm": True, "enable_integrity_monitoring": True}, address
            assert (disk["kms_key_self_link"], disk["auto_delete"]) == ("key", True), address
            assert "service_account" not in machine
            metadata = machine["metadata"]
            assert [metadata[key] for key in ("block-project-ssh-keys", "enable-oslogin", "serial-port-enable")] == ["true", "false", "false"]
    for address, volume in volumes.items():
        assert volume.get("encrypted") is True or volume["disk_encryption_key"] == [{"kms_key_self_link": "key"}], address


def test_nothing_in_a_root_keeps_itself_from_being_destroyed(full: Workspace) -> None:
    for address, values in instances(full).items():
        assert not values.get("deletion_protection") and not values.get("enable_deletion_protection"), address
        assert not values.get("disable_api_termination") and not values.get("skip_destroy"), address
    for name in ("aws", "gce"):
        assert not [file for file in (TERRAFORM / name).rglob("*.tf") if "prevent_destroy" in file.read_text()]


def test_what_would_make_a_running_node_anew_is_ignored() -> None:
    wanted = {
        ("aws", "aws_instance", "node"): {"ami", "user_data", "subnet_id", "associate_public_ip_address", "placement_group", "root_block_device"},
        ("aws", "aws_ebs_volume", "data"): {"availability_zone", "kms_key_id"},
        ("gce", "google_compute_instance", "node"): {"boot_disk", "attached_disk", "zone", "resource_policies"},
        ("gce", "google_compute_disk", "data"): {"zone", "disk_encryption_key"},
    }
    for (root, type_, name), expected in wanted.items():
        (body,) = [module.resources[(type_, name)] for module in reachable(TERRAFORM / root) if (type_, name) in module.resources]
        (lifecycle,) = body["lifecycle"]
        assert {item.removeprefix("${").split("[")[0].rstrip("}") for item in lifecycle["ignore_changes"]} == expected


def test_nodes_bear_what_the_cloud_inventory_looks_for(full: Workspace) -> None:
    site = name_of(full)
    for address, machine in (of_type(full, "aws_instance") | of_type(full, "google_compute_instance")).items():
        tags = machine["tags" if "aws" in address else "labels"]
        if "__bastion" in address:
            assert tags["ashlar_site"] == f"{site}-bastion"
        else:
            assert tags["ashlar_classes"].split("_") and tags["ashlar_pool"] in POOLS and tags["ashlar_user"] == "ashlar"
            assert "ashlar_site" not in tags  # comes from the provider's defaults
