# SPDX-License-Identifier: Apache-2.0
"""AWS: EC2 instances by boto3.

API: DescribeInstances and DescribeVolumes (https://docs.aws.amazon.com/AWSEC2/latest/APIReference/). Needs the permissions ec2:DescribeInstances, and
ec2:DescribeVolumes where instances have data volumes. Credentials are boto3's own chain, so whatever the AWS CLI takes works here.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from difflib import get_close_matches
from functools import partial
from typing import Any

import boto3  # type: ignore[import-untyped]
from ansible_collections.ashlar.stack.plugins.plugin_utils.machines.clouds.common import CloudError, Disk, Instance, Question, in_regions, without
from botocore import exceptions as failures  # type: ignore[import-untyped]
from botocore.config import Config  # type: ignore[import-untyped]
from botocore.parsers import ResponseParserError  # type: ignore[import-untyped]

KIND = "tag"
NO_REGION = "no region is given. Name one or more in the option regions, or one by AWS_REGION or in the profile."
NAME_TAG: str | None = "Name"
NOT_AWS = "{} gave an answer that is not of this API. See that its URL is right and that no proxy or login page answers for it."
PAGE = 1000
REQUESTS_AT_ONCE = 4
VOLUMES_OF_ONE_REQUEST = 200
"""As many values as the API takes for one filter."""
TOO_MANY = (
    "RequestLimitExceeded",
    "Throttling",
    "ThrottlingException",
    "ThrottledException",
    "TooManyRequestsException",
    "RequestThrottled",
    "SlowDown",
    "EC2ThrottledException",
)
REFUSED = ("AuthFailure", "InvalidClientTokenId", "SignatureDoesNotMatch", "UnrecognizedClientException", "IncompleteSignature", "InvalidAccessKeyId")
EXPIRED = ("ExpiredToken", "ExpiredTokenException", "RequestExpired")
FORBIDDEN = ("UnauthorizedOperation", "AccessDenied", "AccessDeniedException", "UnauthorizedAccess")


def instances(question: Question) -> list[Instance]:
    """Instances of all regions.

    :raises CloudError: no credentials, an unknown region ...
    :raises CloudErrors: of one region or several.
    """
    try:
        session = boto3.Session(profile_name=question.profile)
        regions = question.regions or tuple(region for region in (session.region_name,) if region)
        if not regions:
            raise CloudError(NO_REGION)
        if not session.region_name:
            # To take a role, boto3 needs a region as well.
            session = boto3.Session(profile_name=question.profile, region_name=regions[0])
        if session.get_credentials() is None:
            raise failures.NoCredentialsError
        _check_regions(session, regions, question)
        # Clients are made here, one after the other: a session may not be shared by threads, its clients may.
        clients = {region: _client(session, region, question) for region in regions}
    except (failures.BotoCoreError, failures.ClientError) as error:
        raise _explain(error, question) from None
    return in_regions({region: partial(_of_region, client, region, question) for region, client in clients.items()})


def _client(session: Any, region: str, question: Question) -> Any:
    config = Config(
        connect_timeout=question.timeout,
        read_timeout=question.timeout,
        # Throttling, 5xx, broken connections and timeouts are tried again, with exponential pauses of random length (20 s at most).
        retries={"mode": "standard", "total_max_attempts": question.attempts},
        user_agent_extra="ashlar",
    )
    return session.client("ec2", region_name=region, endpoint_url=question.endpoint, verify=question.verify, config=config)


def _check_regions(session: Any, regions: tuple[str, ...], question: Question) -> None:
    """A mistyped region has no address, which would look like a broken network."""
    if question.endpoint or os.environ.get("AWS_ENDPOINT_URL") or os.environ.get("AWS_ENDPOINT_URL_EC2"):
        return
    known = {region for partition in session.get_available_partitions() for region in session.get_available_regions("ec2", partition_name=partition)}
    unknown = [region for region in regions if region not in known]
    if unknown:
        near = sorted({name for region in unknown for name in get_close_matches(region, known)})
        raise CloudError(
            f"AWS has no region {', '.join(unknown)} that boto3 {boto3.__version__} knows. "
            f"{'Near it are ' + ', '.join(near) if near else 'Regions are such as eu-west-1 or us-east-2'}. "
            "Correct the option regions, or update boto3 if the region is new."
        )


def _of_region(client: Any, region: str, question: Question) -> list[Instance]:
    raw: list[Mapping[str, Any]] = []
    with _Explaining("ec2:DescribeInstances", question, client):
        pages = client.get_paginator("describe_instances").paginate(Filters=_filters(question), PaginationConfig={"PageSize": PAGE})
        for page in pages:
            for reservation in _list(page, "Reservations"):
                raw += reservation["Instances"]
    data = [(instance, _data_devices(instance)) for instance in raw]
    wanted = [volume for _, devices in data for volume in devices] if question.disks else []
    volumes: dict[str, Mapping[str, Any]] = {}
    if wanted:
        with _Explaining("ec2:DescribeVolumes", question, client):
            for volume in _volumes(client, wanted):
                volumes[volume["VolumeId"]] = volume
    return [_instance(instance, [volumes[name] for name in devices if name in volumes], region) for instance, devices in data]


def _list(page: Mapping[str, Any], key: str) -> Any:
    # botocore takes any XML, a login page too, for an answer in which nothing is said.
    if key not in page:
        raise ResponseParserError
    return page[key]


def _filters(question: Question) -> list[dict[str, Any]]:
    filters = [{"Name": f"tag:{tag}", "Values": [_literal(value) for value in values]} for tag, values in question.filters.items()]
    states = ["running"] if question.running else ["pending", "running", "stopping", "stopped"]
    return [*filters, {"Name": "instance-state-name", "Values": states}]


def _literal(value: str) -> str:
    """The API reads * and ? as wildcards."""
    return value.replace("\\", "\\\\").replace("*", "\\*").replace("?", "\\?")


def _data_devices(instance: Mapping[str, Any]) -> list[str]:
    """Ids of the volumes besides the system's."""
    root = instance.get("RootDeviceName")
    return [device["Ebs"]["VolumeId"] for device in instance.get("BlockDeviceMappings", ()) if "Ebs" in device and device["DeviceName"] != root]


def _volumes(client: Any, ids: list[str]) -> Iterator[Mapping[str, Any]]:
    def describe(part: list[str]) -> list[Mapping[str, Any]]:
        # By filter, not by VolumeIds: a volume that was deleted meanwhile is no error then.
        pages = client.get_paginator("describe_volumes").paginate(Filters=[{"Name": "volume-id", "Values": part}])
        return [volume for page in pages for volume in _list(page, "Volumes")]

    parts = [ids[start : start + VOLUMES_OF_ONE_REQUEST] for start in range(0, len(ids), VOLUMES_OF_ONE_REQUEST)]
    with ThreadPoolExecutor(REQUESTS_AT_ONCE, "ashlar-volumes") as pool:
        for volumes in pool.map(describe, parts):
            yield from volumes


def _instance(raw: Mapping[str, Any], volumes: list[Mapping[str, Any]], region: str) -> Instance:
    tags = _tags(raw)
    return Instance(
        id=raw["InstanceId"],
        name=tags.get("Name", ""),
        region=region,
        zone=raw.get("Placement", {}).get("AvailabilityZone", ""),
        running=raw.get("State", {}).get("Name") == "running",
        private_ip=raw.get("PrivateIpAddress") or None,
        public_ip=raw.get("PublicIpAddress") or None,
        tags=tags,
        disks=tuple(_disk(volume) for volume in volumes),
        size=raw.get("InstanceType", ""),
        image=raw.get("ImageId", ""),
    )


def _disk(raw: Mapping[str, Any]) -> Disk:
    tags = _tags(raw)
    # Whatever device was asked for, Nitro machines name NVMe disks as they find them; udev makes this link from the serial number.
    serial = raw["VolumeId"].replace("-", "")
    return Disk(raw["VolumeId"], tags.get("Name", ""), int(raw["Size"]), f"/dev/disk/by-id/nvme-Amazon_Elastic_Block_Store_{serial}", tags)


def _tags(raw: Mapping[str, Any]) -> dict[str, str]:
    return {tag["Key"]: tag["Value"] for tag in raw.get("Tags", ())}


class _Explaining:
    """What boto3 raises within becomes a CloudError."""

    def __init__(self, permission: str, question: Question, client: Any) -> None:
        self.permission, self.question, self.endpoint = permission, question, client.meta.endpoint_url

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, ResponseParserError):
            raise CloudError(NOT_AWS.format(self.endpoint)) from None
        if isinstance(error, failures.ClientError | failures.BotoCoreError):
            raise _explain(error, self.question, self.permission, self.endpoint) from None


def _explain(error: Exception, question: Question, permission: str = "", endpoint: str = "") -> CloudError:
    who = f"profile {question.profile}" if question.profile else "the credentials that boto3 found"
    if isinstance(error, failures.ClientError):
        # Credentials of a role are fetched when the first call needs them.
        asked = permission if error.operation_name in permission else f"sts:{error.operation_name}"
        return CloudError(_refusal(error, question, who, asked, endpoint))
    return CloudError(_failure(error, question, endpoint))


def _failure(error: Exception, question: Question, endpoint: str) -> str:
    tried = _times(question)
    match error:
        case failures.ProfileNotFound():
            name = question.profile or os.environ.get("AWS_PROFILE", "")
            return (
                f"there is no profile {name} in ~/.aws/config or ~/.aws/credentials. "
                "Correct the option profile (or AWS_PROFILE), or make it with aws configure."
            )
        case failures.NoCredentialsError() | failures.PartialCredentialsError() | failures.CredentialRetrievalError():
            return (
                f"there are no credentials for AWS ({_message(error)}). Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or name a profile "
                "(option profile or AWS_PROFILE), or log in with aws sso login, or run on a machine with an instance profile."
            )
        case failures.SSOError() | failures.TokenRetrievalError() | failures.LoginError():
            profile = f" --profile {question.profile}" if question.profile else ""
            return f"the login of AWS has expired or was never made ({_message(error)}). Log in: aws sso login{profile}."
        case failures.NoRegionError():
            return NO_REGION
        # Timeouts are connection errors as well, so the narrower kinds come first.
        case failures.ConnectTimeoutError():
            return (
                f"{endpoint} could not be reached within {question.timeout:g} s, tried {tried}. "
                "See that this machine reaches it (proxy: HTTPS_PROXY), or raise the option timeout_seconds."
            )
        case failures.ReadTimeoutError():
            return f"{endpoint} did not answer within {question.timeout:g} s, tried {tried}. Run it again later, or raise the option timeout_seconds."
        case failures.SSLError():
            return f"the certificate of {endpoint} is not trusted ({_message(error)}). Name the CA's file in the option ca_path (or AWS_CA_BUNDLE)."
        case failures.ConnectionClosedError():
            return f"{endpoint} broke the connection, tried {tried}. Run it again later; see that no proxy is in between."
        case failures.HTTPClientError() | failures.EndpointConnectionError() | failures.ConnectionError():
            return (
                f"{endpoint} can't be reached. See that this machine reaches it (proxy: HTTPS_PROXY), that its name can be resolved, "
                "and that the option endpoint (or AWS_ENDPOINT_URL) is right."
            )
    return f"boto3 could not ask AWS: {_message(error)}."


def _times(question: Question) -> str:
    return f"{question.attempts} times" if question.attempts > 1 else "once"


def _refusal(error: Any, question: Question, who: str, permission: str, endpoint: str) -> str:
    response = error.response
    code = str(response.get("Error", {}).get("Code", ""))
    status = int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    said = without(str(response.get("Error", {}).get("Message", "")).split("Encoded authorization failure message")[0], ()).rstrip(". ")
    if code in EXPIRED:
        return f"AWS says that {who} have expired ({code}). Log in again (aws sso login, or a new session token), and see that this machine's clock is right."
    if code in REFUSED:
        return f"AWS does not accept {who} ({code}). Check the access key, its secret and session token, and that the region is enabled for the account."
    if code == "OptInRequired":
        return "the region is not enabled for this account (OptInRequired). Enable it in the account's settings, or take it out of the option regions."
    if code in FORBIDDEN or status == 403:
        return f"{who} may not do {permission} ({code}: {said}). Give its user or role a policy that allows {permission}."
    if code in TOO_MANY:
        return (
            f"AWS throttles {permission} ({code}) and still did after {question.attempts} attempts. "
            "Run it again later, raise the option attempts, or set cache: true."
        )
    if status >= 500:
        return f"{endpoint} answered with status {status}, tried {_times(question)}. Run it again later; see AWS's health page."
    return f"AWS refused {permission} ({code or status}: {said})."


def _message(error: object) -> str:
    return without(str(error), (os.environ.get("AWS_SECRET_ACCESS_KEY"), os.environ.get("AWS_SESSION_TOKEN"))).rstrip(". ")
