# SPDX-License-Identifier: Apache-2.0
"""What the tool is given to read a backend: settings as files of its user alone, nothing as arguments, and nothing stays behind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import hcl2
import pytest
from states import configuration, hosts_of, machine, state, write

TOOL = """#!/bin/sh
{
  echo "$*"
  for one in "$@"; do
    case $one in -backend-config=*) stat -c %a "$(dirname "${one#-backend-config=}")"; cp "${one#-backend-config=}" "$HERE/settings.$(basename "$one")";; esac
  done
} >> "$HERE/said"
case $1 in
init) cp main.tf "$HERE/main.tf"; pwd > "$HERE/folder"; mkdir .terraform; touch .terraform/terraform.tfstate; exit 1;;
workspace) printf '* default\\n  eu\\n';;
state) echo "$TF_WORKSPACE $TF_DATA_DIR" >> "$HERE/said"; cat "$HERE/state.tfstate";;
esac
"""


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder whose tool notes what it is asked."""
    write(tmp_path / "tofu", TOOL).chmod(0o755)
    monkeypatch.setenv("HERE", str(tmp_path))
    monkeypatch.setenv("ASHLAR_TOFU", str(tmp_path / "tofu"))
    write(tmp_path / "state.tfstate", state({"a": machine()}))
    return tmp_path


@pytest.mark.parametrize(
    ("type_", "config", "written"),
    [
        ("gcs", {"bucket": "states", "prefix": "platform"}, {}),
        ("local", {"path": "states/x.tfstate"}, {"path": "<site>/states/x.tfstate"}),
        ("s3", {"bucket": "b", "key": "k", "use_path_style": True, "max_retries": 3, "endpoints": {"s3": "http://127.0.0.1:1"}}, {}),
        ("http", {"address": "https://states.example.com/a?b=${c}%{d}"}, {}),
    ],
)
def test_settings_arrive_as_they_were_written(asked: Path, type_: str, config: dict[str, Any], written: dict[str, str]) -> None:
    assert list(hosts_of(configuration(asked, sources=[{"backend": {"type": type_, "config": config}, "workspace": "eu"}]))) == ["a"]
    said = (asked / "said").read_text().splitlines()
    folder = (asked / "folder").read_text().strip()
    assert said[0] == f"init -backend-config={folder}/settings.tfbackend -plugin-dir={folder}/plugins -input=false -no-color"
    assert said[1] == "700"
    assert said[2:] == ["workspace list -no-color", "state pull", f"eu {folder}/.terraform"]
    assert (asked / "main.tf").read_text() == f'terraform {{\n  backend "{type_}" {{}}\n}}\n'
    (settings,) = asked.glob("settings.*")
    expected = {**config, **{key: value.replace("<site>", str(asked)) for key, value in written.items()}}
    if type_ == "http":
        # HCL's own way to write the beginnings of templates in texts.
        assert settings.read_text() == 'address = "https://states.example.com/a?b=$${c}%%{d}"\n'
    else:
        read = {key: value for key, value in hcl2.loads(settings.read_text()).items() if not key.startswith("__")}
        assert json.loads(json.dumps(read).replace('\\"', "")) == expected
    assert not Path(folder).exists()


def test_files_of_settings_are_named_and_not_read_out(asked: Path) -> None:
    write(asked / "gcs.tfbackend", 'credentials = "s3cret-of-the-state"\n')
    hosts_of(configuration(asked, sources=[{"backend": {"type": "gcs", "config_files": ["gcs.tfbackend"]}}]))
    said = (asked / "said").read_text()
    assert f"-backend-config={asked}/gcs.tfbackend" in said
    assert "s3cret" not in said
