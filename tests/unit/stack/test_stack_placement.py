# SPDX-License-Identifier: Apache-2.0
"""Placement is state: what is where stays there, and what a node carries and shall not is known."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from ansible.errors import AnsibleParserError
from ansible_collections.ashlar.stack.plugins.action.placement import ActionModule
from ansible_collections.ashlar.stack.plugins.plugin_utils.site.memory import PLACEMENT, recall
from sites import REPOSITORY, inventory_of, write_site

ALL = ["node1", "node2", "node3"]
FOURTH = {"node_address": "192.0.2.20", "node_classes": ["control", "worker"]}


def record(site: Path, inventory: Any, retired: list[str] | None = None, check: bool = False, removed: list[str] | None = None) -> dict[str, Any]:
    """The task of site.yml, with what the plan has."""
    variables = inventory.groups["all"].vars
    planned = {**variables["component_nodes"], **variables["component_groups"]}
    nodes = [*variables["site_nodes"], *variables["site_removed"]]
    arguments = {"directory": str(site), "planned": planned, "nodes": nodes, "retired": retired or [], "removed": removed or []}
    return ActionModule(SimpleNamespace(args=arguments, check_mode=check), None, None, None, None, None).act({})


def members(inventory: Any, group: str) -> list[str]:
    return [host.name for host in inventory.groups[group].get_hosts()]


@pytest.fixture
def plan(collection: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Plans the site of this test once more, right but for what is given."""
    return lambda **changes: inventory_of(write_site(tmp_path / "site", **changes), collection, monkeypatch)


def put_first(site: Path, name: str, variables: dict[str, Any]) -> None:
    content = yaml.safe_load((site / "10-nodes.yml").read_text())
    content["all"]["hosts"] = {name: variables, **content["all"]["hosts"]}
    (site / "10-nodes.yml").write_text(yaml.safe_dump(content, sort_keys=False))


def test_a_host_that_is_added_at_the_top_of_the_inventory_moves_nothing(plan: Any, collection: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = tmp_path / "site"
    before = plan()
    record(site, before)
    write_site(site)
    put_first(site, "node0", {**FOURTH, "node_classes": ["control", "worker"]})
    put_first(site, "node00", {**FOURTH, "node_address": "192.0.2.21"})
    after = inventory_of(site, collection, monkeypatch)
    assert members(after, "etcd")[:2] == ["node00", "node0"]
    assert members(after, "metrics_server") == members(before, "metrics_server") == ["node1", "node2"]
    assert members(after, "etcd_voters") == members(before, "etcd_voters") == ["node1"]
    assert members(after, "retiring") == []


def test_a_place_that_became_free_is_taken_by_the_first_other(plan: Any, tmp_path: Path) -> None:
    record(tmp_path / "site", plan())
    moved = plan(nodes={"node1": {"node_classes": ["worker"]}, "node4": FOURTH})
    assert members(moved, "metrics_server") == ["node2", "node3"]
    assert moved.hosts["node1"].vars["node_retiring"][0]["component"] == "metrics_server", "the last layer goes first"
    assert moved.groups["all"].vars["site_retiring"]["etcd"] == {"nodes": ["node1"], "holds": "all that Kubernetes knows"}
    assert moved.groups["all"].vars["site_retiring"]["etcd_voters"]["holds"] == "all that Kubernetes knows"


def test_what_is_no_longer_chosen_retires_until_its_nodes_are_free_of_it(plan: Any, tmp_path: Path) -> None:
    site = tmp_path / "site"
    record(site, plan())
    for _killed_run in range(2):
        changed = plan(site={"slots": {"overlay": "othernet"}})
        record(site, changed)
        assert members(changed, "retiring") == ALL
        assert changed.hosts["node1"].vars["node_retiring"] == [{"component": "flannel", "leftovers": {"interfaces": ["flannel.1"]}}]
    record(site, changed, ["node1", "node2"])
    assert members(plan(site={"slots": {"overlay": "othernet"}}), "retiring") == ["node3"]
    record(site, changed, ["node3"])
    assert members(plan(site={"slots": {"overlay": "othernet"}}), "retiring") == []
    assert "flannel" not in recall(REPOSITORY, site).carriers


def test_a_node_that_left_the_inventory_is_forgotten(plan: Any, tmp_path: Path) -> None:
    record(tmp_path / "site", plan(nodes={"node4": {**FOURTH, "node_classes": ["worker"]}}))
    record(tmp_path / "site", plan())
    assert "node4" not in (tmp_path / "site" / PLACEMENT).read_text()


def test_the_file_is_short_changes_only_with_the_placement_and_never_in_check_mode(plan: Any, tmp_path: Path) -> None:
    site = tmp_path / "site"
    inventory = plan()
    assert record(site, inventory, check=True)["changed"]
    assert not (site / PLACEMENT).exists()
    assert record(site, inventory)["changed"]
    content = yaml.safe_load((site / PLACEMENT).read_text())
    assert content["nodes"] == ALL
    assert (content["components"]["flannel"], content["components"]["metrics_server"]) == ("all", ["node1", "node2"])
    assert not record(site, inventory)["changed"]
    assert [path.name for path in (site / "state").iterdir()] == ["placement.yml"]


def test_the_limit_of_a_group_is_an_option_and_stays_odd(plan: Any) -> None:
    assert members(plan(site={"options": {"etcd": {"etcd_voters_max": 2}}}), "etcd_voters") == ["node1"]
    assert members(plan(site={"options": {"etcd": {"etcd_voters_max": 5}}}), "etcd_voters") == ALL


def test_the_limit_of_a_group_may_be_in_group_vars(plan: Any) -> None:
    assert members(plan(files={"group_vars/all.yml": "etcd_voters_max: 3\n"}), "etcd_voters") == ALL


WORKER = {**FOURTH, "node_classes": ["worker"]}


def test_a_node_that_was_removed_carries_nothing_though_it_is_still_in_the_inventory(plan: Any, tmp_path: Path) -> None:
    site = tmp_path / "site"
    before = plan(nodes={"node4": WORKER})
    record(site, before)
    record(site, before, removed=["node4"])
    for _killed_run in range(2):
        after = plan(nodes={"node4": WORKER})
        record(site, after)
        assert members(after, "nodes") == ALL and "node4" not in after.groups["all"].vars["site_nodes"]
        assert (members(after, "retiring"), after.groups["all"].vars["site_removed"]) == (["node4"], ["node4"])
        leaves = [each["component"] for each in after.hosts["node4"].vars["node_retiring"]]
        assert {"base", "kubernetes_node", "containerd"} <= set(leaves) and leaves[-1] == "base", "all of it, the first layer last"
        assert after.hosts["node4"].vars["node_components"] == []
    record(site, after, retired=["node4"])
    done = plan(nodes={"node4": WORKER})
    assert members(done, "retiring") == [] and members(done, "kubernetes_node") == ALL, "it does not come back by itself"
    record(site, plan())
    assert "removed" not in (site / PLACEMENT).read_text(), "one that left the inventory may come back under its name"


def test_who_removes_a_node_need_not_agree_to_lose_what_it_holds(plan: Any, tmp_path: Path) -> None:
    site = tmp_path / "site"
    more = {"node4": FOURTH, "node5": {**FOURTH, "node_address": "192.0.2.21"}}
    record(site, before := plan(nodes=more))
    record(site, before, removed=["node4", "node5"])
    assert plan(nodes=more).groups["all"].vars["site_retiring"]["etcd"] == {"nodes": ["node4", "node5"], "holds": ""}


def test_whether_a_node_can_be_removed_is_seen_before_it_is(plan: Any, tmp_path: Path) -> None:
    def without(names: str) -> Any:
        return plan(files={"group_vars/all.yml": f"site_removing: {names}\n"})

    record(tmp_path / "site", without("''"))
    with pytest.raises(AnsibleParserError, match="2 nodes have the class control, node1 and node2: an even number"):
        without("node3")
    changed = without("node2,node3")
    assert (members(changed, "nodes"), members(changed, "retiring")) == (["node1"], ["node2", "node3"])
