# SPDX-License-Identifier: Apache-2.0
"""Hashes of passwords are those that everybody else makes."""

from __future__ import annotations

import subprocess

import pytest
from ansible_collections.ashlar.stack.plugins.filter.sha512_crypt import FilterModule, sha512_crypt


@pytest.mark.parametrize("password", ["a", "Password123", "x" * 64, "y" * 100, "ü€"])
def test_it_is_what_openssl_makes(password: str) -> None:
    command = ["openssl", "passwd", "-6", "-salt", "rounds=1000$saltsaltsaltsalt", "-stdin"]
    made = subprocess.run(command, input=password.encode(), capture_output=True, check=True, timeout=120).stdout.decode().strip()
    assert made == FilterModule().filters()["sha512_crypt"](password, "saltsaltsaltsalt", rounds=1000)


def test_the_specifications_own_example() -> None:
    wanted = "$6$rounds=5000$toolongsaltstrin$lQ8jolhgVRVhY4b5pZKaysCLi0QBxGoNeKQzQ3glMhwllF7oGDZxUhx1yxdYcz/e1JSbq3y6JMxxl8audkUEm0"
    assert sha512_crypt("This is just a test", "toolongsaltstrin") == wanted


@pytest.mark.parametrize(("salt", "rounds"), [("", 5000), ("x" * 17, 5000), ("a$b", 5000), ("salt", 999)])
def test_what_is_not_allowed_is_said(salt: str, rounds: int) -> None:
    with pytest.raises(ValueError, match="sha512_crypt: "):
        sha512_crypt("x", salt, rounds)
