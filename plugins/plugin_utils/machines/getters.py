# SPDX-License-Identifier: Apache-2.0
"""The small language that says where in a resource, or in another one that belongs to it, a value stands.

``resources.yml`` is written in it, and so is the option ``resources`` of the Terraform inventory, whose documentation describes it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.ashlar.stack.plugins.plugin_utils.machines.states.model import Resource
from ansible_collections.ashlar.stack.plugins.plugin_utils.site.reading import quoted

_PART = re.compile(r'"([^"]*)"|([^."]+)')
_NOTHING: tuple[Any, ...] = (None, "", [], {})
_ALLOWED = "a path such as network.0.ip, {value: X}, {path: P, match: R, where: {key: value}, resource: TYPE, by: ATTRIBUTE, of: P}, or a list of these"


class Resources:
    """The resources of a state, found by the value of an attribute."""

    def __init__(self, resources: Sequence[Resource] = ()) -> None:
        self._resources = resources
        self._index: dict[tuple[str, str], dict[str, list[Mapping[str, Any]]]] = {}

    def find(self, type_: str, attribute: str, value: Any) -> Sequence[Mapping[str, Any]]:
        """The attributes of all resources of the type whose ``attribute`` is ``value``."""
        key = (type_, attribute)
        if key not in self._index:
            self._index[key] = {}
            for one in self._resources:
                if one.type == type_ and one.attributes.get(attribute) not in _NOTHING:
                    self._index[key].setdefault(_id(one.attributes[attribute]), []).append(one.attributes)
        return self._index[key].get(_id(value), ())


@dataclass(frozen=True, slots=True)
class Getter:
    """One way to values. ``path``: keys, indexes and ``*``; without it, ``value`` itself. ``where``: what the mapping that holds the last key must
    hold, too. ``match`` picks a part of a text. With ``resource``, the path starts in the resources of that type whose attribute ``by`` is what ``of``
    finds in this one.
    """

    path: tuple[str | int, ...] = ()
    value: Any = None
    match: re.Pattern[str] | None = None
    where: Mapping[str, str] = field(default_factory=dict)
    resource: str = ""
    by: str = "id"
    of: tuple[Getter, ...] = ()

    def all(self, attributes: Mapping[str, Any], resources: Resources) -> Iterator[Any]:
        """Every value on the way that isn't empty, in order."""
        if not self.resource:
            yield from self._read(attributes)
            return
        for key in all_of(self.of, attributes, resources):
            for other in resources.find(self.resource, self.by, key):
                yield from self._read(other)

    def _read(self, attributes: Mapping[str, Any]) -> Iterator[Any]:
        for found in _walk(attributes, self.path, self.where) if self.path else (self.value,):
            if found in _NOTHING:
                continue
            if self.match is None:
                yield found
                continue
            for text in found if isinstance(found, list) else [found]:
                hit = self.match.search(str(text))
                if hit and (picked := hit.group(1 if self.match.groups else 0)):
                    yield picked


def all_of(getters: Iterable[Getter], attributes: Mapping[str, Any], resources: Resources) -> Iterator[Any]:
    """What all getters find, one after the other."""
    for getter in getters:
        yield from getter.all(attributes, resources)


def parse_getters(raw: Any) -> tuple[Getter, ...]:
    """A field's value in the configuration: a path, a mapping, or a list of these.

    :raises ValueError: with what is wrong, as the end of a sentence that begins with the field.
    """
    return tuple(_getter(one) for one in (raw if isinstance(raw, list) else [raw]))


def _getter(raw: Any) -> Getter:
    if isinstance(raw, str):
        return Getter(path=_path(raw))
    if not isinstance(raw, Mapping) or not _well_formed(raw):
        raise ValueError(f"is {quoted(raw)}. Allowed: {_ALLOWED}.")
    pattern = None
    if "match" in raw:
        try:
            pattern = re.compile(str(raw["match"]))
        except re.error as error:
            raise ValueError(f"has a match that is no regular expression: {error}. Correct it.") from None
    if "value" in raw:
        return Getter(value=raw["value"], match=pattern)
    where = {str(key): _text(value) for key, value in raw.get("where", {}).items()}
    of = parse_getters(raw.get("of", "id")) if "resource" in raw else ()
    return Getter(_path(str(raw["path"])), None, pattern, where, raw.get("resource", ""), raw.get("by", "id"), of)


def _well_formed(raw: Mapping[str, Any]) -> bool:
    if "value" in raw:
        return set(raw) <= {"value", "match"}
    known = {"path", "match", "where", *(("resource", "by", "of") if "resource" in raw else ())}
    texts = (raw.get("resource", "id"), raw.get("by", "id"))
    return "path" in raw and set(raw) <= known and isinstance(raw.get("where", {}), Mapping) and all(isinstance(text, str) and text for text in texts)


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


def _walk(value: Any, path: tuple[str | int, ...], where: Mapping[str, str]) -> Iterator[Any]:
    if not path:
        yield value
        return
    part, rest = path[0], path[1:]
    if part == "*":
        for one in value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ():
            yield from _walk(one, rest, where)
    elif isinstance(value, Mapping):
        if rest or all(_text(value.get(key)) == wanted for key, wanted in where.items()):
            yield from _walk(value.get(str(part)), rest, where)
    elif isinstance(value, list) and isinstance(part, int) and part < len(value):
        yield from _walk(value[part], rest, where)


def _id(raw: Any) -> str:
    # Azure writes one and the same ID in small and in capital letters.
    return _text(raw).lower()


def _text(raw: Any) -> str:
    return str(raw).lower() if isinstance(raw, bool) else str(raw)
