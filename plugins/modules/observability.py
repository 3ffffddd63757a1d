# SPDX-License-Identifier: Apache-2.0
"""Documents ashlar.stack.observability, whose action plugin does the work on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: observability
short_description: Validates a site's monitoring before any host is touched
version_added: "1.0.0"
author: Ashlar contributors (@ashlar)
description:
  - For V(prometheus), reads every rule file of the site's components and of the site itself. Rules must parse; alerts must have a severity, a
    summary, a remedy and a unique name; names in O(ignore:prometheus_alerts_disabled) must exist.
  - For V(alertmanager), every receiver must have a notifier, and every route must lead to a receiver.
  - For V(grafana), every dashboard must use data sources that Grafana will have, queries that Prometheus accepts and variables that the page defines.
  - The component's options are checked against the limits in its manifest, and its configuration for its first host is checked by promtool
    or amtool of the site's version, from the store.
options:
  component:
    description: The component whose settings are checked.
    type: str
    choices: [prometheus, alertmanager, grafana]
    required: true
attributes:
  check_mode:
    description: It changes nothing anyway.
    support: full
  diff_mode:
    description: It changes nothing.
    support: none
notes:
  - Runs on the controller, once a play; variables are those of the play's first host.
  - Where the store has no program for the controller's architecture, a warning says so; the programs check once more on each host.
seealso:
  - plugin: ashlar.stack.rules
    plugin_type: lookup
"""

EXAMPLES = r"""
- name: Prometheus' configuration and rules are valid
  ashlar.stack.observability:
    component: prometheus
  run_once: true
"""

RETURN = r"""
checked:
  description: The component whose settings are valid.
  type: str
  returned: success
  sample: prometheus
"""
