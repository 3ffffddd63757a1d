# SPDX-License-Identifier: Apache-2.0
"""A real HAProxy on loopback that follows a catalogue: nothing is lost, whatever changes."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ashlar_edge.apply import Edge, Outcome
from ashlar_edge.model import Settings

from .conftest import Entry, base, entry
from .live import Connection, Instance, Live, Load, free_port

HOST = "hello.example.com"


class Site:
    """An edge, its HAProxy, and what the catalogue says."""

    def __init__(self, settings: Settings, home: Path, write: Callable[..., str], http: int, https: int) -> None:
        self.settings, self.home, self.write, self.http, self.https = settings, home, write, http, https
        self.instances: list[Instance] = []
        self.outcomes: list[str] = []
        self.live: Live | None = None

    def start(self, *entries: Entry) -> None:
        self.apply(*entries)
        self.live = Live(self.settings, self.home)

    def apply(self, *entries: Entry) -> Outcome:
        outcome = Edge(self.settings, self.write(*entries)).apply()
        self.outcomes.append(outcome.how)
        return outcome

    def instance(self) -> Instance:
        self.instances.append(Instance())
        return self.instances[-1]

    def hello(self, instances: list[Instance], **meta: Any) -> list[Entry]:
        return [entry("hello", one.port, "127.0.0.1", **{"route_host": HOST, **meta}) for one in instances]

    def ask(self, path: str = "/", host: str = HOST, **options: Any) -> Any:
        async def once() -> Any:
            connection = Connection(self.https, host)
            try:
                return await asyncio.wait_for(connection.ask(path, **options), 10)
            finally:
                connection.close()

        return asyncio.run(once())

    def end(self) -> None:
        for instance in self.instances:
            if instance.process.poll() is None:
                instance.end(signal.SIGKILL)
        if self.live:
            self.live.end()


@pytest.fixture
def site(settings: Settings, home: Path, haproxy: str, pki: Path, write: Callable[..., str]) -> Iterator[Site]:
    http, https, operator = free_port(), free_port(), free_port()
    ports = {"haproxy_http_port": http, "haproxy_https_port": https, "haproxy_operator_port": operator}
    Path(settings.base).write_text(base(home, haproxy, pki, haproxy_bind_addresses=["127.0.0.1"], **ports))
    made = Site(replace(settings, bind=("127.0.0.1",), reload_interval_ms=100), home, write, http, https)
    yield made
    made.end()


def test_load_survives_scaling_kills_and_fifty_changes(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    """200 requests a second, none of which is lost."""
    pool = [site.instance() for _ in range(10)]
    site.start(*site.hello(pool[:3]))

    async def run() -> tuple[Load, Load]:
        through, straight = Load(site.https, HOST, 200), Load(pool[0].port, HOST, 200, tls=False)
        await straight.run(3)
        done = asyncio.Event()
        load = asyncio.create_task(through.run(240, done))
        loop = asyncio.get_running_loop()

        async def apply(*entries: Entry) -> None:
            await loop.run_in_executor(None, lambda: site.apply(*entries))

        await asyncio.sleep(1)
        await apply(*site.hello(pool))
        await asyncio.sleep(1)
        pool[5].end(signal.SIGKILL)
        await asyncio.sleep(2)
        await apply(*site.hello(pool[:2]))
        await asyncio.sleep(1)
        for instance in pool[2:5] + pool[6:]:
            await loop.run_in_executor(None, instance.end)
        for number in range(50):
            others = [entry(f"other{number % 7}", 9, route_host=f"o{number}.example.com,*.w{number % 3}.example.com", route_path="/" + "x" * (number % 5))]
            await apply(*site.hello(pool[:2], route_login="false" if number % 2 else "False", route_rate=str(5000 + number % 4)), *others)
        done.set()
        await load
        return through, straight

    through, straight = asyncio.run(run())
    with capsys.disabled():
        counts = {how: site.outcomes.count(how) for how in sorted(set(site.outcomes))}
        print(f"\nthrough the edge: {through.text()}; straight: {straight.text()}; changes: {counts}")
    assert through.failures == []
    assert len(through.answered) == 10, "every instance was asked"
    assert site.outcomes[1] == "commands" and site.outcomes[2] == "commands", "instances come and go without a reload"
    assert site.outcomes.count("reload") >= 10


def test_a_killed_instance_is_left_within_three_seconds(site: Site) -> None:
    first, second = site.instance(), site.instance()
    site.start(*site.hello([first, second]))
    first.end(signal.SIGKILL)
    killed = time.monotonic()
    answers = [site.ask() for _ in range(20)]
    assert {answer.status for answer in answers} == {200}
    from ashlar_edge import runtime

    while "DOWN" not in runtime.ask(site.settings.admin_socket, "show stat"):
        assert time.monotonic() - killed < 3
        time.sleep(0.05)
