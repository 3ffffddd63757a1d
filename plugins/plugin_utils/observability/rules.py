# SPDX-License-Identifier: Apache-2.0
"""Alert rules of components and of the site: found, checked, and made one file.

A rule file is Prometheus' own (https://prometheus.io/docs/prometheus/latest/configuration/recording_rules/): ``{groups: [{name, rules: [...]}]}``.
An alert has the label ``severity`` and the annotations ``summary`` and ``remedy``, and a name that no other alert of the site has.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml
from ansible_collections.ashlar.stack.plugins.plugin_utils.site.models import Path_, Problem, SiteError
from ansible_collections.ashlar.stack.plugins.plugin_utils.site.reading import did_you_mean, line_of, listed, quoted, read_yaml

SEVERITIES = ("critical", "warning", "info", "none")
ANNOTATIONS = {"summary": "what is wrong, with the node or the component", "remedy": "what an operator does about it"}
Promtool = Callable[[Sequence[Path]], str]
"""Gives what ``promtool check rules`` says about files; empty when they are right."""

_SAID = re.compile(r"(?P<file>/.+?\.ya?ml): (?:(?P<line>\d+):\d+: )?(?P<text>.+)")
_IN_RULE = re.compile(r'group "(?P<group>[^"]*)", rule (?P<number>\d+), (?:"(?P<name>[^"]*)": )?(?P<text>.+)')


@dataclass(frozen=True)
class RuleFile:
    """A rule file as it was read. ``component`` is empty for the site's own."""

    path: Path
    component: str
    groups: Sequence[Mapping[str, Any]]

    def alerts(self) -> Iterator[tuple[Path_, Mapping[str, Any]]]:
        """Every alert with its place in the file."""
        for number, group in enumerate(self.groups):
            for index, rule in enumerate(group["rules"]):
                if "alert" in rule:
                    yield ("groups", number, "rules", index), rule


def find(root: Path, components: Iterable[str], site: Path) -> list[tuple[Path, str]]:
    """The rule files of components below the collection ``root`` and of the site's folder, each with its component."""
    found = [(file, name) for name in components for file in sorted((root / "roles" / name / "alerts").glob("*.yml"))]
    return found + [(file, "") for file in sorted((site / "alerts").glob("*.yml"))]


def read(places: Iterable[tuple[Path, str]]) -> tuple[list[RuleFile], list[Problem]]:
    """Rule files that have the shape of one, and what is wrong with the others."""
    files: list[RuleFile] = []
    problems: list[Problem] = []
    for path, component in places:
        try:
            content = read_yaml(path)
        except SiteError as error:
            problems += error.problems
            continue
        wrong = _shape(content)
        if wrong:
            problems.append(Problem(str(path), wrong[0], wrong[1]))
        else:
            files.append(RuleFile(path, component, content["groups"]))
    return files, problems


def check(files: Sequence[RuleFile], disabled: Sequence[str], promtool: Promtool | None = None) -> list[Problem]:
    """Everything that is wrong with rules: names, labels, annotations, and with ``promtool`` expressions and templates."""
    problems: list[Problem] = []
    first: dict[str, tuple[RuleFile, Path_]] = {}
    theirs: set[str] = set()
    for file in files:
        for place, rule in file.alerts():
            name = str(rule["alert"])
            if file.component:
                theirs.add(name)
            problems += _complete(file, place, name, rule)
            if file.component and name in disabled:
                continue
            if name in first:
                problems.append(_twice(file, place, name, *first[name]))
            else:
                first[name] = (file, place)
    for name in disabled:
        if name not in theirs:
            text = f"names {quoted(name)}, which is no alert of this site's components.{did_you_mean(name, theirs)} Correct or remove it."
            problems.append(Problem("", ("prometheus_alerts_disabled",), text))
    problems += _groups(files)
    if promtool and files:
        problems += parse(promtool([file.path for file in files]), files)
    return problems


def merge(files: Sequence[RuleFile], disabled: Sequence[str]) -> str:
    """One rule file of all, without what is disabled. Groups of one name become one."""
    groups: dict[str, dict[str, Any]] = {}
    for file in files:
        for group in file.groups:
            rules = [rule for rule in group["rules"] if not (file.component and rule.get("alert") in disabled)]
            if rules:
                made = groups.setdefault(group["name"], {**group, "rules": []})
                made["rules"] = made["rules"] + rules
    text = yaml.dump({"groups": list(groups.values())}, Dumper=_Dumper, sort_keys=False, width=160, allow_unicode=True)
    return str(text)


def check_remote_write(stores: Any) -> list[Problem]:
    """What is wrong with the addresses of ``prometheus_remote_write``; what else it has is judged by promtool."""
    problems = []
    for number, store in enumerate(stores if isinstance(stores, list) else []):
        place: Path_ = ("prometheus_remote_write", number, "url")
        url = store.get("url") if isinstance(store, Mapping) else None
        allowed = "Allowed: http:// or https:// with a host, such as https://store.example.com/api/v1/write."
        if not url:
            problems.append(Problem("", place, f"is missing. {allowed}"))
        elif not is_http(url):
            problems.append(Problem("", place, f"is {quoted(without_password(str(url)))}. {allowed}"))
    return problems


def is_http(url: Any) -> bool:
    """Whether it is an address that a program can send to."""
    try:
        parts = urlsplit(str(url))
        return parts.scheme in ("http", "https") and bool(parts.hostname) and not re.search(r"\s", str(url)) and (parts.port is None or parts.port > 0)
    except ValueError:
        return False


def without_password(url: str) -> str:
    """An address as it may be shown."""
    return re.sub(r"//[^/@]*@", "//(secret)@", url)


def parse(said: str, files: Sequence[RuleFile]) -> list[Problem]:
    """What ``promtool check rules`` said, as problems at their places; it says some things twice."""
    known = {str(file.path): file for file in files}
    problems: list[Problem] = []
    # What YAML does not fit is told on a line of its own.
    for line in re.sub(r"yaml: unmarshal errors:\s*\n\s+", "", said).splitlines():
        match = _SAID.match(line.strip())
        if not match or match["file"] not in known:
            continue
        text, place, number = match["text"], "", match["line"]
        rule = _IN_RULE.match(text)
        if rule:
            place = f"the rule {rule['name']}: " if rule["name"] else f"rule {rule['number']} of the group {rule['group']}: "
            text = rule["text"]
            if number in (None, "0"):
                number = _line(known[match["file"]], rule["group"], int(rule["number"]) - 1)
        told = re.match(r"line (\d+): (.+)", text)
        if told:
            number, text = told[1], told[2]
        where = f"{match['file']}:{number}" if number else match["file"]
        problem = Problem(where, (), f"{place}{text.rstrip('.')}. Correct it; `promtool check rules` says the same.")
        if problem not in problems:
            problems.append(problem)
    if said.strip() and not problems:
        problems.append(Problem("", (), f"promtool does not take the rules: {' / '.join(said.strip().splitlines()[-3:])}"))
    return problems


def _line(file: RuleFile, group: str, index: int) -> str:
    number = next((number for number, one in enumerate(file.groups) if one["name"] == group), 0)
    return str(line_of(str(file.path), ("groups", number, "rules", index)) or "")


class _Dumper(yaml.SafeDumper):
    """Long expressions as blocks, and every mapping by its lines, so that a diff shows what changed."""


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None)


_Dumper.add_representer(str, _text)
_Dumper.ignore_aliases = lambda self, data: True  # type: ignore[method-assign]


def _shape(content: Any) -> tuple[Path_, str] | None:
    needs = "A rule file has `groups`, a list, each with `name` and `rules`, a list of alerts and recording rules."
    if not isinstance(content, Mapping) or not isinstance(content.get("groups"), list):
        return (), f"is no file of rules. {needs}"
    for number, group in enumerate(content["groups"]):
        if not isinstance(group, Mapping) or not isinstance(group.get("name"), str) or not isinstance(group.get("rules"), list):
            return ("groups", number), f"is no group of rules. {needs}"
        for index, rule in enumerate(group["rules"]):
            if not isinstance(rule, Mapping) or not ("alert" in rule) ^ ("record" in rule):
                return ("groups", number, "rules", index), "is no rule. A rule has `expr`, and either `alert` or `record`, its name."
    return None


def _complete(file: RuleFile, place: Path_, name: str, rule: Mapping[str, Any]) -> Iterator[Problem]:
    labels, annotations = rule.get("labels") or {}, rule.get("annotations") or {}
    allowed = f"Allowed: {listed(SEVERITIES[:3])}; none for a watchdog."
    if isinstance(labels, Mapping) and labels.get("severity") not in SEVERITIES:
        has = f"has the severity {quoted(labels['severity'])}" if "severity" in labels else "has no label severity"
        yield Problem(str(file.path), place, f"the alert {name} {has}. {allowed}")
    for annotation, what in ANNOTATIONS.items():
        if isinstance(annotations, Mapping) and not str(annotations.get(annotation) or "").strip():
            yield Problem(str(file.path), place, f"the alert {name} has no annotation {annotation}. Say there {what}.")


def _twice(file: RuleFile, place: Path_, name: str, other: RuleFile, first: Path_) -> Problem:
    where = f"{other.path.name}:{line_of(str(other.path), first)}"
    whose = f"of the component {other.component}" if other.component else "of the site"
    advice = f"Rename it, or leave the other out by prometheus_alerts_disabled: [{name}]." if other.component and not file.component else "Rename one of them."
    return Problem(str(file.path), place, f"the alert {name} is there already, in {where} {whose}. {advice}")


def _groups(files: Sequence[RuleFile]) -> Iterator[Problem]:
    """Groups of one name in several files become one, so they have to be evaluated alike."""
    first: dict[str, tuple[RuleFile, dict[str, Any]]] = {}
    for file in files:
        for number, group in enumerate(file.groups):
            settings = {key: value for key, value in group.items() if key != "rules"}
            other = first.setdefault(group["name"], (file, settings))
            if other[1] != settings:
                text = f"the group {group['name']} has other settings in {other[0].path.name}. Groups of one name are evaluated together: rename this one."
                yield Problem(str(file.path), ("groups", number), text)
