# SPDX-License-Identifier: Apache-2.0
"""All secrets of a site are replaced while it is used: nobody notices, and whoever has kept an old one is let in nowhere.

The tests look at the same rotation.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import starmap
from pathlib import Path

import pytest

from .support.catalogue import Catalogue
from .support.clients import Clients
from .support.cluster import Cluster, Workload
from .support.figures import Tell, judged
from .support.key_value import Etcd
from .support.nodes import Node
from .support.plan import Plan
from .support.site import changes, killed, moment, playbook, run, words
from .support.waiting import at_once, until

pytestmark = pytest.mark.disruptive
ONE = pytest.mark.scenario("life")
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


@dataclass(frozen=True)
class Rotated:
    """What was so before it, how long it took, in seconds, and who used the site meanwhile."""

    before: set[tuple[str, str, str]]
    files: dict[str, str]
    token: str
    took: float
    clients: Clients


@pytest.fixture(scope="module")
def rotated(plan: Plan, every: list[Node], clients: Callable[[], Clients], request: pytest.FixtureRequest) -> Iterator[Rotated]:
    """A rotation of everything, while the site is used."""
    at_once(lambda node: node.run(f"rm -rf {KEPT}; cp -a /etc/ashlar/pki {KEPT}"), every)
    names = [path for pattern in SECRETS for path in sorted(plan.credentials.glob(pattern))]
    files = {str(path.relative_to(plan.credentials)): path.read_text().strip() for path in names}
    # What is let in once for want of an answer to nobody is not let in twice.
    before = let_in(every, KEPT) & let_in(every, KEPT)
    token = ""
    if plan.has("kubernetes_control"):
        workload: Workload = request.getfixturevalue("workload")
        asked = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 7200}}
        account = f"/api/v1/namespaces/{workload.namespace}/serviceaccounts/default/token"
        token = workload.cluster.request("POST", account, asked)["status"]["token"]
        workload.cluster.create({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "kept"}, "stringData": {"word": "kept"}}, workload.namespace)
    using, took = clients(), 0.0

    def work() -> None:
        nonlocal took
        began = time.monotonic()
        run(plan, "rotate", "-e", "what=all")
        took = time.monotonic() - began

    using.during(work)
    if plan.has("kubernetes_control"):
        workload.cluster.log_in_again()
        request.getfixturevalue("cluster").log_in_again()
    yield Rotated(before, files, token, took, using)
    at_once(lambda node: node.run(f"rm -rf {KEPT}"), every)


@ONE
def test_nobody_notices(rotated: Rotated, tell: Tell, every: list[Node]) -> None:
    tell(judged(f"all secrets of {len(every)} nodes are replaced", rotated.took, 180))
    rotated.clients.unnoticed(tell)


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
@pytest.mark.needs("kubernetes_control")
def test_a_token_of_the_old_key_is_valid_until_the_rotation_is_finished(rotated: Rotated, plan: Plan, cluster: Cluster) -> None:
    assert cluster.lets_in(rotated.token), "pods have a day to renew theirs"
    code, said = playbook(plan, "rotate", "-e", "what=service_account_key")
    assert code == 2 and "-e finish=true" in words(said)
    run(plan, "rotate", "-e", "what=service_account_key", "-e", "finish=true")
    assert not cluster.lets_in(rotated.token)
    assert changes(run(plan, "site")) == {"0"}


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
