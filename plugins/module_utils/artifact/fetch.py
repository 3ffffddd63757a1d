# SPDX-License-Identifier: Apache-2.0
"""Downloads blobs from the artifact server: mutual TLS, hashed while written, resumed after an interruption."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import ssl
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from ansible_collections.ashlar.stack.plugins.module_utils.host.folders import make_folder

CHUNK = 1 << 18
CONNECT_SECONDS = 5
SOCKET_SECONDS = 30
ATTEMPTS = 5
PAUSE_SECONDS = 1.0


@dataclass(frozen=True)
class Source:
    """Where from, and by which PEM files this host shows who it is."""

    address: str
    port: int
    certificate: str
    key: str
    authority: str


class FetchError(Exception):
    """Why blobs could not be had from the server; the controller can still send them."""


def context_of(source: Source) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=source.authority)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(source.certificate, source.key)
    return context


def fetch(source: Source, blobs: Mapping[str, int], folder: str, pause: float = PAUSE_SECONDS) -> None:
    """Brings every blob (sha256 -> size, bytes) to ``folder/<sha256>``, where it appears verified only. Raises FetchError.

    What an earlier attempt left in ``<sha256>.part`` is hashed and continued, so an interruption costs only what was under way.
    """
    if not blobs:
        return
    try:
        context = context_of(source)
    except (OSError, ssl.SSLError) as error:
        raise FetchError(f"the certificate {source.certificate} cannot be used: {error}") from None
    make_folder(folder)
    workers = max(1, min(4, os.cpu_count() or 1, len(blobs)))
    # Largest first and spread by size, so that all workers end at about the same time.
    shares: list[list[str]] = [[] for _ in range(workers)]
    loads = [0] * workers
    for sha256 in sorted(blobs, key=lambda s: -blobs[s]):
        lightest = loads.index(min(loads))
        shares[lightest].append(sha256)
        loads[lightest] += blobs[sha256]
    with ThreadPoolExecutor(max_workers=workers) as pool:
        for done in [pool.submit(_fetch_share, source, context, share, blobs, folder, pause) for share in shares]:
            done.result()


def _fetch_share(source: Source, context: ssl.SSLContext, share: list[str], blobs: Mapping[str, int], folder: str, pause: float) -> None:
    """One connection for one worker's blobs; a new one after each failure, ATTEMPTS at most without progress."""
    connection: http.client.HTTPSConnection | None = None
    try:
        for sha256 in share:
            attempts = 0
            while True:
                path = f"{folder}/{sha256}.part"
                before = _size(path)
                try:
                    if connection is None:
                        connection = http.client.HTTPSConnection(source.address, source.port, timeout=CONNECT_SECONDS, context=context)
                        connection.connect()
                        connection.sock.settimeout(SOCKET_SECONDS)
                    _fetch_one(connection, sha256, blobs[sha256], path)
                    os.replace(path, f"{folder}/{sha256}")
                    break
                except ssl.SSLCertVerificationError as error:
                    raise FetchError(f"{source.address}:{source.port} does not prove that it is the artifact server: {error.verify_message}") from None
                except (OSError, http.client.HTTPException) as error:
                    if connection is not None:
                        connection.close()
                    connection = None
                    attempts = 0 if _size(path) > before else attempts + 1
                    if attempts >= ATTEMPTS:
                        raise FetchError(f"{source.address}:{source.port}: {error or type(error).__name__}") from None
                    time.sleep(pause)
    finally:
        if connection is not None:
            connection.close()


def _fetch_one(connection: http.client.HTTPSConnection, sha256: str, size: int, path: str) -> None:
    state = hashlib.sha256()
    with open(path, "ab+") as stream:
        stream.seek(0)
        while True:
            chunk = stream.read(1 << 20)
            if not chunk:
                break
            state.update(chunk)
        start = stream.tell()
        if start > size:
            stream.truncate(0)
            state, start = hashlib.sha256(), 0
        if start < size:
            connection.request("GET", f"/{sha256}", headers={"Range": f"bytes={start}-"} if start else {})
            response = connection.getresponse()
            if response.status != (206 if start else 200):
                response.read()
                raise FetchError(f"{connection.host}:{connection.port} answers {response.status} for {sha256}")
            buffer = memoryview(bytearray(CHUNK))
            while True:
                count = response.readinto(buffer)
                if not count:
                    break
                state.update(buffer[:count])
                stream.write(buffer[:count])
                start += count
            if start < size:
                raise http.client.IncompleteRead(b"", size - start)
    if state.hexdigest() != sha256:
        with contextlib.suppress(OSError):
            os.unlink(path)
        raise FetchError(f"{connection.host}:{connection.port} sent {sha256} with another content; it was discarded")


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0
