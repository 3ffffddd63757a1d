# SPDX-License-Identifier: Apache-2.0
"""What the collection has to offer: slots, component manifests, stacks, releases, artifacts and their versions."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from ansible_collections.ashlar.stack.plugins.plugin_utils import programs
from ansible_collections.ashlar.stack.plugins.plugin_utils.site.models import (
    TASKS,
    Manifest,
    NetworkSpec,
    Placement,
    Port,
    Problem,
    Release,
    SiteError,
    Slot,
    Stack,
)
from ansible_collections.ashlar.stack.plugins.plugin_utils.site.reading import did_you_mean, listed, quoted, read_yaml
from ansible_collections.ashlar.stack.plugins.plugin_utils.site.structure import check

SOURCES = ("nodes", "admin", "any")
"""Who else than components and their networks a port may be open to."""
OPTION = re.compile(r"\{\{\s*([a-z_][a-z0-9_]*)\s*\}\}")
"""A value that is an option's."""


@dataclass(frozen=True)
class ComponentCatalogue:
    """``root`` is the collection's folder. Stacks, releases, artifacts and options are read when they are asked for."""

    root: Path
    slots: Mapping[str, Slot]
    manifests: Mapping[str, Manifest]

    @cached_property
    def core(self) -> tuple[str, ...]:
        """Components that are part of every site."""
        return tuple(sorted(name for name, manifest in self.manifests.items() if not manifest.fills))

    @cached_property
    def artifacts(self) -> tuple[str, ...]:
        """Names of the artifacts that exist."""
        return tuple(sorted(file.parent.name for file in (self.root / "artifacts").glob("*/artifact.yml")))

    @cached_property
    def planned(self) -> frozenset[str]:
        """Components that a stack of the collection names and that do not exist yet."""
        names: set[str] = set()
        for file in (self.root / "stacks").glob("*.yml"):
            if file.stem != "slots":
                content = read_yaml(file)
                for part in ("slots", "planned", "alternatives"):
                    names.update(name for choice in content.get(part, {}).values() for name in as_tuple(choice))
        return frozenset(names - set(self.manifests))

    def program(self, artifact: str) -> str | None:
        """The version of an artifact that is a program of ours, which follows from its source; None when it is somebody else's.

        :raises SiteError: its artifact.yml or its source can't be read.
        """
        file = self.root / "artifacts" / artifact / "artifact.yml"
        content = read_yaml(file)
        if not isinstance(content, dict) or not content.get("program"):
            return None
        try:
            return programs.version(programs.folder(self.root / "artifacts", artifact))
        except OSError as error:
            raise SiteError([Problem(str(error.filename), (), f"can't be read: {error.strerror}.")]) from None

    def versions(self, artifact: str) -> tuple[str, ...]:
        """The versions of an artifact that can be had, newest last as the file has them.

        :raises SiteError: its artifact.yml can't be read.
        """
        file = self.root / "artifacts" / artifact / "artifact.yml"
        content = read_yaml(file)
        versions = content.get("versions") if isinstance(content, dict) else None
        if not isinstance(versions, dict):
            raise SiteError([Problem(str(file), ("versions",), "is missing. Allowed: a mapping of version to what is known about it.")])
        return tuple(str(version) for version in versions)

    def options(self, component: str) -> dict[str, Any] | None:
        """The variables of a component as in roles/<component>/meta/argument_specs.yml; None when it has no such file.

        :raises SiteError: the file can't be read.
        """
        file = self.root / "roles" / component / "meta" / "argument_specs.yml"
        if not file.is_file():
            return None
        content = read_yaml(file) or {}
        return dict(content.get("argument_specs", {}).get("main", {}).get("options") or {})

    def defaults(self, component: str) -> dict[str, Any]:
        """roles/<component>/defaults/main.yml; empty when there is none.

        :raises SiteError: the file can't be read.
        """
        file = self.root / "roles" / component / "defaults" / "main.yml"
        return dict(read_yaml(file) or {}) if file.is_file() else {}

    def stack(self, name: str, site_directory: Path, blame: tuple[str, tuple[str, ...]]) -> Stack:
        """The stack called ``name``: the site's own before the collection's.

        :param blame: file and path in it to name when there is none.
        :raises SiteError: there is none, or it is malformed.
        """
        file = self._find("stacks", name, site_directory, blame, "stack")
        raw = read_yaml(file)
        problems = check(self.root, "stack", raw, str(file))
        if not problems and raw["name"] != name:
            problems = [Problem(str(file), ("name",), f"is {quoted(raw['name'])}. Allowed: {quoted(name)}, as the file is called.")]
        if problems:
            raise SiteError(problems)
        return Stack(
            name=name,
            description=raw["description"],
            file=str(file),
            slots={slot: as_tuple(choice) for slot, choice in raw["slots"].items()},
            planned={slot: as_tuple(choice) for slot, choice in raw.get("planned", {}).items()},
        )

    def release(self, name: str, site_directory: Path, blame: tuple[str, tuple[str, ...]]) -> Release:
        """The release called ``name``: the site's own before the collection's.

        :raises SiteError: there is none, or it is malformed.
        """
        file = self._find("releases", name, site_directory, blame, "release")
        raw = read_yaml(file)
        problems = check(self.root, "release", raw, str(file))
        if problems:
            raise SiteError(problems)
        return Release(name, str(file), dict(raw["versions"]))

    def _find(self, folder: str, name: str, site_directory: Path, blame: tuple[str, tuple[str, ...]], noun: str) -> Path:
        places = (site_directory / folder, self.root / folder)
        for place in places:
            if (place / f"{name}.yml").is_file() and not (folder == "stacks" and name == "slots"):
                return place / f"{name}.yml"
        known = sorted({file.stem for place in places for file in place.glob("*.yml")} - {"slots"})
        text = f"is {quoted(name)}, an unknown {noun}.{did_you_mean(name, known)} Allowed: {listed(known)}."
        raise SiteError([Problem(blame[0], blame[1], f"{text} Choose one of these, or write {folder}/{name}.yml beside the site file.")])


def load(root: Path) -> ComponentCatalogue:
    """Slots and manifests under the collection's folder.

    :raises SiteError: something there is malformed; every problem of every file is in it.
    """
    slots = {
        name: Slot(name, raw["description"], raw["single"], raw["needed"], raw.get("node_class"))
        for name, raw in read_yaml(root / "stacks" / "slots.yml").items()
    }
    manifests: dict[str, Manifest] = {}
    problems: list[Problem] = []
    for file in sorted((root / "roles").glob("*/meta/component.yml")):
        try:
            manifest = _manifest(root, file)
        except SiteError as error:
            problems += error.problems
        else:
            manifests[manifest.name] = manifest
    problems += [problem for manifest in manifests.values() for problem in _references(manifest, slots, manifests)]
    if problems:
        raise SiteError(problems)
    return ComponentCatalogue(root, slots, manifests)


def networks_of(manifests: Iterable[Manifest]) -> dict[str, NetworkSpec]:
    """The networks that components take from a site, by name."""
    return {name: network for manifest in manifests for name, network in manifest.networks.items()}


def as_tuple(choice: Any) -> tuple[str, ...]:
    """A name or a list of names, as a tuple of plain strings."""
    return (str(choice),) if isinstance(choice, str) else tuple(str(name) for name in choice)


def _manifest(root: Path, file: Path) -> Manifest:
    raw = read_yaml(file)
    problems = check(root, "manifest", raw, str(file))
    if problems:
        raise SiteError(problems)
    ports = tuple(_port(port) for port in raw.get("ports", ()))
    problems = [
        Problem(str(file), ("ports", index, "port"), f"is {quoted(port.shown)}. Allowed: 1 to 65535, the first not above the last.")
        for index, port in enumerate(ports)
        if not port.option and not _is_range(port.first, port.last)
    ]
    for part in ("ports", "certificates", "metrics"):
        names = [entry["name"] for entry in raw.get(part, ())]
        twice = sorted({name for name in names if names.count(name) > 1})
        problems += [Problem(str(file), (part,), f"has two entries named {quoted(name)}. Names are unique: rename one.") for name in twice]
    if problems:
        raise SiteError(problems)
    return Manifest(
        name=file.parents[1].name,
        description=raw["description"],
        layer=raw["layer"],
        file=str(file),
        fills=as_tuple(raw.get("fills", ())),
        placement=_placement(raw.get("nodes", {})),
        requires=tuple(raw.get("requires", ())),
        conflicts=tuple(raw.get("conflicts", ())),
        ports=ports,
        authorities=tuple(raw.get("authorities", ())),
        certificates=tuple(raw.get("certificates", ())),
        artifacts=tuple(raw.get("artifacts", ())),
        stepwise=tuple(raw.get("stepwise", ())),
        kernel=tuple(raw.get("kernel", ())),
        health=tuple(raw.get("health", ())),
        warnings=tuple(raw.get("warnings", ())),
        failures=tuple(raw.get("failures", ())),
        metrics=tuple(raw.get("metrics", ())),
        page=raw.get("page", {}),
        accepts=raw.get("accepts", {}),
        contributes=raw.get("contributes", {}),
        limits=raw.get("limits", {}),
        groups={name: _placement(group) for name, group in raw.get("groups", {}).items()},
        life=raw.get("life", {}),
        plays=tuple(raw.get("plays", ())),
        networks={name: _network(network) for name, network in raw.get("networks", {}).items()},
        domains=tuple(raw.get("domains", ())),
        replaces=tuple(raw.get("replaces", ())),
        node_labels=raw.get("node_labels", {}),
        secrets={what: tuple(entries) for what, entries in raw.get("secrets", {}).items()},
    )


def _placement(raw: Mapping[str, Any]) -> Placement:
    count = raw.get("count", "any")
    most = 1 if count == "one" else count["max"] if isinstance(count, dict) else raw.get("max")
    return Placement(node_class=raw.get("class", "all"), odd=count == "odd", most=most)


def _port(raw: Mapping[str, Any]) -> Port:
    option, sources = _option(raw["port"]), _option(raw["from"])
    return Port(
        raw["name"],
        *_range("" if option else raw["port"]),
        raw.get("protocol", "tcp"),
        () if sources else tuple(raw["from"]),
        raw.get("route", {}),
        raw.get("address", ""),
        raw.get("published", False),
        option,
        sources,
    )


def _option(value: Any) -> str:
    """The option whose value it is; empty when it is a value."""
    found = OPTION.fullmatch(value) if isinstance(value, str) else None
    return found[1] if found else ""


def _range(value: Any) -> tuple[int, int]:
    """First and last of a port or a range of ports; 0 where it is neither."""
    first, _, last = str(value).partition("-")
    last = last or first
    return (int(first), int(last)) if first.isdecimal() and last.isdecimal() else (0, 0)


def _is_range(first: int, last: int) -> bool:
    return 1 <= first <= last <= 65535


def _network(raw: Mapping[str, Any]) -> NetworkSpec:
    return NetworkSpec(raw["kind"], raw["default"], raw.get("node_prefix"), raw.get("shortest", 8), raw.get("longest", raw.get("node_prefix", 30)))


def resolve(manifest: Manifest, values: Mapping[str, Any], known: Collection[str], file: str) -> tuple[Manifest, list[Problem]]:
    """The manifest with the values of options in its ports and domains, and what is wrong with them.

    :param values: variable -> value of all hosts. ``known``: who a port may be open to.
    """
    problems: list[Problem] = []

    def wrong(option: str, allowed: str) -> None:
        text = f"is {quoted(values.get(option))}. Allowed: {allowed}; not a template."
        problem = Problem(file, ("options", manifest.name, option), text)
        if problem not in problems:
            problems.append(problem)

    ports = []
    for port in manifest.ports:
        if port.option:
            first, last = _range(values.get(port.option))
            if _is_range(first, last):
                port = replace(port, first=first, last=last)
            else:
                wrong(port.option, "a port from 1 to 65535, or a range such as 30000-32767")
        if port.sources_option:
            sources = values.get(port.sources_option)
            if isinstance(sources, list) and set(map(str, sources)) <= set(known):
                port = replace(port, sources=tuple(map(str, sources)))
            else:
                wrong(port.sources_option, f"a list of components, their networks, {listed(SOURCES)}")
        ports.append(port)
    domains = tuple(str(values.get(option, "")) if (option := _option(domain)) else domain for domain in manifest.domains)
    return replace(manifest, ports=tuple(ports), domains=domains), problems


def _route(manifest: Manifest, index: int, port: Port, manifests: Mapping[str, Manifest]) -> Iterable[Problem]:
    """A route that nobody could take."""
    if not port.route:
        return
    edges = [name for name, other in sorted(manifests.items()) if "load_balancer" in other.fills]
    if port.protocol != "tcp" or port.first != port.last:
        yield Problem(manifest.file, ("ports", index, "route"), f"is on {port.protocol} port {port.shown}. Allowed: on one TCP port.")
    if not manifest.health:
        yield Problem(manifest.file, ("ports", index, "route"), "is of a component without health checks, so Consul does not list it. Add health checks.")
    if not {"nodes", "any", *edges} & set(port.sources):
        text = f"is not open to the edge. Allowed: {listed(edges or ['nodes'])}, nodes or any among them. Add one."
        yield Problem(manifest.file, ("ports", index, "from"), text)


def _references(manifest: Manifest, slots: Mapping[str, Slot], manifests: Mapping[str, Manifest]) -> Iterable[Problem]:
    """Names in a manifest that mean nothing."""
    both = [*slots, *manifests]
    sources = [*SOURCES, *networks_of(manifests.values()), *manifests]
    for part, names in (("requires", manifest.requires), ("conflicts", manifest.conflicts)):
        for index, name in enumerate(names):
            if name not in both:
                text = f"is {quoted(name)}, neither a slot nor a component.{did_you_mean(name, both)}"
                yield Problem(manifest.file, (part, index), f"{text} Allowed: the slots {listed(slots)}, or a folder of roles/ with a manifest.")
    for name in manifest.networks:
        if name in (*SOURCES, *both, *(other for each in manifests.values() if each is not manifest for other in each.networks)):
            text = f"is the name of a slot, a component, another component's network, or {listed(SOURCES, 'or')}. Rename it."
            yield Problem(manifest.file, ("networks", name), text)
    for name, group in manifest.groups.items():
        if name in (*slots, *manifests, *(other for each in manifests.values() if each is not manifest for other in each.groups)):
            yield Problem(manifest.file, ("groups", name), "is the name of a slot, a component or another component's group. Rename it.")
        if isinstance(group.most, str) and not group.most.startswith(f"{manifest.name}_"):
            text = f"is {quoted(group.most)}. Allowed: a number, or an option of {manifest.name}, {manifest.name}_..."
            yield Problem(manifest.file, ("groups", name, "max"), text)
    members = manifest.life.get("rolling", {}).get("members")
    if members and members not in manifest.groups:
        allowed = f"a group of {manifest.name}, {listed(manifest.groups)}" if manifest.groups else "nothing, since it has no groups. Remove the line"
        text = f"is {quoted(members)}. Allowed: {allowed}."
        yield Problem(manifest.file, ("life", "rolling", "members"), text)
    if "rolling" in manifest.life and not manifest.health:
        yield Problem(manifest.file, ("life", "rolling"), "is set without health checks, so nobody knows when a member is back. Add health checks.")
    for key in TASKS:
        tasks = f"tasks/{manifest.life.get(key)}.yml"
        if key in manifest.life and not (Path(manifest.file).parents[1] / tasks).is_file():
            yield Problem(manifest.file, ("life", key), f"names {tasks} of the role, which does not exist. Write it, or remove the line.")
    if "drain" in manifest.life and "resume" not in manifest.life:
        yield Problem(manifest.file, ("life", "resume"), "is missing, so that what drain does would never be undone. Add it.")
    for index, port in enumerate(manifest.ports):
        for source in port.sources:
            if source not in sources:
                text = f"is {quoted(source)}, neither a component nor a network of one.{did_you_mean(source, sources)}"
                yield Problem(manifest.file, ("ports", index, "from"), f"{text} Allowed: components, their networks, {listed(SOURCES)}.")
        yield from _route(manifest, index, port, manifests)
    for index, artifact in enumerate(manifest.stepwise):
        if artifact not in manifest.artifacts:
            text = f"is {quoted(artifact)}, which is not among its artifacts.{did_you_mean(artifact, manifest.artifacts)}"
            yield Problem(manifest.file, ("stepwise", index), f"{text} Allowed: {listed(manifest.artifacts)}.")
    for receiver, kinds in manifest.contributes.items():
        if receiver not in manifests:
            text = f"is {quoted(receiver)}, not a component.{did_you_mean(receiver, manifests)} Allowed: a folder of roles/ with a manifest."
            yield Problem(manifest.file, ("contributes", receiver), text)
            continue
        accepted = manifests[receiver].accepts
        for kind in kinds:
            if kind not in accepted:
                text = f"is nothing that {receiver} accepts.{did_you_mean(kind, accepted)} Allowed: {listed(accepted)}, as its manifest says."
                yield Problem(manifest.file, ("contributes", receiver, kind), text)
    for index, certificate in enumerate(manifest.certificates):
        if certificate.get("kind", "certificate") != "keypair" and "authority" not in certificate:
            yield Problem(manifest.file, ("certificates", index, "authority"), "is missing. Only a keypair needs no authority. Add it.")
        if "server" in certificate.get("usages", ()) and not any(certificate.get(names) for names in ("dns", "addresses")):
            text = "is without names although clients of a server check nothing else. Add dns or addresses."
            yield Problem(manifest.file, ("certificates", index), text)
        if certificate.get("with", manifest.name) not in manifests:
            text = f"is {quoted(certificate['with'])}, not a component.{did_you_mean(certificate['with'], manifests)}"
            text += " Allowed: a folder of roles/ with a manifest."
            yield Problem(manifest.file, ("certificates", index, "with"), text)
        for server in certificate.get("permitted_by", ()):
            if server not in manifests:
                text = f"is {quoted(server)}, not a component.{did_you_mean(server, manifests)} Allowed: a folder of roles/ with a manifest."
                yield Problem(manifest.file, ("certificates", index, "permitted_by"), text)
        if "permitted_by" in certificate and ("client" not in certificate.get("usages", ()) or "{{" in certificate.get("common_name", "{{")):
            text = "is for one certificate of all nodes that clients show. Allowed: with the usage client and a common_name that is no template."
            yield Problem(manifest.file, ("certificates", index, "permitted_by"), text)
    for index, entry in enumerate(manifest.metrics):
        if entry["url"].startswith("https:") != ("authority" in entry):
            text = f"is {quoted(entry['url'])}{'' if 'authority' in entry else ' without an authority'}."
            allowed = "Allowed: https with the CA that signed its certificate, or http without one."
            yield Problem(manifest.file, ("metrics", index, "url"), f"{text} {allowed}")
        try:
            re.compile(entry.get("drop", ""))
        except re.error as error:
            yield Problem(manifest.file, ("metrics", index, "drop"), f"is {quoted(entry['drop'])}: {error}. Allowed: a regular expression. Correct it.")
