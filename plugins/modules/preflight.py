# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

DOCUMENTATION = r"""
module: preflight
short_description: Checks in one call whether a host meets the requirements of its components
version_added: 0.1.0
author: Ashlar contributors
description:
  - Runs every check of a host, gathers the few facts that roles need, and fails once with all problems and what to do about each.
  - It replaces the gathering of facts. Nothing on the host is ever changed.
  - In the same call it surveys what earlier runs installed. Registered as C(base_survey), it lets later tasks of M(ashlar.stack.tree),
    M(ashlar.stack.certificates) and M(ashlar.stack.artifact) that ask for exactly what is intact do without a call of their own. The first
    change of a host ends this for that host, since anything else on it may feel the change.
  - "The checks are C(root), C(os), C(architecture), C(systemd), C(cpus), C(memory), C(disk), C(address), C(networks), C(time), C(names), C(peers),
    C(kernel), C(cgroups), C(ports), C(runtimes), C(python), C(users), C(mounts), C(leftovers), C(platforms), C(firewalls), C(clock) and C(lockout)."
options:
  address:
    description: The private IPv4 address that the host must have on one of its interfaces.
    type: str
    required: true
  classes:
    description: The host's node classes, by which minimums are chosen.
    type: list
    elements: str
    default: []
  components:
    description: The host's components, by which some checks are made or left out.
    type: list
    elements: str
    default: []
  min_cpus:
    description: Node class to the number of CPUs it needs; the highest value of the host's classes applies.
    type: dict
    default: {}
  min_memory_mb:
    description: Node class to the memory it needs in MB.
    type: dict
    default: {}
  min_disk_gb:
    description: Node class to the size in GB that the filesystem under O(disk_path) needs.
    type: dict
    default: {}
  min_disk_free_percent:
    description: How much of the filesystem under O(disk_path) must be free.
    type: float
    default: 0
  disk_path:
    description: The folder whose filesystem holds images, volumes and data.
    type: str
    default: /var/lib
  kernel_features:
    description: Required kernel features, built in or loadable.
    type: list
    elements: str
    choices: [overlay, veth, bridge, br_netfilter, vxlan, nf_tables, nf_conntrack]
    default: []
  ports:
    description:
      - Ports that components will listen on, each with C(component), C(name), C(port) (a number or C(first-last)) and C(protocol).
      - A port in use by a foreign process is a problem; inside of a range it is a warning.
    type: list
    elements: dict
    default: []
  peers:
    description:
      - Nodes which the host must reach by TCP, each with C(name), C(address) and C(port).
      - Default are the next O(peer_checks) nodes after this one among the hosts of the play, so that all are reached by someone.
    type: list
    elements: dict
  peer_checks:
    description: How many peers a host tries when O(peers) is not given.
    type: int
    default: 8
  peer_timeout_seconds:
    description: Time limit for reaching all peers, in seconds.
    type: float
    default: 3
  networks:
    description:
      - Names and CIDRs of the cluster's own networks, inside of which the host may have no other interface or route.
      - Defaults to the networks that the site's components take.
    type: dict
  max_clock_skew_seconds:
    description: Maximum difference between the host's clock and the controller's, in seconds.
    type: float
    default: 2
  admin_networks:
    description:
      - Networks from which the firewall will allow SSH. When given, this run must come from one of them or from a node.
    type: list
    elements: str
  users:
    description:
      - Users that components run as, each with its component.
      - Default are those that O(components) declare in sysusers.d.
    type: dict
  take_over:
    description: Container runtimes from packages that may be replaced. Any other that is installed is a problem.
    type: list
    elements: str
    choices: [containerd, docker]
    default: []
  skip:
    description: Names of checks to skip.
    type: list
    elements: str
    default: []
attributes:
  check_mode:
    description: It changes nothing, so check mode does the same.
    support: full
  diff_mode:
    description: There is nothing to show.
    support: none
"""

EXAMPLES = r"""
- name: The host meets the requirements of its components
  ashlar.stack.preflight:
    address: "{{ node_address }}"
    classes: "{{ node_classes }}"
    min_memory_mb: {control: 1700, worker: 900}
    kernel_features: [overlay, br_netfilter, vxlan]
    ports: "{{ node_ports }}"
    skip: [platforms]
"""

RETURN = r"""
problems:
  description: The problems found.
  returned: always
  type: list
  elements: dict
  sample: [{check: memory, message: "has 512 MB of memory, and the class control needs 1700 MB", remedy: give the machine more memory}]
survey:
  description: What is intact of what earlier runs installed. What cannot be told for sure is left out.
  returned: always
  type: dict
  contains:
    trees:
      description: Name of a tree to the fingerprint of what was asked.
      type: dict
      sample: {etcd: 5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef}
    certificates:
      description: A digest of all certificates and keys together, with their owners and modes.
      type: str
    artifacts:
      description: The artifacts that are in use and as recorded, and the host's platform.
      type: dict
ansible_facts:
  description: Facts that roles need.
  returned: always
  type: dict
  contains:
    node_architecture:
      description: C(amd64) or C(arm64).
      type: str
      returned: always
    node_os:
      description: C(id), C(version) and C(codename), such as C(debian), C(13), C(trixie).
      type: dict
      returned: always
    node_kernel:
      description: Release of the running kernel.
      type: str
      returned: always
    node_cpus:
      description: Number of CPUs.
      type: int
      returned: always
    node_memory_mb:
      description: Memory in MB.
      type: int
      returned: always
    node_swap_mb:
      description: Swap in use or ready to be, in MB.
      type: int
      returned: always
    node_cgroup:
      description: C(v1) or C(v2).
      type: str
      returned: always
    node_container:
      description: Whether the host is a container.
      type: bool
      returned: always
    node_can_lower_oom_score_adj:
      description: Whether units can get CAP_SYS_RESOURCE.
      type: bool
      returned: always
    node_sysctl_writable:
      description: Whether every sysctl that a platform sets can be set here.
      type: bool
      returned: always
    node_time_service:
      description: C(systemd-timesyncd), C(chrony) or C(ntp), whichever is installed; empty when none is.
      type: str
      returned: always
    node_ssh_port:
      description: The port of the SSH server that this run connected to, 22 for other connections.
      type: int
      returned: always
    node_interface:
      description: The interface that has O(address).
      type: str
      returned: always
    node_mtu:
      description: MTU of that interface in bytes.
      type: int
      returned: always
    ashlar_host_changed:
      description: C(false) here; the first task that changes the host makes it true.
      type: bool
      returned: always
"""

import time

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.ashlar.stack.plugins.module_utils.preflight.checks import FEATURES, Port, Wanted, as_dicts, examine, facts
from ansible_collections.ashlar.stack.plugins.module_utils.preflight.host import Host, Peer
from ansible_collections.ashlar.stack.plugins.module_utils.survey import survey


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "address": {"type": "str", "required": True},
            "classes": {"type": "list", "elements": "str", "default": []},
            "components": {"type": "list", "elements": "str", "default": []},
            "min_cpus": {"type": "dict", "default": {}},
            "min_memory_mb": {"type": "dict", "default": {}},
            "min_disk_gb": {"type": "dict", "default": {}},
            "min_disk_free_percent": {"type": "float", "default": 0},
            "disk_path": {"type": "str", "default": "/var/lib"},
            "kernel_features": {"type": "list", "elements": "str", "choices": list(FEATURES), "default": []},
            "ports": {"type": "list", "elements": "dict", "default": []},
            "peers": {"type": "list", "elements": "dict"},
            "peer_checks": {"type": "int", "default": 8},
            "peer_timeout_seconds": {"type": "float", "default": 3},
            "networks": {"type": "dict"},
            "max_clock_skew_seconds": {"type": "float", "default": 2},
            "admin_networks": {"type": "list", "elements": "str"},
            "users": {"type": "dict"},
            "take_over": {"type": "list", "elements": "str", "choices": ["containerd", "docker"], "default": []},
            "skip": {"type": "list", "elements": "str", "default": []},
        },
        supports_check_mode=True,
    )
    host_time = time.time()
    given = module.params
    wanted = Wanted(
        address=given["address"],
        classes=tuple(given["classes"]),
        components=tuple(given["components"]),
        min_cpus=given["min_cpus"],
        min_memory_mb=given["min_memory_mb"],
        min_disk_gb=given["min_disk_gb"],
        min_disk_free_percent=given["min_disk_free_percent"],
        disk_path=given["disk_path"],
        kernel_features=tuple(given["kernel_features"]),
        ports=tuple(Port.parse(port) for port in given["ports"]),
        peers=tuple(Peer(peer["name"], peer["address"], int(peer["port"])) for peer in given["peers"] or []),
        peer_timeout_seconds=given["peer_timeout_seconds"],
        networks=given["networks"] or {},
        users=given["users"] or {},
        take_over=tuple(given["take_over"]),
        skip=tuple(given["skip"]),
    )
    host = Host()
    session = host.ssh_connection()
    module.exit_json(
        changed=False,
        problems=as_dicts(examine(host, wanted)),
        ansible_facts={**facts(host, wanted), "ashlar_host_changed": False},
        survey=survey(),
        time=host_time,
        ssh_client=session[0] if session else None,
    )


if __name__ == "__main__":
    main()
