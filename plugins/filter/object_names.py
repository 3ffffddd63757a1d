# SPDX-License-Identifier: Apache-2.0
"""The filter that names objects of the Kubernetes API."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

DOCUMENTATION = """
name: object_names
short_description: Reduces objects of the Kubernetes API to what names them
version_added: 1.0.0
description:
  - Of each object, keeps C(apiVersion), C(kind) and in C(metadata) its C(name) and C(namespace), in the given order. That is enough to delete it.
options:
  _input:
    description: The objects.
    type: list
    elements: dict
    required: true
author: [The Ashlar authors]
"""

EXAMPLES = """
applied: "{{ lookup('ansible.builtin.template', 'objects.yml.j2') | from_yaml_all | ashlar.stack.object_names }}"
"""

RETURN = """
_value:
  description: The names.
  type: list
  elements: dict
"""


def object_names(objects: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """See C(DOCUMENTATION)."""
    return [
        {
            "apiVersion": str(item["apiVersion"]),
            "kind": str(item["kind"]),
            "metadata": {key: str(item["metadata"][key]) for key in ("name", "namespace") if key in item["metadata"]},
        }
        for item in objects
        if item
    ]


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Name -> filter."""
        return {"object_names": object_names}
