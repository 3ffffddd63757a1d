# SPDX-License-Identifier: Apache-2.0
"""How making or opening a backup ends badly."""

from __future__ import annotations

import errno


class BackupError(Exception):
    """Nothing more can be done: the message says what, where, what is allowed and what to do."""


FULL = (errno.ENOSPC, errno.EDQUOT)


def explained(error: OSError, place: str) -> BackupError:
    """The sentence for what the controller's file system said; ``place`` is the file or folder where the error names none."""
    where = error.filename or place
    if error.errno in FULL:
        return BackupError(f"{where}: no space is left on its disk, so nothing was kept there. Free some, or choose another place.")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return BackupError(f"{where}: {error.strerror}. The user who runs Ansible must be allowed to read and write there.")
    return BackupError(f"{where}: {error.strerror or error}. Correct the path, or look at the disk.")
