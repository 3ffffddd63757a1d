# SPDX-License-Identifier: Apache-2.0
"""pyrage, or one clear error where it is missing: it is asked for when it is needed, not when Ansible loads the plugins."""

from __future__ import annotations

import sys
from typing import Any

from .errors import BackupError

try:
    import pyrage as _pyrage  # type: ignore[import-untyped]
except ImportError:
    _pyrage = None

pyrage: Any = _pyrage


def require() -> None:
    """:raises BackupError: this Python has no pyrage."""
    if pyrage is None:
        raise BackupError(f"Backups need the library pyrage, which {sys.executable} can't import. Install what the collection's requirements.txt names.")
