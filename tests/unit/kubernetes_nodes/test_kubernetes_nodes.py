# SPDX-License-Identifier: Apache-2.0
"""What nodes are given, what is left alone, and how long is waited for them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from ansible_collections.ashlar.stack.plugins.module_utils.kubernetes_nodes import APPLIED, NO_LOAD_BALANCER, lacking, patch, story, wanted
from ansible_collections.ashlar.stack.plugins.modules import kubernetes_nodes
from kubernetes.client.exceptions import ApiException

ROLE = "node-role.kubernetes.io/"
READY = {"type": "Ready", "status": "True"}


def live(name: str = "a", labels: dict[str, str] | None = None, taints: list[dict[str, str]] | None = None, **annotations: str) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "resourceVersion": "7", "labels": labels or {}, "annotations": {"flannel": "x", **annotations}},
        "spec": {"taints": taints} if taints else {},
        "status": {"conditions": [READY]},
    }


def merged(node: dict[str, Any], body: dict[str, Any]) -> dict[str, Any]:
    """As the API does it (RFC 7386)."""

    def merge(old: Any, new: Any) -> Any:
        if not isinstance(new, dict):
            return new
        result = dict(old) if isinstance(old, dict) else {}
        for key, value in new.items():
            if value is None:
                result.pop(key, None)
            else:
                result[key] = merge(result.get(key), value)
        return result

    return dict(merge(node, body))


def brought(node: dict[str, Any], **site: Any) -> dict[str, Any]:
    """The node after its patch, after which nothing is left to do."""
    target = wanted({"zone": "", "region": "", "labels": {}, **site})
    after = merged(node, patch(node, target))
    assert patch(after, target) == {}, "a second run changes nothing"
    return after


@pytest.mark.parametrize(
    ("classes", "roles", "taints"),
    [
        (["control", "worker"], ["control-plane", "worker"], []),
        (["worker"], ["worker"], []),
        (["control"], ["control-plane"], ["control-plane"]),
        (["edge"], ["edge"], ["edge"]),
        (["control", "edge"], ["control-plane", "edge"], ["control-plane", "edge"]),
        (["storage", "worker"], ["storage", "worker"], []),
    ],
)
def test_a_node_has_the_roles_of_its_classes_and_repels_applications_unless_it_is_a_worker(classes: list[str], roles: list[str], taints: list[str]) -> None:
    after = brought(live(), classes=classes)
    assert {label for label in after["metadata"]["labels"] if label.startswith(ROLE)} == {ROLE + role for role in roles}
    assert after["spec"].get("taints", []) == [{"key": ROLE + key, "effect": "NoSchedule"} for key in taints]


def test_zone_region_and_labels_are_the_site_files() -> None:
    labels = brought(live(), classes=["worker"], zone="z1", region="r1", labels={"disk": "ssd"})["metadata"]["labels"]
    assert labels == {ROLE + "worker": "", "topology.kubernetes.io/zone": "z1", "topology.kubernetes.io/region": "r1", "disk": "ssd"}


def test_roles_of_the_sites_own_are_set_and_go_with_their_line() -> None:
    node = brought(live(), classes=["worker"], labels={ROLE + "gpu": ""})
    assert node["metadata"]["labels"] == {ROLE + "worker": "", ROLE + "gpu": ""}
    assert brought(node, classes=["worker"])["metadata"]["labels"] == {ROLE + "worker": ""}


def test_control_nodes_stay_out_of_external_load_balancers_unless_applications_run_there() -> None:
    assert NO_LOAD_BALANCER in brought(live(), classes=["control"])["metadata"]["labels"]
    assert NO_LOAD_BALANCER not in brought(live(), classes=["control", "worker"])["metadata"]["labels"]


def test_what_others_have_set_stays() -> None:
    taints = [{"key": "gpu", "value": "yes", "effect": "NoSchedule"}, {"key": "node.kubernetes.io/not-ready", "effect": "NoExecute"}]
    node = brought(live(labels={"by": "hand"}, taints=taints), classes=["control"], labels={"disk": "ssd"})
    node = brought(node, classes=["worker"])
    assert node["metadata"]["labels"] == {"by": "hand", ROLE + "worker": ""}
    assert node["metadata"]["annotations"]["flannel"] == "x"
    assert node["spec"]["taints"] == taints


def test_what_the_site_file_no_longer_has_goes() -> None:
    node = brought(live(), classes=["control", "edge"], zone="z1", labels={"disk": "ssd"})
    node = brought(node, classes=["worker"], zone="z2")
    assert node["metadata"]["labels"] == {ROLE + "worker": "", "topology.kubernetes.io/zone": "z2"}
    assert node["spec"]["taints"] == []


def test_a_value_changed_by_hand_is_the_site_files_again() -> None:
    node = brought(live(), classes=["worker"], labels={"disk": "ssd"})
    node["metadata"]["labels"]["disk"] = "tape"
    assert brought(node, classes=["worker"], labels={"disk": "ssd"})["metadata"]["labels"]["disk"] == "ssd"


def test_taints_are_replaced_only_if_nobody_changed_the_node_meanwhile() -> None:
    target = wanted({"classes": ["control"]})
    assert patch(live(), target)["metadata"]["resourceVersion"] == "7"
    assert "resourceVersion" not in patch(live(taints=[{"key": ROLE + "control-plane", "effect": "NoSchedule"}]), target)["metadata"]


@pytest.mark.parametrize("text", ["", "no json", "[]", '{"labels": 3}', "null"])
def test_a_damaged_memory_is_no_memory(text: str) -> None:
    after = brought(live(**{APPLIED: text}), classes=["worker"])
    assert json.loads(after["metadata"]["annotations"][APPLIED]) == {"labels": [ROLE + "worker"], "taints": []}


def test_who_is_missing_and_why() -> None:
    silent = {"type": "Ready", "status": "False", "message": "container runtime network not ready"}
    nodes = {"a": live(), "b": {"status": {"conditions": [silent]}}, "c": {"status": {}}}
    reasons = lacking(["a", "b", "c", "d"], nodes)
    assert reasons == {"b": "is not Ready: container runtime network not ready", "c": "has not reported yet", "d": "has not registered"}
    text = story(reasons, 4, 600)
    assert text.startswith("1 of 4 nodes are Ready after 600 s")
    assert "- d has not registered\n" in text


class Api:
    """A cluster whose nodes appear one look after another."""

    def __init__(self, looks: list[Any]) -> None:
        self.looks, self.asked, self.patched = looks, 0, list[str]()

    def resource(self, kind: str, version: str) -> str:
        return f"{version}/{kind}"

    def get(self, resource: str, serialize: bool) -> Any:
        look = self.looks[min(self.asked, len(self.looks) - 1)]
        self.asked += 1
        if isinstance(look, Exception):
            raise look
        return type("Answer", (), {"data": json.dumps({"items": look})})

    def patch(self, resource: str, body: Any, name: str, **options: Any) -> None:
        self.patched.append(name)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kubernetes_nodes, "PAUSE", 0)


TWO = {"a": {"classes": ["worker"]}, "b": {"classes": ["worker"]}}


def test_nodes_are_labelled_as_they_come_and_waited_for() -> None:
    done = live("a", {ROLE + "worker": ""}, **{APPLIED: json.dumps({"labels": [ROLE + "worker"], "taints": []})})
    api = Api([OSError("refused"), [], ApiException(status=503), [live("a")], [done, live("b")]])
    nodes = kubernetes_nodes.Nodes(api, TWO)
    assert kubernetes_nodes.wait(nodes, 60) == {}
    assert api.patched == ["a", "b"]


def test_waiting_ends_when_time_is_up_and_at_once_when_the_api_refuses() -> None:
    assert kubernetes_nodes.wait(kubernetes_nodes.Nodes(Api([[live("a")]]), TWO), 0) == {"b": "has not registered"}
    api = Api([ApiException(status=403)])
    with pytest.raises(ApiException):
        kubernetes_nodes.wait(kubernetes_nodes.Nodes(api, TWO), 60)
    assert api.asked == 1
