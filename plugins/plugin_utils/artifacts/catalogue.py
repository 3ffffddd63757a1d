# SPDX-License-Identifier: Apache-2.0
"""The catalogue: ``artifacts/<name>/artifact.yml``, what an artifact is and where it may come from.

``schemas/artifact.json`` describes the same for editors; tests hold the two together. Beside it, ``artifacts/<name>/<version>/`` has what
belongs to one version: the Go module that pins its source, and ``SHA256SUMS``, lines ``<64 hex>  <source>/<architecture>/<file>``
(``SHA512SUMS`` where that is what a publisher gives of a download).
The source of an artifact with ``program: true`` lies in ``programs/<name>/`` instead, and its one version follows from it.
"""

from __future__ import annotations

import re
import urllib.parse
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from .. import programs
from .errors import ArtifactError

ARCHITECTURES = ("amd64", "arm64")
KINDS = ("mirror", "upstream", "go", "package")
NAME = re.compile(r"[a-z][a-z0-9_]*")
VERSION = re.compile(r"[0-9A-Za-z][0-9A-Za-z.+~-]*")
CODENAME = re.compile(r"[a-z]+")
PLACEHOLDER = re.compile(r"\{(\w+)\}")
PLACEHOLDERS = ("version", "major", "minor", "patch", "architecture")
SUMS = "SHA256SUMS"
SUMS_512 = "SHA512SUMS"

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True)
class Mirror:
    """The operator's own server; its address is the site's business, not the catalogue's."""

    kind = "mirror"


@dataclass(frozen=True)
class Download:
    """One file of a release page: its address, its name, and the publisher's own checksum file ("" where there is none)."""

    url: str
    name: str
    checksums: str


@dataclass(frozen=True)
class Upstream:
    """The project's release page. ``members`` maps a file to its place in the archive; an empty place: the download is the file.

    ``checksums`` is the publisher's checksum file, an address or a name beside the download.
    """

    url: str
    members: Mapping[str, str]
    checksums: str = ""
    kind = "upstream"

    def download(self, version: str, architecture: str) -> Download:
        url = expand(self.url, version, architecture)
        name = url.rpartition("/")[2]
        checksums = expand(self.checksums.replace("{file}", name), version, architecture)
        return Download(url, name, urllib.parse.urljoin(url, checksums) if checksums else "")


@dataclass(frozen=True)
class Compile:
    """One C file of a Go module, compiled to a static program."""

    module: str
    file: str
    flags: tuple[str, ...] = ()


@dataclass(frozen=True)
class Go:
    """Commands built from the Go module in ``artifacts/<name>/<version>/``, of a program of ours from the one in ``programs/<name>/``.

    ``build`` maps a file to the package it is built from, ``copy`` one to (module, file in it) that is taken as it is. ``change`` maps a
    module to files in it that are replaced (by a file of the version's folder) or left out (""). ``commands`` and ``libraries`` (pkg-config)
    must be on the controller; they map to the Debian package that has them. ``disk_gib`` is what the caches of a build from nothing take,
    ``seconds`` about how long it takes alone on two cores.
    """

    build: Mapping[str, str] = field(default_factory=dict)
    compile: Mapping[str, Compile] = field(default_factory=dict)
    copy: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    change: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    tags: tuple[str, ...] = ()
    ldflags: tuple[str, ...] = ()
    cgo: bool = False
    commands: Mapping[str, str] = field(default_factory=dict)
    libraries: Mapping[str, str] = field(default_factory=dict)
    disk_gib: float = 3.0
    seconds: float = 60.0
    kind = "go"


@dataclass(frozen=True)
class Package:
    """Packages of a distribution.

    Without ``extract`` the .deb files themselves are the artifact, for each codename of the site's nodes; with it, single files are taken
    out of the packages of the one ``codename``: file -> (package, member).
    """

    packages: tuple[str, ...]
    codename: str = ""
    extract: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    kind = "package"


@dataclass(frozen=True)
class Program:
    """The files of a program of ours, as they lie in ``programs/<name>/``: what needs no build, such as Python."""

    kind = "program"


Source = Mirror | Upstream | Go | Package | Program


@dataclass(frozen=True)
class ImageRecipe:
    """How a ``.oci.tar`` is made of what a source gave; see `oci.Image`."""

    reference: str
    programs: Mapping[str, str]
    texts: Mapping[str, str] = field(default_factory=dict)
    links: Mapping[str, str] = field(default_factory=dict)
    directories: Mapping[str, int] = field(default_factory=dict)
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    user: str = ""


@dataclass(frozen=True)
class File:
    """One file of an artifact, with its mode on hosts."""

    path: str
    mode: str = "0755"
    image: ImageRecipe | None = None


@dataclass(frozen=True)
class Artifact:
    """One folder of the catalogue.

    ``packages`` says that it is .deb files, whose names the distribution decides; ``program`` is the folder of its source when it is ours.
    """

    name: str
    description: str
    directory: Path
    versions: tuple[str, ...]
    sources: tuple[Source, ...]
    files: tuple[File, ...] = ()
    packages: bool = False
    program: Path | None = None
    homepage: str = ""
    licence: str = ""

    def parts(self) -> tuple[str, ...]:
        """What a source has to give: the files, or the programs that images are packed from."""
        names: list[str] = []
        for item in self.files:
            names += item.image.programs.values() if item.image else [item.path]
        return tuple(dict.fromkeys(names))

    def folder(self, version: str) -> Path:
        return self.directory / version

    def source(self, version: str) -> Path:
        """Where the source of a version lies that is in this repository."""
        return self.program or self.folder(version)

    def sums(self, version: str) -> dict[str, str]:
        """``<source>/<architecture>/<file>`` -> recorded sha256."""
        return self._sums(version, SUMS, 64)

    def download_sum(self, version: str, key: str) -> tuple[str, Path] | None:
        """The recorded sha256, else sha512, of a download, and the file that has it."""
        for name, digits in ((SUMS, 64), (SUMS_512, 128)):
            if found := self._sums(version, name, digits).get(key):
                return found, self.folder(version) / name
        return None

    def _sums(self, version: str, name: str, digits: int) -> dict[str, str]:
        path = self.folder(version) / name
        return parse_sums(path.read_text(encoding="utf-8"), str(path), digits) if path.is_file() else {}


def expand(template: str, version: str, architecture: str = "") -> str:
    """Fill the placeholders of a template: {version}, its {major}, {minor}, {patch}, and {architecture}."""
    numbers = [*version.split("."), "", "", ""]
    values = dict(zip(PLACEHOLDERS, (version, *numbers[:3], architecture), strict=True))
    return PLACEHOLDER.sub(lambda match: values.get(match[1], match[0]), template)


def parse_sums(text: str, where: str, digits: int = 64) -> dict[str, str]:
    """Read a SHA256SUMS file, as sha256sum(1) writes it; lines that begin with # are comments.

    :raises ArtifactError: at a line that is none.
    """
    sums = {}
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip() and not line.startswith("#"):
            match = re.fullmatch(rf"([0-9a-f]{{{digits}}}) [ *](\S+)", line)
            if not match:
                raise ArtifactError(f"{where}, line {number}: {line!r} is not `<{digits} hex>  <source>/<architecture>/<file>`")
            sums[match[2]] = match[1]
    return sums


def write_sums(artifact: Artifact, version: str, sums: Mapping[str, str]) -> bool:
    """Add to what is recorded of a version; say whether that changed the file. A comment stays with the line below it."""
    known = artifact.sums(version)
    merged = known | dict(sums)
    if merged == known:
        return False
    path = artifact.folder(version) / SUMS
    comments: dict[str, str] = {}
    above = ""
    for line in path.read_text(encoding="utf-8").splitlines(keepends=True) if path.is_file() else ():
        if line.startswith("#"):
            above += line
        elif line.strip():
            comments[line.split()[1].lstrip("*")], above = above, ""
    path.parent.mkdir(exist_ok=True)
    scratch = path.with_name(f".{SUMS}.new")
    scratch.write_text("".join(f"{comments.get(name, '')}{sha}  {name}\n" for name, sha in sorted(merged.items())) + above, encoding="utf-8")
    scratch.rename(path)
    return True


class ArtifactCatalogue:
    """The artifacts below one or more directories; the first that has a name wins. Files are read when they are asked for."""

    def __init__(self, directories: Iterable[Path | str]) -> None:
        self.directories = [Path(directory) for directory in directories]
        self._known: dict[str, Artifact] = {}

    def names(self) -> list[str]:
        return sorted({path.parent.name for directory in self.directories for path in directory.glob("*/artifact.yml")})

    def get(self, name: str, version: str | None = None) -> Artifact:
        """The artifact ``name``, which must have ``version`` when one is given.

        :raises ArtifactError: when there is none, when it has not that version, or when its file is wrong.
        """
        if name not in self._known:
            paths = [directory / name / "artifact.yml" for directory in self.directories]
            path = next((path for path in paths if NAME.fullmatch(name) and path.is_file()), None)
            if path is None:
                raise ArtifactError(f"artifact {name!r} is not in the catalogue ({', '.join(map(str, self.directories))}); allowed: {', '.join(self.names())}")
            self._known[name] = load(path)
        artifact = self._known[name]
        if version is not None and version not in artifact.versions:
            if artifact.program:
                raise ArtifactError(f"{name} {version} is not what {artifact.program} holds, which is {', '.join(artifact.versions)}; name no version of it")
            raise ArtifactError(
                f"{name} {version} is not in the catalogue ({artifact.directory / 'artifact.yml'}); "
                f"allowed: {', '.join(artifact.versions)}. Correct `versions` of the site, or add the version to the catalogue (artifacts/README.md)"
            )
        return artifact


def load(path: Path) -> Artifact:
    """Read one artifact.yml.

    :raises ArtifactError: naming the file, the key, what was found and what is allowed.
    """
    try:
        raw = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except (OSError, yaml.YAMLError) as error:
        raise ArtifactError(f"{path}: cannot be read: {' '.join(str(error).split())}") from error
    return _Reader(path).artifact(raw)


class _Reader:
    """Turns the YAML of one file into an Artifact, with errors that name the key."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def fail(self, where: str, found: Any, allowed: str) -> ArtifactError:
        return ArtifactError(f"{self.path}: {where} is {found!r}; allowed: {allowed}")

    def mapping(self, raw: Any, where: str, required: Iterable[str], optional: Iterable[str]) -> dict[str, Any]:
        required, allowed = list(required), [*required, *optional]
        if not isinstance(raw, dict):
            raise self.fail(where, raw, f"a mapping with {', '.join(allowed)}")
        for key in raw:
            if key not in allowed:
                raise self.fail(f"a key of {where}", key, ", ".join(allowed))
        for key in required:
            if key not in raw:
                raise ArtifactError(f"{self.path}: {where} has no {key!r}; add it")
        return raw

    def text(self, raw: Any, where: str, template: bool = True, also: tuple[str, ...] = ()) -> str:
        if not isinstance(raw, str):
            raise self.fail(where, raw, "text")
        for name in PLACEHOLDER.findall(raw) if template else ():
            if name not in PLACEHOLDERS + also:
                raise self.fail(f"a placeholder of {where}", f"{{{name}}}", ", ".join(f"{{{p}}}" for p in PLACEHOLDERS + also))
        return raw

    def texts(self, raw: Any, where: str) -> tuple[str, ...]:
        if not isinstance(raw, list):
            raise self.fail(where, raw, "a list of texts")
        return tuple(self.text(item, f"{where}[{number}]") for number, item in enumerate(raw))

    def table(self, raw: Any, where: str, template: bool = True) -> dict[str, str]:
        if not isinstance(raw, dict):
            raise self.fail(where, raw, "a mapping of texts")
        return {self.text(key, f"a key of {where}", template): self.text(value, f"{where}.{key}", template) for key, value in raw.items()}

    def artifact(self, raw: Any) -> Artifact:
        data = self.mapping(
            raw, "the file", ["description", "sources"], ["versions", "homepage", "licence", "files", "packages", "program"]
        )  # fmt: skip
        if bool(data.get("program")) == ("versions" in data):
            raise ArtifactError(f"{self.path}: an artifact has either `versions` or `program: true`; give one of them")
        program = programs.folder(self.path.parents[1], self.path.parent.name) if data.get("program") else None
        versions = {self.version(program): {}} if program else data["versions"]
        if not isinstance(versions, dict) or not versions:
            raise self.fail("versions", versions, 'a mapping such as {"1.2.3": {}}')
        for version in versions:
            if not isinstance(version, str) or not VERSION.fullmatch(version):
                raise self.fail("a version", version, 'text in quotation marks such as "1.2.3"')
        packages = data.get("packages", False)
        sources = tuple(self.source(item, f"sources[{number}]") for number, item in enumerate(data["sources"] or ()))
        files = tuple(self.file(item, f"files[{number}]") for number, item in enumerate(data.get("files") or ()))
        if any(isinstance(source, Program) for source in sources):
            if not program or files or len(sources) > 1:
                raise ArtifactError(f"{self.path}: the source `program` stands alone, with `program: true` and without `files`, which are those of its folder")
            files = tuple(File(file.path, file.mode) for file in programs.files(program))
        if bool(files) == bool(packages):
            raise ArtifactError(f"{self.path}: an artifact has either `files` or `packages: true`; give one of them")
        artifact = Artifact(
            name=self.path.parent.name,
            description=self.text(data["description"], "description"),
            directory=self.path.parent,
            versions=tuple(versions),
            sources=sources,
            files=files,
            packages=bool(packages),
            program=program,
            homepage=self.text(data.get("homepage", ""), "homepage"),
            licence=self.text(data.get("licence", ""), "licence"),
        )
        self.agree(artifact)
        return artifact

    def agree(self, artifact: Artifact) -> None:
        """Every source gives all parts of the artifact and nothing else."""
        if not artifact.sources:
            raise ArtifactError(f"{self.path}: sources is empty; allowed: a list of {', '.join(KINDS)}")
        for number, source in enumerate(artifact.sources):
            given: Iterable[str]
            match source:
                case Upstream():
                    given = source.members
                case Go():
                    given = [*source.build, *source.compile, *source.copy]
                case Package():
                    given = source.extract
                    if bool(source.extract) == artifact.packages:
                        raise ArtifactError(
                            f"{self.path}: sources[{number}] needs `extract` when the artifact has files, and must not have it with `packages: true`"
                        )
                case Mirror() | Program():
                    continue
            if not artifact.packages and sorted(given) != sorted(artifact.parts()):
                raise self.fail(f"what sources[{number}] gives", sorted(given), f"exactly {sorted(artifact.parts())}")

    def version(self, program: Path) -> str:
        if not programs.files(program):
            raise ArtifactError(f"{self.path}: {program} is missing or empty; the source of a program lies there")
        try:
            return programs.version(program)
        except OSError as error:
            raise ArtifactError(f"{error.filename}: cannot be read: {error.strerror}") from error

    def file(self, raw: Any, where: str) -> File:
        if isinstance(raw, str):
            raw = {"path": raw}
        data = self.mapping(raw, where, ["path"], ["mode", "image"])
        path = self.text(data["path"], f"{where}.path")
        if path.startswith("/") or ".." in Path(path).parts:
            raise self.fail(f"{where}.path", path, "a path below the artifact's folder")
        image = self.image(data["image"], f"{where}.image") if "image" in data else None
        return File(path, self.mode(data.get("mode", "0644" if image else "0755"), f"{where}.mode"), image)

    def mode(self, raw: Any, where: str) -> str:
        if not isinstance(raw, str) or not re.fullmatch(r"[0-7]{3,4}", raw):
            raise self.fail(where, raw, 'an octal number in quotation marks such as "0755"')
        return raw

    def image(self, raw: Any, where: str) -> ImageRecipe:
        data = self.mapping(
            raw, where, ["reference", "programs"], ["texts", "links", "links_directory", "directories", "entrypoint", "command", "user"]
        )  # fmt: skip
        links: dict[str, str] = {}
        for target, names in (data.get("links") or {}).items():
            directory = self.text(data.get("links_directory", "/"), f"{where}.links_directory").rstrip("/")
            links |= {f"{directory}/{name}": str(target) for name in self.texts(names, f"{where}.links.{target}")}
        modes = self.table(data.get("directories", {}), f"{where}.directories")
        return ImageRecipe(
            reference=self.text(data["reference"], f"{where}.reference"),
            programs=self.table(data["programs"], f"{where}.programs"),
            texts=self.table(data.get("texts", {}), f"{where}.texts", template=False),
            links=links,
            directories={path: int(self.mode(mode, f"{where}.directories.{path}"), 8) for path, mode in modes.items()},
            entrypoint=self.texts(data.get("entrypoint", []), f"{where}.entrypoint"),
            command=self.texts(data.get("command", []), f"{where}.command"),
            user=self.text(data.get("user", ""), f"{where}.user"),
        )

    def source(self, raw: Any, where: str) -> Source:
        readers: dict[str, Callable[[Any, str], Source]] = {
            "mirror": self.mirror, "upstream": self.upstream, "go": self.go, "package": self.package, "program": self.program_source
        }  # fmt: skip
        kind = raw.get("kind") if isinstance(raw, dict) else None
        if not isinstance(kind, str) or kind not in readers:
            raise self.fail(f"{where}.kind", kind, ", ".join(readers))
        return readers[kind](raw, where)

    def mirror(self, raw: Any, where: str) -> Source:
        self.mapping(raw, where, ["kind"], [])
        return Mirror()

    def program_source(self, raw: Any, where: str) -> Source:
        self.mapping(raw, where, ["kind"], [])
        return Program()

    def upstream(self, raw: Any, where: str) -> Source:
        data = self.mapping(raw, where, ["kind", "url", "members"], ["checksums"])
        source = Upstream(
            self.text(data["url"], f"{where}.url"),
            self.table(data["members"], f"{where}.members"),
            self.text(data.get("checksums", ""), f"{where}.checksums", also=("file",)),
        )
        # Whoever can change a checksum file on its way can change the download as well.
        if source.checksums and not source.download("0", ARCHITECTURES[0]).checksums.startswith("https://"):
            raise self.fail(f"{where}.checksums", source.checksums, "an address that begins with https://, or a name beside a `url` that does")
        return source

    def go(self, raw: Any, where: str) -> Source:
        data = self.mapping(raw, where, ["kind"], ["build", "compile", "copy", "change", "tags", "ldflags", "cgo", "needs", "disk_gib", "seconds"])
        needs = self.mapping(data.get("needs", {}), f"{where}.needs", [], ["commands", "libraries"])
        compiled = {}
        for name, item in (data.get("compile") or {}).items():
            one = self.mapping(item, f"{where}.compile.{name}", ["module", "file"], ["flags"])
            compiled[name] = Compile(one["module"], one["file"], self.texts(one.get("flags", []), f"{where}.compile.{name}.flags"))
        copied = {}
        for name, item in (data.get("copy") or {}).items():
            one = self.mapping(item, f"{where}.copy.{name}", ["module", "file"], [])
            copied[name] = (self.text(one["module"], f"{where}.copy.{name}.module"), self.text(one["file"], f"{where}.copy.{name}.file"))
        amounts = {"disk_gib": data.get("disk_gib", 3), "seconds": data.get("seconds", 60)}
        for key, amount in amounts.items():
            if not isinstance(amount, int | float) or isinstance(amount, bool) or amount <= 0:
                raise self.fail(f"{where}.{key}", amount, "a number of GiB" if key == "disk_gib" else "a number of seconds")
        return Go(
            build=self.table(data.get("build", {}), f"{where}.build"),
            compile=compiled,
            copy=copied,
            change={module: self.table(files, f"{where}.change.{module}") for module, files in (data.get("change") or {}).items()},
            tags=self.texts(data.get("tags", []), f"{where}.tags"),
            ldflags=self.texts(data.get("ldflags", []), f"{where}.ldflags"),
            cgo=bool(data.get("cgo", False)),
            commands=self.table(needs.get("commands", {}), f"{where}.needs.commands"),
            libraries=self.table(needs.get("libraries", {}), f"{where}.needs.libraries"),
            disk_gib=float(amounts["disk_gib"]),
            seconds=float(amounts["seconds"]),
        )

    def package(self, raw: Any, where: str) -> Source:
        data = self.mapping(raw, where, ["kind", "packages"], ["codename", "extract"])
        extract = {}
        for name, item in (data.get("extract") or {}).items():
            one = self.mapping(item, f"{where}.extract.{name}", ["package", "member"], [])
            extract[name] = (one["package"], one["member"])
        codename = self.text(data.get("codename", ""), f"{where}.codename")
        if bool(extract) != bool(codename):
            raise ArtifactError(f"{self.path}: {where}: `codename` and `extract` belong together: give both or none")
        return Package(self.texts(data["packages"], f"{where}.packages"), codename, extract)
