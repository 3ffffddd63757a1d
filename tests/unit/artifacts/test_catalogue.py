# SPDX-License-Identifier: Apache-2.0
"""The catalogue as it is, and what is said about one that is wrong."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from ansible_collections.ashlar.stack.plugins.plugin_utils.artifacts.builder import directive
from ansible_collections.ashlar.stack.plugins.plugin_utils.artifacts.catalogue import ArtifactCatalogue, Go, Upstream, expand, load, parse_sums, write_sums
from ansible_collections.ashlar.stack.plugins.plugin_utils.artifacts.errors import ArtifactError

ROOT = Path(__file__).parents[3]
CATALOGUE = ArtifactCatalogue([ROOT / "artifacts"])
SCHEMA = jsonschema.Draft202012Validator(json.loads((ROOT / "schemas/artifact.json").read_text()))
GOOD: dict[str, Any] = {
    "description": "Something to test with.",
    "files": ["tool"],
    "versions": {"1.2.3": {}},
    "sources": [
        {"kind": "mirror"},
        {"kind": "upstream", "url": "https://example.com/{version}/tool-{architecture}.tgz", "members": {"tool": "bin/tool"}},
        {"kind": "go", "build": {"tool": "example.com/tool"}},
    ],
}


def written(tmp_path: Path, data: Any) -> Path:
    path = tmp_path / "tool" / "artifact.yml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(data if isinstance(data, str) else yaml.safe_dump(data))
    return path


def test_the_good_example_is_good(tmp_path: Path) -> None:
    artifact = load(written(tmp_path, GOOD))
    assert (artifact.name, artifact.versions, artifact.parts()) == ("tool", ("1.2.3",), ("tool",))
    assert list(SCHEMA.iter_errors(GOOD)) == []


@pytest.mark.parametrize("name", CATALOGUE.names())
def test_every_artifact_fits_the_schema_and_is_complete(name: str) -> None:
    artifact = CATALOGUE.get(name)
    raw = yaml.safe_load((artifact.directory / "artifact.yml").read_text())
    assert [error.message for error in SCHEMA.iter_errors(raw)] == []
    for version in artifact.versions:
        artifact.sums(version)
        for source in artifact.sources:
            if isinstance(source, Go):
                module = (artifact.source(version) / "go.mod").read_text()
                assert directive(module, "toolchain"), "the toolchain decides the bytes"
                assert "require" not in module or (artifact.source(version) / "go.sum").is_file()
                for files in source.change.values():
                    assert all((artifact.folder(version) / ours).is_file() for ours in files.values() if ours)


@pytest.mark.parametrize("path", sorted((ROOT / "releases").glob("*.yml")), ids=lambda path: path.stem)
def test_every_version_of_a_release_is_in_the_catalogue(path: Path) -> None:
    release = yaml.safe_load(path.read_text())
    schema = json.loads((ROOT / "schemas/release.json").read_text())
    assert list(jsonschema.Draft202012Validator(schema).iter_errors(release)) == []
    assert release["name"] == path.stem
    for name, version in release["versions"].items():
        CATALOGUE.get(name, version)


def test_what_is_recorded_of_reproducible_builds_is_whole() -> None:
    """A record of some files of a build and not of others would let the others pass unseen."""
    for name in CATALOGUE.names():
        artifact = CATALOGUE.get(name)
        for version in artifact.versions:
            sums = artifact.sums(version)
            for architecture in {key.split("/")[1] for key in sums if key.startswith("go/")}:
                assert {key.split("/", 2)[2] for key in sums if key.startswith(f"go/{architecture}/")} == {file.path for file in artifact.files}


def change(*path: str | int, to: Any = None) -> dict[str, Any]:
    data = copy.deepcopy(GOOD)
    place: Any = data
    for key in path[:-1]:
        place = place[key]
    if to is None:
        del place[path[-1]]
    else:
        place[path[-1]] = to
    return data


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (change("description"), "has no 'description'"),
        (change("colour", to="red"), "a key of the file is 'colour'; allowed: description, sources, versions"),
        (change("versions", to=["1.2.3"]), "versions is ['1.2.3']; allowed: a mapping"),
        (change("versions", to={1.2: {}}), "a version is 1.2; allowed: text in quotation marks"),
        (change("files"), "either `files` or `packages: true`"),
        (change("packages", to=True), "either `files` or `packages: true`"),
        (change("files", to=["/etc/passwd"]), "allowed: a path below the artifact's folder"),
        (change("files", to=["../x"]), "allowed: a path below the artifact's folder"),
        (change("files", to=[{"path": "tool", "mode": 755}]), "files[0].mode is 755; allowed: an octal number"),
        (change("sources", to=[]), "sources is empty"),
        (change("sources", 0, "kind", to="magic"), "sources[0].kind is 'magic'; allowed: mirror, upstream, go, package, program"),
        (change("sources", 1, "url", to="https://x/{edition}"), "a placeholder of sources[1].url is '{edition}'; allowed: {version}"),
        (change("sources", 1, "members", to={"other": ""}), "what sources[1] gives is ['other']; allowed: exactly ['tool']"),
        (change("sources", 2, "disk_gib", to="much"), "disk_gib is 'much'; allowed: a number of GiB"),
        (change("sources", to=[{"kind": "package", "packages": ["x"]}]), "needs `extract`"),
        (change("program", to=True), "either `versions` or `program: true`"),
        (change("versions"), "either `versions` or `program: true`"),
        (change("versions") | {"program": True}, "programs/tool is missing or empty"),
        (change("sources", to=[{"kind": "program"}]), "the source `program` stands alone, with `program: true` and without `files`"),
        (change("sources", to=[{"kind": "package", "packages": ["x"], "codename": "trixie"}]), "belong together"),
        ("description: [", "cannot be read"),
        ("- 1", "the file is [1]; allowed: a mapping with"),
    ],
)
def test_a_wrong_file_is_one_clear_error(tmp_path: Path, data: Any, words: str) -> None:
    path = written(tmp_path, data)
    with pytest.raises(ArtifactError, match=re.escape(words)) as caught:
        load(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_no_checksum_is_recorded_of_a_program_that_is_no_more() -> None:
    """A build of the source as it is now would go unchecked; `-e artifacts_record=true` records it."""
    for name in CATALOGUE.names():
        artifact = CATALOGUE.get(name)
        if artifact.program:
            recorded = {path.parent.name for path in artifact.directory.glob("*/SHA256SUMS")}
            assert recorded <= set(artifact.versions), f"remove what is old in {artifact.directory}"


def test_an_unknown_artifact_and_version_say_what_there_is(tmp_path: Path) -> None:
    written(tmp_path, GOOD)
    with pytest.raises(ArtifactError, match="'etcd' is not in the catalogue .*allowed: tool"):
        ArtifactCatalogue([tmp_path]).get("etcd")
    with pytest.raises(ArtifactError, match="tool 9 is not in the catalogue .*allowed: 1.2.3"):
        ArtifactCatalogue([tmp_path]).get("tool", "9")
    with pytest.raises(ArtifactError, match="not in the catalogue"):
        ArtifactCatalogue([tmp_path]).get("../tool")


def test_a_sites_own_catalogue_comes_first(tmp_path: Path) -> None:
    own, ours = tmp_path / "own", tmp_path / "ours"
    own.mkdir(), ours.mkdir()
    written(own, GOOD | {"description": "The site's own."})
    written(ours, GOOD)
    assert ArtifactCatalogue([own, ours]).get("tool").description == "The site's own."


def test_placeholders() -> None:
    assert expand("{version} {major}.{minor}.{patch} {architecture} {else}", "1.36.3", "amd64") == "1.36.3 1.36.3 amd64 {else}"
    assert expand("{major}{minor}", "7") == "7"


def test_checksums_are_added_and_kept(tmp_path: Path) -> None:
    artifact = load(written(tmp_path, GOOD))
    assert write_sums(artifact, "1.2.3", {"go/amd64/tool": "a" * 64})
    assert write_sums(artifact, "1.2.3", {"go/arm64/tool": "b" * 64})
    assert not write_sums(artifact, "1.2.3", {"go/arm64/tool": "b" * 64})
    assert artifact.sums("1.2.3") == {"go/amd64/tool": "a" * 64, "go/arm64/tool": "b" * 64}


def test_a_line_that_is_no_checksum_is_named() -> None:
    with pytest.raises(ArtifactError, match="SUMS, line 2: 'abc  x' is not"):
        parse_sums(f"{'0' * 64}  go/amd64/x\nabc  x\n", "SUMS")


def test_upstream_of_a_real_artifact_is_filled_in() -> None:
    source = next(source for source in CATALOGUE.get("etcd").sources if isinstance(source, Upstream))
    assert expand(source.url, "3.7.3", "arm64").endswith("/v3.7.3/etcd-v3.7.3-linux-arm64.tar.gz")
