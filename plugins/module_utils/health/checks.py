# SPDX-License-Identifier: Apache-2.0
"""Health checks of a host: all at the same time, again and again until all are good, and a useful story when they do not become so.

`Watch.wait` is the way through. All unit checks are one question to systemd; every other check has a thread of its own, so that one that
hangs delays nobody else.
"""

from __future__ import annotations

import http.client
import re
import socket
import ssl
import threading
import time
import urllib.parse
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Callable

from ansible_collections.ashlar.stack.plugins.module_utils.health.log import (
    RECENT_SECONDS,
    Endings,
    Failure,
    Known,
    read_journal,
    recognise,
    shown,
)
from ansible_collections.ashlar.stack.plugins.module_utils.host.run import Runner, masked

PKI = "/etc/ashlar/pki"
KINDS = ("unit", "tcp", "url", "command")
FIRST_PAUSE = 0.2
LAST_PAUSE = 1.0
PROBE_LIMIT = 5.0
COMMAND_LIMIT = 15.0
# A unit that has just become active may still fall over; one that did so while watched must show it for longer.
STABLE = 1.0
STABLE_AFTER_RESTART = 5.0
# A unit that stays failed is not restarted by systemd any more, so there is nothing to wait for.
GIVE_UP = 10.0
# A check that was good this long ago is asked once more before all is called good.
FRESH = 3.0
MOST_ROUNDS = 4
BODY = 1 << 20
# Of what a program says when its check fails.
MOST_LINES = 20
# How often the units behind checks are looked at.
UNITS_PAUSE = 1.0
UNIT_PROPERTIES = (
    "Id,LoadState,ActiveState,SubState,Result,NRestarts,ExecMainStatus,ExecMainCode,Type,RemainAfterExit,"
    "ActiveEnterTimestampMonotonic,Job,StatusText"
)


class HealthError(Exception):
    """The checks cannot be made; the message says which, what is allowed and what to do."""


@dataclass(frozen=True)
class Check:
    """One check: exactly one of `unit`, `tcp`, `url`, `command` says what is asked."""

    name: str = ""
    component: str = ""
    unit: str = ""
    tcp: str = ""
    url: str = ""
    command: tuple[str, ...] = ()
    contains: str = ""
    status: tuple[int, ...] = (200,)
    authority: str = ""
    certificate: str = ""
    connect: str = ""
    log_unit: str = ""
    remedy: str = ""
    failures: tuple[Failure, ...] = ()

    @property
    def kind(self) -> str:
        """unit, tcp, url or command."""
        return next(kind for kind in KINDS if getattr(self, kind))

    @property
    def target(self) -> str:
        """What is asked, in words."""
        return " ".join(self.command) if self.command else self.unit or self.tcp or self.url

    @property
    def label(self) -> str:
        """How the check is called in messages: `etcd: etcd answers`."""
        name = self.name or self.target
        return f"{self.component}: {name}" if self.component else name


@dataclass(frozen=True)
class Seen:
    """What one look at a check gave. `final`: it will not become good by waiting."""

    ok: bool
    text: str
    final: bool = False


@dataclass
class Outcome:
    """How a check stands: whether it is good, after how many seconds it became so, and what was seen last."""

    check: Check
    ready: bool = False
    seconds: float = 0.0
    seen: str = "not asked yet"
    final: bool = False
    # Its unit is gone for good, whatever the check itself sees.
    hopeless: bool = False
    good_at: float = 0.0
    confirming: bool = False


@dataclass(frozen=True)
class UnitHealth:
    """What systemd says about a unit; `active_since` in seconds of the monotonic clock."""

    name: str
    load: str
    active: str
    sub: str
    result: str
    restarts: int
    code: int
    once: bool
    queued: bool
    active_since: float
    status: str = ""

    @property
    def words(self) -> str:
        """The state in one sentence, without a full stop."""
        if self.load == "not-found":
            return f"{self.name} does not exist on this host"
        if self.load == "masked":
            return f"{self.name} is masked, so it cannot be started"
        text = f"{self.name} is {self.active} ({self.sub})"
        if self.result not in ("", "success"):
            text += f", it ended with {self.result}" + (f" {self.code}" if self.code else "")
        if self.restarts:
            text += f", restarted {self.restarts} times"
        return text + (f", says '{masked(self.status)}'" if self.status else "")


def make_check(values: Mapping[str, Any]) -> Check:
    """A check from the keys of a manifest, absent and None alike; HealthError when it does not say what to ask."""
    given = {key: value for key, value in values.items() if value not in (None, "", [])}
    kinds = [kind for kind in KINDS if kind in given]
    name = given.get("name") or given.get("component") or "a check"
    if len(kinds) != 1:
        found = " and ".join(kinds) or "none"
        raise HealthError(f"check '{name}': exactly one of {', '.join(KINDS)} must be given, found {found}")
    unknown = sorted(set(given) - set(Check.__dataclass_fields__))
    if unknown:
        raise HealthError(f"check '{name}': unknown {', '.join(unknown)}; allowed are {', '.join(Check.__dataclass_fields__)}")
    for key in ("command", "status"):
        if key in given:
            given[key] = tuple(given[key])
    try:
        given["failures"] = tuple(Failure.make(failure) for failure in given.get("failures", ()))
    except re.error as error:
        raise HealthError(f"check '{name}': '{error.pattern!s}' in failures is not a regular expression: {error}") from None
    check = Check(**given)
    for key in ("tcp", "connect"):
        if getattr(check, key):
            address_of(getattr(check, key), check.label, key)
    if check.connect and not check.url:
        raise HealthError(f"check '{check.label}': connect says where the url is reached, and there is no url")
    if check.url and urllib.parse.urlsplit(check.url).scheme not in ("http", "https"):
        raise HealthError(f"check '{check.label}': url '{check.url}' must begin with http:// or https://")
    return check


def address_of(text: str, label: str, key: str = "tcp") -> tuple[str, int]:
    """Host and port of `127.0.0.1:6443` or `[::1]:6443`."""
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise HealthError(f"check '{label}': {key} '{text}' must be an address and a port, like 127.0.0.1:6443")
    return host.strip("[]"), int(port)


def parse_units(names: Sequence[str], text: str) -> dict[str, UnitHealth]:
    """The output of `systemctl show`, one block a unit in the order asked."""
    units = {}
    for name, block in zip(names, [block for block in text.split("\n\n") if block.strip()]):
        values = dict(line.partition("=")[::2] for line in block.strip().splitlines())
        units[name] = UnitHealth(
            name=name,
            load=values.get("LoadState", ""),
            active=values.get("ActiveState", ""),
            sub=values.get("SubState", ""),
            result=values.get("Result", ""),
            restarts=int(values.get("NRestarts") or 0),
            code=int(values.get("ExecMainStatus") or 0),
            once=values.get("Type") == "oneshot" and values.get("RemainAfterExit") == "no",
            queued=values.get("Job", "0") not in ("", "0"),
            active_since=int(values.get("ActiveEnterTimestampMonotonic") or 0) / 1e6,
            status=values.get("StatusText", ""),
        )
    return units


def judge_unit(unit: UnitHealth, now: float, first_restarts: int, failed_for: float) -> Seen:
    """Whether a unit is active and stays so. `first_restarts`: how often it had been restarted when the watch began."""
    if unit.load in ("not-found", "masked", "error", "bad-setting"):
        return Seen(False, unit.words, final=True)
    if unit.queued:
        return Seen(False, unit.words + ", a job of systemd for it is waiting")
    if unit.once and unit.active == "inactive" and unit.result == "success":
        return Seen(True, unit.words)
    if unit.active == "failed":
        return Seen(False, unit.words, final=failed_for >= GIVE_UP)
    if unit.active not in ("active", "reloading", "refreshing"):
        return Seen(False, unit.words)
    again = unit.restarts - first_restarts
    wanted = STABLE_AFTER_RESTART if again > 0 else STABLE
    if now - unit.active_since < wanted:
        return Seen(
            False, unit.words + (f" ({again} of them while waiting: it keeps falling over)" if again > 0 else ", only just started")
        )
    return Seen(True, unit.words)


class Prober:
    """Looks at checks. `pki` is where certificates lie."""

    def __init__(self, runner: Runner, pki: str = PKI, clock: Callable[[], float] = time.monotonic) -> None:
        self.runner = runner
        self.pki = pki
        self.clock = clock
        self._first_restarts: dict[str, int] = {}
        self._failed_since: dict[str, float] = {}
        self._contexts: dict[tuple[str, str], ssl.SSLContext] = {}

    def units(self, checks: Sequence[Check]) -> list[Seen]:
        """All unit checks by one question to systemd."""
        names = list(dict.fromkeys(check.unit for check in checks))
        done = self.runner.run(["systemctl", "show", "--property=" + UNIT_PROPERTIES, "--", *names], 30)
        units = parse_units(names, done.out) if done.code == 0 else {}
        if len(units) != len(names):
            return [Seen(False, f"systemctl show failed: {done.said or done.code}")] * len(checks)
        now = self.clock()
        seen = {}
        for unit in units.values():
            first = self._first_restarts.setdefault(unit.name, unit.restarts)
            if unit.active != "failed":
                self._failed_since.pop(unit.name, None)
            since = self._failed_since.setdefault(unit.name, now) if unit.active == "failed" else now
            seen[unit.name] = judge_unit(unit, now, first, now - since)
        return [seen[check.unit] for check in checks]

    def one(self, check: Check) -> Seen:
        """One check that is not about a unit; never raises."""
        try:
            return getattr(self, "_" + check.kind)(check)  # type: ignore[no-any-return]
        except socket.gaierror as error:
            return Seen(False, f"the name is not known ({error.strerror})")
        except (TimeoutError, socket.timeout):
            return Seen(False, f"no answer within {PROBE_LIMIT:.0f} s")
        except ssl.SSLCertVerificationError as error:
            return Seen(False, f"its certificate is not accepted: {error.verify_message}")
        except FileNotFoundError as error:
            return Seen(False, f"{error.filename or 'a file'} is not there")
        except (OSError, http.client.HTTPException) as error:
            text = getattr(error, "strerror", None) or str(error) or type(error).__name__
            return Seen(False, text[0].lower() + text[1:])

    def _tcp(self, check: Check) -> Seen:
        with socket.create_connection(address_of(check.tcp, check.label), PROBE_LIMIT):
            return Seen(True, "accepts connections")

    def _context(self, check: Check) -> ssl.SSLContext:
        key = (check.authority, check.certificate)
        if key not in self._contexts:
            # A missing file is told by its path; OpenSSL would not name it.
            for path in self._paths(check):
                with open(path, "rb"):
                    pass
            context = ssl.create_default_context(cafile=f"{self.pki}/ca/{check.authority}.crt" if check.authority else None)
            if check.certificate:
                context.load_cert_chain(f"{self.pki}/{check.certificate}.crt", f"{self.pki}/{check.certificate}.key")
            self._contexts[key] = context
        return self._contexts[key]

    def _paths(self, check: Check) -> list[str]:
        paths = [f"{self.pki}/ca/{check.authority}.crt"] if check.authority else []
        return paths + ([f"{self.pki}/{check.certificate}{end}" for end in (".crt", ".key")] if check.certificate else [])

    def _url(self, check: Check) -> Seen:
        """A GET without proxies and without following redirects: what is there at this address."""
        parts = urllib.parse.urlsplit(check.url)
        connection: http.client.HTTPConnection
        if parts.scheme == "https":
            connection = http.client.HTTPSConnection(parts.hostname or "", parts.port, timeout=PROBE_LIMIT, context=self._context(check))
        else:
            connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=PROBE_LIMIT)
        try:
            if check.connect:
                connection.sock = socket.create_connection(address_of(check.connect, check.label, "connect"), PROBE_LIMIT)
                if parts.scheme == "https":
                    connection.sock = self._context(check).wrap_socket(connection.sock, server_hostname=parts.hostname)
            path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
            connection.request("GET", path, headers={"User-Agent": "ashlar-ready", "Accept": "*/*"})
            answer = connection.getresponse()
            body = answer.read(BODY).decode(errors="replace")
        finally:
            connection.close()
        if answer.status not in check.status:
            wanted = " or ".join(str(status) for status in check.status)
            return Seen(False, f"HTTP {answer.status} instead of {wanted}: {_short(body)}")
        if check.contains not in body:
            return Seen(False, f"HTTP {answer.status} without '{check.contains}': {_short(body)}")
        return Seen(True, f"HTTP {answer.status}")

    def _command(self, check: Check) -> Seen:
        done = self.runner.run(check.command, COMMAND_LIMIT)
        if done.code != 0:
            return Seen(False, _failed(done.code, done.said))
        if check.contains not in done.out + done.err:
            return Seen(False, f"exit code 0 without '{check.contains}': {_short(done.said)}")
        return Seen(True, "exit code 0")


def _short(text: str, size: int = 300) -> str:
    text = masked(" ".join(text.split())) or "it said nothing"
    return text if len(text) <= size else text[:size] + " ..."


def _failed(code: int, said: str) -> str:
    """One line is shown beside the check, several below it."""
    lines = [_short(line) for line in said.splitlines() if line.strip()]
    if len(lines) < 2:
        return f"exit code {code}: {_short(said)}"
    return "\n    ".join([f"exit code {code}:", *lines[:MOST_LINES], *(["..."] if len(lines) > MOST_LINES else [])])


class Watch:
    """Asks all checks until they are good."""

    def __init__(self, checks: Sequence[Check], prober: Prober, clock: Callable[[], float] = time.monotonic) -> None:
        self.prober = prober
        self.clock = clock
        self.outcomes = [Outcome(check) for check in checks]
        self._start = clock()
        self._news = threading.Condition()
        self._over = threading.Event()
        self._endings = Endings(prober.runner, clock)
        self._failed_since: dict[str, float] = {}

    def _groups(self, outcomes: Iterable[Outcome]) -> list[list[Outcome]]:
        """Unit checks together, every other by itself."""
        outcomes = list(outcomes)
        units = [outcome for outcome in outcomes if outcome.check.unit]
        return ([units] if units else []) + [[outcome] for outcome in outcomes if not outcome.check.unit]

    def _look(self, group: list[Outcome]) -> None:
        """Look at a group once and write down what was seen."""
        checks = [outcome.check for outcome in group]
        seen = self.prober.units(checks) if checks[0].unit else [self.prober.one(checks[0])]
        now = self.clock()
        with self._news:
            if self._over.is_set():
                return
            for outcome, one in zip(group, seen):
                outcome.ready, outcome.seen, outcome.final = one.ok, one.text, one.final
                if not (outcome.confirming and one.ok):
                    outcome.seconds = round(now - self._start, 1)
                outcome.confirming, outcome.good_at = False, now
            self._news.notify()

    def _poll(self, group: list[Outcome]) -> None:
        """Look at a group until it is good or the watch is over."""
        pause = FIRST_PAUSE
        while not self._over.is_set():
            waiting = [outcome for outcome in group if not outcome.ready]
            if not waiting:
                return
            self._look(waiting)
            if all(outcome.ready for outcome in group) or self._over.wait(pause):
                return
            pause = min(LAST_PAUSE, pause * 1.3)

    def _run(self, work: Callable[[list[Outcome]], None], outcomes: Iterable[Outcome]) -> None:
        # Daemons: what still hangs when time is up must not keep the module from telling so.
        for group in self._groups(outcomes):
            threading.Thread(target=work, args=(group,), daemon=True).start()

    def wait(self, timeout: float) -> list[Outcome]:
        """Ask until all are good at the same time, one of them cannot become so, or `timeout` seconds are over."""
        end = self._start + timeout
        waiting = self.outcomes
        threading.Thread(target=self._mind_units, daemon=True).start()
        for left in reversed(range(MOST_ROUNDS)):
            good = self._all_good(waiting, end)
            now = self.clock()
            waiting = [outcome for outcome in self.outcomes if outcome.ready and now - outcome.good_at > FRESH]
            if not good:
                # What was good early may be falling over by now, and then it is the cause of the rest.
                self._look_at_once(waiting, PROBE_LIMIT)
            if not (good and waiting and left):
                break
            for outcome in waiting:
                outcome.ready, outcome.confirming = False, True
        self._end()
        return self.outcomes

    def _all_good(self, waiting: list[Outcome], end: float) -> bool:
        """Poll these until they are good; False when time is up or one of them cannot become good."""
        self._run(self._poll, waiting)
        with self._news:
            while not all(outcome.ready for outcome in waiting):
                if any(not outcome.ready and (outcome.final or outcome.hopeless) for outcome in waiting) or self.clock() >= end:
                    return False
                self._news.wait(max(0.0, min(1.0, end - self.clock())))
        return True

    def _mind_units(self) -> None:
        """Look at the units behind checks that are not good: one that is gone for good ends the wait."""
        checks = [outcome.check for outcome in self.outcomes]
        while not self._over.wait(UNITS_PAUSE):
            with self._news:
                behind: dict[str, list[Outcome]] = {}
                for outcome in self.outcomes:
                    unit = "" if outcome.ready else log_unit(outcome.check, checks)
                    if unit:
                        behind.setdefault(unit, []).append(outcome)
            gone = [outcome for name, unit in ask_units(list(behind), self.prober.runner).items() if self._is_hopeless(unit) for outcome in behind[name]]
            with self._news:
                for outcome in gone:
                    outcome.hopeless = True
                if gone:
                    self._news.notify()

    def _is_hopeless(self, unit: UnitHealth) -> bool:
        """Whether waiting for this unit is no use."""
        now = self.clock()
        if unit.active != "failed":
            self._failed_since.pop(unit.name, None)
        elif now - self._failed_since.setdefault(unit.name, now) >= GIVE_UP:
            return True
        if unit.load in ("not-found", "masked", "error", "bad-setting"):
            return True
        failures = failures_of(unit.name, (outcome.check for outcome in self.outcomes))
        return self._endings.hopeless(unit.name, unit.restarts, failures)

    def once(self) -> list[Outcome]:
        """Look at every check once, all at the same time."""
        self._look_at_once(self.outcomes, COMMAND_LIMIT + 20)
        self._end()
        return self.outcomes

    def _look_at_once(self, outcomes: Iterable[Outcome], limit: float) -> None:
        """Look at these once, all at the same time, for at most `limit` seconds."""
        threads = [threading.Thread(target=self._look, args=(group,), daemon=True) for group in self._groups(outcomes)]
        for thread in threads:
            thread.start()
        end = self.clock() + limit
        for thread in threads:
            thread.join(max(0.0, end - self.clock()))

    def _end(self) -> None:
        with self._news:
            self._over.set()


@dataclass
class Story:
    """A check that is not good, with what helps to mend it."""

    check: Check
    seen: str
    seconds: float
    unit: str = ""
    state: str = ""
    log: list[str] = field(default_factory=list)
    known: Known | None = None

    @property
    def remedy(self) -> str:
        """What to do: about the failure that its log tells of, the manifest's own sentence, or where to look."""
        if self.known:
            return self.known.remedy
        if self.check.remedy:
            return self.check.remedy
        if self.unit:
            return f"Look at 'journalctl -u {self.unit}' on this host, mend the cause and run again."
        return "Look on this host at what should answer there, mend the cause and run again."

    def values(self) -> dict[str, Any]:
        """As the module returns it."""
        return {
            "component": self.check.component,
            "name": self.check.name or self.check.target,
            self.check.kind: list(self.check.command) or self.check.target,
            "seen": self.seen,
            "seconds": self.seconds,
            "unit_state": self.state,
            "cause": self.known.cause if self.known else "",
            "log": self.log,
            "remedy": self.remedy,
        }


def log_unit(check: Check, checks: Iterable[Check]) -> str:
    """Whose log tells about a check: the named one, its own unit, or the first unit of its component."""
    if check.log_unit or check.unit:
        return check.log_unit or check.unit
    same = (other.unit for other in checks if other.unit and check.component and other.component == check.component)
    return next(same, "")


def failures_of(unit: str, checks: Iterable[Check]) -> tuple[Failure, ...]:
    """The failures by which the component of a unit is known to fail."""
    return next((check.failures for check in checks if unit in (check.unit, check.log_unit) and check.failures), ())


def ask_units(names: Sequence[str], runner: Runner) -> dict[str, UnitHealth]:
    """What systemd says about these units, by one question; {} when it does not answer."""
    if not names:
        return {}
    done = runner.run(["systemctl", "show", "--property=" + UNIT_PROPERTIES, "--", *names], 30)
    return parse_units(names, done.out) if done.code == 0 else {}


def tell(outcomes: Sequence[Outcome], runner: Runner) -> list[Story]:
    """The story of each check that is not good, those whose cause is known first; every unit is asked once."""
    checks = [outcome.check for outcome in outcomes]
    bad = [(outcome, log_unit(outcome.check, checks)) for outcome in outcomes if not outcome.ready]
    names = list(dict.fromkeys(unit for _outcome, unit in bad if unit))
    states = ask_units(names, runner)
    logs: dict[str, list[str]] = {}
    known: dict[str, Known | None] = {}
    for name in names:
        lines = read_journal(name, runner)
        if name in states and states[name].active == "active":
            lines = [line for line in lines if line.at >= time.time() - RECENT_SECONDS]
        logs[name], known[name] = shown(lines), recognise(lines, failures_of(name, checks))
    stories = [
        Story(outcome.check, outcome.seen, outcome.seconds, unit, states[unit].words if unit in states else "", logs.get(unit, []), known.get(unit))
        for outcome, unit in bad
    ]
    return sorted(stories, key=lambda story: story.known is None)


def message(stories: Sequence[Story], total: int, timeout: float) -> str:
    """One text for a person: which checks are not good, why, and what to do. A unit is told of once."""
    waited = max((story.seconds for story in stories), default=timeout)
    lines = [f"{len(stories)} of {total} health checks are not good after {max(waited, 0):.0f} s (limit {timeout:.0f} s):"]
    told: set[str] = set()
    for story in stories:
        target = "" if story.check.unit or not story.check.name else f" ({story.check.target})"
        lines.append(f"- {story.check.label}{target}: {story.seen}")
        if story.known and story.unit in told:
            lines.append(f"  {story.unit}: as above")
            continue
        if story.state and story.state not in story.seen and story.unit not in told:
            lines.append(f"  {story.state}")
        if story.known:
            lines.append(f"  Cause: {story.known.cause}")
        if story.unit not in told and story.log:
            lines.append(f"  warnings and errors of {story.unit}:")
            lines.extend(f"    {line}" for line in story.log)
        told.update({story.unit} - {""})
        lines.append(f"  What to do: {story.remedy}")
    return "\n".join(lines)
