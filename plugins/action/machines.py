# SPDX-License-Identifier: Apache-2.0
"""Makes and unmakes the machines of a site. Documented by plugins/modules/machines.py; the work is in plugin_utils/machines."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible import constants
from ansible.plugins.connection.ssh import Connection
from ansible.utils.display import Display
from ansible_collections.ashlar.stack.plugins.plugin_utils.controller import ControllerAction
from ansible_collections.ashlar.stack.plugins.plugin_utils.machines.apply import Applier, MachinesError, Root, describe, refusal, roots_of
from ansible_collections.ashlar.stack.plugins.plugin_utils.machines.reach import Reach, Site, Waiter, fingerprint, know, reach_of, remember

display = Display()
ARGUMENTS: dict[str, dict[str, Any]] = {
    "site": {"type": "path", "required": True},
    "state": {"type": "str", "choices": ["present", "answering", "absent"], "default": "present"},
    "allow_destroy": {"type": "bool", "default": False},
    "show": {"type": "bool", "default": True},
    "timeout_seconds": {"type": "int"},
}
SECONDS = {"present": 3600, "answering": 600, "absent": 3600}


class ActionModule(ControllerAction):
    """The machines of a site are there, answer, or are gone."""

    ERRORS = (MachinesError, OSError)

    def act(self, variables: dict[str, Any]) -> dict[str, Any]:
        _, arguments = self.validate_argument_spec(argument_spec=ARGUMENTS)
        site = Site(Path(arguments["site"]))
        seconds = int(arguments["timeout_seconds"] or SECONDS[arguments["state"]])
        if arguments["state"] == "answering":
            return self._answering(site, seconds, variables)
        if arguments["state"] == "absent":
            return self._absent(site, seconds, bool(arguments["show"]))
        return self._present(site, seconds, bool(arguments["allow_destroy"]))

    def _present(self, site: Site, seconds: int, allowed: bool) -> dict[str, Any]:
        roots = roots_of(site.directory)
        # Even in check mode: a root hands the public key to its machines, so there is no plan without one.
        key = site.make_key()
        results = [self._root(root, site, seconds, allowed) for root in roots]
        if not self._task.check_mode:
            site.touch()
        return {"changed": key or any(one["changed"] for one in results), "key": str(site.key), "roots": results}

    def _root(self, root: Root, site: Site, seconds: int, allowed: bool) -> dict[str, Any]:
        applier = Applier(root, site.directory, display.display, seconds)
        with applier.plan() as (changes, plan):
            _say(describe(changes, root.shown))
            refused = None if allowed else refusal(changes, os.path.relpath(site.directory))
            if refused and not self._task.check_mode:
                raise MachinesError(refused)
            if refused:
                _say([refused])
            if changes.any and not self._task.check_mode:
                applier.apply(plan)
        return {
            "root": root.shown,
            "changed": changes.any,
            "objects": [{"address": one.address, "action": one.action} for one in changes.objects],
            **{
                name: [root.prefix + node for node in names]
                for name, names in (("made", changes.made), ("ended", changes.ended), ("replaced", changes.replaced), ("lost", changes.lost))
            },
        }

    def _absent(self, site: Site, seconds: int, show: bool) -> dict[str, Any]:
        results = []
        # What was made last may stand on what was made first.
        for root in reversed(roots_of(site.directory)):
            applier = Applier(root, site.directory, display.display, seconds)
            with applier.plan(destroy=True) as (changes, plan):
                if show:
                    _say(describe(changes, root.shown))
                if changes.any and not self._task.check_mode:
                    applier.apply(plan)
            objects = [{"address": one.address, "action": one.action} for one in changes.objects]
            results.append({"root": root.shown, "changed": changes.any, "objects": objects, "ended": [root.prefix + node for node in changes.ended]})
        forgotten = [] if self._task.check_mode else site.forget()
        return {"changed": bool(forgotten) or any(one["changed"] for one in results), "roots": results}

    def _answering(self, site: Site, seconds: int, variables: Mapping[str, Any]) -> dict[str, Any]:
        hosts = variables.get("hostvars") or {}
        machines = [reach_of(name, _wanted(hosts[name])) for name in variables.get("site_nodes") or {}]
        if self._task.check_mode or not machines:
            return {"changed": False, "machines": [machine.name for machine in machines]}
        before, memory = site.lines(), site.remembered()
        known = know(machines, before, memory)
        if list(known.lines) != before:
            site.write_lines(known.lines)
        for machine in machines:
            if machine.name in known.dropped:
                _close_kept(machine)
        waiter = Waiter(site, known.first, seconds, display.display)
        try:
            waiter.wait(machines)
        finally:
            after = site.lines()
            learned = [line for line in after if line not in known.lines and line.strip()]
            if learned:
                _say(["Trusted on first sight, since whoever made these machines does not say their host keys:"])
                _say([f"  {line.split()[0]}  {fingerprint(' '.join(line.split()[1:3]))}" for line in learned])
        now = remember(machines)
        if now != memory:
            site.write_memory(now)
        return {"changed": after != before, "machines": [machine.name for machine in machines], "trusted": [line.split()[0] for line in learned]}


def _say(lines: list[str]) -> None:
    for line in lines:
        display.display(line)


def _wanted(variables: Mapping[str, Any]) -> dict[str, Any]:
    names = ("ansible_host", "ansible_port", "ansible_user", "ansible_ssh_common_args", "ansible_ssh_private_key_file")
    return {name: variables[name] for name in (*names, "node_id", "node_ssh_host_keys", "node_bastion") if name in variables}


def _close_kept(machine: Reach) -> None:
    """Ends the connection that Ansible kept open to the machine that had this address before; by its name for it, if it is the usual one."""
    folder = os.path.expanduser(str(constants.config.get_config_value("control_path_dir", plugin_type="connection", plugin_name="ssh")))
    for port in (None, machine.port):
        socket = Connection._create_control_path(machine.host, port, machine.user) % {"directory": folder}
        if os.path.exists(socket):
            subprocess.run(["ssh", "-q", "-O", "exit", "-o", f"ControlPath={socket}", machine.host], capture_output=True, check=False, timeout=10)
