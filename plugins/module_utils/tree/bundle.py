# SPDX-License-Identifier: Apache-2.0
"""The bundle: all files of a tree as one string, packed by the controller and unpacked on the host."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import zlib
from dataclasses import dataclass

FORMAT = 1


class BundleError(ValueError):
    """The string is not a bundle, or not all of one."""


@dataclass(frozen=True)
class Source:
    """One file as the controller sends it: its path on the host, its bytes, and whether the source was executable."""

    path: str
    content: bytes
    executable: bool = False

    @property
    def digest(self) -> str:
        """sha256 of the content, 64 hexadecimal digits."""
        return hashlib.sha256(self.content).hexdigest()


def pack(sources: list[Source]) -> str:
    """All sources as base64(zlib(one line of JSON that says path, size and mode of each, then the bytes of each in that order))."""
    ordered = sorted(sources, key=lambda source: source.path)
    header = {"format": FORMAT, "files": [[source.path, len(source.content), source.executable] for source in ordered]}
    raw = b"".join([json.dumps(header).encode(), b"\n"] + [source.content for source in ordered])
    return base64.b64encode(zlib.compress(raw, 6)).decode()


def unpack(text: str) -> list[Source]:
    """What `pack` was given, ordered by path; BundleError when the string is damaged."""
    try:
        raw = zlib.decompress(base64.b64decode(text, validate=True))
        line, _, body = raw.partition(b"\n")
        header = json.loads(line)
        if header["format"] != FORMAT:
            raise BundleError(f"the bundle has format {header['format']}, this module reads format {FORMAT}")
        sources = []
        start = 0
        for path, size, executable in header["files"]:
            sources.append(Source(path, body[start : start + size], executable))
            start += size
    except (binascii.Error, zlib.error, ValueError, KeyError, TypeError) as error:
        if isinstance(error, BundleError):
            raise
        raise BundleError(f"the bundle is damaged ({error}); the module runs through its action plugin, which makes it") from None
    if start != len(body):
        raise BundleError(f"the bundle is damaged: {start} bytes announced, {len(body)} there")
    return sources
