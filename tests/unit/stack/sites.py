# SPDX-License-Identifier: Apache-2.0
"""Makes a small collection and sites in temporary folders, and runs the inventory plugin on them as Ansible does."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from ansible.inventory.data import InventoryData
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.loader import inventory_loader
from ansible_collections.ashlar.stack.plugins.inventory import stack as plugin
from ansible_collections.ashlar.stack.plugins.plugin_utils.site import reading
from ansible_collections.ashlar.stack.plugins.plugin_utils.site.models import TASKS

REPOSITORY = Path(__file__).parents[3]
COLLECTION = Path(__file__).parent / "collection.yml"
VERSIONS = {
    "containerd": ["2.4.2"],
    "coredns": ["1.15.0"],
    "etcd": ["3.5.21", "3.6.8", "3.7.3"],
    "flannel": ["0.26.7"],
    "haproxy": ["3.0.11"],
    "kubernetes": ["1.34.4", "1.35.4", "1.36.3"],
    "rarity": ["1.0.0"],
}
RELEASE = {"containerd": "2.4.2", "coredns": "1.15.0", "etcd": "3.7.3", "flannel": "0.26.7", "haproxy": "3.0.11", "kubernetes": "1.36.3", "mystery": "1.0.0"}
STACKS = {
    "tectonic": {
        "description": "What can be had in the small collection.",
        "slots": {
            "runtime": "containerd",
            "key_value": "etcd",
            "scheduler": "kubernetes_control",
            "orchestrator": ["kubernetes_control", "kubernetes_node", "api_balancer"],
            "overlay": "flannel",
            "load_balancer": "kubernetes_node",
            "discovery": "coredns",
            "monitoring": "metrics_server",
        },
        "planned": {"storage": "ceph"},
    },
    "nomad": {
        "description": "What can hardly be had in the small collection.",
        "slots": {"runtime": "docker", "key_value": ["nomad", "consul"], "scheduler": "nomad", "overlay": "flannel", "discovery": "consul"},
    },
}
SITE = {"plugin": "ashlar.stack.stack", "site": "prod", "domain": "prod.example.com", "stack": "tectonic", "release": "2026.11"}
NODES = {f"node{number}": {"node_address": f"192.0.2.{10 + number}", "node_classes": ["control", "worker"]} for number in (1, 2, 3)}


def write_collection(root: Path) -> Path:
    """The collection of ``collection.yml`` under ``root``."""
    for name, content in yaml.safe_load(COLLECTION.read_text()).items():
        role = root / "roles" / name
        _write(role / "meta" / "component.yml", content["manifest"])
        for tasks in (content["manifest"].get("life", {}).get(key) for key in TASKS):
            if tasks:
                _write(role / "tasks" / f"{tasks}.yml", [])
        options = content.get("options", {})
        _write(role / "meta" / "argument_specs.yml", {"argument_specs": {"main": {"options": options}}})
        _write(role / "defaults" / "main.yml", {option: spec["default"] for option, spec in options.items() if "default" in spec})
    for artifact, versions in VERSIONS.items():
        _write(root / "artifacts" / artifact / "artifact.yml", {"versions": {version: {} for version in versions}})
    _write(root / "artifacts" / "homely" / "artifact.yml", {"program": True})
    _write(root / "programs" / "homely" / "settings.yml", {"colour": "red"})
    _write(root / "releases" / "2026.11.yml", {"name": "2026.11", "versions": RELEASE})
    for name, content in STACKS.items():
        _write(root / "stacks" / f"{name}.yml", {"name": name, **content})
    for path in ("schemas", "stacks/slots.yml"):
        (root / path).symlink_to(REPOSITORY / path)
    return root


def write_site(
    directory: Path,
    site: Mapping[str, Any] | None = None,
    nodes: Mapping[str, Any] | None = None,
    site_text: str | None = None,
    nodes_text: str | None = None,
    files: Mapping[str, str] | None = None,
    modes: Mapping[str, str] | None = None,
) -> Path:
    """A right site, but for what is given.

    :param site: keys of the site file to set, or to leave out where null. ``nodes``: the same for hosts and their variables.
    :param site_text: the whole site file instead. ``nodes_text``: the whole node file instead.
    :param files: what lies beside, path -> text. ``modes``: path -> octal mode, folders are made.
    """
    directory.mkdir(parents=True, exist_ok=True)
    hosts = {name: merged(NODES.get(name, {}), (nodes or {}).get(name, {})) for name in {**NODES, **(nodes or {})} if (nodes or {}).get(name, {}) is not None}
    (directory / "10-nodes.yml").write_text(nodes_text or _yaml({"all": {"hosts": hosts}}))
    (directory / "20-stack.yml").write_text(site_text or _yaml(merged(SITE, site or {})))
    for name, text in (files or {}).items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text(text)
    for name, mode in (modes or {}).items():
        if not (directory / name).exists():
            (directory / name).mkdir(parents=True)
        (directory / name).chmod(int(mode, 8))
    return directory


def inventory_of(directory: Path, root: Path, monkeypatch: Any) -> InventoryData:
    """The inventory of a site's folder: its node file by Ansible's own plugin, then its site file by ours."""
    monkeypatch.setattr(plugin, "ROOT", root)
    monkeypatch.chdir(directory)
    reading._composed.cache_clear()
    inventory, loader = InventoryData(), DataLoader()
    for file, reader in ((directory / "10-nodes.yml", inventory_loader.get("yaml")), (directory / "20-stack.yml", plugin.InventoryModule())):
        inventory.current_source = str(file)
        assert reader.verify_file(str(file))
        reader.parse(inventory, loader, str(file))
        inventory.processed_sources.append(str(file))
    inventory.reconcile_inventory()
    return inventory


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """``base`` with ``changes``; a null leaves the key out."""
    return {key: value for key, value in {**base, **changes}.items() if value is not None}


class _Plain(yaml.SafeDumper):
    """No anchors, so that line numbers are what one expects."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _yaml(content: Any) -> str:
    return yaml.dump(content, Dumper=_Plain, sort_keys=False, width=200)


def _write(file: Path, content: Any) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(_yaml(content))
