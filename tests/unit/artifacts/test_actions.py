# SPDX-License-Identifier: Apache-2.0
"""What ashlar.stack.store and ashlar.stack.bundle take, give back and say, as playbooks see it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.ashlar.stack.plugins.action.store import ARGUMENTS, wanted
from ansible_collections.ashlar.stack.plugins.plugin_utils.artifacts.errors import ArtifactError

from .conftest import Shelf, Web, sha
from .internet import Internet
from .test_obtain import BYTES, upstream

ROOT = Path(__file__).parents[3]


def play(shelf: Shelf, task: dict[str, Any], *arguments: str) -> tuple[int, dict[str, Any], str]:
    """Run one task on localhost; returns exit code, its result, and everything printed."""
    folder = shelf.directory.parent
    (folder / "play.json").write_text(json.dumps([{"hosts": "localhost", "gather_facts": False, "tasks": [task]}]))
    done = subprocess.run(
        [str(Path(sys.executable).parent / "ansible-playbook"), "-i", "localhost,", str(folder / "play.json"), *arguments],
        cwd=ROOT,
        env=os.environ | {"ASHLAR_STORE": str(shelf.store.root), "ANSIBLE_STDOUT_CALLBACK": "ansible.posix.json", "ANSIBLE_NOCOLOR": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    text = done.stdout
    assert "{" in text, done.stdout + done.stderr
    result = json.JSONDecoder().raw_decode(text[text.index("\n{") + 1 if not text.startswith("{") else 0 :])[0]
    return done.returncode, result["plays"][0]["tasks"][0]["hosts"]["localhost"], text + done.stderr


def test_both_forms_of_artifacts() -> None:
    assert wanted({"etcd": "3.7.3"}) == wanted([{"name": "etcd", "version": "3.7.3"}]) == {"etcd": "3.7.3"}


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        ("etcd", "allowed: a mapping of names to versions"),
        ([{"name": "etcd"}], "allowed: a mapping of names to versions"),
        ({"etcd": 3.7}, "the version of etcd is 3.7; allowed: text in quotation marks"),
        ([{"name": "etcd", "version": "1"}, {"name": "etcd", "version": "2"}], "asks for etcd 1 and 2"),
    ],
)
def test_wrong_artifacts(raw: Any, words: str) -> None:
    with pytest.raises(ArtifactError, match=words):
        wanted(raw)


def test_a_run_reports_what_it_did_then_does_nothing(web: Web, shelf: Shelf) -> None:
    web.files["/tool-1.0.0-amd64"] = BYTES
    shelf.put("tool", [upstream(web)], {"upstream/amd64/tool-1.0.0-amd64": sha(BYTES)})
    task = {"ashlar.stack.store": {"artifacts": {"tool": "1.0.0"}, "catalogues": [str(shelf.directory)], "architectures": ["amd64"]}}
    code, foreseen, _ = play(shelf, task, "--check")
    assert code == 0 and foreseen["changed"] and foreseen["contents"][0]["sources"] == ["upstream"] and web.requests == []
    code, first, output = play(shelf, task)
    assert (code, first["changed"], first["contents"][0]["source"], first["store"]) == (0, True, "upstream", str(shelf.store.root))
    assert "tool 1.0.0 amd64: from its publisher, 1 files, 293 KiB" in output
    code, second, _ = play(shelf, task)
    assert code == 0 and not second["changed"] and len(web.requests) == 1


def test_an_error_is_one_message_and_no_traceback(shelf: Shelf) -> None:
    code, result, output = play(shelf, {"ashlar.stack.store": {"artifacts": {"nothing": "1"}}})
    assert code != 0 and "'nothing' is not in the catalogue" in result["msg"] and "Traceback" not in output


def test_a_bundle_needs_a_full_store(shelf: Shelf, tmp_path: Path) -> None:
    task = {"ashlar.stack.bundle": {"path": str(tmp_path / "b.tar"), "name": "b", "artifacts": {"etcd": "3.7.3"}, "wheels": False}}
    code, result, _ = play(shelf, task)
    assert code != 0 and "the store lacks etcd 3.7.3" in result["msg"]


@pytest.mark.parametrize("name", ["store", "bundle"])
def test_the_documented_options_are_those_that_are_taken(name: str) -> None:
    import importlib

    import yaml

    documented = yaml.safe_load(importlib.import_module(f"ansible_collections.ashlar.stack.plugins.modules.{name}").DOCUMENTATION)["options"]
    arguments = ARGUMENTS if name == "store" else importlib.import_module("ansible_collections.ashlar.stack.plugins.action.bundle").ARGUMENTS
    assert sorted(documented) == sorted(arguments)
    for option, spec in arguments.items():
        for key in ("type", "elements", "choices", "default"):
            assert documented[option].get(key) == spec.get(key), (option, key)
        assert documented[option].get("required", False) == spec.get("required", False)


def test_the_site_says_which_checksums_it_accepts_and_has_the_lock_file(shelf: Shelf, internet: Internet) -> None:
    site = shelf.directory.parent / "site"
    site.mkdir()
    internet.publish({"github.com/x/tool-1.0.0": BYTES, "github.com/x/SUMS": f"{sha(BYTES)}  tool-1.0.0\n".encode()})
    shelf.put("tool", [{"kind": "upstream", "url": "https://github.com/x/tool-{version}", "members": {"tool": ""}, "checksums": "SUMS"}])
    task = {"ashlar.stack.store": {"artifacts": {"tool": "1.0.0"}, "catalogues": [str(shelf.directory)], "architectures": ["amd64"]}}
    variables = ("-e", json.dumps({"site_directory": str(site), "site_checksums": "pinned"}))
    code, result, _ = play(shelf, task, *variables)
    assert code != 0 and "the site's `checksums: pinned` accepts no other" in result["msg"] and not list(site.iterdir())
    variables = ("-e", json.dumps({"site_directory": str(site), "site_checksums": "published"}))
    code, result, _ = play(shelf, task, *variables)
    assert (code, result["changed"], result["locked"]) == (0, True, ["https://github.com/x/tool-1.0.0"])
    assert [path.name for path in site.iterdir()] == ["artifacts.lock.txt"]
    code, result, _ = play(shelf, task, *variables)
    assert (code, result["changed"], result["locked"]) == (0, False, [])
