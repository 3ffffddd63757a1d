# SPDX-License-Identifier: Apache-2.0
"""A site on paper, the roles' own defaults, and promtool and amtool as nodes have them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.playbook.task import Task
from ansible.template import Templar
from ansible_collections.ashlar.stack.plugins.action.observability import ActionModule
from ansible_collections.ashlar.stack.plugins.plugin_utils.observability.programs import program

ROOT = Path(__file__).parents[3]
PROGRAMS = {"prometheus": "promtool", "alertmanager": "amtool"}


@pytest.fixture(scope="session")
def versions() -> dict[str, str]:
    """Of the newest release; the store is asked for what it does not have."""
    release = yaml.safe_load(max((ROOT / "releases").glob("*.yml")).read_text())["versions"]
    wanted = {name: str(release[name]) for name in PROGRAMS}
    missing = {name: version for name, version in wanted.items() if program(name, version, PROGRAMS[name]) is None}
    if missing:
        command = [str(Path(sys.executable).with_name("ansible-playbook")), "-i", "inventories/example", "playbooks/artifacts.yml"]
        done = subprocess.run([*command, "-e", json.dumps({"artifacts_wanted": missing})], cwd=ROOT, capture_output=True, text=True, timeout=1800, check=False)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return wanted


@pytest.fixture
def checked(tmp_path: Path, versions: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    """Checks a component of a site whose folder has `files`, with some variables set otherwise."""

    def check(component: str, variables: dict[str, Any], files: dict[str, str]) -> dict[str, Any]:
        for name, text in files.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(text)
        monkeypatch.chdir(tmp_path)
        loader = DataLoader()
        known: dict[str, Any] = {}
        for role in PROGRAMS:
            known |= loader.load_from_file(str(ROOT / "roles" / role / "defaults/main.yml"), trusted_as_template=True)
            known |= loader.load_from_file(str(ROOT / "roles" / role / "vars/main.yml"), trusted_as_template=True)
        known |= plan(tmp_path, versions) | variables
        task = Task.load({"action": "ashlar.stack.observability", "args": {"component": component}}, loader=loader)
        task.args = {"component": component}
        templar = Templar(loader=loader, variables=known)
        action = ActionModule(task, Mock(), Mock(check_mode=False), loader, templar, Mock())
        return action.run(task_vars=known)

    return check


def plan(site: Path, versions: dict[str, str]) -> dict[str, Any]:
    nodes = {f"node{number}": {"address": f"192.0.2.{number}", "classes": ["control", "worker"], "zone": "", "labels": {}} for number in (1, 2, 3)}
    components = ["etcd", "consul", "node_exporter", "prometheus", "alertmanager"]
    metrics = [
        {"component": component, "name": entry["name"], **({"drop": entry["drop"]} if "drop" in entry else {})}
        for component in components
        for entry in yaml.safe_load((ROOT / "roles" / component / "meta/component.yml").read_text()).get("metrics", [])
    ]
    two = {"prometheus": ["node1", "node2"], "alertmanager": ["node1", "node2"]}
    return {
        "inventory_hostname": "node1",
        "node_address": "192.0.2.1",
        "site_name": "prod",
        "site_directory": str(site),
        "site_credentials": str(site / "credentials"),
        "site_components": components,
        "site_metrics": metrics,
        "site_nodes": nodes,
        "artifact_versions": versions,
        "component_nodes": {**dict.fromkeys(components, list(nodes)), "kubernetes_control": [], **two},
        "endpoints": {"alertmanager": {"api": ["192.0.2.1:9093", "192.0.2.2:9093"]}, "kubernetes_control": {"api": []}},
    }
