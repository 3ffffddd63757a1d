# SPDX-License-Identifier: Apache-2.0
"""A site and a place for its backups, in folders."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest
from ansible_collections.ashlar.stack.plugins.plugin_utils.backup import make
from support import backups


@pytest.fixture
def stage(tmp_path: Path) -> backups.Stage:
    return backups.stage(tmp_path)


@pytest.fixture
def seconds(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Sets the clock that backups are named by."""

    def set_(text: str) -> None:
        monkeypatch.setattr(make, "now", lambda: datetime.fromisoformat(text))

    return set_
