# SPDX-License-Identifier: Apache-2.0
"""What all roots share, by real runs of OpenTofu or Terraform: nodes of pools, firewall rules, the contract, the login."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from ansible_collections.ashlar.stack.plugins.plugin_utils.site.catalogue import load
from ansible_collections.ashlar.stack.plugins.plugin_utils.site.compile import plan_site
from ansible_collections.ashlar.stack.plugins.plugin_utils.site.models import NODE_CLASSES
from ansible_collections.ashlar.stack.plugins.plugin_utils.site.nodes import RawNode

from .conftest import KEY, ROOT
from .tofu import Workspace

Scratch = Callable[[str, str], Workspace]
SITE = {"plugin": "ashlar.stack.stack", "site": "prod", "domain": "prod.example.com", "stack": "tectonic", "release": "2026.11"}


def only(problems: list[str], *words: str) -> str:
    """The one problem that has all of these words."""
    found = [problem for problem in problems if all(word in problem for word in words)]
    assert len(found) == 1, (words, problems)
    return found[0]


# -- pools ----------------------------------------------------------------------------------------------------------------------------------

POOLS = """
variable "cases" { type = any }
module "pools" {
  source   = "../modules/pools"
  for_each = var.cases
  site     = try(each.value.site, "prod")
  zones    = try(each.value.zones, ["a", "b", "c"])
  pools    = each.value.pools
}
output "nodes" { value = { for name, made in module.pools : name => made.nodes } }
output "volumes" { value = { for name, made in module.pools : name => made.volumes } }
"""


@pytest.fixture(scope="module")
def pools(scratch: Scratch) -> Workspace:
    return scratch("scratch-pools", POOLS)


def pool(**changes: Any) -> dict[str, Any]:
    return {"classes": ["worker"], "count": 1, "size": "m", **changes}


def test_nodes_of_pools(pools: Workspace) -> None:
    volumes = [{"name": "data", "size_gib": 10}, {"name": "logs", "size_gib": 5, "type": "fast"}]
    few = {"control": pool(classes=["control"], count=3, size="s"), "db": pool(classes=["worker", "storage"], count=2, zones=["b"], volumes=volumes)}
    many = few | {"db": few["db"] | {"count": 4}}
    cases = {"few": {"pools": few}, "many": {"pools": many}, "one_zone": {"pools": {"w": pool(count=2)}, "zones": ["a"]}, "none": {"pools": {}}}
    assert pools.apply(cases=cases).code == 0
    nodes, made = pools.outputs()["nodes"], pools.outputs()["volumes"]

    assert list(nodes["few"]) == ["prod-control-1", "prod-control-2", "prod-control-3", "prod-db-1", "prod-db-2"]
    assert [nodes["few"][f"prod-control-{number}"]["zone"] for number in (1, 2, 3)] == ["a", "b", "c"]
    assert {node["zone"] for node in nodes["many"].values() if node["pool"] == "db"} == {"b"}
    first = nodes["few"]["prod-db-2"]
    assert first == {
        "name": "prod-db-2",
        "pool": "db",
        "number": 2,
        "classes": ["worker", "storage"],
        "size": "m",
        "zone": "b",
        "labels": {},
        "disk_gib": 50,
        "volumes": [{"name": "data", "size_gib": 10, "type": None}, {"name": "logs", "size_gib": 5, "type": "fast"}],
        "public": False,
        "image": None,
    }
    assert made["few"]["prod-db-1/logs"] == {"node": "prod-db-1", "name": "logs", "size_gib": 5, "type": "fast", "zone": "b", "position": 2}
    # Another count is the same nodes and more of them.
    assert all(nodes["many"][name] == node for name, node in nodes["few"].items())
    assert all(made["many"][name] == volume for name, volume in made["few"].items())
    assert set(nodes["many"]) - set(nodes["few"]) == {"prod-db-3", "prod-db-4"}
    assert {node["zone"] for node in nodes["one_zone"].values()} == {"a"}
    assert nodes["none"] == made["none"] == {}


BAD_POOLS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "pool name": ({"pools": {"Bad_Name": pool()}}, ['Pool "Bad_Name" is no name of a pool.', "Allowed: 1 to 30"]),
    "class": ({"pools": {"p1": pool(classes=["master"])}}, ['p1 is ["master"]', "Allowed: one or more of control, worker, edge and storage"]),
    "no class": ({"pools": {"p2": pool(classes=[])}}, ["classes of pool p2 is []"]),
    "class twice": ({"pools": {"p3": pool(classes=["edge", "edge"])}}, ['p3 is ["edge","edge"]', "each once"]),
    "negative count": ({"pools": {"p4": pool(count=-1)}}, ["p4 is -1", "Allowed: a whole number from 0 to 5000"]),
    "half a node": ({"pools": {"p5": pool(count=1.5)}}, ["p5 is 1.5", "whole number"]),
    "even": ({"pools": {"p6": pool(classes=["control"], count=2), "p7": pool(classes=["control", "worker"], count=2)}}, ["make 4 nodes of the class control"]),
    "size": ({"pools": {"p8": pool(size=" ")}}, ["size of pool p8 is empty"]),
    "no zone": ({"pools": {"p9": pool(zones=[])}}, ["zones of pool p9 is []"]),
    "zone twice": ({"pools": {"p10": pool(zones=["a", "a"])}}, ['zones of pool p10 is ["a","a"]']),
    "small disk": ({"pools": {"p11": pool(disk_gib=5)}}, ["disk_gib of pool p11 is 5", "from 10 to 16384"]),
    "volume name": ({"pools": {"p12": pool(volumes=[{"name": "Data", "size_gib": 1}])}}, ["p12/Data of 1 GiB"]),
    "volume size": ({"pools": {"p13": pool(volumes=[{"name": "data", "size_gib": 0}])}}, ["p13/data of 0 GiB"]),
    "volume twice": ({"pools": {"p14": pool(volumes=[{"name": "d", "size_gib": 1}] * 2)}}, ['volumes of pool p14 is ["d","d"]']),
    "label value": ({"pools": {"p15": pool(labels={"disk": "x" * 64})}}, ["x=xxx".replace("x=", "disk="), "p15", "Kubernetes refuses"]),
    "label name": ({"pools": {"p16": pool(labels={"-disk": "ssd"})}}, ['"-disk" of pool p16']),
    "label domain": ({"pools": {"p17": pool(labels={"Example.com/disk": ""})}}, ["Example.com/disk", "p17"]),
    "zones": ({"pools": {"p18": pool()}, "zones": []}, ["zones is []. Allowed: at least one zone"]),
}


def test_wrong_pools_are_refused_with_a_sentence_each(pools: Workspace) -> None:
    result = pools.plan(cases={name.replace(" ", "_"): case for name, (case, _) in BAD_POOLS.items()})
    assert result.code == 1
    for _, words in BAD_POOLS.values():
        only(result.problems, *words)
    assert len(result.problems) == len(BAD_POOLS)


def test_names_that_no_host_may_have_are_refused(pools: Workspace) -> None:
    result = pools.plan(cases={"site": {"pools": {"a": pool()}, "site": "s" * 21}, "node": {"pools": {"p" * 30: pool()}, "site": "s" * 40}})
    only(result.problems, f"Node {'s' * 40}-{'p' * 30}-1 has a name of more than 63 characters")
    only(result.problems, f'site is "{"s" * 21}". Allowed: 1 to 20')


LARGE = """
module "pools" {
  source = "../modules/pools"
  site   = "prod"
  zones  = ["a"]
  pools  = { w = { classes = ["worker"], count = 1100, size = "m" } }
}
output "numbers" { value = sum([for node in module.pools.nodes : node.number]) }
"""


def test_a_pool_may_be_large(scratch: Scratch) -> None:
    large = scratch("scratch-large", LARGE)
    assert large.apply().code == 0
    assert large.outputs() == {"numbers": sum(range(1, 1101))}


def test_labels_that_a_node_may_give_itself_are_kept(pools: Workspace) -> None:
    labels = {"disk": "ssd", "example.com/rack": "r-1", "node.kubernetes.io/pool": "a", "empty": ""}
    assert pools.apply(cases={"a": {"pools": {"w": pool(labels=labels)}}}).code == 0
    assert pools.outputs()["nodes"]["a"]["prod-w-1"]["labels"] == labels


# -- ports ----------------------------------------------------------------------------------------------------------------------------------

PORTS = """
variable "cases" { type = any }
module "ports" {
  source      = "../modules/ports"
  for_each    = var.cases
  site_folder = each.value.folder
  bastion     = try(each.value.bastion, false)
  repository  = try(each.value.repository, null)
  network     = try(each.value.network, null)
  gateways    = try(each.value.gateways, {})
}
output "made" { value = module.ports }
"""

SLIM = """
name: slim
description: As little as a platform can be made of.
slots:
  runtime: containerd
  key_value: etcd
  scheduler: kubernetes_control
  orchestrator: [kubernetes_control, kubernetes_node, api_balancer]
  overlay: flannel
"""

SITES: dict[str, dict[str, Any]] = {
    "plain": {},
    "fewer": {"slots": {"monitoring": [], "discovery": "coredns"}},
    "edges": {"slots": {"load_balancer": ["kubernetes_node", "haproxy"], "discovery": ["coredns", "consul"]}},
    "own stack": {"stack": "slim", "extras": ["sample"]},
    "admin": {"networks": {"admin": ["203.0.113.0/24", "198.51.100.7/32"]}},
    "options": {
        "options": {
            "kubernetes_control": {"kubernetes_control_node_port_range": "31000-31999"},
            "kubernetes_node": {"kubernetes_node_ports_from": ["nodes"]},
        }
    },
}


@pytest.fixture(scope="module")
def ports(scratch: Scratch) -> Workspace:
    return scratch("scratch-ports", PORTS)


@pytest.fixture(scope="module")
def opened(ports: Workspace, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, dict[str, Any]]]:
    """Example sites and variations -> the site's folder, and what the module says of it."""
    folder = tmp_path_factory.mktemp("sites")
    sites = {name: ROOT / "inventories" / name for name in ("example", "local", "aws", "gce")}
    for name, changes in SITES.items():
        sites[name] = write_site(folder / name.replace(" ", "-"), changes)
    cases = {name: {"folder": str(site)} for name, site in sites.items()} | {"bastion": {"folder": str(sites["admin"]), "bastion": True}}
    result = ports.apply(cases=cases)
    assert result.code == 0, result.problems
    made = ports.outputs()["made"]
    return {name: (sites.get(name, sites["admin"]), made[name]) for name in cases}


def write_site(folder: Path, changes: dict[str, Any]) -> Path:
    (folder / "stacks").mkdir(parents=True)
    (folder / "stacks" / "slim.yml").write_text(SLIM)
    (folder / "20-stack.yml").write_text(yaml.safe_dump({key: value for key, value in (SITE | changes).items() if value is not None}))
    return folder


def planned(folder: Path) -> Any:
    """The plan of a site with one node of each class."""
    file = folder / "20-stack.yml"
    nodes = [
        RawNode(f"n-{name}", {"node_address": f"192.0.2.{number}", "node_classes": [name]}, "nodes.yml") for number, name in enumerate(NODE_CLASSES, start=1)
    ]
    return plan_site(load(ROOT), yaml.safe_load(file.read_text()), file, nodes)


@pytest.mark.parametrize("name", ["example", "local", "aws", "gce", *SITES])
def test_the_rules_are_those_that_the_stack_plugin_computes(name: str, opened: dict[str, tuple[Path, dict[str, Any]]]) -> None:
    folder, made = opened[name]
    plan = planned(folder)
    assert sorted(made["components"]) == sorted(plan.variables["site_components"])
    assert (made["site"], made["domain"]) == (plan.variables["site_name"], plan.variables["site_domain"])
    assert made["admin"] == plan.variables["site_networks"]["admin"]
    ours = [{**port, "port": str(port["port"])} for port in plan.variables["site_ports"]]
    assert sorted(map(json.dumps, made["ports"])) == sorted(
        json.dumps({key: port[key] for key in ("component", "from", "name", "port", "protocol")}) for port in ours
    )

    # By class: what the host of each class lets in, and from hosts of which classes, by where the plan has put every component.
    classes = {f"n-{name}": name for name in NODE_CLASSES}
    expected = set()
    for host, variables in plan.hosts.items():
        for port in (port for port in variables["node_ports"] if port["protocol"] != "sctp"):
            for source in port["from"]:
                names = [source] if source in ("admin", "any") else NODE_CLASSES
                if source in plan.variables["component_nodes"]:
                    names = [classes[node] for node in plan.variables["component_nodes"][source]]
                expected |= {(classes[host], port["protocol"], str(port["port"]), name) for name in names}
    found = set()
    for class_, rules in made["rules"].items():
        for key, rule in rules.items():
            if not all(component.startswith("host ") for component in rule["components"]):
                names = rule["from_classes"] + ["admin"] * rule["from_admin"] + ["any"] * rule["from_any"]
                found |= {(class_, rule["protocol"], key.split("-", 1)[1], name) for name in names}
    assert found == expected and expected


def test_every_host_lets_in_the_same_besides(opened: dict[str, tuple[Path, dict[str, Any]]]) -> None:
    _, made = opened["admin"]
    for class_ in NODE_CLASSES:
        ssh, node_ports = made["rules"][class_]["tcp-22"], made["rules"][class_]["udp-30000-32767"]
        assert (ssh["from_classes"], ssh["from_admin"], ssh["from_any"], ssh["cidrs"]) == ([], True, False, ["203.0.113.0/24", "198.51.100.7/32"])
        assert (node_ports["from_classes"], node_ports["from_admin"]) == (sorted(NODE_CLASSES), True)
        assert ("tcp-443" in made["rules"][class_]) == ("tcp-80" in made["rules"][class_]) == (class_ == "edge")
    changed = opened["options"][1]["rules"]["worker"]
    assert "tcp-30000-32767" not in changed
    assert changed["tcp-31000-31999"]["from_admin"] is False


def test_with_a_bastion_ssh_comes_from_it_alone(opened: dict[str, tuple[Path, dict[str, Any]]]) -> None:
    _, made = opened["bastion"]
    sources = {key: rule["source"] or rule["cidr"] for key, rule in made["ingress"].items() if rule["from_port"] == 22}
    assert sources == {f"{name}/tcp-22/bastion": "bastion" for name in NODE_CLASSES}
    assert made["ingress"]["control/tcp-6443/203.0.113.0/24"]["cidr"] == "203.0.113.0/24"


def test_rules_one_by_one_are_the_rules(opened: dict[str, tuple[Path, dict[str, Any]]]) -> None:
    for _, made in opened.values():
        again: dict[tuple[Any, ...], set[str]] = {}
        for rule in made["ingress"].values():
            again.setdefault((rule["class"], rule["protocol"], rule["from_port"], rule["to_port"]), set()).add(rule["source"] or rule["cidr"])
            assert (rule["source"] is None) != (rule["cidr"] is None)
        for class_, rules in made["rules"].items():
            for rule in rules.values():
                names = ["nodes"] if len(rule["from_classes"]) == 4 else rule["from_classes"]
                wanted = {"0.0.0.0/0"} if rule["from_any"] else {*names, *rule["cidrs"], *(["bastion"] if rule["from_bastion"] else [])}
                assert again.pop((class_, rule["protocol"], rule["from_port"], rule["to_port"])) == wanted
        assert not again


def collection(folder: Path, port: Any) -> Path:
    """A collection of one component with one port."""
    for name, content in {
        "roles/etcd/meta/component.yml": {
            "fills": "key_value",
            "nodes": {"class": "control"},
            "ports": [{"name": "client", "port": port, "from": ["etcd", "gone"]}],
        },
        "roles/etcd/defaults/main.yml": {"etcd_port": 2379, "etcd_ports": ["{{ x }}"], "etcd_range": "100-200"},
        "roles/gone/meta/component.yml": {"fills": "extra"},
        "stacks/tectonic.yml": {"name": "tectonic", "slots": {"key_value": "etcd"}},
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(yaml.safe_dump(content))
    return folder


def test_a_port_may_be_a_variable_with_a_default(ports: Workspace, tmp_path: Path) -> None:
    own = write_site(tmp_path / "own", {"options": {"etcd": {"etcd_port": 4001}}})
    plain = write_site(tmp_path / "plain", {})
    written = {"default": (plain, "{{ etcd_port }}"), "range": (plain, "{{ etcd_range }}"), "option": (own, "{{etcd_port}}"), "number": (own, 1)}
    cases = {name: {"folder": str(site), "repository": str(collection(tmp_path / name, port))} for name, (site, port) in written.items()}
    assert ports.apply(cases=cases).code == 0
    made = ports.outputs()["made"]
    assert {name: made[name]["ports"][0]["port"] for name in cases} == {"default": "2379", "range": "100-200", "option": "4001", "number": "1"}
    # A component that is not chosen has no nodes.
    assert made["default"]["rules"]["control"]["tcp-2379"]["from_classes"] == ["control"]

    written = {"list": (plain, "{{ etcd_ports }}"), "sum": (plain, "{{ etcd_port + 1 }}"), "unknown": (plain, "{{ nothing }}")}
    cases = {name: {"folder": str(site), "repository": str(collection(tmp_path / name, port))} for name, (site, port) in written.items()}
    problems = ports.plan(cases=cases).problems
    for _, port in written.values():
        only(problems, f"roles/etcd/meta/component.yml: client is {port}", "Allowed: a number, a range, or one variable")


def test_sites_that_no_machines_can_be_made_for(ports: Workspace, tmp_path: Path) -> None:
    sites: dict[str, tuple[dict[str, Any], list[str]]] = {
        "stack": ({"stack": "tectonics"}, ['stack is "tectonics", and there is no such file in stacks/']),
        "slots": ({"stack": "slots"}, ['stack is "slots", and there is no such file']),
        "component": ({"slots": {"overlay": "flanel"}}, ["name components that do not exist: flanel.", "Allowed: alertmanager, api_balancer"]),
        "planned": ({"stack": "nomad"}, ["name components that do not exist:", "nomad"]),
        "name": ({"site": "Prod"}, ['site is "Prod". Allowed: 1 to 20 small letters']),
        "domain": ({"domain": None}, ["domain is missing."]),
        "admin": ({"networks": {"admin": ["203.0.113.7/24"]}}, ['networks.admin is ["203.0.113.7/24"]', "CIDR notation"]),
        "word": ({"networks": {"admin": ["office"]}}, ['networks.admin is ["office"]']),
        "overlap": ({"networks": {"pods": "10.0.0.0/9"}}, ["The nodes' network 10.20.0.0/16 overlaps networks.pods"]),
        "gateway": ({"networks": {"admin": ["203.0.113.0/24"]}}, ["without 10.20.0.0/20 (the bastion)", "Add it to networks.admin."]),
    }
    cases: dict[str, Any] = {name: {"folder": str(write_site(tmp_path / name, changes))} for name, (changes, _) in sites.items()}
    cases["overlap"] |= {"network": "10.20.0.0/16"}
    cases["gateway"] |= {"gateways": {"the bastion": "10.20.0.0/20"}}
    cases["nowhere"] = {"folder": str(tmp_path / "nowhere")}
    (write_site(tmp_path / "yaml", {}) / "20-stack.yml").write_text("site: [")
    cases["yaml"] = {"folder": str(tmp_path / "yaml")}
    cases["network"] = {"folder": str(write_site(tmp_path / "network", {})), "network": "10.20.0.1/16"}
    cases["inside"] = {"folder": str(write_site(tmp_path / "inside", {"networks": {"admin": ["10.0.0.0/8"]}})), "gateways": {"the bastion": "10.20.0.0/20"}}
    result = ports.plan(cases=cases)
    for name, (_, words) in sites.items():
        only(result.problems, *words, *([f"/{name}/20-stack.yml"] if name != "overlap" else []))
    only(result.problems, "There is no site file", "/nowhere/20-stack.yml")
    only(result.problems, "/yaml/20-stack.yml is not valid YAML")
    only(result.problems, 'network_cidr is "10.20.0.1/16"')
    assert not [problem for problem in result.problems if "/inside/" in problem]


# -- contract -------------------------------------------------------------------------------------------------------------------------------

CONTRACT = """
variable "nodes" { type = any }
module "contract" {
  source = "../modules/contract"
  nodes  = var.nodes
}
output "nodes" { value = module.contract.nodes }
"""

LATER = """
resource "terraform_data" "machine" { input = { private_ip = "10.0.0.300", id = "i-1" } }
module "contract" {
  source = "../modules/contract"
  nodes  = { one = { id = terraform_data.machine.output.id, classes = ["worker"], private_ip = terraform_data.machine.output.private_ip, user = "a" } }
}
output "nodes" { value = module.contract.nodes }
"""


@pytest.fixture(scope="module")
def contract(scratch: Scratch) -> Workspace:
    return scratch("scratch-contract", CONTRACT)


def machine(**changes: Any) -> dict[str, Any]:
    return {"classes": ["worker"], "private_ip": "10.0.0.1", "user": "ashlar", **changes}


def without(key: str) -> dict[str, Any]:
    return {name: value for name, value in machine().items() if name != key}


BASTION = {"host": "b.example.com", "user": "jump"}
VOLUME = {"name": "data", "size_gib": 10, "device": "/dev/sdb"}
RIGHT: dict[str, dict[str, Any]] = {
    "least": machine(),
    "nulls": machine(
        id=None,
        public_ip=None,
        port=None,
        zone=None,
        region=None,
        labels=None,
        volumes=None,
        bastion=None,
        ssh_host_keys=None,
        load_balancers=None,
        management=None,
    ),
    "most": machine(
        id="i-1",
        classes=["control", "worker", "edge", "storage"],
        public_ip="198.51.100.255",
        user="_a.b-1",
        port=2222,
        zone="eu-1a",
        region="eu-1",
        labels={"a": "b", "example.com/c": ""},
        volumes=[VOLUME, VOLUME | {"name": "b"}],
        bastion=BASTION | {"port": 23},
        ssh_host_keys=["ssh-ed25519 AAAA", "ssh-rsa AAAA==", "ecdsa-sha2-nistp256 AA+/"],
        load_balancers={"edge": "198.51.100.1", "control": "lb.example.com"},
        management={"protocol": "redfish", "address": "https://192.0.2.1"},
    ),
    "empties": machine(labels={}, volumes=[], ssh_host_keys=[], load_balancers={}),
    "dotted.name-1": machine(management={"protocol": "ipmi", "address": "192.0.2.1"}, bastion=BASTION | {"port": None}),
}
WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "w1": (without("classes"), "classes is null"),
    "w2": (machine(classes=[]), "classes is []"),
    "w3": (machine(classes=["master"]), 'classes is ["master"]'),
    "w4": (machine(classes=["edge", "edge"]), "each once"),
    "w5": (machine(classes="worker"), 'classes is "worker"'),
    "w6": (without("private_ip"), "private_ip is null"),
    "w7": (machine(private_ip="10.0.0.256"), 'private_ip is "10.0.0.256". Allowed: an IPv4 address'),
    "w8": (machine(private_ip="fd00::1"), "private_ip is"),
    "w9": (machine(private_ip="10.0.0.1/24"), "private_ip is"),
    "w10": (machine(public_ip=""), 'public_ip is ""'),
    "w11": (machine(public_ip="host.example.com"), "public_ip is"),
    "w12": (without("user"), "user is null"),
    "w13": (machine(user="Admin"), 'user is "Admin"'),
    "w14": (machine(user=""), 'user is ""'),
    "w15": (machine(port=0), "port is 0"),
    "w16": (machine(port=65536), "port is 65536"),
    "w17": (machine(port=22.5), "port is 22.5"),
    "w18": (machine(port="22"), 'port is "22"'),
    "w19": (machine(zone=""), 'zone is ""'),
    "w20": (machine(zone="a b"), 'zone is "a b"'),
    "w20r": (machine(region="a b"), 'region is "a b"'),
    "w21": (machine(labels={"a": "x" * 64}), "labels is"),
    "w22": (machine(labels={"a": 1}), 'labels is {"a":1}'),
    "w23": (machine(labels=["a"]), 'labels is ["a"]'),
    "w24": (machine(volumes=[{"name": "data", "size_gib": 1}]), "volumes is"),
    "w25": (machine(volumes=[VOLUME | {"size_gib": 0}]), "volumes is"),
    "w26": (machine(volumes=[VOLUME | {"device": "sdb"}]), "volumes is"),
    "w27": (machine(volumes=[VOLUME | {"name": "Data"}]), "volumes is"),
    "w28": (machine(volumes=[VOLUME | {"type": "ssd"}]), "volumes is"),
    "w29": (machine(volumes=VOLUME), "volumes is"),
    "w30": (machine(bastion={"host": "b"}), "bastion is"),
    "w31": (machine(bastion=BASTION | {"port": 0}), "bastion is"),
    "w32": (machine(bastion=BASTION | {"key": "x"}), "bastion is"),
    "w33": (machine(bastion=BASTION | {"user": "Root"}), "bastion is"),
    "w34": (machine(bastion="b.example.com"), "bastion is"),
    "w35": (machine(ssh_host_keys=["AAAA"]), "ssh_host_keys is"),
    "w36": (machine(ssh_host_keys="ssh-ed25519 AAAA"), "ssh_host_keys is"),
    "w37": (machine(ssh_host_keys=["ssh-ed25519 AAAA comment"]), "ssh_host_keys is"),
    "w38": (machine(load_balancers={"front": "a"}), "load_balancers is"),
    "w39": (machine(load_balancers={"edge": ""}), "load_balancers is"),
    "w40": (machine(management={"protocol": "ssh", "address": "a"}), "management is"),
    "w41": (machine(management={"protocol": "ipmi"}), "management is"),
    "w42": (machine(management={"protocol": "ipmi", "address": "a", "password": "x"}), "management is"),
    "w43": (machine(id=""), 'id is ""'),
    "w44": (machine(id=1), "id is 1"),
    "w45": (machine(name="x"), "its attributes are more than there are: name"),
    "Bad_Name": (machine(), 'its name is "Bad_Name"'),
    "w46-": (machine(), 'its name is "w46-"'),
    "w47": (machine(zone=1), "zone is 1"),
    "w48": (machine(bastion=BASTION | {"port": "22"}), "bastion is"),
}


def breaks_schema(name: str, node: dict[str, Any]) -> bool:
    schema = json.loads((ROOT / "schemas/machines.json").read_text())
    checker = jsonschema.FormatChecker()
    return not jsonschema.Draft202012Validator(schema, format_checker=checker).is_valid({name: node})


def test_the_contract_refuses_what_the_schema_refuses(contract: Workspace) -> None:
    assert [name for name, (node, _) in WRONG.items() if not breaks_schema(name, node)] == []
    result = contract.plan(nodes={name: node for name, (node, _) in WRONG.items()} | RIGHT)
    assert result.code == 1 and len(result.problems) == 1
    said = result.problems[0]
    assert "schemas/machines.json" in said
    for name, (_, words) in WRONG.items():
        assert said.count(f"Node {name}: ") == 1
        sentence = said.split(f"Node {name}: ")[1].split(" Node ")[0]
        assert words in sentence and ("Allowed: " in sentence), (name, sentence)
    assert not [name for name in RIGHT if f"Node {name}: " in said]


def test_the_contract_passes_on_what_the_schema_allows(contract: Workspace) -> None:
    assert [name for name, node in RIGHT.items() if breaks_schema(name, node)] == []
    assert contract.apply(nodes=RIGHT).code == 0
    made = contract.outputs()["nodes"]
    attributes = json.loads((ROOT / "schemas/machines.json").read_text())["$defs"]["machine"]["properties"]
    assert {name: sorted(node) for name, node in made.items()} == {name: sorted(attributes) for name in RIGHT}
    for name, node in RIGHT.items():
        kept = {key: value for key, value in made[name].items() if value is not None or node.get(key) is not None}
        given = {key: value for key, value in node.items() if value is not None}
        if "bastion" in given:
            given["bastion"] = {"port": None, **given["bastion"]}
        assert kept == given
        assert not breaks_schema(name, made[name])


def test_the_contract_waits_for_what_is_known_later(scratch: Scratch) -> None:
    later = scratch("scratch-later", LATER)
    assert later.plan().code == 0
    assert 'private_ip is "10.0.0.300"' in only(later.apply().problems, "Node one")


# -- login ----------------------------------------------------------------------------------------------------------------------------------

LOGIN = """
variable "cases" { type = any }
module "login" {
  source          = "../modules/login"
  for_each        = var.cases
  user            = try(each.value.user, "ashlar")
  public_key      = try(each.value.key, null)
  public_key_file = try(each.value.file, null)
  site_folder     = try(each.value.site, null)
}
output "made" { value = module.login }
"""


@pytest.fixture(scope="module")
def login(scratch: Scratch) -> Workspace:
    return scratch("scratch-login", LOGIN)


def test_cloud_init_is_for_the_login_and_nothing_else(login: Workspace, tmp_path: Path) -> None:
    (tmp_path / "credentials" / "ssh").mkdir(parents=True)
    (tmp_path / "credentials" / "ssh" / "id_ed25519.pub").write_text(KEY)
    (tmp_path / "other.pub").write_text("ssh-rsa AAAA other@example: x")
    assert login.apply(cases={"site": {"site": str(tmp_path)}, "file": {"file": str(tmp_path / "other.pub"), "user": "ops"}, "key": {"key": KEY}}).code == 0
    made = login.outputs()["made"]
    assert made["site"] == made["key"]
    assert made["site"]["public_key"] == KEY.strip()
    assert made["site"]["user_data"].startswith("#cloud-config\n")
    assert yaml.safe_load(made["file"]["user_data"]) == {
        "users": [
            {
                "name": "ops",
                "gecos": "Ansible",
                "shell": "/bin/bash",
                "sudo": "ALL=(ALL) NOPASSWD:ALL",
                "lock_passwd": True,
                "ssh_authorized_keys": ["ssh-rsa AAAA other@example: x"],
            }
        ],
        "ssh_pwauth": False,
        "disable_root": True,
        "package_update": False,
        "package_upgrade": False,
    }


def test_logins_that_nobody_could_use_are_refused(login: Workspace, tmp_path: Path) -> None:
    (tmp_path / "id_ed25519").write_text("-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n")
    cases = {"none": {"site": "inventories/x"}, "secret": {"file": str(tmp_path / "id_ed25519")}, "two": {"key": KEY + KEY}, "nothing": {}}
    problems = login.plan(cases=cases).problems
    missing = only(problems, "There is no SSH public key inventories/x/credentials/ssh/id_ed25519.pub")
    assert "ssh-keygen -q -t ed25519 -N '' -f inventories/x/credentials/ssh/id_ed25519" in missing
    assert "never the private key" in only(problems, f"{tmp_path}/id_ed25519 holds no SSH public key")
    only(problems, "public_key holds no SSH public key")
    assert len(problems) == 4
    for user in ("root", "Admin", ""):
        only(login.plan(cases={"a": {"key": KEY, "user": user}}).problems, f'user is "{user}"')
