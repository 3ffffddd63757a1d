# SPDX-License-Identifier: Apache-2.0
"""Documents ashlar.stack.machines, whose action plugin does the work on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: machines
short_description: Creates and destroys the machines of a site
version_added: "1.0.0"
author: Ashlar contributors (@ashlar)
description:
  - Plans and applies, with OpenTofu or Terraform, the roots that the site's node files C(*terraform.yml) name (the plugin
    P(ashlar.stack.terraform#inventory)), shows the plan first, and applies exactly that plan.
  - A plan that destroys or replaces machines, or removes volumes, is refused unless that is allowed.
  - Then waits until every machine answers by SSH and its cloud-init is done, with its host key checked.
  - The root's variable C(site_folder) is set to the site's folder, if it has one and nothing else sets it. Missing workspaces are created.
options:
  site:
    description: The site's folder.
    type: path
    required: true
  state:
    description:
      - V(present) applies the roots. The site's SSH key is created if missing.
      - V(answering) waits until the machines of the inventory answer and are ready. Refresh the inventory first, if machines were created.
      - V(absent) destroys everything in the roots, and the site's records of its machines, their host keys and what was installed on them.
    type: str
    choices: [present, answering, absent]
    default: present
  allow_destroy:
    description: Whether a plan may destroy and replace machines and remove volumes.
    type: bool
    default: false
  show:
    description: Whether to show the plan with O(state=absent). False if it was just shown.
    type: bool
    default: true
  timeout_seconds:
    description: How long each run of the tool may take (default V(3600)), and with O(state=answering) how long all machines may take (default V(600)).
    type: int
attributes:
  check_mode:
    description: The plan is shown and nothing is applied. The site's SSH key is created all the same, since a root can't be planned without it.
    support: full
  diff_mode:
    description: The plan is always shown.
    support: none
notes:
  - Runs on the controller, once a play.
  - Host keys come from the machine's C(ssh_host_keys), if known. Otherwise the first one seen is trusted, and the run says so.
    A key is dropped when the machine's C(id) changes; a key that changes without that is an error.
requirements:
  - python-terraform >= 0.10.1, and OpenTofu or Terraform >= 1.6
seealso:
  - plugin: ashlar.stack.terraform
    plugin_type: inventory
"""

EXAMPLES = r"""
- name: The machines exist
  ashlar.stack.machines:
    site: "{{ site_directory }}"

- name: The inventory knows them
  ansible.builtin.meta: refresh_inventory

- name: They answer
  ashlar.stack.machines:
    site: "{{ site_directory }}"
    state: answering
    timeout_seconds: 300
"""

RETURN = r"""
roots:
  description: What was done, or in check mode would be done, by root.
  returned: when O(state) is V(present) or V(absent)
  type: list
  elements: dict
  contains:
    root: {description: Its folder., type: str, returned: always, sample: terraform/aws}
    changed: {description: Whether anything of it changed., type: bool, returned: always}
    objects:
      description: Each object of the plan, its C(address) and C(action) (create, update, delete, replace).
      type: list
      elements: dict
      returned: always
    made: {description: Machines that were created., type: list, elements: str, returned: when O(state=present)}
    ended: {description: Machines that were destroyed., type: list, elements: str, returned: always}
    replaced: {description: Machines that were replaced., type: list, elements: str, returned: when O(state=present)}
    lost: {description: Machines that were gone already and were recreated., type: list, elements: str, returned: when O(state=present)}
key:
  description: The site's SSH key.
  returned: when O(state=present)
  type: str
machines:
  description: The machines that answer.
  returned: when O(state=answering)
  type: list
  elements: str
trusted:
  description: Hosts whose key was trusted on first sight, as known_hosts names them.
  returned: when O(state=answering)
  type: list
  elements: str
"""
