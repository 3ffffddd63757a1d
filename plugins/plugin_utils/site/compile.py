# SPDX-License-Identifier: Apache-2.0
"""Site, stack, manifests, release and nodes -> Plan. Decides everything, touches nothing."""

from __future__ import annotations

import stat
from collections import ChainMap
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ansible_collections.ashlar.stack.plugins.plugin_utils.site.catalogue import SOURCES, ComponentCatalogue, as_tuple, networks_of, resolve
from ansible_collections.ashlar.stack.plugins.plugin_utils.site.choice import choose
from ansible_collections.ashlar.stack.plugins.plugin_utils.site.memory import recall
from ansible_collections.ashlar.stack.plugins.plugin_utils.site.models import (
    EVERY_NODE,
    LAYERS,
    NETWORK_KINDS,
    NODE_CLASSES,
    NOTHING,
    RETIRING,
    TASKS,
    Manifest,
    Memory,
    Networks,
    NetworkSpec,
    Node,
    Plan,
    Problem,
    Release,
    Site,
    SiteError,
    Stack,
    Upgrade,
)
from ansible_collections.ashlar.stack.plugins.plugin_utils.site.network import check_networks, parse_networks
from ansible_collections.ashlar.stack.plugins.plugin_utils.site.nodes import RawNode, check_labels, parse_nodes
from ansible_collections.ashlar.stack.plugins.plugin_utils.site.options import check_options, check_variable_files
from ansible_collections.ashlar.stack.plugins.plugin_utils.site.placement import (
    check_counts,
    check_ports,
    components_of,
    founders_of,
    leaving,
    place,
    place_groups,
)
from ansible_collections.ashlar.stack.plugins.plugin_utils.site.reading import duplicate_keys, listed, quoted, read_yaml
from ansible_collections.ashlar.stack.plugins.plugin_utils.site.structure import check
from ansible_collections.ashlar.stack.plugins.plugin_utils.site.versions import check_upgrade, choose_versions, upgrade_of


def plan_site(
    catalogue: ComponentCatalogue,
    raw_site: Any,
    site_file: Path,
    raw_nodes: Sequence[RawNode],
    groups: Mapping[str, Collection[str]] = MappingProxyType({}),
    pending: bool = False,
    read_variables: Callable[[Path], Any] = read_yaml,
    settings: Sequence[Mapping[str, Any]] = ({}, {}),
) -> Plan:
    """The whole way from what was written to the plan; reads the stack, the release and what lies beside the site file.

    :param groups: groups that the inventory has already, with the names of their hosts.
    :param pending: the site's machines are still to be made. What can be judged without them is, and the plan has the site's own variables only.
    :param read_variables: the content of a file of group_vars or host_vars.
    :param settings: variables of all hosts that win over the site file's options, and those that only win over defaults.
    :raises SiteError: with everything that is wrong.
    """
    problems = duplicate_keys(site_file)
    for file in sorted({node.file for node in raw_nodes if node.file.endswith((".yml", ".yaml"))}):
        problems += duplicate_keys(Path(file))
    taken = {*groups, *catalogue.manifests, *_own_groups(catalogue), *NODE_CLASSES, EVERY_NODE, RETIRING, "all", "ungrouped"}
    # Hosts of other sources are half a site: they are judged with the machines that are to come.
    nodes, wrong_nodes = parse_nodes(() if pending else raw_nodes, taken)
    problems += wrong_nodes
    if not nodes and not wrong_nodes and not pending:
        text = "finds no nodes. Write them to a file whose name sorts before it (10-nodes.yml), as inventories/example/10-nodes.yml shows."
        problems.append(Problem(str(site_file), (), text))
    structural = check(catalogue.root, "site", raw_site, str(site_file))
    if structural:
        raise SiteError(problems + structural)

    site = _site(raw_site, site_file)
    problems += check_credentials(site.directory / "credentials")
    problems += check_variable_files(catalogue, site.directory, read_variables)
    stack: Stack | None = None
    release: Release | None = None
    try:
        stack = catalogue.stack(site.stack, site.directory, (site.file, ("stack",)))
    except SiteError as error:
        problems += error.problems
    try:
        release = catalogue.release(site.release, site.directory, (site.file, ("release",)))
    except SiteError as error:
        problems += error.problems
    memory = Memory()
    try:
        memory = recall(catalogue.root, site.directory)
    except SiteError as error:
        problems += error.problems
    if stack is None or release is None:
        raise SiteError(problems)
    removed = {*memory.removed, *_removing(settings[0], nodes)}
    # What depends on the nodes can't be judged while some of them are wrong: a missing node would be blamed on the others.
    known = nodes if nodes and not wrong_nodes and not pending else None
    return compile_plan(site, stack, catalogue, release, known, problems, pending, groups, memory, settings, removed)


def compile_plan(
    site: Site,
    stack: Stack,
    catalogue: ComponentCatalogue,
    release: Release,
    nodes: Sequence[Node] | None,
    problems: Iterable[Problem] = (),
    pending: bool = False,
    existing: Mapping[str, Collection[str]] = MappingProxyType({}),
    memory: Memory = NOTHING,
    settings: Sequence[Mapping[str, Any]] = ({}, {}),
    removed: Collection[str] = (),
) -> Plan:
    """The plan of a site.

    :param nodes: None when they are not known, which is a problem among ``problems`` then, unless they are ``pending``.
    :param problems: what was found wrong before; there is no plan if there is one.
    :param existing: groups that the inventory has already, with the names of their hosts.
    :param memory: which node carries what. ``settings``: see ``plan_site``. ``removed``: names of nodes that shall carry nothing.
    :raises SiteError: with these and everything else that is wrong.
    """
    found = list(problems)
    chosen, wrong = choose(site, stack, catalogue)
    found += wrong
    found += check_options(catalogue, chosen, site.options, site.file)
    given = ChainMap(settings[0], _options(site), settings[1], _defaults(catalogue, chosen))  # type: ignore[arg-type]
    catalogue, wrong = _resolved(catalogue, chosen, given, site.file)
    found += wrong
    own = [catalogue.manifests[name] for name in chosen]
    takers = {network: name for name, manifest in catalogue.manifests.items() for network in manifest.networks}
    # A network of a component that a wrong choice has left out is not blamed as well.
    meant = [catalogue.manifests[name] for network, name in takers.items() if found and network in site.networks]
    specs = networks_of([*own, *meant])
    networks, wrong = parse_networks(site.networks, site.file, specs, takers)
    found += wrong
    found += check_domain(site, own)
    versions, wrong = choose_versions(site, release, chosen, catalogue)
    found += wrong
    found += check_upgrade(site, versions, chosen, catalogue)
    contributions, wrong = contributions_of(own)
    found += wrong
    placed: dict[str, list[Node]] = {}
    grouped: dict[str, list[Node]] = {}
    leaves: dict[str, list[str]] = {}
    leavers: list[Node] = []
    if nodes is not None:
        leavers = [node for node in nodes if node.name in removed]
        nodes = [node for node in nodes if node.name not in removed]
        placed = {name: place(catalogue.manifests[name].placement, nodes, memory.carriers.get(name, ())) for name in chosen}
        grouped, wrong = place_groups(own, nodes, memory, given, site.file)
        found += wrong
        leaves = leaving(memory, {**placed, **grouped}, [*nodes, *leavers])
        found += check_groups(_groups(catalogue, chosen, nodes, placed, grouped, leaves, leavers), existing, site.file)
        found += check_names(nodes, catalogue.manifests.values())
        found += check_labels(nodes, own)
        found += check_counts(site, chosen, catalogue, nodes)
        found += check_ports(placed, catalogue)
    carriers = {node.name for manifest in own if "overlay" in manifest.fills for node in placed.get(manifest.name, ())}
    found += check_networks(networks, specs, nodes or (), len(carriers), site.file)
    if found or (nodes is None and not pending):
        raise SiteError(found)
    if nodes is None:
        empty = (EVERY_NODE, *NODE_CLASSES, *sorted(catalogue.manifests), *_own_groups(catalogue), RETIRING)
        return Plan({name: [] for name in empty}, _site_variables(site, networks, specs), {}, {}, {})
    return _plan(site, networks, specs, catalogue, chosen, versions, nodes, placed, grouped, memory, leaves, leavers, contributions)


def contributions_of(chosen: Sequence[Manifest]) -> tuple[dict[str, dict[str, dict[str, Any]]], list[Problem]]:
    """What the chosen components contribute to each other: component -> kind -> name -> content; and names that two of them gave."""
    contributions: dict[str, dict[str, dict[str, Any]]] = {manifest.name: {kind: {} for kind in manifest.accepts} for manifest in chosen if manifest.accepts}
    givers: dict[tuple[str, str, str], str] = {}
    problems = []
    for manifest in chosen:
        for receiver, kinds in manifest.contributes.items():
            for kind, entries in kinds.items() if receiver in contributions else ():
                for name, content in entries.items():
                    giver = givers.setdefault((receiver, kind, name), manifest.name)
                    if giver != manifest.name:
                        text = f"is contributed by {giver}, too. Names are unique on a site: choose one of the two components, or rename it."
                        problems.append(Problem(manifest.file, ("contributes", receiver, kind, name), text))
                    contributions[receiver][kind][name] = content
    return contributions, problems


def steps_of(chosen: Sequence[Manifest]) -> Iterator[dict[str, str]]:
    """The plays of chosen components as `site.yml` has them, as ``{component, tasks}``; without those at `settings` and `ready`."""
    for layer in LAYERS:
        yield from ({"component": manifest.name, **play} for manifest in chosen for play in _plays(manifest, layer))
        for manifest in chosen:
            if manifest.layer == layer:
                yield {"component": manifest.name, "tasks": "main"}
                yield from ({"component": manifest.name, **play} for play in _plays(manifest, None))


def clients_of(chosen: Sequence[Manifest]) -> dict[str, list[str]]:
    """Chosen component -> the common names of the client certificates that it lets in, sorted."""
    permitted: dict[str, set[str]] = {manifest.name: set() for manifest in chosen}
    for manifest in chosen:
        for certificate in manifest.certificates:
            for server in permitted.keys() & certificate.get("permitted_by", ()):
                permitted[server].add(certificate["common_name"])
    return {name: sorted(clients) for name, clients in permitted.items()}


def page_of(chosen: Sequence[Manifest]) -> dict[str, dict[str, str]]:
    """The closing page: section -> row -> text, sections and rows in the order of the components that give them."""
    page: dict[str, dict[str, str]] = {}
    for manifest in chosen:
        for section, rows in manifest.page.items():
            page.setdefault(section, {}).update(rows)
    return page


def check_groups(groups: Mapping[str, Collection[str]], existing: Mapping[str, Collection[str]], file: str) -> Iterable[Problem]:
    """Hosts that a group of the inventory would bring into plays of the same name, though the plan doesn't."""
    for name, planned in groups.items():
        strangers = sorted(set(existing.get(name, ())) - set(planned))
        if strangers:
            kinds = {EVERY_NODE: "every node", RETIRING: "what leaves a node"}
            kind = kinds.get(name, f"the {'node class' if name in NODE_CLASSES else 'component'} {name}")
            text = f"a group of the inventory is named {name} and holds {listed(strangers)}, on which plays for {kind} would run,"
            yield Problem(file, (), f"{text} though the plan has none there. Rename the group, or correct node_classes.")


def check_names(nodes: Iterable[Node], manifests: Iterable[Manifest]) -> Iterable[Problem]:
    """Nodes that are called like a client of some component: a certificate with the node's name would let the node in as that client."""
    clients = {
        name: manifest.name
        for manifest in manifests
        for certificate in manifest.certificates
        if "client" in certificate.get("usages", ())
        for name in (str(certificate.get("common_name", certificate["name"])), *certificate.get("dns", ()))
        if "{{" not in name
    }
    for node in nodes:
        if node.name in clients:
            text = f"is the name that a client certificate of {clients[node.name]} has, and servers would take this node for that client. Rename the node."
            yield Problem(node.file, ("hosts", node.name), text)


def check_domain(site: Site, manifests: Iterable[Manifest]) -> Iterable[Problem]:
    """Whether the site's names are another DNS's, where they would be asked for in vain."""
    for domain, owner in ((domain, manifest.name) for manifest in manifests for domain in manifest.domains):
        if site.domain == domain or site.domain.endswith(f".{domain}"):
            text = f"is {quoted(site.domain)}. Names below {domain} belong to {owner} and resolve nowhere else. Allowed: a domain of your own,"
            yield Problem(site.file, ("domain",), f"{text} for example {site.name}.example.com.")


def check_credentials(folder: Path) -> Iterable[Problem]:
    """Whether secrets are open to others, or closed to us."""
    remedy = f"Allowed: a folder of the user who runs Ansible, mode 0700. Run: sudo chown -R $USER {folder}"
    try:
        mode = folder.stat().st_mode
    except FileNotFoundError:
        return
    except OSError as error:
        yield Problem(str(folder), (), f"cannot be read: {error.strerror}. {remedy}")
        return
    if not stat.S_ISDIR(mode):
        yield Problem(str(folder), (), "is not a folder. Allowed: a folder of mode 0700, made on the first run. Move it away.")
        return
    if stat.S_IMODE(mode) != 0o700:
        why = "since the keys of the site's CAs are there"
        text = f"has mode {stat.S_IMODE(mode):04o}. Allowed: 0700, {why}. Run: chmod 0700 {folder}"
        yield Problem(str(folder), (), text)
    try:
        files = sorted(file for file in folder.rglob("*") if file.suffix in (".key", ".kubeconfig"))
        opened = [file for file in files if file.stat().st_mode & 0o077]
    except OSError as error:
        yield Problem(str(folder), (), f"cannot be read: {error.strerror}. Allowed: a folder of the user who runs Ansible. Run: sudo chown -R $USER {folder}")
        return
    for file in opened:
        text = f"has mode {stat.S_IMODE(file.stat().st_mode):04o}, so others can read a secret. Allowed: 0600. Run: chmod 0600 {file}"
        yield Problem(str(file), (), text)


def _site(raw: Mapping[str, Any], file: Path) -> Site:
    return Site(
        name=str(raw["site"]),
        domain=str(raw["domain"]),
        stack=str(raw["stack"]),
        release=str(raw["release"]),
        file=str(file),
        directory=file.parent,
        networks=raw.get("networks", {}),
        slots={str(slot): as_tuple(choice) for slot, choice in raw.get("slots", {}).items()},
        extras=as_tuple(raw.get("extras", ())),
        versions={str(name): str(version) for name, version in raw.get("versions", {}).items()},
        options=raw.get("options", {}),
        checksums=str(raw.get("checksums", "published")),
        backup=raw.get("backup", {}),
    )


def _plan(
    site: Site,
    networks: Networks,
    specs: Mapping[str, NetworkSpec],
    catalogue: ComponentCatalogue,
    chosen: list[str],
    versions: dict[str, str],
    nodes: Sequence[Node],
    placed: Mapping[str, Sequence[Node]],
    grouped: Mapping[str, Sequence[Node]],
    memory: Memory,
    leaves: Mapping[str, Sequence[str]],
    leavers: Sequence[Node],
    contributions: Mapping[str, Any],
) -> Plan:
    addresses = {name: [str(node.address) for node in placed.get(name, ())] for name in catalogue.manifests}
    groups = _groups(catalogue, chosen, nodes, placed, grouped, leaves, leavers)
    # Certificates and templates of one component may name a variable of another, whose role's defaults they can't see.
    defaults = _defaults(catalogue, chosen)
    variables = _site_variables(site, networks, specs)
    variables |= {
        "site_nodes": {
            node.name: {
                "address": str(node.address),
                "classes": list(node.classes),
                "zone": node.zone,
                "region": node.region,
                "labels": dict(node.labels),
            }
            for node in nodes
        },
        "site_components": chosen,
        "component_layers": {name: catalogue.manifests[name].layer for name in chosen},
        "component_steps": list(steps_of([catalogue.manifests[name] for name in chosen])),
        "component_about": {name: _about(catalogue.manifests[name], versions) for name in chosen},
        "site_ports": _ports([catalogue.manifests[name] for name in chosen]),
        "site_metrics": [
            {"component": name, "name": entry["name"], **({"drop": entry["drop"]} if "drop" in entry else {})}
            for name in chosen
            for entry in catalogue.manifests[name].metrics
        ],
        "site_page": page_of([catalogue.manifests[name] for name in chosen]),
        "site_secrets": _secrets([catalogue.manifests[name] for name in chosen]),
        "contributions": contributions,
        "artifact_versions": versions,
        "site_upgrade": _upgrade(upgrade_of(site, versions, catalogue), catalogue, placed, groups),
        "component_nodes": {name: groups[name] for name in sorted(catalogue.manifests)},
        "component_groups": {name: groups[name] for name in sorted(grouped)},
        "component_founders": founders_of([catalogue.manifests[name] for name in chosen], memory, placed),
        "component_rolling": {name: _rolling(catalogue.manifests[name], groups) for name in chosen if "rolling" in catalogue.manifests[name].life},
        "component_holds": {name: catalogue.manifests[name].life["holds"] for name in chosen if "holds" in catalogue.manifests[name].life},
        "component_tasks": {
            key: {name: catalogue.manifests[name].life[key] for name in chosen if key in catalogue.manifests[name].life} for key in TASKS
        },
        "component_retired": {name: {"component": name, "leftovers": catalogue.manifests[name].life.get("leftovers", {})} for name in chosen},
        "component_addresses": {name: addresses[name] for name in sorted(catalogue.manifests)},
        "component_clients": clients_of([catalogue.manifests[name] for name in chosen]),
        "endpoints": {
            name: {port.name: [f"{address}:{port.first}" for address in addresses[name]] for port in catalogue.manifests[name].ports if port.first == port.last}
            for name in sorted(catalogue.manifests)
        },
        "site_retiring": {name: _leaving(catalogue, name, names, {node.name for node in leavers}) for name, names in sorted(leaves.items())},
        "site_removed": [node.name for node in leavers],
        "site_added": [node.name for node in nodes if not any(node.name in names for names in memory.carriers.values())],
    }
    signing = {certificate["authority"] for name in chosen for certificate in _certificates(catalogue.manifests[name], chosen) if "authority" in certificate}
    kinds: dict[tuple[str, ...], dict[str, Any]] = {}
    hosts: dict[str, Mapping[str, Any]] = {}
    for node, components in components_of(placed):
        if components not in kinds:
            kinds[components] = _node_variables([catalogue.manifests[name] for name in components], chosen, signing)
        hosts[node.name] = kinds[components]
    for node in (*nodes, *leavers):
        hosts.setdefault(node.name, _node_variables([], chosen, signing))
    for name in groups[RETIRING]:
        hosts[name] = {**hosts[name], "node_retiring": _retiring(catalogue, name, leaves)}
    return Plan(groups, variables, _options(site), defaults, {node.name: hosts[node.name] for node in (*nodes, *leavers)})


def _resolved(
    catalogue: ComponentCatalogue, chosen: Sequence[str], given: Mapping[str, Any], file: str
) -> tuple[ComponentCatalogue, list[Problem]]:
    """The catalogue with the site's values in the manifests of the chosen components, and what is wrong with these."""
    known = (*SOURCES, *networks_of(catalogue.manifests.values()), *catalogue.manifests)
    manifests, problems = dict(catalogue.manifests), []
    for name in chosen:
        manifests[name], wrong = resolve(manifests[name], given, known, file)
        problems += wrong
    return replace(catalogue, manifests=manifests), problems


def _options(site: Site) -> dict[str, Any]:
    return {name: value for given in site.options.values() for name, value in given.items()}


def _defaults(catalogue: ComponentCatalogue, chosen: Sequence[str]) -> dict[str, Any]:
    return {name: value for component in chosen for name, value in catalogue.defaults(component).items()}


def _own_groups(catalogue: ComponentCatalogue) -> dict[str, str]:
    """Group -> the component whose group it is."""
    return {group: name for name, manifest in sorted(catalogue.manifests.items()) for group in manifest.groups}


def _life(catalogue: ComponentCatalogue, name: str) -> Mapping[str, Any]:
    """Of a component, of the component whose group it is, or of one that the collection had once."""
    manifest = catalogue.manifests.get(_own_groups(catalogue).get(name, name))
    return manifest.life if manifest else {}


def _leaving(catalogue: ComponentCatalogue, name: str, nodes: Sequence[str], removed: Collection[str]) -> dict[str, Any]:
    """What leaves which nodes, and what is lost with it. Who removes a node has agreed to that already."""
    return {"nodes": list(nodes), "holds": "" if set(nodes) <= set(removed) else _life(catalogue, name).get("holds", "")}


def _removing(settings: Mapping[str, Any], nodes: Sequence[Node]) -> set[str]:
    """Nodes that a verb asks to be planned without, to see whether that can be."""
    named = settings.get("site_removing", ())
    return {node.name for node in nodes} & set(named.split(",") if isinstance(named, str) else named)


def _units(manifest: Manifest) -> set[str]:
    return {check[key] for check in manifest.health for key in ("unit", "log_unit") if key in check}


def _replaced(manifests: Sequence[Manifest]) -> dict[str, list[str]]:
    """Component -> units of the host that it stops: those that it replaces and no component of the node runs, each once."""
    taken = {unit for manifest in manifests for unit in _units(manifest)}
    replaced: dict[str, list[str]] = {}
    for manifest in manifests:
        units = [unit for unit in manifest.replaces if unit not in taken]
        taken.update(units)
        if units:
            replaced[manifest.name] = units
    return replaced


def _about(manifest: Manifest, versions: Mapping[str, str]) -> dict[str, Any]:
    """What a component is, for people. Its version is that of the artifact of its name, else of the first."""
    artifact = manifest.name if manifest.name in manifest.artifacts else next(iter(manifest.artifacts), "")
    return {
        "description": manifest.description,
        "version": versions.get(artifact, ""),
        "artifacts": list(manifest.artifacts),
        "units": sorted(_units(manifest)),
        "checked": bool(manifest.health),
    }


def _plays(manifest: Manifest, place: str | None) -> Iterator[dict[str, str]]:
    return ({"tasks": play["tasks"]} for play in manifest.plays if play.get("at") == place)


def _rolling(manifest: Manifest, groups: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """How running members of a component are restarted in turns."""
    rolling = manifest.life["rolling"]
    spare = {"spare": {"component": manifest.name, **rolling["spare"]}} if "spare" in rolling else {}
    return {"max_unavailable": 1, **rolling, **spare, "members": list(groups[rolling.get("members", manifest.name)])}


def _secrets(manifests: Sequence[Manifest]) -> dict[str, list[dict[str, Any]]]:
    """What rotate.yml can replace on a site: its word for it -> entries of all components, each once."""
    found: dict[str, list[dict[str, Any]]] = {}
    for manifest in manifests:
        for what, entries in manifest.secrets.items():
            listed = found.setdefault(what, [])
            listed += [dict(entry) for entry in entries if dict(entry) not in listed]
    return found


def _upgrade(
    upgrade: Upgrade, catalogue: ComponentCatalogue, placed: Mapping[str, Sequence[Node]], groups: Mapping[str, Sequence[str]]
) -> dict[str, Any]:
    """With ``left``: node that is still to be upgraded, since something changes there that does not restart in turns -> the components that take it out of
    service for that, those at and above the first one that changes."""
    left = {}
    for node, components in components_of(placed):
        manifests = [catalogue.manifests[name] for name in components]
        changing = [
            place
            for place, each in enumerate(manifests)
            if upgrade.artifacts.keys() & set(each.artifacts) and ("rolling" not in each.life or node.name not in _rolling(each, groups)["members"])
        ]
        if changing and node.name not in upgrade.done:
            left[node.name] = [each.name for each in manifests[changing[0] :] if "drain" in each.life]
    artifacts = {name: {"from": before, "to": after} for name, (before, after) in upgrade.artifacts.items()}
    return {"release": upgrade.release, "artifacts": artifacts, "begun": upgrade.begun, "left": left}


def _retiring(catalogue: ComponentCatalogue, node: str, leaves: Mapping[str, Sequence[str]]) -> list[dict[str, Any]]:
    """What leaves a node, the last layer first. A group is no installation: the component's own role does what follows from it."""
    names = [name for name in leaves if node in leaves[name] and name not in _own_groups(catalogue)]

    def order(name: str) -> tuple[int, str]:
        return (-LAYERS.index(catalogue.manifests[name].layer) if name in catalogue.manifests else 1, name)

    return [{"component": name, **_life(catalogue, name)} for name in sorted(names, key=order)]


def _groups(
    catalogue: ComponentCatalogue,
    chosen: Sequence[str],
    nodes: Sequence[Node],
    placed: Mapping[str, Sequence[Node]],
    grouped: Mapping[str, Sequence[Node]],
    leaves: Mapping[str, Sequence[str]],
    leavers: Sequence[Node],
) -> dict[str, list[str]]:
    """In the order of `ansible-inventory --graph`: the nodes, what is installed on them,
    layer by layer, then what was not chosen, and the nodes that something leaves."""
    groups = {EVERY_NODE: [node.name for node in nodes]}
    groups |= {name: [node.name for node in nodes if name in node.classes] for name in NODE_CLASSES}
    for name in (*chosen, *sorted(set(catalogue.manifests) - set(chosen))):
        groups[name] = [node.name for node in placed.get(name, ())]
    groups |= {name: [node.name for node in grouped.get(name, ())] for name in _own_groups(catalogue)}
    gone = {name for names in leaves.values() for name in names}
    groups[RETIRING] = [node.name for node in (*nodes, *leavers) if node.name in gone]
    return groups


def _site_variables(site: Site, networks: Networks, specs: Mapping[str, NetworkSpec]) -> dict[str, Any]:
    """What is known of a site whatever machines it has."""
    return {
        "site_name": site.name,
        "site_domain": site.domain,
        "site_stack": site.stack,
        "site_release": site.release,
        "site_directory": str(site.directory),
        "site_credentials": str(site.directory / "credentials"),
        "site_checksums": site.checksums,
        "site_backup": dict(site.backup),
        "site_networks": {
            "admin": [str(network) for network in networks.admin],
            **{name: str(network) for name, network in networks.inner.items()},
        },
        "network_kinds": {kind: [name for name, spec in specs.items() if spec.kind == kind] for kind in NETWORK_KINDS},
    }


def _certificates(manifest: Manifest, chosen: Collection[str]) -> list[Mapping[str, Any]]:
    """Those that a component has on a site of these components."""
    return [certificate for certificate in manifest.certificates if certificate.get("with", manifest.name) in chosen]


def _node_variables(manifests: Sequence[Manifest], chosen: Collection[str], signing: Collection[str]) -> dict[str, Any]:
    """:param signing: CAs that sign something on this site."""
    return {
        "node_components": [manifest.name for manifest in manifests],
        "node_artifacts": sorted({artifact for manifest in manifests for artifact in manifest.artifacts}),
        "node_kernel": sorted({feature for manifest in manifests for feature in manifest.kernel}),
        "node_replaced": _replaced(manifests),
        "node_ports": _ports(manifests, own=True),
        "node_certificates": [
            {"component": manifest.name, **{key: value for key, value in certificate.items() if key not in ("permitted_by", "with")}}
            for manifest in manifests
            for certificate in _certificates(manifest, chosen)
        ],
        "node_authorities": sorted({authority for manifest in manifests for authority in manifest.authorities if authority in signing}),
        "node_health": [
            {"component": manifest.name, **check} | ({"failures": list(manifest.failures)} if manifest.failures else {})
            for manifest in manifests
            for check in manifest.health
        ],
        "node_warnings": [{"component": manifest.name, **check} for manifest in manifests for check in manifest.warnings],
        "node_metrics": [{"component": manifest.name, **entry} for manifest in manifests for entry in manifest.metrics],
    }


def _ports(manifests: Sequence[Manifest], own: bool = False) -> list[dict[str, Any]]:
    """:param own: whether it is a node's own, which registers the route and looks whether the address is free."""
    return [
        {"component": manifest.name, "name": port.name, "port": port.shown, "protocol": port.protocol, "from": list(port.sources)}
        | ({"route": dict(port.route)} if own and port.route else {})
        | ({"address": port.address} if own and port.address else {})
        | ({"published": True} if port.published else {})
        for manifest in manifests
        for port in manifest.ports
    ]
