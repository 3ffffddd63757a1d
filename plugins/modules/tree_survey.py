# SPDX-License-Identifier: Apache-2.0
"""Tells the controller which trees of a host it need not send again."""

from __future__ import annotations

DOCUMENTATION = r"""
module: tree_survey
short_description: Tells which trees of a host are as they were asked for
version_added: 1.0.0
author: Ashlar developers (@ashlar)
description:
  - Looks at every tree that M(ashlar.stack.tree) laid down on the host, as that module would in check mode with what it was last asked;
    files, owners and modes, links, folders, units and what they watch.
  - Registered as C(tree_survey), a later task of M(ashlar.stack.tree) that asks the very same of a tree that is intact is done without
    asking the host again. So a run that has nothing to do looks once at each host instead of once for each component.
  - The first tree that changes a host ends this for that host, since other trees may feel the change.
  - Nothing is changed on the host. What cannot be told for sure is looked at by its own task.
"""

EXAMPLES = r"""
- name: What is as it was asked for is known
  ashlar.stack.tree_survey:
  register: tree_survey
"""

RETURN = r"""
intact:
  description: Name of a tree to the fingerprint of what was asked, of the trees that are intact.
  type: dict
  returned: always
  sample: {etcd: 5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef}
ansible_facts:
  description: C(ashlar_tree_changed), which the first tree that changes the host makes true.
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
