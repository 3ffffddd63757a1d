# SPDX-License-Identifier: Apache-2.0
"""Resources of a state that has no output of machines -> machines as the contract has them.

Every type of resource is described in the same small language, the built-in ones too: field of the machine -> where it stands.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from ansible_collections.ashlar.stack.plugins.plugin_utils.machines.states.model import Resource, StateFault
from ansible_collections.ashlar.stack.plugins.plugin_utils.site.models import NODE_CLASSES
from ansible_collections.ashlar.stack.plugins.plugin_utils.site.reading import did_you_mean, listed, quoted

FIELDS = ("name", "id", "private_ip", "public_ip", "user", "port", "zone", "labels", "classes")
BUILT_IN: Mapping[str, Mapping[str, Any]] = {
    "aws_instance": {
        "name": "tags.Name",
        "private_ip": "private_ip",
        "public_ip": "public_ip",
        "zone": "availability_zone",
        "labels": ["tags_all", "tags"],
    },
    "google_compute_instance": {
        "id": ["instance_id", "id"],
        "private_ip": "network_interface.*.network_ip",
        "public_ip": "network_interface.*.access_config.*.nat_ip",
        "zone": "zone",
        "labels": "labels",
    },
    "openstack_compute_instance_v2": {
        "private_ip": ["network.*.fixed_ip_v4", "access_ip_v4"],
        "public_ip": "network.*.floating_ip",
        "zone": "availability_zone",
        "labels": ["metadata", "all_metadata"],
    },
}
_SAYS = {
    "aws_instance": ("tags", "tags_all"),
    "google_compute_instance": ("labels", "metadata"),
    "openstack_compute_instance_v2": ("metadata", "all_metadata"),
}
"""Where machines of a built-in type say their classes, under the key that ``classes_from`` names."""
_GONE = {
    "aws_instance": ("instance_state", ("terminated", "shutting-down")),
    "openstack_compute_instance_v2": ("power_state", ("deleted", "soft_deleted", "soft-deleted")),
}
_PUBLIC = {
    "aws_eip": (("instance", "public_ip"),),
    "aws_eip_association": (("instance_id", "public_ip"),),
    "openstack_compute_floatingip_associate_v2": (("instance_id", "floating_ip"),),
    "openstack_networking_floatingip_associate_v2": (("port_id", "floating_ip"),),
    "openstack_networking_floatingip_v2": (("port_id", "address"),),
}
"""Resources that give a machine its public address: (attribute that names the machine or its port, attribute with the address)."""

_LABEL = re.compile(r"([a-z0-9.-]{1,253}/)?[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")
_LABEL_VALUE = re.compile(r"([A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)?")
_RESERVED = re.compile(r"(.*\.)?(kubernetes|k8s)\.io/")
_PART = re.compile(r'"([^"]*)"|([^."]+)')
_STEP = re.compile(r'([A-Za-z_][\w-]*)(\[(?:-?\d+|"(?:[^"\\]|\\.)*")\])?\.?')


@dataclass(frozen=True, slots=True)
class Getter:
    """One way to a value: a path of keys, indexes and ``*``, or the value itself; ``match`` picks a part of a text."""

    path: tuple[str | int, ...] = ()
    value: Any = None
    match: re.Pattern[str] | None = None

    def get(self, attributes: Mapping[str, Any]) -> Any:
        """The value, or None where nothing is."""
        found = self.value if not self.path else _walk(attributes, self.path)
        if self.match is None or found is None:
            return found
        hit = next((hit for hit in (self.match.search(str(one)) for one in (found if isinstance(found, list) else [found])) if hit), None)
        return None if hit is None else hit.group(1 if self.match.groups else 0)


@dataclass(frozen=True, slots=True)
class Rule:
    """Which machines have ``classes`` that don't say so themselves."""

    classes: tuple[str, ...]
    name: str = "*"
    type: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)

    def fits(self, name: str, type_: str, labels: Mapping[str, str]) -> bool:
        return fnmatchcase(name, self.name) and self.type in (None, type_) and all(labels.get(key) == value for key, value in self.labels.items())


@dataclass(frozen=True, slots=True)
class Adoption:
    """What the configuration says about resources. ``mappings``: resource type -> field -> the ways to it, in order."""

    classes_from: str = "ashlar_classes"
    rules: tuple[Rule, ...] = ()
    mappings: Mapping[str, Mapping[str, tuple[Getter, ...]]] = field(default_factory=dict)
    user: str | None = None


@dataclass(slots=True)
class Adopted:
    """``machines``: name -> machine as the contract's JSON; ``warnings``: sentences for the operator."""

    machines: dict[str, dict[str, Any]] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


def parse_getters(raw: Any) -> tuple[Getter, ...]:
    """A field's value in the configuration: a path, a mapping, or a list of these.

    :raises ValueError: with what is wrong, as the end of a sentence that begins with the field.
    """
    return tuple(_getter(one) for one in (raw if isinstance(raw, list) else [raw]))


def mappings_of(own: Mapping[str, Mapping[str, tuple[Getter, ...]]]) -> dict[str, dict[str, tuple[Getter, ...]]]:
    """The built-in types and those of the configuration, whose fields come first."""
    default = {"name": parse_getters("name"), "id": parse_getters("id")}
    built_in = {type_: {name: parse_getters(value) for name, value in fields.items()} for type_, fields in BUILT_IN.items()}
    return {type_: {**default, **built_in.get(type_, {}), **own.get(type_, {})} for type_ in (*built_in, *(name for name in own if name not in built_in))}


def adopt(resources: Sequence[Resource], adoption: Adoption, output: str) -> Adopted:
    """The machines among the resources, in the state's order.

    :param output: the name of the output that isn't there, for the error.
    :raises StateFault: there is none, or some are not what a machine must be.
    """
    adopted = Adopted()
    owners: dict[str, str] = {}
    faults: list[str] = []
    unclassified: list[str] = []
    candidates = [one for one in resources if one.type in adoption.mappings and not _gone(one)]
    if not candidates:
        raise StateFault(_no_machine(resources, adoption, output))
    public = _public_addresses(resources)
    for one in candidates:
        fields = adoption.mappings[one.type]
        got = {name: _first(getters, one.attributes) for name, getters in fields.items()}
        name = safe_name(got.get("name")) or safe_name(_short(one.address))
        labels = as_labels(got.get("labels"))
        classes, unknown = _classes(one, got, labels, name, adoption, "classes" in fields)
        if unknown:
            hint = did_you_mean(unknown[0], NODE_CLASSES).strip() or f"allowed are {listed(NODE_CLASSES)}"
            faults.append(f"{one.address} says {quoted(unknown[0])} in {adoption.classes_from}, which is no node class ({hint})")
            continue
        if classes is None:
            unclassified.append(one.address)
        if not classes:
            continue
        if name in owners:
            faults.append(
                f"{owners[name]} and {one.address} are both named {name}; give them names of their own, or say another under resources.{one.type}.name"
            )
            continue
        private_ip = _bare(got.get("private_ip"))
        if private_ip is None:
            faults.append(f"{one.address} has no private address; say where it stands under resources.{one.type}.private_ip, or let it have one")
            continue
        user = got.get("user") or adoption.user
        if not user:
            faults.append(f"{one.address} doesn't say the user of SSH; set the option user, or resources.{one.type}.user")
            continue
        owners[name] = one.address
        machine = {
            "id": None if got.get("id") is None else str(got["id"]) or None,
            "classes": classes,
            "private_ip": private_ip,
            "public_ip": _public(one, got, public),
            "user": user,
            "port": _number(got.get("port")),
            "zone": _zone(got.get("zone")),
            "labels": node_labels(labels, {adoption.classes_from, "Name"}),
        }
        adopted.machines[name] = {key: value for key, value in machine.items() if value not in (None, {})}
        if one.tainted:
            adopted.warnings.append(f"{one.address} ({name}) is tainted: the next apply replaces it.")
    if faults:
        more = f", and {len(faults) - 5} more of this kind" if len(faults) > 5 else ""
        raise StateFault(f"has resources that are no machines as they are: {'; '.join(faults[:5])}{more}.")
    if unclassified:
        shown = listed([*unclassified[:5], *([f"{len(unclassified) - 5} more"] if len(unclassified) > 5 else [])])
        note = f"no node class is said for {shown}: tag them with {adoption.classes_from}, or write a rule under classes (an empty list leaves them out)."
        if not adopted.machines:
            raise StateFault(f"has machines, but {note}")
        adopted.warnings.append(f"Left out, since {note}")
    return adopted


def safe_name(text: Any) -> str:
    """A node name made of a text: small letters, digits, hyphens and dots; empty where nothing is left."""
    if not isinstance(text, (str, int)):
        return ""
    labels = (re.sub(r"[^a-z0-9]+", "-", label).strip("-")[:63].rstrip("-") for label in str(text).lower().split("."))
    return ".".join(label for label in labels if label)


def as_labels(raw: Any) -> dict[str, str]:
    """Tags as a mapping of texts, from a mapping or a list of ``key=value``."""
    if isinstance(raw, Mapping):
        return {str(key): _text(value) for key, value in raw.items() if isinstance(value, (str, int, float))}
    if isinstance(raw, list):
        return dict(pair.split("=", 1) for pair in raw if isinstance(pair, str) and "=" in pair)
    return {}


def node_labels(tags: Mapping[str, str], without: Iterable[str] = ()) -> dict[str, str]:
    """Those tags that may be labels of a node in Kubernetes; what clouds and Kubernetes reserve for themselves is left out."""
    return {
        key: value
        for key, value in tags.items()
        if key not in without and _LABEL.fullmatch(key) and _LABEL_VALUE.fullmatch(value) and not _RESERVED.match(key) and not key.startswith("aws:")
    }


def class_words(raw: Any) -> list[str]:
    """The words in what says classes: a text separated by anything but letters, or a list of texts."""
    texts = raw if isinstance(raw, list) else [raw]
    return list(dict.fromkeys(word for text in texts if isinstance(text, str) for word in re.findall(r"[a-z]+", text.lower())))


def _getter(raw: Any) -> Getter:
    if isinstance(raw, str):
        return Getter(path=_path(raw))
    if not isinstance(raw, Mapping) or not ("path" in raw) ^ ("value" in raw) or not set(raw) <= {"path", "value", "match"}:
        raise ValueError(f"is {quoted(raw)}. Allowed: a path such as network.0.ip, {{value: X}}, {{path: P, match: R}}, or a list of these.")
    pattern = None
    if "match" in raw:
        try:
            pattern = re.compile(str(raw["match"]))
        except re.error as error:
            raise ValueError(f"has a match that is no regular expression: {error}. Correct it.") from None
    if "value" in raw:
        return Getter(value=raw["value"], match=pattern)
    return Getter(path=_path(str(raw["path"])), match=pattern)


def _path(text: str) -> tuple[str | int, ...]:
    parts: list[str | int] = []
    position = 0
    while position <= len(text):
        part = _PART.match(text, position)
        if not part or part.end() < len(text) and text[part.end()] != ".":
            raise ValueError(f'is {quoted(text)}, no path. Allowed: parts with dots between them; one that has dots itself in double quotes: tags."a.b".')
        quoted_part, plain = part.groups()
        parts.append(int(plain) if plain is not None and plain.isdecimal() else plain if plain is not None else quoted_part)
        position = part.end() + 1
    return tuple(parts)


def _walk(value: Any, path: tuple[str | int, ...]) -> Any:
    for index, part in enumerate(path):
        if part == "*" and isinstance(value, (list, Mapping)):
            rest = path[index + 1 :]
            parts = value.values() if isinstance(value, Mapping) else value
            return next((found for found in (_walk(one, rest) for one in parts) if found not in (None, "")), None)
        if isinstance(value, Mapping):
            value = value.get(str(part))
        elif isinstance(value, list) and isinstance(part, int) and part < len(value):
            value = value[part]
        else:
            return None
    return value


def _first(getters: Iterable[Getter], attributes: Mapping[str, Any]) -> Any:
    return next((found for found in (getter.get(attributes) for getter in getters) if found not in (None, "", [], {})), None)


def _classes(
    one: Resource, got: Mapping[str, Any], labels: Mapping[str, str], name: str, adoption: Adoption, mapped: bool
) -> tuple[list[str] | None, list[str]]:
    """(classes, words that are none). The classes are None where nobody says them, and empty where a rule leaves the machine out."""
    if mapped:
        # Tags of all kinds: only the words that are classes count.
        words = [word for word in class_words(got.get("classes")) if word in NODE_CLASSES]
    else:
        said = (one.attributes.get(place) for place in _SAYS.get(one.type, ()))
        words = class_words(next((place[adoption.classes_from] for place in said if isinstance(place, Mapping) and adoption.classes_from in place), None))
        unknown = [word for word in words if word not in NODE_CLASSES]
        if unknown:
            return None, unknown
    if words:
        return words, []
    rule = next((rule for rule in adoption.rules if rule.fits(name, one.type, labels)), None)
    return (None if rule is None else list(rule.classes)), []


def _gone(one: Resource) -> bool:
    attribute, states = _GONE.get(one.type, ("", ()))
    return not one.attributes or str(one.attributes.get(attribute, "")).lower() in states


def _public_addresses(resources: Iterable[Resource]) -> dict[str, str]:
    addresses: dict[str, str] = {}
    for one in resources:
        for target, address in _PUBLIC.get(one.type, ()):
            if one.attributes.get(target) and one.attributes.get(address):
                addresses[str(one.attributes[target])] = str(one.attributes[address])
    return addresses


def _public(one: Resource, got: Mapping[str, Any], public: Mapping[str, str]) -> str | None:
    if public:
        ports = (part.get("port") for part in one.attributes.get("network") or () if isinstance(part, Mapping)) if one.type.startswith("openstack_") else ()
        for key in (str(got.get("id")), *(str(port) for port in ports)):
            if key in public:
                return public[key]
    return _bare(got.get("public_ip"))


def _bare(raw: Any) -> str | None:
    """An address without its prefix length."""
    if isinstance(raw, list):
        raw = next((one for one in raw if isinstance(one, str)), None)
    return None if raw is None else _text(raw).split("/")[0].strip() or None


def _zone(raw: Any) -> str | None:
    # Google's may be a URL that ends in the name.
    return None if raw is None else _text(raw).rpartition("/")[2] or None


def _number(raw: Any) -> Any:
    return int(raw) if isinstance(raw, str) and raw.isdecimal() and len(raw) < 6 else raw


def _text(raw: Any) -> str:
    return str(raw).lower() if isinstance(raw, bool) else str(raw)


def _short(address: str) -> str:
    """``module.pool["a"].aws_instance.node[0]`` -> ``pool-a-node-0``."""
    # Steps come in pairs: `module` and its name, at last the type and the resource's name.
    steps = [(step[1], step[2] or "") for step in _STEP.finditer(address)][1::2]
    return "-".join(part.strip('[]"') for step in steps for part in step if part).replace(".", "-")


def _no_machine(resources: Sequence[Resource], adoption: Adoption, output: str) -> str:
    counts: dict[str, int] = {}
    for one in resources:
        counts[one.type] = counts.get(one.type, 0) + 1
    found = listed(f"{type_} ({count})" for type_, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:6])
    return (
        f'has no output "{output}", and none of its resources is a machine that is known: {found}. '
        f"Known are {listed(adoption.mappings)}. Give the root an output, or say under resources how its machines are read."
    )
