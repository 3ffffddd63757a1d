# SPDX-License-Identifier: Apache-2.0
"""What tests measure: told to whoever runs them, and how it is judged."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence

Tell = Callable[[str], None]
"""The fixture `tell`: says a figure, with words that explain it."""


def mostly(what: str, took: Sequence[float], seconds: float) -> str:
    """How long something took, in words; an AssertionError where it took longer than `seconds` in more than half of the cases.

    The longest cases tell about the machine that all nodes share, and have limits of their own.
    """
    parts = statistics.quantiles(took, n=100, method="inclusive")
    told = f"{what} after {parts[49]:.2f} s (median), {parts[89]:.2f} s (p90), {parts[98]:.2f} s (p99), {max(took):.2f} s (longest of {len(took)})"
    assert parts[49] <= seconds, f"{told}; {seconds:g} s is the limit of the median"
    return told
