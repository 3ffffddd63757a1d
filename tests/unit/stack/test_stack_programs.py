# SPDX-License-Identifier: Apache-2.0
"""The plugin inside Ansible's own programs: what an operator sees, and that a wrong site ends a run before it starts."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from configparser import ConfigParser
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
enable_plugins = {plugins}
any_unparsed_is_failed = {strict}
"""
OURS = ConfigParser()
OURS.read(REPOSITORY / "ansible.cfg")
# The checkout of the tests has no plugins but this one.
PLUGINS = [name for name in OURS["inventory"]["enable_plugins"].split(", ") if not name.startswith("ashlar.stack.") or name == "ashlar.stack.stack"]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout of the small collection with the real plugin."""
    root = write_collection(tmp_path_factory.mktemp("checkout"))
    for folder in ("plugins/inventory", "plugins/plugin_utils", "plugins/module_utils"):
        shutil.copytree(REPOSITORY / folder, root / folder, ignore=shutil.ignore_patterns("__pycache__"))
    (root / ".collections" / "ansible_collections" / "ashlar").mkdir(parents=True)
    (root / ".collections" / "ansible_collections" / "ashlar" / "stack").symlink_to("../../..")
    (root / "site.yml").write_text(PLAYBOOK)
    return root


def run(checkout: Path, *command: str, strict: bool = True) -> subprocess.CompletedProcess[str]:
    (checkout / "ansible.cfg").write_text(CONFIGURATION.format(plugins=", ".join(PLUGINS), strict=strict))
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


FORMATS = {
    "ini": (
        "10-nodes.ini",
        """
[machines]
node[1:3]
bastion node_classes='[]'
database
[machines:vars]
node_classes=["control", "worker"]
node_address=192.0.2.{{ inventory_hostname[4:] }}
[others]
database
[others:vars]
node_classes=[]
""",
    ),
    "ini with words": (
        "10-nodes",
        """
node1 node_address=192.0.2.1 node_classes=control,worker
node2 node_address=192.0.2.2 node_classes="control, worker"
node3 node_address=192.0.2.3 node_classes='["control", "worker"]' node_labels='{"disk": "ssd"}'
bastion node_classes=[]
database node_classes=""
""",
    ),
    "toml": (
        "10-nodes.toml",
        """
[machines.vars]
node_classes = ["control", "worker"]
[machines.hosts.node1]
node_address = "192.0.2.1"
[machines.hosts.node2]
node_address = "192.0.2.2"
[machines.hosts.node3]
node_address = "192.0.2.3"
[others.vars]
node_classes = []
[others.hosts.bastion]
[others.hosts.database]
""",
    ),
    "json": (
        "10-nodes.json",
        """{"all": {"hosts": {
"node1": {"node_address": "192.0.2.1", "node_classes": ["control", "worker"]},
"node2": {"node_address": "192.0.2.2", "node_classes": ["control", "worker"]},
"node3": {"node_address": "192.0.2.3", "node_classes": ["control", "worker"]},
"bastion": {"node_classes": []}, "database": {"node_classes": []}}}}""",
    ),
    "script": (
        "10-nodes.sh",
        """#!/bin/sh
echo '{"machines": {"hosts": ["node1", "node2", "node3"], "vars": {"node_classes": ["control", "worker"]}},
"others": {"hosts": ["bastion", "database"], "vars": {"node_classes": []}},
"_meta": {"hostvars": {"node1": {"node_address": "192.0.2.1"}, "node2": {"node_address": "192.0.2.2"}, "node3": {"node_address": "192.0.2.3"}}}}'
""",
    ),
    "generator": (
        "10-nodes.yml",
        """
plugin: ansible.builtin.generator
hosts: {name: "{{ host }}"}
layers: {host: [node1, node2, node3, bastion, database]}
""",
    ),
}
GENERATED = """
plugin: ansible.builtin.constructed
strict: true
compose:
  node_classes: "['control', 'worker'] if inventory_hostname is match('node') else []"
  node_address: "'192.0.2.' ~ inventory_hostname[4:]"
groups: {others: node_classes | length == 0}
"""


@pytest.mark.parametrize("form", FORMATS)
def test_every_format_of_inventories_works_and_hosts_that_are_no_nodes_stay_out(checkout: Path, form: str) -> None:
    site = write_site(checkout / "inventories" / form.replace(" ", "-"))
    (site / "10-nodes.yml").unlink()
    name, text = FORMATS[form]
    (site / name).write_text(text.lstrip())
    (site / name).chmod(0o755 if name.endswith(".sh") else 0o644)
    if form == "generator":
        (site / "15-classes.yml").write_text(GENERATED)
    done = run(checkout, "ansible-inventory", "-i", str(site), "--list")
    assert (done.returncode, done.stderr) == (0, "")
    inventory = json.loads(done.stdout)
    assert inventory["nodes"]["hosts"] == inventory["etcd"]["hosts"] == ["node1", "node2", "node3"]
    variables = inventory["_meta"]["hostvars"]
    assert "node_components" in variables["node1"] and variables["bastion"].keys() == variables["database"].keys()
    assert "node_components" not in variables["bastion"]


def test_hosts_given_by_name_alone_take_their_classes_from_group_vars(checkout: Path) -> None:
    files = {"group_vars/all.yml": "node_classes: [control, worker]\nnode_address: 192.0.2.{{ inventory_hostname[4:] }}\n"}
    site = write_site(checkout / "inventories" / "names", files=files)
    done = run(checkout, "ansible-inventory", "-i", "node1,node2,node3,", "-i", str(site / "20-stack.yml"), "--graph", "nodes")
    assert (done.returncode, done.stdout.split()) == (0, ["@nodes:", "|--node1", "|--node2", "|--node3"])


def stopped(checkout: Path, site: Path) -> str:
    """What is said of a site that must be refused, once and by one message."""
    done = run(checkout, "ansible-inventory", "-i", f"inventories/{site.name}", "--list")
    assert (done.returncode, done.stdout) == (4, "")
    start = "[ERROR]: The site cannot be planned; no host was touched.\n  "
    assert done.stderr.startswith(start)
    return done.stderr.removeprefix(start).strip()


@pytest.mark.parametrize(("text", "kind"), [("", "nothing"), ("---\n", "nothing"), ("- plugin: ashlar.stack.stack\n", "a list"), ("# soon\n", "nothing")])
def test_a_site_file_that_is_no_mapping_is_one_clear_error(checkout: Path, text: str, kind: str) -> None:
    site = write_site(checkout / "inventories" / "formless")
    (site / "20-stack.yml").write_text(text)
    assert stopped(checkout, site) == (
        f"inventories/formless/20-stack.yml: is {kind}. Allowed: a mapping (key: value), as schemas/site.json describes."
    )


@pytest.mark.parametrize("name", ["group_vars/all.yml", "group_vars/control/etcd.yml", "host_vars/node1.yml"])
def test_broken_yaml_among_variables_is_one_clear_error(checkout: Path, name: str) -> None:
    nodes = "control: {hosts: {node1: {node_address: 192.0.2.11, node_classes: [control, worker]}}}\n"
    site = write_site(checkout / "inventories" / "broken", nodes_text=nodes, files={name: "etcd_snapshot_keep: [3\n"})
    said = stopped(checkout, site)
    shutil.rmtree(site)
    assert said == f"inventories/broken/{name}: is not valid YAML: line 2, column 1: did not find expected ',' or ']'."


def test_two_site_files_are_one_too_many(checkout: Path) -> None:
    site = write_site(checkout / "inventories" / "twice")
    shutil.copy(site / "20-stack.yml", site / "30-stack.yml")
    assert stopped(checkout, site) == (
        "inventories/twice/30-stack.yml: is a second site file: 20-stack.yml was read before it, "
        "and an inventory is one site. Remove one of them, or keep it in a folder of its own."
    )


@pytest.mark.parametrize("name", ["30-nodes.ini", "nodes"])
def test_nodes_in_a_file_after_the_site_file_are_one_clear_error(checkout: Path, name: str) -> None:
    site = write_site(checkout / "inventories" / "late", files={name: "node4 node_address=192.0.2.14 node_classes=worker\n"})
    said = stopped(checkout, site)
    shutil.rmtree(site)
    assert said == (
        f"inventories/late/{name}: has hosts (node4) and is read after 20-stack.yml, by the order of names, so they would be no part of the site. "
        "Rename it so that it comes before, for example to 10-nodes" + (".ini." if name.endswith(".ini") else ".")
    )


def test_groups_may_be_made_of_the_plan_by_a_file_after_the_site_file(checkout: Path) -> None:
    constructed = "plugin: ansible.builtin.constructed\nstrict: true\ngroups: {masters: \"'etcd' in node_components\"}\n"
    write_site(checkout / "inventories" / "grouped", files={"30-groups.yml": constructed})
    done = run(checkout, "ansible-inventory", "-i", "inventories/grouped", "--graph", "masters")
    assert (done.returncode, done.stderr, done.stdout.split()) == (0, "", ["@masters:", "|--node1", "|--node2", "|--node3"])


def test_what_editors_and_terraform_leave_is_no_inventory(checkout: Path) -> None:
    names = ["#20-stack.yml#", "main.tf", "terraform.tfstate", ".terraform.lock.hcl", "plan.tfplan"]
    write_site(checkout / "inventories" / "littered", files=dict.fromkeys(names, "plugin: [ashlar\n"))
    done = run(checkout, "ansible-inventory", "-i", "inventories/littered", "--graph", "nodes")
    assert (done.returncode, done.stderr, done.stdout.split()) == (0, "", ["@nodes:", "|--node1", "|--node2", "|--node3"])


def test_an_inventory_of_openstack_is_none_of_ours(checkout: Path) -> None:
    site = write_site(checkout / "inventories" / "other")
    (site / "10-nodes.yml").rename(site / "10-openstack.yml")
    done = run(checkout, "ansible-inventory", "-i", str(site), "--graph", "nodes")
    assert (done.returncode, done.stdout.split()) == (0, ["@nodes:", "|--node1", "|--node2", "|--node3"])


def test_a_tag_that_nobody_has_ends_the_run_before_a_host_is_touched(checkout: Path) -> None:
    """With the collection as it is; ansible-playbook itself would run nothing and end with 0."""
    site = REPOSITORY / "inventories" / "example"
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("ANSIBLE_", "PYTHONPATH"))}
    command = [str(Path(sys.executable).parent / "ansible-playbook"), "-i", str(site), "site.yml", "--tags", "etcd,ectd", "--skip-tags", "notest"]
    done = subprocess.run(command, cwd=REPOSITORY, env=environment | {"ANSIBLE_NOCOLOR": "1"}, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 2
    said = " ".join(done.stdout.split())
    assert 'This site has no tag "ectd". Tags are its layers, base, runtime, coordination,' in said and "1 failed" in said
