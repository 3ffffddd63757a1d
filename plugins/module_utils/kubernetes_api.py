# SPDX-License-Identifier: Apache-2.0
"""The API servers of a cluster, as one, for modules that run on the controller."""

from __future__ import annotations

import json
import time
from typing import Any

try:
    import kubernetes.client
    import kubernetes.config
    import urllib3
except ImportError as error:
    MISSING: ImportError | None = error
    ApiException: Any = Exception
    SILENCE: tuple[type[Exception], ...] = (OSError,)
else:
    MISSING = None
    ApiException = kubernetes.client.ApiException
    SILENCE = (kubernetes.config.ConfigException, urllib3.exceptions.HTTPError, OSError, ValueError)
    """What is raised when no API server answers, or nobody knows where they are."""

LIMITS = (5, 30)
"""Seconds for a connection to an API server, and for its answer."""
MOMENT = 30
"""Seconds for which an API server that answers is looked for."""
PASSING = (429, 500, 502, 503, 504)


class Servers:
    """The API servers of a cluster, as one."""

    def __init__(self, kubeconfig: str, contexts: list[str]) -> None:
        self.kubeconfig, self.contexts = kubeconfig, list(contexts)
        self.clients: dict[str, Any] = {}

    def call(self, method: str, *arguments: Any, final: tuple[int, ...] = (), **options: Any) -> Any:
        """The JSON that the first API server that answers gives. While control nodes restart, none may answer for a moment.

        :param final: statuses that another try is not expected to change, beside those that never do.
        """
        end = time.monotonic() + MOMENT
        while True:
            context = self.contexts[0]
            try:
                api = kubernetes.client.CoreV1Api(self._client(context))
                answer = getattr(api, method)(*arguments, **options, _request_timeout=LIMITS, _preload_content=False)
                return json.loads(answer.data)
            except kubernetes.client.ApiException as error:
                if error.status in final or error.status not in PASSING or time.monotonic() >= end:
                    raise
            except (urllib3.exceptions.HTTPError, OSError):
                if time.monotonic() >= end:
                    raise
            self.contexts.append(self.contexts.pop(0))
            time.sleep(0.5)

    def _client(self, context: str) -> Any:
        if context not in self.clients:
            configuration = kubernetes.client.Configuration()
            kubernetes.config.load_kube_config(self.kubeconfig, context, client_configuration=configuration)
            configuration.retries = urllib3.Retry(total=0)
            # The controller's proxy is for the internet; nodes are reached without it.
            configuration.proxy = None
            self.clients[context] = kubernetes.client.ApiClient(configuration)
        return self.clients[context]
