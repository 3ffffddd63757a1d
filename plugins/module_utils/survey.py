# SPDX-License-Identifier: Apache-2.0
"""What a host has of what tasks ask for later in the run, so that those with nothing to do need not ask it again.

The survey names what is intact, each kind in a way that its action plugin can compare with what it is about to send. Anything that cannot be
told for sure is left out, and its own task looks.
"""

from __future__ import annotations

from typing import Any

from ansible_collections.ashlar.stack.plugins.module_utils.artifact.install import Host, InstallError
from ansible_collections.ashlar.stack.plugins.module_utils.certificates import installed_digest
from ansible_collections.ashlar.stack.plugins.module_utils.host.files import FileError, host_files
from ansible_collections.ashlar.stack.plugins.module_utils.host.run import HostRunner
from ansible_collections.ashlar.stack.plugins.module_utils.tree.survey import trees


def survey() -> dict[str, Any]:
    """`trees`: name -> fingerprint; `certificates`: a digest; `artifacts`: name -> version, digest and number of versions kept, with the platform."""
    found: dict[str, Any] = {}
    try:
        with host_files("/") as files:
            found["trees"] = trees(files, HostRunner())
    except (FileError, OSError):
        pass
    found["certificates"] = installed_digest()
    try:
        found["artifacts"] = Host().survey()
    except (InstallError, OSError):
        pass
    return found
