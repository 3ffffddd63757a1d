# SPDX-License-Identifier: Apache-2.0
"""How the secrets of a site are replaced while it runs.

Every secret takes the same three steps, and nodes get their files after each of them:

introduce
    A successor is made. Whatever checks the secret accepts both from then on.
switch
    The successor is used. Whatever shows the secret shows the new one.
drop
    The old one is accepted no more.

Each step may be repeated, and which one is under way is kept in a file of the site's ``state/``, so that a run that was killed goes on where it was.
What an old key has signed may outlive the run, such as tokens of pods; it then waits between switch and drop, and a later run ends it.

Manifests say which secrets there are (``secrets``), by a kind of rotation such as ``tokens``.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ansible_collections.ashlar.stack.plugins.plugin_utils import secrets
from ansible_collections.ashlar.stack.plugins.plugin_utils.pki import Credentials

STEPS = ("introduce", "switch", "drop")
EVERYTHING = "all"
TIME = "%Y-%m-%d %H:%M:%S UTC"


class RotationError(Exception):
    """What can't be rotated; the message says what, why and what to do."""


@dataclass(frozen=True)
class Group:
    """Secrets of a site that are rotated together: globs below ``credentials/``, what they are, and for how long what they have signed may be in use."""

    names: tuple[str, ...]
    kind: str
    hours: int = 0


@dataclass(frozen=True)
class State:
    """A rotation: what was asked for, what is rotated, the step it is at ("" between rotations), and until when something waits to be dropped."""

    asked: tuple[str, ...] = ()
    what: tuple[str, ...] = ()
    step: str = ""
    waiting: Mapping[str, str] = field(default_factory=dict)

    def has_passed(self, step: str) -> bool:
        """Whether it is beyond a step."""
        return bool(self.step) and STEPS.index(self.step) > STEPS.index(step)


def load(file: Path) -> State:
    """The state in a file; none when there is no file."""
    try:
        raw = json.loads(file.read_text(encoding="utf-8"))
        return State(tuple(raw["asked"]), tuple(raw["what"]), raw["step"], dict(raw["waiting"]))
    except FileNotFoundError:
        return State()
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RotationError(f"{file} can't be read ({error}). It says what is being rotated: put it back from your backup.") from None


def text_of(state: State) -> str:
    """The reverse of `load`; "" when there is nothing to keep."""
    if state == State():
        return ""
    document = {"asked": list(state.asked), "what": list(state.what), "step": state.step, "waiting": dict(state.waiting)}
    return json.dumps(document, indent=4, sort_keys=True) + "\n"


def begin(state: State, asked: Sequence[str], known: Sequence[str], finish: bool, now: datetime.datetime) -> State:
    """The rotation to go on with: the one that is under way, or a new one of what is asked for.

    What waits is finished instead of being begun again.

    :raises RotationError: when what is asked for is unknown, is not the rotation that is under way, or waits still.
    """
    unknown = [name for name in asked if name not in (*known, EVERYTHING)]
    if unknown or not asked:
        found = f"what has {', '.join(unknown)}, which this site does not have" if unknown else "It is not said what to rotate, by -e what=<names>"
        raise RotationError(f"{found}. Allowed: one or more of {', '.join(known)}, separated by commas, or {EVERYTHING}. Nothing was changed.")
    if state.step:
        if set(asked) != set(state.asked):
            under_way = ",".join(state.asked)
            raise RotationError(f"A rotation of {under_way} is under way and comes first: -e what={under_way}. Nothing was changed.")
        return state
    chosen = tuple(known) if EVERYTHING in asked else tuple(name for name in known if name in asked)
    # Times in this form are in the order of their texts.
    waiting = [name for name in chosen if state.waiting.get(name, "") > now.strftime(TIME) and not finish]
    if waiting and EVERYTHING not in asked:
        until = max(state.waiting[name] for name in waiting)
        raise RotationError(
            f"The last rotation of {', '.join(waiting)} waits: what the old key has signed may be in use until {until}. "
            f"Run this again then, which ends it, or end it now, at the cost of what has not been renewed: -e finish=true. Nothing was changed."
        )
    return replace(state, asked=tuple(asked), what=tuple(name for name in chosen if name not in waiting), step=STEPS[0])


@dataclass
class Rotation:
    """Takes the steps in the folder of `credentials`. `encrypt` is for files that were encrypted (ansible-vault)."""

    credentials: Credentials
    groups: Mapping[str, Sequence[Group]]

    def take(self, state: State, now: datetime.datetime) -> State:
        """Take the step that `state` is at; returns the state then."""
        waiting = dict(state.waiting)
        for what in state.what:
            # Those that waited have been introduced and switched by an earlier run.
            ending = what in state.waiting
            hours = max(group.hours for group in self.groups[what])
            if state.step == "drop" and not ending and hours and self._has_old(what):
                waiting[what] = (now + datetime.timedelta(hours=hours)).strftime(TIME)
                continue
            if ending and state.step != "drop":
                continue
            for group in self.groups[what]:
                for path in self.files(group):
                    ACTIONS[kind_of(group)](self.credentials, path, group.kind, state.step)
            if state.step == "drop":
                waiting.pop(what, None)
        return replace(state, waiting=waiting)

    def _has_old(self, what: str) -> bool:
        """Whether an old one is still accepted; not when a run that was killed has dropped it already."""
        return any(OLD[kind_of(group)](self.credentials, path) for group in self.groups[what] for path in self.files(group))

    def files(self, group: Group) -> Iterator[Path]:
        """The files of a group, absolute; of a CA and of a key pair its private key."""
        for name in group.names:
            for path in sorted(self.credentials.root.glob(name)):
                if not path.name.startswith(".") and path.name != "next.key" and not path.name.endswith(".next.key"):
                    yield path


def kind_of(group: Group) -> str:
    """Which of `ACTIONS` it takes: all kinds of secrets take the same."""
    return group.kind if group.kind in ACTIONS else "secret"


def _secret(credentials: Credentials, path: Path, kind: str, step: str) -> None:
    raw = path.read_bytes()
    found = secrets.read(path, credentials.decrypt)
    if found is None:
        return
    after = {"introduce": lambda: found.introduced(kind), "switch": found.switched, "drop": found.dropped}[step]()
    if after != found and not credentials.dry_run:
        data = after.text.encode()
        secrets.write(path, credentials.encrypt(data) if credentials.decrypt(raw) != raw else data)


def _authority(credentials: Credentials, path: Path, _kind: str, step: str) -> None:
    name = path.parent.name
    if step == "introduce":
        credentials.introduce_authority(name)
    elif step == "switch":
        credentials.switch(path)
    else:
        credentials.drop_authorities(name)


def _keypair(credentials: Credentials, path: Path, _kind: str, step: str) -> None:
    if step == "introduce":
        credentials.introduce_keypair(path.stem)
    elif step == "switch":
        credentials.switch(path)
    else:
        credentials.drop_keypairs(path.stem)


def _leaf(credentials: Credentials, path: Path, _kind: str, step: str) -> None:
    """Without the old one, the next run issues a new one with a new key. Nothing accepts a certificate by itself, so there is nothing to drop."""
    if step == "switch" and not credentials.dry_run:
        path.unlink(missing_ok=True)
        path.with_suffix(".crt").unlink(missing_ok=True)


ACTIONS: Mapping[str, Callable[[Credentials, Path, str, str], None]] = {
    "secret": _secret,
    "authority": _authority,
    "keypair": _keypair,
    "certificate": _leaf,
}
OLD: Mapping[str, Callable[[Credentials, Path], bool]] = {
    "secret": lambda credentials, path: bool((found := secrets.read(path, credentials.decrypt)) and found.previous),
    "authority": lambda _credentials, path: path.with_name("ca.crt").read_bytes().count(b"BEGIN") > 1,
    "keypair": lambda _credentials, path: path.with_suffix(".pub").read_bytes().count(b"BEGIN") > 1,
    "certificate": lambda _credentials, _path: False,
}
"""Whether the old one of a file is still accepted."""
