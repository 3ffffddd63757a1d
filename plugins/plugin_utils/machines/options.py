# SPDX-License-Identifier: Apache-2.0
"""The configuration of an inventory plugin, checked against the plugin's own DOCUMENTATION: that is said once.

Ansible's own check ends in a message without a line, and knows no unknown options.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml
from ansible.plugins.doc_fragments import constructed, inventory_cache
from ansible_collections.ashlar.stack.plugins.doc_fragments import machines
from ansible_collections.ashlar.stack.plugins.plugin_utils.site.models import Path_, Problem
from ansible_collections.ashlar.stack.plugins.plugin_utils.site.reading import did_you_mean, listed, quoted

FRAGMENT = "ashlar.stack.machines"
_KINDS: Mapping[str, tuple[tuple[type, ...], str]] = {
    "str": ((str,), "a text"),
    "path": ((str,), "a path"),
    "int": ((int,), "a whole number"),
    "bool": ((bool,), "true or false"),
    "list": ((list,), "a list"),
    "dict": ((dict,), "a mapping (key: value)"),
}


def check_options(documentation: str, raw: Any, file: str) -> list[Problem]:
    """Everything in which the configuration differs from what the plugin documents.

    Options of Ansible's own fragments, constructed and inventory_cache, are known too; Ansible itself checks their values.
    """
    if not isinstance(raw, Mapping):
        return [Problem(file, (), f"is {'empty' if raw is None else quoted(raw)}. Allowed: the options of the plugin, as `ansible-doc -t inventory` shows.")]
    own = _options(documentation)
    known = {**own, **dict.fromkeys(_fragments())}
    return _check_mapping((), raw, known, "option", file)


def with_defaults(documentation: str, raw: Mapping[str, Any]) -> dict[str, Any]:
    """The plugin's own options, plain and with the defaults of those that aren't said, the suboptions' too."""
    return _filled(_options(documentation), raw)


def path_of(text: str, folder: Path) -> Path:
    """A path as the configuration has it: ``~`` and environment variables filled in, relative ones below ``folder``."""
    return Path(os.path.normpath(folder.absolute() / os.path.expandvars(os.path.expanduser(text))))


def plain(value: Any) -> Any:
    """A copy without what Ansible notes about where each value comes from, which JSON, sets and programs don't take."""
    if isinstance(value, Mapping):
        return {str(key): plain(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(part) for part in value]
    for kind in (str, int, float):
        if isinstance(value, kind) and not isinstance(value, bool):
            return kind(value)
    return value


@lru_cache(maxsize=8)
def _options(documentation: str) -> dict[str, Any]:
    read = yaml.load(documentation, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    shared = _options(machines.ModuleDocFragment.DOCUMENTATION) if FRAGMENT in read.get("extends_documentation_fragment", ()) else {}
    return {**read["options"], **shared}


@lru_cache(maxsize=1)
def _fragments() -> tuple[str, ...]:
    return tuple(name for fragment in (constructed, inventory_cache) for name in _options(fragment.ModuleDocFragment.DOCUMENTATION))


def _check_mapping(path: Path_, raw: Mapping[str, Any], known: Mapping[str, Any], noun: str, file: str) -> list[Problem]:
    problems: list[Problem] = []
    for key, value in raw.items():
        if key not in known:
            problems.append(Problem(file, (*path, str(key)), f"is an unknown {noun}.{did_you_mean(str(key), known)} Allowed: {listed(sorted(known))}."))
        elif known[key] is not None:
            problems += _check_value((*path, key), value, known[key], file)
    for key, spec in known.items():
        if spec and spec.get("required") and key not in raw:
            description = spec["description"] if isinstance(spec["description"], str) else spec["description"][0]
            meaning = f"Allowed: {listed(spec['choices'], 'or')}." if spec.get("choices") else f"{_plain_words(description).split('. ')[0].rstrip('.')}."
            problems.append(Problem(file, (*path, key), f"is missing. {meaning} Add it."))
    return problems


def _check_value(path: Path_, found: Any, spec: Mapping[str, Any], file: str) -> list[Problem]:
    types, allowed = _KINDS[spec["type"]]
    value: Any = found
    if value is None and not spec.get("required"):
        return []
    # To Python, true and false are numbers.
    if not isinstance(found, types) or (isinstance(found, bool) and bool not in types):
        return [Problem(file, path, f"is {'empty' if value is None else quoted(value)}. Allowed: {allowed}.")]
    if spec.get("choices") and value not in spec["choices"]:
        choices = [str(choice) for choice in spec["choices"]]
        return [Problem(file, path, f"is {quoted(value)}.{did_you_mean(str(value), choices)} Allowed: {listed(choices, 'or')}.")]
    if spec["type"] == "str" and spec.get("required") and not value:
        return [Problem(file, path, "is empty. Allowed: a text.")]
    if spec["type"] == "dict" and "suboptions" in spec:
        return _check_mapping(path, value, spec["suboptions"], "key", file)
    if spec["type"] == "list":
        element: dict[str, Any] = {"type": spec["elements"], **({"suboptions": spec["suboptions"]} if "suboptions" in spec else {}), "required": True}
        return [problem for index, one in enumerate(value) for problem in _check_value((*path, index), one, element, file)]
    return []


def _filled(specs: Mapping[str, Any], raw: Mapping[str, Any]) -> dict[str, Any]:
    filled: dict[str, Any] = {}
    for name, spec in specs.items():
        value = plain(raw.get(name))
        if value is None:
            value = plain(spec.get("default"))
        elif "suboptions" in spec:
            value = [_filled(spec["suboptions"], one) for one in value] if spec["type"] == "list" else _filled(spec["suboptions"], value)
        filled[name] = value
    return filled


def _plain_words(description: str) -> str:
    # C(x), V(x), O(x): the value alone.
    text = description
    for mark in "CVOEI":
        while f"{mark}(" in text:
            before, _, rest = text.partition(f"{mark}(")
            inner, _, after = rest.partition(")")
            text = f"{before}{inner}{after}"
    return text
