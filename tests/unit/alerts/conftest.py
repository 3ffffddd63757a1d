# SPDX-License-Identifier: Apache-2.0
"""promtool: the one that the nodes' Prometheus comes with."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from ansible_collections.ashlar.stack.plugins.plugin_utils.artifacts.store import Store

ROOT = Path(__file__).parents[3]


def _wanted() -> str:
    """The version of Prometheus in the newest release."""
    release = max((ROOT / "releases").glob("*.yml"))
    return str(yaml.safe_load(release.read_text())["versions"]["prometheus"])


def _from_store(version: str, folder: Path) -> Path | None:
    store = Store()
    architecture = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    index = store.read("prometheus", version, architecture)
    file = next((file for file in index.files if file.path == "promtool"), None) if index else None
    if file is None:
        return None
    # A blob of the store is not executable; only a link is needed where it can be made so.
    program = folder / "promtool"
    program.write_bytes(store.blob(file.sha256).read_bytes())
    program.chmod(0o755)
    return program


def _fetch(version: str) -> str:
    """Asks the store for it, which may build it; what the run said."""
    variables = json.dumps({"artifacts_wanted": {"prometheus": version}})
    done = subprocess.run(
        [str(Path(sys.executable).parent / "ansible-playbook"), "-i", "inventories/example", "playbooks/artifacts.yml", "-e", variables],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=1800,
        check=False,
    )
    return done.stdout + done.stderr


@pytest.fixture(scope="session")
def promtool(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The program: ASHLAR_PROMTOOL, or the store's, obtained where it has none."""
    if named := os.environ.get("ASHLAR_PROMTOOL"):
        return named
    folder, version = tmp_path_factory.mktemp("promtool"), _wanted()
    made, said = _from_store(version, folder), ""
    if made is None:
        said = _fetch(version)
        made = _from_store(version, folder)
    if made is None:
        pytest.fail(f"no promtool of Prometheus {version} could be obtained; name one by ASHLAR_PROMTOOL. {said[-1500:]}")
    return str(made)
