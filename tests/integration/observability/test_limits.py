# SPDX-License-Identifier: Apache-2.0
"""A target that gives far too much is refused as a whole, and Prometheus goes on: the real program, with the limits that the role lays down."""

from __future__ import annotations

import http.server
import json
import re
import subprocess
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
import yaml
from ansible_collections.ashlar.stack.plugins.plugin_utils.observability.programs import program
from support.ports import free_port

ROOT = Path(__file__).parents[3]
DEFAULTS: dict[str, Any] = yaml.safe_load((ROOT / "roles/prometheus/defaults/main.yml").read_text())
TEMPLATE = (ROOT / "roles/prometheus/templates/etc/prometheus/prometheus.yml.j2").read_text()
MIB = 1 << 20


def limits() -> dict[str, Any]:
    """What the template sets of these, with the role's defaults."""
    names = ("body_size_limit", "label_limit", "label_name_length_limit", "label_value_length_limit")
    found: dict[str, Any] = {}
    for name in names:
        match = re.search(rf"'{name}': (?P<number>\d+|(?P<option>prometheus_\w+))(?: ~ '(?P<unit>\w+)')?", TEMPLATE)
        assert match, f"the template sets no {name}"
        value = DEFAULTS[match["option"]] if match["option"] else int(match["number"])
        found[name] = f"{value}{match['unit']}" if match["unit"] else value
    return found


class Bomb(http.server.BaseHTTPRequestHandler):
    """One kind of too much under each path."""

    protocol_version = "HTTP/1.0"
    BODIES: ClassVar[dict[str, Any]] = {
        "/good": lambda: (f'good{{number="{n}"}} 1\n' for n in range(100)),
        "/series": lambda: (f'bomb{{number="{n}"}} 1\n' for n in range(50_000)),
        "/million": lambda: (f'bomb{{number="{n}",more="{n:040}"}} 1\n' for n in range(1_000_000)),
        "/value": lambda: iter([f'bomb{{text="{"x" * MIB}"}} 1\n']),
        "/name": lambda: iter([f'bomb{{{"x" * 300}="1"}} 1\n']),
        "/labels": lambda: iter(["bomb{" + ",".join(f'l{n}="1"' for n in range(100)) + "} 1\n"]),
        "/binary": lambda: iter(["bomb{\x01\x02 1\n"]),
    }

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; version=0.0.4")
        self.end_headers()
        try:
            lines: list[str] = []
            for line in self.BODIES[self.path]():
                lines.append(line)
                if len(lines) == 1000:
                    self.wfile.write("".join(lines).encode())
                    lines = []
            self.wfile.write("".join(lines).encode())
        except OSError:
            return

    def log_message(self, *_: Any) -> None:
        return


@pytest.fixture
def prometheus(tmp_path: Path) -> Iterator[tuple[str, int]]:
    """Address and process number of a Prometheus that reads all of these."""
    version = yaml.safe_load(max((ROOT / "releases").glob("*.yml")).read_text())["versions"]["prometheus"]
    binary = program("prometheus", str(version), "prometheus")
    if binary is None:
        pytest.skip(f"the store has no Prometheus {version}; `make artifacts` obtains it")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Bomb)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    jobs = [
        {
            "job_name": path.strip("/"),
            "metrics_path": path,
            "sample_limit": DEFAULTS["prometheus_target_samples_max"],
            "static_configs": [{"targets": [f"127.0.0.1:{server.server_port}"]}],
        }
        for path in Bomb.BODIES
    ]
    # Two seconds: every target is read more than once while a test looks.
    settings = {"scrape_interval": "2s", "scrape_timeout": "2s", **limits()}
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump({"global": settings, "scrape_configs": jobs}))
    address = f"127.0.0.1:{free_port()}"
    command = [str(binary), f"--config.file={tmp_path}/prometheus.yml", f"--storage.tsdb.path={tmp_path}/data", f"--web.listen-address={address}"]
    with (tmp_path / "log").open("w") as log:
        running = subprocess.Popen([*command, "--log.level=error"], stdout=log, stderr=log)
        try:
            yield f"http://{address}", running.pid
            assert running.poll() is None, (tmp_path / "log").read_text()[-2000:]
        finally:
            running.terminate()
            running.wait(120)
            server.shutdown()


def test_too_much_is_refused_and_the_rest_goes_on(prometheus: tuple[str, int]) -> None:
    address, number = prometheus
    end = time.monotonic() + 120
    found: dict[str, dict[str, Any]] = {}
    while time.monotonic() < end and (len(found) < len(Bomb.BODIES) or any(target["health"] == "unknown" for target in found.values())):
        try:
            with urllib.request.urlopen(f"{address}/api/v1/targets?state=active", timeout=120) as answer:
                found = {target["labels"]["job"]: target for target in json.load(answer)["data"]["activeTargets"]}
        except OSError:
            pass
        time.sleep(0.5)
    assert found["good"]["health"] == "up"
    for job, reason in {
        "series": "sample limit exceeded",
        "value": "label value is too long|label_value_length_limit|label value length",
        "name": "label_name_length_limit|label name length",
        "labels": "label_limit|label.*limit",
        "binary": "expected|invalid",
    }.items():
        assert found[job]["health"] == "down", found[job]
        assert re.search(reason, found[job]["lastError"]), f"{job}: {found[job]['lastError'][:300]}"
    assert found["million"]["health"] == "down", found["million"]
    with urllib.request.urlopen(f"{address}/api/v1/query?query=count(%7B__name__%3D~%22good%7Cbomb%22%7D)", timeout=120) as answer:
        assert json.load(answer)["data"]["result"][0]["value"][1] == "100"
    resident = int(re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{number}/status").read_text())[1]) // 1024  # type: ignore[index]
    print(f"resident memory with all of these: {resident} MiB")
    assert resident < 1024
