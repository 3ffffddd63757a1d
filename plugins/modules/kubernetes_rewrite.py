# SPDX-License-Identifier: Apache-2.0
"""Has the API servers store objects anew."""

from __future__ import annotations

DOCUMENTATION = r"""
module: kubernetes_rewrite
short_description: Stores all Secrets and ConfigMaps anew
version_added: "1.0.0"
author: Ashlar contributors (@ashlar)
description:
  - Reads all objects of the kinds that are encrypted at rest and writes each one back as it is. An API server then encrypts it with the current key,
    unless it is so already.
  - An object that somebody else changes meanwhile needs no writing, since that is encrypted with the current key, too.
  - Runs on the controller. It must not run before all API servers write with the current key.
options:
  kubeconfig:
    description: A kubeconfig of an administrator.
    type: path
    required: true
  contexts:
    description: Its contexts, one an API server. The next one is asked when one does not answer.
    type: list
    elements: str
    required: true
attributes:
  check_mode:
    description: Nothing is written.
    support: full
requirements:
  - kubernetes
"""

EXAMPLES = r"""
- name: All Secrets and ConfigMaps are encrypted with the current key
  ashlar.stack.kubernetes_rewrite:
    kubeconfig: "{{ site_credentials }}/admin.kubeconfig"
    contexts: [local-node1, local-node2]
  delegate_to: localhost
  run_once: true
"""

RETURN = r"""
written:
  description: How many objects were written back.
  type: int
  returned: success
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule, missing_required_lib
from ansible_collections.ashlar.stack.plugins.module_utils.kubernetes_api import MISSING, SILENCE, ApiException, Servers

KINDS = {"secret": "Secret", "config_map": "ConfigMap"}
PAGE = 500
"""Objects that are read at once."""
GONE, CHANGED = 404, 409


def rewrite(servers: Servers, dry_run: bool) -> int:
    """Write all objects back; how many."""
    written = 0
    for resource, kind in KINDS.items():
        following = ""
        while True:
            options: dict[str, Any] = {"_continue": following} if following else {}
            page = servers.call(f"list_{resource}_for_all_namespaces", limit=PAGE, **options)
            for item in page["items"]:
                meta = item["metadata"]
                body = {"apiVersion": "v1", "kind": kind, **item}
                try:
                    if not dry_run:
                        servers.call(f"replace_namespaced_{resource}", meta["name"], meta["namespace"], body, final=(CHANGED,))
                except ApiException as error:
                    if error.status not in (GONE, CHANGED):
                        raise
                written += 1
            following = page["metadata"].get("continue") or ""
            if not following:
                break
    return written


def main() -> None:
    """Run as an Ansible module."""
    module = AnsibleModule(
        argument_spec={"kubeconfig": {"type": "path", "required": True}, "contexts": {"type": "list", "elements": "str", "required": True}},
        supports_check_mode=True,
    )
    if MISSING:
        module.fail_json(msg=missing_required_lib("kubernetes"), exception=str(MISSING))
    try:
        written = rewrite(Servers(module.params["kubeconfig"], module.params["contexts"]), module.check_mode)
    except ApiException as error:
        module.fail_json(msg=f"Secrets and ConfigMaps can't be written back: HTTP {error.status} {error.reason}. Run this again; it writes all of them.")
    except SILENCE as error:
        module.fail_json(msg=f"No API server of Kubernetes answers: {error}. Run this again when one does; it writes all of them.")
    module.exit_json(changed=written > 0, written=written)


if __name__ == "__main__":
    main()
