# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Callable

from ashlar_edge.apply import Edge
from ashlar_edge.model import Settings

from .conftest import entry


def test_x(settings: Settings, write: Callable[..., str]) -> None:
    out = Edge(settings, write(entry(route_host="hello.example.com", route_login="true", route_rate="5"), entry("tcp", route_tcp_port="20001"))).apply()
    assert out.how == "files"
