# SPDX-License-Identifier: Apache-2.0
"""What of a state matters here, wherever it was read from. Values that the state marks as sensitive are not in it, but for outputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any


class StateFault(Exception):
    """A state can't be had, or isn't one. The text says what was found and what to do, and starts with a verb: ``is empty. ...``."""


@dataclass(frozen=True, slots=True)
class Output:
    """An output's value as in JSON."""

    value: Any
    sensitive: bool


@dataclass(frozen=True, slots=True)
class Resource:
    """One object of a resource or, if not ``managed``, of a data source. ``address`` is the tool's: ``module.pool["a"].aws_instance.node[0]``."""

    address: str
    type: str
    attributes: Mapping[str, Any]
    tainted: bool = False
    managed: bool = True


@dataclass(frozen=True, slots=True)
class State:
    """``resources`` reads them when they are asked for, since most states have the output and thousands of resources."""

    outputs: Mapping[str, Output]
    resources: Callable[[], Sequence[Resource]]


@dataclass(frozen=True, slots=True)
class Pending:
    """Nothing was applied yet. ``reason`` is the rest of a sentence that starts with the source: ``has no state yet``."""

    reason: str
