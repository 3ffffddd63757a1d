# SPDX-License-Identifier: Apache-2.0
"""The object store speaks S3 over TLS, keeps what users give it from other users, and answers as long as one gateway does."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from .support.cluster import random_name
from .support.nodes import Node, inactive
from .support.plan import Plan
from .support.site import run
from .support.waiting import until

pytestmark = pytest.mark.needs("ceph_rgw")

GATEWAY, OBJECTS = "ceph-rgw.service", "ceph-objects.service"
S3 = Callable[..., Any]
"""A client with the keys of a user, by the gateway of a node."""


@pytest.fixture(scope="module")
def gateways(plan: Plan, nodes: dict[str, Node]) -> list[Node]:
    found = [nodes[name] for name in plan.on("ceph_rgw")]
    until("users and buckets are there", lambda: all(inactive(node) == [] for node in found))
    return found


@pytest.fixture(scope="module")
def s3(plan: Plan, gateways: list[Node]) -> S3:
    def client(user: str, node: Node = gateways[0]) -> Any:
        config = Config(s3={"addressing_style": "path"}, connect_timeout=5, read_timeout=30, retries={"max_attempts": 1})
        keys = [(plan.credentials / "ceph" / "s3" / user / name).read_text().split()[0] for name in ("access_key", "secret_key")]
        where, authority = f"https://{node.address}:7480", str(plan.credentials / "authorities" / "site" / "ca.crt")
        return boto3.client(
            "s3", endpoint_url=where, region_name="default", verify=authority, config=config, aws_access_key_id=keys[0], aws_secret_access_key=keys[1]
        )

    return client


@pytest.fixture(scope="module")
def bucket(plan: Plan) -> dict[str, Any]:
    """One of the site file, with versions and an end."""
    [found] = [each for each in plan.option("ceph_rgw", "ceph_rgw_buckets") if each.get("versioning") and each.get("expire_days")]
    return dict(found)


@pytest.fixture
def name(s3: S3, bucket: dict[str, Any]) -> Iterator[str]:
    """An object, every version of which is gone afterwards."""
    name = random_name("object")
    yield name
    client = s3(bucket["user"])
    for version in client.list_object_versions(Bucket=bucket["name"], Prefix=name).get("Versions", []):
        client.delete_object(Bucket=bucket["name"], Key=name, VersionId=version["VersionId"])


def refused(call: Callable[[], Any]) -> str:
    with pytest.raises(ClientError) as caught:
        call()
    return str(caught.value.response["Error"]["Code"])


def test_a_bucket_of_the_site_keeps_versions_and_ends_them(s3: S3, bucket: dict[str, Any], name: str) -> None:
    client = s3(bucket["user"])
    [rule] = client.get_bucket_lifecycle_configuration(Bucket=bucket["name"])["Rules"]
    assert rule["Status"] == "Enabled" and rule["Expiration"]["Days"] == rule["NoncurrentVersionExpiration"]["NoncurrentDays"] == bucket["expire_days"]
    first = client.put_object(Bucket=bucket["name"], Key=name, Body=b"first")["VersionId"]
    client.put_object(Bucket=bucket["name"], Key=name, Body=b"second")
    assert client.get_object(Bucket=bucket["name"], Key=name)["Body"].read() == b"second"
    assert client.get_object(Bucket=bucket["name"], Key=name, VersionId=first)["Body"].read() == b"first"


def test_large_objects_arrive_in_parts(s3: S3, bucket: dict[str, Any], name: str) -> None:
    client, part = s3(bucket["user"]), bytes(range(256)) * 4096 * 6
    upload = client.create_multipart_upload(Bucket=bucket["name"], Key=name)["UploadId"]
    place = {"Bucket": bucket["name"], "Key": name, "UploadId": upload}
    parts = [{"PartNumber": number, "ETag": client.upload_part(PartNumber=number, Body=part, **place)["ETag"]} for number in (1, 2)]
    client.complete_multipart_upload(MultipartUpload={"Parts": parts}, **place)
    assert client.get_object(Bucket=bucket["name"], Key=name)["Body"].read() == part * 2


def test_users_have_nothing_of_each_other(s3: S3, plan: Plan, bucket: dict[str, Any], name: str) -> None:
    s3(bucket["user"]).put_object(Bucket=bucket["name"], Key=name, Body=b"mine")
    [stranger] = plan.option("ceph_rgw", "ceph_rgw_users")
    other = s3(stranger)
    assert other.list_buckets()["Buckets"] == []
    assert refused(lambda: other.get_object(Bucket=bucket["name"], Key=name)) == "AccessDenied"
    assert refused(lambda: other.put_object(Bucket=bucket["name"], Key=name, Body=b"theirs")) == "AccessDenied"
    assert refused(lambda: other.list_objects_v2(Bucket=bucket["name"])) == "AccessDenied"
    assert refused(lambda: other.create_bucket(Bucket=bucket["name"])) == "BucketAlreadyExists"


def test_nobody_gets_in_without_keys_or_encryption(gateways: list[Node], bucket: dict[str, Any]) -> None:
    for node in gateways:
        where = f"https://{node.address}:7480/{bucket['name']}"
        assert node.run(f"curl -s --cacert /etc/ashlar/pki/ca/site.crt -o /dev/null -w '%{{http_code}}' {where}") == "403"
        with socket.create_connection((node.address, 7480), 10) as plain:
            plain.sendall(b"GET / HTTP/1.1\r\nHost: s3\r\n\r\n")
            assert b"200 OK" not in plain.recv(1024)


def test_keys_are_in_no_argument_log_or_file_of_others(plan: Plan, gateways: list[Node], bucket: dict[str, Any]) -> None:
    secret = (plan.credentials / "ceph" / "s3" / bucket["user"] / "secret_key").read_text().strip()
    for node in gateways:
        node.run(f"systemctl restart {OBJECTS}")
        assert node.ask(f"journalctl -u {OBJECTS} -u {GATEWAY} | grep -c {secret}").out.strip() == "0"
        assert node.ask(f"runuser -u nobody -- grep -rls {secret} /etc/ceph /var/lib/ceph /run/ceph").out == ""


def test_buckets_are_left_alone_when_they_are_as_wanted(gateways: list[Node]) -> None:
    for node in gateways:
        since = node.run("date '+%F %T'").strip()
        node.run(f"systemctl restart {OBJECTS}")
        said = [json.loads(line) for line in node.run(f"journalctl -u {OBJECTS} --since '{since}' -o json").splitlines()]
        assert [line["MESSAGE"] for line in said if line.get("_COMM") != "systemd"] == []


@pytest.mark.disruptive
def test_one_gateway_is_enough(s3: S3, gateways: list[Node], bucket: dict[str, Any], name: str) -> None:
    s3(bucket["user"]).put_object(Bucket=bucket["name"], Key=name, Body=b"kept")
    down, up = gateways[0], gateways[-1]
    down.run(f"systemctl stop {GATEWAY}")
    try:
        assert s3(bucket["user"], up).get_object(Bucket=bucket["name"], Key=name)["Body"].read() == b"kept"
        with pytest.raises(BotoCoreError):
            s3(bucket["user"], down).list_buckets()
    finally:
        down.run(f"systemctl start {GATEWAY}")
    until(f"the gateway of {down.name} answers again", lambda: answers(s3, bucket["user"], down))


@pytest.mark.scenario("ceph")
@pytest.mark.disruptive
def test_keys_that_were_replaced_open_nothing(s3: S3, plan: Plan, bucket: dict[str, Any], name: str) -> None:
    old = s3(bucket["user"])
    old.put_object(Bucket=bucket["name"], Key=name, Body=b"kept")
    run(plan, "rotate", "-e", "what=object_keys")
    assert refused(lambda: old.get_object(Bucket=bucket["name"], Key=name)) == "InvalidAccessKeyId"
    assert s3(bucket["user"]).get_object(Bucket=bucket["name"], Key=name)["Body"].read() == b"kept"


def answers(s3: S3, user: str, node: Node) -> bool:
    try:
        s3(user, node).list_buckets()
    except BotoCoreError:
        return False
    return True
