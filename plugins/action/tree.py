# SPDX-License-Identifier: Apache-2.0
"""The controller's half of `ashlar.stack.tree`: renders the templates and sends all files as one bundle."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ansible import constants
from ansible.errors import AnsibleActionFail, AnsibleError
from ansible.plugins.action import ActionBase
from ansible.template import trust_as_template
from ansible_collections.ashlar.stack.plugins.module_utils.tree.bundle import Source, pack
from ansible_collections.ashlar.stack.plugins.plugin_utils.survey import CHANGED, surveyed
from ansible_collections.ashlar.stack.plugins.plugin_utils.turns import TurnError, turn

SUFFIX = ".j2"
IGNORED = (".git", ".gitkeep", ".DS_Store", "__pycache__", ".mypy_cache", ".ruff_cache")
RETURNED = ("changed_paths", "removed_paths", "started", "restarted", "reloaded", "stopped")
LIMIT = 180
"""Seconds for each part of a turn: until the other members are well, for the restart, and until the member is healthy again."""
MOMENT = 20
"""Seconds after which a member that runs counts as unhealthy: its restart takes nothing away, so it waits for nobody."""


def fingerprint(arguments: Mapping[str, Any], sources: Sequence[Source]) -> str:
    """Of everything that is asked of a tree: the task's arguments, and path, content and executable bit of every file. 64 hexadecimal digits."""
    files = sorted((source.path, source.digest, source.executable) for source in sources)
    return hashlib.sha256(json.dumps([arguments, files], sort_keys=True, default=str).encode()).hexdigest()


def _joined(laid: dict[str, Any], restarted: dict[str, Any]) -> dict[str, Any]:
    """The results of a call that held restarts back and of the one that made them, as one."""
    lists = {kind: [*laid.get(kind, []), *restarted.get(kind, [])] for kind in (*RETURNED, "warnings") if laid.get(kind) or restarted.get(kind)}
    diffs = [diff for result in (laid, restarted) for diff in result.get("diff", [])]
    joined = {**laid, **restarted, **lists, "changed": bool(laid.get("changed") or restarted.get("changed"))}
    return {**joined, "diff": diffs} if "diff" in joined else joined


def walk(folder: str) -> Iterator[tuple[str, str]]:
    """Every file below `folder` as (file, path on the host without .j2), sorted; what begins with `_` at the top is for includes."""
    for here, folders, names in os.walk(folder):
        top = here == folder
        names += [name for name in folders if os.path.islink(os.path.join(here, name))]
        folders[:] = sorted(name for name in folders if name not in IGNORED and not (top and name.startswith("_")))
        for name in sorted(names):
            if name in IGNORED or name.endswith(("~", ".swp")) or (top and name.startswith("_")):
                continue
            source = os.path.join(here, name)
            relative = os.path.relpath(source, folder)
            yield source, "/" + (relative.removesuffix(SUFFIX))


class ActionModule(ActionBase):
    """See plugins/modules/tree.py for the documentation."""

    TRANSFERS_FILES = False
    _supports_check_mode = True
    _supports_diff = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Render, pack, and let the module do the rest in one call."""
        task_vars = task_vars or {}
        super().run(tmp, task_vars)
        arguments = dict(self._task.args)
        for made in ("bundle", "fingerprint", "component"):
            if made in arguments:
                raise AnsibleActionFail(f"tree: '{made}' is made from 'source' and cannot be given; leave it out")
        source = arguments.pop("source", None)
        name = arguments.get("name", "?")
        if arguments.get("state", "present") != "absent":
            folder = self._folder(str(source) if source else "templates", str(name), source is not None)
            sources = self._sources(folder, str(name), task_vars)
            if replaced := task_vars.get("node_replaced", {}).get(name):
                stopped = [{"name": unit, "state": "stopped", "enabled": False, "files": []} for unit in replaced]
                arguments["units"] = [*arguments.get("units", []), *stopped]
            if arguments.get("root", "/") == "/":
                asked = fingerprint(arguments, sources)
                if surveyed(task_vars).get("trees", {}).get(name) == asked:
                    return {"changed": False, **{kind: [] for kind in RETURNED}}
                arguments["fingerprint"] = asked
            arguments["bundle"] = pack(sources)
            role = getattr(getattr(self._task, "_role", None), "_role_path", None)
            if role:
                arguments["component"] = os.path.basename(role)
        rolling = self._rolling(arguments.get("component", ""), task_vars)
        result = self._lay({**arguments, "hold": True} if rolling else arguments, task_vars)
        if rolling and result.get("pending"):
            result = _joined(result, self._in_turn(arguments, rolling, task_vars))
        return {**result, **CHANGED} if result.get("changed") else result

    def _lay(self, arguments: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        """The module's result."""
        result: dict[str, Any] = self._execute_module(module_name="ashlar.stack.tree", module_args=arguments, task_vars=task_vars)
        # The arguments hold the whole tree, secrets too; nobody needs them back.
        result.pop("invocation", None)
        return result

    def _rolling(self, component: str, task_vars: dict[str, Any]) -> dict[str, Any]:
        """How running members of the component are restarted; {} where this one need not wait for others."""
        rolling = task_vars.get("component_rolling", {}).get(component)
        if not rolling or self._task.check_mode or task_vars["inventory_hostname"] not in rolling["members"]:
            return {}
        return self._templar.template(rolling) if len(rolling["members"]) > rolling["max_unavailable"] else {}

    def _in_turn(self, arguments: dict[str, Any], rolling: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        """Restart what is pending while at most so many other members are away, and wait until it is back. One that is unhealthy waits for nobody."""
        component, member = arguments["component"], task_vars["inventory_hostname"]
        health = [check for check in self._templar.template(task_vars["node_health"]) if check["component"] == component]
        limit = math.ceil(len(rolling["members"]) / rolling["max_unavailable"]) * 3 * LIMIT
        # Every run has this folder to itself.
        folder = Path(constants.DEFAULT_LOCAL_TMP) / "turns"  # type: ignore[attr-defined]
        try:
            with turn(folder, component, member, rolling["max_unavailable"], limit):
                # Not before: while another member restarts, this one may seem unhealthy.
                if not self._unhealthy(health, MOMENT, task_vars):
                    if "spare" in rolling and (why := self._unhealthy([rolling["spare"]], LIMIT, task_vars)):
                        raise AnsibleActionFail(f"{component} is not restarted on {member}, because its other members can't do without it. {why}")
                    return self._restarted(arguments, health, task_vars)
        except TurnError as error:
            if not self._unhealthy(health, MOMENT, task_vars):
                raise AnsibleActionFail(f"{component} is not restarted on {member}: {error}") from error
        return self._restarted(arguments, health, task_vars)

    def _restarted(self, arguments: dict[str, Any], health: list[dict[str, Any]], task_vars: dict[str, Any]) -> dict[str, Any]:
        """The module's result, once the member is healthy again."""
        result = self._lay(arguments, task_vars)
        if result.get("failed"):
            raise AnsibleActionFail(str(result.get("msg")), result=result)
        if why := self._unhealthy(health, LIMIT, task_vars):
            raise AnsibleActionFail(f"{arguments['component']} did not become healthy on {task_vars['inventory_hostname']} after its restart. {why}")
        return result

    def _unhealthy(self, checks: list[dict[str, Any]], limit: int, task_vars: dict[str, Any]) -> str:
        """Why these checks do not pass within so many seconds; empty when they do."""
        told = self._execute_module(module_name="ashlar.stack.ready", module_args={"checks": checks, "timeout": limit}, task_vars=task_vars)
        return str(told.get("msg", "It is not known why")) if told.get("failed") else ""

    def _folder(self, source: str, name: str, given: bool) -> str:
        """The folder that `source` names: absolute, or in the role, or beside the playbook."""
        role = getattr(self._task, "_role", None)
        bases = [base for base in (getattr(role, "_role_path", None), self._loader.get_basedir()) if base]
        candidates = [source] if os.path.isabs(source) else [os.path.join(base, source) for base in bases]
        for candidate in candidates:
            if os.path.isdir(candidate):
                return os.path.realpath(candidate)
        if not given and role is not None:
            return ""  # a role without templates: a tree of folders, links and units alone
        raise AnsibleActionFail(
            "tree {}: source '{}' is not a folder (looked for {}); it must name the folder whose paths are the host's paths".format(
                name, source, ", ".join(candidates)
            )
        )

    def _sources(self, folder: str, name: str, task_vars: dict[str, Any]) -> list[Source]:
        """Every file of the tree with its content as it shall be on this host; a template that gives only white space is left out."""
        parents = [os.path.dirname(folder), self._loader.get_basedir()]
        search = [
            folder,
            *(place for base in [*task_vars.get("ansible_search_path", []), *parents] for place in (os.path.join(base, "templates"), base)),
        ]
        templar = self._templar.copy_with_new_env(searchpath=search, available_variables=task_vars)
        sources: dict[str, Source] = {}
        for file, path in walk(folder):
            if os.path.islink(file):
                raise AnsibleActionFail(
                    f"tree {name}: {file} is a symbolic link, which a tree does not copy; name it under 'links' (path and target) instead"
                )
            if path in sources:
                raise AnsibleActionFail(f"tree {name}: {file} exists as a file and as a template (.j2); keep one of them")
            executable = os.access(file, os.X_OK)
            if not file.endswith(SUFFIX):
                sources[path] = Source(path, self._verbatim(file), executable)
                continue
            content = self._render(templar, file, name)
            if content.strip():
                sources[path] = Source(path, content.encode(), executable)
        return list(sources.values())

    def _verbatim(self, file: str) -> bytes:
        """The bytes of a file, decrypted if it is in a vault."""
        with open(self._loader.get_real_file(file), "rb") as stream:
            return stream.read()

    def _render(self, templar: Any, file: str, name: str) -> str:
        """A template's text with the task's variables, as the template module renders it."""
        try:
            template = trust_as_template(self._loader.get_text_file_contents(file))
            rendered = templar.template(template, escape_backslashes=False, overrides={"trim_blocks": True})
        except AnsibleError as error:
            raise AnsibleActionFail(f"tree {name}: {file} cannot be rendered: {error.message}") from error
        if rendered is None:
            return ""
        if isinstance(rendered, (dict, list)):
            kind = "dict" if isinstance(rendered, dict) else "list"
            raise AnsibleActionFail(
                f"tree {name}: {file} renders to a {kind}, not to text; end it with a filter such as to_nice_json or to_nice_yaml"
            )
        return str(rendered)
