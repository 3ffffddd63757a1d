# SPDX-License-Identifier: Apache-2.0
"""Every wrong site of the tables here is stopped before a host is touched, by exactly the message that stands beside it.

A table is a YAML file with a list of cases. A case is a right site but for:

``site``         keys of the site file; null leaves one out
``nodes``        host -> variables; null leaves a host or a variable out
``site_text``    the whole site file, where its form is what is wrong; ``nodes_text`` the whole node file
``files``        what lies beside, path -> text
``modes``        path -> octal mode
``collection``   files of the collection, path -> text; null removes one
``error``        the problems, a line each, without what every message starts with
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.errors import AnsibleParserError
from sites import inventory_of, write_site

CASES: list[dict[str, Any]] = [
    {**case, "table": file.stem} for file in sorted(Path(__file__).parent.glob("*.yml")) for case in yaml.safe_load(file.read_text())
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['table']}: {case['name']}")
def test_wrong_site_is_stopped_by_one_clear_error(case: dict[str, Any], collection: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = changed_collection(collection, case.get("collection", {}), tmp_path)
    parts = ("site", "nodes", "site_text", "nodes_text", "files", "modes")
    directory = write_site(tmp_path / "site", **{part: case[part] for part in parts if part in case})
    with pytest.raises(AnsibleParserError) as caught:
        inventory_of(directory, root, monkeypatch)
    said = str(caught.value).replace(f"{root}/", "<collection>/").replace(f"{directory}/", "<site>/")
    expected = case["error"].strip().splitlines()
    if len(expected) == 1:
        assert said == f"The site cannot be planned; no host was touched.\n  {expected[0]}"
    else:
        lines = "".join(f"\n  {number}. {line}" for number, line in enumerate(expected, 1))
        assert said == f"The site cannot be planned, for {len(expected)} reasons; no host was touched.{lines}"


def test_there_are_enough_of_them() -> None:
    assert len(CASES) >= 30
    assert len({case["name"] for case in CASES}) == len(CASES)


def changed_collection(collection: Path, changes: dict[str, str | None], tmp_path: Path) -> Path:
    """The collection, or a copy with some files changed."""
    if not changes:
        return collection
    root = Path(shutil.copytree(collection, tmp_path / "collection", symlinks=True))
    for name, text in changes.items():
        if text is None:
            (root / name).unlink()
        else:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(text)
    return root
