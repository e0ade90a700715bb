"""The AWS that the archiver is measured with: moto, with a table of old items in it, in this process or one of its own.

Moto keeps a table in a dictionary and is made for a handful of items. What it does for each transaction, page and
condition grows with the table, so that a table of 100 000 items would take hours: `quick` takes that away, and changes
nothing of what is answered.
"""

from __future__ import annotations

import copy
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from unittest.mock import patch

import boto3
from moto import mock_aws
from moto.core.serialize import BaseJSONSerializer
from moto.dynamodb.comparisons import ConditionExpressionParser
from moto.dynamodb.models import DynamoDBBackend, dynamodb_backends
from moto.dynamodb.models.dynamo_type import Item as MotoItem
from moto.dynamodb.models.table import Table
from moto.moto_server.werkzeug_app import (
    DomainDispatcherApplication,
    create_backend_app,
)

from archiver.items import Item
from archiver.state import create_table
from bench.archivers import BUCKET, KEY, STATE, TABLE
from bench.server import ROOT
from local.aws import REGION, emulated
from local.aws_server import one_at_a_time, serve_in_thread
from local.errors import LocalError

ACCOUNT: Final = "123456789012"
"""Whose everything in moto is."""
TEXT: Final = "What somebody wrote about this item, at some length, as people do. "
DESCRIPTION: Final = 840
"""Characters of text in an item, with which DynamoDB counts a little less than 1 KB for it: one unit a write."""


def item(number: int) -> Item:
    """An item as the source has them, 40 days old and older. Their keys are in order."""
    created = datetime.now(UTC).replace(hour=0, minute=0, second=0) - timedelta(
        days=41, seconds=number % 86_400
    )
    return {
        KEY: {"S": f"item-{number:010}"},
        "name": {"S": f"Item {number}"},
        "description": {"S": (TEXT * 14)[number % 60 :][:DESCRIPTION]},
        "status": {"S": ("open", "closed", "returned")[number % 3]},
        "price": {"N": f"{number % 1000}.{number % 89 + 10}"},
        "createdAt": {"S": f"{created:%Y-%m-%dT%H:%M:%S}.000Z"},
    }


def fill(items: int) -> None:
    """Make the table with so many items, the bucket and the state table in this process's moto."""
    dynamodb: Any = boto3.client("dynamodb", region_name=REGION)
    boto3.client("s3", region_name=REGION).create_bucket(Bucket=BUCKET)
    create_table(dynamodb, STATE)
    dynamodb.create_table(
        TableName=TABLE,
        AttributeDefinitions=[{"AttributeName": KEY, "AttributeType": "S"}],
        KeySchema=[{"AttributeName": KEY, "KeyType": "HASH"}],
        BillingMode="PAY_PER_REQUEST",
    )
    backend = dynamodb_backends[ACCOUNT][REGION]
    for number in range(items):
        backend.put_item(TABLE, item(number))


def left() -> int:
    """Items that are in the table of this process's moto."""
    return len(dynamodb_backends[ACCOUNT][REGION].get_table(TABLE).items)


@contextmanager
def quick() -> Iterator[None]:
    """Moto, without what it does over and over again for each item of a table, for tables whose hash keys are texts.

    * Before a transaction it copies every item of the table, once for each write in it, so that it could go back. A
      copy of the references does, once a transaction, since deletes leave the items themselves as they are. The state
      table, whose rows an update changes in place, is copied whole as before: it has a handful.
    * It parses each condition three times: here once.
    * For each page it sorts the table. It is filled in the order of its keys here, and deletes keep that order.
    * For each page it makes an object of the start key for each item before it, and an MD5 of each item's key for its
      segment. The one is compared as text, the other remembered.
    * It looks for each type that a value could have under several names when it answers.
    """
    with patch_copies(), patch_conditions(), patch_pages(), patch_answers():
        yield


@contextmanager
def patch_copies() -> Iterator[None]:
    """Of tables, before transactions."""
    copies: dict[int, Table] = {}
    transact = DynamoDBBackend.transact_write_items

    def transact_write_items(self: DynamoDBBackend, transact_items: list[dict[str, Any]]) -> None:
        try:
            transact(self, transact_items)
        finally:
            copies.clear()

    def copied(self: Table, _memo: dict[int, Any]) -> Table:
        if id(self) not in copies:
            copies[id(self)] = new = copy.copy(self)
            new.items = copy.deepcopy(self.items) if self.range_key_attr else self.items.copy()
        return copies[id(self)]

    with (
        patch.object(DynamoDBBackend, "transact_write_items", transact_write_items),
        patch.object(Table, "__deepcopy__", copied, create=True),
    ):
        yield


@contextmanager
def patch_conditions() -> Iterator[None]:
    """Parsed before for the same names and values: these very objects, kept so that no others take their ids."""
    parsed: dict[tuple[Any, ...], tuple[Any, ...]] = {}
    parse = ConditionExpressionParser.parse

    def remembered(self: ConditionExpressionParser) -> Any:
        names, values = self.expression_attribute_names, self.expression_attribute_values
        key = (self.condition_expression, id(names), id(values))
        if key not in parsed:
            if len(parsed) > 1000:
                parsed.clear()
            found = parse(self)
            parsed[key] = (found, self.expr_attr_names_found, self.expr_attr_values_found, names, values)
        found, of_names, of_values, *_ = parsed[key]
        # Lists of their own: whoever asks adds to them.
        self.expr_attr_names_found, self.expr_attr_values_found = list(of_names), list(of_values)
        return found

    with patch.object(ConditionExpressionParser, "parse", remembered):
        yield


@contextmanager
def patch_pages() -> Iterator[None]:
    """What a page of a scan begins with."""
    segments: dict[tuple[int, str], int] = {}
    all_items = Table.all_items
    within = MotoItem.is_within_segment

    def listed(self: Table) -> list[MotoItem]:
        in_order: Any = self.items.values()
        return all_items(self) if self.range_key_attr else list(in_order)

    def before(self: Table, one: MotoItem, start: dict[str, Any], *_: Any) -> bool:
        return bool(one.hash_key.value <= start[self.hash_key_attr]["S"])

    def is_within_segment(self: MotoItem, wanted: tuple[Any, Any]) -> bool:
        number, total = wanted
        if total is None:
            return True
        key = (total, self.hash_key.value)
        if key not in segments:
            segments[key] = next(each for each in range(total) if within(self, (each, total)))
        return bool(segments[key] == number)

    with (
        patch.object(Table, "all_items", listed),
        patch.object(Table, "_item_comes_before_dct", before),
        patch.object(MotoItem, "is_within_segment", is_within_segment),
    ):
        yield


@contextmanager
def patch_answers() -> Iterator[None]:
    """Texts and numbers of items, of which the type is known."""
    serialize = BaseJSONSerializer._serialize_type_structure  # noqa: SLF001  (there is no other way in)

    def structure(self: Any, serialized: Any, value: Any, shape: Any, key: str) -> None:
        if shape.name == "AttributeValue" and isinstance(value, dict) and value.keys() <= {"S", "N"}:
            serialized[key] = value
        else:
            serialize(self, serialized, value, shape, key)

    with patch.object(BaseJSONSerializer, "_serialize_type_structure", structure):
        yield


@contextmanager
def inside(items: int) -> Iterator[None]:
    """Moto in this process, in place of the network, until the end of the block; whatever AWS the environment names."""
    environment = emulated("https://nowhere.invalid")
    del environment["AWS_ENDPOINT_URL"]
    with patch.dict(os.environ, environment, clear=True), mock_aws(), quick():
        fill(items)
        yield


@contextmanager
def outside(items: int) -> Iterator[str]:
    """The same in a process of its own; its URL. It ends with the block, or with this process. Raises LocalError."""
    with subprocess.Popen(
        [sys.executable, "-m", "bench.emulator", str(items)],
        cwd=ROOT,
        env=emulated("https://nowhere.invalid"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            line = process.stdout.readline().strip()
            if not line:
                raise LocalError("python -m bench archiver: the emulator did not start, it says why above")
            yield line
        finally:
            process.stdin.close()
            process.terminate()


def main() -> None:
    """Serve `argv[1]` items; print the URL; go on until standard input ends."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # the access log
    application = one_at_a_time(DomainDispatcherApplication(create_backend_app))
    del os.environ["AWS_ENDPOINT_URL"]
    with mock_aws(), quick():
        fill(int(sys.argv[1]))
        print(serve_in_thread(application), flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
