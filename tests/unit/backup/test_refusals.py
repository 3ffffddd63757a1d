# SPDX-License-Identifier: Apache-2.0
"""What is no backup, or no way to make one: one clear error, and nothing is touched."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyrage  # type: ignore[import-untyped]
import pytest
from ansible_collections.ashlar.stack.plugins.plugin_utils.backup import folder, library
from ansible_collections.ashlar.stack.plugins.plugin_utils.backup.errors import BackupError
from conformance.support.backups import key_pair
from support.backups import ABOUT, FILES, Stage, contents

ROOT = Path(__file__).parents[3]
DATA = b"content\n"
Member = tuple[str, bytes, bytes]
"""Name, type of tar, content; that of a link is its target."""


def file(name: str = "site/10-nodes.yml", data: bytes = DATA) -> Member:
    return name, tarfile.REGTYPE, data


def seal(stage: Stage, *members: Member, files: dict[str, Any] | None = None, **said: Any) -> Path:
    """A backup made by hand, whose manifest says the truth of its files but for what is given."""
    true = {name: {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)} for name, kind, data in members if kind == tarfile.REGTYPE}
    manifest = {"format": 1, "created": "2026-11-29T10:15:00Z", "about": ABOUT, "files": true if files is None else files, **said}
    return encrypt(stage, archive(("manifest.json", tarfile.REGTYPE, json.dumps(manifest).encode()), *members))


def archive(*members: Member) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for name, kind, data in members:
            info = tarfile.TarInfo(name)
            info.type = kind
            if kind == tarfile.REGTYPE:
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
            else:
                info.linkname = data.decode()
                tar.addfile(info)
    return out.getvalue()


def encrypt(stage: Stage, data: bytes) -> Path:
    stage.vault.mkdir(exist_ok=True)
    path = stage.vault / "prod-20261129T101500Z.tar.age"
    path.write_bytes(pyrage.encrypt(data, [pyrage.x25519.Recipient.from_str(stage.recipient)]))
    return path


def refused(stage: Stage, source: Path | str | None = None, **more: Any) -> str:
    """What opening says; nothing is left of it, and what was opened before stays."""
    before = contents(stage.root / "opened")
    with pytest.raises(BackupError) as caught:
        stage.open(source, **more)
    assert contents(stage.root / "opened") == before and stage.opened() in ([], ["opened"])
    return str(caught.value)


@pytest.fixture
def good(stage: Stage) -> bytes:
    """The bytes of a backup of several chunks of age."""
    (stage.site / "large").write_bytes(os.urandom(200_000))
    data = (stage.vault / stage.make()["name"]).read_bytes()
    stage.open()
    return data


def rewrite(stage: Stage, data: bytes) -> None:
    [path] = stage.vault.iterdir()
    path.write_bytes(data)


@pytest.mark.parametrize("place", [0.001, 0.1, 0.5, 0.9, 0.999])
def test_one_changed_byte_anywhere_is_found(place: float, good: bytes, stage: Stage) -> None:
    at = int(len(good) * place)
    rewrite(stage, good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :])
    assert "damaged" in refused(stage)


@pytest.mark.parametrize("length", [30, 150, 1000, 65536 + 200, -17, -1])
def test_a_backup_that_was_cut_short_anywhere_is_found(length: int, good: bytes, stage: Stage) -> None:
    rewrite(stage, good[:length])
    assert "cut short" in refused(stage)


def test_a_backup_that_ends_where_a_chunk_of_age_ends_is_cut_short(good: bytes, stage: Stage) -> None:
    payload = good.index(b"\n", good.index(b"\n--- ") + 1) + 1
    rewrite(stage, good[: payload + 16 + 2 * (65536 + 16)])
    assert "is cut short, so nothing of it was taken" in refused(stage)


def test_what_follows_a_backup_is_found(good: bytes, stage: Stage) -> None:
    rewrite(stage, good + good)
    assert "damaged" in refused(stage)


def test_another_key_opens_nothing(good: bytes, stage: Stage) -> None:
    assert "was not made for this identity" in refused(stage, identity=key_pair(stage.root, "other")[1])


@pytest.mark.parametrize("data", [b"", b"hello", b"PK\x03\x04" * 1000, archive(file())], ids=["nothing", "text", "zip", "tar"])
def test_what_is_no_file_of_age_is_no_backup(data: bytes, stage: Stage) -> None:
    encrypt(stage, b"")
    rewrite(stage, data)
    assert "is no backup: it is no file of age" in refused(stage)


@pytest.mark.parametrize(
    "data",
    [b"", b"hello" * 100_000, archive(), archive(file()), archive(("manifest.json", tarfile.SYMTYPE, b"/etc/passwd"))],
    ids=["nothing", "text", "empty", "no manifest", "a link"],
)
def test_what_is_in_an_age_file_may_be_something_else(data: bytes, stage: Stage) -> None:
    encrypt(stage, data)
    assert "is no backup of a site" in refused(stage)


def test_a_newer_format_says_so(stage: Stage) -> None:
    seal(stage, file(), format=2)
    assert "was written by a newer version: format 2, this one reads 1." in refused(stage)


@pytest.mark.parametrize("said", [{"format": "1"}, {"format": 0}, {"about": None}, {"files": ["site/10-nodes.yml"]}, {"files": {"site/a": 1}}])
def test_a_manifest_of_another_form_is_none(said: dict[str, Any], stage: Stage) -> None:
    seal(stage, file(), **said)
    assert "is no backup of a site: its manifest.json is not one" in refused(stage)


OUTSIDE = ["/etc/passwd", "../escaped", "site/../../escaped", "site/./a", "elsewhere/a", "parts/a", "parts/a/b/c", "manifest.json"]


@pytest.mark.parametrize("name", OUTSIDE)
def test_no_path_leads_out_of_the_folders(name: str, stage: Stage) -> None:
    seal(stage, file(name))
    assert "elsewhere than in its folders site and parts" in refused(stage)
    assert not list(stage.root.rglob("escaped"))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_are_refused(kind: bytes, stage: Stage) -> None:
    seal(stage, ("site/link", kind, b"/etc"), file("site/link/passwd"))
    assert "neither a file nor a folder" in refused(stage)


def test_every_file_must_be_as_the_manifest_says_and_there_once(stage: Stage) -> None:
    size, digest = len(DATA), hashlib.sha256(DATA).hexdigest()
    one = "site/10-nodes.yml"
    seal(stage, file(), file("site/more"), files={one: {"sha256": digest, "size": size}})
    assert "holds 'site/more', which its manifest does not name" in refused(stage)
    seal(stage, file(), file())
    assert "holds it twice" in refused(stage)
    seal(stage, file(), files={one: {"sha256": digest, "size": size + 1}})
    assert f"{one} has 8 bytes instead of the 9 of the manifest" in refused(stage)
    seal(stage, file(), files={one: {"sha256": "0" * 64, "size": size}})
    assert f"{one} is not what the manifest says" in refused(stage)
    seal(stage, file(), files={name: {"sha256": digest, "size": size} for name in (one, "site/1", "site/2", "site/3", "site/4")})
    assert "lacks site/1, site/2, site/3 and 1 more" in refused(stage)
    seal(stage, file(), ("site", tarfile.DIRTYPE, b""))
    assert stage.open()["about"] == ABOUT


def test_the_identity_must_be_one_and_its_owners_alone(good: bytes, stage: Stage) -> None:
    def identity(text: str, mode: int = 0o600) -> Path:
        path = stage.root / "tried"
        path.write_text(text)
        path.chmod(mode)
        return path

    text = stage.identity.read_text()
    assert "is not there" in refused(stage, identity=stage.root / "nowhere")
    for mode in (0o644, 0o640, 0o604):
        assert f"can be read by others (its mode is {mode:04o}), and opens backups. Run: chmod 600" in refused(stage, identity=identity(text, mode))
    for wrong in ("", "# a comment\n", stage.recipient, "AGE-SECRET-KEY-1NONSENSE", text + "garbage\n", "\0"):
        said = refused(stage, identity=identity(wrong))
        assert "holds no identity. Allowed: what age-keygen writes" in said and "NONSENSE" not in said
    assert "is no file" in refused(stage, identity=stage.root)
    assert "protected by a passphrase" in refused(stage, identity=identity("age-encryption.org/v1\n-> scrypt"))
    ssh = stage.root / "id"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "a passphrase", "-f", ssh], check=True)
    assert "protected by a passphrase" in refused(stage, identity=ssh)
    other = stage.root / "id_ecdsa"
    subprocess.run(["ssh-keygen", "-q", "-t", "ecdsa", "-N", "", "-f", other], check=True)
    assert "is no key that age knows" in refused(stage, identity=other)


def test_where_there_is_no_backup_it_says_so(seconds: Callable[[str], None], stage: Stage) -> None:
    assert "is neither a file nor a folder" in refused(stage)
    stage.vault.mkdir()
    (stage.vault / "prod-20261129T101500Z.tar.age.part").touch()
    assert f"{stage.vault} holds no backup, whose name would be like" in refused(stage)
    stage.make()
    assert "holds no backup of the site dev" in refused(stage, site="dev")
    seconds("2026-11-29T10:15:00+00:00")
    stage.make(about={**ABOUT, "site": "dev"})
    assert "holds backups of several sites: dev, prod. Name one by `site`" in refused(stage)
    assert stage.open(site="dev")["name"] == "dev-20261129T101500Z.tar.age"


def test_into_must_not_hold_what_is_not_a_backup(stage: Stage) -> None:
    stage.make()
    for folder_ in (stage.site, stage.vault, stage.root):
        with pytest.raises(BackupError, match="would be replaced. Name a folder that is not there"):
            stage.open(into=folder_)
    assert all((stage.site / name).exists() for name in FILES)


WRONG = [
    ({"to": "vault"}, "to: 'vault' is no destination. Allowed: an absolute folder such as /srv/backups, ssh://user@host[:port]/absolute/folder, or s3://"),
    ({"to": "ssh://host/folder"}, "is no destination"),
    ({"to": "ssh://backup@-oProxyCommand=x/folder"}, "is no destination"),
    ({"to": "ssh://backup@host:99999/folder"}, "is no destination"),
    ({"to": "ssh://backup@host/../etc"}, "is no destination"),
    ({"to": "ssh://backup:s3cret@host/folder"}, "'ssh://...@host/folder' is no destination"),
    ({"to": "s3://B"}, "is no destination"),
    ({"to": "ftp://host/folder"}, "is no destination"),
    ({"recipients": []}, "recipients is empty"),
    ({"recipients": ["age1no", "ssh-rsa AAAA", "ssh-ed25519 A"]}, "recipients: number 1 is 'age1no', number 2 is 'ssh-rsa AAAA', number 3 is 'ssh-"),
    ({"recipients": ["AGE-SECRET-KEY-1S3CRET"]}, "number 1 is a secret key; give the public one"),
    ({"keep": 0}, "keep is 0. Allowed: 1 or more"),
    ({"about": {}}, "about: site is ''. Allowed"),
    ({"about": {"site": "../prod"}}, "about: site is '../prod'. Allowed"),
    ({"directory": "/nowhere"}, "directory: /nowhere is no folder"),
    ({"parts": {"etcd": {"a": "/nowhere/a"}}}, "etcd hands over /nowhere/a, which is no file"),
    ({"parts": {"etcd": {"../a": "/etc/hostname"}}}, "which is no plain file name"),
    ({"parts": {"..": {"a": "/etc/hostname"}}}, "parts: '..' is"),
    ({"parts": {"etcd": "/etc/hostname"}}, "allowed: component -> file name -> path"),
]


@pytest.mark.parametrize(("options", "says"), WRONG)
def test_wrong_options_are_refused_before_anything_is_written(options: dict[str, Any], says: str, stage: Stage) -> None:
    with pytest.raises(BackupError) as caught:
        stage.make(**options)
    assert says in str(caught.value) and "s3cret" not in str(caught.value).lower()
    assert not stage.vault.exists()


def test_a_disk_that_is_not_mounted_is_not_written_beside(stage: Stage) -> None:
    with pytest.raises(BackupError, match="mnt is not there, so backups can't be kept in .*mnt/vault. Mount the disk or make the folder"):
        stage.make(to=stage.root / "mnt" / "vault")
    (stage.root / "file").touch()
    with pytest.raises(BackupError, match="file is a file"):
        stage.make(to=stage.root / "file")


def test_backups_are_not_kept_in_the_site_they_are_of(stage: Stage) -> None:
    with pytest.raises(BackupError, match="every backup would hold those before it"):
        stage.make(to=stage.site / "backups")


def test_links_to_nothing_and_to_folders_around_them_are_all_named(stage: Stage) -> None:
    (stage.site / "gone").symlink_to("nowhere")
    (stage.site / "state" / "round").symlink_to("..")
    with pytest.raises(BackupError, match="gone is a link to what is not there; .*round is a link to a folder around it.* Nothing was written"):
        stage.make()
    assert not stage.vault.exists()


class _Full:
    """A stream to a disk that is full after some bytes."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream

    def write(self, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


def test_a_full_disk_keeps_nothing_of_the_new_backup_and_all_of_the_old(monkeypatch: pytest.MonkeyPatch, stage: Stage) -> None:
    old = stage.make()["name"]
    fdopen = os.fdopen
    monkeypatch.setattr(folder.os, "fdopen", lambda number, mode: _Full(fdopen(number, mode)) if mode == "wb" else fdopen(number, mode))
    with pytest.raises(BackupError, match="no space is left on its disk"):
        stage.make(keep=1)
    assert os.listdir(stage.vault) == [old]


def test_what_is_changed_meanwhile_is_no_backup(monkeypatch: pytest.MonkeyPatch, stage: Stage) -> None:
    receive = folder.Folder.receive

    def meanwhile(self: folder.Folder, name: str) -> Any:
        with (stage.site / "10-nodes.yml").open("a") as stream:
            stream.write("more")
        return receive(self, name)

    monkeypatch.setattr(folder.Folder, "receive", meanwhile)
    with pytest.raises(BackupError, match="10-nodes.yml was changed while it was backed up"):
        stage.make()
    assert os.listdir(stage.vault) == []


@pytest.mark.skipif(os.getuid() == 0 and not shutil.which("setpriv"), reason="root writes into any folder, and setpriv is not here to be less")
def test_a_folder_that_may_not_be_written_is_one_clear_error(stage: Stage) -> None:
    stage.vault.mkdir(mode=0o500)
    script = f"""
import sys
sys.path[:0] = {[str(ROOT / ".collections"), str(ROOT / "tests")]!r}
from pathlib import Path
from support import backups
from ansible_collections.ashlar.stack.plugins.plugin_utils.backup.errors import BackupError
try:
    backups.make(Path({str(stage.site)!r}), {str(stage.vault)!r}, [{stage.recipient!r}])
except BackupError as error:
    print(error)
"""
    drop = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"] if os.getuid() == 0 else []
    done = subprocess.run([*drop, sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False)
    assert "Permission denied. The user who runs Ansible must be allowed to read and write there." in done.stdout, done.stderr
    assert os.listdir(stage.vault) == []


def test_without_the_library_it_says_so(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "pyrage", None)
    for call in (stage.make, stage.open):
        with pytest.raises(BackupError, match="need the library pyrage.* Install what the collection's requirements.txt names"):
            call()


PLAYBOOK = """
- hosts: localhost
  connection: local
  gather_facts: false
  tasks:
    - ashlar.stack.backup:
        directory: "{{ stage }}/site"
        parts: {etcd: {snapshot.db: "{{ stage }}/etcd.db"}}
        about: {site: prod, release: "{{ '2026.11' }}"}
        to: "{{ stage }}/vault"
        recipients: ["{{ recipient }}"]
      register: made
    - ashlar.stack.backup_open: {source: "{{ made.where }}", identity: "{{ stage }}/identity.txt", into: "{{ stage }}/opened"}
      register: opened
    - ansible.builtin.assert: {that: ["opened.about.release == '2026.11'", "opened.parts.etcd['snapshot.db'] is file"]}
    - ashlar.stack.backup_open: {source: /nowhere, identity: "{{ stage }}/identity.txt", into: "{{ stage }}/opened"}
"""


def test_in_a_playbook_an_error_is_the_tasks_message(stage: Stage) -> None:
    (stage.root / "play.yml").write_text(PLAYBOOK)
    (stage.root / "etcd.db").write_bytes(DATA)
    command = [str(Path(sys.executable).parent / "ansible-playbook"), "-i", "localhost,", str(stage.root / "play.yml")]
    command += ["-e", f"stage={stage.root}", "-e", f"recipient={stage.recipient}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    said = " ".join((done.stdout + done.stderr).split())
    assert "source: /nowhere is neither a file nor a folder of the controller." in said and "Traceback" not in said, said
    assert contents(stage.root / "opened/site") == FILES
