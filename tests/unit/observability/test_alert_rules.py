# SPDX-License-Identifier: Apache-2.0
"""Rules of components and of the site become one file."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from ansible_collections.ashlar.stack.plugins.plugin_utils.observability import rules

ROOT = Path(__file__).parents[3]
MANIFESTS = {path.parents[1].name: yaml.safe_load(path.read_text()) for path in (ROOT / "roles").glob("*/meta/component.yml")}


def alert(name: str, expr: str = "up == 0") -> dict[str, object]:
    return {"alert": name, "expr": expr, "labels": {"severity": "info"}, "annotations": {"summary": "It is so.", "remedy": "Look."}}


def rule_file(component: str, group: str, *alerts: str, **settings: str) -> rules.RuleFile:
    return rules.RuleFile(Path(f"/{component or 'site'}.yml"), component, [{"name": group, **settings, "rules": [alert(name) for name in alerts]}])


def names(text: str) -> dict[str, list[str]]:
    return {group["name"]: [rule["alert"] for rule in group["rules"]] for group in yaml.safe_load(text)["groups"]}


def test_groups_of_one_name_become_one_and_the_order_stays() -> None:
    files = [rule_file("etcd", "etcd", "A", "B"), rule_file("consul", "consul", "C"), rule_file("", "etcd", "D")]
    assert names(rules.merge(files, [])) == {"etcd": ["A", "B", "D"], "consul": ["C"]}


def test_what_is_disabled_is_left_out_of_components_only() -> None:
    files = [rule_file("etcd", "etcd", "A", "B"), rule_file("consul", "consul", "C"), rule_file("", "own", "C")]
    assert names(rules.merge(files, ["B", "C"])) == {"etcd": ["A"], "own": ["C"]}
    assert rules.check(files, ["B", "C"]) == []


def test_settings_of_a_group_are_kept() -> None:
    merged = yaml.safe_load(rules.merge([rule_file("", "slow", "A", interval="5m")], []))
    assert merged["groups"][0]["interval"] == "5m"


def test_files_are_found_by_component_in_the_sites_order(tmp_path: Path) -> None:
    for name in (
        "roles/b/alerts/b.yml",
        "roles/a/alerts/a2.yml",
        "roles/a/alerts/a1.yml",
        "roles/a/alerts/tests/t.yml",
        "roles/c/alerts/c.yml",
        "site/alerts/own.yml",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("groups: []\n")
    found = rules.find(tmp_path, ["b", "a"], tmp_path / "site")
    assert [(file.name, component) for file, component in found] == [("b.yml", "b"), ("a1.yml", "a"), ("a2.yml", "a"), ("own.yml", "")]


def test_a_long_expression_stays_readable() -> None:
    file = rules.RuleFile(Path("/x.yml"), "x", [{"name": "x", "rules": [alert("A", "a\n  and b\n") | {"for": "5m"}]}])
    assert "expr: |\n" in rules.merge([file], [])


@pytest.mark.parametrize("url", ["http://a", "https://a.example.com:443/x", "https://user:word@a/", "http://[::1]:9009/api"])
def test_addresses(url: str) -> None:
    assert rules.is_http(url)


@pytest.mark.parametrize("url", ["", "a.example.com", "ftp://a", "http://", "http:///x", "https://a:port/", "https://a b/", None, 5, "http://[::1"])
def test_no_addresses(url: object) -> None:
    assert not rules.is_http(url)


def test_what_promtool_says_otherwise_is_not_lost() -> None:
    file = rule_file("", "own", "A")
    assert [problem.text for problem in rules.parse("panic: out of order\n", [file])] == ["promtool does not take the rules: panic: out of order"]


def test_rules_of_components_are_complete() -> None:
    """All components at once, which no site has: even so, no alert is there twice."""
    files, problems = rules.read(rules.find(ROOT, sorted(MANIFESTS), ROOT / "nowhere"))
    assert problems + rules.check(files, []) == []
    for file in files:
        for group in file.groups:
            assert all(rule["record"].startswith("ashlar:") for rule in group["rules"] if "record" in rule)


@pytest.mark.parametrize("component", ["prometheus", "alertmanager"])
def test_clients_have_the_name_that_is_looked_for(component: str) -> None:
    """Prometheus and Alertmanager look at DNS names of a client's certificate, so it has to have its common name there."""
    clients = [
        (role, certificate)
        for role, manifest in MANIFESTS.items()
        for certificate in manifest.get("certificates", [])
        if component in certificate.get("permitted_by", [])
    ]
    assert {role for role, _ in clients} >= {"prometheus", "portal", "grafana"}
    for role, certificate in clients:
        assert certificate["authority"] == "site"
        assert certificate["common_name"] in certificate.get("dns", []), f"{role}/{certificate['name']} needs dns: [{certificate['common_name']}]"
