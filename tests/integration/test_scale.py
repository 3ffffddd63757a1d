# SPDX-License-Identifier: Apache-2.0
"""The benchmark of large sites runs on a small one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_every_figure_of_a_site_is_measured(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "bench/scale.py"), "--nodes", "7", "--acted", "2", "--results", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    found = json.loads((tmp_path / "scale-7.json").read_text())
    assert found["certificates"]["asked_for"] > 50 and found["action"]["hosts"] == 2
    assert all(found[name]["seconds"] > 0 for name in ("inventory", "upgrade_plan"))
