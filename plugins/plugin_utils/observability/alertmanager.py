# SPDX-License-Identifier: Apache-2.0
"""Receivers and routes of alerts, checked before they reach a host.

The shapes are Alertmanager's own (https://prometheus.io/docs/alerting/latest/configuration/); amtool judges what is not judged here.
No message shows a value of a receiver: addresses of receivers are often secrets.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ansible_collections.ashlar.stack.plugins.plugin_utils.observability.rules import is_http
from ansible_collections.ashlar.stack.plugins.plugin_utils.site.models import Path_, Problem
from ansible_collections.ashlar.stack.plugins.plugin_utils.site.reading import did_you_mean, listed, quoted

PORTAL = "portal"
"""The receiver that tells nobody, which every site has."""

# Kind -> what it needs: one key of each row, of its own or, after the bar, of alertmanager_global.
NEEDS: dict[str, Sequence[tuple[tuple[str, ...], tuple[str, ...]]]] = {
    "discord": [(("webhook_url", "webhook_url_file"), ())],
    "email": [(("to",), ()), (("smarthost",), ("smtp_smarthost",)), (("from",), ("smtp_from",))],
    "incidentio": [(("url", "url_file"), ())],
    "jira": [(("project",), ()), (("api_url",), ("jira_api_url",))],
    "mattermost": [(("webhook_url", "webhook_url_file"), ("mattermost_webhook_url", "mattermost_webhook_url_file"))],
    "msteams": [(("webhook_url", "webhook_url_file"), ())],
    "msteamsv2": [(("webhook_url", "webhook_url_file"), ())],
    "opsgenie": [(("api_key", "api_key_file"), ("opsgenie_api_key", "opsgenie_api_key_file"))],
    "pagerduty": [(("routing_key", "routing_key_file", "service_key", "service_key_file"), ())],
    "pushover": [(("user_key", "user_key_file"), ()), (("token", "token_file"), ())],
    "rocketchat": [],
    "slack": [
        (
            ("api_url", "api_url_file", "app_token", "app_token_file"),
            ("slack_api_url", "slack_api_url_file", "slack_app_token", "slack_app_token_file"),
        )
    ],
    "sns": [],
    "telegram": [(("chat_id", "chat_id_file"), ()), (("bot_token", "bot_token_file"), ("telegram_bot_token", "telegram_bot_token_file"))],
    "victorops": [(("routing_key",), ())],
    "webex": [(("room_id",), ())],
    "webhook": [(("url", "url_file"), ())],
    "wechat": [],
}
KINDS = tuple(f"{kind}_configs" for kind in NEEDS)
ADDRESSES = ("url", "webhook_url", "api_url")


def check(receivers: Any, routes: Any, default: str, shared: Mapping[str, Any]) -> list[Problem]:
    """What is wrong with ``alertmanager_receivers``, ``alertmanager_routes`` and ``alertmanager_default_receiver``.

    :param shared: ``alertmanager_global``, which may hold what receivers leave out.
    """
    receivers = receivers if isinstance(receivers, list) else []
    problems = list(_receivers(receivers, shared))
    names = [PORTAL, *(str(one["name"]) for one in receivers if isinstance(one, Mapping) and one.get("name"))]
    if default not in names:
        problems.append(Problem("", ("alertmanager_default_receiver",), _unknown(default, names)))
    problems += _routes(routes if isinstance(routes, list) else [], ("alertmanager_routes",), names)
    return problems


def secrets(*values: Any) -> list[str]:
    """Every text in receivers and their common settings that may be a secret, the longest first."""
    found: set[str] = set()
    waiting = list(values)
    while waiting:
        value = waiting.pop()
        if isinstance(value, Mapping):
            waiting += [part for key, part in value.items() if key != "name"]
        elif isinstance(value, (list, tuple)):
            waiting += value
        elif isinstance(value, str) and len(value) >= 6:
            found.add(str(value))
    return sorted(found, key=len, reverse=True)


def masked(text: str, words: Sequence[str]) -> str:
    """What a program said, without what may be a secret. YAML's readers quote the beginning of a value that has the wrong type."""
    text = re.sub(r"(!!\w+) `[^`]*`", r"\1 (secret)", text)
    for word in words:
        text = text.replace(word, "(secret)")
    return text


def _receivers(receivers: Sequence[Any], shared: Mapping[str, Any]) -> Iterator[Problem]:
    seen: dict[str, int] = {PORTAL: -1}
    for number, receiver in enumerate(receivers):
        place: Path_ = ("alertmanager_receivers", number)
        if not isinstance(receiver, Mapping) or not receiver.get("name"):
            yield Problem("", place, "has no name. A receiver has `name`, which routes refer to, and notifiers such as `webhook_configs`.")
            continue
        name = str(receiver["name"])
        who = f"the receiver {name}"
        if name in seen:
            why = "is there on every site, it keeps alerts for the portal and tells nobody" if name == PORTAL else f"is the {seen[name] + 1}. receiver, too"
            yield Problem("", (*place, "name"), f"is {quoted(name)}, which {why}. Rename it.")
        seen.setdefault(name, number)
        told = False
        for key, configurations in receiver.items():
            if key == "name":
                continue
            if key not in KINDS:
                yield Problem("", (*place, key), f"is nothing that {who} can have.{did_you_mean(str(key), KINDS)} Allowed: name, {listed(KINDS)}.")
                told = True
                continue
            if not isinstance(configurations, list):
                yield Problem("", (*place, key), f"of {who} is not a list. Give a list with one entry per recipient.")
                told = True
                continue
            for index, configuration in enumerate(configurations):
                told = True
                yield from _needs((*place, key, index), who, str(key).removesuffix("_configs"), configuration, shared)
        if not told:
            yield Problem("", place, f"{who} tells nobody. Give it at least one of {listed(KINDS, 'or')}, or route to {PORTAL} instead.")


def _needs(place: Path_, who: str, kind: str, configuration: Any, shared: Mapping[str, Any]) -> Iterator[Problem]:
    if not isinstance(configuration, Mapping):
        yield Problem("", place, f"of {who} is no mapping of settings.")
        return
    for own, common in NEEDS[kind]:
        given = any(configuration.get(key) for key in own) or any(shared.get(key) for key in common)
        if not given:
            also = f", or {listed(common, 'or')} in alertmanager_global" if common else ""
            yield Problem("", place, f"{who} has no {own[0]}, so it can tell nobody. Give it {listed(own, 'or')}{also}.")
    for key in ADDRESSES:
        # A template is filled in by Alertmanager when it sends.
        if configuration.get(key) and "{{" not in str(configuration[key]) and not is_http(configuration[key]):
            yield Problem("", (*place, key), f"of {who} is no address (it is not shown, since it may be a secret). Allowed: http:// or https:// with a host.")


def _routes(routes: Sequence[Any], place: Path_, names: Sequence[str]) -> Iterator[Problem]:
    for number, route in enumerate(routes):
        where = (*place, number)
        if not isinstance(route, Mapping):
            yield Problem("", where, "is no route. A route has `receiver` and `matchers`.")
            continue
        if "receiver" in route and route["receiver"] not in names:
            yield Problem("", (*where, "receiver"), _unknown(route["receiver"], names))
        deeper = route.get("routes")
        if isinstance(deeper, list):
            yield from _routes(deeper, (*where, "routes"), names)


def _unknown(name: Any, names: Sequence[str]) -> str:
    return f"is {quoted(name)}, which is no receiver.{did_you_mean(str(name), names)} Allowed: {listed(names)}."
