# SPDX-License-Identifier: Apache-2.0
"""Two runs that would change one site at the same time, of which the second is told about the first."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from ansible_collections.ashlar.stack.plugins.action.lock import refusal
from ansible_collections.ashlar.stack.plugins.plugin_utils.site.lock import LOCK, Holder, hold, release, started

ALICE = Holder("alice", "deploy-1", 4711, "Sun Nov 29 08:00:00 2026", "2026-11-29 08:00:01 UTC", "playbooks/maintain.yml")
BOB = Holder("bob", "deploy-1", 4800, "Sun Nov 29 08:05:00 2026", "2026-11-29 08:05:01 UTC", "site.yml")
ROOT = Path(__file__).parents[3]


def running(*runs: Holder) -> dict[int, str]:
    return {run.process: run.started for run in runs}


def test_the_second_run_finds_the_first(tmp_path: Path) -> None:
    there = running(ALICE, BOB)
    began = lambda process: there.get(process, "")  # noqa: E731
    assert hold(tmp_path, ALICE, began=began) is None
    assert hold(tmp_path, ALICE, began=began) is None, "one command may run several playbooks"
    assert hold(tmp_path, BOB, began=began) == ALICE
    assert not release(tmp_path, BOB), "what is another's is not released"
    assert hold(tmp_path, BOB, began=began) == ALICE
    assert release(tmp_path, ALICE)
    assert hold(tmp_path, BOB, began=began) is None


@pytest.mark.parametrize("there", [{}, {ALICE.process: "Sun Nov 29 09:00:00 2026"}])
def test_a_run_that_was_killed_holds_nothing_though_its_process_id_may_be_in_use_again(there: dict[int, str], tmp_path: Path) -> None:
    hold(tmp_path, ALICE)
    assert hold(tmp_path, BOB, began=lambda process: there.get(process, "")) is None


def test_a_run_on_another_machine_holds_the_site_until_somebody_takes_over(tmp_path: Path) -> None:
    away = replace(ALICE, host="deploy-2")
    hold(tmp_path, away)
    assert hold(tmp_path, BOB, began=lambda process: "") == away
    assert hold(tmp_path, BOB, take=True, began=lambda process: "") is None
    assert json.loads((tmp_path / LOCK).read_text())["user"] == "bob"


@pytest.mark.parametrize("content", ["", "{", "[]", '{"user": "alice"}', "null"])
def test_a_file_that_is_cut_short_holds_nothing(content: str, tmp_path: Path) -> None:
    (tmp_path / LOCK).parent.mkdir()
    (tmp_path / LOCK).write_text(content)
    assert hold(tmp_path, BOB) is None


def test_when_a_process_began_does_not_change_and_one_that_is_gone_never_began() -> None:
    mine = started(os.getpid())
    assert mine and mine == started(os.getpid())
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    assert started(child.pid) == ""


def test_the_refusal_says_who_since_when_and_what_to_do() -> None:
    told = refusal(Path("/srv/prod"), ALICE)
    assert told.startswith("The site prod is being changed by another run: playbooks/maintain.yml, of alice on deploy-1, process 4711, since 2026")
    assert "Nothing was changed." in told and "-e take_lock=true" in told


PLAYBOOK = """
- hosts: localhost
  connection: local
  gather_facts: false
  tasks:
    - ashlar.stack.lock: {directory: "{{ folder }}", take: "{{ take | default(false) }}"}
    - ansible.builtin.command: sh -c 'touch {{ folder }}/begun; until [ -e {{ folder }}/end ]; do sleep 0.1; done'
      when: wait is defined
"""


def test_a_real_run_holds_the_site_as_long_as_it_lives(tmp_path: Path) -> None:
    (tmp_path / "play.yml").write_text(PLAYBOOK)
    command = [str(Path(sys.executable).parent / "ansible-playbook"), "-i", "localhost,", str(tmp_path / "play.yml"), "-e", f"folder={tmp_path}"]

    def run(*more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*command, *more], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)

    with subprocess.Popen([*command, "-e", "wait=true"], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True) as first:
        while not (tmp_path / "begun").exists():
            assert first.poll() is None
            time.sleep(0.05)
        second = run()
        assert second.returncode == 2 and "another run" in second.stdout and f"process {first.pid}" in " ".join(second.stdout.split())
        assert run("--check").returncode == 0, "check mode is in nobody's way"
        os.killpg(first.pid, 9)
        # A task that runs outlives its run.
        (tmp_path / "end").touch()
    assert run().returncode == 0, "a run that was killed holds nothing"
