# SPDX-License-Identifier: Apache-2.0
"""Playbooks, as an operator runs them."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .plan import ROOT, Plan


def site_file(plan: Plan) -> Path:
    """The file that describes the site, 20-stack.yml."""
    [file] = Path(plan.shared["site_directory"]).glob("*stack.yml")
    return file


def command(plan: Plan, name: str, *arguments: str) -> list[str]:
    """The words that run playbooks/<name>.yml, or site.yml, from the checkout."""
    file = ROOT / "site.yml" if name == "site" else ROOT / "playbooks" / f"{name}.yml"
    return [str(Path(sys.executable).parent / "ansible-playbook"), "-i", str(plan.inventory), str(file), *arguments]


def playbook(plan: Plan, name: str, *arguments: str) -> tuple[int, str]:
    """(exit code, what was said) of a run of playbooks/<name>.yml, or of site.yml."""
    environment = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")}
    done = subprocess.run(command(plan, name, *arguments), cwd=ROOT, env=environment, capture_output=True, text=True, timeout=1200, check=False)
    return done.returncode, done.stdout + done.stderr


@contextmanager
def killed(plan: Plan, seconds: float, name: str, *arguments: str) -> Iterator[None]:
    """A run that is killed after so many seconds. Its workers are in sessions of their own, may wait for it for ever, and end with the block."""
    words = command(plan, name, *arguments)
    first = subprocess.Popen(words, cwd=ROOT, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        first.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(first.pid, signal.SIGKILL)
        first.wait()
    try:
        yield
    finally:
        subprocess.run(["pkill", "-KILL", "-f", "--", " ".join(words[1:])], check=False)


def moment(least: float, most: float, number: int = 0) -> float:
    """Seconds after which something is to be killed, by chance, of one seed the nth; the seed is printed, and ASHLAR_SEED gives it again."""
    seed = int(os.environ.get("ASHLAR_SEED") or random.randrange(10_000))
    os.environ["ASHLAR_SEED"] = str(seed)
    chosen = random.Random(seed + number).uniform(least, most)
    print(f"ASHLAR_SEED={seed}: killed after {chosen:.1f} s")
    return chosen


def words(said: str) -> str:
    """What was said, on one line: terminals wrap it anywhere."""
    return " ".join(said.split())


def changes(said: str) -> set[str]:
    """How many tasks changed something, over all hosts of a run: {"0"} where nothing did."""
    return set(re.findall(r"changed=(\d+)", said))


def run(plan: Plan, name: str, *arguments: str) -> str:
    """What a run said. An AssertionError when it fails."""
    code, said = playbook(plan, name, *arguments)
    assert code == 0, said[-5000:]
    return said


def site_yml(plan: Plan, *arguments: str) -> str:
    """What a run of the whole site said. An AssertionError when it fails."""
    return run(plan, "site", *arguments)
