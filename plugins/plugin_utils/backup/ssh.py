# SPDX-License-Identifier: Apache-2.0
"""Backups in a folder of another machine, by the `ssh` of the controller: its configuration, its keys, its known hosts.

The account there needs a shell; what it runs is POSIX. Nothing is asked for, and dead connections end after a minute.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import IO

from .age import Readable
from .errors import BackupError
from .names import PART
from .places import Incoming, Place

OPTIONS = {"BatchMode": "yes", "ConnectTimeout": "10", "ServerAliveInterval": "15", "ServerAliveCountMax": "4", "ControlPath": "none", "ForwardAgent": "no"}
LIMIT_SECONDS = 120
# A checksum of a file of gigabytes, on a slow disk.
PROOF_SECONDS = 3600
DIFFERENT = 65

LIST = 'if [ -d "$1" ]; then ls -A "$1"; else [ -d "${1%/*}/" ] || { echo "${1%/*} is not there" >&2; exit 1; }; fi'
WRITE = 'umask 077; [ -d "$1" ] || mkdir "$1" || exit; cat > "$1/$2"'
COMMIT = f"""\
size=$(wc -c < "$1/$2") || exit
[ "$((size))" = "$4" ] || {{ echo "$((size)) of $4 bytes are there" >&2; exit {DIFFERENT}; }}
if command -v sha256sum > /dev/null; then
  sum=$(sha256sum < "$1/$2") || exit
  [ "${{sum%% *}}" = "$5" ] || {{ echo "its sha256 differs" >&2; exit {DIFFERENT}; }}
fi
sync "$1/$2" 2> /dev/null
mv -f "$1/$2" "$1/$3"
"""
READ = 'cat "$1/$2"'
REMOVE = 'cd "$1" && shift && rm -f -- "$@"'

UNKNOWN_HOST = re.compile(r"Host key verification failed|REMOTE HOST IDENTIFICATION HAS CHANGED|No .* host key is known")


class Ssh(Place):
    """``port``: None is ssh's own choice."""

    def __init__(self, user: str, host: str, port: int | None, folder: str) -> None:
        self.user, self.host, self.port, self.folder = user, host, port, folder
        bracketed = f"[{host}]" if ":" in host else host
        self.shown = f"ssh://{user}@{bracketed}{f':{port}' if port else ''}{folder}"

    def names(self) -> list[str]:
        return self.run(LIST).splitlines()

    def receive(self, name: str) -> Incoming:
        return _Incoming(self, name)

    @contextmanager
    def read(self, name: str) -> Iterator[Readable]:
        with tempfile.TemporaryFile() as errors:
            process = self.start(READ, [name], errors, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
            try:
                yield _Outgoing(self, process, errors)
            finally:
                stop(process)

    def remove(self, names: Sequence[str]) -> None:
        if names:
            self.run(REMOVE, *names)

    def command(self, script: str, arguments: Sequence[str]) -> list[str]:
        """The ssh that runs a script of `sh` there; the folder is its first argument."""
        words = ["ssh", "-T", "-a", "-x", *(word for name, value in OPTIONS.items() for word in ("-o", f"{name}={value}")), "-l", self.user]
        words += ["-p", str(self.port)] if self.port else []
        return [*words, "--", self.host, shlex.join(["sh", "-c", script, "sh", self.folder, *arguments])]

    def start(self, script: str, arguments: Sequence[str], errors: IO[bytes], stdin: int, stdout: int) -> subprocess.Popen[bytes]:
        """:raises BackupError: there is no ssh here."""
        try:
            return subprocess.Popen(self.command(script, arguments), stdin=stdin, stdout=stdout, stderr=errors)
        except FileNotFoundError:
            raise BackupError(f"{self.shown} needs the program ssh, which is not on this machine. Install openssh-client.") from None

    def run(self, script: str, *arguments: str, seconds: int = LIMIT_SECONDS) -> str:
        """What a script prints."""
        with tempfile.TemporaryFile() as errors:
            process = self.start(script, arguments, errors, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
            try:
                out, _ = process.communicate(timeout=seconds)
            except subprocess.TimeoutExpired:
                raise BackupError(f"{self.shown} did not answer for {seconds} seconds. Look at the machine and its disk, then try again.") from None
            finally:
                stop(process)
            if process.returncode:
                raise self.failure(process.returncode, errors)
        return out.decode("utf-8", "surrogateescape")

    def failure(self, code: int, errors: IO[bytes]) -> BackupError:
        """The sentence for how ssh, or what it ran, ended."""
        errors.seek(0)
        text = errors.read().decode("utf-8", "replace")
        last = next((line.strip() for line in reversed(text.splitlines()) if line.strip()), f"it ended with {code} and said nothing")
        by_hand = shlex.join(["ssh", *(["-p", str(self.port)] if self.port else []), f"{self.user}@{self.host}"])
        if UNKNOWN_HOST.search(text):
            return BackupError(f"{self.shown}: ssh does not know the host's key, or knows another one. Compare it and accept it by hand: {by_hand}")
        if code == 255 and "Permission denied" in text:
            return BackupError(f"{self.shown} refuses SSH: {last}. The key of the user who runs Ansible must be let in there. Try: {by_hand}")
        if code == 255:
            return BackupError(f"{self.shown} can't be reached by SSH: {last}. Check host, port and network. Try: {by_hand}")
        if re.search(r"No space left|quota exceeded", text, re.IGNORECASE):
            return BackupError(f"{self.shown}: no space is left on its disk, so nothing was kept there. Free some, or choose another place.")
        if code == DIFFERENT:
            return BackupError(f"{self.shown} does not hold what was sent there: {last}. Look at its disk, then make the backup again.")
        return BackupError(f"{self.shown}: {last}. The account needs a shell and must be able to read and write in that folder, whose parent must be there.")


class _Incoming(Incoming):
    def __init__(self, place: Ssh, name: str) -> None:
        super().__init__()
        self.place, self.name = place, name
        self.errors = tempfile.TemporaryFile()
        self.process = place.start(WRITE, [name + PART], self.errors, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)

    def put(self, data: bytes) -> None:
        assert self.process.stdin
        try:
            self.process.stdin.write(data)
        except OSError:
            raise self._ended() from None

    def commit(self) -> None:
        assert self.process.stdin
        try:
            self.process.stdin.close()
        except OSError:
            raise self._ended() from None
        if self._wait():
            raise self._ended()
        self.place.run(COMMIT, self.name + PART, self.name, str(self.size), self.digest.hexdigest(), seconds=PROOF_SECONDS)
        self.errors.close()

    def give_up(self) -> None:
        try:
            stop(self.process)
            self.place.run(REMOVE, self.name + PART)
        except BackupError:
            # The reason why it was given up is told; what remains goes a day later.
            pass
        finally:
            self.errors.close()

    def _wait(self) -> int:
        try:
            return self.process.wait(LIMIT_SECONDS)
        except subprocess.TimeoutExpired:
            raise BackupError(f"{self.place.shown} did not take the backup's end for {LIMIT_SECONDS} seconds. Look at the machine and its disk.") from None

    def _ended(self) -> BackupError:
        return self.place.failure(self._wait(), self.errors)


class _Outgoing:
    """What `ssh` prints; its end is only one if ssh ended well."""

    def __init__(self, place: Ssh, process: subprocess.Popen[bytes], errors: IO[bytes]) -> None:
        self.place, self.process, self.errors = place, process, errors

    def read(self, size: int, /) -> bytes:
        assert self.process.stdout
        data = self.process.stdout.read(size)
        if not data and self.process.wait(LIMIT_SECONDS):
            raise self.place.failure(self.process.returncode, self.errors)
        return data


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a process if it has not ended, and close what is open to it."""
    if process.poll() is None:
        process.kill()
        process.wait()
    for stream in (process.stdin, process.stdout):
        if stream:
            try:
                stream.close()
            except OSError:
                pass
