# SPDX-License-Identifier: Apache-2.0
"""The three ways in which obtaining an artifact ends badly."""

from __future__ import annotations


class ArtifactError(Exception):
    """Nothing more can be done: the message says what, where, what is allowed and what to do."""


class SourceUnavailable(ArtifactError):
    """This source cannot be reached or does not have the artifact: the next one is tried."""


class ChecksumMismatch(ArtifactError):
    """Bytes are not what was recorded: never falls through to another source."""
