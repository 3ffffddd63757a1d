# SPDX-License-Identifier: Apache-2.0
"""Until every machine answers: which host keys are right, who answers by SSH, whose cloud-init is done.

What is remembered: ``credentials/ssh/known_hosts``, as ssh wants it, and ``state/machines.json``, which machine (its ``id``) had which
address. So a machine that was made anew may have another key, and one that is the same may not.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import shlex
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible_collections.ashlar.stack.plugins.plugin_utils.machines.apply import MachinesError

CONNECT_SECONDS = 5
PAUSE_SECONDS = 1.0
AT_ONCE = 50
# cloud-init ends with 2 where it did all it could and warns; its user and key are there then.
READY = """
command -v cloud-init >/dev/null 2>&1 || exit 0
timeout {seconds} cloud-init status --wait >/dev/null 2>&1; code=$?
case $code in
0|2) exit 0;;
124) echo "cloud-init is still at work: $(cloud-init status --long 2>/dev/null | tr '\\n' ' ')"; exit 41;;
*) echo "cloud-init failed: $(cloud-init status --long 2>/dev/null | tr '\\n' ' ')"; exit 42;;
esac
"""


@dataclass(frozen=True, slots=True)
class Reach:
    """How a machine is reached, from its variables in the inventory. ``arguments``: of ssh, as Ansible gives them."""

    name: str
    host: str
    port: int = 22
    user: str | None = None
    id: str | None = None
    keys: tuple[str, ...] = ()
    arguments: tuple[str, ...] = ()
    key_file: str | None = None
    bastion: tuple[str, int] | None = None

    @property
    def known_as(self) -> str:
        """As known_hosts calls it."""
        return known_as(self.host, self.port)


@dataclass(frozen=True, slots=True)
class Known:
    """What becomes of known_hosts. ``dropped``: machines that were made anew; ``first``: known_hosts names whose key nobody knows yet."""

    lines: tuple[str, ...]
    dropped: tuple[str, ...] = ()
    first: tuple[str, ...] = ()


def known_as(host: str, port: int) -> str:
    """A host as known_hosts has it: the port is said where it is another than 22."""
    return host if port == 22 else f"[{host}]:{port}"


def reach_of(name: str, variables: Mapping[str, Any]) -> Reach:
    """From the variables of a host."""
    arguments = shlex.split(str(variables.get("ansible_ssh_common_args") or ""))
    bastion = variables.get("node_bastion")
    through = any("ProxyCommand" in word or "ProxyJump" in word for word in arguments)
    return Reach(
        name=name,
        host=str(variables.get("ansible_host") or name),
        port=int(variables.get("ansible_port") or 22),
        user=variables.get("ansible_user"),
        id=variables.get("node_id"),
        keys=tuple(variables.get("node_ssh_host_keys") or ()),
        arguments=tuple(arguments),
        key_file=variables.get("ansible_ssh_private_key_file"),
        bastion=(str(bastion["host"]), int(bastion.get("port") or 22)) if through and bastion else None,
    )


def know(machines: Sequence[Reach], lines: Sequence[str], remembered: Mapping[str, Mapping[str, Any]]) -> Known:
    """The lines of known_hosts for these machines.

    Keys that the maker of a machine says stand; a machine with another ``id`` than is remembered, and an address that another machine had, lose
    their lines, and so do machines that are no more. Lines of hosts that were never ours stay.

    :param remembered: name -> ``{"id", "known_as"}``.
    """
    now = {machine.name: machine for machine in machines}
    was = {str(entry.get("known_as")): name for name, entry in remembered.items()}
    gone = {known for known, name in was.items() if name not in now or now[name].known_as != known}
    changed = [machine for machine in machines if _other(machine, was, remembered)]
    told = {machine.known_as: machine.keys for machine in machines if machine.keys}
    drop = {*gone, *(machine.known_as for machine in changed), *told}
    kept = [line for line in lines if not line.strip() or _hosts(line).isdisjoint(drop)]
    kept += [f"{host} {key}" for host in sorted(told) for key in told[host]]
    there = {host for line in kept for host in _hosts(line)}
    wanted = [*(known_as(*machine.bastion) for machine in machines if machine.bastion), *(machine.known_as for machine in machines)]
    return Known(tuple(kept), tuple(machine.name for machine in changed), tuple(dict.fromkeys(host for host in wanted if host not in there)))


def remember(machines: Iterable[Reach]) -> dict[str, dict[str, Any]]:
    """What is remembered of them till the next time."""
    return {machine.name: {"id": machine.id, "known_as": machine.known_as} for machine in machines}


def _other(machine: Reach, was: Mapping[str, str], remembered: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether another machine than the one remembered answers at this address."""
    owner = was.get(machine.known_as)
    if owner is None:
        return False
    return owner != machine.name or (machine.id is not None and remembered[owner].get("id") not in (None, machine.id))


def _hosts(line: str) -> set[str]:
    words = line.split()
    return set(words[0].split(",")) if words and not words[0].startswith(("#", "@", "|")) else set()


def fingerprint(key: str) -> str:
    """``ssh-ed25519 AAAA...`` as ssh-keygen -l shows it."""
    kind, _, blob = key.partition(" ")
    digest = base64.b64encode(hashlib.sha256(base64.b64decode(blob.split()[0])).digest()).decode().rstrip("=")
    return f"{kind} SHA256:{digest}"


class Site:
    """The files of a site that this is about."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.ssh = directory / "credentials" / "ssh"
        self.key = self.ssh / "id_ed25519"
        self.known_hosts = self.ssh / "known_hosts"
        self.memory = directory / "state" / "machines.json"

    def make_key(self) -> bool:
        """The site's key pair; whether it was made now.

        :raises MachinesError: it can't be.
        """
        if self.key.exists() and self.key.with_suffix(".pub").exists():
            return False
        self._closed_folder()
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "ashlar", "-f", str(self.key)]
        try:
            if self.key.exists():
                command = ["ssh-keygen", "-y", "-f", str(self.key)]
            done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30, stdin=subprocess.DEVNULL)
            if done.stdout:
                _write(self.key.with_suffix(".pub"), done.stdout, 0o644)
        except FileNotFoundError:
            raise MachinesError("ssh-keygen is not there. Install the SSH client (openssh-client) on this machine and run again.") from None
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
            said = str(getattr(error, "stderr", "") or error).strip()
            raise MachinesError(f"{self.key} can't be made or read: {said}. Allowed: a key without a passphrase; move the file away for a new one.") from None
        return True

    def touch(self) -> None:
        """known_hosts is there, so that the inventory has it checked strictly."""
        if not self.known_hosts.exists():
            self._closed_folder()
            _write(self.known_hosts, "", 0o600)

    def lines(self) -> list[str]:
        return self.known_hosts.read_text(encoding="utf-8").splitlines() if self.known_hosts.exists() else []

    def write_lines(self, lines: Sequence[str]) -> None:
        self._closed_folder()
        _write(self.known_hosts, "".join(f"{line}\n" for line in lines), 0o600)

    def remembered(self) -> dict[str, Any]:
        try:
            content = json.loads(self.memory.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return {name: entry for name, entry in content.items() if isinstance(entry, dict)} if isinstance(content, dict) else {}

    def write_memory(self, content: Mapping[str, Any]) -> None:
        self.memory.parent.mkdir(parents=True, exist_ok=True)
        _write(self.memory, json.dumps(content, indent=1, sort_keys=True) + "\n", 0o644)

    def forget(self) -> list[str]:
        """Nothing is remembered of machines any more, nor of what was installed on them; returns what was removed. Authorities and keys stay:
        backups may need them."""
        files = (self.known_hosts, self.known_hosts.with_suffix(".old"), self.memory, self.memory.with_name("installed.json"))
        there = [file for file in files if file.exists()]
        for file in there:
            file.unlink()
        return [str(file) for file in there]

    def _closed_folder(self) -> None:
        self.ssh.mkdir(parents=True, exist_ok=True, mode=0o700)
        for folder in (self.ssh, self.ssh.parent):
            folder.chmod(0o700)


def _write(file: Path, text: str, mode: int) -> None:
    new = file.with_name(f".{file.name}.{os.getpid()}")
    new.write_text(text, encoding="utf-8")
    new.chmod(mode)
    new.replace(file)


class Waiter:
    """Asks every machine until it answers and its cloud-init is done, many at once, until ``timeout_seconds`` are over."""

    def __init__(self, site: Site, first: Iterable[str], timeout_seconds: int, say: Callable[[str], None]) -> None:
        self.site, self.first, self.timeout_seconds, self.say = site, frozenset(first), timeout_seconds, say
        self.end = time.monotonic() + timeout_seconds
        self._waiting: set[str] = set()
        self._lock = threading.Lock()

    def wait(self, machines: Sequence[Reach]) -> None:
        """Returns when all of them answer.

        :raises MachinesError: some do not; each with why.
        """
        if not machines:
            return
        self._scan({machine.bastion for machine in machines if machine.bastion and known_as(*machine.bastion) in self.first})
        self._waiting = {machine.name for machine in machines}
        done = threading.Event()
        teller = threading.Thread(target=self._tell, args=(done,), daemon=True)
        teller.start()
        try:
            with ThreadPoolExecutor(min(AT_ONCE, len(machines))) as pool:
                wrong = {machine.name: said for machine, said in zip(machines, pool.map(self._one, machines)) if said}
        finally:
            done.set()
        if wrong:
            count = "A machine is" if len(wrong) == 1 else f"{len(wrong)} of {len(machines)} machines are"
            lines = [f"{count} not ready for Ansible:", *(f"  {name}: {said}" for name, said in wrong.items())]
            lines.append("Fix that and run again: existing machines are kept.")
            raise MachinesError("\n".join(lines))

    def _tell(self, done: threading.Event) -> None:
        while not done.wait(15):
            with self._lock:
                waiting = sorted(self._waiting)
            if waiting:
                self.say(f"waiting for {len(waiting)} machines: {', '.join(waiting[:5])}{' ...' if len(waiting) > 5 else ''}")

    def _scan(self, bastions: set[tuple[str, int]]) -> None:
        """Keys of bastions that nobody knows yet: the connection through them is checked strictly."""
        for host, port in sorted(bastions):
            while True:
                found = _run(["ssh-keyscan", "-T", str(CONNECT_SECONDS), "-p", str(port), host], CONNECT_SECONDS + 10)[1]
                lines = [line for line in found.splitlines() if line and not line.startswith("#")]
                if lines:
                    self.site.write_lines([*self.site.lines(), *lines])
                    break
                if time.monotonic() > self.end:
                    silent = f"The bastion {known_as(host, port)} did not answer by SSH within {self.timeout_seconds} s"
                    raise MachinesError(f"{silent}. Does networks.admin of the site let this machine in?")
                time.sleep(PAUSE_SECONDS)

    def _one(self, machine: Reach) -> str | None:
        """None when it is ready, else why not."""
        said = "it was not asked"
        while True:
            left = self.end - time.monotonic()
            if left <= 0:
                return f"{said} (for {self.timeout_seconds} s)"
            code, out, errors = _run(command(machine, self.site, self.first, int(left)), left + 10)
            if code == 0:
                with self._lock:
                    self._waiting.discard(machine.name)
                return None
            if code in (41, 42):
                return f"{out.strip()}; look there: /var/log/cloud-init-output.log"
            final, said = explained(machine, errors or out, str(self.site.known_hosts))
            if final:
                return said
            time.sleep(PAUSE_SECONDS)


def command(machine: Reach, site: Site, first: frozenset[str] | set[str], seconds: int) -> list[str]:
    """The ssh that asks. What comes first counts with ssh, so the options that matter here go before Ansible's."""
    trust = "accept-new" if machine.known_as in first else "yes"
    quoted = str(site.known_hosts).replace("%", "%%").replace('"', '\\"')
    options = {
        "BatchMode": "yes",
        "ConnectTimeout": str(CONNECT_SECONDS),
        "ServerAliveInterval": "15",
        "StrictHostKeyChecking": trust,
        "UserKnownHostsFile": f'"{quoted}"',
        "HashKnownHosts": "no",
        "UpdateHostKeys": "no",
        "ControlMaster": "no",
        "ControlPath": "none",
        "LogLevel": "ERROR",
    }
    words = ["ssh", *(word for name, value in options.items() for word in ("-o", f"{name}={value}")), *machine.arguments]
    if machine.key_file:
        words += ["-i", machine.key_file]
    if machine.user:
        words += ["-l", machine.user]
    return [*words, "-p", str(machine.port), machine.host, READY.format(seconds=max(1, seconds - 5))]


def explained(machine: Reach, errors: str, known_hosts: str) -> tuple[bool, str]:
    """(whether waiting longer is of no use, what the operator reads) for what ssh said."""
    last = next((line.strip() for line in reversed(errors.splitlines()) if line.strip()), "ssh said nothing")
    where = f"{machine.user or 'ssh'}@{machine.known_as}"
    if re.search(r"REMOTE HOST IDENTIFICATION HAS CHANGED|Host key verification failed|host key .*(has changed|not known)", errors, re.IGNORECASE):
        same = f"though it is the same machine ({machine.id})" if machine.id else "and nothing says that it was replaced"
        return True, (
            f"{machine.known_as} has a different host key than {known_hosts}, {same}. This may be a man-in-the-middle attack. "
            f"If its key was changed on purpose, run: ssh-keygen -f {shlex.quote(known_hosts)} -R {shlex.quote(machine.known_as)}"
        )
    if "Permission denied" in errors:
        return False, f"{where} does not accept the key {machine.key_file or 'that ssh offers'}: {last}"
    return False, f"{where} does not answer by SSH: {last}"


def _run(words: Sequence[str], seconds: float) -> tuple[int, str, str]:
    try:
        done = subprocess.run(words, capture_output=True, text=True, errors="replace", check=False, timeout=max(1.0, seconds), stdin=subprocess.DEVNULL)
    except subprocess.TimeoutExpired:
        return 255, "", f"no answer within {seconds:.0f} s"
    except FileNotFoundError:
        raise MachinesError(f"{words[0]} is not there. Install the SSH client (openssh-client) on this machine and run again.") from None
    return done.returncode, done.stdout, done.stderr
