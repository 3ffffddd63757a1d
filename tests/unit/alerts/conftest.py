# SPDX-License-Identifier: Apache-2.0
"""promtool, which judges rules and queries."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from support.promtool import promtool as promtool  # noqa: E402
