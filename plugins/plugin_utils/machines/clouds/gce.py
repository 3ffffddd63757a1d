# SPDX-License-Identifier: Apache-2.0
"""Google Compute Engine: instances by apache-libcloud.

API: instances.aggregatedList, instances.list and regions.get of Compute v1 (https://cloud.google.com/compute/docs/reference/rest/v1/instances). Needs the
permission compute.instances.list, and compute.regions.get where regions are named. Credentials are the application default ones (see google_login.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from ansible_collections.ashlar.stack.plugins.plugin_utils.machines.clouds.common import CloudError, Disk, Instance, Question, in_regions, pages
from ansible_collections.ashlar.stack.plugins.plugin_utils.machines.clouds.google_login import Login, login
from ansible_collections.ashlar.stack.plugins.plugin_utils.machines.clouds.wire import Refused, call_api, connection_class, transient_error
from libcloud.common.base import ConnectionUserAndKey
from libcloud.compute.drivers.gce import GCEConnection

KIND = "label"
NAME_TAG: str | None = None
PAGE = 500
"""As many as the API gives at once."""
ENDPOINT = "https://compute.googleapis.com"
LIST, REGIONS = "compute.instances.list", "compute.regions.get"


def instances(question: Question) -> list[Instance]:
    """Instances of the project, of all zones or of those of the named regions and zones.

    :raises CloudError: no credentials, no project, refused by Google ...
    :raises CloudErrors: of one zone or several.
    """
    of = login(question)
    asking = _Project(of, question)
    if not question.regions:
        return asking.everywhere()
    zones: dict[str, None] = {}
    for name in question.regions:
        zones.update(dict.fromkeys([name] if _is_zone(name) else asking.zones(name)))
    return in_regions({zone: partial(asking.of_zone, zone) for zone in zones})


class _Connection(GCEConnection):
    """libcloud's, but with the login of google_login.py: its own writes the token to a file in the home directory and knows service accounts only."""

    def __init__(self, url: str, project: str, of: Login, timeout: float, conn_class: Any) -> None:
        ConnectionUserAndKey.__init__(self, "", None, url=url, timeout=timeout)
        self.conn_class = conn_class
        self.oauth2_credential: Any = of
        self.gce_params = None
        self.request_path = f"{self.request_path.rstrip('/')}/compute/v1/projects/{project}"


class _Project:
    def __init__(self, of: Login, question: Question) -> None:
        self.of, self.question, self.project = of, question, of.project
        self.server = (question.endpoint or ENDPOINT).rstrip("/")

    def everywhere(self) -> list[Instance]:
        """All zones in one list, a page of which holds instances of many of them."""
        found: list[Instance] = []
        for zones in self._list("/aggregated/instances", "", LIST):
            for zone, part in (zones or {}).items():
                warning = part.get("warning") or {}
                # The API leaves out what it can't reach; half an inventory would look like nodes that are gone.
                if warning.get("code") == "UNREACHABLE":
                    raise CloudError(
                        f"Google can't reach {zone} at the moment, so its instances are unknown. "
                        "Run it again later, or name the zones that are needed in the option regions."
                    )
                found += [_instance(raw, self.question.tags) for raw in part.get("instances") or ()]
        return self._filter(found)

    def of_zone(self, zone: str) -> list[Instance]:
        found: list[Instance] = []
        for items in self._list(f"/zones/{zone}/instances", zone, LIST):
            found += [_instance(raw, self.question.tags) for raw in items or ()]
        return self._filter(found)

    def zones(self, region: str) -> list[str]:
        answer = self.request(f"/regions/{region}", {}, region, REGIONS)
        return sorted(str(zone).rpartition("/")[2] for zone in answer.get("zones") or ())

    def _filter(self, found: list[Instance]) -> list[Instance]:
        return [instance for instance in found if instance.running] if self.question.running else found

    def _list(self, path: str, where: str, permission: str) -> Any:
        params = {"maxResults": PAGE, **({"filter": expression} if (expression := _filter(self.question)) else {})}
        connection = self.connection()

        def page(token: str | None) -> tuple[list[Any], str | None]:
            answer = self.request(path, {**params, **({"pageToken": token} if token else {})}, where, permission, connection)
            return [answer.get("items")], answer.get("nextPageToken") or None

        for got in pages(page, f"{self.server}{path}"):
            yield from got

    def request(self, path: str, params: Mapping[str, Any], where: str, permission: str, connection: Any = None) -> Mapping[str, Any]:
        connection = connection or self.connection()

        def explain(refused: Refused) -> CloudError:
            return _explain(refused, self.of, self.server, self.question, permission, where)

        answer = call_api(lambda: connection.request(path, params=dict(params)).object, self.server, self.question, explain, self.of.secrets)
        if not isinstance(answer, Mapping):
            raise CloudError(
                f"{self.server} gave an answer that is not of the Compute API. "
                "See that the option endpoint is right and that no proxy or login page answers for it."
            )
        return answer

    def connection(self) -> _Connection:
        return _Connection(self.server, self.project, self.of, self.question.timeout, connection_class(self.question.verify))


def _is_zone(name: str) -> bool:
    """Zones are called like their region with one more part: europe-west1-b, us-central1-ai1a."""
    return name.count("-") >= 2


def _explain(refused: Refused, of: Login, server: str, question: Question, permission: str, where: str) -> CloudError:
    bad = transient_error(refused, server, question, permission)
    if bad:
        return bad
    if refused.status == 401:
        return CloudError(
            f"Google does not accept the token of {of.who}: it has expired or was withdrawn. "
            "Log in again (gcloud auth application-default login), or renew the key file."
        )
    if refused.status == 403 and refused.reason in ("accessNotConfigured", "SERVICE_DISABLED"):
        return CloudError(
            f"the Compute Engine API is not enabled in project {of.project}. Enable it: gcloud services enable compute.googleapis.com --project {of.project}."
        )
    if refused.status == 403:
        return CloudError(f"{of.who} may not do {permission} in project {of.project}. Give it the role roles/compute.viewer there.")
    if refused.status in (400, 404) and where and "filter" not in refused.said:
        return CloudError(
            f"project {of.project} has no region or zone {where}. "
            "List them with gcloud compute regions list and gcloud compute zones list, and correct the option regions."
        )
    if refused.status == 404:
        return CloudError(f"there is no project {of.project}, or {of.who} may not know of it. Correct the option project (or GOOGLE_CLOUD_PROJECT).")
    return CloudError(f"{server} refused {permission} (status {refused.status}: {refused.said}).")


def _filter(question: Question) -> str:
    """A filter expression of the Compute API: terms in parentheses side by side must all hold."""
    terms = []
    for tag, values in question.filters.items():
        terms.append("(" + " OR ".join(f'(labels.{tag} = "{_escaped(value)}")' for value in values) + ")")
    if question.running:
        terms.append('(status = "RUNNING")')
    return " ".join(terms)


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"')


def _instance(raw: Mapping[str, Any], tags: tuple[str, ...]) -> Instance:
    zone = str(raw.get("zone", "")).rpartition("/")[2]
    interface = (raw.get("networkInterfaces") or [{}])[0]
    public = next((config["natIP"] for config in interface.get("accessConfigs") or () if config.get("natIP")), None)
    metadata = {item["key"]: str(item.get("value", "")) for item in (raw.get("metadata") or {}).get("items") or () if item.get("key") in tags}
    return Instance(
        id=str(raw["id"]),
        name=raw["name"],
        region=zone.rpartition("-")[0],
        zone=zone,
        running=raw.get("status") == "RUNNING",
        private_ip=interface.get("networkIP") or None,
        public_ip=public,
        # Labels can't hold capitals, dots or slashes; metadata can. Only what is asked for is read of it, since it may hold secrets.
        tags={**metadata, **(raw.get("labels") or {})},
        disks=tuple(_disk(disk) for disk in raw.get("disks") or () if not disk.get("boot") and disk.get("type") == "PERSISTENT"),
        size=str(raw.get("machineType", "")).rpartition("/")[2],
        image=str(raw.get("sourceMachineImage") or "").rpartition("/")[2],
    )


def _disk(raw: Mapping[str, Any]) -> Disk:
    name = str(raw.get("deviceName") or raw.get("source", "")).rpartition("/")[2]
    return Disk(str(raw.get("source", name)).rpartition("/")[2], name, int(raw.get("diskSizeGb") or 0), f"/dev/disk/by-id/google-{name}")
