# SPDX-License-Identifier: Apache-2.0
"""Packages of the nodes' distribution, downloaded on the controller by an apt that knows nothing of the controller's own packages.

A private root per codename and architecture gets its sources from the controller's own ``/etc/apt`` (same mirrors and keyrings, other
suite; for another distribution than the controller's, the entries that name its suites), so apt's signature and hash checks hold and no
mirror is named here. What a freshly bootstrapped minimal node has (essential and required packages and apt, as debootstrap's minbase)
counts as installed; everything else that is needed is downloaded too.

Sources: sources.list(5) (both formats), apt.conf(5), apt-patterns(7).
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ansible_collections.ashlar.stack.plugins.module_utils.distributions import distribution_of

from .errors import ArtifactError, ChecksumMismatch, SourceUnavailable

UPDATE_SECONDS = 6 * 3600
POCKETS = ("", "-updates", "-security", "/updates")
# What the operator says of reaching mirrors (proxies, retries, certificates) is taken over; what would weaken verification is not.
CARRIED = re.compile(r"^Acquire::(?!IndexTargets|Changelogs|Languages|CompressionTypes|Allow|GzipIndexes)\S+ \".+\";$")
UNREACHABLE = (
    "Could not resolve",
    "Unable to connect",
    "Could not connect",
    "Connection refused",
    "Connection timed out",
    "Network is unreachable",
    "Temporary failure",
    "404  Not Found",
    "503  ",
)
FORGED = (
    "Hash Sum mismatch",
    "NO_PUBKEY",
    "BADSIG",
    "EXPKEYSIG",
    "is not signed",
    "invalid signature",
    "/usr/bin/sqv returned an error",
    "couldn't be verified",
)
INSTALLED = re.compile(r"^Inst (?P<name>\S+) \((?P<version>\S+) ", re.MULTILINE)


@dataclass(frozen=True)
class AptSource:
    """One entry of apt's sources: a mirror's suites and components."""

    uris: tuple[str, ...]
    suites: tuple[str, ...]
    components: tuple[str, ...]
    signed_by: str = ""

    def deb822(self) -> str:
        lines = [
            "Types: deb",
            f"URIs: {' '.join(self.uris)}",
            f"Suites: {' '.join(self.suites)}",
            f"Components: {' '.join(self.components)}",
        ]
        if self.signed_by:
            lines.append(f"Signed-By: {self.signed_by}")
        return "\n".join(lines) + "\n"


def parse_one_line(text: str) -> list[AptSource]:
    """Read the one-line format of sources.list(5); ``deb-src`` and comments are left out."""
    found = []
    for line in text.splitlines():
        match = re.match(r"deb\s+(?:\[(?P<options>[^]]*)\]\s+)?(?P<uri>\S+)\s+(?P<suite>\S+)(?P<components>(?:\s+[^\s#]+)*)", line.strip())
        if match and not match["suite"].endswith("/"):
            options = dict(o.split("=", 1) for o in (match["options"] or "").split() if "=" in o)
            found.append(AptSource((match["uri"],), (match["suite"],), tuple(match["components"].split()), options.get("signed-by", "")))
    return found


def parse_deb822(text: str) -> list[AptSource]:
    """Read the deb822 format of sources.list(5); disabled entries, ``deb-src`` and comments are left out."""
    found = []
    plain = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    for stanza in re.split(r"\n\s*\n", plain):
        fields: dict[str, str] = {}
        key = ""
        for line in stanza.splitlines():
            if line[:1].isspace() and key:
                fields[key] += "\n" + line
            elif ":" in line:
                key, _, value = line.partition(":")
                key = key.strip().lower()
                fields[key] = value.strip()
        if "deb" in fields.get("types", "").split() and fields.get("enabled", "yes").lower() not in ("no", "false", "0"):
            signed = fields.get("signed-by", "")
            found.append(
                AptSource(
                    tuple(fields.get("uris", "").split()),
                    tuple(fields.get("suites", "").split()),
                    tuple(fields.get("components", "").split()),
                    signed if "\n" in signed or "BEGIN PGP" in signed else signed.strip(),
                )
            )
    return found


def derive(sources: Iterable[AptSource], own: str, wanted: str) -> list[AptSource]:
    """The distribution's own entries, with the suites of ``wanted`` in place of those of ``own`` (both codenames)."""
    derived = []
    for source in sources:
        suites = tuple(wanted + suite[len(own) :] for suite in source.suites if suite in {own + pocket for pocket in POCKETS})
        if suites and source.uris:
            derived.append(AptSource(source.uris, suites, source.components, source.signed_by))
    return derived


def host_sources(root: Path = Path("/")) -> tuple[str, str, list[AptSource]]:
    """(distribution's id, codename, apt's entries) of this machine.

    :raises SourceUnavailable: when it has no apt.
    """
    release: dict[str, str] = {}
    for line in _read(root / "etc/os-release").splitlines():
        key, _, value = line.partition("=")
        release[key] = value.strip().strip('"')
    directory = root / "etc/apt"
    if not directory.is_dir() or (root == Path("/") and not shutil.which("apt-get")):
        raise SourceUnavailable("this controller has no apt; use a Debian controller, a mirror, or a bundle")
    found = parse_one_line(_read(directory / "sources.list"))
    for path in sorted((directory / "sources.list.d").glob("*")):
        if path.suffix == ".list":
            found += parse_one_line(_read(path))
        elif path.suffix == ".sources":
            found += parse_deb822(_read(path))
    return release.get("ID", ""), release.get("VERSION_CODENAME", ""), found


class AptRoot:
    """A private apt root below ``directory`` for one codename and architecture."""

    def __init__(self, directory: Path, codename: str, architecture: str, host: Path = Path("/")) -> None:
        self.directory, self.codename, self.architecture, self.host = directory, codename, architecture, host

    def prepare(self, progress: Callable[[str], None]) -> None:
        """Write its configuration, fetch the lists when they are older than six hours, and set the base as installed.

        :raises SourceUnavailable: when no mirror is known or reached.
        :raises ArtifactError: when the mirror's signature is not good.
        """
        own, sources = self._sources()
        configuration = self._configure(sources)
        stamp = self.directory / "stamp"
        if stamp.exists() and stamp.read_text() == configuration and time.time() - stamp.stat().st_mtime < UPDATE_SECONDS:
            return
        stamp.unlink(missing_ok=True)
        progress(f"reading the package lists of {self.codename}")
        (self.directory / "status").write_text("")
        self._apt(["apt-get", "-q", "-o", "APT::Update::Error-Mode=any", "update"], f"{own}'s mirror of {self.codename}")
        self._install_base()
        stamp.write_text(configuration)

    def _sources(self) -> tuple[str, list[AptSource]]:
        distribution, codename, entries = host_sources(self.host)
        theirs = distribution_of(self.codename) or distribution
        sources = derive(entries, codename if theirs == distribution else self.codename, self.codename)
        if not sources:
            raise SourceUnavailable(
                f"/etc/apt of this controller ({distribution} {codename}) has no entry of {theirs} to reach {self.codename} by; "
                f"add one (docs/distributions.md), run `make artifacts` on a controller with {theirs}, or use a mirror or a bundle"
            )
        return distribution, sources

    def _configure(self, sources: Sequence[AptSource]) -> str:
        root = self.directory
        for name in ("lists/partial", "archives/partial", "etc/sources.list.d", "etc/empty.d", "log"):
            (root / name).mkdir(parents=True, exist_ok=True)
        listing = "\n".join(source.deb822() for source in sources)
        (root / "etc/sources.list.d/distribution.sources").write_text(listing)
        dump = subprocess.run(["apt-config", "dump"], capture_output=True, text=True, check=False, env=_environment()).stdout
        lines = [line for line in dump.splitlines() if CARRIED.match(line)]
        settings: Mapping[str, str | Path] = {
            "Dir::State": root,
            "Dir::State::lists": root / "lists",
            "Dir::State::status": root / "status",
            "Dir::Cache": root,
            "Dir::Cache::archives": root / "archives",
            "Dir::Log": root / "log",
            "Dir::Etc": root / "etc",
            "Dir::Etc::sourcelist": "/dev/null",
            "Dir::Etc::sourceparts": root / "etc/sources.list.d",
            "Dir::Etc::main": "/dev/null",
            "Dir::Etc::parts": root / "etc/empty.d",
            "Dir::Etc::preferencesparts": root / "etc/empty.d",
            "Dir::Etc::preferences": "/dev/null",
            "Dir::Etc::trustedparts": "/etc/apt/trusted.gpg.d",
            "Dir::Etc::trusted": "/etc/apt/trusted.gpg",
            "APT::Architecture": self.architecture,
            "APT::Install-Recommends": "false",
            "APT::Install-Suggests": "false",
            "APT::Sandbox::User": "",
            "Acquire::Languages": "none",
            "Acquire::Retries": "3",
        }
        lines += [f'{key} "{value}";' for key, value in settings.items()]
        lines.append(f'#clear APT::Architectures;\nAPT::Architectures {{ "{self.architecture}"; }};')
        configuration = "\n".join(lines) + "\n"
        (root / "apt.conf").write_text(configuration)
        return listing + configuration

    def _install_base(self) -> None:
        planned = self._apt(["apt-get", "-s", "install", "?essential", "?priority(required)", "apt"], "the base of the distribution")
        base = [match["name"].partition(":")[0] for match in INSTALLED.finditer(planned)]
        stanzas = self._apt(["apt-cache", "show", "--no-all-versions", *base], "the base of the distribution")
        (self.directory / "status").write_text(re.sub(r"(?m)^(Package: .*)$", r"\1\nStatus: install ok installed", stanzas))

    def versions(self, packages: Sequence[str]) -> dict[str, str]:
        """package -> the version that would be installed."""
        text = self._apt(["apt-cache", "show", "--no-all-versions", *packages], ", ".join(packages))
        return dict(re.findall(r"^Package: (\S+)\n(?:.+\n)*?Version: (\S+)$", text, re.MULTILINE))

    def download(self, packages: Sequence[str], target: Path, alone: bool = False) -> list[Path]:
        """Download packages and what they need beyond the base into ``target``; apt has verified every file.

        :param alone: without what they depend on.
        :raises SourceUnavailable: when the mirror is not reached or has no such package.
        """
        (target / "partial").mkdir(parents=True, exist_ok=True)
        what = f"{', '.join(packages)} for {self.codename}"
        if alone:
            self._apt(["apt-get", "-q", "download", *packages], what, cwd=target)
        else:
            self._apt(["apt-get", "-q", "-y", "--download-only", "-o", f"Dir::Cache::archives={target}", "install", *packages], what)
        files = sorted(target.glob("*.deb"))
        if not files:
            raise ArtifactError(f"{what}: apt downloaded nothing; see {self.directory}")
        return files

    def _apt(self, command: Sequence[str], what: str, cwd: Path | None = None) -> str:
        environment = _environment() | {"APT_CONFIG": str(self.directory / "apt.conf")}
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, errors="replace", timeout=1800, check=False, env=environment, stdin=subprocess.DEVNULL, cwd=cwd
            )
        except FileNotFoundError:
            raise SourceUnavailable(f"{command[0]} is not on this controller") from None
        except subprocess.TimeoutExpired:
            raise SourceUnavailable(f"{what}: {command[0]} did not end within 1800 s") from None
        if done.returncode:
            raise failure(what, done.stderr + done.stdout)
        return done.stdout


def failure(what: str, output: str) -> ArtifactError:
    """Whether apt failed because the mirror is away (the next source may do) or because bytes are not what they should be (stop)."""
    lines = [line for line in output.splitlines() if line.startswith(("E:", "W:", "Err:"))] or output.splitlines()
    text = " / ".join(line.strip() for line in lines[:3]) or "no message"
    if any(sign in output for sign in FORGED):
        return ChecksumMismatch(f"{what}: apt refuses it, the signature or a hash is wrong: {text}")
    if any(sign in output for sign in UNREACHABLE) or "Unable to locate package" in output or "has no installation candidate" in output:
        return SourceUnavailable(f"{what}: {text}")
    return ArtifactError(f"{what}: apt failed: {text}")


def extract(package: Path, member: str, target: Path) -> None:
    """Take one file out of a .deb (``member`` as dpkg-deb lists it, without the leading ``./``)."""
    archive = subprocess.Popen(["dpkg-deb", "--fsys-tarfile", str(package)], stdout=subprocess.PIPE)
    with target.open("wb") as stream:
        done = subprocess.run(["tar", "-xOf", "-", f"./{member}"], stdin=archive.stdout, stdout=stream, stderr=subprocess.PIPE, text=False, check=False)
    if archive.stdout:
        archive.stdout.close()
    if archive.wait() or done.returncode:
        raise ArtifactError(f"{package.name} has no {member}: correct `extract` of the source in artifact.yml")


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _environment() -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if key.lower().endswith("_proxy") or key in ("PATH", "HOME")}
    return kept | {"LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"}
