# SPDX-License-Identifier: Apache-2.0
"""The role's own base configuration, and the HAProxy that nodes have."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jinja2
import pytest
import yaml

ROOT = Path(__file__).parents[3]
ROLE = ROOT / "roles" / "haproxy"
from ansible_collections.ashlar.stack.plugins.filter.sha512_crypt import sha512_crypt
from ashlar_edge.model import Settings

DEFAULTS: dict[str, Any] = yaml.safe_load((ROLE / "defaults/main.yml").read_text())


def _codename() -> str:
    lines = Path("/etc/os-release").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line).get("VERSION_CODENAME", "").strip('"')


def _from_store(folder: Path) -> Path | None:
    """HAProxy out of the packages that the store holds for this machine's distribution."""
    store = Path(os.environ.get("ASHLAR_STORE") or Path.home() / ".cache/ashlar/store")
    architecture = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    indexes = sorted(store.glob(f"index/haproxy/*/{architecture}-{_codename()}.json"))
    if not indexes or not shutil.which("dpkg-deb"):
        return None
    for file in json.loads(indexes[-1].read_text())["files"]:
        subprocess.run(["dpkg-deb", "-x", str(store / "sha256" / file["sha256"][:2] / file["sha256"]), str(folder)], check=True, timeout=60)
    libraries = next(iter(folder.glob("usr/lib/*-linux-gnu")), folder)
    program = folder / "haproxy"
    program.write_text(f'#!/bin/sh\nLD_LIBRARY_PATH={libraries} exec {folder}/usr/sbin/haproxy "$@"\n')
    program.chmod(0o755)
    return program


def _fetch() -> str:
    """Asks the store for the packages of this machine's distribution; what the run said."""
    release = max((ROOT / "releases").glob("*.yml"))
    wanted = {"haproxy": yaml.safe_load(release.read_text())["versions"]["haproxy"]}
    variables = json.dumps({"artifacts_wanted": wanted, "artifacts_codenames": [_codename()]})
    done = subprocess.run(
        [str(Path(sys.executable).parent / "ansible-playbook"), "-i", "inventories/example", "playbooks/artifacts.yml", "-e", variables],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    return done.stdout + done.stderr


@pytest.fixture(scope="session")
def haproxy(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The program: ASHLAR_HAPROXY, or this machine's, or the store's."""
    found = os.environ.get("ASHLAR_HAPROXY") or shutil.which("haproxy") or shutil.which("haproxy", path="/usr/sbin")
    if not found:
        folder = tmp_path_factory.mktemp("haproxy")
        made = _from_store(folder)
        said = ""
        if made is None:
            said = _fetch()
            made = _from_store(folder)
        if made is None:
            pytest.fail(f"no HAProxy to prove configurations with could be fetched; install one, or name it by ASHLAR_HAPROXY. {said[-1500:]}")
        found = str(made)
    return found


@pytest.fixture(scope="session")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The certificates `default` and `operator`, and those of two clients, all of which `site.crt` trusts."""
    folder = tmp_path_factory.mktemp("pki")
    for name in ("default", "operator"):
        pair(folder / name, f"{name}.edge.test")
    clients = ("haproxy-probe", "portal")
    for name in clients:
        pair(folder / name, name)
    (folder / "site.crt").write_text("".join((folder / f"{name}.crt").read_text() for name in clients))
    return folder


def pair(path: Path, *names: str, days: int = 30) -> None:
    """A certificate and key as `<path>.crt` and `<path>.key`."""
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-days",
        str(days),
        "-subj",
        f"/CN={names[0]}",
    ]
    command += ["-addext", "subjectAltName=" + ",".join(f"DNS:{name}" for name in names), "-keyout", f"{path}.key", "-out", f"{path}.crt"]
    subprocess.run(command, check=True, capture_output=True, timeout=120)


def base(folder: Path, haproxy_program: str, pki: Path, ingress: bool = False, **options: Any) -> str:
    """The role's base configuration, at home in a folder: no user of its own, no jail, sockets of the folder."""
    environment = jinja2.Environment(trim_blocks=True, keep_trailing_newline=True, undefined=jinja2.StrictUndefined)
    environment.filters["ashlar.stack.sha512_crypt"] = sha512_crypt
    environment.filters["hash"] = lambda text, kind: hashlib.new(kind, text.encode()).hexdigest()
    variables = {**DEFAULTS, "node_address": "127.0.0.1", "_haproxy_ingress": ingress, "site_credentials": "/nowhere"}
    variables |= {"component_clients": {"haproxy": ["haproxy-probe"]}, **options}
    variables["lookup"] = options.get("lookup", lambda *_, **__: "secretsecretsecret")
    text = environment.from_string((ROLE / "templates/etc/haproxy/base.cfg.j2").read_text()).render(variables)
    jail = folder / "jail"
    jail.mkdir(exist_ok=True)
    (folder / "503.http").write_bytes((ROLE / "templates/etc/haproxy/errors/503.http").read_bytes())
    left_out = ("  user haproxy", "  group haproxy", "  chroot ")
    lines = [line for line in text.splitlines() if not line.startswith(left_out)]
    text = "\n".join(lines).replace(" group ashlar-edge", "").replace(" mode 660 group haproxy", " mode 660")
    for here, there in {
        "/etc/ashlar/pki/ca/site.crt": f"{pki}/site.crt",
        "/etc/haproxy/errors/503.http": f"{folder}/503.http",
        "/run/haproxy/jail": str(jail),
        "unix@/edge.sock": f"unix@{jail}/edge.sock",
        "unix@/ingress": f"unix@{jail}/ingress",
        "/run/haproxy/admin.sock": f"{folder}/admin.sock",
    }.items():
        text = text.replace(here, there)
    return text + "\n"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "home").mkdir()
    (tmp_path / "run").mkdir()
    return tmp_path


@pytest.fixture
def settings(home: Path, haproxy: str, pki: Path) -> Settings:
    """Everything in a folder of the test's own."""
    (home / "base.cfg").write_text(base(home, haproxy, pki))
    return Settings(
        base=str(home / "base.cfg"),
        home=str(home / "home"),
        status=str(home / "run" / "status.json"),
        admin_socket=str(home / "admin.sock"),
        master_socket=str(home / "master.sock"),
        haproxy=haproxy,
        default_certificate=str(pki / "default"),
        operator_certificate=str(pki / "operator"),
        certificates=str(home / "certificates.json"),
    )


Entry = dict[str, Any]


def entry(
    service: str = "hello", port: int = 8080, address: str = "10.0.0.1", status: str = "passing", created: int | None = None, **meta: Any
) -> Entry:
    """An instance of the catalogue; keywords are its metadata, `route_host` for route-host."""
    made: Entry = {
        "service": service,
        "id": f"{service}-{address}-{port}",
        "node": "n1",
        "address": address,
        "port": port,
        "status": status,
    }
    made["meta"] = {key.replace("_", "-"): value for key, value in meta.items()}
    return made if created is None else {**made, "created": created}


@pytest.fixture
def write(home: Path) -> Callable[..., str]:
    """Write the catalogue; returns its path."""

    def to(*entries: Entry, unreadable: list[str] | None = None) -> str:
        path = home / "catalogue.json"
        path.write_text(json.dumps({"services": list(entries), "unreadable": unreadable or []}))
        return str(path)

    return to
