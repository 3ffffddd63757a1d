# SPDX-License-Identifier: Apache-2.0
"""The life of a stack that consists of two folders which no line of the core names: planned, installed, changed in turns, a node removed, taken away.

The tests go on from one another, in this order, as an operator would: with `site.yml` of a copy of the collection in which the two folders lie.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[3]
SITE = Path(os.environ["ASHLAR_INVENTORY"])
TOYS = Path(__file__).resolve().parents[1] / "collection"
PARTS = ("artifacts", "docs", "meta", "playbooks", "plugins", "programs", "releases", "roles", "schemas", "stacks", "ansible.cfg", "galaxy.yml", "site.yml")
STORES = ("node1", "node2", "node3")
NODES = (*STORES, "node4")
# When a unit began to stop, and when it had started again, in microseconds since the boot that all nodes of this machine share.
TIMES = "systemctl show --property=ActiveExitTimestampMonotonic,ActiveEnterTimestampMonotonic toy-store.service"
# What a machine is: files that are no package's, without what packages and the system itself write; users, units, rules, interfaces, mounts.
MACHINE = r"""
owned=$(mktemp)
cat /var/lib/dpkg/info/*.list | sort -u >"$owned"
find /etc /opt /usr /home /root /srv /var -xdev \( -path /var/lib/dpkg -o -path /var/lib/apt -o -path /var/lib/systemd -o -path /var/log \
  -o -path /var/cache -o -path /var/tmp -o -path /etc/alternatives -o -path /root/.ansible -o -name __pycache__ \) -prune -o -print |
  sort | comm -23 - "$owned" | grep -vE '^/etc/((passwd|group|shadow|gshadow|subuid|subgid)-|[.]pwd[.]lock)$'
getent passwd | cut -d: -f1
getent group | cut -d: -f1
systemctl list-unit-files --plain --no-legend | awk '$2 == "enabled" {print $1}'
nft list ruleset 2>/dev/null || true
ip -oneline link | cut -d: -f2
cut -d' ' -f2 /proc/mounts | grep -v ^/run/credentials/
rm "$owned"
"""
LOOK = r"""
find / -xdev \( -iname '*toy*' -o -path '/opt/ashlar/*toy*' \) -not -path '/proc/*' -not -path '/sys/*' -not -path '/var/lib/ashlar/retired/*' -not -path '/var/log/journal/*'
getent passwd | grep toy
systemctl list-units --all --plain --no-legend '*toy*'
nft list table inet ashlar | grep -E 'toy|cells|10\.77\.'
ss -Hltn | grep -E ':700[12]'
pgrep --list-full --full '^sleep 100000'
true
"""


@pytest.fixture(scope="module")
def collection(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A checkout with the toy components in it; site.yml is written anew from the manifests, as their author would have it written."""
    root = tmp_path_factory.mktemp("checkout")
    for name in PARTS:
        source = ROOT / name
        shutil.copytree(source, root / name, ignore=shutil.ignore_patterns("__pycache__")) if source.is_dir() else shutil.copy2(source, root / name)
    shutil.copytree(TOYS, root, dirs_exist_ok=True)
    link = root / ".collections/ansible_collections/ashlar/stack"
    link.parent.mkdir(parents=True)
    link.symlink_to("../../..")
    subprocess.run([sys.executable, "docs/build.py"], cwd=root, check=True, timeout=120)
    yield root
    shutil.rmtree(root)


def playbook(root: Path, *arguments: str, name: str = "site.yml") -> tuple[int, str]:
    """Exit code and everything that a run of a playbook printed."""
    command = [str(Path(sys.executable).parent / "ansible-playbook"), "-i", str(SITE), name, *arguments]
    environment = {**os.environ, "ANSIBLE_CONFIG": str(root / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1", "ANSIBLE_FORCE_COLOR": "0"}
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=900, check=False, stdin=subprocess.DEVNULL)
    print(done.stdout + done.stderr)
    return done.returncode, done.stdout + done.stderr


def installed(root: Path, *arguments: str) -> str:
    code, said = playbook(root, *arguments)
    assert code == 0
    return said


def changes(said: str) -> set[str]:
    return set(re.findall(r"changed=(\d+)", said))


def hosts() -> dict[str, Any]:
    return dict(yaml.safe_load((SITE / "10-nodes.yml").read_text())["all"]["hosts"])


def on(node: str, command: str) -> str:
    """What a shell command printed on a node."""
    ssh = SITE / "credentials" / "ssh"
    options = ["-i", str(ssh / "id_ed25519"), "-o", f"UserKnownHostsFile={ssh / 'known_hosts'}", "-o", "BatchMode=yes"]
    words = ["ssh", *options, f"root@{hosts()[node]['node_address']}", command]
    return subprocess.run(words, capture_output=True, text=True, timeout=60, check=True).stdout


def everywhere(command: str, nodes: Sequence[str] = NODES) -> dict[str, str]:
    with ThreadPoolExecutor() as pool:
        return dict(zip(nodes, pool.map(lambda node: on(node, command), nodes), strict=True))


@pytest.fixture(scope="module")
def bare() -> list[str]:
    """What node4 was before anything was installed on it."""
    return on("node4", MACHINE).splitlines()


def put(node: str, password: str) -> str:
    """What the store of a node says to a client with this password."""
    return on(node, f"exec 3<>/dev/tcp/{hosts()[node]['node_address']}/7002; echo put written {password} 0 >&3; read -r answer <&3; echo $answer").strip()


def restarts() -> dict[str, tuple[int, int]]:
    """Node -> when its store stopped and started last."""
    shown = {node: dict(line.split("=", 1) for line in text.splitlines()) for node, text in everywhere(TIMES, STORES).items()}
    return {node: (int(times["ActiveExitTimestampMonotonic"]), int(times["ActiveEnterTimestampMonotonic"])) for node, times in shown.items()}


def planned(root: Path, tmp_path: Path, *arguments: str) -> tuple[str, dict[str, Any]]:
    """What plan.yml printed, and the plan that it wrote: node -> component -> verb -> names."""
    file = tmp_path / "plan.json"
    code, said = playbook(root, "-e", f"plan_file={file}", *arguments, name="playbooks/plan.yml")
    assert code == 0 and changes(said) == {"0"}
    return said, json.loads(file.read_text())["plan"]


def test_the_plan_of_bare_machines_has_all_that_would_be_installed_and_touches_none(collection: Path, bare: list[str], tmp_path: Path) -> None:
    said, plan = planned(collection, tmp_path)
    assert set(plan) >= set(NODES) and "toy-store.service" in plan["node1"]["toy_store"]["start"]
    assert any(name.startswith("toy_scripts ") for name in plan["node1"]["artifacts"]["install"])
    assert "toy_store" not in plan["node4"] and "start toy-orchestrator.service" in said
    assert on("node4", MACHINE).splitlines() == bare
    assert not (SITE / "credentials/toy").exists() and not (SITE / "state/placement.yml").exists()


def test_it_comes_up_and_a_second_run_changes_nothing(collection: Path, bare: list[str], tmp_path: Path) -> None:
    said = installed(collection)
    assert "coordination | toy_store" in (collection / "site.yml").read_text()
    assert "it runs on every node" in said, "the closing page has its lines"
    assert all("sleep 1000002" in text for text in everywhere("pgrep --list-full --full '^sleep 100000'").values())
    assert all("elements = { 10.77.0.0/16 }" in text for text in everywhere("nft list set inet ashlar containers").values())
    said = installed(collection)
    assert changes(said) == {"0"}
    said, plan = planned(collection, tmp_path)
    assert plan == {} and re.search(r"What this would do\n +nothing\n", said)


def test_a_changed_option_and_a_new_program_restart_one_store_after_another(collection: Path, tmp_path: Path) -> None:
    before = restarts()
    with (collection / "programs/toy_scripts/store").open("a") as script:
        script.write("# A new release.\n")
    said, plan = planned(collection, tmp_path, "-e", json.dumps({"toy_store_port": 7002}))
    assert {node for node in NODES if "toy-store.service" in plan[node].get("toy_store", {}).get("restart", ())} == set(STORES)
    assert "interrupts toy-store.service in turn" in said and restarts() == before
    said = installed(collection, "-e", json.dumps({"toy_store_port": 7002}))
    after = restarts()
    assert "toy-store.service" in said
    assert all(after[node][0] > before[node][1] for node in STORES)
    turns = sorted(after.values())
    assert all(one[1] <= other[0] for one, other in zip(turns, turns[1:], strict=False)), turns
    assert all(":7002" in text and ":7001" not in text for text in everywhere("ss -Hltn", STORES).values())


def test_secrets_are_rotated_while_a_client_writes(collection: Path) -> None:
    password = (SITE / "credentials/toy/password").read_text().strip()
    port = json.dumps({"toy_store_port": 7002})
    # A client that reads its password each time, as it is renewed while it runs; a store that restarts is asked again.
    client = rf"""
nohup bash -c 'until [ -e /run/toy-stop ]; do
  exec 3<>/dev/tcp/{hosts()["node1"]["node_address"]}/7002 || {{ sleep 0.1; continue; }}
  echo put written $(cat /etc/toy-orchestrator/password) $((++count)) >&3; read -r answer <&3; echo $answer; sleep 0.05
done' >/run/toy-answers 2>/dev/null </dev/null &"""
    on("node4", client)
    try:
        code, said = playbook(collection, "-e", "what=passwords,authorities,certificates", "-e", port, name="playbooks/rotate.yml")
    finally:
        on("node4", "touch /run/toy-stop")
    assert code == 0
    answers = on("node4", "cat /run/toy-answers").split()
    assert len(answers) > 100 and set(answers) == {"stored"}
    new = (SITE / "credentials/toy/password").read_text().strip()
    assert new != password and "\n" not in new
    assert put("node1", password) == "refused" and put("node1", new) == "stored"
    assert everywhere("cd /var/lib/toy-store; cat introduce switch drop", STORES) == dict.fromkeys(STORES, 3 * "certificates authorities passwords\n")
    issuers = everywhere("openssl x509 -noout -issuer -in /etc/ashlar/pki/toy_store/server.crt", STORES)
    assert all("toy authority 2" in text for text in issuers.values())
    assert set(everywhere("grep -c BEGIN /etc/ashlar/pki/ca/toy.crt", STORES).values()) == {"1\n"}
    assert not (SITE / "state/rotation.json").exists()
    assert changes(installed(collection, "-e", port)) == {"0"}


def test_a_node_that_is_removed_is_as_it_was_before_and_the_others_forget_it(collection: Path, bare: list[str]) -> None:
    remove = "playbooks/remove_nodes.yml"
    code, said = playbook(collection, "-e", "nodes=node3", name=remove)
    assert code == 2 and "node3 can't be removed, because toy_store there holds what the toy orchestrator is to run" in " ".join(said.split())
    assert playbook(collection, "-e", "nodes=node4", name=remove)[0] == 0
    now = on("node4", MACHINE).splitlines()
    assert sorted(set(now) ^ set(bare)) == [], "nothing was left behind, and nothing of the machine was lost"
    address = hosts()["node4"]["node_address"]
    assert not any(address in text for text in everywhere("nft list ruleset; cat /etc/hosts", STORES).values())
    assert not (SITE / "credentials" / "nodes" / "node4").exists()
    assert changes(playbook(collection, "-e", "nodes=node4", name=remove)[1]) == {"0"}, "what is removed is not removed again"
    assert "node4" not in yaml.safe_load((SITE / "state" / "placement.yml").read_text())["components"].get("base", [])


def test_it_leaves_when_it_is_named_and_nothing_of_it_stays(collection: Path) -> None:
    stack = SITE / "stacks" / "toy.yml"
    text = stack.read_text()
    stack.write_text(re.sub(r"slots:.*", "slots: {}\n", text, flags=re.DOTALL))
    try:
        code, said = playbook(collection)
        assert code != 0
        assert "toy_store would leave node1, node2, node3, and it holds what the toy orchestrator is to run" in said
        installed(collection, "-e", "retire=toy_store")
        assert everywhere(LOOK) == dict.fromkeys(NODES, "")
        goodbyes = everywhere("cat /var/lib/ashlar/retired/toy_store-*/var-lib-toy-store/goodbye", STORES)
        assert goodbyes == {node: f"{node}\n" for node in STORES}, "it took its leave, and its data was put aside"
        assert changes(installed(collection)) == {"0"}
    finally:
        stack.write_text(text)
