# SPDX-License-Identifier: Apache-2.0
"""Our own programs: what they are made of is their version, and their units run that version."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import jinja2
import pytest
import yaml
from ansible_collections.ashlar.stack.plugins.plugin_utils import programs
from ansible_collections.ashlar.stack.plugins.plugin_utils.artifacts.catalogue import ArtifactCatalogue
from ansible_collections.ashlar.stack.plugins.plugin_utils.site.catalogue import load

ROOT = Path(__file__).resolve().parents[3]
PROGRAMS = sorted(path.name for path in (ROOT / "programs").iterdir() if path.is_dir() and not path.name.startswith(("_", ".")))
RUN = re.compile(r"^.*/opt/ashlar/.*$", re.MULTILINE)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The collection's programs, artifacts, roles and releases, to be changed."""
    for name in ("programs", "artifacts", "roles", "releases", "schemas", "stacks"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def lines_of(checkout: Path, name: str, version: str) -> str:
    """The lines of all units that run a program, as they reach hosts."""
    found = []
    for unit in sorted((checkout / "roles").glob("*/templates/etc/systemd/system/*.service.j2")):
        for line in RUN.findall(unit.read_text()):
            if f"artifact_versions.{name} " in line:
                found.append(jinja2.Environment().from_string(line).render(artifact_versions={name: version}))
    return "\n".join(found)


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_changed_source_is_a_changed_unit(checkout: Path, name: str) -> None:
    """The unit's file names the version, and a unit whose file changed is restarted."""
    before = load(checkout).program(name)
    assert before is not None
    units = lines_of(checkout, name, before)
    assert f"/opt/ashlar/{name}/{before}/" in units, "no unit runs it"
    file = checkout / "programs" / name / programs.files(checkout / "programs" / name)[0].path
    file.write_bytes(file.read_bytes() + b"\n")
    after = load(checkout).program(name)
    assert after is not None and after != before
    assert lines_of(checkout, name, after) != units
    assert ArtifactCatalogue([checkout / "artifacts"]).get(name).versions == (after,), "the store is filled with what the plan asks for"


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_has_a_page_tests_and_an_artifact_and_no_release_names_it(name: str) -> None:
    folder = ROOT / "programs" / name
    page = (folder / "README.md").read_text()
    assert page.startswith(f"# {name}\n") and {"## Why not something that exists", "## Interfaces"} <= set(page.splitlines())
    assert [*folder.glob("*_test.go"), *folder.glob("tests/test_*.py")]
    assert ArtifactCatalogue([ROOT / "artifacts"]).get(name).program == folder
    for release in (ROOT / "releases").glob("*.yml"):
        assert name not in yaml.safe_load(release.read_text())["versions"]


def test_every_program_of_the_catalogue_has_its_folder() -> None:
    catalogue = ArtifactCatalogue([ROOT / "artifacts"])
    assert [name for name in catalogue.names() if catalogue.get(name).program] == PROGRAMS


def written(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def test_what_does_not_run_changes_no_version(tmp_path: Path) -> None:
    program = written(tmp_path / "tool", main="print()", lib__part="x = 1")
    before = programs.version(program)
    assert re.fullmatch(r"own-[0-9a-f]{12}", before)
    for name in ("README.md", "tests/test_main.py", "main_test.go", "lib/__pycache__/part.pyc", ".main.swp", "main~", "lib/#part#"):
        (program / name).parent.mkdir(exist_ok=True)
        (program / name).write_text("anything")
    assert programs.version(program) == before
    assert [file.path for file in programs.files(program)] == ["lib/part", "main"]


def test_what_runs_is_the_version(tmp_path: Path) -> None:
    program = written(tmp_path / "tool", main="print()", lib__part="x = 1")
    seen = {programs.version(program)}
    (program / "main").chmod(0o755)
    seen.add(programs.version(program))
    (program / "lib/part").write_text("x = 2")
    seen.add(programs.version(program))
    (program / "lib/part").rename(program / "lib/other")
    seen.add(programs.version(program))
    written(program, lib__more="")
    seen.add(programs.version(program))
    assert len(seen) == 5


def test_the_version_is_the_same_wherever_the_checkout_lies_and_whatever_its_umask(tmp_path: Path) -> None:
    one, two = written(tmp_path / "a/tool", main="print()"), written(tmp_path / "b/c/tool", main="print()")
    (two / "main").chmod(0o600)
    assert programs.version(one) == programs.version(two)
