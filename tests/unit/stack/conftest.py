# SPDX-License-Identifier: Apache-2.0
"""The small collection that sites are planned with."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from sites import write_collection


@pytest.fixture(scope="session")
def collection(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its folder; not to be written to."""
    return write_collection(tmp_path_factory.mktemp("collection"))
