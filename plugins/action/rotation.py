# SPDX-License-Identifier: Apache-2.0
"""Takes the steps of a rotation. Documented by plugins/modules/rotation.py."""

from __future__ import annotations

import datetime
from dataclasses import replace
from pathlib import Path
from typing import Any

from ansible_collections.ashlar.stack.plugins.plugin_utils.controller import ControllerAction
from ansible_collections.ashlar.stack.plugins.plugin_utils.pki import CertificatesError, Credentials
from ansible_collections.ashlar.stack.plugins.plugin_utils.rotation import STEPS, Group, Rotation, RotationError, State, begin, load, text_of
from ansible_collections.ashlar.stack.plugins.plugin_utils.secrets import SecretError, decrypter

PLAN, END = "plan", "end"
ARGUMENTS = {
    "directory": {"type": "path", "required": True},
    "credentials": {"type": "path", "required": True},
    "secrets": {"type": "dict", "required": True, "no_log": False},
    "step": {"type": "str", "choices": [PLAN, *STEPS, END], "required": True},
    "what": {"type": "list", "elements": "str", "default": []},
    "finish": {"type": "bool", "default": False},
}


class ActionModule(ControllerAction):
    ERRORS = (RotationError, CertificatesError, SecretError)

    def act(self, variables: dict[str, Any]) -> dict[str, Any]:
        _, arguments = self.validate_argument_spec(argument_spec=ARGUMENTS)
        file = Path(arguments["directory"]) / "state/rotation.json"
        groups = {
            str(what): [Group(tuple(map(str, each["names"])), str(each["kind"]), int(each.get("hours", 0))) for each in listed]
            for what, listed in arguments["secrets"].items()
        }
        now, step, state = datetime.datetime.now(datetime.UTC), arguments["step"], load(file)
        under_way = bool(state.step)
        if step in (PLAN, STEPS[0]):
            asked = [part.strip() for entry in arguments["what"] for part in str(entry).split(",") if part.strip()]
            state = begin(state, asked, list(groups), arguments["finish"], now)
        if step == END:
            self._keep(file, replace(state, asked=(), what=(), step=""))
        elif step in STEPS and not state.has_passed(step):
            # First that it is under way: a run that is killed repeats it then.
            state = replace(state, step=step)
            self._keep(file, state)
            state = Rotation(self._credentials(arguments, variables), groups).take(state, now)
            self._keep(file, state)
        found = {"what": list(state.what), "step": state.step, "under_way": under_way, "waiting": dict(state.waiting)}
        return {"changed": step != PLAN, **found}

    def _keep(self, file: Path, state: State) -> None:
        text = text_of(state)
        if text or self._task.check_mode:
            self.write(file, text, "What is being rotated is remembered")
        else:
            file.unlink(missing_ok=True)

    def _credentials(self, arguments: dict[str, Any], variables: dict[str, Any]) -> Credentials:
        return Credentials(
            Path(arguments["credentials"]),
            str(variables.get("site_name") or "site"),
            dry_run=bool(self._task.check_mode),
            decrypt=decrypter(self._loader),
            encrypt=self._loader._vault.encrypt,
        )
