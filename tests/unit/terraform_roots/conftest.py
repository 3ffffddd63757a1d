# SPDX-License-Identifier: Apache-2.0
"""The program, the providers' schemas, and the two roots with made-up clouds, applied once."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from .schemas import Schemas, cached
from .stubs import stubbed
from .tofu import TERRAFORM, Workspace, find

ROOT = Path(__file__).parents[3]
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGexampleexampleexampleexampleexampleexample ansible@example\n"


@pytest.fixture(scope="session")
def program() -> str:
    try:
        return find()
    except RuntimeError as error:
        pytest.fail(str(error))


@pytest.fixture(scope="session")
def schemas() -> dict[str, Schemas]:
    try:
        return cached()
    except RuntimeError as error:
        pytest.fail(str(error))


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout in small: its roles, stacks and shared modules, and room for roots."""
    folder = tmp_path_factory.mktemp("repository")
    for name in ("roles", "stacks"):
        (folder / name).symlink_to(ROOT / name)
    shutil.copytree(TERRAFORM / "modules", folder / "terraform" / "modules")
    return folder


@pytest.fixture(scope="session")
def scratch(repository: Path, program: str) -> Callable[[str, str], Workspace]:
    """Name and HCL of a root -> its folder, initialised. Shared modules are at ../modules."""

    def make(name: str, code: str) -> Workspace:
        folder = repository / "terraform" / name
        folder.mkdir()
        (folder / "main.tf").write_text(code)
        return Workspace(program, folder).init()

    return make


def site_copy(name: str, target: Path) -> Path:
    """The example site of a root, with a login key."""
    shutil.copytree(ROOT / "inventories" / name, target)
    key = target / "credentials" / "ssh" / "id_ed25519.pub"
    key.parent.parent.mkdir(mode=0o700)
    key.parent.mkdir()
    key.write_text(KEY)
    return target


@pytest.fixture(scope="session", params=["aws", "gce"])
def applied(request: pytest.FixtureRequest, repository: Path, program: str) -> Workspace:
    """A root with a made-up cloud, applied with the example site's own machines.tfvars."""
    name = request.param
    site = site_copy(name, repository / "inventories" / name)
    workspace = Workspace(program, stubbed(TERRAFORM / name, repository / "terraform")).init()
    shutil.copy(site / "machines.tfvars", workspace.folder / "terraform.tfvars")
    result = workspace.apply()
    assert result.code == 0, result.problems or result.output
    return workspace
