# SPDX-License-Identifier: Apache-2.0
"""What lies on a host after runs that went well, were interrupted, or found damage."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible_collections.ashlar.stack.plugins.action import artifact as action
from ansible_collections.ashlar.stack.plugins.module_utils.artifact import install as artifact
from ansible_collections.ashlar.stack.plugins.modules import artifact as module

from .conftest import Machine, TinyStore
from .test_server import Running, credentials


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


class TestARunThatGoesWell:
    def test_a_fresh_host_gets_everything(self, machine: Machine) -> None:
        done = machine.bring(etcd="1.0.0", flannel="0.9.0")
        assert done["lacking"]["etcd"] == {"from": "", "to": "1.0.0", "reason": "not there"}
        assert machine.read("etcd/current/etcd") == "etcd one"
        assert os.readlink(machine.path("etcd/current")) == "1.0.0"
        assert mode(machine.path("etcd/1.0.0/etcd")) == 0o755
        assert mode(machine.path("flannel/0.9.0/share/licence")) == 0o644
        assert mode(machine.path("flannel/0.9.0/share")) == 0o755

    def test_then_nothing_is_lacking_and_nothing_is_written(self, machine: Machine) -> None:
        machine.bring(etcd="1.0.0")
        before = {path: path.lstat().st_mtime_ns for path in machine.root.rglob("*")}
        seen = machine.inspect(etcd="1.0.0")
        assert not seen["changed"] and not seen["lacking"]
        assert {path: path.lstat().st_mtime_ns for path in machine.root.rglob("*")} == before

    def test_installed_files_share_the_stores_space(self, machine: Machine) -> None:
        machine.bring(etcd="1.0.0")
        installed = machine.path("etcd/1.0.0/etcd").stat()
        assert installed.st_nlink == 2

    def test_a_new_version_sends_only_what_is_new(self, machine: Machine) -> None:
        machine.bring(etcd="1.0.0")
        catalogue = machine.catalogue(etcd="1.1.0")
        seen = machine.inspect(etcd="1.1.0")
        blobs = {f["sha256"]: f["size"] for entry in machine.indexes(seen, catalogue) for f in entry["files"]}
        assert len(blobs) == 2 and len(module.seed(machine.host(), blobs, "", None)["missing"]) == 1

    def test_even_where_the_store_was_dropped(self, machine: Machine) -> None:
        machine.bring(etcd="1.0.0")
        seen = machine.inspect(etcd="1.1.0")
        blobs = {f["sha256"]: f["size"] for entry in machine.indexes(seen, machine.catalogue(etcd="1.1.0")) for f in entry["files"]}
        machine.host().drop_blobs(blobs)
        assert len(module.seed(machine.host(), blobs, "", None)["missing"]) == 1

    def test_the_link_switches_when_all_is_there(self, machine: Machine) -> None:
        machine.bring(etcd="1.0.0", flannel="0.9.0")
        done = machine.bring(etcd="1.1.0", flannel="0.9.0")
        assert set(done["lacking"]) == {"etcd"} and done["lacking"]["etcd"]["from"] == "1.0.0"
        assert machine.read("etcd/current/etcd") == "etcd two"
        assert machine.read("etcd/1.0.0/etcd") == "etcd one"

    def test_the_way_back_needs_no_transfer(self, machine: Machine) -> None:
        machine.bring(etcd="1.0.0")
        machine.bring(etcd="1.1.0")
        seen = machine.inspect(etcd="1.0.0")
        assert seen["changed"] and not seen["lacking"] and seen["artifacts"]["etcd"]["from"] == "1.1.0"
        assert machine.read("etcd/current/etcd") == "etcd one"
        assert not machine.inspect(etcd="1.0.0")["changed"]

    def test_the_versions_used_last_stay(self, machine: Machine) -> None:
        for version in ("1.0.0", "1.1.0", "1.2.0"):
            done = machine.bring(etcd=version)
        assert done["removed"] == {"etcd": ["1.0.0"]}
        assert sorted(os.listdir(machine.path("etcd"))) == ["1.1.0", "1.2.0", "current"]

    def test_a_version_that_runs_stays(self, machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(artifact, "_in_use", lambda folder: folder.endswith("/1.0.0"))
        for version in ("1.0.0", "1.1.0", "1.2.0"):
            machine.bring(etcd=version)
        assert machine.read("etcd/1.0.0/etcd") == "etcd one"

    def test_files_can_be_brought_ahead(self, machine: Machine) -> None:
        machine.bring(etcd="1.0.0")
        ahead = module.Options(activate=False)
        machine.bring(options=ahead, etcd="1.1.0")
        assert machine.read("etcd/current/etcd") == "etcd one" and machine.read("etcd/1.1.0/etcd") == "etcd two"
        assert not machine.inspect(options=ahead, etcd="1.1.0")["changed"]
        assert machine.inspect(etcd="1.1.0")["artifacts"]["etcd"]["to"] == "1.1.0"

    def test_one_content_with_two_modes(self, machine: Machine, store: TinyStore) -> None:
        store.add("twins", "1", {"a": "same", "b": "same", "c": "same"}, modes={"a": "0755", "b": "0644", "c": "0755"})
        machine.bring(twins="1")
        assert [mode(machine.path(f"twins/1/{name}")) for name in "abc"] == [0o755, 0o644, 0o755]
        assert not machine.inspect(twins="1")["changed"]

    def test_what_is_no_longer_asked_for_goes_when_asked(self, machine: Machine) -> None:
        machine.bring(etcd="1.0.0", flannel="0.9.0")
        assert not machine.inspect(etcd="1.0.0")["changed"]
        prune = module.Options(prune=True)
        assert machine.inspect(check=True, options=prune, etcd="1.0.0")["changed"] and machine.path("flannel").exists()
        seen = machine.inspect(options=prune, etcd="1.0.0")
        assert seen["artifacts"]["flannel"]["reason"] == "no longer asked for" and seen["removed"] == {"flannel": ["0.9.0"]}
        assert not machine.path("flannel").exists()
        assert not machine.inspect(options=prune, etcd="1.0.0")["changed"]

    def test_check_mode_writes_nothing(self, machine: Machine) -> None:
        machine.bring(etcd="1.0.0")
        machine.bring(etcd="1.1.0")
        seen = machine.inspect(check=True, etcd="1.0.0")
        assert seen["changed"] and os.readlink(machine.path("etcd/current")) == "1.1.0"


class TestDamage:
    @pytest.fixture
    def laid(self, machine: Machine) -> Machine:
        machine.bring(etcd="1.0.0")
        return machine

    def heals(self, machine: Machine, reason: str, options: module.Options | None = None) -> None:
        seen = machine.inspect(check=True, options=options, etcd="1.0.0")
        assert seen["lacking"]["etcd"]["reason"] == reason
        done = machine.bring(options=options, etcd="1.0.0")
        if done["missing"]:
            # The store shared the damaged file; the controller sends it then, and installs again.
            done = machine.bring(options=options, etcd="1.0.0")
        assert not done["missing"]
        assert machine.read("etcd/current/etcd") == "etcd one" and mode(machine.path("etcd/1.0.0/etcd")) == 0o755
        assert not machine.inspect(options=module.Options(verify=True), etcd="1.0.0")["changed"]

    def test_a_missing_file(self, laid: Machine) -> None:
        laid.path("etcd/1.0.0/etcd").unlink()
        self.heals(laid, "etcd was changed")

    def test_a_changed_file(self, laid: Machine) -> None:
        laid.path("etcd/1.0.0/etcd").write_text("intruder")
        self.heals(laid, "etcd was changed")

    def test_a_changed_mode(self, laid: Machine) -> None:
        laid.path("etcd/1.0.0/etcd").chmod(0o777)
        self.heals(laid, "etcd was changed")

    def test_a_link_in_the_place_of_a_file(self, laid: Machine) -> None:
        path = laid.path("etcd/1.0.0/etcd")
        path.rename(laid.root / "elsewhere")
        path.symlink_to(laid.root / "elsewhere")
        self.heals(laid, "etcd was changed")
        assert not path.is_symlink()

    def test_silent_damage_is_found_by_verify(self, laid: Machine) -> None:
        path = laid.path("etcd/1.0.0/etcd")
        times = path.stat()
        path.write_text("etcd 0ne")
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
        assert not laid.inspect(etcd="1.0.0")["changed"]
        self.heals(laid, "etcd is damaged", module.Options(verify=True))

    @pytest.mark.parametrize("text", ["", "{", "[]", '{"artifacts": {"etcd": {"versions": {"1.0.0": {}}}}}', '{"artifacts": 1}'])
    def test_a_lost_memory_costs_hashing_only(self, laid: Machine, text: str) -> None:
        (laid.root / artifact.MEMORY[1:]).write_text(text)
        assert laid.inspect(check=True, etcd="1.0.0")["lacking"]
        assert laid.bring(send=False, etcd="1.0.0")["missing"] == []
        assert not laid.inspect(etcd="1.0.0")["changed"]

    def test_a_lost_link(self, laid: Machine) -> None:
        laid.path("etcd/current").unlink()
        assert laid.inspect(etcd="1.0.0")["changed"]
        assert laid.read("etcd/current/etcd") == "etcd one"

    def test_the_same_version_built_anew(self, laid: Machine, store: TinyStore) -> None:
        store.add("etcd", "1.0.0", {"etcd": "etcd rebuilt", "etcdctl": "etcdctl one"})
        done = laid.bring(etcd="1.0.0")
        assert done["lacking"]["etcd"]["reason"] == "rebuilt"
        assert laid.read("etcd/current/etcd") == "etcd rebuilt"

    def test_a_damaged_upload_is_refused_and_never_installed(self, machine: Machine) -> None:
        seen = machine.inspect(etcd="1.0.0")
        raw = machine.indexes(seen, machine.catalogue(etcd="1.0.0"))
        blobs = {f["sha256"]: f["size"] for entry in raw for f in entry["files"]}
        missing = module.seed(machine.host(), blobs, "", None)["missing"]
        machine.upload(missing)
        victim = machine.root / "opt/ashlar/.store/incoming" / missing[0]
        victim.write_bytes(bytes(victim.stat().st_size))
        done = module.install(machine.host(), raw, {"etcd": "1.0.0"}, {}, module.Options())
        assert done["missing"] == [missing[0]] and "1 uploaded files were damaged" in done["problem"]
        assert not machine.path("etcd").exists() and not victim.exists()
        assert machine.bring(etcd="1.0.0")["missing"] == []


class TestInterruption:
    STEPS = ("chown", "replace", "link", "symlink", "chmod", "mkdir")

    def test_a_run_killed_at_any_step_is_finished_by_the_next(self, tmp_path: Path, store: TinyStore, monkeypatch: pytest.MonkeyPatch) -> None:
        """Kills at the first, second, third ... changing system call until a run gets through; each time the next run heals."""
        kills = 0
        while True:
            machine = Machine(tmp_path / f"host{kills}", store)
            machine.root.mkdir()
            machine.bring(etcd="1.0.0")
            counter = {"left": kills}
            with monkeypatch.context() as patch:
                for name in self.STEPS:
                    patch.setattr(os, name, self._killer(getattr(os, name), counter))
                try:
                    machine.bring(etcd="1.1.0", flannel="0.9.0")
                    finished = True
                except KeyboardInterrupt:
                    finished = False
            current = machine.read("etcd/current/etcd")
            assert current in ("etcd one", "etcd two")
            for path in machine.root.glob("opt/ashlar/*/*/*"):
                # No half-written file under a final name.
                if path.is_file() and not path.name.startswith(".") and not path.parent.name.startswith(".") and ".store" not in str(path):
                    assert path.read_text() in ("etcd one", "etcd two", "etcdctl one", "flannel", "text"), path
            assert machine.bring(etcd="1.1.0", flannel="0.9.0").get("missing", []) == []
            assert machine.read("etcd/current/etcd") == "etcd two" and machine.read("flannel/current/flanneld") == "flannel"
            assert not machine.inspect(options=module.Options(verify=True), etcd="1.1.0", flannel="0.9.0")["changed"]
            if finished:
                break
            kills += 1
        assert kills > 20

    @staticmethod
    def _killer(real: Any, counter: dict[str, int]) -> Any:
        def call(*values: Any, **named: Any) -> Any:
            if counter["left"] <= 0:
                raise KeyboardInterrupt
            counter["left"] -= 1
            return real(*values, **named)

        return call

    def test_what_was_uploaded_is_not_sent_again(self, machine: Machine) -> None:
        seen = machine.inspect(etcd="1.0.0")
        raw = machine.indexes(seen, machine.catalogue(etcd="1.0.0"))
        blobs = {f["sha256"]: f["size"] for entry in raw for f in entry["files"]}
        first = module.seed(machine.host(), blobs, "", None)["missing"]
        machine.upload(first[:1])
        assert module.seed(machine.host(), blobs, "", None)["missing"] == first[1:]

    def test_half_of_an_upload_is_sent_again(self, machine: Machine) -> None:
        seen = machine.inspect(etcd="1.0.0")
        raw = machine.indexes(seen, machine.catalogue(etcd="1.0.0"))
        blobs = {f["sha256"]: f["size"] for entry in raw for f in entry["files"]}
        first = module.seed(machine.host(), blobs, "", None)["missing"]
        (machine.root / "opt/ashlar/.store/incoming" / first[0]).write_text("etc")
        assert module.seed(machine.host(), blobs, "", None)["missing"] == first


class TestBundle:
    def test_small_files_come_together(self, machine: Machine, tmp_path: Path) -> None:
        import tarfile

        seen = machine.inspect(etcd="1.0.0")
        raw = machine.indexes(seen, machine.catalogue(etcd="1.0.0"))
        blobs = {f["sha256"]: f["size"] for entry in raw for f in entry["files"]}
        module.seed(machine.host(), blobs, "", None)
        bundle = machine.root / "opt/ashlar/.store/incoming/bundle.tar"
        with tarfile.open(bundle, "w") as archive:
            for sha256 in blobs:
                archive.add(machine.store.root / "sha256" / sha256[:2] / sha256, arcname=sha256)
            archive.add(machine.root / "etc/os-release", arcname="../../../etc/evil")
        done = module.install(machine.host(), raw, {"etcd": "1.0.0"}, {}, module.Options())
        assert not done["missing"] and not bundle.exists()
        assert machine.read("etcd/current/etcd") == "etcd one"
        assert not list(machine.root.rglob("evil"))

    @pytest.mark.parametrize("size", [0, 100, 700, 1500])
    def test_a_bundle_that_was_cut_off_harms_nothing(self, machine: Machine, size: int) -> None:
        import tarfile

        machine.inspect(etcd="1.0.0")
        host = machine.host()
        host.prepare({})
        bundle = Path(host.incoming) / "bundle.tar"
        with tarfile.open(bundle, "w") as archive:
            for blob in sorted((machine.store.root / "sha256").glob("*/*"))[:2]:
                archive.add(blob, arcname=blob.name)
        with open(bundle, "r+b") as stream:
            stream.truncate(size)
        host.adopt()
        assert not bundle.exists()
        assert machine.bring(etcd="1.0.0")["missing"] == []


class TestUploadFolder:
    """It belongs to the login user, who may be another than root."""

    @pytest.mark.parametrize("kind", ["symlink", "hard link", "folder"])
    def test_what_is_no_plain_file_is_refused(self, machine: Machine, kind: str) -> None:
        host = machine.host()
        host.prepare({})
        precious = machine.root / "precious"
        precious.write_text("secret")
        precious.chmod(0o600)
        place = Path(host.incoming) / ("a" * 64)
        if kind == "symlink":
            place.symlink_to(precious)
        elif kind == "hard link":
            place.hardlink_to(precious)
        else:
            place.mkdir()
        with pytest.raises(artifact.InstallError, match="is a link or no file"):
            host.adopt()
        assert mode(precious) == 0o600 and precious.read_text() == "secret"


    @pytest.mark.parametrize(
        ("led_here", "uid"),
        [
            ({"self": (12, 0), "12": (11, 0), "11": (10, 1000), "10": (1, 0)}, 1000),  # sh and sudo, doas; the user's shell; sshd
            ({"self": (12, 0), "12": (1, 1000)}, 1000),  # su, which stays the user's
            ({"self": (12, 0), "12": (1, 0)}, 4711),  # root's own login, or a means that leads through systemd (run0, machinectl)
            ({"self": (12, 0)}, 4711),
            ({"self": (0, 0)}, 4711),
        ],
    )
    def test_who_uploads_is_known_whatever_made_them_root(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, led_here: dict[str, tuple[int, int]], uid: int
    ) -> None:
        for pid, (parent, user) in led_here.items():
            (tmp_path / pid).mkdir()
            (tmp_path / pid / "status").write_text(f"Name:\tsh\nPid:\t9\nPPid:\t{parent}\nTracerPid:\t0\nUid:\t{user}\t0\t0\t0\nGid:\t0\t0\t0\t0\n")
        monkeypatch.setattr("pwd.getpwnam", lambda name: SimpleNamespace(pw_uid=4711))
        assert artifact._uid("ops", str(tmp_path)) == uid


class TestLimits:
    def test_a_full_disk_is_told_before_anything_is_sent(self, machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(artifact, "MARGIN", 1 << 60)
        host = artifact.Host(str(machine.root), margin=1 << 60)
        with pytest.raises(artifact.InstallError, match=r"opt/ashlar/.store has .* free; artifacts need 8 bytes .* Free .* there, or enlarge"):
            host.prepare({"a" * 64: 8})

    def test_a_lock_that_is_never_freed(self, machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(artifact, "LOCK_SECONDS", 0.1)
        with machine.host().locked(), pytest.raises(artifact.InstallError, match="another run works on this host's artifacts"), machine.host().locked():
            pass

    def test_an_unknown_machine(self, machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(os, "uname", lambda: type("U", (), {"machine": "riscv64"})())
        with pytest.raises(artifact.InstallError, match="the machine is riscv64; artifacts are made for amd64 and arm64"):
            machine.host().platform()

    def test_errors_of_the_system_are_sentences(self) -> None:
        with pytest.raises(artifact.InstallError, match=r"/x: No space left on device. The disk is full"), artifact.guarded():
            raise OSError(28, "No space left on device", "/x")

    @pytest.mark.parametrize("path", ["/etc/passwd", "../x", "a/../../x"])
    def test_an_index_that_leaves_its_folder_is_refused(self, path: str) -> None:
        raw = {"name": "a", "version": "1", "digest": "", "files": [{"path": path, "sha256": "0" * 64, "size": 1, "mode": "0755"}]}
        with pytest.raises(artifact.InstallError, match="leaves its folder"):
            artifact.parse_index(raw)

    def test_blobs_nobody_uses_leave_the_store_after_a_while(self, machine: Machine) -> None:
        machine.bring(etcd="1.0.0")
        host = machine.host()
        old, young = Path(host.blob("0" * 64)), Path(host.blob("1" * 64))
        for path in (old, young):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("x")
        os.utime(old, (0, 0))
        for blob in Path(host.store).glob("sha256/*/*"):
            if blob.stat().st_nlink > 1:
                os.utime(blob, (0, 0))
        host.prune_store([])
        assert not old.exists() and young.exists()
        assert machine.read("etcd/current/etcd") == "etcd one" and len(list(Path(host.store).glob("sha256/*/*"))) == 3

    def test_the_memory_is_small_and_plain(self, machine: Machine) -> None:
        machine.bring(etcd="1.0.0")
        memory = json.loads((machine.root / artifact.MEMORY[1:]).read_text())
        assert memory["artifacts"]["etcd"]["order"] == ["1.0.0"]


@pytest.mark.usefixtures("hardened")
class TestAHardenedHost:
    def closed(self, machine: Machine) -> list[str]:
        """What a service user could not get at below /opt/ashlar. What is being uploaded is the uploader's alone."""
        own = {machine.path(".store/incoming"), machine.root / "var/lib/ashlar/artifacts.json.lock"}
        paths = [machine.root / "opt/ashlar", *machine.path(".").rglob("*"), *(machine.root / "var").rglob("*")]
        return [str(path) for path in paths if path not in own and mode(path) & 0o044 != 0o044]

    def test_services_can_run_what_was_brought(self, machine: Machine) -> None:
        machine.bring(etcd="1.0.0", flannel="0.9.0")
        assert self.closed(machine) == []
        assert mode(machine.path("etcd/1.0.0/etcd")) == 0o755

    def test_services_can_run_what_came_from_the_server(self, tmp_path: Path, machine: Machine) -> None:
        serving = Running(machine.store.root, credentials(tmp_path, "node"))
        files = {name: os.path.relpath(path, machine.root) for name, path in credentials(tmp_path, "node").items()}
        try:
            address = {"address": "127.0.0.1", "port": serving.port, **{name: f"/{path}" for name, path in files.items()}}
            machine.bring(source=address, send=False, etcd="1.0.0", flannel="0.9.0")
        finally:
            serving.stop()
        assert self.closed(machine) == []

    def test_what_an_earlier_run_closed_is_opened(self, machine: Machine) -> None:
        machine.bring(flannel="0.9.0")
        for folder in ("", "flannel", "flannel/0.9.0", "flannel/0.9.0/share"):
            machine.path(folder).chmod(0o700)
            assert "closed to services" in machine.inspect(flannel="0.9.0")["lacking"]["flannel"]["reason"]
            machine.bring(flannel="0.9.0")
            assert self.closed(machine) == []
        assert not machine.inspect(flannel="0.9.0")["changed"]


class TestSurvey:
    @staticmethod
    def surveyed(machine: Machine, keep: int = 2, prune: bool = True, **versions: str) -> bool:
        return action.intact(machine.catalogue(**versions).want(), machine.host().survey(), keep, prune)

    def test_a_survey_finds_what_is_in_use_and_as_recorded(self, machine: Machine) -> None:
        assert not self.surveyed(machine, etcd="1.0.0")
        machine.bring(etcd="1.0.0", flannel="0.9.0")
        assert self.surveyed(machine, etcd="1.0.0", flannel="0.9.0")
        assert not self.surveyed(machine, etcd="1.1.0", flannel="0.9.0")

    def test_a_survey_leaves_out_what_was_changed_or_is_not_in_use(self, machine: Machine) -> None:
        machine.bring(etcd="1.0.0")
        machine.bring(etcd="1.1.0")
        assert self.surveyed(machine, etcd="1.1.0")
        # The way back switches a link.
        assert not self.surveyed(machine, etcd="1.0.0")
        # An earlier version is to go.
        assert not self.surveyed(machine, keep=1, etcd="1.1.0")
        machine.path("etcd/1.1.0/etcd").write_text("another")
        assert not self.surveyed(machine, etcd="1.1.0")

    def test_a_survey_tells_of_what_is_no_longer_wanted(self, machine: Machine) -> None:
        machine.bring(etcd="1.0.0", flannel="0.9.0")
        assert not self.surveyed(machine, etcd="1.0.0")
        assert self.surveyed(machine, prune=False, etcd="1.0.0")
