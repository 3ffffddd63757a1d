# SPDX-License-Identifier: Apache-2.0
"""Destinations on 127.0.0.1: moto's server for S3, and a real sshd that lets in whoever runs the tests."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
import requests
from ssh_server import Sshd
from support import backups
from support.ports import free_port


@pytest.fixture
def stage(tmp_path: Path) -> backups.Stage:
    return backups.stage(tmp_path)


@pytest.fixture
def s3(moto: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> object:
    """The client of an account that the environment leads to, which has a bucket `backups`."""
    for name in list(os.environ):
        if name.startswith("AWS_") or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    requests.post(f"{moto}/moto-api/reset", timeout=600)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name, value in {"AWS_ENDPOINT_URL": moto, "AWS_ACCESS_KEY_ID": "AKIAEXAMPLEEXAMPLE00", "AWS_SECRET_ACCESS_KEY": "example-secret-of-aws"}.items():
        monkeypatch.setenv(name, value)
    client = boto3.client("s3", region_name="us-east-1")
    client.create_bucket(Bucket="backups")
    return client


@pytest.fixture
def sshd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sshd]:
    program = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin")
    if not program:
        pytest.skip("there is no sshd on this machine: install openssh-server")
    folder = tmp_path / "sshd"
    folder.mkdir()
    for name in ("host", "user", "stranger"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", folder / name], check=True)
    port = free_port()
    settings = {
        "Port": port, "ListenAddress": "127.0.0.1", "HostKey": folder / "host", "AuthorizedKeysFile": folder / "user.pub", "StrictModes": "no",
        "PasswordAuthentication": "no", "KbdInteractiveAuthentication": "no", "UsePAM": "no", "PidFile": "none",
    }  # fmt: skip
    (folder / "config").write_text("".join(f"{name} {value}\n" for name, value in settings.items()))
    able = subprocess.run([program, "-t", "-f", folder / "config"], capture_output=True, text=True, check=False)
    if able.returncode:
        pytest.skip(f"sshd does not start on this machine: {able.stderr.strip()}")
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {(folder / 'host.pub').read_text()}")
    # `ssh` looks for the configuration in the home of the password file, whatever HOME is.
    (tmp_path / "bin").mkdir()
    wrapper = tmp_path / "bin" / "ssh"
    wrapper.write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} -F {folder / "ssh_config"} "$@"\n')
    wrapper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{wrapper.parent}:{os.environ['PATH']}")
    server = Sshd(f"ssh://{getpass.getuser()}@127.0.0.1:{port}", folder, folder / "ssh_config")
    server.configure()
    with subprocess.Popen([program, "-D", "-e", "-f", folder / "config"], stderr=(folder / "log").open("wb")) as process:
        try:
            _await(process, port)
            yield server
        finally:
            process.terminate()


def _await(process: subprocess.Popen[bytes], port: int) -> None:
    while process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.02)
    raise AssertionError("sshd has ended")
