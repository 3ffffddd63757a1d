# SPDX-License-Identifier: Apache-2.0
"""The whole way: a real ansible-playbook, hosts that are temporary roots of this machine, a real artifact server between them.

What systemd would do is done by two scripts: `systemd-run` starts the program it is given with the credentials it would get.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.ashlar.stack.plugins.action import artifact as action
from ansible_collections.ashlar.stack.plugins.plugin_utils import pki
from support.ports import free_port

from .conftest import ARCHITECTURE, TinyStore

CHECKOUT = Path(__file__).parents[3]
SYSTEMD_RUN = """#!{python}
import os, pathlib, subprocess, sys
unit = [a for a in sys.argv[1:] if a.startswith("--property=")]
credentials = dict(a.split("=", 2)[2].split(":", 1) for a in unit if a.startswith("--property=LoadCredential="))
command = [a for a in sys.argv[1:] if not a.startswith("--") or sys.argv.index(a) > sys.argv.index("-I")]
command = sys.argv[sys.argv.index("-I") - 1:]
command = [credentials.get(os.path.basename(a), a) if a.startswith("/run/credentials/") else a for a in command]
read, write = os.pipe()
process = subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
home = pathlib.Path({home!r})
with open(home / "pids", "a") as stream:
    print(process.pid, file=stream)
mark = next(a for a in unit if "ASHLAR_MARK" in a)
(home / "unit").write_text("ActiveState=active\\n" + mark)
import socket, time
port = int(command[command.index("--port") + 1])
for _ in range(200):
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
        break
    except OSError:
        time.sleep(0.05)
with open(home / "starts", "a") as stream:
    print("start", file=stream)
"""
SYSTEMCTL = """#!/bin/sh
case $1 in show) cat {home}/unit 2>/dev/null;; esac
exit 0
"""


class Site:
    def __init__(self, path: Path, store: TinyStore) -> None:
        self.path = path
        self.store = store
        self.port = free_port()
        (path / "bin").mkdir()
        for name, text in (("systemd-run", SYSTEMD_RUN), ("systemctl", SYSTEMCTL)):
            script = path / "bin" / name
            script.write_text(text.format(python=sys.executable, home=str(path)))
            script.chmod(0o755)

    def certify(self, *hosts: str) -> None:
        """Lays down what ashlar.stack.certificates would have."""
        credentials = pki.Credentials(self.path / "credentials")
        spec = pki.parse_spec(
            {"component": "artifacts", "name": "node", "authority": "site", "usages": ["server", "client"],
             "organizations": ["ashlar:artifacts"], "addresses": ["127.0.0.1"]}
        )  # fmt: skip
        for host in hosts:
            credentials.certificate(spec, Path("nodes") / host)
            base = self.path / host / "etc/ashlar/pki"
            shutil.copytree(credentials.root / "nodes" / host, base / "artifacts")
            (base / "ca").mkdir()
            shutil.copy(credentials.root / "authorities/site/ca.crt", base / "ca/site.crt")

    def play(self, *options: str, hosts: str = "n1 n2 n3", unreachable: str = "", **arguments: Any) -> tuple[int, dict[str, Any], str]:
        """(exit status, host -> result, what was printed)."""
        wanted = {"artifacts": ["etcd", "flannel"], "versions": {"etcd": "1.0.0", "flannel": "0.9.0"}, **arguments}
        task = {"ashlar.stack.artifact": {"store": str(self.store.root), "port": self.port, **wanted}}
        inventory: dict[str, Any] = {
            "control": {
                "vars": {"artifact_root": f"{self.path}/{{{{ inventory_hostname }}}}"},
                "hosts": {
                    name: {"node_address": "127.0.0.1", "ansible_connection": "local", "ansible_python_interpreter": sys.executable}
                    for name in ("n1", "n2", "n3")
                }
            }
        }
        if unreachable:
            inventory["control"]["hosts"][unreachable] = {"ansible_connection": "ssh", "ansible_host": "127.0.0.1", "ansible_port": "1"}
        write = {"ansible.builtin.copy": {"content": "{{ outcome | to_json }}", "dest": f"{self.path}/{{{{ inventory_hostname }}}}.json"}, "check_mode": False}
        play = [{"hosts": hosts.replace(" ", ","), "gather_facts": False, "tasks": [{**task, "register": "outcome"}, write]}]
        (self.path / "play.yml").write_text(yaml.safe_dump(play))
        (self.path / "hosts.yml").write_text(yaml.safe_dump(inventory))
        (self.path / "ansible.cfg").write_text("[defaults]\n[ssh_connection]\nretries = 0\n")
        environment = {
            **os.environ, "ANSIBLE_CONFIG": f"{self.path}/ansible.cfg", "ANSIBLE_COLLECTIONS_PATH": str(CHECKOUT / ".collections"),
            "PATH": f"{self.path}/bin:{os.environ['PATH']}",
        }  # fmt: skip
        for host in ("n1", "n2", "n3"):
            (self.path / f"{host}.json").unlink(missing_ok=True)
        done = subprocess.run(
            [str(Path(sys.executable).with_name("ansible-playbook")), "-i", f"{self.path}/hosts.yml", *options, f"{self.path}/play.yml"],
            capture_output=True, text=True, timeout=600, check=False, env=environment,
        )  # fmt: skip
        results = {host: json.loads((self.path / f"{host}.json").read_text()) for host in hosts.split() if (self.path / f"{host}.json").exists()}
        return done.returncode, results, done.stdout + done.stderr

    def starts(self) -> int:
        path = self.path / "starts"
        return len(path.read_text().splitlines()) if path.exists() else 0

    def installed(self, host: str) -> str:
        return (self.path / host / "opt/ashlar/etcd/current/etcd").read_text()


@pytest.fixture
def site(tmp_path: Path, store: TinyStore) -> Iterator[Site]:
    site = Site(tmp_path, store)
    yield site
    pids = site.path / "pids"
    for pid in pids.read_text().split() if pids.exists() else []:
        try:
            os.kill(int(pid), signal.SIGTERM)
        except ProcessLookupError:
            pass


def test_nodes_fetch_from_the_first_control_node_and_a_second_run_does_nothing(site: Site) -> None:
    site.certify("n1", "n2", "n3")
    status, results, printed = site.play("--diff")
    assert status == 0, printed
    assert {host: result["source"] for host, result in results.items()} == {"n1": "controller", "n2": "n1", "n3": "n1"}, printed
    assert all(site.installed(host) == "etcd one" and results[host]["changed"] for host in results)
    assert "-etcd: none" in printed and "+etcd: 1.0.0" in printed
    assert site.starts() == 1
    assert not (site.path / "n2/opt/ashlar/.incoming").exists()

    status, results, printed = site.play()
    assert status == 0 and not any(result["changed"] for result in results.values()), printed
    assert {result["source"] for result in results.values()} == {"none"} and site.starts() == 1


def test_a_node_that_joins_gets_what_the_server_has(site: Site) -> None:
    site.certify("n1", "n2", "n3")
    assert site.play(hosts="n1 n2")[0] == 0
    shutil.rmtree(site.store.root / "sha256")
    (site.store.root / "sha256").mkdir()
    status, results, printed = site.play(hosts="n3")
    assert status == 0 and results["n3"]["source"] == "n1", printed
    assert site.installed("n3") == "etcd one"


def test_an_unreachable_server_is_replaced_by_the_next(site: Site) -> None:
    site.certify("n2", "n3")
    status, results, printed = site.play(hosts="n3", unreachable="n1")
    assert status == 0 and results["n3"]["source"] == "n2", printed
    assert "n1 cannot be the artifact server" in printed


def test_without_certificates_the_controller_sends_everything(site: Site) -> None:
    status, results, printed = site.play()
    assert status == 0 and {result["source"] for result in results.values()} == {"controller"}, printed
    assert "needs the certificate artifacts/node" in printed
    assert site.installed("n3") == "etcd one"


def test_a_client_that_cannot_prove_itself_gets_it_from_the_controller(site: Site) -> None:
    site.certify("n1", "n2")
    status, results, printed = site.play(hosts="n1 n2 n3")
    assert status == 0 and results["n3"]["source"] == "controller" and results["n2"]["source"] == "n1", printed
    # Only hosts that may serve keep the blobs; here all three are control nodes.
    assert site.installed("n3") == "etcd one"


def test_no_server_is_wanted(site: Site) -> None:
    site.certify("n1", "n2", "n3")
    status, results, printed = site.play(servers=[])
    assert status == 0 and site.starts() == 0 and {result["source"] for result in results.values()} == {"controller"}, printed
    assert not list((site.path / "n1/opt/ashlar/.store/sha256").glob("*/*"))


def test_check_mode_sends_nothing(site: Site) -> None:
    status, results, printed = site.play("--check", "--diff", hosts="n1")
    assert status == 0 and results["n1"]["changed"] and "+etcd: 1.0.0" in printed
    assert not (site.path / "n1/opt").exists()
    # A plan is made before anything is obtained, too.
    status, results, printed = site.play("--check", hosts="n1", versions={"etcd": "9.9.9", "flannel": "0.9.0"})
    assert status == 0 and results["n1"]["artifacts"]["etcd"]["to"] == "9.9.9", printed


def test_a_damaged_store_is_never_installed(site: Site) -> None:
    for blob in (site.store.root / "sha256").glob("*/*"):
        blob.write_bytes(bytes(blob.stat().st_size))
    status, _, printed = site.play(hosts="n1")
    assert status != 0 and "did not arrive on n1 as they are in the store" in printed and "Check the store" in printed and "Traceback" not in printed
    assert not (site.path / "n1/opt/ashlar/etcd").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"artifacts": ["consul"]}, "artifact consul: no version is given for it; artifact_versions has etcd, flannel"),
        ({"versions": {"etcd": "9.9.9", "flannel": "0.9.0"}}, "artifact etcd 9.9.9 is not in the store"),
        ({"keep": 0}, "keep is 0; at least 1 version stays"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_wrong_arguments_are_one_clear_error(site: Site, arguments: dict[str, Any], message: str) -> None:
    status, _, printed = site.play(hosts="n1", **arguments)
    assert status != 0 and message in printed and "Traceback" not in printed


@pytest.mark.parametrize("host", ["n1", "n3"])
def test_a_missing_blob_is_one_clear_error(site: Site, host: str) -> None:
    site.certify("n1", "n2", "n3")
    sha256 = hashlib.sha256(b"etcd one").hexdigest()
    (site.store.root / "sha256" / sha256[:2] / sha256).unlink()
    status, _, printed = site.play(hosts=host)
    assert status != 0 and "WARNING" not in printed
    assert "is missing from the store or has another size" in printed and "make artifacts" in printed and "Traceback" not in printed


def test_nothing_is_wanted(site: Site) -> None:
    status, results, _ = site.play(hosts="n1", artifacts=[])
    assert status == 0 and not results["n1"]["changed"]


class TestStoredArtifacts:
    def test_packages_are_chosen_by_codename(self, store: TinyStore) -> None:
        store.add("tools", "1", {"a_1_amd64.deb": "a"}, platform="amd64-trixie")
        store.add("tools", "1", {"a_2_amd64.deb": "b"}, platform="amd64-bookworm")
        catalogue = action.read_stored(store.root, ["tools"], {"tools": 1})
        assert catalogue.choose("tools", "amd64", "bookworm").files[0].path == "a_2_amd64.deb"
        with pytest.raises(action.DeliveryError, match=r"for amd64-bookworm, amd64-trixie, not for arm64 \(trixie\)"):
            catalogue.choose("tools", "arm64", "trixie")

    def test_where_it_came_from_does_not_matter(self, store: TinyStore) -> None:
        first = action.read_stored(store.root, ["etcd"], {"etcd": "1.0.0"}).want()
        path = store.root / "index/etcd/1.0.0" / f"{ARCHITECTURE}.json"
        path.write_text(path.read_text().replace('"go"', '"mirror"'))
        assert action.read_stored(store.root, ["etcd"], {"etcd": "1.0.0"}).want() == first

    def test_a_broken_index_is_told(self, store: TinyStore) -> None:
        path = store.root / "index/etcd/1.0.0" / f"{ARCHITECTURE}.json"
        path.write_text("{")
        with pytest.raises(action.DeliveryError, match="not an index file of the store"):
            action.read_stored(store.root, ["etcd"], {"etcd": "1.0.0"})
