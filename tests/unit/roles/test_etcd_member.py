# SPDX-License-Identifier: Apache-2.0
"""A member of etcd leaves without a pause for those who write."""

from __future__ import annotations

from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).parents[3] / "roles/etcd/templates/usr/local/libexec/ashlar/etcd-member"
NUMBERS = {"a": 10, "b": 11, "c": 12}


@pytest.fixture
def script() -> ModuleType:
    spec = spec_from_loader("etcd_member", SourceFileLoader("etcd_member", str(SCRIPT)))
    assert spec and spec.loader
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("leads", "refuses", "expected"),
    [
        ("a", [], ["move-leader b", "member remove a"]),
        ("a", ["b"], ["move-leader b", "move-leader c", "member remove a"]),
        ("c", [], ["move-leader b", "move-leader c", "member remove a"]),
    ],
    ids=["it leads", "the first one can't lead", "another one leads"],
)
def test_a_leader_hands_over_before_it_leaves(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, leads: str, refuses: list[str], expected: list[str]
) -> None:
    nodes = {name: {"peer": f"https://{name}:2380", "client": f"https://{name}:2379"} for name in NUMBERS}
    members = [{"id": NUMBERS[name], "name": name, "peerURLs": [urls["peer"]], "clientURLs": [urls["client"]]} for name, urls in nodes.items()]
    cluster = script.Cluster.__new__(script.Cluster)
    cluster.name, cluster.nodes, cluster.peer = "a", nodes, nodes["a"]["peer"]
    cluster.others = {name: urls for name, urls in nodes.items() if name != "a"}
    cluster.members = lambda urls: (members, next(iter(urls))["client"])
    asked = []

    def etcdctl(endpoint: str, *words: str) -> str:
        *verb, number = words
        name = next(name for name, known in NUMBERS.items() if f"{known:x}" == number)
        asked.append(f"{' '.join(verb)} {name}")
        if verb == ["move-leader"]:
            assert endpoint == nodes["a"]["client"], "only the leader itself can hand over"
            return "no leader endpoint found" if leads != "a" else ("it lags behind" if name in refuses else "")
        assert endpoint != nodes["a"]["client"], "it may end before it answers"
        return ""

    monkeypatch.setattr(script, "etcdctl", etcdctl)
    script.leave(cluster, ["b", "c", "a"])
    assert asked == expected
