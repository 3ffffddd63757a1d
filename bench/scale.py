#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Measures what a controller does for a large site, without one: the plan, and the certificates of all its nodes.

    bench/scale.py --nodes 1000

1. `ansible-inventory --list --export` with the stack plugin, beside the same hosts without it: seconds and peak memory.
2. What upgrade.yml shows of an upgrade to the next release before it touches a host: versions, turns, the order of the nodes.
3. Every certificate of every node issued (and looked at again, when nothing is due), as the certificates action does it, in one process.
4. The certificates action itself through ansible-playbook, on as many hosts as `--acted` says, with a local connection and a folder a
   host as its root: what one host costs including Ansible's own work. Nothing outside of a temporary folder is written.
"""

from __future__ import annotations

import argparse
import ipaddress
import json
import resource
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
import yaml
from ansible.plugins.filter.core import FilterModule
from measure import ROOT, Spent, spend

sys.path[:0] = [str(ROOT / ".collections"), str(ROOT / "tests")]

from ansible_collections.ashlar.stack.plugins.plugin_utils import pki  # noqa: E402
from conformance.support.plan import bare  # noqa: E402

BIN = Path(sys.executable).parent


def site(folder: Path, count: int, template: Path) -> None:
    """A site of three control nodes, two edges and workers, whose networks are large enough."""
    first = ipaddress.ip_address("172.20.0.10")
    classes = ([["control"]] * 3 + [["worker", "edge"]] * 2 + [["worker"]] * count)[:count]
    hosts = {
        f"node{number:04}": {"node_address": str(first + number), "node_classes": of, "node_zone": f"zone{number % 3}"} for number, of in enumerate(classes)
    }
    stack = {**yaml.safe_load(template.read_text()), "site": "scale", "domain": "scale.ashlar.internal"}
    # A /24 of it for each node.
    stack["networks"] = {"pods": f"10.128.0.0/{24 - max(8, (count * 2 - 1).bit_length())}", "services": "10.96.0.0/16"}
    for name, with_stack in (("site", True), ("plain", False)):
        (folder / name).mkdir()
        (folder / name / "10-nodes.yml").write_text(yaml.safe_dump({"all": {"hosts": hosts}}, sort_keys=False))
        if with_stack:
            (folder / name / "20-stack.yml").write_text(yaml.safe_dump(stack, sort_keys=False))


def specs(variables: Mapping[str, Any], host: str, environment: jinja2.Environment) -> list[pki.Spec]:
    """The certificates of a host, their templates filled in."""
    known = {**variables, "inventory_hostname": host}

    def fill(value: Any) -> Any:
        if isinstance(value, str):
            return environment.from_string(value).render(known)
        if isinstance(value, list):
            return [fill(one) for one in value]
        return {key: fill(one) for key, one in value.items()} if isinstance(value, dict) else value

    return pki.parse_specs(fill(variables["node_certificates"]))


def issue(folder: Path, asked: Mapping[str, list[pki.Spec]]) -> float:
    """Seconds for everything that all hosts ask for, each host with its own view of the folder, as the action has."""
    start = time.monotonic()
    for host, wanted in asked.items():
        credentials = pki.Credentials(root=folder, site="scale")
        for spec in wanted:
            if spec.kind == "keypair":
                credentials.keypair(spec)
            elif spec.kind == "signer":
                credentials.signer(spec)
            else:
                credentials.certificate(spec, Path("nodes") / host)
    return round(time.monotonic() - start, 2)


def play(folder: Path, acted: int) -> tuple[Spent, Spent, Spent]:
    """The action on some hosts: (everything is new, nothing is due, nothing is due on a single host)."""
    (folder / "play.yml").write_text(
        yaml.safe_dump(
            [
                {
                    "hosts": "certificates[0:{{ last }}]",
                    "connection": "local",
                    "gather_facts": False,
                    "vars": {"ansible_python_interpreter": sys.executable},
                    "tasks": [
                        {
                            "name": "Certificates are installed",
                            "ashlar.stack.certificates": {
                                "certificates": "{{ node_certificates | map('combine', {'owner': 'root'}) | list }}",
                                "credentials": str(folder / "action"),
                                "root": f"{folder}/roots/{{{{ inventory_hostname }}}}",
                            },
                        }
                    ],
                }
            ]
        )
    )
    command = [str(BIN / "ansible-playbook"), "-i", str(folder / "site"), "-e", f"@{folder}/defaults.yml", str(folder / "play.yml")]
    several, one = [*command, "-e", f"last={acted - 1}"], [*command, "-e", "last=0"]
    return spend(several), spend(several), spend(one)


def upgrade(folder: Path, versions: Mapping[str, str]) -> Spent:
    """The plan of an upgrade of all nodes from these versions to those of the release after the site's."""
    state, stack = folder / "site/state", folder / "site/20-stack.yml"
    content = yaml.safe_load(stack.read_text())
    later = min((path.stem for path in (ROOT / "releases").glob("*.yml") if path.stem > content["release"]), default="")
    if not later:
        raise SystemExit(f"bench: there is no release after {content['release']} to upgrade to")
    state.mkdir()
    (state / "installed.json").write_text(json.dumps({"release": content["release"], "versions": dict(versions)}))
    stack.write_text(yaml.safe_dump({**content, "release": later}, sort_keys=False))
    # Its first play; the next ones would wait for hosts that are not there.
    plan = yaml.safe_dump(yaml.safe_load((ROOT / "playbooks/upgrade.yml").read_text())[:1]).replace("tasks/", f"{ROOT}/playbooks/tasks/")
    (folder / "upgrade.yml").write_text(plan)
    spent = spend([str(BIN / "ansible-playbook"), "-i", str(folder / "site"), str(folder / "upgrade.yml"), "--check"])
    if "Then taken out of service, upgraded and put back" not in spent.output:
        raise SystemExit(f"bench: upgrade.yml showed no plan:\n{spent.output[-4000:]}")
    return spent


def defaults() -> dict[str, Any]:
    """The variables of all roles, which templates of manifests may name."""
    merged: dict[str, Any] = {}
    for path in sorted(ROOT.glob("roles/*/defaults/main.yml")):
        merged.update(yaml.safe_load(path.read_text()) or {})
    return merged


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=1000, help="hosts of the site (default 1000)")
    parser.add_argument("--acted", type=int, default=50, help="hosts of the third measurement (default 50; 0: left out)")
    parser.add_argument("--inventory", default="inventories/local", help="the site whose stack file is taken")
    parser.add_argument("--results", type=Path, default=ROOT / "bench" / "results", help="where scale-<nodes>.json is written")
    options = parser.parse_args()
    if not 5 <= options.nodes <= 10000:
        parser.error("--nodes: 5 to 10000")
    with tempfile.TemporaryDirectory(prefix="ashlar-scale-") as temporary:
        folder = Path(temporary)
        site(folder, options.nodes, ROOT / options.inventory / "20-stack.yml")
        known = defaults()
        (folder / "defaults.yml").write_text(yaml.safe_dump(known))
        # Without --export, variables that all hosts share are printed once for every host, which no run does.
        plain = spend([str(BIN / "ansible-inventory"), "-i", str(folder / "plain"), "--list", "--export"])
        planned = spend([str(BIN / "ansible-inventory"), "-i", str(folder / "site"), "--list", "--export"])
        told = bare(json.loads(planned.output))
        known.update(told["all"]["vars"], groups={name: group.get("hosts", []) for name, group in told.items()})
        variables = told["_meta"]["hostvars"]
        environment = jinja2.Environment(undefined=jinja2.StrictUndefined)
        environment.filters.update(FilterModule().filters())
        asked = {host: specs({**known, **of}, host, environment) for host, of in variables.items() if "node_certificates" in of}
        result: dict[str, Any] = {
            "nodes": options.nodes,
            "inventory_without_the_plugin": {"seconds": plain.seconds, "peak_mib": plain.peak_mib},
            "inventory": {"seconds": planned.seconds, "peak_mib": planned.peak_mib, "output_mib": planned.printed_mib},
            "certificates": {
                "asked_for": sum(len(wanted) for wanted in asked.values()),
                "issued_seconds": issue(folder / "credentials", asked),
                "nothing_due_seconds": issue(folder / "credentials", asked),
            },
            "own_peak_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
        }
        planned_upgrade = upgrade(folder, told["all"]["vars"]["artifact_versions"])
        result["upgrade_plan"] = {"seconds": planned_upgrade.seconds, "peak_mib": planned_upgrade.peak_mib}
        if options.acted:
            acted = min(options.acted, options.nodes)
            new, due, one = play(folder, acted)
            result["action"] = {
                "hosts": acted,
                "new_seconds": new.seconds,
                "nothing_due_seconds": due.seconds,
                "nothing_due_seconds_of_one": one.seconds,
                "nothing_due_seconds_for_each_more": round((due.seconds - one.seconds) / max(acted - 1, 1), 3),
                "peak_mib": due.peak_mib,
            }
    options.results.mkdir(parents=True, exist_ok=True)
    target = options.results / f"scale-{options.nodes}.json"
    target.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))
    print(f"written to {target}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
