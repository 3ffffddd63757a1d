# SPDX-License-Identifier: Apache-2.0
"""Stops and starts what was installed on a host."""

from __future__ import annotations

DOCUMENTATION = r"""
module: units
short_description: Stops or starts all units of some components of a host
version_added: 1.0.0
author: Ashlar developers (@ashlar)
description:
  - The units are those that M(ashlar.stack.tree) has laid. They stay enabled, so the next boot starts them.
  - Starting does not wait until they are active; M(ashlar.stack.ready) does.
options:
  components:
    description: Names of components. One that the host does not have is ignored.
    type: list
    elements: str
    required: true
  state:
    description: Whether the units run.
    type: str
    choices: [stopped, started]
    required: true
notes:
  - Supports check mode.
"""

EXAMPLES = r"""
- name: Nothing of this layer runs any more
  ashlar.stack.units:
    components: [prometheus, alertmanager]
    state: stopped
"""

RETURN = r"""
units:
  description: Units that were stopped or started.
  type: list
  returned: always
  sample: [prometheus.service]
"""

from collections.abc import Collection

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.ashlar.stack.plugins.module_utils.host.files import HostFiles, host_files
from ansible_collections.ashlar.stack.plugins.module_utils.host.run import HostRunner, Runner
from ansible_collections.ashlar.stack.plugins.module_utils.tree.apply import TreeError, remembered


def units_of(components: Collection[str], files: HostFiles) -> list[str]:
    """The units that these components want to run, sorted.

    :raises TreeError: what is remembered of a tree can't be read.
    """
    asked = [told.get("asked") or {} for _, owner, told in remembered(files) if owner in components]
    units = [unit for one in asked for unit in one.get("arguments", {}).get("units", ())]
    return sorted({unit["name"] for unit in units if unit.get("own", True) and unit.get("state") == "started"})


def state_of(unit: str, runner: Runner) -> str:
    """``running``, ``stopped``, or ``ended``: a program that runs once, and is not wanted to stay."""
    shown = runner.run(["systemctl", "show", "--property=ActiveState,Type,RemainAfterExit", unit]).out.split()
    if "ActiveState=inactive" not in shown and "ActiveState=failed" not in shown:
        return "running"
    return "ended" if "Type=oneshot" in shown and "RemainAfterExit=no" in shown and "ActiveState=inactive" in shown else "stopped"


def main() -> None:
    """Run as an Ansible module."""
    module = AnsibleModule(
        argument_spec={
            "components": {"type": "list", "elements": "str", "required": True},
            "state": {"type": "str", "choices": ["stopped", "started"], "required": True},
        },
        supports_check_mode=True,
    )
    runner, stopped = HostRunner(), module.params["state"] == "stopped"
    with host_files("/") as files:
        try:
            units = units_of(module.params["components"], files)
        except TreeError as error:
            module.fail_json(msg=str(error))
    # One that is on its way counts as running, and one that has done its work as stopped.
    states = {unit: state_of(unit, runner) for unit in units}
    wanted = [unit for unit in units if states[unit] == ("running" if stopped else "stopped")]
    # With others that were stopped, they are to do it again.
    if wanted and not stopped:
        wanted += [unit for unit in units if states[unit] == "ended"]
    if wanted and not module.check_mode:
        done = runner.run(["systemctl", "stop", *wanted] if stopped else ["systemctl", "start", "--no-block", *wanted])
        if done.code != 0:
            module.fail_json(msg=f"Not all of {', '.join(wanted)} could be {module.params['state']}: {done.said} See `systemctl status` of them.")
    module.exit_json(changed=bool(wanted), units=wanted)


if __name__ == "__main__":
    main()
