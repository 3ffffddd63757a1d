# SPDX-License-Identifier: Apache-2.0
"""Says which artifacts have newer versions, and what a new one needs.

usage: artifacts/newer.py [name ...]

Of artifacts that can be built from Go modules, the module proxy is asked (``GOPROXY``). Nobody is asked about the others; their pages are named.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / ".collections"))

from ansible_collections.ashlar.stack.plugins.plugin_utils.artifacts.builder import Builder, directive, parse_version  # noqa: E402
from ansible_collections.ashlar.stack.plugins.plugin_utils.artifacts.catalogue import Artifact, ArtifactCatalogue, Go  # noqa: E402
from ansible_collections.ashlar.stack.plugins.plugin_utils.artifacts.errors import ArtifactError  # noqa: E402
from ansible_collections.ashlar.stack.plugins.plugin_utils.artifacts.progress import Progress  # noqa: E402
from ansible_collections.ashlar.stack.plugins.plugin_utils.artifacts.store import default_store  # noqa: E402

REQUIREMENT = re.compile(r"^(?:require\s+|\s+)(\S+/\S+) (v\S+)", re.MULTILINE)
RELEASE = re.compile(r"v(\d+)\.(\d+)\.(\d+)")
SECONDS = 120


def order(version: str) -> tuple[int, ...]:
    """By which versions sort: ``3.7.3`` and ``v3.7.3`` alike."""
    return tuple(int(number) for number in re.findall(r"\d+", version))


@dataclass(frozen=True)
class Source:
    """The module that an artifact's first command is in, as one version of the catalogue has it."""

    version: str
    module: str
    required: str
    go_mod: str


@dataclass(frozen=True)
class Newer:
    """Releases that the catalogue lacks: the last of the same minor version, and the last of all ("" where there is none)."""

    patch: str
    last: str


def sources_of(artifact: Artifact) -> list[Source]:
    """Of each version, the oldest first; none for what is not built from somebody's Go modules."""
    built = next((source for source in artifact.sources if isinstance(source, Go)), None)
    if built is None or artifact.program:
        return []
    packages = [*built.build.values(), *(one.module for one in built.compile.values()), *(module for module, _ in built.copy.values())]
    found = []
    for version in sorted(artifact.versions, key=order):
        text = (artifact.folder(version) / "go.mod").read_text(encoding="utf-8")
        required = dict(REQUIREMENT.findall(re.sub(r"replace \((.*?)\)", "", text, flags=re.DOTALL)))
        holding = [module for package in packages for module in required if f"{package}/".startswith(f"{module}/")]
        # A command of our own (`.`) is there for the module that bears the artifact's name.
        named = [module for module in required if artifact.name.replace("_", "-") in module.split("/")]
        module = max(holding, key=len) if holding else named[0]
        found.append(Source(version, module, required[module], text))
    return found


def newer(required: str, listed: Sequence[str]) -> Newer:
    """Of the versions of a module, those after the one that is required; prereleases and pseudo-versions do not count."""
    releases = sorted((one for one in listed if RELEASE.fullmatch(one) and order(one) > order(required.partition("-")[0])), key=order)
    minor = order(required)[:2]
    patches = [one for one in releases if order(one)[:2] == minor]
    return Newer(patches[-1] if patches else "", releases[-1] if releases and order(releases[-1])[:2] != minor else "")


class Proxy:
    """The module proxy, asked by Go."""

    def __init__(self, go: Path, folder: Path) -> None:
        self.go, self.folder = go, folder

    def ask(self, *arguments: str) -> dict[str, Any]:
        """:raises ArtifactError: with the last line that Go said."""
        own = {"GOWORK": "off", "GO111MODULE": "on", "GOTOOLCHAIN": "local", "GOFLAGS": "-mod=mod -modcacherw", "GOMODCACHE": str(self.folder)}
        done = subprocess.run(
            [str(self.go), *arguments], cwd=self.folder, env=os.environ | own, capture_output=True, text=True, timeout=SECONDS, check=False
        )
        if done.returncode:
            lines = [line.strip() for line in (done.stderr or done.stdout).splitlines() if line.strip()]
            raise ArtifactError(lines[-1] if lines else f"go ended with {done.returncode}")
        return dict(json.loads(done.stdout))

    def versions(self, module: str) -> list[str]:
        return list(self.ask("list", "-m", "-versions", "-json", module).get("Versions") or [])

    def go_mod(self, module: str, version: str) -> str:
        """The module's own go.mod of a version."""
        return Path(self.ask("mod", "download", "-json", f"{module}@{version}")["GoMod"]).read_text(encoding="utf-8")


@cache
def stepwise() -> set[str]:
    """Artifacts that go one minor version at a time."""
    found: set[str] = set()
    for path in ROOT.glob("roles/*/meta/component.yml"):
        found |= set(yaml.safe_load(path.read_text(encoding="utf-8")).get("stepwise", []))
    return found


def needs(artifact: Artifact, source: Source, version: str, go_mod: str) -> list[str]:
    """What the newer version needs besides a folder of its own."""
    said = []
    toolchain = directive(go_mod, "toolchain") or f"go{directive(go_mod, 'go')}"
    ours = directive(source.go_mod, "toolchain") or f"go{directive(source.go_mod, 'go')}"
    if parse_version(toolchain) > parse_version(ours):
        said.append(f"{toolchain} or newer ({ours} builds {source.version})")
    if replaced := len(re.findall(r"^(?!\s*//).*=>", go_mod, re.MULTILINE)):
        said.append(f"the {replaced} replacements of its own go.mod")
    built = next(one for one in artifact.sources if isinstance(one, Go))
    said += [f"{name} of {module} looked at: it is changed here" for module, files in built.change.items() for name in files]
    minor, now = order(version)[1], order(source.required)[1]
    if artifact.name in stepwise() and minor > now + 1:
        said.append("the minor versions before it: it goes one at a time")
    return said


def report(artifact: Artifact, proxy: Proxy) -> list[str]:
    """Lines about one artifact; none where the catalogue has the newest, and the last patch of each minor version."""
    sources = sources_of(artifact)
    lines: list[str] = []
    for source in sources:
        try:
            found = newer(source.required, proxy.versions(source.module))
            for version in filter(None, (found.patch, found.last if source is sources[-1] else "")):
                lines.append(f"{artifact.name} {source.version} -> {source.module} {version}")
                lines += [f"    needs {text}" for text in needs(artifact, source, version, proxy.go_mod(source.module, version))]
        except (ArtifactError, subprocess.TimeoutExpired) as error:
            lines.append(f"{artifact.name} {source.version}: {source.module} could not be asked for: {error}")
    return lines


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="*", help="artifacts; default: all")
    chosen = parser.parse_args(arguments).names
    catalogue = ArtifactCatalogue([ROOT / "artifacts"])
    try:
        artifacts = [catalogue.get(name) for name in chosen or catalogue.names()]
        go = Builder(default_store().parent / "build").go(Progress("go", lambda text: print(text, file=sys.stderr))).path
    except ArtifactError as error:
        print(error, file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(8) as pool:
        said = [line for lines in pool.map(lambda one: report(one, Proxy(go, Path(folder))), artifacts) for line in lines]
    print("\n".join(said or ["The catalogue has the newest version of everything that could be asked for."]))
    others = [one for one in artifacts if not (sources_of(one) or one.program or one.packages)]
    if others:
        print("\nNot asked for; look at their pages:")
        print("\n".join(f"{one.name} {max(one.versions, key=order)}: {one.homepage}" for one in others))
    if said:
        print("\nHow a version is added: artifacts/README.md.")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
