# SPDX-License-Identifier: Apache-2.0
"""The CIS benchmark for Kubernetes, by kube-bench, with the paths of this layout."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from .support.nodes import Node
from .support.plan import ROOT, Plan

# Where kube-bench can't be downloaded it is built, which takes minutes.
pytestmark = [pytest.mark.needs("kubernetes_control", "kubernetes_node", "etcd"), pytest.mark.long]
HERE = Path(__file__).parent
VERSION = "0.9.4"
# It is built where it can't be downloaded.
LIMIT_SECONDS = 1200


def ansible(program: str, *arguments: str) -> str:
    """Output of one of Ansible's programs that has to succeed."""
    command = [str(Path(sys.executable).parent / program), "-i", os.environ.get("ASHLAR_INVENTORY", "inventories/local"), *arguments]
    environment = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_STDOUT_CALLBACK": "ansible.builtin.minimal"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_SECONDS, env=environment, check=False)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def stored(store: Path, to: Path) -> None:
    """Copies the artifact's files."""
    [index] = (store / "index" / "kube_bench" / VERSION).glob("*.json")
    for file in json.loads(index.read_text())["files"]:
        target = to / file["path"]
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(store / "sha256" / file["sha256"][:2] / file["sha256"], target)
        target.chmod(int(file["mode"], 8))


def fit(folder: Path) -> None:
    """Makes the checks look where this layout has things: keys below /etc/ashlar/pki, and etcd's settings in its environment."""
    shutil.copyfile(HERE / "cis" / "layout.yml", folder / "config.yaml")
    master, etcd = folder / "cis-1.9" / "master.yaml", folder / "cis-1.9" / "etcd.yaml"
    master.write_text(master.read_text().replace("/etc/kubernetes/pki/", "/etc/ashlar/pki/"))
    checks = yaml.safe_load(etcd.read_text())
    for group in checks["groups"]:
        for check in group["checks"]:
            check["audit_env"] = "tr '\\0' '\\n' < /proc/$(pgrep --exact etcd)/environ"
    etcd.write_text(yaml.safe_dump(checks))


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory, nodes: dict[str, Node], plan: Plan) -> dict[str, dict[str, Any]]:
    """Node -> number of a check -> its result, without those that a person has to make."""
    folder = tmp_path_factory.mktemp("cis")
    arguments = json.dumps({"artifacts": {"kube_bench": VERSION}})
    said = ansible("ansible", "localhost", "--connection", "local", "--module-name", "ashlar.stack.store", "--args", arguments)
    stored(Path(json.loads(said[said.index("{") : said.rindex("}") + 1])["store"]), folder / "program")
    fit(folder / "program")
    ansible("ansible-playbook", str(HERE / "support" / "kube_bench.yml"), "--extra-vars", json.dumps({"kube_bench": str(folder)}))
    results = {}
    for name in plan.on("kubernetes_node"):
        report = json.loads((folder / f"{name}.json").read_text())
        checks = [check for control in report["Controls"] for group in control["tests"] for check in group["results"]]
        results[name] = {check["test_number"]: check for check in checks if check.get("type") != "manual"}
    return results


def test_every_check_was_made(found: dict[str, dict[str, Any]], plan: Plan) -> None:
    for name, checks in found.items():
        sections = {number.partition(".")[0] for number in checks}
        assert sections == ({"1", "2", "3", "4"} if name in plan.on("kubernetes_control") else {"4"}), name


def test_every_check_passes_or_is_listed_with_the_reason(found: dict[str, dict[str, Any]]) -> None:
    reasons = {str(number): reason for number, reason in yaml.safe_load((HERE / "cis" / "exceptions.yml").read_text()).items()}
    failed = {number: check for checks in found.values() for number, check in checks.items() if check["status"] != "PASS"}
    new = [
        f"{number} {check['test_desc']}: {check['status']}, expected {check.get('expected_result')}, "
        f"found {check.get('actual_value')!r} {check.get('reason', '')}"
        for number, check in sorted(failed.items())
        if number not in reasons
    ]
    assert not new, "\n".join(new)
    assert sorted(set(reasons) - set(failed)) == [], "these are listed and pass"
