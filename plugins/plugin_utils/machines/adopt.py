# SPDX-License-Identifier: Apache-2.0
"""Resources of a state that has no output of machines -> machines as the contract has them.

Which types of resources are machines, and where their fields stand, says ``resources.yml``.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import lru_cache
from ipaddress import AddressValueError, IPv4Address
from pathlib import Path
from typing import Any

from ansible_collections.ashlar.stack.plugins.plugin_utils.machines.getters import Getter, Resources, all_of, parse_getters
from ansible_collections.ashlar.stack.plugins.plugin_utils.machines.states.model import Resource, StateFault
from ansible_collections.ashlar.stack.plugins.plugin_utils.site.models import NODE_CLASSES
from ansible_collections.ashlar.stack.plugins.plugin_utils.site.nodes import safe_name
from ansible_collections.ashlar.stack.plugins.plugin_utils.site.reading import did_you_mean, listed, quoted, read_yaml

FIELDS = ("name", "id", "private_ip", "public_ip", "user", "port", "zone", "region", "labels", "classes")
Fields = Mapping[str, tuple[Getter, ...]]
_TABLE = Path(__file__).with_name("resources.yml")
_DEFAULTS = {"name": "name", "id": "id"}

_LABEL = re.compile(r"([a-z0-9.-]{1,253}/)?[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")
_LABEL_VALUE = re.compile(r"([A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)?")
_RESERVED = re.compile(r"(.*\.)?(kubernetes|k8s)\.io/")
_STEP = re.compile(r'([A-Za-z_][\w-]*)(\[(?:-?\d+|"(?:[^"\\]|\\.)*")\])?\.?')


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
    mappings: Mapping[str, Fields] = field(default_factory=dict)
    user: str | None = None


@dataclass(slots=True)
class Adopted:
    """``machines``: name -> machine as the contract's JSON; ``warnings``: sentences for the operator."""

    machines: dict[str, dict[str, Any]] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A resource that becomes a machine, with the name that it gives itself."""

    resource: Resource
    fields: Fields
    name: str
    labels: Mapping[str, str]
    classes: list[str]


def mappings_of(own: Mapping[str, Fields]) -> dict[str, Fields]:
    """The built-in types and those of the configuration, whose fields come first."""
    built_in = _built_in()
    default = {name: parse_getters(value) for name, value in _DEFAULTS.items()}
    return {type_: {**default, **built_in.get(type_, {}), **own.get(type_, {})} for type_ in (*built_in, *(name for name in own if name not in built_in))}


def adopt(resources: Sequence[Resource], adoption: Adoption, output: str | None) -> Adopted:
    """The machines among the resources, in the state's order.

    :param output: the name of the output that isn't there, for the error; None where there is one that isn't wanted.
    :raises StateFault: there is none, or some are not what a machine must be.
    """
    adopted = Adopted()
    found = Resources(resources)
    faults: list[str] = []
    machines = [one for one in resources if one.managed and one.type in adoption.mappings and not _is_gone(one, adoption.mappings[one.type], found)]
    if not machines:
        raise StateFault(_no_machine(resources, adoption, output))
    candidates, unclassified = _classified(machines, adoption, found, faults)
    for one, name in zip(candidates, _names(candidates, adopted.warnings, faults), strict=True):
        address = one.resource.address
        private_ip, seen = _address(one, "private_ip", found)
        if private_ip is None:
            only = f", only {quoted(seen)}" if seen is not None else ""
            faults.append(
                f"{address} has no private IPv4 address{only}; say where it stands under resources.{one.resource.type}.private_ip, or let it have one "
                "(a machine that gets it by DHCP must run, and its state be refreshed)"
            )
        get = _reader(one, found)
        user = get("user") or adoption.user
        if not user:
            faults.append(f"{address} doesn't say the user of SSH; set the option user, or resources.{one.resource.type}.user")
        machine = {
            "id": _optional_text(get("id")),
            "classes": one.classes,
            "private_ip": private_ip,
            "public_ip": _address(one, "public_ip", found)[0],
            "user": user,
            "port": _number(get("port")),
            "zone": _place(get("zone")),
            "region": _place(get("region")),
            "labels": node_labels(one.labels, {"Name", adoption.classes_from, *(key for key in one.labels if _begins(key, adoption.classes_from))}),
        }
        adopted.machines[name] = {key: value for key, value in machine.items() if value not in (None, {})}
        if one.resource.tainted:
            adopted.warnings.append(f"{address} ({name}) is tainted: the next apply replaces it.")
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


def as_labels(raw: Any) -> dict[str, str]:
    """Tags as a mapping of texts: from a mapping, or from ``key=value``, ``key:value`` and ``key`` in a list or a text with commas or semicolons."""
    if isinstance(raw, Mapping):
        return {str(key): _text(value) for key, value in raw.items() if isinstance(value, (str, int, float))}
    pairs = raw if isinstance(raw, list) else re.split(r"[;,\s]+", raw) if isinstance(raw, str) else []
    parted = (re.fullmatch(r"(.+?)(?:[=:](.*))?", pair.strip(), re.DOTALL) for pair in pairs if isinstance(pair, str))
    return {pair[1]: pair[2] or "" for pair in parted if pair}


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


@lru_cache(maxsize=1)
def _built_in() -> Mapping[str, Fields]:
    return {type_: {name: parse_getters(value) for name, value in fields.items()} for type_, fields in read_yaml(_TABLE).items()}


def _classified(machines: Iterable[Resource], adoption: Adoption, found: Resources, faults: list[str]) -> tuple[list[_Candidate], list[str]]:
    """Those that have classes, and the addresses of those whose classes nobody says."""
    candidates: list[_Candidate] = []
    unclassified: list[str] = []
    for one in machines:
        fields = adoption.mappings[one.type]
        name = safe_name(next(all_of(fields["name"], one.attributes, found), None)) or safe_name(_short(one.address))
        labels = as_labels(next(all_of(fields.get("labels", ()), one.attributes, found), None))
        classes, unknown = _classes(one, fields, labels, name, adoption, found)
        if unknown:
            hint = did_you_mean(unknown, NODE_CLASSES).strip() or f"allowed are {listed(NODE_CLASSES)}; a rule under classes can leave the machine out"
            faults.append(f"{one.address} says {quoted(unknown)} in {adoption.classes_from}, which is no node class ({hint})")
        elif classes is None:
            unclassified.append(one.address)
        elif classes:
            candidates.append(_Candidate(one, fields, name, labels, classes))
    return candidates, unclassified


def _classes(one: Resource, fields: Fields, labels: Mapping[str, str], name: str, adoption: Adoption, found: Resources) -> tuple[list[str] | None, str | None]:
    """(classes, a word that is none). The classes are None where nobody says them, and empty where a rule leaves the machine out."""
    rule = next((rule for rule in adoption.rules if rule.fits(name, one.type, labels)), None)
    # Who leaves machines out, or looks at the tag itself, has seen what the machine says.
    if rule is not None and (not rule.classes or adoption.classes_from in rule.labels):
        return list(rule.classes), None
    if "classes" in fields:
        # Tags of all kinds: only the words that are classes count.
        words = [word for word in class_words(next(all_of(fields["classes"], one.attributes, found), None)) if word in NODE_CLASSES]
    else:
        places = all_of(fields.get("says", fields.get("labels", ())), one.attributes, found)
        words = next((words for place in places if (words := _classes_in(place, adoption.classes_from))), [])
        unknown = [word for word in words if word not in NODE_CLASSES]
        if unknown:
            return None, unknown[0]
    if words:
        return words, None
    return (None if rule is None else list(rule.classes)), None


def _classes_in(place: Any, classes_from: str) -> list[str]:
    """The words that tags say under ``classes_from``."""
    tags = as_labels(place)
    if classes_from in tags or isinstance(place, Mapping):
        return class_words(tags.get(classes_from))
    # Tags that are no pairs may allow neither = nor :, as Proxmox', so `ashlar_classes.control` counts, too.
    behind = (class_words(key[len(classes_from) :]) for key in tags if _begins(key, classes_from))
    return next((words for words in behind if words and set(words) <= set(NODE_CLASSES)), [])


def _begins(key: str, classes_from: str) -> bool:
    return key.startswith(classes_from) and key[len(classes_from) :][:1] in (".", "-", "+")


def _names(candidates: Sequence[_Candidate], warnings: list[str], faults: list[str]) -> list[str]:
    """The names of all, those of namesakes with what tells them apart in their addresses."""
    names = [one.name for one in candidates]
    namesakes: dict[str, list[int]] = {}
    for index, name in enumerate(names):
        namesakes.setdefault(name, []).append(index)
    suffixed: list[str] = []
    for name, indexes in namesakes.items():
        if len(indexes) == 1:
            continue
        addresses = [candidates[index].resource.address for index in indexes]
        better = next((found for way in _WAYS if (found := _apart(name, [way(address) for address in addresses], namesakes))), None)
        if better is None:
            type_ = candidates[indexes[1]].resource.type
            faults.append(
                f"{addresses[0]} and {addresses[1]} are both named {name}, and neither index nor module tells them apart; "
                f"give them names of their own, or say another under resources.{type_}.name"
            )
            continue
        for index, one in zip(indexes, better, strict=True):
            names[index] = one
        suffixed += better
    twice = [name for name, count in Counter(names).items() if count > 1 and name in suffixed]
    faults += [f"{name} is the name of a machine and of another with its suffix; give them names of their own" for name in twice]
    if suffixed:
        shown = listed([*suffixed[:5], *([f"{len(suffixed) - 5} more"] if len(suffixed) > 5 else [])])
        warnings.append(f"Machines that share a name have their index or module behind it: {shown}. Names of their own stay the same when others come or go.")
    return names


def _apart(name: str, suffixes: Sequence[str], taken: Mapping[str, Any]) -> list[str] | None:
    """The names with the suffixes in their first label, which is what the machine will call itself; None where they are not all different."""
    first, dot, rest = name.partition(".")
    names = [safe_name(f"{first[: 62 - len(suffix)]}-{suffix}{dot}{rest}") for suffix in suffixes]
    return names if all(suffixes) and len(set(names)) == len(names) and not any(one in taken for one in names) else None


def _is_gone(one: Resource, fields: Fields, found: Resources) -> bool:
    return not one.attributes or any(True for _ in all_of(fields.get("gone", ()), one.attributes, found))


def _reader(one: _Candidate, found: Resources) -> Callable[[str], Any]:
    return lambda field_: next(all_of(one.fields.get(field_, ()), one.resource.attributes, found), None)


def _address(one: _Candidate, field_: str, found: Resources) -> tuple[str | None, Any]:
    """(The first address that another host could use, without its prefix length; what else was there)."""
    seen: Any = None
    for raw in all_of(one.fields.get(field_, ()), one.resource.attributes, found):
        for text in raw if isinstance(raw, list) else [raw]:
            bare = _text(text).split("/")[0].strip()
            try:
                address = IPv4Address(bare)
            except AddressValueError:
                seen = text if seen is None else seen
                continue
            if not (address.is_loopback or address.is_unspecified or address.is_link_local):
                return bare, None
    return None, seen


def _optional_text(raw: Any) -> str | None:
    return None if raw is None else _text(raw)


def _place(raw: Any) -> str | None:
    # Google's may be a URL that ends in the name.
    return None if raw is None else _text(raw).rpartition("/")[2] or None


def _number(raw: Any) -> Any:
    return int(raw) if isinstance(raw, str) and raw.isdecimal() and len(raw) < 6 else raw


def _text(raw: Any) -> str:
    return str(raw).lower() if isinstance(raw, bool) else str(raw)


def _steps(address: str) -> list[tuple[str, str]]:
    """``module.pool["a"].aws_instance.node[0]`` -> ``[("pool", "a"), ("node", "0")]``."""
    # Steps come in pairs: `module` and its name, at last the type and the resource's name.
    return [(step[1], (step[2] or "").strip('[]"')) for step in _STEP.finditer(address)][1::2]


def _joined(parts: Iterable[str]) -> str:
    return safe_name("-".join(part for part in parts if part).replace(".", "-"))


def _short(address: str) -> str:
    """``module.pool["a"].aws_instance.node[0]`` -> ``pool-a-node-0``."""
    return _joined(part for step in _steps(address) for part in step)


# What tells namesakes apart, in the order in which it is tried: their own index, all indexes on the way, modules, modules and all indexes.
_WAYS: tuple[Callable[[str], str], ...] = (
    lambda address: _joined([_steps(address)[-1][1]]),
    lambda address: _joined(index for _, index in _steps(address)),
    lambda address: _joined(module for module, _ in _steps(address)[:-1]),
    lambda address: _joined([*(part for step in _steps(address)[:-1] for part in step), _steps(address)[-1][1]]),
)


def _no_machine(resources: Sequence[Resource], adoption: Adoption, output: str | None) -> str:
    counts = Counter(one.type for one in resources if one.managed)
    found = listed(f"{type_} ({count})" for type_, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:6])
    start = f'has no output "{output}", and none' if output else "has to be adopted, and none"
    return (
        f"{start} of its resources is a machine that is known: {found}. "
        f"Known are {listed(adoption.mappings)}. Give the root an output, or say under resources how its machines are read."
    )
