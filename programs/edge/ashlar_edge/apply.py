# SPDX-License-Identifier: Apache-2.0
"""Brings the edge to what the catalogue says, or leaves it as it is.

Files lie in generations below `home`; `live` points to the one that HAProxy is started with, and moves in one step. So a HAProxy that starts at
any moment finds files that were accepted by `haproxy -c`, and Consul needs not be there.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TextIO

from . import certificates, runtime
from .catalogue import read as read_catalogue
from .model import Backend, Certificate, Claim, EdgeError, Refusal, Settings, State
from .plan import plan
from .render import CONFIGURATION, DEFAULT, HOSTS, OPERATOR, ROUTES, Rendered, hosts_map, render, routes_map, tcp_ports
from .routes import Decision, decide
from .slots import assign_all

CATALOGUE, STATE = "catalogue.json", "state.json"
KEEP = 3
# A service without instances for so long at most gets its routes back from who had them meanwhile.
REMEMBERED_SECONDS = 3600
LOCK_SECONDS = 60
# How often a configuration is checked to find the routes that HAProxy does not take.
SEARCHES = 64


@dataclass(frozen=True)
class Outcome:
    """What was done: unchanged, commands, reload, or files alone (HAProxy does not run)."""

    how: str
    commands: int
    decision: Decision
    refusals: tuple[Refusal, ...]


def slurp(path: str) -> str | None:
    """A file's text; None when there is none."""
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            return stream.read()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise EdgeError(f"{path} cannot be read ({error.strerror}); run site.yml again") from None


def spill(path: str, text: str, mode: int, lasting: bool = True) -> None:
    """Write a file at once: nobody ever sees a part of it, and what is `lasting` outlives a power cut."""
    folder = os.path.dirname(path)
    descriptor, part = tempfile.mkstemp(prefix=".", dir=folder)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            if lasting:
                os.fsync(stream.fileno())
        os.chmod(part, mode)
        os.replace(part, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(part)
        raise


@contextlib.contextmanager
def lock(home: str, seconds: float = LOCK_SECONDS) -> Iterator[None]:
    """One at a time; EdgeError when the other one does not end."""
    end = time.monotonic() + seconds
    with open(os.path.join(home, "lock"), "a") as stream:
        while True:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError:
                if time.monotonic() > end:
                    raise EdgeError(f"another ashlar-edge has been at work for {seconds:.0f} s; `fuser {home}/lock` names it") from None
                time.sleep(0.05)
        yield


def succeeded(
    before: Mapping[str, str], former: Mapping[str, tuple[str, float]], owners: Mapping[str, str], now: float, most: int
) -> dict[str, tuple[str, float]]:
    """Who owned each route before its owner of now, and since when not. The first of several stays, who is back is forgotten, `most` are kept."""
    gone = {route: (service, now) for route, service in before.items() if owners.get(route) != service}
    kept = [(route, one) for route, one in {**gone, **former}.items() if owners.get(route) != one[0]]
    return dict(sorted(kept, key=lambda item: (-item[1][1], item[0]))[:most])


class Edge:
    """One edge on one host."""

    def __init__(self, settings: Settings, catalogue: str, now: Callable[[], float] = time.time, log: TextIO | None = None) -> None:
        self.settings, self.catalogue, self.now, self.log = settings, catalogue, now, log or sys.stderr
        self.live = os.path.join(settings.home, "live")
        self.fresh = False

    def apply(self) -> Outcome:
        """All of it, under the lock. EdgeError when the edge has to stay as it is; the status tells either."""
        with lock(self.settings.home):
            try:
                outcome = self._apply()
            except EdgeError as error:
                self._status(None, str(error))
                raise
            self._status(outcome, "")
            return outcome

    # ---- what is wanted

    def _claims(self) -> tuple[str, list[Claim], list[Refusal]]:
        """The catalogue as it is, or as it was when it was readable last."""
        text = slurp(self.catalogue)
        if text is not None:
            try:
                found = (text, *read_catalogue(text))
                self.fresh = True
                return found
            except EdgeError as error:
                known = slurp(os.path.join(self.live, CATALOGUE))
                if known is None:
                    raise
                self._say(4, str(error))
                return (known, *read_catalogue(known))
        known = slurp(os.path.join(self.live, CATALOGUE)) or '{"services": []}'
        return (known, *read_catalogue(known))

    def _certificates(self) -> tuple[list[Certificate], list[Refusal]]:
        """The site's two and the users', each proved; of the site's the one before where the new one can't be used."""
        settings, now = self.settings, self.now()
        made: list[Certificate] = []
        refusals: list[Refusal] = []
        for name, path in ((DEFAULT, settings.default_certificate), (OPERATOR, settings.operator_certificate)):
            chain, keys = certificates.blocks((slurp(path + ".crt") or "") + "\n" + (slurp(path + ".key") or ""))
            pem = "".join(chain) + "".join(keys[:1])
            wrong = certificates.problem(pem, now) if chain and keys else "certificate or key is missing"
            if wrong:
                known = slurp(os.path.join(self.live, f"{name}.pem"))
                if known is None:
                    raise EdgeError(f"{path}.crt: {wrong}; run site.yml again, which issues it")
                refusals.append(
                    Refusal("haproxy", f"the certificate {name}", f"{wrong}; the one before stays. Run site.yml again, which issues it")
                )
                pem = known
            made.append(Certificate(name, (), pem))
        listed = slurp(settings.certificates)
        users, refused = certificates.usable(certificates.parse(listed, settings.certificates), now) if listed else ([], [])
        return made + users, refusals + refused

    # ---- the way through

    def _apply(self) -> Outcome:
        settings = self.settings
        base = slurp(settings.base)
        if base is None:
            raise EdgeError(f"{settings.base} is missing; run site.yml again")
        before = State.parse(slurp(os.path.join(self.live, STATE)) or "")
        proved, certificate_refusals = self._certificates()
        recent = {route: one for route, one in before.former.items() if 0 <= self.now() - one[1] < REMEMBERED_SECONDS}
        former = {route: service for route, (service, _) in recent.items()}
        banned: dict[str, str] = {}
        rested = False
        while True:
            text, claims, refusals = self._claims()
            alive = runtime.structure(settings) is not None
            busy = runtime.listening() - (frozenset(before.ports) if alive else frozenset())
            decision = decide(claims, settings, before.owners, lambda services: runtime.created(settings.consul, services), busy, banned, former)
            refusals = [*certificate_refusals, *refusals, *decision.refusals]
            slots = assign_all(before.slots, decision.backends, settings, self.now())
            rendered = render(base, decision.backends, slots, proved, settings)
            gone = succeeded(before.owners, recent, decision.owners, self.now(), settings.max_routes)
            state = State(decision.owners, gone, slots, tcp_ports(decision.backends))
            maps = {HOSTS: hosts_map(decision.backends), ROUTES: routes_map(decision.backends)}
            has = runtime.running(settings, self.live, maps) if alive else None
            todo = plan(rendered.structure, slots, maps, self.live, has) if has else None
            if todo and todo.reload and not rested and self._rest():
                rested = True
                continue
            if self._is_live(rendered) and state == before and not (todo and (todo.reload or todo.commands)):
                return Outcome("unchanged" if has else "files", 0, decision, tuple(refusals))
            found = self._lay(rendered, text, state, decision.backends, banned, (base, slots, proved))
            if found is None:
                continue
            break
        if todo is None:
            return Outcome("files", 0, decision, tuple(refusals))
        if not todo.reload:
            failed = runtime.command(settings, todo.commands)
            if not failed:
                return Outcome("commands", len(todo.commands), decision, tuple(refusals))
            self._say(4, f"{len(failed)} of {len(todo.commands)} commands were not taken, so HAProxy is reloaded: {failed[0]}")
        problem = runtime.reload(settings, rendered.structure)
        self._reloaded()
        if problem:
            os.rename(self._pointer(found), self.live)
            raise EdgeError(f"HAProxy was not reloaded and keeps what it has: {problem}")
        return Outcome("reload", 0, decision, tuple(refusals))

    def _is_live(self, rendered: Rendered) -> bool:
        return all(slurp(os.path.join(self.live, name)) == text for name, text in rendered.at(self.live).items())

    def _rest(self) -> bool:
        """Wait until the last reload is long enough ago; whether that took time, in which the catalogue may have changed."""
        last = float(json.loads(slurp(os.path.join(self.settings.home, "reloaded.json")) or "0"))
        wait = min(self.settings.reload_interval_ms / 1000, last + self.settings.reload_interval_ms / 1000 - self.now())
        if wait <= 0:
            return False
        time.sleep(wait)
        return True

    def _reloaded(self) -> None:
        spill(os.path.join(self.settings.home, "reloaded.json"), json.dumps(self.now()), 0o640, lasting=False)

    # ---- generations

    def _lay(
        self, rendered: Rendered, text: str, state: State, backends: Sequence[Backend], banned: dict[str, str], parts: Any
    ) -> str | None:
        """A new generation, checked and live. Returns the one before ("" for none), or None when routes were banned and all has to be decided anew."""
        home = self.settings.home
        generation = tempfile.mkdtemp(prefix=time.strftime("generation-%Y%m%dT%H%M%S-", time.gmtime(self.now())), dir=home)
        try:
            os.chmod(generation, 0o750)
            for name, content in rendered.at(generation).items():
                spill(os.path.join(generation, name), content, 0o640, lasting=False)
            said = runtime.check(self.settings, os.path.join(generation, CONFIGURATION))
            if said:
                bad = self._search(backends, generation, parts, said)
                if not bad:
                    raise EdgeError(f"HAProxy does not take the configuration, so the edge keeps what it has: {said}")
                banned.update(bad)
                shutil.rmtree(generation)
                return None
            # What has been accepted names the link that it is going to be read by.
            for name, content in rendered.at(self.live).items():
                spill(os.path.join(generation, name), content, 0o640)
            spill(os.path.join(generation, CATALOGUE), text, 0o640)
            spill(os.path.join(generation, STATE), state.text(), 0o640)
        except BaseException:
            shutil.rmtree(generation, ignore_errors=True)
            raise
        before = os.path.basename(os.readlink(self.live)) if os.path.islink(self.live) else ""
        os.rename(self._pointer(os.path.basename(generation)), self.live)
        self._sweep({os.path.basename(generation), before})
        return before or os.path.basename(generation)

    def _pointer(self, generation: str) -> str:
        """A link that can take the place of `live`."""
        pointer = os.path.join(self.settings.home, ".live")
        with contextlib.suppress(FileNotFoundError):
            os.unlink(pointer)
        os.symlink(generation, pointer)
        return pointer

    def _sweep(self, kept: Any) -> None:
        names = sorted((name for name in os.listdir(self.settings.home) if name.startswith("generation-")), key=self._age)
        for name in names[:-KEEP]:
            if name not in kept:
                shutil.rmtree(os.path.join(self.settings.home, name), ignore_errors=True)

    def _age(self, name: str) -> float:
        with contextlib.suppress(OSError):
            return os.stat(os.path.join(self.settings.home, name)).st_mtime
        return 0.0

    def _search(self, backends: Sequence[Backend], generation: str, parts: Any, said: str) -> dict[str, str]:
        """Backends that HAProxy does not take, found by halves. Validation should leave none; if one slips through, it stands alone for it."""
        base, slots, proved = parts
        bad: dict[str, str] = {}
        left = SEARCHES

        def complains(some: Sequence[Backend]) -> str:
            nonlocal left
            left -= 1
            tried = render(base, some, slots, proved, self.settings)
            for name, content in tried.at(generation).items():
                spill(os.path.join(generation, name), content, 0o640, lasting=False)
            return runtime.check(self.settings, os.path.join(generation, CONFIGURATION))

        if complains([]):
            return {}
        heap: list[tuple[Sequence[Backend], str]] = [(list(backends), said)]
        while heap and left > 0:
            some, complaint = heap.pop()
            if len(some) == 1:
                bad[some[0].name] = complaint
                continue
            for half in (some[: len(some) // 2], some[len(some) // 2 :]):
                complaint = complains(half)
                if complaint:
                    heap.append((half, complaint))
        return bad

    # ---- what is told

    def _say(self, priority: int, text: str) -> None:
        """A line for the journal, with its priority (sd-daemon(3))."""
        print(f"<{priority}>{text}", file=self.log, flush=True)

    def _status(self, outcome: Outcome | None, error: str) -> None:
        """Write the status; say what is new in it."""
        path = self.settings.status
        try:
            old: Mapping[str, Any] = json.loads(slurp(path) or "{}")
        except ValueError:
            old = {}
        if outcome is None:
            status: dict[str, Any] = {**old, "error": error, "checked": self.now()}
        else:
            refused = [{"service": one.service[:200], "route": one.route, "reason": one.reason} for one in outcome.refusals]
            routes = [
                {
                    "service": one.service,
                    "route": f"tcp:{one.port}" if one.kind == "tcp" else f"{host}{one.path}",
                    "instances": len(one.endpoints),
                    "protocol": one.protocol,
                    "login": one.login,
                }
                for one in outcome.decision.backends
                for host in (one.hosts or ("",))
            ]
            status = {"error": "", "catalogue": self.fresh, "checked": self.now(), "how": outcome.how, "commands": outcome.commands}
            status.update(routes=routes, refused=refused)
            known = {json.dumps(one, sort_keys=True) for one in old.get("refused", [])}
            for one, refusal in zip(refused, outcome.refusals):
                if json.dumps(one, sort_keys=True) not in known:
                    self._say(4, refusal.text())
        try:
            spill(path, json.dumps(status, indent=1) + "\n", 0o644, lasting=False)
        except OSError as problem:
            self._say(4, f"{path} cannot be written: {problem.strerror}")


def settings_of(path: str, changes: Mapping[str, Any]) -> Settings:
    """Settings of a file."""
    text = slurp(path)
    if text is None:
        raise EdgeError(f"{path} is missing; run site.yml, which lays it down")
    return replace(Settings.parse(text, path), **changes)
