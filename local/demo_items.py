"""Files of this very host as items of a DynamoDB table, so that the archiver has something old to move.

    python -m local.demo_items

It uses the AWS that the environment names, makes what is missing (bucket, tables), and prints a JSON object.
"""

from __future__ import annotations

import hashlib
import json
import sys
import sysconfig
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import boto3
from botocore.exceptions import BotoCoreError, ClientError

from archiver import state
from archiver.age import iso
from archiver.errors import ArchiverError
from local.place import CLONE

if TYPE_CHECKING:
    from types_boto3_dynamodb import DynamoDBClient

TABLE: Final = "host-files"
RESTORED: Final = "host-files-restored"
BUCKET: Final = "eav-archive"
STATE: Final = "archiver-state"
MOST: Final = 250
"""Files."""


def main() -> int:
    """Put the items; returns the exit code: 1, with one line on standard error, if AWS does not take them."""
    try:
        dynamodb, s3 = boto3.client("dynamodb"), boto3.client("s3")
        if BUCKET not in {one["Name"] for one in s3.list_buckets()["Buckets"]}:
            s3.create_bucket(Bucket=BUCKET)
        make_table(dynamodb, TABLE)
        make_table(dynamodb, RESTORED)
        state.create_table(dynamodb, STATE)
        put = 0
        for batch in batches():
            dynamodb.batch_write_item(RequestItems={TABLE: batch})
            put += len(batch)
    except (BotoCoreError, ClientError, ArchiverError) as error:
        print(f"could not put items into the local AWS: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    print(json.dumps({"items": put}))
    return 0


def make_table(client: DynamoDBClient, name: str) -> None:
    """One with the key `path`, unless it is there."""
    if name not in client.list_tables()["TableNames"]:
        client.create_table(
            TableName=name,
            AttributeDefinitions=[{"AttributeName": "path", "AttributeType": "S"}],
            KeySchema=[{"AttributeName": "path", "KeyType": "HASH"}],
            BillingMode="PAY_PER_REQUEST",
        )


def files() -> list[Path]:
    """The standard library of this Python, which is old, and the documents of this clone, which are not."""
    return [*sorted(CLONE.glob("*.md")), *sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))][:MOST]


def batches() -> Iterator[list[Any]]:
    """Writes for BatchWriteItem, 25 at a time."""
    batch: list[Any] = []
    for path in files():
        try:
            found, body = path.stat(), path.read_bytes()
        except OSError:
            continue
        item = {
            "path": {"S": str(path)},
            "modifiedAt": {"S": iso(datetime.fromtimestamp(found.st_mtime, UTC))},
            "bytes": {"N": str(found.st_size)},
            "lines": {"N": str(body.count(b"\n"))},
            "sha256": {"B": hashlib.sha256(body).digest()},
        }
        batch.append({"PutRequest": {"Item": item}})
        if len(batch) == 25:
            yield batch
            batch = []
    if batch:
        yield batch


if __name__ == "__main__":
    sys.exit(main())
