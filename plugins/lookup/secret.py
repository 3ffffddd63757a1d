# SPDX-License-Identifier: Apache-2.0
"""The lookup that gives a secret of the site, and makes it when it is asked for the first time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible.errors import AnsibleError
from ansible.plugins.lookup import LookupBase
from ansible_collections.ashlar.stack.plugins.plugin_utils.secrets import SecretError, decrypter, obtain

DOCUMENTATION = r"""
name: secret
short_description: A secret of the site, generated on the controller at first use
version_added: 1.0.0
author: Ashlar developers (@ashlar)
description:
  - Reads C(credentials/<name>) of the site. A missing file is created, once, with a secret of O(kind), mode 0600 in folders of mode 0700.
  - Concurrent runs and hosts get the same secret. A file encrypted by ansible-vault is decrypted with the run's vault secrets.
  - C(rotate.yml) replaces a secret. While it does, the file has a further line with the next or the previous secret.
options:
  _terms:
    description: Names of secrets, paths below C(credentials/) such as C(consul/tokens/edge).
    type: list
    elements: str
    required: true
  kind:
    description:
      - What to generate. V(uuid) is a random UUID, V(key32) is 32 random bytes in base64, V(password) is 32 random letters and digits.
      - V(ceph) is 16 random bytes in base64, too; what is returned is the complete key of Ceph, with the header that all its keys have.
    type: str
    choices: [uuid, key32, password, ceph]
    default: uuid
  which:
    description:
      - V(current) is the secret that is used, V(next) its successor while it is rotated, else an empty string. With V(accepted) each element is a
        list of all that are accepted now, the current one first, for whatever checks the secret.
    type: str
    choices: [current, next, accepted]
    default: current
  credentials:
    description: The site's folder for secrets; by default the variable C(site_credentials).
    type: path
notes:
  - In check mode nothing is written; a text of the same format that is made from its name stands for a missing secret then.
"""

EXAMPLES = r"""
token: "{{ lookup('ashlar.stack.secret', 'consul/tokens/edge') }}"
gossip: "{{ lookup('ashlar.stack.secret', 'consul/gossip_key', kind='key32') }}"
keys: "{{ query('ashlar.stack.secret', 'kubernetes_encryption_key', kind='key32', which='accepted') | first }}"
"""

RETURN = r"""
_raw:
  description: The secrets, without a trailing newline.
  type: list
  elements: str
"""


class LookupModule(LookupBase):
    """Ansible's way in."""

    def run(self, terms: list[str], variables: dict[str, Any] | None = None, **kwargs: Any) -> list[Any]:
        self.set_options(var_options=variables, direct=kwargs)
        values = variables or {}
        folder = self.get_option("credentials") or (self._templar.template(values.get("site_credentials")) if self._templar else None)
        if not folder:
            raise AnsibleError("credentials: no folder is given and the variable site_credentials is not set (the stack inventory plugin sets it).")
        root, dry_run = Path(folder).expanduser().absolute(), bool(values.get("ansible_check_mode"))
        try:
            found = [obtain(root, str(term), self.get_option("kind"), dry_run, decrypter(self._loader)) for term in terms]
        except SecretError as error:
            raise AnsibleError(str(error)) from None
        return [getattr(secret, self.get_option("which")) for secret in found]
