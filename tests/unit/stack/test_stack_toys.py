# SPDX-License-Identifier: Apache-2.0
"""The core with a stack of toys (molecule/toy): what it plans for a site is about what that site has."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from pathlib import Path

import yaml
from ansible_collections.ashlar.stack.plugins.plugin_utils.site.catalogue import load
from ansible_collections.ashlar.stack.plugins.plugin_utils.site.compile import plan_site
from ansible_collections.ashlar.stack.plugins.plugin_utils.site.models import Plan
from ansible_collections.ashlar.stack.plugins.plugin_utils.site.nodes import RawNode

ROOT = Path(__file__).parents[3]
TOYS = ROOT / "molecule" / "toy"
OTHERS = r"kube|\bpods?\b|\bservices\b|etcd|flannel|consul|haproxy"


def plan_of(root: Path, site: Path) -> Plan:
    """The plan of the toy site by a collection of the core, whose components are part of every site, and the toys."""
    shutil.copytree(TOYS / "collection", root)
    shutil.copytree(TOYS / "inventory" / "stacks", site / "stacks")
    for file in ROOT.glob("roles/*/meta/component.yml"):
        if "fills" not in yaml.safe_load(file.read_text()):
            shutil.copytree(file.parents[1], root / "roles" / file.parents[1].name)
    for name in ("schemas", "releases", "stacks"):
        (root / name).symlink_to(ROOT / name)
    (root / "artifacts/node_packages").symlink_to(ROOT / "artifacts/node_packages")
    file = site / "20-stack.yml"
    file.write_text((TOYS / "inventory" / "20-stack.yml").read_text())
    nodes = [RawNode(f"n{number}", {"node_address": f"192.0.2.{number}", "node_classes": ["control", "worker"]}, "nodes.yml") for number in (1, 2, 3)]
    return plan_site(load(root), yaml.safe_load(file.read_text()), file, nodes)


def test_a_plan_says_nothing_of_what_the_site_does_not_have(tmp_path: Path) -> None:
    plan = plan_of(tmp_path / "collection", tmp_path / "site")
    assert plan.variables["site_components"][-2:] == ["toy_store", "toy_orchestrator"]
    assert plan.variables["site_networks"] == {"admin": ["0.0.0.0/0"], "cells": "10.77.0.0/16"}
    assert plan.variables["endpoints"]["toy_store"] == {"client": ["192.0.2.1:7001", "192.0.2.2:7001", "192.0.2.3:7001"]}
    text = json.dumps(dataclasses.asdict(plan), default=str)
    found = sorted({text[max(0, match.start() - 40) : match.end() + 20] for match in re.finditer(OTHERS, text, re.IGNORECASE)})
    assert found == []
