# SPDX-License-Identifier: Apache-2.0
"""Makes the policies and tokens of Consul what they shall be."""

from __future__ import annotations

DOCUMENTATION = r"""
module: consul_acl
short_description: Manages policies and tokens of Consul in one call
version_added: 1.0.0
author: Ashlar developers (@ashlar)
description:
  - Talks to the agent of the host it runs on, by HTTPS with a client certificate and a management token, and waits within O(timeout) for a leader.
  - Policies are named C(<owner>-<name>); policies and tokens are identified by their description, which is owner, colon, space and name.
    Only those that are no longer wanted are removed, and management tokens from earlier configurations of the servers.
  - A token has the given secret. When that changes, a new token is created before the old one is removed. Of several secrets each has a token.
  - It may be interrupted at any point; the next call continues.
options:
  address:
    description: The agent's address.
    type: str
    default: https://127.0.0.1:8501
  token:
    description: Secret of a token that may manage others. With O(agent_token) as well.
    type: str
    required: true
  authority:
    description: Certificate of the CA that signed the agent's certificate.
    type: path
    default: /etc/ashlar/pki/ca/consul.crt
  certificate:
    description: File of the client certificate to show.
    type: path
    default: /etc/ashlar/pki/consul/client.crt
  key:
    description: File of its key.
    type: path
    default: /etc/ashlar/pki/consul/client.key
  owner:
    description: Owner of the policies and tokens. Those of others are left alone.
    type: str
    default: ashlar
  policies:
    description: Name to rules, in Consul's policy language.
    type: dict
    default: {}
  tokens:
    description: Name to its secrets, UUIDs. A token has the policy of its name.
    type: dict
    default: {}
  agents:
    description: Node to its secrets, UUIDs. The token may write that node and has the policy C(agent).
    type: dict
    default: {}
  management:
    description: Secrets of tokens, besides O(token), that may do everything.
    type: list
    elements: str
    default: []
  datacenter:
    description: The datacenter of the nodes in O(agents).
    type: str
  agent_token:
    description:
      - Sets the agent's own token, and does nothing else. An agent that was started before its token existed then registers its node at once
        instead of half a minute later.
    type: str
  servers:
    description: Name to address of the servers. When there is no leader, those that this host cannot reach are named.
    type: dict
    default: {}
  timeout:
    description: How long to wait for a leader, in seconds.
    type: int
    default: 60
notes:
  - Supports check mode and diff; secrets are never shown. If Consul is not running yet, check mode says so and does not fail.
"""

EXAMPLES = r"""
- name: The edge may read the catalog
  ashlar.stack.consul_acl:
    token: "{{ lookup('ashlar.stack.secret', 'consul/tokens/management') }}"
    policies:
      edge: |
        service_prefix "" { policy = "read" }
        node_prefix "" { policy = "read" }
    tokens:
      edge: "{{ query('ashlar.stack.secret', 'consul/tokens/edge', which='accepted') | first }}"
  run_once: true
"""

RETURN = r"""
steps:
  description: What was done, in words; tokens by their public ID.
  type: list
  elements: str
  returned: always
  sample: ["policy ashlar-edge is made", "token edge (0b8ac1f5-3c0e-4f43-9d8c-d6b1d2f2d0a5) is made"]
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.ashlar.stack.plugins.module_utils.consul import AccessControl, Agent, ConsulError, NotReady, silent_servers, wanted

ARGUMENTS: dict[str, Any] = {
    "address": {"type": "str", "default": "https://127.0.0.1:8501"},
    "token": {"type": "str", "required": True, "no_log": True},
    "authority": {"type": "path", "default": "/etc/ashlar/pki/ca/consul.crt"},
    "certificate": {"type": "path", "default": "/etc/ashlar/pki/consul/client.crt"},
    "key": {"type": "path", "default": "/etc/ashlar/pki/consul/client.key", "no_log": False},
    "owner": {"type": "str", "default": "ashlar"},
    "policies": {"type": "dict", "default": {}},
    "tokens": {"type": "dict", "default": {}, "no_log": True},
    "agents": {"type": "dict", "default": {}, "no_log": True},
    "management": {"type": "list", "elements": "str", "default": [], "no_log": True},
    "datacenter": {"type": "str"},
    "agent_token": {"type": "str", "no_log": True},
    "servers": {"type": "dict", "default": {}},
    "timeout": {"type": "int", "default": 60},
}


def main() -> None:
    """Run as an Ansible module."""
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    given = module.params
    agent = Agent(given["address"], given["token"], given["authority"], given["certificate"], given["key"])
    # Nothing that check mode could wait for will come by itself.
    control = AccessControl(agent.request, 0.0 if module.check_mode else float(given["timeout"]), why=lambda: silent_servers(given["servers"]))
    try:
        if given["agent_token"]:
            if not module.check_mode:
                control.retry(lambda: agent.request("PUT", "/v1/agent/token/agent", {"Token": given["agent_token"]}))
            module.exit_json(changed=True, steps=["the agent has its token"])
        policies = {str(name): str(rules) for name, rules in given["policies"].items()}
        tokens, agents = ({str(name): [str(secret) for secret in secrets] for name, secrets in given[key].items()} for key in ("tokens", "agents"))
        want = wanted(given["owner"], given["datacenter"] or "", policies, tokens, agents, given["management"])
        done = control.settle(want, module.check_mode)
    except NotReady as error:
        if not module.check_mode:
            module.fail_json(msg=str(error))
        module.warn(f"what would change cannot be told: {error}")
        done = ["Consul is not running yet; it will get its policies and tokens once it is"]
    except ConsulError as error:
        module.fail_json(msg=str(error))
    result: dict[str, Any] = {"changed": bool(done), "steps": done}
    if module._diff:
        result["diff"] = {"before": "", "after": "".join(f"{line}\n" for line in done)}
    module.exit_json(**result)


if __name__ == "__main__":
    main()
