# SPDX-License-Identifier: Apache-2.0
"""The checks of C(ashlar.stack.preflight): what a host must be before anything is laid down on it.

A check is a function from a host and what is asked of it to problems; its name in L(CHECKS) is the one an operator skips it by.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from ansible_collections.ashlar.stack.plugins.module_utils.distributions import DISTRIBUTIONS
from ansible_collections.ashlar.stack.plugins.module_utils.preflight.host import Host, Listener, Peer, Process

ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
CLOCK = "clock"
LOCKOUT = "lockout"
SSH_PORT = 22

_CAP_SYS_RESOURCE = 24
_GIB = 1024**3
_OURS = "/opt/ashlar/"
# What Ashlar's own containerd would replace or meet on the host: the process, and its unit.
_RUNTIMES = {"docker": ("dockerd", "docker.service"), "containerd": ("containerd", "containerd.service")}
_UNIT_FOLDERS = ("/etc/systemd/system", "/run/systemd/system", "/usr/local/lib/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system")
_CNI_FOLDER = "/etc/cni/net.d"
_OUR_CNI = "10-flannel.conflist"
_OUR_INTERFACES = ("cni0", "flannel.")
_TIME_SERVICES = {
    "chrony": "/usr/sbin/chronyd",
    "ntp": "/usr/sbin/ntpd",
    "systemd-timesyncd": "/usr/lib/systemd/systemd-timesyncd",
}
_FOREIGN_PLATFORMS = {
    "dockerd": "Docker",
    "containerd": "containerd",
    "crio": "CRI-O",
    "kubelet": "a kubelet",
    "kubelite": "MicroK8s",
    "k3s": "k3s",
    "k3s-server": "k3s",
    "k3s-agent": "k3s",
    "rke2": "RKE2",
    "k0s": "k0s",
}


@dataclass(frozen=True)
class Problem:
    """What is wrong and what to do about it. One that is not `fatal` is a warning."""

    check: str
    message: str
    remedy: str
    fatal: bool = True


@dataclass(frozen=True)
class Port:
    """A port, or a range `first`-`last`, that a component will listen on; at `address` only, where it is given."""

    component: str
    name: str
    first: int
    last: int
    protocol: str
    address: str = ""

    @classmethod
    def parse(cls, given: dict[str, Any]) -> Port:
        first, _dash, last = str(given["port"]).partition("-")
        return cls(given["component"], given["name"], int(first), int(last or first), given.get("protocol") or "tcp", given.get("address") or "")


@dataclass(frozen=True)
class Feature:
    """A part of the kernel: its build option, its module, signs that it is there, and a harmless command that needs it."""

    option: str
    module: str
    signs: tuple[str, ...] = ()
    probe: tuple[str, ...] = ()


_LINK = ("unshare", "--net", "ip", "link", "add", "ashlar0", "type")
FEATURES = {
    "overlay": Feature("CONFIG_OVERLAY_FS", "overlay"),
    "veth": Feature("CONFIG_VETH", "veth", probe=(*_LINK, "veth")),
    "bridge": Feature("CONFIG_BRIDGE", "bridge", probe=(*_LINK, "bridge")),
    "br_netfilter": Feature("CONFIG_BRIDGE_NETFILTER", "br_netfilter", signs=("/proc/sys/net/bridge",)),
    "vxlan": Feature("CONFIG_VXLAN", "vxlan", probe=(*_LINK, "vxlan", "id", "1", "dev", "lo", "dstport", "4789")),
    "nf_tables": Feature("CONFIG_NF_TABLES", "nf_tables", probe=("nft", "list", "tables")),
    "nf_conntrack": Feature("CONFIG_NF_CONNTRACK", "nf_conntrack", signs=("/proc/sys/net/netfilter/nf_conntrack_max",)),
}


@dataclass(frozen=True)
class Wanted:
    """What is asked of a host. Minimums are by node class; the greatest of the host's classes counts."""

    address: str
    classes: tuple[str, ...] = ()
    components: tuple[str, ...] = ()
    min_cpus: dict[str, int] = field(default_factory=dict)
    min_memory_mb: dict[str, int] = field(default_factory=dict)
    min_disk_gb: dict[str, int] = field(default_factory=dict)
    min_disk_free_percent: float = 0
    disk_path: str = "/var/lib"
    kernel_features: tuple[str, ...] = ()
    ports: tuple[Port, ...] = ()
    peers: tuple[Peer, ...] = ()
    peer_timeout_seconds: float = 3
    networks: dict[str, str] = field(default_factory=dict)
    users: dict[str, str] = field(default_factory=dict)
    take_over: tuple[str, ...] = ()
    skip: tuple[str, ...] = ()


Check = Callable[[Host, Wanted], Iterable[Problem]]


def examine(host: Host, wanted: Wanted) -> list[Problem]:
    """All problems of the host that are not skipped, warnings among them.

    Without root the kernel hides what most checks look at, so then that is the only problem told.
    """
    if "root" not in wanted.skip:
        problems = list(_root(host, wanted))
        if problems:
            return problems
    return [problem for name, check in CHECKS.items() if name not in wanted.skip for problem in check(host, wanted)]


def facts(host: Host, wanted: Wanted) -> dict[str, object]:
    """The few facts that roles decide by; all names start with C(node_)."""
    os_release = _os_release(host)
    interface = host.addresses().get(wanted.address, "")
    session = host.ssh_connection()
    return {
        "node_architecture": ARCHITECTURES.get(host.machine(), host.machine()),
        "node_os": {
            "id": os_release.get("ID", ""),
            "version": os_release.get("VERSION_ID", ""),
            "codename": os_release.get("VERSION_CODENAME", ""),
        },
        "node_kernel": host.kernel(),
        "node_cpus": host.cpus(),
        "node_memory_mb": _memory_mb(host, "MemTotal"),
        "node_swap_mb": _memory_mb(host, "SwapTotal"),
        "node_cgroup": "v2" if host.exists("/sys/fs/cgroup/cgroup.controllers") else "v1",
        "node_container": _in_container(host),
        "node_can_lower_oom_score_adj": _can_lower_oom_score_adj(host),
        "node_sysctl_writable": _sysctl_writable(host),
        "node_time_service": _time_service(host),
        "node_ssh_port": session[1] if session else SSH_PORT,
        "node_interface": interface,
        "node_mtu": int(host.text(f"/sys/class/net/{interface}/mtu").strip() or 0) if interface else 0,
    }


def clock_problem(host_time: float, asked: float, answered: float, most_seconds: float) -> Problem | None:
    """Compares clocks by the interval in which the host must have read its own (all times are seconds since the epoch).

    The way to the host and back takes an unknown part of that interval, so only what lies outside of it is skew.
    """
    skew = min(0.0, host_time - asked) or max(0.0, host_time - answered)
    if abs(skew) <= most_seconds:
        return None
    return Problem(
        CLOCK,
        f"the clock is {_duration(abs(skew))} {'ahead of' if skew > 0 else 'behind'} the controller's,"
        f" allowed are {most_seconds:g} seconds",
        "set the host's clock (timedatectl set-ntp true), and the controller's if it is the one that is wrong; certificates depend on both",
    )


def lockout_problem(client: str, admin_networks: Iterable[str], node_addresses: Iterable[str]) -> Problem | None:
    """Whether the firewall would still let in whoever is logged in from `client` now."""
    address = ipaddress.ip_address(client)
    admin = [str(network) for network in admin_networks]
    if address.is_loopback or client in node_addresses or any(address in ipaddress.ip_network(network, strict=False) for network in admin):
        return None
    return Problem(
        LOCKOUT,
        f"this run comes in from {client}, which is in none of networks.admin ({', '.join(admin) or 'empty'}):"
        " the firewall would lock it out",
        f"add {client}/{address.max_prefixlen} or its network to networks.admin in the site's 20-stack.yml"
        + ("" if address.version == 4 else ", reaching the host by IPv4: the firewall lets SSH in by IPv4 only"),
    )


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.1f} seconds"
    if seconds < 7200:
        return f"{seconds / 60:.0f} minutes"
    return f"{seconds / 3600:.0f} hours"


def _root(host: Host, wanted: Wanted) -> Iterator[Problem]:
    if host.user_id() != 0:
        yield Problem(
            "root",
            f"Ansible works as the user with id {host.user_id()}, and needs to be root",
            "set ansible_become: true for the host, or log in as root (ansible_user)",
        )


def _os(host: Host, wanted: Wanted) -> Iterator[Problem]:
    release = _os_release(host)
    if release.get("VERSION_ID") in DISTRIBUTIONS.get(release.get("ID", ""), {}):
        return
    name = release.get("PRETTY_NAME") or f"{release.get('ID', 'an unknown system')} {release.get('VERSION_ID', '')}".strip()
    allowed = " and ".join(f"{system.capitalize()} {', '.join(versions)}" for system, versions in DISTRIBUTIONS.items())
    yield Problem("os", f"{name} is not supported, {allowed} are", "install one of these on the host")


def _architecture(host: Host, wanted: Wanted) -> Iterator[Problem]:
    if host.machine() not in ARCHITECTURES:
        allowed = " and ".join(f"{machine} ({name})" for machine, name in ARCHITECTURES.items())
        yield Problem("architecture", f"the architecture {host.machine()} is not supported, {allowed} are", "use another machine")


def _systemd(host: Host, wanted: Wanted) -> Iterator[Problem]:
    first = host.text("/proc/1/comm").strip()
    if first != "systemd":
        yield Problem(
            "systemd",
            f"process 1 is {first or 'unknown'}, and needs to be systemd: every component is a unit",
            "boot the host with systemd (a container needs /sbin/init as its command)",
        )


def _cpus(host: Host, wanted: Wanted) -> Iterator[Problem]:
    needed, node_class = _most(wanted.min_cpus, wanted.classes)
    if host.cpus() < needed:
        yield Problem(
            "cpus",
            f"has {host.cpus()} CPU{'' if host.cpus() == 1 else 's'}, and the class {node_class} needs {needed}",
            "give the machine more CPUs, remove the class from the node, or lower base_cpus_min",
        )


def _memory(host: Host, wanted: Wanted) -> Iterator[Problem]:
    needed, node_class = _most(wanted.min_memory_mb, wanted.classes)
    found = _memory_mb(host, "MemTotal")
    if found < needed:
        yield Problem(
            "memory",
            f"has {found} MB of memory, and the class {node_class} needs {needed} MB",
            "give the machine more memory, remove the class from the node, or lower base_memory_mib_min",
        )


def _disk(host: Host, wanted: Wanted) -> Iterator[Problem]:
    needed, node_class = _most(wanted.min_disk_gb, wanted.classes)
    size, free = host.disk(wanted.disk_path)
    if size < needed * _GIB:
        yield Problem(
            "disk",
            f"the disk under {wanted.disk_path} has {size / _GIB:.1f} GB, and the class {node_class} needs {needed} GB",
            "give the machine a larger disk, remove the class from the node, or lower base_disk_gib_min",
        )
    percent = 100 * free / size if size else 0.0
    if percent < wanted.min_disk_free_percent:
        yield Problem(
            "disk",
            f"the disk under {wanted.disk_path} is {percent:.1f} % free, and {wanted.min_disk_free_percent:g} % are needed:"
            " below that the kubelet evicts pods and deletes images",
            "free space, or lower base_disk_free_percent_min together with the kubelet's eviction thresholds",
        )


def _address(host: Host, wanted: Wanted) -> Iterator[Problem]:
    addresses = {address: interface for address, interface in host.addresses().items() if not address.startswith("127.")}
    if wanted.address in addresses:
        return
    if not addresses:
        yield Problem(
            "address", "no interface has an IPv4 address, and IPv6 alone is not supported", "give the host a private IPv4 address"
        )
        return
    found = ", ".join(f"{address} ({interface})" for address, interface in sorted(addresses.items()))
    yield Problem(
        "address",
        f"node_address {wanted.address} is on none of the host's interfaces, which have {found}",
        "correct node_address in the site's 10-nodes.yml, or put the address on an interface",
    )


def _networks(host: Host, wanted: Wanted) -> Iterator[Problem]:
    """What of the host lies inside of a network of the cluster. A wider route does no harm, since the cluster's own are narrower."""
    places = [
        *((interface, ipaddress.IPv4Network(address), f"the address {address} of {interface}") for address, interface in host.addresses().items()),
        *((interface, network, f"the route to {network} by {interface}") for interface, network in host.routes()),
    ]
    for name, text in wanted.networks.items():
        told = set()
        for interface, network, what in places:
            if interface in told or interface.startswith(_OUR_INTERFACES) or not network.subnet_of(ipaddress.IPv4Network(text)):
                continue
            told.add(interface)
            yield Problem(
                "networks",
                f"{what} is inside of the cluster's network of {name} ({text}): the one or the other would not be reached",
                f"choose another network in the site's 20-stack.yml (networks.{name}), or remove it from the host"
                + (f" (ip route del {network})" if what.startswith("the route") else f" (ip link set {interface} down, if it is not needed)"),
            )


def _names(host: Host, wanted: Wanted) -> Iterator[Problem]:
    known = _hosts_file(host)
    if "127.0.0.1" not in known.get("localhost", ()) and not host.resolves("localhost", 2):
        yield Problem("names", "the name localhost does not resolve", "add the line `127.0.0.1 localhost` to /etc/hosts")
    if host.name() not in known and not host.resolves(host.name(), 2):
        yield Problem(
            "names",
            f"the host's own name {host.name()} does not resolve",
            f"add the line `{wanted.address} {host.name()}` to /etc/hosts, or install libnss-myhostname",
            fatal=False,
        )
    if not any(line.split()[:1] == ["nameserver"] for line in host.text("/etc/resolv.conf").splitlines()):
        yield Problem(
            "names",
            "/etc/resolv.conf names no name server: names outside of the cluster will not resolve",
            "add a nameserver line to /etc/resolv.conf, if the host should resolve names at all",
            fatal=False,
        )


def _peers(host: Host, wanted: Wanted) -> Iterator[Problem]:
    silent = host.reach(list(wanted.peers), wanted.peer_timeout_seconds) if wanted.peers else {}
    for peer in wanted.peers:
        if peer.name in silent:
            yield Problem(
                "peers",
                f"does not reach the node {peer.name} at {peer.address} port {peer.port}: {silent[peer.name]}",
                f"check that {peer.name} is running, that its node_address is correct and routed, and that no firewall between them drops packets;"
                f" without it: --limit '!{peer.name}'",
            )


def _kernel(host: Host, wanted: Wanted) -> Iterator[Problem]:
    options = host.kernel_options()
    filesystems = host.text("/proc/filesystems").split()
    missing = [name for name in wanted.kernel_features if not _has_feature(host, name, options, filesystems)]
    if missing:
        packages = "install the distribution's full kernel package (linux-image-amd64, linux-modules-extra) and boot it"
        yield Problem("kernel", f"the kernel {host.kernel()} has no {', '.join(missing)}", f"{packages}, or use another machine")


def _has_feature(host: Host, name: str, options: str, filesystems: list[str]) -> bool:
    """From the cheapest sign to the dearest: what is there, what was built in, what can be loaded, and at last trying it."""
    feature = FEATURES[name]
    if name in filesystems or any(host.exists(sign) for sign in (*feature.signs, f"/sys/module/{feature.module}")):
        return True
    if f"\n{feature.option}=y" in options:
        return True
    if host.run(["modprobe", "--dry-run", "--quiet", feature.module]):
        return True
    return bool(feature.probe) and host.run(list(feature.probe))


def _cgroups(host: Host, wanted: Wanted) -> Iterator[Problem]:
    unified = host.text("/sys/fs/cgroup/cgroup.controllers").split()
    legacy = [line.split()[0] for line in host.text("/proc/cgroups").splitlines()[1:] if line.split()[-1:] == ["1"]]
    missing = [name for name in ("cpu", "memory", "pids") if name not in (unified or legacy)]
    if missing:
        yield Problem(
            "cgroups",
            f"the kernel has no cgroup controller {', '.join(missing)}",
            "boot with `cgroup_enable=memory` and without `cgroup_disable=` on the kernel's command line",
        )


def _ports(host: Host, wanted: Wanted) -> Iterator[Problem]:
    clashes = [(listener, port) for listener in host.listeners() for port in wanted.ports if _clash(listener, port, wanted.address)]
    holders = host.holders({listener.inode for listener, _port in clashes if listener.inode})
    told = set()
    for listener, port in clashes:
        pid = holders.get(listener.inode)
        if pid is None:
            continue  # the kernel's own, such as a VXLAN device's
        process = host.process(pid)
        key = (listener.protocol, listener.port, pid)
        if key in told or _is_ours(host, process):
            continue
        told.add(key)
        by = f"{process.command} (pid {pid}{', ' + process.unit if process.unit else ''})"
        stop = f"systemctl disable --now {process.unit}" if process.unit.endswith(".service") else f"kill {pid}"
        if port.first == port.last:
            yield Problem(
                "ports",
                f"{listener.protocol} port {listener.port}, which {port.component} needs ({port.name}), is taken by {by}",
                f"stop the process ({stop}), or give {port.component} another port",
            )
        else:
            yield Problem(
                "ports",
                f"{by} listens on {listener.protocol} port {listener.port}, inside of the range {port.first}-{port.last}"
                f" of {port.component} ({port.name})",
                f"make it listen elsewhere, or stop it ({stop})",
                fatal=False,
            )


def _clash(listener: Listener, port: Port, address: str) -> bool:
    """Whether a component that listens at its own address, else at `address`, everywhere or on 127.0.0.1 would meet the listener."""
    if listener.protocol != port.protocol or not port.first <= listener.port <= port.last:
        return False
    return listener.address in ("0.0.0.0", "::", *([port.address] if port.address else ["127.0.0.1", "::1", address]))


def _is_ours(host: Host, process: Process) -> bool:
    """Whether a component of the platform runs the process.

    A tree names its units in its memory before it starts them; what is remembered of a unit itself is written only after that, which a
    killed run never does.
    """
    if process.in_pod or process.executable.startswith(_OURS):
        return True
    if not process.unit:
        return False
    # Transient ones, such as the artifact server, leave nothing behind by which they would be known.
    if process.unit.startswith("ashlar-"):
        return True
    trees = (host.text(f"/var/lib/ashlar/trees/{name}") for name in host.listing("/var/lib/ashlar/trees"))
    return (
        host.exists(f"/var/lib/ashlar/units/{process.unit}.json")
        or _OURS in host.text(f"/etc/systemd/system/{process.unit}")
        or any(f'"{process.unit}"' in tree for tree in trees)
    )


def _runtimes(host: Host, wanted: Wanted) -> Iterator[Problem]:
    """A container runtime from packages, whose unit and configuration Ashlar's would replace."""
    if "containerd" not in wanted.components or _OURS in host.text("/etc/systemd/system/containerd.service"):
        return
    commands = set(host.commands().values())
    found = [
        name
        for name, (command, unit) in _RUNTIMES.items()
        if name not in wanted.take_over and (command in commands or any(host.exists(f"{folder}/{unit}") for folder in _UNIT_FOLDERS))
    ]
    if found:
        names = " and ".join(name.capitalize() if name == "docker" else name for name in found)
        yield Problem(
            "runtimes",
            f"{names} {'is' if len(found) == 1 else 'are'} installed: Ashlar would replace containerd.service and /etc/containerd/config.toml,"
            " and containers that run there would be lost",
            "remove the packages (apt-get purge docker.io docker-ce containerd containerd.io),"
            f" or let Ashlar take them over: base_take_over: [{', '.join(found)}]",
        )


def _python(host: Host, wanted: Wanted) -> Iterator[Problem]:
    if not host.exists("/usr/bin/python3"):
        yield Problem(
            "python",
            "there is no /usr/bin/python3, by which programs of the platform run on the host, whatever ansible_python_interpreter says",
            "apt-get install python3",
        )


def _users(host: Host, wanted: Wanted) -> Iterator[Problem]:
    """Users that are there already by the name of a component's own: systemd-sysusers leaves them as they are."""
    groups = {fields[0]: fields[2] for fields in _records(host, "/etc/group", 4)}
    for name, _password, _uid, gid, _comment, _home, shell in _records(host, "/etc/passwd", 7):
        if name not in wanted.users:
            continue
        who = f"the user {name}, as which {wanted.users[name]} runs,"
        if groups.get(name) != gid:
            group = next((group for group, number in groups.items() if number == gid), gid)
            make = "" if name in groups else f"groupadd --system {name} && "
            yield Problem(
                "users",
                f"{who} has the primary group {group}, and could not read files of the group {name}",
                f"{make}usermod --gid {name} {name}",
            )
        if shell.rpartition("/")[2] not in ("nologin", "false"):
            yield Problem(
                "users",
                f"{who} can log in ({shell or '/bin/sh'}): whoever does can read the component's keys and data",
                f"usermod --shell /usr/sbin/nologin {name}; a person needs an account of another name",
                fatal=False,
            )


def _mounts(host: Host, wanted: Wanted) -> Iterator[Problem]:
    why = {
        "/opt": "programs are installed below /opt/ashlar",
        "/usr/local": "programs are installed there",
        "/var/lib/dpkg": "dpkg runs the scripts of packages there",
    }
    for path, reason in why.items():
        if "noexec" in host.mount_flags(path):
            yield Problem(
                "mounts",
                f"the file system of {path} is mounted noexec: {reason}",
                f"remove noexec from its line in /etc/fstab and mount it again: mount -o remount,exec \"$(findmnt -nT {path} -o TARGET)\"",
            )
    for path in ("/etc", "/opt", "/usr/local", "/var/lib"):
        if "ro" in host.mount_flags(path):
            yield Problem("mounts", f"the file system of {path} is read-only", "find out why (journalctl -k), and mount it for writing")


def _leftovers(host: Host, wanted: Wanted) -> Iterator[Problem]:
    """What an earlier platform has left behind, and what would count more than ours."""
    if "kubernetes_node" in wanted.components:
        for name in host.listing(_CNI_FOLDER):
            if name.endswith((".conf", ".conflist", ".json")) and name < _OUR_CNI:
                yield Problem(
                    "leftovers",
                    f"{_CNI_FOLDER}/{name} comes before {_OUR_CNI}, so pods would get their network from it",
                    "move it away, if it is no longer used",
                )
    for unit in ("kubelet.service", "containerd.service", "etcd.service", "consul.service", "haproxy.service"):
        for folder in _UNIT_FOLDERS[:-1]:
            for name in host.listing(f"{folder}/{unit}.d"):
                path = f"{folder}/{unit}.d/{name}"
                lines = [line.strip() for line in host.text(path).splitlines()]
                if name.endswith(".conf") and any(line.startswith(("ExecStart=", "User=", "Group=", "Type=")) for line in lines):
                    yield Problem("leftovers", f"{path} changes what {unit} runs", "remove it and run systemctl daemon-reload")


def _filters(host: Host, wanted: Wanted) -> Iterator[Problem]:
    """Chains of other tables that drop what ours accepts: a packet must pass all of them."""
    for family, table, chain, hook in host.dropping_chains():
        if (family, table) != ("inet", "ashlar"):
            yield Problem(
                "firewalls",
                f"the chain {chain} of the nftables table {family} {table} drops by policy what it does not list (hook {hook}),"
                " also what Ashlar's own firewall accepts",
                f"remove the table (nft delete table {family} {table}, and from /etc/nftables.conf), or let it pass the platform's ports"
                " and skip this check",
            )


def _platforms(host: Host, wanted: Wanted) -> Iterator[Problem]:
    told = set()
    for pid, command in host.commands().items():
        name = _FOREIGN_PLATFORMS.get(command)
        if name is None or name in told:
            continue
        if "containerd" in wanted.components and command in ("dockerd", "containerd"):
            continue  # refused, or to be taken over
        process = host.process(pid)
        if _is_ours(host, process):
            continue
        told.add(name)
        yield Problem(
            "platforms",
            f"{name} runs already (pid {pid}{', ' + process.unit if process.unit else ''})"
            " and may fight over ports, cgroups and packet filters",
            "remove it, if it is no longer needed",
            fatal=False,
        )


def _firewalls(host: Host, wanted: Wanted) -> Iterator[Problem]:
    ufw = any(line.strip().lower() == "enabled=yes" for line in host.text("/etc/ufw/ufw.conf").splitlines())
    running = host.exists("/run/firewalld") or "firewalld" in host.commands().values()
    for name, active, remedy in (
        ("ufw", ufw, "ufw disable"),
        ("firewalld", running, "systemctl disable --now firewalld"),
    ):
        if active:
            yield Problem(
                "firewalls",
                f"{name} is active and drops what Ashlar's own firewall accepts",
                f"{remedy} (Ashlar's firewall takes its place), or let it pass the platform's ports and skip this check",
            )


    yield from _filters(host, wanted)


def _time(host: Host, wanted: Wanted) -> Iterator[Problem]:
    if not _time_service(host) and not _in_container(host):
        yield Problem(
            "time",
            "no time service is installed: the clock will drift until certificates and etcd fail",
            "install systemd-timesyncd or chrony",
            fatal=False,
        )


CHECKS: dict[str, Check] = {
    "os": _os,
    "architecture": _architecture,
    "systemd": _systemd,
    "cpus": _cpus,
    "memory": _memory,
    "disk": _disk,
    "address": _address,
    "networks": _networks,
    "time": _time,
    "names": _names,
    "peers": _peers,
    "kernel": _kernel,
    "cgroups": _cgroups,
    "ports": _ports,
    "runtimes": _runtimes,
    "python": _python,
    "users": _users,
    "mounts": _mounts,
    "leftovers": _leftovers,
    "platforms": _platforms,
    "firewalls": _firewalls,
}
NAMES = ("root", *CHECKS, CLOCK, LOCKOUT)


def as_dicts(problems: Iterable[Problem]) -> list[dict[str, object]]:
    return [asdict(problem) for problem in problems]


def _most(minimums: dict[str, int], classes: tuple[str, ...]) -> tuple[int, str]:
    return max(((minimums.get(node_class, 0), node_class) for node_class in classes), default=(0, ""))


def _os_release(host: Host) -> dict[str, str]:
    pairs = (line.partition("=") for line in host.text("/etc/os-release").splitlines())
    return {key: value.strip().strip("\"'") for key, _equals, value in pairs}


def _memory_mb(host: Host, name: str) -> int:
    for line in host.text("/proc/meminfo").splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) // 1024
    return 0


def _records(host: Host, path: str, fields: int) -> list[list[str]]:
    """The lines of a file like /etc/passwd that have as many fields as they should."""
    return [record for record in (line.split(":") for line in host.text(path).splitlines()) if len(record) == fields]


def _hosts_file(host: Host) -> dict[str, set[str]]:
    known: dict[str, set[str]] = {}
    for line in host.text("/etc/hosts").splitlines():
        address, *names = line.split("#")[0].split() or [""]
        for name in names:
            known.setdefault(name, set()).add(address)
    return known


def _time_service(host: Host) -> str:
    """What keeps the clock right; where several are installed, the one that keeps the others from starting."""
    for service, program in _TIME_SERVICES.items():
        if host.exists(program):
            return service
    return ""


def _in_container(host: Host) -> bool:
    return host.exists("/run/systemd/container") or "\0container=" in "\0" + host.text("/proc/1/environ")


def _can_lower_oom_score_adj(host: Host) -> bool:
    """Whether CAP_SYS_RESOURCE is within the bounds of what systemd can give a unit."""
    for line in host.text("/proc/1/status").splitlines():
        if line.startswith("CapBnd:"):
            return bool(int(line.split()[1], 16) >> _CAP_SYS_RESOURCE & 1)
    return False


def _sysctl_writable(host: Host) -> bool:
    """Whether the sysctls that a platform sets can be set; the ones the kernel does not (yet) have are no hindrance."""
    keys = ("net/ipv4/ip_forward", "net/netfilter/nf_conntrack_max", "vm/overcommit_memory", "kernel/panic")
    return all(host.opens_for_writing(f"/proc/sys/{key}") for key in keys if host.exists(f"/proc/sys/{key}"))
