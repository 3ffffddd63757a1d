# SPDX-License-Identifier: Apache-2.0
"""Records what a site has. Documented by plugins/modules/record.py."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleError
from ansible_collections.ashlar.stack.plugins.module_utils.folders import make_folder
from ansible_collections.ashlar.stack.plugins.plugin_utils.controller import ControllerAction


class ActionModule(ControllerAction):
    _supports_diff = True

    def act(self, variables: dict[str, Any]) -> dict[str, Any]:
        _, arguments = self.validate_argument_spec(
            argument_spec={"file": {"type": "path", "required": True}, "content": {"type": "raw", "required": True}}
        )
        path = Path(arguments["file"])
        after = json.dumps(arguments["content"], indent=4, sort_keys=True) + "\n"
        try:
            before = path.read_text(encoding="utf-8") if path.exists() else ""
            if before == after:
                return {"changed": False}
            if not self._task.check_mode:
                make_folder(str(path.parent))
                fresh = path.with_name(f".{path.name}.{os.getpid()}")
                fresh.write_text(after, encoding="utf-8")
                fresh.chmod(0o644)
                fresh.replace(path)
        except OSError as error:
            raise AnsibleError(
                f"{error.filename}: {error.strerror}. What the site has is recorded there; "
                "the folder must be writable by the user who runs Ansible."
            ) from None
        return {"changed": True, "diff": {"before_header": str(path), "after_header": str(path), "before": before, "after": after}}
