# SPDX-License-Identifier: Apache-2.0
"""What one program needed, for benchmarks that run programs."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Spent:
    """Seconds of the clock, seconds of the processor, MiB of memory at its peak, and what it printed."""

    seconds: float
    processor_seconds: float
    peak_mib: float
    printed_mib: float
    output: str = field(repr=False)


def spend(command: list[str], limit_seconds: float = 1800) -> Spent:
    """Runs a program of the project to its end; its errors end this one with its own words."""
    shown = " ".join(command)
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        start = time.monotonic()
        process = subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=errors, env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")})
        while True:
            done, status, usage = os.wait4(process.pid, os.WNOHANG)
            if done:
                break
            if time.monotonic() - start > limit_seconds:
                process.kill()
                raise SystemExit(f"bench: `{shown}` had not ended after {limit_seconds:.0f} s")
            time.sleep(0.01)
        seconds = time.monotonic() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        size = output.tell()
        output.seek(0)
        printed = output.read()
        if process.returncode:
            errors.seek(0)
            raise SystemExit(f"bench: `{shown}` ended with {process.returncode}:\n{(printed + errors.read())[-4000:]}")
        return Spent(
            round(seconds, 2), round(usage.ru_utime + usage.ru_stime, 2), round(usage.ru_maxrss / 1024, 1), round(size / 1048576, 1), printed
        )
