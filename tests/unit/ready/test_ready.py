# SPDX-License-Identifier: Apache-2.0
"""Health checks: what is good, what is told when it is not, and how long is waited."""

from __future__ import annotations

import datetime
import http.server
import ipaddress
import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.ashlar.stack.plugins.module_utils.health import checks as health
from ansible_collections.ashlar.stack.plugins.module_utils.health import log as health_log
from ansible_collections.ashlar.stack.plugins.module_utils.health.checks import (
    HealthError,
    Prober,
    Watch,
    judge_unit,
    make_check,
    message,
    parse_units,
    tell,
)
from ansible_collections.ashlar.stack.plugins.module_utils.health.log import level_of, parse_journal, shown
from ansible_collections.ashlar.stack.plugins.module_utils.host.run import Completed
from ansible_collections.ashlar.stack.plugins.modules import ready as module
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from support.ports import free_port

LONG_AGO = "1000000"


def journal(messages: Sequence[str], **fields: str) -> str:
    """As journalctl prints these messages; those that systemd writes itself begin with `systemd: `."""
    lines = []
    now = str(int(time.time() * 1e6))
    for text in messages:
        system = text.startswith("systemd: ")
        entry = {"MESSAGE": text.removeprefix("systemd: "), "PRIORITY": "4" if system else "6", "__REALTIME_TIMESTAMP": now}
        lines.append(json.dumps({**entry, "SYSLOG_IDENTIFIER": "systemd" if system else "program", **fields}))
    return "\n".join(lines) + "\n"


class Runner:
    """Answers commands by their first words; systemctl from `units`: name -> properties."""

    def __init__(self, **units: dict[str, str]) -> None:
        self.units = {name.replace("_", ".") if "." not in name else name: values for name, values in units.items()}
        self.commands: dict[str, Callable[[], Completed]] = {}
        self.logs: dict[str, list[str]] = {}
        self.log = ["level=info msg=starting", "level=error password=hunter2"]
        self.calls: list[str] = []

    def finds(self, program: str) -> bool:
        return True

    def run(self, command: Sequence[str], limit: float = 0) -> Completed:
        self.calls.append(" ".join(command))
        if command[0] == "systemctl":
            names = list(command)[command.index("--") + 1 :]
            return Completed(0, "\n".join("".join(f"{key}={value}\n" for key, value in self.properties(name).items()) for name in names))
        if command[0] == "journalctl":
            return Completed(0, journal(self.logs.get(command[2], self.log)))
        return self.commands[command[0]]()

    def properties(self, name: str) -> dict[str, str]:
        values = {"LoadState": "loaded", "ActiveState": "active", "SubState": "running", "Result": "success", "NRestarts": "0"}
        values |= {"ActiveEnterTimestampMonotonic": LONG_AGO, "Type": "simple", "RemainAfterExit": "no", "ExecMainStatus": "0"}
        return (
            values | self.units[name] if name in self.units else {"LoadState": "not-found", "ActiveState": "inactive", "SubState": "dead"}
        )


def watch(runner: Runner, *checks: dict[str, Any], pki: str = "/nowhere") -> Watch:
    return Watch([make_check(values) for values in checks], Prober(runner, pki))


def seen(runner: Runner, check: dict[str, Any], pki: str = "/nowhere") -> tuple[bool, str]:
    outcome = watch(runner, check, pki=pki).once()[0]
    return outcome.ready, outcome.seen


# ---- a little PKI and servers


NAMES = [x509.IPAddress(ipaddress.ip_address("127.0.0.1")), x509.DNSName("app.example")]


class Pki:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authorities: dict[str, tuple[ec.EllipticCurvePrivateKey, x509.Certificate]] = {}
        for name in ("site", "other"):
            self.authorities[name] = self._sign(name, None, folder / "ca" / name)
        self._sign("server", "site", folder / "app" / "server")
        self._sign("client", "other", folder / "app" / "stranger")

    def _sign(self, name: str, by: str | None, path: Path) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        signer, issuer = (self.authorities[by][0], self.authorities[by][1].subject) if by else (key, subject)
        now = datetime.datetime.now(datetime.UTC)
        builder = x509.CertificateBuilder(issuer, subject, key.public_key(), x509.random_serial_number())
        builder = builder.not_valid_before(now - datetime.timedelta(days=1)).not_valid_after(now + datetime.timedelta(days=1))
        builder = builder.add_extension(x509.BasicConstraints(ca=by is None, path_length=None), critical=True)
        builder = builder.add_extension(x509.SubjectAlternativeName(NAMES), critical=False)
        builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        builder = builder.add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
        if by is None:
            usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
            builder = builder.add_extension(usage, critical=True)
        certificate = builder.sign(signer, hashes.SHA256())
        path.parent.mkdir(parents=True, exist_ok=True)
        path.with_suffix(".crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        plain = serialization.NoEncryption()
        path.with_suffix(".key").write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain))
        return key, certificate


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        status, body = self.server.answers.get(self.path, (404, "not here"))  # type: ignore[attr-defined]
        self.send_response(status)
        self.send_header("Location", "/good")
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *arguments: Any) -> None:
        pass


ANSWERS = {"/good": (200, '{"health":"true"}'), "/moved": (302, ""), "/ill": (503, "token=geheim123 etcd failed"), "/teapot": (418, "tea")}


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return Pki(tmp_path_factory.mktemp("pki"))


def serve(context: ssl.SSLContext | None) -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.answers = ANSWERS  # type: ignore[attr-defined]
    if context:
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield f"{'https' if context else 'http'}://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def plain() -> Iterator[str]:
    yield from serve(None)


@pytest.fixture
def mutual(pki: Pki) -> Iterator[str]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pki.folder / "app/server.crt", pki.folder / "app/server.key")
    context.load_verify_locations(pki.folder / "ca/site.crt")
    context.verify_mode = ssl.CERT_REQUIRED
    yield from serve(context)


# ---- what one look gives


def test_a_url_is_good_by_its_status_and_what_it_contains(plain: str):
    runner = Runner()
    assert seen(runner, {"url": plain + "/good"}) == (True, "HTTP 200")
    assert seen(runner, {"url": plain + "/good", "contains": '"health":"true"'})[0]
    assert seen(runner, {"url": plain + "/teapot", "status": [200, 418]})[0]
    assert seen(runner, {"url": plain + "/good", "contains": "absent"}) == (False, 'HTTP 200 without \'absent\': {"health":"true"}')
    assert seen(runner, {"url": plain + "/moved"})[1].startswith("HTTP 302 instead of 200")
    ready, text = seen(runner, {"url": plain + "/ill"})
    assert not ready
    assert text.startswith("HTTP 503 instead of 200: token=(hidden)")


def test_proxies_are_not_used(plain: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{free_port()}")
    assert seen(Runner(), {"url": plain + "/good"})[0]


def test_a_url_with_an_authority_and_a_client_certificate(mutual: str, pki: Pki):
    runner, folder = Runner(), str(pki.folder)
    good = {"url": mutual + "/good", "authority": "site", "certificate": "app/server"}
    assert seen(runner, good, folder) == (True, "HTTP 200")
    ready, text = seen(runner, {**good, "authority": "other"}, folder)
    assert not ready
    assert "its certificate is not accepted" in text
    assert not seen(runner, {**good, "certificate": "app/stranger"}, folder)[0]
    assert not seen(runner, {"url": mutual + "/good", "authority": "site"}, folder)[0]
    assert not seen(runner, {"url": mutual + "/good"}, folder)[0]


def test_a_url_may_be_asked_at_another_address_than_its_name_resolves_to(plain: str, mutual: str, pki: Pki):
    runner, folder = Runner(), str(pki.folder)
    assert seen(runner, {"url": "http://nowhere.invalid/good", "connect": plain.removeprefix("http://")}) == (True, "HTTP 200")
    check = {"url": "https://app.example/good", "connect": mutual.removeprefix("https://"), "authority": "site", "certificate": "app/server"}
    assert seen(runner, check, folder) == (True, "HTTP 200")
    ready, text = seen(runner, {**check, "url": "https://stranger.invalid/good"}, folder)
    assert not ready
    assert "its certificate is not accepted" in text
    assert not seen(runner, {"url": "http://nowhere.invalid/", "connect": f"127.0.0.1:{free_port()}"})[0]


def test_a_certificate_that_is_not_there_yet_is_named(mutual: str, pki: Pki):
    check = {"url": mutual, "authority": "site", "certificate": "app/missing"}
    assert seen(Runner(), check, str(pki.folder)) == (False, f"{pki.folder}/app/missing.crt is not there")


def test_tcp():
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert seen(Runner(), {"tcp": f"127.0.0.1:{server.getsockname()[1]}"}) == (True, "accepts connections")
    assert seen(Runner(), {"tcp": f"127.0.0.1:{free_port()}"}) == (False, "connection refused")


def test_commands():
    runner = Runner()
    runner.commands = {"good": lambda: Completed(0, "all ok"), "bad": lambda: Completed(3, err="broken"), "mute": lambda: Completed(1)}
    assert seen(runner, {"command": ["good"], "contains": "ok"})[0]
    assert seen(runner, {"command": ["good"], "contains": "no"}) == (False, "exit code 0 without 'no': all ok")
    assert seen(runner, {"command": ["bad"]}) == (False, "exit code 3: broken")
    assert seen(runner, {"command": ["mute"]}) == (False, "exit code 1: it said nothing")
    runner.commands = {"list": lambda: Completed(1, "first\n\nsecond\n"), "long": lambda: Completed(1, "line\n" * 100)}
    assert seen(runner, {"command": ["list"]}) == (False, "exit code 1:\n    first\n    second")
    assert seen(runner, {"command": ["long"]})[1].splitlines()[1:] == ["    line"] * 20 + ["    ..."]


@pytest.mark.parametrize(
    ("properties", "ready", "final", "text"),
    [
        ({}, True, False, "a.service is active (running)"),
        ({"ActiveState": "activating", "SubState": "auto-restart", "Result": "exit-code", "ExecMainStatus": "2", "NRestarts": "7"}, False, False,
         "a.service is activating (auto-restart), it ended with exit-code 2, restarted 7 times"),
        ({"ActiveState": "inactive", "SubState": "dead"}, False, False, "a.service is inactive (dead)"),
        ({"LoadState": "not-found", "ActiveState": "inactive"}, False, True, "a.service does not exist on this host"),
        ({"LoadState": "masked", "ActiveState": "inactive"}, False, True, "a.service is masked"),
        ({"Type": "oneshot", "ActiveState": "inactive", "SubState": "dead"}, True, False, "inactive"),
        ({"Type": "oneshot", "ActiveState": "inactive", "SubState": "dead", "Job": "17"}, False, False, "a job of systemd for it is waiting"),
        ({"Job": "17"}, False, False, "a job of systemd for it is waiting"),
        ({"ActiveEnterTimestampMonotonic": "99900000"}, False, False, "only just started"),
        ({"NRestarts": "3", "ActiveEnterTimestampMonotonic": "97000000"}, False, False, "3 of them while waiting: it keeps falling over"),
        ({"NRestarts": "3", "ActiveEnterTimestampMonotonic": "94000000"}, True, False, "restarted 3 times"),
        (
            {"ActiveState": "failed", "SubState": "failed", "Result": "signal", "ExecMainStatus": "9"},
            False,
            False,
            "is failed (failed), it ended with signal 9",
        ),
    ],
)  # fmt: skip
def test_units(properties: dict[str, str], ready: bool, final: bool, text: str):
    runner = Runner(**{"a.service": properties})
    unit = parse_units(["a.service"], runner.run(["systemctl", "show", "--", "a.service"]).out)["a.service"]
    one = judge_unit(unit, now=100.0, first_restarts=0, failed_for=0.0)
    assert (one.ok, one.final) == (ready, final)
    assert text in one.text


def test_a_unit_that_stays_failed_is_given_up():
    unit = parse_units(["a.service"], "LoadState=loaded\nActiveState=failed\nSubState=failed\nResult=exit-code\n")["a.service"]
    assert not judge_unit(unit, 100.0, 0, 9.0).final
    assert judge_unit(unit, 100.0, 0, 11.0).final


def test_all_units_are_one_question():
    runner = Runner(**{"a.service": {}, "b.service": {}})
    outcomes = watch(runner, {"unit": "a.service"}, {"unit": "b.service"}, {"unit": "a.service", "name": "again"}).wait(5)
    assert all(outcome.ready for outcome in outcomes)
    assert len(runner.calls) == 1


# ---- waiting


def test_it_waits_until_all_are_good_and_says_how_long_each_took():
    runner = Runner(**{"a.service": {}})
    start = time.monotonic()
    runner.commands = {"late": lambda: Completed(0 if time.monotonic() - start > 0.5 else 1)}
    outcomes = watch(runner, {"unit": "a.service"}, {"command": ["late"]}).wait(10)
    assert [outcome.ready for outcome in outcomes] == [True, True]
    # It is told in tenths, so what has passed is rounded the same way.
    assert 0.4 < outcomes[1].seconds <= round(time.monotonic() - start, 1)
    assert outcomes[0].seconds < outcomes[1].seconds


def test_checks_are_asked_at_the_same_time():
    """None is answered until all are asked."""
    runner, meeting = Runner(), threading.Barrier(10)
    runner.commands = {"slow": lambda: Completed(0 if meeting.wait(20) >= 0 else 1)}
    outcomes = watch(runner, *[{"command": ["slow"], "name": str(number)} for number in range(10)]).wait(20)
    assert all(outcome.ready for outcome in outcomes)


def test_it_ends_when_time_is_up_though_a_check_hangs():
    runner, end = Runner(), threading.Event()
    runner.commands = {"hangs": lambda: Completed(0 if end.wait(30) else 1), "bad": lambda: Completed(1)}
    start = time.monotonic()
    outcomes = watch(runner, {"command": ["hangs"]}, {"command": ["bad"]}).wait(2)
    assert 1.9 < time.monotonic() - start < 20
    end.set()
    assert [outcome.seen for outcome in outcomes] == ["not asked yet", "exit code 1: it said nothing"]


def test_it_does_not_wait_for_what_cannot_become_good():
    start = time.monotonic()
    outcomes = watch(Runner(), {"unit": "never.service"}).wait(30)
    assert not outcomes[0].ready
    assert time.monotonic() - start < 20


def test_a_check_that_was_good_early_must_still_be_good_at_the_end(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("ansible_collections.ashlar.stack.plugins.module_utils.health.checks.FRESH", 0.3)
    runner = Runner()
    start = time.monotonic()
    asked: list[float] = []

    def flaps() -> Completed:
        asked.append(time.monotonic() - start)
        return Completed(1 if len(asked) in (2, 3) else 0)

    runner.commands = {"flaps": flaps, "late": lambda: Completed(0 if asked and time.monotonic() - start > asked[0] + 0.5 else 1)}
    outcomes = watch(runner, {"command": ["flaps"]}, {"command": ["late"]}).wait(60)
    assert all(outcome.ready for outcome in outcomes)
    assert len(asked) >= 4
    assert outcomes[0].seconds >= round(asked[3], 1)


def test_a_confirmed_check_keeps_the_time_it_took(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("ansible_collections.ashlar.stack.plugins.module_utils.health.checks.FRESH", 0.3)
    runner = Runner()
    asked: list[float] = []

    def good() -> Completed:
        asked.append(time.monotonic())
        return Completed(0)

    # Long enough after the first answer for it to be asked anew.
    runner.commands = {"good": good, "late": lambda: Completed(0 if asked and time.monotonic() - asked[0] > 0.8 else 1)}
    first, last = watch(runner, {"command": ["good"]}, {"command": ["late"]}).wait(20)
    assert len(asked) > 1
    assert first.seconds < last.seconds - 0.7


def test_a_unit_that_falls_over_while_others_are_waited_for_is_told(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("ansible_collections.ashlar.stack.plugins.module_utils.health.checks.FRESH", 0.2)
    runner = Runner(**{"a.service": {}})

    def bad() -> Completed:
        runner.units["a.service"] = {"NRestarts": "2", "ActiveEnterTimestampMonotonic": str(int(time.monotonic() * 1e6))}
        return Completed(1)

    runner.commands = {"bad": bad}
    outcomes = watch(runner, {"unit": "a.service"}, {"command": ["bad"]}).wait(1.5)
    assert [outcome.ready for outcome in outcomes] == [False, False]
    assert "it keeps falling over" in outcomes[0].seen


def test_checks_that_are_slow_and_good_are_good(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("ansible_collections.ashlar.stack.plugins.module_utils.health.checks.FRESH", 0.0)
    runner = Runner()
    runner.commands = {"slow": lambda: (time.sleep(0.1), Completed(0))[1]}
    assert watch(runner, {"command": ["slow"]}).wait(5)[0].ready


def test_no_checks_are_good_at_once():
    assert watch(Runner()).wait(10) == []


# ---- the story


def test_the_story_names_check_cause_log_and_remedy():
    runner = Runner(**{"etcd.service": {"ActiveState": "activating", "SubState": "auto-restart", "NRestarts": "4", "Result": "exit-code"}})
    runner.commands = {"bad": lambda: Completed(1, err="no leader")}
    checks = (
        {"name": "etcd runs", "component": "etcd", "unit": "etcd.service"},
        {"name": "etcd answers", "component": "etcd", "command": ["bad"], "remedy": "Start two of three members."},
        {"name": "other", "command": ["bad"], "log_unit": "helper.service"},
    )
    outcomes = watch(runner, *checks).wait(2)
    stories = tell(outcomes, runner)
    text = message(stories, len(outcomes), 0.3)
    assert text.startswith("3 of 3 health checks are not good")
    assert "- etcd: etcd runs: etcd.service is activating (auto-restart), it ended with exit-code, restarted 4 times" in text
    assert "- etcd: etcd answers (bad): exit code 1: no leader" in text
    assert "What to do: Start two of three members." in text
    assert "What to do: Look at 'journalctl -u etcd.service'" in text
    assert text.count("warnings and errors of etcd.service:") == 1
    assert "warnings and errors of helper.service:" in text
    assert "starting" not in text
    assert "helper.service does not exist on this host" in text
    assert "hunter2" not in text
    assert stories[1].unit == "etcd.service"
    assert [line.split(" ", 1)[1] for line in stories[1].values()["log"]] == ["level=error password=(hidden)"]
    assert sum(call.startswith("journalctl -u etcd.service") for call in runner.calls) == 1


DENIED = "systemd: etcd.service: Failed at step EXEC spawning /opt/ashlar/etcd/3.7.3/etcd: Permission denied"
ETCD = [{"log": r"member (?P<id>\w+) has already been bootstrapped", "cause": "the data of member {id} is gone", "remedy": "Remove member {id}."}]


def falling(**changes: str) -> dict[str, str]:
    return {"ActiveState": "activating", "SubState": "auto-restart", "Result": "exit-code", "NRestarts": "1", **changes}


class Restarting(Runner):
    """A unit that has ended once more whenever it is asked about."""

    def properties(self, name: str) -> dict[str, str]:
        values = super().properties(name)
        self.units[name]["NRestarts"] = str(int(values["NRestarts"]) + 1)
        return values


def story(runner: Runner, *checks: dict[str, Any]) -> str:
    runner.commands = {"bad": lambda: Completed(1, err="refused")}
    outcomes = watch(runner, *checks).once()
    return message(tell(outcomes, runner), len(outcomes), 180)


@pytest.mark.parametrize(
    ("line", "cause", "remedy"),
    [
        (DENIED, "the user of the unit may not execute /opt/ashlar/etcd/3.7.3/etcd", "namei -l /opt/ashlar/etcd/3.7.3/etcd"),
        ("systemd: x.service: Unable to locate executable '/opt/ashlar/x': No such file or directory", "the program /opt/ashlar/x does not exist", "site.yml"),
        ("listen tcp 127.0.0.1:2379: bind: address already in use", "another process listens on its address 127.0.0.1:2379", "ss -ltnup"),
        ("[ALERT]    (9) : cannot bind socket (Address already in use) [0.0.0.0:443]", "another process listens on its address 0.0.0.0:443", "ss -ltnup"),
        ("write /var/lib/etcd/member/wal: no space left on device", "the disk is full", "df -h"),
        ("failed to create fsnotify watcher: too many open files", "the kernel's limit of inotify watches or instances is reached", "max_user_instances"),
        ("x509: certificate has expired or is not yet valid: current time is before", "a certificate has expired, or a clock is wrong", "timedatectl"),
        ("open /etc/etcd/etcd.yml: permission denied", "its user may not use /etc/etcd/etcd.yml", "namei -l /etc/etcd/etcd.yml"),
        ("systemd: etcd.service: Main process exited, code=exited, status=217/USER", "the user that the unit runs as does not exist", "sysusers"),
        ("systemd: etcd.service: Failed with result 'oom-kill'.", "the kernel killed it for lack of memory", "journalctl -k"),
        ('{"level":"fatal","error":"member 8e9e has already been bootstrapped"}', "the data of member 8e9e is gone", "Remove member 8e9e."),
    ],
)  # fmt: skip
def test_a_known_failure_has_its_own_cause_and_remedy(line: str, cause: str, remedy: str):
    runner = Runner(**{"etcd.service": falling()})
    runner.logs["etcd.service"] = [line, "level=info msg=bye"]
    text = story(runner, {"name": "etcd answers", "command": ["bad"], "log_unit": "etcd.service", "remedy": "Look at the quorum.", "failures": ETCD})
    assert f"Cause: {cause}\n" in text
    assert remedy in text.rpartition("What to do: ")[2]
    assert "quorum" not in text


def test_what_has_a_known_cause_is_told_first_and_once():
    runner = Runner(**{"consul.service": {}, "etcd.service": falling()})
    runner.logs = {"consul.service": ["[WARN]  agent: no cluster leader"], "etcd.service": [DENIED]}
    units = {"leader": "consul.service", "a": "etcd.service", "b": "etcd.service"}
    text = story(runner, *({"name": name, "command": ["bad"], "log_unit": unit} for name, unit in units.items()))
    assert text.index("- a") < text.index("- b") < text.index("- leader")
    assert text.count("Cause: ") == text.count("namei -l") == 1
    assert "etcd.service: as above" in text
    assert "no cluster leader" in text


def test_what_an_active_unit_said_long_ago_is_no_cause():
    runner = Runner(**{"etcd.service": {}})
    entry = {"MESSAGE": "write: no space left on device", "PRIORITY": "6", "__REALTIME_TIMESTAMP": str(int((time.time() - 3600) * 1e6))}
    runner.commands = {"bad": lambda: Completed(1), "journalctl": lambda: Completed(0)}
    runner.logs["etcd.service"] = []
    old = runner.run
    runner.run = lambda command, limit=0: Completed(0, json.dumps(entry)) if command[0] == "journalctl" else old(command, limit)  # type: ignore[method-assign]
    assert "Cause" not in story(runner, {"name": "a", "command": ["bad"], "log_unit": "etcd.service"})


@pytest.mark.parametrize(
    ("message", "level"),
    [
        ("I1128 10:00:00.000000  1 server.go:1] Starting error handler", 6),
        ("E1128 10:00:00.000000  1 server.go:1] starting", 3),
        ("W1128 10:00:00.000000  1 server.go:1] starting", 4),
        ("F1128 10:00:00.000000  1 server.go:1] starting", 2),
        ('{"level":"info","msg":"error count","failed":0}', 6),
        ('{"level":"warn","ts":"2026-11-28","msg":"slow"}', 4),
        ('time="2026-11-28T10:00:00Z" level=info msg="no error"', 6),
        ('ts=2026-11-28T10:00:00Z level=ERROR msg="starting"', 3),
        ("2026-11-28T10:00:00.000Z [INFO]  agent: failed checks: 0", 6),
        ("2026-11-28T10:00:00.000Z [ERROR] agent: starting", 3),
        ("[NOTICE]   (1) : New worker (2) forked, error", 5),
        ("[WARNING]  (1) : starting", 4),
        ("2026-11-28T10:00:00.000Z\tinfo\tVictoriaLogs/main.go:1\terrors", 6),
        ("2026-11-28T10:00:00.000Z\tfatal\tVictoriaLogs/main.go:1\tstarting", 2),
        ("ValueError: settings.json lacks a name", 4),
        ("Listening on 127.0.0.1:9444", 6),
    ],
)
def test_the_level_of_a_line_is_what_its_program_wrote(message: str, level: int):
    assert level_of(message, 6, False) == level


def test_of_a_loop_the_last_line_is_shown():
    lines = parse_journal(journal([f"level=error attempt={number} msg=refused" for number in range(40)] + ["level=info msg=bye"]))
    assert [line.split(" ", 1)[1] for line in shown(lines)] == ["level=error attempt=39 msg=refused"]


def test_a_log_that_is_not_text_is_read():
    entry = {"MESSAGE": list(b"error: \xff"), "PRIORITY": "3", "__REALTIME_TIMESTAMP": "1"}
    assert [line.text for line in parse_journal(json.dumps(entry) + "\nno json\n")] == ["error: \ufffd"]


def test_waiting_ends_when_a_unit_keeps_ending_for_a_fatal_reason(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(health, "UNITS_PAUSE", 0.05)
    monkeypatch.setattr(health_log.Endings, "LEAST_SECONDS", 0.3)
    runner = Restarting(**{"etcd.service": falling()})
    runner.logs["etcd.service"] = [DENIED]
    runner.commands = {"bad": lambda: Completed(1)}
    start = time.monotonic()
    outcomes = watch(runner, {"name": "etcd answers", "command": ["bad"], "log_unit": "etcd.service"}).wait(120)
    assert 0.3 <= time.monotonic() - start < 60
    assert not outcomes[0].ready


@pytest.mark.parametrize("log", [["level=warn msg=waiting"], ["x509: certificate signed by unknown authority"]])
def test_waiting_goes_on_while_the_reason_may_pass(monkeypatch: pytest.MonkeyPatch, log: list[str]):
    monkeypatch.setattr(health, "UNITS_PAUSE", 0.02)
    monkeypatch.setattr(health_log.Endings, "LEAST_SECONDS", 0.0)
    runner = Restarting(**{"etcd.service": falling()})
    runner.logs["etcd.service"] = log
    start = time.monotonic()
    runner.commands = {"late": lambda: Completed(0 if time.monotonic() - start > 1 else 1)}
    assert watch(runner, {"command": ["late"], "log_unit": "etcd.service"}).wait(60)[0].ready


@pytest.mark.parametrize("properties", [{"LoadState": "masked", "ActiveState": "inactive"}, {"LoadState": "not-found", "ActiveState": "inactive"}])
def test_waiting_ends_when_the_unit_behind_a_check_can_never_run(monkeypatch: pytest.MonkeyPatch, properties: dict[str, str]):
    monkeypatch.setattr(health, "UNITS_PAUSE", 0.05)
    runner = Runner(**{"etcd.service": properties})
    runner.commands = {"bad": lambda: Completed(1)}
    start = time.monotonic()
    watch(runner, {"command": ["bad"], "log_unit": "etcd.service"}).wait(120)
    assert time.monotonic() - start < 60


def test_one_look_asks_once_and_does_not_wait():
    runner = Runner()
    asked: list[int] = []
    runner.commands = {"bad": lambda: (asked.append(1), Completed(1))[1]}
    assert not watch(runner, {"command": ["bad"]}).once()[0].ready
    assert asked == [1]


# ---- arguments


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({}, "exactly one of unit, tcp, url, command must be given, found none"),
        ({"unit": "a.service", "tcp": "a:1", "name": "x"}, "check 'x': .* found unit and tcp"),
        ({"tcp": "127.0.0.1"}, "must be an address and a port"),
        ({"tcp": "127.0.0.1:99999"}, "must be an address and a port"),
        ({"url": "https://a/", "connect": "here"}, "connect 'here' must be an address and a port"),
        ({"unit": "a.service", "connect": "a:1"}, "connect says where the url is reached, and there is no url"),
        ({"url": "ftp://x"}, "must begin with http:// or https://"),
        ({"unit": "a.service", "colour": "red"}, "unknown colour; allowed are"),
        ({"unit": "a.service", "failures": [{"log": "(", "cause": "c", "remedy": "r"}]}, "in failures is not a regular expression"),
    ],
)
def test_wrong_checks_are_told(values: dict[str, Any], text: str):
    with pytest.raises(HealthError, match=text):
        make_check(values)


def test_documentation_and_arguments_are_the_same():
    documented = yaml.safe_load(module.DOCUMENTATION)["options"]
    assert set(documented) == set(module.ARGUMENTS)
    given = module.ARGUMENTS["checks"]["options"]
    assert set(documented["checks"]["suboptions"]) == set(given)
    for name, option in documented["checks"]["suboptions"].items():
        assert [option.get(key) for key in ("type", "elements", "default")] == [
            given[name].get(key) for key in ("type", "elements", "default")
        ]
    assert yaml.safe_load(module.EXAMPLES)
    assert yaml.safe_load(module.RETURN)


def test_an_earlier_trouble_is_not_taken_for_the_present_one():
    own = [health_log.Failure.make(values) for values in ETCD]
    before = health_log.Line(100.0, 3, "member 8e9e has already been bootstrapped")
    close, later = (health_log.recognise([before, health_log.Line(at, 3, DENIED)], own) for at in (110.0, 150.0))
    assert close and close.cause == "the data of member 8e9e is gone"
    assert later and later.cause != close.cause
