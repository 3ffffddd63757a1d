# SPDX-License-Identifier: Apache-2.0
"""Well-known places, whose files act by themselves when written: users, temporary files, kernel settings, kernel modules.

What has taken effect is remembered by digest after it succeeded, so a file that was written by a run that was killed is applied by the next.
"""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ansible_collections.ashlar.stack.plugins.module_utils.host.files import HostFiles
from ansible_collections.ashlar.stack.plugins.module_utils.host.run import Runner

SYSUSERS = "/etc/sysusers.d/"
TMPFILES = "/etc/tmpfiles.d/"
SYSCTL = "/etc/sysctl.d/"
MODULES = "/etc/modules-load.d/"
FOLDERS = (SYSUSERS, TMPFILES, SYSCTL, MODULES)


class EffectError(Exception):
    """A file could not take effect; the message says which, what was said and what to do."""


@dataclass(frozen=True)
class Setting:
    """One line of sysctl.d: the key below /proc/sys (may be a glob), its value, and whether failing is expected (`-` before the key)."""

    key: str
    value: str
    optional: bool = False


def place_of(path: str) -> str | None:
    """Which well-known place a path lies in, directly and with the suffix that is read there; None for any other."""
    for folder in FOLDERS:
        if path.startswith(folder) and "/" not in path[len(folder) :] and path.endswith(".conf"):
            return folder
    return None


def parse_sysctl(path: str, text: str) -> list[Setting]:
    """The settings of a sysctl.d file (see sysctl.d(5)); EffectError names the first line that is none."""
    settings = []
    for number, line in enumerate(text.splitlines(), 1):
        line = line.strip()
        if not line or line[0] in "#;":
            continue
        key, equals, value = line.partition("=")
        key = key.strip()
        optional = key.startswith("-")
        key = key.lstrip("-").strip()
        if not equals and optional and key:
            continue
        if not equals or not re.match(r"[A-Za-z0-9_.*?/\[\]:@-]+\Z", key) or ".." in key or "//" in key:
            raise EffectError(
                f"{path} line {number}: '{line}' is not a kernel setting; allowed is 'key = value', for example 'vm.swappiness = 10'"
            )
        separators = [char for char in key if char in "./"]
        if separators and separators[0] == ".":
            key = key.translate(str.maketrans("./", "/."))
        settings.append(Setting(key.strip("/"), " ".join(value.split()), optional))
    return settings


def parse_modules(text: str) -> list[str]:
    """The kernel modules that a modules-load.d file names."""
    lines = (line.strip() for line in text.splitlines())
    return [line for line in lines if line and line[0] not in "#;"]


def apply_setting(files: HostFiles, setting: Setting) -> tuple[bool, str]:
    """Write one kernel setting if it differs: whether it was written, and why it could not be ("" when it holds now)."""
    pattern = files.real("/proc/sys/" + setting.key)
    paths = sorted(glob.glob(pattern)) if glob.has_magic(setting.key) else [pattern]
    written = False
    for path in paths:
        try:
            with open(path, encoding="utf-8") as stream:
                if " ".join(stream.read().split()) == setting.value:
                    continue
        except FileNotFoundError:
            return written, "this kernel has no such setting, or its module is not loaded"
        except OSError:
            pass  # some settings can be written and not read
        try:
            with open(path, "w", encoding="utf-8") as stream:
                stream.write(setting.value + "\n")
            written = True
        except OSError as error:
            return written, f"not writable here ({error.strerror or error})"
    return written, ""


def can_apply(files: HostFiles, key: str) -> bool:
    """Whether the kernel has a setting and lets it be written. Opening it asks the kernel without setting anything."""
    pattern = files.real("/proc/sys/" + key)
    for path in glob.glob(pattern) if glob.has_magic(key) else [pattern]:
        try:
            os.close(os.open(path, os.O_WRONLY))
        except OSError:
            continue
        return True
    return False


def apply_sysctl(files: HostFiles, settings: Sequence[Setting]) -> tuple[int, list[Setting], list[str]]:
    """Apply kernel settings: how many were written, which do not hold, and a warning for each of those that is not optional."""
    count = 0
    pending = []
    warnings = []
    for setting in settings:
        written, problem = apply_setting(files, setting)
        count += written
        if problem:
            pending.append(setting)
            if not setting.optional:
                warnings.append("kernel setting {} = {} does not hold: {}".format(setting.key.replace("/", "."), setting.value, problem))
    return count, pending, warnings


def load_modules(files: HostFiles, runner: Runner, names: Sequence[str]) -> list[str]:
    """Load kernel modules that are not there yet; a warning for each that could not be (built in, or a container)."""

    def missing() -> list[str]:
        return [name for name in names if not os.path.isdir(files.real("/sys/module/" + name.replace("-", "_")))]

    absent = missing()
    if not absent:
        return []
    done = runner.run(["modprobe", "-a"] + absent, 60)
    if done.code == 0:
        return []
    said = done.said.splitlines()[0] if done.said else f"exit code {done.code}"
    return [f"kernel module {name} is not loaded (built in, or this is a container): {said}" for name in missing()]


def apply_sysusers(files: HostFiles, runner: Runner, paths: Sequence[str]) -> None:
    """Create the users and groups of these files, in one call."""
    done = runner.run(["systemd-sysusers"] + [files.real(path) for path in paths], 60)
    if done.code != 0:
        raise EffectError("systemd-sysusers {} failed: {}".format(" ".join(paths), done.said or done.code))


def apply_tmpfiles(files: HostFiles, runner: Runner, paths: Sequence[str]) -> None:
    """Create the files and folders that these files describe, in one call."""
    done = runner.run(["systemd-tmpfiles", "--create"] + [files.real(path) for path in paths], 60)
    if done.code != 0:
        raise EffectError("systemd-tmpfiles --create {} failed: {}".format(" ".join(paths), done.said or done.code))


def pending_places(contents: Mapping[str, str], applied: Mapping[str, str]) -> dict[str, list[str]]:
    """Folder -> paths whose content (path -> digest) has not taken effect yet."""
    pending: dict[str, list[str]] = {folder: [] for folder in FOLDERS}
    for path in sorted(contents):
        folder = place_of(path)
        if folder and applied.get(path) != contents[path]:
            pending[folder].append(path)
    return pending
