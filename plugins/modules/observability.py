# SPDX-License-Identifier: Apache-2.0
"""Documents ashlar.stack.observability, whose action plugin does the work on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: observability
short_description: Checks what a site watches before any host is touched
version_added: "1.0.0"
author: Ashlar contributors (@ashlar)
description:
  - For V(prometheus), every rule file of the site's components and of the site itself is read. A rule must parse, an alert must have a severity, a
    summary, a remedy and a name that no other has; names of O(ignore:prometheus_alerts_disabled) must exist.
  - For V(alertmanager), every receiver must be able to tell somebody, and every route must lead to a receiver.
  - For V(grafana), every dashboard asks a data source that Grafana will have, by queries that Prometheus takes and with variables that its page has.
  - The component's options are held against the limits of its manifest, and its configuration, as its first host will have it, is given to promtool
    or amtool of the site's version, out of the store.
options:
  component:
    description: Whose settings are checked.
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
- name: What Prometheus shall do is right
  ashlar.stack.observability:
    component: prometheus
  run_once: true
"""

RETURN = r"""
checked:
  description: The component whose settings are right.
  type: str
  returned: success
  sample: prometheus
"""
