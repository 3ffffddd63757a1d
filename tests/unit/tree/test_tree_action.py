# SPDX-License-Identifier: Apache-2.0
"""The controller's half: what is rendered, what is copied, what is left out, what is refused; and the arguments of the host's half."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import pytest
import yaml
from ansible.errors import AnsibleActionFail
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template
from ansible_collections.ashlar.stack.plugins.action.tree import ActionModule
from ansible_collections.ashlar.stack.plugins.module_utils.tree.apply import TreeError
from ansible_collections.ashlar.stack.plugins.module_utils.tree.bundle import Source, unpack
from ansible_collections.ashlar.stack.plugins.modules import tree as module

COLLECTIONS = Path(__file__).parents[3] / ".collections"


class Controller:
    """A role folder and the action plugin as a task of that role runs it."""

    def __init__(self, folder: Path) -> None:
        self.role = folder / "role"
        self.templates = self.role / "templates"
        self.templates.mkdir(parents=True)
        self.sent: dict[str, Any] = {}

    def put(self, path: str, content: str | bytes, executable: bool = False) -> Path:
        file = self.templates / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content.encode() if isinstance(content, str) else content)
        file.chmod(0o755 if executable else 0o644)
        return file

    def run(self, variables: dict[str, Any] | None = None, role: bool = True, check: bool = False, **arguments: Any) -> dict[str, Source]:
        loader = DataLoader()
        loader.set_basedir(str(self.role.parent))
        task = MagicMock(args={"name": "app", **arguments}, async_val=0, check_mode=check, diff=False, environment=None)
        task._role = SimpleNamespace(_role_path=str(self.role)) if role else None
        connection = MagicMock()
        connection._shell.tmpdir = None
        action = ActionModule(task, connection, MagicMock(check_mode=False, diff=False), loader, Templar(loader=loader), MagicMock())

        action._execute_module = self.execute
        self.result = action.run(task_vars=variables or {})
        return {source.path: source for source in unpack(self.sent["bundle"])} if "bundle" in self.sent else {}

    def execute(self, module_name: str, module_args: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        self.sent = {"module_name": module_name, **module_args}
        return {"changed": True, "invocation": {"module_args": module_args}}


@pytest.fixture
def controller(tmp_path: Path) -> Controller:
    return Controller(tmp_path)


def test_templates_are_rendered_and_others_copied_byte_by_byte(controller: Controller):
    controller.put("etc/app/app.conf.j2", "a={{ a }}\n{% if a == 1 %}\n  one\n{% endif %}\nend\n\n")
    controller.put("etc/app/{{ a }}.txt", "{{ a }}\n")
    controller.put("etc/blob", bytes(range(256)))
    controller.put("usr/bin/run.j2", "#!/bin/sh\n", executable=True)
    sources = controller.run({"a": 1})
    assert sources["/etc/app/app.conf"].content == b"a=1\n  one\nend\n\n"
    assert sources["/etc/app/{{ a }}.txt"].content == b"{{ a }}\n"
    assert sources["/etc/blob"].content == bytes(range(256))
    assert sources["/usr/bin/run"].executable
    assert not sources["/etc/blob"].executable
    assert controller.sent["module_name"] == "ashlar.stack.tree"
    assert "source" not in controller.sent


def test_units_that_the_component_replaces_are_stopped(controller: Controller):
    controller.put("etc/app", "")
    replaced = {"app": ["web.service"], "other": ["x.service"]}
    controller.run({"node_replaced": replaced}, units=[{"name": "app.service"}])
    assert controller.sent["units"] == [{"name": "app.service"}, {"name": "web.service", "state": "stopped", "enabled": False, "files": []}]


class Turns:
    """A member of a component that restarts in turns; `health` is what its own checks say before and after, `spare` what the others say."""

    def __init__(self, controller: Controller, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        monkeypatch.setattr("ansible.constants.DEFAULT_LOCAL_TMP", str(folder))
        self.controller, self.health, self.spare, self.pending, self.called = controller, ["", ""], "", ["app.service"], list[str]()
        controller.execute = self.execute

    def execute(self, module_name: str, module_args: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        if module_name == "ashlar.stack.tree":
            self.called.append("hold" if module_args.get("hold") else "restart")
            held = module_args.get("hold", False)
            return {"changed": not held, "pending": self.pending if held else [], "restarted": [] if held else ["app.service"]}
        [check] = module_args["checks"]
        self.called.append(f"{check['name']} {module_args['timeout']}")
        said = self.spare if check["name"] == "spare" else self.health.pop(0)
        return {"failed": True, "msg": said} if said else {"changed": False}

    def run(self, name: str = "node1", members: tuple[str, ...] = ("node1", "node2"), check: bool = False) -> list[str]:
        self.called.clear()
        rolling = {"max_unavailable": 1, "members": list(members), "spare": {"name": trust_as_template("{{ 'spare' }}"), "tcp": "x"}}
        health = [{"component": "role", "name": "well", "tcp": "x"}, {"component": "other", "name": "other", "tcp": "x"}]
        self.controller.run({"inventory_hostname": name, "component_rolling": {"role": rolling}, "node_health": health}, check=check)
        return self.called


@pytest.fixture
def turns(controller: Controller, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Turns:
    return Turns(controller, monkeypatch, tmp_path)


def test_a_running_member_is_restarted_in_its_turn_and_waited_for(turns: Turns):
    assert turns.run() == ["hold", "well 20", "spare 180", "restart", "well 180"]
    assert (turns.controller.result["restarted"], turns.controller.result["changed"]) == (["app.service"], True)
    assert (turns.run("client"), turns.run(members=("node1",)), turns.run(check=True)) == (["restart"], ["restart"], ["restart"])
    turns.pending = []
    assert turns.run() == ["hold"]


def test_an_unhealthy_member_is_restarted_whatever_the_others_do(turns: Turns):
    turns.spare, turns.health = "they are away", ["it hangs", ""]
    assert turns.run() == ["hold", "well 20", "restart", "well 180"]


def test_who_cannot_be_spared_or_does_not_come_back_ends_the_turns(turns: Turns):
    turns.health, turns.spare = ["", ""], "one is away"
    with pytest.raises(AnsibleActionFail, match="can't do without it. one is away"):
        turns.run()
    assert turns.called[-1] == "spare 180"
    with pytest.raises(AnsibleActionFail, match="role is not restarted on node2: the turn of node1 failed"):
        turns.run("node2")
    assert turns.called == ["hold", "well 20"]


def test_a_member_that_does_not_come_back_is_told_of(turns: Turns):
    turns.health = ["", "port closed"]
    with pytest.raises(AnsibleActionFail, match="role did not become healthy on node1 after its restart. port closed"):
        turns.run()


def test_the_bundle_does_not_come_back(controller: Controller):
    controller.put("etc/key", "secret")
    controller.run()
    assert "invocation" not in controller.result


def test_a_template_that_gives_only_white_space_is_left_out_and_an_empty_file_is_not(controller: Controller):
    controller.put("etc/optional.j2", "{% if wanted %}\nhere\n{% endif %}\n\n")
    controller.put("etc/empty", "")
    assert set(controller.run({"wanted": False})) == {"/etc/empty"}
    assert set(controller.run({"wanted": True})) == {"/etc/empty", "/etc/optional"}


def test_includes_are_found_and_not_laid_down(controller: Controller):
    controller.put("_parts/line.j2", "included {{ a }}\n")
    controller.put("_macros.j2", "{% macro m(x) %}<{{ x }}>{% endmacro %}")
    controller.put("etc/a.j2", "{% import '_macros.j2' as m %}{% include '_parts/line.j2' %} {{ m.m(2) }}\n")
    controller.put("etc/_kept", "x")
    sources = controller.run({"a": 1})
    assert set(sources) == {"/etc/a", "/etc/_kept"}
    assert sources["/etc/a"].content == b"included 1 <2>\n"


def test_variables_that_are_templates_are_rendered_too_and_untrusted_ones_are_not(controller: Controller):
    controller.put("etc/a.j2", "{{ outer }} {{ foreign }}\n")
    variables = {"outer": trust_as_template("{{ inner }}"), "inner": "deep", "foreign": "{{ inner }}"}
    assert controller.run(variables)["/etc/a"].content == b"deep {{ inner }}\n"


def test_backslashes_and_numbers_stay_as_they_are(controller: Controller):
    controller.put("etc/a.j2", 'match "\\d+\\n" {{ "\\\\" }}\n')
    controller.put("etc/number.j2", "{{ 5 }}")
    sources = controller.run()
    assert sources["/etc/a"].content == b'match "\\d+\\n" \\\n'
    assert sources["/etc/number"].content == b"5"


def test_an_undefined_variable_names_the_template(controller: Controller):
    controller.put("etc/a.j2", "{{ nowhere }}\n")
    with pytest.raises(AnsibleActionFail, match=r"tree app: .*etc/a.j2 cannot be rendered: 'nowhere' is undefined"):
        controller.run()


def test_a_template_that_gives_a_structure_says_what_to_do(controller: Controller):
    controller.put("etc/a.j2", "{{ {'a': 1} }}")
    with pytest.raises(AnsibleActionFail, match="renders to a dict.*to_nice_json"):
        controller.run()


def test_a_file_and_a_template_of_the_same_name_are_refused(controller: Controller):
    controller.put("etc/a", "1")
    controller.put("etc/a.j2", "2")
    with pytest.raises(AnsibleActionFail, match="exists as a file and as a template"):
        controller.run()


@pytest.mark.parametrize("target", ["a", "/etc", "missing"])
def test_links_in_the_folder_are_refused_with_the_way_to_have_them(controller: Controller, target: str):
    controller.put("etc/a", "1")
    (controller.templates / "etc/link").symlink_to(target)
    with pytest.raises(AnsibleActionFail, match="symbolic link.*'links'"):
        controller.run()


def test_sources_may_be_absolute_relative_to_the_role_or_to_the_playbook(controller: Controller, tmp_path: Path):
    for folder, text in ((tmp_path / "elsewhere", "absolute"), (controller.role / "more", "role"), (tmp_path / "beside", "playbook")):
        folder.mkdir()
        (folder / "a").write_text(text)
    assert controller.run(source=str(tmp_path / "elsewhere"))["/a"].content == b"absolute"
    assert controller.run(source="more")["/a"].content == b"role"
    assert controller.run(source="beside", role=False)["/a"].content == b"playbook"
    with pytest.raises(AnsibleActionFail, match="source 'nowhere' is not a folder .looked for .*role/nowhere"):
        controller.run(source="nowhere")


def test_a_role_without_templates_has_an_empty_tree(controller: Controller):
    controller.templates.rmdir()
    assert controller.run() == {}
    assert unpack(controller.sent["bundle"]) == []


def test_an_absent_tree_sends_no_files(controller: Controller):
    controller.put("etc/a.j2", "{{ nowhere }}\n")
    controller.run(state="absent")
    assert "bundle" not in controller.sent


def test_a_bundle_cannot_be_given(controller: Controller):
    with pytest.raises(AnsibleActionFail, match="'bundle' is made from 'source'"):
        controller.run(bundle="x")


# ---- the host's half


def arguments(**values: Any) -> dict[str, Any]:
    return {"name": "app", "files": [], "directories": [], "links": [], "validate": [], "units": [], "state": "present", **values}


def unit(**values: Any) -> dict[str, Any]:
    return {"state": "started", "enabled": None, "files": None, "watch": [], "reload": [], **values}


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"name": "../x"}, "name '../x' is not allowed"),
        ({"units": [unit(name="app")]}, "write it with its suffix"),
        ({"units": [unit(name="app@.service")]}, "is not a unit's name"),
        ({"units": [unit(name="a.service"), unit(name="a.service")]}, "named twice"),
        ({"units": [unit(name="a.service", watch=["etc/x"])]}, "'etc/x' must be an absolute path or glob"),
        ({"links": [{"path": "a", "target": "b"}]}, "must be an absolute path"),
        ({"files": [{"path": "/a", "owner": "root", "group": "root", "mode": "416"}]}, "four octal digits in quotes"),
    ],
)
def test_wrong_arguments_are_told(values: dict[str, Any], text: str):
    with pytest.raises(TreeError, match=text):
        module.spec_of(arguments(**values))


def test_documentation_and_arguments_are_the_same():
    documented = yaml.safe_load(module.DOCUMENTATION)["options"]

    def compare(options: dict[str, Any], given: dict[str, Any], where: str) -> None:
        assert set(options) == set(given), where
        for name, option in options.items():
            spec = given[name]
            for key in ("type", "required", "default", "choices", "elements"):
                assert option.get(key) == spec.get(key), f"{where}.{name}: {key}"
            compare(option.get("suboptions", {}), spec.get("options", {}), f"{where}.{name}")

    compare(documented, module.ARGUMENTS, "tree")
    assert yaml.safe_load(module.EXAMPLES)
    assert yaml.safe_load(module.RETURN)


@pytest.mark.skipif(os.geteuid() != 0, reason="files belong to root by default")
def test_a_playbook_lays_a_tree_twice(tmp_path: Path):
    """Through Ansible itself, with a bundle that is larger than a command line may be."""
    templates = tmp_path / "templates"
    (templates / "etc").mkdir(parents=True)
    (templates / "etc/app.conf.j2").write_text("a={{ a }}\n")
    (templates / "etc/blob").write_bytes(os.urandom(400_000))
    (tmp_path / "root").mkdir()
    task = {"ashlar.stack.tree": {"name": "app", "source": "templates", "root": str(tmp_path / "root")}, "register": "done"}
    show = {"ansible.builtin.debug": {"msg": "{{ 'RESULT' ~ (done | to_json) }}"}}
    play = [
        {
            "hosts": "localhost",
            "gather_facts": False,
            "vars": {"a": 7, "ansible_python_interpreter": sys.executable},
            "tasks": [task, show, task, show],
        }
    ]
    (tmp_path / "play.yml").write_text(json.dumps(play))
    program = Path(sys.executable).parent / "ansible-playbook"
    environment = {**os.environ, "ANSIBLE_COLLECTIONS_PATH": str(COLLECTIONS), "ANSIBLE_LOCALHOST_WARNING": "false"}
    environment |= {"ANSIBLE_STDOUT_CALLBACK": "ansible.builtin.minimal", "ANSIBLE_INVENTORY_UNPARSED_WARNING": "false"}
    done = subprocess.run(
        [program, "-i", "localhost,", "-c", "local", "-D", "play.yml"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        check=False,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "root/etc/app.conf").read_text() == "a=7\n"
    assert (tmp_path / "root/etc/blob").read_bytes() == (templates / "etc/blob").read_bytes()
    results = [
        json.loads(json.loads("{" + line.strip().rstrip(",") + "}")["msg"][6:])
        for line in done.stdout.splitlines()
        if '"msg": "RESULT' in line
    ]
    assert [result["changed"] for result in results] == [True, False]
    assert results[0]["changed_paths"] == ["/etc", "/etc/app.conf", "/etc/blob"]
    assert "bundle" not in json.dumps(results)
