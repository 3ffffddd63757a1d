# SPDX-License-Identifier: Apache-2.0
"""The controller's side of C(ashlar.stack.preflight): chooses peers, compares clocks and says all problems of a host at once."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleError
from ansible.plugins.action import ActionBase
from ansible_collections.ashlar.stack.plugins.module_utils.preflight.checks import (
    CLOCK,
    LOCKOUT,
    NAMES,
    SSH_PORT,
    Problem,
    as_dicts,
    clock_problem,
    lockout_problem,
)
from ansible_collections.ashlar.stack.plugins.plugin_utils.site.options import wrong_variables

COLLECTION = Path(__file__).resolve().parents[2]


class ActionModule(ActionBase):
    _requires_connection = True
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        task_vars = task_vars or {}
        arguments = dict(self._task.args)
        skip = arguments.get("skip") or []
        unknown = sorted(set(skip) - set(NAMES))
        if unknown:
            return result | {
                "failed": True,
                "msg": f"skip names checks that do not exist: {', '.join(unknown)}. The checks are {', '.join(NAMES)}.",
                "remedy": "correct base_preflight_skip",
            }
        wrong = wrong_variables(COLLECTION, arguments.get("components") or [], task_vars, self._templar.template)
        if wrong:
            host = task_vars.get("inventory_hostname", "the host")
            lines = [f"{host} has wrong options, nothing was changed on it:", *(f"  {text}" for text in wrong)]
            remedy = "Correct them where they are set: 20-stack.yml, group_vars, host_vars or --extra-vars."
            return result | {"failed": True, "msg": "\n".join([*lines, remedy])}
        most_skew = float(arguments.get("max_clock_skew_seconds", 2))
        if arguments.get("peers") is None:
            arguments["peers"] = choose_peers(
                task_vars.get("inventory_hostname", ""),
                task_vars.get("ansible_play_hosts_all") or [],
                task_vars.get("site_nodes") or {},
                task_vars.get("hostvars") or {},
                int(arguments.get("peer_checks", 8)),
            )
        if arguments.get("networks") is None:
            arguments["networks"] = {name: text for name, text in (task_vars.get("site_networks") or {}).items() if name != "admin"}
        if arguments.get("users") is None:
            arguments["users"] = users_of(arguments.get("components") or [])

        asked = time.time()
        try:
            result |= self._execute_module(module_name="ashlar.stack.preflight", module_args=arguments, task_vars=task_vars)
        except AnsibleError as error:
            reason = explain(str(error))
            if not reason:
                raise
            return result | {"failed": True, "msg": reason}
        answered = time.time()
        if result.get("failed") or "problems" not in result:
            reason = explain(" ".join(str(result.get(key) or "") for key in ("msg", "module_stderr", "module_stdout")))
            return result | ({"failed": True, "msg": reason} if reason else {})

        problems = [Problem(**problem) for problem in result["problems"]]
        skewed = clock_problem(result.pop("time"), asked, answered, most_skew)
        if skewed and CLOCK not in skip:
            problems.append(skewed)
        client = result.pop("ssh_client")
        if client and arguments.get("admin_networks") is not None and LOCKOUT not in skip:
            nodes = (task_vars.get("site_nodes") or {}).values()
            problems += filter(None, [lockout_problem(client, arguments["admin_networks"], {node["address"] for node in nodes})])
        result["problems"] = as_dicts(problem for problem in problems if problem.fatal)
        result["warnings"] = [*result.get("warnings", []), *(f"{each.message}; {each.remedy}" for each in problems if not each.fatal)]
        if result["problems"]:
            result["failed"] = True
            result["msg"] = message(task_vars.get("inventory_hostname", "the host"), [problem for problem in problems if problem.fatal])
        return result


def explain(said: str) -> str:
    """Why no module could run on the host, where what it said tells; "" otherwise."""
    if re.search(r"must have a tty|no tty present", said):
        return (
            "sudo on this host wants a terminal (requiretty), which a pipelined connection has not. Take `Defaults requiretty` out of its"
            " /etc/sudoers, or set ansible_pipelining: false for the host"
        )
    password = re.search(r"(Missing|Incorrect) (\S+) password|(sudo|doas): a (?:password|tty) is required", said)
    if password:
        method = password[2] or password[3]
        return (
            f"{method} on this host asks for {'another' if password[1] == 'Incorrect' else 'a'} password. Give it by --ask-become-pass (-K) or by"
            " ansible_become_password in an encrypted file of host_vars"
        )
    refused = re.search(r"\b(sudo|su|doas): .*(?:Operation not permitted|Permission denied|Authentication failure)|not in the (sudo)ers file", said)
    if refused:
        return (
            f"{refused[1] or refused[2]} does not let the login user become root on this host. Allow it there, or name another way: ansible_become_method"
            " (sudo, su, doas), or ansible_user: root"
        )
    program = re.search(r"\b(sudo|su|doas): (?:command )?not found", said)
    if program:
        return (
            f"{program[1]} is not on this host. Install it, or name another way to become root: ansible_become_method (sudo, su, doas),"
            " or ansible_user: root without ansible_become"
        )
    missing = re.search(r"(/\S*python[\d.]*): (?:not found|No such file or directory)", said)
    if missing:
        return (
            f"Python is not at {missing[1]} on this host. Install it (apt-get install python3), or set ansible_python_interpreter for the host"
            " to where it is; the platform's own programs need /usr/bin/python3 in any case"
        )
    return ""


def message(host: str, problems: Sequence[Problem]) -> str:
    """All problems of a host with a remedy each, and how to go on regardless."""
    count = "a problem" if len(problems) == 1 else f"{len(problems)} problems"
    lines = [f"{host} has {count}, nothing was changed on it:"]
    for problem in problems:
        lines += [f"  {problem.check}: {problem.message}", f"    -> {problem.remedy}"]
    names = ", ".join(dict.fromkeys(problem.check for problem in problems))
    return "\n".join([*lines, f"To go on regardless, skip checks by name: base_preflight_skip: [{names}]"])


def users_of(components: Sequence[str]) -> dict[str, str]:
    """The users that the components declare, each with its component."""
    return {
        line.split()[1]: component
        for component in components
        for file in (COLLECTION / "roles" / component / "templates/etc/sysusers.d").glob("*.conf")
        for line in file.read_text(encoding="utf-8").splitlines()
        if line.startswith("u ")
    }


def choose_peers(
    host: str, play_hosts: Sequence[str], nodes: Mapping[str, Any], host_variables: Mapping[str, Any], most: int
) -> list[dict[str, Any]]:
    """The `most` hosts of the play that follow `host`, as in a ring: every node is tried by someone, and nobody tries all.

    Only hosts of the play count, so that a run without a dead node (--limit) is not stopped by it.
    """
    ring = [name for name in play_hosts if name in nodes]
    if host not in ring:
        return []
    position = ring.index(host)
    chosen = (ring[position + 1 :] + ring[:position])[:most]
    return [
        {"name": name, "address": nodes[name]["address"], "port": _port(nodes[name]["address"], host_variables.get(name))}
        for name in chosen
    ]


def _port(address: str, variables: Mapping[str, Any] | None) -> int:
    """Where the peer's SSH server listens. A port given for another address than the private one says nothing about it."""
    if not variables or variables.get("ansible_host", address) != address:
        return SSH_PORT
    return int(variables.get("ansible_port") or SSH_PORT)
