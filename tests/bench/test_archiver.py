"""Measuring the archiver: both of them do their work, and what is said of it is what was counted. Never the speed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from botocore.exceptions import ClientError

from archiver import aws, items
from bench import archiving, docs, emulator
from bench.__main__ import main
from bench.archivers import BUCKET, KEY, TABLE, Order, Outcome, archive
from bench.reference.archiver import Reference
from local.aws import REGION
from local.errors import LocalError

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def clients() -> Iterator[aws.Aws]:
    """Clients of a table with 120 old items."""
    with emulator.inside(120):
        yield aws.connect(REGION)


def keys(clients: aws.Aws) -> list[str]:
    return sorted(item[KEY]["S"] for item in clients.dynamodb.scan(TableName=TABLE)["Items"])


class TestReference:
    def reference(self, clients: aws.Aws) -> Reference:
        return Reference(clients.dynamodb, clients.s3, TABLE, KEY, BUCKET, sleep=lambda seconds: None)

    def test_it_archives_what_is_old_in_one_object_and_deletes_it(self, clients: aws.Aws) -> None:
        young = emulator.item(1000) | {"createdAt": {"S": "2999-01-01T00:00:00.000Z"}}
        clients.dynamodb.put_item(TableName=TABLE, Item=young)
        clients.calls.clear()
        stats = self.reference(clients).run()
        assert (stats["scanned"], stats["archived"], stats["deleted"], stats["objects"]) == (121, 120, 120, 1)
        # Pages of 100; twenty-fives, and a batch ends with its page.
        assert clients.calls == {"Scan": 2, "PutObject": 1, "BatchWriteItem": 5}
        assert keys(clients) == [young[KEY]["S"]]
        (listed,) = clients.s3.list_objects_v2(Bucket=BUCKET)["Contents"]
        body = json.loads(clients.s3.get_object(Bucket=BUCKET, Key=listed["Key"])["Body"].read())
        assert (body["itemCount"], body["cutoffDays"], len(body["items"])) == (120, 30, 120)
        assert body["items"][0].keys() == emulator.item(0).keys()

    def test_unprocessed_items_are_sent_again_and_what_a_batch_refuses_goes_by_itself(
        self, clients: aws.Aws
    ) -> None:
        send = clients.dynamodb.batch_write_item
        answers = iter(["some", "all", "none"])

        def batch_write_item(RequestItems: Any) -> Any:  # noqa: N803  (boto3's)
            match next(answers, "all"):
                case "some":
                    send(RequestItems={TABLE: RequestItems[TABLE][5:]})
                    return {"UnprocessedItems": {TABLE: RequestItems[TABLE][:5]}}
                case "none":
                    raise ClientError({"Error": {"Code": "InternalServerError"}}, "BatchWriteItem")
            return send(RequestItems=RequestItems)

        with patch.object(clients.dynamodb, "batch_write_item", batch_write_item):
            stats = self.reference(clients).run()
        assert (stats["deleted"], stats["errors"]) == (120, 0)
        assert clients.calls["DeleteItem"] == 25
        assert keys(clients) == []


class TestEmulator:
    def test_an_item_costs_one_unit_a_write(self) -> None:
        assert all(900 < items.size(emulator.item(number)) <= 1024 for number in range(0, 200_000, 9_973))

    def test_pages_are_those_of_the_emulator_as_it_is(self) -> None:
        def pages(clients: aws.Aws, **more: Any) -> list[Any]:
            found: list[Any] = []
            start: dict[str, Any] = {}
            while True:
                page = clients.dynamodb.scan(
                    TableName=TABLE,
                    Limit=7,
                    FilterExpression="createdAt < :cutoff AND #status <> :status",
                    ExpressionAttributeNames={"#status": "status"},
                    ExpressionAttributeValues={":cutoff": {"S": "2999"}, ":status": {"S": "open"}},
                    **more,
                    **start,
                )
                found.append((page["Items"], page["ScannedCount"]))
                if "LastEvaluatedKey" not in page:
                    return found
                start = {"ExclusiveStartKey": page["LastEvaluatedKey"]}

        def all_pages() -> list[Any]:
            with emulator.inside(60):
                clients = aws.connect(REGION)
                segments = ({"Segment": number, "TotalSegments": 3} for number in range(3))
                return [pages(clients, **more) for more in ({}, *segments)]

        quick = all_pages()
        with patch.object(emulator, "quick", nullcontext):
            assert all_pages() == quick
        assert sum(len(found) for found, _ in quick[0]) == 40

    def test_a_cancelled_transaction_leaves_the_table_as_it_was(self, clients: aws.Aws) -> None:
        before = keys(clients)

        def delete(number: int, name: str) -> Any:
            return {
                "Delete": {
                    "TableName": TABLE,
                    "Key": {KEY: emulator.item(number)[KEY]},
                    "ConditionExpression": "#name = :name",
                    "ExpressionAttributeNames": {"#name": "name"},
                    "ExpressionAttributeValues": {":name": {"S": name}},
                }
            }

        with pytest.raises(ClientError, match="TransactionCanceledException"):
            clients.dynamodb.transact_write_items(
                TransactItems=[delete(1, "Item 1"), delete(2, "another name")]
            )
        assert keys(clients) == before
        clients.dynamodb.transact_write_items(TransactItems=[delete(1, "Item 1"), delete(2, "Item 2")])
        assert len(keys(clients)) == len(before) - 2


class TestArchivers:
    def test_each_archives_all_of_it_and_says_what_it_took(self) -> None:
        for order in (Order("reference", 250), Order("ours", 250, segments=1)):
            with emulator.inside(250):
                outcome = archive(order)
                assert emulator.left() == 0
            assert (outcome.archived, outcome.deleted, outcome.objects) == (250, 250, 1)
            assert outcome.finished
            deletes = "BatchWriteItem" if order.who == "reference" else "TransactWriteItems"
            # Three transactions of deletes, and the one that registers the object.
            assert outcome.calls[deletes] == (10 if order.who == "reference" else 4)

    def test_in_processes_of_their_own_one_goes_on_where_another_stopped(self) -> None:
        with emulator.outside(230) as url:
            first = archiving.child(Order("ours", 230, 1, stop_after=90), url)
            second = archiving.child(Order("ours", 230, 1), url)
        assert (first.deleted, first.finished) == (99, False)
        assert (second.deleted, second.finished) == (131, True)
        assert first.archived + second.archived == 230
        assert first.peak_mib >= first.idle_mib > 10

    def test_a_child_that_fails_is_one_line(self, capfd: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(LocalError, match="ours failed with 5 items, see above"):
            archiving.child(Order("ours", 5), "no URL")
        (line,) = capfd.readouterr().err.splitlines()
        assert line.startswith("python -m bench archiver: ")


def outcome(calls: dict[str, int], count: int, objects: int = 5, peak: float = 200.0) -> Outcome:
    return Outcome(10.0, 2.0, calls, count, count, objects, count * 1000, True, peak, 60.0)


@pytest.fixture
def result() -> dict[str, Any]:
    """As a run would give it, with made-up figures."""
    runs = []
    for count, peak in ((100_000, 210.0), (50_000, 200.0), (10_000, 100.0)):
        reference = {"Scan": count // 100, "BatchWriteItem": count // 25, "PutObject": 1}
        ours = {"Scan": count // 1000, "TransactWriteItems": count // 98, "PutObject": 15, "GetObject": 15}
        runs += [
            archiving.facts("reference", count, [outcome(reference, count, 1, count / 100)]),
            archiving.facts(
                "ours", count, [outcome(ours, count, 4 if count == 10_000 else count // 9_000, peak)]
            ),
        ]
    return {
        "about": {
            "date": "2026-01-01T00:00:00+00:00", "commit": "0123456789ab", "cpu": "abacus", "cores": 2,
            "memory_gib": 4.0, "load_average_at_start": [0.5], "seconds": 300,
        },
        "item_bytes": 943,
        "segments": 4,
        "runs": runs,
        "resumed": archiving.facts("ours", 10_000, [outcome({"Scan": 10}, 2_500)] * 4),
        "memory": archiving.memory(runs, 4),
        "ten_million": archiving.ten_million(runs, 4, 943),
    }  # fmt: skip


class TestResult:
    def test_memory_is_judged_where_objects_are_full(self, result: dict[str, Any]) -> None:
        assert result["memory"] == {"from": 50_000, "to": 100_000, "growth": 1.05, "verdict": "flat"}
        grown = [one | {"peak_mib": one["items"] / 100} for one in result["runs"]]
        assert archiving.memory(grown, 4)["verdict"] == "grows"
        small = [one for one in grown if one["items"] < 100_000]
        assert archiving.memory(small, 4) == {"verdict": "too small to tell"}

    def test_the_arithmetic(self, result: dict[str, Any]) -> None:
        ours, reference = result["ten_million"]["ours"], result["ten_million"]["reference"]
        assert ours["calls"] == {
            "Scan": 10_000, "TransactWriteItems": 102_000, "PutObject": 1_500, "GetObject": 1_500,
        }  # fmt: skip
        assert ours["waiting_seconds"] == (10_000 * 0.15 + 102_000 * 0.06 + 3_000 * 0.1) / 4
        assert ours["computing_seconds"] == round(200 / (1024 / 1769))
        assert ours["lambda_runs"] == -(-ours["seconds"] // 840)
        assert ours["write_units"] == 2 * (10_000_000 + 102_000)
        assert ours["dollars"]["writes"] == pytest.approx(20.204 * 0.625, abs=0.005)
        assert (reference["write_units"], reference["lambda_runs"]) == (10_000_000, 112)
        assert reference["calls"]["PutObject"] == 112

    def test_the_bar_is_of_the_largest_table(self, result: dict[str, Any]) -> None:
        assert archiving.ratio(result) == pytest.approx((100 + 1_020 + 30) / (1_000 + 4_000 + 1))
        assert "0.230, bar 1/3: met" in archiving.verdict(result)

    def test_the_page_is_made_of_it(self, result: dict[str, Any], tmp_path: Path) -> None:
        docs.write_result("archiver", result, tmp_path / "results" / "archiver.json")
        document = tmp_path / "benchmarks.md"
        shutil.copy(ROOT / "docs/benchmarks.md", document)
        written = docs.write_docs(tmp_path / "results", document)
        assert {path.name for path in written} == {"archiver.json", "archiver.svg", "benchmarks.md"}
        text = document.read_text(encoding="utf-8")
        for row in archiving.rows(result):
            assert f"| {' | '.join(row)} |" in text
        assert "Measured 2026-01-01T00:00:00+00:00 at commit 0123456789ab" in text
        assert "<svg" in (tmp_path / "benchmarks/archiver.svg").read_text(encoding="utf-8")

    def test_what_was_not_archived_once_is_no_result(self) -> None:
        archiving.check(5, 5, 5)
        for counts in ((6, 5, 5), (5, 4, 5)):
            with pytest.raises(LocalError, match="of 5 items"):
                archiving.check(*counts)

    @pytest.mark.parametrize("arguments", [["--items", "99"], ["--segments", "0"], ["--segments", "65"]])
    def test_a_mistake_is_one_line(self, arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["archiver", *arguments]) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert "--items must be 100 or more, --segments 1 to 64" in line


@pytest.mark.cluster
def test_the_row_counts_calls_and_has_its_bar(tmp_path: Path) -> None:
    path = tmp_path / "table.json"
    assert main([
        "table", "--quick", "--rounds", "2", "--set", "archived=500", "--only", "archiver", "--output", str(path),
    ]) == 0  # fmt: skip
    (row,) = json.loads(path.read_text(encoding="utf-8"))["rows"]
    assert "failed" not in row, row
    assert row["notes"]["calls"]["reference"] == {"BatchWriteItem": 20, "PutObject": 1, "Scan": 5}
    assert row["figures"]["reference, calls"]["rounds"] == [52.0, 52.0]
    bar, rate = row["lines"]
    assert bar["bar"] == "≤ 0.333 ×"
    assert bar["measured"]["median"] == sum(row["notes"]["calls"]["ours"].values()) * 2
    assert (rate["unit"], rate["verdict"]) == ("items/s", "for information")


def test_a_row_that_came_later_does_not_keep_earlier_ones_away() -> None:
    about = {"sizes": {"staged": 5, "archived": 7}, "cpu": "abacus"}
    docs.check_same({"about": {"sizes": {"staged": 5}, "cpu": "abacus"}}, about, ("sizes",))
    with pytest.raises(LocalError, match="had another sizes"):
        docs.check_same({"about": {"sizes": {"staged": 6}, "cpu": "abacus"}}, about, ("sizes",))
