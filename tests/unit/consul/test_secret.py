# SPDX-License-Identifier: Apache-2.0
"""Secrets of a site are made once, are closed to others, and are never guessed."""

from __future__ import annotations

import base64
import struct
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from ansible_collections.ashlar.stack.plugins.plugin_utils import secrets
from ansible_collections.ashlar.stack.plugins.plugin_utils.secrets import SecretError


def obtain(root: Path, name: str, kind: str, dry_run: bool, decrypt: Callable[[bytes], bytes] = bytes) -> str:
    return secrets.obtain(root, name, kind, dry_run, decrypt).current


def test_a_secret_is_made_once_and_closed(tmp_path: Path) -> None:
    root = tmp_path / "credentials"
    first = obtain(root, "consul/tokens/edge", "uuid", False)
    assert uuid.UUID(first).version == 4
    assert obtain(root, "consul/tokens/edge", "uuid", False) == first
    assert obtain(root, "consul/tokens/sync", "uuid", False) != first
    assert (root / "consul/tokens/edge").stat().st_mode & 0o777 == 0o600
    for folder in (root, root / "consul", root / "consul/tokens"):
        assert folder.stat().st_mode & 0o777 == 0o700, folder
    assert not [path for path in root.rglob(".*") if path.name != ".secrets.lock"]


def test_who_asks_at_the_same_time_gets_the_same(tmp_path: Path) -> None:
    with ThreadPoolExecutor(16) as pool:
        assert len(set(pool.map(lambda _: obtain(tmp_path, "a/b", "uuid", False), range(64)))) == 1


def test_kinds(tmp_path: Path) -> None:
    assert len(base64.b64decode(obtain(tmp_path, "gossip", "key32", False))) == 32
    assert len(obtain(tmp_path, "word", "password", False)) == 32


def test_a_key_of_ceph_is_complete_and_its_file_has_the_secret_alone(tmp_path: Path) -> None:
    key = obtain(tmp_path, "ceph/admin", "ceph", False)
    kind, created, nanoseconds, length = struct.unpack("<HIIH", base64.b64decode(key)[:12])
    assert (kind, created, nanoseconds, length) == (1, 0, 0, 16) and len(base64.b64decode(key)) == 28
    (tmp_path / "ceph/admin").write_text("c2VjcmV0IG9mIGEgc2l0ZQ==\nnext bmV4dCBvbmUgb2YgaXQhIQ==\n")
    found = secrets.obtain(tmp_path, "ceph/admin", "ceph", False)
    assert found.accepted == ["AQAAAAAAAAAAABAAc2VjcmV0IG9mIGEgc2l0ZQ==", "AQAAAAAAAAAAABAAbmV4dCBvbmUgb2YgaXQhIQ=="]
    assert found.previous == ""


def test_check_mode_writes_nothing(tmp_path: Path) -> None:
    for kind in secrets.MAKERS:
        found = {name: obtain(tmp_path, name, kind, True) for name in ("a/b", "a/c")}
        assert len(set(found.values())) == 2, "what needs a secret of its own has one"
        assert found["a/b"] == obtain(tmp_path, "a/b", kind, True)
    uuid.UUID(obtain(tmp_path, "a/b", "uuid", True))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["../out", "/etc/passwd", "a//b", "a/../b", "", ".hidden"])
def test_names_lead_nowhere_else(tmp_path: Path, name: str) -> None:
    with pytest.raises(SecretError, match="allowed are words"):
        obtain(tmp_path, name, "uuid", False)


def test_an_empty_file_is_an_error_and_not_a_secret(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("\n")
    with pytest.raises(SecretError, match="is empty"):
        obtain(tmp_path, "a", "uuid", False)


def test_an_encrypted_file_is_opened(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"$ANSIBLE_VAULT;1.1\nxyz")
    assert obtain(tmp_path, "a", "uuid", False, decrypt=lambda data: b"opened\n") == "opened"
