# SPDX-License-Identifier: Apache-2.0
"""Tells the controller which trees of a host it need not send again."""

from __future__ import annotations

DOCUMENTATION = r"""
module: tree_survey
short_description: Finds the trees of a host that are up to date
version_added: 1.0.0
author: Ashlar developers (@ashlar)
description:
  - Checks every tree that M(ashlar.stack.tree) installed on the host, as that module would in check mode with its last arguments;
    files, owners and modes, links, folders, units and what they watch.
  - Registered as C(tree_survey), a later task of M(ashlar.stack.tree) with the same arguments for an intact tree is done without
    contacting the host again. So a run with nothing to do checks each host once instead of once per component.
  - The first tree that changes a host ends this for that host, since the change may affect other trees.
  - Nothing is changed on the host. Uncertain trees are left to their own tasks.
"""

EXAMPLES = r"""
- name: Trees that are up to date are known
  ashlar.stack.tree_survey:
  register: tree_survey
"""

RETURN = r"""
intact:
  description: Intact trees, name to the fingerprint of their task.
  type: dict
  returned: always
  sample: {etcd: 5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef}
ansible_facts:
  description: C(ashlar_tree_changed), which the first tree that changes the host sets to true.
  type: dict
  returned: always
  sample: {ashlar_tree_changed: false}
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.ashlar.stack.plugins.module_utils.tree_files import FileError, host_files
from ansible_collections.ashlar.stack.plugins.module_utils.tree_run import HostRunner
from ansible_collections.ashlar.stack.plugins.module_utils.tree_survey import survey


def main() -> None:
    """Run as an Ansible module."""
    module = AnsibleModule(argument_spec={}, supports_check_mode=True)
    try:
        with host_files("/") as files:
            found = survey(files, HostRunner())
    except (FileError, OSError) as error:
        module.fail_json(msg=f"the trees of this host cannot be looked at: {error}")
    module.exit_json(changed=False, intact=found, ansible_facts={"ashlar_tree_changed": False})


if __name__ == "__main__":
    main()
