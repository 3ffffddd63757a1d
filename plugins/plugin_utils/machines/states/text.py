# SPDX-License-Identifier: Apache-2.0
"""Texts of states and of the tool's answers -> State. No file and no program is touched here.

Formats: https://opentofu.org/docs/internals/json-format/ for ``output -json`` and ``show -json``; that of the state file, version 4, is
the tools' own and is checked part by part.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ansible_collections.ashlar.stack.plugins.plugin_utils.machines.states.model import Output, Resource, State, StateFault
from ansible_collections.ashlar.stack.plugins.plugin_utils.site.reading import quoted

VERSION = 4
RESTORE = "Restore it: from terraform.tfstate.backup beside it, or an earlier version that the backend keeps."
_ANSWER = ("can't be read: what the tool printed {}", "Is the binary Terraform or OpenTofu?")
# Blanks, byte-order marks, and the zeros that a file is full of whose blocks were never written.
_BLANK = b" \t\r\n\0\xef\xbb\xbf\xff\xfe"
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def parse_json(data: bytes, limit_bytes: int, of: str = "{}", remedy: str = RESTORE) -> Any:
    """The value of a JSON text.

    :param of: what the error says around what is wrong with the text.
    :raises StateFault: it is too large, or no such text.
    """
    check_size(len(data), limit_bytes)
    try:
        return _parsed(data)
    except ValueError as error:
        raise StateFault(f"{of.format(error)} {remedy}") from None


def _parsed(data: bytes) -> Any:
    """:raises ValueError: it is no JSON text; says so in a sentence that lacks its subject."""
    # `terraform state pull > FILE` in PowerShell writes UTF-16, and editors put a byte-order mark before UTF-8.
    encoding = json.detect_encoding(data)
    try:
        text = data.decode(encoding)
        value = json.loads(text, parse_constant=_no_constant)
        if _SURROGATE.search(text):
            # Half a surrogate pair is valid JSON, and no text that could be printed.
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except json.JSONDecodeError as error:
        cut = "It ends in the middle" if error.pos >= len(text.rstrip()) or error.msg.startswith("Unterminated") else "It is damaged"
        raise ValueError(f"is not valid JSON: line {error.lineno}, column {error.colno}: {error.msg}. {cut}.") from None
    except UnicodeError:
        raise ValueError(f"is not {encoding.removesuffix('-sig').upper()} text, so it is damaged or no state.") from None
    except RecursionError:
        raise ValueError("is nested too deeply for a state, so it is damaged or no state.") from None
    except ValueError as error:
        raise ValueError(f"is not valid JSON: {str(error).split(';')[0]}. It is damaged.") from None
    return value


def check_size(size_bytes: int, limit_bytes: int) -> None:
    """:raises StateFault: it is too large."""
    if size_bytes > limit_bytes:
        shown = f"{size_bytes / 1048576:.1f} MiB, more than limit_mib allows ({limit_bytes // 1048576})"
        raise StateFault(f"has {shown}. Raise limit_mib if it is a state; it needs several times its size in memory.")


def parse_state(data: bytes, limit_bytes: int) -> State:
    """A state file of version 4.

    :raises StateFault: it is none, or one of another version.
    """
    if not data.strip(_BLANK):
        raise StateFault(f"is empty, which no state is. {RESTORE} If there is nothing to restore, remove the file.")
    raw = parse_json(data, limit_bytes)
    if not isinstance(raw, dict):
        raise StateFault("is JSON, but no state: a state is a mapping with the key version. Give the path of a state file.")
    if "encrypted_data" in raw:
        raise StateFault(
            "is encrypted by OpenTofu. A file can't be decrypted here: give its `root` (or `backend`) instead, "
            "with the encryption's configuration there or in the environment (TF_ENCRYPTION)."
        )
    _check_version(raw)
    outputs = raw.get("outputs", {})
    resources = raw.get("resources", [])
    if not isinstance(outputs, dict) or not isinstance(resources, list):
        raise StateFault(f"is damaged: its outputs or resources are not what they are in a state. {RESTORE}")
    return State(_outputs(outputs), lambda: _state_resources(resources))


def parse_outputs(data: bytes, limit_bytes: int) -> Mapping[str, Output]:
    """What ``output -json`` printed.

    :raises StateFault: it is something else.
    """
    raw = parse_json(data, limit_bytes, *_ANSWER)
    if not isinstance(raw, dict):
        raise StateFault("gave outputs that are no mapping. Is the binary Terraform or OpenTofu?")
    return _outputs(raw)


def parse_shown(data: bytes, limit_bytes: int) -> Sequence[Resource]:
    """What ``show -json`` printed; no resources where there is no state.

    :raises StateFault: it is something else.
    """
    raw = parse_json(data, limit_bytes, *_ANSWER)
    if not isinstance(raw, dict) or not str(raw.get("format_version", "")).startswith(("0.", "1.")):
        version = quoted(raw.get("format_version")) if isinstance(raw, dict) else "none"
        raise StateFault(f"gave a state of the format version {version}; known are 0.x and 1.x. Use a tool that writes one of them, or update Ashlar.")
    values = raw.get("values")
    root = values.get("root_module") if isinstance(values, dict) else None
    return list(_shown_resources(root)) if isinstance(root, dict) else []


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number of JSON")


def _check_version(raw: Mapping[str, Any]) -> None:
    version = raw.get("version")
    if isinstance(version, bool) or not isinstance(version, int):
        raise StateFault("is JSON, but no state: it has no number under version. Give the path of a state file.")
    if "backend" in raw and version <= 3:
        raise StateFault(
            "is not a state but the note in which a root keeps its backend (.terraform/terraform.tfstate). Give the `root` itself instead of this file."
        )
    if version < VERSION:
        raise StateFault(
            f"is a state of version {version}; version {VERSION} is read, which Terraform writes since 0.12. "
            "Upgrade it: run `terraform apply -refresh-only` in its root with a newer release, one release after another from before 0.12."
        )
    if version > VERSION:
        raise StateFault(
            f"is a state of version {version}, newer than the {VERSION} that is read. Give its `root` instead, which the tool itself reads, or update Ashlar."
        )


def _outputs(raw: Mapping[str, Any]) -> dict[str, Output]:
    outputs: dict[str, Output] = {}
    for name, content in raw.items():
        if not isinstance(content, dict) or "value" not in content:
            raise StateFault(f"is damaged: its output {quoted(name)} has no value. {RESTORE}")
        # Whatever isn't plainly false is sensitive, so that no damage discloses anything.
        outputs[name] = Output(content["value"], content.get("sensitive", False) is not False)
    return outputs


def _state_resources(raw: Sequence[Any]) -> list[Resource]:
    resources: list[Resource] = []
    for index, of_type in enumerate(raw):
        if not isinstance(of_type, dict) or not isinstance(of_type.get("instances"), list) or not _texts(of_type, "mode", "type", "name"):
            raise StateFault(f"is damaged: its resources[{index}] is not what a resource is in a state. {RESTORE}")
        managed = of_type["mode"] == "managed"
        module = of_type.get("module")
        base = f"{f'{module}.' if module else ''}{'' if managed else 'data.'}{of_type['type']}.{of_type['name']}"
        for number, one in enumerate(of_type["instances"]):
            attributes = _attributes(one) if isinstance(one, dict) else None
            if attributes is None:
                raise StateFault(f"is damaged: its resources[{index}].instances[{number}] is not what an object is in a state. {RESTORE}")
            if one.get("deposed"):
                continue
            key = one.get("index_key")
            address = base if key is None else f"{base}[{json.dumps(key)}]"
            known = _without_paths(attributes, one.get("sensitive_attributes"))
            resources.append(Resource(address, of_type["type"], known, one.get("status") == "tainted", managed))
    return resources


def _shown_resources(root: Mapping[str, Any]) -> Iterable[Resource]:
    # An explicit list: a hostile text must not end in a RecursionError.
    waiting: list[Any] = [root]
    while waiting:
        module = waiting.pop()
        if not isinstance(module, dict) or not isinstance(module.get("resources", []), list) or not isinstance(module.get("child_modules", []), list):
            raise StateFault("gave a state whose modules are not what `show -json` prints. Is the binary Terraform or OpenTofu?")
        for one in module.get("resources", []):
            if not isinstance(one, dict) or not _texts(one, "mode", "type", "address") or not isinstance(one.get("values", {}), dict):
                raise StateFault("gave a state whose resources are not what `show -json` prints. Is the binary Terraform or OpenTofu?")
            if not one.get("deposed_key"):
                known = _without_marked(one.get("values", {}), one.get("sensitive_values"))
                yield Resource(one["address"], one["type"], known, one.get("tainted") is True, one["mode"] == "managed")
        waiting.extend(reversed(module.get("child_modules", [])))


def _texts(raw: Mapping[str, Any], *keys: str) -> bool:
    return all(isinstance(raw.get(key), str) for key in keys)


def _attributes(of_object: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The attributes of an object; none where it was never made; None where they are of another form."""
    flat = of_object.get("attributes_flat")
    if of_object.get("attributes") is None and flat is not None:
        # As Terraform before 0.12 and Terraformer write them: a mapping of texts. The tool itself makes it one of values by its next apply.
        if not isinstance(flat, dict) or not all(isinstance(value, str) for value in flat.values()):
            return None
        try:
            return _unflattened(flat)
        except RecursionError:
            return None
    attributes = of_object.get("attributes", {})
    return {} if attributes is None else attributes if isinstance(attributes, dict) else None


def _unflattened(flat: Mapping[str, str]) -> dict[str, Any]:
    """``{"tags.%": "1", "tags.a": "b", "ports.#": "1", "ports.0.id": "c"}`` -> ``{"tags": {"a": "b"}, "ports": [{"id": "c"}]}``."""
    found: dict[str, Any] = {}
    inside: dict[str, dict[str, str]] = {}
    for key, value in flat.items():
        name, dot, rest = key.partition(".")
        if dot:
            inside.setdefault(name, {})[rest] = value
        else:
            found[name] = value
    for name, parts in inside.items():
        if parts.pop("%", None) is not None:
            found[name] = parts
        elif parts.pop("#", None) is not None:
            # Items of sets are numbered by their hash.
            items = _unflattened(parts)
            found[name] = [items[number] for number in sorted(items, key=lambda number: (len(number), number))]
        else:
            found[name] = _unflattened(parts)
    return found


def _without_paths(attributes: Mapping[str, Any], paths: Any) -> Mapping[str, Any]:
    """Attributes without the sensitive ones, which a state file lists as paths of steps ``{"type": ..., "value": ...}``."""
    if not isinstance(paths, list) or not paths:
        return attributes
    kept: Any = attributes
    for path in paths:
        kept = _without_path(kept, [_step(step) for step in (path if isinstance(path, list) else [path])])
    return kept if isinstance(kept, dict) else {}


def _step(raw: Any) -> str | int | None:
    """A key or an index; None for an item of a set, which has none."""
    value = raw.get("value") if isinstance(raw, dict) else None
    value = value.get("value") if isinstance(value, dict) else value
    return value if isinstance(value, (str, int)) and not isinstance(value, bool) else None


def _without_path(value: Any, steps: Sequence[str | int | None]) -> Any:
    """The value without what the steps lead to; nothing at all where they can't be followed."""
    if not steps:
        return None
    step, rest = steps[0], steps[1:]
    if isinstance(value, dict) and isinstance(step, str):
        return {key: part if key != step else _without_path(part, rest) for key, part in value.items() if key != step or rest}
    if isinstance(value, list) and isinstance(step, int):
        return [part if index != step else _without_path(part, rest) for index, part in enumerate(value)]
    return None


def _without_marked(attributes: Mapping[str, Any], marks: Any) -> Mapping[str, Any]:
    """Attributes without the sensitive ones, which ``show -json`` marks by true in a value of the same shape."""
    kept = _unmarked(attributes, marks)
    return kept if isinstance(kept, dict) else {}


def _unmarked(value: Any, marks: Any) -> Any:
    if marks is True:
        return None
    if isinstance(value, dict) and isinstance(marks, dict):
        return {key: _unmarked(part, marks.get(key)) for key, part in value.items() if marks.get(key) is not True}
    if isinstance(value, list) and isinstance(marks, list):
        return [_unmarked(part, marks[index] if index < len(marks) else None) for index, part in enumerate(value)]
    # Of another shape than the value: what is marked can't be told.
    return None if _marked(marks) else value


def _marked(marks: Any) -> bool:
    if isinstance(marks, dict):
        return any(_marked(part) for part in marks.values())
    return any(_marked(part) for part in marks) if isinstance(marks, list) else marks is True
