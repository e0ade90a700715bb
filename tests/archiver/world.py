"""DynamoDB and S3 of an emulator in this process, reached by real boto3, on a line that fails where a test says so."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import TYPE_CHECKING, Any, Literal, get_args

import boto3
import pytest
from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from botocore.exceptions import ReadTimeoutError
from botocore.retries import quota, standard
from moto import mock_aws
from moto.core.botocore_stubber import MockRawResponse
from moto.core.models import botocore_stubber
from moto.dynamodb.models import table as moto_table

from archiver import aws, run, state
from archiver.items import Item
from archiver.restore import Restore, Restored, Wanted
from archiver.run import Result
from archiver.settings import Settings

NOW = datetime(2024, 1, 20, 2, tzinfo=UTC)
TABLE, BUCKET, STATE = "orders", "archive", "archiver-state"
CREDENTIALS = {"aws_access_key_id": "made-up", "aws_secret_access_key": "made-up", "region_name": "us-east-1"}

Fault = Literal[
    "throttle", "error", "refuse", "timeout before", "timeout after", "truncate", "conflict", "kill before",
    "kill after", "in a transaction", "no capacity", "being written",
]  # fmt: skip
FAULTS: tuple[Fault, ...] = get_args(Fault)


class KilledError(BaseException):
    """The process ends here: nothing after it is done."""


if TYPE_CHECKING:
    from types_boto3_dynamodb import DynamoDBClient
    from types_boto3_s3 import S3Client


@dataclass
class Line:
    """What requests go over. `plan` says for the n-th request (from 0) what happens to it; `others` acts before it."""

    plan: Callable[[int, str], Fault | None] = lambda number, operation: None
    others: Callable[[int, str], None] = lambda number, operation: None
    answers: Callable[[str, AWSPreparedRequest], AWSResponse | None] = lambda operation, request: None
    """What AWS says, and the emulator does not know of."""
    requests: list[str] = field(default_factory=list)
    dead: bool = False
    writes: int = 0
    """In the transaction that is being sent."""

    def send(self, event_name: str, request: AWSPreparedRequest, **_: Any) -> AWSResponse:
        """In place of the network."""
        if self.dead:
            raise KilledError
        operation = event_name.rpartition(".")[2]
        number = len(self.requests)
        self.requests.append(operation)
        if operation == "TransactWriteItems":
            self.writes = len(json.loads(_body(request))["TransactItems"])
        self.others(number, operation)
        fault = self.plan(number, operation)
        instead = self.answers(operation, request) or self._instead(fault, event_name, operation, request)
        if instead:
            return instead
        with EMULATOR, botocore_stubber_on():
            found = botocore_stubber.process_request(request)
        assert found is not None
        status, headers, body = found
        if fault == "timeout after":
            raise ReadTimeoutError(endpoint_url=request.url)
        if fault == "kill after":
            self.dead = True
            raise KilledError
        if fault == "truncate" and operation == "GetObject":
            body = body[: len(body) // 2]
            headers["content-length"] = str(len(body))
        return AWSResponse(request.url, status, headers, MockRawResponse(body))  # type: ignore[arg-type]

    def _instead(
        self, fault: Fault | None, event_name: str, operation: str, request: AWSPreparedRequest
    ) -> AWSResponse | None:
        """What is answered where the emulator is not asked. Raises what ends the request, or the process."""
        if fault in REFUSALS:
            return _refusal(event_name, request, *REFUSALS[fault])
        match fault, operation:
            case "conflict", "TransactWriteItems":
                return _conflict(request, "TransactionConflict")
            case "no capacity", "TransactWriteItems":
                return _conflict(request, "ProvisionedThroughputExceeded")
            case "timeout before", _:
                raise ReadTimeoutError(endpoint_url=request.url)
            case "kill before", _:
                self.dead = True
                raise KilledError
            case "truncate", "PutObject":
                request.body = bytes(_body(request)[: len(_body(request)) // 2])
                request.headers["Content-Length"] = str(len(request.body))
        return None


REFUSALS: dict[Fault | None, tuple[int, str, str, int]] = {
    "throttle": (400, "ThrottlingException", "SlowDown", 503),
    "error": (500, "InternalServerError", "InternalError", 500),
    "refuse": (400, "AccessDeniedException", "AccessDenied", 403),
    "in a transaction": (400, "TransactionConflictException", "AccessDenied", 403),
    "being written": (400, "AccessDeniedException", "ConditionalRequestConflict", 409),
}
"""Status and code of DynamoDB, code and status of S3."""

EMULATOR = threading.RLock()
"""One request at a time: the emulator copies tables while others write to them."""


@contextmanager
def botocore_stubber_on() -> Iterator[None]:
    """The emulator answers."""
    before, botocore_stubber.enabled = botocore_stubber.enabled, True
    try:
        yield
    finally:
        botocore_stubber.enabled = before


def _body(request: AWSPreparedRequest) -> bytes:
    body: Any = request.body
    return bytes(body.read()) if hasattr(body, "read") else bytes(body)


def s3_answer(request: AWSPreparedRequest, status: int = 200, body: str = "", **headers: str) -> AWSResponse:
    """What S3 might say; `_` in the name of a header is `-`."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return AWSResponse(request.url, status, named, MockRawResponse(body))  # type: ignore[arg-type]


def _refusal(
    event_name: str, request: AWSPreparedRequest, status: int, dynamodb: str, s3: str, s3_status: int
) -> AWSResponse:
    if ".s3." in event_name:
        body = f"<Error><Code>{s3}</Code><Message>made up</Message></Error>"
        return AWSResponse(request.url, s3_status, {}, MockRawResponse(body))  # type: ignore[arg-type]
    body = json.dumps({"__type": f"com.amazonaws.dynamodb.v20120810#{dynamodb}", "message": "made up"})
    return AWSResponse(request.url, status, {}, MockRawResponse(body))  # type: ignore[arg-type]


def _conflict(request: AWSPreparedRequest, why: str) -> AWSResponse:
    writes = json.loads(_body(request))["TransactItems"]
    body = json.dumps(
        {
            "__type": "com.amazonaws.dynamodb.v20120810#TransactionCanceledException",
            "Message": "Transaction cancelled",
            "CancellationReasons": [{"Code": why}] + [{"Code": "None"}] * (len(writes) - 1),
        }
    )
    return AWSResponse(request.url, 400, {}, MockRawResponse(body))  # type: ignore[arg-type]


def item(number: int, days: float = 40, **more: Any) -> Item:
    """An item so many days old."""
    return {
        "id": {"S": f"o{number:05}"},
        "createdAt": {"S": f"{NOW - timedelta(days=days):%Y-%m-%dT%H:%M:%S}.000Z"},
        "total": {"N": str(number)},
        **more,
    }


@cache
def clients(who: str) -> tuple[DynamoDBClient, S3Client]:
    """To make them takes longer than a run."""
    session: Any = boto3
    found: Any = tuple(session.client(service, **CREDENTIALS) for service in ("dynamodb", "s3"))
    if who == "archiver":
        for client in found:
            client.meta.events.unregister("before-send", botocore_stubber)
            client.meta.events.register("before-send", lambda **request: WORLDS[-1].line.send(**request))
    return found  # type: ignore[no-any-return]


WORLDS: list[World] = []
"""The last one is the one that clients are connected to."""


class World:
    """A table `orders` with the key `id`, a bucket, a state table, and clients over a line that can fail."""

    def __init__(self, *, range_key: bool = False, **settings: Any) -> None:
        self.range_key = range_key
        self.now = NOW
        self.line = Line()
        self.settings = replace(
            Settings((TABLE,), BUCKET), **{"segments": 1, "object_items": 3, "batch_size": 3, **settings}
        )
        # A line of its own that never fails: what other people use.
        self.dynamodb, self.s3 = clients("others")
        self.aws = aws.Aws(*clients("archiver"))
        WORLDS.append(self)
        self.s3.create_bucket(Bucket=BUCKET)
        self.make_table(TABLE)
        state.create_table(self.dynamodb, STATE)

    def make_table(self, name: str) -> None:
        """An empty table with the same key."""
        kinds = {"id": "HASH"} | ({"at": "RANGE"} if self.range_key else {})
        self.dynamodb.create_table(
            TableName=name,
            AttributeDefinitions=[
                {"AttributeName": one, "AttributeType": "S" if one == "id" else "N"} for one in kinds
            ],
            KeySchema=[{"AttributeName": one, "KeyType": kind} for one, kind in kinds.items()],  # type: ignore[typeddict-item]
            BillingMode="PAY_PER_REQUEST",
        )

    def put(self, *items: Item, table: str = TABLE) -> None:
        """Somebody writes."""
        for one in items:
            self.dynamodb.put_item(TableName=table, Item=one)

    def delete(self, one: Item) -> None:
        """Somebody deletes."""
        self.dynamodb.delete_item(TableName=TABLE, Key=self.key(one))

    def key(self, one: Mapping[str, Any]) -> Item:
        """The key of an item."""
        return {name: one[name] for name in (("id", "at") if self.range_key else ("id",))}

    def table(self, name: str = TABLE) -> list[Item]:
        """What is in a table, in the order of its keys."""
        pages = self.dynamodb.get_paginator("scan").paginate(TableName=name)
        return sorted((one for page in pages for one in page["Items"]), key=str)

    def under_way(self) -> list[Item]:
        """What the state table says is not done."""
        return [row for row in self.table(STATE) if row["what"]["S"] != "order"]

    def objects(self, prefix: str = "archives/") -> dict[str, bytes]:
        """What is in the bucket."""
        listed = self.s3.list_objects_v2(Bucket=BUCKET, Prefix=prefix).get("Contents", [])
        return {
            one["Key"]: self.s3.get_object(Bucket=BUCKET, Key=one["Key"])["Body"].read() for one in listed
        }

    def context(self, **more: Any) -> run.Context:
        """For a run over the line."""
        return run.Context(
            self.aws, self.settings, clock=lambda: self.now, workers=1, sleep=lambda seconds: None, **more
        )

    def run(self, **more: Any) -> Result:
        """One run, an hour after the one before, when no lock of that is left."""
        self.now += timedelta(hours=1)
        self.line.dead = False
        (result,) = run.run(self.context(**more))
        return result

    def try_run(self) -> Result | None:
        """One run, that may be killed."""
        try:
            return self.run()
        except KilledError:
            return None

    def calm(self) -> None:
        """From here on nothing fails."""
        self.line = Line()

    def restore(self, table: str = "restored", **wanted: Any) -> Restored:
        """All of the archive, or what is wanted, into a new table."""
        options = {name: wanted.pop(name) for name in ("overwrite", "dry_run", "unproven") if name in wanted}
        if table not in self.dynamodb.list_tables()["TableNames"]:
            self.make_table(table)
        return Restore(
            self.aws, self.settings, table, Wanted(**wanted), sleep=lambda seconds: None, **options
        ).run()

    def restorable(self) -> list[Item]:
        """What would come back of the archive now, had the table nothing of it."""
        if "Contents" not in self.s3.list_objects_v2(Bucket=BUCKET, Prefix="archives/"):
            return []
        found: dict[str, Item] = {}

        class Collect(Restore):
            """Writes into `found`, in which the first to come stays, as in a table."""

            def _put_batch(self, batch: list[Item], time_attribute: str, name: str) -> None:
                for one in batch:
                    found.setdefault(str(self._key_text(one)), one)

        Collect(self.aws, self.settings, TABLE, Wanted()).run()
        return [found[key] for key in sorted(found)]

    def calls(self) -> Counter[str]:
        """Requests over the line, by operation."""
        return Counter(self.line.requests)


@contextmanager
def world(page_bytes: int | None = None, **settings: Any) -> Iterator[World]:
    """A new world. With `page_bytes` a page of a scan holds so many bytes instead of a megabyte."""
    with pytest.MonkeyPatch.context() as patch, mock_aws():
        # Time is not what is tested: no pauses, and no quota of retries used up by a test that has many.
        patch.setattr(standard.ExponentialBackoff, "delay_amount", lambda self, context: 0)
        patch.setattr(quota.RetryQuota, "acquire", lambda self, amount: True)
        if page_bytes:
            scan = moto_table.Table.scan

            def scan_a_page(self: Any, *given: Any, **named: Any) -> Any:
                with pytest.MonkeyPatch.context() as page:
                    if self.name != STATE:
                        page.setattr(moto_table, "RESULT_SIZE_LIMIT", page_bytes)
                    return scan(self, *given, **named)

            patch.setattr(moto_table.Table, "scan", scan_a_page)
        try:
            yield World(**settings)
        finally:
            WORLDS.pop()
