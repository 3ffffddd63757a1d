# SPDX-License-Identifier: Apache-2.0
"""Installs .deb files with dpkg: only what is missing or older, in one call, without starting services.

deb-control(5), deb-version(7) and dpkg(1) are the sources; https://people.debian.org/~hmh/invokerc.d-policyrc.d-specification.txt for policy-rc.d.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import subprocess
from collections.abc import Iterable, Iterator, Sequence

from ansible_collections.ashlar.stack.plugins.module_utils.artifact.install import InstallError
from ansible_collections.ashlar.stack.plugins.module_utils.host.locks import acquire
from ansible_collections.ashlar.stack.plugins.module_utils.host.run import PATH

LOCK = "/var/lib/dpkg/lock-frontend"
LOCK_SECONDS = 180
DPKG_SECONDS = 600
POLICY = "/usr/sbin/policy-rc.d"
# Exit status 101: the action is forbidden by policy.
POLICY_TEXT = "#!/bin/sh\n# Placed by Ashlar while it installs packages: units are started by their roles only.\nexit 101\n"
BROKEN = ("half-configured", "half-installed", "unpacked", "triggers-awaited", "triggers-pending")


def _run(command: Sequence[str], seconds: int = 60, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=seconds, check=False, stdin=subprocess.DEVNULL,
            env={**os.environ, "LC_ALL": "C.UTF-8", "PATH": PATH, **(environment or {})},
        )  # fmt: skip
    except FileNotFoundError:
        raise InstallError(f"{command[0]} is not on this host; artifacts with .deb files need Debian or a derivative.") from None
    except subprocess.TimeoutExpired:
        raise InstallError(f"'{' '.join(command[:3])} ...' did not end within {seconds} seconds; see /var/log/dpkg.log, then run again.") from None


def installed(names: Iterable[str]) -> dict[str, str]:
    """name -> version of those of `names` that are installed and configured."""
    done = _run(["dpkg-query", "-W", "-f", "${Package}\t${db:Status-Status}\t${Version}\n", *sorted(names)])
    found = {}
    for line in done.stdout.splitlines():
        package, status, version = line.split("\t")
        if status == "installed":
            found[package] = version
    return found


def older(found: str, wanted: str) -> bool:
    """Whether `found` is an older version than `wanted`."""
    return found != wanted and _run(["dpkg", "--compare-versions", found, "lt", wanted]).returncode == 0


def describe(path: str) -> tuple[str, str]:
    """(package, version) as the .deb file itself says."""
    done = _run(["dpkg-deb", "-W", "--showformat=${Package}\t${Version}", path])
    if done.returncode:
        raise InstallError(f"{path} is not a package: {done.stderr.strip()}. Build the artifact again.")
    package, version = done.stdout.strip().split("\t")
    return package, version


def interrupted(root: str = "") -> bool:
    """Whether an earlier dpkg was killed: journal entries are left, or packages stand half-way."""
    with contextlib.suppress(OSError):
        if any(name.isdigit() for name in os.listdir(root + "/var/lib/dpkg/updates")):
            return True
    with contextlib.suppress(OSError), open(root + "/var/lib/dpkg/status", encoding="utf-8", errors="replace") as stream:
        return any(line.startswith("Status:") and line.split()[-1] in BROKEN for line in stream)
    return False


def install(paths: Sequence[str], root: str = "") -> dict[str, str]:
    """Installs what is missing or older of `paths`; returns package -> version for those that dpkg installed."""
    described = {path: describe(path) for path in paths}
    have = installed(name for name, _ in described.values())
    missing = [path for path, (name, version) in described.items() if name not in have or older(have[name], version)]
    if not missing:
        return {}
    with lock(root), services_denied(root):
        environment = {"DEBIAN_FRONTEND": "noninteractive", "DPKG_FRONTEND_LOCKED": "true", "NEEDRESTART_SUSPEND": "1"}
        if interrupted(root):
            _run(["dpkg", "--force-confdef", "--force-confold", "--configure", "-a"], DPKG_SECONDS, environment)
        left = missing
        done = None
        # A package that must be configured before another can be unpacked (Pre-Depends) takes a second pass.
        while left:
            done = _run(["dpkg", "--force-confdef", "--force-confold", "-i", *left], DPKG_SECONDS, environment)
            if done.returncode == 0:
                break
            _run(["dpkg", "--force-confdef", "--force-confold", "--configure", "-a"], DPKG_SECONDS, environment)
            have = installed(described[path][0] for path in missing)
            still = [path for path in missing if have.get(described[path][0]) != described[path][1]]
            if len(still) >= len(left):
                break
            left = still
        if left and done is not None and done.returncode:
            lines = [line for line in (done.stderr + done.stdout).splitlines() if line.strip()]
            failed = ", ".join(described[path][0] for path in left)
            raise InstallError(
                f"dpkg could not install {failed}: {' | '.join(lines[:6])}. "
                "Settle it on the host (dpkg --configure -a; apt-get -f install) and run again."
            )
    return {described[path][0]: described[path][1] for path in missing}


@contextlib.contextmanager
def lock(root: str = "", seconds: float = LOCK_SECONDS) -> Iterator[None]:
    """Holds dpkg's front-end lock as apt does, so that dpkg neither waits nor fails for it; waits `seconds` at most."""
    path = root + LOCK
    with open(path, "a", encoding="utf-8") as stream:
        if not acquire(stream, seconds, take=fcntl.lockf):
            raise InstallError(
                f"{path} is held by another program (apt, unattended-upgrades?) for {seconds:.0f} seconds. "
                f"Let it end (fuser -v {path}), then run again."
            )
        yield


@contextlib.contextmanager
def services_denied(root: str = "") -> Iterator[None]:
    """Maintainer scripts may not start services meanwhile. A policy of the host's own is set aside and put back."""
    path, aside = root + POLICY, root + POLICY + ".ashlar"
    ours = False
    with contextlib.suppress(OSError), open(path, encoding="utf-8", errors="replace") as stream:
        ours = stream.read() == POLICY_TEXT
    # After a kill ours lies in place and the host's own, if there was one, aside already.
    if not ours:
        if os.path.lexists(path):
            os.replace(path, aside)
        with open(path + ".new", "w", encoding="utf-8") as stream:
            stream.write(POLICY_TEXT)
        os.chmod(path + ".new", 0o755)
        os.replace(path + ".new", path)
    try:
        yield
    finally:
        if os.path.lexists(aside):
            os.replace(aside, path)
        else:
            os.unlink(path)
