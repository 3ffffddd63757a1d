# SPDX-License-Identifier: Apache-2.0
"""HTTP by libcloud with what libcloud leaves out: a CA for each connection, retries of what may be gone at the next attempt, and errors that say what to do.

libcloud keeps trust in global variables and retries only rate limits and broken sockets, by a time limit and without jitter.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, TypeVar

import requests
from ansible_collections.ashlar.stack.plugins.plugin_utils.machines.clouds.common import CloudError, Question, Transient, retry, without
from libcloud.common.exceptions import BaseHTTPError
from libcloud.common.types import LibcloudError, MalformedResponseError, ProviderError
from libcloud.http import LibcloudConnection

Result = TypeVar("Result")
NOT_THIS_API = "{} gave an answer that is not of this API. See that its URL is right and that no proxy or login page answers for it."
TRANSIENT = (408, 429, 500, 502, 503, 504)


class Refused(Exception):
    """The server answered with a status that is no success. ``reason``: its own word for it, ``said``: its sentence, ``pause``: Retry-After in seconds."""

    def __init__(self, status: int, reason: str, said: str, pause: float = 0.0) -> None:
        super().__init__(f"{status} {reason}")
        self.status, self.reason, self.said, self.pause = status, reason, said, pause


def connection_class(verify: bool | str | None, certificate: tuple[str, str] | None = None, direct: bool = False) -> type[LibcloudConnection]:
    """libcloud's connection with a trust of its own. ``verify``: None for the usual CAs (REQUESTS_CA_BUNDLE counts), False, or a bundle's path.

    ``direct``: by no proxy, whatever the environment says.
    """

    class Trusting(LibcloudConnection):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            if certificate and self.session:
                self.session.cert = certificate
            if direct and self.session:
                self.session.trust_env = False

        def _setup_verify(self) -> None:
            self.verify = verify is not False

        def _setup_ca_cert(self, **kwargs: Any) -> None:
            self.ca_cert = verify if isinstance(verify, str) else None

    return Trusting


def call_api(
    call: Callable[[], Result], server: str, question: Question, explain: Callable[[Refused], CloudError], secrets: tuple[str | None, ...] = ()
) -> Result:
    """``call``'s result, with retries.

    :param explain: what a final refusal means here. A status that may be gone at the next attempt comes here only after the last.
    :raises CloudError: in every other case; no exception of libcloud's or requests' gets out.
    """
    tried = times(question)

    def once() -> Result:
        try:
            return call()
        except (requests.exceptions.SSLError, requests.exceptions.InvalidURL, requests.exceptions.InvalidSchema) as error:
            raise CloudError(_unusable(error, server, secrets)) from None
        except requests.exceptions.ConnectTimeout:
            text = f"{server} could not be reached within {question.timeout:g} s, tried {tried}."
            raise Transient(CloudError(f"{text} See that this machine reaches it (proxy: HTTPS_PROXY), or raise the option timeout_seconds.")) from None
        except requests.exceptions.Timeout:
            text = f"{server} did not answer within {question.timeout:g} s, tried {tried}."
            raise Transient(CloudError(f"{text} Run it again later, or raise the option timeout_seconds.")) from None
        except (requests.exceptions.ChunkedEncodingError, requests.exceptions.ContentDecodingError):
            raise Transient(CloudError(f"{server} broke the connection, tried {tried}. Run it again later; see that no proxy is in between.")) from None
        except requests.exceptions.ConnectionError as error:
            if "reset" in str(error) or "aborted" in str(error):
                text = f"{server} broke the connection, tried {tried}. Run it again later; see that no proxy is in between."
            else:
                text = f"{server} can't be reached. See that this machine reaches it (proxy: HTTPS_PROXY), that its name can be resolved, "
                text += "and that its URL is right."
            raise Transient(CloudError(text)) from None
        except OSError as error:
            # A CA bundle or client certificate that is named but isn't there.
            raise CloudError(f"{server} can't be asked: {without(str(error), secrets)}.") from None
        except (BaseHTTPError, ProviderError) as error:
            refused = _parse_refusal(error, secrets)
            if 200 <= refused.status < 300:
                raise CloudError(NOT_THIS_API.format(server)) from None
            final = explain(refused)
            if refused.status in TRANSIENT or _rate_limit(refused):
                raise Transient(final, refused.pause) from None
            raise final from None
        except (MalformedResponseError, KeyError, TypeError, AttributeError, IndexError):
            raise CloudError(NOT_THIS_API.format(server)) from None
        except LibcloudError as error:
            raise CloudError(f"{server} can't be asked: {without(str(error.args[0] if error.args else error), secrets)}.") from None

    return retry(once, question.attempts)


def any_error(response: Any) -> Any:
    """For ``parse_error`` of libcloud's responses: the JSON of an error, or its text where it is something else."""
    try:
        return json.loads(response.body) if response.body else ""
    except ValueError:
        return response.body


def times(question: Question) -> str:
    return f"{question.attempts} times" if question.attempts > 1 else "once"


def transient_error(refused: Refused, server: str, question: Question, permission: str) -> CloudError | None:
    """What a status that may be gone later means, or None for other ones."""
    if refused.status == 429 or _rate_limit(refused):
        return CloudError(
            f"{server} throttles {permission} ({refused.reason or refused.status}) and still did after {question.attempts} attempts. "
            "Run it again later, raise the option attempts, or set cache: true."
        )
    if refused.status >= 500 or refused.status == 408:
        return CloudError(f"{server} answered with status {refused.status}, tried {times(question)}. Run it again later; see the cloud's health page.")
    return None


def _unusable(error: Exception, server: str, secrets: tuple[str | None, ...]) -> str:
    if isinstance(error, requests.exceptions.SSLError):
        said = without(str(error.args[0] if error.args else error), secrets)
        return f"the certificate of {server} is not trusted. Name the file of its CA in the option ca_path ({said})."
    return f"{server} is no usable URL."


def _rate_limit(refused: Refused) -> bool:
    return refused.status == 403 and refused.reason in ("rateLimitExceeded", "userRateLimitExceeded", "quotaExceeded", "concurrentLimitExceeded")


def _parse_refusal(error: Any, secrets: tuple[str | None, ...]) -> Refused:
    """libcloud's exceptions in one shape: the code is a number in one kind and a word in another, the message a text or a mapping."""
    if isinstance(error, ProviderError):
        message, status, reason = error.value, int(error.http_code or 0), getattr(error, "code", "") or ""
        pause = 0.0
    else:
        message, status, reason = error.message, int(error.code or 0), ""
        pause = float(getattr(error, "retry_after", 0) or 0)
        headers = error.headers or {}
        if not pause and str(headers.get("retry-after", "")).isdigit():
            pause = float(headers["retry-after"])
    while isinstance(message, dict):
        if isinstance(message.get("errors"), list) and message["errors"]:
            message = message["errors"][0]
            continue
        reason = str(message.get("reason") or message.get("title") or reason)
        inner = message.get("error_description") or message.get("message") or message.get("error") or next(iter(message.values()), "")
        reason = str(message["error"]) if isinstance(message.get("error"), str) else reason
        message = inner
    return Refused(status, str(reason), without(str(message), secrets).rstrip(". "), pause)
