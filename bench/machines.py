#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Measures the inventories of machines at scale, without any machine.

    bench/machines.py --nodes 5000

For the same nodes as an output of a state, and as plain instances of a cloud that are adopted; for comparison as Ansible's own YAML inventory:

1. `ansible-inventory --graph`: what every run pays before it begins; and `--list --export`: the same, and everything printed.
2. The same with the stack plugin behind it, and in one process what the stack plugin alone takes of that.

Seconds are of the clock and of the processor, best of `--rounds`; memory is the peak of the program.
"""

from __future__ import annotations

import argparse
import ipaddress
import json
import multiprocessing
import os
import platform
import resource
import subprocess
import sys
import tempfile
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import Any

import yaml
from measure import ROOT, Spent, spend

BIN = Path(sys.executable).parent
TARGETS = {"inventory_seconds": 5.0, "stack_plugin_seconds": 10.0}
WAYS = {"output": "from the output of a state", "resources": "adopted from 'aws_instance' of a state", "yaml": "Ansible's YAML inventory, for comparison"}


def machines(count: int) -> dict[str, dict[str, Any]]:
    """Three control nodes, two edges and workers, each with all that a cloud's root says of it."""
    first = ipaddress.ip_address("172.20.0.10")
    found: dict[str, dict[str, Any]] = {}
    for number in range(count):
        of = "control" if number < 3 else "edge" if number < 5 else "worker"
        found[f"scale-{of}-{number + 1}"] = {
            "id": f"i-{number:017x}",
            "classes": [of],
            "private_ip": str(first + number),
            "public_ip": None,
            "user": "admin",
            "port": None,
            "zone": f"eu-central-1{'abc'[number % 3]}",
            "labels": {"disk": "ssd", "pool": of},
            "volumes": [{"name": "data", "size_gib": 100, "device": f"/dev/disk/by-id/nvme-{number:017x}"}],
            "bastion": {"host": "203.0.113.9", "user": "admin", "port": None},
            "ssh_host_keys": None,
            "load_balancers": {"control": "10.0.0.4"},
            "management": None,
        }
    return found


def instance(name: str, machine: dict[str, Any], number: int) -> dict[str, Any]:
    """The machine as a state has its aws_instance, with as many attributes as matter to its size."""
    tags = {"Name": name, "ashlar_classes": machine["classes"][0], **machine["labels"]}
    disk = {"device_name": "/dev/xvda", "encrypted": True, "iops": 3000, "tags": {}, "throughput": 125, "volume_id": f"vol-{number:017x}", "volume_size": 50}
    return {
        "schema_version": 1,
        "index_key": number,
        "sensitive_attributes": [[{"type": "get_attr", "value": "user_data"}]],
        "private": "eyJ" + "a" * 120,
        "dependencies": ["aws_key_pair.login", "aws_security_group.node", "aws_subnet.node", "aws_vpc.site"],
        "attributes": {
            "ami": "ami-00000000000000000",
            "arn": f"arn:aws:ec2:eu-central-1:000000000000:instance/{machine['id']}",
            "availability_zone": machine["zone"],
            "capacity_reservation_specification": [{"capacity_reservation_preference": "open", "capacity_reservation_target": []}],
            "id": machine["id"],
            "instance_state": "running",
            "instance_type": "m7i.large",
            "metadata_options": [{"http_endpoint": "enabled", "http_put_response_hop_limit": 1, "http_tokens": "required", "instance_metadata_tags": ""}],
            "primary_network_interface_id": f"eni-{number:017x}",
            "private_dns": f"ip-{machine['private_ip'].replace('.', '-')}.eu-central-1.compute.internal",
            "private_ip": machine["private_ip"],
            "public_ip": "",
            "root_block_device": [{**disk, "tags_all": tags}],
            "subnet_id": "subnet-00000000000000000",
            "tags": tags,
            "tags_all": tags,
            "user_data": "0" * 40,
            "vpc_security_group_ids": ["sg-00000000000000000", "sg-00000000000000001"],
        },
    }


def sites(folder: Path, count: int, template: Path) -> None:
    """For each way two sites in ``folder``: ``<way>`` and, with a stack file, ``<way>-stack``."""
    nodes = machines(count)
    instances = [instance(name, machine, number) for number, (name, machine) in enumerate(nodes.items())]
    of_type = {"mode": "managed", "type": "aws_instance", "name": "node", "provider": 'provider["aws"]', "instances": instances}
    whole = {"version": 4, "terraform_version": "1.6.2", "serial": 1, "lineage": "scale", "check_results": None}
    states = {
        "output": {**whole, "outputs": {"nodes": {"value": nodes, "type": "dynamic"}}, "resources": []},
        "resources": {**whole, "outputs": {}, "resources": [of_type]},
    }
    stack = {**yaml.safe_load(template.read_text()), "site": "scale", "domain": "scale.ashlar.internal"}
    # A /24 of it for each node.
    stack["networks"] = {"pods": f"10.128.0.0/{24 - max(8, (count * 2 - 1).bit_length())}", "services": "10.96.0.0/16"}
    hosts = {name: {"node_address": one["private_ip"], "node_classes": one["classes"], "node_zone": one["zone"]} for name, one in nodes.items()}
    for way in WAYS:
        for site in (folder / way, folder / f"{way}-stack"):
            site.mkdir()
            if way == "yaml":
                (site / "10-nodes.yml").write_text(yaml.dump({"all": {"hosts": hosts}}, Dumper=yaml.CSafeDumper, sort_keys=False))
            else:
                (folder / f"{way}.tfstate").write_text(json.dumps(states[way], indent=2))
                source = {"plugin": "ashlar.stack.terraform", "user": "admin", "sources": [{"state": f"../{way}.tfstate"}]}
                (site / "10-nodes.terraform.yml").write_text(yaml.safe_dump(source))
        (folder / f"{way}-stack" / "20-stack.yml").write_text(yaml.safe_dump(stack, sort_keys=False))


def alone(site: Path) -> dict[str, dict[str, float]]:
    """Seconds of each inventory plugin of a site, in a process of its own so that nothing was loaded before."""
    program = """
import json, sys, time
from ansible.plugins.loader import init_plugin_loader
init_plugin_loader()
from ansible.inventory.manager import InventoryManager
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.inventory import BaseInventoryPlugin
spent = {}
fetch = InventoryManager._fetch_inventory_plugins
def timed(self):
    for plugin in fetch(self):
        def parse(*arguments, plugin=plugin, own=plugin.parse, **more):
            clock, start = time.process_time(), time.monotonic()
            own(*arguments, **more)
            spent[plugin.NAME] = {"seconds": time.monotonic() - start, "processor_seconds": time.process_time() - clock}
        plugin.parse = parse
        yield plugin
InventoryManager._fetch_inventory_plugins = timed
InventoryManager(DataLoader(), sources=[sys.argv[1]])
print(json.dumps(spent))
"""
    done = subprocess.run(
        [sys.executable, "-c", program, str(site)], cwd=ROOT, env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")}, capture_output=True, text=True
    )
    if done.returncode:
        raise SystemExit(f"machines: the plugins of {site.name} could not be measured:\n{done.stderr[-4000:]}")
    return {name: {unit: round(value, 2) for unit, value in of.items()} for name, of in json.loads(done.stdout).items()}


def figures(spent: Spent) -> dict[str, float]:
    """All but what was printed."""
    return {name: value for name, value in asdict(spent).items() if name != "output"}


def best(command: list[str], rounds: int) -> Spent:
    """The round of the least processor time: others were disturbed."""
    return min((spend(command) for _ in range(rounds)), key=lambda spent: spent.processor_seconds)


def _stack_seconds(of: dict[str, dict[str, float]]) -> float:
    return of["ashlar.stack.stack"]["processor_seconds"]


def table(result: dict[str, Any]) -> str:
    """The result as a page."""
    lines = [
        f"# Inventories of {result['nodes']} machines, {result['date']}",
        "",
        f"{result['machine']['cores']} cores, Python {result['machine']['python']}; load average {result['machine']['load_average']} while it was measured. "
        "Seconds of the clock (of the processor); best of the rounds.",
        "",
        "| nodes | `--graph`, s | peak, MiB | `--list --export`, s | peak, MiB | with the stack plugin: `--graph`, s | of it the stack plugin, s | peak, MiB |",
        "|---|---|---|---|---|---|---|---|",
    ]

    def seconds(of: dict[str, float]) -> str:
        return f"{of['seconds']} ({of['processor_seconds']})"

    for way, words in WAYS.items():
        of = result["ways"][way]
        cells = [words, seconds(of["graph"]), of["graph"]["peak_mib"], seconds(of["list"]), of["list"]["peak_mib"]]
        cells += [seconds(of["stack_graph"]), seconds(of["plugins"]["ashlar.stack.stack"]), of["stack_graph"]["peak_mib"]]
        lines.append("| " + " | ".join(str(cell) for cell in cells) + " |")
    lines += ["", f"Targets: an inventory in {TARGETS['inventory_seconds']:.0f} s, the stack plugin in {TARGETS['stack_plugin_seconds']:.0f} s.", ""]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=5000, help="machines of the states (default 5000)")
    parser.add_argument("--rounds", type=int, default=3, help="how often each program runs (default 3)")
    parser.add_argument("--inventory", default="inventories/local", help="the site whose stack file is taken")
    parser.add_argument("--results", type=Path, default=ROOT / "bench" / "results", help="where machines-<nodes>.json and .md are written")
    options = parser.parse_args()
    if not 4 <= options.nodes <= 10000:
        parser.error("--nodes: 4 to 10000")
    inventory = str(BIN / "ansible-inventory")
    ways: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory(prefix="ashlar-machines-") as temporary:
        folder = Path(temporary)
        # In a process of its own: a program begins with the memory of the one that starts it, which would be its peak.
        maker = multiprocessing.Process(target=sites, args=(folder, options.nodes, ROOT / options.inventory / "20-stack.yml"))
        maker.start()
        maker.join()
        if maker.exitcode:
            return 1
        for way in WAYS:
            measures = {"graph": (way, ["--graph"]), "list": (way, ["--list", "--export"]), "stack_graph": (f"{way}-stack", ["--graph"])}
            ways[way] = {name: figures(best([inventory, "-i", str(folder / site), *how], options.rounds)) for name, (site, how) in measures.items()}
            rounds = [alone(folder / f"{way}-stack") for _ in range(options.rounds)]
            ways[way]["plugins"] = min(rounds, key=_stack_seconds)
            state = folder / f"{way}.tfstate"
            ways[way]["state_mib"] = round(state.stat().st_size / 1048576, 1) if state.exists() else None
    result = {
        "date": date.today().isoformat(),
        "nodes": options.nodes,
        "rounds": options.rounds,
        "machine": {"cores": os.cpu_count(), "python": platform.python_version(), "load_average": round(os.getloadavg()[0], 1)},
        "targets": TARGETS,
        "ways": ways,
        "own_peak_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
    }
    options.results.mkdir(parents=True, exist_ok=True)
    target = options.results / f"machines-{options.nodes}"
    target.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")
    target.with_suffix(".md").write_text(table(result))
    print(table(result))
    print(f"written to {target}.json and .md")
    return 0


if __name__ == "__main__":
    sys.exit(main())
