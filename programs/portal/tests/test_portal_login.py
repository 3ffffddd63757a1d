# SPDX-License-Identifier: Apache-2.0
"""Who may come in: nobody without a session gets anything, passwords can't be tried for long, sessions end and can't be made up."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from ansible_collections.ashlar.stack.plugins.filter.scrypt import FilterModule, scrypt
from portal_support import PASSWORD, SECRETS, Running, login, running, wait_for

GUARDED = ["/", "/logs", "/logs?q=x", "/nodes/node1", "/nodes/nobody", "/static/portal.js", "/nowhere", "/?part=1", "//", "/%2e%2e/etc/passwd", "/static/../x"]


def test_without_a_session_nothing_answers_but_the_login_page_and_health() -> None:
    async def work() -> None:
        async with running() as site:
            for path in GUARDED:
                status, text, headers = await site.get(path, Accept="text/html")
                assert status in (303, 401), path
                assert status == 401 or headers["Location"].startswith("/login")
                assert "node2" not in text and "etcd" not in text
            for path in ("/logout", "/session-ended", "/"):
                status, text, _ = await site.post(path, {"identity": "x"})
                assert (status, text) == (401, "Log in first, at /login.\n"), path
            assert (await site.get("/health"))[:2] == (200, "ok\n")
            status, text, _ = await site.get("/login")
            assert status == 200 and "Password" in text and "node1" not in text
            assert site.upstream.asked == []

    wait_for(work())


def test_who_logs_in_gets_where_they_wanted_to() -> None:
    async def work() -> None:
        async with running() as site:
            status, _, headers = await site.get("/nodes/node1?range=6h", Accept="text/html")
            assert (status, headers["Location"]) == (303, "/login?next=%2Fnodes%2Fnode1%3Frange%3D6h")
            status, _, headers = await site.log_in(target="/nodes/node1?range=6h")
            assert (status, headers["Location"]) == (303, "/nodes/node1?range=6h")
            cookies = [value for name, value in headers.items() if name == "Set-Cookie" and value.startswith("__Host-portal=")]
            assert len(cookies) == 1
            assert {"HttpOnly", "Secure", "Path=/", "SameSite=Lax"} <= {part.strip() for part in cookies[0].split(";")}
            assert "Max-Age=43200" in cookies[0] and "Domain" not in cookies[0]
            assert (await site.get("/"))[0] == 200

    wait_for(work())


@pytest.mark.parametrize("target", ["https://evil.test/", "//evil.test", "/\\evil.test", "/a\nb", "", "javascript:alert(1)", "/" + "a" * 600])
def test_after_the_login_nobody_is_sent_elsewhere(target: str) -> None:
    async def work() -> None:
        async with running() as site:
            assert (await site.log_in(target=target))[2]["Location"] == "/"

    wait_for(work())


def test_wrong_passwords_are_limited_by_address_and_the_answer_says_so() -> None:
    async def work() -> None:
        async with running(attempts_per_name=100) as site:
            for _ in range(4):
                status, text, _ = await site.log_in(password="wrong")
                assert status == 401 and "Wrong name or password." in text
            status, text, headers = await site.log_in()
            assert status == 429, "the right password is refused, too"
            assert "Too many wrong logins from your address. Try again in 60 seconds." in text
            assert headers["Retry-After"] == "60"
            assert site.cookies.get("__Host-portal") is None
            site.clock.now += 61
            assert (await site.log_in())[0] == 303

    wait_for(work())


def test_tries_at_the_same_time_are_all_counted() -> None:
    async def work() -> None:
        async with running() as site:
            token = await site.token()
            form = {"name": "admin", "password": "wrong", "token": token, "next": "/"}
            statuses = [status for status, _, _ in await asyncio.gather(*(site.post("/login", form) for _ in range(30)))]
            assert statuses.count(401) <= 3 and set(statuses) <= {401, 429, 503}

    wait_for(work())


def test_a_name_is_locked_wherever_it_is_tried_from_but_not_for_its_owners_browser() -> None:
    async def work() -> None:
        async with running(proxies=frozenset({"127.0.0.1"}), attempts_per_name=3) as site:
            await site.log_in(X_Forwarded_For="192.0.2.1")
            owner = dict(site.cookies)
            site.cookies.clear()
            for number in range(3):
                assert (await site.log_in(password="wrong", X_Forwarded_For=f"192.0.2.{10 + number}"))[0] == 401
            status, text, _ = await site.log_in(X_Forwarded_For="192.0.2.99")
            assert status == 429 and "This name is locked after too many wrong logins." in text
            assert (await site.log_in(name="eve", password="another password", X_Forwarded_For="192.0.2.99"))[0] == 303
            site.cookies = {name: value for name, value in owner.items() if name == "__Host-portal-known"}
            assert (await site.log_in(X_Forwarded_For="192.0.2.1"))[0] == 303

    wait_for(work())


def test_names_that_do_not_exist_are_locked_and_answered_like_others() -> None:
    async def work() -> None:
        async with running(attempts_per_address=100) as site:
            answers = [[(await site.log_in(name=name, password="wrong"))[:2] for _ in range(4)] for name in ("admin", "nobody")]
            assert [status for status, _ in answers[0]] == [status for status, _ in answers[1]] == [401, 401, 401, 429]
            assert answers[0][0][1].replace("admin", "nobody") == answers[1][0][1]

    wait_for(work())


def test_forwarded_addresses_are_believed_of_the_edge_only() -> None:
    edges = frozenset({"10.0.0.1", "10.0.0.2"})
    assert login.client("192.0.2.1", "198.51.100.7", edges) == "192.0.2.1"
    assert login.client("10.0.0.1", "198.51.100.7", edges) == "198.51.100.7"
    assert login.client("10.0.0.1", "1.2.3.4, 198.51.100.7", edges) == "198.51.100.7", "what the client wrote itself is left of it"
    assert login.client("10.0.0.1", "198.51.100.7, 10.0.0.2", edges) == "198.51.100.7"
    assert login.client("10.0.0.1", "not an address", edges) == "10.0.0.1"
    assert login.client("10.0.0.1", "", edges) == "10.0.0.1"

    async def work() -> None:
        async with running(attempts_per_name=100) as site:
            statuses = [(await site.log_in(password="wrong", X_Forwarded_For=f"192.0.2.{number}"))[0] for number in range(5)]
            assert statuses == [401, 401, 401, 401, 429]

    wait_for(work())


def test_an_ipv6_client_is_its_network() -> None:
    assert login.origin("2001:db8:1:2:aaaa::1") == login.origin("2001:db8:1:2::7") != login.origin("2001:db8:1:3::7")
    assert login.origin("::ffff:192.0.2.1") == "192.0.2.1"
    assert login.origin("garbage") == "garbage"


@pytest.mark.parametrize("headers", [{"Origin": "https://evil.test"}, {"Origin": "null"}, {"Sec_Fetch_Site": "cross-site"}, {"Sec_Fetch_Site": "same-site"}])
def test_forms_of_other_pages_are_refused(headers: dict[str, str]) -> None:
    async def work() -> None:
        async with running() as site:
            assert (await site.log_in(**headers))[0] == 403
            await site.log_in()
            token = await logout_token(site)
            assert (await site.post("/logout", {"token": token}, **headers))[0] == 403
            assert (await site.get("/"))[0] == 200

    wait_for(work())


@pytest.mark.parametrize("token", ["", "x", "é"])
def test_a_form_without_our_token_is_refused(token: str) -> None:
    async def work() -> None:
        async with running() as site:
            await site.token()
            status, text, _ = await site.post("/login", {"name": "admin", "password": PASSWORD, "token": token})
            assert status == 403 and "Please try once more." in text
            good = await site.token()
            site.cookies.clear()
            assert (await site.post("/login", {"name": "admin", "password": PASSWORD, "token": good}))[0] == 403, "the token is bound to its browser"
            await site.log_in()
            assert (await site.post("/logout", {"token": token}))[0] == 403

    wait_for(work())


async def logout_token(site: Running) -> str:
    return (await site.get("/"))[1].split('name="token" value="')[1].split('"')[0]


def test_who_logs_out_is_out_everywhere() -> None:
    async def work() -> None:
        async with running() as site:
            await site.log_in()
            kept = dict(site.cookies)
            status, _, headers = await site.post("/logout", {"token": await logout_token(site)})
            assert (status, headers["Location"]) == (303, "/login")
            assert "__Host-portal" not in site.cookies
            site.cookies = dict(kept)
            assert (await site.get("/"))[0] == 401, "the cookie of before is worth nothing"
            for _ in range(50):
                if site.upstream.told:
                    break
                await asyncio.sleep(0.02)
            told = site.upstream.told[0]
        async with running() as other:
            other.cookies = dict(kept)
            assert (await other.get("/"))[0] == 200
            async with other.session.post(other.url + "/session-ended", json={**told, "signature": "x" * 43}) as answer:
                assert answer.status == 401
            assert (await other.get("/"))[0] == 200
            async with other.session.post(other.url + "/session-ended", json=told) as answer:
                assert answer.status == 204
            assert (await other.get("/"))[0] == 401

    wait_for(work())


def test_sessions_end_by_themselves() -> None:
    async def work() -> None:
        async with running() as site:
            await site.log_in()
            site.clock.now += 12 * 3600 - 1
            assert (await site.get("/"))[0] == 200
            site.clock.now += 2
            assert (await site.get("/"))[0] == 401

    wait_for(work())


def test_a_session_is_bound_to_key_name_and_password() -> None:
    mine = login.Keyring(b"k" * 44, {"admin": "hash one"})
    token = mine.session("admin", 1000)
    found = mine.who(token, 999)
    assert found is not None and found.name == "admin"
    assert login.Keyring(b"other" * 9, {"admin": "hash one"}).who(token, 999) is None
    assert login.Keyring(b"k" * 44, {"admin": "hash two"}).who(token, 999) is None, "another password ends it"
    assert login.Keyring(b"k" * 44, {}).who(token, 999) is None, "who may not come any more is out"
    assert mine.who(token, 1000) is None
    text, _, signature = token.partition(".")
    forged = login.encode(json.dumps(["admin", 99999, "x"]).encode())
    for bad in (f"{forged}.{signature}", text, f"{text}.", f".{signature}", "", "a.b.c", f"{text}.{signature[:-1]}", "é.é", login.encode(b"[" * 9000) + ".x"):
        assert mine.who(bad, 1) is None
    assert not mine.knows(token, "admin", 1), "a session is no mark of a browser"
    assert mine.who(mine.known("admin", 1000), 1) is None, "and the other way round"
    assert mine.knows(mine.known("admin", 1000), "admin", 1) and not mine.knows(mine.known("admin", 1000), "eve", 1)


def test_the_limiter_forgets_what_is_old_and_who_was_quiet_longest() -> None:
    limiter = login.Limiter(2, 10, most=3)
    for now in (0.0, 1.0):
        assert limiter.wait("a", now) == 0
        limiter.count("a", now)
    assert limiter.wait("a", 4) == 6
    assert limiter.wait("a", 10.5) == 0
    for key in "bcd":
        limiter.count(key, 11)
    assert len(limiter._failures) == 3 and "a" not in limiter._failures
    limiter.count("b", 12)
    limiter.forgive("b", 12)
    assert limiter.wait("b", 12) == 0


def test_passwords_are_hashed_as_the_program_reads_them() -> None:
    stored = FilterModule().filters()["scrypt"]("pässword", "a salt of its own", cost=1024)
    assert stored.startswith("scrypt$1024$8$1$")
    assert stored == scrypt("pässword", "a salt of its own", cost=1024) != scrypt("pässword", "another salt", cost=1024)
    assert login.verify("pässword", stored)
    assert not login.verify("password", stored)
    assert not login.verify("", login.NOBODY)
    assert login.decode(login.NOBODY.split("$")[5]), "what unknown names are verified against costs as much"
    for bad in ("", "plain", "scrypt$3$8$1$YQ$YQ", "scrypt$x$8$1$YQ$YQ", "md5$1$1$1$YQ$YQ", "scrypt$1024$8$1$*$YQ"):
        assert not login.verify("x", bad)


def test_the_hash_is_that_of_rfc_7914() -> None:
    """Its test vectors have shorter salts than the filter takes, so the program's side is held to them."""
    wanted = "fdbabe1c9d3472007856e7190d01e9fe7c6ad7cbc8237830e77376634b3731622eaf30d92e22a3886ff109279d9830dac727afb94a83ee6d8360cbdfa2cc0640"
    assert login.verify("password", f"scrypt$1024$8$16${login.encode(b'NaCl')}${login.encode(bytes.fromhex(wanted))}")


@pytest.mark.parametrize(("salt", "cost"), [("short", 16384), ("long enough", 1000), ("long enough", 512), ("long enough", 1 << 21)])
def test_what_the_filter_does_not_take_is_said(salt: str, cost: int) -> None:
    with pytest.raises(ValueError, match="scrypt: "):
        scrypt("x", salt, cost)


def test_every_answer_tells_browsers_what_they_may_do() -> None:
    async def work() -> None:
        async with running() as site:
            answers: list[Any] = [await site.get(path) for path in ("/login", "/health", "/nowhere", "/static/portal.css")]
            await site.log_in()
            answers += [await site.get(path) for path in ("/", "/nodes/nobody", "/logs")]
            for _, text, headers in answers:
                policy = headers["Content-Security-Policy"]
                assert "default-src 'none'" in policy and "unsafe" not in policy and "frame-ancestors 'none'" in policy
                assert headers["X-Content-Type-Options"] == "nosniff" and headers["Server"] == "portal"
                assert " style=" not in text and "onclick" not in text and "<script>" not in text
            assert answers[0][2]["Cache-Control"] == "no-store"
            _, _, headers = await site.get("/", Host="portal.three.test")
            assert headers["Strict-Transport-Security"] == "max-age=31536000"
            assert "Strict-Transport-Security" not in answers[4][2], "names of nodes serve other things, too"

    wait_for(work())


def test_too_much_is_refused() -> None:
    async def work() -> None:
        async with running() as site:
            token = await site.token()
            status, text, _ = await site.post("/login", {"name": "x" * 40_000, "password": "x", "token": token})
            assert status == 413 and "Traceback" not in text

    wait_for(work())


def test_secrets_are_not_shown_by_accident() -> None:
    assert "token-of-consul" not in repr(SECRETS) and "scrypt" not in repr(SECRETS) and "kkkk" not in repr(SECRETS)
