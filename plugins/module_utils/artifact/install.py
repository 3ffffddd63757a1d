# SPDX-License-Identifier: Apache-2.0
"""Artifacts on one host: what is there, what is lacking, how it gets into place.

Paths on the host (all below `root`)::

    /opt/ashlar/<artifact>/<version>/<path>   files; /opt/ashlar/<artifact>/current links to the version in use
    /opt/ashlar/.incoming/<sha256>            a download that is under way or was interrupted
    /opt/ashlar/.store/sha256/<2>/<64>        blobs that were verified; they appear by rename only
    /opt/ashlar/.store/incoming/<sha256>      what the controller uploads, not verified yet
    /var/lib/ashlar/artifacts.json            what was laid down, with size, mtime and sha256 of each file

The store lies on the file system of what is installed, so that one is a hard link to the other: /var is often a disk of its own, and
writing everything twice took longer than bringing it (5 s instead of 0.5 s for 830 MB).
The memory makes a run that changes nothing cheap: a file whose size and mtime are as recorded is not hashed again.
Standard library only; whatever is slow to import is imported where it is needed.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import stat
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from ansible_collections.ashlar.stack.plugins.module_utils.host.folders import make_folder
from ansible_collections.ashlar.stack.plugins.module_utils.host.locks import acquire

Choice = TypeVar("Choice")

OPT = "/opt/ashlar"
STORE = OPT + "/.store"
MEMORY = "/var/lib/ashlar/artifacts.json"
DPKG_STATUS = "/var/lib/dpkg/status"
# What must stay free after everything is in place, bytes.
MARGIN = 256 << 20
LOCK_SECONDS = 300
CHUNK = 1 << 20
# Blobs that nobody asked for since and that no installed version uses leave the store after this many seconds.
STORE_SECONDS = 30 * 86400
ARCHITECTURES = {"x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64"}


class InstallError(Exception):
    """What failed, where, what was found and what to do, for the user."""


@dataclass(frozen=True)
class File:
    """One file of an index; `mode` is a number, `size` bytes."""

    path: str
    sha256: str
    size: int
    mode: int

    @property
    def package(self) -> bool:
        return self.path.endswith(".deb")


@dataclass(frozen=True)
class Index:
    """The files of one version of an artifact for this host; `digest` names exactly this list."""

    name: str
    version: str
    digest: str
    files: tuple[File, ...]


def for_platform(choices: Mapping[str, Choice], architecture: str, codename: str) -> Choice | None:
    """What a store has for a host, of what it has by platform: ``amd64-trixie`` before ``amd64``."""
    return choices.get(f"{architecture}-{codename}") or choices.get(architecture)


def package_of(path: str) -> tuple[str, str]:
    """(package, version) of ``haproxy_3.0.11-1_amd64.deb``; an epoch's colon comes as %3a. ('', '') when the name is no such one."""
    parts = os.path.basename(path)[: -len(".deb")].split("_")
    return (parts[0], parts[1].replace("%3a", ":").replace("%3A", ":")) if len(parts) == 3 else ("", "")


def parse_index(raw: dict[str, Any]) -> Index:
    files = tuple(File(str(f["path"]), str(f["sha256"]), int(f["size"]), int(str(f["mode"]), 8)) for f in raw["files"])
    for item in files:
        if item.path.startswith("/") or ".." in item.path.split("/"):
            raise InstallError(f"artifact {raw['name']} {raw['version']}: path '{item.path}' leaves its folder; build the artifact again.")
        if item.package and not package_of(item.path)[0]:
            raise InstallError(f"artifact {raw['name']} {raw['version']}: '{item.path}' must be named <package>_<version>_<architecture>.deb.")
    return Index(str(raw["name"]), str(raw["version"]), str(raw["digest"]), files)


def digest_of(path: str) -> str:
    """sha256 of a file's content, 64 hex digits."""
    state = hashlib.sha256()
    with open(path, "rb", buffering=0) as stream:
        buffer = bytearray(CHUNK)
        view = memoryview(buffer)
        while True:
            count = stream.readinto(buffer)
            if not count:
                return state.hexdigest()
            state.update(view[:count])


def human(size: int) -> str:
    return f"{size / (1 << 20):.0f} MiB" if size >= 1 << 20 else f"{size} bytes"


@dataclass
class Version:
    """What the memory has of one version: files as path -> (size, mtime in ns, mode, sha256), packages as name -> version."""

    digest: str
    files: dict[str, tuple[int, int, int, str]] = field(default_factory=dict)
    packages: dict[str, str] = field(default_factory=dict)


@dataclass
class Known:
    """What the memory has of one artifact; `order` are its versions, the one used last first."""

    versions: dict[str, Version] = field(default_factory=dict)
    order: list[str] = field(default_factory=list)


class Memory:
    """``artifacts.json``. A memory that cannot be read is as good as none: everything is looked at again."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.artifacts: dict[str, Known] = {}
        self.dpkg: list[int] = []
        self._saved = ""
        try:
            with open(path, encoding="utf-8") as stream:
                self._saved = stream.read()
            raw = json.loads(self._saved)
            self.dpkg = [int(part) for part in raw.get("dpkg", [])]
            for name, entry in raw["artifacts"].items():
                versions = {
                    version: Version(
                        known["digest"],
                        {path: (int(f[0]), int(f[1]), int(f[2]), str(f[3])) for path, f in known["files"].items()},
                        dict(known["packages"]),
                    )
                    for version, known in entry["versions"].items()
                }
                self.artifacts[name] = Known(versions, [v for v in entry["order"] if v in versions])
        except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError):
            self.artifacts = {}
            self.dpkg = []

    def save(self) -> None:
        text = json.dumps(
            {
                "dpkg": self.dpkg,
                "artifacts": {
                    name: {
                        "order": known.order,
                        "versions": {v: {"digest": e.digest, "files": e.files, "packages": e.packages} for v, e in known.versions.items()},
                    }
                    for name, known in sorted(self.artifacts.items())
                },
            },
            separators=(",", ":"),
        )
        if text == self._saved:
            return
        make_folder(os.path.dirname(self.path))
        temporary = f"{self.path}.{os.getpid()}"
        with open(temporary, "w", encoding="utf-8") as stream:
            stream.write(text)
            os.fchmod(stream.fileno(), 0o644)
        os.replace(temporary, self.path)
        self._saved = text


class Host:
    """The artifacts of one host below `root`. All methods raise InstallError only; OSErrors are told by `guarded`."""

    def __init__(self, root: str = "/", margin: int = MARGIN) -> None:
        self.root = root.rstrip("/")
        self.opt = self.root + OPT
        self.store = self.root + STORE
        self.incoming = self.store + "/incoming"
        self.partial = self.opt + "/.incoming"
        self.margin = margin
        self.memory = Memory(self.root + MEMORY)

    # ------------------------------------------------------------------ looking

    def platform(self) -> tuple[str, str]:
        """(architecture as the store names it, the distribution's codename or '')."""
        machine = os.uname().machine
        architecture = ARCHITECTURES.get(machine)
        if architecture is None:
            raise InstallError(f"the machine is {machine}; artifacts are made for {' and '.join(sorted(set(ARCHITECTURES.values())))}.")
        codename = ""
        with contextlib.suppress(OSError), open(self.root + "/etc/os-release", encoding="utf-8") as stream:
            for line in stream:
                if line.startswith("VERSION_CODENAME="):
                    codename = line.partition("=")[2].strip().strip("\"'")
        return architecture, codename

    def current(self, name: str) -> str:
        """The version in use, '' when there is none."""
        try:
            return os.readlink(f"{self.opt}/{name}/current")
        except OSError:
            return ""

    def lacks(self, name: str, version: str, digest: str, verify: bool = False) -> str:
        """Why the artifact has to be laid down (again), '' when all its files are as recorded."""
        known = self.memory.artifacts.get(name)
        entry = known.versions.get(version) if known else None
        if entry is None:
            return "not there"
        if entry.digest != digest:
            return "rebuilt"
        base = f"{self.opt}/{name}/{version}"
        for folder in (self.opt, os.path.dirname(base), base, *sorted({os.path.dirname(f"{base}/{path}") for path in entry.files} - {base})):
            if not _open(folder):
                return f"{folder} is closed to services"
        for path, (size, mtime, mode, sha256) in entry.files.items():
            full = f"{base}/{path}"
            if not _as_recorded(full, size, mtime, mode):
                return f"{path} was changed"
            if verify and digest_of(full) != sha256:
                return f"{path} is damaged"
        if entry.packages:
            missing = self._missing_packages(entry.packages, verify)
            if missing:
                return f"package {missing[0]} is not installed"
        return ""

    def _missing_packages(self, packages: dict[str, str], verify: bool) -> list[str]:
        """dpkg is asked only when its database changed since it was asked last."""
        stamp = self._dpkg_stamp()
        if stamp == self.memory.dpkg and not verify:
            return []
        from ansible_collections.ashlar.stack.plugins.module_utils.artifact import debian

        installed = debian.installed(packages)
        missing = [
            name for name, version in sorted(packages.items()) if name not in installed or debian.older(installed[name], version)
        ]
        if not missing:
            self.memory.dpkg = stamp
        return missing

    def _dpkg_stamp(self) -> list[int]:
        try:
            status = os.stat(self.root + DPKG_STATUS)
        except OSError:
            return []
        return [status.st_size, status.st_mtime_ns]

    def survey(self) -> dict[str, Any]:
        """What is in use and as recorded: artifact -> [version, digest, number of versions kept]; with the host's platform."""
        architecture, codename = self.platform()
        intact = {}
        for name, known in self.memory.artifacts.items():
            version = self.current(name)
            entry = known.versions.get(version)
            if entry is not None and known.order[:1] == [version] and not self.lacks(name, version, entry.digest):
                intact[name] = [version, entry.digest, len(known.order)]
        return {"architecture": architecture, "codename": codename, "intact": intact, "known": sorted(self.memory.artifacts)}

    # ------------------------------------------------------------------ the store

    def blob(self, sha256: str) -> str:
        return f"{self.store}/sha256/{sha256[:2]}/{sha256}"

    def has_blob(self, sha256: str, size: int) -> bool:
        return _size(self.blob(sha256)) == size

    def prepare(self, blobs: dict[str, int], user: str = "") -> list[str]:
        """The blobs (sha256 -> size) the store lacks and `incoming` has not got either; makes `incoming` for `user` to upload to.

        What an installed version has is linked from there instead of being sent again.
        """
        self._folder(self.incoming)
        owner = _uid(user)
        os.chmod(self.incoming, 0o700)
        os.chown(self.incoming, owner, -1)
        self._link_installed(blobs)
        missing = []
        for sha256, size in blobs.items():
            if self.has_blob(sha256, size):
                status = os.stat(self.blob(sha256))
                if status.st_nlink == 1:
                    os.utime(self.blob(sha256))
                continue
            if _size(f"{self.incoming}/{sha256}") != size:
                missing.append(sha256)
        self.check_space(self.store, sum(blobs[sha256] for sha256 in missing))
        return missing

    def _link_installed(self, blobs: dict[str, int]) -> None:
        for name, known in self.memory.artifacts.items():
            for version, entry in known.versions.items():
                for path, (size, mtime, mode, sha256) in entry.files.items():
                    full = f"{self.opt}/{name}/{version}/{path}"
                    if sha256 not in blobs or self.has_blob(sha256, blobs[sha256]) or not _as_recorded(full, size, mtime, mode):
                        continue
                    # The memory knows size and mtime only, and what is in the store counts as verified.
                    if digest_of(full) != sha256:
                        continue
                    self._folder(os.path.dirname(self.blob(sha256)))
                    with contextlib.suppress(OSError):
                        os.link(full, self.blob(sha256))

    def adopt(self) -> list[str]:
        """Verifies what was uploaded and takes it into the store; returns the sha256 of what was refused (and removed).

        Small files come together in ``bundle.tar``; of a bundle that was cut off, what is whole is taken.
        """
        try:
            # From here on only root may write there, so that what is verified is what is taken in.
            os.chown(self.incoming, os.geteuid(), os.getegid())
            found = sorted(os.listdir(self.incoming))
        except FileNotFoundError:
            return []
        for name in found:
            status = os.lstat(f"{self.incoming}/{name}")
            if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1:
                raise InstallError(f"{self.incoming}/{name} is a link or no file; remove it, find out who put it there, and run again.")
        if "bundle.tar" in found:
            self._unpack(f"{self.incoming}/bundle.tar")
        names = sorted(name for name in os.listdir(self.incoming) if len(name) == 64)
        for name in names:
            os.chown(f"{self.incoming}/{name}", os.geteuid(), os.getegid())
            os.chmod(f"{self.incoming}/{name}", 0o644)
        refused = []
        digests = _in_threads(lambda name: digest_of(f"{self.incoming}/{name}"), names) if names else []
        for name, found in zip(names, digests):
            if found != name:
                os.unlink(f"{self.incoming}/{name}")
                refused.append(name)
                continue
            self._folder(os.path.dirname(self.blob(name)))
            os.replace(f"{self.incoming}/{name}", self.blob(name))
        return refused

    def _unpack(self, bundle: str) -> None:
        import tarfile

        with contextlib.suppress(tarfile.TarError, EOFError), tarfile.open(bundle) as archive:
            for member in archive:
                source = archive.extractfile(member) if len(member.name) == 64 and member.name.isalnum() else None
                if source is not None:
                    with open(f"{self.incoming}/{member.name}", "wb") as target:
                        shutil.copyfileobj(source, target, CHUNK)
        os.unlink(bundle)

    def prune_store(self, keep: Iterable[str]) -> None:
        """Removes blobs that no installed version shares and nobody asked for lately; `keep` are asked for now."""
        kept = set(keep)
        oldest = time.time() - STORE_SECONDS
        for folder, _, names in os.walk(self.store + "/sha256"):
            for name in names:
                path = f"{folder}/{name}"
                with contextlib.suppress(OSError):
                    status = os.stat(path)
                    if name not in kept and status.st_nlink == 1 and status.st_mtime < oldest:
                        os.unlink(path)

    def drop_blobs(self, names: Iterable[str]) -> None:
        """Takes blobs out of the store again (a host that serves nobody needs the installed file only)."""
        for sha256 in names:
            with contextlib.suppress(OSError):
                os.unlink(self.blob(sha256))

    # ------------------------------------------------------------------ into place

    def absent(self, indexes: list[Index], verify: bool = False) -> dict[str, File]:
        """The files that are not in place, by sha256. A file that is there under its name but not in the memory is hashed once.

        A .deb is lacking unless the package in it is installed; its name says which: <package>_<version>_<architecture>.deb.
        """
        wanted: dict[str, File] = {}
        packages: dict[str, tuple[str, str]] = {}
        for index in indexes:
            known = self.memory.artifacts.get(index.name)
            entry = known.versions.get(index.version) if known else None
            for item in index.files:
                if item.package:
                    packages[item.sha256] = package_of(item.path)
                    wanted[item.sha256] = item
                elif not self._in_place(index, item, entry, verify):
                    wanted[item.sha256] = item
        names = {name for name, _ in packages.values() if name}
        if names:
            from ansible_collections.ashlar.stack.plugins.module_utils.artifact import debian

            found = debian.installed(names)
            for sha256, (name, version) in packages.items():
                have = found.get(name, "")
                # A file name may leave out the epoch; then it says nothing about it.
                if have and not debian.older(have if ":" in version else have.rpartition(":")[2], version):
                    del wanted[sha256]
        return wanted

    def _in_place(self, index: Index, item: File, entry: Version | None, verify: bool) -> bool:
        full = f"{self.opt}/{index.name}/{index.version}/{item.path}"
        recorded = entry.files.get(item.path) if entry else None
        if recorded and recorded[3] == item.sha256 and _as_recorded(full, *recorded[:3]) and not verify:
            return True
        try:
            if os.path.islink(full) or os.stat(full).st_size != item.size:
                return False
            if digest_of(full) != item.sha256:
                return False
            if os.stat(full).st_mode & 0o7777 != item.mode:
                os.chmod(full, item.mode)
        except OSError:
            return False
        return True

    def find(self, item: File) -> str:
        """Path of a verified copy of the blob on this host, '' when there is none: a finished download, or the store's."""
        download = f"{self.partial}/{item.sha256}"
        if _size(download) == item.size:
            return download
        blob = self.blob(item.sha256)
        if _size(blob) != item.size:
            return ""
        if os.stat(blob).st_nlink > 1 and digest_of(blob) != item.sha256:
            # The blob shares its content with an installed file that somebody wrote into.
            os.unlink(blob)
            return ""
        return blob

    def place(self, index: Index, item: File, source: str) -> None:
        """Puts one file in place under its final name in one step; linked where that is possible, so that it takes no further space."""
        final = f"{self.opt}/{index.name}/{index.version}/{item.path}"
        self._folder(os.path.dirname(final))
        temporary = f"{os.path.dirname(final)}/.{os.path.basename(final)}.new"
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        status = os.stat(source)
        try:
            # One inode has one mode: a blob that is used with another mode already is copied.
            if status.st_nlink > 1 and status.st_mode & 0o7777 != item.mode:
                raise OSError(errno.EXDEV, "mode differs")
            os.link(source, temporary)
        except OSError:
            shutil.copyfile(source, temporary)
        os.chmod(temporary, item.mode)
        os.replace(temporary, final)

    def forget_downloads(self) -> None:
        shutil.rmtree(self.partial, ignore_errors=True)

    def record(self, index: Index, packages: dict[str, str]) -> None:
        """Takes the version into the memory; `packages` are those of its .deb files that have been installed by now."""
        base = f"{self.opt}/{index.name}/{index.version}"
        for folder in {base, *(os.path.dirname(f"{base}/{item.path}") for item in index.files if not item.package)}:
            self._folder(folder)
        files = {}
        for item in index.files:
            if item.package:
                continue
            status = os.stat(f"{base}/{item.path}")
            files[item.path] = (status.st_size, status.st_mtime_ns, status.st_mode & 0o7777, item.sha256)
        known = self.memory.artifacts.setdefault(index.name, Known())
        known.versions[index.version] = Version(index.digest, files, packages)
        if index.version not in known.order:
            known.order.append(index.version)
        if packages:
            self.memory.dpkg = self._dpkg_stamp()

    def activate(self, name: str, version: str) -> bool:
        """Switches `current` in one step; True when it pointed elsewhere."""
        known = self.memory.artifacts[name]
        if known.order[:1] != [version]:
            known.order = [version, *(other for other in known.order if other != version)]
        if self.current(name) == version:
            return False
        link = f"{self.opt}/{name}/.current.new"
        with contextlib.suppress(FileNotFoundError):
            os.unlink(link)
        os.symlink(version, link)
        os.replace(link, f"{self.opt}/{name}/current")
        return True

    def prune(self, name: str, keep: int) -> list[str]:
        """Removes all but the `keep` versions used last; one that a process still runs from stays. Returns the versions removed."""
        known = self.memory.artifacts[name]
        removed = []
        for version in known.order[keep:]:
            folder = f"{self.opt}/{name}/{version}"
            if version == self.current(name) or _in_use(folder):
                continue
            shutil.rmtree(folder, ignore_errors=True)
            known.order.remove(version)
            known.versions.pop(version, None)
            removed.append(version)
        return removed

    def stale(self, wanted: Iterable[str]) -> list[str]:
        """Artifacts that were laid down, are not in `wanted`, and from which no process runs."""
        names = sorted(set(self.memory.artifacts) - set(wanted))
        return [name for name in names if not _in_use(f"{self.opt}/{name}")]

    def forget(self, name: str) -> list[str]:
        """Removes an artifact with all its versions, which are returned."""
        shutil.rmtree(f"{self.opt}/{name}", ignore_errors=True)
        return self.memory.artifacts.pop(name).order

    # ------------------------------------------------------------------ helpers

    def _folder(self, path: str) -> None:
        """Make a folder and open it, and each one above it that is ours, to the users that services run as."""
        make_folder(path)
        while path == self.opt or path.startswith(self.opt + "/"):
            if not _open(path):
                os.chmod(path, 0o755)
            path = os.path.dirname(path)

    def check_space(self, path: str, size: int) -> None:
        if not size:
            return
        while not os.path.isdir(path):
            path = os.path.dirname(path)
        status = os.statvfs(path)
        free = status.f_bavail * status.f_frsize
        if free < size + self.margin:
            raise InstallError(
                f"{path} has {human(free)} free; artifacts need {human(size)} and {human(self.margin)} stay in reserve. "
                f"Free {human(size + self.margin - free)} there, or enlarge the disk, and run again."
            )

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """One run at a time works on a host's artifacts; waits LOCK_SECONDS at most. The memory is read again under the lock."""
        self._folder(os.path.dirname(self.root + MEMORY))
        with open(self.root + MEMORY + ".lock", "w", encoding="utf-8") as stream:
            if not acquire(stream, LOCK_SECONDS):
                raise InstallError(f"another run works on this host's artifacts for {LOCK_SECONDS} seconds; let it end, then run again.")
            self.memory = Memory(self.root + MEMORY)
            yield


@contextlib.contextmanager
def guarded() -> Iterator[None]:
    """OSErrors of what is inside become one sentence."""
    try:
        yield
    except OSError as error:
        remedy = {
            errno.ENOSPC: "The disk is full: free space and run again.",
            errno.EROFS: "The file system is read-only: find out why (journalctl -k), remount it, and run again.",
            errno.EACCES: "Root is needed: run with become.",
            errno.EPERM: "Root is needed: run with become.",
        }.get(error.errno or 0, "Look at that path on the host and run again.")
        raise InstallError(f"{error.filename or 'a file'}: {error.strerror or error}. {remedy}") from None


def _size(path: str) -> int:
    """Bytes of a regular file, -1 when there is none."""
    try:
        return os.stat(path).st_size
    except OSError:
        return -1


def _open(folder: str) -> bool:
    """Whether every user can enter and list the folder; one that is not there is for others to find."""
    try:
        return os.stat(folder).st_mode & 0o055 == 0o055
    except OSError:
        return True


def _as_recorded(path: str, size: int, mtime: int, mode: int) -> bool:
    try:
        status = os.lstat(path)
    except OSError:
        return False
    return (status.st_size, status.st_mtime_ns, status.st_mode & 0o7777) == (size, mtime, mode)


def _in_use(folder: str) -> bool:
    """Whether a process runs a program from the folder."""
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError):
                if os.readlink(f"/proc/{entry}/exe").startswith(folder + "/"):
                    return True
    return False


def _uid(user: str, proc: str = "/proc") -> int:
    """The user who uploads: whose processes led to this one, by whatever means it became root; else `user`; else this process's own."""
    import pwd

    pid = "self"
    while pid != "1":
        try:
            with open(f"{proc}/{pid}/status", encoding="utf-8", errors="replace") as file:
                found = re.search(r"^PPid:\s*(\d+)$.*^Uid:\s*(\d+)", file.read(), re.MULTILINE | re.DOTALL)
        except OSError:
            break
        if not found:
            break
        pid, uid = found.groups()
        if uid != "0":
            return int(uid)
    try:
        return pwd.getpwnam(user).pw_uid if user else os.geteuid()
    except KeyError:
        return os.geteuid()


def _in_threads(function: Any, items: list[str]) -> list[Any]:
    """Hashing and TLS release the interpreter, so threads use all processors."""
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(max_workers=max(1, min(4, os.cpu_count() or 1, len(items)))) as pool:
        return list(pool.map(function, items))
