# SPDX-License-Identifier: Apache-2.0
"""Runs the suites of `make test` one after another and stops at the first that fails.

The end says which tests failed and why, so that it is enough of a long log; the last line, how many parts passed and failed. What was not
reached counts as neither and is named.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parent.parent
BIN = ROOT / ".venv" / "bin"
SUITES: dict[str, list[list[str]]] = {
    "lint": [
        [str(BIN / "ruff"), "check", "plugins", "programs", "tests", "bench", "docs"],
        [str(BIN / "mypy"), ".collections/ansible_collections/ashlar/stack/plugins", "programs/edge/ashlar_edge", "programs/portal/ashlar_portal"],
        [str(BIN / "yamllint"), "--strict", "."],
        [str(BIN / "ansible-lint"), "--strict", "--offline", "site.yml", "playbooks", "roles"],
        [str(BIN / "python"), "docs/build.py", "--check"],
    ],
    "unit": [[str(BIN / "python"), "-m", "pytest", "tests/unit", "programs"]],
    # The small ones first: what breaks them breaks the platform too, and they say so sooner.
    **{f"molecule {name}": [[str(BIN / "molecule"), "test", "--scenario-name", name]] for name in ("etcd", "consul", "monitoring", "default", "terraform")},
}
# What takes too long for every change; run by its name.
LONG: dict[str, list[list[str]]] = {"openstack": [[str(BIN / "molecule"), "test", "--scenario-name", "openstack"]]}


# Of a failed test's reason, shown at the end: its last lines are what was asserted.
REASON_LINES = 12


def failures(report: Path) -> list[str]:
    """Each test of a report by pytest (JUnit XML) that failed, with the end of its reason; none where there is no report."""
    told = []
    for case in ElementTree.parse(report).iter("testcase") if report.exists() else ():
        for problem in [*case.iter("failure"), *case.iter("error")]:
            reason = [line for line in (problem.text or problem.get("message", "")).splitlines() if line.strip()][-REASON_LINES:]
            told.append("\n    ".join([f"{case.get('classname')}::{case.get('name')}", *reason]))
    return told


def main(chosen: list[str]) -> int:
    # `molecule` is all the scenarios.
    suites = {**SUITES, **LONG} if chosen else SUITES
    names = [name for name in suites if not chosen or name in chosen or name.split()[0] in chosen]
    unknown = [word for word in chosen if not any(word in (name, name.split()[0]) for name in suites)]
    if unknown:
        print(f"There is no suite {', '.join(unknown)}; there are {', '.join(suites)}.", file=sys.stderr)
        return 2
    environment = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}", "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "PYTHONUNBUFFERED": "1"}
    # Linters and unit tests need a site that is whole without any node being up; Molecule names its own.
    environment["ANSIBLE_INVENTORY"] = str(ROOT / "inventories" / "example")
    # Molecule would otherwise give the inventory of nodes to the playbooks that make them.
    environment["MOLECULE_ANSIBLE_ARGS_STRICT_MODE"] = "1"
    # Settings that this machine's user has for OpenTofu (mirrors, plugin folders) are not the tests'.
    environment["TF_CLI_CONFIG_FILE"] = os.devnull
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        return run(suites, names, {**environment, "PYTEST_ADDOPTS": f"{os.environ.get('PYTEST_ADDOPTS', '')} --junitxml={report}"}, report)


def run(suites: dict[str, list[list[str]]], names: list[str], environment: dict[str, str], report: Path) -> int:
    """Runs the named suites; pytest leaves its report where `report` says."""
    passed, failed, told = 0, 0, list[str]()
    for name in names:
        for command in suites[name]:
            report.unlink(missing_ok=True)
            shown = " ".join([Path(command[0]).name, *command[1:]])
            print(f"\n=== {name} | {shown}", flush=True)
            start = time.monotonic()
            code = subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode
            print(f"=== {name} | {'passed' if code == 0 else f'FAILED with exit code {code}'} after {time.monotonic() - start:.0f} s", flush=True)
            passed, failed = passed + (code == 0), failed + (code != 0)
            told += failures(report) if code else []
        if failed:
            if told:
                print("\n".join(["", f"Failed in {name}:", *told]), flush=True)
            later = names[names.index(name) + 1 :]
            if later:
                print(f"Not run because of this: {', '.join(later)}.")
            break
    print(f"\n{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
