# SPDX-License-Identifier: Apache-2.0
"""The ways in which obtaining an artifact ends badly."""

from __future__ import annotations


class ArtifactError(Exception):
    """Nothing more can be done: the message says what, where, what is allowed and what to do."""


class SourceUnavailable(ArtifactError):
    """This source cannot be reached or does not have the artifact: the next one is tried."""


class NotAsked(SourceUnavailable):
    """This source is left out for a reason that was said before, or that is the site's own choice: no line of progress is worth it."""


class Unreachable(SourceUnavailable):
    """The server itself does not answer, so asking it for something else is of no use either."""


class Cancelled(ArtifactError):
    """Another artifact failed, so this one is given up; what was obtained of it stays for the next run."""


class ChecksumMismatch(ArtifactError):
    """Bytes are not what was recorded: never falls through to another source."""
