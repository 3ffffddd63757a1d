# SPDX-License-Identifier: Apache-2.0
"""Backups in a bucket of S3 or of what speaks like it. Credentials, region and endpoint are boto3's own chain, so whatever the AWS CLI takes works here.

A file is there as a whole or not at all: in S3 it appears when its upload is completed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any

import boto3  # type: ignore[import-untyped]
from botocore import exceptions as failures  # type: ignore[import-untyped]
from botocore.config import Config  # type: ignore[import-untyped]

from .age import Readable
from .errors import BackupError
from .places import Incoming, Place

PART_BYTES = 32 << 20
"""Of an upload, and of memory. S3 takes 10,000 parts, which are 312 GiB."""
CONFIG = Config(
    connect_timeout=10,
    read_timeout=60,
    retries={"mode": "standard", "total_max_attempts": 4},
    user_agent_extra="ashlar",
    # Servers that only speak like S3 do not know the checksums that boto3 adds of its own accord.
    request_checksum_calculation="when_required",
    response_checksum_validation="when_required",
)
NO_BUCKET = ("NoSuchBucket",)
REFUSED = ("AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken", "AllAccessDisabled", "403")
UNREACHABLE = (failures.HTTPClientError, failures.EndpointConnectionError, failures.ConnectionError)


class Bucket(Place):
    """``prefix``: without slashes at its ends; may be empty."""

    def __init__(self, bucket: str, prefix: str) -> None:
        self.bucket, self.prefix = bucket, prefix
        self.shown = f"s3://{bucket}{f'/{prefix}' if prefix else ''}"
        self._client: Any = None

    def client(self) -> Any:
        """boto3's client; to be used where failures are explained."""
        if self._client is None:
            session = boto3.Session()
            self._client = session.client("s3", region_name=session.region_name or "us-east-1", config=CONFIG)
        return self._client

    def key(self, name: str) -> dict[str, str]:
        """What names a file in requests."""
        return {"Bucket": self.bucket, "Key": f"{self.prefix}/{name}" if self.prefix else name}

    def names(self) -> list[str]:
        above = f"{self.prefix}/" if self.prefix else ""
        with Explaining(self):
            pages = self.client().get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=above, Delimiter="/")
            return [one["Key"].removeprefix(above) for page in pages for one in page.get("Contents", ())]

    def receive(self, name: str) -> Incoming:
        return _Incoming(self, name)

    @contextmanager
    def read(self, name: str) -> Iterator[Readable]:
        with Explaining(self, name):
            body = self.client().get_object(**self.key(name))["Body"]
        try:
            yield _Outgoing(self, name, body)
        finally:
            body.close()

    def remove(self, names: Sequence[str]) -> None:
        with Explaining(self):
            for name in names:
                self.client().delete_object(**self.key(name))


class _Incoming(Incoming):
    """In parts; a file of one part is one request."""

    def __init__(self, place: Bucket, name: str) -> None:
        super().__init__()
        self.place, self.name = place, name
        self.buffer = bytearray()
        self.upload: dict[str, str] = {}
        self.parts: list[dict[str, Any]] = []

    def put(self, data: bytes) -> None:
        self.buffer += data
        if len(self.buffer) >= PART_BYTES:
            self._send()

    def _send(self) -> None:
        number = len(self.parts) + 1
        with Explaining(self.place, self.name):
            client = self.place.client()
            if not self.upload:
                # Kept before anything else can fail, so that it can be given up.
                self.upload = {"UploadId": client.create_multipart_upload(**self.place.key(self.name))["UploadId"]}
            answer = client.upload_part(**self.place.key(self.name), **self.upload, PartNumber=number, Body=bytes(self.buffer))
        self.parts.append({"PartNumber": number, "ETag": answer["ETag"]})
        self.buffer.clear()

    def commit(self) -> None:
        if self.parts and self.buffer:
            self._send()
        with Explaining(self.place, self.name):
            client, key = self.place.client(), self.place.key(self.name)
            if self.parts:
                client.complete_multipart_upload(**key, **self.upload, MultipartUpload={"Parts": self.parts})
                self.upload = {}
            else:
                client.put_object(**key, Body=bytes(self.buffer))
            arrived = client.head_object(**key)["ContentLength"]
            if arrived != self.size:
                client.delete_object(**key)
                raise BackupError(f"{self.place.where(self.name)} has {arrived} bytes instead of the {self.size} that were sent, and was removed. Try again.")

    def give_up(self) -> None:
        if self.upload:
            try:
                self.place.client().abort_multipart_upload(**self.place.key(self.name), **self.upload)
            except (failures.BotoCoreError, failures.ClientError):
                # The reason why it was given up is told. A rule of the bucket removes uploads that were never completed.
                pass


class _Outgoing:
    def __init__(self, place: Bucket, name: str, body: Any) -> None:
        self.place, self.name, self.body = place, name, body

    def read(self, size: int, /) -> bytes:
        with Explaining(self.place, self.name):
            data: bytes = self.body.read(size)
        return data


class Explaining:
    """A context in which boto3's exceptions become one sentence."""

    def __init__(self, place: Bucket, name: str = "") -> None:
        self.place = place
        self.shown = place.where(name) if name else place.shown

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if isinstance(error, (failures.BotoCoreError, failures.ClientError)):
            raise BackupError(self._sentence(error)) from None

    def _sentence(self, error: Any) -> str:
        if isinstance(error, (failures.NoCredentialsError, failures.PartialCredentialsError)):
            give = "AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
            return f"{self.shown}: there are no credentials for S3. Give them as the AWS CLI takes them: {give}."
        if isinstance(error, UNREACHABLE):
            return f"{self.shown} can't be reached: {error} Check the network, AWS_REGION and, for a server of your own, AWS_ENDPOINT_URL."
        if isinstance(error, failures.ClientError):
            code = str(error.response.get("Error", {}).get("Code", ""))
            if code in NO_BUCKET:
                return f"{self.shown}: there is no bucket {self.place.bucket}. Make it, or correct its name."
            if code in ("NoSuchKey", "404"):
                return f"{self.shown} is not there. Correct the name."
            if code in REFUSED:
                rights = "s3:ListBucket, s3:GetObject, s3:PutObject, s3:DeleteObject and s3:AbortMultipartUpload"
                return f"{self.shown} refuses these credentials ({code}). They need {rights} there; check them with: aws sts get-caller-identity"
        return f"{self.shown}: {error}. Correct that, or choose another place."
