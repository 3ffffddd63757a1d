# SPDX-License-Identifier: Apache-2.0
"""Everything that is wrong with what a site watches, as one message."""

from __future__ import annotations

from collections.abc import Sequence

from ansible_collections.ashlar.stack.plugins.plugin_utils.site.models import Problem
from ansible_collections.ashlar.stack.plugins.plugin_utils.site.report import sentence


class ObservabilityError(Exception):
    """What the site watches can't be laid down; the message has every reason."""


def stop(problems: Sequence[Problem], base: str) -> None:
    """Ends the run with all problems, files named relative to ``base``.

    :raises ObservabilityError: when there is a problem.
    """
    lines = list(dict.fromkeys(sentence(problem, base) for problem in problems))
    if len(lines) == 1:
        raise ObservabilityError(f"What the site watches is wrong; no host was touched.\n  {lines[0]}")
    if lines:
        numbered = "\n".join(f"  {number}. {line}" for number, line in enumerate(lines, 1))
        raise ObservabilityError(f"What the site watches is wrong, for {len(lines)} reasons; no host was touched.\n{numbered}")
