# SPDX-License-Identifier: Apache-2.0
"""The check of machines is the schema's, field by field; what is wrong is said in a sentence."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from ansible_collections.ashlar.stack.plugins.plugin_utils.machines.contract import FIELDS, Machine, as_raw, parse_machines
from jsonschema import Draft202012Validator, FormatChecker
from states import REPOSITORY, machine

SCHEMA = json.loads((REPOSITORY / "schemas" / "machines.json").read_text())
VALIDATOR = Draft202012Validator(SCHEMA, format_checker=FormatChecker(["ipv4"]))
BASTION = {"host": "bastion.example.com", "user": "jump", "port": 2222}
VALUES: list[Any] = [
    None, "", "a", "A b", "admin", "x" * 64, "10.0.0.1", "10.0.0.256", "10.0.0.1/24", "::1", "010.0.0.1", "ssh-rsa AAAA==", "ssh-rsa AAAA== me", "/dev/x",
    0, 1, -1, 22, 22.0, 1.5, 65536, True, False, [], ["worker"], ["worker", "worker"], ["wroker"], [1], ["ssh-rsa AAAA"], [{}], {}, {"a": "b"}, {"a": 1},
    {"control": "x"}, {"master": "x"}, {"control": ""}, {"host": "h", "user": "u"}, {"host": "h"}, {"host": "", "user": "u"}, {"host": "h", "user": "U"},
    {"protocol": "ipmi", "address": "x"}, {"protocol": "smoke", "address": "x"}, [{"name": "a", "size_gib": 1, "device": "/x"}],
    [{"name": "a", "size_gib": 0, "device": "/x"}], [{"name": "a", "size_gib": 2.0, "device": "/x"}], [{"name": "A", "size_gib": 1, "device": "/x"}],
    [{"name": "a", "size_gib": 1, "device": "x"}], [{"name": "a", "size_gib": 1}], {"a": "x" * 64},
]  # fmt: skip


def test_the_fields_are_the_schemas() -> None:
    assert set(FIELDS) == set(SCHEMA["$defs"]["machine"]["properties"]) == set(Machine.__dataclass_fields__)


@pytest.mark.parametrize("field", [*FIELDS, "bastion.port", "flavour"])
def test_every_value_is_judged_as_the_schema_judges_it(field: str) -> None:
    for value in VALUES:
        raw = {**machine(), "bastion": dict(BASTION)}
        outer, _, inner = field.partition(".")
        if inner:
            raw[outer][inner] = value
        else:
            raw[outer] = value
        machines, problems = parse_machines({"node-1": raw}, "output nodes")
        assert (not problems) == VALIDATOR.is_valid({"node-1": raw}), (field, value, problems)
        assert bool(machines) != bool(problems)


@pytest.mark.parametrize("field", ["classes", "private_ip", "user", "id", "labels"])
def test_what_is_absent_is_judged_as_the_schema_judges_it(field: str) -> None:
    raw = {key: value for key, value in machine().items() if key != field}
    assert (not parse_machines({"a": raw}, "x")[1]) == VALIDATOR.is_valid({"a": raw})


@pytest.mark.parametrize("name", ["a", "a-1", "a.b", "A", "a_b", "-a", "a-", "", "a..b", "a" * 63, "a" * 64, "a b", "a\n"])
def test_names_are_judged_as_the_schema_judges_them(name: str) -> None:
    assert (not parse_machines({name: machine()}, "x")[1]) == (VALIDATOR.is_valid({name: machine()}) and "\n" not in name)


def test_machines_are_the_same_after_they_were_written() -> None:
    raw = {"a": {**machine(1), "bastion": BASTION}, "b": {"classes": ["edge"], "private_ip": "10.0.0.2", "user": "root"}}
    machines, problems = parse_machines(raw, "x")
    assert not problems
    written = json.loads(json.dumps({name: as_raw(one) for name, one in machines.items()}))
    assert written["b"] == raw["b"]
    assert parse_machines(written, "x") == (machines, [])
    assert VALIDATOR.is_valid(written)


def test_all_that_is_wrong_is_said_with_its_place() -> None:
    raw = {"a": machine(private_ip="10.0.0.300", classes=["wroker"]), "b": "x", "c": {**machine(3), "labels": {"n": 1}, "flavor": "x"}}
    machines, problems = parse_machines(raw, "output nodes")
    assert not machines
    assert {".".join(str(part) for part in problem.path): problem.text for problem in problems} == {
        "a.classes.0": 'is "wroker". Allowed: control, worker, edge or storage (Did you mean "worker"?).',
        "a.private_ip": 'is "10.0.0.300". Allowed: an IPv4 address without a prefix length, for example 10.0.0.11.',
        "b": 'is "x". Allowed: a mapping of id, classes, private_ip, public_ip, user, port, zone, region, labels, volumes, bastion, ssh_host_keys, '
        "load_balancers and management.",
        "c.flavor": "is an unknown field. Allowed: id, classes, private_ip, public_ip, user, port, zone, region, labels, volumes, bastion, ssh_host_keys, "
        "load_balancers and management.",
        "c.labels.n": "is 1. Allowed: a text of at most 63 characters; numbers and true/false in quotation marks.",
    }


def test_values_of_a_sensitive_output_are_never_said() -> None:
    for field in FIELDS:
        for value in ("s3cret value", ["s3cret"], {"host": "s3cret x", "user": "s3cret x"}, {"protocol": "s3cret", "address": ""}):
            for problem in parse_machines({"a": {**machine(), field: value}}, "x", secret=True)[1]:
                assert "s3cret" not in problem.text


def test_no_value_of_any_form_ends_in_an_exception() -> None:
    chance = random.Random(4)
    for _ in range(3000):
        raw: Any = {**machine(), "bastion": dict(BASTION)}
        for _ in range(chance.randint(1, 4)):
            one, other = chance.choice(VALUES), chance.choice(VALUES)
            raw[chance.choice([*FIELDS, "x"])] = chance.choice([*VALUES, [one, other], {"host": one, "user": other}, {"protocol": one, "address": other}])
        machines, problems = parse_machines({"a": raw}, "x")
        assert (not problems) == VALIDATOR.is_valid({"a": raw}), raw
        assert bool(machines) != bool(problems)
