# SPDX-License-Identifier: Apache-2.0
"""Who may come in: passwords, sessions, tokens of forms, and how often one may try. Nothing here waits or talks to anybody."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import ipaddress
import json
import re
import secrets
from collections import OrderedDict, deque
from collections.abc import Mapping
from dataclasses import dataclass

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")
# What no password gives; verified against where the name is unknown, so that the answer takes as long.
NOBODY = "scrypt$16384$8$1$YXNobGFyLXBvcnRhbC0wMA$" + "A" * 43


def encode(data: bytes) -> str:
    """Base64 for URLs and cookies, without its padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def decode(text: str) -> bytes:
    """:raises ValueError: when it is none."""
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except binascii.Error as error:
        raise ValueError(str(error)) from None


def verify(password: str, stored: str) -> bool:
    """Whether a password gives the hash `scrypt$<n>$<r>$<p>$<salt>$<hash>` (RFC 7914; base64 for URLs). Takes tens of milliseconds and `128 * n * r` bytes."""
    try:
        kind, n, r, p, salt, wanted = stored.split("$")
        if kind != "scrypt":
            return False
        expected = decode(wanted)
        cost, block, lanes = int(n), int(r), int(p)
        made = hashlib.scrypt(password.encode(), salt=decode(salt), n=cost, r=block, p=lanes, maxmem=256 * cost * block, dklen=len(expected))
    except (ValueError, OverflowError):
        return False
    return hmac.compare_digest(made, expected)


@dataclass(frozen=True)
class Session:
    """Somebody who has logged in. Times are seconds since 1970."""

    name: str
    identity: str
    until: float


class Keyring:
    """Signs and checks what browsers keep. Who gets another password is logged out by it everywhere."""

    def __init__(self, key: bytes, logins: Mapping[str, str]) -> None:
        self._key = key
        self._logins = logins

    def _sign(self, purpose: str, text: str) -> str:
        return encode(hmac.new(self._key, f"{purpose}\n{text}".encode(), hashlib.sha256).digest())

    def _mine(self, purpose: str, text: str, signature: str) -> bool:
        return hmac.compare_digest(self._sign(purpose, text).encode(), signature.encode(errors="replace"))

    def _purpose(self, kind: str, name: str) -> str:
        # The hash of the password is part of what is signed: another password, other signatures.
        return f"{kind} {name} {hashlib.sha256(self._logins.get(name, NOBODY).encode()).hexdigest()}"

    def _token(self, kind: str, name: str, until: float) -> str:
        text = encode(json.dumps([name, int(until), secrets.token_urlsafe(12)]).encode())
        return f"{text}.{self._sign(self._purpose(kind, name), text)}"

    def _checked(self, kind: str, token: str, now: float) -> Session | None:
        text, _, signature = token.partition(".")
        try:
            name, until, identity = json.loads(decode(text))
        except (ValueError, TypeError, RecursionError):
            return None
        if not isinstance(name, str) or not isinstance(until, int) or not isinstance(identity, str) or name not in self._logins:
            return None
        if not self._mine(self._purpose(kind, name), text, signature) or now >= until:
            return None
        return Session(name, identity, float(until))

    def session(self, name: str, until: float) -> str:
        """The cookie of somebody who has logged in."""
        return self._token("session", name, until)

    def who(self, token: str, now: float) -> Session | None:
        """Whose cookie it is; None when it is not ours, has ended, or its owner may not come any more."""
        return self._checked("session", token, now)

    def known(self, name: str, until: float) -> str:
        """The cookie of a browser somebody has logged in with: its owner is not shut out by strangers who try their name."""
        return self._token("known", name, until)

    def knows(self, token: str, name: str, now: float) -> bool:
        """Whether it is the cookie of a browser of that person."""
        found = self._checked("known", token, now)
        return found is not None and found.name == name

    def form(self, binding: str) -> str:
        """What a form carries, so that only a page of ours can send it. `binding` is what its browser keeps in a cookie, too."""
        return self._sign("form", binding)

    def form_is_ours(self, binding: str, token: str) -> bool:
        """Whether a form came from a page that this browser got from us."""
        return bool(binding) and self._mine("form", binding, token)

    def notice(self, identity: str, until: int) -> str:
        """The signature by which replicas believe each other that a session has ended."""
        return self._sign("ended", f"{identity} {until}")

    def notice_is_ours(self, identity: str, until: int, signature: str) -> bool:
        """Whether a replica of ours has written it."""
        return self._mine("ended", f"{identity} {until}", signature)


class Limiter:
    """At most `limit` failures of a key in `window` seconds. Holds `most` keys; the one that was quiet longest is forgotten first."""

    def __init__(self, limit: int, window: float, most: int = 10_000) -> None:
        self.limit, self.window, self.most = limit, window, most
        self._failures: OrderedDict[str, deque[float]] = OrderedDict()

    def wait(self, key: str, now: float) -> float:
        """Seconds until the key may try again; 0: now."""
        times = self._failures.get(key)
        if not times:
            return 0.0
        while times and times[0] <= now - self.window:
            times.popleft()
        return max(0.0, times[0] + self.window - now) if len(times) >= self.limit else 0.0

    def count(self, key: str, now: float) -> None:
        """One try, which `forgive` takes back when it was none of the bad ones: tries at the same time count, too."""
        times = self._failures.setdefault(key, deque(maxlen=self.limit))
        self._failures.move_to_end(key)
        times.append(now)
        while len(self._failures) > self.most:
            self._failures.popitem(last=False)

    def forgive(self, key: str, now: float) -> None:
        """The try that was counted at `now` was a good one."""
        times = self._failures.get(key)
        if times and now in times:
            times.remove(now)


def origin(address: str) -> str:
    """What a client's tries are counted by: an IPv4 address, or the network of 64 bits that an IPv6 client has for itself."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address[:64]
    mapped = getattr(found, "ipv4_mapped", None)
    if mapped is not None:
        return str(mapped)
    return str(ipaddress.ip_network((found, 64), strict=False)) if found.version == 6 else str(found)


def client(peer: str, forwarded: str, proxies: frozenset[str]) -> str:
    """Who asks: the peer itself, or whom a proxy of ours names. Only what our proxies wrote is believed, from the right."""
    address = peer
    for hop in reversed([part.strip() for part in forwarded.split(",") if part.strip()]):
        if address not in proxies:
            break
        try:
            address = str(ipaddress.ip_address(hop))
        except ValueError:
            break
    return address


def inside(path: str) -> str:
    """Where to go after the login: a path of this portal, whatever was asked for."""
    return path if re.fullmatch(r"/(?![/\\])[!-\[\]-~]*", path) and len(path) <= 500 else "/"
