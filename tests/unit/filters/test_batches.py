# SPDX-License-Identifier: Apache-2.0
"""Which nodes are out of service together."""

from __future__ import annotations

from typing import Any

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.ashlar.stack.plugins.filter.batches import batches


def site(**nodes: str) -> dict[str, Any]:
    """Node -> classes, and a zone behind a slash."""
    return {name: {"classes": text.partition("/")[0].split(), "zone": text.partition("/")[2]} for name, text in nodes.items()}


NODES = site(w1="worker/a", w2="worker/b", w3="worker/a", c1="control", c2="control worker", e1="edge", e2="edge")
ROLLING = {
    "etcd": {"members": ["c1", "c2"], "max_unavailable": 1},
    "haproxy": {"members": ["e1", "e2"], "max_unavailable": 1},
    "web": {"members": ["w1", "w2", "w3"], "max_unavailable": 2},
}


def test_one_by_one_control_nodes_come_first_and_zones_stay_together() -> None:
    assert batches(NODES, NODES, ROLLING) == [["c1"], ["c2"], ["e1"], ["e2"], ["w1"], ["w3"], ["w2"]]


def test_a_batch_has_one_zone_and_no_more_members_than_may_be_away() -> None:
    assert batches(NODES, NODES, ROLLING, 4) == [["c1"], ["c2"], ["e1"], ["e2"], ["w1", "w3"], ["w2"]]


def test_a_percentage_is_of_the_nodes_that_are_named() -> None:
    many = site(**{f"w{number}": "worker" for number in range(10)})
    assert [len(batch) for batch in batches(many, many, {}, "25%")] == [2, 2, 2, 2, 2]
    assert [len(batch) for batch in batches(list(many)[:3], many, {}, "25%")] == [1, 1, 1], "at least one"
    assert [len(batch) for batch in batches(many, many, {}, "100%")] == [10]


@pytest.mark.parametrize("size", [0, "0%", "101%", "-1", "two", "", "1.5", None])
def test_a_size_that_is_none_is_refused(size: Any) -> None:
    with pytest.raises(AnsibleFilterError, match="Allowed: a number of nodes from 1, or a percentage"):
        batches(NODES, NODES, ROLLING, size)


def test_a_thousand_nodes_are_divided_at_once() -> None:
    many = site(**{f"w{number}": f"worker/{number % 3}" for number in range(997)}, c1="control", c2="control", c3="control")
    found = batches(many, many, {"etcd": {"members": ["c1", "c2", "c3"], "max_unavailable": 1}}, "5%")
    assert sum(map(len, found)) == 1000
    assert [len(batch) for batch in found][:4] == [1, 1, 1, 50]
