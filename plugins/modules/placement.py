# SPDX-License-Identifier: Apache-2.0
"""Documents ashlar.stack.placement, whose action plugin does the work on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: placement
short_description: Remembers on the controller which node carries which component
version_added: "1.0.0"
author: Ashlar contributors (@ashlar)
description:
  - Writes C(state/placement.yml) of a site, which the inventory plugin reads. Components that run on some nodes of a class stay where they are, and
    what a node carries and shall carry no longer is known.
  - What is remembered is kept until its node is named in O(retired), or has left O(nodes). The file is replaced in one step.
  - Runs on the controller without starting a process.
options:
  directory:
    description: The site's folder on the controller.
    type: path
    required: true
  planned:
    description: Component, or group of a component's nodes, to names of the nodes that shall carry it.
    type: dict
    required: true
  nodes:
    description: Names of all hosts that are nodes, or were and are still in the inventory.
    type: list
    elements: str
    required: true
  retired:
    description: Nodes from which everything is gone that is not planned there.
    type: list
    elements: str
    default: []
  removed:
    description: Nodes that carry nothing from now on, until they have left O(nodes).
    type: list
    elements: str
    default: []
  founders:
    description: Component that decides by majority, to those of its first members that never lost their data. Nodes that carry it no longer are left out.
    type: dict
    default: {}
  returned:
    description: Nodes that were named in O(removed) once and are nodes again.
    type: list
    elements: str
    default: []
attributes:
  check_mode:
    description: Nothing is written.
    support: full
  diff_mode:
    description: Shows the file before and after.
    support: full
"""

EXAMPLES = r"""
- name: The placement is remembered
  ashlar.stack.placement:
    directory: "{{ site_directory }}"
    planned: "{{ component_nodes | combine(component_groups) }}"
    nodes: "{{ site_nodes | list }}"
    founders: "{{ component_founders }}"
"""

RETURN = r""" """
