# SPDX-License-Identifier: Apache-2.0
"""Which trees of a host are as they were asked for: the controller need not send those again.

With each tree it is remembered what was asked: `{"fingerprint": ..., "arguments": ..., "executable": [...]}`. The fingerprint is the
controller's, of everything that it asked, contents too. No content is remembered: what lies on the host is taken for it when it has the
remembered digest.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from ansible_collections.ashlar.stack.plugins.module_utils.host.files import FileError, HostFiles
from ansible_collections.ashlar.stack.plugins.module_utils.host.run import Runner
from ansible_collections.ashlar.stack.plugins.module_utils.tree.apply import MEMORY_FOLDER, Owners, Tree, TreeError, sha256
from ansible_collections.ashlar.stack.plugins.module_utils.tree.bundle import Source
from ansible_collections.ashlar.stack.plugins.module_utils.tree.spec import spec_of
from ansible_collections.ashlar.stack.plugins.module_utils.tree.units import UnitError, Units, UnitState

UNSURE = (TreeError, FileError, OSError, ValueError, KeyError, TypeError, AttributeError)
ARGUMENTS = ("name", "state", "files", "directories", "links", "validate", "units")


def task_record(arguments: Mapping[str, Any], sources: Sequence[Source]) -> dict[str, Any]:
    """What is remembered of a task; {} for one that cannot be surveyed."""
    if not arguments.get("fingerprint") or arguments["state"] == "absent":
        return {}
    return {
        "fingerprint": arguments["fingerprint"],
        "arguments": {name: arguments[name] for name in ARGUMENTS},
        "executable": [source.path for source in sources if source.executable],
    }


def trees(files: HostFiles, runner: Runner, owners: Owners | None = None) -> dict[str, str]:
    """Name -> fingerprint of the trees that are intact. What cannot be told for sure is left out, and is then looked at by its own task."""
    candidates: dict[str, tuple[str, Tree]] = {}
    for file in files.names(MEMORY_FOLDER):
        if not file.endswith(".json") or file.startswith("."):
            continue
        with suppress(*UNSURE):
            candidate = _candidate(file, files, runner, owners)
            if candidate:
                candidates[file[: -len(".json")]] = candidate
    units = SurveyedUnits(files, runner)
    try:
        units.ask(sorted({name for _, tree in candidates.values() for name in tree.unit_names()}))
    except UnitError:
        return {}
    found = {}
    for name, (fingerprint, tree) in candidates.items():
        tree.units = units
        with suppress(*UNSURE):
            if tree.intact():
                found[name] = fingerprint
    return found


class SurveyedUnits(Units):
    """systemd is asked once for the units of all trees."""

    def ask(self, names: Sequence[str]) -> None:
        """What systemd says about these units; raises UnitError when it cannot."""
        self._known = super().states(names)

    def states(self, names: Sequence[str]) -> dict[str, UnitState]:
        return {name: self._known[name] for name in names}


def _candidate(file: str, files: HostFiles, runner: Runner, owners: Owners | None) -> tuple[str, Tree] | None:
    """The fingerprint of a tree with what it asked for; None when its files differ already."""
    memory = files.look(f"{MEMORY_FOLDER}/{file}")
    told = json.loads(memory.content) if memory else {}
    if not told.get("asked"):
        return None
    sources = []
    for path, digest in told["paths"].items():
        if digest.startswith("-> "):
            continue
        found = files.look(path)
        if found is None or found.kind != "file" or sha256(found.content) != digest:
            return None
        sources.append(Source(path, found.content, path in told["asked"]["executable"]))
    spec = spec_of(told["asked"]["arguments"])
    return str(told["asked"]["fingerprint"]), Tree(spec, sources, files, runner, owners)
