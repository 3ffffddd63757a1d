# SPDX-License-Identifier: Apache-2.0
"""All sources of an inventory -> its machines."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.ashlar.stack.plugins.plugin_utils.machines.adopt import adopt
from ansible_collections.ashlar.stack.plugins.plugin_utils.machines.configuration import Configuration
from ansible_collections.ashlar.stack.plugins.plugin_utils.machines.contract import Machine, parse_machines
from ansible_collections.ashlar.stack.plugins.plugin_utils.machines.states.model import Pending, StateFault
from ansible_collections.ashlar.stack.plugins.plugin_utils.machines.states.source import OUTPUT, Source, nodes_of, read_source
from ansible_collections.ashlar.stack.plugins.plugin_utils.site.models import Problem, SiteError

MOST_PROBLEMS = 10
"""So many problems of a source's machines are said; the others mostly are of the same kind."""


@dataclass(slots=True)
class Collected:
    """``pending``: sentences on sources that nothing was applied to. ``cacheable``: nothing in it was marked as sensitive."""

    machines: dict[str, Machine] = field(default_factory=dict)
    pending: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    cacheable: bool = True


def collect(configuration: Configuration, environment: Mapping[str, str]) -> Collected:
    """Reads every source.

    :raises SiteError: with what is wrong with each of them.
    """
    collected = Collected()
    problems: list[Problem] = []
    owners: dict[str, str] = {}
    for index, source in enumerate(configuration.sources):
        try:
            machines = _machines_of(source, configuration, environment, collected)
        except StateFault as fault:
            where = ("sources", index, source.kind)
            problems.append(Problem(configuration.file, where, f"{source.shown} {fault}"))
            continue
        except SiteError as error:
            problems += error.problems
            continue
        twice = [name for name in machines if name in owners]
        if twice:
            more = f" (and {len(twice) - 1} more)" if len(twice) > 1 else ""
            text = f"{source.shown} has the node {twice[0]}{more}, as {owners[twice[0]]} has. Names are unique: give one of the sources a prefix."
            problems.append(Problem(configuration.file, ("sources", index), text))
        owners.update(dict.fromkeys(machines, source.shown))
        collected.machines.update(machines)
    if problems:
        raise SiteError(problems)
    return collected


def parsed(raw: Mapping[str, Any], where: str, secret: bool = False) -> dict[str, Machine]:
    """:raises SiteError: with the first of what is wrong, and how much there is."""
    machines, problems = parse_machines(raw, where, secret)
    if problems:
        if len(problems) > MOST_PROBLEMS:
            problems = [Problem(where, (), f"{len(problems)} problems, of which the first {MOST_PROBLEMS} follow."), *problems[:MOST_PROBLEMS]]
        raise SiteError(problems)
    return machines


def _machines_of(source: Source, configuration: Configuration, environment: Mapping[str, str], collected: Collected) -> dict[str, Machine]:
    state = read_source(source, environment, configuration.limits)
    name = source.output or OUTPUT
    nodes = state if isinstance(state, Pending) else nodes_of(state, source)
    if isinstance(nodes, Pending) or isinstance(state, Pending):
        reason = nodes.reason if isinstance(nodes, Pending) else ""
        collected.pending.append(f"{source.shown} {reason}")
        return {}
    if nodes is not None:
        secret = state.outputs[name].sensitive
        collected.cacheable &= not secret
        machines = parsed(nodes, f"{source.shown}: output {name}", secret)
    else:
        adopted = adopt(state.resources(), configuration.adoption, None if source.adopt else name)
        collected.warnings += [f"{source.shown}: {warning}" for warning in adopted.warnings]
        machines = parsed(adopted.machines, f"{source.shown}: resources")
    return {f"{source.prefix}{node}": machine for node, machine in machines.items()} if source.prefix else machines
