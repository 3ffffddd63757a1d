# SPDX-License-Identifier: Apache-2.0
"""Files in generations, the status, and what stays when something is wrong. HAProxy itself judges every configuration."""

from __future__ import annotations

import fcntl
import io
import json
import os
import random
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ashlar_edge import apply as module
from ashlar_edge import certificates
from ashlar_edge.apply import Edge
from ashlar_edge.main import main
from ashlar_edge.model import EdgeError, Settings
from edge_support import Entry, base, entry, pair

Write = Callable[..., str]
GOOD = entry("good", route_host="good.example.com")


def live(settings: Settings, name: str) -> str:
    return (Path(settings.home) / "live" / name).read_text()


def status(settings: Settings) -> dict[str, Any]:
    return dict(json.loads(Path(settings.status).read_text()))


def test_files_are_written_for_a_haproxy_that_does_not_run(settings: Settings, write: Write) -> None:
    outcome = Edge(settings, write(GOOD)).apply()
    assert outcome.how == "files"
    assert live(settings, "routes.map").startswith("good.example.com/ http_good_")
    assert live(settings, "hosts.map") == "good.example.com 1\n"
    assert oct(os.stat(f"{settings.home}/live/default.pem").st_mode & 0o777) == "0o640"


def test_the_same_again_writes_nothing(settings: Settings, write: Write) -> None:
    Edge(settings, write(GOOD)).apply()
    before = os.readlink(f"{settings.home}/live")
    Edge(settings, write(GOOD)).apply()
    assert os.readlink(f"{settings.home}/live") == before


def test_refusals_are_in_the_status_and_said_once(settings: Settings, write: Write) -> None:
    log = io.StringIO()
    path = write(GOOD, entry("bad", route_host="$(id)"))
    for _ in range(3):
        Edge(settings, path, log=log).apply()
    assert log.getvalue().count("route refused") == 1 and log.getvalue().startswith('<4>route refused: service "bad"')
    told = status(settings)
    assert [one["service"] for one in told["refused"]] == ["bad"] and [one["route"] for one in told["routes"]] == ["good.example.com/"]
    assert told["catalogue"] is True and told["error"] == ""


@pytest.mark.parametrize("text", ["", "{", "null"])
def test_a_broken_catalogue_changes_nothing(settings: Settings, write: Write, text: str) -> None:
    path = write(GOOD)
    Edge(settings, path).apply()
    Path(path).write_text(text)
    log = io.StringIO()
    Edge(settings, path, log=log).apply()
    assert "good.example.com/" in live(settings, "routes.map") and "keeps what it has" in log.getvalue()
    assert status(settings)["catalogue"] is False


def test_a_route_is_given_back_to_who_was_away_for_a_while(settings: Settings, write: Write) -> None:
    hour, first, second = 3600.0, entry("first", created=90, route_host="a.example.com"), entry("second", created=91, route_host="a.example.com")

    def owner(*entries: Entry, at: float) -> str:
        return str(Edge(settings, write(*entries), now=lambda: 1e9 + at).apply().decision.owners.get("a.example.com/"))

    again = {**first, "created": 99}
    assert owner(first, second, at=0) == "first"
    assert owner(second, at=10) == "second", "somebody answers meanwhile"
    assert owner(again, second, at=20) == "first", "its instances are new, it is not"
    assert owner(again, second, at=30) == "first"
    assert owner(second, at=40) == owner(second, at=50) == "second"
    assert owner(again, second, at=40 + hour) == "second", "after an hour it belongs to who has served it"


def test_without_a_catalogue_the_one_that_was_there_last_counts(settings: Settings, write: Write) -> None:
    path = write(GOOD)
    Edge(settings, path).apply()
    os.unlink(path)
    Edge(settings, path).apply()
    assert "good.example.com/" in live(settings, "routes.map")


def test_the_first_start_without_a_catalogue_has_no_route(settings: Settings, home: Path) -> None:
    assert Edge(settings, str(home / "none.json")).apply().decision.backends == ()
    assert live(settings, "routes.map") == ""


def test_what_haproxy_does_not_take_as_a_whole_is_not_laid_down(settings: Settings, write: Write) -> None:
    path = write(GOOD)
    Edge(settings, path).apply()
    before = live(settings, "haproxy.cfg")
    Path(settings.base).write_text(Path(settings.base).read_text() + "\nfrontend broken\n  bind nonsense\n")
    with pytest.raises(EdgeError, match="does not take the configuration"):
        Edge(settings, path).apply()
    assert live(settings, "haproxy.cfg") == before
    assert "nonsense" in status(settings)["error"] or "broken" in status(settings)["error"]
    assert len([name for name in os.listdir(settings.home) if name.startswith("generation-")]) == 1


def test_a_route_that_slips_through_validation_stands_alone_for_it(
    settings: Settings, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    section = module.render.__globals__["section"]

    def broken(backend: Any, *rest: Any) -> str:
        return str(section(backend, *rest)) + ("  nonsense\n" if backend.service == "s5" else "")

    monkeypatch.setitem(module.render.__globals__, "section", broken)
    outcome = Edge(settings, write(*(entry(f"s{number}", route_host=f"h{number}.example.com") for number in range(9)))).apply()
    assert len(outcome.decision.backends) == 8
    assert [refusal.service for refusal in outcome.refusals] == ["s5"] and "nonsense" in outcome.refusals[0].reason


def test_generations_are_swept(settings: Settings, write: Write) -> None:
    for number in range(8):
        Edge(settings, write(entry(route_host=f"h{number}.example.com"))).apply()
    assert len([name for name in os.listdir(settings.home) if name.startswith("generation-")]) <= 4


def test_two_at_a_time_wait_for_each_other(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    with open(f"{settings.home}/lock", "w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(EdgeError, match="another ashlar-edge"), module.lock(settings.home, 0.2):
            pass


def test_a_port_in_use_is_refused(settings: Settings, write: Write) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        outcome = Edge(replace(settings, tcp_ports=(1024, 65535)), write(GOOD, entry("tcp", route_tcp_port=str(port)))).apply()
    assert [refusal.service for refusal in outcome.refusals] == ["tcp"] and "another program" in outcome.refusals[0].reason
    assert set(outcome.decision.owners.values()) == {"good"}


# ---- certificates


def own(settings: Settings, *listed: dict[str, Any]) -> None:
    Path(settings.certificates).write_text(json.dumps(listed))


def texts(path: Path) -> dict[str, str]:
    return {"certificate": path.with_suffix(".crt").read_text(), "key": path.with_suffix(".key").read_text()}


def test_certificates_of_users_are_used_and_broken_ones_refused(settings: Settings, write: Write, home: Path) -> None:
    pair(home / "a", "a.example.com")
    pair(home / "b", "b.example.com")
    pair(home / "old", "old.example.com", days=1)
    a, b, old = texts(home / "a"), texts(home / "b"), texts(home / "old")
    own(
        settings,
        {"hosts": ["a.example.com"], **a},
        {"hosts": ["b.example.com"], "certificate": b["certificate"], "key": a["key"]},
        {"hosts": ["c.example.com"], "certificate": "-----BEGIN CERTIFICATE-----\nnonsense\n-----END CERTIFICATE-----\n", "key": a["key"]},
        {"hosts": ["d.example.com"], "certificate": b["certificate"]},
        {"hosts": ["$(id)"], **b},
        {"hosts": [], **b},
        {"hosts": ["a.example.com"], **b},
        {"hosts": ["b.example.com"], "certificate": b["certificate"] + "\nbind :1\n", "key": b["key"]},
    )
    outcome = Edge(settings, write(GOOD)).apply()
    assert [refusal.route.split()[1] for refusal in outcome.refusals] == ["2", "3", "4", "5", "6", "7"]
    assert "user1.pem a.example.com" in live(settings, "certificates.list") and "user8.pem b.example.com" in live(
        settings, "certificates.list"
    )
    assert "bind" not in live(settings, "user8.pem")
    assert "ended on" in certificates.problem(old["certificate"] + old["key"], time.time() + 3 * 86400)


def test_a_broken_certificate_of_the_site_leaves_the_one_before(settings: Settings, write: Write, home: Path) -> None:
    pair(home / "own", "edge.test")
    changed = replace(settings, default_certificate=str(home / "own"))
    Edge(changed, write(GOOD)).apply()
    before = live(settings, "default.pem")
    (home / "own.crt").write_text("broken")
    outcome = Edge(changed, write(GOOD)).apply()
    assert live(settings, "default.pem") == before and "the one before stays" in outcome.refusals[0].reason


# ---- any catalogue at all


NASTY = [
    "",
    " ",
    "a",
    "*.b.c",
    "x.example.com",
    "A.B",
    "$(id)",
    "`id`",
    "{{ x }}",
    "\n",
    "\r\n",
    "\0",
    '"',
    "'",
    "\\",
    "#",
    "%[env(HOME)]",
    "/",
    "//",
    "/a",
    "/../",
    "é",
    "x" * 10_000,
    "20001",
    "0",
    "-1",
]


def wild(chance: random.Random) -> Any:
    """Something that an entry of a catalogue may hold; now and then even what it should."""
    pick = chance.random()
    if pick < 0.03:
        return chance.choice([None, 3, "text", [], {}, {"service": 7, "meta": {}}])
    one = entry(
        chance.choice(["a", "b-1", "c.d", "$(x)", "x y", "n" * 128, "n" * 129]),
        chance.choice([80, 0, 65535, 70000, -1, 8080]),
        chance.choice(["10.0.0.1", "10.0.0.2", "fd00::1", "10.0.0.256", "", "localhost", "10.0.0.1 disabled"]),
        chance.choice(["passing", "critical", "warning", "nonsense"]),
    )
    keys = ["route-host", "route-path", "route-tcp-port", "route-protocol", "route-login", "route-rate", "route-check"]
    for key in chance.sample(keys, chance.randrange(len(keys))):
        one["meta"][key] = chance.choice(
            [*NASTY, "http", "https", "h2", "true", "a.example.com,b.example.com", "/x/y", "20002", "50", None, 5]
        )
    return one


def sane(chance: random.Random) -> Entry:
    host = ",".join(chance.sample([f"{name}.example.com" for name in ("a", "b", "c", "*.d", "e-f", "x" * 60)], chance.randrange(1, 4)))
    meta: dict[str, Any] = {
        "route_host": host,
        "route_path": chance.choice(["/", "/a", "/a/b", "/@+=:~._-"]),
        "route_protocol": chance.choice(["http", "https", "h2"]),
    }
    if chance.random() < 0.3:
        meta.update(route_login="true", route_rate=str(chance.randrange(1, 1_000_000)), route_check="/health")
    if chance.random() < 0.2:
        meta = {"route_tcp_port": str(chance.randrange(20000, 21000))}
    return entry(
        f"s{chance.randrange(12)}",
        chance.randrange(1, 65536),
        chance.choice(["10.0.0.1", "fd00::1", "::ffff:10.0.0.1", "10.1.2.3"]),
        **meta,
    )


@pytest.mark.parametrize("seed", range(12))
def test_no_catalogue_makes_a_configuration_that_haproxy_refuses(
    settings: Settings, home: Path, write: Write, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance = random.Random(seed)
    entries = [wild(chance) if chance.random() < 0.5 else sane(chance) for _ in range(60)]
    monkeypatch.setattr(Edge, "_search", lambda *_: {})
    Edge(settings, write(*entries), log=io.StringIO()).apply()
    text = live(settings, "haproxy.cfg").partition("frontend operator")[2]
    for foreign in ("$(", "`", "{{ x", "%[env", "x" * 64):
        assert foreign not in text


def test_with_ingress_behind_it_the_edge_is_as_sound(settings: Settings, home: Path, haproxy: str, pki: Path, write: Write) -> None:
    Path(settings.base).write_text(
        base(home, haproxy, pki, ingress=True, haproxy_trusted_proxies=["10.0.0.0/8"], haproxy_access_log=False, haproxy_hsts_seconds=0)
    )
    Edge(settings, write(GOOD)).apply()


# ---- the command line


def test_the_command_line(settings: Settings, home: Path, write: Write, capfd: pytest.CaptureFixture[str]) -> None:
    path = home / "edge.json"
    path.write_text(json.dumps({name: getattr(settings, name) for name in settings.__dataclass_fields__}))
    assert main(["--settings", str(path), "status", "--fresh"]) == 1
    assert main(["apply", "--catalogue", write(GOOD, entry("bad", route_host="no name")), "--settings", str(path)]) == 0
    assert main(["--settings", str(path), "status", "--fresh"]) == 0
    out, err = capfd.readouterr()
    assert "good.example.com/  ->  good, 1 instances" in out and "refused: bad" in out
    path.write_text('{"nonsense": 1}')
    assert main(["--settings", str(path), "apply"]) == 1
    assert 'unknown option "nonsense"' in capfd.readouterr().err
