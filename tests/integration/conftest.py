# SPDX-License-Identifier: Apache-2.0
"""What tests of several parts need of a cloud: moto's server on 127.0.0.1, which plays AWS."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from moto.server import ThreadedMotoServer


@pytest.fixture(scope="session")
def moto() -> Iterator[str]:
    """The URL of AWS, as moto's server plays it."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()
