# SPDX-License-Identifier: Apache-2.0
"""Makes the gossip keys of Consul what they shall be."""

from __future__ import annotations

DOCUMENTATION = r"""
module: consul_keyring
short_description: Manages the gossip keys of all agents of Consul
version_added: 1.0.0
author: Ashlar developers (@ashlar)
description:
  - Talks to the agent of the host it runs on as M(ashlar.stack.consul_acl) does. That agent passes changes on to all others while they run.
  - Keys are installed everywhere before one of them is used, and another one must be used before one is removed, so that agents always understand each
    other. It may be interrupted at any point.
options:
  token:
    description: Secret of a management token.
    type: str
    required: true
  keys:
    description: The keys that agents understand, 32 bytes in base64. The first one is used. Others are removed.
    type: list
    elements: str
    required: true
  timeout:
    description: How long to wait for a leader, and for all agents, in seconds.
    type: int
    default: 60
attributes:
  check_mode:
    description: Nothing is changed.
    support: full
"""

EXAMPLES = r"""
- name: Agents understand the next gossip key, too
  ashlar.stack.consul_keyring:
    token: "{{ lookup('ashlar.stack.secret', 'consul/tokens/management') }}"
    keys: "{{ query('ashlar.stack.secret', 'consul/gossip_key', kind='key32', which='accepted') | first }}"
  run_once: true
"""

RETURN = r"""
steps:
  description: What was done, in words.
  type: list
  elements: str
  returned: always
  sample: [a key is installed, the current key is used]
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.ashlar.stack.plugins.module_utils.consul import KEYRING, AccessControl, Agent, ConsulError, keyring_steps


def main() -> None:
    """Run as an Ansible module."""
    module = AnsibleModule(
        argument_spec={
            "token": {"type": "str", "required": True, "no_log": True},
            "keys": {"type": "list", "elements": "str", "required": True, "no_log": True},
            "timeout": {"type": "int", "default": 60},
        },
        supports_check_mode=True,
    )
    given = module.params
    agent = Agent(
        "https://127.0.0.1:8501",
        given["token"],
        "/etc/ashlar/pki/ca/consul.crt",
        "/etc/ashlar/pki/consul/client.crt",
        "/etc/ashlar/pki/consul/client.key",
    )
    control = AccessControl(agent.request, float(given["timeout"]))
    try:
        done = control.carry_out(lambda: keyring_steps(given["keys"], agent.request("GET", KEYRING)), module.check_mode)
    except ConsulError as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=bool(done), steps=done)


if __name__ == "__main__":
    main()
