# SPDX-License-Identifier: Apache-2.0
"""Instances of a provider become machines: which tag says what. The same for all providers, and without asking any of them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from ansible_collections.ashlar.stack.plugins.plugin_utils.machines.clouds.common import Disk, Instance, format_filters
from ansible_collections.ashlar.stack.plugins.plugin_utils.machines.contract import Machine, parse_machines
from ansible_collections.ashlar.stack.plugins.plugin_utils.report import count, some
from ansible_collections.ashlar.stack.plugins.plugin_utils.site.models import NODE_CLASSES, Problem

_VOLUME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_PAIR = re.compile(r"([^\s,=]+)=([^\s,]*)")


@dataclass(frozen=True, slots=True)
class Rule:
    """Node classes of instances that don't say them: where the name's pattern and all labels fit. No classes: none of ours."""

    name: str
    labels: Mapping[str, str]
    classes: tuple[str, ...]

    def fits(self, name: str, tags: Mapping[str, str]) -> bool:
        return fnmatchcase(name, self.name) and all(tags.get(label) == value for label, value in self.labels.items())


@dataclass(frozen=True, slots=True)
class Sources:
    """Where a machine's fields come from: names of tags. ``labels`` is a tag that holds pairs, or node label -> tag.

    ``names`` is empty where the provider's own name counts. ``kind`` is the provider's word for a tag, ``where`` what an error blames.
    """

    where: str
    kind: str
    classes: str = "ashlar_classes"
    names: str = ""
    zones: str = ""
    labels: str | Mapping[str, str] = "ashlar_labels"
    users: str = "ashlar_user"
    volumes: str = "ashlar_volume"
    user: str | None = None
    rules: tuple[Rule, ...] = ()
    load_balancers: Mapping[str, str] = field(default_factory=dict)

    @property
    def tags(self) -> tuple[str, ...]:
        """All that are read."""
        of_labels = (self.labels,) if isinstance(self.labels, str) else tuple(self.labels.values())
        return tuple(tag for tag in (self.classes, self.names, self.zones, self.users, *of_labels) if tag)


@dataclass(frozen=True, slots=True)
class Found:
    """``machines`` by name, in the order of names as Terraform has them; ``instances`` are theirs."""

    machines: Mapping[str, Machine]
    instances: Mapping[str, Instance]
    problems: Sequence[Problem]


def machines_of(instances: Iterable[Instance], sources: Sources) -> Found:
    """The machines, and everything for which an instance can't be one. Many instances with the same trouble are one problem."""
    named: dict[str, list[Instance]] = {}
    nameless: list[Instance] = []
    for instance in instances:
        name = instance.tags.get(sources.names, "") if sources.names else instance.name
        if name:
            named.setdefault(name, []).append(instance)
        else:
            nameless.append(instance)
    troubles: dict[tuple[str, str], list[str]] = {}
    if nameless:
        trouble = f"no name (their {sources.kind} {sources.names} is absent or empty)" if sources.names else "no name"
        troubles[trouble, f"Set it, or say in the option names_from which {sources.kind} holds it."] = [
            f"{instance.id} ({instance.region})" for instance in nameless
        ]
    problems = [_twice(sources.where, name, same) for name, same in named.items() if len(same) > 1]
    raw: dict[str, dict[str, Any]] = {}
    for name in sorted(named):
        instance = named[name][0]
        classes = _classes(name, instance, sources)
        if classes is not None and not classes:
            continue
        machine = _machine(name, instance, sources, classes or [])
        for what, remedy, there in _musts(sources, machine):
            if not there:
                troubles.setdefault((what, remedy), []).append(f"{name} ({instance.id}, {instance.region})")
        raw[name] = machine
    problems += [Problem(sources.where, (), _have(names, *trouble)) for trouble, names in troubles.items()]
    lacking = {name for name, machine in raw.items() if not all(there for *_, there in _musts(sources, machine))}
    machines, wrong = parse_machines({name: machine for name, machine in raw.items() if name not in lacking}, sources.where)
    return Found(machines, {name: named[name][0] for name in machines}, [*problems, *wrong])


def _twice(where: str, name: str, same: Sequence[Instance]) -> Problem:
    who = some([f"{instance.id} ({instance.region})" for instance in same])
    text = f"is the name of {len(same)} instances: {who}. A node's name is its own; rename all but one, or narrow the options filters or regions."
    return Problem(where, (name,), text)


def _have(names: Sequence[str], what: str, remedy: str) -> str:
    return f"{count(len(names), 'instance')} {'has' if len(names) == 1 else 'have'} {what}: {some(names)}. {remedy}"


def _musts(sources: Sources, machine: Mapping[str, Any]) -> list[tuple[str, str, Any]]:
    """What is lacking, what to do, and whether it is there."""
    of_classes = f"Set the {sources.kind} {sources.classes} to one or more of {', '.join(NODE_CLASSES)}, separated by an underscore (control_worker)"
    return [
        ("no node classes", f"{of_classes}, give rules in the option classes, or leave them out by the option filters.", machine["classes"]),
        (
            "no private IPv4 address, by which nodes reach each other",
            "Wait until they have booted, give them one, or see that the option network is right (OpenStack).",
            machine["private_ip"],
        ),
        ("no user of SSH", f"Set the option user, or the {sources.kind} {sources.users}.", machine["user"]),
    ]


def _machine(name: str, instance: Instance, sources: Sources, classes: Sequence[str]) -> dict[str, Any]:
    return {
        "id": instance.id,
        "classes": list(classes),
        "private_ip": instance.private_ip,
        "public_ip": instance.public_ip,
        "user": instance.tags.get(sources.users) or sources.user,
        "zone": instance.tags.get(sources.zones) or instance.zone or None,
        "region": instance.region or None,
        "labels": _labels(instance.tags, sources.labels),
        "volumes": [volume_of(disk, name, sources.volumes) for disk in instance.disks],
        "load_balancers": dict(sources.load_balancers),
    }


def _classes(name: str, instance: Instance, sources: Sources) -> list[str] | None:
    """None where nothing says them, empty where a rule says that the instance is none of ours.

    Words are separated by anything but letters: an underscore is the one separator that tags, labels and metadata of all clouds allow.
    """
    said = instance.tags.get(sources.classes, "")
    if said:
        return [word for word in re.split(r"[^A-Za-z]+", said) if word]
    return next((list(rule.classes) for rule in sources.rules if rule.fits(name, instance.tags)), None)


def _labels(tags: Mapping[str, str], source: str | Mapping[str, str]) -> dict[str, str]:
    if isinstance(source, str):
        return dict(_PAIR.findall(tags.get(source, "")))
    return {label: tags[tag] for label, tag in source.items() if tag in tags}


def volume_of(disk: Disk, node: str, tag: str) -> dict[str, Any]:
    """A volume of the contract. It is called by its tag, else by its own name without the node's in front, else by its id."""
    own = disk.name.removeprefix(node).lstrip("-_/. ")
    name = next((name for name in (disk.tags.get(tag, ""), own) if _VOLUME.fullmatch(name)), disk.id)
    return {"name": name, "size_gib": disk.size_gib, "device": disk.device}


def nothing_matches(everything: Sequence[Instance], filters: Mapping[str, tuple[str, ...]], running: bool, asked: str, kind: str) -> str:
    """Why a question found nothing: what was asked, how many instances there are without it, and what their tags are.

    :param everything: all instances of the same regions, whatever their tags and state.
    """
    of = f"no {'running ' if running else ''}instance {asked}"
    if not everything:
        return f"{of} was found, and there is none at all. See that the credentials are of the right account and that the option regions is right."
    up = sum(instance.running for instance in everything)
    text = f"{of} matches {format_filters(filters)}. Without filters there {'is 1' if len(everything) == 1 else f'are {len(everything)}'}, {up} of them running"
    for tag in filters:
        values: dict[str, int] = {}
        for instance in everything:
            if tag in instance.tags:
                values[instance.tags[tag]] = values.get(instance.tags[tag], 0) + 1
        if values:
            text += f"; their {kind} {tag} is {some([f'{value} ({number})' for value, number in sorted(values.items(), key=lambda item: -item[1])])}"
        else:
            text += f"; none has the {kind} {tag}"
    return f"{text}. Correct the option filters, or make the machines first."


def stored(instances: Iterable[Instance]) -> list[dict[str, Any]]:
    """Instances as plain data, for the cache."""
    return [asdict(instance) for instance in instances]


def restored(raw: Iterable[Mapping[str, Any]]) -> list[Instance]:
    """The opposite. :raises TypeError, KeyError: it is not of this version's shape."""
    return [Instance(**{**instance, "disks": tuple(Disk(**disk) for disk in instance["disks"])}) for instance in raw]
