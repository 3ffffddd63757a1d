# SPDX-License-Identifier: Apache-2.0
"""Files of a host seen from a root, entered folder by folder, so that only root can redirect where something is written.

Every folder on the way is opened relative to the one before it and without following links; a symbolic link is followed by hand, and
only if root (or whoever runs this) owns it. A service user that plants a link in a folder of its own gains nothing by it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass

from ansible_collections.ashlar.stack.plugins.module_utils.host.locks import acquire

MAX_LINKS = 40
DIRECTORY_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class FileError(Exception):
    """A path cannot be used; the message says which, why and what to do."""


@dataclass(frozen=True)
class Found:
    """What lies at a path: `kind` is file, link, directory or other; `content` only of files, `target` only of links."""

    kind: str
    mode: int = 0
    uid: int = 0
    gid: int = 0
    links: int = 1
    content: bytes = b""
    target: str = ""


def split(path: str) -> tuple[str, str]:
    """Folder and name of an absolute path: `/etc/x/y` is `("/etc/x", "y")`."""
    folder, _, name = path.rpartition("/")
    return folder or "/", name


def temporary_name(name: str) -> str:
    """The name a file has until it is complete. Always the same, so that what a killed run left behind is found again."""
    return ".ashlar-new." + name


class HostFiles:
    """The file system below `root`. Absolute paths are the host's; folders stay open until `close`."""

    def __init__(self, root: str = "/") -> None:
        self.root = root
        self._root_fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._open: dict[str, int] = {}
        self._trusted = {0, os.geteuid()}

    def close(self) -> None:
        """Close every folder."""
        self.forget()
        os.close(self._root_fd)

    def forget(self) -> None:
        """Drop the folders that are kept open, so that later calls see what is there now."""
        for fd in self._open.values():
            os.close(fd)
        self._open.clear()

    def real(self, path: str) -> str:
        """The host path as this process sees it, for programs and globbing: below `root`."""
        return path if self.root == "/" else self.root.rstrip("/") + path

    def _enter(self, path: str) -> int:
        """A new descriptor of the folder `path`; FileNotFoundError when it is not there, FileError when it must not be entered."""
        fds = [os.dup(self._root_fd)]
        pending = path.split("/")[::-1]
        links = 0
        try:
            while pending:
                name = pending.pop()
                if name in ("", "."):
                    continue
                if name == "..":
                    if len(fds) > 1:
                        os.close(fds.pop())
                    continue
                try:
                    fds.append(os.open(name, DIRECTORY_FLAGS, dir_fd=fds[-1]))
                    continue
                except OSError as error:
                    if error.errno not in (errno.ENOTDIR, errno.ELOOP):
                        raise
                found = os.stat(name, dir_fd=fds[-1], follow_symlinks=False)
                if not stat.S_ISLNK(found.st_mode):
                    raise FileError(f"{path}: '{name}' on the way is not a folder; move it away or choose another path")
                links += 1
                if found.st_uid not in self._trusted:
                    raise FileError(
                        f"{path}: '{name}' on the way is a symbolic link owned by user id {found.st_uid}, and only root's links "
                        "are followed; remove the link or give it to root (chown -h root)"
                    )
                if links > MAX_LINKS:
                    raise FileError(f"{path}: more than {MAX_LINKS} symbolic links on the way; they go in a circle")
                target = os.readlink(name, dir_fd=fds[-1])
                if target.startswith("/"):
                    while len(fds) > 1:
                        os.close(fds.pop())
                pending.extend(target.split("/")[::-1])
            return fds.pop()
        finally:
            for fd in fds:
                os.close(fd)

    def folder(self, path: str) -> int:
        """The descriptor of a folder (kept open, not to be closed); FileNotFoundError when it is not there."""
        if path not in self._open:
            self._open[path] = self._enter(path)
        return self._open[path]

    def look(self, path: str, content: bool = True) -> Found | None:
        """What lies at a path, never following a link in its last part; None when there is nothing."""
        folder, name = split(path)
        try:
            fd = self.folder(folder)
            found = os.stat(name, dir_fd=fd, follow_symlinks=False)
            if stat.S_ISLNK(found.st_mode):
                return Found("link", 0o777, found.st_uid, found.st_gid, target=os.readlink(name, dir_fd=fd))
            if stat.S_ISREG(found.st_mode):
                data = b""
                if content:
                    opened = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=fd)
                    with os.fdopen(opened, "rb") as stream:
                        found = os.fstat(stream.fileno())
                        data = stream.read() if stat.S_ISREG(found.st_mode) else b""
                return Found("file", stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid, found.st_nlink, data)
        except FileNotFoundError:
            return None
        kind = "directory" if stat.S_ISDIR(found.st_mode) else "other"
        return Found(kind, stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid)

    def look_directory(self, path: str) -> Found | None:
        """The folder at a path, through links that root owns; None when there is nothing; FileError when it is something else."""
        try:
            found = os.fstat(self.folder(path))
        except FileNotFoundError:
            return None
        return Found("directory", stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid)

    def make_directory(self, path: str, uid: int, gid: int, mode: int) -> None:
        """Make one folder (its parent is there) with its owner and mode."""
        folder, name = split(path)
        parent = self.folder(folder)
        try:
            os.mkdir(name, 0o700, dir_fd=parent)
        except FileExistsError:
            pass
        self.set_directory(path, uid, gid, mode)

    def set_directory(self, path: str, uid: int, gid: int, mode: int) -> None:
        """Give a folder its owner and mode."""
        fd = self.folder(path)
        os.fchown(fd, uid, gid)
        os.fchmod(fd, mode)

    def write_temporary(self, path: str, content: bytes, uid: int, gid: int, mode: int) -> None:
        """Lay the complete file beside its place, with owner and mode; `commit` moves it there. Nobody else can read it meanwhile."""
        folder, name = split(path)
        parent = self.folder(folder)
        temporary = temporary_name(name)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary, dir_fd=parent)
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=parent)
        with os.fdopen(fd, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fchown(fd, uid, gid)
            os.fchmod(fd, mode)

    def link_temporary(self, path: str, target: str) -> None:
        """Lay a symbolic link beside its place; `commit` moves it there."""
        folder, name = split(path)
        parent = self.folder(folder)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary_name(name), dir_fd=parent)
        os.symlink(target, temporary_name(name), dir_fd=parent)

    def flush_temporary(self, path: str) -> None:
        """Wait until the temporary file is on disk, so that after a power cut the file is either the old or the new one."""
        folder, name = split(path)
        fd = os.open(temporary_name(name), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self.folder(folder))
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def commit(self, path: str) -> None:
        """Put the temporary file in its place in one step. A link planted there is itself replaced, not what it points to."""
        folder, name = split(path)
        parent = self.folder(folder)
        os.rename(temporary_name(name), name, src_dir_fd=parent, dst_dir_fd=parent)

    def drop_temporary(self, path: str) -> None:
        """Remove a temporary file that will not be committed."""
        folder, name = split(path)
        with contextlib.suppress(OSError, FileError):
            os.unlink(temporary_name(name), dir_fd=self.folder(folder))

    def set_attributes(self, path: str, uid: int, gid: int, mode: int) -> None:
        """Owner and mode of a file that is in its place."""
        folder, name = split(path)
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=self.folder(folder))
        try:
            os.fchown(fd, uid, gid)
            os.fchmod(fd, mode)
        finally:
            os.close(fd)

    def remove(self, path: str) -> bool:
        """Remove a file or link; True when there was one. A folder in its place is left alone."""
        folder, name = split(path)
        try:
            os.unlink(name, dir_fd=self.folder(folder))
        except (FileNotFoundError, IsADirectoryError):
            return False
        return True

    def remove_directory(self, path: str) -> bool:
        """Remove a folder if it is empty; True when it is gone by this."""
        folder, name = split(path)
        if path in self._open:
            os.close(self._open.pop(path))
        try:
            os.rmdir(name, dir_fd=self.folder(folder))
        except OSError:
            return False
        return True

    def flush_directories(self, paths: set[str]) -> None:
        """Wait until the names in these folders are on disk."""
        for path in sorted(paths):
            with contextlib.suppress(OSError):
                os.fsync(self.folder(path))

    def make_parents(self, path: str) -> None:
        """Make a folder of Ashlar's own memory, readable by root alone, and what is missing above it."""
        made = ""
        for name in path.strip("/").split("/"):
            made += "/" + name
            if self.look_directory(made) is None:
                self.make_directory(made, os.geteuid(), os.getegid(), 0o700 if made == path else 0o755)

    def write(self, path: str, content: bytes, mode: int = 0o600) -> None:
        """Write one file of Ashlar's own memory, atomically and durably."""
        folder, _ = split(path)
        self.make_parents(folder)
        self.write_temporary(path, content, os.geteuid(), os.getegid(), mode)
        self.flush_temporary(path)
        self.commit(path)
        self.flush_directories({folder})

    def lock(self, folder: str, seconds: float) -> None:
        """Be the only one at work on a folder of Ashlar's own memory until `close`; FileError when another still is after `seconds`."""
        self.make_parents(folder)
        if not acquire(self.folder(folder), seconds):
            raise FileError(
                f"another run has been at work on this host for {seconds:.0f} s (it holds {folder}); "
                f"see who with 'fuser -v {folder}', let it end or end it, and run again"
            )

    def names(self, path: str) -> list[str]:
        """Names in a folder, sorted; none when it is not there."""
        try:
            return sorted(os.listdir(self.folder(path)))
        except FileNotFoundError:
            return []


@contextlib.contextmanager
def host_files(root: str) -> Iterator[HostFiles]:
    """HostFiles that are closed at the end."""
    files = HostFiles(root)
    try:
        yield files
    finally:
        files.close()
