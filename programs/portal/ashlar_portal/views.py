# SPDX-License-Identifier: Apache-2.0
"""Decides what is shown: from what the site is and what was read, to rows and words. Nothing here waits or talks to anybody."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone

from markupsafe import Markup, escape

from . import figures
from .charts import number
from .figures import Alert, Check, Sample
from .model import Component, Node, Site
from .sources import Reading

RANK = {"critical": 0, "warning": 1, "unknown": 2, "idle": 3, "ok": 4}
WORDS = {"critical": "failing", "warning": "needs attention", "unknown": "unknown", "idle": "nothing to watch", "ok": "well"}
RANGES = {"1h": 3600, "6h": 21600, "24h": 86400}
NODES_SHOWN = 60
CERTIFICATE_WARNING_DAYS, CERTIFICATE_CRITICAL_DAYS = 21, 3
FULL_WARNING, FULL_CRITICAL = 85.0, 95.0


@dataclass(frozen=True)
class Stone:
    """A component on the wall."""

    name: str
    title: str
    version: str
    level: str
    text: str
    nodes: str

    @property
    def word(self) -> str:
        return WORDS[self.level]


@dataclass(frozen=True)
class Course:
    """A layer of the wall."""

    layer: str
    stones: tuple[Stone, ...]
    level: str


@dataclass(frozen=True)
class Gauge:
    """A share of something: per cent, and in words."""

    percent: float
    text: str
    level: str


@dataclass(frozen=True)
class Row:
    """A node."""

    name: str
    address: str
    classes: tuple[str, ...]
    zone: str
    level: str
    text: str
    load: str = ""
    memory: Gauge | None = None
    disk: Gauge | None = None
    versions: tuple[tuple[str, str], ...] = ()
    up_since: str = ""

    @property
    def word(self) -> str:
        return WORDS[self.level]


@dataclass(frozen=True)
class Expiry:
    """The certificate of a kind that ends first."""

    component: str
    name: str
    node: str
    days: int
    ends: str
    level: str
    share: float


@dataclass(frozen=True)
class Verdict:
    """How the site is, in a word and a sentence."""

    level: str
    headline: str
    sentence: str


@dataclass(frozen=True)
class Facts:
    """All that was read and says how the site is."""

    up: Reading[list[Sample]] = field(default_factory=Reading)
    failed: Reading[list[Sample]] = field(default_factory=Reading)
    active: Reading[list[Sample]] = field(default_factory=Reading)
    alerts: Reading[list[Alert]] = field(default_factory=Reading)
    checks: Reading[list[Check]] = field(default_factory=Reading)


def worst(levels: Iterable[str]) -> str:
    """The one that matters most; what has nothing to watch matters not at all."""
    return min((level for level in levels), key=RANK.__getitem__, default="idle")


def ago(then: float | None, now: float) -> str:
    """How long since, as people say it."""
    if then is None:
        return "never"
    gone = max(0, int(now - then))
    for size, name in ((86400, "d"), (3600, "h"), (60, "min")):
        if gone >= size:
            return f"{gone // size} {name}"
    return f"{gone} s"


def moment(at: float | None, seconds: bool = True) -> str:
    """A time in UTC."""
    if at is None:
        return ""
    try:
        return datetime.fromtimestamp(at, timezone.utc).strftime("%H:%M:%S" if seconds else "%Y-%m-%d %H:%M")
    except (ValueError, OverflowError, OSError):
        return ""


def machine_time(at: float | None) -> str:
    """A time for `datetime` attributes."""
    try:
        return datetime.fromtimestamp(at or 0, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (ValueError, OverflowError, OSError):
        return ""


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def answering(reading: Reading[list[Sample]]) -> dict[str, dict[str, bool]]:
    """Component -> node -> whether all of its endpoints there answer Prometheus."""
    made: dict[str, dict[str, bool]] = {}
    for sample in reading.value or []:
        component, node = sample.labels.get("component", ""), sample.labels.get("node", "")
        before = made.setdefault(component, {}).get(node, True)
        made[component][node] = before and sample.value > 0
    return made


def stone(component: Component, facts: Facts, answers: Mapping[str, Mapping[str, bool]]) -> Stone:
    """How a component is: by its endpoints, its units, its alerts and Consul's checks, whichever is worst, and by nothing that is not known."""
    total = len(component.nodes)
    found: list[tuple[str, str]] = []
    up = answers.get(component.name, {})
    if up and not facts.up.reason:
        down = [node for node in component.nodes if up.get(node) is False]
        missing = [node for node in component.nodes if node not in up]
        if down:
            found.append(("critical" if len(down) == total else "warning", f"does not answer on {_listed(down)}"))
        elif missing and component.metrics:
            found.append(("unknown", f"no figures of {_listed(missing)}"))
        else:
            found.append(("ok", "answers on all nodes" if total > 1 else "answers"))
    elif component.metrics:
        found.append(("unknown", "no figures: Prometheus does not answer" if facts.up.reason else "no figures yet"))
    elif component.units and total:
        found.extend(_running(component, facts.active))
    for sample in facts.failed.value or [] if not facts.failed.reason else []:
        if sample.labels.get("name") in component.units and sample.labels.get("node") in component.nodes:
            found.append(("critical" if total == 1 else "warning", f"{sample.labels['name']} has failed on {sample.labels.get('node')}"))
    if facts.checks.value is not None and not facts.checks.reason and component.service:
        name = component.name.replace("_", "-")
        bad = sorted({check.node for check in facts.checks.value if check.service == name and check.status == "critical" and check.node in component.nodes})
        if bad:
            found.append(("critical" if len(bad) == total else "warning", f"Consul's checks fail on {_listed(bad)}"))
    mine = [alert for alert in facts.alerts.value or [] if alert.component == component.name and alert.severity in ("critical", "warning")]
    if mine and not facts.alerts.reason:
        first = figures.ranked(mine)[0]
        found.append((first.severity, first.summary + (f" (and {len(mine) - 1} more)" if len(mine) > 1 else "")))
    if not found:
        found.append(("idle", "runs nothing of its own" if not component.service else "nobody measures it"))
    known = [one for one in found if one[0] != "ok"] or found
    level, text = min(known, key=lambda one: RANK[one[0]])
    well = sum(1 for node in component.nodes if up.get(node)) if up and not facts.up.reason else None
    nodes = f"{well} of {total}" if well is not None and well != total else str(total)
    return Stone(component.name, component.description, component.version, level, text, f"{nodes} node{'s' if total != 1 else ''}")


def _running(component: Component, active: Reading[list[Sample]]) -> list[tuple[str, str]]:
    """How a component without figures of its own is, by what systemd says of its units."""
    if active.reason or not active.value:
        return []
    counts = {sample.labels.get("name", ""): int(sample.value) for sample in active.value}
    known = [counts[unit] for unit in component.units if unit in counts]
    total = len(component.nodes)
    if not known:
        return []
    fewest = min(known)
    return [("ok", "runs on all nodes") if fewest >= total else ("warning", f"runs on {fewest} of {total} nodes")]


def soft(text: str) -> Markup:
    """A name that may be broken behind its underscores and hyphens."""
    return Markup(str(escape(text)).replace("_", "_<wbr>").replace("-", "-<wbr>"))


def marked(text: str) -> Markup:
    """A sentence with its `commands` marked as such."""
    parts = text.split("`")
    if len(parts) % 2 == 0:
        return escape(text)
    return Markup("").join(Markup("<code>{}</code>").format(part) if place % 2 else escape(part) for place, part in enumerate(parts))


def wall(site: Site, facts: Facts) -> list[Course]:
    """Layers as they stand on each other: the foundation last."""
    answers = answering(facts.up)
    courses = []
    for layer in reversed(site.layers):
        stones = tuple(stone(component, facts, answers) for component in site.components if component.layer == layer)
        if stones:
            courses.append(Course(layer, stones, worst(one.level for one in stones)))
    return courses


def _by_node(samples: Sequence[Sample], metric: str) -> dict[str, Sample]:
    return {sample.labels.get("node", ""): sample for sample in samples if sample.labels.get("__name__") == metric}


def _gauge(free: Sample | None, size: Sample | None) -> Gauge | None:
    if free is None or size is None or size.value <= 0:
        return None
    percent = min(100.0, max(0.0, 100 * (1 - free.value / size.value)))
    level = "critical" if percent >= FULL_CRITICAL else "warning" if percent >= FULL_WARNING else "ok"
    return Gauge(percent, f"{number(size.value - free.value, 'B')} of {number(size.value, 'B')}", level)


def rows(site: Site, facts: Facts, figures: Reading[list[Sample]], cores: Reading[list[Sample]], now: float) -> list[Row]:
    """Nodes, as they stand in the inventory."""
    samples = figures.value or []
    load, total, available = (_by_node(samples, f"node_{name}") for name in ("load1", "memory_MemTotal_bytes", "memory_MemAvailable_bytes"))
    size, free, boot = (_by_node(samples, f"node_{name}") for name in ("filesystem_size_bytes", "filesystem_avail_bytes", "boot_time_seconds"))
    kernel, system, ours = _by_node(samples, "node_uname_info"), _by_node(samples, "node_os_info"), _by_node(samples, "ashlar_node_info")
    core = {sample.labels.get("node", ""): sample.value for sample in cores.value or []}
    answers: dict[str, list[bool]] = {}
    exporter: dict[str, bool] = {}
    for component, nodes in answering(facts.up).items():
        for name, well in nodes.items():
            answers.setdefault(name, []).append(well)
            if component == "node_exporter":
                exporter[name] = well
    return [
        _row(
            node,
            _state(node, facts, answers.get(node.name, []), exporter.get(node.name)),
            load=_load(load.get(node.name), core.get(node.name)),
            memory=_gauge(available.get(node.name), total.get(node.name)),
            disk=_gauge(free.get(node.name), size.get(node.name)),
            versions=_versions(system.get(node.name), kernel.get(node.name), ours.get(node.name)),
            up_since=ago(boot[node.name].value, now) if node.name in boot else "",
        )
        for node in site.nodes
    ]


def _row(node: Node, state: tuple[str, str], load: str, memory: Gauge | None, disk: Gauge | None, versions: tuple[tuple[str, str], ...], up_since: str) -> Row:
    level, text = state
    return Row(node.name, node.address, node.classes, node.zone, level, text, load, memory, disk, versions, up_since)


def _load(load: Sample | None, cores: float | None) -> str:
    if load is None:
        return ""
    return f"{load.value:.2f}" + (f" on {cores:.0f} core{'s' if cores != 1 else ''}" if cores else "")


def _versions(system: Sample | None, kernel: Sample | None, ours: Sample | None) -> tuple[tuple[str, str], ...]:
    known = dict(ours.labels) if ours is not None else {}
    found = {
        "system": known.get("system") or (system.labels.get("pretty_name") or system.labels.get("name", "") if system is not None else ""),
        "kernel": known.get("kernel") or (kernel.labels.get("release", "") if kernel is not None else ""),
        "architecture": known.get("architecture", ""),
        "release": known.get("release", ""),
    }
    return tuple((name, value) for name, value in found.items() if value)


def _state(node: Node, facts: Facts, answers: Sequence[bool], exporter: bool | None) -> tuple[str, str]:
    found: list[tuple[str, str]] = []
    if facts.up.value is not None and not facts.up.reason:
        if answers and not any(answers):
            found.append(("critical", "does not answer"))
        elif exporter is False:
            found.append(("warning", "gives no figures"))
        elif answers:
            silent = sum(1 for well in answers if not well)
            found.append(("warning", f"{silent} of its components {'does' if silent == 1 else 'do'} not answer") if silent else ("ok", "answers"))
    if not facts.alerts.reason:
        for alert in facts.alerts.value or []:
            if alert.node == node.name and alert.severity in ("critical", "warning"):
                found.append((alert.severity, alert.summary))
    if facts.checks.value is not None and not facts.checks.reason:
        lost = [check for check in facts.checks.value if check.node == node.name and not check.service and check.status == "critical"]
        if lost:
            found.append(("critical", "Consul has lost it"))
        elif not found:
            found.append(("ok", "Consul reaches it"))
    if not found:
        return "unknown", "no figures"
    known = [one for one in found if one[0] != "ok"] or found
    return min(known, key=lambda one: RANK[one[0]])


def expiries(reading: Reading[list[Sample]], now: float) -> list[Expiry]:
    """Certificates, the one that ends first first."""
    made = []
    for sample in sorted(reading.value or [], key=lambda one: (one.value, one.labels.get("component", ""), one.labels.get("name", ""))):
        days = int((sample.value - now) // 86400)
        level = "critical" if days < CERTIFICATE_CRITICAL_DAYS else "warning" if days < CERTIFICATE_WARNING_DAYS else "ok"
        label = sample.labels
        # The exporter's own labels say on whose behalf it was read, not whose the certificate is.
        owner = label.get("exported_component") or label.get("component", "")
        share = min(100.0, max(0.0, days / 365 * 100))
        made.append(Expiry(owner, label.get("name", ""), label.get("node", ""), days, moment(sample.value, seconds=False), level, share))
    return made


def verdict(site: Site, courses: Sequence[Course], nodes: Sequence[Row], facts: Facts, certificates: Sequence[Expiry] = ()) -> Verdict:
    """The one sentence an operator came for."""
    stones = [one for course in courses for one in course.stones]
    alerts = [alert for alert in facts.alerts.value or [] if alert.severity in ("critical", "warning")] if not facts.alerts.reason else []
    levels = [one.level for one in stones] + [row.level for row in nodes] + [alert.severity for alert in alerts] + [one.level for one in certificates]
    counts = [
        _count(sum(1 for one in stones if one.level in ("critical", "warning")), "component"),
        _count(sum(1 for row in nodes if row.level in ("critical", "warning")), "node"),
        _count(len(figures.grouped(alerts)), "alert"),
        _count(sum(1 for one in certificates if one.level != "ok"), "certificate"),
    ]
    said = [count for count in counts if count]
    blind = [reason for reason in (facts.up.reason, facts.alerts.reason) if reason]
    if "critical" in levels or "warning" in levels:
        level = worst(level for level in levels if level in ("critical", "warning"))
        return Verdict(level, "Something is failing" if level == "critical" else "Needs attention", " · ".join(said))
    if blind:
        return Verdict("unknown", "Not all can be seen", " · ".join(blind))
    if "unknown" in levels:
        unknown = _count(sum(1 for one in stones if one.level == "unknown"), "component")
        return Verdict("unknown", "Not all is known yet", f"No figures of {unknown}" if unknown else "Some nodes give no figures")
    return Verdict("ok", "All is well", f"{_count(len(stones), 'component')} on {_count(len(site.nodes), 'node')}, no alert fires")


def _count(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}" if count else ""


def watchdog(reading: Reading[list[Alert]]) -> str:
    """What to say when the alert that always fires does not: then no other can be trusted to arrive either."""
    if reading.reason or reading.value is None or any(alert.severity == "none" for alert in reading.value):
        return ""
    return "The watchdog, an alert that always fires, does not: alerts do not get through from Prometheus."
