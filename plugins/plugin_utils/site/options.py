# SPDX-License-Identifier: Apache-2.0
"""The variables of components, checked against roles/<component>/meta/argument_specs.yml and the limits of the manifest."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleError
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible_collections.ashlar.stack.plugins.plugin_utils.site.catalogue import ComponentCatalogue
from ansible_collections.ashlar.stack.plugins.plugin_utils.site.models import Manifest, Path_, Problem
from ansible_collections.ashlar.stack.plugins.plugin_utils.site.reading import did_you_mean, listed, quoted, read_yaml, top_keys

PLAN_VARIABLES = (
    "site_name",
    "site_domain",
    "site_stack",
    "site_release",
    "site_directory",
    "site_credentials",
    "site_checksums",
    "site_backup",
    "site_networks",
    "network_kinds",
    "site_nodes",
    "site_components",
    "component_layers",
    "component_steps",
    "component_about",
    "site_ports",
    "site_metrics",
    "site_page",
    "contributions",
    "artifact_versions",
    "site_upgrade",
    "component_nodes",
    "component_groups",
    "component_founders",
    "component_rolling",
    "component_holds",
    "component_tasks",
    "component_retired",
    "component_addresses",
    "component_clients",
    "endpoints",
    "site_retiring",
    "site_removed",
    "site_added",
    "node_components",
    "node_artifacts",
    "node_kernel",
    "node_replaced",
    "node_ports",
    "node_certificates",
    "node_authorities",
    "node_health",
    "node_warnings",
    "node_metrics",
    "node_retiring",
)
"""What the inventory plugin computes. A file that sets one of these would silently win over the plan."""

_NODE_VARIABLES = ("node_address", "node_classes", "node_zone", "node_region", "node_labels")
_KINDS = {"str": "a text", "int": "a whole number", "float": "a number", "bool": "true or false", "list": "a list", "dict": "a mapping", "path": "a path"}


def check_options(catalogue: ComponentCatalogue, chosen: Sequence[str], options: Mapping[str, Mapping[str, Any]], file: str) -> Iterable[Problem]:
    """What is wrong with ``options`` of the site file."""
    for component, variables in options.items():
        path: Path_ = ("options", component)
        if component not in catalogue.manifests:
            text = f"is an unknown component.{did_you_mean(component, chosen)} Allowed: components of this site, {listed(chosen)}."
            yield Problem(file, path, text)
            continue
        if component not in chosen:
            fills = listed(catalogue.manifests[component].fills)
            yield Problem(file, path, f"has options, but is not part of this site. Choose it for the slot {fills}, or remove its options.")
            continue
        specs = catalogue.options(component) or {}
        for name, value in variables.items():
            if name not in specs:
                # People write the bare name within the component's own block.
                full = f"{component}_{name}"
                hint = f' Did you mean "{full}"?' if full in specs else did_you_mean(name, list(specs))
                text = f"is an unknown option of {component}.{hint} Allowed: {listed(sorted(specs))}."
                yield Problem(file, (*path, name), text)
                continue
            limits = catalogue.manifests[component].limits.get(name, {})
            text = wrong_value(specs[name], limits, value)
            if text:
                yield Problem(file, (*path, name), text)


def wrong_value(spec: Mapping[str, Any], limits: Mapping[str, Any], value: Any) -> str:
    """Why ``value`` is not one that the argument spec and the limits allow; empty when it is. Templates are not judged."""
    if "{{" in str(value):
        return ""
    shown = "a secret value" if spec.get("no_log") else quoted(value)
    kind = spec.get("type", "str")
    allowed = _allowed(spec, limits)
    if value is None:
        return f"is empty. {allowed} Give a value, or remove the line for the default."
    if (kind == "str" and isinstance(value, (list, dict))) or (kind in ("str", "int", "float") and isinstance(value, bool)):
        return f"is {shown}. {allowed}"
    result = ArgumentSpecValidator({"value": {key: part for key, part in spec.items() if key not in ("required", "default")}}).validate({"value": value})
    if result.error_messages:
        # Ansible's own words say which suboption; for plain values the type and the choices say all there is to say.
        detail = f" {result.error_messages[0]}." if spec.get("options") and not spec.get("no_log") else ""
        return f"is {shown}.{detail} {allowed}"
    checked = result.validated_parameters["value"]
    for item in checked if isinstance(checked, list) else [checked]:
        if _beyond(limits, item):
            return f"is {shown}. {allowed}"
        for name, member in limits.get("each", {}).items():
            if isinstance(item, dict) and item.get(name) is not None and _beyond(member, item[name]):
                return f"is {shown}. {_allowed(spec['options'][name], member).replace('Allowed', f'Allowed as {name}')}"
    for key in limits.get("unique", ()):
        twice = sorted(text for text, count in Counter(str(item.get(key)) for item in checked).items() if count > 1)
        if twice:
            return f"has the {key} {quoted(twice[0])} more than once. Allowed: each {key} once. Remove the other, or correct it."
    if kind in ("int", "float") and isinstance(value, str):
        # As a text it would reach JSON and sums of templates, where programs and Jinja refuse it.
        return f"is {shown}, a text. {allowed} Write it without quotes, on the command line as -e '{{\"name\": value}}'."
    return ""


def _beyond(limits: Mapping[str, Any], value: Any) -> bool:
    below = "minimum" in limits and isinstance(value, (int, float)) and value < limits["minimum"]
    above = "maximum" in limits and isinstance(value, (int, float)) and value > limits["maximum"]
    return below or above or ("pattern" in limits and not re.fullmatch(limits["pattern"], str(value)))


def wrong_variables(root: Path, components: Iterable[str], variables: Mapping[str, Any], template: Callable[[Any], Any]) -> list[str]:
    """What is wrong with the options of a host's components as the run has them, wherever they are set, --extra-vars and templates too.

    :param root: the collection's folder.
    :param template: the value of a variable; one that cannot be known yet is left to its role.
    """
    problems = []
    for component in components:
        names = [name for name in variables if name.startswith(f"{component}_")]
        meta = root / "roles" / component / "meta"
        if not names or not (meta / "argument_specs.yml").is_file():
            continue
        specs = read_yaml(meta / "argument_specs.yml")["argument_specs"]["main"].get("options") or {}
        limits = read_yaml(meta / "component.yml").get("limits") or {}
        for name in sorted(set(names) & set(specs)):
            try:
                value = template(variables[name])
            except AnsibleError:
                continue
            text = wrong_value(specs[name], limits.get(name, {}), value)
            if text:
                problems.append(f"{name} {text}")
    return problems


def variable_files(directory: Path) -> list[Path]:
    """The files of group_vars and host_vars beside an inventory that Ansible reads."""
    files = [file for folder in ("group_vars", "host_vars") for file in sorted((directory / folder).glob("**/*")) if file.is_file()]
    return [file for file in files if file.suffix in ("", ".yml", ".yaml", ".json")]


def check_variable_files(catalogue: ComponentCatalogue, directory: Path, read: Callable[[Path], Any] = read_yaml) -> Iterable[Problem]:
    """Variables in group_vars and host_vars of the site that nothing reads, that would override the plan, or that have a wrong value.

    A wholly encrypted file is passed over.

    :param read: the content of a file whose values may be vaulted or templates.
    """
    files = variable_files(directory)
    if not files:
        return
    specs = {name: catalogue.options(name) for name in catalogue.manifests}
    known = {option for options in specs.values() for option in options or ()} | set(_NODE_VARIABLES)
    planned = {option for manifest in catalogue.manifests.values() for option in planning_options(manifest)}
    for file in files:
        names = top_keys(file)
        values = read(file) if names else {}
        for name in names:
            if name in PLAN_VARIABLES:
                text = "is computed by the inventory plugin from the site file and the nodes; set here it would win over the plan. Remove it."
                yield Problem(str(file), (name,), text)
                continue
            if name in planned and not (file.parent.name == "group_vars" and file.stem == "all" or file.parent.name == "all"):
                text = "is needed to plan the whole site, so it is the same on all nodes. Set it in options of the site file, or in group_vars/all.yml."
                yield Problem(str(file), (name,), text)
                continue
            owner = max((component for component in specs if name.startswith(f"{component}_")), key=len, default=None)
            options = specs[owner] if owner else None
            if owner and options is not None and name not in known:
                text = f"is an unknown option of {owner}.{did_you_mean(name, list(options))} Allowed: {listed(sorted(options))}."
                yield Problem(str(file), (name,), text)
            elif owner and options is not None and name in options:
                text = wrong_value(options[name], catalogue.manifests[owner].limits.get(name, {}), values[name])
                if text:
                    yield Problem(str(file), (name,), text)


def planning_options(manifest: Manifest) -> set[str]:
    """The options of a component that decide what other nodes do."""
    ports = {name for port in manifest.ports for name in (port.option, port.sources_option) if name}
    return ports | {str(group.most) for group in manifest.groups.values() if isinstance(group.most, str)}


def _allowed(spec: Mapping[str, Any], limits: Mapping[str, Any]) -> str:
    if "choices" in spec:
        return f"Allowed: {listed(spec['choices'])}."
    words = _KINDS.get(spec.get("type", "str"), str(spec.get("type")))
    if spec.get("type") == "list" and "elements" in spec:
        words = f"a list, each {_KINDS.get(spec['elements'], spec['elements'])}"
    match limits.get("minimum"), limits.get("maximum"):
        case None, None:
            pass
        case least, None:
            words += f", at least {least}"
        case None, most:
            words += f", at most {most}"
        case least, most:
            words += f" from {least} to {most}"
    if "pattern" in limits:
        words += f" that matches {limits['pattern']}"
    return f"Allowed: {words}."
