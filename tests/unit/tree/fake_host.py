# SPDX-License-Identifier: Apache-2.0
"""A host in a temporary folder: its files are real, its systemd is a small model that goes wrong where the real one does.

The model runs a unit with the unit file it last *loaded*, so a forgotten daemon-reload is seen; and it keeps what each unit was started
with, so a forgotten restart is seen.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path

from ansible_collections.ashlar.stack.plugins.module_utils.host.files import HostFiles
from ansible_collections.ashlar.stack.plugins.module_utils.host.run import Completed
from ansible_collections.ashlar.stack.plugins.module_utils.tree.apply import Tree, TreeSpec, UnknownOwner
from ansible_collections.ashlar.stack.plugins.module_utils.tree.bundle import Source

UNITS = "etc/systemd/system"


class KilledError(BaseException):
    """The run ends here, as by SIGKILL: nothing may catch it."""


@dataclass
class FakeUnit:
    active: str = "inactive"
    result: str = "success"
    enabled: bool = False
    masked: bool = False
    loaded: str | None = None
    started_with: tuple[str, ...] = ()
    starts: int = 0
    can_reload: bool = True
    once: bool = False
    packaged: bool = False
    told: str = ""


class FakeOwners:
    """Names are known when they are in `names`; all are whoever runs the tests."""

    def __init__(self, names: set[str]) -> None:
        self.names = names

    def _known(self, name: str) -> None:
        if name not in self.names:
            raise UnknownOwner(f"user '{name}' does not exist on this host")

    def uid(self, name: str) -> int:
        self._known(name)
        return os.geteuid()

    def gid(self, name: str) -> int:
        self._known(name)
        return os.getegid()


class TickingFiles(HostFiles):
    """Files that report every change just before and just after it is made."""

    tick: Callable[[str], None] = staticmethod(lambda name: None)


def _ticking(name: str) -> Callable[..., object]:
    plain = getattr(HostFiles, name)

    def method(self: TickingFiles, *arguments: object) -> object:
        self.tick("before " + name)
        result = plain(self, *arguments)
        self.tick("after " + name)
        return result

    return method


for _name in (
    "make_directory",
    "set_directory",
    "write_temporary",
    "link_temporary",
    "commit",
    "set_attributes",
    "remove",
    "remove_directory",
):
    setattr(TickingFiles, _name, _ticking(_name))


@dataclass
class FakeHost:
    """`reads` says which files a unit reads when it starts: name -> paths."""

    root: Path
    units: dict[str, FakeUnit] = field(default_factory=dict)
    users: set[str] = field(default_factory=lambda: {"root"})
    reads: dict[str, list[str]] = field(default_factory=dict)
    programs: dict[str, Callable[[Sequence[str]], Completed]] = field(default_factory=dict)
    calls: list[list[str]] = field(default_factory=list)
    made: list[str] = field(default_factory=list)
    loadable: set[str] = field(default_factory=set)
    tick: Callable[[str], None] = lambda name: None

    def __post_init__(self) -> None:
        for folder in ("etc/systemd/system", "run", "var/lib", "proc/sys/vm", "sys/module", "usr/bin"):
            (self.root / folder).mkdir(parents=True, exist_ok=True)
        (self.root / "proc/sys/vm/swappiness").write_text("60\n")

    # ---- what a test does

    def lay(self, spec: TreeSpec, sources: dict[str, str | bytes | Source] | None = None, check: bool = False, live: bool = True):
        """One run of the module: path -> content."""
        bundle = [
            item if isinstance(item, Source) else Source(path, item.encode() if isinstance(item, str) else item)
            for path, item in (sources or {}).items()
        ]
        files = TickingFiles(str(self.root))
        files.tick = self.tick
        try:
            return Tree(spec, bundle, files, self, owners=FakeOwners(self.users), live=live).lay(check)
        finally:
            files.close()

    def path(self, path: str) -> Path:
        return self.root / path.lstrip("/")

    def text(self, path: str) -> str:
        return self.path(path).read_text()

    def put(self, path: str, content: str = "") -> Path:
        self.path(path).parent.mkdir(parents=True, exist_ok=True)
        self.path(path).write_text(content)
        return self.path(path)

    def snapshot(self) -> dict[str, str]:
        """Every file, link and folder with mode and content."""
        found = {}
        for path in sorted(self.root.rglob("*")):
            name = "/" + str(path.relative_to(self.root))
            if path.is_symlink():
                found[name] = "-> " + os.readlink(path)
            elif path.is_file():
                found[name] = f"{path.stat().st_mode & 0o7777:04o} {path.read_bytes()!r}"
            else:
                found[name] = f"{path.stat().st_mode & 0o7777:04o} folder"
        return found

    def verbs(self) -> list[str]:
        """systemctl calls so far as `verb unit unit`, without questions."""
        said = [" ".join(part for part in call[1:] if not part.startswith("--")) for call in self.calls if call[0] == "systemctl"]
        return [text for text in said if not text.startswith(("show", "list-units"))]

    # ---- the runner

    def finds(self, program: str) -> bool:
        return program in self.programs

    def run(self, command: Sequence[str], limit: float = 0) -> Completed:
        self.tick("before " + " ".join(command[:2]))
        self.calls.append(list(command))
        done = self._run(list(command))
        self.tick("after " + " ".join(command[:2]))
        return done

    def _run(self, command: list[str]) -> Completed:
        program = os.path.basename(command[0])
        if program in self.programs:
            return self.programs[program](command)
        if program == "systemctl":
            words = [word for word in command[1:] if not word.startswith("--")]
            return getattr(self, "_" + words[0].replace("-", "_"))(words[1:])
        if program == "systemd-sysusers":
            for path in command[1:]:
                self.users.update(re.findall(r"^u (\S+)", Path(path).read_text(), re.MULTILINE))
            return Completed(0)
        if program == "systemd-tmpfiles":
            self.made.extend("/" + str(Path(path).relative_to(self.root)) for path in command[2:])
            return Completed(0)
        if program == "modprobe":
            bad = [name for name in command[2:] if name not in self.loadable]
            for name in set(command[2:]) - set(bad):
                (self.root / "sys/module" / name.replace("-", "_")).mkdir(exist_ok=True)
            return Completed(1, err=f"modprobe: FATAL: Module {bad[0]} not found.") if bad else Completed(0)
        return Completed(127, err=f"{command[0]}: No such file or directory")

    # ---- the model of systemd

    def _disk(self, name: str) -> str | None:
        """The unit file as it lies on disk, with its drop-ins; None when there is none."""
        file = self.root / UNITS / re.sub(r"@.+\.", "@.", name)
        unit = self.units.get(name)
        if not file.is_file() and not (unit and unit.packaged):
            return None
        drops = sorted((self.root / UNITS / (name + ".d")).glob("*.conf"))
        return "\n".join(path.read_text() for path in ([file] if file.is_file() else []) + drops)

    def _unit(self, name: str) -> FakeUnit:
        unit = self.units.setdefault(name, FakeUnit())
        if unit.loaded is None:
            unit.loaded = self._disk(name)
        return unit

    def _show(self, names: list[str]) -> Completed:
        blocks = []
        for name in names:
            unit = self._unit(name)
            unknown = unit.loaded is None
            state = "masked" if unit.masked else "" if unknown else "enabled" if unit.enabled else "disabled"
            if state == "disabled" and "[Install]" not in (unit.loaded or "") and not unit.packaged:
                state = "static"
            # systemd keeps what it once told of a unit file until it is reloaded, also when the file is gone.
            unit.told = state if unknown or not unit.told or self._disk(name) is not None else unit.told
            state = unit.told
            values = {
                "Id": name,
                "LoadState": "masked" if unit.masked else "not-found" if unknown else "loaded",
                "ActiveState": unit.active,
                "SubState": "running" if unit.active == "active" else "dead",
                "UnitFileState": state,
                "NeedDaemonReload": "yes" if not unknown and unit.loaded != self._disk(name) else "no",
                "Type": "oneshot" if unit.once else "simple",
                "RemainAfterExit": "no",
                "CanReload": "yes" if unit.can_reload else "no",
                "Result": unit.result,
            }
            blocks.append("\n".join(f"{key}={value}" for key, value in values.items()))
        return Completed(0, "\n\n".join(blocks) + "\n")

    def _daemon_reload(self, names: list[str]) -> Completed:
        for name, unit in self.units.items():
            unit.loaded = self._disk(name)
            unit.told = ""
        return Completed(0)

    def now(self, name: str) -> tuple[str, ...]:
        """What the unit would run with if it were loaded and started at this moment."""
        contents = (self.path(path) for path in self.reads.get(name, []))
        return (self._disk(name) or "", *(path.read_text() if path.exists() else "" for path in contents))

    def _start(self, names: list[str]) -> Completed:
        for name in names:
            unit = self._unit(name)
            if unit.loaded is None or unit.masked:
                return Completed(5, err=f"Failed to start {name}: Unit {name} " + ("is masked." if unit.masked else "not found."))
            if unit.active == "failed":
                return Completed(1, err=f"Failed to start {name}: start limit hit")
            if unit.active not in ("active", "activating"):
                unit.active = "inactive" if unit.once else "active"
                unit.started_with = (unit.loaded, *self.now(name)[1:])
                unit.starts += 1
        return Completed(0)

    def _restart(self, names: list[str]) -> Completed:
        for name in names:
            self._unit(name).active = "inactive"
        return self._start(names)

    def _reload(self, names: list[str]) -> Completed:
        for name in names:
            unit = self._unit(name)
            unit.started_with = (unit.started_with[0], *self.now(name)[1:])
        return Completed(0)

    def _stop(self, names: list[str]) -> Completed:
        for name in names:
            self._unit(name).active = "inactive"
        return Completed(0)

    def _list_units(self, patterns: list[str]) -> Completed:
        found = [name for name, unit in self.units.items() if unit.active == "active" and any(fnmatch(name, pattern) for pattern in patterns)]
        return Completed(0, "".join(f"{name} loaded active active\n" for name in found))

    def _reset_failed(self, names: list[str]) -> Completed:
        for name in names:
            self._unit(name).active = "inactive"
        return Completed(0)

    def _flag(self, names: list[str], **flags: bool) -> Completed:
        for name in names:
            unit = self.units.setdefault(name, FakeUnit())
            if self._disk(name) is None and "enabled" in flags:
                return Completed(1, err=f"Failed to enable or disable unit: Unit file {name} does not exist.")
            for key, value in flags.items():
                setattr(unit, key, value)
        return Completed(0)

    def _enable(self, names: list[str]) -> Completed:
        return self._flag(names, enabled=True)

    def _reenable(self, names: list[str]) -> Completed:
        return self._flag(names, enabled=True)

    def _disable(self, names: list[str]) -> Completed:
        return self._flag(names, enabled=False)

    def _mask(self, names: list[str]) -> Completed:
        return self._flag(names, masked=True)

    def _unmask(self, names: list[str]) -> Completed:
        return self._flag(names, masked=False)
