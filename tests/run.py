# SPDX-License-Identifier: Apache-2.0
"""Runs what `make test` consists of, side by side where that saves time, and stops starting new parts once one has failed.

Parts of one lane run one after another, lanes of one wave at the same time, waves one after another. Where several run at once, each writes a
log of its own, which is printed whole when the part fails; meanwhile a line now and then says how far each is.

At the end: how long each part took and its slowest tests, how many tests were skipped for which reason, which failed and why, so that the end of
a long log is enough, and in the last line how many commands passed and failed. What was not reached counts as neither and is named.
"""

from __future__ import annotations

import argparse
import datetime
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parent.parent
BIN = ROOT / ".venv" / "bin"
LOGS = ROOT / ".cache" / "tests"
RESULTS = ROOT / "bench" / "results"

Wave = Sequence[Sequence[str]]
"""Lanes of names of parts."""


def _scenario(name: str) -> list[list[str]]:
    return [[str(BIN / "molecule"), "test", "--scenario-name", name]]


PARTS: dict[str, list[list[str]]] = {
    "lint": [
        [str(BIN / "ruff"), "check", "artifacts", "plugins", "programs", "tests", "bench", "docs"],
        [str(BIN / "mypy"), ".collections/ansible_collections/ashlar/stack/plugins", "programs/edge/ashlar_edge", "programs/portal/ashlar_portal"],
        [str(BIN / "yamllint"), "--strict", "."],
        [str(BIN / "ansible-lint"), "--strict", "--offline", "site.yml", "playbooks", "roles"],
        [str(BIN / "python"), "docs/build.py", "--check"],
    ],
    # With the integration tests, which mostly wait for a program of theirs and so cost little beside the others.
    # Stealing keeps the tests of a file together until a worker has nothing left, so what a file prepares is mostly prepared once.
    "unit": [[str(BIN / "python"), "-m", "pytest", f"--numprocesses={os.cpu_count()}", "--dist=worksteal"]],
    **{f"molecule {name}": _scenario(name) for name in ("etcd", "consul", "toy", "ceph", "volumes", "monitoring", "terraform", "default")},
    "life": _scenario("life"),
    "openstack": _scenario("openstack"),
}
# Small sites mostly wait, so two fit on two cores. The whole platform keeps both busy and runs alone.
WAVES: list[Wave] = [
    [["lint"], ["unit"]],
    [["molecule etcd", "molecule monitoring"], ["molecule consul", "molecule toy", "molecule ceph", "molecule volumes", "molecule terraform"]],
    [["molecule default"]],
]
# Too long for every change.
LONG: list[Wave] = [[["life"]], [["openstack"]]]

PROGRESS_SECONDS = 60
SLOWEST = 5
# Of a failed test's reason, shown at the end: its last lines are what was asserted.
REASON_LINES = 12


@dataclass
class Part:
    """A part and what became of it; `doing` is the command that runs."""

    name: str
    commands: list[list[str]]
    log: Path
    report: Path
    began: float = 0.0
    seconds: float = 0.0
    passed: int = 0
    failed: int = 0
    doing: str = ""
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Test:
    """A test of a report by pytest (JUnit XML); `problems` are the ends of the reasons why it failed, `skipped` is why it was not run."""

    name: str
    seconds: float
    problems: tuple[str, ...]
    skipped: str


def tests_of(report: Path) -> list[Test]:
    """Empty where there is no report, or a run was killed while it wrote one."""
    try:
        cases = list(ElementTree.parse(report).iter("testcase"))
    except (OSError, ElementTree.ParseError):
        return []
    found = []
    for case in cases:
        problems = []
        for problem in [*case.iter("failure"), *case.iter("error")]:
            lines = [line for line in (problem.text or problem.get("message", "")).splitlines() if line.strip()]
            problems.append("\n    ".join(lines[-REASON_LINES:]))
        skip = case.find("skipped")
        reason = "" if skip is None else skip.get("message") or "no reason given"
        found.append(Test(f"{case.get('classname')}::{case.get('name')}", float(case.get("time", 0)), tuple(problems), reason))
    return found


def last_line(log: Path) -> str:
    """The last line of a log that says something, short."""
    with suppress(OSError), log.open("rb") as stream:
        stream.seek(max(0, log.stat().st_size - 4096))
        text = re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", stream.read().decode(errors="replace"))
        return next((" ".join(line.split())[-100:] for line in reversed(text.splitlines()) if line.strip()), "")
    return ""


class Run:
    """Parts in lanes and waves, with what they need of the environment."""

    def __init__(self, parts: Mapping[str, list[list[str]]], waves: Sequence[Wave], environment: Mapping[str, str], logs: Path) -> None:
        logs.mkdir(parents=True, exist_ok=True)
        self.waves = [[[self._part(name, parts[name], logs) for name in lane] for lane in wave] for wave in waves]
        self.environment, self.logs = environment, logs
        self.stopped = False

    @staticmethod
    def _part(name: str, commands: list[list[str]], logs: Path) -> Part:
        file = logs / name.replace(" ", "-")
        part = Part(name, commands, file.with_suffix(".log"), file.with_suffix(".xml"))
        for left in (part.log, part.report):
            left.unlink(missing_ok=True)
        return part

    def parts(self) -> Iterator[Part]:
        return (part for wave in self.waves for lane in wave for part in lane)

    @property
    def failed(self) -> bool:
        return any(part.failed for part in self.parts())

    def run(self) -> None:
        for wave in self.waves:
            if self.failed or self.stopped:
                return
            alone = len(wave) == 1
            lanes = [threading.Thread(target=self._lane, args=(lane, alone), daemon=True) for lane in wave]
            for lane in lanes:
                lane.start()
            told = time.monotonic()
            while any(lane.is_alive() for lane in lanes):
                # In slices, so that a signal is handled between them.
                time.sleep(0.2)
                if not alone and time.monotonic() - told >= PROGRESS_SECONDS:
                    told = time.monotonic()
                    self._progress()

    def _lane(self, lane: Sequence[Part], alone: bool) -> None:
        for part in lane:
            if self.failed or self.stopped:
                return
            self._do(part, alone)

    def _do(self, part: Part, alone: bool) -> None:
        """Runs the commands of a part; all of them, so that every linter has its say. Alone, it writes where this program does."""
        part.began = time.monotonic()
        environment = {**self.environment, "PYTEST_ADDOPTS": f"{self.environment.get('PYTEST_ADDOPTS', '')} --junitxml={part.report}"}
        for command in part.commands:
            if self.stopped:
                break
            part.doing = " ".join([Path(command[0]).name, *command[1:]])
            headline = f"=== {part.name} | {part.doing}"
            print(f"\n{headline}" if alone else f"{headline} > {part.log}", flush=True)
            with part.log.open("ab") as log:
                log.write(f"{headline}\n".encode())
                log.flush()
                output = None if alone else log
                # A group of its own can be ended as a whole.
                process = subprocess.Popen(
                    command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output and subprocess.STDOUT, start_new_session=True
                )
                part.process = process
                code = process.wait()
                part.process = None
            part.seconds = time.monotonic() - part.began
            if self.stopped:
                break
            part.passed, part.failed = part.passed + (code == 0), part.failed + (code != 0)
            print(f"=== {part.name} | {part.doing}: {'passed' if code == 0 else f'FAILED with exit code {code}'} after {part.seconds:.0f} s", flush=True)
        part.doing = ""
        if part.failed and not alone:
            said = part.log.read_text(errors="replace")
            print(f"\n=== {part.name} | all that it said\n{said}\n=== {part.name} | end of {part.log}\n", end="", flush=True)

    def _progress(self) -> None:
        for part in self.parts():
            if part.doing:
                print(f"... {part.name}, {time.monotonic() - part.began:.0f} s: {last_line(part.log)}", flush=True)

    def stop(self) -> None:
        """Ends what runs, children and all; nothing new begins."""
        self.stopped = True
        processes = [part.process for part in self.parts() if part.process]
        for number in (signal.SIGTERM, signal.SIGKILL):
            for process in processes:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, number)
            end = time.monotonic() + 20
            while number == signal.SIGTERM and time.monotonic() < end and any(alive(process.pid) for process in processes):
                time.sleep(0.1)

    # ---- what is told

    def times(self) -> list[str]:
        """How long each part took, and its slowest tests."""
        lines = []
        for part in self.parts():
            if part.began:
                tests = sorted(tests_of(part.report), key=lambda test: -test.seconds)
                spent = f", {len(tests)} tests in {sum(test.seconds for test in tests):.0f} s" if tests else ""
                lines.append(f"{part.seconds:7.1f} s  {part.name}{spent}")
                lines += [f"{'':11}{test.seconds:7.1f} s  {test.name}" for test in tests[:SLOWEST]]
        return lines

    def skips(self) -> list[str]:
        """How many tests of each part were skipped, by reason."""
        lines = []
        for part in self.parts():
            reasons = Counter(test.skipped for test in tests_of(part.report) if test.skipped)
            if reasons:
                lines += ["", f"Skipped in {part.name}, {reasons.total()} tests:", *(f"{count:7}  {reason}" for reason, count in reasons.most_common())]
        return lines

    def failures(self) -> list[str]:
        lines = []
        for part in self.parts():
            told = [f"{test.name}\n    {problem}" for test in tests_of(part.report) for problem in test.problems] if part.failed else []
            if told:
                lines += ["", f"Failed in {part.name}:", *told]
        return lines

    def unreached(self) -> list[str]:
        return [part.name for part in self.parts() if not part.began]


def alive(group: int) -> bool:
    """Whether a process group has members that run."""
    try:
        os.killpg(group, 0)
        return True
    except OSError:
        return False


def environment_of(everything: bool) -> dict[str, str]:
    return {
        **os.environ,
        "PATH": f"{BIN}:{os.environ['PATH']}",
        "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
        "PYTHONUNBUFFERED": "1",
        # Linters and unit tests need a site that is whole without any node being up; Molecule names its own.
        "ANSIBLE_INVENTORY": str(ROOT / "inventories" / "example"),
        # Molecule would otherwise give the inventory of nodes to the playbooks that make them.
        "MOLECULE_ANSIBLE_ARGS_STRICT_MODE": "1",
        # Settings that this machine's user has for OpenTofu (mirrors, plugin folders) are not the tests'.
        "TF_CLI_CONFIG_FILE": os.devnull,
        "ASHLAR_CONFORMANCE": "all" if everything else "brief",
    }


def chosen_waves(words: Sequence[str], everything: bool) -> list[Wave]:
    """The waves of what was named: a part, or the first word of several (`molecule`); of nothing named, all that is not too long."""
    waves = [*WAVES, *LONG] if everything or words else WAVES
    chosen = [[[name for name in lane if not words or name in words or name.split()[0] in words] for lane in wave] for wave in waves]
    return [lanes for wave in chosen if (lanes := [lane for lane in wave if lane])]


def record(run: Run) -> Path:
    """Writes the times where they can be compared with those of other days."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()
    file = RESULTS / f"tests-{datetime.date.today().isoformat()}.md"
    whole = sum(max(sum(part.seconds for part in lane) for lane in wave) for wave in run.waves)
    said = f"Commit {commit}, {os.cpu_count()} cores; {whole:.0f} s in all. Each part and its slowest tests:"
    file.write_text("\n".join([f"# Tests of {datetime.date.today().isoformat()}", "", said, "", "```", *run.times(), "```", ""]))
    return file


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("parts", nargs="*", help=f"what to run, of: {', '.join(PARTS)}, molecule; default: all but life and openstack")
    parser.add_argument("--all", action="store_true", help="everything: long faults, figures, life and openstack, too")
    parser.add_argument("--record", action="store_true", help="write the times to bench/results, too")
    chosen = parser.parse_args(arguments)
    unknown = [word for word in chosen.parts if not any(word in (name, name.split()[0]) for name in PARTS)]
    if unknown:
        print(f"There is no part {', '.join(unknown)}; there are {', '.join(PARTS)}.", file=sys.stderr)
        return 2
    began = time.monotonic()
    run = Run(PARTS, chosen_waves(chosen.parts, chosen.all), environment_of(chosen.all), LOGS)

    def stop(number: int, frame: FrameType | None) -> None:
        for other in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(other, signal.SIG_IGN)
        print(f"\n{signal.Signals(number).name}: what runs is ended.", flush=True)
        run.stop()
        sys.exit(128 + number)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop)
    run.run()
    passed, failed = sum(part.passed for part in run.parts()), sum(part.failed for part in run.parts())
    print("\n".join(["", f"It took {time.monotonic() - began:.0f} s. Each part and its slowest tests:", *run.times(), *run.skips(), *run.failures()]))
    if unreached := run.unreached():
        print(f"\nNot run because of this: {', '.join(unreached)}.")
    if chosen.record:
        print(f"\nWritten to {record(run)}.")
    print(f"\n{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
