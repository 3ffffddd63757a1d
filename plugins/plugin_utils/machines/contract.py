# SPDX-License-Identifier: Apache-2.0
"""What a machine is: schemas/machines.json as plain data, and everything in which a map of machines differs from it.

The check is written by hand, since a generic validator takes seconds for thousands of machines; a test holds it equal to the schema.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from ipaddress import AddressValueError, IPv4Address
from typing import Any

from ansible_collections.ashlar.stack.plugins.plugin_utils.site.models import NODE_CLASSES, Path_, Problem
from ansible_collections.ashlar.stack.plugins.plugin_utils.site.reading import did_you_mean, listed, quoted

FIELDS = (
    "id", "classes", "private_ip", "public_ip", "user", "port", "zone", "region", "labels", "volumes", "bastion", "ssh_host_keys",
    "load_balancers", "management",
)  # fmt: skip
REQUIRED = ("classes", "private_ip", "user")
PROTOCOLS = ("redfish", "ipmi")

_DNS_LABEL = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
_NAME = re.compile(rf"{_DNS_LABEL}(\.{_DNS_LABEL})*")
_USER = re.compile(r"[a-z_][a-z0-9_.-]{0,31}")
_ZONE = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")
_VOLUME = re.compile(_DNS_LABEL)
_HOST_KEY = re.compile(r"(ssh-ed25519|ssh-rsa|ecdsa-sha2-nistp(256|384|521)) [A-Za-z0-9+/]+=*")


@dataclass(frozen=True, slots=True)
class Volume:
    """A data volume. ``device`` is a path on the machine that stays the same across boots."""

    name: str
    size_gib: int
    device: str


@dataclass(frozen=True, slots=True)
class Bastion:
    """Through which host SSH goes. ``port`` is None where nobody says another than 22."""

    host: str
    user: str
    port: int | None = None


@dataclass(frozen=True, slots=True)
class Management:
    """The controller of the hardware: ``protocol`` is redfish or ipmi."""

    protocol: str
    address: str


@dataclass(frozen=True, slots=True)
class Machine:
    """A machine after schemas/machines.json; what is absent there is None or empty here."""

    classes: tuple[str, ...]
    private_ip: str
    user: str
    id: str | None = None
    public_ip: str | None = None
    port: int | None = None
    zone: str | None = None
    region: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    volumes: tuple[Volume, ...] = ()
    bastion: Bastion | None = None
    ssh_host_keys: tuple[str, ...] = ()
    load_balancers: Mapping[str, str] = field(default_factory=dict)
    management: Management | None = None


def parse_machines(raw: Mapping[str, Any], where: str, secret: bool = False) -> tuple[dict[str, Machine], list[Problem]]:
    """The machines that are right, in the order of ``raw``, and everything that is wrong with the others.

    :param raw: node name -> machine, as the output ``nodes`` has it.
    :param where: what to blame, for example ``terraform/aws: output nodes``.
    :param secret: no value is quoted in a problem (the output is marked as sensitive).
    """
    machines: dict[str, Machine] = {}
    problems: list[Problem] = []
    for name, fields in raw.items():
        check = _Check(where, str(name), secret)
        check.name()
        if not isinstance(fields, Mapping):
            check.wrong((), fields, f"a mapping of {listed(FIELDS)}")
        else:
            machine = check.machine(fields)
            if not check.problems:
                machines[str(name)] = machine
        problems += check.problems
    return machines, problems


def as_raw(machine: Machine) -> dict[str, Any]:
    """The machine as the contract's JSON has it, without what it doesn't have: ``parse_machines`` gives the same machine for it."""
    plain = {name: value for name, value in asdict(machine).items() if value is not None and value != () and value != {}}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in plain.items()}


class _Check:
    """One machine. Every method that reads a field notes what is wrong with it and gives a value of the right type."""

    def __init__(self, where: str, machine: str, secret: bool) -> None:
        self.where, self.of, self.secret = where, machine, secret
        self.problems: list[Problem] = []

    def problem(self, path: Path_, text: str) -> None:
        self.problems.append(Problem(self.where, (self.of, *path), text))

    def wrong(self, path: Path_, found: Any, allowed: str) -> None:
        shown = "not of the right form (the output is sensitive, so it isn't shown)" if self.secret else quoted(found)
        self.problem(path, f"is {shown}. Allowed: {allowed}.")

    def name(self) -> None:
        if not _NAME.fullmatch(self.of):
            self.problem((), "is not a valid node name. Allowed: small letters, digits and hyphens, labels of at most 63 separated by dots.")

    def machine(self, raw: Mapping[str, Any]) -> Machine:
        self.keys((), raw, FIELDS, REQUIRED)
        return Machine(
            classes=self.classes(raw.get("classes", ("control",))),
            private_ip=self.address("private_ip", raw.get("private_ip", "")) if "private_ip" in raw else "",
            user=self.user(("user",), raw["user"]) if "user" in raw else "",
            id=self.optional_text("id", raw.get("id")),
            public_ip=None if raw.get("public_ip") is None else self.address("public_ip", raw["public_ip"]),
            port=self.port(("port",), raw.get("port")),
            zone=self.place("zone", raw.get("zone")),
            region=self.place("region", raw.get("region")),
            labels=self.labels(raw.get("labels")),
            volumes=self.volumes(raw.get("volumes")),
            bastion=self.bastion(raw.get("bastion")),
            ssh_host_keys=self.host_keys(raw.get("ssh_host_keys")),
            load_balancers=self.load_balancers(raw.get("load_balancers")),
            management=self.management(raw.get("management")),
        )

    def keys(self, path: Path_, raw: Mapping[str, Any], known: Sequence[str], required: Iterable[str]) -> None:
        for key in raw:
            if key not in known:
                self.problem((*path, key), f"is an unknown field.{did_you_mean(str(key), known)} Allowed: {listed(known)}.")
        for key in required:
            if key not in raw:
                self.problem((*path, key), "is missing. Every machine has one; correct whatever writes the map.")

    def classes(self, raw: Any) -> tuple[str, ...]:
        if not isinstance(raw, (list, tuple)) or not raw:
            self.wrong(("classes",), raw, f"a list of at least one of {listed(NODE_CLASSES)}")
            return ()
        for index, one in enumerate(raw):
            if one not in NODE_CLASSES:
                hint = "" if self.secret else did_you_mean(str(one), NODE_CLASSES)
                self.wrong(("classes", index), one, f"{listed(NODE_CLASSES, 'or')}{f' ({hint.strip()})' if hint else ''}")
            elif raw.index(one) != index:
                self.problem(("classes",), f"names {one} twice. Remove one.")
        return tuple(one if isinstance(one, str) else "" for one in raw)

    def address(self, field: str, raw: Any) -> str:
        if not _is_ipv4(raw):
            self.wrong((field,), raw, "an IPv4 address without a prefix length, for example 10.0.0.11")
            return ""
        return str(raw)

    def user(self, path: Path_, raw: Any) -> str:
        if not isinstance(raw, str) or not _USER.fullmatch(raw):
            self.wrong(path, raw, "a user's name of small letters, digits, '_', '-' and '.', at most 32 characters")
            return ""
        return raw

    def port(self, path: Path_, raw: Any) -> int | None:
        if raw is None:
            return None
        number = _whole(raw)
        if number is None or not 1 <= number <= 65535:
            self.wrong(path, raw, "a number from 1 to 65535")
            return None
        return number

    def place(self, field: str, raw: Any) -> str | None:
        if raw is not None and (not isinstance(raw, str) or not _ZONE.fullmatch(raw)):
            self.wrong((field,), raw, "at most 63 letters, digits, '-', '_' and '.', starting and ending with a letter or digit")
            return None
        return raw

    def labels(self, raw: Any) -> Mapping[str, str]:
        if raw is None:
            return {}
        if not isinstance(raw, Mapping):
            self.wrong(("labels",), raw, "a mapping of label to text")
            return {}
        for key, value in raw.items():
            if not isinstance(value, str) or len(value) > 63:
                self.wrong(("labels", str(key)), value, "a text of at most 63 characters; numbers and true/false in quotation marks")
        return dict(raw)

    def volumes(self, raw: Any) -> tuple[Volume, ...]:
        known = ("name", "size_gib", "device")
        volumes: list[Volume] = []
        for index, one in enumerate(self.items("volumes", raw, "a list of volumes")):
            where: Path_ = ("volumes", index)
            if not self.mapping(where, one, known, known):
                continue
            name, size, device = one["name"], _whole(one["size_gib"]), one["device"]
            if not isinstance(name, str) or not _VOLUME.fullmatch(name):
                self.wrong((*where, "name"), name, "small letters, digits and hyphens, at most 63")
            elif size is None or size < 1:
                self.wrong((*where, "size_gib"), one["size_gib"], "a whole number of GiB, at least 1")
            elif not isinstance(device, str) or not device.startswith("/"):
                self.wrong((*where, "device"), device, "a path on the machine that stays the same across boots, such as /dev/disk/by-id/...")
            else:
                volumes.append(Volume(name, size, device))
        return tuple(volumes)

    def bastion(self, raw: Any) -> Bastion | None:
        if raw is None or not self.mapping(("bastion",), raw, ("host", "user", "port"), ("host", "user")):
            return None
        host = self.text(("bastion", "host"), raw["host"])
        return Bastion(host, self.user(("bastion", "user"), raw["user"]), self.port(("bastion", "port"), raw.get("port")))

    def host_keys(self, raw: Any) -> tuple[str, ...]:
        keys = self.items("ssh_host_keys", raw, "a list of public keys")
        for index, key in enumerate(keys):
            if not isinstance(key, str) or not _HOST_KEY.fullmatch(key):
                self.wrong(("ssh_host_keys", index), key, "a public host key, type and base64 without a comment: ssh-ed25519 AAAA...")
        return tuple(keys)

    def load_balancers(self, raw: Any) -> Mapping[str, str]:
        if raw is None or not self.mapping(("load_balancers",), raw, NODE_CLASSES, ()):
            return {}
        return {name: self.text(("load_balancers", name), address) for name, address in raw.items()}

    def management(self, raw: Any) -> Management | None:
        if raw is None or not self.mapping(("management",), raw, ("protocol", "address"), ("protocol", "address")):
            return None
        if raw["protocol"] not in PROTOCOLS:
            self.wrong(("management", "protocol"), raw["protocol"], listed(PROTOCOLS, "or"))
        return Management(str(raw["protocol"]), self.text(("management", "address"), raw["address"]))

    def mapping(self, path: Path_, raw: Any, known: Sequence[str], required: Sequence[str]) -> bool:
        """Whether it is a mapping that has what it must have."""
        if not isinstance(raw, Mapping):
            self.wrong(path, raw, f"a mapping of {listed(known)}")
            return False
        self.keys(path, raw, known, required)
        return all(key in raw for key in required)

    def items(self, field: str, raw: Any, allowed: str) -> list[Any]:
        if raw is None:
            return []
        if not isinstance(raw, (list, tuple)):
            self.wrong((field,), raw, allowed)
            return []
        return list(raw)

    def text(self, path: Path_, raw: Any) -> str:
        if not isinstance(raw, str) or not raw:
            self.wrong(path, raw, "a text that isn't empty")
            return ""
        return raw

    def optional_text(self, field: str, raw: Any) -> str | None:
        return None if raw is None else self.text((field,), raw) or None


def _whole(raw: Any) -> int | None:
    # A number without a fraction is a whole one in JSON, however it is written.
    if isinstance(raw, bool) or not isinstance(raw, (int, float)) or raw != raw or raw in (float("inf"), float("-inf")) or raw != int(raw):
        return None
    return int(raw)


@lru_cache(maxsize=16384)
def _is_ipv4_text(text: str) -> bool:
    try:
        IPv4Address(text)
    except AddressValueError:
        return False
    return True


def _is_ipv4(raw: Any) -> bool:
    return isinstance(raw, str) and _is_ipv4_text(raw)
