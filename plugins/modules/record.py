# SPDX-License-Identifier: Apache-2.0
"""Documents ashlar.stack.record, whose action plugin does the work on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: record
short_description: Records on the controller what a site has
version_added: "1.0.0"
author: Ashlar contributors (@ashlar)
description:
  - Writes a JSON file in C(state/) of a site, such as C(installed.json), which the inventory plugin reads to judge the next upgrade.
    The file is replaced in one step.
  - Runs on the controller without starting a process, as it is part of every run.
options:
  file:
    description: The file on the controller. Its folder is made when it is missing.
    type: path
    required: true
  content:
    description: What is to be in it.
    type: raw
    required: true
attributes:
  check_mode:
    description: Nothing is written.
    support: full
  diff_mode:
    description: Shows the file before and after.
    support: full
"""

EXAMPLES = r"""
- name: Record what the site has
  ashlar.stack.record:
    file: "{{ site_directory }}/state/installed.json"
    content: {release: "{{ site_release }}", versions: "{{ artifact_versions }}"}
"""

RETURN = r""" """
