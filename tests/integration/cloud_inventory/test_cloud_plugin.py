# SPDX-License-Identifier: Apache-2.0
"""The plugin as a person uses it: cache, constructed groups, classes of instances without tags, sites whose machines are still to come."""

from __future__ import annotations

import json
import ssl
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible.errors import AnsibleParserError
from ansible.inventory.data import InventoryData
from ansible_collections.ashlar.stack.plugins.inventory import cloud as plugin
from ansible_collections.ashlar.stack.plugins.plugin_utils.machines.clouds.common import (
    LONGEST_PAUSE,
    CloudError,
    Disk,
    Instance,
    Transient,
    in_regions,
    retry,
    without,
)
from ansible_collections.ashlar.stack.plugins.plugin_utils.machines.clouds.mapping import Sources, machines_of, restored, stored
from clouds import SECRETS, Answer, Replay, private_key

Inventory = Callable[..., InventoryData]
GCE = {"provider": "gce", "filters": {"ashlar_site": "prod"}, "user": "admin"}
OPENSTACK = {"provider": "openstack", "filters": {"ashlar_site": "prod"}, "user": "admin"}


def test_cache_answers_the_same_question_only(inventory: Inventory, google: Replay, tmp_path: Path) -> None:
    cached = {**GCE, "endpoint": google.url, "cache": True, "cache_plugin": "jsonfile", "cache_connection": str(tmp_path / "cache")}
    first = inventory(cached)
    asked = len(google.asked)
    again = inventory(cached)
    assert len(google.asked) == asked
    assert {name: host.vars for name, host in again.hosts.items()} == {name: host.vars for name, host in first.hosts.items()}
    inventory(cached, cache=False)
    assert len(google.asked) == 2 * asked, "--flush-cache asks anew"
    assert list(inventory({**cached, "regions": ["europe-west1-c"]}).hosts) == ["prod-control-2"]
    assert inventory({**cached, "address": "private"}).hosts["prod-control-1"].vars["ansible_host"] == "10.10.0.11"


def test_cache_that_is_of_another_shape_is_asked_anew(inventory: Inventory, google: Replay, tmp_path: Path) -> None:
    cached = {**GCE, "endpoint": google.url, "cache": True, "cache_plugin": "jsonfile", "cache_connection": str(tmp_path / "cache")}
    inventory(cached)
    for file in (tmp_path / "cache").iterdir():
        content = json.loads(file.read_text())
        file.write_text(json.dumps({**content, "instances": [{"name": "x", "disks": []}]}))
    assert len(inventory(cached).hosts) == 3


def test_constructed_groups_and_variables_know_the_tags(inventory: Inventory, nova: Replay) -> None:
    data = inventory(
        {
            **OPENSTACK,
            "strict": True,
            "keyed_groups": [{"key": "tags.ashlar_classes", "prefix": "is"}, {"key": "region", "prefix": "in"}],
            "groups": {"small": "instance_type == '2'"},
            "compose": {"rack": "node_labels['example.com/rack'] | default('none')", "known_as": "tags.ashlar_site ~ '/' ~ inventory_hostname | default('x')"},
        }
    )
    assert data.get_groups_dict()["is_control_worker"] == ["prod-control-1"]
    assert sorted(data.get_groups_dict()["in_RegionOne"]) == ["prod-control-1", "prod-worker-1"]
    assert len(data.get_groups_dict()["small"]) == 3
    assert data.hosts["prod-control-1"].vars["rack"] == "R1"
    assert "tags" not in data.hosts["prod-control-1"].vars


def test_rules_give_classes_to_those_that_do_not_say_them(inventory: Inventory, nova: Replay) -> None:
    rules = [
        {"name": "staging-*", "classes": []},
        {"name": "*-control-*", "labels": {"ashlar_site": "prod"}, "classes": ["control", "storage"]},
        {"classes": ["worker"]},
    ]
    data = inventory({**OPENSTACK, "filters": {}, "classes_from": "role", "classes": rules, "labels_from": {"example.com/site": "ashlar_site"}})
    assert {name: host.vars["node_classes"] for name, host in data.hosts.items()} == {
        "prod-control-1": ["control", "storage"],
        "prod-edge-1": ["worker"],
        "prod-worker-1": ["worker"],
    }
    assert data.hosts["prod-edge-1"].vars["node_labels"] == {"example.com/site": "prod"}


def test_a_site_whose_machines_are_still_to_come(inventory: Inventory, google: Replay) -> None:
    data = inventory({**GCE, "endpoint": google.url, "filters": {"ashlar_site": "next"}, "empty": "pending"})
    assert not data.hosts
    assert data.groups["all"].vars["site_machines"] == "pending"


def test_a_group_that_can_not_be_made_is_an_error_where_one_is_strict(inventory: Inventory, nova: Replay) -> None:
    with pytest.raises(AnsibleParserError, match="(?s)no host was touched.*Correct compose, groups or keyed_groups, or set strict: false") as caught:
        inventory({**OPENSTACK, "strict": True, "keyed_groups": [{"key": "tags.flavour"}]})
    assert caught.value.__cause__ is None
    assert len(inventory({**OPENSTACK, "keyed_groups": [{"key": "tags.flavour"}]}).hosts) == 3


@pytest.mark.parametrize(
    ("text", "claimed"),
    [
        ("plugin: ashlar.stack.cloud", True),
        ("plugin: ashlar.stack.clod", True),
        ("provider: aws", True),
        ("", True),
        ("plugin: amazon.aws.aws_ec2", False),
        ("plugin: ashlar.stack.terraform", False),
        ("all: {hosts: {a: {}}}", False),
    ],
)
def test_what_is_claimed(text: str, claimed: bool, tmp_path: Path) -> None:
    for name in ("10-nodes.cloud.yml", "cloud.yaml"):
        (tmp_path / name).write_text(text)
        assert plugin.InventoryModule().verify_file(str(tmp_path / name)) is claimed
    (tmp_path / "10-nodes.yml").write_text(text)
    assert not plugin.InventoryModule().verify_file(str(tmp_path / "10-nodes.yml"))


def test_any_of_several_values(inventory: Inventory, nova: Replay, google: Replay) -> None:
    data = inventory({**OPENSTACK, "filters": {"ashlar_site": ["prod", "staging"], "ashlar_classes": "worker"}})
    assert list(data.hosts) == ["prod-worker-1", "staging-worker-1"]
    with pytest.raises(AnsibleParserError):
        inventory({**GCE, "endpoint": google.url, "filters": {"ashlar_site": ["prod", 'a"b']}})
    sent = next(asked.query["filter"] for asked in google.asked if "filter" in asked.query)
    assert sent == '((labels.ashlar_site = "prod") OR (labels.ashlar_site = "a\\"b")) (status = "RUNNING")'


def test_ssh_goes_through_the_bastion(inventory: Inventory, nova: Replay, tmp_path: Path) -> None:
    ssh = tmp_path / "site" / "credentials" / "ssh"
    ssh.mkdir(parents=True)
    (ssh / "known_hosts").write_text("")
    data = inventory({**OPENSTACK, "bastion": {"host": "bastion.example.com", "user": "jump", "port": 2222}})
    first = data.hosts["prod-control-1"].vars
    assert first["ansible_host"] == "10.99.0.11"
    assert "-p 2222" in first["ansible_ssh_common_args"] and str(ssh / "known_hosts") in first["ansible_ssh_common_args"]
    assert "ansible_ssh_common_args" in inventory({**OPENSTACK, "use_bastion": False}).hosts["prod-control-1"].vars


def test_the_command_says_one_error_and_no_secret(nova: Replay, command: Callable[..., Any]) -> None:
    nova.routes["/one/v2.1/servers"] = lambda asked: Answer(403, {"forbidden": {"code": 403, "message": f"not with {asked.headers['x-auth-token']}"}})
    said = command(OPENSTACK, "-vvvv")
    assert said.code == 4
    assert said.stderr.count("[ERROR]") == 1
    assert "may not ask" in said.stderr
    assert "Traceback" not in said.stderr + said.stdout
    assert not any(secret in said.stderr + said.stdout for secret in SECRETS)


def test_the_command_says_no_secret_when_all_is_well(google: Replay, command: Callable[..., Any]) -> None:
    said = command({**GCE, "endpoint": google.url}, "-vvvv")
    assert said.code == 0
    for secret in (*SECRETS, private_key().splitlines()[3], "example-startup-secret"):
        assert secret not in said.stderr + said.stdout


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate of 127.0.0.1 that signs itself, and its key, in one file."""
    folder = tmp_path_factory.mktemp("tls")
    program = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run([*program, "-keyout", folder / "key.pem", "-out", folder / "cert.pem"], check=True, capture_output=True, timeout=60)
    both = folder / "both.pem"
    both.write_text((folder / "key.pem").read_text() + (folder / "cert.pem").read_text())
    return both


@pytest.mark.filterwarnings("ignore:Unverified HTTPS request")
def test_certificates_are_checked_by_the_ca_that_is_named(inventory: Inventory, nova: Replay, certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    nova.server.socket = context.wrap_socket(nova.server.socket, server_side=True)
    nova.url = nova.url.replace("http:", "https:")
    monkeypatch.setenv("OS_AUTH_URL", f"{nova.url}/v3")
    with pytest.raises(AnsibleParserError, match="is not trusted. Name the file of its CA in the option ca_path"):
        inventory(OPENSTACK)
    assert len(inventory({**OPENSTACK, "ca_path": str(certificate.with_name("cert.pem"))}).hosts) == 3
    assert len(inventory({**OPENSTACK, "validate_certs": False}).hosts) == 3
    monkeypatch.setenv("OS_CACERT", str(certificate.with_name("cert.pem")))
    assert len(inventory(OPENSTACK).hosts) == 3


def test_attempts_have_an_end_and_pauses_a_limit() -> None:
    pauses: list[float] = []

    def call() -> None:
        raise Transient(CloudError("down"), 3600.0 if len(pauses) == 2 else 0.0)

    with pytest.raises(CloudError, match="down"):
        retry(call, 9, pauses.append, lambda: 1.0)
    assert pauses == [0.5, 1, LONGEST_PAUSE, 4, 8, 16, LONGEST_PAUSE, LONGEST_PAUSE]


def test_one_region_that_fails_fails_all() -> None:
    def broken() -> list[Instance]:
        raise CloudError("no")

    with pytest.raises(Exception) as caught:
        in_regions({"a": list, "b": broken, "c": broken})
    assert [error.where for error in caught.value.errors] == ["b", "c"]  # type: ignore[attr-defined]


def instance(name: str, classes: str = "worker", **changes: Any) -> Instance:
    return Instance(
        **{
            "id": f"i-{name}",
            "name": name,
            "region": "r",
            "zone": "r1",
            "running": True,
            "private_ip": "10.0.0.1",
            "tags": {"ashlar_classes": classes},
            **changes,
        }
    )


SOURCES = Sources("x.yml", "tag", user="admin")


@pytest.mark.parametrize("said", ["control_worker", "control,worker", "control worker", "control-worker", "control;worker", "control:worker"])
def test_classes_are_separated_by_anything_but_letters(said: str) -> None:
    assert machines_of([instance("a", said)], SOURCES).machines["a"].classes == ("control", "worker")


def test_order_is_that_of_names_as_in_a_state() -> None:
    names = ["p-worker-2", "p-control-1", "p-worker-10", "p-worker-1"]
    assert list(machines_of([instance(name) for name in names], SOURCES).machines) == sorted(names)


def test_volumes_are_called_by_tag_then_by_name_then_by_id() -> None:
    disks = (
        Disk("vol-1", "whatever", 1, "/dev/1", {"ashlar_volume": "data"}),
        Disk("vol-2", "a-logs", 1, "/dev/2"),
        Disk("vol-3", "Something Else", 1, "/dev/3"),
        Disk("vol-4", "", 1, "/dev/4"),
    )
    machine = machines_of([instance("a", disks=disks)], SOURCES).machines["a"]
    assert [volume.name for volume in machine.volumes] == ["data", "logs", "vol-3", "vol-4"]


def test_instances_come_back_from_the_cache_as_they_were() -> None:
    one = instance("a", disks=(Disk("v", "n", 1, "/dev/1", {"k": "v"}),), public_ip="203.0.113.1")
    assert restored(json.loads(json.dumps(stored([one])))) == [one]


def test_words_of_servers_lose_secrets() -> None:
    text = without("Bearer abcdefghijkl\nwith hunter22 at https://user:pass@example.com " + "x" * 500, ["hunter22", None, ""])
    assert text.startswith("Bearer *** with *** at https://user:***@example.com x")
    assert len(text) == 400
