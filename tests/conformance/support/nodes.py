# SPDX-License-Identifier: Apache-2.0
"""Nodes, reached by SSH as Ansible reaches them."""

from __future__ import annotations

import atexit
import base64
import json
import shlex
import shutil
import tempfile
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import testinfra

from . import remote
from .plan import Machine
from .waiting import until

# A master connection to a node that was switched off must not keep a test waiting.
ALIVE = "-o ServerAliveInterval=3 -o ServerAliveCountMax=5 -o ConnectTimeout=10 -o BatchMode=yes"


class CommandError(AssertionError):
    """A command on a node that was to succeed did not."""


@dataclass(frozen=True)
class Answer:
    """What a command said."""

    code: int
    out: str
    error: str


@dataclass(frozen=True)
class Node:
    """A machine of the plan, and testinfra's view of it."""

    machine: Machine
    host: Any

    @property
    def name(self) -> str:
        return self.machine.name

    @property
    def address(self) -> str:
        return self.machine.address

    def disconnect(self) -> None:
        """Gives up the connection that is kept open: nothing is at its other end any more."""
        (sockets() / self.name).unlink(missing_ok=True)

    def ask(self, command: str, seconds: int = 120) -> Answer:
        """Runs a shell command as root, for so long at most (124 is timeout's own exit code)."""
        result = self.host.run(f"timeout {seconds} sh -c {shlex.quote(command)}")
        return Answer(result.rc, result.stdout, result.stderr)

    def run(self, command: str, seconds: int = 120) -> str:
        """Output of a shell command that has to succeed."""
        answer = self.ask(command, seconds)
        if answer.code != 0:
            raise CommandError(f"{self.name}: `{command}` ended with {answer.code}: {answer.error.strip()} {answer.out.strip()}"[:3000])
        return answer.out

    def python(self, program: str, *arguments: Any, seconds: int = 120) -> Any:
        """The JSON that a Python program prints; it takes its arguments as one JSON list in sys.argv[1]."""
        code = base64.b64encode(program.encode()).decode()
        loader = f"import base64;exec(base64.b64decode('{code}').decode())"
        out = self.run(
            f"{self.machine.variables.get('ansible_python_interpreter', 'python3')} -c {shlex.quote(loader)} {shlex.quote(json.dumps(arguments))}", seconds
        )
        return json.loads(out)

    def ahead(self) -> float:
        """How far the node's clock is ahead of this machine's, in seconds."""
        before = time.time()
        there = float(self.python("import json, time; print(json.dumps(time.time()))"))
        return there - (before + time.time()) / 2

    def https(self, url: str, authority: str, certificate: str | None = None, seconds: float = 20) -> remote.Reply:
        """A GET from this node. `authority` is a CA's name; `certificate` is `component/name` of one on this node."""
        pki = "/etc/ashlar/pki"
        pair = [f"{pki}/{certificate}.crt", f"{pki}/{certificate}.key"] if certificate else None
        reply = self.python(remote.HTTPS, url, f"{pki}/ca/{authority}.crt", pair, seconds, seconds=int(seconds) + 10)
        return remote.Reply(**reply)

    def connects(self, address: str, port: int, seconds: float = 4) -> str:
        """How a TCP connection from this node ends: "open", "refused" or "silent"."""
        return str(self.python(remote.CONNECT, address, port, seconds, seconds=int(seconds) + 10))

    def resolve(self, server: str, name: str, kind: str = "A", protocol: str = "udp", seconds: float = 4) -> remote.Resolution:
        """What a DNS server answers this node; code -1: nothing."""
        return remote.Resolution(**self.python(remote.RESOLVE, server, name, kind, protocol, seconds, seconds=int(seconds) + 10))


def wanted(node: Node) -> list[str]:
    """The units that Ashlar has installed on a node and that are to run: not what is stopped or masked on purpose."""
    units = [name.removesuffix(".json") for name in node.run("ls /var/lib/ashlar/units").split()]
    found = node.run(f"systemctl is-enabled {' '.join(units)} || true").split()
    return [unit for unit, state in zip(units, found, strict=True) if state.startswith("enabled")]


def inactive(node: Node) -> list[str]:
    """Those of them that do not run, with their state."""
    units = wanted(node)
    states = node.run(f"systemctl is-active {' '.join(units)} || true").split()
    return [f"{unit} ({state})" for unit, state in zip(units, states, strict=True) if state != "active"]


def snapshot(node: Node, unit: str, folder: str) -> str:
    """Has a unit take a snapshot into a folder, in which a run that was killed has left something; the path of the new one."""
    # Of the timer's turn, which would be joined.
    until(f"no other {unit} is at work", lambda: node.ask(f"systemctl is-active {unit}").code != 0)
    before = set(node.run(f"ls {folder}").split())
    node.run(f"touch {folder}/19700101T000000Z.part")
    # It gives way to all other work and tries again while its store has no leader: its own limit is ten minutes.
    node.run(f"systemctl start {unit}", 620)
    [new] = [name for name in node.run(f"ls {folder}").split() if name not in before]
    return f"{folder}/{new}"


@cache
def sockets() -> Path:
    """A folder of this run's own for the connections that are kept open."""
    folder = tempfile.mkdtemp(prefix="ashlar-ssh-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


def connect(machine: Machine) -> Node:
    """The node of a machine; no connection is made yet."""
    variables = machine.variables
    user = variables.get("ansible_user", "root")
    target = variables.get("ansible_host", machine.address)
    extra = f"{ALIVE} -o ControlMaster=auto -o ControlPersist=60s -o ControlPath={sockets() / machine.name} {variables.get('ansible_ssh_common_args', '')}"
    host = testinfra.get_host(
        f"ssh://{user}@{target}:{variables.get('ansible_port', 22)}",
        ssh_identity_file=variables.get("ansible_ssh_private_key_file"),
        ssh_extra_args=extra,
        sudo=user != "root",
    )
    return Node(machine, host)
