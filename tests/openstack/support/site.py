# SPDX-License-Identifier: Apache-2.0
"""A copy of a site and its root, and the programs that work on it: OpenTofu and Ansible."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[3]
BIN = ROOT / ".venv" / "bin"
ARTIFACT = "terraform_provider_openstack"
LIMIT_SECONDS = 600


@dataclass(frozen=True)
class Site:
    """``folder`` holds terraform/ and inventories/openstack; ``settings`` is OpenTofu's own configuration."""

    folder: Path
    clouds: Path
    settings: Path

    @property
    def root(self) -> Path:
        return self.folder / "terraform/openstack"

    @property
    def inventory(self) -> Path:
        return self.folder / "inventories/openstack"

    def write(self, variables: Mapping[str, Any]) -> None:
        """The root's variables from now on."""
        (self.root / "site.auto.tfvars.json").write_text(json.dumps(variables))

    def tofu(self, *arguments: str) -> str:
        """What it printed; an AssertionError with all of it if it failed."""
        done = run([program(), *arguments], self.root, self._environment())
        assert done.returncode == 0, f"tofu {' '.join(arguments)}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def plan(self, *arguments: str) -> dict[str, list[str]]:
        """What a plan would do: address -> actions, without what stays as it is."""
        self.tofu("plan", "-input=false", "-out=plan", *arguments)
        shown = json.loads(self.tofu("show", "-json", "plan"))
        return {change["address"]: change["change"]["actions"] for change in shown.get("resource_changes", []) if change["change"]["actions"] != ["no-op"]}

    def resources(self) -> list[str]:
        """Addresses in the state."""
        return self.tofu("state", "list").split() if (self.root / "terraform.tfstate").is_file() else []

    def hosts(self, name: str, source: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
        """Host -> variables of an inventory of one file."""
        path = self.folder / "elsewhere" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(yaml.safe_dump(dict(source)))
        return dict(self.inventory_of(path).get("_meta", {}).get("hostvars", {}))

    def inventory_of(self, path: Path) -> dict[str, Any]:
        """`ansible-inventory --list`."""
        return dict(json.loads(self.ansible("ansible-inventory", "-i", str(path), "--list"), object_hook=_plain))

    def ansible(self, command: str, *arguments: str) -> str:
        """What it printed; an AssertionError with all of it if it failed."""
        environment = self._environment() | {"ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")}
        environment.pop("ANSIBLE_INVENTORY", None)
        done = run([str(BIN / command), *arguments], ROOT, environment)
        assert done.returncode == 0, f"{command} {' '.join(arguments)}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def _environment(self) -> dict[str, str]:
        """Of this machine's, nothing that would lead to another cloud."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("OS_", "TF_"))}
        ours = {"OS_CLIENT_CONFIG_FILE": str(self.clouds), "OS_CLOUD": "ashlar", "TF_CLI_CONFIG_FILE": str(self.settings), "ASHLAR_TOFU": program()}
        return kept | ours | {"TF_IN_AUTOMATION": "1", "CHECKPOINT_DISABLE": "1", "NO_COLOR": "1", "TF_CLI_ARGS": "-no-color", "NO_PROXY": "*"}


def _plain(found: dict[str, Any]) -> Any:
    """What came from outside is told apart in JSON; here a text is a text."""
    return found["__ansible_unsafe"] if set(found) == {"__ansible_unsafe"} else found


def run(command: list[str], folder: Path, environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """One command, of at most LIMIT_SECONDS."""
    return subprocess.run(command, cwd=folder, env=dict(environment), capture_output=True, text=True, timeout=LIMIT_SECONDS, check=False)


def program() -> str:
    """ASHLAR_TOFU, else `tofu` or `terraform` of the PATH, where the checkout's own venv comes first."""
    path = f"{BIN}{os.pathsep}{os.environ.get('PATH', '')}"
    for name in (os.environ.get("ASHLAR_TOFU"), "tofu", "terraform"):
        found = shutil.which(name, path=path) if name else None
        if found:
            return found
    raise RuntimeError("Neither tofu nor terraform is there. Run `make tools`, which builds OpenTofu, or name one in ASHLAR_TOFU.")


def provider(mirror: Path) -> Path:
    """Lays the provider from the store into a mirror of the file system, and says so in a configuration of OpenTofu, whose path this is."""
    architecture = {"x86_64": "amd64", "aarch64": "arm64"}[platform.machine()]
    store = Path(os.environ.get("ASHLAR_STORE") or Path.home() / ".cache/ashlar/store")
    versions = yaml.safe_load((ROOT / f"artifacts/{ARTIFACT}/artifact.yml").read_text())["versions"]
    version = list(versions)[-1]
    index = json.loads((store / f"index/{ARTIFACT}/{version}/{architecture}.json").read_text())
    digest = index["files"][0]["sha256"]
    for registry in ("registry.opentofu.org", "registry.terraform.io"):
        place = mirror / registry / "terraform-provider-openstack/openstack" / version / f"linux_{architecture}"
        place.mkdir(parents=True)
        binary = place / f"terraform-provider-openstack_v{version}"
        shutil.copyfile(store / "sha256" / digest[:2] / digest, binary)
        binary.chmod(0o755)
    settings = mirror / "settings.tfrc"
    settings.write_text(f'provider_installation {{\n  filesystem_mirror {{\n    path = "{mirror}"\n  }}\n}}\n')
    return settings
