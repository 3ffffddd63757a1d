# SPDX-License-Identifier: Apache-2.0
"""What is stored outlives disks and nodes, is read by nobody without a key, and takes no disk that holds anything."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from .support.cluster import random_name
from .support.figures import Tell
from .support.nodes import Node
from .support.plan import Plan
from .support.power import Power, reachable
from .support.site import changes, run
from .support.waiting import at_once, until

pytestmark = pytest.mark.needs("ceph_osd")

OBJECTS = 100
HEALTH = "/usr/local/libexec/ashlar/ceph-health"
# What this machine's own disk leaves free is not Ceph's fault.
NOT_OURS = {"MON_DISK_LOW"}
WRITE = "for n in $(seq {count}); do head -c 4096 /dev/urandom >/run/object; rados --pool {pool} put object-$n /run/object || exit 1; done; rm /run/object"
SUMS = "for n in $(seq {count}); do rados --pool {pool} get object-$n - | sha256sum; done"
# A master boot record with one partition.
PARTITIONED = r"""printf '\0\0\0\0\203\0\0\0\0\10\0\0\240\206\1\0' | dd of={file} bs=1 seek=446 conv=notrunc status=none
  printf '\125\252' | dd of={file} bs=1 seek=510 conv=notrunc status=none"""


@dataclass(frozen=True)
class Ceph:
    """Ceph, by the command line of the nodes that have its administrator's key."""

    administrators: list[Node]
    disks: list[Node]

    def ask(self, words: str, node: Node | None = None, seconds: int = 60) -> Any:
        """What Ceph answers, as JSON; a CommandError when it doesn't."""
        return json.loads((node or self.administrators[0]).run(f"ceph --connect-timeout 20 --format json {words}", seconds))

    def problems(self) -> dict[str, Any]:
        return {name: check for name, check in self.ask("health detail")["checks"].items() if name not in NOT_OURS}

    def well(self) -> bool:
        """Every disk is part of it, and every piece of data has all copies."""
        status = self.ask("status")
        states = {each["state_name"] for each in status["pgmap"].get("pgs_by_state", [])}
        return status["osdmap"]["num_up_osds"] == status["osdmap"]["num_osds"] and states <= {"active+clean"} and not self.problems()


def sums(node: Node, pool: str) -> str:
    """The checksums of all objects, as a node reads them."""
    return node.run(SUMS.format(count=OBJECTS, pool=pool), 300)


def written(node: Node, pool: str) -> str:
    """Checksums of the objects that a node has written."""
    node.run(WRITE.format(count=OBJECTS, pool=pool), 300)
    return sums(node, pool)


@pytest.fixture(scope="module")
def ceph(plan: Plan, nodes: dict[str, Node]) -> Ceph:
    found = Ceph([nodes[name] for name in plan.on("ceph_mon")], [nodes[name] for name in plan.on("ceph_osd")])
    until("Ceph is well", found.well)
    return found


@pytest.fixture
def pool(ceph: Ceph) -> Iterator[str]:
    name, node = random_name("conformance"), ceph.administrators[0]
    node.run(f"ceph osd pool create {name} 8 && ceph osd pool application enable {name} conformance")
    until("its data has a place", ceph.well)
    yield name
    node.run("ceph config set mon mon_allow_pool_delete true")
    node.run(f"ceph osd pool rm {name} {name} --yes-i-really-really-mean-it; ceph config rm mon mon_allow_pool_delete")


def test_all_monitors_agree_and_every_disk_takes_part(ceph: Ceph, plan: Plan) -> None:
    for node in ceph.administrators:
        assert set(ceph.ask("quorum_status", node)["quorum_names"]) == set(plan.on("ceph_mon")), node.name
    hosts = [item for item in ceph.ask("osd tree")["nodes"] if item["type"] == "host"]
    assert {item["name"] for item in hosts} == set(plan.on("ceph_osd")) and all(item["children"] for item in hosts)
    assert ceph.ask("mgr stat")["available"]


def test_copies_are_in_different_zones_where_there_are_enough(ceph: Ceph, plan: Plan, pool: str) -> None:
    zones = {plan.shared["site_nodes"][name]["zone"] for name in plan.on("ceph_osd")}
    apart = "zone" if all(zones) and len(zones) >= max(plan.option("ceph", "ceph_replicas"), 2) else "host"
    rule = ceph.ask(f"osd pool get {pool} crush_rule")["crush_rule"]
    assert apart in {step.get("type") for step in ceph.ask(f"osd crush rule dump {rule}")["steps"]}


@pytest.mark.needs("ceph_mgr")
def test_metrics_are_shown_to_the_node_alone(plan: Plan, nodes: dict[str, Node]) -> None:
    def listening() -> set[str]:
        return {place for name in plan.on("ceph_mgr") for place in nodes[name].run("ss -Hltn sport = :9283 | awk '{print $4}'").split()}

    assert until("the active manager shows them", listening) == {"127.0.0.1:9283"}


@pytest.mark.needs("ceph_mgr", "metrics_gateway", "prometheus")
def test_metrics_say_what_ceph_says(ceph: Ceph, plan: Plan, nodes: dict[str, Node]) -> None:
    def shown() -> dict[str, float]:
        active = nodes[ceph.ask("mgr stat")["active_name"]]
        reply = asker.https(f"https://{active.address}:9100/ceph_mgr/cluster", "site", "prometheus/scrape", seconds=20)
        lines = [line.rpartition(" ") for line in reply.body.splitlines() if line and not line.startswith("#")]
        return {name: float(value) for name, _, value in lines}

    def same() -> bool:
        figures, status = shown(), ceph.ask("status")
        health = ["HEALTH_OK", "HEALTH_WARN", "HEALTH_ERR"].index(status["health"]["status"])
        up = [value for name, value in figures.items() if name.startswith("ceph_osd_up{")]
        groups = sum(value for name, value in figures.items() if name.startswith("ceph_pg_total{"))
        told = (figures["ceph_health_status"], len(up), sum(up), groups)
        return told == (health, status["osdmap"]["num_osds"], status["osdmap"]["num_up_osds"], status["pgmap"]["num_pgs"])

    asker = nodes[plan.on("prometheus")[0]]
    until("the figures are those of ceph status", same)


def test_what_ceph_warns_of_is_told_with_what_to_do(ceph: Ceph) -> None:
    node = ceph.administrators[0]
    node.run("ceph osd set noout")
    try:
        until("it is told", lambda: "OSDMAP_FLAGS: noout flag(s) set. " in node.ask(HEALTH).out)
        assert "`ceph osd unset <flag>`" in node.ask(HEALTH).out
        leaders = [one for one in ceph.administrators if one.ask(f"{HEALTH} {one.name}").code]
        assert len(leaders) == 1, "the site is told once"
        node.run("ceph health mute OSDMAP_FLAGS")
        assert "OSDMAP_FLAGS" not in node.ask(HEALTH).out, "what is accepted is not told"
    finally:
        node.run("ceph osd unset noout; ceph health unmute OSDMAP_FLAGS")


def test_nothing_speaks_the_old_protocol_and_all_is_encrypted(ceph: Ceph) -> None:
    for monitor in ceph.ask("mon dump")["mons"]:
        assert [address["type"] for address in monitor["public_addrs"]["addrvec"]] == ["v2"], monitor
    ask = "ceph --connect-timeout 10 --ms_mon_client_mode {mode} fsid"
    node = ceph.administrators[0]
    assert node.ask(ask.format(mode="secure")).code == 0
    assert node.ask(ask.format(mode="crc")).code, "who wants no encryption is refused"


def test_nothing_is_read_without_a_key(ceph: Ceph, pool: str) -> None:
    node = ceph.administrators[0]
    node.run(f"echo secret | rados --pool {pool} put one -")
    stranger = "/run/stranger.keyring"
    node.run(f"ceph-authtool --create-keyring {stranger} --gen-key --name client.admin")
    try:
        for options in ("--name client.nobody", f"--keyring {stranger}"):
            answer = node.ask(f"timeout 20 rados {options} --pool {pool} get one -")
            assert answer.code and "secret" not in answer.out, options
    finally:
        node.run(f"rm {stranger}")


@pytest.mark.parametrize("holds", ["a file system", "a partition table", "another cluster"])
def test_a_disk_that_holds_anything_is_left_alone(ceph: Ceph, holds: str) -> None:
    node = ceph.disks[0]
    file = f"/var/lib/{random_name('disk')}"
    make = {
        "a file system": f"mkfs.ext4 -q {file}",
        "a partition table": PARTITIONED.format(file=file),
        "another cluster": f"""
          dd if=$(readlink -f /var/lib/ceph/osd/ceph-*/block | head -1) of={file} bs=4096 count=1 conv=notrunc status=none
          ceph-bluestore-tool set-label-key --dev {file} --key ceph_fsid --value 00000000-0000-4000-8000-000000000000""",
    }[holds]
    node.run(f"truncate -s 200M {file}; {make}")
    before = node.run(f"sha256sum {file}")
    settings = node.run("cat /etc/ceph/disks.json")
    try:
        node.run(f"""echo '{json.dumps({"two": {"name": "two", "path": file}})}' >/etc/ceph/disks.json""")
        answer = node.ask("/usr/local/libexec/ashlar/ceph-osd prepare two")
    finally:
        node.run(f"cat >/etc/ceph/disks.json <<'EOF'\n{settings}EOF")
    assert answer.code and holds in answer.error and "is left alone" in answer.error, answer
    assert node.run(f"sha256sum {file}") == before
    node.run(f"rm {file}")


@pytest.mark.needs("ceph_mount")
def test_every_worker_reads_what_another_has_written(plan: Plan, nodes: dict[str, Node]) -> None:
    workers = [nodes[name] for name in plan.on("ceph_mount")]
    folder = f"{plan.option('ceph_mount', 'ceph_mount_path')}/{random_name('conformance')}"
    workers[0].run(f"mkdir {folder}")
    for node in workers:
        node.run(f"head -c 100000 /dev/urandom >{folder}/{node.name} && sync {folder}/{node.name}")
    sums = at_once(lambda node: node.run(f"cd {folder} && sha256sum *"), workers)
    assert len(sums[0].splitlines()) == len(workers) and len(set(sums)) == 1
    workers[-1].run(f"rm -r {folder}")
    assert workers[0].ask(f"ls {folder}").code


@pytest.mark.disruptive
@pytest.mark.needs("ceph_mount")
def test_another_metadata_server_takes_over(ceph: Ceph, plan: Plan, nodes: dict[str, Node], tell: Tell) -> None:
    def active() -> str:
        return next((str(one["name"]) for one in ceph.ask("fs status")["mdsmap"] if one["state"] == "active"), "")

    node = nodes[plan.on("ceph_mount")[-1]]
    file = f"{plan.option('ceph_mount', 'ceph_mount_path')}/{random_name('conformance')}"
    before = until("a metadata server is active", active)
    node.run(f"echo before >{file}")
    nodes[before].run("systemctl kill --signal KILL ceph-mds.service")
    began = time.monotonic()
    until("a file can be written", lambda: node.run(f"timeout 60 sh -c 'echo after >>{file}; sync {file}'") == "")
    tell(f"files could be written {time.monotonic() - began:.1f} s after the metadata server was killed")
    assert node.run(f"head -n 1 {file}; rm {file}") == "before\n"
    until("Ceph is well", ceph.well)


@pytest.mark.disruptive
def test_a_disk_is_recognised_by_what_is_written_on_it(ceph: Ceph) -> None:
    def disks() -> dict[str, list[int]]:
        return {item["name"]: item["children"] for item in ceph.ask("osd tree")["nodes"] if item["type"] == "host"}

    before, node = disks(), ceph.disks[-1]
    node.run("""units=$(systemctl list-units --plain --no-legend 'ceph-osd@*' | cut -d' ' -f1)
      systemctl stop $units && rm -rf /var/lib/ceph/osd/* && systemctl start $units""")
    until("Ceph is well", ceph.well)
    assert disks() == before


@pytest.mark.disruptive
def test_what_is_stored_is_there_while_a_node_is_off(ceph: Ceph, pool: str, power: Power) -> None:
    first, *_, last = ceph.disks
    before = written(first, pool)
    power.off(last)
    try:
        until("it can be written to", lambda: first.run(f"echo more | timeout 20 rados --pool {pool} put more -") == "")
        assert sums(first, pool) == before
    finally:
        power.on(last)
    until("the node answers", lambda: reachable(last))
    until("all copies are there again", ceph.well)


@pytest.mark.disruptive
def test_what_is_stored_survives_all_nodes_going_down(ceph: Ceph, pool: str, power: Power, every: list[Node]) -> None:
    node = ceph.administrators[0]
    before = written(node, pool)
    at_once(power.off, every)
    for one in reversed(every):
        power.on(one)
        time.sleep(2)
    for one in every:
        until(f"{one.name} answers", lambda one=one: reachable(one))
    until("all copies are there again", ceph.well)
    assert sums(node, pool) == before


@pytest.mark.scenario("ceph")
@pytest.mark.disruptive
@pytest.mark.needs("ceph_mount")
def test_an_orderly_stop_writes_what_was_not_written_yet(plan: Plan, nodes: dict[str, Node]) -> None:
    folder = plan.option("ceph_mount", "ceph_mount_path")
    writer, reader, *_ = (nodes[name] for name in plan.on("ceph_mount"))
    name = f"{folder}/{random_name('conformance')}"
    before = writer.run(f"head -c 20000000 /dev/urandom >{name}; sha256sum {name}")
    run(plan, "stop")
    run(plan, "start")
    assert reader.run(f"sha256sum {name}", 300) == before
    reader.run(f"rm {name}")


@pytest.mark.scenario("ceph")
@pytest.mark.destructive
@pytest.mark.disruptive
def test_a_storage_node_leaves_when_its_data_has_moved_and_comes_back(ceph: Ceph, plan: Plan, nodes: dict[str, Node], pool: str) -> None:
    [name] = [name for name in plan.on("ceph_osd") if name not in plan.on("ceph_mon")]
    first, node = ceph.administrators[0], nodes[name]
    before = written(first, pool)

    run(plan, "remove_nodes", "-e", f"nodes={name}")
    assert name not in {item["name"] for item in ceph.ask("osd tree")["nodes"]}
    assert ceph.ask("osd ls") and not ceph.problems(), "it was not removed before everything had all its copies elsewhere"
    assert sums(first, pool) == before
    refused = first.ask(f"/usr/local/libexec/ashlar/ceph-nodes check {first.name}")
    assert refused.code == 1 and "Add a storage node first" in refused.error

    run(plan, "add_nodes", "-e", f"nodes={name}")
    until("its disks take part again", lambda: ceph.well() and name in {item["name"] for item in ceph.ask("osd tree")["nodes"]}, 300)
    assert sums(first, pool) == before
    assert changes(run(plan, "site")) == {"0"}
    assert node.run("systemctl is-active ceph-osd@*").split() == ["active"]


@pytest.mark.scenario("ceph")
@pytest.mark.destructive
@pytest.mark.disruptive
def test_a_storage_node_that_is_gone_is_replaced(ceph: Ceph, plan: Plan, nodes: dict[str, Node], pool: str) -> None:
    [name] = [name for name in plan.on("ceph_osd") if name not in plan.on("ceph_mon")]
    first, node = ceph.administrators[0], nodes[name]
    before = written(first, pool)
    disks = ceph.ask("osd ls")
    # The machine is a new one, with empty disks.
    node.run("systemctl stop 'ceph-osd@*'; rm -rf /var/lib/ceph-disks")
    run(plan, "replace_node", "-e", f"node={name}", "-e", "wipe=true")
    until("its new disks take part", ceph.well, 300)
    assert len(ceph.ask("osd ls")) == len(disks), "the old disks are forgotten"
    assert sums(first, pool) == before
