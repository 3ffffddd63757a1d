# SPDX-License-Identifier: Apache-2.0
"""What a host is asked before anything is laid down on it: reading and probing only, nothing is ever written.

Everything a check may look at is a method of L(Host), so that a test lays out a folder that stands for / and overrides the few
methods that ask the kernel directly.
"""

from __future__ import annotations

import array
import errno
import fcntl
import gzip
import ipaddress
import json
import os
import re
import selectors
import socket
import struct
import subprocess
import threading
import time
from dataclasses import dataclass

from ansible_collections.ashlar.stack.plugins.module_utils.host.run import PATH

_SIOCGIFCONF = 0x8912
_INTERFACE_RECORD_BYTES = 40
_MOST_GENERATIONS = 16
_TCP_LISTEN = "0A"
_UDP_BOUND = "07"


@dataclass(frozen=True)
class Listener:
    """A socket that takes connections or datagrams. `inode` is the key under which its process holds it; 0 for the kernel's own."""

    protocol: str
    address: str
    port: int
    inode: int


@dataclass(frozen=True)
class Process:
    """A running process: `executable` is empty for kernel threads, `unit` is empty for what runs outside of a systemd unit."""

    pid: int
    command: str
    executable: str
    unit: str
    in_pod: bool


@dataclass(frozen=True)
class Peer:
    """Another node of the site, and the port on which it must be reached."""

    name: str
    address: str
    port: int


class Host:
    """The machine a module runs on. Paths are absolute and are looked up below `root`."""

    def __init__(self, root: str = "/") -> None:
        self._root = root
        self._processes: list[Process] | None = None

    def path(self, path: str) -> str:
        return os.path.join(self._root, path.lstrip("/"))

    def exists(self, path: str) -> bool:
        return os.path.exists(self.path(path))

    def text(self, path: str) -> str:
        """The file's text; empty when it is missing or unreadable, which for a check is the same."""
        try:
            with open(self.path(path), encoding="utf-8", errors="replace") as file:
                return file.read()
        except OSError:
            return ""

    def listing(self, path: str) -> list[str]:
        try:
            return sorted(os.listdir(self.path(path)))
        except OSError:
            return []

    def link(self, path: str) -> str:
        try:
            return os.readlink(self.path(path))
        except OSError:
            return ""

    def user_id(self) -> int:
        return os.geteuid()

    def machine(self) -> str:
        """The kernel's name of the architecture, such as x86_64."""
        return os.uname().machine

    def kernel(self) -> str:
        return os.uname().release

    def name(self) -> str:
        return socket.gethostname()

    def cpus(self) -> int:
        return os.cpu_count() or 1

    def disk(self, path: str) -> tuple[int, int]:
        """Size and free bytes (for everyone but root) of the filesystem that holds `path` or its nearest existing parent."""
        place = self.path(path)
        while not os.path.exists(place) and place != os.path.dirname(place):
            place = os.path.dirname(place)
        figures = os.statvfs(place)
        return figures.f_blocks * figures.f_frsize, figures.f_bavail * figures.f_frsize

    def mount_flags(self, path: str) -> set[str]:
        """`noexec` and `ro`, as far as the file system of `path` or of its nearest existing parent is mounted so."""
        place = self.path(path)
        while not os.path.exists(place) and place != os.path.dirname(place):
            place = os.path.dirname(place)
        flags = os.statvfs(place).f_flag
        return {name for name, flag in (("noexec", os.ST_NOEXEC), ("ro", os.ST_RDONLY)) if flags & flag}

    def dropping_chains(self) -> list[tuple[str, str, str, str]]:
        """Family, table, name and hook of the chains of nftables on input and forward whose policy is to drop; none where nft cannot tell."""
        try:
            done = _run(["nft", "-j", "list", "chains"], 5)
            listed = json.loads(done.stdout)["nftables"]
        except (OSError, subprocess.TimeoutExpired, ValueError, KeyError):
            return []
        chains = [item["chain"] for item in listed if "chain" in item]
        return [
            (chain["family"], chain["table"], chain["name"], chain["hook"])
            for chain in chains
            if chain.get("policy") == "drop" and chain.get("hook") in ("input", "forward")
        ]

    def opens_for_writing(self, path: str) -> bool:
        """Whether a write would be let through; opening a sysctl asks the kernel without setting anything."""
        try:
            os.close(os.open(self.path(path), os.O_WRONLY))
        except OSError:
            return False
        return True

    def addresses(self) -> dict[str, str]:
        """IPv4 address -> interface, also for second addresses of an interface."""
        size = _INTERFACE_RECORD_BYTES * 1024
        records = array.array("B", bytes(size))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
            answer = fcntl.ioctl(asking.fileno(), _SIOCGIFCONF, struct.pack("iL", size, records.buffer_info()[0]))
        used = struct.unpack("iL", answer)[0]
        found = {}
        for start in range(0, used, _INTERFACE_RECORD_BYTES):
            record = records[start : start + _INTERFACE_RECORD_BYTES].tobytes()
            label = record[:16].split(b"\0", 1)[0].decode()
            found[socket.inet_ntoa(record[20:24])] = label.split(":")[0]
        return found

    def routes(self) -> list[tuple[str, ipaddress.IPv4Network]]:
        """Interface and destination of each IPv4 route of the main table; those that lead nowhere (blackholes) have none."""
        rows = [line.split() for line in self.text("/proc/net/route").splitlines()[1:]]
        return [(row[0], ipaddress.IPv4Network(f"{_address(row[1])}/{_address(row[7])}")) for row in rows if row[0] != "*"]

    def run(self, command: list[str], seconds: float = 5) -> bool:
        """Whether the command ends well in time; a command that is missing does not."""
        try:
            done = _run(command, seconds)
        except (OSError, subprocess.TimeoutExpired):
            return False
        return done.returncode == 0

    def resolves(self, name: str, seconds: float) -> bool:
        """Whether the system's resolver knows `name`. A resolver that does not answer in time counts as not knowing."""
        known = []

        def ask() -> None:
            try:
                known.append(socket.getaddrinfo(name, None))
            except OSError:
                return

        asking = threading.Thread(target=ask, daemon=True)
        asking.start()
        asking.join(seconds)
        return bool(known)

    def ssh_connection(self) -> tuple[str, int] | None:
        """Client address and server port of the SSH session this runs in; None when it came by another way.

        Programs that change the user drop the variable, so it is looked for in the processes that led here.
        """
        pid = os.getpid()
        for _generation in range(_MOST_GENERATIONS):
            for variable in self.text(f"/proc/{pid}/environ").split("\0"):
                if variable.startswith("SSH_CONNECTION="):
                    client, _client_port, _server, port = variable.partition("=")[2].split()
                    return client, int(port)
            parents = re.findall(r"^PPid:\s*(\d+)$", self.text(f"/proc/{pid}/status"), re.MULTILINE)
            pid = int(parents[0]) if parents else 0
            if pid <= 1:
                break
        return None

    def reach(self, peers: list[Peer], seconds: float) -> dict[str, str]:
        """Peers that did not answer: name -> reason. All are tried at once, so that silence costs `seconds` once.

        A refused connection is an answer: the packets found their way there and back.
        """
        silent = {}
        waiting = selectors.DefaultSelector()
        try:
            for peer in peers:
                trying = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
                trying.setblocking(False)
                started = trying.connect_ex((peer.address, peer.port))
                if started in (0, errno.EINPROGRESS):
                    waiting.register(trying, selectors.EVENT_WRITE, peer.name)
                else:
                    trying.close()
                    silent[peer.name] = os.strerror(started).lower()
            end = time.monotonic() + seconds
            while waiting.get_map() and time.monotonic() < end:
                for key, _events in waiting.select(max(0.0, end - time.monotonic())):
                    outcome = key.fileobj.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)  # type: ignore[union-attr]
                    if outcome not in (0, errno.ECONNREFUSED):
                        silent[key.data] = os.strerror(outcome).lower()
                    waiting.unregister(key.fileobj)
                    key.fileobj.close()  # type: ignore[union-attr]
            for key in list(waiting.get_map().values()):
                silent[key.data] = f"no answer in {seconds:g} seconds"
                key.fileobj.close()  # type: ignore[union-attr]
        finally:
            waiting.close()
        return silent

    def listeners(self) -> list[Listener]:
        return [
            listener
            for table, protocol, state in (
                ("tcp", "tcp", _TCP_LISTEN),
                ("tcp6", "tcp", _TCP_LISTEN),
                ("udp", "udp", _UDP_BOUND),
                ("udp6", "udp", _UDP_BOUND),
            )
            for listener in parse_sockets(self.text(f"/proc/net/{table}"), protocol, state)
        ]

    def holders(self, inodes: set[int]) -> dict[int, int]:
        """Which process holds each of the sockets: inode -> pid. Stops as soon as all are found."""
        wanted = {f"socket:[{inode}]": inode for inode in inodes}
        found: dict[int, int] = {}
        for pid in self._pids():
            if len(found) == len(wanted):
                break
            for descriptor in self.listing(f"/proc/{pid}/fd"):
                inode = wanted.get(self.link(f"/proc/{pid}/fd/{descriptor}"))
                if inode is not None:
                    found.setdefault(inode, pid)
        return found

    def process(self, pid: int) -> Process:
        groups = self.text(f"/proc/{pid}/cgroup")
        return Process(
            pid=pid,
            command=self.text(f"/proc/{pid}/comm").strip(),
            executable=self.link(f"/proc/{pid}/exe"),
            unit=unit_of(groups),
            in_pod="kubepods" in groups,
        )

    def commands(self) -> dict[int, str]:
        """pid -> name of its command, of all processes."""
        return {pid: self.text(f"/proc/{pid}/comm").strip() for pid in self._pids()}

    def _pids(self) -> list[int]:
        return sorted(int(name) for name in self.listing("/proc") if name.isdigit())

    def kernel_options(self) -> str:
        """The kernel's build configuration, from the running kernel or from /boot; empty when neither tells."""
        try:
            with gzip.open(self.path("/proc/config.gz"), "rt", encoding="ascii", errors="replace") as file:
                return file.read()
        except (OSError, EOFError):
            return self.text(f"/boot/config-{self.kernel()}")


def _run(command: list[str], seconds: float) -> subprocess.CompletedProcess[bytes]:
    """With the administrator's PATH: su and doas keep that of the login user, which has no sbin."""
    return subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, timeout=seconds, check=False, env={**os.environ, "PATH": PATH}
    )


def parse_sockets(table: str, protocol: str, state: str) -> list[Listener]:
    """The sockets in `state` of a table as in /proc/net/tcp (see proc_net_tcp in the kernel's documentation)."""
    found = []
    for line in table.splitlines()[1:]:
        fields = line.split()
        if len(fields) < 10 or fields[3] != state:
            continue
        address, port = fields[1].split(":")
        found.append(Listener(protocol, _address(address), int(port, 16), int(fields[9])))
    return found


def _address(digits: str) -> str:
    """An address as the kernel prints it: hexadecimal 32-bit words in the machine's byte order."""
    raw = b"".join(bytes.fromhex(digits[start : start + 8])[::-1] for start in range(0, len(digits), 8))
    address = ipaddress.ip_address(raw)
    mapped = getattr(address, "ipv4_mapped", None)
    return str(mapped or address)


def unit_of(groups: str) -> str:
    """The systemd unit in the text of /proc/<pid>/cgroup, such as etcd.service; empty when there is none."""
    for line in groups.splitlines():
        _number, controllers, path = [*line.split(":", 2), "", ""][:3]
        if controllers not in ("", "name=systemd"):
            continue
        units = [part for part in path.split("/") if re.search(r"\.(service|scope|socket)$", part)]
        if units:
            return units[0]
    return ""
