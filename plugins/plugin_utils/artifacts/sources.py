# SPDX-License-Identifier: Apache-2.0
"""The kinds of sources. Each gives the parts of an artifact as files; `obtain` checks and packs them and puts them into the store."""

from __future__ import annotations

import shutil
import tarfile
import urllib.parse
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import IO

from . import apt, oci
from .builder import Builder
from .catalogue import SUMS, Artifact, Download, File, Go, Package, Program, Upstream, expand, write_sums
from .download import fetch, read
from .errors import ArtifactError, ChecksumMismatch, NotAsked, SourceUnavailable, Unreachable
from .progress import Progress
from .store import Index, Store, StoredFile, algorithm_of, checksum_message, digest
from .trust import Expected, Lock, published
from .web import Servers, plain


@dataclass(frozen=True)
class Target:
    """One index file of the store: an artifact's version for an architecture and, when it is packages, a distribution."""

    artifact: Artifact
    version: str
    architecture: str
    codename: str = ""

    @property
    def key(self) -> str:
        return f"{self.architecture}-{self.codename}" if self.codename else self.architecture

    @property
    def title(self) -> str:
        return f"{self.artifact.name} {self.version} {self.key}"

    @property
    def download(self) -> Download | None:
        """What the source `upstream` downloads for it."""
        source = next((source for source in self.artifact.sources if isinstance(source, Upstream)), None)
        return source.download(self.version, self.architecture) if source else None

    @property
    def download_key(self) -> str:
        """The name of that download in SHA256SUMS."""
        return f"upstream/{self.key}/{self.download.name}" if self.download else ""

    def pinned(self) -> bool:
        """Whether the catalogue has the checksum of the download, or of every file that is taken out of it."""
        sums = self.artifact.sums(self.version)
        return self.artifact.download_sum(self.version, self.download_key) is not None or all(
            f"upstream/{self.key}/{part}" in sums for part in self.artifact.parts()
        )


@dataclass
class Context:
    """What the sources share in one run. ``checksums`` is the site's policy, ``lock`` its lock file."""

    store: Store
    builder: Builder
    build_directory: Path
    lock: Lock
    mirror: str = ""
    checksums: str = "published"
    record: bool = False
    cancelled: Callable[[], bool] = lambda: False
    servers: Servers = field(default_factory=Servers)


def obtain(context: Context, target: Target, kind: str, progress: Progress) -> Index:
    """Get a target from its source of this kind into the store. The caller holds the target's lock.

    :raises SourceUnavailable: when that source has it not, or is out of reach.
    :raises ChecksumMismatch: when it gives other bytes than were recorded.
    """
    if kind == "mirror":
        return _from_mirror(context, target, progress)
    source = next(source for source in target.artifact.sources if source.kind == kind)
    download = ""
    with context.store.scratch() as scratch:
        match source:
            case Upstream():
                parts, download = _from_upstream(context, target, source, scratch, progress)
            case Go():
                progress.now("building from source")
                parts = context.builder.build(target.artifact, source, target.version, target.architecture, scratch, progress)
            case Package():
                parts = _from_packages(context, target, source, scratch, progress)
            case Program():
                parts = _from_program(target, scratch)
            case _:
                raise ArtifactError(f"{target.title}: {kind} is not a source that can be asked")
        return _put(context.store, target, kind, parts, scratch, download)


def _put(store: Store, target: Target, kind: str, parts: dict[str, Path], scratch: Path, download: str) -> Index:
    """Check every part against what is recorded before the first becomes visible, pack images, and write the index last."""
    recorded = target.artifact.sums(target.version)
    for name, path in parts.items():
        expected = recorded.get(f"{kind}/{target.key}/{name}")
        if expected and (found := digest(path)) != expected:
            record = target.artifact.folder(target.version) / SUMS
            hint = f" If its source was changed, remove the lines of {kind}/{target.key} from {record}."
            raise ChecksumMismatch(checksum_message(f"{target.title}: {name} ({kind})", expected, found, str(record)) + hint)
    files = target.artifact.files or tuple(File(name, "0644") for name in sorted(parts))
    stored = []
    for item in files:
        path = parts[item.path] if not item.image else _pack(target, item, parts, scratch)
        stored.append(replace(store.add_blob(path, what=item.path), path=item.path, mode=item.mode))
    return _finish(store, target, kind, stored, download)


def _finish(store: Store, target: Target, source: str, stored: list[StoredFile], download: str = "") -> Index:
    index = Index(target.artifact.name, target.version, target.key, source, tuple(sorted(stored)), download)
    store.write(index)
    return index


def _pack(target: Target, item: File, parts: dict[str, Path], scratch: Path) -> Path:
    recipe = item.image
    assert recipe is not None
    image = oci.Image(
        reference=expand(recipe.reference, target.version, target.architecture),
        architecture=target.architecture,
        programs={path: parts[part] for path, part in recipe.programs.items()},
        texts=recipe.texts, links=recipe.links, directories=recipe.directories,
        entrypoint=recipe.entrypoint, command=recipe.command, user=recipe.user,
        labels={"org.opencontainers.image.version": target.version, "org.opencontainers.image.licenses": target.artifact.licence},
    )  # fmt: skip
    path = scratch / f"packed-{item.path}"
    oci.pack(image, path)
    return path


def _from_mirror(context: Context, target: Target, progress: Progress) -> Index:
    """The operator's mirror: another store served by any web server, or a tree of plain files whose checksums are recorded."""
    base = context.mirror.rstrip("/")
    context.servers.check(base)
    artifact, place = target.artifact, f"{target.artifact.name}/{target.version}/{target.key}"
    try:
        text = read(f"{base}/index/{place}.json")
    except Unreachable as error:
        context.servers.bury(base, error)
        raise
    except SourceUnavailable as error:
        return _plain_files(context, target, f"{base}/{place}", progress, error)
    index = Index.parse(text.decode("utf-8", "replace"), plain(f"{base}/index/{place}.json"))
    _check_index(context, target, index, plain(base))
    progress.now(f"downloading {len(index.files)} files from the mirror")
    for file in index.files:
        if not context.store.has_blob(file.sha256, file.size):
            partial = context.store.partial(f"{target.title} {file.sha256}")
            _fetch(context, f"{base}/sha256/{file.sha256[:2]}/{file.sha256}", partial, Expected(file.sha256, "the mirror's index"), progress)
            context.store.add_blob(partial, file.sha256, file.path)
    return _finish(context.store, replace(target, artifact=artifact), index.source, list(index.files), index.download)


def _check_index(context: Context, target: Target, index: Index, where: str) -> None:
    if (index.name, index.version, index.architecture) != (target.artifact.name, target.version, target.key):
        raise ArtifactError(f"{where}: what it has for {target.title} says it is {index.name} {index.version} {index.architecture}; mend the mirror")
    wanted = sorted(file.path for file in target.artifact.files)
    if wanted and sorted(file.path for file in index.files) != wanted:
        raise SourceUnavailable(f"{where} has other files for {target.title} than the catalogue asks for")
    recorded = target.artifact.sums(target.version)
    for file in index.files:
        expected = recorded.get(f"{index.source}/{target.key}/{file.path}")
        if expected and expected != file.sha256:
            said_by = str(target.artifact.folder(target.version) / SUMS)
            raise ChecksumMismatch(checksum_message(f"{where}: {target.title} {file.path}", expected, file.sha256, said_by))
    for one in held_to(context.lock, target) if index.download else ():
        if algorithm_of(one.checksum) == "sha256" and one.checksum != index.download:
            raise ChecksumMismatch(checksum_message(f"{where}: {target.title}, as it was downloaded", one.checksum, index.download, one.said_by))


def _plain_files(context: Context, target: Target, base: str, progress: Progress, reason: SourceUnavailable) -> Index:
    recorded = target.artifact.sums(target.version)
    for kind in ("upstream", "go"):
        sums = {file.path: recorded.get(f"{kind}/{target.key}/{file.path}", "") for file in target.artifact.files}
        if sums and all(sums.values()):
            break
    else:
        raise reason
    stored = []
    for file in target.artifact.files:
        sha256 = sums[file.path]
        partial = context.store.partial(f"{target.title} {sha256}")
        said_by = str(target.artifact.folder(target.version) / SUMS)
        _fetch(context, f"{base}/{urllib.parse.quote(file.path)}", partial, Expected(sha256, said_by), progress)
        stored.append(replace(context.store.add_blob(partial, sha256, file.path), path=file.path, mode=file.mode))
    return _finish(context.store, target, kind, stored)


def held_to(lock: Lock, target: Target) -> list[Expected]:
    """What the bytes that `upstream` serves must be: the catalogue says so, the site's lock file, or both."""
    download = target.download
    if download is None:
        return []
    expected = []
    if recorded := target.artifact.download_sum(target.version, target.download_key):
        expected.append(Expected(recorded[0], str(recorded[1])))
    if locked := lock.read().get(plain(download.url)):
        expected.append(Expected(locked, str(lock.path)))
    return expected


def _expected(context: Context, target: Target, download: Download) -> list[Expected]:
    """The checksums that the download must have, in the order of trust: the catalogue's, the site's lock file, the publisher's own file.

    :raises SourceUnavailable: when there is nothing that the site trusts.
    """
    expected = held_to(context.lock, target)
    pinned = target.pinned()
    if context.record and not download.checksums:
        return expected
    if not pinned and context.checksums == "pinned" and not context.record:
        raise NotAsked(f"the catalogue has no checksum of {download.name}, and the site's `checksums: pinned` accepts no other")
    if not pinned and not expected:
        if not download.checksums:
            raise NotAsked(f"neither the catalogue nor its publisher has a checksum of {download.name}; record one with -e artifacts_record=true")
        context.servers.check(download.checksums)
        text = read(download.checksums).decode("utf-8", "replace")
        expected.append(Expected(published(text, download.name, plain(download.checksums)), plain(download.checksums)))
    return expected


def _from_upstream(context: Context, target: Target, source: Upstream, scratch: Path, progress: Progress) -> tuple[dict[str, Path], str]:
    """The parts, and the sha256 of the download they were in."""
    download = source.download(target.version, target.architecture)
    expected = _expected(context, target, download)
    context.servers.check(download.url)
    progress.now(f"downloading {download.name}")
    partial = context.store.partial(f"{target.title} {expected} {download.url}")
    _fetch(context, download.url, partial, expected[0] if expected else None, progress)
    archive = scratch / "download"
    partial.rename(archive)
    for one in expected[1:]:
        if (found := digest(archive, algorithm_of(one.checksum))) != one.checksum:
            raise ChecksumMismatch(checksum_message(plain(download.url), one.checksum, found, one.said_by))
    sha256 = digest(archive)
    members = {part: expand(member, target.version, target.architecture) for part, member in source.members.items()}
    parts = _unpack(archive, download.name, members, scratch)
    if context.record:
        write_sums(
            target.artifact, target.version, {target.download_key: sha256} | {f"upstream/{target.key}/{part}": digest(path) for part, path in parts.items()}
        )
    return parts, sha256


def _unpack(archive: Path, name: str, members: dict[str, str], scratch: Path) -> dict[str, Path]:
    """Take the members out of a tar (any compression) or zip archive; nothing else of it is written anywhere."""
    if list(members.values()) == [""]:
        return {next(iter(members)): archive}
    parts = {}
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as zipped:
                for part, member in members.items():
                    with zipped.open(member) as stream:
                        parts[part] = _copy(stream, scratch / part)
        else:
            wanted = {str(PurePosixPath(member)): part for part, member in members.items()}
            with tarfile.open(archive, "r:*") as tar:
                for entry in tar:
                    part = wanted.get(str(PurePosixPath(entry.name)), "")
                    content = tar.extractfile(entry) if part and entry.isfile() else None
                    if content:
                        parts[part] = _copy(content, scratch / part)
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, KeyError, OSError) as error:
        raise ArtifactError(f"{name} cannot be unpacked: {error}; correct `url` or `members` in artifact.yml") from error
    missing = [member for part, member in members.items() if part not in parts]
    if missing:
        raise ArtifactError(f"{name} has no {', '.join(missing)}; correct `members` in artifact.yml")
    return parts


def _copy(stream: IO[bytes], target: Path) -> Path:
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("wb") as out:
        shutil.copyfileobj(stream, out, 1 << 20)
    return target


def _from_packages(context: Context, target: Target, source: Package, scratch: Path, progress: Progress) -> dict[str, Path]:
    codename = source.codename or target.codename
    root = apt.AptRoot(context.build_directory / "apt" / f"{codename}-{target.architecture}", codename, target.architecture)
    # No other checkout, nor a thread of this run, may rewrite the lists meanwhile.
    with context.store.lock(f".apt-{codename}-{target.architecture}", lambda: progress.still("waiting for the package lists")):
        root.prepare(progress.now)
        debs = root.download(source.packages, scratch / "packages", alone=bool(source.extract))
    if not source.extract:
        return {path.name: path for path in debs}
    parts = {}
    for part, (package, member) in source.extract.items():
        deb = next((path for path in debs if path.name.startswith(f"{package}_")), None)
        if deb is None:
            raise ArtifactError(f"{target.title}: {package} is not among its packages; correct `extract` in artifact.yml")
        found = deb.name.split("_")[1].replace("%3a", ":").rpartition(":")[2].partition("-")[0]
        if found.partition("+")[0] != target.version:
            raise SourceUnavailable(f"{codename} has {package} {found}, the catalogue asks for {target.version}")
        parts[part] = scratch / part
        apt.extract(deb, member, parts[part])
    return parts


def _from_program(target: Target, scratch: Path) -> dict[str, Path]:
    parts = {file.path: scratch / file.path for file in target.artifact.files}
    for name, path in parts.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(target.artifact.source(target.version) / name, path)
    return parts


def _fetch(context: Context, url: str, target: Path, expected: Expected | None, progress: Progress) -> None:
    try:
        fetch(url, target, expected, progress, context.cancelled)
    except Unreachable as error:
        context.servers.bury(url, error)
        raise
