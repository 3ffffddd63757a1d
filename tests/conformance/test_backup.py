# SPDX-License-Identifier: Apache-2.0
"""A site goes back to what a backup has; a whole site is stopped and started, and removed without a trace."""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from .support.backups import Keys
from .support.cluster import Cluster, random_name, secret_text
from .support.figures import Tell, judged
from .support.key_value import KeyValueStore
from .support.nodes import Node
from .support.plan import Plan, read
from .support.power import Power
from .support.site import changes, playbook, run, site_file, site_yml, words
from .support.waiting import at_once, until

pytestmark = [pytest.mark.disruptive, pytest.mark.destructive, pytest.mark.needs("key_value"), pytest.mark.scenario("etcd")]

RUNNING = "systemctl list-units --state=active,activating --type=service,timer,path --plain --no-legend | cut -d' ' -f1"


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    return Keys.made(tmp_path_factory.mktemp("backups"))


def test_a_site_goes_back_to_what_a_backup_has(keys: Keys, plan: Plan, key_value: KeyValueStore, key: str) -> None:
    first, *others = key_value.members
    key_value.put(first, f"{key}/before", "kept")
    keys.written(plan)
    known = json.loads(first.run("cat /var/lib/ashlar/backup.json"))
    assert (known["name"], known["bytes"]) == [(file.name, file.stat().st_size) for file in keys.folder.iterdir()][-1]
    key_value.put(first, f"{key}/after", "lost")
    key_value.forget(first, f"{key}/before")
    code, said = playbook(plan, *keys.restore, "-e", "restore=another")
    assert code == 2 and "is not the name of this site" in words(said)
    run(plan, *keys.restore, "-e", f"restore={plan.site}")
    for node in (first, *others):
        assert key_value.get(node, f"{key}/", below=True) == ["kept"], node.name
        assert key_value.voters(node) == {member.name for member in key_value.members}
        assert node.run("ls /var/lib/ashlar/restore").strip() == "", "no copy of the data lies about"
    assert not (Path(plan.shared["site_directory"]) / "state" / "restore").exists()
    assert changes(site_yml(plan)) == {"0"}


def test_a_backup_that_can_t_be_read_is_refused_before_anything_is_touched(
    keys: Keys, plan: Plan, key_value: KeyValueStore, key: str, tmp_path: Path
) -> None:
    first = key_value.members[0]
    if not list(keys.folder.iterdir()):
        keys.written(plan)
    key_value.put(first, key, "untouched")
    whole = max(keys.folder.iterdir()).read_bytes()
    damaged = tmp_path / max(keys.folder.iterdir()).name
    middle = len(whole) // 2
    damaged.write_bytes(whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :])
    code, said = playbook(plan, "restore", "-e", f"backup={damaged}", "-e", f"identity={keys.file}", "-e", f"restore={plan.site}")
    assert code == 2 and "is damaged, cut short or was changed" in words(said), said[-2000:]
    assert key_value.get(first, key) == ["untouched"]


@pytest.mark.scenario("etcd", "life")
def test_a_survivor_of_three_hands_over_what_it_has(keys: Keys, plan: Plan, key_value: KeyValueStore, key: str, power: Power) -> None:
    survivor, *others = key_value.members
    if len(others) != 2:
        pytest.skip("this is about three members")
    key_value.put(survivor, key, "kept")
    power.off(others[0])
    try:
        # With a majority, nobody has to be asked for.
        keys.written(plan)
        power.off(others[1])
        code, said = playbook(plan, *keys.backup)
        assert code == 2 and "Without a majority, nothing is backed up" in words(said), said[-3000:]
        code, said = playbook(plan, *keys.backup, "-e", "survivor=nobody")
        assert code == 2 and "no node of this site" in words(said)
        run(plan, *keys.backup, "-e", f"survivor={survivor.name}")
    finally:
        for node in others:
            power.on(node)
    until("there is a majority again", lambda: key_value.put(others[0], key, "lost"))
    run(plan, *keys.restore, "-e", f"restore={plan.site}")
    assert at_once(lambda node: key_value.get(node, key), key_value.members) == [["kept"]] * 3
    assert changes(site_yml(plan)) == {"0"}


@pytest.fixture
def elsewhere(plan: Plan, nodes: dict[str, Node], power: Power, tmp_path: Path) -> Iterator[Plan]:
    """An inventory with the site's file and as many new machines, of other names and addresses. The site's own are off once the first is there."""
    (tmp_path / site_file(plan).name).write_text(site_file(plan).read_text())
    machines = [{"name": f"other-{name}", "classes": plan.shared["site_nodes"][name]["classes"]} for name in nodes]
    local = Plan(Path("localhost,"), {})
    settings = {"local_nodes_site": f"{plan.site}-elsewhere", "local_nodes_inventory": str(tmp_path), "local_nodes": machines}
    run(local, "local_nodes", "-e", json.dumps(settings))
    try:
        for node in nodes.values():
            power.off(node)
        yield read(str(tmp_path))
    finally:
        run(local, "local_nodes_destroy", "-e", json.dumps(settings))


@pytest.mark.scenario("life")
@pytest.mark.needs("kubernetes_control", "sample")
def test_a_site_goes_on_with_other_machines(keys: Keys, plan: Plan, cluster: Cluster, request: pytest.FixtureRequest, tell: Tell) -> None:
    name = random_name("kept")
    for kind, content in (("ConfigMap", {"data": {"word": name}}), ("Secret", {"stringData": {"word": name}})):
        cluster.create({"apiVersion": "v1", "kind": kind, "metadata": {"name": name}, **content}, "default")
    keys.written(plan)
    there: Plan = request.getfixturevalue("elsewhere")
    began = time.monotonic()
    run(there, *keys.restore)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    for machine in there.machines.values():
        url = f"http://{machine.address}:{plan.option('sample', 'sample_node_port')}/"
        until(f"the sample answers on {machine.name}", lambda url=url: plan.site in opener.open(url, timeout=5).read().decode())
    tell(judged("from the backup to the sample that answers on other machines", time.monotonic() - began, 90))
    restored = Cluster.of(there.credentials / "admin.kubeconfig", there.site, there.on("kubernetes_control"))
    assert restored.get(f"/api/v1/namespaces/default/configmaps/{name}")["data"] == {"word": name}
    assert restored.get(f"/api/v1/namespaces/default/secrets/{name}")["data"]["word"] == secret_text(name), "what is encrypted is read"
    assert {node["metadata"]["name"] for node in restored.items("/api/v1/nodes")} == set(there.machines), "nodes that there are no more are forgotten"
    assert changes(site_yml(there)) == {"0"}


@pytest.mark.needs("etcd")
def test_a_site_that_is_stopped_runs_nothing_and_starts_again(plan: Plan, every: list[Node], key_value: KeyValueStore, key: str) -> None:
    key_value.put(key_value.members[0], key, "kept")
    before = dict(zip((node.name for node in every), at_once(lambda node: set(node.run(RUNNING).split()), every)))
    try:
        run(plan, "stop")
        for node, left in zip(every, at_once(lambda node: set(node.run(RUNNING).split()), every)):
            assert not [unit for unit in left if unit.startswith(("etcd", "consul", "kube"))], node.name
            assert "ashlar-firewall.service" in left, "a machine that is stopped is still shut"
    finally:
        run(plan, "start")
    for node, now in zip(every, at_once(lambda node: set(node.run(RUNNING).split()), every)):
        assert before[node.name] <= now, f"{node.name} no longer runs {before[node.name] - now}"
    assert key_value.get(key_value.members[-1], key) == ["kept"]
    assert changes(run(plan, "start")) == {"0"}


# What a machine knows of Ashlar, by the words that are in what it lays down.
TRACES = r"""
find /etc /opt /usr/local /var/lib /var/log /run -xdev \( -path /var/log/journal -o -path /var/lib/dpkg -o -path /var/lib/apt \) -prune -o -print \
  | grep -iE "ashlar|etcd|consul|kube"
systemctl list-units --all --plain --no-legend | cut -d' ' -f1 | grep -E "ashlar|etcd|consul|kube"
getent passwd | grep -E "^(etcd|consul|kube)"
getent group | grep -E "^(etcd|consul|kube)"
nft list tables 2>/dev/null
mount | grep -E "ashlar|kube"
true
"""


@pytest.mark.needs("etcd")
def test_a_machine_that_was_reset_has_nothing_left_and_is_installed_again(plan: Plan, every: list[Node], key_value: KeyValueStore) -> None:
    assert all(len(found.splitlines()) > 20 for found in at_once(lambda node: node.run(TRACES), every)), "there is something to take away"
    run(plan, "reset", "-e", f"reset={plan.site}")
    assert at_once(lambda node: node.run(TRACES), every) == [""] * len(every)
    site_yml(plan)
    for node in key_value.members:
        until(f"{node.name} has all members", lambda node=node: key_value.voters(node) == {member.name for member in key_value.members})
