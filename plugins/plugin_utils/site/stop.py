# SPDX-License-Identifier: Apache-2.0
"""How the inventory plugins end where something is wrong: with one error, and with nothing being run."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import NoReturn

from ansible import context
from ansible.errors import AnsibleError, AnsibleParserError, ExitCode
from ansible.utils.display import Display
from ansible_collections.ashlar.stack.plugins.plugin_utils.site.models import Problem, SiteError
from ansible_collections.ashlar.stack.plugins.plugin_utils.site.reading import read_yaml
from ansible_collections.ashlar.stack.plugins.plugin_utils.site.report import report


def stop(problems: Iterable[Problem]) -> NoReturn:
    """Ends the program with one error that says all problems.

    Ansible would go on: try its other plugins on the same file, say each of their failures (and ours several times over) as warnings,
    and run the playbook on whatever hosts it has unless any_unparsed_is_failed is set. A site that is wrong must not depend on that.

    :raises AnsibleParserError: where there is no program of Ansible's to end, but somebody else's that uses its API.
    """
    message = report(problems, os.getcwd())
    if not context.CLIARGS:
        raise AnsibleParserError(message)
    Display().error(message)
    raise SystemExit(int(ExitCode.PARSER_ERROR))


def unreadable(path: str, error: AnsibleError) -> list[Problem]:
    """Why Ansible could not read the file of a plugin; in our words, which give the line, where they say it too."""
    try:
        read_yaml(Path(path))
    except SiteError as ours:
        return ours.problems
    return [Problem(path, (), f"cannot be read: {error.message}")]
