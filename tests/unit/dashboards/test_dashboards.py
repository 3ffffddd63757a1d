# SPDX-License-Identifier: Apache-2.0
"""Dashboards: ours are right, wrong ones are told in one sentence each, and what Grafana reads follows from what is asked."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.ashlar.stack.plugins.plugin_utils.observability import dashboards
from ansible_collections.ashlar.stack.plugins.plugin_utils.observability.dashboards import Dashboard
from ansible_collections.ashlar.stack.plugins.plugin_utils.site.models import Problem

ROOT = Path(__file__).parents[3]
PAGE: dict[str, Any] = {
    "title": "Mine",
    "description": "What I want to see.",
    "variables": [{"name": "node", "series": "up"}, {"name": "component", "series": "up", "several": True}],
    "rows": [{"title": "First", "panels": [{"title": "Up", "queries": {"{{node}}": 'up{node="$node", component=~"$component"}'}}]}],
}

Checker = Callable[[Sequence[Path]], str]


@pytest.fixture(scope="session")
def checker(promtool: str) -> Checker:
    def check(files: Sequence[Path]) -> str:
        done = subprocess.run([promtool, "check", "rules", "--lint=none", *map(str, files)], capture_output=True, text=True, timeout=600, check=False)
        return done.stdout + done.stderr if done.returncode else ""

    return check


def site(folder: Path, content: Any, name: str = "mine.yml") -> Path:
    """A site's folder with one page of its own."""
    (folder / "dashboards").mkdir(parents=True, exist_ok=True)
    text = json.dumps(content) if not isinstance(content, str) else content
    (folder / "dashboards" / name).write_text(text)
    return folder


def judged(folder: Path, checker: Checker | None = None, sources: set[str] | None = None) -> list[str]:
    """What is wrong with the pages of a site with all components, as sentences."""
    pages, problems = dashboards.read(ROOT, dashboards.find(ROOT, folder), None)
    (folder / "scratch").mkdir(exist_ok=True)
    problems += dashboards.check(pages, sources or set(dashboards.SOURCES), checker, folder / "scratch")
    return [f"{'/'.join(map(str, problem.path))}: {problem.text}" if problem.path else problem.text for problem in problems]


def changed(**more: Any) -> dict[str, Any]:
    """The page with a panel that differs."""
    page: dict[str, Any] = json.loads(json.dumps(PAGE))
    page["rows"][0]["panels"][0] |= more
    return page


def read(folder: Path) -> Dashboard:
    (page,) = [page for page in dashboards.read(ROOT, dashboards.find(ROOT, folder), None)[0] if not page.own]
    return page


# -------------------------------------------------------------------------------------------------------------------------------- ours


def test_our_pages_are_right(tmp_path: Path, checker: Checker) -> None:
    assert judged(tmp_path, checker) == []


def test_the_pages_that_are_promised_are_there() -> None:
    pages = [page.name for page in dashboards.read(ROOT, dashboards.find(ROOT, None), None)[0]]
    names = set(pages)
    assert len(pages) == len(names), "the name of a page is its address in Grafana, whichever folder it is in"
    assert names >= {"site", "node", "kubernetes_control", "workloads", "etcd", "consul", "haproxy", "containers", "logs"}


def test_a_site_has_no_pages_and_panels_about_what_it_does_not_have() -> None:
    pages, problems = dashboards.read(ROOT, dashboards.find(ROOT, None), ["node_exporter", "prometheus"])
    assert problems == []
    assert {page.name for page in pages} == {"site", "node"}
    titles = {panel.title for page in pages if page.name == "site" for row in page.rows for panel in row.panels}
    assert "Nodes that answer" in titles and "Members of etcd" not in titles


def test_every_component_that_a_page_needs_exists() -> None:
    known = {path.parts[-3] for path in ROOT.glob("roles/*/meta/component.yml")}
    files = list(ROOT.glob("roles/*/dashboards/*.yml"))
    assert files
    for file in files:
        page = yaml.safe_load(file.read_text())
        named = [page, *page["rows"], *(panel for row in page["rows"] for panel in row["panels"])]
        assert {name for part in named for name in part.get("needs", [])} <= known, file.name


# -------------------------------------------------------------------------------------------------------------------------------- wrong


def test_a_right_page_of_a_site_is_taken(tmp_path: Path, checker: Checker) -> None:
    assert judged(site(tmp_path, PAGE), checker) == []


@pytest.mark.parametrize(
    ("page", "said"),
    [
        (
            changed(source="promteheus"),
            'the panel "Up" asks the data source "promteheus", which Grafana will not have. Did you mean "prometheus"? '
            "Allowed: alertmanager, logs and prometheus; grafana_data_sources adds others.",
        ),
        (
            changed(queries={"": 'up{node="$nod"}'}),
            'the panel "Up" uses the variable $nod, which the page does not have. Did you mean "node"? Add it to `variables`, or correct the query.',
        ),
        (
            changed(queries={"": 'up{component="$component"}'}),
            'the panel "Up" compares $component with =, but several of its values may be chosen. Compare with =~.',
        ),
        (changed(kind="pie"), 'rows/0/panels/0/kind: is "pie". Allowed: lines, number, bars, table, states and logs.'),
        (changed(colour="red"), "rows/0/panels/0/colour: is an unknown key."),
        ({**PAGE, "title": "Site"}, 'title: is "Site", as in site.yml. Give each page a title of its own.'),
        (
            {**PAGE, "rows": [{"panels": [PAGE["rows"][0]["panels"][0]] * 2}]},
            'two panels have the title "Up". Give each a title of its own.',
        ),
        ({"title": "Mine"}, "description: is missing."),
        ("title: [", "is not valid YAML"),
    ],
)
def test_a_wrong_page_is_one_sentence(page: Any, said: str, tmp_path: Path) -> None:
    found = judged(site(tmp_path, page))
    assert any(said in one for one in found), found


def test_a_query_that_prometheus_does_not_take_is_one_sentence(tmp_path: Path, checker: Checker) -> None:
    found = judged(site(tmp_path, changed(queries={"": "sum(rate(up[5m])"})), checker)
    assert len(found) == 1, found
    assert found[0].startswith('Prometheus does not take a query of the panel "Up": ') and found[0].endswith("The query is: sum(rate(up[5m])")


def test_an_exported_page_is_taken_as_it_is(tmp_path: Path) -> None:
    panel = {"title": "Up", "gridPos": {}, "datasource": {"uid": "prometheus", "type": "prometheus"}, "targets": [{"expr": "up"}]}
    chosen = {"title": "Chosen", "gridPos": {}, "datasource": {"uid": "${source}"}}
    exported = {"title": "Theirs", "uid": "abc", "id": 7, "panels": [panel, chosen], "templating": {"list": [{"name": "source", "type": "datasource"}]}}
    folder = site(tmp_path, exported, "theirs.json")
    assert judged(folder) == []
    assert dashboards.render(read(folder)) == {**exported, "id": None}


@pytest.mark.parametrize(
    ("exported", "said"),
    [
        (
            {"title": "Theirs", "panels": [{"title": "Up", "gridPos": {}, "targets": [{"datasource": {"uid": "P1809F7CD0C75ACF3"}}]}]},
            'the panel "Up" asks the data source "P1809F7CD0C75ACF3", which Grafana will not have.',
        ),
        ({"dashboard": {}}, "is no dashboard: `title` or `panels` is missing. Export it in Grafana as JSON, not for sharing."),
        ({"title": "Theirs", "uid": "a b", "panels": []}, 'uid: is "a b". Allowed: at most 40 letters'),
    ],
)
def test_a_wrong_exported_page_is_one_sentence(exported: Any, said: str, tmp_path: Path) -> None:
    (found,) = judged(site(tmp_path, exported, "theirs.json"))
    assert said in found


def test_data_sources_follow_the_components() -> None:
    assert dashboards.built_in_sources(["prometheus", "etcd"]) == {"prometheus"}
    assert dashboards.built_in_sources(["prometheus", "alertmanager", "victorialogs"]) == {"prometheus", "alertmanager", "logs"}


def test_a_sites_own_data_sources_have_a_name_of_their_own() -> None:
    mine = {"name": "Sales", "uid": "sales", "type": "mysql"}
    assert dashboards.read_sources([mine]) == ({"sales"}, [])
    said = [problem.text for problem in dashboards.read_sources([mine, mine, {**mine, "uid": "logs"}, {"name": "x"}])[1]]
    assert said == [
        'is "sales", which another data source has. Choose another.',
        'is "logs", which another data source has. Choose another.',
        "has no uid and type. Add it; dashboards name a data source by its uid.",
    ]


# ------------------------------------------------------------------------------------------------------------------------------ rendered


@pytest.fixture(scope="module")
def pages() -> list[dict[str, Any]]:
    return [dashboards.render(page) for page in dashboards.read(ROOT, dashboards.find(ROOT, None), None)[0]]


def test_panels_lie_side_by_side_and_never_upon_each_other(pages: list[dict[str, Any]]) -> None:
    for page in pages:
        taken: set[tuple[int, int]] = set()
        for panel in page["panels"]:
            place = panel["gridPos"]
            assert place["x"] + place["w"] <= 24
            cells = {(x, y) for x in range(place["x"], place["x"] + place["w"]) for y in range(place["y"], place["y"] + place["h"])}
            assert not cells & taken, f"{page['title']}: {panel['title']} lies upon another panel"
            taken |= cells


def test_pages_and_panels_can_be_told_apart(pages: list[dict[str, Any]]) -> None:
    assert len({page["uid"] for page in pages}) == len(pages)
    for page in pages:
        assert len(page["uid"]) <= 40
        numbers = [panel["id"] for panel in page["panels"]]
        assert len(set(numbers)) == len(numbers)
        letters = [[target["refId"] for target in panel.get("targets", [])] for panel in page["panels"]]
        assert all(len(set(some)) == len(some) for some in letters)


def test_what_is_asked_is_what_is_drawn(tmp_path: Path) -> None:
    page = dashboards.render(read(site(tmp_path, changed(unit="bytes", warning=5, critical=9, description="Up is good."))))
    row, panel = page["panels"]
    assert (row["type"], row["title"]) == ("row", "First")
    assert (panel["type"], panel["title"], panel["description"], panel["datasource"]["uid"]) == ("timeseries", "Up", "Up is good.", "prometheus")
    assert [(target["expr"], target["legendFormat"]) for target in panel["targets"]] == [('up{node="$node", component=~"$component"}', "{{node}}")]
    assert panel["fieldConfig"]["defaults"]["unit"] == "bytes"
    assert [step["color"] for step in panel["fieldConfig"]["defaults"]["thresholds"]["steps"]] == ["green", "orange", "red"]
    node, component = page["templating"]["list"]
    assert (node["definition"], node["multi"], component["includeAll"]) == ("label_values(up, node)", False, True)


def test_where_less_is_worse_red_is_at_the_bottom(tmp_path: Path) -> None:
    panel = dashboards.render(read(site(tmp_path, changed(warning=9, critical=5))))["panels"][1]
    steps = panel["fieldConfig"]["defaults"]["thresholds"]["steps"]
    assert [(step["value"], step["color"]) for step in steps] == [(None, "red"), (5, "orange"), (9, "green")]


def test_a_table_has_the_columns_that_were_asked_for(tmp_path: Path) -> None:
    page = changed(kind="table", queries={"a": "up", "b": "up * 2"}, columns={"node": "Node", "value": "First", "Value #B": "Second"})
    panel = dashboards.render(read(site(tmp_path, page)))["panels"][1]
    merge, kept, named = panel["transformations"]
    assert merge["id"] == "merge"
    assert kept["options"]["include"]["names"] == ["node", "Value #A", "Value #B"]
    assert named["options"]["renameByName"] == {"node": "Node", "Value #A": "First", "Value #B": "Second"}
    assert all(target["format"] == "table" and target["instant"] for target in panel["targets"])


def test_the_same_source_gives_the_same_bytes() -> None:
    first, second = ([dashboards.dump(page) for page in dashboards.read(ROOT, dashboards.find(ROOT, None), None)[0]] for _ in range(2))
    assert first == second


def test_variables_are_filled_in() -> None:
    assert dashboards.fill('rate(x{a="$node", b=~"${node:regex}"}[$__rate_interval])', {"node": "n1"}) == 'rate(x{a="n1", b=~"n1"}[1m])'


def test_problems_name_the_file(tmp_path: Path) -> None:
    folder = site(tmp_path, changed(source="none"))
    pages, _ = dashboards.read(ROOT, dashboards.find(ROOT, folder), None)
    problems: list[Problem] = dashboards.check(pages, set(dashboards.SOURCES))
    assert [problem.file for problem in problems] == [str(folder / "dashboards/mine.yml")]
    shutil.rmtree(folder / "dashboards")
    assert dashboards.find(ROOT, folder) == dashboards.find(ROOT, None)
