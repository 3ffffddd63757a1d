# SPDX-License-Identifier: Apache-2.0
"""Waits until a host's health checks are good."""

from __future__ import annotations

DOCUMENTATION = r"""
module: ready
short_description: Waits until all health checks of a host pass, and explains why if they do not
version_added: 1.0.0
author: Ashlar developers (@ashlar)
description:
  - Runs all checks in parallel, every 0.2 to 1 seconds, until all of them pass.
  - A check that passed early is repeated at the end, so that all pass together.
  - It gives up before O(timeout) when waiting cannot help, because the unit behind a check does not exist, is masked, stays failed, or keeps
    failing for a reason that is known to be fatal (a program that must not be executed, a full disk, a port in use, an expired certificate).
  - On failure the message has each failed check, its last result, the state of its unit, the cause if its log shows a known
    failure, its warnings and errors (apparent secrets are masked) and what to do.
options:
  checks:
    description:
      - The checks. Each has exactly one of C(unit), C(tcp), C(url) and C(command).
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: Name of the check, a short sentence.
        type: str
      component:
        description: The component it belongs to.
        type: str
      unit:
        description:
          - A systemd unit that is active and stays so. A unit that is restarted while it is waited for must then stay active for 5 seconds.
          - A one-shot service without RemainAfterExit passes when it has finished and has not failed.
        type: str
      tcp:
        description: An address and port that accepts a connection.
        type: str
      url:
        description: A URL that answers a GET. Proxies are not used and redirects not followed.
        type: str
      command:
        description: Program and arguments that exit with 0.
        type: list
        elements: str
      contains:
        description: Text that the body, or what the program prints, must contain.
        type: str
      status:
        description: HTTP status codes that pass.
        type: list
        elements: int
        default: [200]
      authority:
        description: Name of the certificate authority in C(/etc/ashlar/pki/ca) that must have signed the certificate of O(checks[].url).
        type: str
      certificate:
        description: Client certificate to show, C(component/name) below C(/etc/ashlar/pki).
        type: str
      connect:
        description: Address and port to connect to, instead of those that the name in O(checks[].url) resolves to.
        type: str
      log_unit:
        description: The unit whose log is shown on failure. By default its own O(checks[].unit), or the first unit of its component.
        type: str
      remedy:
        description: A sentence that says what to do when the check fails and the log shows no known failure.
        type: str
      failures:
        description:
          - Known failures of the unit, in addition to those of any program. The first whose C(log) matches applies.
        type: list
        elements: dict
        suboptions:
          log:
            description: Regular expression to search for in each line of the unit's log.
            type: str
            required: true
          cause:
            description: What is wrong, in words. C({name}) is replaced by the match of the group of that name in C(log).
            type: str
            required: true
          remedy:
            description: A sentence that says what to do.
            type: str
            required: true
          fatal:
            description: Whether waiting will not help a unit that keeps failing like this.
            type: bool
            default: true
  timeout:
    description: Maximum time to wait, in seconds.
    type: int
    default: 120
notes:
  - Supports check mode. Each check is then run once and the module does not fail.
  - Nothing is changed on the host.
"""

EXAMPLES = r"""
- name: Every health check of this node passes
  ashlar.stack.ready:
    checks: "{{ node_health }}"
    timeout: 120

- name: Etcd answers before the next member is touched
  ashlar.stack.ready:
    checks:
      - {name: etcd runs, component: etcd, unit: etcd.service}
      - name: etcd answers
        component: etcd
        url: "https://{{ node_address }}:2379/health"
        authority: etcd
        certificate: etcd/server
        contains: '"health":"true"'
        remedy: Two of three members must run; start the others.
"""

RETURN = r"""
checks:
  description: Every check, whether it passes, and after how many seconds.
  type: list
  returned: always
  elements: dict
  sample: [{component: etcd, name: etcd runs, ready: true, seconds: 1.4, seen: etcd.service is active (running)}]
not_ready:
  description: The failed checks, with their last result, the unit's state, the cause if known, warnings and errors of its log, and the remedy.
  type: list
  returned: always
  elements: dict
seconds:
  description: Seconds waited.
  type: float
  returned: always
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.ashlar.stack.plugins.module_utils.health.checks import (
    KINDS,
    HealthError,
    Outcome,
    Prober,
    Watch,
    make_check,
    message,
    tell,
)
from ansible_collections.ashlar.stack.plugins.module_utils.host.run import HostRunner

TEXTS = ("name", "component", "unit", "tcp", "url", "contains", "authority", "certificate", "connect", "log_unit", "remedy")
ARGUMENTS: dict[str, Any] = {
    "checks": {
        "type": "list",
        "elements": "dict",
        "required": True,
        "options": {
            **{key: {"type": "str"} for key in TEXTS},
            "command": {"type": "list", "elements": "str"},
            "status": {"type": "list", "elements": "int", "default": [200]},
            "failures": {
                "type": "list",
                "elements": "dict",
                "options": {
                    **{key: {"type": "str", "required": True} for key in ("log", "cause", "remedy")},
                    "fatal": {"type": "bool", "default": True},
                },
            },
        },
        "mutually_exclusive": [KINDS],
        "required_one_of": [KINDS],
    },
    "timeout": {"type": "int", "default": 120},
}


def values_of(outcome: Outcome) -> dict[str, Any]:
    """One check as it is returned."""
    return {
        "component": outcome.check.component,
        "name": outcome.check.name or outcome.check.target,
        "ready": outcome.ready,
        "seconds": outcome.seconds,
        "seen": outcome.seen,
    }


def main() -> None:
    """Run as an Ansible module."""
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    runner = HostRunner()
    timeout = float(module.params["timeout"])
    try:
        checks = [make_check(values) for values in module.params["checks"]]
    except HealthError as error:
        module.fail_json(msg=str(error))
    watch = Watch(checks, Prober(runner))
    outcomes = watch.once() if module.check_mode else watch.wait(timeout)
    stories = tell(outcomes, runner)
    result: dict[str, Any] = {
        "changed": False,
        "checks": [values_of(outcome) for outcome in outcomes],
        "not_ready": [story.values() for story in stories],
        "seconds": max((outcome.seconds for outcome in outcomes), default=0.0),
    }
    if stories and not module.check_mode:
        module.fail_json(msg=message(stories, len(outcomes), timeout), **result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
