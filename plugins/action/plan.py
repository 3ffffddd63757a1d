# SPDX-License-Identifier: Apache-2.0
"""Runs a playbook in check mode and returns its plan. Documented by plugins/modules/plan.py."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ansible import context
from ansible.errors import AnsibleError
from ansible.utils.color import ANSIBLE_COLOR
from ansible.utils.display import Display
from ansible_collections.ashlar.stack.plugins.plugin_utils.controller import ControllerAction

display = Display()


class ActionModule(ControllerAction):
    """What a playbook would do."""

    ERRORS = (OSError,)
    _supports_diff = True

    def act(self, variables: dict[str, Any]) -> dict[str, Any]:
        _, arguments = self.validate_argument_spec(argument_spec={"playbook": {"type": "path", "required": True}})
        playbook = os.path.relpath(arguments["playbook"])
        with tempfile.TemporaryDirectory(prefix="ashlar-plan-") as folder:
            report = Path(folder) / "report.json"
            whole = bool(context.CLIARGS.get("diff") or display.verbosity)
            environment = {
                **os.environ,
                "ANSIBLE_STDOUT_CALLBACK": "ashlar.stack.ashlar",
                "ANSIBLE_FORCE_COLOR": str(bool(ANSIBLE_COLOR)),
                "ASHLAR_BRIEF": str(not whole),
                "ASHLAR_TIMINGS": str(report),
            }
            command = list(checked(sys.argv, context.CLIARGS.get("args") or (), playbook))
            done = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", check=False)
            told = json.loads(report.read_text(encoding="utf-8")) if report.exists() else {}
        if done.returncode and not whole:
            said = [{"message": f"{playbook} can't be planned: {done.stderr.strip() or done.stdout.strip()}"}]
            return {"failed": True, "msg": f"{playbook} can't be planned", "problems": told.get("problems") or said}
        for line in done.stdout.splitlines():
            display.display(line)
        if done.returncode:
            raise AnsibleError(f"{playbook} can't be planned, see above")
        return {"changed": False, "plan": told["plan"]}


def checked(arguments: Sequence[str], playbooks: Sequence[str], playbook: str) -> Iterator[str]:
    """The command of this run with another playbook, in check mode."""
    yield from (argument for argument in arguments if argument not in playbooks)
    yield "--check"
    yield playbook
