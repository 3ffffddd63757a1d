# SPDX-License-Identifier: Apache-2.0
"""The whole way: a real ansible-playbook, hosts that are temporary roots of this machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.ashlar.stack.plugins.action import certificates as action
from ansible_collections.ashlar.stack.plugins.plugin_utils import pki

CHECKOUT = Path(__file__).parents[3]
CERTIFICATES: list[dict[str, Any]] = [
    {"component": "etcd", "name": "server", "authority": "etcd", "usages": ["server", "client"], "common_name": "{{ inventory_hostname }}",
     "dns": ["{{ inventory_hostname }}"], "addresses": ["127.0.0.1"]},
    {"component": "kubernetes_control", "name": "service_accounts", "kind": "keypair"},
]  # fmt: skip


class Site:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.credentials = path / "credentials"

    def play(self, *options: str, hosts: str = "n1,n2", verbosity: str = "-vvv", **arguments: Any) -> tuple[int, dict[str, Any], str]:
        """(exit status, result of the first host, everything printed)."""
        task = {"ashlar.stack.certificates": {"certificates": CERTIFICATES, "root": f"{self.path}/{{{{ inventory_hostname }}}}", **arguments}}
        variables = {
            "site_name": "lab",
            "site_credentials": str(self.credentials),
            "site_nodes": {"n1": {"address": "10.0.0.1", "classes": ["control"]}, "w1": {"address": "10.0.0.9", "classes": ["worker"]}},
            "ansible_python_interpreter": sys.executable,
        }
        show = {"ansible.builtin.copy": {"content": "{{ outcome | to_json }}", "dest": f"{self.path}/result.json"}, "run_once": True}
        play = [{"hosts": "all", "gather_facts": False, "vars": variables, "tasks": [{**task, "register": "outcome"}, {**show, "check_mode": False}]}]
        (self.path / "play.yml").write_text(yaml.safe_dump(play))
        (self.path / "result.json").unlink(missing_ok=True)
        (self.path / "ansible.cfg").write_text("[defaults]\n")
        environment = {
            **os.environ, "ANSIBLE_CONFIG": f"{self.path}/ansible.cfg",
            "ANSIBLE_COLLECTIONS_PATH": str(CHECKOUT / ".collections"), "ANSIBLE_LOCALHOST_WARNING": "false",
        }  # fmt: skip
        done = subprocess.run(
            [str(Path(sys.executable).with_name("ansible-playbook")), "-i", hosts + ",", "-c", "local", verbosity, *options, str(self.path / "play.yml")],
            capture_output=True, text=True, timeout=600, check=False, env=environment,
        )  # fmt: skip
        result = self.path / "result.json"
        return done.returncode, json.loads(result.read_text()) if result.exists() else {}, done.stdout + done.stderr


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def test_two_hosts_share_authorities_and_key_pair_and_a_second_run_changes_nothing(site: Site) -> None:
    status, first, printed = site.play("--diff", authorities=["front_proxy"])
    assert status == 0, printed
    assert first["changed"] and first["issued"]["etcd/server"] == "it is new"
    assert first["certificates"]["etcd/server"]["common_name"] == "n1"
    pki_of = {host: site.path / host / "etc/ashlar/pki" for host in ("n1", "n2")}
    for path in ("ca/etcd.crt", "ca/front_proxy.crt", "kubernetes_control/service_accounts.key", "kubernetes_control/service_accounts.pub"):
        assert (pki_of["n1"] / path).read_bytes() == (pki_of["n2"] / path).read_bytes()
    assert (pki_of["n1"] / "etcd/server.key").read_bytes() != (pki_of["n2"] / "etcd/server.key").read_bytes()
    assert not list(site.path.glob("n*/**/ca.key"))

    # No key in anything that is printed, at whatever verbosity a person would use.
    secrets = [line for key in site.credentials.rglob("*.key") for line in key.read_text().splitlines() if not line.startswith("-----")]
    assert secrets and not [line for line in secrets if line in printed]
    assert "PRIVATE KEY" not in printed

    status, second, printed = site.play(authorities=["front_proxy"])
    assert status == 0 and not second["changed"] and second["issued"] == {}, printed


def test_check_mode_reports_and_writes_nothing(site: Site) -> None:
    status, result, printed = site.play("--check", "--diff", hosts="n1")
    assert status == 0, printed
    assert result["changed"] and "etcd/server" in result["issued"]
    assert not site.credentials.exists() and not (site.path / "n1").exists()


def test_an_administrator_gets_a_kubeconfig_and_no_host_is_contacted(site: Site) -> None:
    admin = {"component": "kubernetes", "name": "admin", "authority": "kubernetes", "usages": ["client"], "organizations": ["ashlar:administrators"]}
    status, result, printed = site.play(hosts="n1", destination="controller", certificates=[admin], kubeconfig={})
    assert status == 0, printed
    path = site.credentials / "admin.kubeconfig"
    assert result["kubeconfig"] == str(path) and path.stat().st_mode & 0o777 == 0o600
    document = yaml.safe_load(path.read_text())
    assert document["current-context"] == "lab-n1" and len(document["contexts"]) == 1
    assert Path(result["files"]["kubernetes/admin"]["certificate"]).exists()
    assert not (site.path / "n1").exists() and "PRIVATE KEY" not in printed
    status, again, _ = site.play(hosts="n1", destination="controller", certificates=[admin], kubeconfig={})
    assert status == 0 and not again["changed"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"certificates": [{"component": "etcd", "name": "x", "authority": "etcd", "usages": ["both"]}]}, "usages must be one or both of client, server"),
        ({"kubeconfig": {}}, "it needs destination: controller"),
        ({"kubeconfig": {}, "destination": "controller", "certificates": []}, "certificate '' is not among certificates (none are given)"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_wrong_arguments_are_one_clear_error(site: Site, arguments: dict[str, Any], message: str) -> None:
    status, _, printed = site.play(hosts="n1", verbosity="--diff", **arguments)
    assert status != 0 and message in printed and "Traceback" not in printed


def test_an_unreadable_folder_is_one_clear_error(site: Site) -> None:
    site.credentials.write_text("a file")
    status, _, printed = site.play(hosts="n1", verbosity="--diff")
    assert status != 0 and "Traceback" not in printed and "cannot be read: Not a directory. It must be readable by the user who runs Ansible" in printed


def test_servers_of_a_kubeconfig() -> None:
    variables = {"site_name": "lab", "site_nodes": {"a": {"address": "10.0.0.1", "classes": ["control"]}, "b": {"address": "10.0.0.2", "classes": ["edge"]}}}
    assert action.servers_of({}, variables) == ({"lab-a": "https://10.0.0.1:6443"}, "lab-a")
    assert action.servers_of({"server": "https://api:6443"}, variables)[1] == "lab"
    assert action.servers_of({"servers": {"x": "https://x"}}, variables) == ({"x": "https://x"}, "x")
    with pytest.raises(pki.CertificatesError, match="no server is known"):
        action.servers_of({}, {})
