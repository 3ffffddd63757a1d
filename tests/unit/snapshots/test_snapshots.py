# SPDX-License-Identifier: Apache-2.0
"""The scripts that take snapshots of etcd and Consul, with a program that answers as the store would."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PROGRAMS = {"etcd": ("etcdctl", "etcdutl", "db"), "consul": ("consul", "consul", "snap")}
# It has no leader as often as the file `leaderless` has lines, and leaves a part behind as the real ones do.
STORE = """#!/bin/sh
cd "$(dirname "$0")"
echo "$@" >> asked
[ "$2" = save ] || exit 0
if [ -s leaderless ]; then
  sed -i 1d leaderless
  echo half > "$3.unverified"
  exit 1
fi
echo whole > "$3"
"""


@dataclass(frozen=True)
class Host:
    component: str
    folder: Path

    @property
    def snapshots(self) -> Path:
        return self.folder / "snapshots"

    def take(self, keep: int = 3) -> int:
        script = ROOT / f"roles/{self.component}/templates/usr/local/libexec/ashlar/{self.component}-snapshot"
        environment = {**os.environ, "PATH": f"{self.folder}/quick:{os.environ['PATH']}"}
        return subprocess.run([script, self.folder, self.snapshots, str(keep)], env=environment, timeout=60, check=False).returncode

    def kept(self) -> list[str]:
        return sorted(path.name for path in self.snapshots.iterdir())


@pytest.fixture(params=PROGRAMS)
def host(request: pytest.FixtureRequest, tmp_path: Path) -> Host:
    made = Host(request.param, tmp_path)
    made.snapshots.mkdir()
    (tmp_path / "quick").mkdir()
    for name, text in {**dict.fromkeys(PROGRAMS[request.param][:2], STORE), "quick/sleep": "#!/bin/sh\n"}.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    return made


def test_a_snapshot_is_checked_before_it_has_its_name(host: Host) -> None:
    assert host.take() == 0
    [name] = host.kept()
    assert name.endswith(f".{PROGRAMS[host.component][2]}") and (host.snapshots / name).read_text() == "whole\n"
    assert [line.split()[1] for line in (host.folder / "asked").read_text().splitlines()] in (["health", "save", "status"], ["save", "inspect"])


def test_an_election_is_waited_for(host: Host) -> None:
    (host.folder / "leaderless").write_text("one\ntwo\n")
    assert host.take() == 0
    assert len(host.kept()) == 1


def test_a_store_without_a_leader_is_a_failure_that_leaves_nothing(host: Host) -> None:
    (host.folder / "leaderless").write_text("no\n" * 100)
    assert host.take() != 0
    assert host.kept() == []


def test_only_the_newest_stay_and_nothing_of_runs_that_were_killed(host: Host) -> None:
    extension = PROGRAMS[host.component][2]
    for year in range(2020, 2025):
        (host.snapshots / f"{year}0101T000000Z.{extension}").write_text("old\n")
    for part in ("part", "part.part", "part.unverified"):
        (host.snapshots / f"20240601T000000Z.{extension}.{part}").write_text("half\n")
    assert host.take(keep=3) == 0
    kept = host.kept()
    assert kept[:2] == [f"20230101T000000Z.{extension}", f"20240101T000000Z.{extension}"] and len(kept) == 3
