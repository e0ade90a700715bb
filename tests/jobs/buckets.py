"""An S3 on loopback with one bucket, and what a test does to the objects behind a job's back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from moto.server import ThreadedMotoServer
from types_boto3_s3 import S3Client

BUCKET = "archive-of-a-test"
REGION = "us-east-1"


@dataclass
class Bucket:
    """The bucket."""

    client: S3Client
    environment: dict[str, str]

    def keys(self, prefix: str = "") -> list[str]:
        """What is in it."""
        answer = self.client.list_objects_v2(Bucket=BUCKET, Prefix=prefix)
        return [one["Key"] for one in answer.get("Contents", [])]

    def get(self, key: str) -> bytes:
        """An object."""
        return self.client.get_object(Bucket=BUCKET, Key=key)["Body"].read()

    def put(self, key: str, data: bytes, **options: Any) -> None:
        """Another content for an object."""
        self.client.put_object(Bucket=BUCKET, Key=key, Body=data, **options)

    def fetch(self, folder: Path, prefix: str = "partitions/table=") -> list[Path]:
        """The objects as files, with their folders."""
        made = []
        for key in self.keys(prefix):
            path = folder / key
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(self.get(key))
            made.append(path)
        return made

    def rows(self) -> int:
        """Rows that somebody sees who reads the folders of the tables."""
        return sum(
            pq.read_metadata(pa.BufferReader(self.get(key))).num_rows
            for key in self.keys("partitions/table=")
        )

    def empty(self) -> None:
        """Delete all of it, uploads under way too."""
        for key in self.keys():
            self.client.delete_object(Bucket=BUCKET, Key=key)


@contextmanager
def emulator() -> Iterator[Bucket]:
    """The service, with an empty bucket; `environment` is that of somebody who may use it."""
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        environment = {
            "AWS_ENDPOINT_URL": f"http://{host}:{port}",
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_DEFAULT_REGION": REGION,
            "AWS_EC2_METADATA_DISABLED": "true",
            "ARCHIVE_BUCKET": BUCKET,
            "PARTITIONS_LEAVE": "true",
        }
        client = boto3.client(
            "s3",
            endpoint_url=environment["AWS_ENDPOINT_URL"],
            aws_access_key_id="testing",
            aws_secret_access_key="testing",
            region_name=REGION,
        )
        client.create_bucket(Bucket=BUCKET)
        yield Bucket(client, environment)
    finally:
        server.stop()


def use(patch: pytest.MonkeyPatch, bucket: Bucket) -> Bucket:
    """Set the environment, and empty the bucket."""
    for name, value in bucket.environment.items():
        patch.setenv(name, value)
    for name in ("AWS_PROFILE", "AWS_REGION", "AWS_SESSION_TOKEN", "PARTITION_PREFIX", "KMS_KEY_ID"):
        patch.delenv(name, raising=False)
    bucket.empty()
    return bucket
