# SPDX-License-Identifier: Apache-2.0
"""What the journal says about a unit that is not well: its warnings and errors, and the failure they are known by.

Programs write levels in their own ways (klog, logfmt, JSON, brackets), and the journal takes everything on their standard output for
information. A failure is known by a line of the log; those of one component stand in its manifest (`failures`), those that any program
may have are in L(COMMON).
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Callable

from ansible_collections.ashlar.stack.plugins.module_utils.host.run import Runner, masked

ERROR = 3
WARNING = 4
INFO = 6
LINES_READ = 300
LINES_SHOWN = 15
LONGEST = 400
SAME_TROUBLE_SECONDS = 20
"""What a unit logged longer than this before another failure belongs to an earlier one."""
# What an active unit said before is not the reason why it does not answer now.
RECENT_SECONDS = 300.0

_LEVELS = {
    "trace": 7, "debug": 7, "dbug": 7, "dbg": 7, "info": 6, "notice": 5, "note": 5, "warning": 4, "warn": 4, "error": 3, "err": 3, "eror": 3,
    "critical": 2, "crit": 2, "fatal": 2, "dpanic": 2, "panic": 2, "alert": 1, "emerg": 0, "emergency": 0,
}  # fmt: skip
_WORDS = "|".join(sorted(_LEVELS, key=len, reverse=True))
_KLOG = re.compile(r"([IWEF])\d{4} \d\d:\d\d:\d\d")
_KLOG_LEVELS = {"I": INFO, "W": WARNING, "E": ERROR, "F": 2}
_NAMED = re.compile(rf"(?i)\b(?:level|lvl|severity)=\"?({_WORDS})\b")
_BRACKETS = re.compile(rf"(?i)\[({_WORDS})\]")
_COLUMN = re.compile(rf"(?i)^\S*\d\S*\s+({_WORDS})[\s:]")
_LEADING = re.compile(rf"(?i)^({_WORDS})\s*:")
# Without a level a line counts when it speaks of trouble.
_TROUBLE = re.compile(
    r"(?i)\b(\w*error|\w*exception|fail(s|ed|ure|ing)?|fatal|panic|traceback|den(y|ied)|cannot|can't|could not|unable|refused|invalid|no such|"
    r"not found|in use|no space|not permitted|missing|corrupt\w*|killed|aborted)\b"
)


@dataclass(frozen=True)
class Failure:
    """A way to fail: the line of the log by which it is known, its cause in words, and what to do.

    `log` is searched in each line; `{name}` in `cause` and `remedy` is what its group of that name found. With `fatal` waiting is no
    use: a unit that keeps ending for this reason does not heal by itself.
    """

    log: re.Pattern[str]
    cause: str
    remedy: str
    fatal: bool = True

    @classmethod
    def make(cls, values: Mapping[str, Any]) -> Failure:
        """From the keys of a manifest; re.error when `log` is no regular expression."""
        return cls(re.compile(values["log"]), values["cause"], values["remedy"], values.get("fatal") is not False)


@dataclass(frozen=True)
class Known:
    """A failure that was recognised, in words."""

    cause: str
    remedy: str
    fatal: bool


@dataclass(frozen=True)
class Line:
    """A line of a unit's log; `at` in seconds since the epoch, `level` as in syslog(3)."""

    at: float
    level: int
    text: str


def _common(log: str, cause: str, remedy: str, fatal: bool = True) -> Failure:
    return Failure(re.compile(log), cause, remedy, fatal)


_MODES = "`namei -l {path}` shows the permissions of each folder in the path, `findmnt -T {path}` whether its file system is mounted noexec"
COMMON: tuple[Failure, ...] = (
    _common(
        r"(?:Failed to execute|EXEC spawning|locate executable) '?(?P<path>/[^\s':]+)'?: Permission denied",
        "the user of the unit may not execute {path}",
        f"{_MODES}; `site.yml` opens what it has installed below /opt/ashlar.",
    ),
    _common(
        r"(?:Failed to execute|EXEC spawning|locate executable) '?(?P<path>/[^\s':]+)'?: No such file or directory",
        "the program {path} does not exist",
        "Run `site.yml` for this host without --limit and --tags: it installs what is missing.",
    ),
    _common(
        r"(?:Failed to execute|EXEC spawning) '?(?P<path>/[^\s':]+)'?: Exec format error",
        "the program {path} is damaged, or made for another architecture",
        "Compare `file {path}` with `uname -m`; remove its folder and run `site.yml`, which installs it again.",
    ),
    _common(r"status=217/USER", "the user that the unit runs as does not exist", "Run `site.yml`: it creates the user by /etc/sysusers.d."),
    _common(r"status=216/GROUP", "the group that the unit runs as does not exist", "Run `systemd-sysusers` and `site.yml` on the host."),
    _common(
        r"status=226/NAMESPACE",
        "the unit's sandbox cannot be created: a path in it is missing, or the kernel refuses namespaces",
        "The previous line names the path; create it, or see `systemctl cat` of the unit for where it is set.",
    ),
    _common(
        r"status=243/CREDENTIALS",
        "a credential of the unit cannot be read",
        "The previous line names the file; `site.yml` writes it again.",
    ),
    _common(
        r"(?i)(?:(?P<address>[\w.:\[\]*-]+:\d+)[^:]*: (?:bind: )?address already in use"
        r"|address already in use[^\[]*\[(?P<bound>[^\]]+)\]|address already in use)",
        "another process listens on its address {address}{bound}",
        "`ss -ltnup` shows which; stop it, or give the component another port.",
    ),
    _common(
        r"(?i)(inotify|fsnotify|watch)[^\n]*(no space left on device|too many open files)",
        "the kernel's limit of inotify watches or instances is reached",
        "Raise fs.inotify.max_user_watches and fs.inotify.max_user_instances (base_extra_sysctls), or find who uses them up.",
    ),
    _common(
        r"(?i)no space left on device",
        "the disk is full",
        "`df -h` and `df -i` show which file system; free space on it or enlarge it.",
    ),
    _common(r"(?i)disk quota exceeded", "a disk quota is used up", "Raise the quota of the unit's user, or free space."),
    _common(
        r"(?i)read-only file system",
        "a file system that it writes to is read-only",
        "`journalctl -k` says why it was remounted; repair and remount it (`findmnt -O ro`).",
    ),
    _common(
        r"(?i)(structure needs cleaning|input/output error)",
        "the disk or its file system is damaged",
        "`journalctl -k` names the device; check it (smartctl, fsck) before anything is written again.",
    ),
    _common(
        r"(?i)certificate (has expired or is not yet valid|has expired|is not yet valid)",
        "a certificate has expired, or a clock is wrong",
        "Compare `timedatectl` on the nodes; `openssl x509 -noout -dates -in` shows dates of files in /etc/ashlar/pki. `site.yml` renews what has expired.",
    ),
    _common(
        r"(?i)(certificate signed by unknown authority|unable to get local issuer certificate|unknown ca\b)",
        "a peer shows a certificate of another CA",
        "The nodes have certificates from different runs or sites: run `site.yml` for all of them, with the site's original credentials.",
        fatal=False,
    ),
    _common(
        r"(?i)result 'oom-kill'|out of memory: killed|cannot allocate memory",
        "the kernel killed it for lack of memory",
        "`journalctl -k` says what used it up; give the node more memory, or reduce the component's load.",
    ),
    _common(
        r"(?i)too many open files",
        "its limit of open files is reached",
        "Raise LimitNOFILE with a drop-in for the unit, and look for what opens so many.",
    ),
    _common(
        r"(?i)(?:open|stat|read|mkdir|create|unlink|lstat|exec|\[Errno 13\][^']*)\s*'?(?P<path>/[^\s':]+)'?: permission denied",
        "its user may not use {path}",
        "`namei -l {path}` shows owners and modes; `site.yml` corrects those of its own files.",
    ),
    _common(
        r"Start request repeated too quickly",
        "systemd has given up starting it, since it failed too often",
        "The previous lines say why it failed; fix that and run `site.yml` again, which starts it.",
    ),
)


def level_of(message: str, priority: int, system: bool) -> int:
    """The level of a line. What systemd itself says has the journal's; a program's own word counts more than that."""
    if system:
        return priority
    if message.startswith("{"):
        try:
            values = json.loads(message)
        except ValueError:
            values = {}
        named = next((str(values[key]).lower() for key in ("level", "lvl", "severity", "@level") if key in values), "")
        if named in _LEVELS:
            return _LEVELS[named]
    klog = _KLOG.match(message)
    if klog:
        return _KLOG_LEVELS[klog[1]]
    for pattern in (_NAMED, _BRACKETS, _COLUMN, _LEADING):
        found = pattern.search(message[:200])
        if found:
            return _LEVELS[found[1].lower()]
    if priority <= WARNING:
        return priority
    return WARNING if _TROUBLE.search(message) else INFO


def parse_journal(text: str) -> list[Line]:
    """Lines of `journalctl --output=json`, oldest first. A message that is not UTF-8 comes as a list of bytes."""
    lines: list[Line] = []
    for raw in text.splitlines():
        try:
            entry = json.loads(raw)
            message = entry.get("MESSAGE") or ""
            if isinstance(message, list):
                message = bytes(message).decode(errors="replace")
            at = int(entry.get("__REALTIME_TIMESTAMP") or 0) / 1e6
            level = level_of(message, int(entry.get("PRIORITY") or INFO), entry.get("SYSLOG_IDENTIFIER") == "systemd")
        except (ValueError, TypeError, AttributeError):
            continue
        lines.extend(Line(at, level, part) for part in message.splitlines() if part.strip())
    return lines


def read_journal(unit: str, runner: Runner, since: float = 0) -> list[Line]:
    """The last lines of a unit's log, those since a time alone if it is given (seconds since the epoch); one that says so when it cannot be read."""
    command = ["journalctl", "-u", unit, "-n", str(LINES_READ), "--no-pager", "--quiet", "--output=json"]
    command.append("--output-fields=MESSAGE,PRIORITY,SYSLOG_IDENTIFIER")
    done = runner.run(command + ([f"--since=@{since:.0f}"] if since else []), 20)
    if done.code != 0:
        return [Line(time.time(), ERROR, f"(its log cannot be read: {' '.join(done.said.split())[:LONGEST]})")]
    return parse_journal(done.out)


def shown(lines: Iterable[Line]) -> list[str]:
    """The warnings and errors among these, without secrets. Of those that differ in numbers only, the last stands for all."""
    last: dict[str, str] = {}
    for line in lines:
        if line.level > WARNING:
            continue
        key = re.sub(r"[0-9a-f]*\d[0-9a-f]*", "0", line.text)
        last.pop(key, None)
        when = time.strftime("%Y-%m-%dT%H:%M:%SZ ", time.gmtime(line.at)) if line.at else ""
        text = masked(line.text)
        last[key] = when + (text if len(text) <= LONGEST else text[:LONGEST] + " ...")
    return list(last.values())[-LINES_SHOWN:]


def recognise(lines: Sequence[Line], failures: Sequence[Failure]) -> Known | None:
    """The failure that these lines tell of, the last line first; a component's own before a common one, unless that was logged long after it."""
    own, common = (_last(lines, known) for known in (failures, COMMON))
    if own and common and common[0] - own[0] > SAME_TROUBLE_SECONDS:
        own = None
    found = own or common
    return found[1] if found else None


def _last(lines: Sequence[Line], failures: Sequence[Failure]) -> tuple[float, Known] | None:
    """When one of these failures was logged last, and which."""
    for line in reversed(lines):
        for failure in failures:
            found = failure.log.search(line.text)
            if found:
                return line.at, Known(_filled(failure.cause, found), _filled(failure.remedy, found), failure.fatal)
    return None


def _filled(text: str, found: re.Match[str]) -> str:
    groups = {name: value or "" for name, value in found.groupdict().items()}
    return re.sub(r"\{(\w+)\}", lambda name: masked(groups.get(name[1], name[0])), text).strip()


class Endings:
    """Units that keep ending for a known reason, by which waiting for them is no use.

    A unit may end now and then while it waits for others, and an address may be in use until its old process is gone: the same reason
    must be seen at ENOUGH endings in a row, LEAST_SECONDS apart.
    """

    ENOUGH = 3
    LEAST_SECONDS = 5.0

    def __init__(self, runner: Runner, clock: Callable[[], float] = time.monotonic) -> None:
        self._runner = runner
        self._clock = clock
        self._restarts: dict[str, int] = {}
        self._read_to: dict[str, float] = {}
        self._seen: dict[str, tuple[str, int, float]] = {}

    def hopeless(self, unit: str, restarts: int, failures: Sequence[Failure]) -> bool:
        """Look at a unit that systemd has restarted `restarts` times; whether it ends for the same fatal reason again and again."""
        before = self._restarts.setdefault(unit, restarts)
        since = self._read_to.setdefault(unit, time.time())
        if restarts <= before:
            self._restarts[unit] = restarts
            return False
        self._restarts[unit], self._read_to[unit] = restarts, time.time()
        known = recognise(read_journal(unit, self._runner, since - 1), failures)
        if known is None or not known.fatal:
            self._seen.pop(unit, None)
            return False
        cause, count, first = self._seen.get(unit, (known.cause, 0, self._clock()))
        if cause != known.cause:
            count, first = 0, self._clock()
        self._seen[unit] = (known.cause, count + restarts - before, first)
        return self._seen[unit][1] >= self.ENOUGH and self._clock() - first >= self.LEAST_SECONDS
