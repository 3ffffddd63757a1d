# SPDX-License-Identifier: Apache-2.0
"""The filter that hashes a password as /etc/shadow and HAProxy's userlists have it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

DOCUMENTATION = """
name: sha512_crypt
short_description: A password's hash by SHA-512, as crypt(3) makes it
description:
  - Gives C($6$rounds=<rounds>$<salt>$<hash>). The same password, salt and rounds give the same text, so that a file that holds it does not change.
  - Needs nothing but Python, unlike M(ansible.builtin.password_hash), which needs C(passlib) for other than the usual rounds.
  - Few rounds are for passwords that were made at random; one that a person chose needs 100,000 or more.
options:
  _input:
    description: The password.
    type: str
    required: true
  salt:
    description: At most 16 characters of C(./0-9A-Za-z).
    type: str
    required: true
  rounds:
    description: How often it is hashed, from 1000 to 999999999.
    type: int
    default: 5000
author: [The Ashlar authors]
"""

EXAMPLES = """
hash: "{{ lookup('ashlar.stack.secret', 'logins/admin', kind='password') | ashlar.stack.sha512_crypt('saltsaltsalt', rounds=1000) }}"
"""

RETURN = """
_value:
  description: The hash.
  type: str
"""

ALPHABET = "./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


def sha512_crypt(password: str, salt: str, rounds: int = 5000) -> str:
    """See C(DOCUMENTATION). The steps are numbered as in Drepper's specification, https://www.akkadia.org/drepper/SHA-crypt.txt."""
    if not salt or len(salt) > 16 or set(salt) - set(ALPHABET):
        raise ValueError("sha512_crypt: the salt must be of 1 to 16 characters of ./0-9A-Za-z")
    if not 1000 <= rounds <= 999_999_999:
        raise ValueError(f"sha512_crypt: rounds is {rounds}; allowed are 1000 to 999999999")
    key, mark = password.encode(), salt.encode()

    def repeated(digest: bytes, length: int) -> bytes:
        return (digest * (length // 64 + 1))[:length]

    alternate = hashlib.sha512(key + mark + key).digest()  # 4 to 8
    first = hashlib.sha512(key + mark + repeated(alternate, len(key)))  # 1 to 3, 9, 10
    length = len(key)
    while length:  # 11
        first.update(alternate if length & 1 else key)
        length >>= 1
    digest = first.digest()
    by_key = repeated(hashlib.sha512(key * len(key)).digest(), len(key))  # 13 to 16
    by_salt = repeated(hashlib.sha512(mark * (16 + digest[0])).digest(), len(mark))  # 17 to 20
    for number in range(rounds):  # 21
        step = by_key if number & 1 else digest
        step += by_salt if number % 3 else b""
        step += by_key if number % 7 else b""
        digest = hashlib.sha512(step + (digest if number & 1 else by_key)).digest()
    text = ""
    for number in range(21):  # 22
        a, b, c = (digest[(number * 22 + offset * 21) % 63] for offset in range(3))
        word = a << 16 | b << 8 | c
        for _ in range(4):
            text += ALPHABET[word & 63]
            word >>= 6
    text += ALPHABET[digest[63] & 63] + ALPHABET[digest[63] >> 6]
    return f"$6$rounds={rounds}${salt}${text}"


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Callable[..., str]]:
        return {"sha512_crypt": sha512_crypt}
