# SPDX-License-Identifier: Apache-2.0
"""How the web is reached from the controller: proxies and certificate authorities of the environment, redirects, bounded waits.

The environment is curl's: ``https_proxy``, ``http_proxy``, ``no_proxy`` (host names and their suffixes), ``SSL_CERT_FILE``, ``SSL_CERT_DIR``,
and ``REQUESTS_CA_BUNDLE`` or ``CURL_CA_BUNDLE`` for authorities beside the system's.
"""

from __future__ import annotations

import base64
import http.client
import os
import queue
import socket
import ssl
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections import defaultdict
from time import sleep
from typing import Any

from .errors import ArtifactError, NotAsked, SourceUnavailable, Unreachable

CONNECT_SECONDS = 5.0
READ_SECONDS = 30.0
AUTHORITIES = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")


def plain(url: str) -> str:
    """The URL without user and password, for messages."""
    parts = urllib.parse.urlsplit(url)
    return urllib.parse.urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def server(url: str) -> str:
    """Host and port of a URL."""
    return urllib.parse.urlsplit(plain(url)).netloc


def get(url: str, offset: int = 0) -> Any:
    """An open answer, from ``offset`` on where the server can.

    :raises OSError, http.client.HTTPException: when there is none; `reason` says why.
    """
    parts = urllib.parse.urlsplit(url)
    headers = {"User-Agent": "ashlar", "Accept-Encoding": "identity"}
    if parts.scheme not in ("http", "https"):
        raise ArtifactError(f"{plain(url)}: the address of a source begins with http:// or https://")
    if parts.username is not None:
        token = f"{urllib.parse.unquote(parts.username)}:{urllib.parse.unquote(parts.password or '')}"
        headers["Authorization"] = "Basic " + base64.b64encode(token.encode()).decode()
    if offset:
        headers["Range"] = f"bytes={offset}-"
    opener = urllib.request.build_opener(_Http, _Https(context=_authorities()), _Redirects)
    return opener.open(urllib.request.Request(plain(url), headers=headers), timeout=READ_SECONDS)


def reason(error: Exception) -> str:
    """Why a server could not be reached, with what helps where that is known."""
    inner = error.reason if isinstance(error, urllib.error.URLError) else error
    text = str(inner) or type(inner).__name__
    if isinstance(inner, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted ({inner.verify_message}). If a proxy inspects TLS, set REQUESTS_CA_BUNDLE to the file of its CA"
    if "407" in text:
        return f"{text}. Give the proxy its user and password: https_proxy=http://user:password@host:port"
    return text


class Servers:
    """Which servers answer. Each is tried once a run, by whoever needs it first; the others wait for what comes of it, and ask no dead one."""

    def __init__(self, seconds: float = CONNECT_SECONDS) -> None:
        self.seconds = seconds
        self._dead: dict[str, str] = {}
        self._alive: set[str] = set()
        self._locks: dict[str, threading.Lock] = defaultdict(threading.Lock)
        self._lock = threading.Lock()

    def check(self, url: str) -> None:
        """:raises Unreachable: when nothing accepts a connection within seconds; NotAsked: when that is known already."""
        name = server(url)
        with self._lock:
            turn = self._locks[name]
        with turn:
            if name in self._dead:
                raise NotAsked(f"{name} did not answer before ({self._dead[name]})")
            if name not in self._alive:
                host, port, via = route(url)
                problem = _connect(host, port, self.seconds)
                if problem:
                    self._dead[name] = problem
                    raise Unreachable(f"{name} cannot be reached{via}: {problem}")
                self._alive.add(name)

    def bury(self, url: str, error: Exception) -> None:
        """A server that stopped answering is not asked again in this run: every artifact would wait for it."""
        self._dead[server(url)] = str(error)


def route(url: str) -> tuple[str, int, str]:
    """Host and port that a connection for this URL goes to, and " through the proxy ..." where that is one.

    :raises ArtifactError: when the environment names a proxy that can't be used.
    """
    parts = urllib.parse.urlsplit(plain(url))
    host, port = parts.hostname or "", parts.port or {"http": 80, "https": 443}.get(parts.scheme, 443)
    proxy = urllib.request.getproxies().get(parts.scheme)
    if not proxy or urllib.request.proxy_bypass(f"{host}:{port}"):
        return host, port, ""
    name = f"{parts.scheme}_proxy"
    through = urllib.parse.urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    try:
        place = (through.hostname or "", through.port or 80)
    except ValueError:
        place = ("", 0)
    # The value may hold a password, so it is not shown.
    if through.scheme != "http" or not place[0]:
        raise ArtifactError(
            f"the environment variable {name} is not the address of an HTTP proxy; allowed: http://proxy.example.com:3128, "
            "with user:password@ before the host where the proxy asks for them (special characters as %xx)"
        )
    return *place, f" through the proxy {place[0]}:{place[1]}"


def _connect(host: str, port: int, seconds: float) -> str:
    """Why no connection could be made within ``seconds``; "" when one was. Resolvers take as long as they like, so a thread waits for them."""
    end = time.monotonic() + seconds
    answers: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=_try, args=(host, port, seconds, answers), daemon=True).start()
    try:
        return answers.get(timeout=max(end - time.monotonic(), 0.0) + 0.5)
    except queue.Empty:
        return f"no answer within {seconds:.0f} s"


def _try(host: str, port: int, seconds: float, answers: queue.SimpleQueue[str]) -> None:
    problem = ""
    for again in (True, False):
        try:
            socket.create_connection((host, port), timeout=seconds).close()
        except TimeoutError:
            problem = f"no answer within {seconds:.0f} s"
        except OSError as error:
            problem = error.strerror or str(error)
            # A name that does not exist will not exist in a second either.
            if again and getattr(error, "errno", None) != socket.EAI_NONAME:
                sleep(1.0)
                continue
        else:
            problem = ""
        break
    answers.put(problem)


def _authorities() -> ssl.SSLContext:
    """:raises ArtifactError: when a file that the environment names can't be used; OpenSSL itself would trust nobody and say nothing."""
    context = ssl.create_default_context()
    for name in AUTHORITIES:
        path = os.environ.get(name)
        if path:
            try:
                context.load_verify_locations(**{"capath" if os.path.isdir(path) else "cafile": path})
            except (OSError, ssl.SSLError) as error:
                raise ArtifactError(f"the environment variable {name} names {path}, which is no file of certificates in PEM: {error}") from error
    return context


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects, but from https to https only, and takes no password along to another server."""

    def redirect_request(self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> urllib.request.Request | None:
        if req.full_url.startswith("https://") and not newurl.startswith("https://"):
            raise SourceUnavailable(f"{req.full_url} redirects from https to {plain(newurl)}, which is refused")
        following = super().redirect_request(req, fp, code, msg, headers, newurl)
        if following and server(newurl) != server(req.full_url):
            following.remove_header("Authorization")
        return following


class _HttpConnection(http.client.HTTPConnection):
    def connect(self) -> None:
        self.timeout = CONNECT_SECONDS
        super().connect()
        self.sock.settimeout(READ_SECONDS)


class _HttpsConnection(http.client.HTTPSConnection):
    def connect(self) -> None:
        self.timeout = CONNECT_SECONDS
        super().connect()
        self.sock.settimeout(READ_SECONDS)


class _Http(urllib.request.HTTPHandler):
    def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(_HttpConnection, req)


class _Https(urllib.request.HTTPSHandler):
    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(_HttpsConnection, req, context=self._context)  # type: ignore[attr-defined]
