# SPDX-License-Identifier: Apache-2.0
"""Alerts reach their receiver: the real Alertmanager with the configuration that the role lays down, and a receiver on this machine."""

from __future__ import annotations

import http.server
import json
import re
import subprocess
import threading
import time
import urllib.request
from pathlib import Path
from typing import Any

import jinja2
import pytest
import yaml
from ansible_collections.ashlar.stack.plugins.plugin_utils.observability.programs import program
from support.ports import free_port

ROOT = Path(__file__).parents[3]
ROLE = ROOT / "roles/alertmanager"
SECRET = "hunter2hunter2"


def configuration(port: int) -> str:
    """As the role renders it, with one receiver that gets everything but what is silent."""
    environment = jinja2.Environment(trim_blocks=True, undefined=jinja2.StrictUndefined)
    environment.filters["to_nice_yaml"] = lambda value, **_: yaml.safe_dump(value)
    variables = yaml.safe_load((ROLE / "defaults/main.yml").read_text()) | {
        "alertmanager_receivers": [{"name": "pager", "webhook_configs": [{"url": f"http://127.0.0.1:{port}/{SECRET}"}]}],
        "alertmanager_routes": [{"receiver": "pager", "matchers": ['severity=~"critical|warning"']}],
        "alertmanager_group_wait_seconds": 1,
    }
    text = (ROLE / "templates/etc/alertmanager/alertmanager.yml.j2").read_text()
    return environment.from_string(text).render(variables)


def alert(name: str, severity: str, **labels: str) -> dict[str, Any]:
    return {"labels": {"alertname": name, "severity": severity, "site": "lab", **labels}, "annotations": {"summary": "It is so."}}


def test_alerts_reach_their_receiver_once_and_what_a_dead_node_explains_does_not(tmp_path: Path) -> None:
    version = yaml.safe_load(max((ROOT / "releases").glob("*.yml")).read_text())["versions"]["alertmanager"]
    binary = program("alertmanager", str(version), "alertmanager")
    if binary is None:
        pytest.skip(f"the store has no Alertmanager {version}; `make artifacts` obtains it")
    told: list[str] = []
    paths: list[str] = []

    class Receiver(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            message = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            paths.append(self.path)
            told.extend(one["labels"]["alertname"] for one in message["alerts"])
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            return

    receiver = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    threading.Thread(target=receiver.serve_forever, daemon=True).start()
    (tmp_path / "alertmanager.yml").write_text(configuration(receiver.server_port))
    address = f"127.0.0.1:{free_port()}"
    options = [f"--config.file={tmp_path}/alertmanager.yml", f"--storage.path={tmp_path}/data", f"--web.listen-address={address}", "--cluster.listen-address="]
    with (tmp_path / "log").open("w") as log:
        running = subprocess.Popen([str(binary), *options, "--log.level=debug"], stdout=log, stderr=log)
        try:
            wait(f"http://{address}/-/ready")
            alerts = [
                alert("NodeDown", "critical", node="node3"),
                alert("TargetMissing", "warning", node="node3", component="etcd"),
                alert("DiskFull", "warning", node="node1"),
                alert("Watchdog", "none"),
            ]
            request = urllib.request.Request(f"http://{address}/api/v2/alerts", json.dumps(alerts).encode(), {"Content-Type": "application/json"})
            with urllib.request.urlopen(request, timeout=120) as answer:
                assert answer.status == 200
            end = time.monotonic() + 120
            while time.monotonic() < end and len(told) < 2:
                time.sleep(0.2)
            # Long enough for whatever would come after all.
            time.sleep(1.5)
            with urllib.request.urlopen(f"http://{address}/api/v2/status", timeout=120) as answer:
                shown = answer.read().decode()
        finally:
            running.terminate()
            running.wait(120)
            receiver.shutdown()
    assert sorted(told) == ["DiskFull", "NodeDown"]
    assert set(paths) == {f"/{SECRET}"}
    said = (tmp_path / "log").read_text()
    assert SECRET not in said
    assert SECRET not in shown
    assert re.search("webhook", said)


def wait(url: str) -> None:
    end = time.monotonic() + 120
    while True:
        try:
            with urllib.request.urlopen(url, timeout=120):
                return
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.2)
