# SPDX-License-Identifier: Apache-2.0
"""What action plugins have in common that work on the controller alone."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar

from ansible.errors import AnsibleError
from ansible.plugins.action import ActionBase


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
