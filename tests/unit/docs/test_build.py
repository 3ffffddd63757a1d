# SPDX-License-Identifier: Apache-2.0
"""The generated reference: what it says, and how it tells that it is out of date."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[3]


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_build", ROOT / "docs/build.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    # Dataclasses look their module up by name.
    sys.modules["docs_build"] = module
    spec.loader.exec_module(module)
    return module


docs = load()

MANIFEST = """
description: A store.
fills: key_value
layer: coordination
nodes: {class: control, count: odd}
requires: []
ports:
  - {name: client, port: 2379, protocol: tcp, from: [store, nodes]}
certificates:
  - {name: server, authority: etcd, usages: [server, client], common_name: "{{ inventory_hostname }}", owner: etcd}
  - {name: shared, kind: keypair}
artifacts: [store]
health:
  - {name: it answers, tcp: "127.0.0.1:2379", remedy: "read a | b"}
limits:
  store_size: {minimum: 1, maximum: 9}
"""
SPECS = """
argument_specs:
  main:
    short_description: A store.
    description: [One paragraph., Another.]
    options:
      store_size:
        type: int
        default: 4
        description: How much, see M(ashlar.stack.thing).
      store_tuning:
        type: dict
        default: {first_long_name: a value that is long, second_long_name: another value that is long, third: 3}
        description: All of it.
        options:
          name: {type: str, required: true, description: A name.}
"""
MODULE = '''
from __future__ import annotations
DOCUMENTATION: str = r"""
module: thing
short_description: Does a thing
description: [It does, with O(mode=fast).]
options:
  mode:
    description: How.
    type: str
    choices: [fast, slow]
    default: slow
attributes:
  check_mode: {support: full, description: Yes.}
"""
EXAMPLES = """
- ashlar.stack.thing: {mode: fast}
"""
RETURN = """
paths: {description: What was written., type: list, elements: str, returned: always, sample: [/etc/a]}
"""
raise RuntimeError("documentation is read without running the plugin")
'''


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    files = {
        "roles/store/meta/component.yml": MANIFEST,
        "roles/store/meta/argument_specs.yml": SPECS,
        "roles/store/objects/access.yml": "{}",
        "plugins/modules/thing.py": MODULE,
        "plugins/action/thing.py": "",
        "stacks/slots.yml": "key_value: {description: The state., single: true, needed: always}\n",
        "stacks/one.yml": "name: one\ndescription: The one.\nslots: {key_value: store, overlay: web}\nplanned: {storage: disks}\n",
        "releases/2026.11.yml": 'versions: {store: "1.10", other: "2.0"}\n',
        "artifacts/store/artifact.yml": "description: The store's commands.\n",
        "docs/operating.md": "# Operating\n\nWhat to do. And more.\n",
        "docs/decisions/0001-first.md": "# 1. First things first\n\nBecause.\n",
    }
    for path, text in files.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    return tmp_path


@pytest.mark.parametrize(
    ("markup", "markdown"),
    [
        ("a C(file) and V(value) and O(option=x) and E(HOME)", "a `file` and `value` and `option=x` and `HOME`"),
        ("I(slanted) B(bold) U(https://a.example/)", "*slanted* **bold** <https://a.example/>"),
        ("L(the page,https://a.example/x) R(words, target)", "[the page](https://a.example/x) words"),
        (r"C(f(x\)) and C({a: [b]}) and C(a`b)", "`f(x)` and `{a: [b]}` and ``a`b``"),
        (
            "M(ansible.builtin.copy) M(ashlar.stack.thing)",
            "`ansible.builtin.copy` [`ashlar.stack.thing`](../docs/reference/plugins/module_thing.md)",
        ),
        ("P(ashlar.stack.other#filter) RV(paths)", "`ashlar.stack.other` `paths`"),
        ("O(ashlar.stack.thing#module:mode)", "`mode` of `ashlar.stack.thing`"),
        ("DNS (UDP) stays", "DNS (UDP) stays"),
        ("two\n  lines", "two lines"),
    ],
)
def test_markup_becomes_markdown(markup: str, markdown: str) -> None:
    assert docs.prose(markup, "page/x.md", ["docs/reference/plugins/module_thing.md"]) == markdown


@pytest.mark.parametrize(
    ("target", "page", "link"),
    [
        ("roles/a/README.md", "docs/reference/x.md", "../../roles/a/README.md"),
        ("docs/reference/plugins/b.md", "docs/reference/x.md", "plugins/b.md"),
        ("docs/x.md", "docs/README.md", "x.md"),
    ],
)
def test_links_lead_from_page_to_page(target: str, page: str, link: str) -> None:
    assert docs.relative(target, page) == link


def test_a_role_is_documented_from_manifest_and_options(repository: Path) -> None:
    page = docs.build(repository)["roles/store/README.md"]
    assert "all control nodes, an odd number" in page
    assert "| `client` | 2379/tcp | `store`, `nodes` |" in page
    assert "an RSA key pair, the same on all its nodes" in page
    assert "read a \\| b" in page, "a bar in a cell must not end it"
    assert "**`store_size`** (int, default `4`, at least `1`, at most `9`)" in page
    assert "[`ashlar.stack.thing`](../../docs/reference/plugins/module_thing.md)" in page
    assert "second_long_name: another value that is long\n" in page, "a long default has lines of its own"
    assert "  - **`name`** (str, required): A name." in page
    assert "objects/access.yml" in page


def test_a_plugin_is_documented_without_being_run(repository: Path) -> None:
    pages = docs.build(repository)
    page = pages["docs/reference/plugins/module_thing.md"]
    assert "with `mode=fast`" in page
    assert "(str, default `slow`, one of `fast`, `slow`): How." in page
    assert "- ashlar.stack.thing: {mode: fast}" in page
    assert 'For example `["/etc/a"]`' in page
    assert not [path for path in pages if "action" in path], "the module tells of its action plugin"


def test_stacks_say_what_is_planned(repository: Path) -> None:
    page = docs.build(repository)["docs/reference/stacks.md"]
    assert "1 of its 2 components are missing" in page
    assert "[store](../../roles/store/README.md)" in page
    assert "*web (planned)*" in page
    assert "*disks (planned)*" in page


def test_releases_name_versions_and_their_users(repository: Path) -> None:
    page = docs.build(repository)["docs/reference/releases.md"]
    assert "| `store` | 1.10 | The store's commands. | store |" in page


def test_the_index_has_guides_and_decisions(repository: Path) -> None:
    page = docs.build(repository)["docs/README.md"]
    assert "- [Operating](operating.md): What to do.\n" in page
    assert "- [1. First things first](decisions/0001-first.md)" in page


def run(repository: Path, *arguments: str) -> tuple[int, list[str]]:
    said: list[str] = []
    return docs.main([*arguments, "--root", str(repository)], said.append), said


def test_what_was_written_is_current_and_written_once(repository: Path) -> None:
    assert run(repository, "--check")[0] == 1
    assert run(repository)[0] == 0
    assert run(repository, "--check") == (0, [])
    assert "0 of them" in run(repository)[1][0]


def test_check_names_what_is_stale_and_changes_nothing(repository: Path) -> None:
    run(repository)
    specs = repository / "roles/store/meta/argument_specs.yml"
    specs.write_text(specs.read_text().replace("default: 4", "default: 5"))
    (repository / "docs/reference/components.md").unlink()
    (repository / "docs/reference/plugins/module_gone.md").write_text("# Gone\n")
    before = (repository / "roles/store/README.md").read_text()
    code, said = run(repository, "--check")
    assert code == 1
    text = "\n".join(said)
    assert "roles/store/README.md differs from its specs" in text
    assert "docs/reference/components.md is missing" in text
    assert "docs/reference/plugins/module_gone.md documents what is no longer there" in text
    assert "make docs" in text
    assert (repository / "roles/store/README.md").read_text() == before
    assert run(repository)[0] == 0
    assert not (repository / "docs/reference/plugins/module_gone.md").exists()


@pytest.mark.parametrize(
    ("path", "text", "message"),
    [
        ("plugins/filter/bare.py", "x = 1\n", "plugins/filter/bare.py: has no DOCUMENTATION"),
        ("plugins/action/alone.py", "x = 1\n", "nor is there plugins/modules/alone.py"),
        ("plugins/modules/broken.py", "def\n", "not Python"),
        ("plugins/modules/wrong.py", 'DOCUMENTATION = "a: [b"\n', "DOCUMENTATION is not YAML"),
        ("roles/store/meta/component.yml", "description: x\nlayer: attic\n", "layer is 'attic'; allowed are base"),
        ("roles/store/meta/argument_specs.yml", "a: [b\n", "argument_specs.yml: not YAML"),
        ("docs/untitled.md", "no title\n", "does not begin with a title"),
    ],
)
def test_a_bad_spec_is_one_clear_sentence(repository: Path, path: str, text: str, message: str) -> None:
    (repository / path).parent.mkdir(parents=True, exist_ok=True)
    (repository / path).write_text(text)
    code, said = run(repository)
    assert code == 1
    assert len(said) == 1
    assert message in said[0]


PLAYBOOK = """
- name: by hand
# >>> components: from their manifests
- name: left over
# <<< components
# >>> ready: from their manifests
# <<< ready
"""


def test_plays_are_ordered_by_layer_and_what_they_serve_gives_them_its_tags(repository: Path) -> None:
    files = {
        "site.yml": PLAYBOOK,
        "roles/store/tasks/main.yml": "[]",
        "roles/store/tasks/tokens.yml": "[]",
        "roles/web/meta/component.yml": "description: A web.\nlayer: ingress\ncontributes: {store: {tokens: {web: all}}}\n",
        "roles/web/tasks/main.yml": "[]",
        "roles/app/meta/component.yml": "description: An application.\nlayer: management\nplays: [{tasks: answers, description: At last., at: ready}]\n",
        "roles/app/tasks/answers.yml": "[]",
        "roles/store/meta/component.yml": f"{MANIFEST}plays: [{{tasks: tokens, description: Now., at: ingress, serves: [tokens, app]}}]\n",
    }
    for path, text in files.items():
        (repository / path).parent.mkdir(parents=True, exist_ok=True)
        (repository / path).write_text(text)
    assert run(repository)[0] == 0
    plays = docs.load_yaml(repository / "site.yml")
    assert [play["name"] for play in plays] == [
        "by hand",
        "coordination | store",
        "coordination | store tokens",
        "ingress | web",
        "management | app answers",
    ]
    assert plays[2]["tags"] == ["coordination", "store", "ingress", "web", "management", "app"]
    assert plays[2]["tasks"][0]["ansible.builtin.import_role"] == {"name": "ashlar.stack.store", "tasks_from": "tokens", "rolespec_validate": False}
    assert "# Now.\n- name: coordination | store tokens\n  hosts: store\n  gather_facts: false\n" in (repository / "site.yml").read_text()
    assert run(repository, "--check") == (0, [])
    (repository / "roles/store/tasks/tokens.yml").unlink()
    assert run(repository) == (1, ["docs: roles/store/meta/component.yml: plays names tasks/tokens.yml, which is not there."])
