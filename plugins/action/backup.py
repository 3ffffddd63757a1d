# SPDX-License-Identifier: Apache-2.0
"""Makes a backup of a site. Documented by plugins/modules/backup.py; the work is in plugin_utils/backup."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible_collections.ashlar.stack.plugins.plugin_utils.backup.errors import BackupError
from ansible_collections.ashlar.stack.plugins.plugin_utils.backup.make import Wanted, make, plain
from ansible_collections.ashlar.stack.plugins.plugin_utils.controller import ControllerAction

ARGUMENTS: dict[str, dict[str, Any]] = {
    "directory": {"type": "path", "required": True},
    "parts": {"type": "dict", "required": True},
    "about": {"type": "dict", "required": True},
    "to": {"type": "str", "required": True},
    "recipients": {"type": "list", "elements": "str", "required": True},
    "keep": {"type": "int", "default": 14},
}


class ActionModule(ControllerAction):
    """The site has a new backup."""

    ERRORS = (BackupError,)

    def act(self, variables: dict[str, Any]) -> dict[str, Any]:
        _, arguments = self.validate_argument_spec(argument_spec=ARGUMENTS)
        directory, parts, about, to, recipients, keep = (plain(arguments[name]) for name in ARGUMENTS)
        return make(Wanted(Path(directory), parts, about, to, recipients, keep), self._task.check_mode)
