# SPDX-License-Identifier: Apache-2.0
"""YAML and JSON files: what stands in them, and where."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml
from ansible_collections.ashlar.stack.plugins.plugin_utils.site.models import Path_, Problem, SiteError

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Scalars(_Loader):  # type: ignore[misc]
    """Without the implicit types that surprise: a date stays the text that was written."""


_Scalars.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in _Loader.yaml_implicit_resolvers.items()
}


def read_yaml(file: Path) -> Any:
    """The content of a YAML file.

    :raises SiteError: the file can't be read, is not YAML, or names a key twice.
    """
    text = _text(file)
    try:
        loader = _Scalars(text)
        node = loader.get_single_node()
        problems = _duplicates(node, str(file), ())
        if problems:
            raise SiteError(problems)
        return None if node is None else loader.construct_document(node)
    except yaml.YAMLError as error:
        raise SiteError([Problem(str(file), (), f"is not valid YAML: {_yaml_reason(error)}.")]) from error


def read_json(file: Path) -> Any:
    """The content of a JSON file.

    :raises SiteError: the file can't be read or is not JSON.
    """
    try:
        return json.loads(_text(file))
    except json.JSONDecodeError as error:
        raise SiteError([Problem(str(file), (), f"is not valid JSON: line {error.lineno}, column {error.colno}: {error.msg}.")]) from error


def syntax(file: Path) -> list[Problem]:
    """Why a file is not YAML; nothing when it is, whatever its tags mean."""
    try:
        yaml.compose(_text(file), Loader=_Loader)
    except SiteError as error:
        return error.problems
    except yaml.YAMLError as error:
        return [Problem(str(file), (), f"is not valid YAML: {_yaml_reason(error)}.")]
    return []


def duplicate_keys(file: Path) -> list[Problem]:
    """A problem for each key that stands twice in a mapping of a YAML file, where YAML silently keeps the last.

    A file that is not YAML gives none: another reader will say so.
    """
    try:
        return _duplicates(_composed(str(file), os.stat(file).st_mtime_ns), str(file), ())
    except (OSError, yaml.YAMLError, UnicodeDecodeError):
        return []


def top_keys(file: Path) -> list[str]:
    """The keys of a YAML or JSON file's top mapping, without decrypting or templating anything; none when it is encrypted or unreadable."""
    try:
        node = _composed(str(file), os.stat(file).st_mtime_ns)
    except (OSError, yaml.YAMLError, UnicodeDecodeError):
        return []
    return [str(key.value) for key, _ in node.value] if isinstance(node, yaml.MappingNode) else []


def line_of(file: str, path: Path_) -> int | None:
    """The line, counted from 1, of the deepest part of ``path`` that stands in ``file``; None where that is not known.

    A path that starts with ``hosts`` is looked for below every group of an inventory.
    """
    if not path:
        return None
    try:
        node = _composed(file, os.stat(file).st_mtime_ns)
    except (OSError, yaml.YAMLError, UnicodeDecodeError):
        return None
    if path[0] == "hosts" and len(path) > 1:
        start = _host(node, str(path[1]))
        if start is None:
            return None
        line, node = start
        path = path[2:]
    else:
        line = 0
    for key in path:
        if isinstance(node, yaml.MappingNode):
            found = next(((name, value) for name, value in node.value if name.value == str(key)), None)
            if found is None:
                break
            line, node = found[0].start_mark.line + 1, found[1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(key, int) and key < len(node.value):
            node = node.value[key]
            line = node.start_mark.line + 1
        else:
            break
    return line or None


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`` Did you mean "etcd"?`` with a leading space, or nothing."""
    near = get_close_matches(str(word).lower(), list(known), 1, 0.6)
    return f' Did you mean "{near[0]}"?' if near else ""


def listed(words: Iterable[Any], last: str = "and") -> str:
    """``a, b and c``; ``none`` when there are none."""
    words = [str(word) for word in words]
    if not words:
        return "none"
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} {last} {words[-1]}"


def quoted(value: Any) -> str:
    """A value as a person would write it in YAML, short enough for a sentence."""
    text = json.dumps(value, default=lambda other: f"<{type(other).__name__}>", ensure_ascii=False)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except OSError as error:
        raise SiteError([Problem(str(file), (), f"cannot be read: {error.strerror}.")]) from error
    except UnicodeDecodeError as error:
        raise SiteError([Problem(str(file), (), "is not UTF-8 text; save it as such.")]) from error


@lru_cache(maxsize=64)
def _composed(file: str, _modified: int) -> Any:
    return yaml.compose(Path(file).read_text(encoding="utf-8"), Loader=_Loader)


def _duplicates(node: Any, file: str, path: Path_) -> list[Problem]:
    problems: list[Problem] = []
    # An explicit stack: a hostile file must not end in a RecursionError, nor an alias in a loop.
    waiting: list[tuple[Any, Path_]] = [(node, path)]
    seen_nodes: set[int] = set()
    while waiting:
        current, where = waiting.pop()
        if id(current) in seen_nodes:
            continue
        seen_nodes.add(id(current))
        if isinstance(current, yaml.MappingNode):
            lines: dict[str, int] = {}
            for key, value in current.value:
                name = str(key.value)
                line = key.start_mark.line + 1
                if name in lines and name != "<<":
                    text = f"stands twice, in lines {lines[name]} and {line}; only the last would count. Remove or rename one."
                    problems.append(Problem(file, (*where, name), text))
                lines[name] = line
                waiting.append((value, (*where, name)))
        elif isinstance(current, yaml.SequenceNode):
            waiting.extend((item, (*where, index)) for index, item in enumerate(current.value))
    return problems


def _host(node: Any, name: str) -> tuple[int, Any] | None:
    waiting = [node]
    while waiting:
        current = waiting.pop()
        if not isinstance(current, yaml.MappingNode):
            continue
        for key, value in current.value:
            if key.value == "hosts" and isinstance(value, yaml.MappingNode):
                for host, variables in value.value:
                    if host.value == name:
                        return host.start_mark.line + 1, variables
            else:
                waiting.append(value)
    return None


def _yaml_reason(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    reason = getattr(error, "problem", None) or str(error).splitlines()[0]
    return f"line {mark.line + 1}, column {mark.column + 1}: {reason}" if mark else str(reason)
