# SPDX-License-Identifier: Apache-2.0
"""Servers of Consul take turns when they are restarted: told by what a pretended agent answers."""

from __future__ import annotations

import base64
import importlib.machinery
import importlib.util
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

FILE = Path(__file__).parents[3] / "roles/consul/templates/usr/local/libexec/ashlar/consul-turn"
TIMEOUT = TimeoutError("The read operation timed out")


class Agent:
    """The lock and the servers' health; every question takes a second of the clock. `faults` come first, one a question; None is none."""

    def __init__(self) -> None:
        self.holder, self.session, self.well, self.status = "", "", [True], 200
        self.asked: list[str] = []
        self.faults: Iterator[OSError | None] = iter(())
        self.now = itertools.count()

    def ask(self, method: str, path: str, body: Any = None) -> tuple[int, str]:
        self.asked.append(f"{method} {path}")
        if fault := next(self.faults, None):
            raise fault
        if self.status != 200:
            return self.status, "No cluster leader"
        if path.endswith("/session/create"):
            return 200, json.dumps({"ID": "mine"})
        if path.endswith("/autopilot/health"):
            return (200 if (self.well.pop(0) if len(self.well) > 1 else self.well[0]) else 429), "{}"
        if "acquire=" in path:
            if not self.holder:
                self.holder, self.session = str(body), path.partition("acquire=")[2]
            return 200, "true" if self.session == path.partition("acquire=")[2] else "false"
        if "/session/destroy/" in path:
            self.session = ""
            return 200, "true"
        entry = {"Value": base64.b64encode(self.holder.encode()).decode(), **({"Session": self.session} if self.session else {})}
        return (200, json.dumps([entry])) if self.holder else (404, "")


@pytest.fixture
def agent() -> Agent:
    return Agent()


@pytest.fixture
def turn(agent: Agent, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    loader = importlib.machinery.SourceFileLoader("consul_turn", str(FILE))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("consul_turn", loader))
    monkeypatch.setattr("sys.dont_write_bytecode", True)
    loader.exec_module(module)
    monkeypatch.setattr(module, "ask", agent.ask)
    monkeypatch.setattr(module.time, "monotonic", lambda: float(next(agent.now)))
    monkeypatch.setattr(module.time, "sleep", lambda _: None)
    monkeypatch.setattr(module.subprocess, "run", lambda *_, **__: type("Done", (), {"stdout": "running\n"})())
    return module


def test_the_first_takes_the_turn_and_gives_it_back_when_all_are_well(turn: ModuleType, agent: Agent) -> None:
    assert turn.take("node1") == ""
    assert agent.holder == "node1" and agent.session == "mine"
    agent.well = [False, False, True]
    assert turn.give("node1") == ""
    assert agent.asked[-1] == "PUT /v1/session/destroy/mine" and agent.asked.count("GET /v1/operator/autopilot/health") == 4


def test_nobody_stops_while_another_one_is_not_back(turn: ModuleType, agent: Agent) -> None:
    agent.holder, agent.session = "node2", "another"
    assert "turn does not end" in turn.take("node1"), "for a minute"
    agent.holder, agent.session, agent.well = "", "", [False]
    assert "not all servers are well" in turn.take("node1")


def test_the_turn_of_another_is_not_given_back(turn: ModuleType, agent: Agent) -> None:
    assert turn.give("node1") == ""
    agent.holder, agent.session = "node2", "another"
    assert turn.give("node1") == ""
    assert agent.session == "another"


@pytest.mark.parametrize("status", [500, 403])
def test_without_a_leader_that_knows_the_token_nothing_is_held_up_for_long(turn: ModuleType, agent: Agent, status: int) -> None:
    agent.status = status
    assert "no leader" in turn.take("node1")
    assert next(agent.now) < 60


def test_an_answer_that_does_not_come_is_waited_for(turn: ModuleType, agent: Agent) -> None:
    """While the leader changes, an agent holds its answer back."""
    agent.faults = iter([TIMEOUT, None, TIMEOUT])
    assert turn.take("node1") == "" and agent.session == "mine"
    assert agent.asked.count("PUT /v1/session/create") == 2 and len([one for one in agent.asked if "acquire=mine" in one]) == 2


def test_an_agent_that_never_answers_holds_nothing_up_for_long(turn: ModuleType, agent: Agent) -> None:
    agent.faults = itertools.repeat(TIMEOUT)
    assert "no leader" in turn.take("node1")
    agent.faults, agent.asked = itertools.repeat(ConnectionRefusedError(111, "Connection refused")), []
    assert "no agent runs" in turn.take("node1") and len(agent.asked) == 1


def test_a_host_that_is_stopping_waits_for_nobody(turn: ModuleType, agent: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turn.subprocess, "run", lambda *_, **__: type("Done", (), {"stdout": "stopping\n"})())
    assert "stopping" in turn.take("node1")
    assert agent.asked == []
