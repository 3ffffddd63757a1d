# SPDX-License-Identifier: Apache-2.0
"""The fixtures of the edge's tests; what they share has a name of its own, since several folders have a conftest."""

from __future__ import annotations

from edge_support import haproxy, home, pki, settings, write

__all__ = ["haproxy", "home", "pki", "settings", "write"]
