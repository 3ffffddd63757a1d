# SPDX-License-Identifier: Apache-2.0
"""Records what a site has. Documented by plugins/modules/record.py."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ansible_collections.ashlar.stack.plugins.plugin_utils.controller import ControllerAction


class ActionModule(ControllerAction):
    _supports_diff = True

    def act(self, variables: dict[str, Any]) -> dict[str, Any]:
        _, arguments = self.validate_argument_spec(
            argument_spec={"file": {"type": "path", "required": True}, "content": {"type": "raw", "required": True}}
        )
        path = Path(arguments["file"])
        after = json.dumps(arguments["content"], indent=4, sort_keys=True) + "\n"
        return self.write(path, after, "What the site has is recorded")
