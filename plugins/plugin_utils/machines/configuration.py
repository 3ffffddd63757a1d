# SPDX-License-Identifier: Apache-2.0
"""The file of the Terraform inventory -> what is to be read, and how; or everything that is wrong with it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible_collections.ashlar.stack.plugins.plugin_utils.machines.adopt import FIELDS, Adoption, Rule, mappings_of
from ansible_collections.ashlar.stack.plugins.plugin_utils.machines.contract import Bastion
from ansible_collections.ashlar.stack.plugins.plugin_utils.machines.getters import parse_getters
from ansible_collections.ashlar.stack.plugins.plugin_utils.machines.hosts import HostOptions, site_ssh
from ansible_collections.ashlar.stack.plugins.plugin_utils.machines.options import check_options, path_of, with_defaults
from ansible_collections.ashlar.stack.plugins.plugin_utils.machines.states.source import Limits, Source, check_backend, resolved
from ansible_collections.ashlar.stack.plugins.plugin_utils.site.models import NODE_CLASSES, Path_, Problem, SiteError
from ansible_collections.ashlar.stack.plugins.plugin_utils.site.reading import did_you_mean, listed, quoted

KINDS = ("root", "state", "backend")
_ONLY_FOR = {"var_files": ("root",), "workspace": ("root", "backend"), "binary": ("root", "backend")}


@dataclass(frozen=True, slots=True)
class Configuration:
    """``file`` is the configuration's own path."""

    file: str
    sources: tuple[Source, ...]
    adoption: Adoption
    hosts: HostOptions
    limits: Limits


def parse_configuration(documentation: str, raw: Any, file: Path) -> Configuration:
    """:raises SiteError: with everything that is wrong; whether a source can be read shows later."""
    problems = check_options(documentation, raw, str(file))
    if problems:
        raise SiteError(problems)
    options = with_defaults(documentation, raw)
    folder = file.parent
    if not options["sources"]:
        problems.append(Problem(str(file), ("sources",), "is empty. Allowed: at least one source, for example {root: ../../terraform/aws}."))
    sources = tuple(_source(index, one, folder, str(file), problems) for index, one in enumerate(options["sources"]))
    adoption = _adoption(options, str(file), problems)
    hosts = _hosts(options, folder, str(file), problems)
    for name in ("timeout_seconds", "limit_mib"):
        if options[name] < 1:
            problems.append(Problem(str(file), (name,), f"is {options[name]}. Allowed: at least 1."))
    if problems:
        raise SiteError(problems)
    return Configuration(str(file), sources, adoption, hosts, Limits(options["timeout_seconds"], options["limit_mib"] * 1048576))


def _source(index: int, raw: Mapping[str, Any], folder: Path, file: str, problems: list[Problem]) -> Source:
    where: Path_ = ("sources", index)
    given = [kind for kind in KINDS if raw[kind] is not None]
    if len(given) != 1:
        found = f"has {listed(given)}" if given else "says nothing of where the state is"
        problems.append(Problem(file, where, f"{found}. Allowed: exactly one of {listed(KINDS)}; make several sources of several."))
        return Source("")
    kind = given[0]
    for option, kinds in _ONLY_FOR.items():
        if raw[option] and kind not in kinds:
            problems.append(Problem(file, (*where, option), f"has no meaning for a {kind}. Remove it; it belongs to a {listed(kinds, 'or a')}."))
    # Prefix and name make one label together, so the prefix begins like one.
    if raw["prefix"] and not (raw["prefix"][0].isalnum() and all(one.isdigit() or "a" <= one <= "z" or one in "-." for one in raw["prefix"])):
        problems.append(Problem(file, (*where, "prefix"), f"is {quoted(raw['prefix'])}. Allowed: small letters, digits, hyphens and dots, for example eu-."))
    if raw["adopt"] and raw["output"] is not None:
        problems.append(Problem(file, (*where, "adopt"), "says that no output counts, and output names one. Remove one of them."))
    common = {name: raw[name] for name in ("workspace", "binary", "output", "adopt", "prefix")}
    if kind != "backend":
        return Source(kind, path_of(raw[kind], folder), **common)
    backend = raw["backend"]
    files = tuple(path_of(one, folder) for one in backend["config_files"])
    wrong = check_backend(backend["type"], backend["config"], bool(files))
    problems += [Problem(file, (*where, "backend", "config", key), text) for key, text in wrong]
    return Source(kind, backend=backend["type"], config=resolved(backend["type"], backend["config"], folder.absolute()), config_files=files, **common)


def _adoption(options: Mapping[str, Any], file: str, problems: list[Problem]) -> Adoption:
    rules: list[Rule] = []
    for index, raw in enumerate(options["classes"]):
        for name in raw["classes"]:
            if name not in NODE_CLASSES:
                text = f"is {quoted(name)}, an unknown node class.{did_you_mean(name, NODE_CLASSES)} Allowed: {listed(NODE_CLASSES)}."
                problems.append(Problem(file, ("classes", index, "classes"), text))
        labels = {key: str(value).lower() if isinstance(value, bool) else str(value) for key, value in raw["labels"].items()}
        rules.append(Rule(tuple(raw["classes"]), raw["name"], raw["type"], labels))
    own: dict[str, dict[str, Any]] = {}
    for type_, fields in options["resources"].items():
        if not isinstance(fields, dict):
            problems.append(Problem(file, ("resources", type_), f"is {quoted(fields)}. Allowed: a mapping of {listed(FIELDS)} to where they stand."))
            continue
        own[type_] = {}
        for name, value in fields.items():
            if name not in FIELDS:
                text = f"is an unknown field.{did_you_mean(name, FIELDS)} Allowed: {listed(FIELDS)}."
                problems.append(Problem(file, ("resources", type_, name), text))
                continue
            try:
                own[type_][name] = parse_getters(value)
            except ValueError as error:
                problems.append(Problem(file, ("resources", type_, name), str(error)))
                own[type_][name] = ()
    mappings = mappings_of(own)
    for type_, of_type in mappings.items():
        if "private_ip" not in of_type:
            text = "is missing: where the private address stands among the attributes. Add it."
            problems.append(Problem(file, ("resources", type_, "private_ip"), text))
    return Adoption(options["classes_from"], tuple(rules), mappings, options["user"])


def _hosts(options: Mapping[str, Any], folder: Path, file: str, problems: list[Problem]) -> HostOptions:
    known_hosts, key = site_ssh(folder)
    given: dict[str, Path | None] = {"known_hosts": known_hosts, "private_key": key}
    for name in given:
        if options[name]:
            given[name] = path_of(options[name], folder)
            if not os.path.isfile(str(given[name])):
                problems.append(Problem(file, (name,), f"is {given[name]}, which is no file. Correct the path, or remove it to use the site's own."))
    bastion = options["bastion"]
    return HostOptions(
        address=options["address"],
        user=options["user"],
        bastion=Bastion(bastion["host"], bastion["user"], bastion["port"]) if bastion else None,
        use_bastion=options["use_bastion"],
        known_hosts=given["known_hosts"],
        key=given["private_key"],
        where=file,
    )
