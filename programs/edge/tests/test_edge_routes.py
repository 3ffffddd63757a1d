# SPDX-License-Identifier: Apache-2.0
"""Which routes are granted: a bad one costs itself alone, and says why."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import pytest
from ashlar_edge.catalogue import read
from ashlar_edge.model import EdgeError, Endpoint, Settings
from ashlar_edge.routes import Decision, decide, host_problem, path_problem
from edge_support import Entry, entry

SETTINGS = Settings()
GOOD = entry("good", route_host="good.example.com")


def judged(
    *entries: Entry,
    owners: Mapping[str, str] | None = None,
    created: Mapping[str, int] | None = None,
    settings: Settings = SETTINGS,
    **more: Any,
) -> Decision:
    claims, refusals = read(json.dumps({"services": list(entries)}))
    known = created or {}

    def ask(services: Iterable[str]) -> Mapping[str, int]:
        return {service: known[service] for service in services if service in known}

    decision = decide(claims, settings, owners or {}, ask, **more)
    return replace(decision, refusals=(*refusals, *decision.refusals))


def granted(decision: Decision) -> dict[str, str]:
    return dict(decision.owners)


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (entry("bad", route_host="not a name"), "RFC 1123"),
        (entry("bad", route_host="x" * 64 + ".example.com"), "RFC 1123"),
        (entry("bad", route_host="a." * 127 + "toolong"), "at most 253"),
        (entry("bad", route_host="a" * 10_000), "at most 253"),
        (entry("bad", route_host="-a.example.com"), "RFC 1123"),
        (entry("bad", route_host="a..example.com"), "RFC 1123"),
        (entry("bad", route_host="ü.example.com"), "RFC 1123"),
        (entry("bad", route_host="a_b.example.com"), "RFC 1123"),
        (entry("bad", route_host="*"), "RFC 1123"),
        (entry("bad", route_host="*.com"), "two labels"),
        (entry("bad", route_host="a.*.example.com"), "RFC 1123"),
        (entry("bad", route_host="10.0.0.1"), "no host name"),
        (entry("bad", route_host="$(reboot).example.com"), "RFC 1123"),
        (entry("bad", route_host="{{ key }}.example.com"), "RFC 1123"),
        (entry("bad", route_host="a.example.com\n  server evil 6.6.6.6:80"), "RFC 1123"),
        (entry("bad", route_host='a".example.com'), "RFC 1123"),
        (entry("bad", route_host=",".join(f"h{number}.example.com" for number in range(65))), "at most 64"),
        (entry("bad", route_host="b.example.com", route_path="nothing"), "begins with '/'"),
        (entry("bad", route_host="b.example.com", route_path="/a b"), "made of letters"),
        (entry("bad", route_host="b.example.com", route_path="/a//b"), "single slashes"),
        (entry("bad", route_host="b.example.com", route_path="/a/../b"), "'..'"),
        (entry("bad", route_host="b.example.com", route_path="/%2e%2e"), "made of letters"),
        (entry("bad", route_host="b.example.com", route_path="/$HOME;ls"), "made of letters"),
        (entry("bad", route_host="b.example.com", route_path="/`id`"), "made of letters"),
        (entry("bad", route_host="b.example.com", route_path="/a\nuse_backend x"), "made of letters"),
        (entry("bad", route_host="b.example.com", route_path="/" + "a" * 10_000), "at most 255"),
        (entry("bad", route_host="b.example.com", route_protocol="gopher"), "allowed are http, https, h2"),
        (entry("bad", route_host="b.example.com", route_login="maybe"), "true and false"),
        (entry("bad", route_host="b.example.com", route_rate="0"), "from 1 to"),
        (entry("bad", route_host="b.example.com", route_rate="1e9"), "from 1 to"),
        (entry("bad", route_host="b.example.com", route_check="/ok\r\nX: y"), "route-check"),
        (entry("bad", route_tcp_port="80"), "from 20000 to 20999"),
        (entry("bad", route_tcp_port="19999"), "from 20000 to 20999"),
        (entry("bad", route_tcp_port="99999"), "from 20000 to 20999"),
        (entry("bad", route_tcp_port="-1"), "from 20000 to 20999"),
        (entry("bad", route_tcp_port="20000; reboot"), "from 20000 to 20999"),
        (entry("bad", route_tcp_port="20500"), "another program"),
        (entry("bad", route_tcp_port="20001", route_host="b.example.com"), "not by both"),
        (entry("b" * 10_000, route_host="b.example.com"), "1 to 128"),
        (entry("bad; rm -rf /", route_host="b.example.com"), "1 to 128"),
        (entry("bad{{ env }}", route_host="b.example.com"), "1 to 128"),
        (entry("bad\nglobal", route_host="b.example.com"), "1 to 128"),
        (entry("bad", address="nowhere", route_host="b.example.com"), "IP address"),
        (entry("bad", address="10.0.0.1 check", route_host="b.example.com"), "IP address"),
        (entry("bad", port=0, route_host="b.example.com"), "port from 1"),
        (entry("bad", port=70000, route_host="b.example.com"), "port from 1"),
        (entry("bad", port=True, route_host="b.example.com"), "port from 1"),
        (entry("bad", route_host=["b.example.com"]), "must be a text"),
        (entry("bad", route_host="good.example.com"), "belongs to service"),
        ({"service": "bad"}, "no service and metadata"),
        ("bad", "no service and metadata"),  # type: ignore[list-item]
    ],
)
def test_a_bad_route_is_refused_with_its_reason_and_no_other_suffers(bad: Entry, says: str) -> None:
    decision = judged(bad, GOOD, owners={"good.example.com/": "good"}, busy=frozenset({20500}))
    assert granted(decision) == {"good.example.com/": "good"}
    assert len(decision.refusals) == 1
    assert says in decision.refusals[0].reason
    line = decision.refusals[0].text()
    assert len(line) < 500 and "\n" not in line, "one clear line, whatever was asked"


def test_of_several_hosts_the_bad_one_alone_is_refused() -> None:
    decision = judged(entry(route_host="a.example.com, B.Example.com. ,bad name,*.c.example.com"))
    assert set(granted(decision)) == {"a.example.com/", "b.example.com/", "*.c.example.com/"}
    assert [refusal.route for refusal in decision.refusals] == ['host "bad name"']


def test_a_path_may_end_with_a_slash_or_not() -> None:
    with_, without = judged(entry(route_host="a.example.com", route_path="/x/")), judged(entry(route_host="a.example.com", route_path="/x"))
    assert with_.backends == without.backends


@pytest.mark.parametrize("path", ["/", "/a", "/a/b.c_d~e@f:g+h=i-j", "/.well-known"])
def test_good_paths(path: str) -> None:
    assert path_problem(path) == ""


@pytest.mark.parametrize("host", ["localhost", "a.b", "xn--bcher-kva.example", "*.a.b", "1a.2b"])
def test_good_hosts(host: str) -> None:
    assert host_problem(host) == ""


def test_the_service_that_was_there_first_owns_a_route() -> None:
    two = [entry("young", route_host="a.example.com"), entry("old", route_host="a.example.com")]
    decision = judged(*two, created={"young": 90, "old": 20})
    assert granted(decision) == {"a.example.com/": "old"}
    assert [(refusal.service, '"old"' in refusal.reason) for refusal in decision.refusals] == [("young", True)]


def test_indexes_of_the_catalogue_itself_count_too() -> None:
    decision = judged(entry("b", created=5, route_host="a.example.com"), entry("a", created=7, route_host="a.example.com"))
    assert granted(decision) == {"a.example.com/": "b"}


def test_an_owner_keeps_its_route_when_all_its_instances_are_new() -> None:
    two = [entry("thief", created=5, route_host="a.example.com"), entry("owner", created=900, route_host="a.example.com")]
    assert granted(judged(*two, owners={"a.example.com/": "owner"})) == {"a.example.com/": "owner"}


def test_who_had_a_route_before_its_owner_gets_it_back() -> None:
    two = [entry("meanwhile", created=5, route_host="a.example.com"), entry("first", created=900, route_host="a.example.com")]
    both = {"owners": {"a.example.com/": "meanwhile"}, "former": {"a.example.com/": "first"}}
    assert granted(judged(*two, **both)) == {"a.example.com/": "first"}
    assert granted(judged(two[0], **both)) == {"a.example.com/": "meanwhile"}


def test_a_host_of_the_sites_own_is_its_own_under_every_path_whoever_had_it_before() -> None:
    settings = replace(SETTINGS, host_services=("portal", "grafana"))
    decision = judged(
        entry("thief", created=1, route_host="portal.example.com"),
        entry("fisher", created=2, route_host="other.example.com,portal.example.com", route_path="/login"),
        entry("portal", created=900, route_host="portal.example.com", route_protocol="https"),
        entry("grafana", created=901, route_host="portal.example.com", route_path="/graphs"),
        owners={"portal.example.com/": "thief", "portal.example.com/login": "fisher"},
        settings=settings,
    )
    assert granted(decision) == {"portal.example.com/": "portal", "portal.example.com/graphs": "grafana", "other.example.com/login": "fisher"}
    assert {(refusal.service, "the site's own" in refusal.reason) for refusal in decision.refusals} == {("thief", True), ("fisher", True)}


def test_a_route_goes_to_the_next_when_its_owner_leaves() -> None:
    assert granted(judged(entry("next", route_host="a.example.com"), owners={"a.example.com/": "gone"})) == {"a.example.com/": "next"}


def test_without_any_index_the_same_one_wins_on_every_edge() -> None:
    two = [entry("b", route_host="a.example.com"), entry("a", route_host="a.example.com")]
    assert granted(judged(*two)) == granted(judged(*reversed(two))) == {"a.example.com/": "a"}


def test_two_services_share_a_host_by_path_and_a_tcp_port_has_one_owner() -> None:
    decision = judged(
        entry("web", route_host="a.example.com"),
        entry("api", route_host="a.example.com", route_path="/api"),
        entry("db", created=1, route_tcp_port="20001"),
        entry("db2", created=2, route_tcp_port="20001"),
    )
    assert granted(decision) == {"a.example.com/": "web", "a.example.com/api": "api", "tcp:20001": "db"}


def test_instances_of_one_service_are_one_backend_with_the_stricter_options() -> None:
    decision = judged(
        entry(address="10.0.0.1", route_host="a.example.com", route_rate="10"),
        entry(address="10.0.0.2", route_host="b.example.com", route_login="true", route_rate="5"),
        entry(address="10.0.0.3", status="critical", route_host="a.example.com"),
    )
    (backend,) = decision.backends
    assert backend.hosts == ("a.example.com", "b.example.com") and backend.login and backend.rate == 5
    assert backend.endpoints == (Endpoint("10.0.0.1", 8080), Endpoint("10.0.0.2", 8080)), "an instance that fails its checks gets nothing"


def test_a_service_without_a_healthy_instance_keeps_its_route() -> None:
    (backend,) = judged(entry(status="critical", route_host="a.example.com")).backends
    assert backend.endpoints == ()


def test_instances_that_speak_another_protocol_than_the_oldest_are_left_out() -> None:
    decision = judged(
        entry(address="10.0.0.1", created=1, route_host="a.example.com"),
        entry(address="10.0.0.2", created=2, route_host="a.example.com", route_protocol="h2"),
    )
    assert decision.backends[0].endpoints == (Endpoint("10.0.0.1", 8080),)
    assert "protocol h2" in decision.refusals[0].route


def test_numbers_are_bounded() -> None:
    many = [entry(address=f"10.0.{number // 250}.{number % 250}", route_host="a.example.com") for number in range(300)]
    decision = judged(*many)
    assert len(decision.backends[0].endpoints) == 256 and "at most 256 instances" in decision.refusals[0].reason
    services = [entry(f"s{number}", created=100 - number, route_host=f"h{number}.example.com") for number in range(30)]
    decision = judged(*services, settings=replace(SETTINGS, max_routes=10))
    assert set(granted(decision).values()) == {f"s{number}" for number in range(20, 30)}, "the oldest ones stay"
    assert len(decision.refusals) == 20 and "haproxy_routes_max" in decision.refusals[0].reason


def test_a_route_that_haproxy_does_not_take_is_named() -> None:
    name = judged(GOOD).backends[0].name
    decision = judged(GOOD, entry(route_host="a.example.com"), banned={name: "line 7"})
    assert granted(decision) == {"a.example.com/": "hello"} and "line 7" in decision.refusals[0].reason


def test_services_that_ask_for_nothing_are_left_alone() -> None:
    decision = judged(entry("etcd"), entry("x", something="else"))
    assert decision.backends == () and decision.refusals == ()


def test_names_that_nothing_can_ask_consul_for_are_told() -> None:
    _, refusals = read(json.dumps({"services": [], "unreadable": ["a b", "x" * 10_000]}))
    assert [len(refusal.text()) < 400 for refusal in refusals] == [True, True]


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"services": {}}', "[" * 100_000])
def test_what_is_no_catalogue_is_an_error_and_not_an_empty_one(text: str) -> None:
    with pytest.raises(EdgeError, match="keeps what it has"):
        read(text)
