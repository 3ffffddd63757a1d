# SPDX-License-Identifier: Apache-2.0
"""The options that the inventories of machines have in common: how SSH gets there."""

from __future__ import annotations


class ModuleDocFragment:
    """Named by `extends_documentation_fragment`; see `plugin_utils/machines/hosts.py` for what becomes of it."""

    DOCUMENTATION = r"""
options:
  address:
    description:
      - Which address SSH goes to.
      - V(auto) is the private one where there is a bastion, else the public one where the machine has one, else the private one.
      - With V(public) no bastion is used.
    type: str
    default: auto
    choices: [auto, public, private]
  user:
    description: SSH user; overrides what a machine says. Adopted machines, and instances of clouds without a tag for it, need it here.
    type: str
  bastion:
    description: The host through which SSH goes; overrides what the machines say.
    type: dict
    suboptions:
      host:
        description: Address or name.
        type: str
        required: true
      user:
        description: User of SSH there.
        type: str
        required: true
      port:
        description: Port of SSH there.
        type: int
  use_bastion:
    description: Whether bastions are used. False where Ansible runs inside the private network.
    type: bool
    default: true
  known_hosts:
    description: File of host keys. By default C(credentials/ssh/known_hosts) beside this file, where it exists.
    type: path
  private_key:
    description: Private key of SSH. By default C(credentials/ssh/id_ed25519) beside this file, where it exists; else SSH's own choice.
    type: path
"""
