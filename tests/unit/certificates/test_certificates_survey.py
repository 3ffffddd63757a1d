# SPDX-License-Identifier: Apache-2.0
"""The digest by which a host whose certificates are as they should be is not asked again."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.ashlar.stack.plugins.action.certificates import ActionModule, plan
from ansible_collections.ashlar.stack.plugins.module_utils.certificates import MEMORY, installed_digest
from ansible_collections.ashlar.stack.plugins.modules import certificates as module
from ansible_collections.ashlar.stack.plugins.plugin_utils import pki

CRT = "etc/ashlar/pki/etcd/server.crt"
KEY = "etc/ashlar/pki/etcd/server.key"
SPEC = {"component": "etcd", "name": "server", "authority": "etcd", "usages": ["server"], "common_name": "n1", "dns": ["n1"]}


class Controller:
    """The action's half that talks to a host, with the host's half called at once."""

    def __init__(self, root: Path) -> None:
        self.root = root / "host"
        self.credentials = pki.Credentials(root / "credentials")
        self.calls = 0

    def _execute_module(self, module_name: str, module_args: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        self.calls += 1
        files = [
            module.File(item["path"], module_args["_keys"][item["key"]] if "key" in item else item["content"], item["owner"], int(item["mode"], 8), {})
            for item in module_args["_files"]
        ]
        outcome = module.Laying(str(self.root), check=False).run(files, module_args["prune"])
        return {"changed": outcome.changed}

    def run(self, survey: str | None = None, changed: bool = False, **arguments: Any) -> dict[str, Any]:
        issued = [self.credentials.certificate(pki.parse_spec(SPEC), Path("nodes/n1"))]
        files, keys = plan(issued, {"etcd": self.credentials.authority("etcd")})
        found = installed_digest(str(self.root)) if survey is None else survey
        variables = {"base_survey": {"survey": {"certificates": found}}, "ansible_facts": {"ashlar_host_changed": changed}}
        given = {"root": "/", "prune": True, **arguments}
        return ActionModule._on_node(self, files, keys, given, variables)  # type: ignore[arg-type]


@pytest.fixture
def controller(tmp_path: Path) -> Controller:
    made = Controller(tmp_path)
    first = made.run()
    assert first["changed"] and first["ansible_facts"] == {"ashlar_host_changed": True}
    assert made.calls == 1
    return made


def test_what_is_installed_is_not_sent_again(controller: Controller) -> None:
    assert controller.run() == {"changed": False, "written": [], "removed": [], "users": []}
    assert controller.calls == 1


@pytest.mark.parametrize("given", [{"changed": True}, {"survey": ""}, {"prune": False}])
def test_without_a_survey_that_holds_the_host_is_asked(controller: Controller, given: dict[str, Any]) -> None:
    assert not controller.run(**given)["changed"]
    assert controller.calls == 2


def edit(root: Path) -> None:
    (root / KEY).write_text("another")


def open_up(root: Path) -> None:
    (root / KEY).chmod(0o644)


def give_away(root: Path) -> None:
    os.chown(root / KEY, 1, 1)


def regroup(root: Path) -> None:
    os.chown(root / CRT, 0, 1)


def remove(root: Path) -> None:
    (root / CRT).unlink()


def link(root: Path) -> None:
    (root / CRT).rename(root / "elsewhere")
    (root / CRT).symlink_to(root / "elsewhere")


def forget(root: Path) -> None:
    (root / MEMORY[1:]).write_text("{")


@pytest.mark.skipif(os.geteuid() != 0, reason="files are given to another user")
@pytest.mark.parametrize("damage", [edit, open_up, give_away, regroup, remove, link, forget])
def test_what_differs_on_the_host_is_mended(controller: Controller, damage: Callable[[Path], None]) -> None:
    damage(controller.root)
    controller.run()
    assert controller.calls == 2
    controller.run()
    assert controller.calls == 2


def test_a_certificate_that_is_no_longer_asked_for_is_removed(controller: Controller) -> None:
    more = {"path": "/etc/ashlar/pki/etcd/old.crt", "content": "old", "owner": "root", "mode": "0644", "facts": {}}
    module.Laying(str(controller.root), check=False).run([module.File(more["path"], "old", "root", 0o644, {})], prune=False)
    assert controller.run()["changed"]
    assert not (controller.root / more["path"][1:]).exists()
