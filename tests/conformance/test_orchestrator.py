# SPDX-License-Identifier: Apache-2.0
"""An orchestrator runs what it is asked to, spreads it, replaces what is lost, and shows it to its operator."""

from __future__ import annotations

import base64
import datetime
import ipaddress
import json
import shlex
import time
import urllib.request
from collections.abc import Iterator

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from .support.cluster import Cluster, Object, Workload, condition, pod_template, random_name
from .support.nodes import Node
from .support.plan import Plan
from .support.sample import placed_anew
from .support.waiting import PATIENCE, at_once, until

pytestmark = [pytest.mark.needs("orchestrator"), pytest.mark.needs("kubernetes_control")]
KUBECTL = "/opt/ashlar/kubernetes/current/kubectl"


def test_every_node_is_ready_and_of_the_plan_s_version(cluster: Cluster, plan: Plan) -> None:
    found = {node["metadata"]["name"]: node for node in cluster.items("/api/v1/nodes")}
    assert set(found) == set(plan.on("kubernetes_node"))
    for name, node in found.items():
        assert condition(node, "Ready") == "True", name
        assert node["status"]["nodeInfo"]["kubeletVersion"] == f"v{plan.versions['kubernetes'].split('+')[0]}"
        addresses = {item["type"]: item["address"] for item in node["status"]["addresses"]}
        assert addresses["InternalIP"] == plan.machines[name].address
        for pressure in ("MemoryPressure", "DiskPressure", "PIDPressure"):
            assert condition(node, pressure) == "False", (name, pressure)


def test_every_control_node_serves_the_api(cluster: Cluster, plan: Plan) -> None:
    for node in plan.on("kubernetes_control"):
        assert cluster.ask(node, "GET", "/readyz")[1] == "ok", node
    slices = cluster.items("/apis/discovery.k8s.io/v1/namespaces/default/endpointslices?labelSelector=kubernetes.io/service-name=kubernetes")
    addresses = {address for one in slices for endpoint in one["endpoints"] for address in endpoint["addresses"]}
    assert addresses == {plan.machines[node].address for node in plan.on("kubernetes_control")}


@pytest.mark.needs("api_balancer")
def test_every_node_reaches_the_api_by_its_own_balancer(every: list[Node]) -> None:
    for node, reply in zip(every, at_once(lambda node: node.https("https://127.0.0.1:6443/readyz", "kubernetes"), every), strict=True):
        assert (reply.status, reply.body) == (200, "ok"), (node.name, reply)


def test_controllers_and_schedulers_have_a_leader_who_is_alive(cluster: Cluster) -> None:
    for name in ("kube-controller-manager", "kube-scheduler"):
        lease = cluster.get(f"/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/{name}")["spec"]
        renewed = datetime.datetime.fromisoformat(lease["renewTime"].replace("Z", "+00:00"))
        age = (datetime.datetime.now(datetime.timezone.utc) - renewed).total_seconds()
        assert age < lease["leaseDurationSeconds"] + 5, f"{name}: {lease}"


@pytest.fixture
def spread(workload: Workload, plan: Plan) -> Iterator[str]:
    """A Deployment of one web server a worker, told to spread evenly."""
    constraint = {
        "maxSkew": 1,
        "topologyKey": "kubernetes.io/hostname",
        "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {"matchLabels": {"app": "spread"}},
    }
    workload.deployment("spread", len(plan.on("kubernetes_node")), topologySpreadConstraints=[constraint])
    yield "spread"
    workload.remove("spread")


def test_a_deployment_spreads_and_replaces_a_killed_pod(workload: Workload, spread: str, plan: Plan) -> None:
    nodes = plan.on("kubernetes_node")
    pods = workload.running(spread, len(nodes))
    assert {pod["spec"]["nodeName"] for pod in pods} == set(nodes)
    killed = pods[0]["metadata"]["name"]
    workload.cluster.delete(workload.path("Pod", killed), 0)
    after = workload.running(spread, len(nodes))
    assert killed not in {pod["metadata"]["name"] for pod in after}
    assert {pod["spec"]["nodeName"] for pod in after} == set(nodes)


def test_a_container_that_dies_is_started_again(workload: Workload, spread: str, plan: Plan, nodes: dict[str, Node]) -> None:
    """Its process is killed on the node, as a crash does."""
    [pod, *_] = workload.running(spread, len(plan.on("kubernetes_node")))
    [status] = pod["status"]["containerStatuses"]
    node = nodes[pod["spec"]["nodeName"]]
    node.run(f"/opt/ashlar/crictl/current/crictl stop --timeout 0 {status['containerID'].removeprefix('containerd://')}")

    def again() -> bool:
        now = workload.cluster.get(workload.path("Pod", pod["metadata"]["name"]))
        return now["status"]["containerStatuses"][0]["restartCount"] == status["restartCount"] + 1 and condition(now, "Ready") == "True"

    until("the container was started again in the same pod", again)


def test_an_update_rolls_without_a_refused_request(workload: Workload, spread: str, plan: Plan) -> None:
    count = len(plan.on("kubernetes_node"))
    before = {pod["metadata"]["name"] for pod in workload.running(spread, count)}
    drain = {"spec": {"template": {"metadata": {"annotations": {"conformance": "rolled"}}}}}
    path = workload.path("Deployment", spread)
    address = workload.cluster.get(workload.path("Service", spread))["spec"]["clusterIP"]
    asker = next(iter(workload.pods))
    until("the Service answers", lambda: workload.execute(asker, f"wget -q -T 5 -O - http://{address}/")[0] == 0)
    workload.cluster.patch(path, drain)

    def rolled() -> bool:
        status = workload.cluster.get(path)["status"]
        names = {pod["metadata"]["name"] for pod in workload.cluster.pods(workload.namespace, f"app={spread}")}
        return status.get("updatedReplicas") == count and status.get("availableReplicas") == count and not names & before

    good, start = 0, time.monotonic()
    while not rolled():
        assert time.monotonic() - start < PATIENCE, f"waited {PATIENCE} s in vain until the update had rolled out"
        # A pod that ends may refuse in the moment before every node knows: a client asks once more, and one more answers.
        out = workload.shell(
            asker, f"for i in 1 2 3 4 5; do wget -q -T 5 -O - http://{address}/ || wget -q -T 5 -O - http://{address}/ || echo lost; done"
        ).split()
        assert "lost" not in out
        good += len(out)
    assert good >= 5


def test_configuration_and_secrets_reach_a_pod(workload: Workload) -> None:
    cluster, namespace = workload.cluster, workload.namespace
    cluster.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "given"}, "data": {"word": "plain"}}, namespace)
    cluster.create({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "given"}, "stringData": {"word": "hidden"}}, namespace)
    template = pod_template("reader", workload.image)
    container = template["spec"]["containers"][0]
    container["command"] = ["sh", "-c", 'echo "$(cat /config/word) $(cat /secret/word) $(wc -c < /var/run/secrets/kubernetes.io/serviceaccount/token)"']
    del container["readinessProbe"]
    container["volumeMounts"] = [{"name": "config", "mountPath": "/config"}, {"name": "secret", "mountPath": "/secret"}]
    template["spec"]["volumes"] = [{"name": "config", "configMap": {"name": "given"}}, {"name": "secret", "secret": {"secretName": "given"}}]
    template["spec"]["restartPolicy"] = "Never"
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "reader"}, "spec": {"backoffLimit": 0, "template": template}}
    cluster.create(job, namespace)
    until("the Job has succeeded", lambda: cluster.get(workload.path("Job", "reader"))["status"].get("succeeded") == 1)
    [pod] = cluster.pods(namespace, "app=reader")
    plain, hidden, token = str(cluster.get(workload.path("Pod", pod["metadata"]["name"]) + "/log")).split()
    assert (plain, hidden) == ("plain", "hidden")
    assert int(token) > 500


def test_the_operator_sees_logs_and_runs_commands_on_every_node(workload: Workload, nodes: dict[str, Node], plan: Plan) -> None:
    """Both go from the API server to each kubelet, over a serving certificate that it checks."""
    for name, pod in workload.pods.items():
        assert workload.shell(name, "echo $NODE").strip() == name
        status, _ = workload.cluster.ask(next(iter(workload.cluster.contexts)), "GET", workload.path("Pod", pod["metadata"]["name"]) + "/log")
        assert status == 200, name


REQUESTS = "/apis/certificates.k8s.io/v1/certificatesigningrequests"


def certificate_request(name: str, node: Node) -> Object:
    """A request as a kubelet makes it for its serving certificate."""
    subject = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, "system:nodes"), x509.NameAttribute(NameOID.COMMON_NAME, f"system:node:{node.name}")]
    names = [x509.DNSName(node.name), x509.IPAddress(ipaddress.ip_address(node.address))]
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name(subject)).add_extension(x509.SubjectAlternativeName(names), critical=False)
    made = builder.sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    usages = ["digital signature", "server auth"]
    spec = {"request": base64.b64encode(made).decode(), "signerName": "kubernetes.io/kubelet-serving", "usages": usages}
    return {"apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest", "metadata": {"name": name}, "spec": spec}


def test_no_certificate_request_of_a_kubelet_waits(cluster: Cluster, plan: Plan, nodes: dict[str, Node]) -> None:
    """Each node makes one: the API forgets signed requests after an hour, and then nothing would be left to look at."""
    names = {node: random_name(f"conformance-{node}") for node in plan.on("kubernetes_node")}
    kubectl = f"{KUBECTL} --kubeconfig /etc/kubernetes/node/kubelet.kubeconfig create --raw {REQUESTS} --filename -"

    def waiting() -> list[str]:
        requests = {one["metadata"]["name"]: one for one in cluster.items(REQUESTS)}
        assert set(names.values()) <= set(requests), "the requests that were made are not there"
        return [name for name, one in requests.items() if not one.get("status", {}).get("certificate")]

    try:
        for node, name in names.items():
            nodes[node].run(f"echo {shlex.quote(json.dumps(certificate_request(name, nodes[node])))} | {kubectl}")
        until("all certificate requests are signed", lambda: not waiting())
    finally:
        for name in names.values():
            cluster.delete(f"{REQUESTS}/{name}")


def test_pods_reach_the_api_by_its_service(workload: Workload, plan: Plan) -> None:
    for name in workload.pods:
        code, out = workload.execute(name, "nc -w 4 kubernetes.default 443 < /dev/null")
        assert code == 0, f"from the pod on {name}: {out}"


def test_nodes_have_roles_topology_and_the_labels_of_the_site(cluster: Cluster, plan: Plan) -> None:
    """And those that are no workers repel applications."""
    roles = {"control": "control-plane", "worker": "worker", "edge": "edge", "storage": "storage"}
    found = cluster.items("/api/v1/nodes")
    assert {node["metadata"]["name"] for node in found} == set(plan.on("kubernetes_node"))
    for node in found:
        name, labels = node["metadata"]["name"], node["metadata"]["labels"]
        site = plan.shared["site_nodes"][name]
        wanted = {roles[one] for one in site["classes"]}
        assert {label.partition("/")[2] for label in labels if label.startswith("node-role.kubernetes.io/")} == wanted, name
        assert labels.get("topology.kubernetes.io/zone", "") == site["zone"], name
        assert labels.get("topology.kubernetes.io/region", "") == site["region"], name
        assert site["labels"].items() <= labels.items(), name
        taints = {taint["key"] for taint in node["spec"].get("taints") or [] if taint["effect"] == "NoSchedule"}
        assert taints == (set() if "worker" in site["classes"] else {f"node-role.kubernetes.io/{role}" for role in wanted}), name


@pytest.mark.needs("sample")
def test_the_sample_answers_through_every_node(plan: Plan, every: list[Node]) -> None:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    for node in every:
        url = f"http://{node.address}:{plan.option('sample', 'sample_node_port')}/"
        with opener.open(url, timeout=5) as answer:
            assert plan.site in answer.read().decode(), url


@pytest.mark.needs("sample")
def test_the_sample_is_spread_and_keeps_all_but_one_replica_in_a_drain(cluster: Cluster, plan: Plan) -> None:
    replicas = sum(placed_anew(cluster, plan).values())
    assert replicas == plan.option("sample", "sample_replicas")

    def budget() -> tuple[int, int]:
        status = cluster.get("/apis/policy/v1/namespaces/sample/poddisruptionbudgets/hello")["status"]
        return status["currentHealthy"], status["desiredHealthy"]

    until("a drain may take one replica at a time", lambda: budget() == (replicas, replicas - 1))
