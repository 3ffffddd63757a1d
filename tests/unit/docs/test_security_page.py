# SPDX-License-Identifier: Apache-2.0
"""docs/security.md says of CAs and ports what the manifests say."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs/security.md").read_text(encoding="utf-8")
MANIFESTS: dict[str, dict[str, Any]] = {
    path.parents[1].name: yaml.safe_load(path.read_text(encoding="utf-8")) for path in sorted((ROOT / "roles").glob("*/meta/component.yml"))
}
DEFAULTS: dict[str, Any] = {
    name: value for path in (ROOT / "roles").glob("*/defaults/main.yml") for name, value in yaml.safe_load(path.read_text(encoding="utf-8")).items()
}


def rows(heading: str) -> list[list[str]]:
    """The cells of the table below a heading."""
    section = PAGE.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if line.startswith("| ")][1:]


def test_every_ca_is_told_with_the_components_that_it_signs_for() -> None:
    signs: dict[str, set[str]] = defaultdict(set)
    for component, manifest in MANIFESTS.items():
        for entry in manifest.get("certificates", []):
            if "authority" in entry:
                signs[entry["authority"]].add(component)
    told = {row[0].strip("`"): set(re.findall(r"`([^`]+)`", row[1])) for row in rows("Who is who")}
    assert told == signs


def test_every_port_that_the_firewall_opens_is_told() -> None:
    told = " ".join(row[1] for row in rows("What listens"))
    for component, manifest in MANIFESTS.items():
        for port in manifest.get("ports", []):
            if "address" in port:
                continue  # CoreDNS: an address that only the node itself has
            for number in str(DEFAULTS.get(str(port["port"]).strip("{ }"), port["port"])).split("-"):
                assert re.search(rf"\b{number}\b", told), f"{component} listens on {number}, and the page does not say so"
