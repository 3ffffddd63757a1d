# SPDX-License-Identifier: Apache-2.0
"""OpenStack: Nova's servers and Cinder's volumes by apache-libcloud.

APIs: Identity v3 (https://docs.openstack.org/api-ref/identity/v3/), Compute v2.1 (https://docs.openstack.org/api-ref/compute/), Block Storage v3.
Credentials and endpoints as the openstack command takes them: clouds.yaml with secure.yaml, or OS_* variables (see clouds_yaml.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from ipaddress import IPv4Network
from typing import Any
from urllib.parse import parse_qs, urlsplit

from ansible_collections.ashlar.stack.plugins.plugin_utils.machines.clouds.clouds_yaml import Login, login
from ansible_collections.ashlar.stack.plugins.plugin_utils.machines.clouds.common import (
    CloudError,
    Disk,
    Instance,
    Question,
    address,
    in_regions,
    matches,
    pages,
)
from ansible_collections.ashlar.stack.plugins.plugin_utils.machines.clouds.wire import Refused, any_error, call_api, connection_class, transient_error
from libcloud.common.openstack import OpenStackBaseConnection
from libcloud.common.openstack_identity import (
    OpenStackAuthResponse,
    OpenStackIdentity_3_0_Connection,
    OpenStackIdentityTokenScope,
    OpenStackServiceCatalog,
)
from libcloud.common.types import InvalidCredsError
from libcloud.compute.drivers.openstack import OpenStack_1_1_Response, OpenStack_2_Connection

KIND = "metadata"
NAME_TAG: str | None = None
PAGE = 1000
"""As many servers as Nova gives at once, where its operator set no smaller limit."""
INTERFACES = {"public": "external", "internal": "internal", "admin": "admin"}
INSIDE = tuple(IPv4Network(network) for network in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10"))
"""RFC 1918 and RFC 6598: addresses that nobody reaches from outside."""
VOLUME_SERVICES = ("volumev3", "block-storage", "block-store")


def instances(question: Question) -> list[Instance]:
    """Servers of all regions.

    :raises CloudError: no credentials, refused by Keystone, an unknown region ...
    :raises CloudErrors: of one region or several.
    """
    of = login(question.cloud)
    verify = question.verify if question.verify is not None else of.verify
    identity = _identity(of, question, verify)
    catalogue = OpenStackServiceCatalog(identity.urls or [], "3.x_password")
    available = sorted({entry.region for entry in _endpoints(catalogue, ("compute",), of.interface) if entry.region})
    regions = question.regions or of.regions or tuple(available)
    if not available:
        raise CloudError(
            f"the catalogue of {of.auth_url} has no {of.interface} endpoint of compute for {of.who}. "
            "Scope the credentials to a project (OS_PROJECT_NAME or project_name), or choose another interface (OS_INTERFACE or interface)."
        )
    unknown = [region for region in regions if region not in available]
    if unknown:
        raise CloudError(f"{of.auth_url} has no region {', '.join(unknown)}. It has {', '.join(available)}; correct the option regions (or OS_REGION_NAME).")

    def of_region(region: str) -> list[Instance]:
        asking = _Region(of, question, verify, identity, catalogue, region)
        return asking.instances()

    return in_regions({region: partial(of_region, region) for region in regions})


class _AuthResponse(OpenStackAuthResponse):
    """libcloud takes a broken Keystone (500) for an answer, so it could not be asked again."""

    def success(self) -> bool:
        return bool(super().success()) and int(self.status) != 500


class _Identity(OpenStackIdentity_3_0_Connection):
    """libcloud's sends names of users and projects only, and a project's domain by id only; this one sends whatever the login has."""

    responseCls = _AuthResponse

    def __init__(self, of: Login, timeout: float, conn_class: Any) -> None:
        scope = OpenStackIdentityTokenScope.UNSCOPED
        super().__init__(auth_url=of.auth_url, user_id="", key="", token_scope=scope, timeout=timeout)
        self.conn_class = conn_class
        self.of = of

    def _get_auth_data(self) -> dict[str, Any]:
        return self.of.request()


class _Response(OpenStack_1_1_Response):
    """libcloud's stumbles over an error with an empty body, as load balancers in front of an API give it."""

    parse_error = any_error


class _Connection(OpenStack_2_Connection):
    responseCls = _Response


def _identity(of: Login, question: Question, verify: bool | str | None) -> _Identity:
    identity = _Identity(of, question.timeout, connection_class(verify, of.certificate))

    def explain(refused: Refused) -> CloudError:
        bad = transient_error(refused, of.auth_url, question, "a login")
        if bad:
            return bad
        if refused.status == 401:
            return _not_accepted(of)
        if refused.status == 404:
            return CloudError(f"there is no Identity API v3 at {of.auth_url}. Correct auth_url (or OS_AUTH_URL), such as https://cloud.example.com:5000/v3.")
        return CloudError(f"{of.auth_url} refused a login of {of.who} (status {refused.status}: {refused.said}).")

    def authenticate() -> None:
        try:
            identity.authenticate()
        except InvalidCredsError:
            raise _not_accepted(of) from None

    call_api(authenticate, of.auth_url, question, explain, of.secrets)
    return identity


def _not_accepted(of: Login) -> CloudError:
    return CloudError(
        f"{of.auth_url} does not accept {of.who}. Check the secret, the names of project and domains, "
        f"and that none of them has expired or is disabled (from {of.source})."
    )


def _endpoints(catalogue: Any, services: tuple[str, ...], interface: str) -> list[Any]:
    # Not by the service's name, as libcloud does: it is whatever the operator called it.
    return [
        endpoint
        for entry in catalogue.get_entries()
        if entry.service_type in services
        for endpoint in entry.endpoints
        if endpoint.endpoint_type == INTERFACES[interface]
    ]


class _Region:
    """One region, asked in a thread of its own with connections of its own."""

    def __init__(self, of: Login, question: Question, verify: bool | str | None, identity: _Identity, catalogue: Any, region: str) -> None:
        self.of, self.question, self.verify, self.identity, self.catalogue, self.region = of, question, verify, identity, catalogue, region

    def instances(self) -> list[Instance]:
        params: dict[str, Any] = {"limit": PAGE}
        if self.question.running:
            params["status"] = "ACTIVE"
        url = self.question.endpoint or self.of.compute_endpoint or self.endpoint(("compute",))
        raw = self._list(url, "/servers/detail", "servers", params, "to list servers (os_compute_api:servers:detail)")
        # Nova offers no filter by metadata to those who are no administrators.
        raw = [server for server in raw if matches(server.get("metadata") or {}, self.question.filters)]
        if self.question.running:
            raw = [server for server in raw if server.get("status") == "ACTIVE"]
        disks = self.disks() if self.question.disks and any(server.get("os-extended-volumes:volumes_attached") for server in raw) else {}
        return [_instance(server, tuple(disks.get(server["id"], ())), self.region, self.question.network) for server in raw]

    def disks(self) -> dict[str, list[Disk]]:
        """Server's id -> its data volumes."""
        url = self.endpoint(VOLUME_SERVICES)
        disks: dict[str, list[tuple[str, Disk]]] = {}
        for volume in self._list(url, "/volumes/detail", "volumes", {"limit": PAGE}, "to list volumes (volume:get_all)"):
            # The system's disk, where a server boots from a volume.
            if str(volume.get("bootable")).lower() == "true":
                continue
            for attachment in volume.get("attachments") or ():
                disks.setdefault(attachment["server_id"], []).append((attachment.get("device") or "", _disk(volume)))
        return {server: [disk for _, disk in sorted(attached, key=lambda one: one[0])] for server, attached in disks.items()}

    def endpoint(self, services: tuple[str, ...]) -> str:
        for service in services:
            for endpoint in _endpoints(self.catalogue, (service,), self.of.interface):
                if endpoint.region == self.region:
                    return str(endpoint.url)
        raise CloudError(
            f"the catalogue has no {self.of.interface} endpoint of {services[0]} in this region. "
            "Choose another interface (OS_INTERFACE or interface), or tell who runs the cloud."
        )

    def _list(self, url: str, path: str, key: str, params: Mapping[str, Any], permission: str) -> list[Mapping[str, Any]]:
        connection = _connection(url, self.of, self.identity, self.question, self.verify)

        def explain(refused: Refused) -> CloudError:
            bad = transient_error(refused, url, self.question, permission.split("(")[-1].rstrip(")"))
            if bad:
                return bad
            if refused.status == 401:
                return CloudError(f"{url} does not accept the token of {self.of.who}: it has expired meanwhile, or belongs to another cloud. Run it again.")
            if refused.status == 403:
                return CloudError(f"{self.of.who} may not ask {url} {permission}. Give it the role reader (or member) in its project.")
            return CloudError(f"{url} refused {permission} (status {refused.status}: {refused.said}). See that the endpoint is right.")

        def page(marker: str | None) -> tuple[list[Mapping[str, Any]], str | None]:
            query = {**params, "marker": marker} if marker else dict(params)
            answer = call_api(lambda: connection.request(path, params=query).object, url, self.question, explain, self.of.secrets)
            if not isinstance(answer, Mapping) or not isinstance(answer.get(key), list):
                raise CloudError(f"{url} gave an answer that is not of this API: it has no list {key}. See that the endpoint is right.")
            return answer[key], _next_marker(answer.get(f"{key}_links"))

        return [item for items in pages(page, f"{url}{path}") for item in items]


def _connection(url: str, of: Login, identity: _Identity, question: Question, verify: bool | str | None) -> OpenStackBaseConnection:
    # A forced token goes with a forced URL: libcloud then asks that URL and never logs in by itself.
    forced = {"ex_force_base_url": url, "ex_force_auth_url": of.auth_url, "ex_force_auth_token": identity.auth_token, "ex_force_auth_version": "3.x_password"}
    connection = _Connection("", "", timeout=question.timeout, **forced)
    connection._osa = identity
    connection.conn_class = connection_class(verify, of.certificate)
    return connection


def _next_marker(links: Any) -> str | None:
    for link in links or ():
        if link.get("rel") == "next":
            markers = parse_qs(urlsplit(link["href"]).query).get("marker")
            return markers[0] if markers else None
    return None


def _instance(raw: Mapping[str, Any], disks: tuple[Disk, ...], region: str, network: str | None) -> Instance:
    private, public = _addresses(raw.get("addresses") or {}, network)
    flavor = raw.get("flavor") or {}
    return Instance(
        id=raw["id"],
        name=raw.get("name") or "",
        region=region,
        zone=raw.get("OS-EXT-AZ:availability_zone") or "",
        running=raw.get("status") == "ACTIVE",
        private_ip=private,
        public_ip=public,
        tags={str(key): str(value) for key, value in (raw.get("metadata") or {}).items()},
        disks=disks,
        size=str(flavor.get("original_name") or flavor.get("id") or ""),
        image=str((raw.get("image") or {}).get("id") or "") if isinstance(raw.get("image"), Mapping) else "",
    )


def _addresses(networks: Mapping[str, Any], network: str | None) -> tuple[str | None, str | None]:
    """The address nodes reach each other by, and the one from outside: a floating one, else a public one of another network.

    Without a ``network`` that is named, a private address is taken before one that is not.
    """
    fixed: list[tuple[str, str]] = []
    floating: list[str] = []
    for name, ports in networks.items():
        for port in ports:
            if address(port.get("addr")) is None:
                continue
            if port.get("OS-EXT-IPS:type") == "floating":
                floating.append(port["addr"])
            else:
                fixed.append((name, port["addr"]))
    inside = [addr for name, addr in fixed if network is None or name == network]
    inside.sort(key=lambda addr: not _is_inside(addr))
    private = inside[0] if inside else None
    outside = floating + [addr for _, addr in fixed if addr != private and not _is_inside(addr)]
    return private, outside[0] if outside else None


def _is_inside(text: str) -> bool:
    parsed = address(text)
    return parsed is not None and any(parsed in network for network in INSIDE)


def _disk(raw: Mapping[str, Any]) -> Disk:
    tags = {str(key): str(value) for key, value in (raw.get("metadata") or {}).items()}
    # The serial number of a virtio disk holds the first 20 characters of the volume's id; udev makes this link from it.
    return Disk(raw["id"], raw.get("name") or "", int(raw["size"]), f"/dev/disk/by-id/virtio-{raw['id'][:20]}", tags)
