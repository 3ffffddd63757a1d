# SPDX-License-Identifier: Apache-2.0
"""States as texts: what is read of a good one, and that a damaged one ends in a sentence wherever it is damaged."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path
from typing import Any

import pytest
from ansible.errors import AnsibleParserError
from ansible_collections.ashlar.stack.plugins.plugin_utils.machines.states.model import StateFault
from ansible_collections.ashlar.stack.plugins.plugin_utils.machines.states.text import parse_outputs, parse_shown, parse_state
from states import aws, configuration, hosts_of, machine, resource, state, write

LIMIT = 10 * 1048576


def text(content: Any) -> bytes:
    return json.dumps(content).encode()


def test_managed_objects_of_modules_counts_and_keys_are_read_and_no_others() -> None:
    raw = state(
        resources=[
            resource("aws_instance", aws(1)),
            resource("aws_instance", {"index_key": 0, "attributes": aws(2)}, {"index_key": 1, "attributes": aws(3), "deposed": "8a3f"}, name="many"),
            resource("aws_instance", {"index_key": 'a"b', "attributes": aws(4), "status": "tainted"}, module='module.pool["x"]'),
            resource("aws_instance", aws(5), mode="data"),
        ]
    )
    assert [(one.address, one.attributes["id"], one.tainted, one.managed) for one in parse_state(text(raw), LIMIT).resources()] == [
        ("aws_instance.node", "i-0001", False, True),
        ("aws_instance.many[0]", "i-0002", False, True),
        ('module.pool["x"].aws_instance.node["a\\"b"]', "i-0004", True, True),
        ("data.aws_instance.node", "i-0005", False, False),
    ]


def test_shown_resources_are_those_of_all_modules() -> None:
    def one(address: str, **more: Any) -> dict[str, Any]:
        return {"address": address, "mode": "managed", "type": "aws_instance", "values": {"id": address}, **more}

    raw = {
        "format_version": "1.0",
        "values": {
            "root_module": {
                "resources": [one("aws_instance.a"), one("data.aws_instance.b", mode="data"), one("aws_instance.c", deposed_key="1")],
                "child_modules": [
                    {"address": "module.x", "resources": [one("module.x.aws_instance.d", tainted=True)], "child_modules": [{"resources": [one("module.x.y")]}]},
                    {"address": "module.z", "resources": [one("module.z.aws_instance.e")]},
                ],
            }
        },
    }
    shown = parse_shown(text(raw), LIMIT)
    assert [found.address for found in shown if not found.managed] == ["data.aws_instance.b"]
    assert [(found.address, found.tainted) for found in shown if found.managed] == [
        ("aws_instance.a", False),
        ("module.x.aws_instance.d", True),
        ("module.x.y", False),
        ("module.z.aws_instance.e", False),
    ]
    assert parse_shown(b'{"format_version":"1.0"}', LIMIT) == []


def test_of_attributes_what_is_sensitive_is_not_read() -> None:
    attributes = {
        "id": "i",
        "user_data": "s3cret",
        "tags": {"a": "s3cret", "b": "c"},
        "account": [{"name": "ops", "password": "s3cret"}, {"name": "dev"}],
        "keys": [{"key": "s3cret"}],
        "open": 1,
    }

    def path(*steps: Any) -> list[Any]:
        return [{"type": "get_attr", "value": step} if isinstance(step, str) else {"type": "index", "value": step} for step in steps]

    paths = [
        path("user_data"),
        path("tags", {"value": "a", "type": "string"}),
        path("account", {"value": 0, "type": "number"}, "password"),
        path("keys", {"value": {"key": "s3cret"}, "type": ["object", {"key": "string"}]}, "key"),
    ]
    marks = {"user_data": True, "tags": {"a": True}, "account": [{"password": True}], "keys": True, "open": False, "id": {}}
    raw = state(resources=[resource("x", {"attributes": attributes, "sensitive_attributes": paths})])
    (of_file,) = parse_state(text(raw), LIMIT).resources()
    shown = {"format_version": "1.1", "values": {"root_module": {"resources": [{"address": "x.y", "mode": "managed", "type": "x"}]}}}
    shown["values"]["root_module"]["resources"][0] |= {"values": attributes, "sensitive_values": marks}  # type: ignore[index]
    (of_tool,) = parse_shown(text(shown), LIMIT)
    seen = {"id": "i", "tags": {"b": "c"}, "account": [{"name": "ops"}, {"name": "dev"}], "open": 1}
    assert {name: value for name, value in of_file.attributes.items() if value is not None} == of_tool.attributes == seen


@pytest.mark.parametrize("paths", [[[{"value": 7}]], [[{}]], [[]], ["x"], [[{"value": "id"}, {"value": "deep"}], [None]]])
def test_sensitive_paths_that_cannot_be_followed_hide_everything(paths: list[Any]) -> None:
    raw = state(resources=[resource("x", {"attributes": {"id": "s3cret"}, "sensitive_attributes": paths})])
    (found,) = parse_state(text(raw), LIMIT).resources()
    assert "s3cret" not in str(found.attributes)


def test_attributes_of_before_terraform_0_12_are_read() -> None:
    flat = {
        "id": "i-1",
        "tags.%": "2",
        "tags.Name": "web",
        "tags.kubernetes.io/cluster/x": "owned",
        "network_interface.#": "2",
        "network_interface.10.ip": "10.0.0.10",
        "network_interface.9.ip": "10.0.0.9",
        "network_interface.9.aliases.#": "1",
        "network_interface.9.aliases.0": "10.0.0.99",
        "volumes.#": "0",
    }
    raw = state(resources=[resource("x", {"attributes_flat": flat, "attributes": None}, {"attributes": {"id": "i-2"}})])
    assert [one.attributes for one in parse_state(text(raw), LIMIT).resources()] == [
        {
            "id": "i-1",
            "tags": {"Name": "web", "kubernetes.io/cluster/x": "owned"},
            "network_interface": [{"ip": "10.0.0.9", "aliases": ["10.0.0.99"]}, {"ip": "10.0.0.10"}],
            "volumes": [],
        },
        {"id": "i-2"},
    ]


@pytest.mark.parametrize("flat", [[], "x", {"a": 1}, {".".join("a" * 5000): "x"}], ids=["list", "text", "number", "deep"])
def test_flat_attributes_of_another_form_are_damaged(flat: Any) -> None:
    raw = state(resources=[resource("x", {"attributes_flat": flat, "attributes": None})])
    with pytest.raises(StateFault, match="is damaged"):
        parse_state(text(raw), LIMIT).resources()


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_a_state_may_have_a_byte_order_mark_or_be_utf_16(encoding: str) -> None:
    data = json.dumps(state({"knoten-ä": machine()}), ensure_ascii=False).encode(encoding)
    assert list(parse_state(data, LIMIT).outputs["nodes"].value) == ["knoten-ä"]


@pytest.mark.parametrize("data", [b"\xef\xbb\xbf", "\ufeff\r\n".encode("utf-16-le"), b"\0" * 4096])
def test_a_state_without_a_character_is_empty(data: bytes) -> None:
    with pytest.raises(StateFault, match="is empty, which no state is"):
        parse_state(data, LIMIT)


def test_an_encoding_that_breaks_off_is_named() -> None:
    with pytest.raises(StateFault, match="is not UTF-16 text"):
        parse_state(json.dumps(state()).encode("utf-16")[:-1], LIMIT)


def test_an_output_is_sensitive_unless_it_plainly_is_not() -> None:
    outputs = parse_outputs(b'{"a":{"value":1},"b":{"value":1,"sensitive":true},"c":{"value":1,"sensitive":"?"},"d":{"value":1,"sensitive":false}}', LIMIT)
    assert {name: output.sensitive for name, output in outputs.items()} == {"a": False, "b": True, "c": True, "d": False}


WRONG: list[Any] = [None, True, -1, 1.5, "", "x", [], [1], [[]], {}, {"x": 1}, {"value": 1}]


def test_no_part_of_another_form_ends_in_an_exception() -> None:
    good = state({"a": machine()}, [resource("aws_instance", {"attributes": aws(), "sensitive_attributes": [[{"value": "x"}]]}, module="module.a")])
    shown = {
        "format_version": "1.0",
        "values": {
            "root_module": {"resources": [{"address": "a.b", "mode": "managed", "type": "a", "values": {}, "sensitive_values": {}}], "child_modules": [{}]}
        },
    }
    places = 0
    for content, parse in ((good, lambda data: parse_state(data, LIMIT).resources()), (shown, lambda data: parse_shown(data, LIMIT))):
        for path in paths_of(content):
            for value in WRONG:
                places += 1
                try:
                    parse(text(replaced(content, path, value)))
                except StateFault as fault:
                    assert str(fault)[0].islower() and str(fault).endswith((".", "?"))
    assert places > 500


@pytest.mark.parametrize("kind", ["output", "resources"])
def test_a_state_damaged_anywhere_is_read_or_refused_but_never_ends_in_a_traceback(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    whole = state({"a": machine(1), "b": machine(2)}) if kind == "output" else state(resources=[resource("aws_instance", aws(1), aws(2))])
    data = text(whole)
    file = configuration(tmp_path, user="admin")
    chance = random.Random(kind)
    damaged = [data[:length] for length in range(0, len(data), 7)]
    for _ in range(400):
        flipped = bytearray(data)
        for _ in range(chance.randint(1, 3)):
            flipped[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        damaged.append(bytes(flipped))
    for _ in range(100):
        start = chance.randrange(len(data))
        damaged.append(data[:start] + data[start + chance.randint(1, 40) :])
    refused = 0
    for one in damaged:
        write(tmp_path / "state.tfstate", one)
        try:
            hosts_of(file)
        except AnsibleParserError as error:
            refused += 1
            assert re.match(r"The site cannot be planned(, for \d+ reasons)?; no host was touched\.\n", str(error))
            str(error).encode()
    assert refused > len(damaged) // 2


def paths_of(content: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in nested mappings and lists."""
    parts = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    return [path, *(found for key, part in parts for found in paths_of(part, (*path, key)))]


def replaced(content: Any, path: tuple[Any, ...], value: Any) -> Any:
    if not path:
        return value
    copy = dict(content) if isinstance(content, dict) else list(content)
    copy[path[0]] = replaced(copy[path[0]], path[1:], value)
    return copy
