# SPDX-License-Identifier: Apache-2.0
"""Lay a tree of files down on a host, with what belongs to it: owners, folders, users, kernel settings, units.

`Tree.lay` is the way through. What a tree laid down is remembered in /var/lib/ashlar/trees/<name>.json, written before the first change
(so that nothing is ever laid down that is not known) and after the last one; every step in between is decided by comparing what is with
what shall be, so a run that was killed at any point is completed by the next.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Callable, NamedTuple

from ansible_collections.ashlar.stack.plugins.module_utils.host.files import FileError, Found, HostFiles, split
from ansible_collections.ashlar.stack.plugins.module_utils.host.run import LIMIT, Runner, masked
from ansible_collections.ashlar.stack.plugins.module_utils.tree import effects
from ansible_collections.ashlar.stack.plugins.module_utils.tree import units as unit_state
from ansible_collections.ashlar.stack.plugins.module_utils.tree.bundle import Source
from ansible_collections.ashlar.stack.plugins.module_utils.tree.units import UNIT_FOLDER, UnitPlan, UnitRecord, Units, UnitSpec, UnitState

MEMORY_FOLDER = "/var/lib/ashlar/trees"
STAGE_FOLDER = "/run"
SECRET = "(secret: not shown)"
BINARY = "(binary: not shown)"


class TreeError(Exception):
    """The tree cannot be laid down; the message says what, where, what is allowed and what to do."""


class UnknownOwner(TreeError):
    """A user or group that this host does not have."""


@dataclass(frozen=True)
class Attributes:
    """Owner, group and mode of the files that a glob matches, or of one folder. `mode` None: 0644, or 0755 if the source is executable."""

    path: str
    owner: str = "root"
    group: str = "root"
    mode: int | None = None


@dataclass(frozen=True)
class Validator:
    """A program that must accept the files a glob matches, before any file of the tree is replaced. `{}` is the file's temporary path,
    `{root}` the folder that holds all files of the tree."""

    path: str
    command: tuple[str, ...]


@dataclass(frozen=True)
class TreeSpec:
    """Everything that is asked of one tree."""

    name: str
    files: tuple[Attributes, ...] = ()
    directories: tuple[Attributes, ...] = ()
    links: Mapping[str, str] = field(default_factory=dict)
    validate: tuple[Validator, ...] = ()
    units: tuple[UnitSpec, ...] = ()
    absent: bool = False
    hold: bool = False


@dataclass(frozen=True)
class Entry:
    """One path as it shall be: a file with content, owner, group and mode, or a link with a target."""

    path: str
    kind: str
    digest: str
    content: bytes = b""
    target: str = ""
    owner: str = "root"
    group: str = "root"
    mode: int = 0o644

    @property
    def secret(self) -> bool:
        """Whether others may not read it, so that it is never shown."""
        return self.kind == "file" and not self.mode & 0o004


@dataclass
class Memory:
    """What is remembered of a tree.

    `paths`: path -> digest of what was laid down there; `intended`: path -> digest of what was about to be; `folders`: those it made;
    `making`: those it was about to make; `units`: those it started; `applied`: path -> digest that has taken effect; `pending`: kernel
    settings that did not hold; `asked`: what was asked when it was laid down last, as the survey reads it; `component`: whose tree it is.
    """

    paths: dict[str, str] = field(default_factory=dict)
    intended: dict[str, str] = field(default_factory=dict)
    folders: list[str] = field(default_factory=list)
    making: list[str] = field(default_factory=list)
    units: list[str] = field(default_factory=list)
    applied: dict[str, str] = field(default_factory=dict)
    pending: list[list[str]] = field(default_factory=list)
    asked: dict[str, Any] = field(default_factory=dict)
    component: str = ""

    def text(self) -> bytes:
        """As it is written: JSON, sorted."""
        return json.dumps({"format": 1, **self.__dict__}, indent=1, sort_keys=True).encode() + b"\n"


def remembered(files: HostFiles) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Of every tree of a host: its name, its component, and what is remembered of it. Before trees knew their component, a tree had its name.

    :raises TreeError: a file can't be read.
    """
    for file in files.names(MEMORY_FOLDER):
        if not file.endswith(".json") or file.startswith("."):
            continue
        name = file[: -len(".json")]
        found = files.look(f"{MEMORY_FOLDER}/{file}")
        try:
            told = json.loads(found.content) if found else {}
            owner = told.get("component") or name
        except (ValueError, AttributeError) as error:
            raise TreeError(f"{MEMORY_FOLDER}/{file} cannot be read ({error}); run the role of that component again, or remove the file") from None
        yield name, owner, told


@dataclass
class Change:
    """One path that differs: what is there, what shall be, and whether its content does (or only owner and mode)."""

    entry: Entry
    found: Found | None
    content: bool


@dataclass
class Result:
    """What was done, or in check mode would be."""

    changed: bool = False
    changed_paths: list[str] = field(default_factory=list)
    removed_paths: list[str] = field(default_factory=list)
    started: list[str] = field(default_factory=list)
    restarted: list[str] = field(default_factory=list)
    pending: list[str] = field(default_factory=list)
    reloaded: list[str] = field(default_factory=list)
    stopped: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    diff: list[dict[str, str]] = field(default_factory=list)


class FolderChange(NamedTuple):
    """A folder that differs: its path, what is there (None: nothing), what shall be."""

    path: str
    found: Found | None
    wanted: Attributes


def sha256(content: bytes) -> str:
    """64 hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def parse_mode(text: str | None, where: str) -> int | None:
    """`"0640"` as a number; None stays None. Anything but four octal digits is an error, for 0640 without quotes arrives as 416."""
    if text is None:
        return None
    if not re.match(r"[0-7]{4}\Z", text):
        raise TreeError(f"{where}: mode '{text}' is not allowed; write four octal digits in quotes, like \"0640\"")
    return int(text, 8)


def check_path(path: str, where: str) -> str:
    """An absolute path without `.`, `..`, empty parts or a slash at its end; TreeError otherwise."""
    if not path.startswith("/") or path == "/" or any(part in ("", ".", "..") for part in path[1:].split("/")):
        raise TreeError(f"{where}: '{path}' must be an absolute path without '..' and without a slash at the end")
    return path


def entries_of(spec: TreeSpec, sources: Iterable[Source]) -> dict[str, Entry]:
    """Path -> entry, with the attributes of the first glob that matches."""
    patterns = [(unit_state.glob_regex(attributes.path), attributes) for attributes in spec.files]
    entries = {}
    for source in sources:
        check_path(source.path, f"tree {spec.name}")
        attributes = next((candidate for pattern, candidate in patterns if pattern.match(source.path)), Attributes(source.path))
        mode = attributes.mode if attributes.mode is not None else (0o755 if source.executable else 0o644)
        entries[source.path] = Entry(
            source.path, "file", source.digest, content=source.content, owner=attributes.owner, group=attributes.group, mode=mode
        )
    for path, target in spec.links.items():
        check_path(path, f"tree {spec.name}: links")
        if path in entries:
            raise TreeError(f"tree {spec.name}: {path} is both a file of the tree and one of 'links'; leave one of them out")
        entries[path] = Entry(path, "link", "-> " + target, target=target, mode=0o777)
    return entries


def parents_of(path: str) -> list[str]:
    """All folders above a path, outermost first, without `/`."""
    parts = path.split("/")[1:-1]
    return ["/" + "/".join(parts[: count + 1]) for count in range(len(parts))]


def folders_of(spec: TreeSpec, entries: Mapping[str, Entry]) -> list[str]:
    """Every folder that must be there, outermost first."""
    wanted = {attributes.path for attributes in spec.directories}
    for path in list(wanted) + list(entries):
        wanted.update(parents_of(path))
    return sorted(wanted, key=lambda path: (path.count("/"), path))


class Owners:
    """Names and numbers of users and groups of this host."""

    def uid(self, name: str) -> int:
        """A user's number; UnknownOwner when there is none."""
        import pwd

        try:
            return int(name) if name.isdigit() else pwd.getpwnam(name).pw_uid
        except KeyError:
            raise UnknownOwner(f"user '{name}' does not exist on this host; declare it in the tree under etc/sysusers.d/") from None

    def gid(self, name: str) -> int:
        """A group's number; UnknownOwner when there is none."""
        import grp

        try:
            return int(name) if name.isdigit() else grp.getgrnam(name).gr_gid
        except KeyError:
            raise UnknownOwner(f"group '{name}' does not exist on this host; declare it in the tree under etc/sysusers.d/") from None


def _text(content: bytes) -> str | None:
    try:
        return None if b"\0" in content else content.decode()
    except UnicodeDecodeError:
        return None


def diff_of(path: str, before: Found | None, after: Entry | None) -> dict[str, str]:
    """The difference at one path as Ansible shows it: contents, owner and mode; nothing of a file that others may not read."""
    heads = {"before_header": path if before else path + " (absent)", "after_header": path if after else path + " (absent)"}
    secret = (after is not None and after.secret) or (before is not None and before.kind == "file" and not before.mode & 0o004)
    if secret:
        return {"prepared": "--- {}\n+++ {}\n{}\n".format(heads["before_header"], heads["after_header"], SECRET)}
    old = "" if before is None else before.target + "\n" if before.kind == "link" else _text(before.content)
    new = "" if after is None else after.target + "\n" if after.kind == "link" else _text(after.content)
    if old is None or new is None:
        return {"prepared": "--- {}\n+++ {}\n{}\n".format(heads["before_header"], heads["after_header"], BINARY)}
    return {**heads, "before": old, "after": new}


def attributes_diff(path: str, before: str, after: str) -> dict[str, str]:
    """A difference in owner or mode alone."""
    return {"before_header": path, "after_header": path, "before": before + "\n", "after": after + "\n"}


def unified(diff: Mapping[str, str]) -> str:
    """A difference as text, for tests and logs."""
    if "prepared" in diff:
        return diff["prepared"]
    lines = difflib.unified_diff(
        diff["before"].splitlines(True), diff["after"].splitlines(True), diff["before_header"], diff["after_header"]
    )
    return "".join(lines)


class Tree:
    """One tree on one host."""

    def __init__(
        self,
        spec: TreeSpec,
        sources: Sequence[Source],
        files: HostFiles,
        runner: Runner,
        owners: Owners | None = None,
        live: bool = True,
        step: Callable[[str], None] = lambda name: None,
        asked: Mapping[str, Any] | None = None,
        component: str = "",
    ) -> None:
        """`live` False lays files only and runs nothing of the host (for images); `step` is told each step before it is done; `asked` is
        remembered with what was laid down, for a survey; `component` so that it can be retired."""
        self.spec = spec
        self.files = files
        self.runner = runner
        self.owners = owners or Owners()
        self.live = live
        self.step = step
        self.asked = dict(asked or {})
        self.component = component
        self.units = Units(files, runner)
        self.entries = {} if spec.absent else entries_of(spec, sources)
        self.directories = (
            {} if spec.absent else {check_path(item.path, f"tree {spec.name}: directories"): item for item in spec.directories}
        )
        self.memory_path = f"{MEMORY_FOLDER}/{spec.name}.json"
        self.result = Result()

    def lay(self, check: bool = False) -> Result:
        """Bring the host into the state that is asked, or with `check` only tell what that would change."""
        try:
            return self._lay(check)
        except (FileError, unit_state.UnitError, effects.EffectError) as error:
            raise TreeError(f"tree {self.spec.name}: {error}") from None
        except OSError as error:
            raise TreeError("tree {}: {}: {}".format(self.spec.name, error.filename or "a file", error.strerror or error)) from None

    def intact(self) -> bool:
        """Whether there is nothing to do; False also where a check does not foretell it, as with kernel settings that may hold by now."""
        memory, _written = self._remember()
        contents = {path: entry.digest for path, entry in self.entries.items()}
        if any(effects.can_apply(self.files, key) for _path, key, _value in memory.pending) or any(effects.pending_places(contents, memory.applied).values()):
            return False
        result = self.lay(check=True)
        return not result.changed and not result.warnings

    def _lay(self, check: bool) -> Result:
        if not check:
            # A run that was cut off may still be at work here when the next one comes.
            self.files.lock(MEMORY_FOLDER, LIMIT + 20)
        memory, written = self._remember()
        if not check:
            self._clear(memory)
        self._settings()  # what is no kernel setting stops the run before anything is touched
        contents = {path: entry.digest for path, entry in self.entries.items()}
        changes = self._compare()
        removals = self._removals(memory)
        states = self.units.states(self._unit_names(memory)) if self.live else {}
        pending = effects.pending_places(contents, memory.applied) if self.live else {}

        if any(change.content for change in changes):
            self._validate(check)
        unknown = self._unknown_owners()
        if unknown and not (self.live and any(effects.place_of(path) == effects.SYSUSERS for path in self.entries)) and not check:
            raise TreeError(f"tree {self.spec.name}: {unknown[0]}")

        folders = self._folders_that_differ(memory)
        self._tell(changes, removals, folders)
        if self.spec.absent and not written:
            return self.result
        retired = self._units_to_retire(memory, removals, states) if self.live else []
        if check:
            self._foretell_units(states, contents, changes, removals, retired)
            return self.result

        intent = replace(
            memory,
            intended={**memory.intended, **{change.entry.path: change.entry.digest for change in changes}},
            folders=sorted(set(memory.folders) | {folder.path for folder in folders if folder.found is None}),
            making=sorted(set(memory.making) | {folder.path for folder in folders if folder.found is None}),
            units=sorted(set(memory.units) | {spec.name for spec in self.spec.units if spec.own}),
            component=self.component or memory.component,
        )
        if self._write_memory(intent, written):
            written = intent.text()

        self._retire_units(retired, states, removals)
        self._lay_users(memory, changes, pending, bool(unknown))
        self._lay_folders(folders)
        self._lay_files(self._compare() if changes else [])
        self._remove(removals, intent)
        applied, kept = self._take_effect(memory, contents, pending)
        plan = self._switch_units(states, contents, changes, removals)

        final = Memory(
            paths=contents,
            folders=[path for path in intent.folders if self.files.look_directory(path) is not None] if not self.spec.absent else [],
            units=sorted(spec.name for spec in self.spec.units if spec.own) if not self.spec.absent else [],
            applied=applied,
            pending=kept,
            asked=self.asked,
            component=self.component or memory.component,
        )
        if self.spec.absent:
            self.step("memory")
            self.files.remove(self.memory_path)
        else:
            self._write_memory(final, written)
        self._start_units(plan, states)
        return self.result

    # ---- what is, and what differs

    def _remember(self) -> tuple[Memory, bytes]:
        found = self.files.look(self.memory_path)
        if found is None:
            return Memory(), b""
        try:
            values = json.loads(found.content)
            if values.pop("format") != 1:
                raise ValueError("it was written by another version of Ashlar")
            return Memory(**values), found.content
        except (ValueError, KeyError, TypeError) as error:
            raise TreeError(
                f"tree {self.spec.name}: its memory {self.memory_path} cannot be read ({error}). Remove that file and run again; "
                "files that the tree no longer has must then be removed by hand"
            ) from None

    def _clear(self, memory: Memory) -> None:
        """Remove what a run that was killed left half-written."""
        names = {*memory.units, *(spec.name for spec in self.spec.units)}
        records = [self.units.record_path(name) for name in names]
        for path in [self.memory_path, *records, *memory.intended]:
            self.files.drop_temporary(path)

    def _write_memory(self, memory: Memory, written: bytes) -> bool:
        text = memory.text()
        if text == written:
            return False
        self.step("memory")
        self.files.write(self.memory_path, text)
        return True

    def _settings(self) -> dict[str, list[effects.Setting]]:
        paths = [path for path in self.entries if effects.place_of(path) == effects.SYSCTL and self.entries[path].kind == "file"]
        return {path: effects.parse_sysctl(path, self.entries[path].content.decode(errors="replace")) for path in sorted(paths)}

    def _owner(self, item: Entry | Attributes) -> tuple[int, int] | None:
        try:
            return self.owners.uid(item.owner), self.owners.gid(item.group)
        except UnknownOwner:
            return None

    def _unknown_owners(self) -> list[str]:
        problems = {}
        for item in list(self.entries.values()) + list(self.directories.values()):
            try:
                self.owners.uid(item.owner), self.owners.gid(item.group)
            except UnknownOwner as error:
                problems[str(error)] = item.path
        return [f"{path}: {text}" for text, path in sorted(problems.items())]

    def _compare(self) -> list[Change]:
        changes = []
        for entry in self.entries.values():
            found = self.files.look(entry.path)
            if found is not None and found.kind == "directory":
                raise FileError(f"{entry.path} is a folder on this host, and the tree has a file there; move the folder away")
            if entry.kind == "link":
                if found is None or found.kind != "link" or found.target != entry.target:
                    changes.append(Change(entry, found, True))
            elif found is None or found.kind != "file" or found.content != entry.content:
                changes.append(Change(entry, found, True))
            elif (found.uid, found.gid) != self._owner(entry) or found.mode != entry.mode:
                changes.append(Change(entry, found, False))
        return changes

    def _removals(self, memory: Memory) -> list[str]:
        """Paths that this tree laid down and no longer has. What was only intended counts if its content is ours; what another
        tree laid down meanwhile does not."""
        gone = [path for path in memory.paths if path not in self.entries]
        for path, digest in memory.intended.items():
            if path in self.entries or path in memory.paths:
                continue
            found = self.files.look(path)
            if found is not None and digest == ("-> " + found.target if found.kind == "link" else sha256(found.content)):
                gone.append(path)
        if not gone:
            return []
        others: set[str] = set()
        for name in self.files.names(MEMORY_FOLDER):
            if name.endswith(".json") and not name.startswith(".") and name != self.spec.name + ".json":
                found = self.files.look(f"{MEMORY_FOLDER}/{name}")
                try:
                    others.update(json.loads(found.content)["paths"] if found else ())
                except (ValueError, KeyError, TypeError):
                    continue
        return sorted(path for path in gone if path not in others)

    def _folders_that_differ(self, memory: Memory) -> list[FolderChange]:
        differ: list[FolderChange] = []
        for path in folders_of(self.spec, self.entries) if not self.spec.absent else []:
            # A folder that only files need is left as it is, unless the run that made it was killed before it was finished.
            wanted = self.directories.get(path) or (Attributes(path) if path in memory.making else None)
            found = self.files.look_directory(path)
            if found is None:
                differ.append(FolderChange(path, None, wanted or Attributes(path)))
            elif wanted is not None:
                mode = wanted.mode if wanted.mode is not None else 0o755
                if (found.uid, found.gid) != self._owner(wanted) or found.mode != mode:
                    differ.append(FolderChange(path, found, wanted))
        return differ

    def _tell(self, changes: list[Change], removals: list[str], folders: list[FolderChange]) -> None:
        """Fill the result with what differs in files and folders."""
        result = self.result
        for path, found, wanted in folders:
            mode = wanted.mode if wanted.mode is not None else 0o755
            before = "absent" if found is None else f"{found.uid}:{found.gid} {found.mode:04o}"
            result.diff.append(attributes_diff(path + "/", before, f"{wanted.owner}:{wanted.group} {mode:04o}"))
            result.changed_paths.append(path)
        for change in changes:
            entry, found = change.entry, change.found
            result.changed_paths.append(entry.path)
            if change.content:
                result.diff.append(diff_of(entry.path, found, entry))
            elif found is not None:
                before = f"{found.uid}:{found.gid} {found.mode:04o}"
                result.diff.append(attributes_diff(entry.path, before, f"{entry.owner}:{entry.group} {entry.mode:04o}"))
        for path in removals:
            found = self.files.look(path)
            if found is not None and found.kind in ("file", "link"):
                result.removed_paths.append(path)
                result.diff.append(diff_of(path, found, None))
        result.changed = bool(changes or folders or result.removed_paths)

    # ---- validators

    def _validate(self, check: bool) -> None:
        """Run the validators on copies of all files; TreeError with what the first one said that does not accept its file."""
        todo = [
            (item, path) for item in self.spec.validate for path in sorted(self.entries) if unit_state.glob_regex(item.path).match(path)
        ]
        if not todo:
            return
        parent = self.files.real(STAGE_FOLDER) if os.path.isdir(self.files.real(STAGE_FOLDER)) else self.files.real("/tmp")
        stage = os.path.join(parent, "ashlar-validate-" + self.spec.name)
        shutil.rmtree(stage, ignore_errors=True)
        os.mkdir(stage, 0o700)
        try:
            for entry in self.entries.values():
                copy = stage + entry.path
                os.makedirs(os.path.dirname(copy), 0o700, exist_ok=True)
                if entry.kind == "link":
                    os.symlink(entry.target, copy)
                    continue
                with open(copy, "wb") as stream:
                    stream.write(entry.content)
                os.chmod(copy, 0o700 if entry.mode & 0o100 else 0o600)
            for item, path in todo:
                command = [part.replace("{root}", stage).replace("{}", stage + path) for part in item.command]
                if check and not self.runner.finds(command[0]):
                    self.result.warnings.append(f"{path} was not validated: {command[0]} is not installed yet")
                    continue
                self.step("validate")
                done = self.runner.run(command, 60)
                if done.code != 0:
                    said = masked(done.said.replace(stage, "")) or "it said nothing"
                    raise TreeError(
                        f"tree {self.spec.name}: {os.path.basename(item.command[0])} does not accept {path} (exit code {done.code}), "
                        f"so nothing of the tree was written. It said:\n{said}"
                    )
        finally:
            shutil.rmtree(stage, ignore_errors=True)

    # ---- laying down

    def _lay_users(self, memory: Memory, changes: list[Change], pending: Mapping[str, list[str]], unknown: bool) -> None:
        """Users come first, because what follows belongs to them."""
        paths = [path for path in sorted(self.entries) if effects.place_of(path) == effects.SYSUSERS]
        if not self.live or not paths or not (pending.get(effects.SYSUSERS) or unknown):
            return
        mine = [change for change in changes if change.entry.path in paths]
        self._lay_folders([folder for folder in self._folders_that_differ(memory) if folder.path + "/" == effects.SYSUSERS])
        self._lay_files(mine)
        self.step("sysusers")
        effects.apply_sysusers(self.files, self.runner, paths)
        self.result.changed = True
        problems = self._unknown_owners()
        if problems:
            raise TreeError(f"tree {self.spec.name}: {problems[0]}")

    def _lay_folders(self, folders: list[FolderChange]) -> None:
        for path, found, wanted in folders:
            self.step("folder")
            uid, gid = self.owners.uid(wanted.owner), self.owners.gid(wanted.group)
            mode = wanted.mode if wanted.mode is not None else 0o755
            if found is None and self.files.look_directory(path) is None:
                self.files.make_directory(path, uid, gid, mode)
            else:
                self.files.set_directory(path, uid, gid, mode)

    def _lay_files(self, changes: list[Change]) -> None:
        """All complete beside their places first, then each into its place: what goes wrong earlier changes nothing."""
        replaced = []
        try:
            for change in changes:
                self.step("write")
                entry, found = change.entry, change.found
                if entry.kind == "link":
                    self.files.link_temporary(entry.path, entry.target)
                elif change.content or found is None or found.links > 1:
                    uid, gid = self.owners.uid(entry.owner), self.owners.gid(entry.group)
                    self.files.write_temporary(entry.path, entry.content, uid, gid, entry.mode)
                else:
                    self.files.set_attributes(entry.path, self.owners.uid(entry.owner), self.owners.gid(entry.group), entry.mode)
                    continue
                replaced.append(entry)
            for entry in replaced:
                if entry.kind == "file":
                    self.files.flush_temporary(entry.path)
        except (OSError, FileError):
            for entry in replaced:
                self.files.drop_temporary(entry.path)
            raise
        for entry in replaced:
            self.step("commit")
            self.files.commit(entry.path)
        self.files.flush_directories({split(entry.path)[0] for entry in replaced})
        if replaced and self.live:
            self._relabel([entry.path for entry in replaced])

    def _relabel(self, paths: list[str]) -> None:
        """Give new files the labels of their places where SELinux is on."""
        if os.path.exists(self.files.real("/sys/fs/selinux/enforce")) and self.runner.finds("restorecon"):
            self.runner.run(["restorecon"] + [self.files.real(path) for path in paths], 60)

    def _remove(self, removals: list[str], intent: Memory) -> None:
        """Files first, then the folders that this tree made and that are empty now."""
        for path in removals:
            self.step("remove")
            self.files.remove(path)
            self.files.drop_temporary(path)
        needed = set(folders_of(self.spec, self.entries)) if not self.spec.absent else set()
        for path in sorted(intent.folders, key=lambda item: -item.count("/")):
            if path not in needed:
                self.step("remove folder")
                if self.files.remove_directory(path):
                    self.result.removed_paths.append(path)
                    self.result.changed = True

    def _take_effect(
        self, memory: Memory, contents: Mapping[str, str], pending: Mapping[str, list[str]]
    ) -> tuple[dict[str, str], list[list[str]]]:
        """Modules before kernel settings, which may need them; then temporary files. Returns what has taken effect and what not yet."""
        applied = {path: digest for path, digest in memory.applied.items() if path in contents}
        if not self.live:
            return applied, memory.pending
        for path in pending[effects.MODULES]:
            self.step("modules")
            names = effects.parse_modules(self.entries[path].content.decode(errors="replace"))
            self.result.warnings.extend(effects.load_modules(self.files, self.runner, names))
        kept: list[list[str]] = []
        fresh = pending[effects.SYSCTL]
        settings = self._settings()
        for path in sorted(settings):
            known = {tuple(item) for item in memory.pending}
            todo = settings[path] if path in fresh else [item for item in settings[path] if (path, item.key, item.value) in known]
            if not todo:
                continue
            self.step("sysctl")
            count, failed, warnings = effects.apply_sysctl(self.files, todo)
            self.result.changed = self.result.changed or count > 0
            self.result.warnings.extend(warnings if path in fresh else [])
            kept.extend([path, item.key, item.value] for item in failed)
        if pending[effects.TMPFILES]:
            self.step("tmpfiles")
            effects.apply_tmpfiles(self.files, self.runner, pending[effects.TMPFILES])
            self.result.changed = True
        applied.update({path: contents[path] for folder in effects.FOLDERS for path in pending[folder]})
        return applied, kept

    # ---- units

    def unit_names(self) -> list[str]:
        """Every unit whose state this tree asks for."""
        return self._unit_names(self._remember()[0])

    def _unit_names(self, memory: Memory) -> list[str]:
        """Every unit that this tree has or had something to do with, for one question to systemd."""
        names = [spec.name for spec in self.spec.units]
        names += [unit for unit in (unit_state.unit_of(path) for path in [*self.entries, *memory.paths, *memory.intended]) if unit]
        names += memory.units
        return [name for name in dict.fromkeys(names) if not unit_state.is_template(name)]

    def _units_to_retire(self, memory: Memory, removals: list[str], states: Mapping[str, UnitState]) -> list[str]:
        """Units that systemd knows and whose unit files go, or all if the tree goes."""
        files = {path[len(UNIT_FOLDER) + 1 :] for path in removals if unit_state.unit_of(path) and split(path)[0] == UNIT_FOLDER}
        declared = {spec.name for spec in self.spec.units} if not self.spec.absent else set()
        names = [name for name in files if not unit_state.is_template(name)]
        names += [name for name in memory.units if unit_state.template_of(name) in files or self.spec.absent]
        return [name for name in sorted(set(names) - declared) if name in states and states[name].load != "not-found"]

    def _retire_units(self, names: list[str], states: Mapping[str, UnitState], removals: list[str]) -> None:
        """Units whose files go are stopped while systemd still knows how."""
        if not names:
            return
        self.step("retire")
        missing = {path for path in removals if self.files.look(path, content=False) is None}
        gone = {name for name in names if f"{UNIT_FOLDER}/{unit_state.template_of(name)}" in missing}
        self.result.stopped.extend(self.units.retire(names, states, gone))
        self.result.changed = True
        for name in names:
            self.units.forget(name)

    def _unit_files_changed(self, changes: list[Change], removals: list[str]) -> bool:
        paths = [change.entry.path for change in changes if change.content] + removals
        return any(path.startswith(UNIT_FOLDER + "/") for path in paths)

    def _plan(
        self, states: Mapping[str, UnitState], contents: Mapping[str, str], changes: list[Change], removals: list[str]
    ) -> tuple[UnitPlan, dict[str, UnitRecord], dict[str, UnitRecord | None]]:
        specs = self.spec.units if not self.spec.absent else ()
        records: dict[str, UnitRecord | None] = {spec.name: self.units.record(spec.name) for spec in specs}
        digests = {}
        wanted = {}
        for spec in specs:
            entry = self.entries.get(f"{UNIT_FOLDER}/{unit_state.template_of(spec.name)}")
            install = unit_state.install_section(entry.content.decode(errors="replace")) if entry else ""
            digests[spec.name], hashes = self.units.digests(spec, contents, install, records[spec.name])
            want = digests[spec.name]
            wanted[spec.name] = UnitRecord(self.spec.name, want.restart, want.reload, want.install, hashes)
        plan = unit_state.plan_units(specs, states, digests, records, self._unit_files_changed(changes, removals), self.spec.hold)
        return plan, wanted, records

    def _foretell_units(
        self, states: Mapping[str, UnitState], contents: Mapping[str, str], changes: list[Change], removals: list[str], retired: list[str]
    ) -> None:
        """In check mode: what would be done with units."""
        if self.live:
            self._tell_units(self._plan(states, contents, changes, removals)[0])
            running = [name for name in retired if states[name].active not in ("inactive", "failed")]
            self.result.stopped = sorted(set(self.result.stopped) | set(running))

    def _tell_units(self, plan: UnitPlan) -> None:
        self.result.changed = self.result.changed or plan.changes
        self.result.started.extend(plan.start)
        self.result.restarted.extend(plan.restart)
        self.result.pending.extend(plan.pending)
        self.result.reloaded.extend(plan.reload)
        self.result.stopped.extend(plan.stop)
        self.result.warnings.extend(plan.warnings)

    def _switch_units(
        self, states: Mapping[str, UnitState], contents: Mapping[str, str], changes: list[Change], removals: list[str]
    ) -> tuple[UnitPlan, dict[str, UnitRecord], dict[str, UnitRecord | None]]:
        if not self.live:
            return UnitPlan(), {}, {}
        plan, wanted, records = self._plan(states, contents, changes, removals)
        self.step("switch")
        self.units.switch(plan)
        for spec in self.spec.units:
            if spec.state != "started" and records.get(spec.name) is not None:
                self.units.forget(spec.name)
        return plan, wanted, records

    def _start_units(
        self, planned: tuple[UnitPlan, dict[str, UnitRecord], dict[str, UnitRecord | None]], states: Mapping[str, UnitState]
    ) -> None:
        plan, wanted, records = planned
        done = set()

        def accepted(name: str) -> None:
            self.step("record")
            self.units.write_record(name, wanted[name])
            done.add(name)

        self.step("start")
        self.units.start(plan, accepted)
        for spec in self.spec.units:
            # Where a unit is enabled and the hashes of big files are remembered without a start, too.
            if spec.state != "started" or spec.name not in wanted or spec.name in done:
                continue
            old, new = records[spec.name], wanted[spec.name]
            if spec.name in plan.pending:
                if old is None:
                    continue
                # It still runs with the old files: only so does the next run know that its restart is owed.
                new = replace(old, install=new.install)
            if old != new:
                self.units.write_record(spec.name, new)
        self._tell_units(plan)
