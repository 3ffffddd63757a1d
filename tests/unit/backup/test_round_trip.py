# SPDX-License-Identifier: Apache-2.0
"""Backups in a folder: what goes in comes out, who can read it, how many are kept."""

from __future__ import annotations

import io
import json
import os
import socket
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pyrage  # type: ignore[import-untyped]
import pytest
from ansible_collections.ashlar.stack.plugins.plugin_utils.backup.errors import BackupError
from support.backups import ABOUT, FILES, Stage, contents


@pytest.fixture(params=[0o077, 0o000])
def umask(request: pytest.FixtureRequest) -> Iterator[None]:
    before = os.umask(request.param)
    yield
    os.umask(before)


def test_what_goes_in_comes_out_with_its_modes_whatever_the_umask_is(umask: None, stage: Stage) -> None:
    snapshot = stage.root / "etcd.db"
    snapshot.write_bytes(os.urandom(3_000_000))
    snapshot.chmod(0o600)
    made = stage.make(parts={"etcd": {"snapshot.db": str(snapshot)}})
    file = stage.vault / made["name"]
    assert made == {"changed": True, "name": file.name, "where": str(file), "size": file.stat().st_size, "removed": []}
    assert (stage.vault.stat().st_mode & 0o777, file.stat().st_mode & 0o777) == (0o700, 0o600)

    into = stage.root / "opened"
    told = stage.open(made["where"])
    assert told["parts"] == {"etcd": {"snapshot.db": str(into / "parts/etcd/snapshot.db")}} and told["site"] == str(into / "site")
    assert (told["name"], told["about"]) == (file.name, ABOUT)
    assert told["created"].replace("-", "").replace(":", "") in file.name
    assert contents(into / "site") == FILES, "all of the site, and neither its lock, nor an opened backup, nor what editors leave"
    assert contents(into / "parts") == {"etcd/snapshot.db": (snapshot.read_bytes(), 0o600)}
    assert (into.stat().st_mode & 0o777, (into / "site/credentials").stat().st_mode & 0o777) == (0o700, 0o700)
    assert stage.opened() == ["opened"]


def test_the_file_is_a_tar_in_an_age_file_that_begins_with_the_manifest(stage: Stage) -> None:
    sealed = (stage.vault / stage.make()["name"]).read_bytes()
    assert b"a password" not in sealed
    with tarfile.open(fileobj=io.BytesIO(pyrage.decrypt(sealed, [pyrage.x25519.Identity.from_str(stage.identity.read_text().split()[-1])]))) as archive:
        members = archive.getmembers()
        text = archive.extractfile("manifest.json")
        assert text is not None
        manifest = json.load(text)
    assert members[0].name == "manifest.json" and manifest["format"] == 1 and manifest["about"] == ABOUT
    assert set(manifest["files"]) == {f"site/{name}" for name in FILES}
    assert manifest["files"]["site/state/placement.yml"] == {"sha256": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", "size": 0}
    assert {(one.uid, one.gid, one.uname, one.gname) for one in members} == {(0, 0, "", "")}


def test_links_are_followed_sockets_left_out_and_names_may_be_anything(stage: Stage) -> None:
    shared = stage.root / "shared"
    shared.mkdir()
    (shared / "all.yml").write_text("a: 1\n")
    (stage.site / "group_vars").symlink_to(shared)
    (stage.site / "link.yml").symlink_to(shared / "all.yml")
    odd = b"na\xefve \n" + b"x" * 150
    (stage.site / os.fsdecode(odd)).write_text("odd")
    os.mkfifo(stage.site / "state" / "pipe")
    with socket.socket(socket.AF_UNIX) as control:
        here = os.getcwd()
        os.chdir(stage.site / "state")
        control.bind("mux")
        os.chdir(here)
        stage.make()
    found = contents(Path(stage.open()["site"]))
    assert set(found) == {*FILES, "group_vars/all.yml", "link.yml", os.fsdecode(odd)}


def test_every_recipient_opens_it_by_its_own_key(stage: Stage) -> None:
    ssh = stage.root / "id_ed25519"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "me@here", "-f", ssh], check=True)
    stage.make(recipients=[stage.recipient, ssh.with_suffix(".pub").read_text()])
    assert contents(Path(stage.open()["site"])) == contents(Path(stage.open(identity=ssh)["site"])) == FILES


def test_a_destination_alone_means_the_newest_backup_there(seconds: Callable[[str], None], stage: Stage) -> None:
    for second in (1, 3, 2):
        seconds(f"2026-11-29T10:15:0{second}+00:00")
        (stage.site / "10-nodes.yml").write_text(str(second))
        stage.make()
    (stage.vault / "prod-20261129T101509Z.tar.age.part").touch()
    (stage.vault / "notes.txt").touch()
    told = stage.open()
    assert told["name"] == "prod-20261129T101503Z.tar.age" and (Path(told["site"]) / "10-nodes.yml").read_text() == "3"


def test_an_opened_backup_is_replaced_and_nothing_else_is(stage: Stage) -> None:
    stage.make()
    first = stage.open()
    (Path(first["site"]) / "more").touch()
    assert contents(Path(stage.open()["site"])) == FILES and stage.opened() == ["opened"]
    (stage.root / "opened" / "mine").touch()
    with pytest.raises(BackupError, match="opened is there and is no opened backup"):
        stage.open()
    assert (stage.root / "opened" / "mine").exists()


def test_as_many_as_asked_for_are_kept_of_this_site_and_nothing_else_goes(seconds: Callable[[str], None], stage: Stage) -> None:
    stage.vault.mkdir()
    others = ["dev-20200101T000000Z.tar.age", "prod-two-20200101T000000Z.tar.age", "prod-2020.tar.age", "notes", "prod-20991231T000000Z.tar.age.part"]
    left = "prod-20200101T000000Z.tar.age.part"
    for name in [*others, left]:
        (stage.vault / name).touch()
    made = []
    for second in range(4):
        seconds(f"2026-11-29T10:15:0{second}+00:00")
        made.append(stage.make(keep=2))
    assert [one["removed"] for one in made] == [[], [], [made[0]["name"]], [made[1]["name"]]]
    assert sorted(os.listdir(stage.vault)) == sorted([*others, made[2]["name"], made[3]["name"]]), "and what a run that was killed left long ago is gone"


def test_a_clock_that_went_back_does_not_cost_the_new_backup(seconds: Callable[[str], None], stage: Stage) -> None:
    seconds("2026-11-29T10:15:00+00:00")
    stage.make()
    seconds("2026-11-28T10:15:00+00:00")
    made = stage.make(keep=1)
    assert made["removed"] == [] and (stage.vault / made["name"]).exists()


def test_two_backups_within_a_second_are_two_files(stage: Stage) -> None:
    assert stage.make()["name"] != stage.make()["name"]
    assert len(os.listdir(stage.vault)) == 2


def test_check_mode_says_what_it_would_do_and_writes_nothing(seconds: Callable[[str], None], stage: Stage) -> None:
    seconds("2026-11-29T10:15:00+00:00")
    told = stage.make(check=True, parts={"etcd": {"snapshot.db": "/of/a/task/that/check/mode/skips"}})
    name = "prod-20261129T101500Z.tar.age"
    assert told == {"changed": True, "name": name, "where": str(stage.vault / name), "removed": []} and not stage.vault.exists()
    stage.make()
    seconds("2026-11-29T10:15:01+00:00")
    assert stage.make(check=True, keep=1)["removed"] == [name] and os.listdir(stage.vault) == [name]
    for wrong in ({"to": "vault"}, {"recipients": ["age1no"]}):
        with pytest.raises(BackupError, match="Allowed"):
            stage.make(check=True, **wrong)
    assert stage.open(check=True)["about"] == ABOUT and stage.opened() == []


def test_what_is_large_is_never_in_memory_as_a_whole(stage: Stage) -> None:
    """In a process of its own, whose memory is read: KiB, at most."""
    large = stage.root / "large"
    with large.open("wb") as stream:
        block = os.urandom(1 << 20)
        for _ in range(96):
            stream.write(block)
    script = f"""
import re, sys
sys.path[:0] = {[str(Path(__file__).parents[3] / ".collections"), str(Path(__file__).parents[2])]!r}
from pathlib import Path
from support import backups
peak = lambda: int(re.search(r"VmHWM:\\s+([0-9]+) kB", open("/proc/self/status").read())[1])
before = peak()
backups.make(Path({str(stage.site)!r}), {str(stage.vault)!r}, [{stage.recipient!r}], parts={{"etcd": {{"large": {str(large)!r}}}}})
backups.unseal({str(stage.vault)!r}, Path({str(stage.identity)!r}), Path({str(stage.root / "opened")!r}))
print(peak() - before)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 30 << 10
    assert (stage.root / "opened/parts/etcd/large").stat().st_size == 96 << 20
