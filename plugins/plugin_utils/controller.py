# SPDX-License-Identifier: Apache-2.0
"""What action plugins have in common that work on the controller alone."""

from __future__ import annotations

import os
from abc import abstractmethod
from pathlib import Path
from typing import Any, ClassVar

from ansible.errors import AnsibleError
from ansible.plugins.action import ActionBase
from ansible_collections.ashlar.stack.plugins.module_utils.host.folders import make_folder


class ControllerAction(ActionBase):
    """Runs on the controller, once, whatever hosts there are. An error of `ERRORS` is the task's one message."""

    ERRORS: ClassVar[tuple[type[Exception], ...]] = ()
    BYPASS_HOST_LOOP = True
    _supports_check_mode = True
    _supports_diff = False
    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        try:
            result.update(self.act(task_vars or {}))
        except self.ERRORS as error:
            raise AnsibleError(str(error)) from None
        return result

    @abstractmethod
    def act(self, variables: dict[str, Any]) -> dict[str, Any]:
        """The work; returns what the task returns. `variables` are the task's."""

    def write(self, path: Path, after: str, purpose: str) -> dict[str, Any]:
        """Replace a text file in one step, unless it is `after` already or in check mode; returns what the task returns, with the difference.

        :param purpose: a sentence's beginning that says what is in the file, for the error.
        """
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
                f"{error.filename}: {error.strerror}. {purpose} there; the folder must be writable by the user who runs Ansible."
            ) from None
        return {"changed": True, "diff": {"before_header": str(path), "after_header": str(path), "before": before, "after": after}}
