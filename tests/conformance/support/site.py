# SPDX-License-Identifier: Apache-2.0
"""Playbooks, as an operator runs them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from .plan import ROOT, Plan


def command(plan: Plan, name: str, *arguments: str) -> list[str]:
    """The words that run playbooks/<name>.yml, or site.yml, from the checkout."""
    file = ROOT / "site.yml" if name == "site" else ROOT / "playbooks" / f"{name}.yml"
    return [str(Path(sys.executable).parent / "ansible-playbook"), "-i", str(plan.inventory), str(file), *arguments]


def playbook(plan: Plan, name: str, *arguments: str) -> tuple[int, str]:
    """(exit code, what was said) of a run of playbooks/<name>.yml, or of site.yml."""
    environment = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")}
    done = subprocess.run(command(plan, name, *arguments), cwd=ROOT, env=environment, capture_output=True, text=True, timeout=1200, check=False)
    return done.returncode, done.stdout + done.stderr


def run(plan: Plan, name: str, *arguments: str) -> str:
    """What a run said. An AssertionError when it fails."""
    code, said = playbook(plan, name, *arguments)
    assert code == 0, said[-5000:]
    return said


def site_yml(plan: Plan, *arguments: str) -> str:
    """What a run of the whole site said. An AssertionError when it fails."""
    return run(plan, "site", *arguments)
