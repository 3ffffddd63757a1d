# SPDX-License-Identifier: Apache-2.0
"""What an operator is told of Ceph's warnings, run with a `ceph` that only answers."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[3] / "roles/ceph_mon/templates/usr/local/libexec/ashlar/ceph-health"
CEPH = """#!/bin/sh
case "$*" in
  "--admin-daemon /run/ceph/ceph-mon.node1.asok mon_status --format json") echo '{"state": "'$STATE'"}' ;;
  "health detail --format json") cat "$0.health"; exit "$CODE" ;;
  *) echo "unexpected: ceph $*" >&2; exit 2 ;;
esac
"""


def check(message: str, *details: str, severity: str = "HEALTH_WARN", muted: bool = False) -> dict[str, Any]:
    return {"severity": severity, "summary": {"message": message}, "detail": [{"message": each} for each in details], "muted": muted}


def told(folder: Path, *words: str, state: str = "leader", code: int = 0, **checks: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    program = folder / "ceph"
    program.write_text(CEPH)
    program.chmod(0o755)
    (folder / "ceph.health").write_text(json.dumps({"checks": checks}) if not code else "")
    environment = {"PATH": f"{folder}:{os.environ['PATH']}", "STATE": state, "CODE": str(code)}
    return subprocess.run(["python3", str(SCRIPT), *words], env=environment, capture_output=True, text=True, timeout=60, check=False)


def test_without_warnings_nothing_is_said(tmp_path: Path) -> None:
    done = told(tmp_path, "node1")
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "", "")


def test_a_code_is_told_with_what_is_so_and_what_to_do_errors_first(tmp_path: Path) -> None:
    down = check("3 osds down", "osd.0 is down", "osd.1 is down", "osd.2 is down")
    done = told(tmp_path, "node1", OSD_DOWN=down, PG_AVAILABILITY=check("8 pgs inactive", severity="HEALTH_ERR"))
    first, second = done.stdout.splitlines()
    assert done.returncode == 1
    assert first.startswith("PG_AVAILABILITY: 8 pgs inactive. Some data can't be read or written")
    assert second.startswith("OSD_DOWN: 3 osds down. A disk's daemon does not run")
    assert second.endswith(" (osd.0 is down; osd.1 is down; and 1 more)")


def test_of_a_code_that_is_not_known_the_manual_is_named(tmp_path: Path) -> None:
    done = told(tmp_path, NEW_CODE=check("something new"))
    assert done.stdout == "NEW_CODE: something new. https://docs.ceph.com/en/reef/rados/operations/health-checks/#new-code says what to do.\n"


def test_what_is_accepted_is_not_told(tmp_path: Path) -> None:
    assert told(tmp_path, MON_DISK_LOW=check("low", muted=True)).returncode == 0


@pytest.mark.parametrize(("words", "code"), [(("node1",), 0), ((), 1)], ids=["for health.yml", "by hand"])
def test_a_site_is_told_once_by_the_leader_and_by_hand_everywhere(tmp_path: Path, words: tuple[str, ...], code: int) -> None:
    assert told(tmp_path, *words, state="peon", OSD_DOWN=check("1 osds down")).returncode == code


def test_a_ceph_that_does_not_answer_is_not_taken_for_well(tmp_path: Path) -> None:
    done = told(tmp_path, "node1", code=1)
    assert done.returncode == 1 and done.stderr.startswith("ceph health failed")
