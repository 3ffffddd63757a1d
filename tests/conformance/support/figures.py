# SPDX-License-Identifier: Apache-2.0
"""What tests measure: told to whoever runs them. How fast a machine is decides no test; `make bench` shows what was wanted beside what was measured."""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable, Sequence

Tell = Callable[[str], None]
"""The fixture `tell`: says a figure, with words that explain it."""


def brief() -> bool:
    """Whether only what every change has to pass is asked for: that things work, not how fast they are."""
    return os.environ.get("ASHLAR_CONFORMANCE") == "brief"


def judged(what: str, seconds: float, limit: float) -> str:
    """How long something took and should have taken at most, in words."""
    return f"{what}: {seconds:.1f} s ({'kept' if seconds <= limit else 'MISSED'}: {limit:g} s)"


def mostly(what: str, took: Sequence[float], limit: float) -> str:
    """The same of something that was measured often; its median is judged, as the longest cases tell about the machine that all nodes share."""
    parts = statistics.quantiles(took, n=100, method="inclusive") if len(took) > 1 else list(took) * 99
    return judged(f"{what}: p90 {parts[89]:.2f} s, p99 {parts[98]:.2f} s, longest of {len(took)} {max(took):.2f} s; median", parts[49], limit)
