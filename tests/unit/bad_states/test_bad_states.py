# SPDX-License-Identifier: Apache-2.0
"""Every wrong state and configuration of the tables here ends in exactly the message that stands beside it.

A table is a YAML file with a list of cases. A case is a right inventory of a state with two nodes but for:

``config``       options of the plugin's file over `sources: [{state: state.tfstate}]`; ``config_text`` the whole file
``nodes``        the value of the output nodes; ``state`` keys of the state over a right one's, null removes one
``resources``    type -> attributes of its objects, which the state has instead of an output
``data``         path -> file of data/ that lies there
``files``        path -> text; null removes one
``locked``       path of a state that another program holds, as the tool does
``huge``         bytes of a file huge.tfstate
``tool``         a shell script that stands for OpenTofu, in tools/tofu, which is found first
``environment``  variables; null removes one
``program``      true: only as the program ansible-inventory, since it needs plugins of Ansible that a test can't load
``error``        the problems, a line each, without what every message starts with; <site> is the folder, <types> the types that need no mapping
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.errors import AnsibleParserError
from ansible.utils.display import Display
from ansible_collections.ashlar.stack.plugins.plugin_utils.machines.adopt import mappings_of
from ansible_collections.ashlar.stack.plugins.plugin_utils.site.reading import listed
from states import configuration, inventory_of, machine, program, resource, state, write

HERE = Path(__file__).parent
CASES: list[dict[str, Any]] = [{**case, "table": file.stem} for file in sorted(HERE.glob("*.yml")) for case in yaml.safe_load(file.read_text())]
PLUGIN = [case for case in CASES if not case.get("program")]
PROGRAMS = [case for number, case in enumerate(CASES) if case.get("program") or number % 8 == 0]
HOLD = "import fcntl, sys; file = open(sys.argv[1], 'rb+'); fcntl.lockf(file, fcntl.LOCK_EX); print('held', flush=True); sys.stdin.read()"
HOLDERS: list[subprocess.Popen[str]] = []
SECRET = "s3cret-of-the-state"


def named(case: dict[str, Any]) -> str:
    return f"{case['table']}: {case['name']}"


@pytest.mark.parametrize("case", PLUGIN, ids=named)
def test_what_is_wrong_ends_in_one_clear_error(case: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    environment = laid_down(case, tmp_path)
    for name in [name for name in os.environ if name.startswith(("TF_", "ASHLAR_", "AWS_"))]:
        monkeypatch.delenv(name)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    spoken: list[str] = []
    for way in ("warning", "display", "error"):
        monkeypatch.setattr(Display, way, lambda self, text, *_, **__: spoken.append(str(text)))
    with pytest.raises(AnsibleParserError) as caught:
        inventory_of(tmp_path / "10-nodes.terraform.yml")
    assert without_folder(str(caught.value), tmp_path) == expected(case)
    assert SECRET not in str(caught.value)
    assert spoken == []


@pytest.mark.parametrize("case", PROGRAMS, ids=named)
def test_the_program_says_it_once_and_lists_nothing(case: dict[str, Any], tmp_path: Path) -> None:
    environment = laid_down(case, tmp_path)
    done = program("-i", "10-nodes.terraform.yml", "--list", folder=tmp_path, environment=environment)
    assert (done.returncode, done.stdout) == (4, "")
    assert without_folder(done.stderr.strip(), tmp_path) == f"[ERROR]: {expected(case)}"


def test_there_are_enough_of_them() -> None:
    assert len(CASES) >= 50
    assert len({named(case) for case in CASES}) == len(CASES)


@pytest.fixture(autouse=True)
def holders() -> Iterator[None]:
    """Ends the programs that hold states."""
    yield
    while HOLDERS:
        holder = HOLDERS.pop()
        holder.communicate("", timeout=120)


def hold(state: Path) -> None:
    """Another program, since a lock does not keep out the process that has it."""
    state.touch()
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(state)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    HOLDERS.append(holder)
    assert holder.stdout and holder.stdout.readline()


def laid_down(case: dict[str, Any], folder: Path) -> dict[str, str]:
    """The case as files; gives the variables of its environment."""
    resources = [resource(type_, *instances) for type_, instances in case.get("resources", {}).items()]
    nodes = case.get("nodes", None if resources else {"a": machine(1), "b": machine(2)})
    write(folder / "state.tfstate", state(nodes, resources, **case.get("state", {})))
    if "config_text" in case:
        write(folder / "10-nodes.terraform.yml", case["config_text"])
    else:
        configuration(folder, **case.get("config", {}))
    for path, name in case.get("data", {}).items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(HERE / "data" / name, folder / path)
    for path, text in case.get("files", {}).items():
        if text is None:
            (folder / path).unlink()
        else:
            write(folder / path, text)
    if "locked" in case:
        hold(folder / case["locked"])
    if "huge" in case:
        write(folder / "huge.tfstate", " " * case["huge"])
    (folder / "tools").mkdir(exist_ok=True)
    if "tool" in case:
        write(folder / "tools" / "tofu", f"#!{case.get('interpreter', '/bin/sh')}\n{case['tool']}").chmod(0o755)
    environment = {"PATH": f"{folder}/tools:{os.defpath}", **case.get("environment", {})}
    return {name: value.replace("<site>", str(folder)) for name, value in environment.items()}


def test_a_run_that_was_killed_leaves_a_state_that_can_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case = {"files": {".state.tfstate.lock.info": '{"ID": "3f1f5f2e-0a54", "Who": "anna@build"}'}}
    laid_down(case, tmp_path)
    monkeypatch.chdir(tmp_path)
    assert sorted(inventory_of(tmp_path / "10-nodes.terraform.yml").hosts) == ["a", "b"]


def without_folder(text: str, folder: Path) -> str:
    # Warnings of Ansible itself would be wrapped at the width of the terminal; errors are not.
    return re.sub(rf"{re.escape(str(folder))}(/|\b)", r"<site>\1", text)


def expected(case: dict[str, Any]) -> str:
    lines = case["error"].strip().replace("<types>", listed(mappings_of({}))).splitlines()
    if len(lines) == 1:
        return f"The site cannot be planned; no host was touched.\n  {lines[0]}"
    numbered = "".join(f"\n  {number}. {line}" for number, line in enumerate(lines, 1))
    return f"The site cannot be planned, for {len(lines)} reasons; no host was touched.{numbered}"
