# SPDX-License-Identifier: Apache-2.0
"""Turns are taken by processes, as Ansible's forks are."""

from __future__ import annotations

import multiprocessing
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.ashlar.stack.plugins.plugin_utils.turns import TurnError, turn

FORK = multiprocessing.get_context("fork")


def hold(folder: Path, slots: int, entered: Any, leave: Any) -> None:
    with turn(folder, "toy", "a", slots, 60):
        entered.release()
        leave.wait(60)


@pytest.mark.parametrize("slots", [1, 2])
def test_no_more_members_are_away_than_may_be_and_one_that_is_killed_gives_its_turn_back(tmp_path: Path, slots: int) -> None:
    entered, leave = FORK.Semaphore(0), FORK.Event()
    holders = [FORK.Process(target=hold, args=(tmp_path, slots, entered, leave)) for _ in range(slots)]
    for holder in holders:
        holder.start()
    assert all(entered.acquire(timeout=60) for _ in holders)
    with pytest.raises(TurnError, match="no turn within 0 s"), turn(tmp_path, "toy", "b", slots, 0):
        pass
    with turn(tmp_path, "other", "b", slots, 0):
        pass
    os.kill(holders[0].pid or 0, signal.SIGKILL)
    holders[0].join()
    with turn(tmp_path, "toy", "b", slots, 0):
        pass
    # An event whose waiter was killed can't be set any more.
    for holder in holders[1:]:
        holder.kill()
        holder.join()


def test_a_member_that_does_not_come_back_stops_the_others(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), turn(tmp_path, "toy", "alpha", 1, 0):
        raise RuntimeError
    with pytest.raises(TurnError, match="the turn of alpha failed"), turn(tmp_path, "toy", "beta", 1, 0):
        pass
    with turn(tmp_path, "other", "beta", 1, 0):
        pass
