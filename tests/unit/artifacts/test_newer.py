# SPDX-License-Identifier: Apache-2.0
"""Which artifacts have newer versions: what is asked of the module proxy, and what is made of its answers. The go here is a shell script."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.ashlar.stack.plugins.plugin_utils.artifacts.catalogue import Artifact, Go

FILE = Path(__file__).parents[3] / "artifacts/newer.py"
SPEC = importlib.util.spec_from_file_location("artifacts_newer", FILE)
assert SPEC and SPEC.loader
module: Any = importlib.util.module_from_spec(SPEC)
# Dataclasses look their module up by name.
sys.modules["artifacts_newer"] = module
SPEC.loader.exec_module(module)

GO_MOD = """module ashlar.internal/artifacts/tool

go 1.26.0

toolchain go1.26.8

require (
\texample.com/tool v1.2.3
\texample.com/tool/cmd/v2 v2.0.1
\texample.com/other v0.0.0-20260101000000-0123456789ab // indirect
)

replace (
\texample.com/tool/cmd/v2 => example.com/fork v9.9.9
)
"""
GO = """#!/bin/sh
case "$*" in
  *-versions*) echo '{"Versions": ["v2.0.1", "v2.0.4", "v2.0.5-rc.1", "v2.1.0", "v2.2.0"]}' ;;
  *v2.0.4*) printf 'module example.com/tool/cmd/v2\\n\\ngo 1.26.0\\n' >"$PWD/old.mod"; echo "{\\"GoMod\\": \\"$PWD/old.mod\\"}" ;;
  *v2.2.0*) printf 'module m\\n\\ngo 1.27.0\\n\\nreplace a => b v1.0.0\\n' >"$PWD/new.mod"; echo "{\\"GoMod\\": \\"$PWD/new.mod\\"}" ;;
esac
"""
SOURCE = Go(build={"tool": "example.com/tool/cmd/v2"}, change={"example.com/tool": {"ui/web.go": "web.go"}})


@pytest.fixture
def artifact(tmp_path: Path) -> Artifact:
    folder = tmp_path / "tool/2.0.1"
    folder.mkdir(parents=True)
    (folder / "go.mod").write_text(GO_MOD)
    return Artifact("tool", "A tool.", folder.parent, ("2.0.1",), (SOURCE,))


def proxy(tmp_path: Path, go: str) -> Any:
    program = tmp_path / "go"
    program.write_text(go)
    program.chmod(0o755)
    return module.Proxy(program, tmp_path)


def test_it_is_the_module_with_the_command_and_not_what_replaces_it(artifact: Artifact) -> None:
    [source] = module.sources_of(artifact)
    assert (source.module, source.required) == ("example.com/tool/cmd/v2", "v2.0.1")


@pytest.mark.parametrize(
    ("required", "listed", "patch", "last"),
    [
        ("v1.2.3", ["v1.2.3", "v1.2.2"], "", ""),
        ("v1.2.3", ["v1.2.10", "v1.2.9"], "v1.2.10", ""),
        ("v1.2.3", ["v1.3.0", "v1.3.0-rc.1", "v1.2.4"], "v1.2.4", "v1.3.0"),
        ("v1.2.3", ["v1.3.0-rc.1", "v1.3.0-0.20260101000000-0123456789ab"], "", ""),
        ("v0.0.0-20260101000000-0123456789ab", ["v0.1.0"], "", "v0.1.0"),
        ("v1.2.3", [], "", ""),
    ],
)
def test_newer_are_releases_after_the_required_one(required: str, listed: list[str], patch: str, last: str) -> None:
    assert module.newer(required, listed) == module.Newer(patch, last)


def test_what_a_newer_version_needs_is_said(artifact: Artifact, tmp_path: Path) -> None:
    assert module.report(artifact, proxy(tmp_path, GO)) == [
        "tool 2.0.1 -> example.com/tool/cmd/v2 v2.0.4",
        "    needs ui/web.go of example.com/tool looked at: it is changed here",
        "tool 2.0.1 -> example.com/tool/cmd/v2 v2.2.0",
        "    needs go1.27.0 or newer (go1.26.8 builds 2.0.1)",
        "    needs the 1 replacements of its own go.mod",
        "    needs ui/web.go of example.com/tool looked at: it is changed here",
    ]


def test_what_goes_one_minor_at_a_time_names_those_before(artifact: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "stepwise", lambda: {"tool"})
    assert "    needs the minor versions before it: it goes one at a time" in module.report(artifact, proxy(tmp_path, GO))


def test_a_proxy_that_does_not_answer_is_said(artifact: Artifact, tmp_path: Path) -> None:
    go = "#!/bin/sh\necho 'go: downloading x' >&2; echo '   dial tcp: no such host' >&2; exit 1\n"
    assert module.report(artifact, proxy(tmp_path, go)) == ["tool 2.0.1: example.com/tool/cmd/v2 could not be asked for: dial tcp: no such host"]


def test_the_project_s_own_catalogue_can_be_asked_for() -> None:
    catalogue = module.ArtifactCatalogue([FILE.parent])
    found = {name: module.sources_of(catalogue.get(name)) for name in catalogue.names()}
    assert [(one.version, one.module, one.required) for one in found["kubernetes"]][-1] == ("1.37.2", "k8s.io/kubernetes", "v1.37.2")
    assert found["etcd"][0].module.startswith("go.etcd.io/etcd/") and not found["grafana"] and not found["edge"]
    assert all(one.required for sources in found.values() for one in sources)


def test_a_name_that_is_not_in_the_catalogue_is_one_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert module.main(["nothing"]) == 2
    assert "artifact 'nothing' is not in the catalogue" in capsys.readouterr().err
