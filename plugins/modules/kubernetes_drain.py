# SPDX-License-Identifier: Apache-2.0
"""Takes a node of Kubernetes out of service, and back."""

from __future__ import annotations

DOCUMENTATION = r"""
module: kubernetes_drain
short_description: Takes a node of Kubernetes out of service, or puts it back
version_added: 1.0.0
author: Ashlar developers (@ashlar)
description:
  - Cordons a node and evicts its pods through the eviction API, which keeps to disruption budgets. An eviction that a budget refuses is tried again
    until O(timeout). Pods of DaemonSets, static pods and pods that have finished stay.
  - When the time is up, the node is put back into service, and the error names each pod that is left with the budget in its way.
  - A node that it has cordoned has the annotation C(ashlar.io/cordoned), and only such a node is uncordoned. One that somebody else has
    cordoned stays cordoned.
  - With O(state=resumed) it waits until pods may be placed on the node again.
  - In check mode it asks the API to evict each pod without doing it, and warns of those that could not be evicted now.
  - M(kubernetes.core.k8s_drain) gives up at the first eviction that a budget refuses and leaves the node cordoned.
options:
  name:
    description: The node. One that Kubernetes does not know has nothing to drain.
    type: str
    required: true
  state:
    description: Whether the node is to be out of service.
    type: str
    choices: [drained, resumed]
    default: drained
  kubeconfig:
    description: A file that gives access to the API.
    type: path
    required: true
  contexts:
    description: Contexts of O(kubeconfig), one for each API server. The first that answers is asked.
    type: list
    elements: str
    required: true
  unmanaged:
    description: Whether pods may be evicted that have no controller, which makes them anew elsewhere. Otherwise they are an error.
    type: bool
    default: false
  timeout:
    description:
      - How long the pods may take to leave, in seconds.
      - With O(state=resumed), how long Kubernetes may take to see that the node is back.
    type: int
    default: 300
requirements: [kubernetes]
notes:
  - Supports check mode.
"""

EXAMPLES = r"""
- name: The node is drained
  ashlar.stack.kubernetes_drain:
    name: worker-1
    kubeconfig: "{{ site_credentials }}/admin.kubeconfig"
    contexts: [prod-control-1, prod-control-2, prod-control-3]
  delegate_to: localhost
"""

RETURN = r"""
evicted:
  description: Pods whose eviction was accepted, as C(namespace/name).
  type: list
  elements: str
  returned: always
blocked:
  description: In check mode, pods that would not be evicted now, and why.
  type: dict
  returned: always
"""

import json
from typing import Any, Mapping

from ansible.module_utils.basic import AnsibleModule, missing_required_lib
from ansible_collections.ashlar.stack.plugins.module_utils.kubernetes_api import MISSING, SILENCE, ApiException, Servers
from ansible_collections.ashlar.stack.plugins.module_utils.kubernetes_drain import Drain, DrainError, cordoned, goes, ours

GONE, CHANGED, REFUSED = 404, 409, (429, 500)


class Nodes(Servers):
    """What a drain asks of Kubernetes."""

    def node(self, name: str) -> Mapping[str, Any] | None:
        try:
            return dict(self.call("read_node", name))
        except ApiException as error:
            if error.status == GONE:
                return None
            raise

    def patch(self, name: str, body: Mapping[str, Any]) -> None:
        self.call("patch_node", name, body)

    def pods(self, node: str) -> list[Mapping[str, Any]]:
        return list(self.call("list_pod_for_all_namespaces", field_selector=f"spec.nodeName={node}")["items"])

    def evict(self, pod: Mapping[str, Any], dry_run: bool) -> str:
        name, namespace, uid = (pod["metadata"][key] for key in ("name", "namespace", "uid"))
        # By its uid, since a StatefulSet's next pod has the same name.
        body = {
            "apiVersion": "policy/v1",
            "kind": "Eviction",
            "metadata": {"name": name, "namespace": namespace},
            "deleteOptions": {"preconditions": {"uid": uid}},
        }
        try:
            self.call("create_namespaced_pod_eviction", name, namespace, body, final=REFUSED, **({"dry_run": "All"} if dry_run else {}))
        except ApiException as error:
            if error.status in (GONE, CHANGED):
                return ""
            if error.status not in REFUSED:
                raise
            return refusal(error.body)
        return ""


def refusal(body: Any) -> str:
    """Why an eviction was refused, from the API's answer."""
    try:
        status = json.loads(body)
        causes = [str(cause["message"]) for cause in (status.get("details") or {}).get("causes") or [] if cause.get("message")]
        return "; ".join(causes) or str(status["message"])
    except (ValueError, KeyError, TypeError, AttributeError):
        return "the API refuses to evict it"


def main() -> None:
    """Run as an Ansible module."""
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "state": {"type": "str", "choices": ["drained", "resumed"], "default": "drained"},
            "kubeconfig": {"type": "path", "required": True},
            "contexts": {"type": "list", "elements": "str", "required": True},
            "unmanaged": {"type": "bool", "default": False},
            "timeout": {"type": "int", "default": 300},
        },
        supports_check_mode=True,
    )
    if MISSING:
        module.fail_json(msg=missing_required_lib("kubernetes"), exception=str(MISSING))
    name = module.params["name"]
    servers = Nodes(module.params["kubeconfig"], module.params["contexts"])
    drain = Drain(servers, name)
    blocked: dict[str, str] = {}
    try:
        if module.check_mode:
            live = servers.node(name)
            if module.params["state"] == "resumed":
                drain.patched = live is not None and ours(live)
            elif live is not None:
                blocked = drain.blocked(module.params["unmanaged"])
                for pod, why in sorted(blocked.items()):
                    module.warn(f"{pod} could not be evicted from {name} now: {why}")
                drain.patched = not cordoned(live) or any(map(goes, servers.pods(name)))
        elif module.params["state"] == "resumed":
            drain.resume(module.params["timeout"])
        else:
            drain.drain(module.params["timeout"], module.params["unmanaged"])
    except DrainError as error:
        module.fail_json(msg=str(error), changed=drain.patched, evicted=drain.evicted, blocked=blocked)
    except ApiException as error:
        module.fail_json(msg=f"The API of Kubernetes did not do what was asked for the node {name}: {error.status} {refusal(error.body)}")
    except SILENCE as error:
        module.fail_json(msg=f"No API server of Kubernetes answers for the node {name}: {error}")
    module.exit_json(changed=drain.patched or bool(drain.evicted), evicted=drain.evicted, blocked=blocked)


if __name__ == "__main__":
    main()
