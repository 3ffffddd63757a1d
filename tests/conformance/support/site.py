# SPDX-License-Identifier: Apache-2.0
"""`site.yml`, as an operator runs it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from .plan import ROOT, Plan


def site_yml(plan: Plan, *arguments: str) -> str:
    """What a run of the whole site said. An AssertionError when it fails."""
    command = [str(Path(sys.executable).parent / "ansible-playbook"), "-i", str(plan.inventory), str(ROOT / "site.yml"), *arguments]
    environment = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=1200, check=False)
    assert done.returncode == 0, f"{done.stdout[-4000:]} {done.stderr[-1000:]}"
    return done.stdout
