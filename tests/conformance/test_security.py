# SPDX-License-Identifier: Apache-2.0
"""Nobody gets in without being known, nothing is open that no manifest names, and what is secret stays secret."""

from __future__ import annotations

import base64
import ipaddress
import re
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509

from .support import remote
from .support.cluster import Cluster, Workload, pod_template, random_name, secret_text, service
from .support.nodes import Node
from .support.orchestrator import Applications, Instance
from .support.plan import Plan, manifest
from .support.waiting import at_once, until

KUBECTL = "/opt/ashlar/kubernetes/current/kubectl"
# Leases of addresses: the firewall lets them in on every machine.
LEASES = {("udp", 68), ("udp", 546)}


def ports(port: int | str) -> range:
    first, _, last = str(port).partition("-")
    return range(int(first), int(last or first) + 1)


def named(node: Node) -> dict[str, set[int]]:
    """Protocol -> the ports of a node that its manifests name."""
    found: dict[str, set[int]] = {"tcp": set(), "udp": set()}
    for one in node.machine.ports:
        found.setdefault(one.get("protocol", "tcp"), set()).update(ports(one["port"]))
    return found


def listeners(node: Node) -> set[tuple[str, int]]:
    """(protocol, port) of everything on a node that other machines could address."""
    found = set()
    for line in node.run("ss --tcp --udp --listening --numeric --no-header").splitlines():
        protocol, _, _, _, local, *_ = line.split()
        address, _, port = local.rpartition(":")
        address = address.split("%")[0].strip("[]")
        if address != "*" and (ipaddress.ip_address(address).is_loopback or ipaddress.ip_address(address).is_link_local):
            continue
        found.add((protocol, int(port)))
    return found


@pytest.mark.needs("firewall")
def test_nothing_listens_that_no_manifest_names(every: list[Node]) -> None:
    for node, found in zip(every, at_once(listeners, every), strict=True):
        ssh = {("tcp", int(node.machine.variables.get("ansible_port", 22)))}
        allowed = {(protocol, port) for protocol, those in named(node).items() for port in those}
        assert found <= allowed | ssh | LEASES, f"{node.name}: {sorted(found - allowed - ssh - LEASES)} can be addressed and are in no manifest"


def free_port(node: Node) -> int:
    """A port of a node that nothing uses and no manifest names."""
    used = {port for _, port in listeners(node)} | named(node)["tcp"]
    return next(port for port in range(17999, 29999) if port not in used)


def open_from(applications: Applications, instance: Instance, address: str, tried: list[int]) -> set[int]:
    """The ports of an address that an instance of an application can connect to."""
    each = "; ".join(f"(nc -w 2 {address} {port} < /dev/null > /dev/null 2>&1 && echo {port}) &" for port in tried).replace("&;", "&")
    return {int(word) for word in applications.run_in(instance, f"{each} wait").split()}


@pytest.fixture
def open_listener(every: list[Node]) -> Iterator[tuple[Node, int]]:
    """A listener on a node, at a port that is in no manifest."""
    node = every[0]
    port, unit = free_port(node), random_name("ashlar-conformance")
    script = f"/run/{unit}.py"
    node.python("import json,sys; path, text = json.loads(sys.argv[1]); open(path, 'w').write(text); print(0)", script, remote.LISTEN)
    node.run(f"systemd-run --quiet --collect --unit={unit} python3 {script} 0.0.0.0 {port}")
    try:
        until(f"the listener answers on {node.name} itself", lambda: node.connects(node.address, port) == "open")
        yield node, port
    finally:
        node.run(f"systemctl stop {unit}.service; rm -f {script}")


@pytest.mark.needs("firewall")
def test_a_closed_port_is_closed_from_every_other_node(open_listener: tuple[Node, int], every: list[Node]) -> None:
    target, port = open_listener
    others = [node for node in every if node is not target]
    assert others, "one node alone can't show that another is kept out"
    found = at_once(lambda node: node.connects(target.address, port, 2), others)
    assert set(found) == {"silent"}, f"port {port} of {target.name}, which no manifest names: {found}"
    ssh = int(target.machine.variables.get("ansible_port", 22))
    assert {node.connects(target.address, ssh) for node in others} == {"open"}, "and yet nodes reach each other"


@pytest.mark.needs("firewall")
def test_a_closed_port_is_closed_from_pods(open_listener: tuple[Node, int], applications: Applications) -> None:
    target, port = open_listener
    instances = applications.everywhere()
    assert set(instances) == set(applications.nodes)
    for name, instance in instances.items():
        assert open_from(applications, instance, target.address, [port]) == set(), f"a pod on {name} reaches port {port} of {target.name}"


@pytest.mark.needs("firewall")
def test_what_a_manifest_names_is_open_to_whom_it_names(every: list[Node], plan: Plan) -> None:
    """Every TCP port that something listens on, from one other node of each component that it is for."""
    asked = 0
    by_name = {node.name: node for node in every}
    for target in every:
        heard = listeners(target)
        for port in target.machine.ports:
            if port.get("protocol", "tcp") != "tcp" or not isinstance(port["port"], int) or ("tcp", port["port"]) not in heard:
                continue
            sources = {
                name
                for group in port["from"]
                for name in (plan.on(group) if group not in ("nodes", "pods", "admin", "any") else by_name if group in ("nodes", "any") else [])
            }
            for source in sorted(sources - {target.name})[:1]:
                assert by_name[source].connects(target.address, port["port"]) == "open", f"{source} -> {target.name}: {port}"
                asked += 1
    assert asked, "no port was tried"


@pytest.mark.needs("firewall", "etcd")
def test_pods_reach_no_port_of_their_node_that_is_not_for_them(workload: Workload, nodes: dict[str, Node], plan: Plan) -> None:
    name = next(name for name in workload.pods if name in plan.on("etcd") and name in plan.on("kubernetes_control"))
    assert open_from(workload, workload.everywhere()[name], nodes[name].address, [6443, 2379, 2380, 10250]) == {6443}


@pytest.mark.needs("firewall", "etcd")
def test_pods_reach_no_port_of_other_nodes_that_is_not_for_them(workload: Workload, nodes: dict[str, Node], plan: Plan) -> None:
    """A pod that leaves the pod network takes its node's address on the way, and must not get that node's rights by it."""
    source, target, *_ = [name for name in workload.pods if name in plan.on("etcd") and name in plan.on("kubernetes_control")]
    assert open_from(workload, workload.everywhere()[source], nodes[target].address, [6443, 2379, 2380, 10250]) == {6443}


@pytest.mark.needs("kubernetes_control")
def test_the_api_knows_nobody_without_credentials(plan: Plan, every: list[Node]) -> None:
    asker = every[0]
    for endpoint in plan.endpoints["kubernetes_control"]["api"]:
        for path in (
            "api",
            "apis",
            "version",
            "metrics",
            "openapi/v2",
            "api/v1/nodes",
            "api/v1/secrets",
            "api/v1/namespaces/default/pods",
            "logs",
            "debug/pprof",
        ):
            reply = asker.https(f"https://{endpoint}/{path}", "kubernetes")
            assert reply.status in (401, 403), f"https://{endpoint}/{path} says {reply.status} to anybody: {reply}"
        for path in ("livez", "readyz", "healthz"):
            assert asker.https(f"https://{endpoint}/{path}", "kubernetes").status == 200, f"https://{endpoint}/{path}"


@pytest.mark.needs("kubernetes_control", "etcd")
def test_the_api_knows_nobody_by_a_certificate_of_another_authority(plan: Plan, nodes: dict[str, Node]) -> None:
    asker = nodes[plan.on("etcd")[0]]
    for endpoint in plan.endpoints["kubernetes_control"]["api"]:
        reply = asker.https(f"https://{endpoint}/api/v1/nodes", "kubernetes", "etcd/operator")
        assert reply.status in (0, 401), f"{endpoint}: {reply}"


@pytest.mark.needs("kubernetes_node", "kubernetes_control")
def test_kubelets_refuse_who_is_not_known(plan: Plan, nodes: dict[str, Node]) -> None:
    """The certificate they show is signed by the authority of kubelets: a self-signed one would end all of these with status 0."""
    asker = nodes[plan.on("kubernetes_control")[0]]
    for name in plan.on("kubernetes_node"):
        for path in ("pods", "metrics", "runningpods/", "exec/a/b/c", "logs/"):
            url = f"https://{plan.machines[name].address}:10250/{path}"
            reply = asker.https(url, "kubelet")
            assert reply.status == 401, f"{url} says {reply} to anybody"
            if "etcd" in plan.components:
                reply = asker.https(url, "kubelet", "etcd/operator")
                assert reply.status in (0, 401), f"{url} says {reply} to a certificate of another authority"
            reply = asker.https(url, "kubelet", "kubernetes_node/proxy")
            assert reply.status == 403, f"{url} says {reply} to one that is known and not permitted"
        known = asker.https(f"https://{plan.machines[name].address}:10250/pods", "kubelet", "kubernetes_control/kubelet_client")
        assert known.status == 200, known


@pytest.mark.needs("kubernetes_node", "kubernetes_control")
def test_controllers_and_schedulers_show_their_figures_to_nobody_unknown(plan: Plan, nodes: dict[str, Node]) -> None:
    for name in plan.on("kubernetes_control"):
        for port in (10257, 10259):
            reply = nodes[name].https(f"https://127.0.0.1:{port}/metrics", "kubernetes")
            assert reply.status in (401, 403), f"{name}: {port}: {reply.status}"


@pytest.mark.needs("kubernetes_node", "kubernetes_control")
def test_a_node_may_change_itself_and_no_other(plan: Plan, nodes: dict[str, Node], workload: Workload) -> None:
    own, other, *_ = plan.on("kubernetes_node")
    node = nodes[own]
    kubectl = f"{KUBECTL} --kubeconfig /etc/kubernetes/node/kubelet.kubeconfig --request-timeout 5s"

    def refused(command: str) -> str:
        answer = node.ask(f"{kubectl} {command}")
        assert answer.code != 0, f"{own} was let: kubectl {command}: {answer.out}"
        return answer.error

    try:
        node.run(f"{kubectl} annotate node {own} ashlar-conformance=here --overwrite")
        assert "orbidden" in refused(f"annotate node {other} ashlar-conformance=here")
        assert "not allowed to modify labels" in refused(f"label node {own} node-restriction.kubernetes.io/conformance=here")
        assert "orbidden" in refused("get secrets --all-namespaces")
        workload.cluster.create({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "elsewhere"}, "stringData": {"a": "b"}}, workload.namespace)
        assert "orbidden" in refused(f"get secret elsewhere --namespace {workload.namespace}")
        assert "orbidden" in refused(f"delete pod {workload.pods[other]['metadata']['name']} --namespace {workload.namespace}")
    finally:
        workload.cluster.patch(f"/api/v1/nodes/{own}", {"metadata": {"annotations": {"ashlar-conformance": None}}})


@pytest.fixture(scope="module")
def told(workload: Workload) -> tuple[str, str]:
    """(name, what it holds) of a Secret and of a ConfigMap that the API was given."""
    name, marker = random_name("told"), random_name("do-not-tell")
    workload.cluster.create({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": {"word": marker}}, workload.namespace)
    workload.cluster.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"word": marker}}, workload.namespace)
    return name, marker


@pytest.mark.needs("kubernetes_control", "etcd")
@pytest.mark.parametrize("kind", ["secrets", "configmaps"])
def test_secrets_are_encrypted_at_rest(told: tuple[str, str], workload: Workload, plan: Plan, nodes: dict[str, Node], kind: str) -> None:
    name, marker = told
    node = nodes[plan.on("etcd")[0]]
    command = f"/opt/ashlar/etcd/current/etcdctl get --print-value-only /registry/{kind}/{workload.namespace}/{name}"
    raw = node.run(f"set -a; . /etc/etcd/etcdctl.env; {command} | base64 -w0")
    stored = base64.b64decode(raw)
    assert stored.startswith(b"k8s:enc:secretbox:v1:"), stored[:40]
    assert marker.encode() not in stored
    assert secret_text(marker).encode() not in stored


@pytest.mark.needs("kubernetes_control")
def test_the_audit_log_tells_who_did_what_and_nothing_secret(told: tuple[str, str], workload: Workload, plan: Plan, nodes: dict[str, Node]) -> None:
    name, marker = told
    control = [nodes[node] for node in plan.on("kubernetes_control")]
    log = "/var/log/kubernetes/audit.log"

    def entries() -> int:
        entry = f'"resource":"secrets","namespace":"{workload.namespace}","name":"{name}"'
        return sum(int(node.run(f"grep -c '{entry}' {log} || true")) for node in control)

    workload.cluster.get(workload.path("Secret", name))
    until("the audit log has an entry of the Secret", entries)
    assert sum(int(node.run(f'grep -c \'"username":"administrator"\' {log} || true')) for node in control), "nobody's name is in the audit log"
    for node in control:
        for text in (marker, secret_text(marker)):
            assert node.run(f"grep -rc {text} /var/log/kubernetes/ | grep -v ':0$' || true") == "", f"{node.name}: what a Secret holds is in the audit log"
        assert node.run("stat -c %a /var/log/kubernetes").strip() == "700"
        assert int(node.run(f"stat -c %a {log}"), 8) & 0o077 == 0, f"{node.name}: {log} can be read by others"


def test_private_keys_are_for_their_owner_only(every: list[Node]) -> None:
    def modes(node: Node) -> list[str]:
        return node.run("find /etc/ashlar/pki -name '*.key' -printf '%m %p\\n'").splitlines()

    for node, lines in zip(every, at_once(modes, every), strict=True):
        assert lines, f"{node.name} has no key at all"
        assert [line for line in lines if not line.startswith("600 ")] == [], node.name


def test_keys_of_certificates_belong_to_whom_the_manifest_says(every: list[Node], plan: Plan) -> None:
    for node in every:
        assert node.machine.variables["node_certificates"], f"the plan has no certificate for {node.name}"
        for one in node.machine.variables["node_certificates"]:
            path = f"/etc/ashlar/pki/{one['component']}/{one['name']}.key"
            assert node.host.file(path).user == one.get("owner", "root"), f"{node.name}: {path}"


def test_the_key_of_an_authority_is_on_no_node_unless_a_manifest_says_so(every: list[Node], plan: Plan) -> None:
    signers = {
        f"{component}/{one['name']}" for component in plan.components for one in manifest(component).get("certificates") or [] if one.get("kind") == "signer"
    }
    for node in every:
        listing = node.run('cd /etc/ashlar/pki && find . -name \'*.crt\' | while read f; do [ -e "${f%.crt}.key" ] && echo "# ${f%.crt}" && cat $f; done; true')
        parts = listing.split("# ./")[1:]
        assert parts, f"{node.name} has no certificate with its key"
        for part in parts:
            name, _, pem = part.partition("\n")
            basic = x509.load_pem_x509_certificate(pem.encode()).extensions.get_extension_for_class(x509.BasicConstraints).value
            assert not basic.ca or name in signers, f"{node.name}: {name} is an authority, with its key"
        assert node.run("ls /etc/ashlar/pki/ca | grep -v '[.]crt$' || true") == ""


@pytest.mark.needs("kubernetes_control")
def test_configuration_with_secrets_is_not_for_everybody(plan: Plan, nodes: dict[str, Node]) -> None:
    for name in plan.on("kubernetes_control"):
        found = nodes[name].host.file("/etc/kubernetes/control/encryption.yml")
        assert stat.S_IMODE(found.mode) & 0o007 == 0, name
        assert nodes[name].ask("su -s /bin/sh nobody -c 'cat /etc/kubernetes/control/encryption.yml'").code != 0, name


def test_credentials_on_the_controller_are_for_their_owner_only(plan: Plan) -> None:
    root = plan.credentials
    assert stat.S_IMODE(root.stat().st_mode) == 0o700, root
    seen = 0
    for path in root.rglob("*"):
        mode = stat.S_IMODE(path.stat().st_mode)
        public = path.suffix in (".crt", ".pub") or path.name == "known_hosts"
        assert mode & 0o077 == 0 or (path.is_file() and public), f"{path}: {mode:o}"
        seen += path.suffix == ".key"
    assert seen, f"no key under {root}"


def test_credentials_are_not_in_git(plan: Plan) -> None:
    root = Path(__file__).parents[2]
    if not plan.credentials.is_relative_to(root):
        assert not (plan.credentials / ".git").exists()
        return
    path = str(plan.credentials.relative_to(root))
    tracked = subprocess.run(["git", "ls-files", path], cwd=root, capture_output=True, text=True, timeout=20, check=True).stdout
    ignored = subprocess.run(["git", "check-ignore", "-q", path], cwd=root, timeout=20, check=False).returncode
    assert (tracked, ignored) == ("", 0), f"{path} must be ignored by git"


@pytest.mark.needs("kubernetes_control")
def test_the_administrator_is_bound_by_rights_that_can_be_taken_away(cluster: Cluster) -> None:
    """Members of system:masters can't be shut out again; the kubeconfig that people are given must not be one."""
    review = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
    answer = cluster.request("POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", review)
    groups = answer["status"]["userInfo"]["groups"]
    assert "system:masters" not in groups
    assert any(re.match("ashlar:", group) for group in groups), groups


@pytest.mark.needs("kubernetes_control")
def test_old_versions_of_tls_are_refused(plan: Plan, every: list[Node]) -> None:
    program = r"""
import json, socket, ssl, sys, warnings
warnings.simplefilter("ignore")
address, port = json.loads(sys.argv[1])
context = ssl.create_default_context()
context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
context.set_ciphers("ALL:@SECLEVEL=0")
context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
try:
    with socket.create_connection((address, port), timeout=4) as raw, context.wrap_socket(raw) as connection:
        print(json.dumps(connection.version()))
except (OSError, ValueError) as error:
    print(json.dumps("refused"))
"""
    asker = every[0]
    for endpoint in plan.endpoints["kubernetes_control"]["api"] + plan.endpoints.get("etcd", {}).get("client", []):
        address, port = endpoint.split(":")
        assert asker.python(program, address, int(port)) == "refused", endpoint


@pytest.mark.needs("kubernetes_control")
def test_a_service_may_not_take_traffic_for_an_address_of_its_choice(workload: Workload) -> None:
    """Not even an administrator's: what the platform has set stays, and nobody adds to it."""
    path, body = workload.path("Service"), {**service("taker"), "spec": {"ports": [{"port": 443}], "externalIPs": ["203.0.113.1"]}}
    until("the policy is in force", lambda: workload.cluster.ask(next(iter(workload.cluster.contexts)), "POST", f"{path}?dryRun=All", body)[0] == 422)
    workload.cluster.request("POST", f"{path}?dryRun=All", service("taker"))


# Each copy makes two more; the memory limit is high enough for their number to be what stops them.
BOMB = "bomb() { bomb | bomb & }; bomb; sleep 600"


@pytest.mark.long
@pytest.mark.needs("kubernetes_node", "kubernetes_control")
def test_a_fork_bomb_in_a_pod_does_not_take_its_node(workload: Workload, nodes: dict[str, Node], plan: Plan) -> None:
    name = next(iter(workload.pods))
    template = pod_template("bomb", workload.image)
    container = template["spec"]["containers"][0]
    container["command"] = ["sh", "-c", BOMB]
    container["resources"] = {"limits": {"cpu": "300m", "memory": "1Gi"}}
    del container["readinessProbe"]
    template["spec"] |= {"nodeName": name, "restartPolicy": "Never"}
    pod = workload.cluster.create({"apiVersion": "v1", "kind": "Pod", **template, "metadata": {"name": "bomb"}}, workload.namespace)
    group = f"*pod{pod['metadata']['uid'].replace('-', '_')}.slice"

    def read(file: str) -> str:
        return nodes[name].run(f"cat $(find /sys/fs/cgroup -path '{group}/{file}' | head -n 1)")

    def refusals() -> int:
        """Of the pod and its containers: the first version of control groups counts where a process is, the second where the limit is."""
        told = nodes[name].run(f"cat $(find /sys/fs/cgroup -path '{group}*/pids.events')")
        return sum(int(line.split()[1]) for line in told.splitlines() if line.startswith("max "))

    try:
        until("the bomb has met its limit", refusals)
        assert int(read("pids.max")) == plan.option("kubernetes_node", "kubernetes_node_pod_pids_max")
        assert int(read("pids.current")) <= int(read("pids.max"))
        assert nodes[name].run("echo here").strip() == "here"
        assert workload.shell(name, "wget -q -T 10 -O - http://127.0.0.1:8080/").strip() == workload.pods[name]["metadata"]["name"]
        assert name in workload.cluster.ready_nodes()
    finally:
        workload.cluster.delete(workload.path("Pod", "bomb"), 0)
    until("nothing of it is left", lambda: nodes[name].run(f"find /sys/fs/cgroup -path '{group}' | head -n 1") == "", 120)
