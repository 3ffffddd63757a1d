# SPDX-License-Identifier: Apache-2.0
"""The way of a site whose machines OpenTofu makes, after converge.yml made one control node and one worker: it works, it grows, it ends.

The tests go on from one another, in this order, by the same playbooks that an operator runs.
"""

from __future__ import annotations

import functools
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[3]
SITE = Path(os.environ["ASHLAR_INVENTORY"])
ENVIRONMENT = {**os.environ, "ANSIBLE_FORCE_COLOR": "0", "ANSIBLE_NOCOLOR": "1"}
VARIABLES = SITE / "state" / "machines.tfvars"
TERRAFORM = ROOT / "terraform" / "local"
OLD = ("mol-terraform-control-1", "mol-terraform-worker-1")
NEW = "mol-terraform-worker-2"
# On nodes that were there before, another node is an address to let in; the control plane knows it by name, Prometheus scrapes it, the portal shows it.
MAY_CHANGE = {
    "/etc/ashlar/firewall.nft",
    "/etc/kubernetes/control/nodes.json",
    "/etc/portal/site.json",
    "/etc/prometheus/targets/nodes.json",
}
# A login's own manager comes and goes with the login, and the server of artifacts with the nodes that fetch from it.
PASSING = ("user@", "ashlar-artifacts.service")
# What a node has on disk, what links there are, and since when which process of each unit runs.
LOOK = r"""
find /etc /opt /usr/local -xdev -type f -not -name mtab -print0 | xargs -0 sha256sum | awk '{print $2, $1}'
find /etc /opt -xdev -type l -printf '%p -> %l\n'
echo ---
systemctl show '*.service' --property Id,Type,MainPID,ExecMainStartTimestampMonotonic,NRestarts
"""


def playbooks(*names: str, variables: tuple[str, ...] = (), seconds: int = 900) -> tuple[int, str]:
    """Exit code and everything printed."""
    words = command(*names, variables=variables)
    done = subprocess.run(words, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, timeout=seconds, check=False, stdin=subprocess.DEVNULL)
    said = done.stdout + done.stderr
    print(said)
    return done.returncode, said


def command(*names: str, variables: tuple[str, ...] = ()) -> list[str]:
    return [str(Path(sys.executable).parent / "ansible-playbook"), "-i", str(SITE), *names, *variables]


def workers(count: int) -> None:
    VARIABLES.write_text(re.sub(r"(worker .*count = )\d+", rf"\g<1>{count}", VARIABLES.read_text()))


@functools.cache
def prefix() -> str:
    """What the names of all containers of this site begin with; another checkout on this machine may have nodes of the same names."""
    record = json.loads((SITE / "state" / "local_nodes" / OLD[0]).read_text())
    return podman("inspect", "--format", '{{index .Config.Labels "ashlar_site"}}', record["id"]).strip()


def containers() -> set[str]:
    return set(podman("ps", "--all", "--filter", f"label=ashlar_site={prefix()}", "--format", "{{.Labels.ashlar_node}}").split())


def podman(*words: str) -> str:
    return subprocess.run(["podman", *words], capture_output=True, text=True, timeout=300, check=True).stdout


def look(node: str) -> tuple[dict[str, str], dict[str, tuple[str, ...]]]:
    """path -> digest or target, and unit -> main process, its start and how often systemd restarted it; of units that stay."""
    paths, _, units = podman("exec", f"{prefix()}-{node}", "bash", "-c", LOOK).partition("---\n")
    files = dict(line.split(" ", 1) for line in paths.splitlines())
    services: dict[str, tuple[str, ...]] = {}
    for block in units.split("\n\n"):
        fields = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        passing = fields.get("Id", "").startswith(PASSING)
        if fields.get("MainPID", "0") != "0" and fields["Type"] != "oneshot" and not passing:
            services[fields["Id"]] = (fields["MainPID"], fields["ExecMainStartTimestampMonotonic"], fields["NRestarts"])
    return files, services


def until(what: str, ask: Callable[[], Any], seconds: float = 180) -> Any:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        answer = ask()
        if answer:
            return answer
        time.sleep(0.1)
    raise AssertionError(f"waited {seconds:.0f} s in vain until {what}")


def running(command_line: str) -> list[int]:
    """Processes in terraform/local, and in this scenario's workspace, whose command line contains it, by id."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            ours = os.path.samefile(folder / "cwd", TERRAFORM) and b"TF_WORKSPACE=mol-terraform" in (folder / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if ours and command_line in words:
            found.append(int(folder.name))
    return found


@pytest.fixture(scope="module")
def before() -> Iterator[dict[str, Any]]:
    yield {node: look(node) for node in OLD}


def test_a_plan_is_shown_and_nothing_is_done(before: dict[str, Any]) -> None:
    workers(2)
    code, said = playbooks("playbooks/machines.yml", variables=("--check",))
    assert code == 0
    assert "terraform/local (workspace mol-terraform): 2 to create" in said and f"machines created: {NEW}\n" in said
    lines = [line.split()[-1] for line in said.splitlines() if re.match(r" +(\+|~|-|-/\+) terraform_data", line)]
    assert lines == [f'terraform_data.generation["{NEW}"]', f'terraform_data.node["{NEW}"]'], "exactly one node, and nothing else"
    assert containers() == set(OLD)


def test_an_apply_that_was_killed_ends_well_when_run_again(before: dict[str, Any]) -> None:
    words = command("playbooks/machines.yml")
    process = subprocess.Popen(words, cwd=ROOT, env=ENVIRONMENT, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True)
    try:
        until("the container is in the making", lambda: running(f"node.sh make {NEW}"))
        for pid in running("tofu apply"):
            os.kill(pid, signal.SIGKILL)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(120)
    code, said = playbooks("playbooks/machines.yml", "site.yml")
    assert code == 0, said[-3000:]
    assert containers() == {*OLD, NEW}


def test_growing_touched_no_unit_and_only_what_names_the_nodes(before: dict[str, Any]) -> None:
    for node in OLD:
        files, units = before[node]
        files_now, units_now = look(node)
        assert {path for path in {*files, *files_now} if files.get(path) != files_now.get(path)} <= MAY_CHANGE
        assert len(units) > 5 and units_now == units


def test_the_platform_works_and_the_new_node_carries_pods() -> None:
    """Every one of these runs a pod on each node."""
    tests = [f"tests/conformance/test_{slot}.py" for slot in ("overlay", "discovery", "base")]
    done = subprocess.run([sys.executable, "-m", "pytest", *tests, "-q"], cwd=ROOT, capture_output=True, text=True, timeout=900, check=False)
    print(done.stdout[-5000:])
    assert done.returncode == 0


def test_again_changes_nothing() -> None:
    code, said = playbooks("playbooks/machines.yml", "site.yml")
    assert code == 0
    recap = re.findall(r"^(\S+) +: ok=\d+ +changed=(\d+) ", said, re.MULTILINE)
    assert {name for name, _ in recap} >= {*OLD, NEW, "localhost"} and {changed for _, changed in recap} == {"0"}


def test_a_plan_that_ends_a_machine_is_refused() -> None:
    workers(1)
    code, said = playbooks("playbooks/machines.yml")
    assert code == 2
    assert f"This plan would end {NEW}, and nothing was changed" in " ".join(said.split()) and "machines_allow_destroy=true" in said
    assert containers() == {*OLD, NEW}


def test_the_wrong_name_destroys_nothing() -> None:
    for variables in (("-e", "machines_destroy=mol-terrafrom"), ()):
        code, said = playbooks("playbooks/machines_destroy.yml", variables=variables)
        assert code == 2 and "is not the name of this site, which is mol-terraform" in " ".join(said.split())
        assert containers() == {*OLD, NEW}


def test_nothing_is_left_of_machines_that_were_destroyed() -> None:
    code, _ = playbooks("playbooks/machines_destroy.yml", variables=("-e", "machines_destroy=mol-terraform"))
    assert code == 0
    everything = podman("ps", "--all", "--format", "{{.Names}}") + podman("volume", "ls", "--quiet") + podman("network", "ls", "--format", "{{.Name}}")
    assert prefix() not in everything
    assert not (SITE / "credentials" / "ssh").exists() and not (SITE / "state" / "local_nodes").exists() and not (SITE / "state" / "machines.json").exists()
    resources = json.loads((TERRAFORM / "terraform.tfstate.d/mol-terraform/terraform.tfstate").read_text())["resources"]
    assert resources == []
    code, said = playbooks("site.yml")
    assert code == 2 and "has no machines yet" in said
