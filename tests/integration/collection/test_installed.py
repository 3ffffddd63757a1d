# SPDX-License-Identifier: Apache-2.0
"""The collection as users install it: built to an archive, installed without a network, run from a folder that is no checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
IGNORED = {
    "molecule/etcd/inventory/credentials/authorities/etcd/ca.key",
    "inventories/prod/credentials/authorities/site/ca.key",
    "inventories/prod/state/terraform.tfstate",
    "inventories/local/10-nodes.yml",
    "inventories/local/artifacts.lock.txt",
    "terraform/aws/.terraform/terraform.tfstate",
    "terraform/aws/terraform.tfstate.backup",
    "plugins/inventory/__pycache__/stack.cpython-311.pyc",
    ".cache/tests/lint.log",
    ".state/x",
    ".venv/bin/python",
}


class Controller:
    """A folder with a site, and a collection installed elsewhere."""

    def __init__(self, folder: Path) -> None:
        self.collections, self.home = folder / "collections", folder / "anywhere"
        self.home.mkdir()
        shutil.copytree(ROOT / "inventories/example", self.home / "prod")

    def run(self, *command: str, **more: str) -> subprocess.CompletedProcess[str]:
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("ANSIBLE_", "ASHLAR_", "PYTHONPATH"))}
        clean |= {"ANSIBLE_NOCOLOR": "1", "ANSIBLE_HOME": str(self.home / ".ansible")}
        if "ANSIBLE_CONFIG" not in more:
            clean["ANSIBLE_COLLECTIONS_PATH"] = str(self.collections)
        program = str(Path(sys.executable).parent / command[0])
        return subprocess.run([program, *command[1:]], cwd=self.home, env=clean | more, capture_output=True, text=True, timeout=540, check=False)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("archive")
    checkout = folder / "checkout"
    own = [".git", ".venv", ".collections", ".cache", ".*_cache", ".ansible", ".state", ".terraform", "__pycache__", "credentials", "state"]
    shutil.copytree(ROOT, checkout, symlinks=True, ignore=shutil.ignore_patterns(*own))
    for name in IGNORED:
        (checkout / name).parent.mkdir(parents=True, exist_ok=True)
        (checkout / name).write_text("not for others")
    controller = Controller(folder)
    done = controller.run("ansible-galaxy", "collection", "build", "--output-path", str(folder), str(checkout))
    assert done.returncode == 0, done.stdout + done.stderr
    return next(folder.glob("*.tar.gz"))


@pytest.fixture(scope="module")
def controller(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Controller:
    made = Controller(tmp_path_factory.mktemp("controller"))
    done = made.run("ansible-galaxy", "collection", "install", "--offline", "--no-deps", "-p", str(made.collections), str(archive))
    assert done.returncode == 0, done.stdout + done.stderr
    return made


def test_the_archive_has_what_is_read_by_path_and_nothing_that_git_ignores(archive: Path) -> None:
    with tarfile.open(archive) as content:
        names = set(content.getnames())
    assert not names & IGNORED
    for folder in ("artifacts", "playbooks", "plugins", "programs", "releases", "roles", "schemas", "stacks", "terraform"):
        there = {str(path.relative_to(ROOT)) for path in (ROOT / folder).rglob("*") if path.is_file()}
        absent = {name for name in there - names if not {"__pycache__", ".terraform"} & set(Path(name).parts)}
        assert not absent, f"the archive lacks {sorted(absent)[:5]}"


def test_a_site_is_validated_from_any_folder(controller: Controller) -> None:
    done = controller.run("ansible-playbook", "-i", "prod", "ashlar.stack.validate")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "example (platform.example.com), stack tectonic" in done.stdout and "unreachable=0" in done.stdout


def test_every_playbook_is_found_with_all_that_it_uses(controller: Controller) -> None:
    playbooks = [f"ashlar.stack.{path.stem}" for path in sorted((ROOT / "playbooks").glob("*.yml"))]
    assert "ashlar.stack.site" in playbooks
    done = controller.run("ansible-playbook", "-i", "prod", "--list-tasks", *playbooks)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "All nodes have their roles" in done.stdout


def test_the_collections_own_settings_leave_credentials_alone_and_others_are_refused(controller: Controller) -> None:
    passwords = controller.home / "prod/credentials/logins"
    passwords.mkdir(parents=True, mode=0o700)
    passwords.parent.chmod(0o700)
    (passwords / "admin").touch(0o600)
    (passwords / "admin").write_text("secretsecret")
    try:
        own = controller.run("ansible-inventory", "-i", "prod", "--graph")
        assert own.returncode != 0 and "ANSIBLE_CONFIG" in own.stderr and "secretsecret" not in own.stdout + own.stderr
        settings = controller.collections / "ansible_collections/ashlar/stack/ansible.cfg"
        assert str(settings) in own.stderr
        ours = controller.run("ansible-inventory", "-i", "prod", "--graph", ANSIBLE_CONFIG=str(settings))
        assert ours.returncode == 0 and "secretsecret" not in ours.stdout + ours.stderr and "@kubernetes_control" in ours.stdout, ours.stderr
    finally:
        shutil.rmtree(passwords.parent)
