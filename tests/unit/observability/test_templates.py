# SPDX-License-Identifier: Apache-2.0
"""What Prometheus and Alertmanager get on a host, rendered as the role renders it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[3]
LABELS = {"site", "class", "node", "component", "job", "endpoint", "instance"}
STACK = """plugin: ashlar.stack.stack
site: lab
domain: lab.example.com
stack: tectonic
release: "2026.11"
slots:
  monitoring: [metrics_gateway, node_exporter, prometheus, alertmanager]
"""
OPTIONS = {
    "alertmanager_receivers": [{"name": "pager", "webhook_configs": [{"url": "https://hooks.example.com/hunter2"}]}],
    "alertmanager_routes": [{"receiver": "pager", "matchers": ['severity="critical"']}],
}
FILES = {
    "prometheus": ["prometheus.yml", "web.yml", "targets/nodes.json", "rules/site.yml"],
    "alertmanager": ["alertmanager.yml", "cluster.yml", "web.yml"],
}


class Rendered:
    """Files of both roles for the first node of a site of `count` nodes."""

    def __init__(self, folder: Path, count: int) -> None:
        self.folder = folder
        hosts = {f"node{n}": {"node_address": f"192.0.2.{n}", "node_classes": ["control", "worker"] if n < 4 else ["worker"]} for n in range(1, count + 1)}
        (folder / "10-nodes.yml").write_text(json.dumps({"all": {"hosts": hosts}}))
        (folder / "20-stack.yml").write_text(STACK)
        plays = []
        for role, files in FILES.items():
            tasks = [
                {
                    "ansible.builtin.template": {"src": f"{ROOT}/roles/{role}/templates/etc/{role}/{name}.j2", "dest": f"{folder}/{role}-{Path(name).name}"},
                    "delegate_to": "localhost",
                }
                for name in files
            ]
            names = [f"{ROOT}/roles/{role}/{part}/main.yml" for part in ("defaults", "vars")]
            plays.append({"hosts": f"{role}[0]", "gather_facts": False, "vars_files": names, "tasks": tasks})
        (folder / "play.yml").write_text(yaml.safe_dump(plays))
        command = [
            str(Path(sys.executable).with_name("ansible-playbook")),
            "-i",
            f"{folder}/10-nodes.yml",
            "-i",
            f"{folder}/20-stack.yml",
            f"{folder}/play.yml",
            "-e",
            json.dumps(OPTIONS),
        ]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)
        assert done.returncode == 0, done.stdout + done.stderr

    def text(self, role: str, name: str) -> str:
        return (self.folder / f"{role}-{name}").read_text()

    def data(self, role: str, name: str) -> Any:
        return yaml.safe_load(self.text(role, name))


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Rendered:
    return Rendered(tmp_path_factory.mktemp("three"), 3)


@pytest.fixture(scope="module")
def four(tmp_path_factory: pytest.TempPathFactory) -> Rendered:
    return Rendered(tmp_path_factory.mktemp("four"), 4)


def test_a_new_node_changes_targets_only(three: Rendered, four: Rendered) -> None:
    for role, names in FILES.items():
        for name in (Path(path).name for path in names):
            same = three.text(role, name) == four.text(role, name)
            assert same == (name != "nodes.json"), f"{role}: {name}"


def test_rules_of_the_site_are_no_inventory(tmp_path: Path) -> None:
    """They lie beside the site file, in a folder that Ansible reads as a whole."""
    (tmp_path / "10-nodes.yml").write_text(json.dumps({"all": {"hosts": {"node1": {"node_address": "192.0.2.1", "node_classes": ["control", "worker"]}}}}))
    (tmp_path / "20-stack.yml").write_text(STACK)
    (tmp_path / "alerts").mkdir()
    (tmp_path / "alerts/own.yml").write_text("groups:\n  - name: own\n    rules: []\n")
    command = [str(Path(sys.executable).with_name("ansible-inventory")), "-i", str(tmp_path), "--list"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600, check=True)
    assert "groups" not in done.stderr, done.stderr
    assert set(json.loads(done.stdout)["_meta"]["hostvars"]) == {"node1"}


def test_every_target_has_the_labels_and_no_others(three: Rendered) -> None:
    groups = json.loads(three.text("prometheus", "nodes.json"))
    assert len(groups) > 20
    for group in groups:
        assert set(group["labels"]) == LABELS
        assert group["labels"]["class"] == "control,worker"
        assert group["targets"] == [f"192.0.2.{group['labels']['node'][-1]}:9100"]


def test_every_job_keeps_its_own_targets_and_is_bounded(three: Rendered) -> None:
    configuration = three.data("prometheus", "prometheus.yml")
    groups = json.loads(three.text("prometheus", "nodes.json"))
    jobs = {job["job_name"]: job for job in configuration["scrape_configs"]}
    for name in {f"{group['labels']['component']}/{group['labels']['endpoint']}" for group in groups}:
        assert jobs[name]["metrics_path"] == f"/{name}"
        assert jobs[name]["relabel_configs"][0] == {"source_labels": ["component", "endpoint"], "regex": name.replace("/", ";"), "action": "keep"}
    assert all(job["sample_limit"] > 0 for job in jobs.values())
    for limit in ("label_limit", "label_name_length_limit", "label_value_length_limit", "body_size_limit"):
        assert configuration["global"][limit]
    # One watcher of files for all jobs: each other one would take an inotify instance, of which a host has few.
    assert len({json.dumps(job["file_sd_configs"]) for job in jobs.values() if "file_sd_configs" in job}) == 1


def test_alerts_of_both_replicas_are_one(three: Rendered) -> None:
    configuration = three.data("prometheus", "prometheus.yml")
    assert configuration["global"]["external_labels"] == {"site": "lab", "replica": "node1"}
    assert configuration["alerting"]["alert_relabel_configs"] == [{"regex": "replica", "action": "labeldrop"}]
    assert configuration["alerting"]["alertmanagers"][0]["static_configs"] == [{"targets": ["192.0.2.1:9093", "192.0.2.2:9093"]}]


def test_retention_has_both_bounds(three: Rendered) -> None:
    assert three.data("prometheus", "prometheus.yml")["storage"]["tsdb"]["retention"] == {"time": "15d", "size": "4096MB"}


def test_nothing_is_served_without_a_known_certificate(three: Rendered) -> None:
    for role, name in (("prometheus", "web.yml"), ("alertmanager", "web.yml"), ("alertmanager", "cluster.yml")):
        server = three.data(role, name)["tls_server_config"]
        assert server["client_auth_type"] == "RequireAndVerifyClientCert"
        assert server["client_allowed_sans"]


def test_alerts_find_their_receiver(three: Rendered) -> None:
    configuration = three.data("alertmanager", "alertmanager.yml")
    assert [one["name"] for one in configuration["receivers"]] == ["portal", "pager"]
    assert configuration["route"]["receiver"] == "portal"
    assert [route["receiver"] for route in configuration["route"]["routes"]] == ["pager", "portal"]
    assert configuration["inhibit_rules"][0]["equal"] == ["site", "node"]


@pytest.mark.parametrize(("role", "file"), [("prometheus", "prometheus.yml"), ("prometheus", "consul-token"), ("alertmanager", "alertmanager.yml")])
def test_files_with_secrets_are_not_readable_by_others(role: str, file: str) -> None:
    task = yaml.safe_load((ROOT / "roles" / role / "tasks/main.yml").read_text())[0]["ashlar.stack.tree"]
    mode = next(one["mode"] for one in task["files"] if one["path"].endswith(f"/{file}"))
    assert int(mode, 8) & 0o007 == 0


@pytest.mark.parametrize(
    ("role", "option"), [("prometheus", "prometheus_remote_write"), ("alertmanager", "alertmanager_receivers"), ("alertmanager", "alertmanager_global")]
)
def test_options_with_secrets_are_not_logged(role: str, option: str) -> None:
    assert yaml.safe_load((ROOT / "roles" / role / "meta/argument_specs.yml").read_text())["argument_specs"]["main"]["options"][option]["no_log"] is True
