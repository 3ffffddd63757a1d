# SPDX-License-Identifier: Apache-2.0
"""Questions to Prometheus, Alertmanager, the log store and Consul, and what their answers mean.

https://prometheus.io/docs/prometheus/latest/querying/api/, https://github.com/prometheus/alertmanager/blob/main/api/v2/openapi.yaml,
https://docs.victoriametrics.com/victorialogs/querying/, https://developer.hashicorp.com/consul/api-docs/health.
Parsers take the text of an answer and raise ValueError, KeyError or TypeError when it is not of the documented shape.
"""

from __future__ import annotations

import json
import math
import re
from array import array
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from .sources import lines

UP = "min by (component, node) (up)"
CORES = 'count by (node) (node_cpu_seconds_total{mode="idle"})'
NODES = (
    '{__name__=~"node_load1|node_memory_MemTotal_bytes|node_memory_MemAvailable_bytes|node_boot_time_seconds|node_uname_info|node_os_info|ashlar_node_info"}'
    ' or {__name__=~"node_filesystem_(size|avail)_bytes", mountpoint="/"}'
)
# What tells of certificates of others has labels of its own: whose certificate it is comes as exported_component.
CERTIFICATES = "bottomk by (component, exported_component, name) (1, ashlar_certificate_not_after_seconds)"
FAILED_UNITS = 'node_systemd_unit_state{state="failed"} == 1'
ACTIVE_UNITS = 'count by (name) (node_systemd_unit_state{state="active"} == 1)'
SEVERITIES = ("critical", "warning", "info")
LEVELS = ("emerg", "alert", "crit", "critical", "err", "error", "fatal", "panic")
FIELDS = ("node", "component", "unit", "namespace", "pod", "container", "level", "stream")


@dataclass(frozen=True)
class Sample:
    """One value of an instant query."""

    labels: Mapping[str, str]
    value: float


class Series:
    """One line of a range query: (seconds since 1970, value), without what is no number. Many of them are kept, so they are packed."""

    __slots__ = ("_times", "_values", "labels")

    def __init__(self, labels: Mapping[str, str], points: Iterable[tuple[float, float]]) -> None:
        self.labels = labels
        self._times, self._values = array("d"), array("d")
        for at, value in points:
            self._times.append(at)
            self._values.append(value)

    @property
    def points(self) -> tuple[tuple[float, float], ...]:
        return tuple(zip(self._times, self._values))


@dataclass(frozen=True)
class Alert:
    """Something that fires."""

    name: str
    severity: str
    summary: str
    remedy: str
    node: str
    component: str
    since: float | None


@dataclass(frozen=True)
class LogLine:
    """One line of the log store."""

    at: float | None
    level: str
    node: str
    source: str
    message: str


@dataclass(frozen=True)
class Check:
    """A health check of Consul that does not pass."""

    node: str
    service: str
    status: str
    output: str


@dataclass(frozen=True)
class Route:
    """A service that the edge leads to."""

    name: str
    url: str
    instances: int
    passing: int


def seconds(text: Any) -> float | None:
    """A time of RFC 3339, as all of them write it, in seconds since 1970."""
    if not isinstance(text, str):
        return None
    found = re.fullmatch(r"(\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d)(\.\d+)?(Z|[+-]\d\d:\d\d)", text)
    if not found:
        return None
    try:
        whole = datetime.fromisoformat(found[1].upper() + ("+00:00" if found[3] == "Z" else found[3]))
    except ValueError:
        return None
    return whole.astimezone(timezone.utc).timestamp() + float(found[2] or 0)


def quoted(text: str) -> str:
    """A text as a literal of PromQL and LogsQL."""
    return json.dumps(text, ensure_ascii=False)


def _result(text: str, kind: str) -> list[Any]:
    whole = json.loads(text)
    if whole["status"] != "success" or whole["data"]["resultType"] != kind:
        raise ValueError(f"no {kind}")
    return list(whole["data"]["result"])


def _labels(raw: Any) -> dict[str, str]:
    return {str(name): str(value) for name, value in dict(raw).items()}


def vector(text: str) -> list[Sample]:
    """The samples of an instant query whose values are numbers."""
    samples = [Sample(_labels(one["metric"]), float(one["value"][1])) for one in _result(text, "vector")]
    return [sample for sample in samples if math.isfinite(sample.value)]


def matrix(text: str) -> list[Series]:
    """The lines of a range query."""
    made = []
    for one in _result(text, "matrix"):
        points = ((float(at), float(value)) for at, value in one["values"])
        made.append(Series(_labels(one["metric"]), ((at, value) for at, value in points if math.isfinite(value))))
    return made


def _alert(labels: Mapping[str, Any], annotations: Mapping[str, Any], since: Any) -> Alert:
    label = {str(key): str(value) for key, value in labels.items()}
    note = {str(key): str(value) for key, value in annotations.items()}
    name = label.get("alertname", "alert without a name")
    severity = label.get("severity", "warning")
    return Alert(
        name=name,
        severity=severity if severity in (*SEVERITIES, "none") else "warning",
        summary=note.get("summary") or note.get("description") or name,
        remedy=note.get("remedy") or "",
        node=label.get("node", ""),
        component=label.get("component", ""),
        since=seconds(since),
    )


def alerts_of_alertmanager(text: str) -> list[Alert]:
    """Of /api/v2/alerts."""
    return [_alert(dict(one["labels"]), dict(one.get("annotations") or {}), one.get("startsAt")) for one in list(json.loads(text))]


def alerts_of_prometheus(text: str) -> list[Alert]:
    """Of /api/v1/alerts: those that fire."""
    whole = json.loads(text)
    if whole["status"] != "success":
        raise ValueError("no alerts")
    listed = [one for one in whole["data"]["alerts"] if one["state"] == "firing"]
    return [_alert(dict(one["labels"]), dict(one.get("annotations") or {}), one.get("activeAt")) for one in listed]


def ranked(alerts: list[Alert]) -> list[Alert]:
    """The worst first, of those the newest first; the watchdog, which always fires, is none of them."""
    order = {name: place for place, name in enumerate(SEVERITIES)}
    return sorted((one for one in alerts if one.severity != "none"), key=lambda one: (order.get(one.severity, 9), -(one.since or 0), one.name, one.node))


@dataclass(frozen=True)
class Group:
    """The same alert of several nodes: the first of them, and the nodes of all."""

    alert: Alert
    nodes: tuple[str, ...]


def grouped(alerts: list[Alert]) -> list[Group]:
    """Alerts that differ by their node only, and by figures of it, as one."""
    made: list[tuple[tuple[str, ...], list[Alert]]] = []
    for one in ranked(alerts):
        # What else differs, a pod or a file system, is said in the summary.
        words = re.sub(r"\d+(\.\d+)?", "0", one.summary.replace(one.node, "") if one.node else one.summary)
        key = (one.name, one.severity, one.component, words)
        fitting = (listed for other, listed in made if other == key and one.node and one.node not in {before.node for before in listed})
        group = next(fitting, None)
        if group is None:
            made.append((key, [one]))
        else:
            group.append(one)
    return [Group(listed[0], tuple(sorted({one.node for one in listed if one.node}))) for _, listed in made]


def log_lines(text: str) -> list[LogLine]:
    """Of /select/logsql/query."""
    made = []
    for raw in lines(text):
        if not isinstance(raw, dict):
            raise ValueError("no object")
        if "_time" not in raw:
            raise ValueError("no line of a log")
        field = {str(key): str(value) for key, value in raw.items()}
        source = "/".join(part for part in (field.get("namespace"), field.get("pod"), field.get("container")) if part)
        made.append(
            LogLine(
                at=seconds(field.get("_time")),
                level=field.get("level", ""),
                node=field.get("node", ""),
                source=source or field.get("component") or field.get("unit") or "",
                message=field.get("_msg", "")[:2000],
            )
        )
    return made


def hits(text: str) -> list[Series]:
    """Of /select/logsql/hits: how many lines there were, by time."""
    made = []
    for one in json.loads(text)["hits"]:
        points = [(seconds(at), float(count)) for at, count in zip(one["timestamps"], one["values"])]
        made.append(Series(_labels(one.get("fields") or {}), sorted((at, count) for at, count in points if at is not None)))
    return made


def log_question(words: str, errors_only: bool, node: str = "") -> str:
    """LogsQL for what somebody typed: all words must be there, `"several words"` as they stand, `field:value` in a field, `-` before one must not.

    Whatever is typed is a literal: it can ask for nothing else.
    """
    parts = []
    if errors_only:
        parts.append("level:in(" + ",".join(LEVELS) + ")")
    if node:
        parts.append(f"node:={quoted(node)}")
    for found in re.finditer(r'(-?)(?:([a-z]+):)?(?:"([^"]*)"|(\S+))', words[:400]):
        minus, field, phrase, word = found.groups()
        text = phrase if phrase is not None else word
        if field and field not in FIELDS:
            text, field = f"{field}:{text}", None
        if not text.strip('"'):
            continue
        # A word finds what begins with it, as people expect of a search.
        query = f"{field}:={quoted(text)}" if field else f"{quoted(text)}*" if phrase is None else quoted(text)
        parts.append(("!" if minus else "") + query)
    return " ".join(parts) or "*"


def checks(text: str) -> list[Check]:
    """Of /v1/health/state/any: those that do not pass."""
    listed = [
        Check(str(one["Node"]), str(one.get("ServiceName") or ""), str(one["Status"]), " ".join(str(one.get("Output") or one.get("Name") or "").split())[:200])
        for one in list(json.loads(text))
    ]
    return [one for one in listed if one.status in ("critical", "warning")]


def service_names(text: str) -> list[str]:
    """Of /v1/catalog/services."""
    return sorted(str(name) for name in dict(json.loads(text)))


HOST = re.compile(r"(?!-)[a-z0-9-]{1,63}(\.(?!-)[a-z0-9-]{1,63})*")
PATH = re.compile(r"/[A-Za-z0-9._~!$&'()*+,;=:@%/-]*")


def routes(text: str) -> list[Route]:
    """Of /v1/health/service/<name>: what the edge leads to, one for each host and path that is a name and a path indeed."""
    found: dict[tuple[str, str], list[bool]] = {}
    names: dict[tuple[str, str], str] = {}
    for one in list(json.loads(text)):
        meta = dict(one["Service"].get("Meta") or {})
        host, path = str(meta.get("route-host") or "").lower().rstrip("."), str(meta.get("route-path") or "/")
        if not HOST.fullmatch(host) or not PATH.fullmatch(path):
            continue
        names[(host, path)] = str(one["Service"]["Service"])
        found.setdefault((host, path), []).append(all(check["Status"] in ("passing", "warning") for check in one.get("Checks") or []))
    return [Route(names[key], f"https://{key[0]}{key[1]}", len(states), sum(states)) for key, states in sorted(found.items())]
