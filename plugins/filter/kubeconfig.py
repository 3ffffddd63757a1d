# SPDX-License-Identifier: Apache-2.0
"""The filter that writes a kubeconfig for a client on a node."""

from __future__ import annotations

from collections.abc import Callable

DOCUMENTATION = """
name: kubeconfig
short_description: A kubeconfig for a client whose certificate is on the node
description:
  - Takes the server's URL and returns a kubeconfig that refers to the client's files instead of embedding them,
    so a renewed certificate needs no new kubeconfig.
options:
  _input:
    description: URL of the API server.
    type: str
    required: true
  certificate:
    description: Path of the client's certificate and key, without C(.crt) and C(.key).
    type: str
    required: true
author: [The Ashlar authors]
"""

EXAMPLES = """
kubeconfig: "{{ 'https://127.0.0.1:6443' | ashlar.stack.kubeconfig('/etc/ashlar/pki/flannel/client') }}"
"""

RETURN = """
_value:
  description: The kubeconfig, YAML.
  type: str
"""

TEXT = """\
apiVersion: v1
kind: Config
clusters:
  - name: site
    cluster:
      server: {server}
      certificate-authority: /etc/ashlar/pki/ca/kubernetes.crt
users:
  - name: client
    user:
      client-certificate: {certificate}.crt
      client-key: {certificate}.key
contexts:
  - name: site
    context: {{cluster: site, user: client}}
current-context: site
"""


def kubeconfig(server: str, certificate: str) -> str:
    """Return a kubeconfig, without a line's end after the last line (see C(DOCUMENTATION))."""
    return TEXT.format(server=server, certificate=certificate).rstrip("\n")


class FilterModule:
    """Ansible's way of finding the filter."""

    def filters(self) -> dict[str, Callable[..., str]]:
        """Return the filters by name."""
        return {"kubeconfig": kubeconfig}
