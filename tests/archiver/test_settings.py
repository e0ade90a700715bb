"""Settings are checked at the start, a line each."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from archiver import settings
from archiver.errors import ArchiverError
from archiver.settings import Filter, Settings

LEAST = {"SOURCE_TABLE": "orders", "ARCHIVE_BUCKET": "archive"}


def test_what_the_source_names_and_its_defaults() -> None:
    found = settings.from_environment(LEAST)
    assert found == Settings(("orders",), "archive", archive_days=30, batch_size=100, region="us-east-1")
    assert settings.from_environment({**LEAST, "AWS_REGION": "eu-west-1"}).region == "eu-west-1"
    assert settings.from_environment({**LEAST, "ARCHIVE_DAYS": " ", "KMS_KEY_ID": ""}) == found


def test_all_of_them() -> None:
    assert settings.from_environment(
        {
            "SOURCE_TABLE": "orders, events", "ARCHIVE_BUCKET": "b", "ARCHIVE_DAYS": "7", "BATCH_SIZE": "50",
            "REGION": "eu-central-1", "STATE_TABLE": "place", "TIME_ATTRIBUTE": "at", "TIME_FORMAT": "epoch-ms",
            "FILTER_EXPRESSION": "#s = :s AND #n > :n", "FILTER_NAMES": '{"#s": "status", "#n": "number"}',
            "FILTER_VALUES": '{":s": "done", ":n": 0.10}', "SEGMENTS": "8", "OBJECT_ITEMS": "5", "OBJECT_BYTES": "6",
            "ARCHIVE_PREFIX": "/a/", "MANIFEST_PREFIX": "m", "KMS_KEY_ID": "key", "TIME_RESERVE": "30",
            "DRY_RUN": "True", "GLOBAL_TABLE": "yes",
        }
    ) == Settings(
        ("orders", "events"), "b", 7, 50, "eu-central-1", "place", "at", "epoch-ms",
        Filter("#s = :s AND #n > :n", {"#s": "status", "#n": "number"}, {":s": {"S": "done"}, ":n": {"N": "0.10"}}),
        8, 5, 6, "a", "m", "key", True, 30.0, True,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"SOURCE_TABLE": ""}, "SOURCE_TABLE is not set"),
        ({"SOURCE_TABLE": "a b"}, "no name of a DynamoDB table"),
        ({"SOURCE_TABLE": "orders,orders"}, "twice"),
        ({"SOURCE_TABLE": "archiver-state"}, "STATE_TABLE must not be a source table"),
        ({"ARCHIVE_BUCKET": ""}, "ARCHIVE_BUCKET is not set"),
        ({"ARCHIVE_BUCKET": "s3://archive"}, "ARCHIVE_BUCKET: 's3://archive' is no name of a bucket"),
        ({"ARCHIVE_DAYS": "0"}, "ARCHIVE_DAYS must be a whole number from 1 to 36500, got '0'"),
        ({"ARCHIVE_DAYS": "soon"}, "got 'soon'"),
        ({"BATCH_SIZE": "101"}, "from 2 to 100"),
        ({"SEGMENTS": "65"}, "from 1 to 64"),
        ({"TIME_FORMAT": "unix"}, "iso, epoch, epoch-ms"),
        ({"ARCHIVE_PREFIX": "a", "MANIFEST_PREFIX": "a/"}, "must differ"),
        ({"ARCHIVE_PREFIX": "a", "MANIFEST_PREFIX": "a/b"}, "neither lie in the other"),
        ({"SEGMENTS": "64"}, "SEGMENTS times OBJECT_BYTES must be at most"),
        ({"FILTER_EXPRESSION": "#s = :s", "FILTER_VALUES": '{":s": {"S": "x"}}'}, "plain JSON"),
        ({"ARCHIVE_PREFIX": "ä"}, "ARCHIVE_PREFIX must be letters"),
        ({"DRY_RUN": "perhaps"}, "DRY_RUN must be true or false"),
        ({"FILTER_NAMES": '{"#a": "b"}'}, "FILTER_EXPRESSION, which is not set"),
        ({"FILTER_EXPRESSION": "x", "FILTER_NAMES": '{"a": "b"}'}, "FILTER_NAMES must be like"),
        ({"FILTER_EXPRESSION": "x", "FILTER_VALUES": '{"a": "b"}'}, "FILTER_VALUES must be like"),
        ({"FILTER_EXPRESSION": "x", "FILTER_VALUES": '{":eav_cutoff": "b"}'}, "the archiver's own"),
        ({"FILTER_EXPRESSION": "x", "FILTER_VALUES": "{"}, "FILTER_VALUES is no JSON"),
        ({"FILTER_EXPRESSION": "x", "FILTER_VALUES": "[]"}, "must be a JSON object"),
    ],
)
def test_a_mistake_is_one_line(wrong: dict[str, str], says: str) -> None:
    with pytest.raises(ArchiverError) as error:
        settings.from_environment({**LEAST, **wrong})
    assert says in str(error.value)
    assert "\n" not in str(error.value)


def test_what_is_described_is_what_is_read_and_documented() -> None:
    source = Path(settings.__file__).read_text(encoding="utf-8")
    assert all(source.count(f'"{name}"') > 1 for name in settings.DESCRIBED), "described, and never read"
    read = set(re.findall(r'environment(?:\.get\(|, )"([A-Z_]+)"', source))
    assert read - {"AWS_REGION"} <= settings.DESCRIBED.keys()
    page = (Path(settings.__file__).parents[1] / "docs/archiver.md").read_text(encoding="utf-8")
    assert {name for name in settings.DESCRIBED if f"`{name}`" not in page} == set()
