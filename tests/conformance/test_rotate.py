# SPDX-License-Identifier: Apache-2.0
"""All secrets of a site are replaced while it is used: nobody notices, and whoever has kept an old one is let in nowhere.

The tests look at the same rotation.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import starmap
from pathlib import Path

import pytest

from .support import key_value as key_value_stores
from .support import sample
from .support.catalogue import Catalogue
from .support.cluster import Cluster, Workload, random_name
from .support.figures import Tell, brief, judged
from .support.key_value import Etcd
from .support.load import Load, loaded
from .support.nodes import Node
from .support.plan import Plan
from .support.site import changes, killed, moment, run
from .support.waiting import at_once, until
from .support.writer import Writer

pytestmark = pytest.mark.disruptive
ONE = pytest.mark.scenario("default")
"""Of the tests that look at one rotation of everything."""

SECRETS = ("consul/tokens/*", "logins/*", "kubernetes_encryption_key", "consul/gossip_key")
KEPT = "/run/ashlar-kept"
"""Where nodes keep the certificates that they had before."""
# What every TCP listener of a node says to each certificate of a folder, and to nobody ("").
ASK = r"""
import concurrent.futures, glob, json, os, re, socket, ssl, subprocess, sys
[folder] = json.loads(sys.argv[1])
found = {line.split()[3] for line in subprocess.run(["ss", "-Hltn"], capture_output=True, text=True, check=True).stdout.splitlines()}
listeners = sorted({re.sub(r"^(\*|0[.]0[.]0[.]0|\[::\]|\[::ffff:([0-9.]+)\])(%[a-z0-9]+)?:", lambda m: (m[2] or "127.0.0.1") + ":", one) for one in found})
pairs = [path[:-4] for path in sorted(glob.glob(folder + "/*/*.crt")) if os.path.exists(path[:-4] + ".key")]

def outcome(listener, pair):
    address, _, port = listener.rpartition(":")
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if pair:
        context.load_cert_chain(pair + ".crt", pair + ".key")
    try:
        with socket.create_connection((address, int(port)), timeout=5) as raw, context.wrap_socket(raw) as connection:
            connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            said = connection.recv(64).split(b"\r\n")[0].decode(errors="replace")
            return "answer " + said[9:12] if said.startswith("HTTP/") else "answer" if said else "closed"
    except ssl.SSLError as error:
        return "refused" if "alert" in str(error).lower() else "no TLS"
    except OSError:
        return "closed"

with concurrent.futures.ThreadPoolExecutor(16) as pool:
    nobody = dict(zip(listeners, pool.map(lambda one: outcome(one, ""), listeners)))
    asked = [(one, pair) for one in listeners if nobody[one] != "no TLS" for pair in pairs]
    said = pool.map(lambda pair: outcome(*pair), asked)
    print(json.dumps([[one, os.path.relpath(pair, folder), what, nobody[one]] for (one, pair), what in zip(asked, said)]))
"""
# How often a name was asked for in a pod, and how often in vain.
NAMES = """
cd /www; rm -f stop names; (
  asked=0; failed=0
  until [ -e stop ]; do
    asked=$((asked + 1)); nslookup kubernetes.default.svc.{domain}. >/dev/null 2>&1 || failed=$((failed + 1))
    sleep {pause}
  done
  echo $asked $failed >names.new; mv names.new names
) >/dev/null 2>&1 &
"""


@dataclass(frozen=True)
class Said:
    """What one listener of a node said to a certificate, and to somebody without one."""

    listener: str
    certificate: str
    to_it: str
    to_nobody: str

    @property
    def lets_in(self) -> bool:
        """Whether the certificate makes a difference for the better, other than by an error of a server that can't ask somebody about it."""
        return self.to_it.startswith("answer") and self.to_it not in (self.to_nobody, "answer 401") and not self.to_it.startswith("answer 5")


def let_in(nodes: list[Node], folder: str) -> set[tuple[str, str, str]]:
    """(node, listener, certificate) where one of a node's folder is let in by the node's own listeners."""
    found = at_once(lambda node: node.python(ASK, folder, seconds=300), nodes)
    return {(node.name, one.listener, one.certificate) for node, said in zip(nodes, found, strict=True) for one in starmap(Said, said) if one.lets_in}


def await_let_in(nodes: list[Node], folder: str, expected: set[tuple[str, str, str]]) -> None:
    """Asks until all listeners let in what is expected: a server that is busy may answer one of many with an error, or too late."""

    def look() -> bool:
        found = let_in(nodes, folder)
        differing = expected - found if expected else found
        assert not differing, sorted(differing)
        return True

    until(f"{'the certificates that were let in before' if expected else 'no certificate'} of {folder} is let in", look)


@dataclass
class Api:
    """A client of Kubernetes that writes all the time."""

    cluster: Cluster
    name: str = field(default_factory=lambda: random_name("written"))
    confirmed: int = 0
    longest: float = 0.0
    errors: list[str] = field(default_factory=list)

    @contextmanager
    def writing(self) -> Iterator[None]:
        end = threading.Event()
        path = "/api/v1/namespaces/default/configmaps"
        self.cluster.request("POST", path, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": self.name}, "data": {"n": "0"}})
        with ThreadPoolExecutor(1) as pool:
            work = pool.submit(self._write, end, f"{path}/{self.name}")
            try:
                yield
            finally:
                end.set()
            work.result()

    def _write(self, end: threading.Event, path: str) -> None:
        last = time.monotonic()
        while not end.is_set():
            try:
                self.cluster.patch(path, {"data": {"n": str(self.confirmed + 1)}})
                self.confirmed += 1
                self.longest = max(self.longest, time.monotonic() - last)
                last = time.monotonic()
            except Exception as error:
                self.errors.append(f"{type(error).__name__}: {error}"[:200])
                # The administrator's certificate is one of those that are replaced.
                self.cluster.log_in_again()
            time.sleep(0.2 if brief() else 0.05)


@dataclass
class Rotated:
    """What was seen before, during and after it."""

    before: set[tuple[str, str, str]]
    files: dict[str, str]
    loads: list[Load]
    took: float = 0.0
    writer: Writer | None = None
    api: Api | None = None
    names: list[int] = field(default_factory=list)
    """How many names were asked for in a pod, and how many of them in vain."""


@contextmanager
def asking_for_names(workload: Workload, node: str, domain: str, counted: list[int]) -> Iterator[None]:
    """A pod of a node resolves a name all the time; in the end `counted` has how often, and how often in vain."""
    workload.shell(node, NAMES.format(domain=domain, pause=0.2 if brief() else 0.02))
    try:
        yield
    finally:
        workload.cluster.log_in_again()
        text = workload.shell(node, "touch /www/stop; until [ -e /www/names ]; do sleep 0.2; done; cat /www/names", 60)
        counted += [int(word) for word in text.split()]


@pytest.fixture(scope="module")
def rotated(plan: Plan, nodes: dict[str, Node], every: list[Node], request: pytest.FixtureRequest) -> Iterator[Rotated]:
    """A rotation of everything, under load."""
    at_once(lambda node: node.run(f"rm -rf {KEPT}; cp -a /etc/ashlar/pki {KEPT}"), every)
    names = [path for pattern in SECRETS for path in sorted(plan.credentials.glob(pattern))]
    files = {str(path.relative_to(plan.credentials)): path.read_text().strip() for path in names}
    rate = 10 if brief() else 100
    loads = [Load(443, sample.host(plan), rate, address=nodes[name].address, at_once=8) for name in plan.on("haproxy") if plan.has("sample")]
    # What is let in once for want of an answer to nobody is not let in twice.
    found = Rotated(let_in(every, KEPT) & let_in(every, KEPT), files, loads)
    with ExitStack() as stack:
        work = partial(run, plan, "rotate", "-e", "what=all")
        if plan.has("kubernetes_control"):
            workload = request.getfixturevalue("workload")
            workload.cluster.create({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "kept"}, "stringData": {"word": "kept"}}, workload.namespace)
            found.api = Api(request.getfixturevalue("cluster"))
            stack.enter_context(found.api.writing())
            domain = plan.option("kubernetes_control", "kubernetes_control_cluster_domain")
            stack.enter_context(asking_for_names(workload, workload.nodes[-1], domain, found.names))
        # The API's writes are the store's, too, and this client costs a process a write.
        if plan.has("etcd") and not (found.api and brief()):
            found.writer = Writer(key_value_stores.store(plan, nodes), f"/ashlar-conformance/{random_name('rotate')}")
            work = partial(found.writer.during, work)
        began = time.monotonic()
        asyncio.run(loaded(loads, work, 1200))
        found.took = time.monotonic() - began
    if found.api:
        found.api.cluster.log_in_again()
        found.api.cluster.delete(f"/api/v1/namespaces/default/configmaps/{found.api.name}")
    yield found
    at_once(lambda node: node.run(f"rm -rf {KEPT}"), every)


@ONE
def test_nobody_notices(rotated: Rotated, tell: Tell, every: list[Node]) -> None:
    tell(judged(f"all secrets of {len(every)} nodes are replaced", rotated.took, 180))
    for load in rotated.loads:
        tell(load.text())
    if rotated.api:
        api = rotated.api
        tell(f"{api.confirmed} writes to the API, at most {api.longest:.1f} s apart; {len(api.errors)} refused: {api.errors[:3]}")
        tell(f"{rotated.names[0]} names were asked for in a pod, {rotated.names[1]} in vain")
        assert rotated.names[0] and rotated.names[1] == 0
    if rotated.writer:
        tell(f"{len(rotated.writer.confirmed)} writes to the store, at most {rotated.writer.longest:.1f} s apart")
        assert rotated.writer.confirmed and rotated.writer.lost(rotated.writer.store.members[0]) == set()
    for load in rotated.loads:
        assert load.answered and load.failures == [], f"{load.address}: {load.text()}"


@ONE
def test_an_old_certificate_is_let_in_nowhere_and_a_new_one_as_before(rotated: Rotated, every: list[Node]) -> None:
    assert {name for name, _, _ in rotated.before} == {node.name for node in every}, "every node has a listener that asks for a certificate"
    await_let_in(every, KEPT, set())
    await_let_in(every, "/etc/ashlar/pki", rotated.before)


@ONE
def test_no_secret_is_the_old_one(rotated: Rotated, plan: Plan) -> None:
    assert rotated.files
    for name, old in rotated.files.items():
        new = (plan.credentials / name).read_text().strip()
        assert new != old and "\n" not in new, name
    for authority in sorted((plan.credentials / "authorities").iterdir()):
        assert (authority / "ca.crt").read_text().count("BEGIN") == 1, authority.name
        assert sorted(path.name for path in authority.iterdir()) == ["ca.crt", "ca.key"]


@ONE
def test_a_second_run_of_the_site_changes_nothing(rotated: Rotated, plan: Plan) -> None:
    assert changes(run(plan, "site")) == {"0"}


@ONE
@pytest.mark.needs("kubernetes_node")
def test_kubelets_have_certificates_of_the_new_authority(rotated: Rotated, plan: Plan, every: list[Node]) -> None:
    def verified(node: Node) -> str:
        return node.run("cd /var/lib/kubelet/pki; openssl verify -CAfile /etc/ashlar/pki/ca/kubelet.crt kubelet-server-current.pem")

    assert all(text.endswith(": OK\n") for text in at_once(verified, every))


@ONE
@pytest.mark.needs("kubernetes_control", "etcd")
def test_all_secrets_are_encrypted_with_the_new_key(rotated: Rotated, plan: Plan, nodes: dict[str, Node]) -> None:
    member = nodes[plan.on("etcd")[0]]
    store = Etcd([member])
    keys = set()
    for kind in ("secrets", "configmaps"):
        found = store.control(member, f"get --prefix --print-value-only /registry/{kind} | grep -ao '^k8s:enc:[a-z]*:v1:[0-9a-z]*:'").split()
        stored = int(store.control(member, f"get --prefix --count-only --write-out=fields /registry/{kind} | sed -n 's/.*Count. : //p'"))
        assert len(found) == stored > 0, kind
        keys |= set(found)
    assert len(keys) == 1 and ":first:" not in keys.pop()


@ONE
@pytest.mark.needs("consul")
def test_consul_knows_the_new_tokens_and_the_new_gossip_key_alone(rotated: Rotated, plan: Plan, nodes: dict[str, Node]) -> None:
    catalogue, node = Catalogue(plan), nodes[plan.on("consul")[0]]
    for pool in catalogue.get(node, "/v1/operator/keyring"):
        assert list(pool["Keys"]) == [(plan.credentials / "consul/gossip_key").read_text().strip()]
    known = {token["SecretID"] for token in catalogue.get(node, "/v1/acl/tokens")}
    assert known.isdisjoint(secret for name, secret in rotated.files.items() if name.startswith("consul/tokens/"))


@pytest.mark.scenario("etcd")
def test_a_rotation_that_is_killed_goes_on(plan: Plan, every: list[Node], tell: Tell) -> None:
    after = moment(5, 60)
    tell(f"killed after {after:.1f} s")
    with killed(plan, after, "rotate", "-e", "what=all"):
        run(plan, "rotate", "-e", "what=all")
    assert changes(run(plan, "site")) == {"0"}
    assert not (Path(plan.shared["site_directory"]) / "state/rotation.json").exists() or plan.has("kubernetes_control")
