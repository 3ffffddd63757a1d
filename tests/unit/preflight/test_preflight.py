# SPDX-License-Identifier: Apache-2.0
"""Wrong hosts, each laid out as a folder that stands for /, and what the operator is told about them."""

from __future__ import annotations

import gzip
import os
import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from ansible_collections.ashlar.stack.plugins.module_utils.preflight import host as preflight_host
from ansible_collections.ashlar.stack.plugins.module_utils.preflight.checks import (
    FEATURES,
    Port,
    Problem,
    Wanted,
    clock_problem,
    examine,
    facts,
    lockout_problem,
)
from ansible_collections.ashlar.stack.plugins.module_utils.preflight.host import Host, Peer, parse_sockets, unit_of

GIB = 1024**3
ADDRESS = "10.0.0.11"
WANTED = Wanted(
    address=ADDRESS,
    classes=("control", "worker"),
    components=("etcd", "containerd", "kubernetes_node"),
    min_cpus={"control": 2, "worker": 1},
    min_memory_mb={"control": 1700, "worker": 900},
    min_disk_gb={"control": 20},
    min_disk_free_percent=15,
    kernel_features=tuple(FEATURES),
    ports=(Port("etcd", "client", 2379, 2379, "tcp"), Port("kubernetes_node", "node_ports", 30000, 32767, "tcp")),
    peers=(Peer("n2", "10.0.0.12", 22),),
    users={"etcd": "etcd", "prometheus": "prometheus"},
    networks={"pods": "10.244.0.0/16", "services": "10.96.0.0/16"},
)


class FakeHost(Host):
    """A good host; tests spoil it by its attributes and by its files."""

    def __init__(self, root: Path) -> None:
        super().__init__(str(root))
        self.uid = 0
        self.architecture = "x86_64"
        self.cpu_count = 4
        self.disk_bytes = (100 * GIB, 60 * GIB)
        self.interfaces = {"127.0.0.1": "lo", ADDRESS: "eth0"}
        self.silent: dict[str, str] = {}
        self.working_commands: set[str] = set()
        self.locked: set[str] = set()
        self.flags: dict[str, set[str]] = {}
        self.chains: list[tuple[str, str, str, str]] = []
        for path, text in {
            "/etc/os-release": 'ID=debian\nVERSION_ID="13"\nVERSION_CODENAME=trixie\nPRETTY_NAME="Debian GNU/Linux 13 (trixie)"\n',
            "/proc/1/comm": "systemd\n",
            "/proc/1/status": "Name:\tsystemd\nCapBnd:\t000001ffffffffff\n",
            "/proc/meminfo": "MemTotal:        4028432 kB\nSwapTotal:       0 kB\n",
            "/etc/hosts": "127.0.0.1 localhost\n10.0.0.11 n1 # us\n",
            "/etc/resolv.conf": "nameserver 10.0.0.2\n",
            "/proc/filesystems": "nodev\tsysfs\nnodev\toverlay\n",
            "/sys/fs/cgroup/cgroup.controllers": "cpuset cpu io memory pids\n",
            "/sys/class/net/eth0/mtu": "1450\n",
            "/proc/sys/net/ipv4/ip_forward": "0\n",
            "/usr/lib/systemd/systemd-timesyncd": "",
            "/usr/bin/python3": "",
        }.items():
            self.write(path, text)
        self.write_options("CONFIG_X86=y", *(f"{feature.option}=y" for feature in FEATURES.values()))

    def write(self, path: str, text: str) -> None:
        place = Path(self.path(path))
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)

    def write_options(self, *options: str) -> None:
        Path(self.path("/proc/config.gz")).write_bytes(gzip.compress("\n".join(["#", *options, ""]).encode()))

    def route(self, row: str) -> None:
        """Adds a route by interface, destination, gateway, flags and mask in the kernel's notation."""
        interface, destination, gateway, flags, mask = row.split()
        head = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n"
        rows = self.text("/proc/net/route") or head
        self.write("/proc/net/route", f"{rows}{interface}\t{destination}\t{gateway}\t{flags}\t0\t0\t0\t{mask}\t0\t0\t0\n")

    def listen(self, table: str, address: str, port: int, pid: int, command: str, unit: str, executable: str = "/usr/bin/x") -> None:
        """Lets a process listen at an address in the kernel's notation."""
        state = "0A" if table.startswith("tcp") else "07"
        inode = 4000 + pid
        self.write(
            f"/proc/net/{table}",
            "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
            f"   0: {address}:{port:04X} 00000000:0000 {state} 00000000:00000000 00:00000000 00000000     0        0 {inode} 1 0 100 0\n",
        )
        self.write(f"/proc/{pid}/comm", f"{command}\n")
        self.write(f"/proc/{pid}/cgroup", f"0::/system.slice/{unit}\n" if unit else "0::/\n")
        Path(self.path(f"/proc/{pid}/exe")).symlink_to(executable)
        Path(self.path(f"/proc/{pid}/fd")).mkdir()
        Path(self.path(f"/proc/{pid}/fd/3")).symlink_to(f"socket:[{inode}]")

    def user_id(self) -> int:
        return self.uid

    def machine(self) -> str:
        return self.architecture

    def kernel(self) -> str:
        return "6.12.1"

    def name(self) -> str:
        return "n1"

    def cpus(self) -> int:
        return self.cpu_count

    def disk(self, path: str) -> tuple[int, int]:
        return self.disk_bytes

    def addresses(self) -> dict[str, str]:
        return self.interfaces

    def opens_for_writing(self, path: str) -> bool:
        return path not in self.locked

    def mount_flags(self, path: str) -> set[str]:
        return self.flags.get(path, set())

    def dropping_chains(self) -> list[tuple[str, str, str, str]]:
        return self.chains

    def resolves(self, name: str, seconds: float) -> bool:
        return False

    def reach(self, peers: list[Peer], seconds: float) -> dict[str, str]:
        return self.silent

    def run(self, command: list[str], seconds: float = 5) -> bool:
        return " ".join(command) in self.working_commands


@pytest.fixture
def host(tmp_path: Path) -> FakeHost:
    return FakeHost(tmp_path)


def only(problems: list[Problem]) -> Problem:
    assert len(problems) == 1, problems
    return problems[0]


def test_a_good_host_has_no_problem(host: FakeHost) -> None:
    assert examine(host, WANTED) == []


def test_facts_are_small_and_say_what_roles_decide_by(host: FakeHost) -> None:
    assert facts(host, WANTED) == {
        "node_architecture": "amd64",
        "node_os": {"id": "debian", "version": "13", "codename": "trixie"},
        "node_kernel": "6.12.1",
        "node_cpus": 4,
        "node_memory_mb": 3934,
        "node_swap_mb": 0,
        "node_cgroup": "v2",
        "node_container": False,
        "node_can_lower_oom_score_adj": True,
        "node_sysctl_writable": True,
        "node_time_service": "systemd-timesyncd",
        "node_ssh_port": 22,
        "node_interface": "eth0",
        "node_mtu": 1450,
    }


def test_facts_of_a_container_without_capabilities(host: FakeHost) -> None:
    host.architecture = "aarch64"
    host.write("/proc/1/status", "CapBnd:\t000001fffeffffff\n")
    host.write("/proc/1/environ", "HOME=/root\0container=podman\0")
    host.write("/proc/sys/net/netfilter/nf_conntrack_max", "1\n")
    host.locked = {"/proc/sys/net/netfilter/nf_conntrack_max"}
    Path(host.path("/sys/fs/cgroup/cgroup.controllers")).unlink()
    found = facts(host, WANTED)
    assert found["node_architecture"] == "arm64"
    assert found["node_container"] is True
    assert found["node_can_lower_oom_score_adj"] is False
    assert found["node_sysctl_writable"] is False
    assert found["node_cgroup"] == "v1"


def _old_system(host: FakeHost) -> None:
    host.write("/etc/os-release", 'ID=debian\nVERSION_ID="11"\nPRETTY_NAME="Debian GNU/Linux 11 (bullseye)"\n')


def _other_system(host: FakeHost) -> None:
    host.write("/etc/os-release", 'ID="rocky"\nVERSION_ID="9.4"\nPRETTY_NAME="Rocky Linux 9.4 (Blue Onyx)"\n')


def _other_architecture(host: FakeHost) -> None:
    host.architecture = "riscv64"


def _no_systemd(host: FakeHost) -> None:
    host.write("/proc/1/comm", "sh\n")


def _few_cpus(host: FakeHost) -> None:
    host.cpu_count = 1


def _little_memory(host: FakeHost) -> None:
    host.write("/proc/meminfo", "MemTotal: 1048576 kB\n")


def _small_disk(host: FakeHost) -> None:
    host.disk_bytes = (8 * GIB, 6 * GIB)


def _full_disk(host: FakeHost) -> None:
    host.disk_bytes = (100 * GIB, 9 * GIB)


def _other_address(host: FakeHost) -> None:
    host.interfaces = {"127.0.0.1": "lo", "192.168.7.4": "ens3", "10.0.0.99": "ens4"}


def _only_ipv6(host: FakeHost) -> None:
    host.interfaces = {"127.0.0.1": "lo"}


def _no_localhost(host: FakeHost) -> None:
    host.write("/etc/hosts", "10.0.0.11 n1\n")


def _unreachable_peer(host: FakeHost) -> None:
    host.silent = {"n2": "no answer in 3 seconds"}


def _old_kernel(host: FakeHost) -> None:
    host.write_options("CONFIG_VETH=y", "CONFIG_BRIDGE=y", "CONFIG_NF_CONNTRACK=y", "CONFIG_NF_TABLES=y", "CONFIG_VXLAN=m")


def _no_memory_controller(host: FakeHost) -> None:
    host.write("/sys/fs/cgroup/cgroup.controllers", "cpuset cpu io pids\n")


def _taken_port(host: FakeHost) -> None:
    host.listen("tcp", "00000000", 2379, 812, "etcd", "etcd-old.service")


def _taken_port_without_unit(host: FakeHost) -> None:
    host.listen("tcp6", "00000000000000000000000000000000", 2379, 812, "nc", "")


def _other_firewall(host: FakeHost) -> None:
    host.write("/etc/ufw/ufw.conf", "ENABLED=yes\nLOGLEVEL=low\n")


@pytest.mark.parametrize(
    ("spoil", "check", "message", "remedy"),
    [
        (
            _old_system,
            "os",
            "Debian GNU/Linux 11 (bullseye) is not supported, Debian 12, 13 and Ubuntu 22.04, 24.04, 26.04 are",
            "install one of these on the host",
        ),
        (
            _other_system,
            "os",
            "Rocky Linux 9.4 (Blue Onyx) is not supported, Debian 12, 13 and Ubuntu 22.04, 24.04, 26.04 are",
            "install one of these on the host",
        ),
        (
            _other_architecture,
            "architecture",
            "the architecture riscv64 is not supported, x86_64 (amd64) and aarch64 (arm64) are",
            "use another machine",
        ),
        (
            _no_systemd,
            "systemd",
            "process 1 is sh, and needs to be systemd: every component is a unit",
            "boot the host with systemd (a container needs /sbin/init as its command)",
        ),
        (
            _few_cpus,
            "cpus",
            "has 1 CPU, and the class control needs 2",
            "give the machine more CPUs, remove the class from the node, or lower base_cpus_min",
        ),
        (
            _little_memory,
            "memory",
            "has 1024 MB of memory, and the class control needs 1700 MB",
            "give the machine more memory, remove the class from the node, or lower base_memory_mib_min",
        ),
        (
            _small_disk,
            "disk",
            "the disk under /var/lib has 8.0 GB, and the class control needs 20 GB",
            "give the machine a larger disk, remove the class from the node, or lower base_disk_gib_min",
        ),
        (
            _full_disk,
            "disk",
            "the disk under /var/lib is 9.0 % free, and 15 % are needed: below that the kubelet evicts pods and deletes images",
            "free space, or lower base_disk_free_percent_min together with the kubelet's eviction thresholds",
        ),
        (
            _other_address,
            "address",
            "node_address 10.0.0.11 is on none of the host's interfaces, which have 10.0.0.99 (ens4), 192.168.7.4 (ens3)",
            "correct node_address in the site's 10-nodes.yml, or put the address on an interface",
        ),
        (
            _only_ipv6,
            "address",
            "no interface has an IPv4 address, and IPv6 alone is not supported",
            "give the host a private IPv4 address",
        ),
        (_no_localhost, "names", "the name localhost does not resolve", "add the line `127.0.0.1 localhost` to /etc/hosts"),
        (
            _unreachable_peer,
            "peers",
            "does not reach the node n2 at 10.0.0.12 port 22: no answer in 3 seconds",
            "check that n2 is running, that its node_address is correct and routed, and that no firewall between them drops packets;"
            " without it: --limit '!n2'",
        ),
        (
            _old_kernel,
            "kernel",
            "the kernel 6.12.1 has no br_netfilter, vxlan",
            "install the distribution's full kernel package (linux-image-amd64, linux-modules-extra) and boot it, or use another machine",
        ),
        (
            _no_memory_controller,
            "cgroups",
            "the kernel has no cgroup controller memory",
            "boot with `cgroup_enable=memory` and without `cgroup_disable=` on the kernel's command line",
        ),
        (
            _taken_port,
            "ports",
            "tcp port 2379, which etcd needs (client), is taken by etcd (pid 812, etcd-old.service)",
            "stop the process (systemctl disable --now etcd-old.service), or give etcd another port",
        ),
        (
            _taken_port_without_unit,
            "ports",
            "tcp port 2379, which etcd needs (client), is taken by nc (pid 812)",
            "stop the process (kill 812), or give etcd another port",
        ),
        (
            _other_firewall,
            "firewalls",
            "ufw is active and drops what Ashlar's own firewall accepts",
            "ufw disable (Ashlar's firewall takes its place), or let it pass the platform's ports and skip this check",
        ),
    ],
)
def test_a_wrong_host_gets_one_clear_error(
    host: FakeHost, spoil: Callable[[FakeHost], None], check: str, message: str, remedy: str
) -> None:
    spoil(host)
    assert only(examine(host, WANTED)) == Problem(check, message, remedy)
    assert examine(host, replace(WANTED, skip=(check,))) == []


def test_all_problems_are_told_at_once(host: FakeHost) -> None:
    _old_system(host)
    _little_memory(host)
    _unreachable_peer(host)
    assert [problem.check for problem in examine(host, WANTED)] == ["os", "memory", "peers"]


def test_without_root_nothing_else_is_told(host: FakeHost) -> None:
    host.uid = 1000
    _little_memory(host)
    assert only(examine(host, WANTED)) == Problem(
        "root",
        "Ansible works as the user with id 1000, and needs to be root",
        "set ansible_become: true for the host, or log in as root (ansible_user)",
    )


def test_the_greatest_minimum_of_the_classes_counts(host: FakeHost) -> None:
    _little_memory(host)
    assert examine(host, replace(WANTED, classes=("worker",))) == []


def test_a_feature_counts_when_it_is_a_module_that_can_be_loaded_or_when_trying_it_works(host: FakeHost) -> None:
    Path(host.path("/proc/config.gz")).unlink()
    host.write("/sys/module/nf_conntrack/refcnt", "0")
    host.write("/proc/sys/net/bridge/bridge-nf-call-iptables", "1")
    host.write("/boot/config-6.12.1", "#\nCONFIG_VETH=y\n")
    host.working_commands = {
        "modprobe --dry-run --quiet bridge",
        "nft list tables",
        "unshare --net ip link add ashlar0 type vxlan id 1 dev lo dstport 4789",
    }
    assert examine(host, WANTED) == []


@pytest.mark.parametrize(
    ("unit", "executable"),
    [
        ("etcd.service", "/opt/ashlar/etcd/3.7.3/etcd"),
        ("recorded.service", "/usr/sbin/haproxy"),
        ("named.service", "/usr/sbin/haproxy"),
        ("written.service", "/usr/bin/python3.13"),
        ("kubepods.slice/kubepods-burstable.slice/cri-containerd-1.scope", "/bin/server"),
    ],
)
def test_what_our_own_units_listen_on_is_not_taken(host: FakeHost, unit: str, executable: str) -> None:
    host.write("/var/lib/ashlar/units/recorded.service.json", "{}")
    host.write("/var/lib/ashlar/trees/api_balancer.json", '{"units": ["named.service"]}')
    host.write("/etc/systemd/system/written.service", "[Service]\nExecStart=/opt/ashlar/thing/current/thing\n")
    host.listen("tcp", "0B00000A", 2379, 812, "x", unit, executable)
    assert examine(host, WANTED) == []


@pytest.mark.parametrize(
    ("table", "address", "port"),
    [
        ("tcp", "3500007F", 2379),  # 127.0.0.53, where systemd-resolved listens
        ("tcp", "0C00000A", 2379),  # another address of the host
        ("udp", "00000000", 2379),
        ("tcp", "00000000", 2378),
    ],
)
def test_listeners_elsewhere_do_not_matter(host: FakeHost, table: str, address: str, port: int) -> None:
    host.listen(table, address, port, 812, "x", "x.service")
    assert examine(host, WANTED) == []


@pytest.mark.parametrize(("address", "taken"), [("0100007F", False), ("0B00000A", False), ("0A14FEA9", True), ("00000000", True)])
def test_a_component_that_listens_at_one_address_has_that_to_itself(host: FakeHost, address: str, taken: bool) -> None:
    """A resolver of the host's own at 127.0.0.1 is not in CoreDNS' way, which answers at 169.254.20.10."""
    port = Port.parse({"component": "coredns", "name": "dns", "port": 53, "protocol": "udp", "address": "169.254.20.10"})
    host.listen("udp", address, 53, 812, "dnsmasq", "dnsmasq.service")
    assert [problem.check for problem in examine(host, replace(WANTED, ports=(port,)))] == (["ports"] if taken else [])


def test_a_listener_inside_of_a_range_is_a_warning(host: FakeHost) -> None:
    host.listen("tcp", "00000000", 30080, 812, "nginx", "nginx.service")
    problem = only(examine(host, WANTED))
    assert not problem.fatal
    assert problem.message == (
        "nginx (pid 812, nginx.service) listens on tcp port 30080, inside of the range 30000-32767 of kubernetes_node (node_ports)"
    )


def test_a_host_without_a_time_service_is_warned_about_unless_its_machine_keeps_the_time(host: FakeHost) -> None:
    Path(host.path("/usr/lib/systemd/systemd-timesyncd")).unlink()
    problem = only(examine(host, WANTED))
    assert (problem.check, problem.fatal) == ("time", False)
    host.write("/run/systemd/container", "podman")
    assert examine(host, WANTED) == []


def test_another_platform_is_a_warning(host: FakeHost) -> None:
    host.listen("tcp", "00000000", 9, 812, "dockerd", "docker.service", "/usr/bin/dockerd")
    problem = only(examine(host, replace(WANTED, components=("etcd",))))
    assert not problem.fatal
    assert problem.message == "Docker runs already (pid 812, docker.service) and may fight over ports, cgroups and packet filters"


def test_a_name_that_does_not_resolve_is_a_warning(host: FakeHost) -> None:
    host.write("/etc/hosts", "127.0.0.1 localhost\n")
    host.write("/etc/resolv.conf", "# nameserver 10.0.0.2\n")
    assert [(problem.check, problem.fatal) for problem in examine(host, WANTED)] == [("names", False), ("names", False)]


@pytest.mark.parametrize(
    ("host_time", "message"),
    [
        (1000.0, None),
        (1000.9, None),
        (997.9, "the clock is 2.1 seconds behind the controller's, allowed are 2 seconds"),
        (1003.5, "the clock is 2.5 seconds ahead of the controller's, allowed are 2 seconds"),
        (1000.0 - 4000, "the clock is 67 minutes behind the controller's, allowed are 2 seconds"),
        (1000.0 + 3 * 3600 + 1, "the clock is 3 hours ahead of the controller's, allowed are 2 seconds"),
    ],
)
def test_only_what_the_way_to_the_host_cannot_explain_is_clock_skew(host_time: float, message: str | None) -> None:
    problem = clock_problem(host_time, asked=1000.0, answered=1001.0, most_seconds=2)
    assert (problem and problem.message) == message


@pytest.mark.parametrize("client", ["192.0.2.7", "10.0.0.12", "127.0.0.1"])
def test_admins_and_nodes_are_not_locked_out(client: str) -> None:
    assert lockout_problem(client, ["192.0.2.0/24"], {ADDRESS, "10.0.0.12"}) is None


def test_whoever_the_firewall_would_lock_out_is_told_before() -> None:
    assert lockout_problem("198.51.100.9", ["192.0.2.0/24", "203.0.113.1/32"], {ADDRESS}) == Problem(
        "lockout",
        "this run comes in from 198.51.100.9, which is in none of networks.admin (192.0.2.0/24, 203.0.113.1/32):"
        " the firewall would lock it out",
        "add 198.51.100.9/32 or its network to networks.admin in the site's 20-stack.yml",
    )


def test_the_ssh_session_is_found_through_sudo(host: FakeHost) -> None:
    assert host.ssh_connection() is None
    mine = os.getpid()
    host.write(f"/proc/{mine}/environ", "HOME=/root\0")
    host.write(f"/proc/{mine}/status", "Name:\tpython3\nPPid:\t77\n")
    host.write("/proc/77/environ", "SSH_CONNECTION=192.0.2.7 51000 10.0.0.11 2222\0HOME=/home/ops\0")
    assert host.ssh_connection() == ("192.0.2.7", 2222)
    assert facts(host, WANTED)["node_ssh_port"] == 2222


def test_sockets_are_read_in_the_kernels_notation() -> None:
    table = (
        "  sl  local_address\n"
        "   0: 0100007F:0035 00000000:0000 0A 0:0 00:0 0 0 0 17\n"
        "   1: 0100007F:0036 0100007F:9999 01 0:0 00:0 0 0 0 18\n"
        "   2: 0000000000000000FFFF00000B00000A:1F90 0:0000 0A 0:0 00:0 0 0 0 19\n"
        "broken line\n"
    )
    assert [(each.address, each.port, each.inode) for each in parse_sockets(table, "tcp", "0A")] == [
        ("127.0.0.1", 53, 17),
        ("10.0.0.11", 8080, 19),
    ]


def test_units_are_found_in_both_cgroup_versions() -> None:
    assert unit_of("12:memory:/x.service\n1:name=systemd:/system.slice/etcd.service\n0::/\n") == "etcd.service"
    assert unit_of("0::/system.slice/docker.service/sub\n") == "docker.service"
    assert unit_of("0::/\n") == ""


def test_a_refused_connection_is_an_answer_and_silence_is_not() -> None:
    with socket.socket() as listening, socket.socket() as closed:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        closed.bind(("127.0.0.1", 0))
        open_port, refused_port = listening.getsockname()[1], closed.getsockname()[1]
        assert Host().reach([Peer("open", "127.0.0.1", open_port), Peer("refused", "127.0.0.1", refused_port)], 2) == {}
        with socket.socket() as full:
            # A queue of one that is taken drops every further connection silently.
            full.bind(("127.0.0.1", 0))
            full.listen(0)
            with socket.create_connection(full.getsockname()):
                assert Host().reach([Peer("full", *full.getsockname())], 0.2) == {"full": "no answer in 0.2 seconds"}


def test_this_machine_can_be_asked() -> None:
    machine = Host()
    assert "127.0.0.1" in machine.addresses()
    size, free = machine.disk("/var/lib/does/not/exist/yet")
    assert 0 <= free <= size
    assert machine.resolves("localhost", 2)


def test_a_runtime_from_packages_is_refused_unless_it_may_be_taken_over(host: FakeHost) -> None:
    host.write("/usr/lib/systemd/system/containerd.service", "[Service]\nExecStart=/usr/bin/containerd\n")
    host.write("/usr/lib/systemd/system/docker.service", "[Service]\nExecStart=/usr/sbin/dockerd\n")
    problem = only(examine(host, WANTED))
    assert problem.fatal
    assert "Docker and containerd are installed" in problem.message
    assert "base_take_over: [docker, containerd]" in problem.remedy
    assert "containerd is installed" in only(examine(host, replace(WANTED, take_over=("docker",)))).message
    assert examine(host, replace(WANTED, take_over=("docker", "containerd"))) == []


def test_a_runtime_that_is_ashlars_own_by_now_is_no_problem(host: FakeHost) -> None:
    host.write("/usr/lib/systemd/system/containerd.service", "[Service]\nExecStart=/usr/bin/containerd\n")
    host.write("/etc/systemd/system/containerd.service", "[Service]\nExecStart=/opt/ashlar/containerd/2.4.2/containerd\n")
    assert examine(host, WANTED) == []


def test_programs_of_the_platform_need_the_hosts_own_python(host: FakeHost) -> None:
    Path(host.path("/usr/bin/python3")).unlink()
    assert "no /usr/bin/python3" in only(examine(host, WANTED)).message


@pytest.mark.parametrize(
    ("path", "flag", "text"),
    [("/var/lib/dpkg", "noexec", "dpkg runs the scripts"), ("/opt", "noexec", "/opt/ashlar"), ("/etc", "ro", "is read-only")],
)
def test_file_systems_must_let_programs_run_and_be_written(host: FakeHost, path: str, flag: str, text: str) -> None:
    host.flags[path] = {flag}
    assert text in only(examine(host, WANTED)).message


def test_flags_of_a_file_system_are_those_of_its_nearest_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(os, "statvfs", lambda path: asked.append(path) or SimpleNamespace(f_flag=os.ST_NOEXEC | os.ST_NOSUID))
    assert Host(str(tmp_path)).mount_flags("/var/lib/dpkg") == {"noexec"}
    assert asked == [str(tmp_path)]


@pytest.mark.parametrize(
    ("path", "content", "text"),
    [
        ("/etc/cni/net.d/10-calico.conflist", "{}", "pods would get their network from it"),
        ("/etc/systemd/system/kubelet.service.d/10-kubeadm.conf", "[Service]\nExecStart=\nExecStart=/usr/bin/kubelet\n", "changes what kubelet.service runs"),
        ("/usr/lib/systemd/system/kubelet.service.d/10-kubeadm.conf", "[Service]\nExecStart=/usr/bin/kubelet\n", "changes what kubelet.service runs"),
    ],
)  # fmt: skip
def test_leftovers_that_count_more_than_ours_are_named(host: FakeHost, path: str, content: str, text: str) -> None:
    host.write(path, content)
    problem = only(examine(host, WANTED))
    assert path in problem.message
    assert text in problem.message


def test_leftovers_that_change_nothing_are_left_alone(host: FakeHost) -> None:
    host.write("/etc/cni/net.d/10-flannel.conflist", "{}")
    host.write("/etc/cni/net.d/87-podman.conflist", "{}")
    host.write("/etc/systemd/system/etcd.service.d/limits.conf", "[Service]\nLimitNOFILE=100000\n")
    assert examine(host, WANTED) == []


def test_another_table_that_drops_by_policy_is_named(host: FakeHost) -> None:
    host.chains = [("inet", "ashlar", "incoming", "input"), ("ip", "filter", "FORWARD", "forward")]
    problem = only(examine(host, WANTED))
    assert "FORWARD of the nftables table ip filter" in problem.message
    assert "nft delete table ip filter" in problem.remedy


def test_an_interface_inside_of_the_pod_network_is_named(host: FakeHost) -> None:
    host.interfaces["10.244.7.1"] = "eth1"
    host.route("eth1 0007F40A 00000000 0001 00FFFFFF")  # its own network
    assert only(examine(host, WANTED)) == Problem(
        "networks",
        "the address 10.244.7.1 of eth1 is inside of the cluster's network of pods (10.244.0.0/16): the one or the other would not be reached",
        "choose another network in the site's 20-stack.yml (networks.pods), or remove it from the host (ip link set eth1 down, if it is not needed)",
    )
    assert examine(host, replace(WANTED, networks={})) == []


def test_a_route_inside_of_the_service_network_is_named(host: FakeHost) -> None:
    host.route("eth0 0000600A 0100000A 0003 0000FFFF")
    assert only(examine(host, WANTED)) == Problem(
        "networks",
        "the route to 10.96.0.0/16 by eth0 is inside of the cluster's network of services (10.96.0.0/16): the one or the other would not be reached",
        "choose another network in the site's 20-stack.yml (networks.services), or remove it from the host (ip route del 10.96.0.0/16)",
    )


@pytest.mark.parametrize(
    "route",
    [
        "eth0 00000000 0100000A 0003 00000000",  # the default route
        "eth0 0000000A 0100000A 0003 000000FF",  # 10.0.0.0/8: wider than the cluster's own routes, which win
        "eth0 0000F50A 0100000A 0003 0000FFFF",  # 10.245.0.0/16: beside it
        "* 0007F40A 00000000 0200 00FFFFFF",  # a blackhole
        "cni0 0007F40A 00000000 0001 00FFFFFF",
        "flannel.1 0007F40A 0007F40A 0003 00FFFFFF",
    ],
)
def test_routes_that_are_ours_or_outside_of_the_clusters_networks_do_not_matter(host: FakeHost, route: str) -> None:
    host.interfaces["10.244.7.1"] = "cni0"
    host.route(route)
    assert examine(host, WANTED) == []


def test_a_user_without_its_group_is_named(host: FakeHost) -> None:
    host.write("/etc/group", "nogroup:x:65534:\nprometheus:x:990:\n")
    host.write("/etc/passwd", "etcd:x:105:65534::/var/lib/etcd:/bin/false\nprometheus:x:106:106::/:/usr/sbin/nologin\nother:x:107:65534::/:/bin/sh\n")
    assert examine(host, WANTED) == [
        Problem(
            "users",
            "the user etcd, as which etcd runs, has the primary group nogroup, and could not read files of the group etcd",
            "groupadd --system etcd && usermod --gid etcd etcd",
        ),
        Problem(
            "users",
            "the user prometheus, as which prometheus runs, has the primary group 106, and could not read files of the group prometheus",
            "usermod --gid prometheus prometheus",
        ),
    ]


def test_a_person_with_the_name_of_a_service_user_is_a_warning(host: FakeHost) -> None:
    host.write("/etc/group", "prometheus:x:1001:\n")
    host.write("/etc/passwd", "+nis\nprometheus:x:1001:1001:Prometheus,,,:/home/prometheus:/bin/bash\n")
    problem = only(examine(host, WANTED))
    assert not problem.fatal
    assert "can log in (/bin/bash)" in problem.message


def test_users_of_an_earlier_run_or_a_package_are_no_problem(host: FakeHost) -> None:
    host.write("/etc/group", "etcd:x:990:\nprometheus:x:106:\n")
    host.write("/etc/passwd", "etcd:x:990:990:etcd:/var/lib/etcd:/usr/sbin/nologin\nprometheus:x:106:106::/var/lib/prometheus:/bin/false\n")
    assert examine(host, WANTED) == []


def test_programs_are_found_where_only_the_administrators_path_leads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After su the PATH is still that of the login user."""
    program = tmp_path / "ashlar-probe"
    program.write_text("#!/bin/sh\nexit 0\n")
    program.chmod(0o755)
    monkeypatch.setattr(preflight_host, "PATH", f"{tmp_path}:/bin")
    monkeypatch.setenv("PATH", "/usr/games")
    assert Host().run(["sh", "-c", "ashlar-probe"])
