# SPDX-License-Identifier: Apache-2.0
"""A site goes to other versions while it is used, and nobody notices. The tests go on from one another, in this order, as an operator would."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from .support.clients import Clients
from .support.cluster import Cluster
from .support.figures import Tell, brief, judged
from .support.key_value import KeyValueStore
from .support.nodes import Node
from .support.plan import ROOT, Plan, read
from .support.site import changes, killed, moment, playbook, run, site_file, words
from .support.waiting import at_once
from .support.writer import Writer

pytestmark = [pytest.mark.disruptive, pytest.mark.scenario("etcd", "life")]

VERSIONS = "readlink -f /opt/ashlar/*/current"
# A unit that starts with any version but one, of which it says what systemd says of a damaged program.
REFUSES = r"""
mkdir /etc/systemd/system/{unit}.d
cat >/etc/systemd/system/{unit}.d/refuses.conf <<'EOF'
[Service]
ExecStartPre=+/bin/sh -c "! grep -q {path} /etc/systemd/system/{unit} || {{ echo 'Failed to execute {path}: Exec format error'; exit 1; }}"
EOF
systemctl daemon-reload
"""

# What is installed lies on a disk with 2 MiB left. Programs that run keep theirs.
FULL = """
mkdir /run/full
mount -t tmpfs -o size=$(($(du -sk /opt/ashlar | cut -f1) + 2048))k tmpfs /run/full
cp -a /opt/ashlar/. /run/full
mount --bind /run/full /opt/ashlar
"""


@dataclass(frozen=True)
class Change:
    """What the site file names now: artifact -> versions before and after."""

    artifacts: dict[str, dict[str, str]]


@pytest.fixture(scope="module")
def change(plan: Plan) -> Iterator[Change]:
    """The site file without versions of its own; of a site that has none, with the next release.

    A scenario's file is the checkout's, and as it was afterwards. Another site keeps the file that says what it has now.
    """
    file = site_file(plan)
    text = file.read_text()
    content = yaml.safe_load(text)
    if content.pop("versions", None) is None:
        later = sorted(path.stem for path in (ROOT / "releases").glob("*.yml") if path.stem > content["release"])
        if brief() or not later:
            pytest.skip("the site has the versions of its release" if later else "the site has the newest release")
        content["release"] = later[0]
    file.write_text(yaml.safe_dump(content, sort_keys=False))
    artifacts = read(str(plan.inventory)).shared["site_upgrade"]["artifacts"]
    if not artifacts:
        file.write_text(text)
        pytest.skip("the next release changes nothing that the site has")
    yield Change(artifacts)
    if plan.site.startswith("mol-"):
        file.write_text(text)


def current(nodes: list[Node]) -> dict[str, str]:
    """Node -> the versions in use there."""
    return dict(zip([node.name for node in nodes], at_once(lambda node: node.run(VERSIONS), nodes), strict=True))


def test_a_run_of_the_whole_site_refuses_other_versions(change: Change, plan: Plan, every: list[Node]) -> None:
    before = current(every)
    code, said = playbook(plan, "site")
    assert code == 2 and "Here everything would restart at once. Run: ansible-playbook" in words(said)
    assert current(every) == before


def test_check_mode_shows_the_plan_and_changes_nothing(change: Change, plan: Plan, every: list[Node]) -> None:
    before = current(every)
    said = run(plan, "upgrade", "--check")
    for artifact, versions in change.artifacts.items():
        assert f"{artifact} {versions['from']} -> {versions['to']}" in said
    assert changes(said) == {"0"} and current(every) == before


def test_a_full_disk_ends_it_before_anything_is_changed(change: Change, plan: Plan, every: list[Node]) -> None:
    before, node = current(every), every[-1]
    node.run(FULL)
    try:
        code, said = playbook(plan, "upgrade")
    finally:
        node.run("umount -l /opt/ashlar /run/full; rmdir /run/full")
    print(said[-1500:])
    assert code == 2 and node.name in words(said) and "MiB free; artifacts need" in words(said), said[-3000:]
    assert current(every) == before


@pytest.mark.needs("etcd")
def test_a_version_that_does_not_start_goes_back_and_nothing_is_lost(
    change: Change, plan: Plan, nodes: dict[str, Node], key_value: KeyValueStore, key: str
) -> None:
    if "etcd" not in change.artifacts:
        pytest.skip("etcd keeps its version")
    versions = change.artifacts["etcd"]
    member = nodes[plan.on("etcd")[1]]
    member.run(REFUSES.format(unit="etcd.service", path=f"/opt/ashlar/etcd/{versions['to']}/etcd"))
    writer = Writer(key_value, key)
    try:
        code, said = writer.during(lambda: playbook(plan, "upgrade"))
    finally:
        member.run("rm -r /etc/systemd/system/etcd.service.d; systemctl daemon-reload")
    if backups := plan.shared["site_backup"]:
        assert list(Path(backups["to"]).glob(f"{plan.site}-*.tar.age")), "a backup was written first"
    assert code == 2 and f"{member.name} has its previous version: " in words(said) and "is damaged" in said, said[-3000:]
    assert f"/opt/ashlar/etcd/{versions['from']}/etcd" in member.run("systemctl show --property=ExecStart --value etcd.service")
    assert member.run("systemctl is-active etcd.service").strip() == "active"
    assert writer.lost(key_value.members[0]) == set()


def test_a_run_that_is_killed_goes_on_and_nobody_notices(
    change: Change, plan: Plan, every: list[Node], clients: Callable[[], Clients], tell: Tell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    after = moment(5, 60)
    using, took = clients(), 0.0
    timings = tmp_path / "timings.json"
    monkeypatch.setenv("ASHLAR_TIMINGS", str(timings))

    def upgraded() -> None:
        nonlocal took
        with killed(plan, after, "upgrade"):
            began = time.monotonic()
            run(plan, "upgrade")
            took = time.monotonic() - began

    using.during(upgraded)
    tell(judged(f"the upgrade of {len(every)} nodes that was killed after {after:.1f} s, and went on", took, 150))
    tasks = {name: host["host_tasks"] for name, host in json.loads(timings.read_text())["hosts"].items()}
    tell(f"the run that went on cost so many tasks: {tasks}")
    using.unnoticed(tell)
    for node, text in current(every).items():
        for artifact in change.artifacts.keys() & set(plan.machines[node].variables["node_artifacts"]):
            assert f"/opt/ashlar/{artifact}/{change.artifacts[artifact]['to']}" in text.splitlines(), f"{artifact} on {node}"


@pytest.mark.needs("kubernetes_node")
def test_every_node_is_in_service(change: Change, plan: Plan, cluster: Cluster) -> None:
    for node in plan.on("kubernetes_node"):
        assert not cluster.get(f"/api/v1/nodes/{node}")["spec"].get("unschedulable"), node


def test_a_second_upgrade_changes_nothing(change: Change, plan: Plan) -> None:
    said = run(plan, "upgrade")
    assert changes(said) == {"0"}, said[-3000:]
    recorded = json.loads((Path(plan.shared["site_directory"]) / "state" / "installed.json").read_text())["versions"]
    assert {name: recorded[name] for name in change.artifacts} == {name: versions["to"] for name, versions in change.artifacts.items()}
