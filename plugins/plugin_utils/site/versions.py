# SPDX-License-Identifier: Apache-2.0
"""Which version of each artifact: the release's, or the site's own; in the catalogue; and reachable from what is installed."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ansible_collections.ashlar.stack.plugins.plugin_utils.site.catalogue import ComponentCatalogue
from ansible_collections.ashlar.stack.plugins.plugin_utils.site.models import Problem, Release, Site, SiteError, Upgrade
from ansible_collections.ashlar.stack.plugins.plugin_utils.site.reading import did_you_mean, listed, quoted, read_json

INSTALLED = Path("state") / "installed.json"
"""Below the site's folder: ``{"release": name, "versions": {artifact: version}}``, written at the end of a run that succeeded."""
UPGRADE = Path("state") / "upgrade.json"
"""Below the site's folder: ``{"versions": {artifact: version}, "nodes": [node]}``, what the last upgrade is to change, and the nodes that it is done with."""


def choose_versions(site: Site, release: Release, chosen: Sequence[str], catalogue: ComponentCatalogue) -> tuple[dict[str, str], list[Problem]]:
    """Artifact -> version for all artifacts of the chosen components, and what is wrong with it."""
    problems: list[Problem] = []
    users: dict[str, str] = {}
    for component in chosen:
        for artifact in catalogue.manifests[component].artifacts:
            users.setdefault(artifact, component)
    for artifact in site.versions:
        if artifact not in users:
            known = sorted(users)
            text = f"is not an artifact of this site.{did_you_mean(artifact, known)} Allowed: {listed(known)}."
            problems.append(Problem(site.file, ("versions", artifact), text))
    versions: dict[str, str] = {}
    for artifact, component in sorted(users.items()):
        own = artifact in site.versions
        file = site.file if own else release.file
        version = site.versions[artifact] if own else release.versions.get(artifact)
        try:
            program = catalogue.program(artifact) if artifact in catalogue.artifacts else None
        except SiteError as error:
            problems += error.problems
            continue
        if program:
            versions[artifact] = program
            if version is not None:
                reason = f"{artifact} is built from programs/{artifact}, and its version follows from that"
                problems.append(Problem(file, ("versions", artifact), f"is {quoted(version)}. Nothing may be named here: {reason}. Remove the line."))
            continue
        if version is None:
            text = f"names no version of {artifact}, which {component} installs. Add it to versions:, there or in the site file."
            problems.append(Problem(file, ("versions",), text))
            continue
        if artifact not in catalogue.artifacts:
            hint = did_you_mean(artifact, catalogue.artifacts)
            text = f"names {artifact}, which is not in the catalogue.{hint} Write artifacts/{artifact}/artifact.yml."
            problems.append(Problem(catalogue.manifests[component].file, ("artifacts",), text))
            continue
        try:
            offered = catalogue.versions(artifact)
        except SiteError as error:
            problems += error.problems
            continue
        if version not in offered:
            allowed = f"Allowed: {listed(offered)}, the versions in artifacts/{artifact}/artifact.yml."
            text = f"is {quoted(version)}, which is not in the catalogue. {allowed}"
            problems.append(Problem(file, ("versions", artifact), text))
            continue
        versions[artifact] = version
    return versions, problems


def check_upgrade(site: Site, versions: Mapping[str, str], chosen: Sequence[str], catalogue: ComponentCatalogue) -> Iterable[Problem]:
    """Steps from what is installed that the data of a component would not survive."""
    installed, begun, problems = _recorded(site)
    yield from problems
    for artifact in sorted({name for component in chosen for name in catalogue.manifests[component].stepwise}):
        for recorded, unfinished in ((installed, False), (begun.get("versions", {}), True)):
            if artifact in recorded and artifact in versions:
                problem = _step(site, artifact, recorded[artifact], versions[artifact], catalogue, unfinished)
                if problem:
                    yield problem
                    break


def upgrade_of(site: Site, versions: Mapping[str, str], catalogue: ComponentCatalogue) -> Upgrade:
    """What has to be upgraded, by what is recorded of the site."""
    installed, begun, _ = _recorded(site)
    unfinished = begun.get("versions", {})
    changes = {}
    for artifact, version in versions.items():
        befores = [recorded[artifact] for recorded in (installed, unfinished) if artifact in recorded]
        other = next((before for before in befores if before != version), None)
        if other and not catalogue.program(artifact):
            changes[artifact] = (other, version)
    same = bool(unfinished) and all(unfinished.get(artifact) == after for artifact, (_, after) in changes.items())
    return Upgrade(begun["release"], changes, same, frozenset(begun.get("nodes", ())) if same else frozenset())


def _recorded(site: Site) -> tuple[dict[str, str], dict[str, Any], list[Problem]]:
    """The installed versions; what upgrade.yml has left of an upgrade to others, with the installed release; and what is wrong with these files."""
    installed, problems = _read(site.directory / INSTALLED, '{"versions": {artifact: version}}', "Correct it from the nodes: ls -l /opt/ashlar/*/current.")
    remedy = "Remove it; nodes that were upgraded already are drained once more."
    begun, wrong = _read(site.directory / UPGRADE, '{"versions": {artifact: version}, "nodes": [node]}', remedy)
    versions = {str(name): str(version) for name, version in installed.get("versions", {}).items()}
    if all(versions.get(artifact) == version for artifact, version in begun.get("versions", {}).items()):
        begun = {}
    return versions, {**begun, "release": str(installed.get("release", ""))}, problems + wrong


def _read(file: Path, allowed: str, remedy: str) -> tuple[dict[str, Any], list[Problem]]:
    """A record of versions; empty when there is none."""
    if not file.is_file():
        return {}, []
    try:
        content = read_json(file)
    except SiteError as error:
        return {}, list(error.problems)
    if isinstance(content, dict) and isinstance(content.get("versions"), dict) and isinstance(content.get("nodes", []), list):
        return content, []
    return {}, [Problem(str(file), (), f"is not what a run leaves there. Allowed: {allowed}. {remedy}")]


def _step(site: Site, artifact: str, installed: str, wanted: str, catalogue: ComponentCatalogue, unfinished: bool) -> Problem | None:
    """Why a component's data can't follow from one version of an artifact to another. ``unfinished``: an upgrade to the first one has only begun."""
    before, after = _minor(installed), _minor(wanted)
    path = ("versions", artifact) if artifact in site.versions else ("release",)
    if before is None or after is None or before == after:
        return None
    step = f"would take {artifact} from {installed} to {wanted}"
    if after < before:
        stay = f"Stay at {before[0]}.{before[1]} or restore a backup."
        if unfinished:
            stay = f"An upgrade to {installed} has begun: complete it, or restore a backup."
            stay += f" If {installed} has never started anywhere, remove state/upgrade.json."
        return Problem(site.file, path, f"{step}, a downgrade, after which it cannot read its own data. {stay}")
    if after == (before[0], before[1] + 1):
        return None
    between = [version for version in catalogue.versions(artifact) if _minor(version) == (before[0], before[1] + 1)]
    hint = f"to {between[-1]}" if between else f"to a version {before[0]}.{before[1] + 1}, which has to be added to artifacts/{artifact}/artifact.yml"
    text = f"{step}, across more than one minor version. Allowed: one minor version at a time. Upgrade first {hint}, then on."
    return Problem(site.file, path, text)


def _minor(version: str) -> tuple[int, int] | None:
    match = re.match(r"v?(\d+)\.(\d+)", version)
    return (int(match[1]), int(match[2])) if match else None
