# SPDX-License-Identifier: Apache-2.0
"""What flannel leaves to the CNI plugins when its node has been given a pod network, run with an `ip` that only remembers."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[3] / "roles/flannel/templates/usr/local/libexec/ashlar/flannel-cni"
IP = """#!/bin/sh
case "$*" in
  "link delete cni0") echo deleted > "$0.deleted" ;;
  "-4 -oneline address show dev cni0") [ -f "$0.shown" ] || exit 1; cat "$0.shown" ;;
  *) echo "unexpected: ip $*" >&2; exit 2 ;;
esac
"""


@pytest.mark.parametrize(
    ("bridge", "deleted"),
    [
        (None, False),
        ("", False),
        ("2: cni0    inet 10.244.3.1/24 brd 10.244.3.255 scope global cni0\\       valid_lft forever preferred_lft forever\n", False),
        ("2: cni0    inet 10.244.1.1/24 brd 10.244.1.255 scope global cni0\\       valid_lft forever preferred_lft forever\n", True),
    ],
    ids=["no bridge", "a bridge without an address", "the bridge of this network", "the bridge of an earlier network"],
)
def test_pods_get_the_nodes_network_and_a_bridge_of_an_earlier_one_goes(tmp_path: Path, bridge: str | None, deleted: bool) -> None:
    ip = tmp_path / "ip"
    ip.write_text(IP)
    ip.chmod(0o755)
    if bridge is not None:
        (tmp_path / "ip.shown").write_text(bridge)
    (tmp_path / "subnet.env").write_text("FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.3.1/24\nFLANNEL_MTU=1450\n")
    script = SCRIPT.read_text().replace("/run/flannel", str(tmp_path)).replace("/etc/cni/net.d", str(tmp_path))
    done = subprocess.run(["sh", "-c", script], env={"PATH": f"{tmp_path}:{os.environ['PATH']}"}, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "ip.deleted").exists() == deleted
    plugin = json.loads((tmp_path / "10-flannel.conflist").read_text())["plugins"][0]
    assert (plugin["mtu"], plugin["ipam"]["ranges"]) == (1450, [[{"subnet": "10.244.3.0/24"}]])
