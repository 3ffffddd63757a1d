# SPDX-License-Identifier: Apache-2.0
"""Problems as what an operator reads."""

from __future__ import annotations

import os
from collections.abc import Iterable

from ansible_collections.ashlar.stack.plugins.plugin_utils.site.models import Path_, Problem
from ansible_collections.ashlar.stack.plugins.plugin_utils.site.reading import line_of


def sentence(problem: Problem, base: str) -> str:
    """``file:line: path: text``, the file relative to ``base`` where it lies below it."""
    file = problem.file
    if file and not os.path.relpath(file, base).startswith(".."):
        file = os.path.relpath(file, base)
    line = line_of(problem.file, problem.path) if problem.path else None
    where = f"{file}:{line}" if line else file
    return ": ".join(part for part in (where, _path(problem.path), problem.text) if part)


def report(problems: Iterable[Problem], base: str) -> str:
    """All problems, each once, sorted by file and place; several are counted and numbered."""
    lines: list[str] = []
    ordered = sorted(set(problems), key=lambda problem: (problem.file, line_of(problem.file, problem.path) or 0, _path(problem.path), problem.text))
    for problem in ordered:
        line = sentence(problem, base)
        if line not in lines:
            lines.append(line)
    if len(lines) == 1:
        return f"The site cannot be planned; no host was touched.\n  {lines[0]}"
    numbered = "\n".join(f"  {number}. {line}" for number, line in enumerate(lines, 1))
    return f"The site cannot be planned, for {len(lines)} reasons; no host was touched.\n{numbered}"


def _path(path: Path_) -> str:
    # `hosts` only says where to look for the line: the host's name says all to a person.
    parts = path[1:] if path[:1] == ("hosts",) else path
    text = ""
    for part in parts:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text
