# SPDX-License-Identifier: Apache-2.0
"""Builders of machines and states, and the plugin as a program or in this process."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml
from ansible import constants
from ansible.inventory.data import InventoryData
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.doc_fragments import constructed, inventory_cache
from ansible_collections.ashlar.stack.plugins.doc_fragments import machines
from ansible_collections.ashlar.stack.plugins.inventory import terraform as plugin

REPOSITORY = Path(__file__).resolve().parents[3]


def machine(number: int = 1, **changes: Any) -> dict[str, Any]:
    """A whole machine of the contract; a change to None leaves a field out."""
    whole = {
        "id": f"i-{number:04}",
        "classes": ["worker"],
        "private_ip": f"10.0.{number // 250}.{number % 250 + 1}",
        "public_ip": f"198.51.100.{number % 250 + 1}",
        "user": "admin",
        "port": 22,
        "zone": "eu-1a",
        "region": "eu-1",
        "labels": {"disk": "ssd"},
        "volumes": [{"name": "data", "size_gib": 100, "device": "/dev/disk/by-id/data"}],
        "ssh_host_keys": ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ"],
        "load_balancers": {"control": "lb.example.com"},
        "management": {"protocol": "redfish", "address": "https://192.0.2.7"},
        "bastion": None,
    }
    return {key: value for key, value in {**whole, **changes}.items() if value is not None}


def state(nodes: Any = None, resources: list[Any] | None = None, **changes: Any) -> dict[str, Any]:
    """A state of version 4; a change to None leaves a key out."""
    outputs = {} if nodes is None else {"nodes": {"value": nodes, "type": "dynamic"}}
    whole = {
        "version": 4,
        "terraform_version": "1.6.2",
        "serial": 7,
        "lineage": "2f0c3d2e",
        "outputs": outputs,
        "resources": resources or [],
        "check_results": None,
    }
    return {key: value for key, value in {**whole, **changes}.items() if value is not None or key == "check_results"}


def resource(type_: str, *instances: Mapping[str, Any], name: str = "node", module: str | None = None, mode: str = "managed") -> dict[str, Any]:
    """A resource of a state; an instance is its attributes, or with ``attributes`` among them, the whole of it."""
    of_type = {
        "mode": mode,
        "type": type_,
        "name": name,
        "provider": 'provider["x"]',
        "instances": [dict(one) if "attributes" in one else {"schema_version": 1, "attributes": dict(one)} for one in instances],
    }
    return {**({"module": module} if module else {}), **of_type}


def aws(number: int = 1, **changes: Any) -> dict[str, Any]:
    """Attributes of an aws_instance."""
    return {
        "id": f"i-{number:04}",
        "private_ip": f"10.0.0.{number}",
        "public_ip": "",
        "availability_zone": "eu-central-1a",
        "instance_state": "running",
        "tags": {"Name": f"node-{number}", "ashlar_classes": "worker"},
        **changes,
    }


def write(file: Path, content: Any) -> Path:
    """Text, or JSON or YAML of anything else, after the file's name."""
    file.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, bytes):
        file.write_bytes(content)
    elif isinstance(content, str):
        file.write_text(content)
    elif file.suffix in (".yml", ".yaml"):
        file.write_text(yaml.safe_dump(content, sort_keys=False, width=200))
    else:
        file.write_text(json.dumps(content, indent=2))
    return file


def configuration(folder: Path, **options: Any) -> Path:
    """The plugin's file in a folder; without sources, its source is state.tfstate there."""
    return write(folder / "10-nodes.terraform.yml", {"plugin": plugin.NAME, "sources": [{"state": "state.tfstate"}], **options})


def inventory_of(file: Path, cache: bool = True) -> InventoryData:
    """What the plugin makes of its file, in this process."""
    _document()
    inventory = InventoryData()
    inventory.current_source = str(file)
    reader = plugin.InventoryModule()
    reader._load_name = reader.ansible_name = plugin.NAME
    assert reader.verify_file(str(file))
    reader.parse(inventory, DataLoader(), str(file), cache)
    inventory.reconcile_inventory()
    return inventory


def hosts_of(file: Path) -> dict[str, dict[str, Any]]:
    """Host -> variables, without those that every inventory sets."""
    hosts = inventory_of(file).hosts
    return {name: {key: value for key, value in host.vars.items() if key not in ("inventory_file", "inventory_dir")} for name, host in hosts.items()}


def program(*arguments: str, folder: Path, environment: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """ansible-inventory in a folder, with the repository's configuration and no other."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("ANSIBLE_", "PYTHONPATH", "TF_", "ASHLAR_"))}
    clean |= {"ANSIBLE_CONFIG": str(REPOSITORY / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1", "ANSIBLE_HOME": str(folder / ".ansible")}
    clean["TF_CLI_CONFIG_FILE"] = os.devnull
    command = [str(Path(sys.executable).parent / "ansible-inventory"), *arguments]
    return subprocess.run(command, cwd=folder, env={**clean, **(environment or {})}, capture_output=True, text=True, timeout=600, check=False)


def bare(value: Any) -> Any:
    """What ansible-inventory printed, without its marks on texts that are no templates."""
    if isinstance(value, dict):
        return value["__ansible_unsafe"] if set(value) == {"__ansible_unsafe"} else {key: bare(part) for key, part in value.items()}
    return [bare(part) for part in value] if isinstance(value, list) else value


def tool() -> str:
    """The OpenTofu or Terraform that the tests drive."""
    wanted = os.environ.get("ASHLAR_TOFU")
    found = shutil.which(wanted) if wanted else shutil.which("tofu") or shutil.which("terraform")
    assert found, "OpenTofu is missing: `make tools` installs it; or name one in ASHLAR_TOFU."
    return str(Path(found).absolute())


@lru_cache(maxsize=1)
def _document() -> None:
    """Says the plugin's options to Ansible, as its loader would, which tests that import the plugin go around."""
    options: dict[str, Any] = {}
    for documented in (constructed.ModuleDocFragment, inventory_cache.ModuleDocFragment, machines.ModuleDocFragment, plugin):
        options |= yaml.safe_load(documented.DOCUMENTATION)["options"]
    constants.config.initialize_plugin_configuration_definitions("inventory", plugin.NAME, options)
