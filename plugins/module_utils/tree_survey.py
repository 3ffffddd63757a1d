# SPDX-License-Identifier: Apache-2.0
"""Which trees of a host are as they were asked for: the controller need not send those again.

With each tree it is remembered what was asked: `{"fingerprint": ..., "arguments": ..., "executable": [...]}`. The fingerprint is the
controller's, of everything that it asked, contents too. No content is remembered: what lies on the host is taken for it when it has the
remembered digest.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.ashlar.stack.plugins.module_utils.tree import MEMORY_FOLDER, Owners, Tree, TreeError, sha256
from ansible_collections.ashlar.stack.plugins.module_utils.tree_bundle import Source
from ansible_collections.ashlar.stack.plugins.module_utils.tree_files import FileError, HostFiles
from ansible_collections.ashlar.stack.plugins.module_utils.tree_run import Runner
from ansible_collections.ashlar.stack.plugins.module_utils.tree_spec import spec_of

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


def survey(files: HostFiles, runner: Runner, owners: Owners | None = None) -> dict[str, str]:
    """Name -> fingerprint of the trees that are intact. What cannot be told for sure is left out, and is then looked at by its own task."""
    found = {}
    for file in files.names(MEMORY_FOLDER):
        if not file.endswith(".json") or file.startswith("."):
            continue
        try:
            fingerprint = _intact(file, files, runner, owners)
        except (TreeError, FileError, OSError, ValueError, KeyError, TypeError, AttributeError):
            continue
        if fingerprint:
            found[file[: -len(".json")]] = fingerprint
    return found


def _intact(file: str, files: HostFiles, runner: Runner, owners: Owners | None) -> str:
    """The fingerprint of a tree that is as it was asked for; "" otherwise."""
    memory = files.look(f"{MEMORY_FOLDER}/{file}")
    told = json.loads(memory.content) if memory else {}
    if not told.get("asked"):
        return ""
    sources = []
    for path, digest in told["paths"].items():
        if digest.startswith("-> "):
            continue
        found = files.look(path)
        if found is None or found.kind != "file" or sha256(found.content) != digest:
            return ""
        sources.append(Source(path, found.content, path in told["asked"]["executable"]))
    spec = spec_of(told["asked"]["arguments"])
    return str(told["asked"]["fingerprint"]) if Tree(spec, sources, files, runner, owners).intact() else ""
