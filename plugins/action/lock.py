# SPDX-License-Identifier: Apache-2.0
"""Holds a site for a run. Documented by plugins/modules/lock.py."""

from __future__ import annotations

import datetime
import getpass
import os
import socket
from pathlib import Path
from typing import Any

from ansible import context
from ansible.errors import AnsibleError
from ansible_collections.ashlar.stack.plugins.plugin_utils.controller import ControllerAction
from ansible_collections.ashlar.stack.plugins.plugin_utils.site.lock import Holder, hold, release, started

ARGUMENTS = {
    "directory": {"type": "path", "required": True},
    "state": {"type": "str", "choices": ["held", "free"], "default": "held"},
    "take": {"type": "bool", "default": False},
}


def this_run() -> Holder:
    """Tasks run in processes of their own, whose parent is the run."""
    process = os.getppid()
    now = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC")
    doing = " ".join(context.CLIARGS.get("args") or ())
    return Holder(getpass.getuser(), socket.gethostname(), process, started(process), now, doing)


def refusal(site: Path, other: Holder) -> str:
    """What the second run is told."""
    return (
        f"The site {site.name} is being changed by another run: {other.doing}, of {other.user} on {other.host}, process {other.process}, since {other.since}. "
        "Nothing was changed. Wait until it has ended. If it hangs, end it there; if it is gone already, take over with -e take_lock=true."
    )


class ActionModule(ControllerAction):
    def act(self, variables: dict[str, Any]) -> dict[str, Any]:
        _, arguments = self.validate_argument_spec(argument_spec=ARGUMENTS)
        folder, me = Path(arguments["directory"]), this_run()
        try:
            if arguments["state"] == "free":
                if not self._task.check_mode:
                    release(folder, me)
            # Check mode changes nothing and so is in nobody's way.
            elif other := (None if self._task.check_mode else hold(folder, me, arguments["take"])):
                raise AnsibleError(refusal(folder, other))
        except OSError as error:
            raise AnsibleError(
                f"{error.filename}: {error.strerror}. Which run changes the site is noted there; the folder must be writable by the user who runs Ansible."
            ) from None
        return {"changed": False}
