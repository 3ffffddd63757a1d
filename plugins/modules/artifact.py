# SPDX-License-Identifier: Apache-2.0
"""The host's half of ashlar.stack.artifact. The action plugin runs it once when nothing is lacking, and in a few steps otherwise."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: artifact
short_description: Installs artifacts from the store on hosts
version_added: "1.0.0"
author: Ashlar contributors (@ashlar)
description:
  - Copies the files of artifacts to C(/opt/ashlar/<artifact>/<version>/), verified by sha256, and then switches the link
    C(/opt/ashlar/<artifact>/current) atomically. Earlier versions are kept for rollbacks.
  - Missing files are uploaded once, to the artifact server (the first control node); the other hosts download them from there over mutual TLS with
    their certificate C(artifacts/node), which M(ashlar.stack.certificates) must have installed before. A host that cannot download gets the files
    from the controller.
  - The artifact server runs only while it is needed and stops by itself.
  - Files ending in C(.deb) are installed with dpkg when the package is missing or older; services are not started by that.
  - Whether something is missing is decided by what was recorded at installation (size, mtime, mode), so that a run without changes is one quick call.
  - An interrupted run continues when repeated. No file appears under its final name before it is complete and verified.
options:
  artifacts:
    description: Names of the artifacts to install; the variable C(node_artifacts).
    type: list
    elements: str
    required: true
  versions:
    description: Version of each artifact; default the variable C(artifact_versions).
    type: dict
  store:
    description: The store on the controller; default the environment variable E(ASHLAR_STORE), then C(~/.cache/ashlar/store).
    type: path
  servers:
    description:
      - Hosts that may be the artifact server; the first that can be reached is. Default the group C(control).
      - An empty list sends everything from the controller to each host.
    type: list
    elements: str
  port:
    description: TCP port of the artifact server.
    type: int
    default: 9443
  idle_seconds:
    description: The artifact server stops after this time without requests, in seconds.
    type: int
    default: 300
  activate:
    description: Whether to switch C(current); V(false) only distributes the files, ahead of an upgrade.
    type: bool
    default: true
  keep:
    description: Number of versions of an artifact to keep, including the one in use. One that a process still runs from is always kept.
    type: int
    default: 2
  prune:
    description:
      - Whether to remove artifacts that an earlier run installed and that are not in O(artifacts). Packages stay installed,
        and so does an artifact that a process still runs from, until a later run.
    type: bool
    default: false
  verify:
    description: Whether to hash every file again and replace damaged ones.
    type: bool
    default: false
  root:
    description: Prefix of all paths on the host, for images and tests; default the host's variable C(artifact_root), then C(/).
    type: path
attributes:
  check_mode:
    description: Nothing is uploaded or written; missing artifacts are reported.
    support: full
  diff_mode:
    description: Shows which artifact changes from which version to which.
    support: full
notes:
  - This module determines the host's architecture and codename itself; facts need not be gathered.
"""

EXAMPLES = r"""
- name: The binaries of this host's components are in place
  ashlar.stack.artifact:
    artifacts: "{{ node_artifacts }}"
    prune: true

- name: The next version is there before the upgrade begins
  ashlar.stack.artifact:
    artifacts: [kubernetes]
    versions: {kubernetes: 1.36.4}
    activate: false

- name: Damaged binaries are found and replaced
  ashlar.stack.artifact:
    artifacts: "{{ node_artifacts }}"
    verify: true
"""

RETURN = r"""
artifacts:
  description: What was installed or switched, by artifact, with the previous version and the reason.
  type: dict
  returned: always
  sample: {etcd: {from: 3.7.2, to: 3.7.3, reason: not there}}
packages:
  description: Packages that dpkg installed, with their versions.
  type: dict
  returned: always
removed:
  description: Versions that were removed, by artifact.
  type: dict
  returned: always
source:
  description: Where the files came from, V(none), V(controller) or the name of the artifact server.
  type: str
  returned: always
bytes:
  description: How many bytes were missing.
  type: int
  returned: always
architecture:
  description: Architecture of the host as the store names it.
  type: str
  returned: always
  sample: amd64
codename:
  description: Codename of the host's distribution, empty when it has none.
  type: str
  returned: always
  sample: trixie
"""

import contextlib
import hashlib
import os
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.ashlar.stack.plugins.module_utils.artifact.install import (
    Host,
    InstallError,
    for_platform,
    guarded,
    package_of,
    parse_index,
)
from ansible_collections.ashlar.stack.plugins.module_utils.host.folders import own_umask

SERVER_UNIT = "ashlar-artifacts.service"
SERVER_SECONDS = 3600
START_SECONDS = 60


@dataclass(frozen=True)
class Options:
    """How a host's artifacts are kept; the module's arguments of the same names."""

    keep: int = 2
    prune: bool = False
    verify: bool = False
    activate: bool = True


def inspect(host: Host, want: dict[str, dict[str, Any]], options: Options, check: bool) -> dict[str, Any]:
    """What is lacking. When nothing is, links that point elsewhere (a way back to an earlier version) are switched right here.

    `want`: artifact -> {version, digests: {platform: digest}}, platform being ``amd64`` or ``amd64-trixie``.
    """
    architecture, codename = host.platform()
    result: dict[str, Any] = {"architecture": architecture, "codename": codename, "lacking": {}, "artifacts": {}, "removed": {}}
    for name, entry in want.items():
        digest = for_platform(entry["digests"], architecture, codename)
        reason = host.lacks(name, entry["version"], digest, options.verify) if digest else "not there"
        change = {"from": host.current(name), "to": entry["version"]}
        if reason:
            result["lacking"][name] = {**change, "reason": reason}
        elif options.activate and change["from"] != change["to"]:
            result["artifacts"][name] = {**change, "reason": "another version was in use"}
    stale = host.stale(want) if options.prune else []
    for name in stale:
        result["artifacts"][name] = {"from": host.current(name), "to": "", "reason": "no longer asked for"}
    if not result["lacking"] and not check:
        with host.locked() if result["artifacts"] else contextlib.nullcontext():
            finish(host, {name: entry["version"] for name, entry in want.items()}, options, result)
            host.memory.save()
    result["changed"] = bool(result["lacking"] or result["artifacts"])
    return result


def finish(host: Host, versions: dict[str, str], options: Options, result: dict[str, Any]) -> None:
    """Switches all links when everything is in place, so that the moment of mixed versions is short; then removes what is too old."""
    if options.activate:
        switched = [name for name, version in versions.items() if host.activate(name, version)]
        for name in switched:
            removed = host.prune(name, options.keep)
            if removed:
                result["removed"][name] = removed
    if options.prune:
        for name in host.stale(versions):
            result["removed"][name] = host.forget(name)


def install(host: Host, raw: list[dict[str, Any]], want: dict[str, str], source: dict[str, Any], options: Options) -> dict[str, Any]:
    """Brings the files of the indexes `raw` into place, from what was uploaded, the local store, or the artifact server; switches when all are there.

    `want` is artifact -> version of everything the host is to have. `missing` in the result are blobs that could not be had: nothing is
    switched then, and the caller sends them and calls again.
    """
    indexes = [parse_index(entry) for entry in raw]
    result: dict[str, Any] = {"missing": [], "problem": "", "packages": {}, "removed": {}, "artifacts": {}, "changed": True}
    with host.locked():
        refused = host.adopt()
        if refused:
            result["problem"] = f"{len(refused)} uploaded files were damaged on the way"
        wanted = host.absent(indexes, options.verify)
        found = {sha256: host.find(item) for sha256, item in wanted.items()}
        lacking = {sha256: item.size for sha256, item in wanted.items() if not found[sha256]}
        if lacking and source:
            from ansible_collections.ashlar.stack.plugins.module_utils.artifact.fetch import FetchError, Source, fetch

            host.check_space(host.opt, sum(lacking.values()))
            try:
                files = {name: host.root + source[name] for name in ("certificate", "key", "authority")}
                fetch(Source(source["address"], source["port"], **files), lacking, host.partial)
            except FetchError as error:
                result["problem"] = str(error)
            found.update({sha256: host.find(wanted[sha256]) for sha256 in lacking})
        result["missing"] = sorted(sha256 for sha256, path in found.items() if not path)
        if result["missing"]:
            return result
        for index in indexes:
            for item in index.files:
                if item.sha256 in wanted and not item.package:
                    host.place(index, item, found[item.sha256])
        debs = sorted({found[item.sha256] for item in wanted.values() if item.package})
        if debs:
            from ansible_collections.ashlar.stack.plugins.module_utils.artifact import debian

            result["packages"] = debian.install(debs, host.root)
        for index in indexes:
            host.record(index, dict(package_of(item.path) for item in index.files if item.package))
        # From here on a killed run finds everything in place and only switches.
        host.memory.save()
        host.forget_downloads()
        finish(host, want, options, result)
        host.memory.save()
    return result


def seed(host: Host, blobs: dict[str, int], user: str, serve: dict[str, Any] | None) -> dict[str, Any]:
    """Takes in what was uploaded, says which of `blobs` are lacking, and serves when none is."""
    with host.locked():
        refused = host.adopt()
        missing = host.prepare(blobs, user)
        if serve and not missing:
            host.prune_store(blobs)
            start_server(host, {**serve, **{name: host.root + serve[name] for name in ("certificate", "key", "authority")}})
    problem = f"{len(refused)} uploaded files were damaged on the way" if refused else ""
    return {"missing": missing, "incoming": host.incoming, "problem": problem, "changed": False}


def start_server(host: Host, serve: dict[str, Any]) -> None:
    """Starts the artifact server as a transient unit, unless the same one (program, certificate, options) runs already."""
    script = f"{host.store}/serve.py"
    options = {key: str(value) for key, value in serve.items() if key != "program"}
    state = hashlib.sha256(repr(sorted(serve.items())).encode())
    for path in (serve["certificate"], serve["authority"]):
        try:
            with open(path, "rb") as stream:
                state.update(stream.read())
        except OSError as error:
            raise InstallError(f"{path}: {error.strerror}; the artifact server needs the certificate artifacts/node (ashlar.stack.certificates).") from None
    mark = f"ASHLAR_MARK={state.hexdigest()}"
    shown = run(["systemctl", "show", "--property=ActiveState,Environment", SERVER_UNIT])
    if "ActiveState=active" in shown.stdout and mark in shown.stdout:
        return
    run(["systemctl", "stop", SERVER_UNIT])
    run(["systemctl", "reset-failed", SERVER_UNIT])
    with open(script + ".new", "w", encoding="utf-8") as stream:
        stream.write(serve["program"])
    os.chmod(script + ".new", 0o644)
    os.replace(script + ".new", script)
    done = run(server_command(script, host.store, options, mark))
    if done.returncode:
        log = run(["journalctl", "--unit", SERVER_UNIT, "--lines", "5", "--output", "cat", "--no-pager"]).stdout.strip().replace("\n", " | ")
        raise InstallError(f"the artifact server did not start: {done.stderr.strip()} {log}")


def server_command(script: str, store: str, options: dict[str, str], mark: str) -> list[str]:
    """systemd-run for a unit without rights: no user of its own, no capabilities, the key as a credential, the store read-only.

    https://www.freedesktop.org/software/systemd/man/latest/systemd.exec.html explains each property.
    """
    properties = [
        "Description=Artifact server of Ashlar, ends by itself when idle",
        "Type=notify",
        "NotifyAccess=main",
        "DynamicUser=yes",
        f"LoadCredential=certificate:{options['certificate']}",
        f"LoadCredential=key:{options['key']}",
        f"LoadCredential=authority:{options['authority']}",
        f"Environment={mark}",
        "Restart=on-failure",
        "RestartSec=0.5",
        f"RuntimeMaxSec={SERVER_SECONDS}",
        f"TimeoutStartSec={START_SECONDS}",
        "TimeoutStopSec=5",
        "CapabilityBoundingSet=",
        "NoNewPrivileges=yes",
        "ProtectSystem=strict",
        "ProtectHome=yes",
        "ProtectKernelTunables=yes",
        "ProtectKernelModules=yes",
        "ProtectControlGroups=yes",
        "PrivateTmp=yes",
        "PrivateDevices=yes",
        "RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX",
        "RestrictNamespaces=yes",
        "RestrictRealtime=yes",
        "LockPersonality=yes",
        "MemoryDenyWriteExecute=yes",
        "SystemCallFilter=@system-service",
        "SystemCallArchitectures=native",
        "UMask=0077",
    ]
    command = ["systemd-run", f"--unit={SERVER_UNIT}", "--collect", "--quiet", *(f"--property={entry}" for entry in properties)]
    credentials = f"/run/credentials/{SERVER_UNIT}"
    return [
        *command, sys.executable or "/usr/bin/python3", "-I", script,
        "--address", options["address"], "--port", options["port"], "--store", store, "--idle-seconds", options["idle_seconds"],
        "--certificate", f"{credentials}/certificate", "--key", f"{credentials}/key", "--authority", f"{credentials}/authority",
        "--organization", options["organization"],
    ]  # fmt: skip


def run(command: list[str]) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=START_SECONDS + 30, check=False, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise InstallError(f"{command[0]} failed: {error}; the artifact server needs systemd.") from None


def main() -> None:
    own_umask()
    module = AnsibleModule(
        argument_spec={
            "artifacts": {"type": "list", "elements": "str", "required": True},
            "versions": {"type": "dict"},
            "store": {"type": "path"},
            "servers": {"type": "list", "elements": "str"},
            "port": {"type": "int", "default": 9443},
            "idle_seconds": {"type": "int", "default": 300},
            "activate": {"type": "bool", "default": True},
            "keep": {"type": "int", "default": 2},
            "prune": {"type": "bool", "default": False},
            "verify": {"type": "bool", "default": False},
            "root": {"type": "path"},
            # From the action plugin, which knows the store: the step to take and what it takes.
            "_step": {"type": "str", "choices": ["inspect", "seed", "install"]},
            "_want": {"type": "dict", "default": {}},
            "_indexes": {"type": "list", "elements": "dict", "default": []},
            "_blobs": {"type": "dict", "default": {}},
            "_source": {"type": "dict", "default": {}},
            "_serve": {"type": "dict"},
            "_user": {"type": "str", "default": ""},
            "_drop": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    given = module.params
    if not given["_step"]:
        module.fail_json(msg="ashlar.stack.artifact reads the store on the controller: it runs by its action plugin only, not by itself.")
    try:
        with guarded():
            host = Host(given["root"] or "/")
            options = Options(given["keep"], given["prune"], given["verify"], given["activate"])
            if given["_step"] == "inspect":
                result = inspect(host, given["_want"], options, module.check_mode)
            elif given["_step"] == "seed":
                result = seed(host, {name: int(size) for name, size in given["_blobs"].items()}, given["_user"], given["_serve"])
            else:
                want = {name: str(entry["version"]) for name, entry in given["_want"].items()}
                result = install(host, given["_indexes"], want, given["_source"], options)
                if given["_drop"] and not result["missing"]:
                    host.drop_blobs(item["sha256"] for index in given["_indexes"] for item in index["files"])
    except InstallError as error:
        module.fail_json(msg=str(error))
    # The arguments are long lists of files; nobody wants them back.
    module.exit_json(**result, invocation={"module_args": {"_step": given["_step"]}})


if __name__ == "__main__":
    main()
