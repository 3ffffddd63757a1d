# SPDX-License-Identifier: Apache-2.0
"""The API of Kubernetes as the administrator sees it: one client for each control node, the first that answers is asked."""

from __future__ import annotations

import base64
import json
import random
import string
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import kubernetes.client
import kubernetes.config
import kubernetes.stream
import urllib3

from .orchestrator import Applications, Instance
from .waiting import until

Object = dict[str, Any]
FOLDERS = {
    "Namespace": "/api/v1/namespaces",
    "Pod": "/api/v1/namespaces/{namespace}/pods",
    "Service": "/api/v1/namespaces/{namespace}/services",
    "Secret": "/api/v1/namespaces/{namespace}/secrets",
    "ConfigMap": "/api/v1/namespaces/{namespace}/configmaps",
    "Deployment": "/apis/apps/v1/namespaces/{namespace}/deployments",
    "StatefulSet": "/apis/apps/v1/namespaces/{namespace}/statefulsets",
    "DaemonSet": "/apis/apps/v1/namespaces/{namespace}/daemonsets",
    "PodDisruptionBudget": "/apis/policy/v1/namespaces/{namespace}/poddisruptionbudgets",
    "Job": "/apis/batch/v1/namespaces/{namespace}/jobs",
}

LIMITS = (5, 60)
"""Seconds for a connection to an API server, and for its answer."""


class ApiError(Exception):
    """The API answered, but not with what was asked for."""

    def __init__(self, method: str, path: str, status: int, body: str) -> None:
        super().__init__(f"{method} {path}: {status} {body[:800]}")
        self.status = status


class NoApiError(Exception):
    """No API server answered."""


class CommandError(AssertionError):
    """A command in a pod that was to succeed did not."""


def random_name(prefix: str) -> str:
    return f"{prefix}-{''.join(random.choices(string.ascii_lowercase + string.digits, k=6))}"


@dataclass
class Cluster:
    """`kubeconfig` has a context for each control node, named `<site>-<node>`."""

    kubeconfig: Path
    contexts: dict[str, str]
    _clients: dict[str, Any] = field(default_factory=dict)
    _first: str = ""

    @classmethod
    def of(cls, kubeconfig: Path, site: str, control: list[str]) -> Cluster:
        return cls(kubeconfig, {node: f"{site}-{node}" for node in control})

    def client(self, node: str) -> Any:
        """A client of its own for the API server of a node, with the credentials that the kubeconfig has now."""
        configuration = kubernetes.client.Configuration()
        load: Any = kubernetes.config.load_kube_config
        load(str(self.kubeconfig), context=self.contexts[node], client_configuration=configuration)
        configuration.retries = urllib3.Retry(total=0)
        configuration.proxy = None
        return kubernetes.client.ApiClient(configuration)

    def lets_in(self, token: str) -> bool:
        """Whether every API server knows who bears a token."""
        found = set()
        for node in self.contexts:
            client = self.client(node)
            client.configuration.cert_file = client.configuration.key_file = None
            client = kubernetes.client.ApiClient(client.configuration)
            request = client.param_serialize("GET", "/version", header_params={"Authorization": f"Bearer {token}"})
            found.add(int(client.call_api(*request, _request_timeout=LIMITS).status))
        assert found <= {200, 401}, found
        return found == {200}

    def log_in_again(self) -> None:
        """With the credentials that the kubeconfig has by now."""
        self._clients.clear()

    def ask(self, node: str, method: str, path: str, body: Any = None, kind: str = "application/json") -> tuple[int, str]:
        """(status, body) of one API server's answer."""
        if node not in self._clients:
            self._clients[node] = self.client(node)
        client = self._clients[node]
        where, _, query = path.partition("?")
        pairs = [tuple(part.split("=", 1)) for part in query.split("&")] if query else []
        request = client.param_serialize(
            method, where, query_params=pairs, header_params={"Accept": "application/json", "Content-Type": kind}, body=body, auth_settings=["BearerToken"]
        )
        answer = client.call_api(*request, _request_timeout=LIMITS)
        answer.read()
        return int(answer.status), (answer.data or b"").decode(errors="replace")

    def request(self, method: str, path: str, body: Any = None, kind: str = "application/json") -> Any:
        """The JSON (else the text) that the first answering API server gives; an ApiError for 400 and above."""
        errors = []
        for node in sorted(self.contexts, key=lambda name: name != self._first):
            try:
                status, text = self.ask(node, method, path, body, kind)
            except (urllib3.exceptions.HTTPError, OSError, kubernetes.client.ApiException) as error:
                errors.append(f"{node}: {type(error).__name__}: {error}"[:300])
                continue
            self._first = node
            if status >= 400:
                raise ApiError(method, path, status, text)
            try:
                return json.loads(text)
            except ValueError:
                return text
        raise NoApiError(f"{method} {path}: no API server answers: {'; '.join(errors)}")

    def get(self, path: str) -> Any:
        return self.request("GET", path)

    def items(self, path: str) -> list[Object]:
        return list(self.get(path)["items"])

    def create(self, body: Object, namespace: str = "") -> Object:
        folder = FOLDERS[body["kind"]].format(namespace=namespace)
        return dict(self.request("POST", folder, body))

    def patch(self, path: str, body: Object) -> Object:
        return dict(self.request("PATCH", path, body, kind="application/merge-patch+json"))

    def delete(self, path: str, grace_seconds: int | None = None) -> None:
        """Deletes; that it is not there any more is fine."""
        options: Object = {"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Background"}
        if grace_seconds is not None:
            options["gracePeriodSeconds"] = grace_seconds
        try:
            self.request("DELETE", path, options)
        except ApiError as error:
            if error.status != 404:
                raise

    def pods(self, namespace: str, labels: str) -> list[Object]:
        """Pods that are not on their way out."""
        found = self.items(f"/api/v1/namespaces/{namespace}/pods?labelSelector={labels}")
        return [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]

    def execute(self, namespace: str, pod: str, command: str, seconds: float = 120) -> tuple[int, str]:
        """(exit code, output and errors) of a shell command in a pod, through the API and the kubelet."""
        errors = []
        for node in sorted(self.contexts, key=lambda name: name != self._first):
            client = self.client(node)
            try:
                stream = kubernetes.stream.stream(
                    kubernetes.client.CoreV1Api(client).connect_get_namespaced_pod_exec,
                    pod,
                    namespace,
                    command=["sh", "-c", command],
                    stdout=True,
                    stderr=True,
                    stdin=False,
                    tty=False,
                    _preload_content=False,
                )
            except (OSError, urllib3.exceptions.HTTPError, kubernetes.client.ApiException) as error:
                errors.append(f"{node}: {type(error).__name__}: {error}"[:400])
                continue
            stream.run_forever(timeout=seconds)
            if stream.is_open():
                stream.close()
                raise CommandError(f"{pod}: `{command}` had not ended after {seconds:.0f} s: {stream.read_all()}")
            return int(stream.returncode), str(stream.read_all())
        raise NoApiError(f"exec in {pod}: {'; '.join(errors)}")

    def shell(self, namespace: str, pod: str, command: str, seconds: float = 120) -> str:
        """Output of a shell command in a pod that has to succeed."""
        code, out = self.execute(namespace, pod, command, seconds)
        if code != 0:
            raise CommandError(f"{pod}: `{command}` ended with {code}: {out}"[:3000])
        return out

    def ready_nodes(self) -> set[str]:
        return {node["metadata"]["name"] for node in self.items("/api/v1/nodes") if condition(node, "Ready") == "True"}


def condition(thing: Object, name: str) -> str:
    """Status of a condition of an object: "True", "False", "Unknown" or "" """
    return next((str(item["status"]) for item in thing.get("status", {}).get("conditions", []) if item["type"] == name), "")


def secret_text(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


@dataclass(frozen=True)
class Workload(Applications):
    """What the tests run on a cluster: one pod a node that tells who it is and who asks, behind Services of all kinds. Kubernetes' `Applications`, too."""

    cluster: Cluster
    namespace: str
    image: str
    pods: dict[str, Object]
    service: Object

    def address(self, node: str) -> str:
        return str(self.pods[node]["status"]["podIP"])

    @property
    def virtual_address(self) -> str:
        return str(self.service["spec"]["clusterIP"])

    @property
    def node_port(self) -> int:
        return int(self.service["spec"]["ports"][0]["nodePort"])

    def shell(self, node: str, command: str, seconds: float = 120) -> str:
        """Output of a shell command in the pod of a node."""
        return self.cluster.shell(self.namespace, self.pods[node]["metadata"]["name"], command, seconds)

    def execute(self, node: str, command: str, seconds: float = 120) -> tuple[int, str]:
        return self.cluster.execute(self.namespace, self.pods[node]["metadata"]["name"], command, seconds)

    def path(self, kind: str, name: str = "") -> str:
        return FOLDERS[kind].format(namespace=self.namespace) + (f"/{name}" if name else "")

    def deployment(self, name: str, replicas: int, **pod: Any) -> Object:
        """A Deployment of web servers with a Service of its name, both made; waits for nothing."""
        self.cluster.create(service(name), self.namespace)
        return self.cluster.create(deployment(name, replicas, self.image, **pod), self.namespace)

    @property
    def nodes(self) -> list[str]:
        return list(self.pods)

    def everywhere(self) -> dict[str, Instance]:
        found = [instance(pod) for pod in self.cluster.pods(self.namespace, "app=probe") if condition(pod, "Ready") == "True"]
        return {one.node: one for one in sorted(found, key=lambda one: one.node)}

    def start(self, name: str, count: int) -> None:
        self.deployment(name, count)

    def instances(self, name: str, count: int) -> list[Instance]:
        return [instance(pod) for pod in self.running(name, count)]

    def scale(self, name: str, count: int) -> list[Instance]:
        self.cluster.patch(self.path("Deployment", name), {"spec": {"replicas": count}})
        return self.instances(name, count)

    def keep(self, instances: Sequence[Instance]) -> None:
        for one in instances:
            self.cluster.patch(self.path("Pod", one.name), {"metadata": {"annotations": {"controller.kubernetes.io/pod-deletion-cost": "1000"}}})

    def kill(self, instance: Instance) -> None:
        self.cluster.delete(self.path("Pod", instance.name), grace_seconds=0)

    def run_in(self, instance: Instance, command: str, seconds: float = 120) -> str:
        return self.cluster.shell(self.namespace, instance.name, command, seconds)

    def remove(self, name: str) -> None:
        """Removes a Deployment and its Service, and waits until none of its pods can be taken for one of the next Deployment of that name."""
        for kind in ("Deployment", "Service"):
            self.cluster.delete(self.path(kind, name))
        until(f"no pod of {name} is left", lambda: not self.cluster.pods(self.namespace, f"app={name}"))

    def running(self, name: str, count: int) -> list[Object]:
        """The ready pods of an app, once there are so many."""

        def look() -> list[Object]:
            ready = [pod for pod in self.cluster.pods(self.namespace, f"app={name}") if condition(pod, "Ready") == "True"]
            return ready if len(ready) == count else []

        return until(f"{count} pods of {name} are ready", look)


def instance(pod: Object) -> Instance:
    """A ready pod as any orchestrator's instance."""
    return Instance(str(pod["metadata"]["name"]), str(pod["spec"]["nodeName"]), str(pod["status"]["podIP"]))


WWW = """
mkdir -p /www/cgi-bin
echo "$POD" > /www/index.html
cat > /www/cgi-bin/who <<'END'
#!/bin/sh
printf 'Content-Type: text/plain\\n\\n'
asker="${REMOTE_ADDR#[[]::ffff:}"
echo "$POD $NODE ${asker%]}"
END
chmod 755 /www/cgi-bin/who
[ "$BLOB_KB" = 0 ] || dd if=/dev/urandom of=/www/blob bs=1k count="$BLOB_KB" 2>/dev/null
exec httpd -f -p 8080 -h /www
"""


def pod_template(name: str, image: str, blob_kb: int = 0, **extra: Any) -> Object:
    """A web server that keeps to the `restricted` pod security standard."""

    def of_field(variable: str, path: str) -> Object:
        return {"name": variable, "valueFrom": {"fieldRef": {"fieldPath": path}}}

    return {
        "metadata": {"labels": {"app": name}},
        "spec": {
            "terminationGracePeriodSeconds": 1,
            "securityContext": {"runAsNonRoot": True, "runAsUser": 65534, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [
                {
                    "name": "web",
                    "image": image,
                    "imagePullPolicy": "Never",
                    "command": ["sh", "-c", WWW],
                    "env": [of_field("POD", "metadata.name"), of_field("NODE", "spec.nodeName"), {"name": "BLOB_KB", "value": str(blob_kb)}],
                    "ports": [{"name": "http", "containerPort": 8080}],
                    "readinessProbe": {"httpGet": {"path": "/", "port": 8080}, "periodSeconds": 1},
                    "resources": {"requests": {"cpu": "50m", "memory": "8Mi"}, "limits": {"memory": "32Mi"}},
                    "securityContext": {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}},
                    "volumeMounts": [{"name": "www", "mountPath": "/www"}],
                }
            ],
            "volumes": [{"name": "www", "emptyDir": {"sizeLimit": "16Mi"}}],
            **extra,
        },
    }


def deployment(name: str, replicas: int, image: str, **pod: Any) -> Object:
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": name}}, "template": pod_template(name, image, **pod)},
    }


def daemon_set(name: str, image: str, blob_kb: int) -> Object:
    template = pod_template(name, image, blob_kb, tolerations=[{"operator": "Exists"}])
    return {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": name},
        "spec": {"selector": {"matchLabels": {"app": name}}, "template": template},
    }


def service(name: str, app: str = "", kind: str = "ClusterIP", headless: bool = False) -> Object:
    spec: Object = {"type": kind, "selector": {"app": app or name}, "ports": [{"name": "http", "port": 80, "targetPort": 8080}]}
    if headless:
        spec["clusterIP"] = "None"
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec}
