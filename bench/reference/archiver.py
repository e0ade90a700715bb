"""The source's archiver as its document describes it, as small as it can be said.

Pages of BATCH_SIZE with a filter on `createdAt`; one archive object a run, plain JSON with all items in it, written
once and not read again; then deletes, a batch at a time, in BatchWriteItem's twenty-fives, without a condition;
unprocessed items again with exponential backoff; item by item where a batch fails.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from boto3.dynamodb.types import TypeDeserializer
from botocore.exceptions import ClientError

if TYPE_CHECKING:
    from types_boto3_dynamodb import DynamoDBClient
    from types_boto3_s3 import S3Client

WRITES: Final = 25
"""The most that BatchWriteItem takes."""
ATTEMPTS: Final = 5


@dataclass
class Reference:
    """One run over one table."""

    dynamodb: DynamoDBClient
    s3: S3Client
    table: str
    key: str
    bucket: str
    batch_size: int = 100
    archive_days: int = 30
    sleep: Callable[[float], object] = time.sleep
    stats: dict[str, int] = field(
        default_factory=lambda: {
            "scanned": 0,
            "archived": 0,
            "deleted": 0,
            "errors": 0,
            "objects": 0,
            "bytes": 0,
        }
    )

    def run(self) -> dict[str, int]:
        """All that is old; what was done."""
        found = self._scan()
        if found:
            self._archive(found)
        for start in range(0, len(found), self.batch_size):
            batch = found[start : start + self.batch_size]
            for first in range(0, len(batch), WRITES):
                self._delete(batch[first : first + WRITES])
        return self.stats

    def _scan(self) -> list[dict[str, Any]]:
        cutoff = datetime.now(UTC) - timedelta(days=self.archive_days)
        found: list[dict[str, Any]] = []
        start: dict[str, Any] = {}
        while True:
            page = self.dynamodb.scan(
                TableName=self.table,
                Limit=self.batch_size,
                FilterExpression="createdAt < :cutoffDate",
                ExpressionAttributeValues={":cutoffDate": {"S": f"{cutoff:%Y-%m-%dT%H:%M:%S}.000Z"}},
                **start,
            )
            self.stats["scanned"] += page["ScannedCount"]
            found += page["Items"]
            if "LastEvaluatedKey" not in page:
                return found
            start = {"ExclusiveStartKey": page["LastEvaluatedKey"]}

    def _archive(self, found: Sequence[dict[str, Any]]) -> None:
        now = datetime.now(UTC)
        plain = TypeDeserializer()
        archive = {
            "archiveDate": f"{now:%Y-%m-%dT%H:%M:%S}.000Z",
            "itemCount": len(found),
            "cutoffDays": self.archive_days,
            "items": [{name: plain.deserialize(value) for name, value in item.items()} for item in found],
        }
        body = json.dumps(archive, default=_number, indent=2).encode()
        self.s3.put_object(
            Bucket=self.bucket,
            Key=f"archives/{now:%Y/%m/%d}/archive-{round(now.timestamp() * 1000)}.json",
            Body=body,
            ContentType="application/json",
            ServerSideEncryption="AES256",
        )
        self.stats["archived"] += len(found)
        self.stats["objects"] += 1
        self.stats["bytes"] += len(body)

    def _delete(self, batch: Sequence[dict[str, Any]]) -> None:
        writes: Any = {
            self.table: [{"DeleteRequest": {"Key": {self.key: item[self.key]}}} for item in batch],
        }
        for attempt in range(ATTEMPTS):
            try:
                left: Any = self.dynamodb.batch_write_item(RequestItems=writes).get("UnprocessedItems", {})
            except ClientError:
                break
            self.stats["deleted"] += len(writes[self.table]) - len(left.get(self.table, ()))
            if not left:
                return
            writes = left
            self.sleep(0.1 * 2**attempt)
        for write in writes[self.table]:
            try:
                self.dynamodb.delete_item(TableName=self.table, Key=write["DeleteRequest"]["Key"])
                self.stats["deleted"] += 1
            except ClientError:
                self.stats["errors"] += 1


def _number(value: object) -> float:
    assert isinstance(value, Decimal)
    return float(value)
