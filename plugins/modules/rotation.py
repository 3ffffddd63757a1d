# SPDX-License-Identifier: Apache-2.0
"""Documents ashlar.stack.rotation, whose action plugin does the work on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: rotation
short_description: Replaces secrets of a site on the controller, step by step
version_added: "1.0.0"
author: Ashlar contributors (@ashlar)
description:
  - Makes successors of secrets, has them used, and drops the old ones, in the site's C(credentials/). Nodes get the files by the roles of their
    components, after each step.
  - What is rotated and the step that is under way are kept in C(state/rotation.json) of the site until the end, so that a run that was killed goes on.
    A step that has been passed does nothing.
options:
  directory:
    description: The site's folder.
    type: path
    required: true
  credentials:
    description: Its folder of secrets, the variable C(site_credentials).
    type: path
    required: true
  secrets:
    description: What can be rotated, the variable C(site_secrets).
    type: dict
    required: true
  what:
    description: Keys of O(secrets), or V(all). For the first two steps.
    type: list
    elements: str
    default: []
  step:
    description:
      - V(plan) checks what is asked for and says what would be rotated.
      - V(introduce) makes successors, which are accepted from then on; V(switch) has them used; V(drop) ends that the old ones are accepted.
      - V(end) forgets the rotation, except for what waits until nothing is in use that an old key has signed.
    type: str
    choices: [plan, introduce, switch, drop, end]
    required: true
  finish:
    description: Whether to drop what waits now.
    type: bool
    default: false
attributes:
  check_mode:
    description: Nothing is written.
    support: full
  diff_mode:
    description: There is nothing to show that is no secret.
    support: none
"""

EXAMPLES = r"""
- name: All nodes accept the new tokens, too
  ashlar.stack.rotation:
    directory: "{{ site_directory }}"
    credentials: "{{ site_credentials }}"
    secrets: "{{ site_secrets }}"
    what: [tokens]
    step: introduce
"""

RETURN = r"""
what:
  description: What is rotated, keys of O(secrets).
  type: list
  elements: str
  returned: success
step:
  description: The step that the rotation is at.
  type: str
  returned: success
under_way:
  description: Whether an earlier run began it.
  type: bool
  returned: success
waiting:
  description: What waits to be dropped, key of O(secrets) -> UTC time.
  type: dict
  returned: success
  sample: {service_account_key: "2026-11-30 12:00:00 UTC"}
"""
