# SPDX-License-Identifier: Apache-2.0
"""Backups by SSH and in S3: there and back, what goes wrong, and the tool `age` itself."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.ashlar.stack.plugins.plugin_utils.backup import s3 as bucket
from ansible_collections.ashlar.stack.plugins.plugin_utils.backup import ssh
from ansible_collections.ashlar.stack.plugins.plugin_utils.backup.errors import BackupError
from ssh_server import Sshd
from support.backups import FILES, Stage, contents


def there_and_back(stage: Stage, to: str) -> list[str]:
    """Three backups, of which two are kept and opened in both ways; their names."""
    made = [stage.make(to=to, keep=2) for _ in range(3)]
    names = [one["name"] for one in made]
    assert [one["removed"] for one in made] == [[], [], names[:1]]
    assert made[2]["where"] == f"{to}/{names[2]}"
    assert stage.make(to=to, keep=1, check=True)["removed"] == names[1:]
    for source in (made[1]["where"], to):
        told = stage.open(source)
        assert contents(Path(told["site"])) == FILES
    assert told["name"] == names[2]
    with pytest.raises(BackupError, match=f"{names[0]} is not there|No such file"):
        stage.open(made[0]["where"])
    return names[1:]


def keys(s3: Any) -> list[str]:
    return [one["Key"] for one in s3.list_objects_v2(Bucket="backups").get("Contents", ())]


@pytest.mark.parametrize("prefix", ["", "/ashlar/sites"])
def test_s3_there_and_back(prefix: str, s3: Any, stage: Stage) -> None:
    s3.put_object(Bucket="backups", Key="prod-20200101T000000Z.tar.age/deeper", Body=b"of somebody else")
    names = there_and_back(stage, f"s3://backups{prefix}")
    assert sorted(keys(s3)) == sorted(["prod-20200101T000000Z.tar.age/deeper", *(f"{prefix}/{name}".strip("/") for name in names)])


def test_what_is_large_goes_to_s3_in_parts(s3: Any, stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bucket, "PART_BYTES", 5 << 20)
    (stage.site / "large").write_bytes(os.urandom(12 << 20))
    made = stage.make(to="s3://backups/ashlar")
    head = s3.head_object(Bucket="backups", Key=f"ashlar/{made['name']}")
    assert head["ContentLength"] == made["size"] > 12 << 20 and head["ETag"].endswith('-3"')
    assert (Path(stage.open("s3://backups/ashlar")["site"]) / "large").read_bytes() == (stage.site / "large").read_bytes()


def test_an_upload_that_fails_is_given_up(s3: Any, stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bucket, "PART_BYTES", 5 << 20)
    (stage.site / "large").write_bytes(os.urandom(12 << 20))
    send = bucket._Incoming._send

    def meanwhile(self: Any) -> None:
        send(self)
        (stage.site / "state" / "placement.yml").write_text("changed")

    monkeypatch.setattr(bucket._Incoming, "_send", meanwhile)
    with pytest.raises(BackupError, match="was changed while it was backed up"):
        stage.make(to="s3://backups")
    assert keys(s3) == [] and "Uploads" not in s3.list_multipart_uploads(Bucket="backups")


def test_what_s3_says_is_explained(s3: Any, stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    def says(to: str) -> str:
        with pytest.raises(BackupError) as caught:
            stage.make(to=to)
        with pytest.raises(BackupError) as opening:
            stage.open(to)
        assert str(opening.value) == str(caught.value)
        return str(caught.value)

    assert says("s3://elsewhere/ashlar") == "s3://elsewhere/ashlar: there is no bucket elsewhere. Make it, or correct its name."
    with pytest.raises(BackupError, match="s3://backups/ashlar holds no backup"):
        stage.open("s3://backups/ashlar")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setattr(bucket, "CONFIG", bucket.CONFIG.merge(bucket.Config(retries={"total_max_attempts": 1})))
    assert "can't be reached" in says("s3://backups") and "AWS_ENDPOINT_URL" in says("s3://backups")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    assert "credentials" in says("s3://backups")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    assert "there are no credentials for S3. Give them as the AWS CLI takes them" in says("s3://backups")


def test_ssh_there_and_back(sshd: Sshd, stage: Stage) -> None:
    vault = stage.root / "vault of 'mine'"
    (stage.site / "large").write_bytes(os.urandom(3 << 20))
    made = stage.make(to=f"{sshd.url}{vault}")
    [file] = vault.iterdir()
    assert (file.name, file.stat().st_size, file.stat().st_mode & 0o777, vault.stat().st_mode & 0o777) == (made["name"], made["size"], 0o600, 0o700)
    stage.open(made["where"])
    (stage.site / "large").unlink()
    file.unlink()
    assert sorted(there_and_back(stage, f"{sshd.url}{vault}")) == sorted(os.listdir(vault))


def test_what_ssh_says_is_explained(sshd: Sshd, stage: Stage, tmp_path: Path) -> None:
    def says(to: str) -> str:
        with pytest.raises(BackupError) as caught:
            stage.make(to=to)
        return str(caught.value)

    to = f"{sshd.url}{stage.vault}"
    assert "nowhere is not there. The account needs a shell and must be able to read and write" in says(f"{sshd.url}{tmp_path}/nowhere/vault")
    with pytest.raises(BackupError, match="holds no backup"):
        stage.open(to)
    sshd.configure(identity=sshd.folder / "stranger")
    assert "refuses SSH: " in says(to) and "must be let in there. Try: ssh -p" in says(to)
    sshd.configure(known_hosts=Path("/dev/null"))
    assert "ssh does not know the host's key" in says(to)
    sshd.configure()
    port = sshd.url.rpartition(":")[2]
    assert "can't be reached by SSH" in says(to.replace(port, "9"))
    assert not stage.vault.exists()


def test_a_machine_that_fails_in_the_middle_keeps_nothing(sshd: Sshd, stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    to = f"{sshd.url}{stage.vault}"
    old = stage.make(to=to)["name"]
    (stage.site / "large").write_bytes(os.urandom(3 << 20))
    write = ssh.WRITE
    full = 'umask 077; head -c 100000 > "$1/$2"; echo "cat: write error: No space left on device" >&2; exit 1'
    lost = 'umask 077; head -c 100000 > "$1/$2"; cat > /dev/null'
    for script, says in ((full, "no space is left on its disk"), (lost, "does not hold what was sent there: 100000 of [0-9]+ bytes are there")):
        monkeypatch.setattr(ssh, "WRITE", script)
        with pytest.raises(BackupError, match=says):
            stage.make(to=to, keep=1)
        assert os.listdir(stage.vault) == [old]
    changed = ssh.COMMIT.replace("size=", 'printf x | dd of="$1/$2" seek=5000 bs=1 conv=notrunc 2> /dev/null; size=', 1)
    monkeypatch.setattr(ssh, "WRITE", write)
    monkeypatch.setattr(ssh, "COMMIT", changed)
    with pytest.raises(BackupError, match="does not hold what was sent there: its sha256 differs"):
        stage.make(to=to, keep=1)
    assert os.listdir(stage.vault) == [old]


def test_a_connection_that_breaks_while_reading_is_no_damaged_backup(sshd: Sshd, stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    (stage.site / "large").write_bytes(os.urandom(3 << 20))
    made = stage.make(to=f"{sshd.url}{stage.vault}")
    monkeypatch.setattr(ssh, "READ", 'head -c 1000000 "$1/$2"; exit 255')
    with pytest.raises(BackupError, match="can't be reached by SSH"):
        stage.open(made["where"])
    assert stage.opened() == []


def test_without_the_program_ssh_it_says_so(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(stage.root))
    with pytest.raises(BackupError, match="needs the program ssh, which is not on this machine. Install openssh-client."):
        stage.make(to="ssh://backup@host/vault")


@pytest.mark.skipif(not shutil.which("age"), reason="there is no age on this machine: apt-get install age")
def test_the_tool_age_opens_what_we_made_by_either_kind_of_key(stage: Stage) -> None:
    key = stage.root / "id_ed25519"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    made = stage.make(recipients=[stage.recipient, key.with_suffix(".pub").read_text()])
    for identity in (stage.identity, key):
        done = subprocess.run(["age", "-d", "-i", identity, made["where"]], capture_output=True, check=True, timeout=120)
        with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
            names = archive.getnames()
            assert names[0] == "manifest.json" and {f"site/{name}" for name in FILES} < set(names)


@pytest.mark.skipif(not shutil.which("age-keygen"), reason="there is no age-keygen on this machine: apt-get install age")
def test_keys_that_the_tool_age_makes_work(stage: Stage) -> None:
    identity = stage.root / "made.txt"
    subprocess.run(["age-keygen", "-o", identity], capture_output=True, check=True, timeout=120)
    public = subprocess.run(["age-keygen", "-y", identity], capture_output=True, check=True, text=True, timeout=120).stdout.strip()
    stage.make(recipients=[public])
    assert contents(Path(stage.open(identity=identity)["site"])) == FILES
