"""What a run does where nothing fails: what leaves, what stays, and what is said of it."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta

import pytest

from archiver import run
from archiver.items import Item
from archiver.settings import Filter
from tests.archiver.world import BUCKET, NOW, STATE, TABLE, World, item, world

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
    assert world.table(STATE) == []


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
    world.put(item(1))
    world.run()
    world.settings = replace(world.settings, kms_key_id="alias/archive")
    world.put(item(2))
    world.run()
    found = [
        (head["ServerSideEncryption"], head.get("SSEKMSKeyId"))
        for key in world.objects("")
        for head in [world.s3.head_object(Bucket=BUCKET, Key=key)]
    ]
    assert sorted(found, key=str) == [("AES256", None)] * 2 + [("aws:kms", "alias/archive")] * 2


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
    assert world.restorable() == [item(1), item(2)]


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
    assert world.table(STATE) == []
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
    assert result.stats.deleted == 6
    world.s3.put_object(Bucket=BUCKET, Key=key, Body=body)
    assert world.run().finished
    assert world.table() == []
    assert len(world.restorable()) == 10


def test_segments_in_threads() -> None:
    with world(page_bytes=1000, segments=4, object_items=10, batch_size=10) as one:
        one.put(*[item(number) for number in range(80)])
        context = one.context()
        context.workers = None
        (result,) = run.run(context)
        assert result.finished, result
        assert result.stats.deleted == 80
        assert len(one.restorable()) == 80
