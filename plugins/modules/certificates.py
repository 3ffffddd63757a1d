# SPDX-License-Identifier: Apache-2.0
"""The host's half of ashlar.stack.certificates: lays down what the action plugin issued, and removes what is no longer asked for."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: certificates
short_description: Issues certificates from the site's CAs and installs them
version_added: "1.0.0"
author: Ashlar contributors (@ashlar)
description:
  - Issues missing or expiring certificates on the controller, from the site's CAs, and installs them on the host in one call.
  - Certificates go to C(/etc/ashlar/pki/<component>/<name>.crt) and C(.key), the CAs a host trusts to C(/etc/ashlar/pki/ca/<authority>.crt).
  - A CA (ECDSA P-256, ten years, path length 0) is created when it is first needed. Its key never leaves the controller,
    except for one with V(kind=signer).
  - A certificate is reissued when its common name, organizations, names, addresses, usages or CA changed, when it expires soon, or when
    its key does not match. Its key is kept.
  - Missing system users that own a key are created, so that this can run before the component's own files are installed.
  - Certificates of an earlier run that are no longer needed are removed.
options:
  certificates:
    description: The certificates; the variable C(node_certificates) has this format.
    type: list
    elements: dict
    default: []
    suboptions:
      component:
        description: The component that uses it; a folder under C(/etc/ashlar/pki).
        type: str
        required: true
      name:
        description: Name of the certificate in its component.
        type: str
        required: true
      kind:
        description:
          - V(certificate) is a private key of this host and a certificate for it.
          - V(keypair) is an RSA key pair that all hosts share (service accounts), C(<name>.key) and C(<name>.pub).
          - V(signer) is the CA O(certificates[].authority) itself with its key, for a component that signs on its behalf. Use a separate CA for it.
        type: str
        choices: [certificate, keypair, signer]
        default: certificate
      authority:
        description: The CA that signs; required except for V(kind=keypair).
        type: str
      usages:
        description: Key usages.
        type: list
        elements: str
        choices: [server, client]
      common_name:
        description: Common name of the subject; default the O(certificates[].name).
        type: str
      organizations:
        description: Organizations of the subject; groups in Kubernetes.
        type: list
        elements: str
      dns:
        description: DNS names.
        type: list
        elements: str
      addresses:
        description: IP addresses.
        type: list
        elements: str
      owner:
        description: System user that owns the key.
        type: str
        default: root
  authorities:
    description: CAs the host trusts in addition to those of its own certificates.
    type: list
    elements: str
    default: []
  destination:
    description:
      - V(node) installs the certificates on the host.
      - V(controller) only issues them, into C(admin/<component>/) of O(credentials), for users and programs on the controller. No host is contacted.
    type: str
    choices: [node, controller]
    default: node
  kubeconfig:
    description: A kubeconfig to write on the controller, with everything embedded; needs O(destination=controller).
    type: dict
    suboptions:
      path:
        description: Its path; default C(admin.kubeconfig) in O(credentials).
        type: path
      certificate:
        description: C(component/name) of the certificate in it; default the first of O(certificates).
        type: str
      servers:
        description:
          - API servers, context name to URL. The first is the current context.
          - By default one context C(<site>-<node>) per control node, port 6443.
        type: dict
      server:
        description: URL of a load-balanced address of the API; becomes the context named after the site, and the current one.
        type: str
  credentials:
    description: Folder on the controller; default the variable C(site_credentials).
    type: path
  days:
    description: Lifetime of new certificates, in days.
    type: int
    default: 365
  renew_before_days:
    description: Certificates are renewed when they have no more than this left, in days.
    type: int
    default: 30
  prune:
    description: Whether to remove certificates of an earlier run that are not in O(certificates).
    type: bool
    default: true
  root:
    description: Prefix of all paths on the host, for images and tests.
    type: path
    default: /
attributes:
  check_mode:
    description: Nothing is issued or written; what would be is reported.
    support: full
  diff_mode:
    description: Shows subjects, names and expiry; never keys.
    support: full
requirements:
  - cryptography on the controller
  - systemd-sysusers on the host, where a key belongs to a user that does not exist yet
"""

EXAMPLES = r"""
- name: Certificates are installed
  ashlar.stack.certificates:
    certificates: "{{ node_certificates }}"
    authorities: "{{ node_authorities | default([]) }}"

- name: One certificate is installed, and no other is touched
  ashlar.stack.certificates:
    prune: false
    certificates:
      - component: etcd
        name: server
        authority: etcd
        usages: [server, client]
        dns: [localhost]
        addresses: ["{{ node_address }}"]
        owner: etcd

- name: The administrator has a kubeconfig
  ashlar.stack.certificates:
    destination: controller
    certificates:
      - component: kubernetes
        name: admin
        authority: kubernetes
        usages: [client]
        organizations: [ashlar:administrators]
    kubeconfig: {}
  run_once: true
"""

RETURN = r"""
issued:
  description: What was issued by this run, C(component/name) and why.
  type: dict
  returned: always
  sample: {etcd/server: addresses changed}
certificates:
  description: Facts of each certificate, by C(component/name).
  type: dict
  returned: always
  sample: {etcd/server: {common_name: node1, dns: [localhost], addresses: [10.0.0.1], not_after: "2027-11-21T10:00:00Z"}}
written:
  description: Paths on the host that were written.
  type: list
  elements: str
  returned: always
removed:
  description: Paths on the host that were removed.
  type: list
  elements: str
  returned: always
users:
  description: System users that were created.
  type: list
  elements: str
  returned: always
files:
  description: Paths on the controller, by C(component/name), each with C(certificate), C(key) and C(authority).
  type: dict
  returned: with destination=controller
kubeconfig:
  description: Path of the kubeconfig that was written or found up to date.
  type: str
  returned: with kubeconfig
"""

import contextlib
import hashlib
import json
import os
import pwd
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.ashlar.stack.plugins.module_utils.certificates import MEMORY, PKI
from ansible_collections.ashlar.stack.plugins.module_utils.host.folders import make_folder, own_umask

SYSUSERS_SECONDS = 30


class LayingError(Exception):
    """What failed, where, and what to do, for the user."""


@dataclass(frozen=True)
class File:
    """One file to be on the host; `path` without the root prefix. `facts` are public and go into the diff."""

    path: str
    content: str
    owner: str
    mode: int
    facts: dict[str, Any]


@dataclass
class Outcome:
    written: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    users: list[str] = field(default_factory=list)
    before: dict[str, Any] = field(default_factory=dict)
    after: dict[str, Any] = field(default_factory=dict)

    @property
    def changed(self) -> bool:
        return bool(self.written or self.removed or self.users)


def sysusers(user: str) -> None:
    """Makes a system user. Given inline, so that the component's own declaration in /etc/sysusers.d stays the only one."""
    line = f'u {user} - "Ashlar {user}" /var/lib/{user} /usr/sbin/nologin'
    try:
        done = subprocess.run(
            ["systemd-sysusers", "--inline", line], capture_output=True, text=True, timeout=SYSUSERS_SECONDS, check=False, stdin=subprocess.DEVNULL
        )
    except FileNotFoundError:
        raise LayingError(f"user {user} does not exist and systemd-sysusers is not there to make it; make the user, or install systemd.") from None
    except subprocess.TimeoutExpired:
        raise LayingError(f"user {user} was not made within {SYSUSERS_SECONDS} seconds: systemd-sysusers hangs; look for a held /etc/.pwd.lock.") from None
    if done.returncode:
        raise LayingError(f"user {user} cannot be made: {done.stderr.strip() or 'systemd-sysusers failed'}")


def account(user: str) -> tuple[int, int] | None:
    """(uid, gid) of a user of this host, None when there is none."""
    try:
        entry = pwd.getpwnam(user)
    except KeyError:
        return None
    return entry.pw_uid, entry.pw_gid


class Laying:
    """Brings the files of one host into place under `root`; with `check` only says what would happen."""

    def __init__(
        self,
        root: str,
        check: bool,
        find_account: Callable[[str], tuple[int, int] | None] = account,
        make_user: Callable[[str], None] = sysusers,
    ) -> None:
        self.root = root.rstrip("/")
        self.check = check
        self.find_account = find_account
        self.make_user = make_user

    def run(self, files: list[File], prune: bool) -> Outcome:
        outcome = Outcome()
        memory = self._remembered()
        accounts = self._accounts(files, outcome)
        for item in files:
            self._lay(item, accounts[item.owner], memory, outcome)
        wanted = {item.path: {"sha256": _digest(item.content), "facts": item.facts} for item in files}
        # A private key's digest is nothing to keep: it would let a reader of the memory recognise the key.
        for item in files:
            if item.mode & 0o077 == 0:
                wanted[item.path] = {"facts": item.facts}
        if prune:
            for path in sorted(set(memory) - set(wanted)):
                self._remove(path, memory[path], outcome)
        else:
            wanted = {**memory, **wanted}
        if wanted != memory and not self.check:
            self._directory(os.path.dirname(self.root + MEMORY))
            self._write(self.root + MEMORY, json.dumps({"files": wanted}, indent=1, sort_keys=True), 0o644, None)
        return outcome

    def _remembered(self) -> dict[str, Any]:
        """path -> {sha256, facts} of the last run; what cannot be read is as good as never written."""
        try:
            with open(self.root + MEMORY, encoding="utf-8") as stream:
                files = json.load(stream)["files"]
        except (OSError, ValueError, KeyError, TypeError):
            return {}
        return files if isinstance(files, dict) else {}

    def _accounts(self, files: list[File], outcome: Outcome) -> dict[str, tuple[int, int] | None]:
        accounts: dict[str, tuple[int, int] | None] = {}
        for owner in sorted({item.owner for item in files}):
            found = self.find_account(owner)
            if found is None:
                outcome.users.append(owner)
                if not self.check:
                    self.make_user(owner)
                    found = self.find_account(owner)
                    if found is None:
                        raise LayingError(f"user {owner} was made but cannot be looked up; check the passwd entry of /etc/nsswitch.conf.")
            accounts[owner] = found
        return accounts

    def _lay(self, item: File, ids: tuple[int, int] | None, memory: dict[str, Any], outcome: Outcome) -> None:
        path = self.root + item.path
        try:
            status = os.lstat(path)
            with open(path, "rb") as stream:
                same = stream.read() == item.content.encode() and not os.path.islink(path)
        except OSError:
            status, same = None, False
        fits = status is not None and status.st_mode & 0o7777 == item.mode and ids == (status.st_uid, status.st_gid)
        if same and fits:
            return
        outcome.written.append(item.path)
        outcome.before[item.path] = memory.get(item.path, {}).get("facts", {}) if status else {}
        outcome.after[item.path] = item.facts
        if self.check:
            return
        self._directory(os.path.dirname(path))
        self._write(path, item.content, item.mode, ids)

    def _remove(self, path: str, known: dict[str, Any], outcome: Outcome) -> None:
        """Only below the pki folder: a damaged memory must not remove anything else."""
        if not path.startswith(PKI + "/") or ".." in path or not os.path.lexists(self.root + path):
            return
        outcome.removed.append(path)
        outcome.before[path] = known.get("facts", {})
        if self.check:
            return
        try:
            os.unlink(self.root + path)
        except OSError as error:
            raise LayingError(f"{path} is no longer asked for and cannot be removed: {error.strerror}.") from None
        with contextlib.suppress(OSError):
            os.rmdir(os.path.dirname(self.root + path))

    def _directory(self, path: str) -> None:
        try:
            make_folder(path)
        except OSError as error:
            raise LayingError(f"{path} cannot be made: {error.strerror}. Is there a file in its place, or is the disk full or read-only?") from None

    def _write(self, path: str, content: str, mode: int, ids: tuple[int, int] | None) -> None:
        temporary = ""
        try:
            descriptor, temporary = tempfile.mkstemp(prefix="." + os.path.basename(path) + ".", dir=os.path.dirname(path))
            with os.fdopen(descriptor, "wb") as stream:
                stream.write(content.encode())
                if ids is not None and ids != (os.geteuid(), os.getegid()):
                    os.fchown(stream.fileno(), *ids)
                os.fchmod(stream.fileno(), mode)
            os.replace(temporary, path)
        except OSError as error:
            if temporary:
                with contextlib.suppress(OSError):
                    os.unlink(temporary)
            raise LayingError(f"{path} cannot be written: {error.strerror}. Is the disk full or read-only?") from None


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _page(facts: dict[str, Any]) -> str:
    """The facts of several files as text, for a diff."""
    lines = []
    for path in sorted(facts):
        lines.append(path)
        for name, value in facts[path].items():
            if value in ("", []):
                continue
            lines.append(f"  {name}: {', '.join(map(str, value)) if isinstance(value, list) else value}")
    return "".join(line + "\n" for line in lines)


def main() -> None:
    own_umask()
    module = AnsibleModule(
        argument_spec={
            "certificates": {"type": "list", "elements": "dict", "default": []},
            "authorities": {"type": "list", "elements": "str", "default": []},
            "destination": {"type": "str", "choices": ["node", "controller"], "default": "node"},
            "kubeconfig": {"type": "dict"},
            "credentials": {"type": "path"},
            "days": {"type": "int", "default": 365},
            "renew_before_days": {"type": "int", "default": 30},
            "prune": {"type": "bool", "default": True},
            "root": {"type": "path", "default": "/"},
            # From the action plugin: what to lay down, and the private keys apart from it so that no log has them.
            "_files": {"type": "list", "elements": "dict"},
            "_keys": {"type": "dict", "no_log": True, "default": {}},
        },
        supports_check_mode=True,
    )
    if module.params["_files"] is None:
        module.fail_json(msg="ashlar.stack.certificates issues on the controller: it runs by its action plugin only, not by itself.")
    try:
        files = [
            File(
                path=str(entry["path"]),
                content=str(module.params["_keys"][entry["key"]] if entry.get("key") else entry["content"]),
                owner=str(entry["owner"]),
                mode=int(entry["mode"], 8),
                facts=dict(entry.get("facts") or {}),
            )
            for entry in module.params["_files"]
        ]
        outcome = Laying(module.params["root"], module.check_mode).run(files, module.params["prune"])
    except LayingError as error:
        module.fail_json(msg=str(error))
    diff = {"before_header": "certificates", "after_header": "certificates", "before": _page(outcome.before), "after": _page(outcome.after)}
    module.exit_json(changed=outcome.changed, written=outcome.written, removed=outcome.removed, users=outcome.users, diff=diff)


if __name__ == "__main__":
    main()
