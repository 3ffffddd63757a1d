# SPDX-License-Identifier: Apache-2.0
"""A copy of a root in which every resource of the cloud is a `terraform_data` that remembers its arguments.

So every expression, loop and condition of the root is worked out by the real program, and it says what another count would change,
though no provider is there. What a cloud would answer (ids, addresses) is made up by ``ANSWERS``; it is unknown until applied, as there.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .hcl import BLOCK, Module, arguments, is_blocks, read

SETTINGS = 'terraform {\n  required_version = ">= 1.6"\n}\n'
_TOP = re.compile(r'^(resource|data|provider) "[^"]+"( "[^"]+")? \{\n.*?^\}\n', re.MULTILINE | re.DOTALL)
_REFERENCE = re.compile(r'(?<![\w."])(data\.)?((?:aws|google)_[a-z0-9_]+)\.([a-z_][a-z0-9_]*)')
_DEPENDS = re.compile(r"^( *depends_on\s*= )\[(.*)\]$", re.MULTILINE)

ADDRESS = 'cidrhost("10.20.128.0/17", parseint(substr(sha256(KEY), 0, 3), 16) + 10)'
PUBLIC = 'format("198.51.100.%d", parseint(substr(sha256(KEY), 0, 2), 16))'
ANSWERS: dict[str, dict[str, str]] = {
    "aws_instance.node": {
        "id": '"i-${substr(sha256(KEY), 0, 17)}"',
        "private_ip": ADDRESS,
        "public_ip": f'(var.public || each.value.public ? {PUBLIC} : "")',
        "availability_zone": "each.value.zone",
    },
    "aws_eip.bastion": {"public_ip": PUBLIC},
    "aws_ebs_volume.data": {"id": '"vol-${substr(sha256(KEY), 0, 17)}"'},
    "aws_lb.front": {"dns_name": '"${var.name}.elb.example.com"', "zone_id": '"Z1"'},
    "data.aws_route53_zone.site": {"zone_id": '"Z2"'},
    "google_compute_instance.node": {
        "instance_id": "tostring(parseint(substr(sha256(KEY), 0, 8), 16))",
        "network_interface": f"[{{ network_ip = {ADDRESS}, access_config = var.public || each.value.public ? [{{ nat_ip = {PUBLIC} }}] : [] }}]",
    },
    "google_compute_address.bastion": {"address": PUBLIC},
    "google_compute_address.front": {"address": PUBLIC},
}


def stubbed(root: Path, target: Path) -> Path:
    """The folder of the copied root, under ``target``, beside a copy of what the roots share."""
    modules = root.parent / "modules"
    shutil.copytree(modules, target / "modules", dirs_exist_ok=True)
    for folder in (root, *(file.parent for file in sorted(root.glob("modules/*/main.tf")))):
        _stub(read(folder), target / root.name / folder.relative_to(root))
    return target / root.name


def _stub(module: Module, target: Path) -> None:
    target.mkdir(parents=True)
    for file in sorted(module.folder.glob("*.tf")):
        content = SETTINGS if file.name == "versions.tf" else _renamed(_TOP.sub("", file.read_text()))
        (target / file.name).write_text(content)
    blocks = [(name, "", body) for name, body in module.resources.items()] + [(name, "data.", body) for name, body in module.data.items()]
    (target / "stubs.tf").write_text("\n".join(_resource(type_, name, prefix, body) for (type_, name), prefix, body in blocks))


def _resource(type_: str, name: str, prefix: str, body: Mapping[str, Any]) -> str:
    stub = _name(prefix, type_, name)
    loop = next((key for key in ("for_each", "count") if key in body), "")
    key = {"for_each": "each.key", "count": "tostring(count.index)", "": '"only"'}[loop]
    given = {inner: value for inner, value in arguments(body) if inner not in ("for_each", "count", "depends_on", "lifecycle")}
    answers = {"id": f'"{stub}-${{KEY}}"', "arn": f'"arn:{stub}-${{KEY}}"', **ANSWERS.get(f"{prefix}{type_}.{name}", {})}
    made_up = ", ".join(f"{attribute} = {code.replace('KEY', key)}" for attribute, code in answers.items())
    lines = [f'resource "terraform_data" "{stub}" {{']
    if loop:
        lines.append(f"  {loop} = {_code(body[loop])}")
    lines.append(f"  input = merge({_code({**given, BLOCK: True})}, {{ {made_up} }})")
    if "depends_on" in body:
        lines.append(f"  depends_on = [{', '.join(_depended(item) for item in body['depends_on'])}]")
    lines.append("}")
    value = {
        "for_each": f"{{ for key, made in terraform_data.{stub} : key => made.output }}",
        "count": f"[for made in terraform_data.{stub} : made.output]",
        "": f"terraform_data.{stub}.output",
    }[loop]
    return _renamed("\n".join(lines)) + f"\nlocals {{\n  stub_{stub} = {value}\n}}\n"


def _code(value: Any) -> str:
    """A parsed value as an expression; a block is an object, blocks are a list of them."""
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, dict):
        entries = {name: _code(inner) for name, inner in arguments(value) if name != "dynamic"}
        for block in value.get("dynamic", []):
            for label, inner in arguments(block):
                content = _code(inner["content"][0])
                content = re.sub(rf"(?<![\w.]){label}\.(key|value)\b", rf"{label}_\1", content)
                entries[label] = f"[for {label}_key, {label}_value in {_code(inner['for_each'])} : {content}]"
        return "{ " + ", ".join(f'"{name}" = {code}' for name, code in entries.items()) + " }"
    if isinstance(value, list):
        assert not is_blocks(value) or all(isinstance(item, dict) for item in value)
        return f"[{', '.join(_code(item) for item in value)}]"
    text = str(value)
    return f"({text[2:-1]})" if text.startswith("${") else text


def _name(prefix: str, type_: str, name: str) -> str:
    return f"{'data_' if prefix else ''}{type_}__{name}"


def _renamed(content: str) -> str:
    def depends(match: re.Match[str]) -> str:
        return f"{match[1]}[{', '.join(_depended(item) for item in match[2].split(','))}]"

    content = _DEPENDS.sub(depends, content)
    return _REFERENCE.sub(lambda match: f"local.stub_{_name(match[1] or '', match[2], match[3])}", content)


def _depended(item: str) -> str:
    kind, name = item.strip().removeprefix("${").removesuffix("}").split(".")
    return item if kind == "terraform_data" else f"terraform_data.{_name('', kind, name)}"
