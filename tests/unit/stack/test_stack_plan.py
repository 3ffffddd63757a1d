# SPDX-License-Identifier: Apache-2.0
"""What a right site becomes: groups, variables of all hosts, variables of each host."""

from __future__ import annotations

import re
from collections.abc import Callable
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible import context
from ansible.errors import AnsibleParserError
from ansible.inventory.data import InventoryData
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar
from ansible_collections.ashlar.stack.plugins.inventory import stack as plugin
from ansible_collections.ashlar.stack.plugins.plugin_utils.site.catalogue import load
from ansible_collections.ashlar.stack.plugins.plugin_utils.site.choice import in_order
from ansible_collections.ashlar.stack.plugins.plugin_utils.site.compile import _node_variables, clients_of, contributions_of, page_of, plan_site
from ansible_collections.ashlar.stack.plugins.plugin_utils.site.models import Manifest, SiteError
from ansible_collections.ashlar.stack.plugins.plugin_utils.site.nodes import RawNode
from sites import SITE, inventory_of, write_site

Planned = Callable[..., InventoryData]
ALL = ["node1", "node2", "node3"]
WORKER = {"node_address": "192.0.2.14", "node_classes": ["worker"]}


@pytest.fixture
def planned(collection: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Planned:
    """Plans a site that is right but for what is given, and returns the inventory."""
    return lambda **changes: inventory_of(write_site(tmp_path / "site", **changes), collection, monkeypatch)


def members(inventory: InventoryData, group: str) -> list[str]:
    return [host.name for host in inventory.groups[group].get_hosts()]


def shared(inventory: InventoryData) -> dict[str, Any]:
    return dict(inventory.groups["all"].vars)


def test_each_component_and_class_is_a_group_and_what_is_not_chosen_is_empty(planned: Planned) -> None:
    inventory = planned(nodes={"node4": WORKER})
    assert members(inventory, "control") == ALL
    assert members(inventory, "worker") == [*ALL, "node4"]
    assert members(inventory, "etcd") == ALL
    assert members(inventory, "flannel") == [*ALL, "node4"]
    for empty in ("othernet", "sample", "edge", "storage"):
        assert members(inventory, empty) == []


def test_the_graph_shows_components_in_the_order_they_go_down(planned: Planned) -> None:
    groups = list(planned().groups)
    order = [name for name in groups if name in ("base", "containerd", "etcd", "kubernetes_node", "flannel", "metrics_server", "othernet")]
    assert order == ["base", "containerd", "etcd", "kubernetes_node", "flannel", "metrics_server", "othernet"]


def test_counts_place_a_component_on_the_first_nodes_of_its_class(planned: Planned) -> None:
    inventory = planned(site={"extras": ["sample"]})
    assert members(inventory, "metrics_server") == ["node1", "node2"]
    assert members(inventory, "sample") == ["node1"]


def test_variables_of_all_hosts(planned: Planned, tmp_path: Path) -> None:
    variables = shared(planned(nodes={"node3": {"node_zone": "b", "node_labels": {"disk": "ssd", "node-role.kubernetes.io/gpu": ""}}}))
    assert variables["site_name"] == "prod"
    assert variables["site_domain"] == "prod.example.com"
    assert variables["site_stack"] == "tectonic"
    assert variables["site_release"] == "2026.11"
    assert variables["site_directory"] == str(tmp_path / "site")
    assert variables["site_credentials"] == str(tmp_path / "site" / "credentials")
    assert variables["site_checksums"] == "published"
    assert variables["site_networks"] == {"pods": "10.244.0.0/16", "services": "10.96.0.0/16", "admin": ["0.0.0.0/0"]}
    assert variables["network_kinds"] == {"containers": ["pods"], "virtual": ["services"]}
    assert variables["site_nodes"]["node1"] == {"address": "192.0.2.11", "classes": ["control", "worker"], "zone": "", "region": "", "labels": {}}
    labels = {"disk": "ssd", "node-role.kubernetes.io/gpu": ""}
    assert variables["site_nodes"]["node3"] == {"address": "192.0.2.13", "classes": ["control", "worker"], "zone": "b", "region": "", "labels": labels}
    assert variables["site_components"][:3] == ["base", "containerd", "etcd"]
    assert variables["artifact_versions"]["kubernetes"] == "1.36.3"
    assert set(variables["artifact_versions"]) == {"containerd", "coredns", "etcd", "flannel", "haproxy", "kubernetes"}
    assert variables["component_nodes"]["etcd"] == ALL
    assert variables["component_nodes"]["othernet"] == []
    about = {"description": "The key-value store.", "version": "3.7.3", "artifacts": ["etcd"], "units": [], "checked": True}
    assert variables["component_about"]["etcd"] == about
    assert variables["component_rolling"] == {
        "etcd": {"max_unavailable": 1, "members": ["node1"], "spare": {"component": "etcd", "name": "all answer", "tcp": "{{ node_address }}:2379"}}
    }, "of the group, not of all nodes"
    assert variables["component_holds"] == {"etcd": "all that Kubernetes knows"}
    tasks = {"removable": {}, "leave": {}, "drain": {"kubernetes_node": "drain"}, "resume": {"kubernetes_node": "resume"}, "forget": {}, "precheck": {}}
    tasks |= {"stop": {}, "backup": {}, "restore": {}, "restored": {}, "rotate": {}}
    assert variables["component_tasks"] == tasks
    assert variables["component_addresses"]["metrics_server"] == ["192.0.2.11", "192.0.2.12"]
    assert variables["endpoints"]["etcd"]["client"] == ["192.0.2.11:2379", "192.0.2.12:2379", "192.0.2.13:2379"]
    assert "node-ports" not in variables["endpoints"]["kubernetes_node"], "a range is not an endpoint"


def test_variables_of_one_host(planned: Planned) -> None:
    inventory = planned(nodes={"node4": WORKER})
    control, worker = inventory.hosts["node1"].vars, inventory.hosts["node4"].vars
    assert worker["node_components"] == ["base", "containerd", "api_balancer", "kubernetes_node", "coredns", "flannel"]
    assert worker["node_artifacts"] == ["containerd", "coredns", "flannel", "haproxy", "kubernetes"]
    assert (worker["node_kernel"], control["node_kernel"]) == (["overlay"], ["br_netfilter", "overlay"])
    assert worker["node_certificates"] == [] == worker["node_health"] == worker["node_authorities"]
    range_ = {"component": "kubernetes_node", "name": "node-ports", "port": "30000-32767", "protocol": "tcp", "from": ["any"], "published": True}
    assert range_ in worker["node_ports"]
    assert {"component": "etcd", "name": "peer", "port": 2380, "protocol": "tcp", "from": ["etcd"]} in control["node_ports"]
    assert control["node_authorities"] == ["etcd"], "kubernetes signs nothing on this site"
    assert [(check["component"], check["name"]) for check in control["node_health"]] == [("etcd", "etcd answers")]


def test_certificates_and_health_checks_are_templates_of_the_host(planned: Planned) -> None:
    variables = planned().hosts["node2"].vars
    templar = Templar(loader=DataLoader(), variables={**variables, "inventory_hostname": "node2"})
    certificate = templar.template(variables["node_certificates"])[0]
    assert (certificate["common_name"], certificate["addresses"]) == ("node2", ["192.0.2.12"])
    assert templar.template(variables["node_warnings"]) == [{"component": "etcd", "name": "etcd has room", "command": ["df", "192.0.2.12"]}]
    assert templar.template(variables["node_health"])[0]["url"] == "https://192.0.2.12:2379/health"


def test_what_is_measured_is_known_of_the_site_and_in_full_of_the_node_only(planned: Planned) -> None:
    inventory = planned(nodes={"node4": WORKER})
    assert shared(inventory)["site_metrics"] == [
        {"component": "etcd", "name": "server", "drop": "etcd_debugging_.*"},
        {"component": "etcd", "name": "proxy"},
    ], "no address, certificate or header, which may be secret"
    variables = inventory.hosts["node2"].vars
    templar = Templar(loader=DataLoader(), variables={**shared(inventory), **variables, "inventory_hostname": "node2"})
    server, proxy = templar.template(variables["node_metrics"])
    assert (server["component"], server["name"], server["url"]) == ("etcd", "server", "https://192.0.2.12:2379/metrics")
    assert (server["authority"], server["certificate"]) == ("etcd", "etcd/server")
    assert proxy["headers"] == {"X-Token": "of node2"}
    assert inventory.hosts["node4"].vars["node_metrics"] == []


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"name": "a", "url": "https://127.0.0.1:1/metrics"}, "without an authority"),
        ({"name": "a", "url": "http://127.0.0.1:1/metrics", "authority": "etcd"}, "or http without one"),
        ({"name": "a", "url": "http://127.0.0.1/metrics"}, "with a port and a path"),
        ({"name": "a", "url": "http://127.0.0.1:1/metrics", "drop": "(etcd_"}, "a regular expression"),
        ({"name": "a", "url": "http://127.0.0.1:1/metrics", "headers": {"X Token": "1"}}, "X Token"),
        ({"name": "server", "url": "http://127.0.0.1:1/metrics"}, 'two entries named "server"'),
    ],
)
def test_metrics_that_nobody_could_read_are_refused(collection: Path, tmp_path: Path, entry: dict[str, Any], said: str) -> None:
    file = tmp_path / "roles" / "etcd" / "meta" / "component.yml"
    file.parent.mkdir(parents=True)
    metrics = [{"name": "server", "url": "http://127.0.0.1:9/metrics"}, entry]
    file.write_text(yaml.safe_dump({"description": "The key-value store.", "layer": "coordination", "metrics": metrics}))
    for path in ("schemas", "stacks"):
        (tmp_path / path).symlink_to(collection / path)
    with pytest.raises(SiteError) as caught:
        load(tmp_path)
    assert [problem.file for problem in caught.value.problems] == [str(file)]
    assert said in caught.value.problems[0].text


def collection_of(root: Path, collection: Path, **manifests: dict[str, Any]) -> Path:
    """A collection of these components alone."""
    for name, manifest in manifests.items():
        file = root / "roles" / name / "meta" / "component.yml"
        file.parent.mkdir(parents=True)
        file.write_text(yaml.safe_dump({"description": "Something or other.", "layer": "coordination", **manifest}))
    for path in ("schemas", "stacks"):
        (root / path).symlink_to(collection / path)
    return root


ACCEPTS = {"accepts": {"tokens": "Purpose -> rules."}}


def test_contributions_reach_a_component_that_is_chosen_only(collection: Path, tmp_path: Path) -> None:
    edge = {"contributes": {"registry": {"tokens": {"edge": "read {{ site_name }}"}}}}
    manifests = load(collection_of(tmp_path, collection, registry=ACCEPTS, edge=edge, plain={})).manifests
    given, wrong = contributions_of([manifests["registry"], manifests["edge"]])
    assert (given, wrong) == ({"registry": {"tokens": {"edge": "read {{ site_name }}"}}}, [])
    assert contributions_of([manifests["registry"]])[0] == {"registry": {"tokens": {}}}
    assert contributions_of([manifests["edge"], manifests["plain"]])[0] == {}


def test_two_components_that_contribute_the_same_are_not_chosen_together(collection: Path, tmp_path: Path) -> None:
    edge = {"contributes": {"registry": {"tokens": {"edge": "read"}}}}
    manifests = load(collection_of(tmp_path, collection, registry=ACCEPTS, edge=edge, other=edge)).manifests
    assert contributions_of([manifests["registry"], manifests["other"]])[1] == []
    [problem] = contributions_of(list(manifests.values()))[1]
    assert problem.path == ("contributes", "registry", "tokens", "edge")
    assert "contributed by" in problem.text


@pytest.mark.parametrize(
    ("contributes", "said"),
    [
        ({"registri": {"tokens": {"edge": "read"}}}, 'is "registri", not a component. Did you mean "registry"?'),
        ({"registry": {"token": {"edge": "read"}}}, 'is nothing that registry accepts. Did you mean "tokens"? Allowed: tokens,'),
        ({"edge": {"tokens": {"edge": "read"}}}, "is nothing that edge accepts. Allowed: none,"),
    ],
)
def test_contributions_that_nobody_would_read_are_refused(collection: Path, tmp_path: Path, contributes: dict[str, Any], said: str) -> None:
    with pytest.raises(SiteError) as caught:
        load(collection_of(tmp_path, collection, registry=ACCEPTS, edge={"contributes": contributes}))
    [problem] = caught.value.problems
    assert said in problem.text


def client(name: str, **more: Any) -> dict[str, Any]:
    return {"certificates": [{"name": "client", "authority": "site", "usages": ["client"], "common_name": name, "permitted_by": ["store"], **more}]}


def test_who_is_let_in_follows_from_the_clients_that_are_chosen(collection: Path, tmp_path: Path) -> None:
    manifests = load(collection_of(tmp_path, collection, store={}, zoom=client("zoom"), page=client("the-page"))).manifests
    assert clients_of([manifests["zoom"], manifests["store"], manifests["page"]]) == {"zoom": [], "store": ["the-page", "zoom"], "page": []}
    assert clients_of([manifests["zoom"]]) == {"zoom": []}


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"permitted_by": ["stor"]}, 'is "stor", not a component. Did you mean "store"?'),
        ({"usages": ["server"], "dns": ["page"]}, "with the usage client"),
        ({"common_name": "{{ inventory_hostname }}"}, "a common_name that is no template"),
    ],
)
def test_clients_that_cannot_be_let_in_are_refused(collection: Path, tmp_path: Path, more: dict[str, Any], said: str) -> None:
    with pytest.raises(SiteError) as caught:
        load(collection_of(tmp_path, collection, store={}, page=client("page", **more)))
    [problem] = caught.value.problems
    assert said in problem.text


def test_components_share_the_sections_of_the_closing_page(collection: Path, tmp_path: Path) -> None:
    edge, sample = {"page": {"Edge": {"addresses": "{{ node_address }}"}}}, {"page": {"Sample": {"port": "1"}, "Edge": {"sample": "curl"}}}
    manifests = load(collection_of(tmp_path, collection, edge=edge, sample=sample)).manifests
    made = page_of([manifests["edge"], manifests["sample"]])
    assert made == {"Edge": {"addresses": "{{ node_address }}", "sample": "curl"}, "Sample": {"port": "1"}}
    assert list(made) == ["Edge", "Sample"]
    assert page_of([manifests["edge"]]) == edge["page"], "a manifest is not changed by what others add"


def test_options_and_defaults_are_variables_of_all_hosts(planned: Planned) -> None:
    variables = shared(planned(site={"options": {"etcd": {"etcd_snapshot_keep": 3}}}))
    assert variables["etcd_snapshot_keep"] == 3
    assert variables["etcd_log_level"] == "info"
    templar = Templar(loader=DataLoader(), variables=variables)
    assert templar.template(variables["kubernetes_control_cluster_domain"]) == "cluster.prod.example.com"


def test_a_variable_of_the_node_file_is_not_overridden_by_a_default(planned: Planned) -> None:
    nodes = "all:\n  vars: {etcd_log_level: debug}\n  hosts:\n    node1: {node_address: 192.0.2.11, node_classes: [control, worker]}\n"
    assert shared(planned(nodes_text=nodes))["etcd_log_level"] == "debug"


def test_an_option_may_be_a_template(planned: Planned) -> None:
    variables = shared(planned(site={"options": {"etcd": {"etcd_snapshot_keep": "{{ 3 + 4 }}"}}}))
    assert Templar(loader=DataLoader(), variables=variables).template(variables["etcd_snapshot_keep"]) == 7


def test_a_site_overrides_slots_networks_and_versions(planned: Planned) -> None:
    networks = {"pods": "172.16.0.0/16", "services": "172.20.0.0/20", "admin": ["203.0.113.0/24", "198.51.100.7/32"]}
    site = {"slots": {"overlay": "othernet", "monitoring": []}, "networks": networks, "versions": {"etcd": "3.6.8"}, "checksums": "pinned"}
    inventory = planned(site=site)
    variables = shared(inventory)
    assert members(inventory, "othernet") == ALL
    assert members(inventory, "flannel") == []
    assert members(inventory, "metrics_server") == []
    assert variables["site_networks"] == {**networks, "blocks": "10.3.0.0/16"}
    assert variables["artifact_versions"]["etcd"] == "3.6.8"
    assert variables["site_checksums"] == "pinned"


def test_a_stack_with_one_component_is_a_site(planned: Planned) -> None:
    own = {"stacks/only_etcd.yml": "name: only_etcd\ndescription: A key-value store and nothing else.\nslots: {key_value: etcd}\n"}
    inventory = planned(site={"stack": "only_etcd"}, files=own, nodes={name: {"node_classes": ["control"]} for name in ALL})
    assert shared(inventory)["site_components"] == ["base", "etcd"]
    assert shared(inventory)["artifact_versions"] == {"etcd": "3.7.3"}


def test_stack_and_release_beside_the_site_come_before_the_collections(planned: Planned) -> None:
    own = {
        "stacks/tectonic.yml": "name: tectonic\ndescription: A key-value store and nothing else.\nslots: {key_value: etcd}\n",
        "releases/2026.11.yml": 'versions: {etcd: "3.5.21"}\n',
    }
    variables = shared(planned(files=own))
    assert variables["site_components"] == ["base", "etcd"]
    assert variables["artifact_versions"] == {"etcd": "3.5.21"}


def test_a_program_of_ours_has_the_version_of_its_source_and_no_release_names_it(planned: Planned) -> None:
    own = {"stacks/homely.yml": "name: homely\ndescription: A program of ours and nothing else.\nslots: {dashboard: homely}\n"}
    versions = shared(planned(site={"stack": "homely"}, files=own))["artifact_versions"]
    assert re.fullmatch(r"own-[0-9a-f]{12}", versions["homely"])


@pytest.mark.parametrize(
    ("installed", "chosen"),
    [("1.35.4", "1.36.3"), ("1.36.3", "1.36.3"), ("1.36.9", "1.36.3")],
    ids=["the next minor version", "the same", "back by a patch version"],
)
def test_steps_that_kubernetes_survives(planned: Planned, installed: str, chosen: str) -> None:
    inventory = planned(files={"state/installed.json": f'{{"versions": {{"kubernetes": "{installed}"}}}}'})
    assert shared(inventory)["artifact_versions"]["kubernetes"] == chosen


OLD = '{"release": "2026.08", "versions": {"kubernetes": "1.35.4", "etcd": "3.7.3", "homely": "own-1"}}'
DRAINED = {node: ["kubernetes_node"] for node in ALL}
CHANGED = {"kubernetes": {"from": "1.35.4", "to": "1.36.3"}}


@pytest.mark.parametrize(
    ("installed", "begun", "expected"),
    [
        (None, None, {"release": "", "artifacts": {}, "begun": False, "left": {}}),
        ('{"versions": {"kubernetes": "1.36.3"}}', None, {"release": "", "artifacts": {}, "begun": False, "left": {}}),
        (OLD, None, {"release": "2026.08", "artifacts": CHANGED, "begun": False, "left": DRAINED}),
        (
            OLD,
            '{"versions": {"kubernetes": "1.36.3"}, "nodes": ["node2", "gone"]}',
            {"release": "2026.08", "artifacts": CHANGED, "begun": True, "left": {"node1": DRAINED["node1"], "node3": DRAINED["node3"]}},
        ),
        (OLD, '{"versions": {"kubernetes": "1.35.4"}, "nodes": ["node2"]}', {"release": "2026.08", "artifacts": CHANGED, "begun": False, "left": DRAINED}),
        (
            '{"release": "2026.11", "versions": {"kubernetes": "1.36.3"}}',
            '{"versions": {"kubernetes": "1.36.1"}, "nodes": ["node2"]}',
            {"release": "2026.11", "artifacts": {"kubernetes": {"from": "1.36.1", "to": "1.36.3"}}, "begun": False, "left": DRAINED},
        ),
        (
            '{"release": "2026.08", "versions": {"kubernetes": "1.36.3", "etcd": "3.6.8"}}',
            None,
            {
                "release": "2026.08",
                "artifacts": {"etcd": {"from": "3.6.8", "to": "3.7.3"}},
                "begun": False,
                "left": {"node2": ["kubernetes_node"], "node3": ["kubernetes_node"]},
            },
        ),
        (
            '{"release": "2026.08", "versions": {"kubernetes": "1.36.3", "coredns": "1.0.0"}}',
            None,
            {"release": "2026.08", "artifacts": {"coredns": {"from": "1.0.0", "to": "1.15.0"}}, "begun": False, "left": {node: [] for node in ALL}},
        ),
    ],
    ids=["a first run", "nothing changes", "a change", "one begun", "one completed", "one that is taken back", "of members", "of what disturbs no pod"],
)
def test_what_an_upgrade_has_to_do(planned: Planned, installed: str | None, begun: str | None, expected: dict[str, Any]) -> None:
    files = {f"state/{name}.json": text for name, text in (("installed", installed), ("upgrade", begun)) if text}
    assert shared(planned(files=files))["site_upgrade"] == expected


def test_a_node_is_described_by_group_vars_host_vars_and_templates_too(planned: Planned) -> None:
    inventory = planned(
        nodes_text="""
all:
  vars: {node_classes: [worker]}
  hosts:
    node1: {ansible_host: 192.0.2.11, node_classes: [control]}
    node2: {ansible_host: 192.0.2.12}
    node3: {}
  children:
    racks: {hosts: {node2: {}}, vars: {node_zone: r1}}
""",
        files={"group_vars/all.yml": 'node_address: "{{ ansible_host }}"\n', "host_vars/node3.yml": "node_address: 192.0.2.13\nnode_labels: {disk: ssd}\n"},
    )
    nodes = shared(inventory)["site_nodes"]
    assert nodes["node1"] == {"address": "192.0.2.11", "classes": ["control"], "zone": "", "region": "", "labels": {}}
    assert nodes["node2"] == {"address": "192.0.2.12", "classes": ["worker"], "zone": "r1", "region": "", "labels": {}}
    assert nodes["node3"] == {"address": "192.0.2.13", "classes": ["worker"], "zone": "", "region": "", "labels": {"disk": "ssd"}}


def test_the_default_credentials_of_a_run_are_accepted(planned: Planned) -> None:
    files = {"credentials/authorities/etcd/ca.key": "k", "credentials/authorities/etcd/ca.crt": "c"}
    planned(files=files, modes={"credentials": "0700", "credentials/authorities/etcd/ca.key": "0600", "credentials/authorities/etcd/ca.crt": "0644"})


def test_group_vars_may_set_known_options_and_what_is_nobodys(planned: Planned) -> None:
    planned(files={"group_vars/all.yml": "etcd_snapshot_keep: 3\nansible_user: admin\nour_own: 1\nkubernetes_colour: blue\n"})


def test_an_encrypted_group_vars_file_is_passed_over(tmp_path: Path, collection: Path) -> None:
    (tmp_path / "group_vars").mkdir()
    (tmp_path / "group_vars" / "all.yml").write_text("$ANSIBLE_VAULT;1.1;AES256\n6162\n")
    (tmp_path / "20-stack.yml").write_text("")
    plan_site(load(collection), SITE, tmp_path / "20-stack.yml", raw_nodes(3))


def test_what_is_claimed(tmp_path: Path) -> None:
    site = write_site(tmp_path / "site", files={"credentials/ca.key": "", "state/installed.json": "{}", "stacks/ours.yml": "", "other/file.yml": ""})
    reader = plugin.InventoryModule()
    claimed = ["20-stack.yml", "credentials/ca.key", "state/installed.json", "stacks/ours.yml"]
    assert [name for name in (*claimed, "10-nodes.yml", "other/file.yml") if reader.verify_file(str(site / name))] == claimed
    foreign = tmp_path / "aws-stack.yml"
    foreign.write_text("plugin: amazon.aws.aws_ec2\nstack: 1\n")
    assert not reader.verify_file(str(foreign))
    foreign.write_text("all: {hosts: {}}\n")
    assert not reader.verify_file(str(foreign))


def test_a_program_is_ended_even_where_ansible_would_go_on(planned: Planned, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(AnsibleParserError, match="no host was touched"):
        planned(site={"stack": "none"})
    monkeypatch.setattr(context, "CLIARGS", {"inventory": ["x"]})
    with pytest.raises(SystemExit) as ended:
        planned(site={"stack": "none"})
    assert ended.value.code == 4
    assert 'is "none", an unknown stack.' in capsys.readouterr().err


def test_circles_of_requirements_still_have_an_order() -> None:
    def manifest(name: str, layer: str, *requires: str) -> Manifest:
        return Manifest(name, name, layer, "", requires=requires)

    manifests = {
        "late": manifest("late", "management"),
        "after": manifest("after", "network", "zero"),
        "zero": manifest("zero", "network"),
        "chicken": manifest("chicken", "base", "egg"),
        "egg": manifest("egg", "base", "chicken"),
    }
    assert in_order(manifests, manifests) == ["chicken", "egg", "zero", "after", "late"]


def test_five_thousand_nodes_are_planned_once_for_each_kind(collection: Path, tmp_path: Path) -> None:
    (tmp_path / "20-stack.yml").write_text("")
    site = {**SITE, "networks": {"pods": "11.0.0.0/8"}}
    plan = plan_site(load(collection), site, tmp_path / "20-stack.yml", raw_nodes(5000))
    assert len(plan.groups["flannel"]) == 5000
    assert len({id(variables) for variables in plan.hosts.values()}) == 3, "hosts of one kind share their variables"


def test_a_manifest_that_names_a_port_of_a_component_that_is_not_there_is_said_with_all_others(collection: Path, tmp_path: Path) -> None:
    for name in ("first", "second"):
        (tmp_path / "roles" / name / "meta").mkdir(parents=True)
        (tmp_path / "roles" / name / "meta" / "component.yml").write_text("description: Something or other.\nlayer: top\n")
    (tmp_path / "schemas").symlink_to(collection / "schemas")
    (tmp_path / "stacks").symlink_to(collection / "stacks")
    with pytest.raises(SiteError) as caught:
        load(tmp_path)
    assert len(caught.value.problems) == 2


def raw_nodes(count: int) -> list[RawNode]:
    """``count`` nodes, the first three of which are control nodes."""
    first = IPv4Address("10.1.0.1")
    return [
        RawNode(f"node-{number}", {"node_address": str(first + number), "node_classes": ["control", "worker"] if number < 3 else ["worker"]}, "10-nodes.yml")
        for number in range(count)
    ]


def test_a_text_of_the_site_file_that_is_no_template_stays_none(collection: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As receivers of Alertmanager have it, whose own templates look alike."""
    text = yaml.safe_dump(SITE) + "options: {etcd: {etcd_extra_arguments: [!unsafe '{{ .CommonLabels.alertname }}', '{{ site_name }}']}}\n"
    variables = shared(inventory_of(write_site(tmp_path / "site", site_text=text), collection, monkeypatch))
    assert Templar(loader=DataLoader(), variables=variables).template(variables["etcd_extra_arguments"]) == ["{{ .CommonLabels.alertname }}", "prod"]


def test_ports_and_whom_they_are_open_to_may_be_options(planned: Planned) -> None:
    options = {"kubernetes_node": {"kubernetes_node_range": "31000-31999", "kubernetes_node_ports_from": ["pods", "etcd"]}}
    [port] = [port for port in planned(site={"options": options}).hosts["node1"].vars["node_ports"] if port["name"] == "node-ports"]
    assert (port["port"], port["from"]) == ("31000-31999", ["pods", "etcd"])


def test_a_unit_that_packages_bring_is_stopped_once_where_nobody_runs_it(collection: Path, tmp_path: Path) -> None:
    front = {"replaces": ["haproxy.service"]}
    edge = {"health": [{"name": "it runs", "unit": "haproxy.service"}]}
    manifests = load(collection_of(tmp_path, collection, front=front, other=front, edge=edge)).manifests
    replaced = [_node_variables([manifests[name] for name in names], names, ())["node_replaced"] for names in (["front", "other"], ["front", "edge"], ["edge"])]
    assert replaced == [{"front": ["haproxy.service"]}, {}, {}]
