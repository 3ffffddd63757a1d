# SPDX-License-Identifier: Apache-2.0
"""The file in which a site remembers what it has installed."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible.errors import AnsibleError
from ansible_collections.ashlar.stack.plugins.action.record import ActionModule

INSTALLED = {"release": "1.0", "versions": {"etcd": "3.7.3"}}


def record(directory: Path, installed: dict[str, Any] = INSTALLED, check: bool = False) -> dict[str, Any]:
    task = SimpleNamespace(args={"file": str(directory / "installed.json"), "content": installed}, check_mode=check)
    return ActionModule(task, None, None, None, None, None).act({})


def test_a_second_run_changes_nothing(tmp_path: Path) -> None:
    directory = tmp_path / "state"
    umask = os.umask(0o077)
    try:
        first = record(directory)
    finally:
        os.umask(umask)
    path = directory / "installed.json"
    assert first["changed"] and json.loads(path.read_text()) == INSTALLED
    assert (directory.stat().st_mode & 0o777, path.stat().st_mode & 0o777) == (0o755, 0o644)
    assert record(directory) == {"changed": False}
    assert [entry.name for entry in directory.iterdir()] == ["installed.json"]


def test_check_mode_shows_the_change_and_writes_nothing(tmp_path: Path) -> None:
    record(tmp_path)
    told = record(tmp_path, {**INSTALLED, "release": "1.1"}, check=True)
    assert told["changed"] and '"1.0"' in told["diff"]["before"] and '"1.1"' in told["diff"]["after"]
    assert json.loads((tmp_path / "installed.json").read_text()) == INSTALLED


def test_a_folder_that_cannot_be_written_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file")
    with pytest.raises(AnsibleError, match="must be writable by the user who runs Ansible"):
        record(tmp_path / "state")
