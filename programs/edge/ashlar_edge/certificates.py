# SPDX-License-Identifier: Apache-2.0
"""Proves that a certificate can be used before HAProxy sees it: one that can't be would keep all others from being loaded."""

from __future__ import annotations

import json
import os
import re
import ssl
import tempfile
import time
from collections.abc import Mapping, Sequence
from typing import Any

from .model import Certificate, EdgeError, Refusal, shown
from .routes import host_problem

PEM = re.compile(r"-----BEGIN ([A-Z0-9 ]+)-----\n[A-Za-z0-9+/=\n]+-----END \1-----\n?")


def blocks(text: str) -> tuple[list[str], list[str]]:
    """(certificates, keys) of a PEM text, each clean; whatever stands between is left out."""
    certificates, keys = [], []
    for match in PEM.finditer(text.replace("\r\n", "\n")):
        kind, block = match[1], match[0].rstrip("\n") + "\n"
        if kind == "CERTIFICATE":
            certificates.append(block)
        elif kind.endswith("PRIVATE KEY"):
            keys.append(block)
    return certificates, keys


def problem(pem: str, now: float) -> str:
    """Why OpenSSL does not take certificate and key, or clients would not; "" when they do. `now` is in seconds since the epoch."""
    descriptor, path = tempfile.mkstemp(prefix="ashlar-edge-")
    try:
        with os.fdopen(descriptor, "w") as stream:
            stream.write(pem)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(path, password=lambda: "")
        # The only reader of fields that the standard library has; without it the end is left to clients to notice.
        decode: Any = getattr(getattr(ssl, "_ssl", None), "_test_decode_cert", None)
        if decode is not None:
            ends = ssl.cert_time_to_seconds(decode(path)["notAfter"])
            if ends <= now:
                return f"it ended on {time.strftime('%Y-%m-%d', time.gmtime(ends))}"
    except (ssl.SSLError, ValueError, OSError) as error:
        reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or str(error)
        return f"OpenSSL does not take it together with its key ({str(reason).replace('_', ' ').lower()})"
    finally:
        os.unlink(path)
    return ""


def parse(text: str, where: str) -> list[Mapping[str, Any]]:
    """The list of the users' certificates; EdgeError when it is none."""
    try:
        listed = json.loads(text)
    except ValueError as error:
        raise EdgeError(f"{where} is not JSON ({error}); lay it down again with site.yml") from None
    if not isinstance(listed, list) or not all(isinstance(one, dict) for one in listed):
        raise EdgeError(f"{where} must be a list of certificates; lay it down again with site.yml")
    return listed


def usable(listed: Sequence[Mapping[str, Any]], now: float) -> tuple[list[Certificate], list[Refusal]]:
    """Certificates that can be used, in the order given, and what is wrong with the others."""
    taken: list[Certificate] = []
    refusals: list[Refusal] = []
    seen: set[str] = set()
    for place, raw in enumerate(listed):
        hosts = [str(host).lower().rstrip(".") for host in raw.get("hosts") or []]
        label = f"certificate {place + 1} ({', '.join(hosts[:3]) or 'without hosts'})"

        def refuse(reason: str, label: str = label) -> None:
            refusals.append(Refusal("haproxy_certificates", label, reason + "; its hosts are served with the edge's default certificate"))

        bad = [host for host in hosts if host_problem(host)]
        if not hosts or bad:
            refuse(f"hosts must be a list of names, found {shown(bad[0] if bad else raw.get('hosts'))}")
            continue
        again = sorted(set(hosts) & seen)
        if again:
            refuse(f"{again[0]} has a certificate already")
            continue
        certificates, keys = blocks(str(raw.get("certificate") or "") + "\n" + str(raw.get("key") or ""))
        if not certificates or len(keys) != 1:
            refuse("a certificate and one key without a passphrase, both in PEM, are needed")
            continue
        pem = "".join(certificates) + keys[0]
        wrong = problem(pem, now)
        if wrong:
            refuse(wrong)
            continue
        seen.update(hosts)
        taken.append(Certificate(f"user{place + 1}", tuple(sorted(hosts)), pem))
    return taken, refusals
