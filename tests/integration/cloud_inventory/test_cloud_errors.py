# SPDX-License-Identifier: Apache-2.0
"""Every question that can't be answered ends in exactly one message, that of errors.yml, which says what to do and no secret."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
import pytest
import yaml
from ansible.errors import AnsibleParserError
from ansible.inventory.data import InventoryData
from clouds import CUT, SECRETS, Answer, Replay, key_file, openrc, private_key

Inventory = Callable[..., InventoryData]
XML = {"Content-Type": "text/xml"}
SERVERS, ZONES, AGGREGATED = "/one/v2.1/servers", "/compute/v1/projects/example/zones", "/compute/v1/projects/example/aggregated"


def refusal(code: str, message: str, status: int) -> Answer:
    """As EC2 refuses."""
    text = f"<Response><Errors><Error><Code>{code}</Code><Message>{message}</Message></Error></Errors><RequestID>1</RequestID></Response>"
    return Answer(status, text.encode(), XML)


def nova_error(status: int, message: str) -> Answer:
    return Answer(status, {"error": {"code": status, "message": message}})


@dataclass
class Case:
    """``environment``: variables to set, or to unset where None. ``faults``: answers of the provider's server, by path, repeated for ever.

    In texts, {url} is that server, {nowhere} one that nobody listens at, {silent} one that never answers, {folder} a folder of the test's own.
    """

    name: str
    provider: str
    config: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, str | None] = field(default_factory=dict)
    faults: dict[str, Answer] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)


CONFIG = """
[profile role]
role_arn = arn:aws:iam::123456789012:role/inventory
credential_source = Environment
[profile sso]
sso_session = example
sso_account_id = 123456789012
sso_role_name = inventory
[sso-session example]
sso_start_url = http://127.0.0.1:9/start
sso_region = eu-west-1
"""
PROFILES: dict[str, str | None] = {"AWS_CONFIG_FILE": "{folder}/config"}
CASES = [
    # AWS
    Case("no credentials", "aws", environment={"AWS_ACCESS_KEY_ID": None}),
    Case("half of the credentials", "aws", environment={"AWS_SECRET_ACCESS_KEY": None}),
    Case("no such profile", "aws", {"profile": "platfrom"}),
    Case("no region", "aws", {"regions": []}),
    Case("unknown region", "aws", {"regions": ["eu-wset-1"]}, {"AWS_ENDPOINT_URL": None}),
    Case("expired token", "aws", faults={"/": refusal("RequestExpired", "Request has expired.", 400)}),
    Case("wrong key", "aws", faults={"/": refusal("AuthFailure", "AWS was not able to validate the provided access credentials", 401)}),
    Case(
        "forbidden",
        "aws",
        faults={
            "/": refusal("UnauthorizedOperation", "You are not authorized to perform this operation. Encoded authorization failure message: 4GIOHlTkIaWHQ", 403)
        },
    ),
    Case("forbidden in two regions", "aws", {"regions": ["eu-west-1", "us-east-1"]}, faults={"/": refusal("UnauthorizedOperation", "No.", 403)}),
    Case("region not enabled", "aws", faults={"/": refusal("OptInRequired", "You are not subscribed to this service.", 403)}),
    Case("throttled to the end", "aws", {"attempts": 2}, faults={"/": refusal("RequestLimitExceeded", "Request limit exceeded.", 503)}),
    Case("down", "aws", {"attempts": 2}, faults={"/": Answer(500, b"")}),
    Case("unreachable", "aws", {"attempts": 1, "endpoint": "{nowhere}"}),
    Case("silent", "aws", {"attempts": 1, "timeout_seconds": 1, "endpoint": "{silent}"}),
    Case("cut off", "aws", {"attempts": 1}, faults={"/": Answer(CUT)}),
    Case("another server answers", "aws", {"attempts": 1}, faults={"/": Answer(200, b"<html>Please log in</html>", {"Content-Type": "text/html"})}),
    Case("role that may not be taken", "aws", {"profile": "role"}, PROFILES, {"/": refusal("AccessDenied", "Not authorized.", 403)}, {"config": CONFIG}),
    Case("login that was never made", "aws", {"profile": "sso"}, PROFILES, files={"config": CONFIG}),
    # GCE
    Case("no credentials", "gce", environment={"GOOGLE_APPLICATION_CREDENTIALS": None}),
    Case("no key file", "gce", environment={"GOOGLE_APPLICATION_CREDENTIALS": "{folder}/absent.json"}),
    Case("key file that is none", "gce", environment={"GOOGLE_APPLICATION_CREDENTIALS": "{folder}/k.json"}, files={"k.json": "not: json"}),
    Case(
        "key file of another type", "gce", environment={"GOOGLE_APPLICATION_CREDENTIALS": "{folder}/k.json"}, files={"k.json": '{"type": "external_account"}'}
    ),
    Case(
        "key file without a key",
        "gce",
        environment={"GOOGLE_APPLICATION_CREDENTIALS": "{folder}/k.json"},
        files={"k.json": '{"type": "service_account", "client_email": "a@b", "private_key": ""}'},
    ),
    Case(
        "key that is none",
        "gce",
        environment={"GOOGLE_APPLICATION_CREDENTIALS": "{folder}/k.json"},
        files={"k.json": '{"type": "service_account", "client_email": "a@b", "private_key": "-----BEGIN PRIVATE KEY----- x", "project_id": "example"}'},
    ),
    Case("deleted key", "gce", faults={"/token": Answer(400, {"error": "invalid_grant", "error_description": "Invalid JWT Signature."})}),
    Case("expired token", "gce", faults={AGGREGATED: Answer(401, {"error": {"code": 401, "message": "Invalid Credentials"}})}),
    Case("forbidden", "gce", {"project": "secret-lab"}),
    Case("API not enabled", "gce", {"project": "new-lab"}),
    Case("no such project", "gce", {"project": "no-lab"}),
    Case("unknown region", "gce", {"regions": ["europe-nowhere1"]}),
    Case("unknown zone", "gce", {"regions": ["europe-west9-z"]}),
    Case("throttled to the end", "gce", {"attempts": 2}, faults={AGGREGATED: Answer(429, {"error": {"code": 429, "message": "Quota exceeded"}})}),
    Case("unreachable", "gce", {"attempts": 1, "endpoint": "{nowhere}"}),
    Case("silent", "gce", {"attempts": 1, "timeout_seconds": 1, "endpoint": "{silent}"}),
    Case("another server answers", "gce", {"attempts": 1}, faults={AGGREGATED: Answer(200, b"<html>Please log in</html>")}),
    Case(
        "a zone that Google can't reach",
        "gce",
        faults={AGGREGATED: Answer(200, {"items": {"zones/europe-west1-b": {"warning": {"code": "UNREACHABLE"}}}})},
    ),
    Case("pages without an end", "gce", faults={AGGREGATED: Answer(200, {"items": {}, "nextPageToken": "again"})}),
    # OpenStack
    Case("no credentials", "openstack", environment={"OS_AUTH_URL": None}),
    Case("no password", "openstack", environment={"OS_PASSWORD": None}),
    Case("no such cloud", "openstack", {"cloud": "prod"}, {"OS_CLIENT_CONFIG_FILE": "{folder}/c.yaml"}, files={"c.yaml": "clouds: {dev: {}, test: {}}"}),
    Case("which cloud", "openstack", {}, {"OS_CLIENT_CONFIG_FILE": "{folder}/c.yaml", "OS_AUTH_URL": None}, files={"c.yaml": "clouds: {dev: {}, test: {}}"}),
    Case(
        "clouds.yaml is not YAML",
        "openstack",
        {"cloud": "prod"},
        {"OS_CLIENT_CONFIG_FILE": "{folder}/c.yaml"},
        files={"c.yaml": "clouds: {dev: [example-secret-of-openstack}"},
    ),
    Case("login of a kind that is not supported", "openstack", environment={"OS_AUTH_TYPE": "v3oidcpassword"}),
    Case("wrong password", "openstack", faults={"/v3/auth/tokens": nova_error(401, "The request you have made requires authentication.")}),
    Case("no Keystone there", "openstack", faults={"/v3/auth/tokens": Answer(404, b"<html>not found</html>", {"Content-Type": "text/html"})}),
    Case(
        "another server answers", "openstack", {"attempts": 1}, faults={"/v3/auth/tokens": Answer(200, b"<html>log in</html>", {"Content-Type": "text/html"})}
    ),
    Case("unknown region", "openstack", {"regions": ["RegionThree"]}),
    Case(
        "login without a project",
        "openstack",
        faults={"/v3/auth/tokens": Answer(201, {"token": {"expires_at": "2099-01-01T00:00:00Z"}}, {"X-Subject-Token": "t"})},
    ),
    Case("expired token", "openstack", faults={SERVERS: nova_error(401, "x")}),
    Case("forbidden", "openstack", faults={SERVERS: nova_error(403, "Policy doesn't allow os_compute_api:servers:detail to be performed.")}),
    Case("volumes forbidden", "openstack", faults={"/one/volume": nova_error(403, "Policy doesn't allow volume:get_all to be performed.")}),
    Case(
        "throttled to the end",
        "openstack",
        {"attempts": 2},
        faults={SERVERS: Answer(429, {"overLimit": {"code": 429, "message": "This request was rate-limited."}})},
    ),
    Case("Keystone is down", "openstack", {"attempts": 2}, faults={"/v3/auth/tokens": Answer(500, {"error": {"code": 500, "message": "x"}})}),
    Case("unreachable", "openstack", {"attempts": 1}, {"OS_AUTH_URL": "{nowhere}/v3"}),
    Case("silent", "openstack", {"attempts": 1, "timeout_seconds": 1}, {"OS_AUTH_URL": "{silent}/v3"}),
    Case("another server answers for Nova", "openstack", {"attempts": 1}, faults={SERVERS: Answer(200, b"<html>log in</html>", {"Content-Type": "text/html"})}),
    Case("pages without an end", "openstack", faults={SERVERS: Answer(200, {"servers": [], "servers_links": [{"rel": "next", "href": "http://x/?marker=1"}]})}),
    Case("no CA file", "openstack", environment={"OS_CACERT": "{folder}/absent.pem", "OS_AUTH_URL": "https://127.0.0.1:9/v3"}),
    # What was found can't be a site
    Case("nothing matches the filter", "gce", {"filters": {"ashlar_site": "pord"}}),
    Case("nothing has the tag", "openstack", {"filters": {"site": "prod"}, "regions": ["RegionOne"]}),
    Case("nothing at all", "gce", {"regions": ["europe-west4-a"]}),
    Case("no classes", "openstack", {"filters": {}, "classes_from": "role"}),
    Case("class that there is not", "openstack", {"filters": {}, "classes_from": "ashlar_site", "regions": ["RegionTwo"]}),
    Case("no private address", "openstack", {"network": "platfrom", "regions": ["RegionTwo"]}),
    Case("no public address", "gce", {"address": "public"}),
    Case("no name", "gce", {"names_from": "hostname"}),
    Case("the same name twice", "gce", {"names_from": "ashlar_pool", "classes": [{"classes": ["worker"]}]}),
    Case("no user", "gce", {"user": None}),
    # The configuration
    Case("unknown option", "gce", {"filter": {"a": "b"}}),
    Case("option of another provider", "gce", {"profile": "prod"}),
    Case("unknown provider", "azure"),
    Case("no provider", "gce", {"provider": None}),
    Case("misspelt plugin", "gce", {"plugin": "ashlar.stack.clod"}),
    Case("option of another type", "gce", {"timeout_seconds": "soon"}),
    Case("cache that there is not", "gce", {"cache": True, "cache_plugin": "none.such.cache"}),
    Case("unknown address", "gce", {"address": "floating"}),
    Case("filter that is a number", "gce", {"filters": {"ashlar_site": 5}}),
    Case("rule without classes", "gce", {"classes": [{"name": "*"}]}),
    Case("rule with an unknown class", "gce", {"classes": [{"classes": ["wroker"]}]}),
    Case("bastion without a user", "gce", {"bastion": {"host": "b"}}),
    Case("no attempts", "gce", {"attempts": 0}),
    Case("no key", "gce", {"private_key": "{folder}/absent"}),
    Case("no CA file by option", "gce", {"ca_path": "{folder}/absent.pem"}),
]
EXPECTED: dict[str, str] = yaml.safe_load((Path(__file__).parent / "errors.yml").read_text())
BASE = {
    "aws": {"regions": ["eu-west-1"], "filters": {"ashlar_site": "prod"}, "user": "admin"},
    "gce": {"filters": {"ashlar_site": "prod"}, "user": "admin", "endpoint": "{url}"},
    "openstack": {"filters": {"ashlar_site": "prod"}, "user": "admin"},
    "azure": {},
}


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.provider}: {case.name}")
def test_question_ends_in_one_clear_error(
    case: Case, inventory: Inventory, replay: Callable[..., Replay], quick: list[float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = replay(case.provider if case.provider in ("gce", "openstack") else None)
    silent = socket.create_server(("127.0.0.1", 0))
    places = {"url": server.url, "nowhere": "http://127.0.0.1:9", "silent": f"http://127.0.0.1:{silent.getsockname()[1]}", "folder": str(tmp_path / "files")}
    (tmp_path / "files").mkdir()
    for name, text in case.files.items():
        (tmp_path / "files" / name).write_text(text)
    usual: dict[str, str | None] = {
        "AWS_ENDPOINT_URL": server.url,
        "AWS_ACCESS_KEY_ID": "AKIAEXAMPLEEXAMPLE00",
        "AWS_SECRET_ACCESS_KEY": "example-secret-of-aws",
        "GOOGLE_APPLICATION_CREDENTIALS": str(key_file(tmp_path / "key.json", f"{server.url}/token")),
        **openrc(server.url),
    }
    for name, value in {**usual, **case.environment}.items():
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, filled(value, places))
    for path, answer in case.faults.items():
        server.routes[path] = lambda asked, answer=answer: answer
    config = {key: value for key, value in filled({"provider": case.provider, **BASE[case.provider], **case.config}, places).items() if value is not None}
    with pytest.raises(AnsibleParserError) as caught:
        inventory(config)
    silent.close()
    said = str(caught.value)
    for name, place in {**places, "site": str(tmp_path / "site"), "home": os.environ["HOME"], "tmp": str(tmp_path)}.items():
        said = said.replace(place, "{" + name + "}")
    said = said.replace(f"boto3 {boto3.__version__}", "boto3 {version}").removeprefix("The site cannot be planned; no host was touched.\n  ")
    assert not any(secret in said for secret in (*SECRETS, private_key()))
    assert said == EXPECTED[f"{case.provider}: {case.name}"]


def filled(value: Any, places: dict[str, str]) -> Any:
    if isinstance(value, str):
        for name, place in places.items():
            value = value.replace("{" + name + "}", place)
        return value
    if isinstance(value, dict):
        return {key: filled(part, places) for key, part in value.items()}
    return [filled(part, places) for part in value] if isinstance(value, list) else value


def test_there_are_enough_of_them() -> None:
    assert len(CASES) >= 25
    assert set(EXPECTED) == {f"{case.provider}: {case.name}" for case in CASES}
    assert len({(case.provider, case.name) for case in CASES}) == len(CASES)
