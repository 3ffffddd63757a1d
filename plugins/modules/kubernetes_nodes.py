# SPDX-License-Identifier: Apache-2.0
"""Labels and taints the nodes of a cluster, waits until they are Ready, and applies what runs on them."""

from __future__ import annotations

DOCUMENTATION = r"""
module: kubernetes_nodes
short_description: Labels and taints the nodes of a cluster, waits until all are Ready, and applies workloads
version_added: 1.0.0
author: Ashlar developers (@ashlar)
description:
  - Runs on the controller and reads all nodes in one request. A node gets its labels and taints as soon as it has registered.
  - Roles are labels under C(node-role.kubernetes.io/), which a kubelet may not set on itself.
  - Labels and taints that others have set are left alone. Those that this module has set are remembered in the node's annotation
    C(ashlar.io/applied), and removed when they are no longer wanted.
  - O(workloads) are applied once every node is Ready, so that their replicas are spread over all nodes from the start.
extends_documentation_fragment: [kubernetes.core.k8s_auth_options]
options:
  nodes:
    description: Node to C(classes), C(zone), C(region) and C(labels), as C(site_nodes) has them.
    type: dict
    required: true
  workloads:
    description: Objects to apply once all nodes are Ready.
    type: list
    elements: dict
    default: []
  timeout:
    description: How long to wait for the nodes, in seconds.
    type: int
    default: 600
requirements: [kubernetes]
notes:
  - Supports check mode, in which it does not wait, and diff.
"""

EXAMPLES = r"""
- name: Nodes have their roles, and the applications run on them
  ashlar.stack.kubernetes_nodes:
    kubeconfig: "{{ site_credentials }}/admin.kubeconfig"
    nodes: "{{ site_nodes }}"
    workloads: "{{ lookup('ansible.builtin.template', 'workloads/sample.yml.j2') | from_yaml_all }}"
  delegate_to: localhost
  run_once: true
"""

RETURN = r"""
nodes:
  description: Nodes whose labels or taints were changed, with the patch each was given.
  type: dict
  returned: always
workloads:
  description: Objects that were changed, as C(Kind/name).
  type: list
  elements: str
  returned: always
not_ready:
  description: Nodes that are not Ready, and why.
  type: dict
  returned: always
"""

import copy
import json
import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.ashlar.stack.plugins.module_utils.kubernetes_nodes import lacking, patch, story, wanted
from ansible_collections.kubernetes.core.plugins.module_utils.args_common import AUTH_ARG_SPEC
from ansible_collections.kubernetes.core.plugins.module_utils.k8s.client import get_api_client
from ansible_collections.kubernetes.core.plugins.module_utils.k8s.core import AnsibleK8SModule
from ansible_collections.kubernetes.core.plugins.module_utils.k8s.exceptions import CoreException
from ansible_collections.kubernetes.core.plugins.module_utils.k8s.runner import perform_action
from ansible_collections.kubernetes.core.plugins.module_utils.k8s.service import K8sService

try:
    from kubernetes.client.exceptions import ApiException
    from kubernetes.dynamic.exceptions import DynamicApiError
    from urllib3.exceptions import HTTPError
except ImportError:  # AnsibleK8SModule says what is missing
    ApiException = DynamicApiError = HTTPError = OSError  # type: ignore[misc, assignment]

PAUSE = 0.5
# Refusals that another try does not change.
FINAL = (401, 403, 422)


class Nodes:
    """The nodes of a cluster, and what was done to them."""

    def __init__(self, client: Any, wanted_nodes: dict[str, Any]) -> None:
        self.client = client
        self.resource = client.resource("Node", "v1")
        self.targets = {name: wanted(node) for name, node in wanted_nodes.items()}
        self.patches: dict[str, Any] = {}

    def look(self) -> dict[str, str]:
        """Patches the nodes that are there; the nodes that are not Ready, and why."""
        live = {item["metadata"]["name"]: item for item in json.loads(self.client.get(self.resource, serialize=False).data)["items"]}
        for name, target in self.targets.items():
            body = patch(live[name], target) if name in live else {}
            if body:
                self.client.patch(self.resource, body, name=name, content_type="application/merge-patch+json", serialize=False)
                self.patches[name] = body
        return lacking(list(self.targets), live)


def wait(nodes: Nodes, timeout: float) -> dict[str, str]:
    """Looks until all nodes are Ready or time is up. An API server that does not answer is asked again, a refusal is final."""
    start = time.monotonic()
    while True:
        try:
            reasons = nodes.look()
        except (ApiException, DynamicApiError) as error:
            if error.status in FINAL or time.monotonic() - start >= timeout:
                raise
            reasons = {"": str(error)}
        except (HTTPError, OSError):
            if time.monotonic() - start >= timeout:
                raise
            reasons = {"": "no answer"}
        if not reasons or time.monotonic() - start >= timeout:
            return reasons
        time.sleep(PAUSE)


def main() -> None:
    """Run as an Ansible module."""
    spec = copy.deepcopy(AUTH_ARG_SPEC)
    spec.update(
        nodes={"type": "dict", "required": True},
        workloads={"type": "list", "elements": "dict", "default": []},
        timeout={"type": "int", "default": 600},
    )
    module = AnsibleK8SModule(module_class=AnsibleModule, argument_spec=spec, supports_check_mode=True)
    timeout = 0 if module.check_mode else module.params["timeout"]
    try:
        client = get_api_client(module)
        nodes = Nodes(client, module.params["nodes"])
        reasons = wait(nodes, timeout)
        result: dict[str, Any] = {"nodes": nodes.patches, "workloads": [], "not_ready": reasons}
        if reasons and not module.check_mode:
            module.fail_json(msg=story(reasons, len(nodes.targets), timeout), changed=bool(nodes.patches), **result)
        service = K8sService(client, module)
        diffs = [
            {"before": "", "after": f"{json.dumps(body, indent=2, sort_keys=True)}\n", "after_header": f"Node/{name}"}
            for name, body in nodes.patches.items()
        ]
        for definition in module.params["workloads"]:
            done = perform_action(service, definition, {"state": "present"})
            if done["changed"]:
                result["workloads"].append(f"{definition['kind']}/{definition['metadata']['name']}")
                diffs.append({f"{key}_header": result["workloads"][-1] for key in ("before", "after")} | (done.get("diff") or {}))
    except CoreException as error:
        module.fail_from_exception(error)
    except (ApiException, DynamicApiError, HTTPError, OSError) as error:
        module.fail_json(msg=f"The API of Kubernetes did not do what was asked: {error}")
    module.exit_json(changed=bool(nodes.patches or result["workloads"]), diff=diffs, **result)


if __name__ == "__main__":
    main()
