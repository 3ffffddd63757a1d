# SPDX-License-Identifier: Apache-2.0
"""Makes the checkout importable as the collection it is."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / ".collections"))

# A shell lets what it runs in its background ignore interrupts, and what tests start would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
