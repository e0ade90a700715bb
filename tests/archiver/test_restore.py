"""What comes back, what does not, and what is asked for first."""

from __future__ import annotations

import json
import re
from datetime import timedelta

import pytest
from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from moto.core.botocore_stubber import MockRawResponse

from archiver import cli, documents
from archiver.errors import ArchiverError
from archiver.items import Item
from archiver.restore import Restore, Wanted
from archiver.verify import verify
from tests.archiver.world import BUCKET, TABLE, World, item, s3_answer

SOURCE_SHAPE = {
    "archiveDate": "2024-01-20T02:00:00.000Z",
    "itemCount": 2,
    "cutoffDays": 30,
    "items": [
        {
            "id": "u-1",
            "name": "Item name",
            "description": "Item description",
            "createdAt": "2023-12-15T10:30:00.000Z",
        },
        {
            "id": "u-2",
            "count": 3,
            "share": 0.5,
            "big": 12345678901234567890.25,
            "open": True,
            "tags": ["a", None],
        },
    ],
}
FOREIGN = "archives/2024/01/20/archive-1705747200000.json"


@pytest.fixture
def archived(world: World) -> World:
    """Ten items in the archive, in several objects, and none in the table."""
    world.put(*[item(number, group={"S": "even" if number % 2 == 0 else "odd"}) for number in range(10)])
    world.run()
    assert world.table() == []
    return world


def ids(items: list[Item]) -> list[str]:
    return [one["id"]["S"] for one in items]


def test_all_of_it_into_another_table(archived: World) -> None:
    report = archived.restore()
    assert (report.restored, report.objects, report.problems) == (10, len(archived.objects()), [])
    assert ids(archived.table("restored")) == [f"o{number:05}" for number in range(10)]


def test_again_changes_nothing(archived: World) -> None:
    archived.restore()
    before = archived.table("restored")
    report = archived.restore()
    assert (report.restored, report.identical, report.newer) == (0, 10, 0)
    assert archived.table("restored") == before


def test_an_object(archived: World) -> None:
    name = min(archived.objects())
    expected = [one["id"] for one in json.loads(archived.objects()[name])["items"]]
    archived.restore(objects=[f"s3://{BUCKET}/{name}"])
    assert ids(archived.table("restored")) == expected


def test_a_day(archived: World) -> None:
    archived.restore(day="2024-01-20")
    assert len(archived.table("restored")) == 10
    with pytest.raises(ArchiverError, match=r"no archives in s3://archive/archives/2024/01/21/"):
        archived.restore(day="2024-01-21")


@pytest.mark.parametrize("day", ["2024-1-20", "yesterday", "2024-02-30"])
def test_what_is_no_day(archived: World, day: str) -> None:
    with pytest.raises(ArchiverError, match=r"is no day: write it like 2024-01-20|no archives"):
        archived.restore(day=day)


def test_a_key_reads_only_its_object(archived: World) -> None:
    archived.calm()
    report = archived.restore(key=("S:o00007",))
    assert ids(archived.table("restored")) == ["o00007"]
    assert report.restored == 1
    # A manifest for each object, and the one object that has it.
    assert archived.calls()["GetObject"] == len(archived.objects()) + 1


def test_a_key_that_does_not_fit_the_table(archived: World) -> None:
    with pytest.raises(ArchiverError, match=r"the key of restored is id: give a value for each"):
        archived.restore(key=("S:a", "S:b"))


def test_a_filter(archived: World) -> None:
    archived.restore(filter="group == 'even' && total > `4`")
    assert ids(archived.table("restored")) == ["o00006", "o00008"]
    with pytest.raises(ArchiverError, match=r"is no JMESPath"):
        archived.restore(filter="group ==")


def test_by_the_table_it_came_from(archived: World) -> None:
    archived.restore(source_table="another")
    assert archived.table("restored") == []
    archived.restore(source_table=TABLE)
    assert len(archived.table("restored")) == 10


def test_a_dry_run_writes_nothing(archived: World) -> None:
    assert archived.restore(dry_run=True).restored == 10
    assert archived.table("restored") == []


def test_never_over_another_version_unless_told(archived: World) -> None:
    newer, older = item(1, days=1), item(2, days=400)
    archived.put(newer, older)
    report = archived.restore(TABLE)
    assert (report.restored, report.newer) == (8, 2)
    assert archived.table()[1:3] == [newer, older]

    report = archived.restore(TABLE, overwrite="older")
    assert (report.restored, report.identical, report.newer) == (1, 8, 1)
    assert archived.table()[1] == newer
    assert archived.table()[2]["group"] == {"S": "even"}

    assert archived.restore(TABLE, overwrite="always").restored == 10
    assert archived.table()[1]["group"] == {"S": "odd"}


@pytest.mark.parametrize("overwrite", ["never", "older", "always"])
def test_of_an_item_archived_twice_the_last_version_comes_back(archived: World, overwrite: str) -> None:
    last = item(3, days=35, group={"S": "again"})
    archived.put(last)
    archived.run()
    archived.restore(overwrite=overwrite)
    assert archived.table("restored")[3] == last


def test_the_last_version_comes_back_also_if_the_clock_was_set_back(archived: World) -> None:
    """Or the second run was on a machine whose clock is behind."""
    last = item(3, group={"S": "again"})
    archived.put(last)
    archived.now -= timedelta(days=3)
    assert archived.run().finished
    assert min(archived.objects()).startswith(
        "archives/2024/01/17/archive-1705464000000-orders-0-n17057196000"
    )
    for overwrite in ("never", "older", "always"):
        archived.restore(f"restored-{overwrite}", overwrite=overwrite)
        assert archived.table(f"restored-{overwrite}")[3] == last


def test_the_last_version_comes_back_whichever_object_is_named_first(archived: World) -> None:
    last = item(0, days=35, group={"S": "again"})
    archived.put(last)
    archived.run()
    names = archived.objects()
    archived.restore(objects=[min(names), max(names)])
    assert archived.table("restored")[0] == last


def test_objects_from_before_there_were_numbers_are_ordered_by_the_clock(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    numbered = documents.archive_key
    for version, days in (("n2", 1), ("n1", -1), ("n3", 1)):
        with monkeypatch.context() as before:
            if version != "n3":
                before.setattr(documents, "archive_key", lambda *of: re.sub(r"-n\d+-", "-", numbered(*of)))
            world.now += timedelta(days=days)
            world.put(item(1, version={"S": version}))
            assert world.run().finished
    assert len(world.objects()) == 3
    for overwrite in ("never", "always"):
        world.restore(f"restored-{overwrite}", overwrite=overwrite)
        assert world.table(f"restored-{overwrite}") == [item(1, version={"S": "n3"})]
    world.restore("two", objects=sorted(world.objects())[:2])
    assert world.table("two") == [item(1, version={"S": "n2"})]


def test_of_objects_of_another_maker_the_one_with_the_later_clock_comes_first(world: World) -> None:
    for name in (
        "archives/2001/09/09/archive-999999999999.json",
        "archives/2024/01/20/archive-1705747200000.json",
    ):
        body = json.dumps({"itemCount": 1, "items": [{"id": "u", "of": name}]})
        world.s3.put_object(Bucket=BUCKET, Key=name, Body=body.encode())
    world.restore()
    assert world.table("restored") == [{"id": {"S": "u"}, "of": {"S": name}}]


def test_what_others_changed_or_deleted_meanwhile_does_not_come_back(world: World) -> None:
    known: Item = {**item(9, days=1, note={"S": "known"}), "id": {"S": "a"}}
    world.put(known, *[item(number) for number in range(4)])
    changed = item(1, note={"S": "changed"})

    def interfere(number: int, operation: str) -> None:
        if operation == "TransactWriteItems" and world.calls()[operation] == 2:
            world.put(changed)
            world.delete(item(2))

    world.line.others = interfere
    result = world.run()
    assert (result.stats.archived, result.stats.deleted, result.stats.kept) == (4, 2, 2)
    world.line.others = lambda *_: None
    manifests = [json.loads(body) for body in world.objects("manifests/").values()]
    assert {one["status"] for one in manifests} == {"complete"}
    assert sorted(
        (found["keys"][one["item"]], one["why"]) for found in manifests for one in found["kept"]
    ) == [
        (["S:o00001"], "changed"),
        (["S:o00002"], "gone"),
    ]
    report = world.restore()
    assert ids(world.table("restored")) == ["o00000", "o00003"]
    assert report.not_ours == 2
    assert changed in world.table()


def test_while_deletes_are_under_way_only_what_has_left_comes_back(world: World) -> None:
    world.put(*[item(number) for number in range(4)])
    world.line.plan = lambda number, operation: (
        "kill after" if operation == "TransactWriteItems" and world.calls()[operation] == 2 else None
    )
    assert world.try_run() is None
    world.calm()
    report = world.restore()
    assert ids(world.table("restored")) == ["o00000", "o00001"]
    assert report.unfinished == list(world.objects())
    world.delete(item(3))
    assert world.run().finished
    world.restore()
    assert ids(world.table("restored")) == ["o00000", "o00001", "o00002"]


def test_an_object_for_which_nothing_was_deleted_does_not_come_back(world: World) -> None:
    """Its items are in the table, or were changed or deleted since: the archive has no word on them."""
    world.put(item(1))
    for after in (1, 2):  # behind its manifest, and behind the object
        world.line.plan = lambda number, operation, after=after: (  # type: ignore[misc]
            "kill after" if operation == "PutObject" and world.calls()[operation] == after else None
        )
        world.line.requests.clear()
        assert world.try_run() is None
        world.calm()
    assert len(world.objects()) == 1
    world.delete(item(1))
    report = world.restore()
    assert report.abandoned == list(world.objects())
    assert report.problems == []
    assert world.table("restored") == []
    # Unless somebody wants all there is.
    assert world.restore(unproven=True).restored == 1


def test_an_archive_of_the_documented_shape(world: World) -> None:
    world.s3.put_object(Bucket=BUCKET, Key=FOREIGN, Body=json.dumps(SOURCE_SHAPE, indent=2).encode())
    report = world.restore()
    assert report.unverified == [FOREIGN]
    first, second = world.table("restored")
    assert first["name"] == {"S": "Item name"}
    assert second["big"] == {"N": "1.2345678901234567e+19"}
    assert second["tags"] == {"L": [{"S": "a"}, {"NULL": True}]}
    world.restore("one", objects=[FOREIGN], filter="name")
    assert ids(world.table("one")) == ["u-1"]


def test_numbers_of_another_maker_keep_their_digits(world: World) -> None:
    body = b'{"archiveDate": "x", "itemCount": 1, "cutoffDays": 1, "items": [{"id": "a", "n": 0.12345678901234567890}]}'
    world.s3.put_object(Bucket=BUCKET, Key=FOREIGN, Body=body)
    world.restore()
    assert world.table("restored")[0]["n"] == {"N": "0.12345678901234567890"}


GARBAGE = {
    b"": "Expecting value",
    b"{": "is no archive: ",
    b"[1, 2]": "is no archive: it is no JSON object with a list of items",
    b'{"itemCount": 2, "items": []}': "it says 2 items and has 0",
    b'{"itemCount": 1, "items": [{"name": "x"}]}': "an item has no id, which is in the key of restored",
    b'{"itemCount": 1, "items": {"id": "x"}}': "is no archive: it is no JSON object with a list of items",
    b'{"itemCount": 1, "items": ["x"]}': "is no archive: an item is no JSON object",
    b'{"items": []}': "is no archive: it has no 'itemCount'",
    b'{"itemCount": 1, "items": [{"id": ' + b"[" * 9000 + b"]" * 9000 + b"}]}": "maximum recursion depth",
    b'{"format": "eav-platform/dynamodb-archive/1", "itemCount": 0, "items": []}': "it has no 'types'",
}


def test_garbage_is_said_and_the_rest_comes_back(archived: World) -> None:
    names = [f"archives/2024/01/20/archive-{1705747200000 + number}.json" for number in range(len(GARBAGE))]
    for name, body in zip(names, GARBAGE, strict=True):
        archived.s3.put_object(Bucket=BUCKET, Key=name, Body=body)
    problems = archived.restore().problems[::-1]
    for name, says, problem in zip(names, GARBAGE.values(), problems, strict=True):
        assert name in problem
        assert says in problem
    assert len(archived.table("restored")) == 10


def test_a_damaged_object_is_not_restored(archived: World) -> None:
    name = min(archived.objects())
    body = archived.objects()[name]
    archived.s3.put_object(Bucket=BUCKET, Key=name, Body=body.replace(b"o0000", b"o1000", 1))
    report = archived.restore()
    assert len(report.problems) == 1
    assert f"s3://{BUCKET}/{name} is not what was written" in report.problems[0]
    assert not any(one.startswith("o1") for one in ids(archived.table("restored")))


def test_objects_in_an_archive_class_are_requested_and_gone_on_with(archived: World) -> None:
    """Asked for once, waited for, and then restored by the same command."""
    frozen = min(archived.objects())
    body = archived.objects()[frozen]
    archived.s3.put_object(Bucket=BUCKET, Key=frozen, Body=body, StorageClass="GLACIER")
    report = archived.restore()
    assert report.requested == [frozen]
    assert not report.ready
    assert 0 < len(archived.table("restored")) < 10
    head = archived.s3.head_object(Bucket=BUCKET, Key=frozen)
    assert "Restore" in head
    report = archived.restore()
    assert report.ready, report
    assert len(archived.table("restored")) == 10


@pytest.mark.parametrize("tier", ["ARCHIVE_ACCESS", "DEEP_ARCHIVE_ACCESS"])
def test_objects_in_an_archive_tier_of_intelligent_tiering_are_requested_too(
    archived: World, tier: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """S3 takes no number of days for these. Asked for, waited for, and then restored by the same command."""
    frozen = min(archived.objects())
    there = {"x_amz_storage_class": "INTELLIGENT_TIERING", "x_amz_archive_status": tier}
    asked: list[str] = []
    thawed = False

    def answer(operation: str, request: AWSPreparedRequest) -> AWSResponse | None:
        if thawed or frozen not in request.url:
            return None
        match operation:
            case "GetObject":
                return s3_answer(
                    request, 403, "<Error><Code>InvalidObjectState</Code><StorageClass>INTELLIGENT_TIERING"
                    f"</StorageClass><AccessTier>{tier}</AccessTier></Error>",
                )  # fmt: skip
            case "HeadObject":
                return s3_answer(request, 200, content_length="1", **there)
            case "RestoreObject":
                body = bytes(request.body).decode()  # type: ignore[arg-type]
                if "<Days>" in body:
                    return s3_answer(request, 400, "<Error><Code>MalformedXML</Code></Error>")
                asked.append(body)
                if len(asked) > 1:
                    return s3_answer(request, 409, "<Error><Code>RestoreAlreadyInProgress</Code></Error>")
                return s3_answer(request, 202)
        return None

    archived.line.answers = answer
    archived.make_table("restored")
    monkeypatch.setattr(cli, "_connect", lambda settings: archived.aws)
    monkeypatch.setenv("ARCHIVE_BUCKET", BUCKET)
    command = ["restore", "--table", "restored", "--all", "--json"]
    assert cli.main(command) == cli.NOT_YET
    said = capsys.readouterr()
    assert json.loads(said.out)["requested"] == [frozen]
    assert "not all objects are ready: run the same command again" in said.err
    assert "<Tier>Standard</Tier>" in asked[0]
    assert 0 < len(archived.table("restored")) < 10
    assert cli.main(command) == cli.NOT_YET
    assert json.loads(capsys.readouterr().out)["waiting"] == [frozen]
    thawed = True
    assert cli.main(command) == 0
    assert len(archived.table("restored")) == 10


def test_an_object_in_glacier_is_asked_for_so_many_days(archived: World) -> None:
    frozen = min(archived.objects())
    archived.s3.put_object(Bucket=BUCKET, Key=frozen, Body=b"x", StorageClass="GLACIER")
    asked: list[bytes] = []

    def note(operation: str, request: AWSPreparedRequest) -> None:
        if operation == "RestoreObject":
            asked.append(bytes(request.body))  # type: ignore[arg-type]

    archived.line.answers = note
    assert archived.restore().requested == [frozen]
    assert [b"<Days>7</Days>" in one for one in asked] == [True]


def test_an_older_version_does_not_come_before_one_that_is_not_ready(archived: World) -> None:
    last = item(3, days=35, group={"S": "again"})
    archived.put(last)
    archived.run()
    newest = max(archived.objects())
    archived.s3.put_object(Bucket=BUCKET, Key=newest, Body=archived.objects()[newest], StorageClass="GLACIER")
    report = archived.restore()
    assert (report.requested, report.held) == ([newest], 1)
    assert "o00003" not in ids(archived.table("restored"))
    archived.restore()
    assert archived.table("restored")[3] == last


def test_a_manifest_in_an_archive_class_is_requested_itself(archived: World) -> None:
    name, body = min(archived.objects("manifests/").items())
    archived.s3.put_object(Bucket=BUCKET, Key=name, Body=body, StorageClass="GLACIER")
    assert archived.restore().requested == [name]
    assert archived.restore().ready
    assert len(archived.table("restored")) == 10


def test_a_filter_that_fails_for_an_item_is_said(archived: World) -> None:
    report = archived.restore(filter="starts_with(name, 'x')")
    assert len(report.problems) == len(archived.objects())
    assert "the filter fails for item 0" in report.problems[0]
    with pytest.raises(ArchiverError, match="is no JMESPath"):
        archived.restore(filter="no_such_function(name)")


@pytest.mark.parametrize("day", ["", " "])
def test_an_empty_day_is_not_all_of_them(archived: World, day: str) -> None:
    with pytest.raises(ArchiverError, match="is no day"):
        archived.restore(day=day)
    assert archived.table("restored") == []


def test_one_bad_item_of_another_maker_does_not_keep_the_others_out(world: World) -> None:
    plain = [{"id": f"u{number}"} for number in range(5)]
    body = json.dumps({"itemCount": 6, "items": [*plain, {"id": "x" * 3000}]})
    world.s3.put_object(Bucket=BUCKET, Key=FOREIGN, Body=body.encode())
    report = world.restore()
    assert report.restored == 5
    assert len(report.problems) == 1
    assert FOREIGN in report.problems[0]


def test_items_that_do_not_fit_the_table_are_said_in_a_line_for_each_reason(world: World) -> None:
    items = [{"id": "u"}, *[{"name": "x"}] * 3, *[{"id": 7}] * 4, *[{"id": ["u"]}] * 2, {"id": ""}]
    body = json.dumps({"itemCount": len(items), "items": items})
    world.s3.put_object(Bucket=BUCKET, Key=FOREIGN, Body=body.encode())
    assert world.restore(dry_run=True).restored == 1
    report = world.restore()
    assert report.restored == 1
    assert report.problems == [
        f"{FOREIGN}: an item has no id, which is in the key of restored (3 of 11 items are left out)",
        f"{FOREIGN}: an item's id is of type N, and the key of restored has it as S (4 of 11 items are left out)",
        f"{FOREIGN}: an item's id is of type L, and the key of restored has it as S (2 of 11 items are left out)",
        f"{FOREIGN}: an item's id is empty, which the key of restored can't be (1 of 11 items are left out)",
    ]


def test_items_of_another_maker_that_dynamodb_does_not_know_are_left_out(world: World) -> None:
    items = [
        '{"id": "good", "n": -1.5e-100, "deep": ' + "[" * 31 + "]" * 31 + "}",
        '{"id": "deep", "a": ' + "[" * 33 + "]" * 33 + "}",
        '{"id": "deeper", "a": ' + '{"a": ' * 240 + "1" + "}" * 240 + "}",
        '{"id": "large", "n": 1e400}', '{"id": "small", "n": [1e-400]}', '{"id": "huge", "n": 1e999999999}',
        '{"id": "text", "x": "\\ud800"}', '{"id": "name", "x\\ud800": 1}', '{"id": "\\ud800"}',
    ]  # fmt: skip
    body = f'{{"itemCount": {len(items)}, "items": [{", ".join(items)}]}}'
    world.s3.put_object(Bucket=BUCKET, Key=FOREIGN, Body=body.encode())
    report = world.restore(filter="id")
    assert ids(world.table("restored")) == ["good"]
    said = f"{FOREIGN}: an item is none of DynamoDB's: "
    assert report.problems == [
        f"{said}it is nested deeper than 32 levels (2 of 9 items are left out)",
        f"{said}the number 1e400 is beyond what DynamoDB holds (1 of 9 items are left out)",
        f"{said}the number 1e-400 is beyond what DynamoDB holds (1 of 9 items are left out)",
        f"{said}the number 1e999999999 is beyond what DynamoDB holds (1 of 9 items are left out)",
        f"{said}a text is no Unicode (3 of 9 items are left out)",
    ]


def test_an_item_that_is_refused_within_a_transaction_does_not_keep_the_others_out(archived: World) -> None:
    """As DynamoDB says of one with more than 400 KB."""

    def answer(operation: str, request: AWSPreparedRequest) -> AWSResponse | None:
        if operation != "TransactWriteItems":
            return None
        writes = json.loads(request.body)["TransactItems"]  # type: ignore[arg-type]
        bad = [one["Put"]["Item"]["id"] == {"S": "o00004"} for one in writes]
        if True not in bad:
            return None
        reasons = [
            {"Code": "ValidationError", "Message": "too large"} if no else {"Code": "None"} for no in bad
        ]
        body = {"__type": "x#TransactionCanceledException", "Message": "-", "CancellationReasons": reasons}
        return AWSResponse(request.url, 400, {}, MockRawResponse(json.dumps(body)))  # type: ignore[arg-type]

    archived.line.answers = answer
    report = archived.restore()
    assert report.restored == 9
    assert [one.endswith("the item S:o00004 is refused: too large") for one in report.problems] == [True]


def test_what_a_console_makes_for_folders_is_no_archive(archived: World) -> None:
    for name in ("archives/", "archives/2024/01/20/", "manifests/", "manifests/2024/"):
        archived.s3.put_object(Bucket=BUCKET, Key=name, Body=b"")
    assert archived.restore().problems == []
    assert len(archived.table("restored")) == 10
    assert verify(archived.aws, archived.settings).problems == []


def test_a_key_of_a_table_whose_key_is_another(world: World) -> None:
    world.put(item(1, at={"N": "7"}), item(2, at={"N": "8"}))
    world.run()
    world.range_key = True
    world.make_table("ranged")
    assert world.restore("ranged", key=("S:o00001", "N:7")).restored == 1
    assert world.restore("ranged", key=("S:o00001", "N:8")).restored == 0
    assert world.table("ranged") == [item(1, at={"N": "7"})]


def test_an_older_version_waits_also_for_a_table_whose_key_is_another(archived: World) -> None:
    last = item(3, group={"S": "again"})
    archived.put(last)
    archived.run()
    newest = max(archived.objects())
    archived.s3.put_object(Bucket=BUCKET, Key=newest, Body=archived.objects()[newest], StorageClass="GLACIER")
    archived.dynamodb.create_table(
        TableName="restored", BillingMode="PAY_PER_REQUEST",
        AttributeDefinitions=[{"AttributeName": one, "AttributeType": "S"} for one in ("createdAt", "id")],
        KeySchema=[{"AttributeName": "createdAt", "KeyType": "HASH"}, {"AttributeName": "id", "KeyType": "RANGE"}],
    )  # fmt: skip
    assert archived.restore().held == 1
    archived.restore()
    assert last in archived.table("restored")


def test_all_that_is_older_waits_for_what_may_have_any_item(archived: World) -> None:
    """What is in an object of another maker is not known before it is there."""
    name = "archives/2024/01/21/archive-1705800000000.json"
    body = json.dumps({"itemCount": 1, "items": [{"id": "o00003", "group": "theirs"}]}).encode()
    archived.s3.put_object(Bucket=BUCKET, Key=name, Body=body, StorageClass="GLACIER")
    report = archived.restore()
    assert (report.requested, report.held, report.restored) == ([name], 10, 0)
    report = archived.restore()
    assert (report.held, report.restored) == (0, 10)
    assert archived.table("restored")[3]["group"] == {"S": "theirs"}


DAMAGE: list[dict[str, object]] = [
    {"bytes": "12"}, {"itemCount": "4"}, {"sha256": None}, {"keys": []}, {"kept": [{"item": "0", "why": "gone"}]},
    {"kept": [{"item": 99, "why": "gone"}]}, {"kept": [{"item": 0, "why": 5}]}, {"object": 5}, {"status": "perhaps"},
    {"source": None}, {"source": {"table": "orders", "keySchema": [5], "timeAttribute": "at", "timeFormat": "iso"}},
]  # fmt: skip


def test_a_manifest_that_says_what_cannot_be_is_a_problem(archived: World) -> None:
    name, body = min(archived.objects("manifests/").items())
    for damage in DAMAGE:
        archived.s3.put_object(Bucket=BUCKET, Key=name, Body=json.dumps(json.loads(body) | damage).encode())
        report = archived.restore(objects=[min(archived.objects())])
        assert [name in one and "is no manifest" in one for one in report.problems] == [True], damage
    assert archived.table("restored") == []


def test_throttled_writes_are_tried_again(archived: World) -> None:
    calls = iter(range(100))
    archived.line.plan = lambda number, operation: (
        "conflict" if operation == "TransactWriteItems" and next(calls) % 2 == 0 else None
    )
    assert archived.restore().restored == 10
    archived.line.plan = lambda number, operation: "conflict" if operation == "TransactWriteItems" else None
    report = archived.restore("other")
    assert len(report.problems) == len(archived.objects())
    assert "10 tries" in report.problems[0]


def test_a_table_that_is_not_there(archived: World) -> None:
    with pytest.raises(
        ArchiverError, match="could not describe the table nowhere: ResourceNotFoundException"
    ):
        Restore(archived.aws, archived.settings, "nowhere", Wanted()).run()
