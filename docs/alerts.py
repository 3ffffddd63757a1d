# SPDX-License-Identifier: Apache-2.0
"""Writes the table of alerts in docs/observability.md from the rules of the components, so that it cannot tell anything else than they do.

usage: docs/alerts.py [--check]
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs/observability.md"
BEGIN, END = "<!-- alerts: written by docs/alerts.py from roles/*/alerts -->", "<!-- end of alerts -->"
TEMPLATE = re.compile(r"\{\{\s*(.*?)\s*\}\}")
ORDER = {"critical": 0, "warning": 1, "info": 2, "none": 3}


def plain(text: str) -> str:
    """A text of an alert as one line of a table: labels by their names, values as `…`."""

    def said(match: re.Match[str]) -> str:
        names = re.findall(r"\$labels\.(\w+)", match[1])
        return f"‹{names[-1].removeprefix('exported_')}›" if names and not match[1].startswith(("if", "end")) else "…" if "$value" in match[1] else ""

    return " ".join(TEMPLATE.sub(said, text).split()).replace("|", "\\|")


def table() -> str:
    """The alerts by component, the worst first."""
    lines = []
    for file in sorted(ROOT.glob("roles/*/alerts/*.yml")):
        rules: list[dict[str, Any]] = [rule for group in yaml.safe_load(file.read_text())["groups"] for rule in group["rules"] if "alert" in rule]
        lines += ["", f"### {file.parts[-3]}", "", "| alert | | when | what to do |", "|---|---|---|---|"]
        for rule in sorted(rules, key=lambda rule: (ORDER[rule["labels"]["severity"]], rule["alert"])):
            texts = rule["annotations"]
            lines.append(f"| `{rule['alert']}` | {rule['labels']['severity']} | {plain(texts['summary'])} | {plain(texts['remedy'])} |")
    return "\n".join(lines) + "\n"


def written(text: str) -> str:
    """The page with the table that the rules give now."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"{PAGE}: the lines {BEGIN} and {END} are missing; put them back where the table belongs.")
    return f"{before}{begin}\n{table()}\n{end}{after}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; end with 1 when the page differs")
    check = parser.parse_args().check
    text = PAGE.read_text(encoding="utf-8")
    new = written(text)
    if new == text:
        return 0
    if check:
        print("docs/observability.md does not tell the alerts as the rules have them; run docs/alerts.py", file=sys.stderr)
        return 1
    PAGE.write_text(new, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
