# SPDX-License-Identifier: Apache-2.0
"""The collection's own files: what editors complete is what the plugin accepts, and what is promised is there."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.ashlar.stack.plugins.inventory.stack import DOCUMENTATION
from ansible_collections.ashlar.stack.plugins.plugin_utils.site.catalogue import as_tuple, load
from ansible_collections.ashlar.stack.plugins.plugin_utils.site.compile import steps_of
from ansible_collections.ashlar.stack.plugins.plugin_utils.site.models import LAYERS, NODE_CLASSES, Problem
from ansible_collections.ashlar.stack.plugins.plugin_utils.site.options import wrong_value
from ansible_collections.ashlar.stack.plugins.plugin_utils.site.structure import check
from jsonschema import Draft202012Validator

ROOT = Path(__file__).parents[3]
STACKS = sorted(file for file in (ROOT / "stacks").glob("*.yml") if file.stem != "slots")
MANIFESTS = sorted((ROOT / "roles").glob("*/meta/component.yml"))
SITES = sorted((ROOT / "inventories").glob("*/20-stack.yml"))


def schema(name: str) -> dict[str, Any]:
    return dict(json.loads((ROOT / "schemas" / f"{name}.json").read_text()))


def violations(name: str, file: Path) -> list[Problem]:
    return check(ROOT, name, yaml.safe_load(file.read_text()), str(file))


@pytest.mark.parametrize("file", sorted((ROOT / "schemas").glob("*.json")), ids=lambda file: file.stem)
def test_schemas_are_schemas_in_which_everything_is_described(file: Path) -> None:
    content = json.loads(file.read_text())
    Draft202012Validator.check_schema(content)
    waiting: list[tuple[str, Any]] = [("", content)]
    while waiting:
        path, part = waiting.pop()
        if isinstance(part, dict):
            for name, entry in part.get("properties", {}).items():
                if name not in ("class", "all") and isinstance(entry, dict):
                    assert "description" in entry, f"{path}/{name} of {file.name} has no description"
            waiting += [(f"{path}/{key}", entry) for key, entry in part.items()]
        elif isinstance(part, list):
            waiting += [(f"{path}/{index}", entry) for index, entry in enumerate(part)]


def test_schemas_know_the_slots_layers_and_classes_of_the_plugin() -> None:
    slots = list(yaml.safe_load((ROOT / "stacks" / "slots.yml").read_text()))
    assert schema("manifest")["$defs"]["slot"]["enum"] == slots
    for name in ("site", "stack"):
        assert list(schema(name)["$defs"]["choices"]["properties"]) == slots
    assert schema("site")["$defs"] == schema("stack")["$defs"]
    assert schema("manifest")["properties"]["layer"]["enum"] == list(LAYERS)
    assert schema("manifest")["properties"]["nodes"]["properties"]["class"]["enum"] == [*NODE_CLASSES, "all"]
    assert schema("nodes")["$defs"]["variables"]["properties"]["node_classes"]["items"]["enum"] == list(NODE_CLASSES)


def test_the_plugins_documentation_has_the_options_of_the_schema() -> None:
    assert set(yaml.safe_load(DOCUMENTATION)["options"]) == set(schema("site")["properties"])


@pytest.mark.parametrize("file", STACKS, ids=lambda file: file.stem)
def test_stacks_follow_their_schema(file: Path) -> None:
    assert violations("stack", file) == []
    content = yaml.safe_load(file.read_text())
    assert content["name"] == file.stem
    core = {"runtime", "key_value", "scheduler", "orchestrator", "overlay", "load_balancer", "discovery"}
    assert core <= set(content["slots"])


def test_the_five_stacks_are_there() -> None:
    assert {"tectonic", "mantl", "schub", "docker_dc", "nomad"} <= {file.stem for file in STACKS}


def test_tectonic_is_complete() -> None:
    manifests = load(ROOT).manifests
    content = yaml.safe_load((ROOT / "stacks" / "tectonic.yml").read_text())
    for slot, choice in content["slots"].items():
        for component in as_tuple(choice):
            assert component in manifests, f"tectonic names {component}, which has no manifest"
            assert slot in manifests[component].fills, f"{component} does not fill {slot}"
    for slot, choice in content["planned"].items():
        assert not [name for name in as_tuple(choice) if name in manifests], f"something planned for {slot} exists: choose it"


@pytest.mark.parametrize("file", SITES, ids=lambda file: file.parent.name)
def test_site_files_follow_their_schema(file: Path) -> None:
    assert violations("site", file) == []


@pytest.mark.parametrize("file", sorted((ROOT / "inventories").glob("*/10-nodes.yml")), ids=lambda file: file.parent.name)
def test_node_files_follow_their_schema(file: Path) -> None:
    assert violations("nodes", file) == []


@pytest.mark.parametrize("file", sorted((ROOT / "releases").glob("*.yml")), ids=lambda file: file.stem)
def test_releases_follow_their_schema(file: Path) -> None:
    assert violations("release", file) == []


@pytest.mark.parametrize("file", MANIFESTS, ids=lambda file: file.parents[1].name)
def test_defaults_of_a_component_pass_its_own_argument_spec(file: Path) -> None:
    catalogue = load(ROOT)
    name = file.parents[1].name
    specs = catalogue.options(name)
    assert specs is not None, f"roles/{name}/meta/argument_specs.yml is missing"
    for option, value in catalogue.defaults(name).items():
        assert option in specs, f"{option} is in the defaults of {name}, but not in its argument spec"
        limits = catalogue.manifests[name].limits.get(option, {})
        assert value is None or not wrong_value(specs[option], limits, value)
    assert set(catalogue.manifests[name].limits) <= set(specs)


@pytest.mark.parametrize("file", [*STACKS, *MANIFESTS, *SITES, *sorted((ROOT / "inventories" / "example").glob("10-nodes.yml"))], ids=str)
def test_files_say_which_schema_completes_them(file: Path) -> None:
    first = file.read_text().splitlines()[0]
    assert first.startswith("# yaml-language-server: $schema="), f"{file} names no schema in its first line"
    assert (file.parent / first.partition("$schema=")[2]).resolve().is_file()


def test_upgrades_take_the_plays_of_components_in_the_order_of_the_site() -> None:
    written = re.search(r"# >>> components.*?\n(.*)# <<< components", (ROOT / "site.yml").read_text(), re.DOTALL)
    assert written
    plays = re.findall(r"^- name: \w+ \| (.+)$", written[1], re.MULTILINE)
    manifests = load(ROOT).manifests
    steps = steps_of([manifests[play] for play in plays if " " not in play])
    assert [f"{step['component']} {step['tasks']}".removesuffix(" main") for step in steps] == plays


DISK = {"name": "one", "path": "/dev/disk/by-id/a"}


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("ceph_osd_disks", [DISK, DISK | {"name": "two"}], "Allowed: each path once. Remove the other, or correct it."),
        ("ceph_osd_disks", [DISK, DISK | {"path": "/dev/disk/by-id/b"}], "Allowed: each name once. Remove the other, or correct it."),
        ("ceph_osd_disks", [DISK | {"size_gib": 1}], "Allowed as size_gib: a whole number from 5 to 65536."),
        ("ceph_osd_disks", [DISK | {"path": "sdb"}], "Allowed as path: a text that matches /[A-Za-z0-9/_.:+-]+."),
        ("ceph_osd_disks", [{"name": "one"}], "missing required arguments: path found in value. Allowed: a list, each a mapping."),
        ("ceph_osd_disks", [DISK], ""),
        ("ceph_rgw_buckets", [{"name": "Images", "user": "registry"}], "Allowed as name: a text that matches [a-z0-9][a-z0-9.-]{1,61}[a-z0-9]."),
        ("ceph_rgw_buckets", [{"name": "images", "user": "registry"}], ""),
    ],
)
def test_members_of_lists_have_limits(option: str, value: list[dict[str, Any]], said: str) -> None:
    component = option.rpartition("_")[0]
    catalogue = load(ROOT)
    limits = catalogue.manifests[component].limits[option]
    assert wrong_value((catalogue.options(component) or {})[option], limits, value).endswith(said)
