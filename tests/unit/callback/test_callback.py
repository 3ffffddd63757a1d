# SPDX-License-Identifier: Apache-2.0
"""Whole runs of small playbooks on this machine, as they are printed into a pipe and onto a terminal."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
INVENTORY = """
n1 ansible_connection=local
n2 ansible_connection=local
"""
PLAYBOOK = """
- name: base | hosts
  hosts: n1:n2
  gather_facts: false
  tasks:
    - name: Something is installed
      ansible.builtin.debug: {msg: shown text}
      changed_when: inventory_hostname == 'n1'
    - name: A secret passes
      ansible.builtin.debug: {msg: s3cret}
      no_log: true
- name: base | nobody
  hosts: all:!n1:!n2
  gather_facts: false
  tasks: [{ansible.builtin.debug: {msg: never}}]
- name: coordination | etcd
  hosts: n1:n2
  gather_facts: false
  tasks:
    - name: Etcd answers
      ansible.builtin.fail: {msg: no leader}
      when: fails | default(false) and inventory_hostname == 'n2'
- name: every layer | page
  hosts: n1
  gather_facts: false
  tasks:
    - name: The page is told
      ansible.builtin.set_stats:
        data: {ashlar_page: {Platform: {API endpoint: "https://10.0.0.1:6443"}}}
"""


@pytest.fixture
def command(tmp_path: Path) -> list[str]:
    (tmp_path / "inventory").write_text(INVENTORY)
    (tmp_path / "play.yml").write_text(PLAYBOOK)
    program = Path(sys.executable).parent / "ansible-playbook"
    return [str(program), "-i", str(tmp_path / "inventory"), str(tmp_path / "play.yml")]


def environment(**more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("ANSIBLE_", "ASHLAR_"))}
    return kept | {
        "ANSIBLE_STDOUT_CALLBACK": "ashlar.stack.ashlar",
        "ANSIBLE_INVENTORY_ENABLED": "ini",
        "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
        "ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".collections"),
        **more,
    }


def test_a_good_run_ends_with_the_page_and_tells_machines_its_numbers(command: list[str], tmp_path: Path) -> None:
    timings = tmp_path / "timings.json"
    done = subprocess.run(command, env=environment(ASHLAR_TIMINGS=str(timings)), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    # Hosts answer in any order.
    assert re.search(r"^base\n(    n[12]: shown text\n){2}  hosts +2 hosts +1 changed", done.stdout, re.MULTILINE)
    assert "    n1: shown text\n" in done.stdout and "    n2: shown text\n" in done.stdout
    assert "    ~ Something is installed (n1)\n" in done.stdout
    assert "  etcd                     2 hosts     ok" in done.stdout
    assert "nobody" not in done.stdout
    assert "\nPlatform\n  API endpoint  https://10.0.0.1:6443\n" in done.stdout
    assert re.search(r"^n1 +: ok=\d+ +changed=1 ", done.stdout, re.MULTILINE)
    assert re.search(r"^n2 +: ok=\d+ +changed=0 ", done.stdout, re.MULTILINE)
    assert "s3cret" not in done.stdout
    assert "\x1b" not in done.stdout
    assert "\r" not in done.stdout
    assert json.loads(timings.read_text())["hosts"]["n2"]["host_tasks"] == 3


def test_check_mode_ends_with_the_plan_which_can_be_all_that_is_printed(command: list[str], tmp_path: Path) -> None:
    timings, site = tmp_path / "timings.json", tmp_path / "site.yml"
    (tmp_path / "play.yml").rename(site)
    command[-1] = str(site)
    brief = environment(ASHLAR_TIMINGS=str(timings), ASHLAR_BRIEF="true")
    done = subprocess.run([*command, "--check"], env=brief, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == (
        "\nWhat this would do\n  hosts  ensure: Something is installed (n1)\n\nNodes\n  n1  1 component, without interruption\n  n2  nothing\n"
    )
    assert json.loads(timings.read_text())["plan"] == {"n1": {"hosts": {"ensure:": ["Something is installed"]}}}
    done = subprocess.run([*command, "--check", "-e", '{"fails": true}'], env=brief, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and done.stdout.startswith("\nFailed on 1 of 2 hosts\n")
    assert [problem["message"] for problem in json.loads(timings.read_text())["problems"]] == ["n2: no leader"]


def test_a_failed_run_ends_with_what_to_do(command: list[str]) -> None:
    done = subprocess.run(
        [*command, "-e", '{"fails": true}'], env=environment(ASHLAR_COMMAND="make site"), capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "  failed  n2: Etcd answers: no leader\n" in done.stdout
    assert done.stdout.endswith(
        "  cause   no leader\n\nWhen that is put right, run it again; it goes on from where it stopped:\n  make site\n\n"
    )
    assert "Failed on 1 of 2 hosts\n\nn2\n  task    coordination | etcd: Etcd answers\n" in done.stdout


def on_a_terminal(command: list[str]) -> str:
    """What a run that succeeds prints on a terminal."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(command, env=environment(TERM="xterm"), stdout=theirs, stderr=theirs, stdin=theirs) as running:
        os.close(theirs)
        printed = b""
        while True:
            try:
                piece = os.read(ours, 65536)
            except OSError:
                break
            if not piece:
                break
            printed += piece
        assert running.wait() == 0
    os.close(ours)
    return printed.decode()


def test_a_terminal_shows_the_running_task_and_leaves_nothing_of_it_behind(command: list[str]) -> None:
    text = on_a_terminal(command)
    assert "\r\x1b[K  etcd: Etcd answers (" in text
    # What remains of a line is what follows its last erasure.
    lines = [line.rpartition("\x1b[K")[2] for line in text.replace("\r\n", "\n").split("\n")]
    assert not [line for line in lines if "Etcd answers (" in line]


def test_a_command_that_is_tried_again_says_how_far_it_is(command: list[str], tmp_path: Path) -> None:
    (tmp_path / "play.yml").write_text(f"""
- name: storage | ceph_osd
  hosts: n1
  gather_facts: false
  tasks:
    - name: Data has moved
      ansible.builtin.shell: 'echo >>{tmp_path}/tries; echo "progress: 7 are left"; test $(wc -l <{tmp_path}/tries) -gt 2'
      register: moved
      until: moved.rc == 0
      retries: 5
      delay: 1
""")
    assert re.search(r"ceph_osd: Data has moved \(0/1 hosts, [0-9.]+ s\): 7 are left", on_a_terminal(command))
