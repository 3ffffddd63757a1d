# SPDX-License-Identifier: Apache-2.0
"""What each provider's instances become, with the real libraries over real HTTP."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible.inventory.data import InventoryData
from clouds import CUT, SECRETS, Answer, Asked, Replay, key_file, openrc, proxy_to
from moto.ec2 import ec2_backends
from moto.ec2.models.instances import Reservation

Inventory = Callable[..., InventoryData]
GCE = {"provider": "gce", "filters": {"ashlar_site": "prod"}, "user": "admin"}
OPENSTACK = {"provider": "openstack", "filters": {"ashlar_site": "prod"}, "user": "admin"}


def variables(data: InventoryData, host: str) -> dict[str, Any]:
    return {name: value for name, value in data.hosts[host].vars.items() if not name.startswith("inventory_")}


def test_gce_instances_of_all_zones_over_several_pages(inventory: Inventory, google: Replay) -> None:
    data = inventory({**GCE, "endpoint": google.url})
    assert list(data.hosts) == ["prod-control-1", "prod-control-2", "prod-worker-1"]
    assert variables(data, "prod-control-1") == {
        "ansible_become": True,
        "ansible_host": "203.0.113.11",
        "ansible_user": "admin",
        "node_address": "10.10.0.11",
        "node_classes": ["control", "worker"],
        "node_id": "1001",
        "node_labels": {"example.com/rack": "R1", "disk": "ssd"},
        "node_volumes": [{"name": "data", "size_gib": 100, "device": "/dev/disk/by-id/google-data"}],
        "node_region": "europe-west1",
        "node_zone": "europe-west1-b",
    }
    assert [volume["size_gib"] for volume in variables(data, "prod-worker-1")["node_volumes"]] == [200, 20]
    assert google.paths().count("/token") == 1


def test_gce_tags_say_the_user_unless_the_option_does(inventory: Inventory, google: Replay) -> None:
    config = {key: value for key, value in GCE.items() if key != "user"}
    rules = {"users_from": "ashlar_user", "filters": {"ashlar_site": "prod"}}
    with pytest.raises(Exception, match="no user of SSH"):
        inventory({**config, **rules, "endpoint": google.url})
    assert variables(inventory({**GCE, "endpoint": google.url}), "prod-worker-1")["ansible_user"] == "admin"


def test_gce_regions_and_zones_are_asked_by_themselves(inventory: Inventory, google: Replay) -> None:
    data = inventory({**GCE, "endpoint": google.url, "regions": ["europe-west1", "europe-west4-a"]})
    assert list(data.hosts) == ["prod-control-1", "prod-control-2", "prod-worker-1"]
    assert not google.paths("/compute/v1/projects/example/aggregated")
    assert len(google.paths("/compute/v1/projects/example/zones")) == 3


def test_gce_service_account_signs_for_the_server_of_its_key_file(inventory: Inventory, google: Replay) -> None:
    inventory({**GCE, "endpoint": google.url})
    form = next(asked for asked in google.asked if asked.path == "/token").form
    assert form["grant_type"] == "urn:ietf:params:oauth:grant-type:jwt-bearer"
    header, claims = (json.loads(base64.urlsafe_b64decode(part + "==")) for part in form["assertion"].split(".")[:2])
    assert header == {"alg": "RS256", "typ": "JWT", "kid": "0123456789abcdef"}
    assert claims["iss"] == "inventory@example.iam.gserviceaccount.com"
    assert claims["aud"] == f"{google.url}/token"
    assert claims["scope"] == "https://www.googleapis.com/auth/compute.readonly"


def test_gce_login_of_a_user_where_gcloud_keeps_it(inventory: Inventory, google: Replay, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Path(os.environ["HOME"]) / ".config" / "gcloud"
    folder.mkdir(parents=True)
    user = {"type": "authorized_user", "client_id": "1.apps.example", "client_secret": "example-client", "refresh_token": "example-refresh-token"}
    key_file(folder / "application_default_credentials.json", f"{google.url}/token", **user, private_key=None, project_id=None)
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS")
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "example")
    assert len(inventory({**GCE, "endpoint": google.url}).hosts) == 3
    form = next(asked for asked in google.asked if asked.path == "/token").form
    assert (form["grant_type"], form["refresh_token"]) == ("refresh_token", "example-refresh-token")


def test_gce_machine_with_a_service_account(inventory: Inventory, google: Replay, monkeypatch: pytest.MonkeyPatch) -> None:
    def metadata(asked: Asked) -> Answer:
        assert asked.headers["metadata-flavor"] == "Google"
        if asked.path.endswith("/token"):
            return Answer(200, {"access_token": "recorded-token", "expires_in": 300, "token_type": "Bearer"})
        return Answer(200, b"example", {"Content-Type": "application/text"})

    google.routes["/computeMetadata/v1/"] = metadata
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS")
    monkeypatch.setenv("GCE_METADATA_HOST", google.url.removeprefix("http://"))
    assert len(inventory({**GCE, "endpoint": google.url}).hosts) == 3


def test_gce_leaves_no_token_behind(inventory: Inventory, google: Replay, tmp_path: Path) -> None:
    inventory({**GCE, "endpoint": google.url, "cache": True, "cache_plugin": "jsonfile", "cache_connection": str(tmp_path / "cache")})
    written = [file for file in tmp_path.rglob("*") if file.is_file() and file.name != "key.json"]
    assert any(file.parent.name == "cache" for file in written)
    for file in written:
        text = file.read_text()
        assert not any(secret in text for secret in (*SECRETS, "example-startup-secret")), file


def test_openstack_servers_of_all_regions_over_several_pages(inventory: Inventory, nova: Replay) -> None:
    data = inventory({**OPENSTACK, "network": "platform"})
    assert list(data.hosts) == ["prod-control-1", "prod-edge-1", "prod-worker-1"]
    assert variables(data, "prod-control-1") == {
        "ansible_become": True,
        "ansible_host": "203.0.113.31",
        "ansible_user": "admin",
        "node_address": "10.30.0.11",
        "node_classes": ["control", "worker"],
        "node_id": "00000001-1111-4222-8333-444455556666",
        "node_labels": {"example.com/rack": "R1", "disk": "ssd"},
        "node_volumes": [
            {"name": "data", "size_gib": 100, "device": "/dev/disk/by-id/virtio-aaaaaaaa-0000-4000-8"},
            {"name": "logs", "size_gib": 20, "device": "/dev/disk/by-id/virtio-bbbbbbbb-0000-4000-8"},
        ],
        "node_region": "RegionOne",
        "node_zone": "az1",
    }
    assert "node_volumes" not in variables(data, "prod-worker-1"), "the system's disk is no data volume"
    assert variables(data, "prod-edge-1")["ansible_host"] == "198.51.100.7"
    assert nova.paths().count("/v3/auth/tokens") == 1


def test_openstack_without_a_network_takes_a_private_address(inventory: Inventory, nova: Replay) -> None:
    data = inventory({**OPENSTACK, "regions": ["RegionTwo"]})
    assert variables(data, "prod-edge-1")["node_address"] == "10.40.0.11"
    assert not nova.paths("/one/")
    assert not nova.paths("/two/volume"), "no server has a volume, so nobody asks for them"


def test_openstack_password_login_says_names_and_domains(inventory: Inventory, nova: Replay) -> None:
    inventory(OPENSTACK)
    assert nova.asked[0].json == {
        "auth": {
            "identity": {
                "methods": ["password"],
                "password": {"user": {"name": "inventory", "domain": {"name": "Default"}, "password": "example-secret-of-openstack"}},
            },
            "scope": {"project": {"name": "platform", "domain": {"name": "Default"}}},
        }
    }


CLOUDS = """
clouds:
  example:
    auth_type: v3applicationcredential
    auth: {auth_url: "%s/identity/", application_credential_id: 1f2e3d}
    region_name: RegionOne
    interface: internal
  other:
    auth: {auth_url: "http://127.0.0.1:9"}
"""
SECURE = "clouds: {example: {auth: {application_credential_secret: example-secret-of-application}}}"


@pytest.mark.parametrize("how", ["option", "variable"])
def test_openstack_application_credential_of_clouds_yaml_and_secure_yaml(
    how: str, inventory: Inventory, replay: Callable[[str], Replay], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = replay("openstack")
    server.exchanges.insert(0, {**server.exchanges[0], "request": {"method": "POST", "path": "/identity/v3/auth/tokens"}})
    (tmp_path / "clouds.yaml").write_text(CLOUDS % server.url)
    (tmp_path / "secure.yaml").write_text(SECURE)
    monkeypatch.setenv("OS_CLIENT_CONFIG_FILE", str(tmp_path / "clouds.yaml"))
    if how == "variable":
        monkeypatch.setenv("OS_CLOUD", "example")
    data = inventory({**OPENSTACK, **({"cloud": "example"} if how == "option" else {}), "volumes": False})
    assert list(data.hosts) == ["prod-worker-1"], "of the internal interface, in the region that clouds.yaml names"
    credential = {"id": "1f2e3d", "secret": "example-secret-of-application"}
    assert server.asked[0].json == {"auth": {"identity": {"methods": ["application_credential"], "application_credential": credential}}}


def test_openstack_token_for_a_project_by_id(inventory: Inventory, nova: Replay, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in openrc(""):
        if name != "OS_AUTH_URL":
            monkeypatch.delenv(name)
    monkeypatch.setenv("OS_TOKEN", "recorded-token")
    monkeypatch.setenv("OS_PROJECT_ID", "5f1c9a7e")
    inventory(OPENSTACK)
    assert nova.asked[0].json["auth"] == {"identity": {"methods": ["token"], "token": {"id": "recorded-token"}}, "scope": {"project": {"id": "5f1c9a7e"}}}


@pytest.mark.parametrize("fault", [503, 429, CUT, 500, 504])
@pytest.mark.parametrize("where", ["/v3/auth/tokens", "/one/v2.1/servers/detail", "/one/volume"])
def test_openstack_is_asked_again_after_a_fault(where: str, fault: int, inventory: Inventory, nova: Replay, quick: list[float]) -> None:
    nova.faults[where] = [Answer(fault, b""), Answer(fault, b"", {"Retry-After": "3"})]
    assert len(inventory(OPENSTACK).hosts) == 3
    assert len(quick) == 2
    assert quick[1] == 3.0 or fault == CUT


@pytest.mark.parametrize(
    "fault", [Answer(503, b"down"), Answer(CUT), Answer(403, {"error": {"code": 403, "errors": [{"reason": "rateLimitExceeded", "message": "x"}]}})]
)
@pytest.mark.parametrize("where", ["/token", "/compute/v1/projects/example/aggregated"])
def test_gce_is_asked_again_after_a_fault(where: str, fault: Answer, inventory: Inventory, google: Replay, quick: list[float]) -> None:
    google.faults[where] = [fault] * 4
    assert len(inventory({**GCE, "endpoint": google.url}).hosts) == 3
    assert len(quick) == 4
    assert all(0 <= pause <= 20 for pause in quick)


def run(client: Any, names: list[str], site: str = "prod", volume: int | None = None, **tags: str) -> list[str]:
    """Runs instances of moto's, and gives their ids."""
    ids = []
    image = client.describe_images(Owners=["amazon"])["Images"][0]["ImageId"]
    for name in names:
        values = {"Name": name, "ashlar_site": site, "ashlar_classes": "worker", **tags}
        listed = [{"Key": key, "Value": value} for key, value in values.items() if value]
        extra = {"BlockDeviceMappings": [{"DeviceName": "/dev/sdf", "Ebs": {"VolumeSize": volume}}]} if volume else {}
        made = client.run_instances(ImageId=image, MinCount=1, MaxCount=1, TagSpecifications=[{"ResourceType": "instance", "Tags": listed}], **extra)
        ids.append(made["Instances"][0]["InstanceId"])
    return ids


def many(client: Any, number: int) -> None:
    """So many instances, each of a reservation of its own; made by one request and told apart within moto, which takes minutes otherwise."""
    image = client.describe_images(Owners=["amazon"])["Images"][0]["ImageId"]
    tags = [{"Key": "ashlar_site", "Value": "prod"}, {"Key": "ashlar_classes", "Value": "worker"}]
    client.run_instances(ImageId=image, MinCount=number, MaxCount=number, TagSpecifications=[{"ResourceType": "instance", "Tags": tags}])
    backend = ec2_backends["123456789012"][client.meta.region_name]
    (together,) = backend.reservations.values()
    backend.reservations.clear()
    for position, instance in enumerate(together.instances, 1):
        instance.add_tags({"Name": f"prod-worker-{position}"})
        alone = backend.reservations[f"r-{position:017x}"] = Reservation(f"r-{position:017x}", together.owner_id)
        alone.instances.append(instance)


AWS = {"provider": "aws", "filters": {"ashlar_site": "prod"}, "user": "admin"}


def test_aws_instances_of_several_regions_by_the_command(aws: Callable[[str], Any], command: Callable[..., Any]) -> None:
    run(aws("eu-west-1"), ["prod-control-1"], ashlar_classes="control_worker", ashlar_labels="example.com/rack=R1 disk=ssd", volume=20)
    run(aws("eu-central-1"), ["prod-worker-1", "prod-worker-2"])
    run(aws("eu-central-1"), ["staging-worker-1"], site="staging")
    gone = run(aws("eu-central-1"), ["prod-worker-3", "prod-worker-4"])
    aws("eu-central-1").terminate_instances(InstanceIds=gone[:1])
    aws("eu-central-1").stop_instances(InstanceIds=gone[1:])
    volume = aws("eu-west-1").describe_volumes(Filters=[{"Name": "size", "Values": ["20"]}])["Volumes"][0]["VolumeId"]
    aws("eu-west-1").create_tags(Resources=[volume], Tags=[{"Key": "ashlar_volume", "Value": "data"}])
    said = command({**AWS, "regions": ["eu-west-1", "eu-central-1"], "keyed_groups": [{"key": "region", "prefix": "region"}]})
    assert (said.code, said.stderr) == (0, "")
    assert sorted(said.hosts) == ["prod-control-1", "prod-worker-1", "prod-worker-2"]
    first = said.hosts["prod-control-1"]
    assert first["node_classes"] == ["control", "worker"]
    assert first["node_labels"] == {"example.com/rack": "R1", "disk": "ssd"}
    assert first["node_zone"] == "eu-west-1a"
    assert first["ansible_user"] == "admin"
    device = f"/dev/disk/by-id/nvme-Amazon_Elastic_Block_Store_{volume.replace('-', '')}"
    assert first["node_volumes"] == [{"name": "data", "size_gib": 20, "device": device}]
    groups = json.loads(said.stdout)
    assert groups["region_eu_central_1"]["hosts"] == ["prod-worker-1", "prod-worker-2"]


def test_aws_stopped_instances_count_where_asked_for_but_terminated_ones_never(aws: Callable[[str], Any], inventory: Inventory) -> None:
    client = aws("eu-west-1")
    ids = run(client, ["prod-worker-1", "prod-worker-2", "prod-worker-3"])
    client.stop_instances(InstanceIds=ids[1:2])
    client.terminate_instances(InstanceIds=ids[2:])
    config = {**AWS, "regions": ["eu-west-1"], "address": "private"}
    assert list(inventory(config).hosts) == ["prod-worker-1"]
    assert list(inventory({**config, "running": False}).hosts) == ["prod-worker-1", "prod-worker-2"]


def test_aws_filters_are_no_patterns(aws: Callable[[str], Any], inventory: Inventory) -> None:
    run(aws("eu-west-1"), ["prod-worker-1"])
    with pytest.raises(Exception, match=r"matches ashlar_site=pro\*. Without filters there is 1, 1 of them running; their tag ashlar_site is prod"):
        inventory({**AWS, "regions": ["eu-west-1"], "filters": {"ashlar_site": "pro*"}})


def test_aws_more_than_a_thousand_instances(
    aws: Callable[[str], Any], inventory: Inventory, replay: Callable[..., Replay], moto: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    many(aws("eu-west-1"), 1005)
    server = proxy_to(replay(), moto)
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
    assert len(inventory({**AWS, "regions": ["eu-west-1"]}).hosts) == 1005
    assert [asked.form["Action"] for asked in server.asked] == ["DescribeInstances", "DescribeInstances"]


THROTTLED = (
    b"<Response><Errors><Error><Code>RequestLimitExceeded</Code><Message>Request limit exceeded.</Message></Error></Errors>"
    b"<RequestID>59dbff89-35bd-4eac-99ed-be587EXAMPLE</RequestID></Response>"
)


def test_aws_is_asked_again_after_faults(
    aws: Callable[[str], Any], replay: Callable[..., Replay], command: Callable[..., Any], moto: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(aws("eu-west-1"), ["prod-worker-1"], volume=10)
    server = proxy_to(replay(), moto)
    server.faults["/"] = [Answer(503, THROTTLED, {"Content-Type": "text/xml"}), Answer(CUT), Answer(500, b"")]
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
    said = command({**AWS, "regions": ["eu-west-1"]})
    assert list(said.hosts) == ["prod-worker-1"]
    assert len(server.asked) == 3 + 2
