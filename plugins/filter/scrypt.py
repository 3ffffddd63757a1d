# SPDX-License-Identifier: Apache-2.0
"""The filter that hashes a password so that trying many costs memory, too."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable

DOCUMENTATION = """
name: scrypt
short_description: Hashes a password with scrypt
version_added: 1.0.0
description:
  - Returns C(scrypt$<n>$8$1$<salt>$<hash>), salt and hash in base64 for URLs without padding, as in RFC 7914.
  - The same password, salt and cost give the same text, so that a file with it does not change.
options:
  _input:
    description: The password.
    type: str
    required: true
  salt:
    description: Any text of 8 characters or more, different for each password.
    type: str
    required: true
  cost:
    description: Cost parameter N, a power of two from 1024 to 1048576; each thousand takes 1 MiB of memory and about 3 ms.
    type: int
    default: 16384
author: [The Ashlar authors]
"""

EXAMPLES = """
hash: "{{ lookup('ashlar.stack.secret', 'logins/admin', kind='password') | ashlar.stack.scrypt('some salt of its own') }}"
"""

RETURN = """
_value:
  description: The hash.
  type: str
"""


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def scrypt(password: str, salt: str, cost: int = 16384) -> str:
    """See C(DOCUMENTATION)."""
    if len(salt) < 8:
        raise ValueError("scrypt: the salt must be of 8 characters or more")
    if not 1024 <= cost <= 1 << 20 or cost & (cost - 1):
        raise ValueError(f"scrypt: cost is {cost}; allowed are powers of two from 1024 to 1048576")
    made = hashlib.scrypt(password.encode(), salt=salt.encode(), n=cost, r=8, p=1, maxmem=256 * 8 * cost, dklen=32)
    return f"scrypt${cost}$8$1${_text(salt.encode())}${_text(made)}"


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Callable[..., str]]:
        return {"scrypt": scrypt}
