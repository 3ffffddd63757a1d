# SPDX-License-Identifier: Apache-2.0
"""The lookup that gives the alert rules of a site as one file."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleError
from ansible.plugins.lookup import LookupBase
from ansible_collections.ashlar.stack.plugins.plugin_utils.observability import rules
from ansible_collections.ashlar.stack.plugins.plugin_utils.site.report import sentence

DOCUMENTATION = r"""
name: rules
short_description: The alert rules of a site as one file
version_added: 1.0.0
author: Ashlar developers (@ashlar)
description:
  - Reads C(roles/<component>/alerts/*.yml) of the site's components and C(alerts/*.yml) beside the site file, leaves out what is disabled, and gives
    one rule file for Prometheus.
  - M(ashlar.stack.observability) validates them.
options:
  _terms:
    description: Names of components; by default those of the variable C(site_components).
    type: list
    elements: str
  disabled:
    description: Names of alerts of components that are left out; by default the variable C(prometheus_alerts_disabled).
    type: list
    elements: str
  site:
    description: The site's folder; by default the variable C(site_directory).
    type: path
"""

EXAMPLES = r"""
rules: "{{ lookup('ashlar.stack.rules') }}"
"""

RETURN = r"""
_raw:
  description: The rule file, YAML, as the only element; empty without any rule.
  type: list
  elements: str
"""

ROOT = Path(__file__).resolve().parents[2]


@lru_cache(maxsize=4)
def merged(components: tuple[str, ...], disabled: tuple[str, ...], site: str, base: str) -> str:
    """The rule file, made once a run however many hosts ask."""
    files, problems = rules.read(rules.find(ROOT, components, Path(site)))
    if problems:
        raise AnsibleError(sentence(problems[0], base))
    return rules.merge(files, disabled) if files else ""


class LookupModule(LookupBase):
    """Ansible's way in."""

    def run(self, terms: list[str], variables: dict[str, Any] | None = None, **kwargs: Any) -> list[str]:
        self.set_options(var_options=variables, direct=kwargs)
        components = terms or self._value(variables, "site_components", [])
        disabled = self.get_option("disabled")
        if disabled is None:
            disabled = self._value(variables, "prometheus_alerts_disabled", [])
        site = self.get_option("site") or self._value(variables, "site_directory", "")
        if not site:
            raise AnsibleError("rules: no site is given and the variable site_directory is not set (the stack inventory plugin sets it).")
        return [merged(tuple(map(str, components)), tuple(map(str, disabled)), str(site), self._loader.get_basedir() if self._loader else ".")]

    def _value(self, variables: dict[str, Any] | None, name: str, default: Any) -> Any:
        value = (variables or {}).get(name, default)
        return self._templar.template(value) if self._templar else value
