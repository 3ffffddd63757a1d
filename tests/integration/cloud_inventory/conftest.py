# SPDX-License-Identifier: Apache-2.0
"""Clouds on 127.0.0.1: moto's server for AWS, recorded answers for Google and OpenStack; and Ansible asking them, in this process or by its command."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest
import requests
import yaml
from ansible import constants
from ansible.inventory.data import InventoryData
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.doc_fragments import constructed, inventory_cache
from ansible_collections.ashlar.stack.plugins.doc_fragments import machines
from ansible_collections.ashlar.stack.plugins.inventory import cloud as plugin
from ansible_collections.ashlar.stack.plugins.plugin_utils.machines.clouds import wire
from ansible_collections.ashlar.stack.plugins.plugin_utils.machines.clouds.common import retry
from clouds import Replay, key_file, openrc

REPOSITORY = Path(__file__).parents[3]
Inventory = Callable[..., InventoryData]


@pytest.fixture(autouse=True)
def no_credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As on a machine that knows no cloud: nothing of the developer's own is used, and nothing outside of it is asked."""
    for name in list(os.environ):
        if name.startswith(("AWS_", "OS_", "GOOGLE_", "GCLOUD_", "CLOUDSDK_", "GCE_")) or name.lower().endswith("_proxy") or name.endswith("_CA_BUNDLE"):
            monkeypatch.delenv(name)
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    # Port 9 (discard) has no listener: no metadata server.
    monkeypatch.setenv("GCE_METADATA_HOST", "127.0.0.1:9")
    monkeypatch.chdir(home)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """No pauses between attempts; those that were asked for, in seconds, are noted."""
    pauses: list[float] = []
    monkeypatch.setattr(wire, "retry", lambda call, attempts: retry(call, attempts, pauses.append))
    return pauses


@pytest.fixture(scope="session")
def options() -> None:
    """Says the plugin's options to Ansible, as its loader would, which tests that import the plugin go around."""
    known: dict[str, Any] = {}
    for documented in (constructed.ModuleDocFragment, inventory_cache.ModuleDocFragment, machines.ModuleDocFragment, plugin):
        known |= yaml.safe_load(documented.DOCUMENTATION)["options"]
    constants.config.initialize_plugin_configuration_definitions("inventory", plugin.NAME, known)


@pytest.fixture
def inventory(options: None, tmp_path: Path) -> Inventory:
    """Has the plugin list what a configuration (a mapping, or a text) names. Errors are raised, as for programs that use Ansible's API."""

    def ask(config: Mapping[str, Any] | str, cache: bool = True) -> InventoryData:
        folder = tmp_path / "site"
        folder.mkdir(exist_ok=True)
        file = folder / "10-nodes.cloud.yml"
        file.write_text(config if isinstance(config, str) else yaml.safe_dump({"plugin": plugin.NAME, **config}, sort_keys=False))
        data = InventoryData()
        module = plugin.InventoryModule()
        module._load_name = module._original_path = plugin.NAME
        module._redirect_names = [plugin.NAME]
        module.ansible_name = plugin.NAME
        assert module.verify_file(str(file))
        module.parse(data, DataLoader(), str(file), cache)
        if module.get_option("cache"):
            module.update_cache_if_changed()
        data.reconcile_inventory()
        return data

    return ask


@dataclass
class Said:
    """What the command said. ``hosts``: host -> variables."""

    code: int
    stdout: str
    stderr: str

    @property
    def hosts(self) -> dict[str, Any]:
        return plain(json.loads(self.stdout)["_meta"]["hostvars"])


def plain(value: Any) -> Any:
    """Without the marks that Ansible's JSON puts on text from elsewhere."""
    if isinstance(value, dict):
        return value["__ansible_unsafe"] if set(value) == {"__ansible_unsafe"} else {key: plain(part) for key, part in value.items()}
    return [plain(part) for part in value] if isinstance(value, list) else value


@pytest.fixture
def command(tmp_path: Path) -> Callable[..., Said]:
    """``ansible-inventory --list`` on a configuration, as a person would call it in this repository."""

    def run(config: Mapping[str, Any], *arguments: str) -> Said:
        folder = tmp_path / "site"
        folder.mkdir(exist_ok=True)
        (folder / "10-nodes.cloud.yml").write_text(yaml.safe_dump({"plugin": plugin.NAME, **config}))
        program = [str(Path(sys.executable).with_name("ansible-inventory")), "-i", str(folder), "--list", *arguments]
        environment = {**os.environ, "ANSIBLE_NOCOLOR": "1"}
        done = subprocess.run(program, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=600, check=False)
        return Said(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture
def aws(moto: str, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Any]:
    """An empty account that the environment leads to: region -> its EC2 client."""
    requests.post(f"{moto}/moto-api/reset", timeout=600)
    for name, value in {"AWS_ENDPOINT_URL": moto, "AWS_ACCESS_KEY_ID": "AKIAEXAMPLEEXAMPLE00", "AWS_SECRET_ACCESS_KEY": "example-secret-of-aws"}.items():
        monkeypatch.setenv(name, value)
    return lambda region: boto3.client("ec2", region_name=region)


@pytest.fixture
def replay() -> Iterator[Callable[[str], Replay]]:
    """Starts a server that replays a recording."""
    running: list[Replay] = []

    def start(recording: str | None = None) -> Replay:
        running.append(Replay(recording))
        return running[-1]

    yield start
    for server in running:
        server.stop()


@pytest.fixture
def google(replay: Callable[[str], Replay], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Replay:
    """Google's cloud with the project ``example``, and a key file that the environment names."""
    server = replay("gce")
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(key_file(tmp_path / "key.json", f"{server.url}/token")))
    return server


@pytest.fixture
def nova(replay: Callable[[str], Replay], monkeypatch: pytest.MonkeyPatch) -> Replay:
    """An OpenStack with two regions, and the variables of its openrc file."""
    server = replay("openstack")
    for name, value in openrc(server.url).items():
        monkeypatch.setenv(name, value)
    return server
