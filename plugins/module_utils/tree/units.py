# SPDX-License-Identifier: Apache-2.0
"""systemd units as state: what a unit was last started with is remembered, and it is restarted when that differs.

Nothing here is told that a file has changed. The digest of everything a unit depends on is compared with the digest it was last
(re)started with, so a run that was killed anywhere is made good by the next one.
"""

from __future__ import annotations

import functools
import glob
import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Callable

from ansible_collections.ashlar.stack.plugins.module_utils.host.files import HostFiles
from ansible_collections.ashlar.stack.plugins.module_utils.host.run import Runner

UNIT_FOLDER = "/etc/systemd/system"
RECORD_FOLDER = "/var/lib/ashlar/units"
SUFFIXES = ("service", "socket", "timer", "path", "mount", "automount", "swap", "target", "slice", "device", "scope")
# These act by themselves when written, so a service does not restart because of them unless it says so.
OWN_EFFECT = ("/etc/sysusers.d/", "/etc/tmpfiles.d/", "/etc/sysctl.d/", "/etc/modules-load.d/")
PROPERTIES = "Id,LoadState,ActiveState,SubState,UnitFileState,NeedDaemonReload,Type,RemainAfterExit,CanReload,Result"
RUNNING = ("active", "reloading", "refreshing", "activating")
# A file larger than this is hashed once and then known by its inode, size and times.
CACHED_SIZE = 1 << 20


class UnitError(Exception):
    """A unit cannot be brought into its state; the message says which, what systemd said and what to do."""


@dataclass(frozen=True)
class UnitSpec:
    """What is asked of one unit. `files`, `watch` and `reload` are globs; `files` None means the default (see `restart_paths`).

    `own`: whether it goes with the tree. One of the system's own stays.
    """

    name: str
    state: str = "started"
    enabled: bool | None = None
    files: tuple[str, ...] | None = None
    watch: tuple[str, ...] = ()
    reload: tuple[str, ...] = ()
    own: bool = True

    @property
    def wants_enabled(self) -> bool | None:
        """Whether it starts at boot; None leaves that as it is."""
        if self.state in ("absent", "masked"):
            return False if self.state == "absent" else None
        if self.enabled is None:
            return True if self.state == "started" else None
        return self.enabled


@dataclass(frozen=True)
class UnitState:
    """What systemd says about a unit."""

    name: str
    load: str = "not-found"
    active: str = "inactive"
    sub: str = "dead"
    file_state: str = ""
    needs_daemon_reload: bool = False
    once: bool = False
    can_reload: bool = False
    result: str = "success"


@dataclass(frozen=True)
class Digests:
    """What a unit shall run with: `restart` and `reload` over contents, `install` over where it is enabled."""

    restart: str
    reload: str
    install: str = ""


@dataclass
class UnitRecord:
    """What a unit was last started with, and the hashes of big watched files: path -> [device, inode, size, mtime, ctime, sha256]."""

    tree: str = ""
    restart: str = ""
    reload: str = ""
    install: str = ""
    hashes: dict[str, list[Any]] = field(default_factory=dict)


@dataclass
class UnitPlan:
    """Lists of unit names, each one systemctl call, in the order they are made; `pending` are restarts that wait for their turn."""

    stop: list[str] = field(default_factory=list)
    unmask: list[str] = field(default_factory=list)
    mask: list[str] = field(default_factory=list)
    disable: list[str] = field(default_factory=list)
    enable: list[str] = field(default_factory=list)
    reenable: list[str] = field(default_factory=list)
    daemon_reload: bool = False
    reset: list[str] = field(default_factory=list)
    start: list[str] = field(default_factory=list)
    restart: list[str] = field(default_factory=list)
    reload: list[str] = field(default_factory=list)
    pending: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def changes(self) -> bool:
        """Whether anything of it is seen from outside (a daemon-reload alone is not)."""
        lists = (self.stop, self.unmask, self.mask, self.disable, self.enable, self.reenable, self.start, self.restart, self.reload)
        return any(lists)


@functools.cache
def glob_regex(pattern: str) -> re.Pattern[str]:
    """A glob over absolute paths: `*` and `?` stay within one folder, `**` crosses folders (`/a/**/b` matches `/a/b`, too)."""
    parts = []
    position = 0
    while position < len(pattern):
        if pattern.startswith("/**/", position):
            parts.append("/(?:.*/)?")
            position += 4
            continue
        if pattern.startswith("**", position):
            parts.append(".*")
            position += 2
            continue
        char = pattern[position]
        end = pattern.find("]", position + 2) if char == "[" else -1
        if char == "*":
            parts.append("[^/]*")
        elif char == "?":
            parts.append("[^/]")
        elif end > 0:
            inner = pattern[position + 1 : end].replace("\\", "\\\\")
            parts.append("[" + ("^" + inner[1:] if inner[0] == "!" else inner) + "]")
            position = end
        else:
            parts.append(re.escape(char))
        position += 1
    return re.compile("(?s:{})\\Z".format("".join(parts)))


def matches(path: str, patterns: Iterable[str]) -> bool:
    """Whether one of the globs names this path."""
    return any(glob_regex(pattern).match(path) for pattern in patterns)


def valid_name(name: str) -> bool:
    """A unit name with its suffix: `etcd.service`, `node@a.timer`."""
    stem, _, suffix = name.rpartition(".")
    return bool(re.match(r"[A-Za-z0-9:_.\\-]+(@[A-Za-z0-9:_.\\-]*)?\Z", stem)) and suffix in SUFFIXES


def unit_of(path: str) -> str | None:
    """The unit that a file under /etc/systemd/system belongs to, by itself or as a drop-in; None for any other path."""
    if not path.startswith(UNIT_FOLDER + "/"):
        return None
    first = path[len(UNIT_FOLDER) + 1 :].split("/")
    name = first[0]
    if len(first) == 2 and name.endswith(".d"):
        name = name[:-2]
    elif len(first) != 1:
        return None
    return name if valid_name(name) else None


def is_template(name: str) -> bool:
    """`node@.service`: has instances, but cannot run itself."""
    return "@." in name


def template_of(name: str) -> str:
    """The template of an instance: `node@a.service` gives `node@.service`; other names are returned as they are."""
    return re.sub(r"@.+(\.[a-z]+)\Z", r"@\1", name)


def is_own(path: str, name: str) -> bool:
    """Whether a file under /etc/systemd/system is this unit's: its unit file, its template's, or a drop-in of either."""
    return unit_of(path) in (name, template_of(name)) or path.startswith("{}/{}.d/".format(UNIT_FOLDER, name.rpartition(".")[2]))


def restart_paths(spec: UnitSpec, paths: Iterable[str]) -> list[str]:
    """Which files of the tree restart the unit: its own always; else those of `files`, by default all of the tree but other units'
    own files and what acts by itself, and nothing more for units that run no program. What reloads it does not restart it."""
    chosen = []
    for path in sorted(paths):
        if is_own(path, spec.name):
            chosen.append(path)
        elif matches(path, spec.reload):
            continue
        elif spec.files is not None:
            if matches(path, spec.files):
                chosen.append(path)
        elif spec.name.endswith(".service") and not path.startswith((UNIT_FOLDER + "/",) + OWN_EFFECT):
            chosen.append(path)
    return chosen


def install_section(text: str) -> str:
    """The settings of [Install], which say where a unit is enabled; other sections do not count."""
    inside = False
    lines = []
    for line in text.splitlines():
        line = line.strip()
        if line.startswith("["):
            inside = line == "[Install]"
        elif inside and line and line[0] not in "#;":
            lines.append(line)
    return "\n".join(lines)


def decide(spec: UnitSpec, state: UnitState, want: Digests, record: UnitRecord | None) -> str:
    """What is to be done with a unit: start, restart, reload, stop, or nothing ("")."""
    if spec.state != "started":
        return "stop" if state.active not in ("inactive", "failed") else ""
    restart = record is None or record.restart != want.restart
    reload = record is None or record.reload != want.reload
    if state.active in RUNNING:
        if restart:
            return "restart"
        if reload:
            # A unit that is just starting may have read the old file already, and cannot be asked to reload.
            return "reload" if state.can_reload and state.active != "activating" else "restart"
        return ""
    if state.once and state.active == "inactive" and state.result == "success" and not restart and not reload:
        return ""
    return "start"


def parse_show(names: Sequence[str], text: str) -> dict[str, UnitState]:
    """The output of `systemctl show --property=… -- names`: one block a unit, in the order asked."""
    states = {}
    blocks = [block for block in text.split("\n\n") if block.strip()]
    for name, block in zip(names, blocks):
        values = dict(line.partition("=")[::2] for line in block.strip().splitlines())
        states[name] = UnitState(
            name=name,
            load=values.get("LoadState", ""),
            active=values.get("ActiveState", ""),
            sub=values.get("SubState", ""),
            file_state=values.get("UnitFileState", ""),
            needs_daemon_reload=values.get("NeedDaemonReload") == "yes",
            once=values.get("Type") == "oneshot" and values.get("RemainAfterExit") == "no",
            can_reload=values.get("CanReload") == "yes",
            result=values.get("Result", ""),
        )
    if len(states) != len(names):
        raise UnitError(f"systemctl show told of {len(states)} units where {len(names)} were asked for: {', '.join(names)}")
    return states


def plan_units(
    specs: Iterable[UnitSpec],
    states: Mapping[str, UnitState],
    digests: Mapping[str, Digests],
    records: Mapping[str, UnitRecord | None],
    unit_files_changed: bool,
    hold: bool = False,
) -> UnitPlan:
    """Every systemctl call that brings the units from their states to what is asked; `hold` leaves restarts of running units pending."""
    plan = UnitPlan()
    for spec in specs:
        state, record, want = states[spec.name], records.get(spec.name), digests[spec.name]
        masked = state.file_state.startswith("masked") or (state.load == "masked" and not state.file_state)
        if spec.state == "masked":
            if not masked:
                plan.mask.append(spec.name)
        elif masked and spec.state == "started":
            plan.unmask.append(spec.name)
        enabled = spec.wants_enabled
        if enabled and (masked or state.file_state in ("", "disabled", "linked", "linked-runtime", "enabled-runtime")):
            plan.enable.append(spec.name)
        elif enabled and record is not None and record.install != want.install:
            plan.reenable.append(spec.name)
        elif enabled is False and state.file_state in ("enabled", "enabled-runtime", "linked", "linked-runtime", "alias"):
            plan.disable.append(spec.name)
        action = decide(spec, state, want, record)
        if action == "restart" and hold:
            action = "pending"
        if action:
            getattr(plan, action).append(spec.name)
        if action in ("start", "restart") and state.active == "failed":
            plan.reset.append(spec.name)
        if state.load == "masked" and spec.state == "started":
            plan.daemon_reload = True
    plan.daemon_reload = (
        plan.daemon_reload
        or unit_files_changed
        or any(state.needs_daemon_reload for state in states.values())
        or bool(plan.mask or plan.unmask or plan.enable or plan.disable or plan.reenable)
    )
    return plan


class Units:
    """systemctl, in as few calls as possible, and the records of what units were started with."""

    def __init__(self, files: HostFiles, runner: Runner) -> None:
        self.files = files
        self.runner = runner

    def states(self, names: Sequence[str]) -> dict[str, UnitState]:
        """What systemd says about these units, in one call."""
        if not names:
            return {}
        done = self.runner.run(["systemctl", "show", "--property=" + PROPERTIES, "--"] + list(names), 30)
        if done.code != 0:
            raise UnitError(f"systemctl show failed: {done.said or done.code}. This host must run systemd as its first process.")
        return parse_show(names, done.out)

    @staticmethod
    def record_path(name: str) -> str:
        """Where it is remembered what a unit was last started with."""
        return f"{RECORD_FOLDER}/{name}.json"

    def record(self, name: str) -> UnitRecord | None:
        """What the unit was last started with; None when that is not known (or not readable any more: it is then started anew)."""
        found = self.files.look(self.record_path(name))
        if found is None or found.kind != "file":
            return None
        try:
            values = json.loads(found.content)
            return UnitRecord(**{key: values[key] for key in ("tree", "restart", "reload", "install", "hashes")})
        except (ValueError, KeyError, TypeError):
            return None

    def write_record(self, name: str, record: UnitRecord) -> None:
        """Remember what a unit was started with."""
        values = {
            "tree": record.tree,
            "restart": record.restart,
            "reload": record.reload,
            "install": record.install,
            "hashes": record.hashes,
        }
        self.files.write(self.record_path(name), json.dumps(values, indent=1, sort_keys=True).encode() + b"\n")

    def forget(self, name: str) -> None:
        """Forget what a unit was started with."""
        self.files.remove(self.record_path(name))

    def _hash(self, path: str, old: Mapping[str, list[Any]], new: dict[str, list[Any]]) -> str:
        """sha256 of a file of the host; big ones are read again only when their inode, size or times differ."""
        with open(path, "rb") as stream:
            found = os.fstat(stream.fileno())
            identity = [found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns]
            known = old.get(path)
            if known is not None and known[:5] == identity:
                new[path] = known
                return str(known[5])
            hasher = hashlib.sha256()
            for block in iter(lambda: stream.read(1 << 20), b""):
                hasher.update(block)
        if found.st_size >= CACHED_SIZE:
            new[path] = identity + [hasher.hexdigest()]
        return hasher.hexdigest()

    def watched(self, pattern: str, old: Mapping[str, list[Any]], new: dict[str, list[Any]]) -> list[str]:
        """What a watched path says at this moment, a line a file: nothing, the targets of links on the way, the hash of its content.

        A link counts with its target; a link to a folder with nothing else, a folder with all files below it.
        """
        real = self.files.real(pattern)
        found = sorted(glob.glob(real, recursive=True)) if glob.has_magic(pattern) else [real]
        lines = []
        for path in found:
            line = path[len(real) - len(pattern) :] if not glob.has_magic(pattern) else path
            if os.path.islink(path):
                line += " -> " + os.readlink(path)
            if os.path.isfile(path):
                lines.append(line + " " + self._hash(path, old, new))
            elif os.path.isdir(path) and not os.path.islink(path) and not glob.has_magic(pattern):
                lines.append(line + "/")
                for folder, _, names in sorted(os.walk(path)):
                    inner = [os.path.join(folder, name) for name in sorted(names)]
                    lines.extend(f"{name} {self._hash(name, old, new)}" for name in inner if os.path.isfile(name))
            elif os.path.lexists(path):
                lines.append(line)
            else:
                lines.append(line + " is not there")
        return lines

    def digests(
        self, spec: UnitSpec, contents: Mapping[str, str], install: str, record: UnitRecord | None
    ) -> tuple[Digests, dict[str, list[Any]]]:
        """What a unit shall run with, and the hashes worth remembering. `contents` is path -> digest of the tree's files."""
        old = record.hashes if record else {}
        new: dict[str, list[Any]] = {}
        restart = [f"{path} {contents[path]}" for path in restart_paths(spec, contents)]
        reload = [f"{path} {contents[path]}" for path in sorted(contents) if matches(path, spec.reload)]
        try:
            for pattern in spec.watch:
                restart.extend(self.watched(pattern, old, new))
            for pattern in spec.reload:
                if not any(glob_regex(pattern).match(path) for path in contents):
                    reload.extend(self.watched(pattern, old, new))
        except OSError as error:
            raise UnitError(f"unit {spec.name}: cannot read the watched {error.filename}: {error.strerror}") from None
        return Digests(_sha(restart), _sha(reload), _sha([install])), new

    def _call(self, verb: str, names: Sequence[str], options: Sequence[str] = ()) -> None:
        if not names:
            return
        done = self.runner.run(["systemctl"] + list(options) + [verb, "--"] + list(names))
        if done.code != 0:
            said = done.said or f"exit code {done.code}"
            raise UnitError(
                f"systemctl {verb} {' '.join(names)} failed: {said}. See 'systemctl status {names[0]}' on the host; mend it and run again."
            )

    def retire(self, names: Sequence[str], states: Mapping[str, UnitState], gone: Iterable[str]) -> list[str]:
        """Stop and disable units whose files are about to be removed; the names of those that ran.

        `gone` are those whose files are removed already, by a run that was killed: they were disabled before that, cannot be again, and
        systemd may still tell otherwise.
        """
        running = [name for name in names if name in states and states[name].active not in ("inactive", "failed")]
        enabled = [name for name in names if name in states and states[name].file_state.startswith(("enabled", "linked"))]
        self._call("stop", running)
        self._call("disable", [name for name in enabled if name not in gone], ["--no-reload"])
        return running

    def switch(self, plan: UnitPlan) -> None:
        """Everything before units start: stops, what runs at boot, and systemd's own view of the unit files."""
        self._call("stop", plan.stop)
        for verb in ("unmask", "mask", "disable", "enable", "reenable"):
            self._call(verb, getattr(plan, verb), ["--no-reload"])
        if plan.daemon_reload:
            done = self.runner.run(["systemctl", "daemon-reload"])
            if done.code != 0:
                raise UnitError(f"systemctl daemon-reload failed: {done.said or done.code}")

    def start(self, plan: UnitPlan, accepted: Callable[[str], None]) -> None:
        """Start, restart and reload without waiting; `accepted` is called for each unit whose job systemd took.

        What a unit was started with is forgotten first: between the job and the new record it is not known, and a run that is killed
        there may be followed by one that wants the old state back.
        """
        if plan.reset:
            # Clears the start limit, which would otherwise refuse a unit that failed often. A unit that is not loaded any more is no error.
            self.runner.run(["systemctl", "reset-failed", "--"] + plan.reset, 30)
        for verb in ("start", "restart", "reload"):
            for name in getattr(plan, verb):
                self.forget(name)
            self._call(verb, getattr(plan, verb), ["--no-block"])
            for name in getattr(plan, verb):
                accepted(name)


def _sha(lines: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
