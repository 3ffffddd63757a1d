# SPDX-License-Identifier: Apache-2.0
"""Holds a site for a run. What happens is in plugins/action/lock.py."""

from __future__ import annotations

DOCUMENTATION = r"""
module: lock
short_description: Holds a site for a run, so that no other one changes it at the same time
version_added: 1.0.0
author: Ashlar developers (@ashlar)
description:
  - Runs on the controller and notes in C(state/lock.json) of the site which run changes it. A second run ends with an error that says who, since when,
    what it does, and how to take over.
  - A run holds the site while its process lives, so one that was killed need not be cleaned up after. A run on another machine holds it
    until it has set O(state=free), or somebody takes over.
options:
  directory:
    description: The site's folder.
    type: path
    required: true
  state:
    description: Whether this run holds the site.
    type: str
    choices: [held, free]
    default: held
  take:
    description: Whether to take over from another run that holds the site.
    type: bool
    default: false
attributes:
  check_mode:
    description: Nothing is written, and no other run is looked for.
    support: full
"""

EXAMPLES = r"""
- name: No other run changes the site
  ashlar.stack.lock:
    directory: "{{ site_directory }}"
    take: "{{ take_lock | default(false) }}"
"""

RETURN = r""" """
