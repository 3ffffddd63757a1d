# SPDX-License-Identifier: Apache-2.0
"""Remembers which node carries which component. Documented by plugins/modules/placement.py."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleError
from ansible_collections.ashlar.stack.plugins.plugin_utils.controller import ControllerAction
from ansible_collections.ashlar.stack.plugins.plugin_utils.site.memory import PLACEMENT, recall, remember, text_of
from ansible_collections.ashlar.stack.plugins.plugin_utils.site.models import SiteError
from ansible_collections.ashlar.stack.plugins.plugin_utils.site.report import report

ROOT = Path(__file__).resolve().parents[2]
ARGUMENTS = {
    "directory": {"type": "path", "required": True},
    "planned": {"type": "dict", "required": True},
    "nodes": {"type": "list", "elements": "str", "required": True},
    "retired": {"type": "list", "elements": "str", "default": []},
    "removed": {"type": "list", "elements": "str", "default": []},
    "founders": {"type": "dict", "default": {}},
    "returned": {"type": "list", "elements": "str", "default": []},
}


class ActionModule(ControllerAction):
    _supports_diff = True

    def act(self, variables: dict[str, Any]) -> dict[str, Any]:
        _, arguments = self.validate_argument_spec(argument_spec=ARGUMENTS)
        directory = Path(arguments["directory"])
        # Ansible's texts carry marks that YAML does not know.
        planned, nodes, *others = json.loads(json.dumps([arguments[name] for name in ("planned", "nodes", "retired", "removed", "founders", "returned")]))
        try:
            memory = remember(recall(ROOT, directory), planned, nodes, *others)
        except SiteError as error:
            raise AnsibleError(report(error.problems, os.getcwd())) from None
        return self.write(directory / PLACEMENT, text_of(memory, nodes), "Which node carries which component is remembered")
