# SPDX-License-Identifier: Apache-2.0
"""Issues on the controller, then lays everything down on the host in one module execution."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleError
from ansible.plugins.action import ActionBase
from ansible_collections.ashlar.stack.plugins.module_utils.certificates import PKI, Installed, digest_of
from ansible_collections.ashlar.stack.plugins.plugin_utils import pki
from ansible_collections.ashlar.stack.plugins.plugin_utils.secrets import decrypter
from ansible_collections.ashlar.stack.plugins.plugin_utils.survey import CHANGED, surveyed

MODULE = "ashlar.stack.certificates"
API_PORT = 6443


def plan(issued: list[pki.Issued], authorities: Mapping[str, pki.Authority]) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """(files, keys) as the module takes them: keys travel apart, under their label, in an argument that is never logged."""
    files: list[dict[str, Any]] = []
    keys: dict[str, str] = {}
    for name, authority in sorted(authorities.items()):
        facts = pki.public_facts(authority.certificate)
        files.append({"path": f"{PKI}/ca/{name}.crt", "content": authority.bundle, "owner": "root", "mode": "0644", "facts": facts})
    for item in issued:
        spec, base = item.spec, f"{PKI}/{item.spec.component}/{item.spec.name}"
        keys[spec.label] = item.key
        files.append({"path": f"{base}.key", "key": spec.label, "owner": spec.owner, "mode": "0600", "facts": {"owner": spec.owner}})
        if spec.kind == "keypair":
            files.append({"path": f"{base}.pub", "content": item.public, "owner": "root", "mode": "0644", "facts": item.facts})
        else:
            files.append({"path": f"{base}.crt", "content": item.certificate, "owner": "root", "mode": "0644", "facts": item.facts})
    return files, keys


def servers_of(arguments: Mapping[str, Any], variables: Mapping[str, Any]) -> tuple[dict[str, str], str]:
    """(context name -> URL, current context) of a kubeconfig; by default one a control node."""
    site = str(variables.get("site_name") or "site")
    servers = {str(name): str(url) for name, url in (arguments.get("servers") or {}).items()}
    if not servers:
        nodes: Mapping[str, Any] = variables.get("site_nodes") or {}
        control = {name: node for name, node in nodes.items() if "control" in (node.get("classes") or [])}
        servers = {f"{site}-{name}": f"https://{node['address']}:{API_PORT}" for name, node in control.items()}
    if arguments.get("server"):
        servers = {site: str(arguments["server"]), **servers}
    if not servers:
        raise pki.CertificatesError("kubeconfig: no server is known; give 'server' or 'servers', or run where site_nodes has control nodes.")
    return servers, next(iter(servers))


class ActionModule(ActionBase):
    """Of the controller's work only the folder's writes are serialised; hosts are worked on by as many forks as there are."""

    TRANSFERS_FILES = False
    _supports_check_mode = True
    _supports_diff = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        variables = task_vars or {}
        try:
            return {**result, **self._run(variables)}
        except pki.CertificatesError as error:
            raise AnsibleError(str(error)) from None

    def _run(self, variables: dict[str, Any]) -> dict[str, Any]:
        _, arguments = self.validate_argument_spec(
            argument_spec={
                "certificates": {"type": "list", "elements": "dict", "default": []},
                "authorities": {"type": "list", "elements": "str", "default": []},
                "destination": {"type": "str", "choices": ["node", "controller"], "default": "node"},
                "kubeconfig": {
                    "type": "dict",
                    "options": {"path": {"type": "path"}, "certificate": {"type": "str"}, "servers": {"type": "dict"}, "server": {"type": "str"}},
                },
                "credentials": {"type": "path"},
                "days": {"type": "int", "default": 365},
                "renew_before_days": {"type": "int", "default": 30},
                "prune": {"type": "bool", "default": True},
                "root": {"type": "path", "default": "/"},
            }
        )
        folder = arguments["credentials"] or self._templar.template(variables.get("site_credentials"))
        if not folder:
            raise pki.CertificatesError("credentials: no folder is given and the variable site_credentials is not set (the stack inventory plugin sets it).")
        if arguments["kubeconfig"] is not None and arguments["destination"] != "controller":
            raise pki.CertificatesError("kubeconfig: is written on the controller; it needs destination: controller.")
        credentials = pki.Credentials(
            root=Path(folder).expanduser().absolute(),
            site=str(variables.get("site_name") or "site"),
            policy=pki.Policy(arguments["days"], arguments["renew_before_days"]),
            dry_run=bool(self._task.check_mode),
            decrypt=decrypter(self._loader),
        )
        specs = pki.parse_specs(arguments["certificates"])
        host = str(variables["inventory_hostname"])
        place = Path("admin") if arguments["destination"] == "controller" else Path("nodes") / host
        issued = [self._issue(credentials, spec, place) for spec in specs]
        trusted = {spec.authority for spec in specs if spec.authority} | set(arguments["authorities"])
        authorities = {name: credentials.authority(name) for name in sorted(trusted)}
        facts = {item.spec.label: item.facts for item in issued}
        reasons = {item.spec.label: item.reason for item in issued if item.changed}
        made = any(authority.created for authority in authorities.values())
        if arguments["destination"] == "controller":
            outcome = self._on_controller(credentials, place, issued, arguments, variables)
        else:
            outcome = self._on_node(*plan(issued, authorities), arguments, variables)
        return {**outcome, "changed": bool(outcome.get("changed")) or bool(reasons) or made, "issued": reasons, "certificates": facts}

    def _on_node(self, files: list[dict[str, Any]], keys: dict[str, str], arguments: Mapping[str, Any], variables: dict[str, Any]) -> dict[str, Any]:
        """Nothing is sent to a host whose survey has found exactly these files."""
        if arguments["root"] == "/" and arguments["prune"]:
            contents = (
                Installed(item["path"], (keys[item["key"]] if "key" in item else item["content"]).encode(), item["owner"], int(item["mode"], 8))
                for item in files
            )
            if digest_of(contents) == surveyed(variables).get("certificates"):
                return {"changed": False, "written": [], "removed": [], "users": []}
        outcome: dict[str, Any] = self._execute_module(
            module_name=MODULE,
            module_args={"root": arguments["root"], "prune": arguments["prune"], "_files": files, "_keys": keys},
            task_vars=variables,
        )
        return {**outcome, **CHANGED} if outcome.get("changed") else outcome

    @staticmethod
    def _issue(credentials: pki.Credentials, spec: pki.Spec, place: Path) -> pki.Issued:
        if spec.kind == "keypair":
            return credentials.keypair(spec)
        if spec.kind == "signer":
            return credentials.signer(spec)
        return credentials.certificate(spec, place / spec.component)

    def _on_controller(
        self, credentials: pki.Credentials, place: Path, issued: list[pki.Issued], arguments: dict[str, Any], variables: dict[str, Any]
    ) -> dict[str, Any]:
        outcome: dict[str, Any] = {"changed": False, "written": [], "removed": [], "users": []}
        outcome["files"] = {
            item.spec.label: {
                "certificate": str(credentials.root / place / item.spec.component / f"{item.spec.name}.crt"),
                "key": str(credentials.root / place / item.spec.component / f"{item.spec.name}.key"),
                "authority": str(credentials.root / "authorities" / item.spec.authority / "ca.crt"),
            }
            for item in issued
            if item.spec.kind == "certificate"
        }
        wanted = arguments["kubeconfig"]
        if wanted is None:
            return outcome
        by_label = {item.spec.label: item for item in issued if item.spec.kind == "certificate"}
        label = wanted["certificate"] or next(iter(by_label), "")
        if label not in by_label:
            raise pki.CertificatesError(f"kubeconfig: certificate '{label}' is not among certificates ({', '.join(by_label) or 'none are given'}).")
        item = by_label[label]
        servers, current = servers_of(wanted, variables)
        text = pki.kubeconfig(servers, current, item.spec.common_name, credentials.authority(item.spec.authority).bundle, item.certificate, item.key)
        path = Path(wanted["path"] or credentials.root / "admin.kubeconfig").expanduser().absolute()
        outcome["kubeconfig"] = str(path)
        if credentials.store(path, text):
            outcome["changed"] = True
            outcome["written"] = [str(path)]
        return outcome
