# SPDX-License-Identifier: Apache-2.0
"""Files and folders: laid down, kept, attributed, removed, shown."""

from __future__ import annotations

import importlib
import json
import os
import stat
import subprocess
from pathlib import Path

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.ashlar.stack.plugins.module_utils.host.files import HostFiles
from ansible_collections.ashlar.stack.plugins.module_utils.host.run import Completed, masked
from ansible_collections.ashlar.stack.plugins.module_utils.tree.apply import Attributes, TreeError, TreeSpec, Validator, parse_mode, unified
from ansible_collections.ashlar.stack.plugins.module_utils.tree.bundle import BundleError, Source, pack, unpack
from fake_host import FakeHost, TickingFiles

SPEC = TreeSpec("app")


def mode(host: FakeHost, path: str) -> int:
    return stat.S_IMODE(host.path(path).lstat().st_mode)


def test_a_bundle_comes_out_as_it_went_in():
    sources = [Source("/b", os.urandom(300_000)), Source("/a", b"", True), Source("/c", b"text\n")]
    assert unpack(pack(sources)) == sorted(sources, key=lambda source: source.path)


@pytest.mark.parametrize("text", ["", "no base64!", "AAAA", pack([Source("/a", b"abc")])[:-8]])
def test_a_damaged_bundle_is_refused(text: str):
    with pytest.raises(BundleError):
        unpack(text)


def test_first_run_lays_everything_and_second_changes_nothing(host: FakeHost):
    sources = {
        "/etc/app/app.conf": "a=1\n",
        "/etc/app/bin": b"\0\xff\0",
        "/usr/local/bin/app": Source("/usr/local/bin/app", b"#!/bin/sh\n", True),
    }
    first = host.lay(SPEC, sources)
    assert first.changed
    assert set(sources) <= set(first.changed_paths)
    assert host.text("/etc/app/app.conf") == "a=1\n"
    assert host.path("/etc/app/bin").read_bytes() == b"\0\xff\0"
    assert mode(host, "/etc/app/app.conf") == 0o644
    assert mode(host, "/usr/local/bin/app") == 0o755
    before = host.snapshot()
    times = {path: path.stat().st_mtime_ns for path in host.root.rglob("*")}
    second = host.lay(SPEC, sources)
    assert not second.changed
    assert second.changed_paths == second.removed_paths == second.diff == []
    assert host.snapshot() == before
    assert {path: path.stat().st_mtime_ns for path in host.root.rglob("*")} == times


def test_a_file_changed_by_hand_is_put_right_and_only_that(host: FakeHost):
    sources = {"/etc/app/a": "1", "/etc/app/b": "2"}
    host.lay(SPEC, sources)
    host.put("/etc/app/b", "by hand")
    assert host.lay(SPEC, sources).changed_paths == ["/etc/app/b"]
    assert host.text("/etc/app/b") == "2"


def test_attributes_go_by_the_first_glob_that_matches(host: FakeHost):
    spec = TreeSpec("app", files=(Attributes("/etc/app/*.key", mode=0o600), Attributes("/etc/app/**", mode=0o640)))
    host.lay(spec, {"/etc/app/x.key": "k", "/etc/app/x.conf": "c", "/etc/app/deep/er/y": "d", "/etc/other": "o"})
    assert [mode(host, path) for path in ("/etc/app/x.key", "/etc/app/x.conf", "/etc/app/deep/er/y", "/etc/other")] == [
        0o600,
        0o640,
        0o640,
        0o644,
    ]


def test_a_mode_changed_by_hand_is_put_right_in_place(host: FakeHost):
    sources = {"/etc/app/a": "1"}
    host.lay(SPEC, sources)
    inode = host.path("/etc/app/a").stat().st_ino
    host.path("/etc/app/a").chmod(0o666)
    result = host.lay(SPEC, sources)
    assert result.changed_paths == ["/etc/app/a"]
    assert "0666" in unified(result.diff[0])
    assert mode(host, "/etc/app/a") == 0o644
    assert host.path("/etc/app/a").stat().st_ino == inode


def test_a_hard_linked_file_is_replaced_so_that_its_other_name_keeps_its_attributes(host: FakeHost):
    host.put("/etc/app/a", "1").chmod(0o600)
    os.link(host.path("/etc/app/a"), host.path("/etc/precious"))
    host.lay(SPEC, {"/etc/app/a": "1"})
    assert mode(host, "/etc/app/a") == 0o644
    assert mode(host, "/etc/precious") == 0o600


@pytest.mark.parametrize("text", ["416", "0o640", "640", "u=rw", "09999", "0888", "06400"])
def test_a_mode_that_yaml_has_eaten_is_refused(text: str):
    with pytest.raises(TreeError, match="four octal digits in quotes"):
        parse_mode(text, "files /x")


def test_folders_are_made_with_their_modes_and_put_right(host: FakeHost):
    spec = TreeSpec("app", directories=(Attributes("/var/lib/app", mode=0o700), Attributes("/var/lib/app/deep/er", mode=0o750)))
    assert set(host.lay(spec).changed_paths) == {"/var/lib/app", "/var/lib/app/deep", "/var/lib/app/deep/er"}
    assert [mode(host, path) for path in ("/var/lib/app", "/var/lib/app/deep", "/var/lib/app/deep/er")] == [0o700, 0o755, 0o750]
    host.path("/var/lib/app").chmod(0o777)
    assert host.lay(spec).changed_paths == ["/var/lib/app"]
    assert mode(host, "/var/lib/app") == 0o700
    assert not host.lay(spec).changed


def test_what_the_tree_no_longer_has_is_removed_and_nothing_else(host: FakeHost):
    host.lay(SPEC, {"/etc/app/a": "1", "/etc/app/sub/b": "2", "/etc/app/keep/c": "3"})
    host.put("/etc/app/keep/foreign", "not ours")
    result = host.lay(SPEC, {"/etc/app/a": "1"})
    assert result.removed_paths == ["/etc/app/keep/c", "/etc/app/sub/b", "/etc/app/sub"]
    assert host.text("/etc/app/keep/foreign") == "not ours"
    assert not host.path("/etc/app/sub").exists()
    assert not host.lay(SPEC, {"/etc/app/a": "1"}).changed


def test_folders_that_were_there_before_stay_though_empty(host: FakeHost):
    host.path("/etc/app").mkdir()
    host.lay(SPEC, {"/etc/app/a": "1"})
    host.lay(SPEC, {})
    assert host.path("/etc/app").is_dir()


def test_data_folders_stay_when_the_tree_goes_unless_they_are_empty(host: FakeHost):
    spec = TreeSpec("app", directories=(Attributes("/var/lib/app"), Attributes("/var/lib/empty")))
    host.lay(spec, {"/etc/app/a": "1"})
    host.put("/var/lib/app/data", "precious")
    result = host.lay(TreeSpec("app", absent=True))
    assert set(result.removed_paths) == {"/etc/app/a", "/etc/app", "/var/lib/empty"}
    assert host.text("/var/lib/app/data") == "precious"
    assert not host.path("/var/lib/ashlar/trees/app.json").exists()
    assert not host.lay(TreeSpec("app", absent=True)).changed


def test_a_file_that_moved_to_another_tree_is_not_removed_by_the_first(host: FakeHost):
    host.lay(TreeSpec("old"), {"/etc/shared": "1", "/etc/own": "1"})
    host.lay(TreeSpec("new"), {"/etc/shared": "1"})
    assert host.lay(TreeSpec("old"), {"/etc/own": "1"}).removed_paths == []
    assert host.text("/etc/shared") == "1"


def test_links_are_laid_changed_and_removed(host: FakeHost):
    assert host.lay(TreeSpec("app", links={"/usr/bin/app": "/opt/app/1/app"})).changed_paths == ["/usr/bin/app"]
    assert os.readlink(host.path("/usr/bin/app")) == "/opt/app/1/app"
    assert not host.lay(TreeSpec("app", links={"/usr/bin/app": "/opt/app/1/app"})).changed
    assert host.lay(TreeSpec("app", links={"/usr/bin/app": "/opt/app/2/app"})).changed
    assert os.readlink(host.path("/usr/bin/app")) == "/opt/app/2/app"
    assert host.lay(TreeSpec("app")).removed_paths == ["/usr/bin/app"]
    assert not host.path("/usr/bin/app").is_symlink()


def test_check_mode_tells_all_and_touches_nothing(host: FakeHost):
    host.lay(SPEC, {"/etc/app/a": "1", "/etc/app/gone": "x"})
    before = host.snapshot()
    spec = TreeSpec("app", directories=(Attributes("/var/lib/app"),), links={"/usr/bin/app": "/x"})
    sources = {"/etc/app/a": "2", "/etc/app/new": "n"}
    told = host.lay(spec, sources, check=True)
    assert host.snapshot() == before
    done = host.lay(spec, sources)
    assert (told.changed, set(told.changed_paths), set(told.removed_paths)) == (True, set(done.changed_paths), set(done.removed_paths))
    assert told.diff == done.diff
    assert not host.lay(spec, sources, check=True).changed


def test_a_first_run_in_check_mode_leaves_no_memory(host: FakeHost):
    before = host.snapshot()
    assert host.lay(SPEC, {"/etc/app/a": "1"}, check=True).changed
    assert host.snapshot() == before


def test_diffs_show_contents_but_no_secrets_and_no_binaries(host: FakeHost):
    spec = TreeSpec("app", files=(Attributes("/etc/app/key", mode=0o600), Attributes("/etc/app/group", mode=0o640)))
    host.lay(spec, {"/etc/app/key": "old-secret", "/etc/app/group": "old-secret", "/etc/app/open": "old\n", "/etc/app/bin": b"\0old"})
    result = host.lay(
        spec, {"/etc/app/key": "new-secret", "/etc/app/group": "new-secret", "/etc/app/open": "new\n", "/etc/app/bin": b"\0new"}
    )
    text = "".join(unified(diff) for diff in result.diff)
    assert "-secret" not in json.dumps(result.diff)
    assert text.count("(secret: not shown)") == 2
    assert text.count("(binary: not shown)") == 1
    assert "-old\n+new\n" in text
    removed = host.lay(spec, {})
    assert "-secret" not in json.dumps(removed.diff)


def test_a_file_that_was_secret_is_not_shown_when_it_becomes_readable(host: FakeHost):
    host.lay(TreeSpec("app", files=(Attributes("/etc/app/a", mode=0o600),)), {"/etc/app/a": "old-secret"})
    assert "old-secret" not in json.dumps(host.lay(SPEC, {"/etc/app/a": "public"}).diff)


def test_a_new_file_is_never_readable_by_others_before_it_has_its_mode(host: FakeHost, monkeypatch: pytest.MonkeyPatch):
    seen = []
    plain = os.fchmod
    monkeypatch.setattr(os, "fchmod", lambda fd, value: (seen.append(stat.S_IMODE(os.fstat(fd).st_mode)), plain(fd, value)))
    os.umask(0o022)
    host.lay(TreeSpec("app", files=(Attributes("/etc/key", mode=0o600),)), {"/etc/key": "secret"})
    assert seen
    assert all(value & 0o077 == 0 for value in seen)


# ---- validators


def _validator(answer: Completed, seen: list[str]):
    def run(command):
        seen.append(Path(command[-1]).read_text())
        return answer

    return run


def test_a_validator_that_refuses_keeps_everything_as_it_was(host: FakeHost):
    host.lay(SPEC, {"/etc/app/app.conf": "good\n"})
    before = host.snapshot()
    seen: list[str] = []
    host.programs["appcheck"] = _validator(Completed(1, err="line 1: nonsense\npassword=hunter2"), seen)
    spec = TreeSpec("app", validate=(Validator("/etc/app/*.conf", ("appcheck", "-f", "{}")),))
    with pytest.raises(TreeError) as error:
        host.lay(spec, {"/etc/app/app.conf": "bad\n", "/etc/app/other": "x"})
    assert seen == ["bad\n"]
    assert "line 1: nonsense" in str(error.value)
    assert "/etc/app/app.conf" in str(error.value)
    assert "hunter2" not in str(error.value)
    assert host.snapshot() == before


def test_validators_see_the_whole_tree_and_run_only_when_contents_differ(host: FakeHost):
    seen: list[str] = []

    def run(command):
        seen.append(Path(command[1], "etc/app/included").read_text())
        return Completed(0)

    host.programs["appcheck"] = run
    spec = TreeSpec("app", validate=(Validator("/etc/app/app.conf", ("appcheck", "{root}", "{}")),))
    sources = {"/etc/app/app.conf": "1", "/etc/app/included": "inc"}
    host.lay(spec, sources)
    host.lay(spec, sources)
    assert seen == ["inc"]
    host.lay(spec, {**sources, "/etc/app/included": "other"})
    assert seen == ["inc", "other"]
    assert not list(host.path("/run").iterdir())


def test_a_validator_not_installed_yet_is_a_warning_in_check_mode_and_an_error_otherwise(host: FakeHost):
    spec = TreeSpec("app", validate=(Validator("/etc/app/*", ("missing", "{}")),))
    assert "missing is not installed yet" in host.lay(spec, {"/etc/app/a": "1"}, check=True).warnings[0]
    with pytest.raises(TreeError, match="No such file"):
        host.lay(spec, {"/etc/app/a": "1"})


# ---- what must not be followed or trusted


def test_a_link_planted_at_the_destination_is_replaced_and_its_target_untouched(host: FakeHost):
    victim = host.put("/etc/victim", "victim")
    host.path("/etc/app").mkdir()
    host.path("/etc/app/a").symlink_to(victim)
    host.lay(SPEC, {"/etc/app/a": "ours"})
    assert not host.path("/etc/app/a").is_symlink()
    assert host.text("/etc/app/a") == "ours"
    assert victim.read_text() == "victim"


def test_a_link_planted_at_the_temporary_name_is_not_written_through(host: FakeHost):
    victim = host.put("/etc/victim", "victim")
    host.path("/etc/app").mkdir()
    host.path("/etc/app/.ashlar-new.a").symlink_to(victim)
    host.lay(SPEC, {"/etc/app/a": "ours"})
    assert victim.read_text() == "victim"
    assert host.text("/etc/app/a") == "ours"
    assert os.listdir(host.path("/etc/app")) == ["a"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a link to somebody else")
@pytest.mark.parametrize("kind", ["file", "folder", "look"])
def test_a_folder_link_planted_by_a_service_user_is_not_followed(host: FakeHost, kind: str):
    host.put("/etc/victim/a", "victim")
    host.path("/var/lib/app").mkdir()
    os.chown(host.path("/var/lib/app"), 12345, 12345)
    host.path("/var/lib/app/sub").symlink_to(host.path("/etc/victim"))
    os.lchown(host.path("/var/lib/app/sub"), 12345, 12345)
    spec = TreeSpec("app", directories=(Attributes("/var/lib/app/sub", mode=0o777),)) if kind == "folder" else SPEC
    with pytest.raises(TreeError, match="symbolic link owned by user id 12345") as error:
        host.lay(spec, {} if kind == "folder" else {"/var/lib/app/sub/a": "ours"}, check=kind == "look")
    assert "chown -h root" in str(error.value)
    assert host.text("/etc/victim/a") == "victim"
    assert mode(host, "/etc/victim") == 0o755


def test_links_of_root_on_the_way_are_followed_inside_the_root(host: FakeHost):
    host.path("/usr/lib").mkdir(parents=True)
    host.path("/lib").symlink_to("usr/lib")
    host.path("/srv").mkdir()
    host.path("/etc/app").symlink_to("/srv/../srv")
    host.lay(SPEC, {"/lib/a": "1", "/etc/app/b": "2"})
    assert host.text("/usr/lib/a") == "1"
    assert host.text("/srv/b") == "2"
    assert host.path("/lib").is_symlink()


def test_links_that_go_in_a_circle_end_in_an_error(host: FakeHost):
    host.path("/etc/a").symlink_to("b")
    host.path("/etc/b").symlink_to("a")
    with pytest.raises(TreeError, match="circle"):
        host.lay(SPEC, {"/etc/a/x": "1"})


def test_a_fifo_at_the_destination_does_not_hang_and_is_replaced(host: FakeHost):
    os.mkfifo(host.path("/etc/pipe"))
    host.lay(SPEC, {"/etc/pipe": "ours"})
    assert host.text("/etc/pipe") == "ours"


def test_a_folder_where_a_file_shall_be_and_the_other_way_round_are_told(host: FakeHost):
    host.path("/etc/app").mkdir()
    with pytest.raises(TreeError, match="/etc/app is a folder"):
        host.lay(SPEC, {"/etc/app": "1"})
    host.put("/etc/file")
    with pytest.raises(TreeError, match="'file' on the way is not a folder"):
        host.lay(SPEC, {"/etc/file/a": "1"})


@pytest.mark.parametrize("path", ["relative", "/etc/../x", "/etc//x", "/etc/", "/", "/etc/./x"])
def test_paths_that_are_not_plain_are_refused(host: FakeHost, path: str):
    with pytest.raises(TreeError, match="absolute path"):
        host.lay(SPEC, {path: "1"})


# ---- errors and memory


def test_an_unknown_owner_is_told_before_anything_is_written(host: FakeHost):
    before = host.snapshot()
    spec = TreeSpec("app", files=(Attributes("/etc/app/a", owner="ghost"),))
    with pytest.raises(TreeError, match="/etc/app/a: user 'ghost' does not exist"):
        host.lay(spec, {"/etc/app/a": "1", "/etc/app/b": "1"})
    after = {path: text for path, text in host.snapshot().items() if not path.startswith("/var/lib/ashlar")}
    assert after == before
    assert host.lay(spec, {"/etc/app/a": "1"}, check=True).changed


def test_a_full_disk_changes_nothing(host: FakeHost, monkeypatch: pytest.MonkeyPatch):
    host.lay(SPEC, {"/etc/app/a": "1", "/etc/app/b": "1"})
    plain = HostFiles.write_temporary

    def full(self, path, *rest):
        if path == "/etc/app/b":
            raise OSError(28, "No space left on device", path)
        plain(self, path, *rest)

    monkeypatch.setattr(TickingFiles, "write_temporary", full)
    with pytest.raises(TreeError, match="/etc/app/b: No space left"):
        host.lay(SPEC, {"/etc/app/a": "2", "/etc/app/b": "2"})
    assert [host.text("/etc/app/a"), host.text("/etc/app/b")] == ["1", "1"]
    assert sorted(os.listdir(host.path("/etc/app"))) == ["a", "b"]


def test_a_damaged_memory_is_told_with_what_to_do(host: FakeHost):
    host.lay(SPEC, {"/etc/a": "1"})
    host.put("/var/lib/ashlar/trees/app.json", "{")
    with pytest.raises(TreeError, match=r"trees/app.json cannot be read.*Remove that file"):
        host.lay(SPEC, {"/etc/a": "1"})


def test_two_runs_do_not_work_on_a_host_at_once(host: FakeHost, monkeypatch: pytest.MonkeyPatch):
    host.lay(SPEC, {})
    other = HostFiles(str(host.root))
    other.lock("/var/lib/ashlar/trees", 1)
    monkeypatch.setattr("ansible_collections.ashlar.stack.plugins.module_utils.tree.apply.LIMIT", -20.0)
    with pytest.raises(TreeError, match="another run has been at work"):
        host.lay(SPEC, {"/etc/a": "1"})
    other.close()
    assert host.lay(SPEC, {"/etc/a": "1"}).changed


def test_without_a_running_host_files_are_laid_and_nothing_is_run(host: FakeHost):
    host.lay(SPEC, {"/etc/sysctl.d/1.conf": "vm.swappiness = 10\n", "/etc/systemd/system/app.service": "[Service]\n"}, live=False)
    assert host.calls == []
    assert host.text("/proc/sys/vm/swappiness") == "60\n"


@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        ("db_password=hunter2 next", "hunter2"),
        ('{"token": "abc.def"}', "abc.def"),
        ("--api-key s3cr3t0123", "s3cr3t0123"),
        ("Authorization: Bearer eyJhbGciOi.x.y", "eyJhbGciOi"),
        ("https://me:geheim@example/", "geheim"),
        ("-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----", "MIIE"),
        ("-----BEGIN PRIVATE KEY-----\nMIIcut", "MIIcut"),
    ],
)
def test_secrets_are_hidden_in_what_programs_say(text: str, hidden: str):
    assert hidden not in masked(text)


@pytest.mark.parametrize(
    "text", ["token expired", "password is required", "secret not found", "open /etc/x/token: no such file", "exit code 1"]
)
def test_plain_sentences_are_left_alone(text: str):
    assert masked(text) == text


@pytest.mark.usefixtures("hardened")
def test_modes_are_what_the_tree_says_whatever_the_umask(host: FakeHost):
    host.lay(SPEC, {"/usr/local/libexec/ashlar/run": Source("/usr/local/libexec/ashlar/run", b"#!/bin/sh", True), "/etc/app/deep/app.conf": "x"})
    folders = ("usr/local/libexec", "usr/local/libexec/ashlar", "etc/app", "etc/app/deep", "var/lib/ashlar")
    assert {mode(host, path) for path in folders} == {0o755}
    assert (mode(host, "usr/local/libexec/ashlar/run"), mode(host, "etc/app/deep/app.conf")) == (0o755, 0o644)


@pytest.mark.usefixtures("hardened")
@pytest.mark.parametrize("name", ["tree", "artifact", "certificates"])
def test_what_a_module_runs_has_no_umask_of_the_hosts_either(name: str):
    """dpkg, systemctl and maintainer scripts make folders of their own."""
    main = importlib.import_module(f"ansible_collections.ashlar.stack.plugins.modules.{name}").main
    with patch_module_args({}), pytest.raises(SystemExit):
        main()
    assert subprocess.run(["sh", "-c", "umask"], capture_output=True, text=True, check=True).stdout.strip() == "0022"
