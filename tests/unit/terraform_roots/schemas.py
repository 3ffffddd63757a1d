# SPDX-License-Identifier: Apache-2.0
"""What the AWS and Google providers of Terraform accept, read from their packages for CDKTF.

A package holds a jsii assembly: an interface for the arguments of each resource (which of them are optional), a class for what
it exports, and JavaScript that says Terraform's own names and which of them are blocks. That is drawn out once into a small zip
with one JSON document a resource, under ``$ASHLAR_CACHE/schemas`` (default ``~/.cache/ashlar/schemas``); later runs read only that.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[3]
REQUIREMENTS = ROOT / "requirements-schemas.txt"
PROVIDERS = {"aws": "cdktf_cdktf_provider_aws", "google": "cdktf_cdktf_provider_google"}
FORMAT = 2
"""Of the zips; counted up when what is drawn out changes."""

_ATTRIBUTE = re.compile(
    r'^ +(?P<name>"?[a-z0-9_]+"?): \{\n +value: (?P<value>.+),\n +isBlock: (?P<block>true|false),\n'
    r' +type: "(?P<kind>\w+)",\n +storageClassType: "(?P<of>\w+)",',
    re.MULTILINE,
)
_FUNCTION = re.compile(r"^function (\w+)ToHclTerraform\(struct\) \{$(.*?)^\}$", re.MULTILINE | re.DOTALL)
_CLASS = re.compile(r"^    synthesizeHclAttributes\(\) \{$(.*?)^    \}$", re.MULTILINE | re.DOTALL)
_TYPE = re.compile(r'^(\w+)\.tfResourceType = "(\w+)";$', re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Argument:
    """``kind``: simple, list, set or map. ``of``: what is in it, string, number, boolean or the name of a structure.

    ``single``: a block that may stand only once.
    """

    required: bool
    block: bool
    kind: str
    of: str
    single: bool = False


@dataclass(frozen=True)
class Schema:
    """What a resource, a data source or a provider accepts and exports.

    ``structures``: name -> arguments, for blocks. ``exports``: name of a structure, or empty for the resource itself -> attribute in
    camel case -> the structure behind it, empty where there is none.
    """

    arguments: Mapping[str, Argument]
    structures: Mapping[str, Mapping[str, Argument]]
    exports: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Schemas:
    """All of a provider. ``file`` is one of the zips."""

    file: Path

    @cached_property
    def _archive(self) -> zipfile.ZipFile:
        # Open as long as the tests run: its table of thousands of entries is read once.
        return zipfile.ZipFile(self.file)

    @cached_property
    def _names(self) -> frozenset[str]:
        return frozenset(self._archive.namelist())

    @cached_property
    def _found(self) -> dict[str, Schema]:
        return {}

    def find(self, kind: str, name: str) -> Schema | None:
        """The schema of a ``resource``, ``data`` or ``provider``; None when the provider knows no such."""
        entry = f"{kind}/{name}.json"
        if entry not in self._names:
            return None
        if entry not in self._found:
            raw = json.loads(self._archive.read(entry))
            self._found[entry] = Schema(
                {key: Argument(*value) for key, value in raw["arguments"].items()},
                {struct: {key: Argument(*value) for key, value in arguments.items()} for struct, arguments in raw["structures"].items()},
                raw["exports"],
            )
        return self._found[entry]

    def known(self, kind: str) -> list[str]:
        """Names of all resources, data sources or providers."""
        return sorted(name.split("/")[1].removesuffix(".json") for name in self._names if name.startswith(f"{kind}/"))


def cached() -> dict[str, Schemas]:
    """Provider -> its schemas, fetched and drawn out where that was not done before.

    :raises RuntimeError: they can't be fetched.
    """
    folder = Path(os.environ.get("ASHLAR_CACHE") or Path.home() / ".cache" / "ashlar") / "schemas"
    pins = sha256(REQUIREMENTS.read_bytes()).hexdigest()[:12]
    files = {name: folder / f"{name}-{pins}-{FORMAT}.zip" for name in PROVIDERS}
    if not all(file.is_file() for file in files.values()):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            _fetch(Path(scratch))
            for name, package in PROVIDERS.items():
                wheel = next(Path(scratch).glob(f"{package}-*.whl"))
                made = Path(scratch) / f"{name}.zip"
                draw_out(wheel, made)
                shutil.move(made, files[name])
    return {name: Schemas(file) for name, file in files.items()}


def _fetch(folder: Path) -> None:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps", "--require-hashes"]
    done = subprocess.run([*command, "--requirement", str(REQUIREMENTS), "--dest", str(folder)], capture_output=True, text=True, timeout=600, check=False)
    if done.returncode:
        raise RuntimeError(
            f"The providers' schemas ({REQUIREMENTS.name}) can't be fetched by pip: {done.stderr.strip()[-400:]}. Run the tests once with a network."
        )


def draw_out(wheel: Path, target: Path) -> None:
    """One JSON document for each resource, data source and provider of a CDKTF package, into the zip ``target``."""
    scripts: dict[str, str] = {}
    assembly: Any = None
    with zipfile.ZipFile(wheel) as package:
        inner = next(name for name in package.namelist() if name.endswith(".jsii.tgz"))
        with package.open(inner) as stream, tarfile.open(fileobj=stream, mode="r|gz") as archive:
            for member in archive:
                parts = member.name.split("/")
                content = archive.extractfile(member) if member.isfile() and (member.name.endswith("/.jsii") or parts[-1] == "index.js") else None
                if content is None:
                    continue
                if parts[-1] == ".jsii":
                    assembly = json.load(content)
                elif len(parts) == 4 and parts[1] == "lib":
                    scripts[parts[2]] = content.read().decode()
    by_place: dict[str, dict[str, Any]] = {}
    for declared in assembly["types"].values():
        folder = declared["locationInModule"]["filename"].split("/")[1]
        by_place.setdefault(folder, {})[declared["name"]] = declared
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as archive:
        for folder, script in sorted(scripts.items()):
            for kind, name, document in _documents(script, by_place.get(folder, {})):
                archive.writestr(f"{kind}/{name}.json", json.dumps(document, separators=(",", ":")))


def _documents(script: str, types: Mapping[str, Any]) -> Iterable[tuple[str, str, dict[str, Any]]]:
    found = _TYPE.search(script)
    body = _CLASS.search(script)
    if not found or not body:
        return
    name, terraform_name = found.groups()
    bases = {"cdktf.TerraformProvider": "provider", "cdktf.TerraformDataSource": "data", "cdktf.TerraformResource": "resource"}
    kind = bases[types[name]["base"]]
    structures = {}
    for function, content in _FUNCTION.findall(script):
        struct = function[0].upper() + function[1:]
        structures[struct] = _arguments(content, types.get(struct, {}))
    exports = {"": _exports(types.get(name, {}))}
    for struct in structures:
        exports[struct] = _exports(types.get(f"{struct}OutputReference", {}))
    yield kind, terraform_name, {"arguments": _arguments(body.group(1), types.get(f"{name}Config", {})), "structures": structures, "exports": exports}


def _arguments(script: str, interface: Mapping[str, Any]) -> dict[str, list[Any]]:
    properties = {prop["name"]: prop for prop in interface.get("properties", ())}
    result = {}
    for match in _ATTRIBUTE.finditer(script):
        value = match["value"]
        camel = re.findall(r"(?:struct\.|this\._)(\w+)", value)[0]
        nested = re.search(r"(?<![.\w])(\w+)ToHclTerraform", value)
        of = nested.group(1)[0].upper() + nested.group(1)[1:] if nested else match["of"]
        prop = properties.get(camel, {})
        single = "fqn" in prop.get("type", {})
        result[match["name"].strip('"')] = [not prop.get("optional", False) and bool(prop), match["block"] == "true", match["kind"], of, single]
    return result


def _exports(declared: Mapping[str, Any]) -> dict[str, str]:
    """Attribute -> the structure behind it: a list of them and a reference to one of them are the same here."""
    result = {}
    for prop in declared.get("properties", ()):
        if prop["name"].endswith("Input") or prop["name"] in ("tfResourceType", "internalValue"):
            continue
        fqn = prop.get("type", {}).get("fqn", "")
        struct = re.sub(r"(OutputReference|List|Map)$", "", fqn.rsplit(".", 1)[-1]) if not fqn.startswith("cdktf.") else ""
        result[prop["name"]] = struct
    return result
