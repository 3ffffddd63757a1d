# SPDX-License-Identifier: Apache-2.0
"""Runs OpenTofu or Terraform on folders without providers."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TERRAFORM = Path(__file__).parents[3] / "terraform"
LIMIT_SECONDS = 600


def find() -> str:
    """The program: ASHLAR_TOFU, else `tofu` or `terraform` of the PATH, where the checkout's own venv comes first.

    :raises RuntimeError: there is none.
    """
    path = f"{TERRAFORM.parent / '.venv' / 'bin'}{os.pathsep}{os.environ.get('PATH', '')}"
    for name in (os.environ.get("ASHLAR_TOFU"), "tofu", "terraform"):
        program = shutil.which(name, path=path) if name else None
        if program:
            return program
    raise RuntimeError("Neither tofu nor terraform is there. Run `make tools`, which builds OpenTofu, or name one in ASHLAR_TOFU.")


@dataclass(frozen=True)
class Result:
    """``problems``: the texts of its errors, each on one line. ``changes``: address -> what would be done, nothing of what stays."""

    code: int
    output: str
    problems: list[str]
    changes: dict[str, str]


@dataclass(frozen=True)
class Workspace:
    """A root module in a folder that it may write to."""

    program: str
    folder: Path

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """One command; its files and plugins stay in the folder, and no setting of this machine has a say."""
        environment = {key: value for key, value in os.environ.items() if not key.startswith(("TF_", "AWS_", "GOOGLE_"))}
        environment |= {"TF_CLI_CONFIG_FILE": os.devnull, "TF_IN_AUTOMATION": "1", "CHECKPOINT_DISABLE": "1", "GOGC": "400"}
        command = [self.program, *arguments]
        return subprocess.run(command, cwd=self.folder, env=environment, capture_output=True, text=True, timeout=LIMIT_SECONDS, check=False)

    def init(self) -> Workspace:
        """Itself, initialised."""
        done = self.run("init", "-input=false", "-no-color", "-backend=false")
        assert done.returncode == 0, done.stderr + done.stdout
        return self

    def plan(self, **variables: Any) -> Result:
        """A plan, which writes nothing."""
        return self._do("plan", "-lock=false", **variables)

    def apply(self, **variables: Any) -> Result:
        """Applies without asking."""
        return self._do("apply", "-auto-approve", **variables)

    def outputs(self) -> dict[str, Any]:
        """Of the state."""
        return {name: value["value"] for name, value in json.loads(self.run("output", "-json").stdout).items()}

    def _do(self, *arguments: str, **variables: Any) -> Result:
        values = self.folder / "values.auto.tfvars.json"
        values.write_text(json.dumps(variables))
        done = self.run(*arguments, "-input=false", "-json")
        problems, changes = [], {}
        for line in done.stdout.splitlines():
            said = json.loads(line) if line.startswith("{") else {}
            if said.get("type") == "planned_change":
                changes[said["change"]["resource"]["addr"]] = said["change"]["action"]
            if said.get("@level") == "error":
                diagnostic = said.get("diagnostic", {})
                problems.append(" ".join(f"{diagnostic.get('summary', '')}: {diagnostic.get('detail', '')}".split()))
        return Result(done.returncode, done.stdout + done.stderr, problems, changes)
