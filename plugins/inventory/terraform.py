# SPDX-License-Identifier: Apache-2.0
"""The inventory plugin ashlar.stack.terraform: the machines of Terraform's and OpenTofu's states as hosts, or why they can't be had."""

from __future__ import annotations

DOCUMENTATION = r"""
---
name: terraform
short_description: Lists the machines of Terraform's and OpenTofu's states
version_added: "1.0.0"
author: Ashlar contributors (@ashlar)
description:
  - Reads machines from roots, state files and backends, and yields a host for each, with C(node_address), C(node_classes), C(node_zone), C(node_region),
    C(node_labels) and how SSH gets there, as the stack plugin and the roles want it. Nothing is copied by hand.
  - A state says its machines in an output C(nodes), which is checked against C(schemas/machines.json). Every root under C(terraform/) has one.
  - >-
    A state without that output is adopted: its machines are found among its resources. Types that need no mapping are C(aws_instance),
    C(azurerm_linux_virtual_machine), C(azurerm_virtual_machine), C(digitalocean_droplet), C(exoscale_compute_instance), C(google_compute_instance),
    C(google_compute_instance_from_template), C(hcloud_server), C(ibm_is_instance), C(libvirt_domain), C(linode_instance), C(oci_core_instance),
    C(openstack_compute_instance_v2), C(proxmox_virtual_environment_vm), C(proxmox_vm_qemu), C(scaleway_instance_server), C(upcloud_server),
    C(vsphere_virtual_machine), C(vultr_instance) and C(yandex_compute_instance). For any other type, O(resources) says where its fields are.
    Addresses that belong to another resource (a network interface, a floating IP) are followed.
  - Only managed resources are machines, those of modules, C(count) and C(for_each) included. Objects that are to be deleted, machines that are
    terminated, and templates are left out. A tainted machine is kept, with a warning.
  - Machines with the same name, as C(count), C(for_each) and modules make them, get the index or the module as a suffix (V(web-0), V(web-1)) if that
    makes the names unique. Otherwise it is an error. A suffix appears when the second such machine does, and renames the first, so give machines that
    may multiply names of their own.
  - Before the first apply there are no machines. The plugin then yields no host, sets C(site_machines) to C(pending) on the group C(all), and
    says so in a line. Of several sources, one that has none yet is enough, so that no platform is planned with half of its nodes.
  - Everything else that is wrong ends the program with exit code 4 and one message, whatever C(any_unparsed_is_failed) says. Values of
    sensitive outputs are never shown, and nothing but the machines goes to the cache.
  - Only reads. It runs C(output), C(show), C(workspace list) and C(state pull) of the tool, and C(init) in a folder of its own for a backend.
    It never initialises or applies a root, and takes no lock.
extends_documentation_fragment:
  - ashlar.stack.machines
  - constructed
  - inventory_cache
notes:
  - The file's name ends in C(terraform.yml) or C(terraform.yaml). Relative paths start in its folder, C(~) and environment variables are filled in.
  - Files of Terraform in a site's folder, state files included, are not read as inventories.
  - Providers since C(dmacvicar/libvirt) 0.9 keep no address of a domain in the state. Add a data source C(libvirt_domain_interface_addresses) for
    each domain to the root, or an output.
  - With a bastion, SSH goes by a ProxyCommand with the same key and known hosts, and not by C(ssh -J), which hands neither of them on.
    Its host key belongs into the same C(credentials/ssh/known_hosts).
  - Host keys are checked against C(credentials/ssh/known_hosts) beside this file where that exists, and strictly so. Otherwise SSH's own settings apply.
  - C(ansible_become) is set on machines whose user is not root.
  - Backends C(local), C(http) and C(s3) were tried with the tools themselves, C(gcs) was checked by its configuration only.
requirements:
  - python-terraform >= 0.10.1, and OpenTofu or Terraform >= 1.6, for roots and backends. A state file needs neither.
options:
  plugin:
    description: Says that this file is for this plugin.
    type: str
    required: true
    choices: [ashlar.stack.terraform]
  sources:
    description: Where the machines come from. Each source is exactly one of C(root), C(state) and C(backend). A node's name may occur in one of them only.
    type: list
    elements: dict
    required: true
    suboptions:
      root:
        description: The folder of a root, initialised. Its outputs and resources are asked for with the tool, from whatever backend it uses.
        type: path
      state:
        description:
          - A state file of version 4, which Terraform has written since 0.12, and OpenTofu always. UTF-8 and UTF-16 are read.
        type: path
      backend:
        description: A backend that holds a state, without the root that wrote it. It is read by the tool, in a temporary folder.
        type: dict
        suboptions:
          type:
            description: Which backend.
            type: str
            required: true
            choices: [local, s3, http, gcs]
          config:
            description:
              - Its settings, as in the tool's documentation of it, for example C(bucket), C(key) and C(region).
              - Secrets are refused here. They come from the environment (C(AWS_PROFILE), C(TF_HTTP_PASSWORD), C(GOOGLE_APPLICATION_CREDENTIALS) ...),
                or from C(config_files).
            type: dict
            default: {}
          config_files:
            description: Files with more settings, as for C(init -backend-config=FILE). They may hold secrets.
            type: list
            elements: path
            default: []
      workspace:
        description: Workspace of the root or the backend. It must exist. Without it, a root's selected one and a backend's default one.
        type: str
      binary:
        description:
          - The tool for this source, a name or a path.
          - Without it, what the environment variable E(ASHLAR_TOFU) names, else the first of C(tofu) and C(terraform) that is found.
        type: str
      var_files:
        description: Files of variables of a root. Reading needs none of them; C(playbooks/machines.yml) applies the root with them.
        type: list
        elements: path
        default: []
      output:
        description: The output that holds the machines. If it is named here, it must be there, and nothing is adopted instead. Otherwise V(nodes).
        type: str
      adopt:
        description: Adopts the resources although the state has an output V(nodes), which is there for something else.
        type: bool
        default: false
      prefix:
        description: Put before every node's name of this source, to tell the machines of several states apart, for example V(eu-).
        type: str
        default: ''
  classes_from:
    description:
      - Tag, label or metadata key of adopted machines that says their node classes, separated by anything but letters.
      - Where tags are plain words instead of pairs, C(ashlar_classes=control), C(ashlar_classes:control) and C(ashlar_classes.control-worker) do.
        For vSphere it is a key of C(extra_config).
    type: str
    default: ashlar_classes
  classes:
    description:
      - Rules for the node classes of adopted machines. The first rule that matches counts.
      - A rule with an empty list of classes leaves machines out, and one that names the tag of O(classes_from) among its labels sets their classes,
        whatever the tag says. Other rules are for machines without that tag.
      - Machines without classes are left out, with a warning that names them.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Pattern of node names, as in a shell, without prefix and suffix.
        type: str
        default: '*'
      type:
        description: Type of the resource.
        type: str
      labels:
        description: Tags, labels or metadata that the machine must have. A tag that is a plain word has an empty value.
        type: dict
        default: {}
      classes:
        description: The node classes.
        type: list
        elements: str
        required: true
  resources:
    description:
      - How to read other types of resources. Maps a resource type to fields of the machine, and also overrides single fields of the built-in types.
      - >-
        The fields are C(name), C(id), C(private_ip), C(public_ip), C(user), C(port), C(zone), C(region), C(labels) and C(classes). Only C(private_ip)
        must be there. Without C(name), it is the resource's C(name) attribute, else made of its address. Without C(id), the attribute C(id).
      - A field is a path into the resource's attributes, parts separated by dots, numbers for items of lists and C(*) for the first item that has what follows
        (V(network_interface.*.access_config.0.nat_ip)). A part with dots in it stands in double quotes (V(tags."example.com/role")).
      - >-
        A list of paths is tried in order. C({value: X}) is X itself. C({path: P, match: R}) is the first group of the regular expression R in what P leads to,
        or the whole match where R has no group.
      - Addresses lose their prefix length. C(classes) may be a list or a text, of which the words that are node classes count. C(labels) may be a mapping,
        or a list of texts C(key=value).
    type: dict
    default: {}
  timeout_seconds:
    description: How long each run of the tool may take.
    type: int
    default: 60
  limit_mib:
    description: How large a state may be. A state takes several times its size in memory.
    type: int
    default: 256
"""

EXAMPLES = r"""
# inventories/prod/10-nodes.terraform.yml, beside 20-stack.yml: the machines of one root.
plugin: ashlar.stack.terraform
sources:
  - root: ../../terraform/aws

---
# Two regions, each a workspace of the same root. SSH goes to the private addresses, through the bastion that the machines name.
plugin: ashlar.stack.terraform
sources:
  - {root: ../../terraform/aws, workspace: eu, prefix: eu-, var_files: [eu.tfvars]}
  - {root: ../../terraform/aws, workspace: us, prefix: us-, var_files: [us.tfvars]}
address: private

---
# A state in S3 that others write, cached for ten minutes; credentials as for any tool of AWS (AWS_PROFILE, a role ...).
plugin: ashlar.stack.terraform
sources:
  - backend:
      type: s3
      config: {bucket: example-states, key: platform/terraform.tfstate, region: eu-central-1}
cache: true
cache_plugin: ansible.builtin.jsonfile
cache_connection: ~/.cache/ashlar/inventories
cache_timeout: 600

---
# A state behind HTTP; the password is in the environment (TF_HTTP_PASSWORD). Or in a bucket of Google, or a file.
plugin: ashlar.stack.terraform
sources:
  - backend: {type: http, config: {address: "https://states.example.com/platform", username: reader}}
  - backend: {type: gcs, config: {bucket: example-states, prefix: edge}, config_files: [gcs.tfbackend]}
    prefix: edge-
  - backend: {type: local, config: {path: /srv/states/storage.tfstate}}
    prefix: storage-

---
# An infrastructure that was there before, adopted: no output, plain instances. Their tag `role` says what they are for.
plugin: ashlar.stack.terraform
sources:
  - state: /srv/states/legacy.tfstate
user: ubuntu
classes_from: role
classes:
  - {labels: {team: database}, classes: []}  # none of ours
  - {name: "edge-*", classes: [edge]}
  - {type: aws_instance, classes: [worker]}
bastion: {host: bastion.example.com, user: jump}

---
# Hetzner, without a hand-written mapping. Servers in no private network reach each other by their public addresses.
plugin: ashlar.stack.terraform
sources:
  - root: ../../../infrastructure
    adopt: true                        # its output `nodes` is something else
resources:
  hcloud_server:
    private_ip: [network.*.ip, ipv4_address]
classes:
  - {labels: {role: database}, classes: []}
  - {name: "cp-*", classes: [control]}
  - {name: "*", classes: [worker]}

---
# A provider that isn't built in, and a built-in one whose tags say the classes in words of their own.
plugin: ashlar.stack.terraform
sources:
  - root: ../../../infrastructure
user: debian
resources:
  proxmox_vm_qemu:
    classes: tags                      # "k8s;control"
  incus_instance:
    private_ip: ipv4_address
    zone: target
    labels: config
classes:
  - {name: "cp-*", classes: [control]}
  - {name: "*", classes: [worker]}

---
# Groups and variables from what is known of each machine, as with other constructed inventories.
plugin: ashlar.stack.terraform
sources:
  - root: ../../terraform/openstack
strict: true
keyed_groups:
  - {key: node_zone, prefix: zone}
groups:
  large: node_volumes | default([]) | map(attribute='size_gib') | sum > 1000
compose:
  rack: node_labels.rack | default('none')
"""

import hashlib
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleError
from ansible.utils.display import Display
from ansible_collections.ashlar.stack.plugins.plugin_utils.machines.collect import Collected, collect
from ansible_collections.ashlar.stack.plugins.plugin_utils.machines.configuration import Configuration, parse_configuration
from ansible_collections.ashlar.stack.plugins.plugin_utils.machines.contract import Machine, as_raw, parse_machines
from ansible_collections.ashlar.stack.plugins.plugin_utils.machines.hosts import write_hosts
from ansible_collections.ashlar.stack.plugins.plugin_utils.machines.plugin import MachinesInventory
from ansible_collections.ashlar.stack.plugins.plugin_utils.site.models import Problem, SiteError
from ansible_collections.ashlar.stack.plugins.plugin_utils.site.reading import duplicate_keys
from ansible_collections.ashlar.stack.plugins.plugin_utils.site.stop import stop, unreadable

NAME = "ashlar.stack.terraform"


class InventoryModule(MachinesInventory):
    """The thin shell: reads the configuration, has the machines collected, writes hosts."""

    NAME = NAME
    SUFFIXES = ("terraform.yml", "terraform.yaml")
    OTHERS = ("ashlar.stack.stack", "ashlar.stack.cloud")
    MARK = "sources"

    def parse(self, inventory: Any, loader: Any, path: str, cache: bool = True) -> None:
        """Adds a host for every machine, or says that there are none yet.

        Ends the program, or raises AnsibleParserError, with everything that is wrong in one message.
        """
        super().parse(inventory, loader, path, cache)
        # Ansible would say the same of a key that stands twice, as a warning.
        twice = duplicate_keys(Path(path))
        if twice:
            stop(twice)
        try:
            raw = loader.load_from_file(path, cache="none", trusted_as_template=True)
        except AnsibleError as error:
            stop(unreadable(path, error))
        try:
            configuration = parse_configuration(DOCUMENTATION, raw, Path(path))
            self._set_options(raw, path)
            collected = self._collected(configuration, path, cache)
            for warning in collected.warnings:
                Display().warning(warning)
            if collected.pending:
                self.pending(f"{'; '.join(collected.pending)}. playbooks/machines.yml applies a root.")
                return
            write_hosts(inventory, collected.machines, configuration.hosts)
            self.construct(path, dict.fromkeys(collected.machines, {}))
        except SiteError as error:
            stop(error.problems)

    def _set_options(self, raw: Mapping[str, Any], path: str) -> None:
        try:
            self.set_options(direct=dict(raw), var_options=self._vars)
        except AnsibleError as error:
            raise SiteError([Problem(path, (), f"has an option that Ansible refuses: {error.message.rstrip('.')}.")]) from error

    def _collected(self, configuration: Configuration, path: str, cache: bool) -> Collected:
        if not self.get_option("cache"):
            return collect(configuration, os.environ)
        try:
            self.load_cache_plugin()
            key = self.get_cache_key(path)
            # What was asked for is part of it: a cache of another configuration is none.
            asked = hashlib.sha256(repr(asdict(configuration)).encode()).hexdigest()
            if cache:
                machines = _cached(self._cache, key, asked)
                if machines is not None:
                    return Collected(machines)
            collected = collect(configuration, os.environ)
            # What is pending must be asked for again: it is about to be applied.
            if collected.cacheable and not collected.pending:
                self._cache[key] = {"asked": asked, "machines": {name: as_raw(machine) for name, machine in collected.machines.items()}}
                self.update_cache_if_changed()
        except (AnsibleError, OSError) as error:
            text = f"can't be used: {str(error).rstrip('.')}. Correct cache_plugin and cache_connection, or take cache out."
            raise SiteError([Problem(path, ("cache",), text)]) from error
        return collected


def _cached(cache: Any, key: str, asked: str) -> dict[str, Machine] | None:
    """The machines that the cache has for this configuration; None where it has none, or something else."""
    try:
        found = cache[key]
    except (KeyError, AnsibleError, ValueError):
        return None
    if not isinstance(found, Mapping) or found.get("asked") != asked or not isinstance(found.get("machines"), Mapping):
        return None
    machines, problems = parse_machines(found["machines"], "cache")
    return None if problems else machines
