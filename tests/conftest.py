# SPDX-License-Identifier: Apache-2.0
"""Makes the checkout importable as the collection it is, and what tests share."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path[:0] = [str(Path(__file__).parents[1] / ".collections"), str(Path(__file__).parent)]

# A shell lets what it runs in its background ignore interrupts, and what tests start would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(params=["0077", "0027"])
def hardened(request: pytest.FixtureRequest) -> Iterator[str]:
    """The umask that a hardened host gives its logins; what a test makes under it must not depend on it."""
    before = os.umask(int(request.param, 8))
    yield request.param
    os.umask(before)
