# SPDX-License-Identifier: Apache-2.0
"""What a running HAProxy is told, compared with what it has."""

from __future__ import annotations

import random

from ashlar_edge.model import Endpoint, Settings, Slot, State
from ashlar_edge.plan import Running, Server, parse_map, parse_servers, plan
from ashlar_edge.slots import assign, size

SETTINGS = Settings(min_slots=4, drain_seconds=30)
A, B, C, D, E = (Endpoint(f"10.0.0.{number}", 80) for number in range(1, 6))


def up(*endpoints: Endpoint) -> list[Slot]:
    return [Slot(endpoint, "up", 0) for endpoint in endpoints]


def told(
    slots: list[Slot],
    servers: list[Server],
    structure: str = "s",
    maps: dict[str, dict[str, str]] | None = None,
    has: dict[str, dict[str, str]] | None = None,
):  # type: ignore[no-untyped-def]
    running = Running("s", {("b", f"s{number}"): server for number, server in enumerate(servers, 1)}, has or {})
    return plan(structure, {"b": slots}, maps or {}, "/live", running)


def test_whoever_has_a_line_keeps_it() -> None:
    first = assign([], [A, B, C], SETTINGS, 0)
    assert [slot.endpoint for slot in first] == [A, B, C, None]
    assert [slot.endpoint for slot in assign(first, [B, C, D], SETTINGS, 1)][1:] == [B, C, D]


def test_who_leaves_drains_before_another_takes_the_line() -> None:
    slots = assign(up(A, B, C) + [Slot()], [A, B], SETTINGS, 100)
    assert slots[2] == Slot(C, "drain", 100)
    assert assign(slots, [A, B, D], SETTINGS, 110)[2:] == (Slot(C, "drain", 100), Slot(D, "up", 110))
    assert assign(slots, [A, B], SETTINGS, 131)[2] == Slot()
    assert assign(slots, [A, B, D, E], SETTINGS, 110)[2] == Slot(E, "up", 110), "rather than a reload, when no other is free"
    assert assign(slots, [A, B, C], SETTINGS, 110)[2] == Slot(C, "up", 110), "who comes back takes its own"


def test_lines_grow_by_powers_of_two_and_shrink_only_when_absurd() -> None:
    assert [size(needed, 0, 4) for needed in (0, 3, 4, 6, 7)] == [4, 4, 8, 8, 16]
    assert size(4, 4, 4) == 4 and size(5, 4, 4) == 8 and size(0, 32, 4) == 32 and size(0, 64, 4) == 4


def test_lines_always_hold_every_instance_once() -> None:
    chance = random.Random(7)
    slots: tuple[Slot, ...] = ()
    for now in range(400):
        wanted = chance.sample([Endpoint("10.0.0.1", port) for port in range(1, 60)], chance.randrange(40))
        slots = assign(slots, wanted, SETTINGS, now * 5)
        assert sorted(slot.endpoint for slot in slots if slot.endpoint and slot.state == "up") == sorted(wanted)
        known = [slot.endpoint for slot in slots if slot.endpoint]
        assert len(known) == len(set(known))


def test_a_newcomer_is_addressed_and_then_let_in() -> None:
    found = told([*up(A), Slot(B, "up")], [Server("10.0.0.1", 80, 0), Server("127.0.0.1", 1, 5)])
    assert not found.reload
    assert found.commands == ("set server b/s2 addr 10.0.0.2 port 80", "set server b/s2 state ready")


def test_a_line_that_changes_hands_lets_nobody_in_meanwhile() -> None:
    assert told(up(B), [Server("10.0.0.1", 80, 0)]).commands == (
        "set server b/s1 state maint",
        "set server b/s1 addr 10.0.0.2 port 80",
        "set server b/s1 state ready",
    )


def test_who_leaves_is_drained_and_who_is_gone_rests() -> None:
    assert told([Slot(A, "drain")], [Server("10.0.0.1", 80, 0)]).commands == ("set server b/s1 state drain",)
    assert told([Slot(A, "drain")], [Server("10.0.0.1", 80, 8)]).commands == ()
    assert told([Slot()], [Server("10.0.0.1", 80, 8)]).commands == ("set server b/s1 state maint",)
    assert told([Slot(A, "drain")], [Server("10.0.0.1", 80, 5)]).commands == (), "a reload in between has disabled it"


def test_a_line_that_was_disabled_in_the_file_and_is_ready_counts_as_up() -> None:
    assert told(up(A), [Server("10.0.0.1", 80, 4)]).commands == ()
    assert told([Slot(A, "drain")], [Server("10.0.0.1", 80, 4)]).commands == ("set server b/s1 state drain",)


def test_another_structure_or_a_missing_line_needs_a_reload() -> None:
    assert told(up(A), [Server("10.0.0.1", 80, 0)], structure="t").reload
    assert told(up(A, B), [Server("10.0.0.1", 80, 0)]).reload


def test_maps_follow_by_the_least_commands() -> None:
    found = told([], [], maps={"m": {"a": "1", "b": "2"}}, has={"m": {"b": "3", "c": "4"}})
    assert found.commands == ("add map /live/m a 1", "set map /live/m b 2", "del map /live/m c")


def test_what_haproxy_says_is_read_by_the_names_of_columns() -> None:
    text = "1\n# be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state x srv_port\n6 b 1 s1 10.0.0.1 2 0 - 8080\n6 b 2 s2 127.0.0.1 0 5 - 1\n\n"
    assert parse_servers(text) == {("b", "s1"): Server("10.0.0.1", 8080, 0), ("b", "s2"): Server("127.0.0.1", 1, 5)}
    assert parse_map("0x55 a.example.com/ b1\n0x56 c/ b2\n\n") == {"a.example.com/": "b1", "c/": "b2"}


def test_the_state_is_remembered_and_a_broken_one_forgotten() -> None:
    state = State({"a/": "s"}, {"c/": ("t", 1.5)}, {"b": (Slot(A, "drain", 3.5), Slot())}, (20001,))
    assert State.parse(state.text()) == state
    assert State.parse("") == State.parse('{"owners": 3}') == State.parse("[]") == State()
