# SPDX-License-Identifier: Apache-2.0
"""Waits until a host's health checks are good."""

from __future__ import annotations

DOCUMENTATION = r"""
module: ready
short_description: Waits until all health checks of a host are good, and says what is wrong when they do not become so
version_added: 1.0.0
author: Ashlar developers (@ashlar)
description:
  - Asks all checks at the same time, every 0.2 to 1 seconds, until all of them are good.
  - A check that was good early is asked once more at the end, so that all are good together.
  - It gives up before O(timeout) when waiting cannot help, because the unit behind a check does not exist, is masked, stays failed, or keeps
    ending for a reason that is known to be fatal (a program that must not be executed, a full disk, a taken port, an expired certificate).
  - On failure the message names each check that is not good, what was seen last, the state of its unit, the cause if its log tells of a known
    failure, its warnings and errors (what looks like a secret is hidden) and what to do.
options:
  checks:
    description:
      - What to ask. Each check has exactly one of C(unit), C(tcp), C(url) and C(command).
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: How the check is called, a short sentence.
        type: str
      component:
        description: The component it belongs to.
        type: str
      unit:
        description:
          - A systemd unit that is active and stays so. A unit that is restarted while it is waited for must then stay active for 5 seconds.
          - A one-shot service that does not remain is good when it is over and has not failed.
        type: str
      tcp:
        description: An address and port that accepts a connection.
        type: str
      url:
        description: An address that answers a GET. Proxies are not used and redirects not followed.
        type: str
      command:
        description: Program and arguments that end with exit code 0.
        type: list
        elements: str
      contains:
        description: Text that the body, or what the program prints, must contain.
        type: str
      status:
        description: HTTP status codes that are good.
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
        description: Address and port at which O(checks[].url) is asked, instead of those its name resolves to.
        type: str
      log_unit:
        description: The unit whose log is shown on failure. By default its own O(checks[].unit), or the first unit of its component.
        type: str
      remedy:
        description: A sentence that says what to do when the check is not good and the log tells of no known failure.
        type: str
      failures:
        description:
          - Failures by which the unit is known to fail, besides those that any program may have. The first whose C(log) is found counts.
        type: list
        elements: dict
        suboptions:
          log:
            description: Regular expression that is searched in each line of the unit's log.
            type: str
            required: true
          cause:
            description: What is wrong, in words. C({name}) is what the group of that name in C(log) has found.
            type: str
            required: true
          remedy:
            description: A sentence that says what to do.
            type: str
            required: true
          fatal:
            description: Whether waiting for a unit that keeps ending so is no use.
            type: bool
            default: true
  timeout:
    description: Seconds to wait at most.
    type: int
    default: 120
notes:
  - Supports check mode. Each check is then asked once and the module does not fail.
  - Nothing is changed on the host.
"""

EXAMPLES = r"""
- name: Every health check of this node is good
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
  description: Every check, whether it is good and after how many seconds it became so.
  type: list
  returned: always
  elements: dict
  sample: [{component: etcd, name: etcd runs, ready: true, seconds: 1.4, seen: etcd.service is active (running)}]
not_ready:
  description: The checks that are not good, with what was seen last, the unit's state, the cause if known, warnings and errors of its log, and the remedy.
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
from ansible_collections.ashlar.stack.plugins.module_utils.health import (
    KINDS,
    HealthError,
    Outcome,
    Prober,
    Watch,
    make_check,
    message,
    tell,
)
from ansible_collections.ashlar.stack.plugins.module_utils.tree_run import HostRunner

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
