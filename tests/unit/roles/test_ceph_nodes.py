# SPDX-License-Identifier: Apache-2.0
"""Storage nodes leave Ceph when the others have room for what is on their disks, and not before it is there."""

from __future__ import annotations

from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[3] / "roles/ceph_mon/templates/usr/local/libexec/ashlar/ceph-nodes"
GIB = 1 << 20


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = spec_from_loader("ceph_nodes", SourceFileLoader("ceph_nodes", str(SCRIPT)))
    assert spec and spec.loader
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "STATE", str(tmp_path / "{node}.json"))
    return module


def hosts(names: str, used_gib: int = 10, **out: float) -> dict[str, list[dict[str, Any]]]:
    """Nodes with a disk of 100 GiB each, of which `out` have another weight."""
    return {
        name: [{"id": number, "kb": 100 * GIB, "kb_used": used_gib * GIB, "reweight": out.get(name, 1.0), "pgs": 8, "status": "up"}]
        for number, name in enumerate(names)
    }


@pytest.mark.parametrize(
    ("leaving", "found", "said"),
    [
        (["d"], hosts("abcd"), ""),
        (["x"], hosts("abc"), ""),
        (["c"], hosts("abc"), "2 storage nodes with disks would be left (a, b), and there are 3 copies"),
        (["c"], hosts("abcd", d=0.0), "2 storage nodes with disks would be left (a, b), and there are 3 copies"),
        (["c", "d"], hosts("abcd"), "2 storage nodes with disks would be left (a, b), and there are 3 copies"),
        (["d"], hosts("abcd", used_gib=70), "there are 70 GiB on the disks of d, and those that are left can take 45 GiB before they are 85% full"),
        (["d"], hosts("abcd", used_gib=90), "those that are left can take 0 GiB"),
    ],
    ids=["there is room", "it has no disk", "too few nodes", "one is about to leave", "two at once", "too little room", "no room at all"],
)
def test_nodes_leave_where_the_others_have_room(script: ModuleType, leaving: list[str], found: dict[str, Any], said: str) -> None:
    assert said in script.refusal(found, leaving, 3, 0.85) and bool(script.refusal(found, leaving, 3, 0.85)) == bool(said)


def test_a_node_is_drained_once_nothing_depends_on_its_disks(script: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    asked, found, safe = [], hosts("abcd"), [None, None, {}]

    def ceph(*words: str, may_fail: bool = False) -> Any:
        asked.append(" ".join(words))
        if words[:2] == ("osd", "out"):
            found["d"][0]["reweight"] = 0
        return safe.pop(0) if words[1] == "safe-to-destroy" else {}

    monkeypatch.setattr(script, "ceph", ceph)
    monkeypatch.setattr(script, "disks", lambda: found)
    monkeypatch.setattr(script, "check", lambda *nodes: asked.append(f"check {' '.join(nodes)}"))
    for _ in range(2):
        with pytest.raises(SystemExit) as ended:
            script.drain("d")
        assert ended.value.code == 75
    assert "8 placement groups are left on d" in capsys.readouterr().out
    script.drain("d")
    assert asked == ["check d", "osd out 3", *["osd safe-to-destroy 3"] * 3]


def test_a_drain_that_is_stuck_says_so(script: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(script.time, "time", lambda: clock[0])
    monkeypatch.setattr(script, "ceph", lambda *words, may_fail=False: None)
    monkeypatch.setattr(script, "disks", lambda: hosts("abcd", d=0.0))
    said = []
    for _ in range(2):
        with pytest.raises(SystemExit) as ended:
            script.drain("d")
        said.append(ended.value.code)
        clock[0] += script.STALLED_SECONDS + 1
    assert said[0] == 75 and "nothing has moved away from d for 30 minutes, and 8 placement groups" in str(said[1])


def test_a_disk_that_is_used_is_not_forgotten(script: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(script, "disks", lambda: hosts("abcd"))
    with pytest.raises(SystemExit, match="osd.3 of d is still up"):
        script.forget("d")
