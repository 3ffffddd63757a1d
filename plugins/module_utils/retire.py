# SPDX-License-Identifier: Apache-2.0
"""Take a component away from a host: its trees, what it leaves beside them, its users. Data is put aside, never destroyed.

What is to be done is written to /var/lib/ashlar/retiring/<component>.json before the first change, since the files that tell it are among
those that go. Each step finds nothing to do where it was done before, so a run that was killed is completed by the next.
"""

from __future__ import annotations

import contextlib
import glob
import json
import os
import re
import shutil
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from ansible_collections.ashlar.stack.plugins.module_utils.host.files import HostFiles, split
from ansible_collections.ashlar.stack.plugins.module_utils.host.run import LIMIT, Runner
from ansible_collections.ashlar.stack.plugins.module_utils.tree import effects
from ansible_collections.ashlar.stack.plugins.module_utils.tree.apply import MEMORY_FOLDER, Owners, Tree, TreeSpec, UnknownOwner, attributes_diff, remembered
from ansible_collections.ashlar.stack.plugins.module_utils.tree.units import matches

RETIRING_FOLDER = "/var/lib/ashlar/retiring"
# On the file system of the data, which is renamed.
RETIRED_FOLDERS = {"/var/lib": "/var/lib/ashlar/retired", "/var/log": "/var/log/ashlar-retired"}
DATA = ("/var/lib/", "/var/log/")
TRANSIENT = ("/run/", "/var/cache/", "/var/lib/ashlar/")


class RetireError(Exception):
    """Something cannot be taken away; the message says what, why and what to do."""


@dataclass(frozen=True)
class Leftovers:
    """What a component leaves beside its trees, as globs; tables as `family name`."""

    processes: Sequence[str] = ()
    mounts: Sequence[str] = ()
    interfaces: Sequence[str] = ()
    tables: Sequence[str] = ()
    units: Sequence[str] = ()
    paths: Sequence[str] = ()
    data: Sequence[str] = ()


@dataclass
class Intent:
    """What is known of a component before its files go: folders that it made or that its units use, users and groups of its own."""

    folders: list[str] = field(default_factory=list)
    users: list[str] = field(default_factory=list)
    groups: list[str] = field(default_factory=list)
    stamp: str = ""


@dataclass
class Retired:
    """What was done, or in check mode would be."""

    changed: bool = False
    removed_paths: list[str] = field(default_factory=list)
    stopped: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    moved: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    diff: list[dict[str, str]] = field(default_factory=list)


def sysusers(text: str) -> tuple[list[str], list[str]]:
    """The users and groups that a sysusers.d file makes; a user has a group of its name."""
    found: dict[str, list[str]] = {"u": [], "g": []}
    for kind, name in re.findall(r"^([ug])!?\s+(\S+)", text, re.MULTILINE):
        found[kind].append(name)
    return found["u"], found["u"] + found["g"]


def is_data(path: str) -> bool:
    """Whether a folder is kept: below /var/lib or /var/log, and not Ashlar's own."""
    return path.startswith(DATA) and not path.startswith(TRANSIENT)


class Retirement:
    """One component on one host."""

    def __init__(self, component: str, leftovers: Leftovers, files: HostFiles, runner: Runner, owners: Owners | None = None, now: float | None = None) -> None:
        """`now` in seconds since the epoch names the folder in which data is kept."""
        self.component = component
        self.leftovers = leftovers
        self.files = files
        self.runner = runner
        self.owners = owners or Owners()
        self.now = time.time() if now is None else now
        self.intent_path = f"{RETIRING_FOLDER}/{component}.json"
        self.result = Retired()

    def retire(self, check: bool = False) -> Retired:
        """Take it away, or with `check` only tell what that would change."""
        if not check:
            self.files.lock(MEMORY_FOLDER, LIMIT + 20)
        mine, others = self._trees()
        intent = self._intent(mine)
        if not check and mine:
            self.files.write(self.intent_path, json.dumps(asdict(intent), indent=1).encode() + b"\n")
            self._hand_over(mine, others)
        for name in sorted(mine):
            done = Tree(TreeSpec(name, absent=True), [], self.files, self.runner, self.owners).lay(check)
            self.result.removed_paths += done.removed_paths
            self.result.stopped += done.stopped
            self.result.diff += done.diff
            self.result.changed = self.result.changed or done.changed
        kept = {path for told in others.values() for path in _folders(told)}
        self._processes(check)
        self._units(check)
        self._mounts(check)
        self._network(check)
        folders = sorted({*intent.folders, *(path for pattern in self.leftovers.data for path in self._glob(pattern))})
        for path in folders:
            if any(other == path or other.startswith(path + "/") for other in kept):
                continue
            if is_data(path):
                self._put_aside(path, intent.stamp, check)
            elif path.startswith(TRANSIENT):
                self._delete(path, check)
        for pattern in self.leftovers.paths:
            for path in self._glob(pattern):
                if path not in kept:
                    self._delete(path, check)
        self._people(intent, others, check)
        if not check:
            if self.result.stopped:
                # One that had failed would be listed for ever. Of others systemd complains that it knows none.
                self.runner.run(["systemctl", "reset-failed", *self.result.stopped], 60)
                for timer in (unit for unit in self.result.stopped if unit.endswith(".timer")):
                    self.files.remove(f"/var/lib/systemd/timers/stamp-{timer}")
            self.files.remove(self.intent_path)
            self.files.remove_directory(RETIRING_FOLDER)
        return self.result

    def _trees(self) -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, Any]]]:
        """What is remembered of this component's trees and of all others'."""
        mine: dict[str, dict[str, Any]] = {}
        others: dict[str, dict[str, Any]] = {}
        for name, owner, told in remembered(self.files):
            (mine if owner == self.component else others)[name] = told
        return mine, others

    def _intent(self, mine: Mapping[str, Mapping[str, Any]]) -> Intent:
        """What is known from the trees, and from an earlier run that was killed."""
        found = self.files.look(self.intent_path)
        intent = Intent(stamp=time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(self.now)))
        if found:
            with contextlib.suppress(ValueError, TypeError):
                intent = Intent(**json.loads(found.content))
        folders, users, groups = set(intent.folders), set(intent.users), set(intent.groups)
        for told in mine.values():
            folders.update(_folders(told))
            for path in told.get("paths", ()):
                text = self._text(path)
                if effects.place_of(path) == effects.SYSUSERS:
                    some_users, some_groups = sysusers(text)
                    users.update(some_users)
                    groups.update(some_groups)
                elif effects.place_of(path) == effects.TMPFILES:
                    folders.update(re.findall(r"^[dD]!?\s+(/\S+)", text, re.MULTILINE))
        return Intent(sorted(folders), sorted(users), sorted(groups), intent.stamp)

    def _hand_over(self, mine: Mapping[str, Mapping[str, Any]], others: Mapping[str, dict[str, Any]]) -> None:
        """Folders that trees of this component made and others use now go with the last of these."""
        for folder in sorted({folder for told in mine.values() for folder in told.get("folders", ())}):
            heir = next((name for name, told in others.items() if any(path.startswith(f"{folder}/") for path in told.get("paths", ()))), None)
            if heir and folder not in others[heir].setdefault("folders", []):
                others[heir]["folders"].append(folder)
                self.files.write(f"{MEMORY_FOLDER}/{heir}.json", json.dumps(others[heir], indent=1, sort_keys=True).encode() + b"\n")

    def _text(self, path: str) -> str:
        found = self.files.look(path)
        return found.content.decode(errors="replace") if found else ""

    def _glob(self, pattern: str) -> list[str]:
        root = len(self.files.real("/").rstrip("/"))
        return [path[root:] for path in sorted(glob.glob(self.files.real(pattern), recursive=True))]

    def _did(self, what: str) -> None:
        self.result.changed = True
        self.result.removed.append(what)
        self.result.diff.append(attributes_diff(what, "present", "absent"))

    def _run(self, command: Sequence[str], remedy: str) -> None:
        done = self.runner.run(command, 60)
        if done.code != 0:
            raise RetireError(f"{self.component}: {' '.join(command)} failed: {done.said or done.code}. {remedy} Then run again.")

    def _processes(self, check: bool) -> None:
        """With what they started: a container outlives the program that looks after it."""
        if not self.leftovers.processes:
            return
        found = []
        children: dict[str, list[str]] = {}
        for link in self._glob("/proc/[0-9]*/exe"):
            number = link.split("/")[2]
            with contextlib.suppress(OSError, IndexError):
                children.setdefault(_read(self.files.real(f"/proc/{number}/stat")).rpartition(")")[2].split()[1], []).append(number)
                if matches(os.readlink(self.files.real(link)).replace(" (deleted)", ""), self.leftovers.processes):
                    found.append(number)
        for number in found:
            found += [child for child in children.get(number, ()) if child not in found]
        if found and not check:
            # One that has ended meanwhile is none to complain about.
            self.runner.run(["kill", "-KILL", *found], 60)
        for number in found:
            self._did(f"process {number}")

    def _units(self, check: bool) -> None:
        if not self.leftovers.units:
            return
        listed = self.runner.run(["systemctl", "list-units", "--all", "--plain", "--no-legend", *self.leftovers.units], 60)
        units = [line.split()[0] for line in listed.out.splitlines() if line.strip()]
        if units and not check:
            self._run(["systemctl", "stop", *units], "Read the journal of these units.")
        for unit in units:
            self._did(f"unit {unit}")

    def _mounts(self, check: bool) -> None:
        # Deepest first; a path in this file has its blanks as octal numbers.
        lines = self._text("/proc/self/mounts") if self.files.root != "/" else _read("/proc/self/mounts")
        points = [re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), line.split()[1]) for line in lines.splitlines() if len(line.split()) > 1]
        for point in reversed(points):
            if matches(point, self.leftovers.mounts):
                if not check:
                    self._run(["umount", "--lazy", point], f"See who uses it: fuser -vm {point}.")
                self._did(f"mount {point}")

    def _network(self, check: bool) -> None:
        for pattern in self.leftovers.interfaces:
            for path in self._glob("/sys/class/net/" + pattern):
                name = split(path)[1]
                if not check:
                    self._run(["ip", "link", "delete", name], "Delete the interface by hand.")
                self._did(f"interface {name}")
        if not self.leftovers.tables:
            return
        listed = self.runner.run(["nft", "list", "tables"], 60)
        for table in self.leftovers.tables:
            if f"table {table}" in (line.strip() for line in listed.out.splitlines()):
                if not check:
                    self._run(["nft", "delete", "table", *table.split()], "Delete the table by hand.")
                self._did(f"table {table}")

    def _put_aside(self, path: str, stamp: str, check: bool) -> None:
        """Data is renamed to a folder of root's. What is a file system of its own stays where it is."""
        found = self.files.look(path, content=False)
        if found is None or found.kind != "directory":
            return
        aside = next((folder for place, folder in RETIRED_FOLDERS.items() if self._device(place) == self._device(path)), None)
        if os.path.ismount(self.files.real(path)) or aside is None:
            self.result.warnings.append(f"{path} is a file system of its own and was left where it is, with the data of {self.component}")
            return
        folder = f"{aside}/{self.component}-{stamp}"
        target = f"{folder}/{path.strip('/').replace('/', '-')}"
        if not check:
            self.files.make_parents(folder)
            self.files.set_directory(aside, os.geteuid(), os.getegid(), 0o700)
            parent, name = split(path)
            self.files.forget()
            self.files.lock(MEMORY_FOLDER, LIMIT + 20)
            os.rename(name, split(target)[1], src_dir_fd=self.files.folder(parent), dst_dir_fd=self.files.folder(folder))
        self.result.changed = True
        self.result.moved[path] = target
        self.result.diff.append(attributes_diff(path, path, target))

    def _device(self, path: str) -> int:
        """0 where there is none."""
        try:
            return os.stat(self.files.real(path)).st_dev
        except FileNotFoundError:
            return 0

    def _delete(self, path: str, check: bool) -> None:
        found = self.files.look(path, content=False)
        if found is None:
            return
        if not check and found.kind == "directory":
            shutil.rmtree(self.files.real(path))
        elif not check:
            self.files.remove(path)
        self.result.changed = True
        self.result.removed_paths.append(path)
        self.result.diff.append(attributes_diff(path, "present", "absent"))

    def _people(self, intent: Intent, others: Mapping[str, Mapping[str, Any]], check: bool) -> None:
        """Users and groups that no other tree of this host makes."""
        users: set[str] = set()
        groups: set[str] = set()
        for path in (path for told in others.values() for path in told.get("paths", ()) if effects.place_of(path) == effects.SYSUSERS):
            some_users, some_groups = sysusers(self._text(path))
            users.update(some_users)
            groups.update(some_groups)
        for kind, names, needed, known, program in (
            ("user", intent.users, users, self.owners.uid, "userdel"),
            ("group", intent.groups, groups, self.owners.gid, "groupdel"),
        ):
            for name in names:
                if name in needed or not _there(known, name):
                    continue
                if not check:
                    self._run([program, name], f"See what still runs as {name}: ps -u {name}.")
                # userdel takes a group of the user's name along where login.defs says so.
                if kind == "user" or name not in intent.users:
                    self._did(f"{kind} {name}")


def _there(known: Any, name: str) -> bool:
    try:
        known(name)
    except UnknownOwner:
        return False
    return True


def _read(path: str) -> str:
    with open(path, encoding="utf-8", errors="replace") as stream:
        return stream.read()


def _folders(told: Mapping[str, Any]) -> Iterable[str]:
    """The folders that a tree asked for."""
    return [item["path"] for item in (told.get("asked") or {}).get("arguments", {}).get("directories", ())]
