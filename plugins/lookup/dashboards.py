# SPDX-License-Identifier: Apache-2.0
"""The lookup that gives the dashboards of a site as Grafana reads them."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleError
from ansible.plugins.lookup import LookupBase
from ansible_collections.ashlar.stack.plugins.plugin_utils.observability import dashboards
from ansible_collections.ashlar.stack.plugins.plugin_utils.site.report import sentence

DOCUMENTATION = r"""
name: dashboards
short_description: The dashboards of a site as Grafana reads them
version_added: 1.0.0
author: Ashlar developers (@ashlar)
description:
  - Reads C(roles/<component>/dashboards/*.yml) and C(dashboards/) beside the site file (C(.yml) in the same short form, C(.json) as Grafana exports it),
    leaves out what is about components that the site does not have, and gives all pages in one JSON object.
  - M(ashlar.stack.observability) validates them.
options:
  _terms:
    description: Names of components; by default those of the variable C(site_components).
    type: list
    elements: str
  site:
    description: The site's folder; by default the variable C(site_directory).
    type: path
"""

EXAMPLES = r"""
pages: "{{ lookup('ashlar.stack.dashboards') }}"
"""

RETURN = r"""
_raw:
  description: JSON, folder -> uid -> page, as the only element.
  type: list
  elements: str
"""

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = {True: "Platform", False: "Site"}


@lru_cache(maxsize=4)
def rendered(components: tuple[str, ...], site: str, base: str) -> str:
    """All pages, made once a run however many hosts ask."""
    found, problems = dashboards.read(ROOT, dashboards.find(ROOT, Path(site)), components)
    if problems:
        raise AnsibleError(sentence(problems[0], base))
    pages: dict[str, dict[str, Any]] = {}
    for page in found:
        made = dashboards.render(page)
        pages.setdefault(FOLDERS[page.own], {})[made["uid"]] = made
    return json.dumps(pages, indent=1, sort_keys=True, ensure_ascii=False)


class LookupModule(LookupBase):
    """Ansible's way in."""

    def run(self, terms: list[str], variables: dict[str, Any] | None = None, **kwargs: Any) -> list[str]:
        self.set_options(var_options=variables, direct=kwargs)
        components = terms or self._value(variables, "site_components", [])
        site = self.get_option("site") or self._value(variables, "site_directory", "")
        if not site:
            raise AnsibleError("dashboards: no site is given and the variable site_directory is not set (the stack inventory plugin sets it).")
        return [rendered(tuple(map(str, components)), str(site), self._loader.get_basedir() if self._loader else ".")]

    def _value(self, variables: dict[str, Any] | None, name: str, default: Any) -> Any:
        value = (variables or {}).get(name, default)
        return self._templar.template(value) if self._templar else value
