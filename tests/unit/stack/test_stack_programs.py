# SPDX-License-Identifier: Apache-2.0
"""The plugin inside Ansible's own programs: what an operator sees, and that a wrong site ends a run before it starts."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from sites import REPOSITORY, write_collection, write_site

PLAYBOOK = """
- hosts: all
  gather_facts: false
  tasks:
    - ansible.builtin.copy: {content: touched, dest: "{{ site_directory | default(playbook_dir) }}/touched"}
      delegate_to: localhost
"""
CONFIGURATION = """
[defaults]
collections_path = .collections
[inventory]
enable_plugins = ashlar.stack.stack, yaml, auto, host_list
any_unparsed_is_failed = {strict}
"""


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout of the small collection with the real plugin."""
    root = write_collection(tmp_path_factory.mktemp("checkout"))
    for folder in ("plugins/inventory", "plugins/plugin_utils"):
        shutil.copytree(REPOSITORY / folder, root / folder, ignore=shutil.ignore_patterns("__pycache__"))
    (root / ".collections" / "ansible_collections" / "ashlar").mkdir(parents=True)
    (root / ".collections" / "ansible_collections" / "ashlar" / "stack").symlink_to("../../..")
    (root / "site.yml").write_text(PLAYBOOK)
    return root


def run(checkout: Path, *command: str, strict: bool = True) -> subprocess.CompletedProcess[str]:
    (checkout / "ansible.cfg").write_text(CONFIGURATION.format(strict=strict))
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("ANSIBLE_", "PYTHONPATH"))}
    environment |= {"ANSIBLE_NOCOLOR": "1", "ANSIBLE_HOME": str(checkout / ".ansible")}
    program = Path(sys.executable).parent / command[0]
    return subprocess.run([str(program), *command[1:]], cwd=checkout, env=environment, capture_output=True, text=True, timeout=600, check=False)


def test_the_graph_is_the_plan_beside_folders_that_are_no_inventory(checkout: Path) -> None:
    files = {
        "credentials/authorities/ca.crt": "not yaml: [",
        "state/installed.json": '{"versions": {}}',
        "README.md": "# a site",
        "machines.tfvars": "pools = {}\n",
        "main.tf": 'resource "x" "y" {}\n',
        "main.tf.json": "{}",
        "terraform.tfstate": '{"version": 4}',
        "terraform.tfstate.1700000000.backup": '{"version": 4}',
        "terraform.tfstate.d/prod/terraform.tfstate": '{"version": 4}',
        "#20-stack.yml#": "site: [",
        "20-stack.yml~": "site: [",
        "20-stack.yml.orig": "site: [",
        "20-stack.yml.bak": "site: [",
        "20-stack.yml.rej": "@@ -1 +1 @@",
        "10-nodes.yml.dpkg-old": "all: [",
    }
    write_site(checkout / "inventories" / "good", files=files, modes={"credentials": "0700"})
    done = run(checkout, "ansible-inventory", "-i", "inventories/good", "--graph")
    assert (done.returncode, done.stderr) == (0, "")
    assert "  |--@etcd:\n  |  |--node1\n  |  |--node2\n  |  |--node3\n" in done.stdout
    assert "  |--@othernet:\n  |--" in done.stdout


def test_the_sources_may_be_given_one_by_one(checkout: Path) -> None:
    site = write_site(checkout / "inventories" / "pair")
    done = run(checkout, "ansible-inventory", "-i", str(site / "10-nodes.yml"), "-i", str(site / "20-stack.yml"), "--graph", "etcd")
    assert (done.returncode, done.stdout.split()) == (0, ["@etcd:", "|--node1", "|--node2", "|--node3"])


@pytest.mark.parametrize("strict", [True, False], ids=["strict", "lenient"])
def test_a_wrong_site_ends_a_playbook_with_one_message_before_a_host_is_touched(checkout: Path, strict: bool) -> None:
    site = write_site(checkout / "inventories" / "wrong", site={"slots": {"overlay": "flanel"}})
    done = run(checkout, "ansible-playbook", "-i", "inventories/wrong", "site.yml", strict=strict)
    assert done.returncode == 4
    assert done.stdout == ""
    assert done.stderr.strip() == (
        "[ERROR]: The site cannot be planned; no host was touched.\n"
        '  inventories/wrong/20-stack.yml:7: slots.overlay: is "flanel", an unknown component. Did you mean "flannel"? '
        "Components that fill overlay: flannel and othernet."
    )
    assert not (site / "touched").exists()


PENDING = "all: {vars: {site_machines: pending}, hosts: {elsewhere: {}}}\n"


def test_a_site_whose_machines_are_still_to_be_made_knows_itself_and_has_no_node(checkout: Path) -> None:
    write_site(checkout / "inventories" / "pending", nodes_text=PENDING)
    done = run(checkout, "ansible-inventory", "-i", "inventories/pending", "--list")
    assert (done.returncode, done.stderr) == (0, "")
    inventory = json.loads(done.stdout)
    assert list(inventory["_meta"]["hostvars"]) == ["elsewhere"] and "etcd" not in inventory
    done = run(checkout, "ansible-inventory", "-i", "inventories/pending", "--graph", "--vars")
    assert "{site_name = prod}" in done.stdout and f"{{site_directory = {checkout}/inventories/pending}}" in done.stdout
    assert "site_components" not in done.stdout and "  |--@etcd:\n" in done.stdout


def test_a_site_whose_machines_are_still_to_be_made_is_checked_as_far_as_it_goes(checkout: Path) -> None:
    write_site(checkout / "inventories" / "wrong_pending", nodes_text=PENDING, site={"slots": {"overlay": "flanel"}})
    done = run(checkout, "ansible-inventory", "-i", "inventories/wrong_pending", "--list")
    assert (done.returncode, done.stdout) == (4, "")
    assert "is \"flanel\", an unknown component" in done.stderr and "node" not in done.stderr.split("overlay:")[1]


@pytest.mark.parametrize("playbook", ["artifacts", "bundle", "validate", "../site"])
def test_without_machines_a_playbook_says_how_they_are_made(checkout: Path, playbook: str) -> None:
    """With the collection as it is: its first play is what stops."""
    site = write_site(checkout / "inventories" / "none", nodes_text=PENDING)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("ANSIBLE_", "PYTHONPATH"))}
    command = [str(Path(sys.executable).parent / "ansible-playbook"), "-i", str(site), f"playbooks/{playbook}.yml"]
    done = subprocess.run(command, cwd=REPOSITORY, env=environment | {"ANSIBLE_NOCOLOR": "1"}, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 2
    said = " ".join((done.stdout + done.stderr).split())
    assert f"The site prod has no machines yet. Run: ansible-playbook -i {site} playbooks/machines.yml" in said
