# SPDX-License-Identifier: Apache-2.0
"""JSON Schema errors as sentences: what stands there, what is allowed, what to do.

Two annotations of ours help: ``errorMessage`` says what is allowed in words, ``noun`` what the keys of a mapping are called.
"""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

from ansible_collections.ashlar.stack.plugins.plugin_utils.site.models import Path_, Problem
from ansible_collections.ashlar.stack.plugins.plugin_utils.site.reading import did_you_mean, listed, quoted
from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError

_TYPES = {
    "object": "a mapping (key: value)",
    "array": "a list",
    "string": "a text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "null": "nothing",
}


def check(root: Path, schema: str, data: Any, file: str) -> list[Problem]:
    """Everything in which ``data`` differs from ``schemas/<schema>.json`` under ``root``."""
    if not isinstance(data, dict):
        return [Problem(file, (), f"is {_kind(data)}. Allowed: {_TYPES['object']}, as schemas/{schema}.json describes.")]
    validator = _validator(root / "schemas" / f"{schema}.json")
    return [problem for error in validator.iter_errors(data) for problem in _problems(error, file)]


@lru_cache(maxsize=16)
def _validator(file: Path) -> Draft202012Validator:
    return Draft202012Validator(json.loads(file.read_text(encoding="utf-8")))


def _problems(error: ValidationError, file: str) -> list[Problem]:
    path: Path_ = tuple(error.absolute_path)
    schema: dict[str, Any] = error.schema if isinstance(error.schema, dict) else {}
    found: Any = error.instance
    wanted: Any = error.validator_value
    # A key that the schema does not know stands there as itself; `allowed` in words beats anything generated from the keyword.
    allowed = schema.get("errorMessage")
    match error.validator:
        case "additionalProperties" if wanted is False:
            known = sorted(schema.get("properties", {}))
            noun = schema.get("noun", "key")
            return [
                Problem(file, (*path, key), f"is an unknown {noun}.{did_you_mean(key, known)} Allowed: {listed(known)}.") for key in found if key not in known
            ]
        case "required":
            missing = next(key for key in wanted if key not in found and error.message.startswith(repr(key)))
            note = schema.get("properties", {}).get(missing, {}).get("description", "")
            return [Problem(file, (*path, missing), f"is missing. {note} Add it.".replace("  ", " "))]
        case "enum":
            text = f"is {quoted(found)}.{did_you_mean(str(found), [str(value) for value in wanted])} Allowed: {listed(wanted)}."
        case "const":
            text = f"is {quoted(found)}. Allowed: {quoted(wanted)}."
        case "type":
            kinds = [wanted] if isinstance(wanted, str) else wanted
            shown = "empty" if found is None else f"{quoted(found)}, {_kind(found)}"
            text = f"is {shown}. Allowed: {allowed or ' or '.join(_TYPES[kind] for kind in kinds)}."
        case "minimum" | "maximum":
            text = f"is {quoted(found)}. Allowed: {allowed or ('at least' if error.validator == 'minimum' else 'at most') + f' {wanted}'}."
        case "minLength" | "minItems" | "minProperties":
            text = f"is {quoted(found)}, which is too short. Allowed: {allowed or f'at least {wanted}'}."
        case "maxLength":
            text = f"has {len(found)} characters. Allowed: at most {wanted}{f', {allowed}' if allowed else ''}."
        case "uniqueItems":
            twice = sorted({str(item) for item in found if found.count(item) > 1})
            text = f"names {listed(twice)} twice. Remove one."
        case _:
            text = f"is {quoted(found)}. Allowed: {allowed or error.message}."
    return [Problem(file, path, text)]


def _kind(value: Any) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true or false"
    for kind, name in ((int, "a number"), (float, "a number"), (str, "a text"), (list, "a list"), (dict, "a mapping")):
        if isinstance(value, kind):
            return name
    return f"a {type(value).__name__}"
