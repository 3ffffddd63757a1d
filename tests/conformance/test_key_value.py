# SPDX-License-Identifier: Apache-2.0
"""A key-value store agrees, keeps what it is given, is backed up, and speaks to nobody whom its authority does not know."""

from __future__ import annotations

import json
import stat
from functools import partial

import pytest

from .support.key_value import Etcd, KeyValueStore
from .support.nodes import Node
from .support.plan import Plan
from .support.waiting import at_once, until

pytestmark = pytest.mark.needs("key_value")


@pytest.fixture(scope="module")
def members(key_value: KeyValueStore) -> list[Node]:
    return key_value.members


@pytest.fixture
def etcd(key_value: KeyValueStore) -> Etcd:
    """The store, where the test is of what etcd alone has."""
    assert isinstance(key_value, Etcd)
    return key_value


def agreed(key_value: KeyValueStore) -> str:
    """The leader that all members name; empty while they do not agree."""
    found = set(at_once(key_value.leader, key_value.members))
    return found.pop() if len(found) == 1 else ""


def test_all_members_are_voters_and_agree_on_a_leader(key_value: KeyValueStore) -> None:
    names = {node.name for node in key_value.members}
    for node in key_value.members:
        assert key_value.voters(node) == names, node.name
    assert agreed(key_value) in names


@pytest.mark.needs("etcd")
def test_no_alarm_is_raised(etcd: Etcd) -> None:
    assert etcd.control(etcd.members[0], "alarm list") == ""


@pytest.mark.needs("etcd")
def test_the_version_is_the_plan_s(etcd: Etcd, plan: Plan) -> None:
    found = at_once(etcd.status, etcd.members)
    assert len({one["header"]["member_id"] for one in found}) == len(etcd.members), "each answers for itself"
    assert {one["version"] for one in found} == {plan.versions["etcd"].split("+")[0]}


def test_what_is_written_on_one_member_is_read_on_every_other(key_value: KeyValueStore, key: str) -> None:
    members = key_value.members
    for number, node in enumerate(members):
        key_value.put(node, f"{key}/{number}", node.name)
    for node, found in zip(members, at_once(lambda node: key_value.get(node, f"{key}/", below=True), members), strict=True):
        assert found == [member.name for member in members], node.name


@pytest.mark.needs("etcd")
@pytest.mark.parametrize("port", [2379, 2380])
def test_a_client_needs_a_certificate_of_the_store_s_authority(members: list[Node], port: int) -> None:
    asker = members[0]
    for node in members:
        url = f"https://{node.address}:{port}/{'health' if port == 2379 else 'members'}"
        none = asker.https(url, "etcd")
        assert none.status == 0, f"without a certificate {url} says {none}"
        assert "certificate required" in none.error.lower() or "handshake" in none.error.lower() or "reset" in none.error.lower(), none
        known = asker.https(url, "etcd", "etcd/operator")
        assert known.status == 200, f"with the operator's certificate {url} says {known}"


@pytest.mark.needs("etcd", "kubernetes_node")
def test_a_certificate_of_another_authority_is_refused(members: list[Node]) -> None:
    reply = members[0].https(f"https://{members[-1].address}:2379/health", "etcd", "kubernetes_node/kubelet")
    assert reply.status == 0, f"a kubelet's certificate was accepted: {reply}"
    assert "unknown ca" in reply.error.lower() or "bad certificate" in reply.error.lower() or "certificate" in reply.error.lower(), reply


@pytest.mark.needs("etcd")
def test_nothing_is_served_without_encryption(members: list[Node]) -> None:
    asker = members[0]
    program = (
        "import json,sys,urllib.request,urllib.error\n"
        "try:\n    print(json.dumps(urllib.request.urlopen(json.loads(sys.argv[1])[0], timeout=4).status))\n"
        "except urllib.error.HTTPError as error:\n    print(json.dumps(error.code))\n"
        "except OSError:\n    print(json.dumps(0))\n"
    )
    for node in members:
        assert asker.python(program, f"http://{node.address}:2379/health") in (0, 400), node.name


@pytest.mark.needs("etcd")
def test_data_and_snapshots_are_for_their_owner_only(members: list[Node]) -> None:
    for node in members:
        for path, owner in (("/var/lib/etcd", "etcd"), ("/var/lib/etcd-snapshots", "root")):
            found = node.host.file(path)
            assert (found.user, stat.S_IMODE(found.mode)) == (owner, 0o700), f"{node.name}: {path}"


@pytest.mark.needs("etcd")
def test_snapshots_are_taken_on_a_schedule_and_can_be_read(etcd: Etcd, key: str, plan: Plan) -> None:
    node = etcd.members[0]
    assert node.run("systemctl is-active etcd-snapshot.timer etcd-defragment.timer").split() == ["active", "active"]
    etcd.put(node, key, "kept")
    newest = etcd.snapshot(node)
    assert node.run(f"stat -c %a {newest}").strip() == "600"
    restored = node.run("mktemp -d").strip()
    try:
        told = json.loads(node.run(f"/opt/ashlar/etcd/current/etcdutl snapshot status --write-out=json {newest}"))
        assert told["totalKey"] > 0
        node.run(f"/opt/ashlar/etcd/current/etcdutl snapshot restore --data-dir {restored}/data {newest}")
        assert node.run(f"grep -c {key} {restored}/data/member/snap/db -a").strip() != "0", "what was written before is in the snapshot"
    finally:
        node.run(f"rm -rf {restored}")
    kept = node.run("ls /var/lib/etcd-snapshots").split()
    assert len(kept) <= int(plan.option("etcd", "etcd_snapshot_keep"))
    assert all(name.endswith(".db") for name in kept), f"what a killed run has left is still there: {kept}"


@pytest.mark.needs("etcd")
def test_the_database_is_defragmented_as_the_unit_says(etcd: Etcd) -> None:
    """The unit's own command, without the wait for its turn."""
    for node in etcd.members:
        program = node.run("systemctl show --property=ExecStart --value etcd-defragment.service")
        command = program.split("argv[]=")[1].split(";")[0].strip()
        assert "defrag" in command
        out = node.run(f"set -a; . /etc/etcd/etcdctl.env; {command} 2>&1")
        assert "Finished defragmenting" in out, (node.name, out)
        until(f"{node.name} answers after its defragmentation", partial(etcd.status, node))


@pytest.mark.scenario("etcd")
@pytest.mark.disruptive
@pytest.mark.needs("etcd")
def test_a_killed_member_comes_back_and_nothing_is_lost(etcd: Etcd, key: str) -> None:
    """The leader is killed without a word; the others go on, and it catches up with what was written meanwhile."""
    name = until("all members agree on a leader", lambda: agreed(etcd))
    [leader] = [node for node in etcd.members if node.name == name]
    others = [node for node in etcd.members if node is not leader]
    etcd.put(leader, f"{key}/before", "kept")
    before = leader.run("systemctl show --value --property=MainPID etcd.service").strip()
    leader.run("systemctl kill --signal=KILL etcd.service")
    if others:
        until("the others take writes again", lambda: etcd.put(others[0], f"{key}/meanwhile", "kept"))
    until(
        f"{leader.name} runs again as another process",
        lambda: leader.run("systemctl show --value --property=MainPID etcd.service").strip() not in ("0", before),
    )
    wanted = ["kept", "kept"] if others else ["kept"]
    until(f"{leader.name} has everything", lambda: etcd.get(leader, f"{key}/", below=True, own=True) == wanted)
    until("all members agree on a leader", lambda: agreed(etcd))
