# SPDX-License-Identifier: Apache-2.0
"""What preflight's survey of a host says to the tasks that follow it. See module_utils/survey.py for what it has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

CHANGED = {"ansible_facts": {"ashlar_host_changed": True}}
"""In the result of whatever changed a host: anything else on it may feel that, so its survey does not hold any more."""


def surveyed(variables: Mapping[str, Any]) -> Mapping[str, Any]:
    """The survey of a task's host; empty when this run made none, or has changed the host since.

    The survey is a registered variable, which no cache of facts hands to another run.
    """
    if variables.get("ansible_facts", {}).get("ashlar_host_changed", True):
        return {}
    survey: Mapping[str, Any] = (variables.get("base_survey") or {}).get("survey") or {}
    return survey
