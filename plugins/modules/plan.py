# SPDX-License-Identifier: Apache-2.0
"""Documents ashlar.stack.plan, whose action plugin does the work on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: plan
short_description: Says what a playbook would do
version_added: "1.0.0"
author: Ashlar contributors (@ashlar)
description:
  - Runs a playbook in check mode, with the inventory, variables, limits and tags of this run, and prints its plan - what would be done to which nodes, and
    which units would be interrupted.
  - The run that it starts can't ask for passwords. Give them in files (C(--become-password-file), C(--vault-password-file) ...), or run the playbook with
    C(--check) yourself, which ends with the same plan.
options:
  playbook:
    description: The playbook.
    type: path
    required: true
attributes:
  check_mode:
    description: It is the same in check mode.
    support: full
  diff_mode:
    description: With C(--diff), everything that the playbook prints is shown, differences too.
    support: full
"""

EXAMPLES = r"""
- name: The plan of the site is told
  ashlar.stack.plan:
    playbook: "{{ playbook_dir }}/../site.yml"
"""

RETURN = r"""
plan:
  description: Host to component to verb to names. Hosts to which nothing would be done are left out.
  returned: success
  type: dict
  sample: {node1: {etcd: {write: [/etc/etcd/etcd.env], restart: [etcd.service]}}}
"""
