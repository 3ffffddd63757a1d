# SPDX-License-Identifier: Apache-2.0
"""Talks to a running HAProxy by its sockets (management guide, 9.3 and 9.4), and to the machine it runs on."""

from __future__ import annotations

import http.client
import json
import re
import socket
import ssl
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import quote

from .model import EdgeError, Settings
from .plan import Running, parse_map, parse_servers

SECONDS = 10
# HAProxy reads a line of commands into a buffer of 16 KiB.
LINE = 8000
# What it says when a command was done, besides nothing at all.
DONE = re.compile(r"(IP changed from .*|no need to change .*|port changed from .*|.*by 'stats socket command'.*|\s*)", re.DOTALL)


def ask(path: str, command: str, seconds: float = SECONDS) -> str:
    """The whole answer to one line. OSError when nobody answers."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(seconds)
        connection.connect(path)
        connection.sendall(command.encode() + b"\n")
        parts: list[bytes] = []
        while True:
            part = connection.recv(65536)
            if not part:
                return b"".join(parts).decode(errors="replace")
            parts.append(part)


def structure(settings: Settings) -> str | None:
    """What the running process was started with; None when none runs."""
    try:
        told = ask(settings.admin_socket, "show info", 3)
    except OSError:
        return None
    match = re.search(r"^description: (\S+)$", told, re.MULTILINE)
    return match[1] if match else ""


def running(settings: Settings, folder: str, maps: Iterable[str]) -> Running | None:
    """Everything of the running process that a plan needs; None when none runs."""
    found = structure(settings)
    if found is None:
        return None
    try:
        servers = parse_servers(ask(settings.admin_socket, "show servers state"))
        return Running(found, servers, {name: parse_map(ask(settings.admin_socket, f"show map {folder}/{name}")) for name in maps})
    except OSError as error:
        raise EdgeError(f"HAProxy does not answer at {settings.admin_socket} ({error}); `systemctl status haproxy`") from None


def command(settings: Settings, commands: Sequence[str]) -> list[str]:
    """Run commands one after another; returns what those said that were not done."""
    failed: list[str] = []
    for line in commands:
        try:
            said = ask(settings.admin_socket, line)
        except OSError as error:
            return [*failed, f"{line}: {error}"]
        if not DONE.fullmatch(said):
            failed.append(f"{line}: {' '.join(said.split())[:200]}")
    return failed


def failed_reloads(settings: Settings) -> int:
    """How many reloads in a row have failed, as the master tells; 0 while it is busy with one."""
    try:
        match = re.search(r"\[failed: (\d+)\]", ask(settings.master_socket, "show proc", 0.5))
    except OSError:
        return 0
    return int(match[1]) if match else 0


def reload(settings: Settings, wanted: str, seconds: float = 20) -> str:
    """Start a new worker that takes over the listening sockets; returns "" when it runs, else what the master says.

    From version 2.7 the master answers when it is done; before, it closes the connection at once and is asked how it went.
    """
    before = failed_reloads(settings)
    try:
        said = ask(settings.master_socket, "reload", seconds)
    except OSError as error:
        return f"the master does not answer at {settings.master_socket} ({error})"
    if "Success=0" in said:
        return " ".join(said.split())[:500]
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if structure(settings) == wanted:
            return ""
        if failed_reloads(settings) > before:
            return "the new worker did not start; `journalctl -u haproxy` says why"
        time.sleep(0.05)
    return f"no new worker within {seconds:.0f} s; `journalctl -u haproxy` says why"


def check(settings: Settings, file: str) -> str:
    """`haproxy -c`: "" when it takes the file, else its alerts."""
    try:
        done = subprocess.run([settings.haproxy, "-c", "-f", file], capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise EdgeError(f"{settings.haproxy} could not check the configuration ({error}); the edge keeps what it has") from None
    if done.returncode == 0:
        return ""
    alerts = [line.partition(": ")[2] or line for line in (done.stderr + done.stdout).splitlines() if "[ALERT]" in line]
    return "; ".join(alerts)[:500] or f"exit code {done.returncode}"


def listening(sources: Sequence[str] = ("/proc/net/tcp", "/proc/net/tcp6")) -> frozenset[int]:
    """TCP ports that something on this machine listens on (state 0A)."""
    ports: set[int] = set()
    for source in sources:
        try:
            with open(source) as stream:
                rows = [line.split() for line in stream.readlines()[1:]]
        except OSError:
            continue
        ports.update(int(row[1].rpartition(":")[2], 16) for row in rows if len(row) > 3 and row[3] == "0A")
    return frozenset(ports)


def created(consul: Mapping[str, Any], services: Iterable[str]) -> dict[str, int]:
    """Service -> smallest create index of its instances, as the node's Consul agent knows it. What it doesn't say is left out."""
    found: dict[str, int] = {}
    if not consul:
        return found
    try:
        context = ssl.create_default_context(cafile=consul["ca"])
        context.load_cert_chain(consul["certificate"], consul["key"])
        with open(consul["token"]) as stream:
            token = stream.read().strip()
        for service in services:
            connection = http.client.HTTPSConnection(consul["address"], int(consul["port"]), timeout=3, context=context)
            try:
                connection.request("GET", f"/v1/catalog/service/{quote(service, safe='')}?stale", headers={"X-Consul-Token": token})
                indexes = [int(one["CreateIndex"]) for one in json.loads(connection.getresponse().read(8 << 20))]
            finally:
                connection.close()
            if indexes:
                found[service] = min(indexes)
    except (OSError, ValueError, KeyError, TypeError, http.client.HTTPException):
        pass
    return found
