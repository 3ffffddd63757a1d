# SPDX-License-Identifier: Apache-2.0
"""What machines are told of a site's health."""

from __future__ import annotations

from ansible_collections.ashlar.stack.plugins.filter.health_report import health_report

GOOD = {"checks": [{"component": "etcd", "name": "etcd answers", "ready": True}], "not_ready": []}
BAD = {
    "failed": True,
    "checks": [{}, {}],
    "not_ready": [{"component": "etcd", "name": "etcd answers", "seen": "refused", "cause": "", "remedy": "Start it.", "log": ["noise"]}],
}


def test_a_site_is_healthy_when_all_its_nodes_are() -> None:
    assert health_report({"a": GOOD, "b": GOOD}) == {"healthy": True, "nodes": dict.fromkeys("ab", {"state": "healthy", "checks": 1, "failed": []})}


def test_what_fails_is_named_and_who_was_not_reached_or_not_asked_is_not_healthy() -> None:
    report = health_report({"a": GOOD, "b": BAD, "c": {"unreachable": True, "msg": "timed out"}, "d": {}})
    assert not report["healthy"]
    assert [node["state"] for node in report["nodes"].values()] == ["healthy", "unhealthy", "unreachable", "unknown"]
    failed = {"component": "etcd", "name": "etcd answers", "seen": "refused", "remedy": "Start it."}
    assert report["nodes"]["b"] == {"state": "unhealthy", "checks": 2, "failed": [failed]}
    assert report["nodes"]["c"]["reason"] == "timed out"
