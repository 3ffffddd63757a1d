# SPDX-License-Identifier: Apache-2.0
"""The inventory plugin ashlar.stack.cloud: the machines that run at a cloud as hosts, asked of the provider itself, or why they can't be had."""

from __future__ import annotations

DOCUMENTATION = r"""
---
name: cloud
short_description: Lists the machines that run on AWS, Google Compute Engine or OpenStack
version_added: "1.0.0"
author: Ashlar contributors (@ashlar)
description:
  - Queries the provider's own API for running instances, if there is no Terraform state to read, and yields a host for each, with
    C(node_address), C(node_classes), C(node_zone), C(node_region), C(node_labels) and how SSH gets there, the same as P(ashlar.stack.terraform#inventory) does.
  - What a machine is for stands in its tags (AWS), labels (GCE) or metadata (OpenStack), all called tags here. Every root under C(terraform/) sets
    C(ashlar_site), C(ashlar_pool) and C(ashlar_classes). The value of the latter is node classes separated by an underscore, C(control_worker),
    which is valid in all three clouds; anything but letters separates.
  - All errors end the program with exit code 4 and one message, whatever C(any_unparsed_is_failed) says. A region that can't be queried
    is an error, too, since a partial inventory would look like missing nodes.
  - Read-only. Calls that are throttled, answered by 5xx or cut off are retried with exponential backoff and jitter.
extends_documentation_fragment:
  - ashlar.stack.machines
  - constructed
  - inventory_cache
notes:
  - The file's name ends in C(cloud.yml) or C(cloud.yaml).
  - Credentials are each cloud's own and never options here, nor are they logged, cached or shown in errors.
  - AWS takes what boto3 finds, E(AWS_PROFILE), E(AWS_ACCESS_KEY_ID), SSO, or the role of the machine; needs C(ec2:DescribeInstances),
    and C(ec2:DescribeVolumes) for data volumes.
  - GCE takes application default credentials, the file that E(GOOGLE_APPLICATION_CREDENTIALS) names, that of C(gcloud auth application-default login),
    or the service account of the machine; needs C(compute.instances.list), and C(compute.regions.get) where regions are named (C(roles/compute.viewer)).
  - OpenStack takes C(clouds.yaml) with C(secure.yaml) (E(OS_CLIENT_CONFIG_FILE), E(OS_CLOUD)), or E(OS_AUTH_URL) and its like; passwords, application
    credentials and tokens; needs the role C(reader).
  - "C(compose), C(keyed_groups) and C(groups) know, besides the host's variables, C(tags) (a mapping), C(region), C(instance_type) and C(image)."
  - The cache holds the instances with their tags, and nothing else. Changing the file invalidates it.
requirements:
  - boto3 for V(aws)
  - apache-libcloud >= 3.9.1 for V(gce) and V(openstack), and cryptography for V(gce)
options:
  plugin:
    description: Says that this file is for this plugin.
    type: str
    required: true
    choices: [ashlar.stack.cloud]
  provider:
    description: The provider.
    type: str
    required: true
    choices: [aws, gce, openstack]
  regions:
    description:
      - Regions, queried in parallel; for GCE regions or zones.
      - Without any, that of the credentials' configuration (E(AWS_REGION), the profile, E(OS_REGION_NAME), C(region_name)), else, for GCE and
        OpenStack, all.
    type: list
    elements: str
    default: []
  filters:
    description:
      - Tag to the value it must have, or a list of values of which it must have one. All tags must match.
      - AWS and GCE filter themselves (for GCE only labels count, not metadata). OpenStack has no such filter, so all running servers of the project
        are listed and chosen from here.
    type: dict
    default: {}
  running:
    description: Whether to include running instances only. Terminated ones of AWS are never included.
    type: bool
    default: true
  empty:
    description:
      - What to do when no instance matches. V(error) lists what exists instead.
      - V(pending) sets C(site_machines) to C(pending) on the group C(all), as before the first apply, and every playbook but C(machines.yml) stops.
    type: str
    default: error
    choices: [error, pending]
  profile:
    description: Profile of the AWS configuration, else E(AWS_PROFILE).
    type: str
  project:
    description: Id of the project in Google's cloud, else E(GOOGLE_CLOUD_PROJECT), else that of the credentials.
    type: str
  cloud:
    description: Name of the cloud in C(clouds.yaml), else E(OS_CLOUD).
    type: str
  network:
    description: OpenStack network on which nodes reach each other. Otherwise the first private address of any.
    type: str
  classes_from:
    description: Tag with the node classes, separated by anything but letters. C(_) is valid in all clouds, V(control_worker).
    type: str
    default: ashlar_classes
  classes:
    description:
      - Rules for the node classes of instances without that tag. The first match applies.
      - An instance that matches no rule is an error; an empty list of classes leaves it out.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Pattern of node names, as in a shell.
        type: str
        default: '*'
      labels:
        description: Tags that the instance must have.
        type: dict
        default: {}
      classes:
        description: The node classes.
        type: list
        elements: str
        required: true
  names_from:
    description: Tag with the node's name. By default C(Name) for AWS, and the instance's own name for GCE and OpenStack.
    type: str
  zones_from:
    description: Tag with the failure domain, if it is not the provider's zone.
    type: str
  labels_from:
    description:
      - Tag that holds the labels of the node as C(key=value) pairs separated by blanks or commas; for GCE an item of the metadata, for a label of GCE
        can't hold them.
      - Or a mapping of the node's label to the tag that holds its value.
    type: raw
    default: ashlar_labels
  users_from:
    description: Tag with the SSH user.
    type: str
    default: ashlar_user
  volumes_from:
    description:
      - Tag of a data volume with its name in the pool. Without it, the volume's name (GCE its device name) without the node's in front, else its id.
    type: str
    default: ashlar_volume
  volumes:
    description: Whether to query data volumes. False saves a call and its permission.
    type: bool
    default: true
  load_balancers:
    description: Node class to the address of the load balancer in front of its nodes.
    type: dict
    default: {}
  endpoint:
    description:
      - URL of the compute API, where it is not the provider's usual one (a private endpoint, a test). For AWS the same as E(AWS_ENDPOINT_URL), for GCE
        in place of C(https://compute.googleapis.com), for OpenStack in place of the catalogue's.
    type: str
  validate_certs:
    description: Whether to verify certificates. Default as in C(clouds.yaml), else yes.
    type: bool
  ca_path:
    description: File of CAs to trust, else E(AWS_CA_BUNDLE), E(OS_CACERT) or C(cacert) of C(clouds.yaml), E(REQUESTS_CA_BUNDLE).
    type: path
  timeout_seconds:
    description: Time limit of each call for the connection, and for each part of the answer, in seconds.
    type: int
    default: 30
  attempts:
    description: Maximum attempts of a call that is throttled, answered by 5xx or cut off. The backoff between them is 20 seconds at most.
    type: int
    default: 5
"""

EXAMPLES = r"""
# inventories/prod/10-nodes.cloud.yml, beside 20-stack.yml: the machines of one site, by tag.
plugin: ashlar.stack.cloud
provider: aws
regions: [eu-central-1]
filters: {ashlar_site: prod}
user: admin

---
# Two regions at once, through a bastion; groups by zone and by instance type.
plugin: ashlar.stack.cloud
provider: aws
profile: platform
regions: [eu-central-1, eu-west-1]
filters: {ashlar_site: [prod, prod-edge]}
bastion: {host: bastion.example.com, user: jump}
keyed_groups:
  - {key: node_zone, prefix: zone}
  - {key: instance_type, prefix: type}

---
# Google's cloud, one region and one zone of another; cached for ten minutes.
plugin: ashlar.stack.cloud
provider: gce
project: example-platform
regions: [europe-west1, europe-west4-b]
filters: {ashlar_site: prod}
cache: true
cache_plugin: ansible.builtin.jsonfile
cache_connection: ~/.cache/ashlar/inventories
cache_timeout: 600

---
# OpenStack by clouds.yaml. Servers that were there before say in `role` what they are, or not at all.
plugin: ashlar.stack.cloud
provider: openstack
cloud: example
network: platform
classes_from: role
classes:
  - {name: "db-*", classes: []}      # none of ours
  - {name: "*", classes: [worker]}
labels_from: {example.com/rack: rack}
user: debian
"""

import hashlib
import importlib
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from ansible import constants
from ansible.errors import AnsibleError
from ansible_collections.ashlar.stack.plugins.plugin_utils.machines.clouds.common import CloudError, CloudErrors, Instance, Question, sentences
from ansible_collections.ashlar.stack.plugins.plugin_utils.machines.clouds.mapping import Rule, Sources, machines_of, nothing_matches, restored, stored
from ansible_collections.ashlar.stack.plugins.plugin_utils.machines.contract import Bastion
from ansible_collections.ashlar.stack.plugins.plugin_utils.machines.hosts import HostOptions, site_ssh, write_hosts
from ansible_collections.ashlar.stack.plugins.plugin_utils.machines.plugin import MachinesInventory
from ansible_collections.ashlar.stack.plugins.plugin_utils.site.models import NODE_CLASSES, Problem, SiteError
from ansible_collections.ashlar.stack.plugins.plugin_utils.site.reading import did_you_mean, listed, quoted
from ansible_collections.ashlar.stack.plugins.plugin_utils.site.stop import stop, unreadable

NAME = "ashlar.stack.cloud"
CLOUDS = "ansible_collections.ashlar.stack.plugins.plugin_utils.machines.clouds"
LIBRARIES = {"aws": "boto3", "gce": "apache-libcloud", "openstack": "apache-libcloud"}
WORDS = {"aws": "AWS", "gce": "Google's cloud", "openstack": "the OpenStack"}
ONLY = {"profile": "aws", "project": "gce", "cloud": "openstack", "network": "openstack"}


class InventoryModule(MachinesInventory):
    """The thin shell: reads the configuration, has the provider asked, writes hosts."""

    NAME = NAME
    SUFFIXES = ("cloud.yml", "cloud.yaml")
    OTHERS = ("ashlar.stack.stack", "ashlar.stack.terraform")
    MARK = "provider"

    def parse(self, inventory: Any, loader: Any, path: str, cache: bool = True) -> None:
        """Asks the provider and adds hosts, or ends the program with everything that is wrong in one message."""
        super().parse(inventory, loader, path, cache)
        try:
            self._read(path)
            question, sources, options = self._question(), self._sources(path), self._host_options(path)
            instances = self._instances(question, sources, path, cache)
            found = machines_of(instances, sources)
            if found.problems:
                raise SiteError(list(found.problems))
            if not instances:
                self._none(question, sources, path)
            write_hosts(self.inventory, found.machines, options)
            own = {
                name: {"tags": dict(one.tags), "region": one.region, "instance_type": one.size, "image": one.image} for name, one in found.instances.items()
            }
            self.construct(path, own)
        except SiteError as error:
            stop(error.problems)
        except CloudErrors as error:
            stop(Problem(path, (), text) for text in sentences(error.errors))
        except CloudError as error:
            stop([Problem(path, (), text) for text in sentences([error])])

    def _read(self, path: str) -> None:
        try:
            raw = self.loader.load_from_file(path, cache="none")
            problems = _wrong_options(path, raw, constants.config.get_configuration_definitions(self.plugin_type, self._load_name))
            if problems:
                raise SiteError(problems)
        except AnsibleError as error:
            stop(unreadable(path, error))
        try:
            self._read_config_data(path)
        except AnsibleError as error:
            raise SiteError([Problem(path, (), f"has an option that Ansible refuses: {error.message}")]) from None
        problems = []
        provider = self.get_option("provider")
        for option, only in ONLY.items():
            if self.get_option(option) and provider != only:
                problems.append(Problem(path, (option,), f"is an option of the provider {only}, but this is {provider}. Remove it."))
        for option in ("timeout_seconds", "attempts"):
            if self.get_option(option) < 1:
                problems.append(Problem(path, (option,), f"is {self.get_option(option)}. Allowed: a whole number from 1."))
        for tag, value in self.get_option("filters").items():
            values = value if isinstance(value, list) else [value]
            if not values or not all(isinstance(one, str) and one for one in values):
                text = f"is {quoted(value)}. Allowed: a text, or a list of texts; numbers and true/false in quotation marks."
                problems.append(Problem(path, ("filters", str(tag)), text))
        problems += self._wrong_parts(path)
        if problems:
            raise SiteError(problems)

    def _wrong_parts(self, path: str) -> list[Problem]:
        """What Ansible does not check: what is within dicts and lists."""
        problems: list[Problem] = []
        source = self.get_option("labels_from")
        if not isinstance(source, str) and not (isinstance(source, Mapping) and all(isinstance(tag, str) for tag in source.values())):
            problems.append(Problem(path, ("labels_from",), f"is {quoted(source)}. Allowed: a tag, or a mapping of label to tag."))
        for index, rule in enumerate(self.get_option("classes")):
            problems += _keys(path, ("classes", index), rule, ("name", "labels", "classes"), ("classes",))
            for one in rule.get("classes") or ():
                if one not in NODE_CLASSES:
                    problems.append(Problem(path, ("classes", index, "classes"), f"names {quoted(one)}. Allowed: {listed(NODE_CLASSES)}."))
        for name in self.get_option("load_balancers"):
            if name not in NODE_CLASSES:
                problems.append(Problem(path, ("load_balancers", name), f"is no node class. Allowed: {listed(NODE_CLASSES)}."))
        bastion = self.get_option("bastion")
        return problems if bastion is None else problems + _keys(path, ("bastion",), bastion, ("host", "user", "port"), ("host", "user"))

    def _question(self) -> Question:
        certs, bundle = self.get_option("validate_certs"), self.get_option("ca_path")
        if bundle and not os.path.isfile(bundle):
            raise CloudError(f"ca_path names {bundle}, which is no file. Correct it.")
        return Question(
            regions=tuple(dict.fromkeys(self.get_option("regions"))),
            filters={tag: tuple(value) if isinstance(value, list) else (value,) for tag, value in self.get_option("filters").items()},
            running=self.get_option("running"),
            timeout=float(self.get_option("timeout_seconds")),
            attempts=self.get_option("attempts"),
            endpoint=self.get_option("endpoint"),
            verify=False if certs is False else bundle or None,
            profile=self.get_option("profile"),
            project=self.get_option("project"),
            cloud=self.get_option("cloud"),
            network=self.get_option("network"),
            disks=self.get_option("volumes"),
        )

    def _sources(self, path: str) -> Sources:
        provider = self._provider()
        rules = [Rule(rule.get("name") or "*", rule.get("labels") or {}, tuple(rule["classes"])) for rule in self.get_option("classes")]
        return Sources(
            where=path,
            kind=provider.KIND,
            classes=self.get_option("classes_from"),
            names=self.get_option("names_from") or provider.NAME_TAG or "",
            zones=self.get_option("zones_from") or "",
            labels=self.get_option("labels_from"),
            users=self.get_option("users_from"),
            volumes=self.get_option("volumes_from"),
            user=self.get_option("user"),
            rules=tuple(rules),
            load_balancers=self.get_option("load_balancers"),
        )

    def _host_options(self, path: str) -> HostOptions:
        known_hosts, key = site_ssh(Path(path).parent)
        bastion = self.get_option("bastion")
        named = {option: self.get_option(option) for option in ("known_hosts", "private_key") if self.get_option(option)}
        for option, file in named.items():
            if not os.path.isfile(file):
                raise SiteError([Problem(path, (option,), f"names {file}, which is no file. Correct it.")])
        return HostOptions(
            address=self.get_option("address"),
            user=self.get_option("user"),
            bastion=Bastion(str(bastion["host"]), str(bastion["user"]), bastion.get("port")) if bastion else None,
            use_bastion=self.get_option("use_bastion"),
            known_hosts=Path(named["known_hosts"]).absolute() if "known_hosts" in named else known_hosts,
            key=Path(named["private_key"]).absolute() if "private_key" in named else key,
            where=path,
        )

    def _provider(self) -> Any:
        """The module of the provider, whose library is needed by those who ask it only."""
        provider = self.get_option("provider")
        try:
            return importlib.import_module(f"{CLOUDS}.{provider}")
        except ImportError as error:
            library = LIBRARIES[provider]
            raise CloudError(
                f"the provider {provider} needs {library}, which {sys.executable} can't import ({error}). Install it: pip install {library}."
            ) from None

    def _instances(self, question: Question, sources: Sources, path: str, cache: bool) -> list[Instance]:
        """From the cache if it is to be used and knows the answer to this very question, else from the provider."""
        question = replace(question, tags=sources.tags)
        use = self.get_option("cache")
        key = self.get_cache_key(path)
        identity = hashlib.sha256(json.dumps([self.get_option("provider"), asdict(question)], sort_keys=True).encode()).hexdigest()
        if use and cache:
            try:
                kept = self.cache[key]
                if kept["question"] == identity:
                    return restored(kept["instances"])
            except (KeyError, TypeError, ValueError, AnsibleError):
                pass
        instances: list[Instance] = self._provider().instances(question)
        # What is still to come must be asked for again.
        if use and instances:
            self.cache[key] = {"question": identity, "instances": stored(instances)}
        return instances

    def _none(self, question: Question, sources: Sources, path: str) -> None:
        """No instance matches: an error that says what there is, or a site whose machines are still to come."""
        provider = self.get_option("provider")
        if self.get_option("empty") == "pending":
            self.pending(f"{path}: none of the site's runs at {WORDS[provider]}.")
            return
        everything = self._provider().instances(replace(question, filters={}, running=False, disks=False, tags=tuple(question.filters)))
        where = f"of {WORDS[provider]}{f' in {listed(question.regions)}' if question.regions else ''}"
        text = nothing_matches(everything, question.filters, question.running, where, sources.kind)
        raise CloudError(f"{text} Where no machine is all right, set empty: pending.")


def _wrong_options(path: str, raw: Any, known: Mapping[str, Mapping[str, Any]]) -> list[Problem]:
    """What Ansible does not say, or not in one sentence: unknown and missing options, and values that are no choice."""
    if not isinstance(raw, Mapping):
        return [Problem(path, (), "is no mapping of options. Start with plugin: ashlar.stack.cloud and provider.")]
    problems = []
    for key, value in raw.items():
        if key not in known:
            problems.append(Problem(path, (key,), f"is an unknown option.{did_you_mean(str(key), known)} Allowed: {listed(sorted(known))}."))
        elif known[key].get("choices") and value not in known[key]["choices"]:
            problems.append(Problem(path, (key,), f"is {quoted(value)}. Allowed: {listed(known[key]['choices'], 'or')}."))
    for key, spec in known.items():
        if spec.get("required") and key not in raw:
            problems.append(Problem(path, (key,), f"is missing. Allowed: {listed(spec['choices'], 'or')}."))
    return problems


def _keys(path: str, where: tuple[str | int, ...], raw: Mapping[str, Any], known: tuple[str, ...], required: tuple[str, ...]) -> list[Problem]:
    problems = [Problem(path, (*where, key), f"is unknown.{did_you_mean(str(key), known)} Allowed: {listed(known)}.") for key in raw if key not in known]
    return problems + [Problem(path, (*where, key), "is missing. Add it.") for key in required if key not in raw]
