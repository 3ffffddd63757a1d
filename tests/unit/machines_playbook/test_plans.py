# SPDX-License-Identifier: Apache-2.0
"""What a plan of machines means, what is refused, and what an operator reads when the tool fails."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.ashlar.stack.plugins.plugin_utils.machines.apply import (
    Applier,
    Changes,
    MachinesError,
    Root,
    describe,
    read_changes,
    refusal,
    roots_of,
)


def change(address: str, *actions: str, type: str = "terraform_data", **more: Any) -> dict[str, Any]:
    return {"address": address, "mode": "managed", "type": type, "change": {"actions": list(actions), **more}}


def plan(*changes: dict[str, Any], before: Any = None, after: Any = None, unknown: Any = None) -> dict[str, Any]:
    same = before == after and not unknown
    output = {"actions": ["no-op"] if same else ["update"], "before": before, "after": after, "after_unknown": {} if unknown is None else unknown}
    return {"resource_changes": list(changes), "output_changes": {"nodes": output}}


A, B = {"id": "i-1", "private_ip": "192.0.2.1"}, {"id": "i-2", "private_ip": "192.0.2.2"}


def test_nothing_to_change() -> None:
    changes = read_changes(plan(change("aws_instance.node", "no-op"), change("data.x", "read"), before={"a": A}, after={"a": A}))
    assert changes == Changes() and not changes.any and refusal(changes, "inventories/x") is None
    assert describe(changes, "terraform/aws") == ["terraform/aws: nothing to change"]


def test_what_is_known_only_after_the_apply_is_no_change_of_those_that_are_there() -> None:
    unknown = {"a": {"classes": [False], "labels": {}}, "b": {"id": True, "classes": [False]}}
    changes = read_changes(plan(change("n.b", "create"), before={"a": A}, after={"a": A, "b": {"private_ip": "192.0.2.2"}}, unknown=unknown))
    assert (changes.made, changes.altered, changes.replaced, changes.ended) == (("b",), (), (), ())
    assert refusal(changes, "x") is None


def test_an_output_that_is_wholly_unknown_names_no_machine_wrongly() -> None:
    changes = read_changes(plan(change("n.a", "create"), before=None, after=None, unknown=True))
    assert changes.any and (changes.made, changes.ended, changes.replaced) == ((), (), ())


@pytest.mark.parametrize(
    ("before", "after", "unknown", "words"),
    [
        ({"a": A, "b": B}, {"a": A}, {}, "end b"),
        ({"a": A}, {"a": {"private_ip": "192.0.2.1"}}, {"a": {"id": True}}, "replace a"),
        ({"a": A}, {"a": {**A, "id": "i-9"}}, {}, "replace a"),
        ({"a": A, "b": B}, {"a": {"private_ip": "192.0.2.1"}}, {"a": {"id": True}}, "end b and replace a"),
    ],
)
def test_what_takes_machines_away_is_refused(before: Any, after: Any, unknown: Any, words: str) -> None:
    said = refusal(read_changes(plan(change("n.a", "delete", "create"), before=before, after=after, unknown=unknown)), "inventories/prod")
    assert said and said.startswith(f"This plan would {words}, and nothing was changed.")
    assert "ansible-playbook -i inventories/prod playbooks/machines.yml -e machines_allow_destroy=true" in said


@pytest.mark.parametrize("type", ["aws_ebs_volume", "google_compute_disk", "openstack_blockstorage_volume_v3"])
def test_what_takes_data_away_is_refused(type: str) -> None:
    gone = read_changes(plan(change("v.data", "delete", type=type), before={"a": A}, after={"a": A}))
    assert "remove the data of v.data" in str(refusal(gone, "x"))
    assert refusal(read_changes(plan(change("s.rule", "delete", type="aws_security_group_rule"), before={"a": A}, after={"a": A})), "x") is None


def test_a_machine_that_is_gone_already_is_made_anew_without_asking() -> None:
    lost = plan(
        change('terraform_data.generation["a"]', "update", before={"input": 0}, after={"input": 1}, after_unknown={"output": True}),
        change('terraform_data.node["a"]', "delete", "create", replace_paths=[["triggers_replace"]]),
        before={"a": A},
        after={"a": {"private_ip": "192.0.2.1"}},
        unknown={"a": {"id": True}},
    )
    changes = read_changes(lost)
    assert (changes.lost, changes.replaced) == (("a",), ()) and refusal(changes, "x") is None
    assert describe(changes, "terraform/local") == [
        "terraform/local: 1 to change, 1 to replace",
        "  machines gone, recreated: a",
        '      ~ terraform_data.generation["a"]  (input, output)',
        '    -/+ terraform_data.node["a"]  (triggers_replace)',
    ]


def site(folder: Path, source: dict[str, Any], **files: str) -> Path:
    (folder / "10-nodes.terraform.yml").write_text(json.dumps({"plugin": "ashlar.stack.terraform", "sources": [source]}))
    for name, text in files.items():
        (folder / name).write_text(text)
    return folder


def test_the_roots_of_a_site(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    source = {"root": "root", "workspace": "eu", "binary": "terraform", "var_files": ["m"], "prefix": "eu-"}
    [root] = roots_of(site(tmp_path, source, m=""))
    assert root == Root(tmp_path / "root", tmp_path / "10-nodes.terraform.yml", "eu", "terraform", (tmp_path / "m",), "eu-")


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ({"state": "x.tfstate"}, "10-nodes.terraform.yml names states, and no root"),
        ({"root": "nowhere"}, "nowhere, which is no folder"),
        ({"root": ".", "var_files": ["m"]}, "var_files names"),
    ],
)
def test_a_site_that_no_machines_can_be_made_of(source: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(MachinesError, match=words):
        roots_of(site(tmp_path, source))


def test_a_site_with_static_nodes_is_told_what_to_write(tmp_path: Path) -> None:
    with pytest.raises(MachinesError, match="it has no node file of the plugin ashlar.stack.terraform. Write 10-nodes.terraform.yml"):
        roots_of(tmp_path)


class Stage:
    """A root with a shell script that stands for the tool."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.said = folder, list[str]()
        (folder / "root").mkdir()

    def applier(self, script: str, seconds: int = 20, **environment: str) -> Applier:
        tool = self.folder / "tofu"
        tool.write_text(f"#!/bin/sh\necho \"$@\" >>{self.folder}/calls\n{script}\n")
        tool.chmod(0o755)
        variables = {"PATH": os.defpath, "ASHLAR_TOFU": str(tool), **environment}
        root = Root(self.folder / "root", self.folder / "n.yml", "eu", var_files=(self.folder / "m.tfvars",))
        return Applier(root, self.folder / "site", self.said.append, seconds, variables)

    @property
    def calls(self) -> list[str]:
        return (self.folder / "calls").read_text().splitlines()


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path)


GOOD = """case $1 in
plan) exit 2;;
show) echo '{"resource_changes": [{"address": "n.a", "type": "n", "change": {"actions": ["create"]}}]}';;
apply) echo "n.a: Creating..."; echo "n.a: Creation complete after 3s [id=42]"; echo "folder $TF_VAR_site_folder workspace $TF_WORKSPACE" >&2;;
esac"""


def test_exactly_the_plan_that_was_shown_is_applied(stage: Stage) -> None:
    applier = stage.applier(GOOD)
    with applier.plan() as (changes, file):
        assert [one.address for one in changes.objects] == ["n.a"]
        applier.apply(file)
    assert stage.said == ["  n.a: Creating...", "  n.a: Creation complete after 3s"]
    init, planned, show, applied = stage.calls
    assert init.startswith("init ") and f"-var-file={stage.folder}/m.tfvars" in planned and f"-out={file}" in planned and "-destroy" not in planned
    assert str(file) in show and applied.endswith(str(file)) and "-lock-timeout=30s" in applied
    assert not file.parent.exists(), "a plan may hold secrets"


def test_the_root_learns_the_sites_folder_as_others_would_say_it(stage: Stage) -> None:
    applier = stage.applier('[ "$TF_VAR_site_folder $TF_WORKSPACE" = "../site eu" ] || exit 1; [ $1 = show ] && echo "{}"; exit 0')
    with applier.plan(destroy=True) as (changes, _):
        assert not changes.any
    assert " -destroy" in stage.calls[1]


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ('[ $1 = plan ] && { echo "Error: Error acquiring the state lock" >&2; exit 1; }; exit 0', "Another run holds the state.* tofu force-unlock ID"),
        ('[ $1 = plan ] && { echo "Error: No valid credential sources found" >&2; exit 1; }; exit 0', "Give the provider's credentials"),
        ('[ $1 = plan ] && { echo "Error: No value for required variable" >&2; exit 1; }; exit 0', "var_files"),
        ('echo "Error: Failed to query available provider packages" >&2; exit 1', "`tofu init` ended with exit code 1 .*terraform/README.md"),
        ('[ $1 = show ] && echo nonsense; exit 0', "printed no JSON"),
        ("kill -9 $$", "ended with signal 9"),
        ("sleep 30", "had not ended after 1 s and was stopped"),
    ],
    ids=["locked", "credentials", "variable", "providers", "no JSON", "killed", "slow"],
)
def test_a_tool_that_fails_is_one_clear_error(script: str, words: str, stage: Stage) -> None:
    begun = time.monotonic()
    applier = stage.applier(script, seconds=1 if "sleep" in script else 20)
    with pytest.raises(MachinesError, match=words) as caught, applier.plan():
        pass
    assert "root (workspace eu)" in str(caught.value) and "\n" not in str(caught.value)
    assert time.monotonic() - begun < 15


def test_an_empty_state_beside_a_backup_is_not_taken_for_a_new_site(stage: Stage) -> None:
    applier = stage.applier("exit 0")
    state = stage.folder / "root/terraform.tfstate.d/eu/terraform.tfstate"
    state.parent.mkdir(parents=True)
    state.touch()
    applier._check_state()
    state.with_name("terraform.tfstate.backup").write_text("{}")
    with pytest.raises(MachinesError, match=r"is empty, since a run was killed.*Copy terraform[.]tfstate[.]backup"), applier.plan():
        raise AssertionError("it was planned")
    state.write_text("{}")
    applier._check_state()


def test_secrets_of_the_environment_are_not_repeated(stage: Stage) -> None:
    applier = stage.applier('echo "Error: bad password hunter22hunter22" >&2; exit 1', OS_PASSWORD="hunter22hunter22")
    with pytest.raises(MachinesError, match=r"bad password \*\*\*"), applier.plan():
        pass


def test_without_a_tool_it_says_which(tmp_path: Path) -> None:
    with pytest.raises(MachinesError, match="OpenTofu or Terraform"):
        Applier(Root(tmp_path, tmp_path), tmp_path, print, 5, {"PATH": str(tmp_path)})
