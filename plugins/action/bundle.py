# SPDX-License-Identifier: Apache-2.0
"""Writes a bundle on the controller. Documented by plugins/modules/bundle.py; the work is in plugin_utils/artifacts/bundle.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible.utils.display import Display
from ansible_collections.ashlar.stack.plugins.action.store import COLLECTION, QUIET_SECONDS, options, wanted
from ansible_collections.ashlar.stack.plugins.plugin_utils.artifacts import bundle
from ansible_collections.ashlar.stack.plugins.plugin_utils.artifacts.catalogue import ArtifactCatalogue
from ansible_collections.ashlar.stack.plugins.plugin_utils.artifacts.errors import ArtifactError
from ansible_collections.ashlar.stack.plugins.plugin_utils.artifacts.obtain import Obtainer
from ansible_collections.ashlar.stack.plugins.plugin_utils.artifacts.progress import Progress
from ansible_collections.ashlar.stack.plugins.plugin_utils.artifacts.store import Store
from ansible_collections.ashlar.stack.plugins.plugin_utils.controller import ControllerAction

display = Display()
ARGUMENTS: dict[str, dict[str, Any]] = {
    "path": {"type": "path", "required": True},
    "name": {"type": "str", "required": True},
    "artifacts": {"type": "raw", "required": True},
    "architectures": {"type": "list", "elements": "str"},
    "codenames": {"type": "list", "elements": "str"},
    "catalogues": {"type": "list", "elements": "path"},
    "store": {"type": "path"},
    "wheels": {"type": "bool", "default": True},
}


class ActionModule(ControllerAction):
    """The bundle holds the collection and what it installs."""

    ERRORS = (ArtifactError, OSError)

    def act(self, variables: dict[str, Any]) -> dict[str, Any]:
        _, arguments = self.validate_argument_spec(argument_spec=ARGUMENTS)
        chosen = options(arguments, variables, self._templar)
        store = Store(arguments["store"])
        catalogue = ArtifactCatalogue([*(arguments["catalogues"] or ()), COLLECTION / "artifacts"])
        plan = Obtainer(store, catalogue, chosen, display.display).plan(wanted(arguments["artifacts"]))
        if plan.missing:
            raise ArtifactError(f"the store lacks {', '.join(target.title for target in plan.missing)}; obtain them first: playbooks/artifacts.yml")
        contents = bundle.Contents(
            name=arguments["name"],
            collection=COLLECTION,
            files=bundle.collection_files(COLLECTION),
            indexes=tuple(index for _, index in plan.present),
            requirements=COLLECTION / "requirements.txt" if arguments["wheels"] else None,
        )
        target = Path(arguments["path"])
        if self._task.check_mode:
            return {"changed": bundle.current(target) != bundle.describe(contents), "path": str(target)}
        progress = Progress(target.name, display.display, QUIET_SECONDS)
        changed = bundle.write(store, contents, target, progress)
        return {
            "changed": changed,
            "path": str(target),
            "size": target.stat().st_size,
            "artifacts": len(contents.indexes),
            "seconds": round(progress.seconds, 1),
        }
