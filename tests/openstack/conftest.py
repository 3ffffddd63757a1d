# SPDX-License-Identifier: Apache-2.0
"""A site whose machines are made by terraform/openstack in a real OpenStack, that of the scenario molecule/openstack.

ASHLAR_CLOUDS names the clouds.yaml by which a tenant gets in, with one cloud, `ashlar`. The roots and the example site are copied into a folder
of their own, so that neither state nor lock files come into the checkout.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from .support.api import Api
from .support.site import Site, provider

ROOT = Path(__file__).parents[2]
POOLS = {
    "control": {"classes": ["control"], "count": 3, "size": "small"},
    "worker": {"classes": ["worker", "storage"], "count": 1, "size": "large", "labels": {"disk": "ssd"}, "volumes": [{"name": "data", "size_gib": 10}]},
    "edge": {"classes": ["edge"], "count": 1, "size": "small", "public": True},
}
VARIABLES = {"zones": ["zone-a", "zone-b"], "bastion_size": "small", "pools": POOLS}


@pytest.fixture(scope="session")
def clouds() -> Path:
    name = os.environ.get("ASHLAR_CLOUDS")
    if not name or not Path(name).is_file():
        pytest.exit(f"ASHLAR_CLOUDS is {name!r}, which is no file. `make test-openstack` makes the cloud and names it.", returncode=4)
    return Path(name)


@pytest.fixture(scope="session")
def api(clouds: Path) -> Api:
    """The cloud, asked by the tenant."""
    cloud = yaml.safe_load(clouds.read_text())["clouds"]["ashlar"]
    return Api.login(cloud["auth"])


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory, clouds: Path) -> Iterator[Site]:
    """The example site with pools that fit the cloud, applied once; whatever a test left is destroyed."""
    folder = tmp_path_factory.mktemp("openstack")
    for name in ("roles", "stacks"):
        (folder / name).symlink_to(ROOT / name)
    ours = shutil.ignore_patterns(".terraform*", "terraform.tfstate*")
    shutil.copytree(ROOT / "terraform/modules", folder / "terraform/modules")
    shutil.copytree(ROOT / "terraform/openstack", folder / "terraform/openstack", ignore=ours)
    shutil.copytree(ROOT / "inventories/openstack", folder / "inventories/openstack", ignore=shutil.ignore_patterns("credentials", "state"))
    keys = folder / "inventories/openstack/credentials/ssh"
    keys.parent.mkdir(mode=0o700)
    keys.mkdir(mode=0o700)
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(keys / "id_ed25519")], check=True, timeout=60)
    made = Site(folder, clouds, provider(folder / "mirror"))
    made.tofu("init", "-input=false")
    made.write(VARIABLES)
    try:
        made.tofu("apply", "-auto-approve", "-input=false")
        yield made
    finally:
        if made.resources():
            made.tofu("destroy", "-auto-approve", "-input=false")


@pytest.fixture(scope="session")
def nodes(site: Site) -> dict[str, dict[str, object]]:
    """The output `nodes` of the first apply."""
    return dict(json.loads(site.tofu("output", "-json", "nodes")))
