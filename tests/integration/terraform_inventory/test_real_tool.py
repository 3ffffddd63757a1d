# SPDX-License-Identifier: Apache-2.0
"""With OpenTofu or Terraform itself: roots, workspaces and backends, as they are before the first apply, after it, and broken."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import boto3
import pytest
from states import aws, bare, configuration, program, resource, state, tool, write

ROOT = """
variable "workers" { default = 2 }
resource "terraform_data" "node" {
  count = var.workers
  input = { private_ip = "10.0.0.${count.index + 1}", role = count.index == 0 ? "control" : "worker", name = "vm-${count.index}" }
}
resource "terraform_data" "secret" { input = sensitive("s3cret-of-the-state") }
"""
OUTPUT = """
output "nodes" {
  value = {
    for one in terraform_data.node : one.output.name => { classes = [one.output.role], private_ip = one.output.private_ip, user = "root", zone = null }
  }
}
output "password" {
  value     = terraform_data.secret.output
  sensitive = true
}
"""
SECRET = "s3cret-of-the-state"


@pytest.fixture(scope="module")
def binary() -> str:
    return tool()


@pytest.fixture
def run(binary: str, tmp_path: Path) -> Any:
    """Runs the tool in the folder root/."""

    def run_(*arguments: str) -> str:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("TF_")}
        done = subprocess.run(
            [binary, f"-chdir={tmp_path / 'root'}", *arguments],
            env={**clean, "TF_CLI_CONFIG_FILE": os.devnull, "CHECKPOINT_DISABLE": "1"},
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run_


@pytest.fixture
def listed(binary: str, tmp_path: Path) -> Any:
    """(exit code, hosts, what was said) of ansible-inventory."""

    def listed_(**environment: str) -> tuple[int, dict[str, Any], str]:
        done = program("-i", "10-nodes.terraform.yml", "--list", folder=tmp_path, environment={"ASHLAR_TOFU": binary, **environment})
        hosts = bare(json.loads(done.stdout))["_meta"]["hostvars"] if done.stdout else {}
        for variables in hosts.values():
            # ansible-core adds it to every host where facts are not injected as variables.
            assert variables.pop("ansible_local") == {}
        assert SECRET not in done.stdout + done.stderr
        return done.returncode, hosts, done.stderr.strip()

    return listed_


def test_a_root_from_nothing_to_its_machines(tmp_path: Path, run: Any, listed: Any) -> None:
    write(tmp_path / "root" / "main.tf", ROOT + OUTPUT)
    configuration(tmp_path, sources=[{"root": "root"}])
    assert listed() == (0, {}, "No machines yet: root has nothing applied yet. playbooks/machines.yml applies a root.")
    run("init")
    run("apply", "-auto-approve")
    code, hosts, said = listed()
    assert (code, said) == (0, "")
    assert hosts == {
        "vm-0": {"ansible_host": "10.0.0.1", "ansible_user": "root", "node_address": "10.0.0.1", "node_classes": ["control"]},
        "vm-1": {"ansible_host": "10.0.0.2", "ansible_user": "root", "node_address": "10.0.0.2", "node_classes": ["worker"]},
    }
    run("apply", "-auto-approve", "-var=workers=3")
    # A settings file that isn't there makes the tool print a warning before the JSON.
    code, hosts, said = listed(TF_CLI_CONFIG_FILE=str(tmp_path / "absent"))
    assert (code, sorted(hosts), said) == (0, ["vm-0", "vm-1", "vm-2"], "")
    run("destroy", "-auto-approve")
    assert listed()[:2] == (0, {})


def test_a_root_without_the_output_is_adopted(tmp_path: Path, run: Any, listed: Any) -> None:
    write(tmp_path / "root" / "main.tf", ROOT)
    mapping = {"private_ip": "output.private_ip", "name": "output.name", "classes": "output.role", "user": {"value": "root"}}
    configuration(tmp_path, sources=[{"root": "root", "prefix": "x-"}], resources={"terraform_data": mapping})
    run("init")
    run("apply", "-auto-approve", "-target=terraform_data.node")
    code, hosts, said = listed()
    assert (code, said) == (0, "")
    assert {name: one["node_classes"] for name, one in hosts.items()} == {"x-vm-0": ["control"], "x-vm-1": ["worker"]}
    # One that is not a machine by this mapping is one too many.
    run("apply", "-auto-approve")
    assert "terraform_data.secret" in listed()[2]


def test_an_apply_that_did_not_come_to_its_end_leaves_machines_pending(tmp_path: Path, run: Any, listed: Any) -> None:
    write(tmp_path / "root" / "main.tf", ROOT)
    configuration(tmp_path, sources=[{"root": "root"}])
    run("init")
    run("apply", "-auto-approve")
    write(tmp_path / "root" / "outputs.tf", OUTPUT)
    code, hosts, said = listed()
    assert (code, hosts) == (0, {})
    assert 'root has no value for its output "nodes" yet: its last apply did not come to an end.' in said


def test_workspaces(tmp_path: Path, run: Any, listed: Any) -> None:
    write(tmp_path / "root" / "main.tf", ROOT + OUTPUT)
    configuration(tmp_path, sources=[{"root": "root", "workspace": "eu"}])
    run("init")
    assert "has no workspace eu. There are: default. Correct workspace, or make it" in listed()[2]
    run("workspace", "new", "eu")
    assert listed()[0] == 0
    run("apply", "-auto-approve")
    run("workspace", "select", "default")
    assert sorted(listed()[1]) == ["vm-0", "vm-1"]


def test_a_root_whose_state_is_damaged_or_locked(tmp_path: Path, run: Any, listed: Any) -> None:
    write(tmp_path / "root" / "main.tf", ROOT + OUTPUT)
    configuration(tmp_path, sources=[{"root": "root"}])
    run("init")
    run("apply", "-auto-approve")
    file = tmp_path / "root" / "terraform.tfstate"
    whole = file.read_text()
    file.write_text(whole[: len(whole) // 2])
    code, hosts, said = listed()
    assert (code, hosts, said.count("ERROR")) == (4, {}, 1)
    assert "The state is damaged. Restore it" in said
    file.write_text(json.dumps({**json.loads(whole), "version": 9}))
    code, hosts, said = listed()
    assert (code, hosts, said.count("ERROR")) == (4, {}, 1)
    file.write_text(whole)
    write(tmp_path / "root" / ".terraform.tfstate.lock.info", {"ID": "1-2", "Who": "anna"})
    assert listed()[0] == 0, "a run that was killed left it"
    with file.open("rb+") as held:
        fcntl.lockf(held, fcntl.LOCK_EX)
        assert "root is locked by anna: a run is under way" in listed()[2]


def test_a_root_that_is_not_initialised_names_the_command(tmp_path: Path, binary: str, listed: Any) -> None:
    write(tmp_path / "root" / "main.tf", 'terraform {\n  backend "http" {}\n}\n' + OUTPUT)
    configuration(tmp_path, sources=[{"root": "root"}])
    code, hosts, said = listed()
    assert (code, hosts, said.count("ERROR")) == (4, {}, 1)
    assert f"The root is not initialised here. Run `{Path(binary).name} -chdir=root init`" in said


def test_the_local_backend(tmp_path: Path, listed: Any) -> None:
    configuration(tmp_path, sources=[{"backend": {"type": "local", "config": {"path": "states/prod.tfstate"}}}], user="root")
    assert "backend local has no state yet" in listed()[2]
    write(tmp_path / "states" / "prod.tfstate", state(resources=[resource("aws_instance", aws(1))]))
    assert sorted(listed()[1]) == ["node-1"]
    configuration(tmp_path, sources=[{"backend": {"type": "local", "config": {"path": "states/prod.tfstate"}}, "workspace": "eu"}], user="root")
    code, hosts, said = listed()
    assert (code, hosts, said.count("ERROR")) == (4, {}, 1)
    assert "has no workspace eu. There are: default" in said
    write(tmp_path / "states" / "prod.tfstate", "damaged")
    configuration(tmp_path, sources=[{"backend": {"type": "local", "config": {"path": "states/prod.tfstate"}}}])
    assert (listed()[0], listed()[2].count("ERROR")) == (4, 1)


class States(BaseHTTPRequestHandler):
    """The http backend's protocol, for whoever knows the password: GET alone, since nothing else may be asked."""

    def do_GET(self) -> None:
        server: Any = self.server
        server.asked.append((self.command, self.path))
        allowed = self.headers.get("Authorization") == "Basic cmVhZGVyOnMzY3JldC1vZi10aGUtc3RhdGU="
        body = server.states.get(self.path) if allowed else None
        self.send_response(403 if not allowed else 404 if body is None else 200)
        self.send_header("Content-Length", str(len(body or b"")))
        self.end_headers()
        self.wfile.write(body or b"")

    def __getattr__(self, name: str) -> Any:
        if name.startswith("do_"):
            return self.do_GET
        raise AttributeError(name)

    def log_message(self, *_: Any) -> None:
        """Nothing is printed."""


@pytest.fixture
def served() -> Iterator[Any]:
    with ThreadingHTTPServer(("127.0.0.1", 0), States) as server:
        vars(server).update(states={}, asked=[])
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def test_the_http_backend(tmp_path: Path, listed: Any, served: Any) -> None:
    address = f"http://127.0.0.1:{served.server_port}/platform"
    backend = {"type": "http", "config": {"address": address, "username": "reader", "lock_address": address, "retry_max": 0}}
    configuration(tmp_path, sources=[{"backend": backend}], user="root")
    code, hosts, said = listed(TF_HTTP_PASSWORD=SECRET)
    assert (code, hosts) == (0, {})
    assert said.startswith("No machines yet: backend http has n")
    two = resource("aws_instance", {"index_key": 0, "attributes": aws(1)}, {"index_key": 1, "attributes": aws(2)})
    served.states["/platform"] = json.dumps(state(resources=[two])).encode()
    code, hosts, said = listed(TF_HTTP_PASSWORD=SECRET)
    assert (code, sorted(hosts), said) == (0, ["node-1", "node-2"], "")
    code, hosts, said = listed(TF_HTTP_PASSWORD="wrong password")
    assert (code, hosts, said.count("ERROR")) == (4, {}, 1)
    assert "Give credentials" in said
    assert "wrong password" not in said
    served.states["/platform"] = b'{"version": 4, "outputs"'
    assert (listed(TF_HTTP_PASSWORD=SECRET)[0], listed(TF_HTTP_PASSWORD=SECRET)[2].count("ERROR")) == (4, 1)
    assert {command for command, _ in served.asked} == {"GET"}


def test_the_s3_backend(tmp_path: Path, listed: Any, moto: str) -> None:
    config = {
        "bucket": "states",
        "key": "platform/terraform.tfstate",
        "region": "us-east-1",
        "endpoints": {"s3": moto},
        "use_path_style": True,
        "skip_credentials_validation": True,
        "skip_metadata_api_check": True,
        "skip_requesting_account_id": True,
        "skip_region_validation": True,
    }
    configuration(tmp_path, sources=[{"backend": {"type": "s3", "config": config}, "workspace": "eu"}], user="root")
    keys = {"AWS_ACCESS_KEY_ID": "reader", "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_EC2_METADATA_DISABLED": "true", "NO_PROXY": "127.0.0.1"}
    code, hosts, said = listed(**keys)
    assert (code, said.count("ERROR")) == (4, 1), said
    s3 = boto3.client("s3", endpoint_url=moto, region_name="us-east-1", aws_access_key_id="reader", aws_secret_access_key=SECRET)
    s3.create_bucket(Bucket="states")
    assert "has no workspace eu. There are: default" in listed(**keys)[2]
    s3.put_object(Bucket="states", Key="env:/eu/platform/terraform.tfstate", Body=json.dumps(state(resources=[resource("aws_instance", aws(7))])))
    code, hosts, said = listed(**keys)
    assert (code, sorted(hosts), said) == (0, ["node-7"], "")
