# SPDX-License-Identifier: Apache-2.0
"""Ports for the servers that tests start."""

from __future__ import annotations

import contextlib
import random
import socket

# Below those that the kernel gives to clients, which would otherwise take one between its choice and its server's start.
PORTS = range(21000, 32000)
_given: set[int] = set()
# Workers that run tests beside each other must not choose alike, whatever seeds the common generator.
_chance = random.SystemRandom()


def free_port(among: range = PORTS) -> int:
    """A port of 127.0.0.1 that nobody listens on and that this process was not given before."""
    for port in _chance.sample(among, len(among)):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            if port not in _given:
                _given.add(port)
                return port
    raise AssertionError(f"no free port from {among[0]} to {among[-1]}")
