# SPDX-License-Identifier: Apache-2.0
"""Who may begin a cluster: the members of the first run, as long as they keep their data. All others join it."""

from __future__ import annotations

from pathlib import Path

from ansible_collections.ashlar.stack.plugins.plugin_utils.site.memory import PLACEMENT, recall, remember, text_of
from ansible_collections.ashlar.stack.plugins.plugin_utils.site.models import Memory

ROOT = Path(__file__).resolve().parents[3]
FIRST = remember(Memory(), {"etcd": ["a"], "base": ["a", "w"]}, ["a", "w"], founders={"etcd": ["a"]})


def test_founders_are_written_and_read_again(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / PLACEMENT).write_text(text_of(FIRST, ["a", "w"]))
    assert recall(ROOT, tmp_path).founders == {"etcd": {"a"}}


def test_members_that_come_later_are_none() -> None:
    grown = remember(FIRST, {"etcd": ["a", "b", "c"]}, ["a", "b", "c", "w"], founders={"etcd": ["a"]})
    assert grown.carriers["etcd"] == {"a", "b", "c"} and grown.founders == {"etcd": {"a"}}


def test_one_that_was_removed_is_none_when_it_comes_back() -> None:
    grown = remember(FIRST, {"etcd": ["a", "b", "c"]}, ["a", "b", "c"], founders={"etcd": ["a"]})
    gone = remember(grown, {"etcd": ["b", "c"]}, ["a", "b", "c"], retired=["a"], removed=["a"], founders={"etcd": []})
    assert gone.founders == {"etcd": set()} and gone.removed == {"a"}
    back = remember(gone, {"etcd": ["a", "b", "c"]}, ["a", "b", "c"], founders={"etcd": []}, returned=["a"])
    assert back.founders == {"etcd": set()} and not back.removed


def test_a_component_that_left_begins_anew() -> None:
    left = remember(FIRST, {"base": ["a"]}, ["a"], retired=["a"])
    assert left.founders == {}
