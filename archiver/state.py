"""Where the archiver is: a small DynamoDB table of its own, so that a run which ends in the middle is gone on with.

Per source table (its hash key) it holds, by the range key: `lock`, who is at work; `scan`, how far each segment is; and
`object#…` for each archive object whose items are being deleted, with how many of them are done.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from archiver.aws import code, explained
from archiver.errors import ArchiverError

if TYPE_CHECKING:
    from types_boto3_dynamodb import DynamoDBClient


@dataclass(frozen=True)
class Progress:
    """How far the deletes of an archive object are."""

    key: str
    """Name of the archive object."""
    digest: str
    size: int
    next: int
    """Items before this one are settled: deleted, or in `kept`."""
    kept: Mapping[int, str]
    by: str = ""
    """The run that came so far."""


@dataclass(frozen=True)
class Scan:
    """A pass over a table: the same cutoff and segments from its first run to its last."""

    cutoff: datetime
    segments: int
    positions: Mapping[int, dict[str, Any] | None]
    """Of each segment that was begun: the key that its scan goes on behind, None where it has ended."""


@dataclass(frozen=True)
class State:
    """The rows of one source table."""

    client: DynamoDBClient
    name: str
    """Of the state table."""
    table: str
    """The source table."""

    def _key(self, what: str) -> dict[str, Any]:
        return {"table": {"S": self.table}, "what": {"S": what}}

    def _explained(self, what: str) -> Any:
        return explained(f"{what} in the state table {self.name}")

    def lock(self, owner: str, now: datetime, until: datetime) -> str | None:
        """Take or renew the lock; None, or in words who has it."""
        with self._explained("could not lock"):
            try:
                self.client.update_item(
                    TableName=self.name,
                    Key=self._key("lock"),
                    UpdateExpression="SET #owner = :owner, #until = :until",
                    ConditionExpression="attribute_not_exists(#owner) OR #owner = :owner OR #until < :now",
                    ExpressionAttributeNames={"#owner": "owner", "#until": "until"},
                    ExpressionAttributeValues={
                        ":owner": {"S": owner},
                        ":until": {"N": str(until.timestamp())},
                        ":now": {"N": str(now.timestamp())},
                    },
                )
            except ClientError as error:
                if code(error) == "ResourceNotFoundException":
                    raise ArchiverError(
                        f"there is no state table {self.name} (STATE_TABLE): make it with python -m archiver setup"
                    ) from None
                if code(error) != "ConditionalCheckFailedException":
                    raise
                return self._holder()
        return None

    def _holder(self) -> str:
        found = self.client.get_item(TableName=self.name, Key=self._key("lock"), ConsistentRead=True).get(
            "Item"
        )
        if not found:
            return "another run, which has just ended"
        until = datetime.fromtimestamp(float(found["until"]["N"])).astimezone()
        return f"{found['owner']['S']}, until {until:%Y-%m-%d %H:%M:%S %Z} at least"

    def unlock(self, owner: str) -> None:
        """Give the lock back, if it is still ours."""
        with self._explained("could not unlock"):
            try:
                self.client.delete_item(
                    TableName=self.name,
                    Key=self._key("lock"),
                    ConditionExpression="#owner = :owner",
                    ExpressionAttributeNames={"#owner": "owner"},
                    ExpressionAttributeValues={":owner": {"S": owner}},
                )
            except ClientError as error:
                if code(error) != "ConditionalCheckFailedException":
                    raise

    def scan(self) -> Scan | None:
        """The pass that is under way, if one is."""
        with self._explained("could not read where the scan is"):
            found = self.client.get_item(TableName=self.name, Key=self._key("scan"), ConsistentRead=True).get(
                "Item"
            )
        if not found:
            return None
        return Scan(
            datetime.fromisoformat(found["cutoff"]["S"]),
            int(found["segments"]["N"]),
            {int(number): value.get("M") for number, value in found["positions"]["M"].items()},
        )

    def begin_scan(self, cutoff: datetime, segments: int) -> Scan:
        """A new pass, unless another run has begun one: that one."""
        with self._explained("could not begin a scan"):
            try:
                self.client.put_item(
                    TableName=self.name,
                    Item={
                        **self._key("scan"),
                        "cutoff": {"S": cutoff.isoformat()},
                        "segments": {"N": str(segments)},
                        "positions": {"M": {}},
                    },
                    ConditionExpression="attribute_not_exists(#table)",
                    ExpressionAttributeNames={"#table": "table"},
                )
            except ClientError as error:
                if code(error) != "ConditionalCheckFailedException":
                    raise
        found = self.scan()
        return found or Scan(cutoff, segments, {})

    def _position(self, cutoff: datetime, segment: int, position: Mapping[str, Any] | None) -> dict[str, Any]:
        """The update that notes how far a segment is, of this very pass only."""
        return {
            "TableName": self.name,
            "Key": self._key("scan"),
            "UpdateExpression": "SET #positions.#segment = :position",
            "ConditionExpression": "#cutoff = :cutoff",
            "ExpressionAttributeNames": {
                "#positions": "positions",
                "#segment": str(segment),
                "#cutoff": "cutoff",
            },
            "ExpressionAttributeValues": {
                ":position": {"M": dict(position)} if position else {"NULL": True},
                ":cutoff": {"S": cutoff.isoformat()},
            },
        }

    def advance(self, cutoff: datetime, segment: int, position: Mapping[str, Any] | None) -> None:
        """Note how far a segment is: nothing before that position is left to do. None: it has ended."""
        with self._explained("could not note where the scan is"):
            try:
                self.client.update_item(**self._position(cutoff, segment, position))
            except ClientError as error:
                # Another run has ended this pass meanwhile.
                if code(error) != "ConditionalCheckFailedException":
                    raise

    def register(
        self, progress: Progress, cutoff: datetime, segment: int, position: Mapping[str, Any] | None
    ) -> dict[str, Any]:
        """The arguments of the transaction after which an object's items may be deleted, and its segment is further."""
        return {
            "TransactItems": [
                {
                    "Put": {
                        "TableName": self.name,
                        "Item": {
                            **self._key(f"object#{progress.key}"),
                            "sha256": {"S": progress.digest},
                            "bytes": {"N": str(progress.size)},
                            "next": {"N": str(progress.next)},
                            "kept": {"M": {}},
                        },
                        "ConditionExpression": "attribute_not_exists(#table)",
                        "ExpressionAttributeNames": {"#table": "table"},
                    }
                },
                {"Update": self._position(cutoff, segment, position)},
            ]
        }

    def settle(self, progress: Progress, end: int, kept: Mapping[int, str], by: str) -> dict[str, Any]:
        """The update that goes into the transaction which deletes items `progress.next` to `end` (not included)."""
        names = {"#next": "next", "#by": "by"}
        values = {":next": {"N": str(progress.next)}, ":end": {"N": str(end)}, ":by": {"S": by}}
        sets = ["#next = :end", "#by = :by"]
        for index, why in kept.items():
            names |= {"#kept": "kept", f"#{index}": str(index)}
            values |= {f":{why}": {"S": why}}
            sets.append(f"#kept.#{index} = :{why}")
        return {
            "TableName": self.name,
            "Key": self._key(f"object#{progress.key}"),
            "UpdateExpression": "SET " + ", ".join(sets),
            # Of two runs at the same object one gets through, and the other looks again.
            "ConditionExpression": "#next = :next",
            "ExpressionAttributeNames": names,
            "ExpressionAttributeValues": values,
        }

    def progress(self, key: str) -> Progress | None:
        """How far an object is; None if its deletes have not begun, or are complete."""
        with self._explained("could not read how far an object is"):
            found = self.client.get_item(
                TableName=self.name, Key=self._key(f"object#{key}"), ConsistentRead=True
            ).get("Item")
        return _progress(found) if found else None

    def unfinished(self) -> Iterator[Progress]:
        """Objects whose deletes were begun and not completed."""
        with self._explained("could not list what was begun"):
            for page in self.client.get_paginator("query").paginate(
                TableName=self.name,
                ConsistentRead=True,
                KeyConditionExpression="#table = :table AND begins_with(#what, :object)",
                ExpressionAttributeNames={"#table": "table", "#what": "what"},
                ExpressionAttributeValues={":table": {"S": self.table}, ":object": {"S": "object#"}},
            ):
                for found in page["Items"]:
                    yield _progress(found)

    def complete(self, key: str) -> None:
        """The manifest says all there is to say of this object."""
        with self._explained("could not complete an object"):
            self.client.delete_item(TableName=self.name, Key=self._key(f"object#{key}"))

    def end_scan(self, cutoff: datetime) -> None:
        """The pass is over."""
        with self._explained("could not end the scan"):
            try:
                self.client.delete_item(
                    TableName=self.name,
                    Key=self._key("scan"),
                    ConditionExpression="#cutoff = :cutoff",
                    ExpressionAttributeNames={"#cutoff": "cutoff"},
                    ExpressionAttributeValues={":cutoff": {"S": cutoff.isoformat()}},
                )
            except ClientError as error:
                if code(error) != "ConditionalCheckFailedException":
                    raise


def _progress(found: Mapping[str, Any]) -> Progress:
    return Progress(
        found["what"]["S"].removeprefix("object#"),
        found["sha256"]["S"],
        int(found["bytes"]["N"]),
        int(found["next"]["N"]),
        {int(index): why["S"] for index, why in found["kept"]["M"].items()},
        found.get("by", {}).get("S", ""),
    )


def create_table(client: DynamoDBClient, name: str) -> bool:
    """Make the state table, billed by request, and wait until it is there; whether it was made now."""
    with explained(f"could not make the state table {name}"):
        try:
            client.create_table(
                TableName=name,
                AttributeDefinitions=[
                    {"AttributeName": "table", "AttributeType": "S"},
                    {"AttributeName": "what", "AttributeType": "S"},
                ],
                KeySchema=[
                    {"AttributeName": "table", "KeyType": "HASH"},
                    {"AttributeName": "what", "KeyType": "RANGE"},
                ],
                BillingMode="PAY_PER_REQUEST",
            )
        except ClientError as error:
            if code(error) != "ResourceInUseException":
                raise
            return False
        client.get_waiter("table_exists").wait(TableName=name, WaiterConfig={"Delay": 1, "MaxAttempts": 60})
    return True
