# SPDX-License-Identifier: Apache-2.0
"""What runs the tests: side by side, stopped by the first failure and by signals, and with an end that says everything."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import run as runner

# A program that runs parts as run.py does, with others than the real ones.
MAIN = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import run
run.PARTS = {parts!r}
run.WAVES = {waves!r}
run.LONG = []
run.LOGS = Path(sys.argv[2])
run.PROGRESS_SECONDS = 0.5
sys.exit(run.main(sys.argv[3:]))
"""
SKIPS = """<testsuites><testsuite><testcase classname="tests.a" name="test_one"><skipped type="pytest.skip" message="no Chromium">a.py:1: no Chromium</skipped>
</testcase><testcase classname="tests.a" name="test_two"><skipped message="no Chromium"/></testcase><testcase classname="tests.a" name="test_three">
<skipped message="no store"/></testcase><testcase classname="tests.a" name="test_four"/></testsuite></testsuites>"""
REPORT = """<testsuites><testsuite><testcase classname="tests.a" name="test_good" time="0.5"/>
<testcase classname="tests.a" name="test_bad" time="7.25"><failure message="m">def test_bad():
>   assert 1 == 2
E   assert 1 == 2
</failure></testcase></testsuite></testsuites>"""


def shell(text: str) -> list[str]:
    return ["sh", "-c", text]


def begun(tmp_path: Path, parts: dict[str, list[list[str]]], waves: list[list[list[str]]], *words: str) -> subprocess.Popen[str]:
    program = MAIN.format(parts=parts, waves=waves)
    command = [sys.executable, "-c", program, str(Path(runner.__file__).parent), str(tmp_path / "logs"), *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def done(tmp_path: Path, parts: dict[str, list[list[str]]], waves: list[list[list[str]]], *words: str) -> tuple[int, list[str]]:
    process = begun(tmp_path, parts, waves, *words)
    said, _ = process.communicate(timeout=120)
    return process.returncode, said.splitlines()


def runs(number: int) -> bool:
    """Whether a process is there and no zombie, which who comes first on this machine may leave."""
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def meets(mine: Path, other: Path) -> list[str]:
    """Ends once the other one has begun, too."""
    return shell(f"touch {mine}; for i in $(seq 600); do [ -e {other} ] && exit 0; sleep 0.1; done; exit 1")


def test_lanes_run_at_the_same_time_and_waves_one_after_another(tmp_path: Path) -> None:
    one, two, late = (tmp_path / name for name in ("one", "two", "late"))
    parts = {"one": [meets(one, two)], "two": [meets(two, one), shell(f"sleep 1; ! [ -e {late} ]")], "late": [shell(f"touch {late}")]}
    code, said = done(tmp_path, parts, [[["one"], ["two"]], [["late"]]])
    assert (code, said[-1]) == (0, "4 passed, 0 failed"), said


def test_the_parts_of_a_lane_run_one_after_another(tmp_path: Path) -> None:
    parts = {"one": [shell(f"sleep 0.5; touch {tmp_path}/done")], "two": [shell(f"[ -e {tmp_path}/done ]")], "beside": [shell("true")]}
    assert done(tmp_path, parts, [[["one", "two"], ["beside"]]])[0] == 0


def test_a_part_that_fails_shows_all_that_it_said_and_what_failed_and_stops_the_rest(tmp_path: Path) -> None:
    script = f"echo the first line; echo '{REPORT}' > ${{PYTEST_ADDOPTS##*--junitxml=}}; while ! [ -e {tmp_path}/begun ]; do sleep 0.1; done; exit 3"
    good = shell(f"touch {tmp_path}/begun; echo quiet")
    parts = {"bad": [shell(script), shell("echo also run")], "good": [good], "next": [shell("true")], "last": [shell("true")]}
    code, said = done(tmp_path, parts, [[["bad", "next"], ["good"]], [["last"]]])
    assert (code, said[-1]) == (1, "2 passed, 1 failed"), said
    assert "the first line" in said and "also run" in said
    assert "quiet" not in said, "what went well is left to its log"
    assert "quiet" in (tmp_path / "logs/good.log").read_text()
    assert "Not run because of this: next, last." in said
    end = said[said.index("Failed in bad:") :]
    assert end[1:4] == ["tests.a::test_bad", "    def test_bad():", "    >   assert 1 == 2"]
    [time_of_bad] = [number for number, line in enumerate(said) if line.endswith("s  bad, 2 tests in 8 s")]
    assert [line.split() for line in said[time_of_bad + 1 : time_of_bad + 3]] == [["7.2", "s", "tests.a::test_bad"], ["0.5", "s", "tests.a::test_good"]]


def test_skipped_tests_are_counted_by_reason(tmp_path: Path) -> None:
    script = f"echo '{SKIPS}' > ${{PYTEST_ADDOPTS##*--junitxml=}}"
    code, said = done(tmp_path, {"one": [shell(script)], "two": [shell("true")]}, [[["one"], ["two"]]])
    assert code == 0, said
    at = said.index("Skipped in one, 3 tests:")
    assert [line.split(maxsplit=1) for line in said[at + 1 : at + 3]] == [["2", "no Chromium"], ["1", "no store"]]
    assert not [line for line in said if line.startswith("Skipped in two")]


def test_a_part_alone_is_seen_as_it_goes(tmp_path: Path) -> None:
    code, said = done(tmp_path, {"only": [shell("echo here it is")], "other": [shell("false")]}, [[["only"], ["other"]]], "only")
    assert (code, said[-1]) == (0, "1 passed, 0 failed")
    assert "here it is" in said


def test_it_says_how_far_it_is(tmp_path: Path) -> None:
    slow = shell("echo; echo '\033[32mstep  7\033[0m'; sleep 3")
    _, said = done(tmp_path, {"slow": [slow], "fast": [shell("true")]}, [[["slow"], ["fast"]]])
    assert [line for line in said if line.startswith("... slow, ") and line.endswith(": step 7")], said


def test_an_unknown_part_is_named(tmp_path: Path) -> None:
    code, said = done(tmp_path, {"one": [shell("true")]}, [[["one"]]], "two")
    assert (code, said) == (2, ["There is no part two; there are one."])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_is_ended_takes_its_children_along(number: signal.Signals, tmp_path: Path) -> None:
    child = f"sh -c 'echo $$ > {tmp_path}/child; sleep 600' & wait"
    parts = {"long": [shell(child)], "beside": [shell("sleep 600")], "never": [shell(f"touch {tmp_path}/never")]}
    process = begun(tmp_path, parts, [[["long"], ["beside", "never"]]])
    end = time.monotonic() + 60
    while not (tmp_path / "child").exists() or not (tmp_path / "child").read_text():
        assert time.monotonic() < end
        time.sleep(0.1)
    process.send_signal(number)
    assert process.wait(60) == 128 + number
    assert not runs(int((tmp_path / "child").read_text()))
    assert not (tmp_path / "never").exists()


def test_every_part_is_in_one_lane_and_reaches_what_it_runs() -> None:
    named = [name for wave in [*runner.WAVES, *runner.LONG] for lane in wave for name in lane]
    assert sorted(named) == sorted(runner.PARTS)
    scenarios = {path.parent.name for path in (runner.ROOT / "molecule").glob("*/molecule.yml")}
    assert {command[-1] for name in named for command in runner.PARTS[name] if "--scenario-name" in command} == scenarios
