"""What a run does where nothing fails: what leaves, what stays, and what is said of it."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from botocore.awsrequest import AWSPreparedRequest

from archiver import run
from archiver.errors import ArchiverError
from archiver.items import Item
from archiver.settings import Filter
from tests.archiver.world import BUCKET, NOW, STATE, TABLE, Fault, World, item, world

EXACT: Item = {
    "picture": {"B": b"\x00\xff"}, "tags": {"SS": ["a", "b"]}, "sizes": {"NS": ["1.5", "12345678901234567890"]},
    "blobs": {"BS": [b"x", b"y"]}, "exact": {"N": "0.12345678901234567890123456789"}, "open": {"BOOL": False},
    "gone": {"NULL": True}, "list": {"L": [{"S": ""}, {"M": {"a/b": {"N": "-1"}}}]}, "emoji": {"S": "\U0001f9ca\u0000"},
}  # fmt: skip


def test_old_items_leave_for_the_archive_and_young_ones_stay(world: World) -> None:
    old = [item(number) for number in range(10)]
    young = [item(number, days=29) for number in range(10, 13)]
    world.put(*old, *young)
    result = world.run()
    assert result.finished
    assert world.table() == young
    assert world.restorable() == old
    stats = result.stats
    assert (stats.scanned, stats.archived, stats.deleted, stats.kept, stats.errors) == (13, 10, 10, 0, 0)
    assert stats.objects == len(world.objects())
    assert stats.bytes == sum(map(len, world.objects().values()))
    assert world.under_way() == []


def test_an_object_has_the_documented_shape(world: World) -> None:
    world.put(item(1))
    world.run()
    ((key, body),) = world.objects().items()
    assert key.startswith("archives/2024/01/20/archive-1705719600000")
    assert key.endswith(".json")
    found = json.loads(body)
    assert found["archiveDate"] == "2024-01-20T03:00:00.000Z"
    assert found["itemCount"] == 1
    assert found["cutoffDays"] == 30
    assert found["items"] == [{"id": "o00001", "createdAt": "2023-12-11T02:00:00.000Z", "total": 1}]


def test_objects_and_manifests_are_encrypted_with_the_key_that_is_asked_for(world: World) -> None:
    world.settings = replace(world.settings, kms_key_id="alias/archive")
    world.put(item(2))
    world.run()
    found = [
        (head["ServerSideEncryption"], head["SSEKMSKeyId"])
        for key in world.objects("")
        for head in [world.s3.head_object(Bucket=BUCKET, Key=key)]
    ]
    assert found == [("aws:kms", "alias/archive")] * 2


def test_without_a_key_the_bucket_says_how_to_encrypt(world: World) -> None:
    """A header that asks for AES-256 would override a default key of the bucket."""
    sent: list[str] = []

    def note(operation: str, request: AWSPreparedRequest) -> None:
        if operation == "PutObject":
            sent.extend(name.lower() for name in request.headers)

    world.line.answers = note
    world.put(item(2))
    world.run()
    assert sent.count("content-type") == 3, "two versions of a manifest, and an object"
    assert [name for name in sent if "encryption" in name] == []


def test_every_type_is_deleted_and_comes_back_exactly(world: World) -> None:
    one = item(1, **EXACT)
    world.put(one)
    assert world.run().stats.deleted == 1
    assert world.table() == []
    assert world.restorable() == [one]


def test_a_range_key_and_time_as_a_number() -> None:
    for form, unit in (("epoch", 1), ("epoch-ms", 1000)):
        with world(page_bytes=200, range_key=True, time_attribute="at", time_format=form) as one:
            seconds = int(NOW.timestamp())
            old, young = (
                {"id": {"S": "a"}, "at": {"N": str((seconds - days * 86400) * unit)}} for days in (31, 29)
            )
            one.put(old, young)
            assert one.run().stats.deleted == 1
            assert one.table() == [young]
            assert one.restorable() == [old]


def test_a_filter_chooses_among_the_old(world: World) -> None:
    world.settings = replace(
        world.settings,
        filter=Filter("#status = :archived OR #status = :gone", {"#status": "status"},
                      {":archived": {"S": "archived"}, ":gone": {"S": "gone"}}),
    )  # fmt: skip
    matching = [item(1, status={"S": "archived"}), item(2, status={"S": "gone"})]
    # The time has to hold for either side of the OR.
    others = [item(3, status={"S": "open"}), item(4), item(5, days=3, status={"S": "gone"})]
    world.put(*matching, *others)
    assert world.run().finished
    assert world.table() == others
    assert world.restorable() == matching


@pytest.mark.parametrize(
    "text",
    [
        "0000",
        "2023-11-45T00:00:00Z",
        "2023-12-20T08:00:00.000+09:00x",
        "",
        "1999-99-99",
        "2023-12-21T02:30:00-05:00",
    ],
)
def test_a_time_that_says_nothing_or_is_not_old_stays(world: World, text: str) -> None:
    """Texts are compared by DynamoDB as texts: the last one is younger than it looks."""
    odd: Item = {**item(1), "createdAt": {"S": text}}
    world.put(odd, item(2))
    result = world.run()
    assert result.finished
    assert world.table() == [odd]
    assert (result.stats.deleted, result.stats.unreadable) == (1, 1)


def test_items_without_the_attribute_stay(world: World) -> None:
    odd: list[Item] = [{"id": {"S": "a"}}, {"id": {"S": "b"}, "created": {"S": "2020"}}]
    world.put(*odd)
    assert world.run().finished
    assert world.table() == odd


def test_an_item_with_too_many_attributes_stays() -> None:
    wide = item(1) | {f"attribute{number}": {"N": "1"} for number in range(160)}
    broad = item(2) | {f"attribute{number}": {"N": "1"} for number in range(140)}
    with world() as one:
        one.put(wide, broad)
        result = one.run()
        assert one.table() == [wide]
        assert (result.stats.deleted, result.stats.unsafe) == (1, 1)


def test_large_items_are_spread_over_transactions() -> None:
    """A transaction takes 4 MB, of which an item and its condition each take their part."""
    with world(batch_size=100, object_items=100) as one:
        one.put(*[item(number, text={"S": "x" * 300_000}) for number in range(14)])
        assert one.run().stats.deleted == 14
        assert one.table() == []
        # Each object: what registers it, and its deletes, 6 items at most.
        assert one.calls()["TransactWriteItems"] == len(one.objects()) + sum(
            -(-len(json.loads(body)["items"]) // 6) for body in one.objects().values()
        )


def test_several_tables_one_of_which_is_not_there(world: World) -> None:
    world.make_table("events")
    world.settings = replace(world.settings, source_tables=("nowhere", TABLE, "events"))
    world.put(item(1))
    world.put(item(2), table="events")
    world.now += timedelta(hours=1)
    missing, orders, events = run.run(world.context())
    assert not missing.finished
    assert "could not describe the table nowhere: ResourceNotFoundException" in missing.problems[0]
    assert orders.finished
    assert events.finished
    assert world.table() == world.table("events") == []
    world.settings = replace(world.settings, source_tables=(TABLE,))
    with pytest.raises(
        ArchiverError, match="are of several tables, events, orders: choose one with --from-table"
    ):
        world.restore()
    world.restore(source_table="events")
    assert world.table("restored") == [item(2)]


def test_a_dry_run_counts_and_writes_nothing(world: World) -> None:
    world.put(*[item(number) for number in range(10)])
    world.settings = replace(world.settings, dry_run=True)
    before = world.table()
    result = world.run()
    assert result.finished
    assert (result.stats.archived, result.stats.deleted) == (10, 0)
    assert result.stats.bytes > 500
    assert set(world.calls()) == {"DescribeTable", "Scan"}
    assert world.table() == before
    assert world.objects("") == {}


def test_a_run_that_nears_its_time_limit_is_gone_on_with(world: World) -> None:
    """Whenever the time is up: nothing is archived twice, and nothing is left."""
    world.put(*[item(number) for number in range(20)])
    runs, archived = 0, 0
    while True:
        runs += 1
        calls = iter(range(5))
        result = world.run(time_left=lambda calls=calls: 61.0 if next(calls, None) is not None else 59.0)
        archived += result.stats.archived
        if result.finished:
            break
        assert result.reason == "time limit"
        assert runs < 30
    assert runs > 2
    assert archived == 20
    assert world.table() == []
    assert world.under_way() == []
    assert len(world.restorable()) == 20


def test_a_pass_keeps_its_cutoff_until_it_ends(world: World) -> None:
    world.put(*[item(number) for number in range(6)], item(50, days=29.9))
    assert not world.run(stopped=lambda: len(world.line.requests) > 12).finished
    world.now += timedelta(days=1)
    assert world.run().finished
    assert world.table() == [item(50, days=29.9)]
    assert world.run().finished
    assert world.table() == []


@pytest.mark.parametrize("at", range(5, 40, 5))
def test_two_runs_at_once(world: World, at: int) -> None:
    """The lock is there to save work; without it each item still leaves once and comes back once."""
    world.put(*[item(number) for number in range(12)])
    second: list[run.Result] = []

    def interfere(number: int, _: str) -> None:
        if number == at:
            context = world.context()
            context.clock = lambda: world.now + timedelta(hours=2)  # the lock of the first has lapsed
            second.extend(run.run(context))

    world.line.others = interfere
    first = world.run()
    assert second[0].finished
    assert not first.problems
    assert world.run().finished
    assert world.table() == []
    assert world.restorable() == [item(number) for number in range(12)]


def test_without_a_state_table_it_says_what_to_do(world: World) -> None:
    world.settings = replace(world.settings, state_table="not-there")
    world.put(item(1))
    result = world.run()
    assert result.problems == [
        "there is no state table not-there (STATE_TABLE): make it with python -m archiver setup"
    ]
    assert world.table() == [item(1)]


def test_a_damaged_object_whose_deletes_are_under_way_is_said_and_the_rest_goes_on(world: World) -> None:
    world.put(*[item(number) for number in range(10)])
    world.line.plan = lambda number, operation: (
        "kill after" if operation == "TransactWriteItems" and world.calls()[operation] == 2 else None
    )
    assert world.try_run() is None
    world.calm()
    ((key, body),) = world.objects().items()
    world.s3.put_object(Bucket=BUCKET, Key=key, Body=body[:-5])
    result = world.run()
    assert not result.finished
    assert [f"s3://{BUCKET}/{key} is not what was written" in one for one in result.problems] == [True]
    # Its first transaction had deleted two. The third item is still in the table, and is archived anew.
    assert result.stats.deleted == 10 - 2
    world.s3.put_object(Bucket=BUCKET, Key=key, Body=body)
    assert world.run().finished
    assert world.table() == []
    assert len(world.restorable()) == 10


def test_what_was_collected_when_the_time_is_up_is_not_lost() -> None:
    """However large objects may become, and however little of the table is old: each run gets further."""
    with world(page_bytes=200, object_items=10_000) as one:
        one.put(*[item(number, days=40 if number % 5 == 0 else 3) for number in range(40)])
        archived = 0
        for runs in range(1, 12):  # noqa: B007  (looked at below)
            calls = iter(range(5))
            result = one.run(time_left=lambda calls=calls: 61.0 if next(calls, None) is not None else 59.0)
            archived += result.stats.archived
            if result.finished:
                break
        assert result.finished
        assert 2 < runs < 9
        assert archived == 8
        assert len(one.restorable()) == 8
        assert one.under_way() == []


def test_a_name_that_came_into_use_since_is_a_change_for_a_run_that_goes_on(world: World) -> None:
    world.put(item(1))
    world.line.plan = lambda number, operation: "kill after" if operation == "TransactWriteItems" else None
    assert world.try_run() is None
    world.calm()
    changed = item(1, note={"S": "changed"})
    world.put(changed, item(0, days=3, note={"S": "of a young item"}))
    result = world.run()
    assert result.finished
    assert changed in world.table() or world.restorable() == [changed]


def test_of_many_names_the_most_frequent_are_guarded() -> None:
    """A condition has room for some 140 names that no item may have got."""
    rare = item(0, days=3) | {f"rare{number}": {"N": "1"} for number in range(500)}
    changed = item(1, note={"S": "changed"})
    with world() as one:
        one.put(rare, item(1), *[item(number, days=3, note={"S": "common"}) for number in range(2, 5)])

        def interfere(number: int, operation: str) -> None:
            if operation == "TransactWriteItems" and one.calls()[operation] == 2:
                one.put(changed)

        one.line.others = interfere
        result = one.run()
        assert (result.stats.deleted, result.stats.kept) == (0, 1)
        assert changed in one.table()


@pytest.mark.parametrize("setting", ["archive_prefix", "manifest_prefix"])
def test_an_object_is_gone_on_with_where_it_is_though_a_prefix_is_another_now(
    world: World, setting: str
) -> None:
    world.put(*[item(number) for number in range(3)])
    world.line.plan = lambda number, operation: (
        "kill after" if operation == "TransactWriteItems" and world.calls()[operation] == 2 else None
    )
    assert world.try_run() is None
    world.calm()
    before = set(world.objects(""))
    moved: Any = {setting: "elsewhere"}
    settings, world.settings = world.settings, replace(world.settings, **moved)
    assert world.run().finished
    world.settings = settings
    assert set(world.objects("")) == before
    assert [json.loads(body)["status"] for body in world.objects("manifests/").values()] == ["complete"]
    assert world.table() == []
    assert len(world.restorable()) == 3


def test_more_items_on_a_page_than_an_object_takes() -> None:
    with world(object_items=3) as one:
        one.put(*[item(number, tags={"SS": [str(number)]}) for number in range(10)])
        assert one.run().stats.objects == 4
        assert {json.loads(body)["itemCount"] for body in one.objects().values()} == {3, 1}
        assert one.table() == []
        assert one.restorable() == [item(number, tags={"SS": [str(number)]}) for number in range(10)]


def test_other_settings_begin_another_pass(world: World) -> None:
    world.put(*[item(number, days=40) for number in range(6)])
    assert not world.run(stopped=lambda: len(world.line.requests) > 14).finished
    left = len(world.table())
    assert left > 0
    world.settings = replace(world.settings, archive_days=365)
    assert world.run().finished
    # What was registered is gone on with, and nothing more.
    assert 0 < len(world.table()) <= left
    world.settings = replace(world.settings, archive_days=30)
    assert world.run().finished
    assert world.table() == []


def test_several_tables_take_turns(world: World) -> None:
    """With time for a part of it each time, all come to their end, and so does whoever waits for that."""
    world.make_table("events")
    world.settings = replace(world.settings, source_tables=(TABLE, "events"))
    for table in (TABLE, "events"):
        world.put(*[item(number) for number in range(12)], table=table)
    for _ in range(20):
        world.now += timedelta(hours=1)
        calls = iter(range(9))
        results = run.run(
            world.context(time_left=lambda calls=calls: 61.0 if next(calls, None) is not None else 59.0)
        )
        if all(one.finished for one in results):
            break
    assert all(one.finished for one in results), results
    assert world.table() == world.table("events") == []


def test_a_write_that_meets_a_transaction_waits_for_it(world: World) -> None:
    world.put(*[item(number) for number in range(4)])
    conflicts = {"UpdateItem": 1, "DeleteItem": 2}

    def conflict(number: int, operation: str) -> Fault | None:
        if world.calls()[operation] > 1 and conflicts.get(operation):
            conflicts[operation] -= 1
            return "in a transaction"
        return None

    world.line.plan = conflict
    world.put(*[item(number, days=3) for number in range(10, 20)])
    assert world.run().finished
    assert conflicts["DeleteItem"] == 0


def test_transactions_become_smaller_where_capacity_is_short() -> None:
    with world(batch_size=100, object_items=100) as one:
        one.put(*[item(number) for number in range(60)])
        sizes: list[int] = []

        def short(number: int, operation: str) -> Fault | None:
            if operation != "TransactWriteItems":
                return None
            sizes.append(one.line.writes)
            return "no capacity" if one.line.writes > 20 else None

        one.line.plan = short
        result = one.run()
        assert result.finished, result
        assert one.table() == []
        assert sizes[:5] == [2, 61, 31, 16, 16]


def test_a_table_with_replicas_is_refused_unless_told(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    replicas = {
        "Table": {
            "AttributeDefinitions": [{"AttributeName": "id", "AttributeType": "S"}],
            "KeySchema": [{"AttributeName": "id", "KeyType": "HASH"}],
            "Replicas": [{"RegionName": "x"}],
        }
    }
    monkeypatch.setattr(world.aws.dynamodb, "describe_table", lambda **_: replicas)
    world.put(item(1))
    assert "orders has replicas in other regions" in world.run().problems[0]
    assert world.table() == [item(1)]
    world.settings = replace(world.settings, global_table=True)
    assert world.run().finished


def test_a_table_that_was_made_anew_with_another_key(world: World) -> None:
    world.put(*[item(number) for number in range(4)])
    world.line.plan = lambda number, operation: "kill after" if operation == "TransactWriteItems" else None
    assert world.try_run() is None
    world.calm()
    world.dynamodb.delete_table(TableName=TABLE)
    world.range_key = True
    world.make_table(TABLE)
    result = world.run()
    assert [TABLE in one and "has another key" in one for one in result.problems] == [True]
    assert not result.finished


def test_rows_of_the_state_table_that_are_lost_are_said(world: World) -> None:
    world.put(*[item(number) for number in range(6)])

    def lose(number: int, operation: str) -> None:
        if operation == "TransactWriteItems" and world.calls()[operation] == 3:
            for row in world.table(STATE):
                if row["what"]["S"].startswith("object#"):
                    world.dynamodb.delete_item(
                        TableName=STATE, Key={"table": row["table"], "what": row["what"]}
                    )

    world.line.others = lose
    result = world.run()
    assert not result.finished
    assert "is gone from the state table" in result.problems[0]
    world.line.others = lambda *_: None
    world.run()
    assert world.restore(unproven=True).problems == []
    assert world.table("restored") == [item(number) for number in range(6)]


def test_an_upload_that_meets_an_earlier_try_of_itself(world: World) -> None:
    world.put(item(1))
    conflicts = iter(range(100))
    world.line.plan = lambda number, operation: (
        "being written" if operation == "PutObject" and next(conflicts) < 2 else None
    )
    assert world.run().finished
    assert world.table() == []


def test_segments_in_threads() -> None:
    with world(page_bytes=1000, segments=4, object_items=10, batch_size=10) as one:
        one.put(*[item(number) for number in range(80)])
        context = one.context()
        context.workers = None
        (result,) = run.run(context)
        assert result.finished, result
        assert result.stats.deleted == 80
        assert len(one.restorable()) == 80
