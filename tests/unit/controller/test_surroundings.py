# SPDX-License-Identifier: Apache-2.0
"""The controller's own surroundings: its sudo, its proxy and its locale are none of a site's business."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes.client import Configuration

ROOT = Path(__file__).parents[3]
PLAYBOOKS = [ROOT / "site.yml", *sorted((ROOT / "playbooks").glob("*.yml"))]
TASKS = sorted((ROOT / "roles").glob("*/tasks/*.yml"))
BLOCKS = ("block", "rescue", "always", "tasks", "pre_tasks", "post_tasks")
API = ("kubernetes.core.", "ashlar.stack.kubernetes_nodes")


def merged(above: dict[str, Any], entry: dict[str, Any]) -> dict[str, Any]:
    """What a play, block or task says itself or inherits."""
    own: dict[str, Any] = {name: entry[name] for name in ("hosts", "connection", "delegate_to", "environment") if name in entry}
    return {**above, **own, "vars": {**above.get("vars", {}), **entry.get("vars", {})}}


def tasks(entries: list[Any], above: dict[str, Any]) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Every task with what holds for it."""
    for entry in entries or []:
        here = merged(above, entry)
        inner = [name for name in BLOCKS if name in entry]
        for name in inner:
            yield from tasks(entry[name], here)
        if not inner and "hosts" not in entry:
            yield entry, here


def read(path: Path) -> list[Any]:
    return list(yaml.safe_load(path.read_text(encoding="utf-8")) or [])


def on_controller(here: dict[str, Any]) -> bool:
    return "localhost" in (here.get("hosts"), here.get("delegate_to")) or here.get("connection") == "local"


EVERY = [(path, entry, here) for path in PLAYBOOKS + TASKS for entry, here in tasks(read(path), {})]


def test_no_task_on_the_controller_asks_for_sudo() -> None:
    """`ansible_become: true` for all hosts, as in inventories/example, holds for localhost too, and a variable goes before a keyword."""
    local = [(path, entry, here) for path, entry, here in EVERY if on_controller(here)]
    assert {"playbooks", "prometheus", "kubernetes_control"} <= {part for path, _, _ in local for part in path.parts}
    asking = [f"{path.relative_to(ROOT)}: {entry.get('name')}" for path, entry, here in local if here["vars"].get("ansible_become") is not False]
    assert not asking, f"these need vars: {{ansible_become: false}}: {asking}"


def test_plays_on_the_controller_run_their_roles_without_sudo() -> None:
    plays = [(path, play) for path in PLAYBOOKS for play in read(path) if on_controller(play) and play.get("roles")]
    assert plays
    asking = [f"{path.relative_to(ROOT)}: {play['name']}" for path, play in plays if play.get("vars", {}).get("ansible_become") is not False]
    assert not asking


def test_the_api_is_never_asked_through_the_controllers_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = [(entry, here) for _, entry, here in EVERY if any(key.startswith(API) for key in entry)]
    assert len(calls) >= 2
    for entry, here in calls:
        with monkeypatch.context() as environment:
            for name in ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
                environment.setenv(name, "http://proxy.example.com:3128")
            environment.delenv("NO_PROXY", raising=False)
            environment.delenv("no_proxy", raising=False)
            assert Configuration(host="https://192.0.2.1:6443").proxy, "the client takes the proxy of its environment"
            for name, value in here.get("environment", {}).items():
                environment.setenv(name, value)
            assert not Configuration(host="https://192.0.2.1:6443").proxy, f"{entry['name']}: asks through the proxy"


@pytest.mark.parametrize("locale", [{"LC_ALL": "C"}, {"LC_ALL": "xx_XX.UTF-8"}, {"LANG": "de_DE.ISO-8859-1"}, {"LC_CTYPE": "POSIX", "LANG": ""}])
def test_make_runs_ansible_under_any_locale(locale: dict[str, str]) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("LC_", "LANG"))} | locale
    command = ["make", "--no-print-directory", "--eval", "version: ; @ansible --version", "version"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0 and done.stdout.startswith("ansible [core "), done.stdout + done.stderr
