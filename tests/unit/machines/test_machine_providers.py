# SPDX-License-Identifier: Apache-2.0
"""States of many providers, in the shapes that they have, become machines without a mapping."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.ashlar.stack.plugins.plugin_utils.machines.adopt import Adoption, Rule, adopt, mappings_of
from ansible_collections.ashlar.stack.plugins.plugin_utils.machines.contract import parse_machines
from ansible_collections.ashlar.stack.plugins.plugin_utils.machines.states.text import parse_state
from states import plugin, resource, state

PROVIDERS: dict[str, dict[str, Any]] = yaml.safe_load((Path(__file__).parent / "providers.yml").read_text())
TESTED_ELSEWHERE = {"aws_instance", "google_compute_instance", "google_compute_instance_from_template", "openstack_compute_instance_v2"}


@pytest.mark.parametrize("name", PROVIDERS)
def test_machines_of_a_provider_are_adopted(name: str) -> None:
    resources = [
        resource(type_.removeprefix("data."), *objects, mode="data" if type_.startswith("data.") else "managed")
        for type_, objects in PROVIDERS[name]["state"].items()
    ]
    # Where neither tags nor labels are to be had, rules say the classes.
    rules = (Rule(("control",), name="cp-*"),)
    read = parse_state(json.dumps(state(resources=resources)).encode(), 1048576).resources()
    found = adopt(read, Adoption(rules=rules, mappings=mappings_of({}), user="admin"), "nodes")
    assert found.machines == PROVIDERS[name]["nodes"]
    assert (found.warnings, parse_machines(found.machines, "x")[1]) == ([], [])


def test_every_type_is_tested_and_documented() -> None:
    types = set(mappings_of({}))
    assert types == types & {type_ for provider in PROVIDERS.values() for type_ in provider["state"]} | TESTED_ELSEWHERE
    described = next(text for text in yaml.safe_load(plugin.DOCUMENTATION)["description"] if "need no mapping" in text)
    assert types <= set(re.findall(r"C\((\w+)\)", described))
