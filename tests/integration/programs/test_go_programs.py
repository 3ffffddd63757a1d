# SPDX-License-Identifier: Apache-2.0
"""The tests that stand beside our own Go programs, run by the Go that builds them."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from ansible_collections.ashlar.stack.plugins.plugin_utils.artifacts.builder import Builder
from ansible_collections.ashlar.stack.plugins.plugin_utils.artifacts.progress import Progress

ROOT = Path(__file__).resolve().parents[3]
PROGRAMS = sorted({file.parent for file in (ROOT / "programs").glob("*/*_test.go")})


def test_programs_with_tests_are_found() -> None:
    assert {folder.name for folder in PROGRAMS} >= {"consul_sync", "kubelet_csr_approver"}


@pytest.mark.parametrize("folder", PROGRAMS, ids=lambda folder: folder.name)
def test_program(folder: Path, tmp_path: Path) -> None:
    go = Builder(tmp_path).go(Progress(folder.name, print))
    done = subprocess.run(
        [str(go.path), "test", "./..."],
        cwd=folder,
        env={**os.environ, "GOFLAGS": "-mod=readonly"},
        capture_output=True,
        text=True,
        timeout=3600,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
