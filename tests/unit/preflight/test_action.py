# SPDX-License-Identifier: Apache-2.0
"""What the controller adds to a preflight: whom to try, and one message."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import yaml
from ansible.errors import AnsibleError
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template
from ansible_collections.ashlar.stack.plugins.action.preflight import COLLECTION, ActionModule, choose_peers, explain, message, users_of
from ansible_collections.ashlar.stack.plugins.module_utils.preflight.checks import NAMES, Problem
from ansible_collections.ashlar.stack.plugins.modules import preflight as module
from ansible_collections.ashlar.stack.plugins.plugin_utils.site.options import wrong_variables

ROOT = Path(__file__).parents[3]
NODES = {f"n{number}": {"address": f"10.0.0.{number}"} for number in range(5)}


def asked(arguments: dict[str, Any], variables: dict[str, Any]) -> dict[str, Any]:
    """What the action asks the module on the host."""
    task = Mock(args=arguments, async_val=0, environment=None, diff=False, check_mode=False)
    action = ActionModule(task, Mock(), Mock(check_mode=False, diff=False), Mock(), Mock(), Mock())
    action._execute_module = Mock(return_value={"failed": True})
    action.run(task_vars={"inventory_hostname": "n1", **variables})
    return dict(action._execute_module.call_args.kwargs["module_args"])


def test_a_host_is_asked_about_the_sites_networks_but_for_those_that_hosts_are_in() -> None:
    site = {"pods": "10.244.0.0/16", "services": "10.96.0.0/16", "admin": ["10.0.0.0/8"]}
    assert asked({}, {"site_networks": site})["networks"] == {"pods": "10.244.0.0/16", "services": "10.96.0.0/16"}
    assert asked({"networks": {"pods": "10.1.0.0/16"}}, {"site_networks": site})["networks"] == {"pods": "10.1.0.0/16"}


def test_a_host_is_asked_about_the_users_of_its_components() -> None:
    assert asked({"components": ["etcd", "kubernetes_control", "flannel"]}, {})["users"] == {"etcd": "etcd", "kubernetes": "kubernetes_control"}
    declared = sorted((ROOT / "roles").glob("*/templates/etc/sysusers.d/*"))
    assert set(users_of([file.relative_to(ROOT).parts[1] for file in declared])) == {file.stem for file in declared}


@pytest.mark.parametrize(("error", "told"), [("Missing sudo password", "--ask-become-pass"), ("the disk is on fire", None)])
def test_an_error_on_the_way_to_root_is_explained_if_it_is_known(error: str, told: str | None) -> None:
    action = ActionModule(Mock(args={}, async_val=0), Mock(), Mock(check_mode=False, diff=False), Mock(), Mock(), Mock())
    action._execute_module = Mock(side_effect=AnsibleError(error))
    if told is None:
        with pytest.raises(AnsibleError, match=error):
            action.run(task_vars={})
    else:
        answer = action.run(task_vars={})
        assert answer["failed"]
        assert told in answer["msg"]


def names(peers: list[dict[str, Any]]) -> list[str]:
    return [peer["name"] for peer in peers]


def test_every_node_is_tried_by_someone_and_nobody_tries_more_than_asked() -> None:
    chosen = {host: names(choose_peers(host, list(NODES), NODES, {}, 2)) for host in NODES}
    assert chosen["n4"] == ["n0", "n1"]
    assert {peer for peers in chosen.values() for peer in peers} == set(NODES)


def test_a_host_never_tries_itself() -> None:
    assert names(choose_peers("n1", list(NODES), NODES, {}, 99)) == ["n2", "n3", "n4", "n0"]
    assert choose_peers("n1", ["n1"], NODES, {}, 99) == []


def test_hosts_outside_of_the_play_are_not_tried() -> None:
    assert names(choose_peers("n1", ["n1", "n3", "bastion"], NODES, {}, 8)) == ["n3"]


def test_the_port_of_ssh_counts_only_for_the_private_address() -> None:
    variables = {
        "n2": {"ansible_port": 2222},
        "n3": {"ansible_host": "203.0.113.3", "ansible_port": 2222},
        "n4": {"ansible_host": "10.0.0.4", "ansible_port": "2022"},
    }
    chosen = choose_peers("n1", list(NODES), NODES, variables, 8)
    assert {peer["name"]: peer["port"] for peer in chosen} == {"n2": 2222, "n3": 22, "n4": 2022, "n0": 22}


def test_the_message_names_host_problem_remedy_and_way_out() -> None:
    problems = [Problem("memory", "has 1 MB", "buy more"), Problem("os", "Minix 3 is not supported", "install another")]
    assert message("n1", problems) == (
        "n1 has 2 problems, nothing was changed on it:\n"
        "  memory: has 1 MB\n"
        "    -> buy more\n"
        "  os: Minix 3 is not supported\n"
        "    -> install another\n"
        "To go on regardless, skip checks by name: base_preflight_skip: [memory, os]"
    )
    assert message("n1", problems[:1]).startswith("n1 has a problem, nothing was changed on it:\n")


def test_the_documentation_names_every_check_and_option() -> None:
    documented = yaml.safe_load(module.DOCUMENTATION)
    said = " ".join(documented["description"])
    assert [name for name in NAMES if f"C({name})" not in said] == []
    source = inspect.getsource(module.main)
    assert [name for name in documented["options"] if f'"{name}": {{"type"' not in source] == []


@pytest.mark.parametrize(
    ("said", "remedy"),
    [
        ("MODULE FAILURE sudo: sorry, you must have a tty to run sudo", "ansible_pipelining: false"),
        ("/bin/sh: 1: /usr/bin/python3: not found", "apt-get install python3"),
        ("/bin/sh: /opt/py/bin/python3.11: No such file or directory", "Python is not at /opt/py/bin/python3.11"),
        ("Missing sudo password", "sudo on this host asks for a password. Give it by --ask-become-pass"),
        ("Incorrect su password", "su on this host asks for another password"),
        ("doas: a tty is required", "doas on this host asks for a password"),
        ("sudo: a password is required", "sudo on this host asks for a password"),
        ("ops is not in the sudoers file.  This incident will be reported.", "sudo does not let the login user become root"),
        ("doas: Operation not permitted", "doas does not let the login user become root"),
        ("su: Authentication failure", "su does not let the login user become root"),
        ("/bin/sh: 1: sudo: not found", "sudo is not on this host"),
        ("bash: line 1: doas: command not found", "doas is not on this host"),
        ("Traceback: KeyError", ""),
    ],
)
def test_why_no_module_could_run_is_told(said: str, remedy: str) -> None:
    assert remedy in explain(said)
    assert bool(remedy) == bool(explain(said))


@pytest.mark.parametrize(
    ("variables", "problem"),
    [
        ({"etcd_snapshot_keep": 3, "kubernetes_control_nonsense": 1, "coredns_cluster_domain": 5}, ""),
        ({"etcd_snapshot_keep": "-1"}, "etcd_snapshot_keep is \"-1\". Allowed: a whole number"),
        ({"etcd_snapshot_keep": "{{ keep }}"}, "etcd_snapshot_keep is -5. Allowed: a whole number"),
        ({"etcd_snapshot_keep": "{{ not_known_yet }}"}, ""),
        ({"portal_password": "x", "etcd_snapshot_keep": []}, "etcd_snapshot_keep is []. Allowed: a whole number"),
    ],
)
def test_options_of_the_run_are_judged_wherever_they_are_set(variables: dict[str, Any], problem: str) -> None:
    templar = Templar(loader=DataLoader(), variables={"keep": -5})

    def template(value: Any) -> Any:
        return templar.template(trust_as_template(value) if isinstance(value, str) else value)

    found = wrong_variables(COLLECTION, ["etcd", "kubernetes_control"], variables, template)
    assert len(found) == bool(problem)
    assert "".join(found).startswith(problem)
