# SPDX-License-Identifier: Apache-2.0
"""A real HAProxy on loopback that follows a catalogue: nothing is lost, whatever changes."""

from __future__ import annotations

import asyncio
import http.client
import json
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ashlar_edge import runtime
from ashlar_edge.apply import Edge, Outcome
from ashlar_edge.model import EdgeError, Settings
from conformance.support.load import UNPROVED, Connection, Load
from edge_live import Instance, Live
from edge_support import Entry, base, entry, pair
from support.ports import free_port

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

    def instance(self, certificate: Path | None = None) -> Instance:
        self.instances.append(Instance(certificate))
        return self.instances[-1]

    def hello(self, instances: list[Instance], **meta: Any) -> list[Entry]:
        return [entry("hello", one.port, "127.0.0.1", **{"route_host": HOST, **meta}) for one in instances]

    def ask(self, path: str = "/", host: str = HOST, **options: Any) -> Any:
        async def once() -> Any:
            connection = Connection(self.https, host)
            try:
                return await asyncio.wait_for(connection.ask(path, **options), 60)
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
            others = [
                entry(
                    f"other{number % 7}",
                    9,
                    route_host=f"o{number}.example.com,*.w{number % 3}.example.com",
                    route_path="/" + "x" * (number % 5),
                )
            ]
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


def test_a_killed_instance_is_left(site: Site) -> None:
    first, second = site.instance(), site.instance()
    site.start(*site.hello([first, second]))
    first.end(signal.SIGKILL)
    killed = time.monotonic()
    answers = [site.ask() for _ in range(20)]
    assert {answer.status for answer in answers} == {200}
    while "DOWN" not in runtime.ask(site.settings.admin_socket, "show stat"):  # A second after it, where nothing else runs.
        assert time.monotonic() - killed < 120
        time.sleep(0.05)


def test_most_instances_die_at_once_and_nobody_is_told(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    """Before the catalogue knows: requests find those that are left by themselves."""
    pool = [site.instance() for _ in range(10)]
    site.start(*site.hello(pool))

    async def run() -> Load:
        load, done = Load(site.https, HOST, 200), asyncio.Event()
        task = asyncio.create_task(load.run(60, done))
        await asyncio.sleep(2)
        for instance in pool[2:]:
            instance.process.kill()
        await asyncio.sleep(3)
        done.set()
        await task
        return load

    load = asyncio.run(run())
    with capsys.disabled():
        print(f"\neight of ten killed: {load.text()}")
    assert load.failures == []


def test_what_a_client_meets(site: Site) -> None:
    """One start of HAProxy, many questions."""
    web, api, admin = site.instance(), site.instance(), site.instance()
    everything = [
        *site.hello([web]),
        *[entry("api", api.port, "127.0.0.1", route_host=HOST, route_path="/api")],
        *[entry("admin", admin.port, "127.0.0.1", route_host=HOST, route_path="/admin", route_login="true")],
        *[entry("wild", api.port, "127.0.0.1", route_host="*.wild.example.com")],
        *[entry("slow", api.port, "127.0.0.1", route_host="slow.example.com", route_rate="1")],
        *[entry("empty", 9, "127.0.0.1", "critical", route_host="empty.example.com")],
        *[entry("bad", 9, "127.0.0.1", route_host="no name")],
    ]
    site.start(*everything)

    def port(path: str = "/", host: str = HOST, **options: Any) -> int:
        answer = site.ask(path, host, **options)
        assert answer.status == 200, f"{host}{path}: {answer.status}"
        return int(answer.body.split()[0])

    assert port("/") == port("/other") == port("/apis") == web.port, "/api is no prefix of /apis"
    assert port("/api") == port("/api/") == port("/api/x?y=/admin") == port("/%61pi") == port("//api") == api.port, "the longest path wins"
    assert port("/", "HELLO.example.com") == port("/", HOST + ":443") == port("/", HOST + ".") == web.port
    assert port("/", "a.wild.example.com") == api.port

    assert site.ask("/", "a.b.wild.example.com").status == 404, "a wildcard is one label"
    assert site.ask("/", "unknown.example.com").status == 404
    empty = site.ask("/", "empty.example.com")
    assert empty.status == 503 and b"Not available" in empty.body and len(empty.body) < 1000

    for path in ("/admin", "/admin/", "//admin", "/%61dmin", "/admin/x", "/x/%2e%2e/admin", "/x/../admin", "/./admin", "/x/..%2fadmin"):
        assert site.ask(path).status in (400, 401), f"{path} passes without a login"
    statuses = [site.ask("/", "slow.example.com").status for _ in range(12)]
    assert statuses[0] == 200 and statuses[-1] == 429

    seen = site.ask(
        "/headers",
        headers={"X-Forwarded-For": "6.6.6.6", "X-Forwarded-Proto": "gopher", "X-Real-IP": "6.6.6.6", "Forwarded": "for=6.6.6.6"},
    )
    body = seen.body.decode().lower()
    assert "x-forwarded-proto: https" in body and "x-forwarded-for: 127.0.0.1" in body and "x-request-id: " in body
    assert seen.headers["strict-transport-security"] == "max-age=31536000"

    async def plain(host: str) -> Any:
        return await Connection(site.http, host, tls=False).ask("/x?y=1")

    redirect = asyncio.run(plain(HOST))
    assert (redirect.status, redirect.headers["location"]) == (308, f"https://{HOST}/x?y=1")
    assert asyncio.run(plain("unknown.example.com")).status == 404


def test_the_sites_own_services_are_asked_when_they_prove_themselves(site: Site, tmp_path: Path) -> None:
    """By its certificate for the host: one of another name, or of another authority, gets no request."""
    pair(tmp_path / "portal", "portal.example.com")
    pair(tmp_path / "other", "other.example.com")
    pair(tmp_path / "stranger", "portal.example.com")
    trusted = tmp_path / "site.crt"
    trusted.write_text((tmp_path / "portal.crt").read_text() + (tmp_path / "other.crt").read_text())
    site.settings = replace(site.settings, host_services=("portal",), site_authority=str(trusted), check_interval_ms=100)
    ports = {name: site.instance(tmp_path / name).port for name in ("portal", "other", "stranger")}

    def asked(service: str, name: str, host: str = "portal.example.com") -> Any:
        site.apply(entry(service, ports[name], "127.0.0.1", route_host=host, route_protocol="https"))
        return site.ask("/", host)

    site.start()
    assert asked("portal", "portal").body.split() == [str(ports["portal"]).encode()]
    assert asked("portal", "other").status == 503
    assert asked("portal", "stranger").status == 503
    assert asked("somebody", "stranger", "else.example.com").status == 200, "nothing is known of what others show"


def test_who_tries_passwords_is_stopped_and_nobody_else(site: Site) -> None:
    import base64

    admin = site.instance()
    site.settings = replace(site.settings, wrong_logins=5)
    site.start(*site.hello([admin], route_login="true"), entry("open", admin.port, "127.0.0.1", route_host="open.example.com"))

    def login(password: str) -> Any:
        return site.ask(headers={"Authorization": f"Basic {base64.b64encode(f'admin:{password}'.encode()).decode()}"})

    assert [site.ask().status for _ in range(20)] == [401] * 20, "to ask without a password is no try"
    assert [login("secretsecretsecret").status for _ in range(20)] == [200] * 20
    assert [login(f"guess {number}").status for number in range(5)] == [401] * 5
    stopped = login("guess")
    assert (stopped.status, stopped.headers["retry-after"]) == (429, "60")
    assert login("secretsecretsecret").status == 429, "else the answer would tell the right password"
    assert site.ask("/", "open.example.com").status == 200


def test_headers_of_strangers_are_not_believed_and_those_of_a_proxy_are(site: Site) -> None:
    site.start(*site.hello([site.instance()]))
    lies = ["X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Port", "X-Forwarded-Prefix", "X-Real-IP", "X-Request-ID", "Proxy", "X-SSL-Client-CN"]
    said = {**dict.fromkeys(lies, "6.6.6.6"), "Forwarded": "for=6.6.6.6"}
    assert "6.6.6.6" not in site.ask("/headers", headers=said).body.decode()
    path = Path(site.settings.base)
    path.write_text(path.read_text().replace("acl trusted always_false", "acl trusted src 127.0.0.0/8"))
    assert site.apply(*site.hello(site.instances)).how == "reload"
    assert "x-forwarded-for: 6.6.6.6" in site.ask("/headers", headers=said).body.decode().lower()


def test_names_come_and_go_without_a_reload(site: Site) -> None:
    instance = site.instance()
    site.start(*site.hello([instance]))
    assert site.ask("/", "new.example.com").status == 404
    assert site.apply(*site.hello([instance], route_host=f"{HOST},new.example.com,*.w.example.com")).how == "commands"
    assert site.ask("/", "new.example.com").status == site.ask("/", "a.w.example.com").status == 200
    assert site.apply(*site.hello([instance])).how == "commands"
    assert site.ask("/", "new.example.com").status == 404
    assert site.apply(*site.hello([instance])).how == "unchanged"


def test_a_started_haproxy_has_what_commands_had_changed(site: Site) -> None:
    first, second = site.instance(), site.instance()
    site.start(*site.hello([first]))
    assert site.apply(*site.hello([second], route_host="new.example.com")).how == "commands"
    assert site.live is not None
    site.live.end()
    site.live = Live(site.settings, site.home)
    assert int(site.ask("/", "new.example.com").body.split()[0]) == second.port
    assert site.apply(*site.hello([second], route_host="new.example.com")).how == "unchanged"


def test_tcp_by_port(site: Site) -> None:
    instance, port = site.instance(), free_port(range(20000, 21000))
    site.start(*site.hello([instance]))
    assert site.apply(entry("raw", instance.port, "127.0.0.1", route_tcp_port=str(port))).how == "reload"

    async def raw() -> Any:
        return await Connection(port, "raw", tls=False).ask()

    assert asyncio.run(raw()).status == 200
    assert site.apply(entry("raw", instance.port, "127.0.0.1", route_tcp_port=str(port))).how == "unchanged", (
        "its own port is not in use by another"
    )


def test_a_reload_that_fails_leaves_everything_as_it_was(site: Site) -> None:
    instance, port = site.instance(), free_port(range(20000, 21000))
    site.start(*site.hello([instance]))
    with socket.create_server(("127.0.0.1", port)):
        hidden = replace(site.settings)
        listening, runtime.listening = runtime.listening, lambda: frozenset()
        try:
            with pytest.raises(EdgeError, match="keeps what it has"):
                Edge(hidden, site.write(*site.hello([instance]), entry("raw", 9, route_tcp_port=str(port)))).apply()
        finally:
            runtime.listening = listening
        assert site.ask().status == 200
        assert site.apply(*site.hello([instance]), entry("raw", 9, route_tcp_port=str(port))).refusals[0].service == "raw"
    assert site.ask().status == 200


def test_certificates_change_under_load(site: Site, home: Path) -> None:
    instance = site.instance()
    site.start(*site.hello([instance]))

    def shown(name: str) -> bytes:
        with (
            socket.create_connection(("127.0.0.1", site.https), 5) as plain,
            UNPROVED.wrap_socket(plain, server_hostname=name) as connection,
        ):
            return connection.getpeercert(binary_form=True) or b""

    default = shown(HOST)

    async def run() -> Load:
        load = Load(site.https, HOST, 50)
        done = asyncio.Event()
        task = asyncio.create_task(load.run(60, done))
        for number in range(5):
            pair(home / "own", HOST)
            pem = {"certificate": (home / "own.crt").read_text(), "key": (home / "own.key").read_text()}
            Path(site.settings.certificates).write_text(
                json.dumps([{"hosts": [HOST], **pem}, {"hosts": ["broken.example.com"], "certificate": str(number), "key": ""}])
            )
            await asyncio.get_running_loop().run_in_executor(None, lambda: site.apply(*site.hello([instance])))
        done.set()
        await task
        return load

    assert asyncio.run(run()).failures == []
    assert shown(HOST) == ssl.PEM_cert_to_DER_cert((home / "own.crt").read_text())
    assert shown("other.example.com") == default


def test_old_protocols_are_refused_and_http2_is_offered(site: Site) -> None:
    site.start(*site.hello([site.instance()]))

    def shake(options: list[str]) -> str:
        command = ["openssl", "s_client", "-connect", f"127.0.0.1:{site.https}", "-servername", HOST, *options]
        return subprocess.run(command, input="", capture_output=True, text=True, timeout=120, check=False).stdout

    assert "ALPN protocol: h2" in shake(["-alpn", "h2,http/1.1"])
    assert "Cipher is (NONE)" in shake(["-tls1_1", "-cipher", "ALL:@SECLEVEL=0"])
    assert "TLSv1.2" in shake(["-tls1_2"]) and "TLSv1.3" in shake(["-tls1_3"])


def test_statistics_are_for_whose_certificate_has_a_name_that_may(site: Site, pki: Path) -> None:
    site.start(*site.hello([site.instance()]))
    text = Path(f"{site.settings.home}/live/haproxy.cfg").read_text()
    operator = int(text.partition("frontend operator")[2].partition("bind 127.0.0.1:")[2].split()[0])

    def ask(path: str, client: str = "") -> tuple[int, str]:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        if client:
            context.load_cert_chain(f"{pki}/{client}.crt", f"{pki}/{client}.key")
        connection = http.client.HTTPSConnection("127.0.0.1", operator, timeout=120, context=context)
        try:
            connection.request("GET", path)
            reply = connection.getresponse()
            return reply.status, reply.read().decode()
        finally:
            connection.close()

    for path, shown in {"/health": "well", "/metrics": "haproxy_backend_http_responses_total", "/": "Statistics Report"}.items():
        with pytest.raises(OSError):
            ask(path)
        status, body = ask(path, "haproxy-probe")
        assert status == 200 and shown in body
        status, body = ask(path, "portal")
        assert status == 403 and shown not in body, f"{path} is shown to another client of the same CA"


def test_many_changes_in_a_burst_are_few_reloads(site: Site) -> None:
    site.start(*site.hello([site.instance()]))
    site.settings = replace(site.settings, reload_interval_ms=1500)
    path = site.write(*site.hello([]))
    Edge(site.settings, path).apply()
    start = time.monotonic()
    reloads = 0
    while time.monotonic() - start < 4:
        Path(path).write_text(json.dumps({"services": [entry(f"s{time.monotonic_ns()}", route_host="a.example.com")]}))
        reloads += Edge(site.settings, path).apply().how == "reload"
    assert reloads <= (time.monotonic() - start) / 1.5 + 2
