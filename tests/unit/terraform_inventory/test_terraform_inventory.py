# SPDX-License-Identifier: Apache-2.0
"""The plugin: several sources, what is pending, the cache, constructed groups, and which files it claims."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.utils.display import Display
from ansible_collections.ashlar.stack.plugins.plugin_utils.machines.configuration import parse_configuration
from states import aws, bare, configuration, hosts_of, inventory_of, machine, plugin, program, resource, state, write


@pytest.fixture
def spoken(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the plugin tells the operator besides errors."""
    words: list[str] = []
    for way in ("warning", "display"):
        monkeypatch.setattr(Display, way, lambda self, text, *_, **__: words.append(str(text)))
    return words


def test_several_states_become_one_inventory(tmp_path: Path) -> None:
    write(tmp_path / "a.tfstate", state({"node-1": machine(1)}))
    write(tmp_path / "b.tfstate", state(resources=[resource("aws_instance", aws(1), module='module.x["y"]')]))
    write(tmp_path / "c.tfstate", state(None, outputs={"machines": {"value": {"node-1": machine(3, user="root")}, "sensitive": True}}))
    sources = [{"state": "a.tfstate"}, {"state": "b.tfstate", "prefix": "eu-"}, {"state": "$HERE/c.tfstate", "output": "machines", "prefix": "us-"}]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HERE", str(tmp_path))
        hosts = hosts_of(configuration(tmp_path, sources=sources, user="ubuntu"))
    assert {name: (one["node_address"], one["ansible_user"]) for name, one in hosts.items()} == {
        "node-1": ("10.0.0.2", "ubuntu"),
        "eu-node-1": ("10.0.0.1", "ubuntu"),
        "us-node-1": ("10.0.0.4", "ubuntu"),
    }


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "is not there yet"),
        (state(), "has nothing applied yet"),
        (state(resources=[resource("aws_ami", aws(1), mode="data")]), "has nothing applied yet"),
        (state({}), 'has no machine in its output "nodes"'),
    ],
)
def test_before_the_first_apply_there_is_no_host_and_a_note(
    tmp_path: Path, spoken: list[str], content: Any, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "other.tfstate", state({"a": machine()}))
    if content is not None:
        write(tmp_path / "state.tfstate", content)
    inventory = inventory_of(configuration(tmp_path, sources=[{"state": "other.tfstate"}, {"state": "state.tfstate"}]))
    assert not inventory.hosts
    assert inventory.groups["all"].vars["site_machines"] == "pending"
    assert spoken == [f"No machines yet: state.tfstate {reason}. playbooks/machines.yml applies a root."]


@pytest.mark.parametrize("nodes", [{"a": machine(7)}, ["x"], {"a": "10.0.0.1"}])
def test_a_state_whose_output_of_that_name_is_something_else_can_be_adopted(tmp_path: Path, nodes: Any) -> None:
    write(tmp_path / "state.tfstate", state(nodes, [resource("aws_instance", aws(1))]))
    hosts = hosts_of(configuration(tmp_path, sources=[{"state": "state.tfstate", "adopt": True}], user="admin"))
    assert {name: one["node_address"] for name, one in hosts.items()} == {"node-1": "10.0.0.1"}


def test_objects_of_before_terraform_0_12_do_not_vanish(tmp_path: Path) -> None:
    flat = {"id": "i-2", "private_ip": "10.0.0.2", "tags.%": "2", "tags.Name": "old", "tags.ashlar_classes": "control"}
    write(tmp_path / "state.tfstate", state(None, [resource("aws_instance", aws(1), {"attributes_flat": flat, "attributes": None})]))
    assert list(hosts_of(configuration(tmp_path, user="admin"))) == ["node-1", "old"]


def test_machines_are_not_pending(tmp_path: Path, spoken: list[str]) -> None:
    write(tmp_path / "state.tfstate", state({"a": machine()}))
    inventory = inventory_of(configuration(tmp_path))
    assert "site_machines" not in inventory.groups["all"].vars
    assert spoken == []


def test_the_sites_own_key_and_known_hosts_are_used(tmp_path: Path) -> None:
    write(tmp_path / "state.tfstate", state({"a": machine(bastion={"host": "198.51.100.9", "user": "jump"})}))
    ssh = tmp_path / "credentials" / "ssh"
    for name in ("known_hosts", "id_ed25519"):
        write(ssh / name, "")
    (host,) = hosts_of(configuration(tmp_path)).values()
    assert host["ansible_ssh_private_key_file"] == str(ssh / "id_ed25519")
    assert host["ansible_ssh_common_args"].count("UserKnownHostsFile") == host["ansible_ssh_common_args"].count("StrictHostKeyChecking=yes") == 2
    other = write(tmp_path / "keys" / "known", "")
    (host,) = hosts_of(configuration(tmp_path, known_hosts="keys/known", use_bastion=False)).values()
    assert str(other) in host["ansible_ssh_common_args"]
    assert host["ansible_host"] == "198.51.100.2"


def test_a_text_that_looks_like_a_template_stays_a_text(tmp_path: Path) -> None:
    write(tmp_path / "state.tfstate", state({"a": machine(labels={"x": "{{ lookup('pipe', 'id') }}"})}))
    configuration(tmp_path)
    done = program("-i", "10-nodes.terraform.yml", "--host", "a", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "uid=" not in done.stdout


def test_constructed_groups_and_variables(tmp_path: Path) -> None:
    write(tmp_path / "state.tfstate", state({"a": machine(1), "b": machine(2, zone="eu-1b", volumes=[{"name": "d", "size_gib": 2000, "device": "/dev/d"}])}))
    configuration(
        tmp_path,
        strict=True,
        compose={"rack": "node_labels.disk ~ '-' ~ node_zone"},
        groups={"large": "(node_volumes | map(attribute='size_gib') | sum) > 1000", "worker_b": "inventory_hostname == 'b' and rack == 'ssd-eu-1b'"},
        keyed_groups=[{"key": "node_zone", "prefix": "zone"}, {"key": "node_classes", "separator": ""}],
    )
    done = program("-i", "10-nodes.terraform.yml", "--list", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    listed = bare(json.loads(done.stdout))
    members = {group: content["hosts"] for group, content in listed.items() if "hosts" in content}
    assert members == {"large": ["b"], "worker_b": ["b"], "zone_eu_1a": ["a"], "zone_eu_1b": ["b"], "worker": ["a", "b"]}
    assert listed["_meta"]["hostvars"]["b"]["rack"] == "ssd-eu-1b"


def test_what_was_cached_is_used_until_the_configuration_changes(tmp_path: Path) -> None:
    secret = {"password": {"value": "s3cret-of-the-state", "sensitive": True}, "nodes": {"value": {"a": machine(1)}}}
    write(tmp_path / "state.tfstate", state(None, outputs=secret))
    options = {"cache": True, "cache_plugin": "ansible.builtin.jsonfile", "cache_connection": "cache", "cache_timeout": 3600}
    configuration(tmp_path, **options)

    def listed(*more: str) -> list[str]:
        done = program("-i", "10-nodes.terraform.yml", "--list", *more, folder=tmp_path)
        assert done.returncode == 0, done.stderr
        return sorted(json.loads(done.stdout)["_meta"]["hostvars"])

    assert listed() == ["a"]
    (cached,) = [file for file in (tmp_path / "cache").iterdir() if file.is_file()]
    assert "10.0.0.2" in cached.read_text()
    assert "s3cret-of-the-state" not in cached.read_text()
    write(tmp_path / "state.tfstate", "damaged")
    assert listed() == ["a"]
    assert program("-i", "10-nodes.terraform.yml", "--list", "--flush-cache", folder=tmp_path).returncode == 4
    write(tmp_path / "state.tfstate", state({"b": machine(2)}))
    cached.write_text("damaged")
    assert listed() == ["b"]
    write(tmp_path / "state.tfstate", state({"c": machine(3)}))
    assert listed() == ["b"]
    configuration(tmp_path, **options, user="root")
    assert listed() == ["c"]


@pytest.mark.parametrize("outputs", [{"nodes": {"value": {"a": machine(1)}, "sensitive": True}}, {}], ids=["sensitive", "pending"])
def test_what_is_sensitive_or_pending_is_not_cached(tmp_path: Path, outputs: dict[str, Any]) -> None:
    write(tmp_path / "state.tfstate", state(None, outputs=outputs))
    configuration(tmp_path, cache=True, cache_plugin="ansible.builtin.jsonfile", cache_connection="cache")
    assert program("-i", "10-nodes.terraform.yml", "--list", folder=tmp_path).returncode == 0
    assert [file for file in (tmp_path / "cache").iterdir() if "10.0.0.2" in file.read_text()] == []
    write(tmp_path / "state.tfstate", state({"b": machine(2)}))
    done = program("-i", "10-nodes.terraform.yml", "--list", folder=tmp_path)
    assert sorted(json.loads(done.stdout)["_meta"]["hostvars"]) == ["b"]


def test_which_files_are_claimed(tmp_path: Path) -> None:
    files = {
        "10-nodes.terraform.yml": f"plugin: {plugin.NAME}\n",
        "terraform.yaml": f"plugin: '{plugin.NAME}'\n",
        "a.terraform.yml": "sources: []\n",
        "b.terraform.yml": "",
        "c.terraform.yml": "plugin: ashlar.stack.terrafrom\n",
        "other.terraform.yml": "plugin: cloud.terraform.terraform_provider\n",
        "stack.terraform.yml": "plugin: ashlar.stack.stack\n",
        "hosts.terraform.yml": "all: {hosts: {}}\n",
        "10-nodes.yml": f"plugin: {plugin.NAME}\n",
    }
    for name, text in files.items():
        write(tmp_path / name, text)
    (tmp_path / "d.terraform.yml").mkdir()
    reader = plugin.InventoryModule()
    assert [name for name in [*files, "d.terraform.yml", "none.terraform.yml"] if reader.verify_file(str(tmp_path / name))] == list(files)[:5]


def test_the_examples_of_the_documentation_are_right_but_for_their_paths(tmp_path: Path) -> None:
    examples = list(yaml.safe_load_all(plugin.EXAMPLES))
    assert len(examples) == 8
    for example in examples:
        assert parse_configuration(plugin.DOCUMENTATION, example, tmp_path / "x.terraform.yml").sources
