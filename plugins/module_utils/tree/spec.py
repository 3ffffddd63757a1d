# SPDX-License-Identifier: Apache-2.0
"""What is asked of a tree, from the arguments of its task."""

from __future__ import annotations

import re
from typing import Any

from ansible_collections.ashlar.stack.plugins.module_utils.tree.apply import Attributes, TreeError, TreeSpec, Validator, check_path, parse_mode
from ansible_collections.ashlar.stack.plugins.module_utils.tree.units import UnitSpec, valid_name


def attributes(item: dict[str, Any], where: str) -> Attributes:
    """One entry of `files` or `directories`."""
    return Attributes(item["path"], item["owner"], item["group"], parse_mode(item["mode"], where + " " + item["path"]))


def spec_of(arguments: dict[str, Any]) -> TreeSpec:
    """The module's arguments as what the tree shall be; TreeError for what the argument specification cannot tell."""
    name = arguments["name"]
    if not re.match(r"[A-Za-z0-9][A-Za-z0-9_.-]*\Z", name):
        raise TreeError(f"name '{name}' is not allowed; use letters, digits, '_', '-' and '.', beginning with a letter or digit")
    where = f"tree {name}: "
    for unit in arguments["units"]:
        if not valid_name(unit["name"]) or "@." in unit["name"]:
            raise TreeError(where + "unit '{}' is not a unit's name; write it with its suffix, like etcd.service".format(unit["name"]))
        for pattern in unit["watch"] + unit["reload"] + (unit["files"] or []):
            if not pattern.startswith("/"):
                raise TreeError(where + "unit {}: '{}' must be an absolute path or glob".format(unit["name"], pattern))
    names = [unit["name"] for unit in arguments["units"]]
    if len(set(names)) != len(names):
        raise TreeError(
            where + "a unit is named twice in 'units': {}".format(", ".join(sorted({item for item in names if names.count(item) > 1})))
        )
    return TreeSpec(
        name=name,
        files=tuple(attributes(item, where + "files") for item in arguments["files"]),
        directories=tuple(attributes(item, where + "directories") for item in arguments["directories"]),
        links={check_path(item["path"], where + "links"): item["target"] for item in arguments["links"]},
        validate=tuple(Validator(item["path"], tuple(item["command"])) for item in arguments["validate"]),
        units=tuple(
            UnitSpec(
                name=unit["name"],
                state=unit["state"],
                enabled=unit["enabled"],
                files=None if unit["files"] is None else tuple(unit["files"]),
                watch=tuple(unit["watch"]),
                reload=tuple(unit["reload"]),
                own=unit.get("own", True),
            )
            for unit in arguments["units"]
        ),
        absent=arguments["state"] == "absent",
        hold=bool(arguments.get("hold")),
    )
