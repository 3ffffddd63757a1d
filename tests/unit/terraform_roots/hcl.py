# SPDX-License-Identifier: Apache-2.0
"""Modules of Terraform as data: what stands in the .tf files of a folder, and what its expressions refer to."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import hcl2

BLOCK = "__is_block__"
_SKIPPED = (BLOCK, "__comments__", "__inline_comments__")
_IDENTIFIER = re.compile(r"[A-Za-z_][\w-]*")


@dataclass(frozen=True, slots=True)
class Reference:
    """``aws_subnet.public["a"].id`` is root ``aws_subnet`` and path ``(public, [], id)``; a splat is ``[]`` as well."""

    root: str
    path: tuple[str, ...]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(part for part in self.path if part != "[]")

    def __str__(self) -> str:
        return ".".join((self.root, *self.names))


@dataclass(frozen=True)
class Module:
    """A folder. Blocks by name, each as parsed; ``resources`` and ``data`` by (type, name)."""

    folder: Path
    variables: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    outputs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    local_values: Mapping[str, Any] = field(default_factory=dict)
    resources: Mapping[tuple[str, str], Mapping[str, Any]] = field(default_factory=dict)
    data: Mapping[tuple[str, str], Mapping[str, Any]] = field(default_factory=dict)
    calls: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    providers: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)

    def called(self, name: str) -> Path:
        """The folder of the module that a module call names."""
        return (self.folder / text(self.calls[name]["source"])).resolve()


def read(folder: Path) -> Module:
    """The module in a folder.

    :raises ValueError: a file is not HCL, or a name stands twice; names the file.
    """
    return _read(folder.resolve(), tuple(sorted((file.name, file.stat().st_mtime_ns) for file in folder.glob("*.tf"))))


@lru_cache(maxsize=256)
def _read(folder: Path, files: tuple[tuple[str, int], ...]) -> Module:
    module = Module(folder, {}, {}, {}, {}, {}, {}, {}, {})
    for name, _ in files:
        try:
            content = _parsed((folder / name).read_text())
        except Exception as error:
            raise ValueError(f"{folder / name} is not HCL: {str(error).splitlines()[0]}") from error
        for kind, blocks in content.items():
            if kind in _SKIPPED:
                continue
            for block in blocks:
                _add(module, kind, block, folder / name)
    return module


@lru_cache(maxsize=1024)
def _parsed(code: str) -> dict[str, Any]:
    """By content, since tests look at many copies of the same files."""
    parsed: dict[str, Any] = hcl2.loads(code)
    return parsed


def _add(module: Module, kind: str, block: Mapping[str, Any], file: Path) -> None:
    one = {"variable": module.variables, "output": module.outputs, "module": module.calls, "provider": module.providers}
    two = {"resource": module.resources, "data": module.data}
    if kind == "locals":
        entries: list[tuple[Any, Any]] = list(arguments(block))
        target: Any = module.local_values
    elif kind in one:
        entries, target = [(text(name), body) for name, body in block.items() if name not in _SKIPPED], one[kind]
    elif kind in two:
        entries = [((text(first), text(second)), body) for first, inner in block.items() for second, body in inner.items()]
        target = two[kind]
    elif kind == "terraform":
        entries, target = list(arguments(block)), module.settings
    else:
        raise ValueError(f"{file}: {kind} is no block that these roots use. Allowed: {', '.join([*one, *two, 'locals', 'terraform'])}.")
    for name, body in entries:
        if name in target:
            raise ValueError(f"{file}: {kind} {name} stands twice in {module.folder}.")
        target[name] = body


def arguments(body: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Name and value of everything in a block, comments left out."""
    return ((text(name), value) for name, value in body.items() if name not in _SKIPPED)


def is_blocks(value: Any) -> bool:
    """Whether a value is one or more nested blocks rather than what stands after an equals sign."""
    return isinstance(value, list) and bool(value) and all(isinstance(item, dict) and (BLOCK in item or _labelled(item)) for item in value)


def _labelled(item: Mapping[str, Any]) -> bool:
    return any(isinstance(inner, dict) and BLOCK in inner for inner in item.values())


def text(value: Any) -> str:
    """A quoted literal without its quotation marks."""
    return value[1:-1] if isinstance(value, str) and len(value) > 1 and value[0] == value[-1] == '"' else str(value)


def is_literal(value: Any) -> bool:
    """Whether a value is a text in quotation marks with nothing to work out in it."""
    return isinstance(value, str) and value.startswith('"') and "${" not in value


def references(value: Any) -> Iterator[Reference]:
    """What every expression in a value refers to, loop variables included."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if key not in _SKIPPED:
                yield from references(key) if str(key).startswith(('"', "${")) else ()
                yield from references(inner)
    elif isinstance(value, list):
        for item in value:
            yield from references(item)
    elif isinstance(value, str) and _IDENTIFIER.fullmatch(value):
        yield Reference(value, ())
    elif isinstance(value, str):
        for code in _code(value):
            yield from _traversals(code)


def _code(value: str) -> Iterable[str]:
    """The parts of a parsed text that are expressions: what stands in ${} or %{}, texts in these left out, but not what stands in ${} in those."""
    stack = ["text"]
    part: list[str] = []
    index = 0
    while index < len(value):
        two = value[index : index + 2]
        if stack[-1] in ("text", "quote"):
            if two == "\\\\" or two == '\\"':
                index += 2
                continue
            if two in ("${", "%{"):
                stack.append("code")
                part.append(" ")
                index += 2
                continue
            if value[index] == '"' and stack[-1] == "quote":
                stack.pop()
                # What was a text is no name, nor does it join the names around it.
                part.append('""')
        elif value[index] == '"':
            stack.append("quote")
        elif value[index] == "{":
            stack.append("brace")
            part.append("{")
        elif value[index] == "}":
            part.append(" " if stack.pop() == "code" else "}")
        else:
            part.append(value[index])
        index += 1
    return ["".join(part)]


def _traversals(code: str) -> Iterator[Reference]:
    position = 0
    while match := _IDENTIFIER.search(code, position):
        position = match.end()
        before = code[: match.start()].rstrip()
        if before.endswith(".") and not before.endswith("..."):
            continue
        if re.match(r"\s*=(?!=|>)", code[match.end() :]) and re.search(r"[{,\n]\s*$", code[: match.start()]):
            continue  # the key of an object
        yield Reference(match.group(), tuple(_path(code, match.end())))


def _path(code: str, index: int) -> Iterator[str]:
    while index < len(code):
        if code[index] == ".":
            step = re.compile(r"\.(\*|[A-Za-z_][\w-]*|\d+)").match(code, index)
            if not step:
                return
            yield "[]" if step.group(1) == "*" or step.group(1).isdigit() else step.group(1)
            index = step.end()
        elif code[index] == "[":
            depth = 0
            for end in range(index, len(code)):
                depth += {"[": 1, "]": -1}.get(code[end], 0)
                if depth == 0:
                    break
            yield "[]"
            index = end + 1
        else:
            return
