# SPDX-License-Identifier: Apache-2.0
"""Every wrong rule, route and option of the tables here is stopped before a host is touched, by exactly the message beside it.

A table is a YAML file, named after the component, with a list of cases: ``variables`` that are set, ``files`` of the site's folder, path -> text, and
``error``, the problems, a line each, without what every message starts with.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.errors import AnsibleError

CASES: list[dict[str, Any]] = [
    {**case, "component": file.stem} for file in sorted(Path(__file__).parent.glob("*.yml")) for case in yaml.safe_load(file.read_text())
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['component']}: {case['name']}")
def test_what_is_wrong_is_one_clear_error(case: dict[str, Any], checked: Callable[..., dict[str, Any]]) -> None:
    with pytest.raises(AnsibleError) as caught:
        checked(case["component"], case.get("variables", {}), case.get("files", {}))
    expected = case["error"].strip().splitlines()
    if len(expected) == 1:
        assert str(caught.value) == f"What the site watches is wrong; no host was touched.\n  {expected[0]}"
    else:
        lines = "".join(f"\n  {number}. {line}" for number, line in enumerate(expected, 1))
        assert str(caught.value) == f"What the site watches is wrong, for {len(expected)} reasons; no host was touched.{lines}"


@pytest.mark.parametrize("component", ["prometheus", "alertmanager"])
def test_what_is_right_passes(component: str, checked: Callable[..., dict[str, Any]]) -> None:
    own = """
groups:
  - name: shop
    rules:
      - record: shop:orders:rate5m
        expr: sum by (site) (rate(orders_total[5m]))
      - alert: NoOrders
        expr: shop:orders:rate5m == 0
        for: 5m
        labels: {severity: critical}
        annotations: {summary: "Nobody orders in {{ $labels.site }}.", remedy: Look at the shop first.}
      - alert: EtcdNoLeader
        expr: etcd_server_has_leader == 0
        for: 5m
        labels: {severity: critical}
        annotations: {summary: "No leader, as we count it.", remedy: Look at etcd.}
"""
    variables = {
        "prometheus_alerts_disabled": ["EtcdNoLeader"],
        "prometheus_remote_write": [{"url": "https://store.example.com/api/v1/write", "basic_auth": {"username": "prod", "password": "hunter2"}}],
        "alertmanager_receivers": [
            {"name": "pager", "pagerduty_configs": [{"routing_key": "0123456789abcdef"}]},
            {"name": "mail", "email_configs": [{"to": "ops@example.com"}]},
        ],
        "alertmanager_global": {"smtp_smarthost": "mail.example.com:587", "smtp_from": "alerts@example.com"},
        "alertmanager_routes": [{"receiver": "pager", "matchers": ['severity="critical"'], "continue": True}, {"receiver": "mail"}],
    }
    result = checked(component, variables, {"alerts/own.yml": own})
    assert result["checked"] == component
    assert result["changed"] is False


def test_a_secret_of_a_receiver_is_in_no_message(checked: Callable[..., dict[str, Any]]) -> None:
    receivers = [{"name": "pager", "webhook_configs": [{"url": "https://hooks.example.com/hunter2hunter2", "max_alerts": "hunter2hunter2"}]}]
    with pytest.raises(AnsibleError) as caught:
        checked("alertmanager", {"alertmanager_receivers": receivers}, {})
    assert "amtool does not take the configuration of alertmanager" in str(caught.value)
    assert "hunter2" not in str(caught.value)
