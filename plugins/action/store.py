# SPDX-License-Identifier: Apache-2.0
"""Fills the store on the controller. Documented by plugins/modules/store.py; the work is in plugin_utils/artifacts."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible.utils.display import Display
from ansible_collections.ashlar.stack.plugins.plugin_utils.artifacts.catalogue import KINDS, ArtifactCatalogue
from ansible_collections.ashlar.stack.plugins.plugin_utils.artifacts.errors import ArtifactError
from ansible_collections.ashlar.stack.plugins.plugin_utils.artifacts.obtain import Obtained, Obtainer, Options
from ansible_collections.ashlar.stack.plugins.plugin_utils.artifacts.store import Store
from ansible_collections.ashlar.stack.plugins.plugin_utils.artifacts.trust import LOCK, POLICIES
from ansible_collections.ashlar.stack.plugins.plugin_utils.controller import ControllerAction

display = Display()
COLLECTION = Path(__file__).resolve().parents[2]
QUIET_SECONDS = 10.0
TERMINAL_SECONDS = 5.0
# Options that a site sets once, as variables, because site.yml calls this module with the artifacts only.
VARIABLES = {
    "architectures": "artifacts_architectures",
    "codenames": "artifacts_codenames",
    "sources": "artifacts_sources",
    "mirror": "artifacts_mirror",
    "checksums": "site_checksums",
    "catalogues": "artifacts_catalogues",
    "keep_caches": "artifacts_keep_caches",
}
ARGUMENTS: dict[str, dict[str, Any]] = {
    "artifacts": {"type": "raw", "required": True},
    "architectures": {"type": "list", "elements": "str"},
    "codenames": {"type": "list", "elements": "str"},
    "sources": {"type": "list", "elements": "str"},
    "mirror": {"type": "str"},
    "checksums": {"type": "str", "choices": list(POLICIES)},
    "lock": {"type": "path"},
    "catalogues": {"type": "list", "elements": "path"},
    "store": {"type": "path"},
    "keep_caches": {"type": "bool"},
    "record": {"type": "bool", "default": False},
    "verify": {"type": "bool", "default": False},
    "collect": {"type": "str", "choices": ["nothing", "blobs", "artifacts"], "default": "nothing"},
}


def wanted(raw: Any) -> dict[str, str]:
    """name -> version from either form of the option `artifacts`.

    :raises ArtifactError: when it has neither form, or asks for two versions of one artifact.
    """
    if isinstance(raw, Mapping):
        pairs = list(raw.items())
    elif isinstance(raw, list) and all(isinstance(item, Mapping) and set(item) == {"name", "version"} for item in raw):
        pairs = [(item["name"], item["version"]) for item in raw]
    else:
        raise ArtifactError(
            f"artifacts is {raw!r}; allowed: a mapping of names to versions, or a list of {{name, version}}. "
            "The stack plugin gives it as artifact_versions: name the site with -i inventories/<site>"
        )
    versions: dict[str, str] = {}
    for name, version in pairs:
        if not isinstance(version, str):
            raise ArtifactError(f"artifacts: the version of {name} is {version!r}; allowed: text in quotation marks")
        if versions.setdefault(str(name), str(version)) != version:
            raise ArtifactError(f"artifacts asks for {name} {versions[str(name)]} and {version}; call the module once for each")
    return versions


def options(arguments: dict[str, Any], variables: Mapping[str, Any], templar: Any) -> Options:
    """The options of a run; those not given (in `arguments`, which is completed) come from the site's variables."""
    for option, variable in VARIABLES.items():
        if arguments.get(option) is None:
            arguments[option] = templar.template(variables[variable]) if variable in variables else None
    if arguments.get("lock") is None and "site_directory" in variables:
        arguments["lock"] = str(Path(templar.template(variables["site_directory"])) / LOCK)
    return Options(
        architectures=_texts(arguments["architectures"], ()),
        codenames=_texts(arguments["codenames"], ("trixie",)),
        sources=_texts(arguments["sources"], KINDS),
        mirror=str(arguments["mirror"] or ""),
        checksums=str(arguments["checksums"] or POLICIES[0]),
        lock=Path(arguments["lock"]) if arguments.get("lock") else None,
        record=bool(arguments.get("record")),
        keep_caches=bool(arguments["keep_caches"]),
    )


def described(one: Obtained) -> dict[str, Any]:
    """What the module returns of one artifact."""
    return {
        "name": one.target.artifact.name,
        "version": one.target.version,
        "architecture": one.target.key,
        "source": one.source,
        "changed": one.changed,
        "seconds": round(one.seconds, 1),
        "files": len(one.index.files) if one.index else 0,
        "size": one.index.size if one.index else 0,
    }


class ActionModule(ControllerAction):
    """The store holds what is asked for."""

    ERRORS = (ArtifactError,)

    def act(self, variables: dict[str, Any]) -> dict[str, Any]:
        _, arguments = self.validate_argument_spec(argument_spec=ARGUMENTS)
        chosen = options(arguments, variables, self._templar)
        versions = wanted(arguments["artifacts"])
        catalogue = ArtifactCatalogue([*(arguments["catalogues"] or ()), COLLECTION / "artifacts"])
        store = Store(arguments["store"])
        obtainer = Obtainer(store, catalogue, chosen, display.display, TERMINAL_SECONDS if sys.stdout.isatty() else QUIET_SECONDS)
        if self._task.check_mode:
            return self._foresee(obtainer, versions, arguments)
        damaged = store.discard_damaged() if arguments["verify"] else []
        done = obtainer.ensure(versions)
        removed, freed = ([], 0) if arguments["collect"] == "nothing" else store.collect(_keep(versions, arguments))
        return {
            "changed": bool(damaged or removed or obtainer.locked) or any(one.changed for one in done),
            "contents": [described(one) for one in done],
            "damaged": damaged,
            "removed": removed,
            "freed": freed,
            "locked": obtainer.locked,
            "store": str(store.root),
        }

    def _foresee(self, obtainer: Obtainer, versions: dict[str, str], arguments: dict[str, Any]) -> dict[str, Any]:
        plan = obtainer.plan(versions)
        present = [Obtained(target, index.source, index, changed=False) for target, index in plan.present]
        missing = [described(Obtained(target, "", None, changed=True)) | {"sources": obtainer.kinds(target.artifact)} for target in plan.missing]
        removed, freed = ([], 0) if arguments["collect"] == "nothing" else obtainer.store.collect(_keep(versions, arguments), dry=True)
        return {
            "changed": bool(missing or removed),
            "contents": [described(one) for one in present] + missing,
            "damaged": [],
            "removed": removed,
            "freed": freed,
            "locked": [],
            "store": str(obtainer.store.root),
        }


def _keep(versions: Mapping[str, str], arguments: Mapping[str, Any]) -> list[tuple[str, str]] | None:
    return list(versions.items()) if arguments["collect"] == "artifacts" else None


def _texts(raw: Any, default: tuple[str, ...]) -> tuple[str, ...]:
    if raw is None:
        return default
    return tuple(str(item) for item in raw) if isinstance(raw, list | tuple) else (str(raw),)
