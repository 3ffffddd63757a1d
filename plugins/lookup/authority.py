# SPDX-License-Identifier: Apache-2.0
"""The lookup that gives the certificates of a CA of the site."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible.errors import AnsibleError
from ansible.plugins.lookup import LookupBase

DOCUMENTATION = r"""
name: authority
short_description: The certificates of a CA of the site
version_added: 1.0.0
author: Ashlar developers (@ashlar)
description:
  - Reads C(credentials/authorities/<name>/ca.crt) of the site, which M(ashlar.stack.certificates) has made; while the CA is rotated, it has two certificates.
options:
  _terms:
    description: Names of CAs, as the manifests of components have them.
    type: list
    elements: str
    required: true
notes:
  - In check mode a CA that is not there yet is a fixed text.
"""

EXAMPLES = r"""
trusted: "{{ query('ashlar.stack.authority', 'kubernetes', 'kubelet') | join('\n') }}"
"""

RETURN = r"""
_raw:
  description: PEM, without a trailing newline.
  type: list
  elements: str
"""


class LookupModule(LookupBase):
    """Ansible's way in."""

    def run(self, terms: list[str], variables: dict[str, Any] | None = None, **kwargs: Any) -> list[str]:
        self.set_options(var_options=variables, direct=kwargs)
        values = variables or {}
        credentials = self._templar.template(values.get("site_credentials")) if self._templar else None
        if not credentials:
            raise AnsibleError("authority: the variable site_credentials is not set (the stack inventory plugin sets it).")
        folder = Path(credentials) / "authorities"
        return [self._read(folder / str(term) / "ca.crt", bool(values.get("ansible_check_mode"))) for term in terms]

    @staticmethod
    def _read(file: Path, check: bool) -> str:
        try:
            return file.read_text(encoding="utf-8").rstrip()
        except OSError as error:
            if check and isinstance(error, FileNotFoundError):
                return f"the CA {file.parent.name}, which is made by this run"
            raise AnsibleError(f"{file}: {error.strerror}. site.yml makes it, or take it from a backup of the site's credentials.") from None
