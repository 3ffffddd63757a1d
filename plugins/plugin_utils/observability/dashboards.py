# SPDX-License-Identifier: Apache-2.0
"""Dashboards: short sources (``schemas/dashboard.json``) found, checked, and made what Grafana reads.

A page is rows of panels, a panel is a title, a unit and queries. Everything else of Grafana's model (https://grafana.com/docs/grafana/latest/dashboards/
build-dashboards/view-dashboard-json-model/) follows from that, so that a page is read and reviewed as what it asks, and each query can be run by a test.
A site may add pages of its own in ``dashboards/`` beside its ``alerts/``: in the same short form, or as JSON that Grafana exported.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ansible_collections.ashlar.stack.plugins.plugin_utils.site.models import Problem, SiteError
from ansible_collections.ashlar.stack.plugins.plugin_utils.site.reading import did_you_mean, listed, quoted, read_json, read_yaml
from ansible_collections.ashlar.stack.plugins.plugin_utils.site.structure import check as check_structure

SCHEMA_VERSION = 41
"""Of Grafana 12's dashboards."""
SOURCES = {"prometheus": "prometheus", "alertmanager": "alertmanager", "logs": "victoriametrics-logs-datasource"}
"""Data sources that the role provides: uid -> type."""
BUILT_IN = ("__rate_interval", "__interval", "__range")
KINDS = {"lines": "timeseries", "number": "stat", "bars": "bargauge", "table": "table", "states": "state-timeline", "logs": "logs"}
WIDTHS = {"number": 4, "table": 24, "logs": 24}
HEIGHTS = {"number": 4}
COLUMNS = 24

_VARIABLE = re.compile(r"\$(?:\{(\w+)(?::\w+)?\}|(\w+))")
_UID = re.compile(r"[A-Za-z0-9_-]{1,40}")
# Grafana's own, which every installation has.
_OWN_SOURCES = {"grafana", "-- Grafana --", "-- Mixed --", "-- Dashboard --"}


@dataclass(frozen=True, slots=True)
class Variable:
    """What a reader chooses: values of ``label`` of ``series``."""

    name: str
    title: str
    series: str
    label: str
    several: bool


@dataclass(frozen=True, slots=True)
class Panel:
    """One picture. ``queries``: legend -> query. ``needs``: components; empty, or one of them is enough."""

    title: str
    kind: str
    unit: str
    source: str
    queries: Mapping[str, str]
    width: int
    height: int
    description: str = ""
    columns: Mapping[str, str] = field(default_factory=dict)
    texts: Mapping[str, str] = field(default_factory=dict)
    warning: float | None = None
    critical: float | None = None
    least: float | None = None
    most: float | None = None
    stacked: bool = False
    may_be_empty: bool = False


@dataclass(frozen=True, slots=True)
class Row:
    """Panels under one headline."""

    title: str
    panels: Sequence[Panel]


@dataclass(frozen=True, slots=True)
class Dashboard:
    """A page. ``own``: of the collection, not of the site. ``exported``: Grafana's JSON as the site gave it, then there are no rows."""

    name: str
    title: str
    description: str
    variables: Sequence[Variable]
    rows: Sequence[Row]
    file: Path
    own: bool = True
    exported: Mapping[str, Any] | None = None

    @property
    def uid(self) -> str:
        return f"ashlar-{self.name.replace('_', '-')}" if self.own else f"site-{self.name.replace('_', '-')}"


@dataclass(frozen=True, slots=True)
class Question:
    """One query of a page with its place."""

    dashboard: str
    panel: str
    legend: str
    source: str
    query: str
    may_be_empty: bool


def built_in_sources(components: Collection[str]) -> set[str]:
    """The data sources that Grafana has on a site with these components."""
    needed = {"logs": "victorialogs"}
    return {uid for uid in SOURCES if needed.get(uid, uid) in components}


def read_sources(sources: Any) -> tuple[set[str], list[Problem]]:
    """uids of ``grafana_data_sources``, and what is wrong with them."""
    uids: set[str] = set()
    problems: list[Problem] = []
    for number, source in enumerate(sources if isinstance(sources, list) else []):
        place = ("grafana_data_sources", number)
        missing = [key for key in ("name", "uid", "type") if not (isinstance(source, Mapping) and source.get(key))]
        if missing:
            problems.append(Problem("", place, f"has no {listed(missing)}. Add it; dashboards name a data source by its uid."))
            continue
        uid = str(source["uid"])
        if uid in uids or uid in SOURCES:
            problems.append(Problem("", (*place, "uid"), f"is {quoted(uid)}, which another data source has. Choose another."))
        uids.add(uid)
    return uids, problems


def find(root: Path, site: Path | None) -> list[tuple[Path, bool]]:
    """The sources of the collection's components below ``root`` and of the site's folder, each with whether it is the collection's own.

    Of all components, chosen or not: what a page ``needs`` says whether a site has it, and may be one of several components.
    """
    own = [(file, True) for file in sorted((root / "roles").glob("*/dashboards/*.yml"), key=lambda file: file.name)]
    return own + [(file, False) for file in sorted((site / "dashboards").glob("*")) if file.suffix in (".yml", ".json")] if site else own


def read(root: Path, places: Iterable[tuple[Path, bool]], components: Collection[str] | None) -> tuple[list[Dashboard], list[Problem]]:
    """The pages that a site with these components has (None: all there is of each), and what is wrong with their files."""
    found: list[Dashboard] = []
    problems: list[Problem] = []
    for file, own in places:
        try:
            data = read_json(file) if file.suffix == ".json" else read_yaml(file)
        except SiteError as error:
            problems += error.problems
            continue
        if file.suffix == ".json":
            wrong = _export(file, data)
        else:
            wrong = check_structure(root, "dashboard", data, str(file))
        problems += wrong
        if wrong:
            continue
        if file.suffix == ".json":
            found.append(Dashboard(file.stem, str(data["title"]), "", (), (), file, own, data))
        elif _is_wanted(data, components):
            found.append(_page(file, data, own, components))
    return found, problems


def check(
    dashboards: Sequence[Dashboard], sources: Collection[str], promtool: Callable[[Sequence[Path]], str] | None = None, scratch: Path | None = None
) -> list[Problem]:
    """Everything that is wrong with pages: names, data sources, variables; with ``promtool`` (what ``promtool check rules`` says) also their queries.

    :param sources: uids of all data sources that Grafana will have.
    :param scratch: a folder for the rule file that promtool is given.
    """
    problems: list[Problem] = []
    problems += _unique(dashboards)
    for page in dashboards:
        problems += _sources(page, sources)
        problems += _variables(page)
    if promtool and scratch:
        problems += _check_queries(dashboards, promtool, scratch)
    return problems


def questions(page: Dashboard, values: Mapping[str, str] | None = None) -> Iterator[Question]:
    """Every query of a page with values put in place of variables."""
    for row in page.rows:
        for panel in row.panels:
            for legend, query in panel.queries.items():
                yield Question(page.title, panel.title, legend, panel.source, fill(query, values or {}), panel.may_be_empty)


def fill(query: str, values: Mapping[str, str]) -> str:
    """The query with values in place of ``$name``; Grafana's own variables are what a page of one hour has with a reading each 15 s."""
    known = {"__rate_interval": "1m", "__interval": "15s", "__range": "1h", **values}
    return _VARIABLE.sub(lambda match: known.get(match[1] or match[2], match[0]), query)


def render(page: Dashboard) -> dict[str, Any]:
    """A page as Grafana reads it from a file."""
    if page.exported is not None:
        return {**page.exported, "id": None, "uid": page.exported.get("uid") or page.uid}
    return {
        "id": None,
        "uid": page.uid,
        "title": page.title,
        "description": page.description,
        "tags": ["ashlar"] if page.own else ["site"],
        "schemaVersion": SCHEMA_VERSION,
        "version": 1,
        "editable": False,
        "graphTooltip": 1,
        "timezone": "browser",
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "timepicker": {},
        "fiscalYearStartMonth": 0,
        "annotations": {"list": []},
        "links": [
            {
                "type": "dashboards", "title": "Pages", "tags": ["ashlar"], "asDropdown": True, "keepTime": True, "includeVars": True, "targetBlank": False,
                "icon": "external link", "tooltip": "", "url": "",
            }
        ],
        "templating": {"list": [_choice(variable) for variable in page.variables]},
        "panels": list(_layout(page)),
    }  # fmt: skip


def dump(page: Dashboard) -> str:
    """A page as a file: the same source gives the same bytes."""
    return json.dumps(render(page), indent=1, sort_keys=True, ensure_ascii=False) + "\n"


# ------------------------------------------------------------------------------------------------------------------------------- reading


def _is_wanted(part: Mapping[str, Any], components: Collection[str] | None) -> bool:
    needs = part.get("needs") or []
    return components is None or not needs or any(name in components for name in needs)


def _page(file: Path, data: Mapping[str, Any], own: bool, components: Collection[str] | None) -> Dashboard:
    variables = [
        Variable(one["name"], one.get("title") or one["name"].capitalize(), one["series"], one.get("label") or one["name"], bool(one.get("several")))
        for one in data.get("variables") or []
    ]
    rows = [
        Row(row.get("title", ""), panels)
        for row in data["rows"]
        if _is_wanted(row, components) and (panels := [_panel(panel) for panel in row["panels"] if _is_wanted(panel, components)])
    ]
    return Dashboard(file.stem, data["title"], data["description"], variables, rows, file, own)


def _panel(data: Mapping[str, Any]) -> Panel:
    kind = data.get("kind", "lines")
    return Panel(
        title=data["title"], kind=kind, unit=data.get("unit", "short"), source=data.get("source", "prometheus"), queries=data["queries"],
        width=data.get("width", WIDTHS.get(kind, 12)), height=data.get("height", HEIGHTS.get(kind, 8)), description=data.get("description", ""),
        columns=data.get("columns", {}), texts={str(value): text for value, text in data.get("texts", {}).items()},
        warning=data.get("warning"), critical=data.get("critical"), least=data.get("least"), most=data.get("most"),
        stacked=bool(data.get("stacked")), may_be_empty=bool(data.get("may_be_empty")),
    )  # fmt: skip


def _export(file: Path, data: Any) -> list[Problem]:
    if not isinstance(data, Mapping) or not isinstance(data.get("title"), str) or not isinstance(data.get("panels"), list):
        return [Problem(str(file), (), "is no dashboard: `title` or `panels` is missing. Export it in Grafana as JSON, not for sharing.")]
    if data.get("uid") and not _UID.fullmatch(str(data["uid"])):
        return [Problem(str(file), ("uid",), f"is {quoted(data['uid'])}. Allowed: at most 40 letters, digits, hyphens and underscores.")]
    return []


# ------------------------------------------------------------------------------------------------------------------------------ checking


def _unique(dashboards: Sequence[Dashboard]) -> Iterator[Problem]:
    first: dict[str, Dashboard] = {}
    for page in dashboards:
        if page.title in first:
            yield Problem(str(page.file), ("title",), f"is {quoted(page.title)}, as in {first[page.title].file.name}. Give each page a title of its own.")
        first.setdefault(page.title, page)
        panels: set[str] = set()
        for panel in (panel for row in page.rows for panel in row.panels):
            if panel.title in panels:
                yield Problem(str(page.file), (), f"two panels have the title {quoted(panel.title)}. Give each a title of its own.")
            panels.add(panel.title)


def _sources(page: Dashboard, sources: Collection[str]) -> Iterator[Problem]:
    for title, source in _used(page):
        if source not in sources:
            text = f"the panel {quoted(title)} asks the data source {quoted(source)}, which Grafana will not have."
            yield Problem(str(page.file), (), f"{text}{did_you_mean(source, sources)} Allowed: {listed(sorted(sources))}; grafana_data_sources adds others.")


def _used(page: Dashboard) -> Iterator[tuple[str, str]]:
    """(title of a panel, uid of its data source); in exported pages wherever one stands."""
    for row in page.rows:
        for panel in row.panels:
            yield panel.title, panel.source
    if page.exported is not None:
        names = {str(one.get("name")) for one in (page.exported.get("templating") or {}).get("list") or [] if isinstance(one, Mapping)}
        for title, uid in _exported_sources(page.exported, page.title):
            if uid not in _OWN_SOURCES and not (uid.startswith("$") and uid.strip("${}") in names):
                yield title, uid


def _exported_sources(part: Any, title: str) -> Iterator[tuple[str, str]]:
    if isinstance(part, Mapping):
        title = str(part["title"]) if part.get("title") and "gridPos" in part else title
        source = part.get("datasource")
        if isinstance(source, str):
            yield title, source
        elif isinstance(source, Mapping) and source.get("uid") and source.get("type") != "grafana":
            yield title, str(source["uid"])
        for key, value in part.items():
            if key != "datasource":
                yield from _exported_sources(value, title)
    elif isinstance(part, list):
        for one in part:
            yield from _exported_sources(one, title)


def _variables(page: Dashboard) -> Iterator[Problem]:
    known = {variable.name: variable for variable in page.variables}
    for question in questions(page):
        for match in _VARIABLE.finditer(question.query):
            name = match[1] or match[2]
            # In rules' and regular expressions `$1` is a group.
            if name.isdigit() or name in BUILT_IN:
                continue
            if name not in known:
                text = f"the panel {quoted(question.panel)} uses the variable ${name}, which the page does not have."
                yield Problem(str(page.file), (), f"{text}{did_you_mean(name, known)} Add it to `variables`, or correct the query.")
            elif known[name].several and not re.search(r"=~\"[^\"]*$", question.query[: match.start()]):
                text = f"the panel {quoted(question.panel)} compares ${name} with =, but several of its values may be chosen."
                yield Problem(str(page.file), (), f"{text} Compare with =~.")


def _check_queries(dashboards: Sequence[Dashboard], promtool: Callable[[Sequence[Path]], str], scratch: Path) -> list[Problem]:
    """What Prometheus' own parser says, by a file of recording rules with one rule for each query."""
    asked = [
        (page, question) for page in dashboards for question in questions(page, {one.name: "x" for one in page.variables}) if question.source == "prometheus"
    ]
    if not asked:
        return []
    rules = [{"record": f"ashlar:query_{number}", "expr": question.query} for number, (_, question) in enumerate(asked)]
    file = scratch / "queries.yml"
    # JSON is YAML, and needs no care for what stands in queries.
    file.write_text(json.dumps({"groups": [{"name": "queries", "rules": rules}]}), encoding="utf-8")
    said = promtool([file])
    problems = []
    for number, text in re.findall(r"(?:rule \d+, )?\"?ashlar:query_(\d+)\"?:? (.+)", said):
        page, question = asked[int(number)]
        reason = text.partition("could not parse expression:")[2].strip() or text.strip()
        words = f"Prometheus does not take a query of the panel {quoted(question.panel)}: {reason.rstrip('.')}. The query is: {question.query}"
        problem = Problem(str(page.file), (), words)
        if problem not in problems:
            problems.append(problem)
    if said.strip() and not problems:
        problems.append(Problem("", (), f"promtool does not take the queries of dashboards: {said.strip().splitlines()[-1]}"))
    return problems


# ----------------------------------------------------------------------------------------------------------------------------- rendering


def _source(uid: str) -> dict[str, str]:
    return {"uid": uid, "type": SOURCES[uid]} if uid in SOURCES else {"uid": uid}


def _choice(variable: Variable) -> dict[str, Any]:
    query = f"label_values({variable.series}, {variable.label})"
    made: dict[str, Any] = {
        "name": variable.name,
        "label": variable.title,
        "type": "query",
        "datasource": _source("prometheus"),
        "definition": query,
        "query": {"query": query, "refId": "values"},
        "refresh": 2,
        "sort": 1,
        "multi": variable.several,
        "includeAll": variable.several,
    }
    return made | ({"allValue": ".+", "current": {"text": ["All"], "value": ["$__all"]}} if variable.several else {})


def _layout(page: Dashboard) -> Iterator[dict[str, Any]]:
    """Panels with numbers and places: rows from the top, panels from the left until a line is full."""
    number, y = 0, 0
    for row in page.rows:
        if row.title:
            number += 1
            yield {"id": number, "type": "row", "title": row.title, "collapsed": False, "panels": [], "gridPos": {"x": 0, "y": y, "w": COLUMNS, "h": 1}}
            y += 1
        x, tallest = 0, 0
        for panel in row.panels:
            if x + panel.width > COLUMNS:
                x, y, tallest = 0, y + tallest, 0
            number += 1
            yield {**_render_panel(panel), "id": number, "gridPos": {"x": x, "y": y, "w": panel.width, "h": panel.height}}
            x, tallest = x + panel.width, max(tallest, panel.height)
        y += tallest


def _render_panel(panel: Panel) -> dict[str, Any]:
    instant = panel.kind in ("number", "bars", "table")
    made: dict[str, Any] = {
        "type": KINDS[panel.kind],
        "title": panel.title,
        "description": panel.description,
        "datasource": _source(panel.source),
        "targets": [_target(panel, legend, query, chr(ord("A") + at), instant) for at, (legend, query) in enumerate(panel.queries.items())],
        "fieldConfig": {"defaults": _field(panel), "overrides": []},
        "options": _options(panel),
    }
    if panel.kind == "table":
        made["transformations"] = _columns(panel)
    return made


def _target(panel: Panel, legend: str, query: str, letter: str, instant: bool) -> dict[str, Any]:
    made: dict[str, Any] = {"refId": letter, "datasource": _source(panel.source), "expr": query}
    if panel.source != "prometheus":
        return made | {"queryType": "instant" if panel.kind == "logs" else "stats"}
    shape = "table" if panel.kind == "table" else "time_series"
    return made | {"legendFormat": legend, "instant": instant, "range": not instant, "format": shape, "editorMode": "code"}


def _field(panel: Panel) -> dict[str, Any]:
    made: dict[str, Any] = {"unit": panel.unit, "thresholds": {"mode": "absolute", "steps": _steps(panel)}, "mappings": _mappings(panel)}
    if panel.least is not None:
        made["min"] = panel.least
    if panel.most is not None:
        made["max"] = panel.most
    if panel.kind == "lines":
        limits = panel.warning is not None or panel.critical is not None
        made["color"] = {"mode": "palette-classic"}
        made["custom"] = {
            "drawStyle": "line",
            "lineWidth": 1,
            "fillOpacity": 30 if panel.stacked else 8,
            "showPoints": "never",
            "spanNulls": False,
            "stacking": {"mode": "normal" if panel.stacked else "none", "group": "A"},
            "thresholdsStyle": {"mode": "dashed" if limits else "off"},
        }
    else:
        made["color"] = {"mode": "thresholds"}
    return made


def _steps(panel: Panel) -> list[dict[str, Any]]:
    """Colours from the least value up. Where less is worse, red comes first."""
    warning, critical = panel.warning, panel.critical
    if warning is not None and critical is not None and critical < warning:
        return [{"value": None, "color": "red"}, {"value": critical, "color": "orange"}, {"value": warning, "color": "green"}]
    steps: list[dict[str, Any]] = [{"value": None, "color": "green"}]
    if warning is not None:
        steps.append({"value": warning, "color": "orange"})
    if critical is not None:
        steps.append({"value": critical, "color": "red"})
    return steps


def _mappings(panel: Panel) -> list[dict[str, Any]]:
    if not panel.texts:
        return []
    return [{"type": "value", "options": {value: {"text": text, "index": at} for at, (value, text) in enumerate(panel.texts.items())}}]


def _options(panel: Panel) -> dict[str, Any]:
    reduce = {"calcs": ["lastNotNull"], "fields": "", "values": False}
    match panel.kind:
        case "lines":
            return {"legend": {"displayMode": "list", "placement": "bottom", "showLegend": True}, "tooltip": {"mode": "multi", "sort": "desc"}}
        case "number":
            return {"reduceOptions": reduce, "colorMode": "value", "graphMode": "none", "textMode": "auto", "justifyMode": "auto", "orientation": "auto"}
        case "bars":
            return {"reduceOptions": reduce, "displayMode": "basic", "orientation": "horizontal", "showUnfilled": True}
        case "states":
            return {"mergeValues": True, "showValue": "never", "rowHeight": 0.85, "legend": {"showLegend": True, "displayMode": "list", "placement": "bottom"}}
        case "logs":
            return {"showTime": True, "wrapLogMessage": True, "sortOrder": "Descending", "enableLogDetails": True, "dedupStrategy": "none"}
        case _:
            return {"showHeader": True, "cellHeight": "sm"}


def _columns(panel: Panel) -> list[dict[str, Any]]:
    """Only the columns that were asked for, in their order and with their headlines."""
    several = len(panel.queries) > 1
    first = "Value #A" if several else "Value"
    names = {first if name == "value" else name: title for name, title in panel.columns.items()}
    made: list[dict[str, Any]] = [{"id": "merge", "options": {}}] if several else []
    made.append({"id": "filterFieldsByName", "options": {"include": {"names": list(names)}}})
    made.append({"id": "organize", "options": {"indexByName": {name: at for at, name in enumerate(names)}, "renameByName": names}})
    return made
