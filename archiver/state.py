"""Where the archiver is: a small DynamoDB table of its own, so that a run which ends in the middle is gone on with.

Per source table (its hash key) it holds, by the range key: `lock`, who is at work; `scan`, the pass that is under way,
and `scan#N` how far its segment N is; `object#…` for each archive object whose items are being deleted, with how many
of them are done; `finished`, when the last pass ended; and `order`, the number of the last archive object.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from archiver.aws import Patience, code, explained
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
    settings: str
    """What it was begun with, as text: other settings begin another pass."""
    begun_at: datetime
    positions: Mapping[int, dict[str, Any] | None]
    """Of each segment that was begun: the key that its scan goes on behind, None where it has ended."""


class Same:
    """The position that there is."""


@dataclass(frozen=True)
class State:
    """The rows of one source table."""

    client: DynamoDBClient
    name: str
    """Of the state table."""
    table: str
    """The source table."""
    sleep: Callable[[float], object] = time.sleep

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
                    # Who could not have set it for so long by our clock had another one, and may be dead.
                    ConditionExpression="attribute_not_exists(#owner) OR #owner = :owner"
                    " OR #until < :now OR #until > :beyond",
                    ExpressionAttributeNames={"#owner": "owner", "#until": "until"},
                    ExpressionAttributeValues={
                        ":owner": {"S": owner},
                        ":until": {"N": str(until.timestamp())},
                        ":now": {"N": str(now.timestamp())},
                        ":beyond": {"N": str((until + (until - now)).timestamp())},
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

    def _write(self, what: str, call: Callable[[], object]) -> bool:
        """A write of one row; False if its condition does not hold. Raises ArchiverError."""
        patience = Patience(self.sleep)
        while True:
            try:
                with self._explained(what):
                    call()
                return True
            except ArchiverError as error:
                if code(error.__cause__) == "ConditionalCheckFailedException":
                    return False
                # A transaction is at this row, which botocore does not wait for.
                if code(error.__cause__) != "TransactionConflictException":
                    raise
                patience.wait(error)

    def _rows(self, prefix: str, what: str) -> Iterator[dict[str, Any]]:
        with self._explained(what):
            for page in self.client.get_paginator("query").paginate(
                TableName=self.name,
                ConsistentRead=True,
                KeyConditionExpression="#table = :table AND begins_with(#what, :prefix)",
                ExpressionAttributeNames={"#table": "table", "#what": "what"},
                ExpressionAttributeValues={":table": {"S": self.table}, ":prefix": {"S": prefix}},
            ):
                yield from page["Items"]

    def scan(self) -> Scan | None:
        """The pass that is under way, if one is."""
        rows = {row["what"]["S"]: row for row in self._rows("scan", "could not read where the scan is")}
        found = rows.pop("scan", None)
        if not found:
            return None
        return Scan(
            datetime.fromisoformat(found["cutoff"]["S"]),
            int(found["segments"]["N"]),
            found["settings"]["S"],
            datetime.fromisoformat(found["begunAt"]["S"]),
            {
                int(name.removeprefix("scan#")): row["position"].get("M")
                for name, row in rows.items()
                if row["cutoff"] == found["cutoff"]
            },
        )

    def begin_scan(self, scan: Scan) -> Scan:
        """A new pass, unless another run has begun one: that one."""
        self._write(
            "could not begin a scan",
            lambda: self.client.put_item(
                TableName=self.name,
                Item={
                    **self._key("scan"),
                    "cutoff": {"S": scan.cutoff.isoformat()},
                    "segments": {"N": str(scan.segments)},
                    "settings": {"S": scan.settings},
                    "begunAt": {"S": scan.begun_at.isoformat()},
                },
                ConditionExpression="attribute_not_exists(#table)",
                ExpressionAttributeNames={"#table": "table"},
            ),
        )
        return self.scan() or scan

    def next_order(self, at: datetime) -> int:
        """The number of an archive object whose items were read: larger than that of any object before.

        It is the clock in milliseconds, where that is larger: so the numbers go on if this table is lost, and are of
        one kind with the clock in the names of objects that have no number.
        """
        clock = round(at.timestamp() * 1000)
        arguments: Any = {"TableName": self.name, "Key": self._key("order")}
        names = {"#last": "last"}
        if self._write(
            "could not number an object",
            lambda: self.client.update_item(
                **arguments,
                UpdateExpression="SET #last = :clock",
                ConditionExpression="attribute_not_exists(#last) OR #last < :clock",
                ExpressionAttributeNames=names,
                ExpressionAttributeValues={":clock": {"N": str(clock)}},
            ),
        ):
            return clock
        # The clock was set back, is behind that of another machine, or has not moved.
        with self._explained("could not number an object"):
            found = self.client.update_item(
                **arguments,
                UpdateExpression="ADD #last :one",
                ExpressionAttributeNames=names,
                ExpressionAttributeValues={":one": {"N": "1"}},
                ReturnValues="UPDATED_NEW",
            )
        return int(found["Attributes"]["last"]["N"])

    def _position(self, cutoff: datetime, segment: int, position: Mapping[str, Any] | None) -> dict[str, Any]:
        """The update that notes how far a segment is. In a row of its own: segments do not wait for each other."""
        return {
            "TableName": self.name,
            "Key": self._key(f"scan#{segment}"),
            "UpdateExpression": "SET #position = :position, #cutoff = :cutoff",
            "ExpressionAttributeNames": {"#position": "position", "#cutoff": "cutoff"},
            "ExpressionAttributeValues": {
                ":position": {"M": dict(position)} if position else {"NULL": True},
                ":cutoff": {"S": cutoff.isoformat()},
            },
        }

    def advance(self, cutoff: datetime, segment: int, position: Mapping[str, Any] | None) -> None:
        """Note how far a segment is: nothing before that position is left to do. None: it has ended."""
        self._write(
            "could not note where the scan is",
            lambda: self.client.update_item(**self._position(cutoff, segment, position)),
        )

    def register(
        self, progress: Progress, cutoff: datetime, segment: int, position: Mapping[str, Any] | Same | None
    ) -> dict[str, Any]:
        """The arguments of the transaction after which an object's items may be deleted, and its segment is further.

        Not further if `position` is `Same`: the page goes on in the next object.
        """
        put = {
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
        writes: list[dict[str, Any]] = [{"Put": put}]
        if not isinstance(position, Same):
            writes.append({"Update": self._position(cutoff, segment, position)})
        return {"TransactItems": writes}

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
        yield from map(_progress, self._rows("object#", "could not list what was begun"))

    def complete(self, key: str) -> None:
        """The manifest says all there is to say of this object."""
        self._write(
            "could not complete an object",
            lambda: self.client.delete_item(TableName=self.name, Key=self._key(f"object#{key}")),
        )

    def end_scan(self, scan: Scan) -> None:
        """The pass is over, or given up, unless another one has begun meanwhile."""
        ended = self._write(
            "could not end the scan",
            lambda: self.client.delete_item(
                TableName=self.name,
                Key=self._key("scan"),
                ConditionExpression="#cutoff = :cutoff",
                ExpressionAttributeNames={"#cutoff": "cutoff"},
                ExpressionAttributeValues={":cutoff": {"S": scan.cutoff.isoformat()}},
            ),
        )
        if not ended:
            return
        # What a crash leaves of these is of no pass: their cutoff says so.
        for segment in range(scan.segments):
            self._write(
                "could not end the scan",
                lambda segment=segment: self.client.delete_item(  # type: ignore[misc]
                    TableName=self.name, Key=self._key(f"scan#{segment}")
                ),
            )

    def finish(self, at: datetime) -> None:
        """Note that a pass came to its end."""
        self._write(
            "could not note the end of a pass",
            lambda: self.client.put_item(
                TableName=self.name, Item={**self._key("finished"), "at": {"S": at.isoformat()}}
            ),
        )

    def finished_at(self) -> datetime | None:
        """When the last pass came to its end."""
        with self._explained("could not read when a pass ended"):
            found = self.client.get_item(
                TableName=self.name, Key=self._key("finished"), ConsistentRead=True
            ).get("Item")
        return datetime.fromisoformat(found["at"]["S"]) if found else None


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
            made = False
        else:
            made = True
        client.get_waiter("table_exists").wait(TableName=name, WaiterConfig={"Delay": 1, "MaxAttempts": 60})
    return made
