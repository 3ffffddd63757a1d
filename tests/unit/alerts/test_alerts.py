# SPDX-License-Identifier: Apache-2.0
"""Every alert of every component: what it must tell, that it fires when it shall, and that it keeps quiet otherwise."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[3]
FILES = sorted(ROOT.glob("roles/*/alerts/*.yml"))
TESTS = sorted(ROOT.glob("roles/*/alerts/tests/*.yml"))
SEVERITIES = {"critical", "warning", "info", "none"}
FIRING = re.compile(r"ALERTS\{alertstate=.firing.")
NAME = re.compile(r'alertname="([^"]+)"')
TEMPLATE = re.compile(r"\$labels\.(\w+)")


def rules(file: Path) -> list[dict[str, Any]]:
    """The alerts of a file; recording rules are left out."""
    return [rule for group in yaml.safe_load(file.read_text())["groups"] for rule in group["rules"] if "alert" in rule]


ALERTS = {rule["alert"]: (file, rule) for file in FILES for rule in rules(file)}


def component(file: Path) -> str:
    return file.relative_to(ROOT / "roles").parts[0]


def cases(file: Path) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """(test, assertion) of a file of tests, those about firing alerts."""
    return [(test, asked) for test in yaml.safe_load(file.read_text())["tests"] for asked in test.get("promql_expr_test") or [] if FIRING.search(asked["expr"])]


def told(asked: dict[str, Any]) -> set[str]:
    return {name for sample in asked.get("exp_samples") or [] for name in NAME.findall(sample["labels"])}


def test_the_usual_disasters_are_watched() -> None:
    """What the platform promises to tell, however the rules are cut."""
    promised = {
        "NodeDown", "DiskWillFill", "DiskFull", "NodeMemoryPressure", "NodeClockSkew", "EtcdNoLeader", "EtcdDiskSlow", "EtcdDatabaseLarge",
        "EtcdMemberMissing", "KubernetesApiErrors", "KubernetesApiSlow", "CertificateExpiresSoon", "CertificateExpires", "KubeletNotReady",
        "PodCrashLooping", "DeploymentNotAvailable", "ConsulNoLeader", "HaproxyBackendDown", "TargetMissing", "PrometheusConfigNotLoaded",
        "PrometheusRulesFail", "AlertmanagerNotClustered", "Watchdog", "CephHealthError", "CephOSDDown", "CephMonitorDown",
        "CephDataDamaged", "CephFull",
    }  # fmt: skip
    assert promised - set(ALERTS) == set()


def test_no_alert_has_the_name_of_another() -> None:
    names = Counter(rule["alert"] for file in FILES for rule in rules(file))
    assert [name for name, count in names.items() if count > 1] == []


@pytest.mark.parametrize("file", FILES, ids=component)
def test_groups_are_named_by_their_component(file: Path) -> None:
    groups = [group["name"] for group in yaml.safe_load(file.read_text())["groups"]]
    assert groups and all(name == component(file) or name.startswith(f"{component(file)}_") for name in groups)


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_says_how_bad_it_is_what_is_so_and_what_to_do(name: str) -> None:
    rule = ALERTS[name][1]
    assert rule["labels"]["severity"] in SEVERITIES
    assert set(rule["annotations"]) == {"summary", "remedy"}
    for text in rule["annotations"].values():
        assert text.rstrip()[-1] in ".?!", f"not a sentence: {text}"


@pytest.mark.parametrize("file", FILES, ids=component)
def test_prometheus_takes_the_rules(file: Path, promtool: str) -> None:
    done = subprocess.run([promtool, "check", "rules", "--lint=all", "--lint-fatal", str(file)], capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("file", TESTS, ids=component)
def test_alerts_fire_and_keep_quiet_as_they_shall(file: Path, promtool: str) -> None:
    done = subprocess.run([promtool, "test", "rules", str(file)], capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", ALERTS)
def test_both_the_firing_and_the_quiet_are_proven(name: str) -> None:
    """In one test over the same series there is a time at which it fires and one at which it does not; the watchdog always fires."""
    file = ALERTS[name][0]
    proven = [case for tests in (file.parent / "tests").glob("*.yml") for case in cases(tests)]
    fires = [test["name"] for test, asked in proven if name in told(asked)]
    assert fires or name == "Watchdog", f"no test under {file.parent / 'tests'} expects {name} to fire"
    quiet = [test["name"] for test, asked in proven if test["name"] in fires and name not in told(asked)]
    assert quiet or name == "Watchdog", f"no test under {file.parent / 'tests'} has a time at which {name} does not fire"


@pytest.mark.parametrize("file", TESTS, ids=component)
def test_what_an_alert_says_names_what_it_is_about(file: Path, promtool: str, tmp_path: Path) -> None:
    """Each firing alert's texts are rendered by Prometheus, and every label they use is there."""
    used = {name: set(TEMPLATE.findall(" ".join(rule["annotations"].values()))) for name, (_, rule) in ALERTS.items()}
    source = yaml.safe_load(file.read_text())
    source["rule_files"] = [str((file.parent / name).resolve()) for name in source["rule_files"]]
    for test in source["tests"]:
        fired = {(asked["eval_time"], name) for asked in test.pop("promql_expr_test", []) for name in told(asked)}
        # An expectation that cannot be met makes promtool print what it got.
        test["alert_rule_test"] = [{"eval_time": at, "alertname": name, "exp_alerts": [{"exp_labels": {"no": "such"}}]} for at, name in sorted(fired)]
    asked = tmp_path / "texts.yml"
    asked.write_text(yaml.safe_dump(source))
    done = subprocess.run([promtool, "test", "rules", str(asked)], capture_output=True, text=True, timeout=600, check=False)
    said = done.stdout + done.stderr
    got = re.findall(r"Labels:\{(.*?)\}\s*Annotations:\{(.*?)\}\s*(?:\]|,|$)", said, re.DOTALL)
    found = [(labels, texts) for labels, texts in got if 'no="such"' not in labels]
    assert found, said
    for labels, texts in found:
        name = NAME.findall(labels)[0]
        # Templates with a fallback (`or $labels.a $labels.b`) need one of theirs only.
        missing = {label for label in used[name] if not re.search(rf'\b{label}="', labels)} - {"exported_component", "endpoint", "component"}
        assert not missing, f"{name}: its texts use {sorted(missing)}, which the alert does not have: {labels}"
        assert "<no value>" not in texts and "error expanding template" not in texts.lower(), f"{name}: {texts}"


SERIES = re.compile(r"\b([a-z][a-z0-9]*_[a-z0-9_A-Z]*)\b(?!\s*\()(?!\s*=)")
STRINGS = re.compile(r"\"[^\"]*\"|\b(?:by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)|\{[^}]*\}")
# Whose series begin how, where that is not the component's own name.
PREFIXES = {
    "kubernetes_control": ("apiserver_", "aggregator_", "scheduler_", "leader_election_"),
    "kubernetes_node": ("kubelet_", "kubeproxy_", "container_"),
    "kube_state_metrics": ("kube_",),
    "node_exporter": ("node_", "ashlar_node_", "ashlar_certificate_"),
    "consul_sync": ("ashlar_consul_sync_",),
    "ceph_mgr": ("ceph_",),
    "victorialogs": ("vl_", "vm_"),
}


def _asked() -> dict[str, str]:
    """Series -> where it is asked for, of all rules and all dashboards."""
    texts = [(str(rule["expr"]), f"the alert {name}") for name, (_, rule) in ALERTS.items()]
    for file in ROOT.glob("roles/*/dashboards/*.yml"):
        for row in yaml.safe_load(file.read_text())["rows"]:
            texts += [(query, f"{file.stem}: {panel['title']}") for panel in row["panels"] if "source" not in panel for query in panel["queries"].values()]
    return {series: where for text, where in texts for series in SERIES.findall(STRINGS.sub("", text))}


def test_nothing_asks_for_series_that_a_manifest_drops() -> None:
    """Who drops a series to save memory learns here whose rule or picture would go dark; a site only shows it when it is too late."""
    manifests = {path.parts[-3]: yaml.safe_load(path.read_text()) for path in ROOT.glob("roles/*/meta/component.yml")}
    manifests = {name: manifest for name, manifest in manifests.items() if "metrics" in manifest}
    dark = []
    for series, where in sorted(_asked().items()):
        owners = [name for name in manifests if series.startswith(PREFIXES.get(name, (f"{name}_",)))]
        owner = max(owners, key=lambda name: max(len(prefix) for prefix in PREFIXES.get(name, (name,)) if series.startswith(prefix)), default="")
        drops = [str(entry.get("drop", "")) for entry in manifests.get(owner, {}).get("metrics", [])]
        if drops and all(drop and re.fullmatch(drop, series) for drop in drops):
            dark.append(f"{series} of {owner}, which {where} asks for")
    assert dark == []


def test_the_operators_page_tells_the_alerts_as_they_are() -> None:
    done = subprocess.run([sys.executable, str(ROOT / "docs/alerts.py"), "--check"], capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
