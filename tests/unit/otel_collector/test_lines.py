# SPDX-License-Identifier: Apache-2.0
"""What becomes of lines on the way to the stores, by the real program with the role's own configuration.

The journal is a program that prints what journalctl would; containers' logs are files; the stores are two small servers of this test.
"""

from __future__ import annotations

import gzip
import json
import os
import platform
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template
from ansible_collections.ashlar.stack.plugins.plugin_utils.artifacts.store import Store as Artifacts

ROOT = Path(__file__).parents[3]
ROLE = ROOT / "roles/otel_collector"
VERSION = yaml.safe_load((ROOT / "releases/2026.11.yml").read_text())["versions"]["otel_collector"]
NODE = {
    "site_name": "s1",
    "node_classes": ["control", "worker"],
    "inventory_hostname": "node1",
    "component_nodes": {"victorialogs": ["node1", "node2"]},
    "site_nodes": {"node1": {"address": "127.0.0.1"}, "node2": {"address": "127.0.0.2"}},
    "node_components": ["base", "etcd", "consul_sync"],
    "node_health": [
        {"component": "haproxy", "name": "it runs", "unit": "consul-template.service"},
        {"component": "etcd", "name": "it answers", "url": "https://x"},
    ],
}
Line = dict[str, Any]


def configuration(**more: Any) -> dict[str, Any]:
    """/etc/otel-collector/config.yaml of node1."""

    def trusted(value: Any) -> Any:
        if isinstance(value, str):
            return trust_as_template(value)
        if isinstance(value, list):
            return [trusted(one) for one in value]
        return {key: trusted(one) for key, one in value.items()} if isinstance(value, dict) else value

    files = [yaml.safe_load((ROLE / name / "main.yml").read_text()) for name in ("defaults", "vars")]
    variables = {**trusted({**files[0], **files[1]}), **NODE, **more}
    text = (ROLE / "templates/etc/otel-collector/config.yaml.j2").read_text()
    made = Templar(loader=DataLoader(), variables=variables).template(trust_as_template(text))
    loaded = yaml.safe_load(made) if isinstance(made, str) else made
    assert isinstance(loaded, dict)
    return loaded


class Store:
    """A log store that keeps what it gets; it can be down."""

    def __init__(self) -> None:
        self.lines: list[Line] = []
        self.down = False
        store = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                if not store.down:
                    store.lines += flat(json.loads(body))
                self.send_response(503 if store.down else 200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def texts(self) -> list[str]:
        return [line["_msg"] for line in self.lines]


def flat(request: dict[str, Any]) -> list[Line]:
    """The lines of a request in OTLP's JSON, as a store would keep them."""

    def plain(attributes: list[dict[str, Any]]) -> Line:
        return {one["key"]: next(iter(one["value"].values())) for one in attributes}

    return [
        {
            **plain(resource["resource"].get("attributes", [])),
            **plain(record.get("attributes", [])),
            "_msg": record["body"].get("stringValue"),
            "_time": record["timeUnixNano"],
        }
        for resource in request["resourceLogs"]
        for scope in resource["scopeLogs"]
        for record in scope["logRecords"]
    ]


class Collector:
    """The program, its journal and its containers."""

    def __init__(self, program: Path, folder: Path) -> None:
        self.program, self.folder = program, folder
        self.stores = [Store(), Store()]
        self.journal, self.pod = folder / "journal.json", folder / "pods/ns1_pod1_0d1b4a3e-0000-4000-8000-000000000001/main/0.log"
        self.pod.parent.mkdir(parents=True)
        self.journal.touch()
        self.process: subprocess.Popen[bytes] | None = None
        self.entries = 0

    def start(self, **more: Any) -> None:
        made = configuration(**more)
        state = self.folder / "state"
        state.mkdir(exist_ok=True)
        made["extensions"]["file_storage"] |= {"directory": str(state)}
        made["extensions"]["file_storage"]["compaction"]["directory"] = str(state)
        # Like journalctl: everything, or what comes after the cursor, and then what is new.
        reader = self.folder / "journalctl"
        reader.write_text(f"""#!/bin/sh
for last; do :; done
case " $* " in *" --after-cursor "*) first=$((${{last#c}} + 1)) ;; *) first=1 ;; esac
exec tail -q -F -n +$first {self.journal}
""")
        reader.chmod(0o755)
        made["receivers"]["journald"]["journalctl_path"] = str(reader)
        made["receivers"]["file_log/pods"] |= {"include": [f"{self.folder}/pods/*/*/*.log"], "poll_interval": "100ms"}
        for exporter, store in zip(made["exporters"].values(), self.stores, strict=True):
            del exporter["tls"]
            exporter |= {"logs_endpoint": f"http://127.0.0.1:{store.server.server_port}/", "encoding": "json", "compression": "gzip"}
            exporter["retry_on_failure"]["max_interval"] = "300ms"
            exporter["sending_queue"]["batch"]["flush_timeout"] = "100ms"
        made["service"]["telemetry"]["metrics"] = {"level": "none"}
        file = self.folder / "config.yaml"
        file.write_text(yaml.safe_dump(made))
        command = [str(self.program), "--config", f"file:{file}", "--feature-gates", "stanza.synchronousLogEmitter"]
        with (self.folder / "said.log").open("ab") as said:
            self.process = subprocess.Popen(command, stdout=said, stderr=said, start_new_session=True)

    def kill(self) -> None:
        """As `systemctl kill -s KILL` does: with all that it has started."""
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(10)
            self.process = None

    def entry(self, message: str, **fields: str) -> None:
        self.entries += 1
        with self.journal.open("a") as file:
            file.write(
                json.dumps({"__CURSOR": f"c{self.entries}", "__REALTIME_TIMESTAMP": str(1_700_000_000_000_000 + self.entries), "MESSAGE": message, **fields})
                + "\n"
            )

    def prints(self, *texts: str, stream: str = "stdout", tag: str = "F") -> None:
        with self.pod.open("ab") as file:
            for text in texts:
                file.write(f"2026-11-21T10:00:00.000000001Z {stream} {tag} ".encode() + text.encode("utf-8", "surrogateescape") + b"\n")

    def until(self, what: Callable[[], Any], seconds: float = 30) -> None:
        end = time.monotonic() + seconds
        while not what():
            if time.monotonic() > end:
                pytest.fail(
                    f"not within {seconds} s; the stores have {[store.texts[-12:] for store in self.stores]}; {(self.folder / 'said.log').read_text()[-2000:]}"
                )
            time.sleep(0.05)


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    architecture = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    store = Artifacts()
    index = store.read("otel_collector", VERSION, architecture)
    if index is None:
        pytest.skip(f"the store has no otel_collector {VERSION}")
    made: Path = tmp_path_factory.mktemp("program") / "otel-collector"
    shutil.copyfile(store.blob(index.files[0].sha256), made)
    made.chmod(0o755)
    return made


@pytest.fixture
def collector(program: Path, tmp_path: Path) -> Iterator[Collector]:
    made = Collector(program, tmp_path)
    yield made
    made.kill()
    for store in made.stores:
        store.server.shutdown()


def test_lines_have_their_labels(collector: Collector) -> None:
    collector.start()
    collector.entry("ready", _SYSTEMD_UNIT="etcd.service", PRIORITY="4", _TRANSPORT="stdout", SYSLOG_IDENTIFIER="etcd")
    collector.entry("rendered", _SYSTEMD_UNIT="consul-template.service", PRIORITY="6", _TRANSPORT="stdout", SYSLOG_IDENTIFIER="ct")
    collector.entry("Started it.", _SYSTEMD_UNIT="init.scope", UNIT="consul-sync.service", PRIORITY="6", _TRANSPORT="journal", SYSLOG_IDENTIFIER="systemd")
    collector.entry("in", _SYSTEMD_UNIT="session-12.scope", PRIORITY="5", _TRANSPORT="syslog", SYSLOG_IDENTIFIER="sshd")
    collector.entry("eth0", PRIORITY="3", _TRANSPORT="kernel")
    collector.prints("one", "two")
    collector.prints("begun ", stream="stderr", tag="P")
    collector.prints("and ended", stream="stderr")
    for store in collector.stores:
        collector.until(lambda store=store: len(store.lines) == 8)
        lines = {line["_msg"]: line for line in store.lines}
        assert all((line["site"], line["node"], line["class"]) == ("s1", "node1", "control,worker") for line in store.lines)
        wanted = {
            "ready": {"component": "etcd", "unit": "etcd.service", "level": "warning", "stream": "stdout"},
            "rendered": {"component": "haproxy", "level": "info"},
            "Started it.": {"component": "consul_sync", "unit": "consul-sync.service", "identifier": "systemd"},
            "in": {"component": "session.scope", "unit": "session-12.scope", "level": "notice", "identifier": "sshd"},
            "eth0": {"component": "kernel", "level": "error"},
            "one": {"namespace": "ns1", "pod": "pod1", "container": "main", "stream": "stdout", "level": "info"},
            "begun and ended": {"stream": "stderr", "pod": "pod1"},
        }
        assert {text: {key: lines[text].get(key) for key in fields} for text, fields in wanted.items()} == wanted
        assert not {"k8s.pod.uid", "logtag", "log.file.path"} & set(lines["one"])
    assert "failed" not in (collector.folder / "said.log").read_text()


def test_levels_are_those_that_lines_name(collector: Collector) -> None:
    texts = {
        "E1121 10:00:00.1 1 x.go:1] klog": "error",
        'level=warn msg="x"': "warning",
        '{"level": "fatal", "x": 1}': "crit",
        "2026-11-21 10:00:00 ERROR it broke": "error",
        "[debug] x": "debug",
        "no error at all": "info",
        "level=strange": "info",
    }
    collector.start()
    collector.prints(*texts)
    collector.until(lambda: len(collector.stores[0].lines) == len(texts))
    assert {line["_msg"]: line["level"] for line in collector.stores[0].lines} == texts


def test_secrets_are_hidden_and_nothing_else(collector: Collector) -> None:
    secret = "geheim7Xy9abcd"
    texts = {
        f"Authorization: Bearer {secret}": "Authorization: ***",
        f'{{"password": "{secret}", "user": "me"}}': '{"password": ***, "user": "me"}',
        f"API_KEY={secret} x": "API_KEY=*** x",
        f"run --token {secret} now": "run --token *** now",
        f"postgres://me:{secret}@db/x": "postgres://me:***@db/x",
        f"X-Consul-Token: {secret}": "X-Consul-Token: ***",
        "kubeadm join with abcdef.0123456789abcdef": "kubeadm join with ***",
        f"mine {secret}!": "mine ***!",
        "-----BEGIN PRIVATE KEY-----": "***",
        "MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQC7VJTUt9Us8cKj": "***",
        "bW9yZSBvZiB0aGUga2V5IDEyMzQ1==": "***",
        "the password was changed; tokens: 3 left, costs $5 and ${HOME}": "the password was changed; tokens: 3 left, costs $5 and ${HOME}",
    }
    collector.start(otel_collector_masks=[{"name": "mine", "pattern": "(mine )[a-z]+[0-9]Xy9abcd", "replacement": "${1}***"}])
    collector.prints(*texts)
    collector.entry(f"password={secret}", _SYSTEMD_UNIT="x.service", PRIORITY="6")
    for store in collector.stores:
        collector.until(lambda store=store: len(store.lines) == len(texts) + 1)
        assert sorted(store.texts) == sorted([*texts.values(), "password=***"])


def test_a_long_line_is_cut_and_bytes_that_are_no_text_are_few(collector: Collector) -> None:
    collector.start(otel_collector_line_kib=1)
    collector.prints("x" * 5000, "odd \x00\x01\udcff\udcfe bytes")
    collector.until(lambda: len(collector.stores[0].lines) == 2)
    long, odd = sorted(collector.stores[0].lines, key=lambda line: line["_msg"], reverse=True)
    assert (long["_msg"], int(long["cut_bytes"])) == ("x" * 1024, 5000 - 1024)
    assert odd["_msg"] == "odd \ufffd bytes"


def test_a_store_that_is_down_delays_no_other_and_gets_everything_later_though_the_collector_is_killed(collector: Collector) -> None:
    up, down = collector.stores
    down.down = True
    collector.start()
    collector.prints("first")
    collector.entry("second", _SYSTEMD_UNIT="x.service", PRIORITY="6")
    collector.until(lambda: len(up.lines) == 2)
    collector.kill()
    collector.pod.unlink()
    down.down = False
    collector.start()
    collector.until(lambda: sorted(set(down.texts)) == ["first", "second"])


def test_what_is_killed_again_and_again_loses_no_line_of_a_pod(collector: Collector) -> None:
    count, written = 3000, 0
    collector.start()
    while written < count:
        collector.prints(*[f"number {number}" for number in range(written, written + 100)])
        written += 100
        time.sleep(0.1)
        if written % 1000 == 0:
            collector.kill()
            collector.start()
    for store in collector.stores:
        collector.until(lambda store=store: len(set(store.texts)) == count)
