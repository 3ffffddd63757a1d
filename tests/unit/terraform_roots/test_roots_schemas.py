# SPDX-License-Identifier: Apache-2.0
"""Every resource, argument, block, reference and module call of the AWS and Google roots, against the providers' published schemas."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from .checker import check_root, reachable
from .hcl import read
from .schemas import Schemas
from .tofu import TERRAFORM, find

HEAD = 'variable "zone" {\n  description = "Zone."\n  type = string\n}\n'
VOLUME = 'resource "aws_ebs_volume" "a" {\n  availability_zone = var.zone\n  size = 10\n}\n'
INSTANCE = (
    'resource "google_compute_instance" "a" {{\n  name = "a"\n  machine_type = "b"\n  zone = var.zone\n  boot_disk {{}}\n  network_interface {{}}\n{}}}\n'
)
CALL = 'module "child" {{\n  source = "./child"\n  size = 1\n{}}}\noutput "x" {{\n  description = "X."\n  value = [var.zone, module.child.id]\n}}\n'
CHILD = (
    'variable "size" {\n  description = "Size."\n  type = number\n}\nvariable "type" {\n  description = "Type."\n  type = string\n  default = null\n}\n'
    'output "id" {\n  description = "Both."\n  value = [var.size, var.type]\n}\n'
)

BAD = {
    "misspelt argument": (VOLUME.replace("size", "sise"), "aws_ebs_volume.a: sise is no argument. Did you mean size?"),
    "missing argument": (VOLUME.replace("availability_zone = var.zone", "type = var.zone"), "aws_ebs_volume.a: availability_zone is missing, and required."),
    "unknown block": (INSTANCE.format("  root_disk {}\n"), "google_compute_instance.a.root_disk: root_disk is no block."),
    "missing block": (INSTANCE.format("").replace("  boot_disk {}\n", ""), "google_compute_instance.a: boot_disk is missing, and required."),
    "argument in a block": (INSTANCE.format("").replace("boot_disk {}", "boot_disk {\n    imag = 1\n  }"), "a.boot_disk: imag is no argument."),
    "argument in a block of a block": (
        INSTANCE.format("").replace("network_interface {}", "network_interface {\n    access_config {\n      natip = 1\n    }\n  }"),
        "a.network_interface.access_config: natip is no argument. Did you mean nat_ip?",
    ),
    "block twice": (INSTANCE.format("  boot_disk {}\n"), "google_compute_instance.a: the block boot_disk stands 2 times. Allowed: once."),
    "block as an argument": (INSTANCE.format('  scheduling = "x"\n'), "scheduling is given as an argument. It is a block"),
    "argument as a block": (INSTANCE.format("  metadata {}\n"), "metadata is given as a block. It is an argument"),
    "unknown dynamic block": (
        INSTANCE.format('  dynamic "disc" {\n    for_each = []\n    content {}\n  }\n'),
        "google_compute_instance.a.disc: disc is no block.",
    ),
    "text for a number": (VOLUME.replace("10", '"ten"'), 'aws_ebs_volume.a: size is "ten". Allowed: a number.'),
    "text for a boolean": (VOLUME.replace("size = 10", 'encrypted = "yes"'), 'encrypted is "yes". Allowed: true, false.'),
    "text for a list": (INSTANCE.format('  tags = "a"\n'), 'tags is "a". Allowed: a list.'),
    "list for a text": (VOLUME.replace("size = 10", "type = []"), "type is a list. Allowed: a string."),
    "list for a map": (VOLUME.replace("size = 10", "tags = []"), "tags is []. Allowed: a map."),
    "unknown resource": (HEAD and VOLUME.replace("aws_ebs_volume", "aws_ebs_volumes"), "aws_ebs_volumes is no resource. Did you mean aws_ebs_volume"),
    "unknown data source": ('data "aws_amis" "a" {\n  x = var.zone\n}\n', "data.aws_amis.a: aws_amis is no data source."),
    "unknown provider": ('resource "azure_disk" "a" {\n  zone = var.zone\n}\n', "azure_disk is no resource. Allowed: those of aws, google."),
    "argument of a provider": ('provider "aws" {\n  regiun = var.zone\n}\n', "provider aws: regiun is no argument. Did you mean region?"),
    "ignored argument": (VOLUME.replace("size = 10", "lifecycle {\n    ignore_changes = [zones]\n  }"), "ignore_changes names zones, which is no argument."),
    "unknown module input": (CALL.format("  kind = 2\n"), "module child: kind is no input of ./child."),
    "missing module input": (CALL.format("").replace("  size = 1\n", ""), "module child: the input size of ./child is missing, and required."),
    "missing module": (
        CALL.format("").replace("./child", "./children").replace(", module.child.id", ""),
        "module child: source is ./children, and there is no such",
    ),
    "module from elsewhere": (CALL.format("").replace("./child", "hashicorp/x/aws").replace(", module.child.id", ""), "Allowed: a folder of this repository."),
    "unknown module output": (CALL.format("").replace("child.id", "child.ids"), "module.child.ids: ids is no output of it. Did you mean id?"),
    "unknown module call": (CALL.format("").replace("module.child", "module.kid"), "module.kid.id: there is no module kid."),
    "undeclared variable": (VOLUME.replace("10", "var.gib + length(var.zone)"), "var.gib is not declared."),
    "unused variable": (VOLUME.replace("var.zone", '"var.zone"'), "variable zone is declared and not used."),
    "undeclared local": (VOLUME.replace("10", "local.gib"), "local.gib is not declared."),
    "unused local": (VOLUME + "locals {\n  a = 1\n}\n", "local a is declared and not used."),
    "undeclared resource": (VOLUME.replace("10", "aws_ebs_volume.b.size"), "aws_ebs_volume.b.size is not declared."),
    "undeclared data source": (VOLUME.replace("10", "data.aws_ami.b.id"), "data.aws_ami.b.id is not declared."),
    "unknown attribute": (VOLUME + 'output "x" {\n  description = "X."\n  value = aws_ebs_volume.a.ids\n}\n', "ids is nothing that aws_ebs_volume exports."),
    "unknown attribute in a text": (VOLUME.replace("size = 10", 'type = "a-${aws_ebs_volume.a["x"].idd}-b"'), "idd is nothing that aws_ebs_volume exports."),
    "unknown attribute of a block": (
        INSTANCE.format("  description = google_compute_instance.a.network_interface[0].access_config[0].nat_ips\n"),
        "nat_ips is nothing that google_compute_instance exports. Did you mean natIp?",
    ),
    "output without a description": (VOLUME + 'output "x" {\n  value = aws_ebs_volume.a.id\n}\n', "output x has no description."),
    "variable without a type": (VOLUME + 'variable "x" {\n  description = "X."\n}\nlocals {\n  b = [var.x, local.b]\n}\n', "variable x has no type."),
}


@pytest.mark.parametrize("name", ["aws", "gce"])
def test_a_root_and_its_modules_fit_the_providers_schemas(name: str, schemas: dict[str, Schemas]) -> None:
    assert check_root(TERRAFORM / name, schemas) == []


@pytest.mark.parametrize("name", ["aws", "gce"])
def test_no_module_of_a_root_is_passed_over(name: str) -> None:
    seen = {module.folder for module in reachable(TERRAFORM / name)}
    there = {file.parent.resolve() for file in (TERRAFORM / name).rglob("*.tf")} | {file.parent.resolve() for file in (TERRAFORM / "modules").rglob("*.tf")}
    assert seen == there
    assert sum(len(module.resources) for module in reachable(TERRAFORM / name)) > 15


@pytest.mark.parametrize("case", BAD)
def test_what_is_wrong_is_one_message(case: str, schemas: dict[str, Schemas], tmp_path: Path) -> None:
    code, expected = BAD[case]
    (tmp_path / "main.tf").write_text(HEAD + code)
    (tmp_path / "child").mkdir()
    (tmp_path / "child" / "main.tf").write_text(CHILD)
    problems = check_root(tmp_path, schemas)
    assert len(problems) == 1 and expected in problems[0], problems


@pytest.mark.parametrize("code", [VOLUME, INSTANCE.format(""), CALL.format("  type = var.zone\n")], ids=["volume", "instance", "call"])
def test_what_is_right_is_not_refused(code: str, schemas: dict[str, Schemas], tmp_path: Path) -> None:
    (tmp_path / "main.tf").write_text(HEAD + code)
    (tmp_path / "child").mkdir()
    (tmp_path / "child" / "main.tf").write_text(CHILD)
    assert check_root(tmp_path, schemas) == []


@pytest.mark.parametrize(
    ("file", "right", "wrong"),
    [
        ("modules/nodes/main.tf", "http_tokens ", "http_token "),
        ("modules/volumes/main.tf", "instance_id ", "instance "),
        ("modules/security/main.tf", "cidr_ipv4 ", "cidr_blocks "),
        ("main.tf", "kms_key   = var.kms_key\n  snapshot", "kms_keys  = var.kms_key\n  snapshot"),
    ],
)
def test_a_slip_in_the_real_root_is_found(file: str, right: str, wrong: str, schemas: dict[str, Schemas], tmp_path: Path) -> None:
    shutil.copytree(TERRAFORM / "aws", tmp_path / "aws")
    shutil.copytree(TERRAFORM / "modules", tmp_path / "modules")
    path = tmp_path / "aws" / file
    assert right in path.read_text()
    path.write_text(path.read_text().replace(right, wrong))
    assert any(wrong.split()[0] in problem for problem in check_root(tmp_path / "aws", schemas))


def test_without_a_program_it_is_said_what_to_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("terraform_roots.tofu.TERRAFORM", tmp_path / "terraform")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("ASHLAR_TOFU", raising=False)
    with pytest.raises(RuntimeError, match="make tools"):
        find()


def test_all_of_terraform_is_formatted(program: str) -> None:
    done = subprocess.run([program, "fmt", "-check", "-recursive", "-list=true"], cwd=TERRAFORM, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, f"Run `tofu fmt -recursive terraform`: {done.stdout}"


@pytest.mark.parametrize("name", ["aws", "gce"])
def test_providers_are_pinned_in_the_root_alone(name: str) -> None:
    root, *others = reachable(TERRAFORM / name)
    assert "version" in str(root.settings["required_providers"])
    assert "~>" in str(root.settings["required_providers"])
    for module in [root, *others]:
        assert ">= 1.6" in str(module.settings["required_version"])
        assert module is root or "~>" not in str(module.settings)


def test_a_root_says_its_machines_and_nothing_else() -> None:
    for name in ("aws", "gce"):
        outputs = read(TERRAFORM / name).outputs
        assert list(outputs) == ["nodes"]
        assert outputs["nodes"]["value"] == "${module.machines.nodes}"
