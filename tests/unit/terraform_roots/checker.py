# SPDX-License-Identifier: Apache-2.0
"""What is wrong with a root and the modules that it calls, without any provider: against the providers' schemas, and against themselves."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from .hcl import Module, Reference, arguments, is_blocks, is_literal, read, references, text
from .schemas import Argument, Schema, Schemas

META = {"for_each", "count", "depends_on", "provider", "lifecycle", "provisioner", "connection"}
MODULE_META = {"source", "version", "providers", "for_each", "count", "depends_on"}
BUILT_IN = {"each", "count", "path", "self", "terraform", "null", "true", "false", "for", "in", "if", "endif", "else", "endfor"}


def check_root(folder: Path, schemas: Mapping[str, Schemas]) -> list[str]:
    """Everything that is wrong, a sentence each: where, what was found, what is allowed.

    :param schemas: provider's name, which its resources' types begin with -> its schemas.
    """
    problems: list[str] = []
    for module in reachable(folder):
        problems += _Check(module, schemas, Path(os.path.relpath(module.folder, folder.resolve().parent))).problems()
    return problems


def reachable(folder: Path) -> Iterator[Module]:
    """The root and every module that it calls, each once."""
    waiting, seen = [folder.resolve()], set()
    while waiting:
        current = waiting.pop(0)
        if current not in seen and current.is_dir():
            seen.add(current)
            module = read(current)
            yield module
            waiting += [module.called(name) for name in module.calls if text(module.calls[name].get("source", "")).startswith(".")]


class _Check:
    def __init__(self, module: Module, schemas: Mapping[str, Schemas], shown: Path) -> None:
        self.module, self.schemas, self.shown = module, schemas, shown

    def problems(self) -> list[str]:
        """Of this module."""
        found: list[str] = []
        for kind, blocks in (("resource", self.module.resources), ("data", self.module.data)):
            for (type_, name), body in blocks.items():
                where = f"{self.shown}: {'data.' if kind == 'data' else ''}{type_}.{name}"
                schema = self._schema(kind, type_)
                if type_ == "terraform_data":
                    continue
                if schema is None:
                    found.append(f"{where}: {type_} is no {'data source' if kind == 'data' else 'resource'}.{self._near(kind, type_)}")
                else:
                    found += self._body(where, body, schema.arguments, schema, META)
                    found += _ignored(where, body, schema)
        for name, body in self.module.providers.items():
            schema = self._schema("provider", name)
            found += self._body(f"{self.shown}: provider {name}", body, schema.arguments, schema, {"alias"}) if schema else []
        found += self._calls()
        found += self._declarations()
        found += sorted(set(self._references()))
        return found

    def _schema(self, kind: str, type_: str) -> Schema | None:
        provider = self.schemas.get(type_.split("_")[0])
        return provider.find(kind, type_) if provider else None

    def _near(self, kind: str, type_: str) -> str:
        provider = self.schemas.get(type_.split("_")[0])
        return _hint(type_, provider.known(kind)) if provider else f" Allowed: those of {', '.join(self.schemas)}."

    def _body(self, where: str, body: Mapping[str, Any], allowed: Mapping[str, Argument], schema: Schema, meta: set[str]) -> Iterator[str]:
        given: dict[str, int] = defaultdict(int)
        for name, value in arguments(body):
            if name in meta:
                continue
            if name == "dynamic":
                for block in value:
                    for label, inner in arguments(block):
                        given[label] += 1
                        contents = inner.get("content", [])
                        yield from self._block(f"{where}.{label}", label, contents, allowed, schema)
                        unknown = [key for key, _ in arguments(inner) if key not in ("for_each", "content", "iterator", "labels")]
                        if unknown or not contents or "for_each" not in inner:
                            yield f"{where}.{label}: a dynamic block has for_each and content, and nothing else but iterator."
                continue
            given[name] += len(value) if is_blocks(value) else 1
            if is_blocks(value):
                yield from self._block(f"{where}.{name}", name, value, allowed, schema)
                if name in allowed and allowed[name].single and len(value) > 1:
                    yield f"{where}: the block {name} stands {len(value)} times. Allowed: once."
            elif name not in allowed:
                yield f"{where}: {name} is no argument.{_hint(name, allowed)}"
            elif allowed[name].block:
                yield f"{where}: {name} is given as an argument. It is a block: {name} {{ ... }}."
            else:
                yield from _literal(f"{where}: {name}", value, allowed[name])
        missing = [name for name, argument in allowed.items() if argument.required and not given[name]]
        if missing:
            yield f"{where}: {', '.join(missing)} is missing, and required."

    def _block(self, where: str, name: str, blocks: list[Any], allowed: Mapping[str, Argument], schema: Schema) -> Iterator[str]:
        if name not in allowed:
            yield f"{where}: {name} is no block.{_hint(name, allowed)}"
        elif not allowed[name].block:
            yield f"{where}: {name} is given as a block. It is an argument: {name} = ..."
        elif allowed[name].of not in schema.structures:
            yield f"{where}: what may stand in {name} is not known to the schema."
        else:
            for block in blocks:
                yield from self._body(where, block, schema.structures[allowed[name].of], schema, set())

    def _calls(self) -> Iterator[str]:
        for name, body in self.module.calls.items():
            where = f"{self.shown}: module {name}"
            source = text(body.get("source", ""))
            if not source.startswith("."):
                yield f"{where}: source is {source}. Allowed: a folder of this repository."
                continue
            folder = self.module.called(name)
            if not folder.is_dir():
                yield f"{where}: source is {source}, and there is no such folder."
                continue
            inputs = read(folder).variables
            given = {key for key, _ in arguments(body)} - MODULE_META
            yield from (f"{where}: {key} is no input of {source}.{_hint(key, inputs)}" for key in sorted(given - set(inputs)))
            missing = [key for key, variable in inputs.items() if "default" not in variable and key not in given]
            if missing:
                yield f"{where}: the input {', '.join(missing)} of {source} is missing, and required."

    def _declarations(self) -> Iterator[str]:
        used = {str(reference) for part in self._parts() for reference in references(part)}
        names = {".".join(reference.split(".")[:2]) for reference in used}
        for name, variable in self.module.variables.items():
            if f"var.{name}" not in names:
                yield f"{self.shown}: variable {name} is declared and not used."
            yield from (f"{self.shown}: variable {name} has no {key}." for key in ("description", "type") if key not in variable)
        yield from (f"{self.shown}: local {name} is declared and not used." for name in self.module.local_values if f"local.{name}" not in names)
        yield from (f"{self.shown}: output {name} has no description." for name, output in self.module.outputs.items() if "description" not in output)

    def _parts(self) -> Iterator[Any]:
        """Everything with expressions in it, but variables: what only their own validation names is not used."""
        module = self.module
        yield from (module.outputs, module.local_values, module.calls, module.providers)
        yield from (*module.resources.values(), *module.data.values())

    def _references(self) -> Iterator[str]:
        parts = [(part, None) for part in self._parts()] + [(body, name) for name, body in self.module.variables.items()]
        for part, _ in parts:
            for reference in references(_without_ignored(part)):
                yield from self._reference(reference)

    def _reference(self, reference: Reference) -> Iterator[str]:
        module, root, names = self.module, reference.root, reference.names
        where = f"{self.shown}: {reference}"
        known = {"var": module.variables, "local": module.local_values}
        if root in known and names and names[0] not in known[root]:
            yield f"{where} is not declared.{_hint(names[0], known[root])}"
        elif root == "module" and names:
            if names[0] not in module.calls:
                yield f"{where}: there is no module {names[0]}.{_hint(names[0], module.calls)}"
            elif len(names) > 1 and module.called(names[0]).is_dir() and names[1] not in read(module.called(names[0])).outputs:
                yield f"{where}: {names[1]} is no output of it.{_hint(names[1], read(module.called(names[0])).outputs)}"
        elif root == "data" and len(names) > 1:
            yield from self._exported(where, "data", (names[0], names[1]), names[2:], module.data)
        elif root.split("_")[0] in self.schemas and "_" in root and names:
            yield from self._exported(where, "resource", (root, names[0]), names[1:], module.resources)

    def _exported(self, where: str, kind: str, key: tuple[str, str], path: tuple[str, ...], declared: Mapping[tuple[str, str], Any]) -> Iterator[str]:
        if key not in declared:
            yield f"{where} is not declared."
            return
        schema = self._schema(kind, key[0])
        struct = ""
        for name in path if schema else ():
            exports = schema.exports.get(struct, {}) if schema else {}
            camel = re.sub(r"_([a-z0-9])", lambda match: match.group(1).upper(), name)
            if not exports or camel not in exports:
                yield f"{where}: {name} is nothing that {key[0]} exports.{_hint(camel, exports)}"
                return
            struct = exports[camel]
            if not struct:
                return


def _without_ignored(part: Any) -> Any:
    """A resource without its ignore_changes, which names attributes and refers to nothing."""
    if isinstance(part, Mapping) and "lifecycle" in part:
        return {key: value for key, value in part.items() if key != "lifecycle"}
    return part


def _ignored(where: str, body: Mapping[str, Any], schema: Schema) -> Iterator[str]:
    for lifecycle in body.get("lifecycle", []):
        for reference in references(lifecycle.get("ignore_changes", [])):
            if reference.root not in schema.arguments:
                yield f"{where}: ignore_changes names {reference.root}, which is no argument.{_hint(reference.root, schema.arguments)}"


def _literal(where: str, value: Any, argument: Argument) -> Iterator[str]:
    """What is wrong with a value that can be judged without working anything out."""
    if argument.kind == "simple":
        wanted = argument.of
        if isinstance(value, (list, dict)):
            yield f"{where} is a {'list' if isinstance(value, list) else 'map'}. Allowed: a {wanted}."
        elif wanted == "boolean" and (
            isinstance(value, (int, float)) and not isinstance(value, bool) or (is_literal(value) and text(value) not in ("true", "false"))
        ):
            yield f"{where} is {value}. Allowed: true, false."
        elif wanted == "number" and (isinstance(value, bool) or (is_literal(value) and not re.fullmatch(r"-?\d+(\.\d+)?", text(value)))):
            yield f"{where} is {value}. Allowed: a number."
    elif argument.kind in ("list", "set") and (is_literal(value) or isinstance(value, (bool, int, float, dict))):
        yield f"{where} is {value}. Allowed: a list."
    elif argument.kind == "map" and (is_literal(value) or isinstance(value, (bool, int, float, list))):
        yield f"{where} is {value}. Allowed: a map."


def _hint(word: str, known: Any) -> str:
    near = get_close_matches(word, list(known), 1, 0.6)
    return f" Did you mean {near[0]}?" if near else ""
