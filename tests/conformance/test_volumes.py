# SPDX-License-Identifier: Apache-2.0
"""Volumes follow their pods, have one writer at a time and a size, are copied and grow, and leave nothing behind."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from .support.cluster import ApiError, Cluster, Workload, pod_template, random_name
from .support.figures import Tell
from .support.nodes import Node
from .support.plan import Plan
from .support.power import Power, reachable
from .support.waiting import until

pytestmark = [pytest.mark.needs("ceph_volumes"), pytest.mark.needs("kubernetes_control"), pytest.mark.scenario("volumes")]

MIB = 1 << 20
SNAPSHOTS = "/apis/snapshot.storage.k8s.io/v1/namespaces/{namespace}/volumesnapshots"
# Each line is on the disk before it is told: what was told may not be lost.
WRITER = 'n=0; while n=$((n + 1)); do echo "$n $NODE" >>/data/log && sync -d /data/log && echo "$n"; sleep 0.1; done'


@dataclass
class Volumes:
    """Claims and pods in the workload's namespace. All that was made is removed at the end."""

    cluster: Cluster
    workload: Workload
    made: list[str] = field(default_factory=list)

    @property
    def namespace(self) -> str:
        return self.workload.namespace

    def path(self, kind: str, name: str = "") -> str:
        folders = {"pods": "/api/v1", "persistentvolumeclaims": "/api/v1"}
        return f"{folders[kind]}/namespaces/{self.namespace}/{kind}" + (f"/{name}" if name else "")

    def claim(self, mib: int = 64, mode: str = "ReadWriteOnce", source: dict[str, str] | None = None) -> str:
        name = random_name("volume")
        spec: dict[str, Any] = {"accessModes": [mode], "resources": {"requests": {"storage": f"{mib}Mi"}}}
        if source:
            spec["dataSource"] = source
        body = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name}, "spec": spec}
        self.cluster.request("POST", self.path("persistentvolumeclaims"), body)
        self.made.append(self.path("persistentvolumeclaims", name))
        return name

    def found(self, claim: str) -> dict[str, Any]:
        return dict(self.cluster.get(self.path("persistentvolumeclaims", claim)))

    def volume(self, claim: str) -> dict[str, Any]:
        """The volume of a claim, once there is one."""
        found = until(f"{claim} has a volume", lambda: [one for one in [self.found(claim)] if one["status"].get("phase") == "Bound"])
        return dict(self.cluster.get(f"/api/v1/persistentvolumes/{found[0]['spec']['volumeName']}"))

    def pod(self, claim: str, node: str = "", command: str = "sleep 100000", ready: bool = True) -> str:
        """A pod with the claim at /data."""
        name = random_name("user")
        body = pod_template(name, self.workload.image)
        spec = body["spec"]
        [container] = spec["containers"]
        spec["securityContext"]["fsGroup"] = 65534
        container["command"] = ["sh", "-c", command]
        container["volumeMounts"] = [{"name": "data", "mountPath": "/data"}]
        del container["readinessProbe"]
        spec["volumes"] = [{"name": "data", "persistentVolumeClaim": {"claimName": claim}}]
        if node:
            spec["nodeSelector"] = {"kubernetes.io/hostname": node}
        body |= {"apiVersion": "v1", "kind": "Pod"}
        body["metadata"]["name"] = name
        self.cluster.create(body, self.namespace)
        self.made.append(self.path("pods", name))
        if ready:
            until(f"{name} runs", lambda: self.phase(name) == "Running")
        return name

    def phase(self, pod: str) -> str:
        return str(self.cluster.get(self.path("pods", pod))["status"]["phase"])

    def run(self, pod: str, command: str) -> str:
        return self.cluster.shell(self.namespace, pod, command)

    def remove(self, path: str, grace_seconds: int | None = 1) -> None:
        self.cluster.delete(path, grace_seconds)
        until(f"{path} is gone", lambda: not self.there(path))

    def there(self, path: str) -> bool:
        try:
            self.cluster.get(path)
        except ApiError as error:
            if error.status == 404:
                return False
            raise
        return True


@pytest.fixture
def volumes(cluster: Cluster, workload: Workload) -> Iterator[Volumes]:
    made = Volumes(cluster, workload)
    yield made
    for path in reversed(made.made):
        made.remove(path)


@pytest.fixture(scope="module")
def subvolumes(plan: Plan, nodes: dict[str, Node]) -> Any:
    """Names of what Ceph keeps for volumes."""
    node, filesystem = nodes[plan.on("ceph_mon")[0]], plan.option("ceph_mds", "ceph_mds_filesystem")
    return lambda: {item["name"] for item in json.loads(node.run(f"ceph fs subvolume ls {filesystem} --group_name kubernetes --format json"))}


def test_a_claim_without_a_class_gets_a_volume_that_is_as_large_as_asked(volumes: Volumes) -> None:
    claim = volumes.claim(64)
    pod = volumes.pod(claim)
    volumes.run(pod, "dd if=/dev/zero of=/data/some bs=1M count=32 && sync")
    code, said = volumes.cluster.execute(volumes.namespace, pod, "dd if=/dev/zero of=/data/more bs=1M count=96 && sync")
    assert code != 0 and ("No space left" in said or "quota exceeded" in said), said
    volumes.run(pod, "rm /data/more && echo smaller >/data/some")
    size = volumes.run(pod, "df -k /data | tail -n 1").split()
    assert int(size[1]) * 1024 == 64 * MIB, "programs see the size of the volume, not of the disk"


def test_data_follows_its_pod_to_another_node(volumes: Volumes, plan: Plan) -> None:
    first, second, *_ = plan.on("ceph_volumes_node")
    claim = volumes.claim()
    pod = volumes.pod(claim, first)
    volumes.run(pod, "echo mine >/data/word && sync")
    volumes.remove(volumes.path("pods", pod))
    assert volumes.run(volumes.pod(claim, second), "cat /data/word").strip() == "mine"


def test_a_volume_has_one_node_at_a_time_unless_it_is_shared(volumes: Volumes, plan: Plan) -> None:
    first, second, *rest = plan.on("ceph_volumes_node")
    own = volumes.claim()
    volumes.pod(own, first)
    waiting = volumes.pod(own, second, ready=False)

    def refused() -> bool:
        events = volumes.cluster.items(f"/api/v1/namespaces/{volumes.namespace}/events?fieldSelector=involvedObject.name={waiting}")
        return any("Multi-Attach" in event["message"] or "is used by" in event["message"] for event in events)

    until("the second pod is told why it waits", refused)
    assert volumes.phase(waiting) == "Pending"

    shared = volumes.claim(mode="ReadWriteMany")
    pods = [volumes.pod(shared, node) for node in (first, second, *rest)]
    for pod in pods:
        volumes.run(pod, f"echo {pod} >/data/{pod} && sync")
    for pod in pods:
        until(f"{pod} sees what all have written", lambda pod=pod: set(volumes.run(pod, "ls /data").split()) >= set(pods))


def test_a_volume_grows_while_it_is_written(volumes: Volumes) -> None:
    claim = volumes.claim(32)
    pod = volumes.pod(claim)
    volumes.run(pod, "dd if=/dev/urandom of=/data/some bs=1M count=16 && sync && sha256sum /data/some >/data/sum")
    volumes.cluster.patch(volumes.path("persistentvolumeclaims", claim), {"spec": {"resources": {"requests": {"storage": "128Mi"}}}})
    until("the claim has its new size", lambda: volumes.found(claim)["status"]["capacity"]["storage"] == "128Mi")
    volumes.run(pod, "dd if=/dev/zero of=/data/more bs=1M count=80 && sync && sha256sum -c /data/sum")


def test_snapshots_and_copies_have_what_was_there(volumes: Volumes) -> None:
    claim = volumes.claim()
    pod = volumes.pod(claim)
    volumes.run(pod, "echo before >/data/word && sync")
    name, folder = random_name("snapshot"), SNAPSHOTS.format(namespace=volumes.namespace)
    source = {"persistentVolumeClaimName": claim}
    body = {"apiVersion": "snapshot.storage.k8s.io/v1", "kind": "VolumeSnapshot", "metadata": {"name": name}, "spec": {"source": source}}
    volumes.cluster.request("POST", folder, body)
    volumes.made.append(f"{folder}/{name}")
    until("the snapshot is there", lambda: volumes.cluster.get(f"{folder}/{name}").get("status", {}).get("readyToUse"))
    volumes.run(pod, "echo after >/data/word && sync")

    restored = volumes.claim(source={"apiGroup": "snapshot.storage.k8s.io", "kind": "VolumeSnapshot", "name": name})
    assert volumes.run(volumes.pod(restored), "cat /data/word").strip() == "before"
    copied = volumes.claim(source={"kind": "PersistentVolumeClaim", "name": claim})
    assert volumes.run(volumes.pod(copied), "cat /data/word").strip() == "after"


def test_volumes_that_are_deleted_leave_nothing_in_ceph(volumes: Volumes, subvolumes: Any) -> None:
    before = subvolumes()
    claims = [volumes.claim(16) for _ in range(20)]
    names = [volumes.volume(claim)["spec"]["csi"]["volumeHandle"] for claim in claims]
    assert len(subvolumes() - before) == len(set(names)) == len(claims)
    for claim in claims:
        volumes.cluster.delete(volumes.path("persistentvolumeclaims", claim))
    until("nothing is left of them", lambda: subvolumes() <= before)


def test_keys_of_volumes_go_with_their_pods_and_open_nothing_else(volumes: Volumes, plan: Plan, nodes: dict[str, Node]) -> None:
    node = nodes[plan.on("ceph_volumes_node")[0]]
    administrator = nodes[plan.on("ceph_mon")[0]]

    def entities() -> set[str]:
        return {item["entity"] for item in json.loads(administrator.run("ceph auth ls --format json"))["auth_dump"]}

    before = entities()
    pods = [volumes.pod(volumes.claim(), node.name) for _ in range(2)]
    for pod in pods:
        volumes.run(pod, "echo mine >/data/word && sync")
    made = sorted(entities() - before)
    assert len(made) == 2, "a key a volume and node"
    caps = [json.loads(administrator.run(f"ceph auth get '{entity}' --format json"))[0]["caps"] for entity in made]
    assert all("path=" in one["mds"] and "namespace=" in one["osd"] for one in caps) and caps[0] != caps[1], caps
    for pod in pods:
        volumes.remove(volumes.path("pods", pod))
    until("the keys are gone", lambda: entities() <= before)


@dataclass
class Told:
    """What a writer in a pod has told to be on its volume."""

    last: int = 0

    def read(self, cluster: Cluster, namespace: str, pod: str) -> int:
        lines = [line for line in str(cluster.request("GET", f"/api/v1/namespaces/{namespace}/pods/{pod}/log?tailLines=3")).split() if line.isdigit()]
        self.last = max([self.last, *map(int, lines)])
        return self.last


def moved(volumes: Volumes, claim: str, pod: str, away: Node, told: Told) -> tuple[str, float]:
    """A pod in place of one whose node is gone for Kubernetes, and after how many seconds it has its volume."""
    began = time.monotonic()
    until(f"{away.name} is known to be gone", lambda: away.name not in volumes.cluster.ready_nodes())
    # It is what an operator says of a machine that will not come back by itself: from then on its volumes may go elsewhere.
    taint = [{"key": "node.kubernetes.io/out-of-service", "value": "nodeshutdown", "effect": "NoExecute"}]
    spec = volumes.cluster.get(f"/api/v1/nodes/{away.name}")["spec"]
    volumes.cluster.patch(f"/api/v1/nodes/{away.name}", {"spec": {"taints": [*spec.get("taints", []), *taint]}})
    # An API server may still wait for the member of etcd that is cut off, and answer with an error.
    until("the pod is deleted", lambda: volumes.cluster.delete(volumes.path("pods", pod), 0) or True)
    second = until("another pod takes its place", lambda: volumes.pod(claim, command=WRITER, ready=False))
    until("the new pod has written", lambda: told.read(volumes.cluster, volumes.namespace, second) > 0)
    return second, time.monotonic() - began


def back(volumes: Volumes, node: Node) -> None:
    """The node is in service again, without the taint."""
    until(f"{node.name} is ready again", lambda: node.name in volumes.cluster.ready_nodes())
    taints = volumes.cluster.get(f"/api/v1/nodes/{node.name}")["spec"].get("taints", [])
    volumes.cluster.patch(f"/api/v1/nodes/{node.name}", {"spec": {"taints": [each for each in taints if "out-of-service" not in each["key"]]}})


@contextmanager
def off(node: Node, power: Power) -> Iterator[None]:
    power.off(node)
    try:
        yield
    finally:
        power.on(node)
        until(f"{node.name} answers by SSH", lambda: reachable(node))


@contextmanager
def cut_off(node: Node, power: Power) -> Iterator[None]:
    """All goes on running there, and nothing but SSH comes in or goes out."""
    rules = "; ".join(f"add chain inet cut {way} {{ type filter hook {way} priority -300; policy drop; }}" for way in ("input", "output"))
    allowed = "add rule inet cut input iif lo accept; add rule inet cut output oif lo accept"
    ssh = "add rule inet cut input tcp dport 22 accept; add rule inet cut output tcp sport 22 accept"
    node.run(f"nft 'add table inet cut; {rules}; {allowed}; {ssh}'")
    try:
        yield
    finally:
        node.run("nft delete table inet cut")


@pytest.mark.disruptive
@pytest.mark.parametrize("gone", [off, cut_off], ids=["powered off", "cut off from the network"])
def test_a_writer_goes_on_elsewhere_and_alone(
    gone: Callable[[Node, Power], AbstractContextManager[None]], volumes: Volumes, plan: Plan, nodes: dict[str, Node], power: Power, tell: Tell
) -> None:
    node = nodes[plan.on("ceph_volumes_node")[-1]]
    claim, told = volumes.claim(), Told()
    first = volumes.pod(claim, node.name, command=WRITER)
    until("it has written", lambda: told.read(volumes.cluster, volumes.namespace, first) > 20)
    try:
        with gone(node, power):
            last = told.last
            second, seconds = moved(volumes, claim, first, node, Told())
    finally:
        back(volumes, node)
    tell(f"a volume is written elsewhere {seconds:.1f} s after its node was gone")
    lines = [line.split() for line in volumes.run(second, "cat /data/log").splitlines()]
    writers = [writer for _, writer in lines]
    old = [int(number) for number, writer in lines if writer == node.name]
    assert old == list(range(1, len(old) + 1)) and len(old) >= last, "what was told to be written is there"
    assert writers == sorted(writers, key=lambda writer: writer != node.name), "the first one wrote nothing after the second had begun"
