#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Measures a platform on three local nodes of its own, and writes bench/results/<date>.{json,md}.

Each round is a pair on the same nodes: the platform laid down on fresh nodes, then the same run again, which has nothing to do. The
artifact store and the node image are warm. The nodes belong to a site `bench` in a temporary folder: a running quickstart is not touched.

With `--additions` a round has such a pair for the platform without what is named in ADDITIONS, and one more with each of them added, so
that what an addition costs is the difference of two neighbours.

With `--figures` the conformance tests that measure something run on the last round's platform: how soon names and routes follow, and what a
load meets while nodes, leaders and certificates change.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import yaml

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from conformance.support import plan as plans  # noqa: E402
from conformance.support.nodes import connect  # noqa: E402
from conformance.support.waiting import at_once  # noqa: E402

RESULTS = ROOT / "bench" / "results"

# Quoted, not measured by this program: taken once by hand on the machine the figures of the issue are of (2 cores, 24 GiB).
QUOTED = {
    "shell floor": "18 s until the sample answers: a hand-written script over podman exec that starts all units at once, files in place",
    "kubespray, fresh": "439 s, images and binaries preloaded, fewer features",
    "kubespray, second run": "456 s, and 30 things changed",
    "kubespray, host-tasks": "1,224 on its first node",
}
IDLE_SECONDS = 60
TARGETS = {"fresh_seconds": 40.0, "run_seconds": 60.0, "noop_seconds": 12.0, "noop_changed": 0, "host_tasks": 45}


@dataclass(frozen=True)
class Addition:
    """What a site may have or not, the slots of a site that has it not, which components' options go with it, and what it may cost in seconds."""

    name: str
    without: dict[str, Any]
    options: tuple[str, ...]
    fresh_seconds: float
    noop_seconds: float


OBSERVABILITY = Addition("observability", {"monitoring": "metrics_server", "logging": [], "dashboard": []}, ("prometheus",), 40.0, 8.0)
DISCOVERY = Addition("discovery and ingress", {"discovery": "coredns", "load_balancer": "kubernetes_node"}, ("consul",), 25.0, 6.0)
ADDITIONS = (DISCOVERY, OBSERVABILITY)

# What all that watches a site may take on an idle one.
WATCHERS_MIB = 600
WATCHERS_CORE_PERCENT = 10
IDLE_COLUMNS = {"mib": "MiB", "own_mib": "of its own", "accounted_mib": "accounted by systemd", "core_percent": "percent of a core"}

# By unit: proportional set size and what of it is the unit's own (the rest is pages of programs, which the kernel takes back when it needs them), what
# systemd accounts to it (its own, the pages of files that it was the first to read, and what the kernel holds for it; `systemctl status` shows it), and
# the seconds of the processor in a while. A process that comes and goes in between counts for who waited for it.
IDLE = r"""
import glob, json, os, subprocess, sys, time

def look():
    units = {}
    for path in glob.glob("/proc/[0-9]*/cgroup"):
        home = os.path.dirname(path)
        try:
            groups = dict((line.split(":", 2)[1], line.strip().split(":", 2)[2]) for line in open(path))
            group = groups.get("name=systemd") or groups.get("", "")
            sizes = dict((line.split()[0], int(line.split()[1])) for line in open(home + "/smaps_rollup") if line.startswith("Pss"))
            times = open(home + "/stat").read().rpartition(")")[2].split()[11:15]
        except (OSError, IndexError):
            continue
        if not sizes:
            continue
        parts = [part for part in group.split("/") if part]
        name = next((part for part in parts if part.endswith((".service", ".scope"))), "/".join(parts) or "init")
        if "kubepods" in group or group.startswith("/k8s.io") or any("cri-containerd" in part for part in parts):
            name = "pods"
        unit = units.setdefault(name, {"pss_kib": 0, "own_kib": 0, "accounted_kib": 0, "cpu": 0.0})
        unit["pss_kib"] += sizes["Pss:"]
        unit["own_kib"] += sizes["Pss_Anon:"]
        unit["cpu"] += sum(map(int, times)) / os.sysconf("SC_CLK_TCK")
    return units

[seconds] = json.loads(sys.argv[1])
before = look()
time.sleep(seconds)
after = look()
for name, unit in after.items():
    unit["cpu"] = max(0.0, unit["cpu"] - before.get(name, unit)["cpu"])
services = [name for name in after if name.endswith(".service")]
command = ["systemctl", "show", "--property=Id,MemoryCurrent", *services]
for block in subprocess.run(command, stdout=subprocess.PIPE, universal_newlines=True, check=True).stdout.split("\n\n"):
    told = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
    if told.get("Id") in after and told.get("MemoryCurrent", "").isdigit():
        after[told["Id"]]["accounted_kib"] = int(told["MemoryCurrent"]) // 1024
print(json.dumps(after))
"""


class BenchError(Exception):
    """A step failed; the message says which and where its output lies."""


@dataclass(frozen=True)
class Run:
    """One run of site.yml."""

    kind: str
    seconds: float
    sample_seconds: float | None
    changed: int
    host_tasks: dict[str, int]
    tasks: list[dict[str, Any]] = field(repr=False)
    plays: list[dict[str, Any]] = field(repr=False)


@dataclass(frozen=True)
class Pair:
    """Fresh nodes (seconds to make them), the platform on them, and the run that has nothing to do."""

    nodes_seconds: float
    fresh: Run
    noop: Run


@dataclass(frozen=True)
class Round:
    """The machine's load before, the pair of the whole site, and those before it: without any addition, with the first, and so on."""

    load: float
    whole: Pair
    before: list[Pair]

    def costs(self) -> list[tuple[float, float]]:
        """Seconds that each addition takes of a whole run, (fresh, nothing to do)."""
        steps = [*self.before, self.whole]
        return [(new.fresh.seconds - old.fresh.seconds, new.noop.seconds - old.noop.seconds) for old, new in zip(steps, steps[1:], strict=False)]


class Sample:
    """Asks the sample on every node, ten times a second, until each has answered once; seconds count from its making."""

    def __init__(self, urls: list[str], word: str) -> None:
        self._urls, self._word, self._start = list(urls), word, time.monotonic()
        self._stop = threading.Event()
        self.seconds: float | None = None
        self._thread = threading.Thread(target=self._ask, daemon=True)
        self._thread.start()

    def _ask(self) -> None:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        left = list(self._urls)
        while left and not self._stop.is_set():
            try:
                with opener.open(left[0], timeout=0.5) as answer:
                    if self._word in answer.read().decode(errors="replace"):
                        left.pop(0)
                        continue
            except OSError:
                pass
            self._stop.wait(0.1)
        if not left:
            self.seconds = time.monotonic() - self._start

    def end(self, wait_seconds: float) -> float | None:
        self._thread.join(wait_seconds)
        self._stop.set()
        return self.seconds


def playbook(arguments: list[str], log: Path, limit_seconds: float, **environment: str) -> float:
    """Seconds that an ansible-playbook run took; its output goes to a file."""
    return logged([str(Path(sys.executable).parent / "ansible-playbook"), *arguments], log, limit_seconds, **environment)


def logged(command: list[str], log: Path, limit_seconds: float, **environment: str) -> float:
    """Seconds that a command took, which has to succeed; its output goes to a file."""
    start = time.monotonic()
    with log.open("w") as output:
        done = subprocess.run(command, cwd=ROOT, env={**os.environ, **environment}, stdout=output, stderr=subprocess.STDOUT, timeout=limit_seconds, check=False)
    if done.returncode != 0:
        raise BenchError(f"`{' '.join(command)}` ended with {done.returncode}; its output: {log}\n{_tail(log)}")
    return time.monotonic() - start


def _tail(log: Path, lines: int = 25) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])


def site(folder: Path, name: str, template: Path, without: Sequence[Addition] = ()) -> Path:
    """A site of the bench's own: the stack file of another, under another name."""
    stack = yaml.safe_load(template.read_text())
    stack.update(site=name, domain=f"{name}.ashlar.internal")
    for addition in without:
        stack["slots"] = {**stack.get("slots", {}), **addition.without}
        stack["options"] = {component: told for component, told in stack.get("options", {}).items() if component not in addition.options}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "20-stack.yml").write_text(yaml.safe_dump(stack, sort_keys=False))
    for extra in ("group_vars", "host_vars"):
        if (template.parent / extra).is_dir():
            shutil.copytree(template.parent / extra, folder / extra, dirs_exist_ok=True)
    return folder


@contextmanager
def nodes_of(name: str, folder: Path, logs: Path) -> Iterator[None]:
    """Cleans up after itself, whatever happens."""
    try:
        yield
    finally:
        local_nodes(name, folder, logs, "absent")


def local_nodes(name: str, folder: Path, logs: Path, state: str) -> float:
    arguments = ["-i", "localhost,", "playbooks/local_nodes.yml"]
    variables = {"local_nodes_site": name, "local_nodes_inventory": str(folder), "local_nodes_state": state}
    return playbook([*arguments, "-e", json.dumps(variables)], logs / f"nodes-{state}.log", 900)


def pair(folder: Path, logs: Path, number: str, name: str, template: Path, without: Sequence[Addition]) -> Pair:
    """A site on fresh nodes, and the same run again."""
    local_nodes(name, folder, logs, "absent")
    shutil.rmtree(folder / "credentials", ignore_errors=True)
    shutil.rmtree(folder / "state", ignore_errors=True)
    site(folder, name, template, without)
    made = local_nodes(name, folder, logs, "present")
    fresh = install(folder, logs, "fresh", number)
    noop = install(folder, logs, "noop", number)
    left = f" without {' and '.join(addition.name for addition in without)}" if without else ""
    say(f"{number}{left}: the sample answered after {fresh.sample_seconds} s, the run took {fresh.seconds:.0f} s")
    say(f"{number}{left}: nothing to do {noop.seconds:.0f} s, {noop.changed} changed")
    return Pair(round(made, 2), fresh, noop)


def install(folder: Path, logs: Path, kind: str, number: str) -> Run:
    """One run of site.yml, with the sample watched from its first moment."""
    plan = plans.read(str(folder))
    urls = []
    if plan.has("sample"):
        urls = [f"http://{plan.machines[node].address}:{plan.option('sample', 'sample_node_port')}/" for node in plan.on("sample")]
    timings = logs / f"{number}-{kind}.json"
    sample = Sample(urls, plan.site)
    seconds = playbook(["-i", str(folder), "site.yml"], logs / f"{number}-{kind}.log", 1200, ASHLAR_TIMINGS=str(timings))
    answered = sample.end(10) if urls else None
    told = json.loads(timings.read_text())
    return Run(
        kind=kind,
        seconds=round(seconds, 2),
        sample_seconds=round(answered, 2) if answered is not None else None,
        changed=sum(host.get("changed", 0) for host in told["hosts"].values()),
        host_tasks={name: host["host_tasks"] for name, host in told["hosts"].items()},
        tasks=told["tasks"],
        plays=told["plays"],
    )


def units_of(plan: plans.Plan, addition: Addition) -> dict[str, list[str]]:
    """Component -> its units, of the components that an addition adds to a site, as their health checks name them."""
    found = {}
    for slot, kept in addition.without.items():
        for component in plan.slots.get(slot, []):
            if component not in kept:
                health = plans.manifest(component).get("health", [])
                found[component] = sorted({unit for check in health for unit in [check.get("unit") or check.get("log_unit")] if unit})
    return found


def idle(folder: Path, settle_seconds: float) -> dict[str, Any]:
    """What the units of an idle site need, each the sum of all nodes: MiB in all, of their own and as systemd accounts, percent of a core."""
    time.sleep(settle_seconds)
    plan = plans.read(str(folder))
    looked = at_once(lambda machine: connect(machine).python(IDLE, IDLE_SECONDS, seconds=IDLE_SECONDS + 60), plan.machines.values())
    # Without the connection that asks, and what it starts.
    names = {unit for units in looked for unit in units if not unit.startswith(("session-", "ssh"))}

    def total(unit: str, key: str) -> float:
        return sum(units[unit][key] for units in looked if unit in units)

    sums = {
        unit: {
            "nodes": sum(unit in units for units in looked),
            "mib": round(total(unit, "pss_kib") / 1024, 1),
            "own_mib": round(total(unit, "own_kib") / 1024, 1),
            "accounted_mib": round(total(unit, "accounted_kib") / 1024, 1),
            "core_percent": round(100 * total(unit, "cpu") / IDLE_SECONDS, 2),
        }
        for unit in names
    }
    watchers = {
        component: {key: round(sum(sums[unit][key] for unit in units if unit in sums), 2) for key in IDLE_COLUMNS}
        for component, units in units_of(plan, OBSERVABILITY).items()
    }
    return {
        "settle_seconds": settle_seconds,
        "seconds": IDLE_SECONDS,
        "nodes": len(looked),
        "units": dict(sorted(sums.items(), key=lambda item: -item[1]["mib"])),
        "node_mib": round(sum(unit["mib"] for unit in sums.values()) / len(looked), 1),
        "watchers": watchers,
        "watchers_sum": {key: round(sum(one[key] for one in watchers.values()), 1) for key in IDLE_COLUMNS},
    }


def measured(folder: Path, logs: Path, limit_seconds: float = 2400) -> list[str]:
    """What the conformance tests that measure something tell of a site; a BenchError where one fails."""
    report = logs / "figures.xml"
    command = [sys.executable, "-m", "pytest", "tests/conformance", "-m", "figures", f"--junitxml={report}"]
    logged(command, logs / "figures.log", limit_seconds, ASHLAR_INVENTORY=str(folder))
    return [str(one.get("value")) for one in ElementTree.parse(report).iter("property") if one.get("name") == "figure"]


def slowest(run: Run, count: int = 15) -> list[dict[str, Any]]:
    tasks = sorted(run.tasks, key=lambda task: -float(task["seconds"]))[:count]
    return [{"play": task["play"], "name": task["name"], "seconds": task["seconds"], "hosts": len(task["hosts"])} for task in tasks]


def summary(rounds: list[Round]) -> dict[str, Any]:
    """Medians, and how far single rounds were from each other."""

    def spread(values: list[float]) -> dict[str, float]:
        return {"median": round(statistics.median(values), 1), "least": round(min(values), 1), "most": round(max(values), 1)}

    answered = [one.whole.fresh.sample_seconds for one in rounds if one.whole.fresh.sample_seconds is not None]
    tasks = {host: number for one in rounds for host, number in one.whole.fresh.host_tasks.items() if host != "localhost"}
    return {
        "fresh_until_sample_answers_seconds": spread(answered) if len(answered) == len(rounds) else None,
        "fresh_run_seconds": spread([one.whole.fresh.seconds for one in rounds]),
        "noop_run_seconds": spread([one.whole.noop.seconds for one in rounds]),
        "noop_changed": max(one.whole.noop.changed for one in rounds),
        "nodes_made_seconds": spread([one.whole.nodes_seconds for one in rounds]),
        "host_tasks": tasks,
        "host_tasks_localhost": max(one.whole.fresh.host_tasks.get("localhost", 0) for one in rounds),
        "additions": {
            addition.name: {"fresh_seconds": spread([cost[0] for cost in costs]), "noop_seconds": spread([cost[1] for cost in costs])}
            for addition, *costs in zip(ADDITIONS, *(one.costs() for one in rounds), strict=False)
        },
    }


def machine() -> dict[str, Any]:
    """What was measured on."""
    with open("/proc/meminfo") as text:
        total = int(text.readline().split()[1])
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()
    running = subprocess.run(["podman", "ps", "--format", "{{.Names}}"], capture_output=True, text=True, check=False).stdout.split()
    return {
        "cores": os.cpu_count(),
        "memory_gib": round(total / 1048576),
        "kernel": platform.release().split("-")[0],
        "python": platform.python_version(),
        "commit": commit,
        "other_containers": len([name for name in running if "-bench-" not in name]),
    }


def verdict(value: float | None, limit: float) -> str:
    return "not measured" if value is None else f"{'kept' if value <= limit else 'MISSED'} (limit {limit:g})"


def plain(text: str) -> str:
    """For a cell of a Markdown table."""
    return text.replace("|", "\\|")


def page(result: dict[str, Any]) -> str:
    """The result for people."""
    told, where = result["summary"], result["machine"]
    answers = told["fresh_until_sample_answers_seconds"]
    most_tasks = max(told["host_tasks"].values(), default=0)
    rows = [
        (
            "fresh platform, start of site.yml until the sample answers on every node, s",
            answers,
            verdict(answers and answers["median"], TARGETS["fresh_seconds"]),
        ),
        ("fresh platform, whole run of site.yml, s", told["fresh_run_seconds"], verdict(told["fresh_run_seconds"]["median"], TARGETS["run_seconds"])),
        ("run that has nothing to do, s", told["noop_run_seconds"], verdict(told["noop_run_seconds"]["median"], TARGETS["noop_seconds"])),
        ("things it changed", told["noop_changed"], verdict(told["noop_changed"], TARGETS["noop_changed"])),
        ("host-tasks of the busiest node", most_tasks, verdict(most_tasks, TARGETS["host_tasks"])),
        ("host-tasks of the controller itself", told["host_tasks_localhost"], ""),
        ("three nodes made from the image, s", told["nodes_made_seconds"], ""),
    ]

    for addition in ADDITIONS:
        cost = told["additions"].get(addition.name)
        if cost:
            fresh, noop = cost["fresh_seconds"], cost["noop_seconds"]
            rows.append((f"of a fresh platform's run, {addition.name}, s", fresh, verdict(fresh["median"], addition.fresh_seconds)))
            rows.append((f"of a run that has nothing to do, {addition.name}, s", noop, verdict(noop["median"], addition.noop_seconds)))

    def cell(value: Any) -> str:
        if isinstance(value, dict):
            return f"{value['median']} ({value['least']} to {value['most']})"
        return "-" if value is None else str(value)

    lines = [
        f"# Figures of {result['date']}",
        "",
        f"{result['rounds']} paired rounds on three local nodes (control plane, etcd and worker each); warm store; median (least to most).",
        f"{where['cores']} cores, {where['memory_gib']} GiB, kernel {where['kernel']}, Python {where['python']}, commit {where['commit']};",
        f"load before each round {', '.join(str(one['load']) for one in result['runs'])}; {where['other_containers']} other containers were running.",
        "",
        "| what | measured | target |",
        "|---|---|---|",
        *(f"| {what} | {cell(value)} | {wish} |" for what, value, wish in rows),
        "",
        "## Beside what else is known",
        "",
        "Quoted, not measured in this run:",
        "",
        *(f"- {name}: {text}" for name, text in QUOTED.items()),
    ]
    if result["cold"]:
        lines += ["", "## Cold", "", *(f"- {name}: {value}" for name, value in result["cold"].items())]
    for title, key in (("Where the time of a fresh platform goes", "slowest_fresh"), ("Where the time of a run with nothing to do goes", "slowest_noop")):
        lines += [
            "",
            f"## {title}",
            "",
            "Last round; seconds from the task's start to its end on the last host.",
            "",
            "| s | hosts | play | task |",
            "|---|---|---|---|",
        ]
        lines += [f"| {task['seconds']:.2f} | {task['hosts']} | {plain(task['play'])} | {plain(task['name'])} |" for task in result[key]]
    if result["figures"]:
        lines += ["", "## How soon, and what a load meets meanwhile", "", "Three nodes on the machine that also makes the load.", ""]
        lines += [f"- {figure}" for figure in result["figures"]]
    if result["idle"]:
        lines += idle_page(result["idle"])
    return "\n".join(lines) + "\n"


def idle_page(told: dict[str, Any]) -> list[str]:
    """What an idle site needs, for people."""

    def table(title: str, rows: dict[str, dict[str, float]]) -> list[str]:
        return [
            "",
            f"| {title} | {' | '.join(IDLE_COLUMNS.values())} |",
            "|---" * (1 + len(IDLE_COLUMNS)) + "|",
            *(f"| {name} | {' | '.join(str(row[key]) for key in IDLE_COLUMNS)} |" for name, row in rows.items()),
        ]

    whole = told["watchers_sum"]
    return [
        "",
        f"## An idle site: {told['node_mib']} MiB a node",
        "",
        f"Sums of {told['nodes']} nodes, {told['settle_seconds']:g} s after the last run, for {told['seconds']} s. MiB is the proportional set size; what",
        "is not a unit's own is pages of programs, which the kernel takes back when it needs them. What systemd accounts to a unit is its own, the pages of",
        "files that it was the first to read, and what the kernel holds for it.",
        "",
        f"What watches the site (limits: {WATCHERS_MIB} MiB, {WATCHERS_CORE_PERCENT} percent of a core):",
        *table("component", {**told["watchers"], "all": whole}),
        *table("unit", {unit: row for unit, row in told["units"].items() if row["mib"] >= 0.5}),
    ]


def cold_figures(given: list[str]) -> dict[str, str]:
    """`--cold quickstart=1034` -> a line of the report; figures that take too long to measure on every occasion."""
    figures = {}
    for one in given:
        name, sign, value = one.partition("=")
        if not sign or not name or not value:
            raise BenchError(f"--cold {one}: is name=value, such as --cold quickstart_seconds=1034")
        figures[name] = value
    return figures


def measure(options: argparse.Namespace) -> dict[str, Any]:
    logs = Path(options.logs or tempfile.mkdtemp(prefix="ashlar-bench-"))
    logs.mkdir(parents=True, exist_ok=True)
    folder = logs / "site"
    if folder.exists():
        raise BenchError(f"{folder} is there already; give another --logs")
    where = machine()
    cold = cold_figures(options.cold)
    template = (ROOT / options.inventory / "20-stack.yml").resolve()
    steps = [ADDITIONS[number:] for number in range(len(ADDITIONS))] if options.additions else []
    rounds: list[Round] = []
    site(folder, options.site, template)
    with nodes_of(options.site, folder, logs):
        local_nodes(options.site, folder, logs, "planned")
        playbook(["-i", str(folder), "playbooks/artifacts.yml"], logs / "artifacts.log", 3600)
        for number in range(1, options.runs + 1):
            load = round(os.getloadavg()[0], 2)
            say(f"round {number} of {options.runs}, load {load}")
            *before, whole = [pair(folder, logs, f"{number}-{step}", options.site, template, without) for step, without in enumerate([*steps, ()])]
            rounds.append(Round(load, whole, before))
        resting = idle(folder, options.settle) if options.settle >= 0 else None
        figures = measured(folder, logs) if options.figures else []
    last = rounds[-1].whole
    return {
        "date": datetime.date.today().isoformat(),
        "rounds": len(rounds),
        "machine": where,
        "summary": summary(rounds),
        "targets": TARGETS,
        "quoted": QUOTED,
        "cold": cold,
        "idle": resting,
        "figures": figures,
        "slowest_fresh": slowest(last.fresh),
        "slowest_noop": slowest(last.noop, 10),
        "runs": [asdict(one) for one in rounds],
    }


def say(text: str) -> None:
    print(text, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3, help="paired rounds (default 3)")
    parser.add_argument("--additions", action="store_true", help="measure what each of the additions costs, too (three times as long)")
    parser.add_argument("--figures", action="store_true", help="let the conformance tests that measure something run on the last platform, too (15 minutes)")
    parser.add_argument("--inventory", default="inventories/local", help="the site whose stack file is measured")
    parser.add_argument("--site", default="bench", help="name of the site that is made for it")
    parser.add_argument("--settle", type=float, default=60, help="seconds a platform is left alone before one looks what it needs; -1: not at all")
    parser.add_argument("--cold", action="append", default=[], metavar="NAME=VALUE", help="a figure measured elsewhere, such as quickstart_seconds=1034")
    parser.add_argument("--logs", help="a new folder for the output of all runs (default: a temporary one)")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where the result is written")
    options = parser.parse_args()
    if options.runs < 1:
        parser.error("--runs: at least 1")
    try:
        result = measure(options)
    except (BenchError, plans.PlanError, subprocess.TimeoutExpired) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    options.results.mkdir(parents=True, exist_ok=True)
    name = options.results / result["date"]
    name.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")
    name.with_suffix(".md").write_text(page(result))
    print(page(result))
    say(f"written to {name}.json and {name}.md")
    return 0


if __name__ == "__main__":
    sys.exit(main())
