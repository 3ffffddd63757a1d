# SPDX-License-Identifier: Apache-2.0
"""Takes components away from a host."""

from __future__ import annotations

DOCUMENTATION = r"""
module: retire
short_description: Takes components away from a host and keeps their data aside
version_added: 1.0.0
author: Ashlar developers (@ashlar)
description:
  - Stops and disables the units of all trees that M(ashlar.stack.tree) laid for a component, and removes their files, folders and records.
  - Then removes what the component leaves beside them (O(components[].leftovers)), and the users and groups of its C(sysusers.d) files that no
    other component of the host has.
  - Data is not destroyed. Folders that its trees made below C(/var/lib) and C(/var/log) are moved to
    C(/var/lib/ashlar/retired/<component>-<UTC time>), readable by root alone, or to C(/var/log/ashlar-retired) where C(/var/log) is a file system
    of its own. A folder that is a file system of its own is left where it is, with a warning.
  - A run that was killed is completed by the next.
options:
  components:
    description: What is to go, in this order, as the host variable C(node_retiring) has it. Other keys are ignored.
    type: list
    elements: dict
    required: true
notes:
  - Supports check mode (everything is computed, nothing is touched) and diff.
  - Certificates, artifacts and the firewall follow from the plan and are not touched.
"""

EXAMPLES = r"""
- name: What is no longer wanted is gone
  ashlar.stack.retire:
    components:
      - component: flannel
        leftovers: {interfaces: [flannel.1, cni0], paths: [/run/flannel], data: [/var/lib/cni]}
"""

RETURN = r"""
removed_paths:
  description: Files, links and folders that were removed.
  type: list
  returned: always
stopped:
  description: Units that were stopped.
  type: list
  returned: always
  sample: [flannel.service]
removed:
  description: Users, groups, processes, mounts, interfaces and tables that were removed.
  type: list
  returned: always
  sample: [interface cni0, user etcd]
moved:
  description: Folder with data, and where it is now.
  type: dict
  returned: always
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.ashlar.stack.plugins.module_utils.host.files import FileError, host_files
from ansible_collections.ashlar.stack.plugins.module_utils.host.folders import own_umask
from ansible_collections.ashlar.stack.plugins.module_utils.host.run import HostRunner
from ansible_collections.ashlar.stack.plugins.module_utils.retire import Leftovers, RetireError, Retirement
from ansible_collections.ashlar.stack.plugins.module_utils.tree.apply import TreeError


def main() -> None:
    """Run as an Ansible module."""
    own_umask()
    module = AnsibleModule(argument_spec={"components": {"type": "list", "elements": "dict", "required": True}}, supports_check_mode=True)
    values: dict[str, Any] = {"changed": False, "removed_paths": [], "stopped": [], "removed": [], "moved": {}}
    diff: list[dict[str, str]] = []
    for item in module.params["components"]:
        try:
            with host_files("/") as files:
                done = Retirement(item["component"], Leftovers(**item.get("leftovers", {})), files, HostRunner()).retire(module.check_mode)
        except (RetireError, TreeError, FileError) as error:
            module.fail_json(msg=str(error))
        except OSError as error:
            module.fail_json(msg=f"{item['component']}: {error.filename or 'a file'}: {error.strerror}. Mend it and run again.")
        values["changed"] = values["changed"] or done.changed
        for part in ("removed_paths", "stopped", "removed"):
            values[part] += getattr(done, part)
        values["moved"].update(done.moved)
        diff += done.diff
        for warning in done.warnings:
            module.warn(warning)
    if module._diff:
        values["diff"] = diff
    module.exit_json(**values)


if __name__ == "__main__":
    main()
