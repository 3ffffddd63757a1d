# SPDX-License-Identifier: Apache-2.0
"""promtool for tests: the one that the nodes' Prometheus comes with."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from ansible_collections.ashlar.stack.plugins.plugin_utils.observability.programs import program

ROOT = Path(__file__).parents[2]


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
def promtool() -> str:
    """The program: ASHLAR_PROMTOOL, or that of the newest release out of the store, obtained where it has none."""
    if named := os.environ.get("ASHLAR_PROMTOOL"):
        return named
    version = str(yaml.safe_load(max((ROOT / "releases").glob("*.yml")).read_text())["versions"]["prometheus"])
    found, said = program("prometheus", version, "promtool"), ""
    if found is None:
        said = _fetch(version)
        found = program("prometheus", version, "promtool")
    if found is None:
        pytest.fail(f"no promtool of Prometheus {version} could be obtained; name one by ASHLAR_PROMTOOL. {said[-1500:]}")
    return str(found)
