# SPDX-License-Identifier: Apache-2.0
"""The inventory plugin ashlar.stack.stack: turns nodes and a choice of components into groups and variables, or says why it can't."""

from __future__ import annotations

DOCUMENTATION = r"""
---
name: stack
short_description: Compiles a site file, the nodes and the component manifests into the plan
version_added: "1.0.0"
author: Ashlar contributors (@ashlar)
description:
  - Reads the hosts of earlier inventory sources, with their C(node_address) and C(node_classes), and a site file
    that chooses a stack. Adds each host to a group for every component it runs and sets the variables that the roles need.
  - Everything is validated before a host is touched. All errors are reported at once, with their place and remedy.
  - A component that is not chosen is an empty group, so its play costs nothing, and C(ansible-inventory --graph) is the plan.
  - Where the variable C(site_machines) of the group C(all) is C(pending), the site's machines don't exist yet. The site file is checked all the same,
    all groups are empty, and only the site's own variables are set (C(site_name), C(site_domain), C(site_stack), C(site_release), C(site_directory),
    C(site_credentials), C(site_checksums), C(site_backup), C(site_networks)).
  - An invalid site ends the program with exit code 4 and one message, whatever C(any_unparsed_is_failed) says.
notes:
  - Sources of an inventory folder are read in the order of their names, so the nodes come first with C(10-nodes.yml) and C(20-stack.yml).
  - Any inventory plugin may name the hosts. Where a format has no lists (INI), C(node_classes) may be text,
    as in V('["control", "worker"]') or V(control,worker).
  - A host with an empty C(node_classes) is not a node. It is in none of the plugin's groups, and no play of the collection touches it.
  - The folders C(credentials), C(releases), C(stacks) and C(state) of a site are no inventory sources. The plugin claims the files in them,
    and Terraform's files, notes and what editors leave (C(#20-stack.yml#), C(*.bak), C(*.orig) ...) beside the site file, without reading them, since Ansible
    would otherwise take them for inventories.
options:
  plugin:
    description: Says that this file is for this plugin.
    type: str
    required: true
    choices: [ashlar.stack.stack]
  site:
    description: Name of the site, 1 to 20 small letters, digits and hyphens.
    type: str
    required: true
  domain:
    description: DNS domain of the site.
    type: str
    required: true
  stack:
    description: Name of the stack; C(stacks/<name>.yml) beside this file, else the collection's.
    type: str
    required: true
  release:
    description: Name of the release, which says the versions; C(releases/<name>.yml) beside this file, else the collection's.
    type: str
    required: true
  slots:
    description: Choices over the stack's, slot to component or list of components; an empty list leaves the slot empty.
    type: dict
    default: {}
  extras:
    description: Components on top that fill the slot C(extra).
    type: list
    elements: str
    default: []
  networks:
    description:
      - IPv4 networks in CIDR notation. Besides C(admin), those that the chosen components take, as their manifests say.
    type: dict
    default: {}
    suboptions:
      admin:
        description: From where SSH and the API may be reached.
        type: list
        elements: str
        default: [0.0.0.0/0]
  versions:
    description: Artifact to version, over the release's.
    type: dict
    default: {}
  checksums:
    description:
      - How downloads from publishers are trusted. V(published), by the checksum in the catalogue, else by the publisher's own checksum file, to which
        C(artifacts.lock.txt) beside this file holds from then on. V(pinned), by the checksum in the catalogue alone.
    type: str
    choices: [published, pinned]
    default: published
  backup:
    description: Where C(playbooks/backup.yml) writes to, for whom, and how many backups of the site it keeps there.
    type: dict
    default: {}
    suboptions:
      to:
        description: An absolute folder of the controller, V(ssh://user@host[:port]/folder), or V(s3://bucket/prefix).
        type: str
      recipients:
        description: Public keys of those who may open backups, of age (V(age1...)) or SSH (V(ssh-ed25519 ...)).
        type: list
        elements: str
      keep:
        description: How many backups of the site are kept there.
        type: int
        default: 14
  options:
    description:
      - Component to its variables, checked against the component's argument spec.
      - They become variables of the group C(all), as do the defaults of the chosen components, so C(group_vars) and C(host_vars) override them.
    type: dict
    default: {}
"""

EXAMPLES = r"""
# inventories/prod/20-stack.yml, beside inventories/prod/10-nodes.yml
plugin: ashlar.stack.stack
site: prod
domain: prod.example.com
stack: tectonic
release: "2026.11"
networks:
  pods: 10.244.0.0/16
  services: 10.96.0.0/16
  admin: [203.0.113.0/24]
options:
  etcd:
    etcd_quota_backend_bytes: 4294967296
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible import constants as C
from ansible import context
from ansible.errors import AnsibleError
from ansible.inventory.manager import IGNORED, InventoryManager
from ansible.plugins.inventory import BaseInventoryPlugin
from ansible.template import Templar, trust_as_template
from ansible.utils.vars import combine_vars, load_extra_vars
from ansible.vars.plugins import get_vars_from_inventory_sources
from ansible_collections.ashlar.stack.plugins.plugin_utils.site.catalogue import load
from ansible_collections.ashlar.stack.plugins.plugin_utils.site.compile import plan_site
from ansible_collections.ashlar.stack.plugins.plugin_utils.site.models import SITE_FOLDERS, Plan, Problem, SiteError
from ansible_collections.ashlar.stack.plugins.plugin_utils.site.nodes import RawNode
from ansible_collections.ashlar.stack.plugins.plugin_utils.site.options import variable_files
from ansible_collections.ashlar.stack.plugins.plugin_utils.site.reading import syntax
from ansible_collections.ashlar.stack.plugins.plugin_utils.site.stop import stop, unreadable

NAME = "ashlar.stack.stack"
SUFFIXES = ("stack.yml", "stack.yaml")
# What editors, patch, package tools and Terraform leave in a site's folder, and what people write for themselves there.
STRAY = re.compile(
    r"#.*#|.*~|.*\.(bak|old|orig|rej|save|swp|tmp|(dpkg|ucf)-\w+|rpm(new|orig|save)|md|rst|txt"
    r"|tf|tofu|tfvars|(tf|tofu|tfvars)\.json|tfbackend|tfplan|tfstate(\..*)?|hcl)",
    re.IGNORECASE,
)
OTHERS = ("ashlar.stack.terraform", "ashlar.stack.cloud")
MACHINES = "site_machines"
ROOT = Path(__file__).resolve().parents[2]
NODE_VARIABLES = ("node_address", "node_classes", "node_zone", "node_region", "node_labels", "ansible_host", "ansible_port")


class InventoryModule(BaseInventoryPlugin):
    """The thin shell around ``plan_site``: reads the inventory, writes the plan into it."""

    NAME = NAME
    inventory: Any  # Ansible declares them optional, for the time before parse() is called
    loader: Any

    def verify_file(self, path: str) -> bool:
        """Whether ``path`` is a site file, or lies in a folder of a site that is no inventory."""
        if in_site_folder(path):
            return True
        if not path.endswith(SUFFIXES) or not os.access(path, os.R_OK):
            return False
        with open(path, encoding="utf-8", errors="replace") as file:
            keys = dict(re.findall(r"^([^\s:#-][^:]*?)\s*:(?:\s+[\"']?([\w.-]*)|$)", file.read(), re.MULTILINE))
        # One that is empty, a list, or lacks its `plugin:` line is claimed too: no other plugin would say what is wrong with it.
        if "plugin" in keys:
            return keys["plugin"].startswith("ashlar.") and keys["plugin"] not in OTHERS
        return not keys or "stack" in keys

    def parse(self, inventory: Any, loader: Any, path: str, cache: bool = True) -> None:
        """Compiles the site and adds groups and variables.

        Ends the program, or raises AnsibleParserError, with everything that is wrong with the site in one message.
        """
        if in_site_folder(path):
            return
        super().parse(inventory, loader, path, cache)
        self._refuse_foreign_settings(Path(path))
        first = next((source for source in inventory.processed_sources if source != path and self._is_site(source)), None)
        if first:
            text = f"is a second site file: {os.path.relpath(first, os.path.dirname(path))} was read before it, and an inventory is one site."
            text += " Remove one of them, or keep it in a folder of its own."
            stop([Problem(path, (), text)])
        self._refuse_later_nodes(Path(path))
        try:
            raw_site = loader.load_from_file(path, cache="none", trusted_as_template=True)
        except AnsibleError as error:
            stop(unreadable(path, error))
        try:
            pending = inventory.groups["all"].vars.get(MACHINES) == "pending"
            groups = {group.name: [host.name for host in group.get_hosts()] for group in inventory.groups.values()}
            plan = plan_site(load(ROOT), raw_site, Path(path), self._nodes(path), groups, pending, self._variables, self._settings(path))
        except SiteError as error:
            stop(error.problems)
        except AnsibleError as error:
            # Of a file of group_vars or host_vars.
            folders = {Path(source).parent for source in (*inventory.processed_sources, path) if source}
            broken = [problem for folder in sorted(folders) for file in variable_files(folder) for problem in syntax(file)]
            stop(broken or [Problem("", (), f"variables cannot be read: {error.message}")])
        self._write(plan)

    def _refuse_foreign_settings(self, path: Path) -> None:
        """Without this plugin among the first, Ansible takes what lies in credentials/ for inventories, and passwords for hosts."""
        beside = [name for name in SITE_FOLDERS if (path.parent / name).is_dir()]
        if beside and NAME not in C.config.get_config_value("INVENTORY_ENABLED"):
            text = f"lies beside {', '.join(beside)}, which Ansible reads as inventories too, since its enable_plugins lacks {NAME}."
            text += f" Run: export ANSIBLE_CONFIG={ROOT}/ansible.cfg, or copy the section [inventory] from there into your own."
            stop([Problem(str(path), (), text)])

    def _refuse_later_nodes(self, path: Path) -> None:
        """Files of a folder are read in the order of their names: a node in a later one would be a host without a plan."""
        if path.absolute().parent not in (Path(source).absolute() for source in context.CLIARGS.get("inventory") or ()):
            return
        for file in sorted(path.parent.iterdir()):
            name = str(file)
            if file.name <= path.name or IGNORED.search(os.fsencode(file.name)) or in_site_folder(name) or self._is_site(name):
                continue
            late = InventoryManager(self.loader, sources=[name]).hosts.keys() - self.inventory.hosts.keys()
            if late:
                text = f"has hosts ({', '.join(sorted(late)[:3])}) and is read after {path.name}, by the order of names, so they would be no part of the site."
                stop([Problem(name, (), f"{text} Rename it so that it comes before, for example to 10-{file.name.lstrip('0123456789-')}.")])

    def _is_site(self, source: str | None) -> bool:
        return bool(source) and os.path.isfile(str(source)) and not in_site_folder(str(source)) and self.verify_file(str(source))

    def _variables(self, file: Path) -> Any:
        return self.loader.load_from_file(str(file), cache="all", trusted_as_template=True)

    def _settings(self, path: str) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
        """Variables of all hosts, as they are written: --extra-vars and group_vars, which win over the site file, and those of inventories."""
        everybody = self.inventory.groups["all"]
        sources = [*(source for source in self.inventory.processed_sources if source), path]
        of_files = get_vars_from_inventory_sources(self.loader, sources, [everybody], "all")
        return combine_vars(of_files, load_extra_vars(self.loader)), everybody.vars

    def _nodes(self, path: str) -> list[RawNode]:
        """Every host with the variables that describe a node, from wherever Ansible takes variables."""
        # A source given as text ("localhost,") has no path.
        sources = [*(source for source in self.inventory.processed_sources if source), path]
        of_groups: dict[str, Mapping[str, Any]] = {}
        for group in self.inventory.groups.values():
            of_groups[group.name] = combine_vars(group.vars, get_vars_from_inventory_sources(self.loader, sources, [group], "all"))
        with_files = any((Path(source).parent / "host_vars").is_dir() for source in sources)
        templar = Templar(loader=self.loader)
        nodes: list[RawNode] = []
        problems: list[Problem] = []
        for host in self.inventory.hosts.values():
            variables: Mapping[str, Any] = {}
            for group in sorted(host.get_groups(), key=lambda group: (group.depth, group.priority, group.name)):
                variables = {**variables, **of_groups[group.name]}
            variables = {**variables, **host.vars}
            if with_files:
                variables = {**variables, **get_vars_from_inventory_sources(self.loader, sources, [host], "all")}
            file = str(host.vars.get("inventory_file") or path)
            node = {name: variables[name] for name in NODE_VARIABLES if variables.get(name) is not None}
            if any("{{" in str(value) for value in node.values()):
                templar.available_variables = {**variables, "inventory_hostname": host.name}
                for name, value in node.items():
                    try:
                        node[name] = templar.template(value)
                    except AnsibleError as error:
                        reason = error.message.rstrip(".")
                        text = f"cannot be templated: {reason}. It is read before any host is, so it may use inventory variables only."
                        problems.append(Problem(file, ("hosts", host.name, name), text))
            nodes.append(RawNode(host.name, node, file))
        if problems:
            raise SiteError(problems)
        return nodes

    def _write(self, plan: Plan) -> None:
        for group, members in plan.groups.items():
            self.inventory.add_group(group)
            for member in members:
                self.inventory.add_child(group, member)
        # Not by inventory.set_variable, which would copy and mark every value once more, host by host. Hosts that carry the
        # same components share one object here, so that a site of thousands of nodes has a handful of them.
        everybody = self.inventory.groups["all"]
        defaults = {name: value for name, value in plan.defaults.items() if name not in everybody.vars}
        for name, value in {**trusted(defaults), **plan.options, **trusted(plan.variables)}.items():
            everybody.set_variable(name, value)
        marked: dict[int, dict[str, Any]] = {}
        for host, variables in plan.hosts.items():
            if id(variables) not in marked:
                marked[id(variables)] = trusted(variables)
            self.inventory.hosts[host].vars.update(marked[id(variables)])


def in_site_folder(path: str) -> bool:
    """Whether ``path`` lies in a folder that has a site file, and is no inventory: in its ``credentials/``, ``state/`` ..., or a stray file."""
    file = Path(path)
    stray = STRAY.fullmatch(file.name) is not None
    below = list(file.parents)[:6]
    return any(
        (stray or inside in SITE_FOLDERS) and any(name.endswith(SUFFIXES) for name in os.listdir(folder))
        for folder, inside in zip(below, [file.name, *(parent.name for parent in below)], strict=False)
    )


def trusted(value: Any) -> Any:
    """A copy in which every template may be one: manifests and defaults are the collection's own."""
    if isinstance(value, str):
        return trust_as_template(value) if "{{" in value or "{%" in value else value
    if isinstance(value, Mapping):
        return {key: trusted(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [trusted(part) for part in value]
    return value
