# SPDX-License-Identifier: Apache-2.0
"""Opens a backup of a site. Documented by plugins/modules/backup_open.py; the work is in plugin_utils/backup."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ansible_collections.ashlar.stack.plugins.plugin_utils.backup.errors import BackupError
from ansible_collections.ashlar.stack.plugins.plugin_utils.backup.opening import open_backup
from ansible_collections.ashlar.stack.plugins.plugin_utils.controller import ControllerAction

ARGUMENTS: dict[str, dict[str, Any]] = {
    "source": {"type": "str", "required": True},
    "identity": {"type": "path", "required": True},
    "into": {"type": "path", "required": True},
    "site": {"type": "str"},
}


class ActionModule(ControllerAction):
    """The contents of a backup are in a folder."""

    ERRORS = (BackupError,)

    def act(self, variables: dict[str, Any]) -> dict[str, Any]:
        _, arguments = self.validate_argument_spec(argument_spec=ARGUMENTS)
        into = Path(os.path.abspath(arguments["into"]))
        return open_backup(str(arguments["source"]), Path(arguments["identity"]), into, arguments["site"], self._task.check_mode)
