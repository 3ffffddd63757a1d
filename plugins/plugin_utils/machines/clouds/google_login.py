# SPDX-License-Identifier: Apache-2.0
"""Google's application default credentials, in the order of https://cloud.google.com/docs/authentication/application-default-credentials.

1. the file that GOOGLE_APPLICATION_CREDENTIALS names, 2. the one that ``gcloud auth application-default login`` wrote, 3. the metadata server of a
machine in Google's cloud. Files of the types ``service_account`` (RFC 7523) and ``authorized_user`` (RFC 6749, section 6) are understood.
"""

from __future__ import annotations

import base64
import json
import os
import threading
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from ansible_collections.ashlar.stack.plugins.plugin_utils.machines.clouds.common import CloudError, Question
from ansible_collections.ashlar.stack.plugins.plugin_utils.machines.clouds.wire import Refused, any_error, call_api, connection_class, transient_error
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from libcloud.common.base import Connection, JsonResponse

SCOPE = "https://www.googleapis.com/auth/compute.readonly"
TOKEN_URI = "https://oauth2.googleapis.com/token"
METADATA = "metadata.google.internal"
METADATA_TIMEOUT = 3.0
"""Seconds; the server is on the machine itself or not there at all."""
GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
NEEDED = {
    "service_account": ("client_email", "private_key"),
    "authorized_user": ("client_id", "client_secret", "refresh_token"),
}
HOW = (
    "Name the key file of a service account by GOOGLE_APPLICATION_CREDENTIALS, or log in with gcloud auth application-default login, "
    "or run on a machine of Google's cloud that has a service account."
)


class Login:
    """Who asks, and a token for it, kept in memory only. What libcloud wants of a credential is its ``access_token``."""

    def __init__(self, question: Question, source: str, raw: Mapping[str, str], project: str) -> None:
        self.question, self.source, self.raw, self.project = question, source, raw, project
        self._token, self._until = "", 0.0
        self._lock = threading.Lock()

    @property
    def who(self) -> str:
        """For errors."""
        return self.raw.get("client_email") or f"the user of {self.source}"

    @property
    def secrets(self) -> tuple[str | None, ...]:
        return (self.raw.get("private_key"), self.raw.get("client_secret"), self.raw.get("refresh_token"), self._token)

    @property
    def access_token(self) -> str:
        """Valid for two minutes at least. :raises CloudError: Google gives none."""
        with self._lock:
            if time.time() > self._until - 120:
                answer = self._fetch()
                token, seconds = answer.get("access_token"), answer.get("expires_in", 3600)
                if not isinstance(token, str) or not isinstance(seconds, int):
                    raise CloudError(f"{self._server()} gave an answer without a token. See that token_uri in {self.source} is right.")
                self._token, self._until = token, time.time() + seconds
            return self._token

    def _server(self) -> str:
        return self.raw.get("token_uri") or TOKEN_URI

    def _fetch(self) -> Mapping[str, Any]:
        if not self.raw:
            answer = _metadata("/instance/service-accounts/default/token", self.question)
            return answer if isinstance(answer, Mapping) else {}
        if self.raw["type"] == "service_account":
            form = {"grant_type": GRANT, "assertion": self._assertion()}
        else:
            form = {"grant_type": "refresh_token", **{key: self.raw[key] for key in NEEDED["authorized_user"]}}
        server = self._server()

        def explain(refused: Refused) -> CloudError:
            bad = transient_error(refused, server, self.question, "a login")
            if bad:
                return bad
            return CloudError(
                f"Google does not accept {self.who} ({refused.reason or refused.status}: {refused.said}). The key was deleted or the login has expired; "
                f"make a new key or log in again (gcloud auth application-default login), and see that this machine's clock is right. From {self.source}."
            )

        connection = _Token(server, self.question.timeout, connection_class(self.question.verify))
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        call = lambda: connection.request("", method="POST", data=urlencode(form), headers=headers).object  # noqa: E731
        answer = call_api(call, server, self.question, explain, (*self.secrets, form.get("assertion")))
        return answer if isinstance(answer, Mapping) else {}

    def _assertion(self) -> str:
        try:
            key = load_pem_private_key(self.raw["private_key"].encode(), password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            key = None
        if not isinstance(key, RSAPrivateKey):
            raise CloudError(f"private_key in {self.source} is no RSA key in PEM. Download the key file again.")
        now = int(time.time())
        claims = {"iss": self.raw["client_email"], "scope": SCOPE, "aud": self._server(), "iat": now, "exp": now + 3600}
        header = {"alg": "RS256", "typ": "JWT", **({"kid": self.raw["private_key_id"]} if self.raw.get("private_key_id") else {})}
        signed = f"{_encoded(json.dumps(header).encode())}.{_encoded(json.dumps(claims).encode())}"
        return f"{signed}.{_encoded(key.sign(signed.encode(), PKCS1v15(), SHA256()))}"


class _Response(JsonResponse):
    parse_error = any_error


class _Token(Connection):
    responseCls = _Response

    def __init__(self, url: str, timeout: float, conn_class: Any) -> None:
        super().__init__(url=url, timeout=timeout)
        self.conn_class = conn_class

    def morph_action_hook(self, action: str) -> str:
        return f"{self.request_path}{action}" or "/"


def login(question: Question) -> Login:
    """The credentials that are there, with the project that is asked for.

    :raises CloudError: none, not understood, or no project.
    """
    file = _file()
    if file is None:
        project = question.project or _project_of_variables() or _metadata_project(question)
        return Login(question, "the metadata server", {}, project)
    raw = _read(file)
    project = question.project or _project_of_variables() or raw.get("project_id") or raw.get("quota_project_id") or ""
    if not project:
        raise CloudError(f"no project is given, and {file} names none. Name it in the option project (or GOOGLE_CLOUD_PROJECT).")
    return Login(question, str(file), raw, project)


def _file() -> Path | None:
    named = os.environ.get("GOOGLE_APPLICATION_CREDENTIALS")
    if named:
        if not os.path.isfile(os.path.expanduser(named)):
            raise CloudError(f"GOOGLE_APPLICATION_CREDENTIALS names {named}, which is no file. Correct it, or unset it to use another kind of login.")
        return Path(named).expanduser()
    folder = os.environ.get("CLOUDSDK_CONFIG") or os.path.expanduser("~/.config/gcloud")
    usual = Path(folder) / "application_default_credentials.json"
    return usual if usual.is_file() else None


def _read(file: Path) -> dict[str, str]:
    try:
        raw = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise CloudError(f"{file} can't be read: {error.strerror}.") from None
    except ValueError:
        # Without its words, which may quote the file.
        raise CloudError(f"{file} is not JSON. Name a key file of a service account, or log in again with gcloud auth application-default login.") from None
    kind = raw.get("type") if isinstance(raw, dict) else None
    if kind not in NEEDED:
        raise CloudError(f"{file} holds credentials of the type {kind}. Allowed: {' and '.join(NEEDED)}.")
    missing = [key for key in NEEDED[kind] if not isinstance(raw.get(key), str) or not raw[key]]
    if missing:
        raise CloudError(f"{file} lacks {', '.join(missing)}. Download the key file again, or log in again with gcloud auth application-default login.")
    return {key: value for key, value in raw.items() if isinstance(value, str)}


def _project_of_variables() -> str:
    names = ("GOOGLE_CLOUD_PROJECT", "GOOGLE_PROJECT", "GCLOUD_PROJECT", "CLOUDSDK_CORE_PROJECT")
    return next((os.environ[name] for name in names if os.environ.get(name)), "")


def _metadata_project(question: Question) -> str:
    return str(_metadata("/project/project-id", question))


def _metadata(path: str, question: Question) -> Any:
    """What the machine's metadata server says. Where there is none, there are no credentials at all."""
    host = os.environ.get("GCE_METADATA_HOST") or METADATA
    quick = replace(question, timeout=min(METADATA_TIMEOUT, question.timeout), attempts=1)
    connection = Connection(url=f"http://{host}/computeMetadata/v1", timeout=quick.timeout)
    connection.conn_class = connection_class(None, direct=True)

    def read() -> Any:
        response = connection.request(path, headers={"Metadata-Flavor": "Google"})
        return json.loads(response.body) if path.endswith("/token") else response.body

    try:
        return call_api(read, f"http://{host}", quick, lambda refused: CloudError(f"status {refused.status}"))
    except (CloudError, ValueError):
        raise CloudError(f"there are no credentials for Google's cloud. {HOW}") from None


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
