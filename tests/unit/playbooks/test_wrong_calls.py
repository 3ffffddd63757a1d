# SPDX-License-Identifier: Apache-2.0
"""A verb that is called wrongly says so in one error, before it has looked at any host."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[3]

CALLS = [
    ("maintain", [], "No node is named: give -e nodes=..., names of nodes or groups, separated by commas."),
    ("maintain", ["nodes=worker-9,control-1"], "nodes has worker-9, neither a node nor a group of this site. Nodes are control-1, control-2, "),
    ("maintain", ["nodes=storage"], "nodes is storage, and no node is in these groups."),
    ("maintain", ["nodes=control-1", "reboot=now"], 'reboot is "now". Allowed: true, false, needed.'),
    ("maintain", ["nodes=control-1", "packages=all"], 'packages is "all". Allowed: upgrade.'),
    ("maintain", ["nodes=control-1", "batch=0%"], 'batch is "0%". Allowed: a number of nodes from 1, or a percentage of those named, from 1% to 100%.'),
    ("remove_nodes", ["nodes=nobody"], "nodes has nobody, neither a node nor a group of this site."),
    ("remove_nodes", ["nodes=control-1"], "2 nodes have the class control, control-2 and control-3: an even number."),
    ("remove_nodes", ["nodes=control-1,control-2", "gone=control-1,control-2"], "of etcd's 3 members no majority is left that could agree to it."),
    ("remove_nodes", ["nodes=worker"], "Without worker-1, worker-2 the site would be invalid."),
    ("remove_nodes", ["nodes=worker-1", "batch=0"], 'batch is "0". Allowed: a number of nodes from 1, '),
    ("replace_node", [], "No node is named: give -e node=... Allowed: one of control-1, control-2, "),
    ("replace_node", ["node=control-9"], 'node is "control-9", no node of this site. Allowed: one of control-1, control-2, '),
    ("replace_node", ["node=control-1,control-2"], 'node is "control-1,control-2", no node of this site.'),
    ("add_nodes", ["nodes=worker-9"], "nodes has worker-9. Allowed: nodes that were removed and are still in the inventory; there is none."),
    ("reset", ["reset=prod"], '"prod" is not the name of this site, which is example. Type it, or give it with -e reset=example.'),
    ("backup", [], "No destination is named. Write `backup: {to: ..., recipients: [...]}` into the site file"),
    ("backup", ["to=/srv/backups"], "No recipient is named."),
    ("backup", ["to=backups", "recipients=age1x"], "'backups' is no destination. Allowed: an absolute folder such as /srv/backups, ssh://"),
    ("backup", ["to=/tmp", "recipients=age1x"], "recipients: number 1 is 'age1x'. Allowed: public keys of age"),
    ("backup_timer", [], "Nothing says when: -e timer=daily, or off. Nothing was changed."),
    ("restore", [], "No backup is named: give -e backup=<file, or folder, ssh:// or s3:// with backups>."),
    ("restore", ["backup=/srv/backups"], "No key is named: give -e identity=<file with the secret key>."),
    ("restore", ["backup=/nowhere", "identity=/nowhere"], "identity: /nowhere is not there. Name the file with the secret key"),
    ("remove_nodes", [], "No node is named: give -e nodes=..., names of nodes or groups, separated by commas."),
    ("maintain", ["nodes=control-1", "batch=101%"], 'batch is "101%". Allowed: a number of nodes from 1, or a percentage'),
    ("rotate", [], "It is not said what to rotate, by -e what=<names>. Allowed: one or more of certificates, authorities, "),
    ("rotate", ["what=passwords"], "what has passwords, which this site does not have. Allowed: one or more of certificates, authorities, "),
    ("rotate", ["what=all"], "The site example is not installed, so there is nothing to rotate. Run: ansible-playbook -i "),
    ("upgrade", [], "The site example is not installed, so there is nothing to upgrade. Run: ansible-playbook -i "),
]


# Of a site that has the release before.
UPGRADES = [
    ("site", [], "The release 2026.11 changes versions: containerd 2.3.0 -> 2.4.2, coredns 1.14.0 -> 1.15.0, "),
    ("remove_nodes", ["nodes=worker-2"], "Here everything would restart at once. Run: ansible-playbook -i "),
    ("upgrade", ["nodes=worker-9"], "nodes has worker-9, neither a node nor a group of this site."),
    ("upgrade", ["batch=none"], 'batch is "none". Allowed: a number of nodes from 1, '),
]


def said_of(site: Path, name: str, variables: list[str]) -> str:
    """What a run said that failed before it looked at any host."""
    file = "site.yml" if name == "site" else f"playbooks/{name}.yml"
    command = [str(Path(sys.executable).parent / "ansible-playbook"), "-i", str(site), file]
    command += [part for variable in variables for part in ("-e", variable)]
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, "COLUMNS": "100"}, capture_output=True, text=True, timeout=120, check=False)
    said = " ".join(done.stdout.split())
    assert done.returncode == 2 and "Traceback" not in done.stdout + done.stderr
    assert "changed nothing" in said and "Failed on 1 of 1 host" in said, "no other host was asked"
    return said


@pytest.mark.parametrize(("name", "variables", "words"), CALLS)
def test_a_wrong_call_is_one_error(name: str, variables: list[str], words: str, tmp_path: Path) -> None:
    site = shutil.copytree(ROOT / "inventories" / "example", tmp_path / "example")
    assert words in said_of(site, name, variables)


@pytest.mark.parametrize(("name", "variables", "words"), UPGRADES)
def test_a_wrong_call_before_an_upgrade_is_one_error(name: str, variables: list[str], words: str, tmp_path: Path) -> None:
    site = shutil.copytree(ROOT / "inventories" / "example", tmp_path / "example")
    (site / "state").mkdir(exist_ok=True)
    release = yaml.safe_load((ROOT / "releases" / "2026.08.yml").read_text())
    (site / "state" / "installed.json").write_text(json.dumps({"release": release["name"], "versions": release["versions"]}))
    assert words in said_of(site, name, variables)
