"""What the archiver is told: environment variables, checked once, at the start."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from archiver import age, items
from archiver.errors import ArchiverError

MEBI: Final = 2**20
MOST_BYTES: Final = 64 * MEBI
"""Of all objects that are being filled."""


@dataclass(frozen=True)
class Filter:
    """Which of the old items are archived: a FilterExpression of DynamoDB's Scan."""

    expression: str
    names: Mapping[str, str] = field(default_factory=dict)
    values: Mapping[str, Any] = field(default_factory=dict)
    """Placeholder to attribute value."""


@dataclass(frozen=True)
class Settings:
    """See `DESCRIBED` for what each means, and docs/archiver.md."""

    source_tables: tuple[str, ...]
    archive_bucket: str
    archive_days: int = 30
    batch_size: int = 100
    region: str = "us-east-1"
    state_table: str = "archiver-state"
    time_attribute: str = "createdAt"
    time_format: age.Format = "iso"
    filter: Filter | None = None
    segments: int = 4
    object_items: int = 10_000
    object_bytes: int = 4 * MEBI
    archive_prefix: str = "archives"
    manifest_prefix: str = "manifests"
    kms_key_id: str | None = None
    global_table: bool = False
    time_reserve: float = 60.0
    dry_run: bool = False


DESCRIBED: Final[Mapping[str, str]] = {
    "SOURCE_TABLE": "the table, or several with commas between them",
    "ARCHIVE_BUCKET": "the bucket for archives and manifests",
    "ARCHIVE_DAYS": "items older than so many days leave (30)",
    "BATCH_SIZE": "writes in a delete transaction, 2 to 100; one of them records the others (100)",
    "REGION": "AWS region (AWS_REGION, else us-east-1)",
    "STATE_TABLE": "the table in which the archiver keeps where it is (archiver-state)",
    "TIME_ATTRIBUTE": "the attribute that says how old an item is (createdAt)",
    "TIME_FORMAT": "iso, epoch (seconds) or epoch-ms (iso)",
    "FILTER_EXPRESSION": "archive only items that match, in DynamoDB's language: #status = :archived",
    "FILTER_NAMES": 'its names, a JSON object: {"#status": "status"}',
    "FILTER_VALUES": 'its values, a JSON object: {":archived": "archived"}',
    "SEGMENTS": "segments of the parallel scan, 1 to 64, a thread each (4)",
    "OBJECT_ITEMS": "an archive object is closed at so many items (10000)",
    "OBJECT_BYTES": "or at so many bytes (4194304)",
    "ARCHIVE_PREFIX": "first part of the names of archives (archives)",
    "MANIFEST_PREFIX": "first part of the names of manifests (manifests)",
    "KMS_KEY_ID": "encrypt with this key (without: AES256, S3's own)",
    "GLOBAL_TABLE": "true: a table with replicas in other regions is written in this region only (false)",
    "TIME_RESERVE": "stop cleanly so many seconds before the time limit (60)",
    "DRY_RUN": "true: count what would be archived, write nothing (false)",
}


def from_environment(environment: Mapping[str, str], *, source: bool = True) -> Settings:
    """Read the settings. Raises ArchiverError, one line, for the first that is missing or no good.

    `source`: SOURCE_TABLE is needed.
    """
    tables = tuple(name.strip() for name in environment.get("SOURCE_TABLE", "").split(",") if name.strip())
    if source and not tables:
        raise ArchiverError("SOURCE_TABLE is not set: name the DynamoDB table, or several with commas")
    for name in (*tables, _text(environment, "STATE_TABLE", "archiver-state")):
        if not re.fullmatch(r"[a-zA-Z0-9_.-]{3,255}", name):
            raise ArchiverError(f"{name!r} is no name of a DynamoDB table: 3 to 255 of a-z A-Z 0-9 _ - .")
    if len(set(tables)) < len(tables):
        raise ArchiverError("SOURCE_TABLE names a table twice")
    bucket = _text(environment, "ARCHIVE_BUCKET", "")
    if not bucket:
        raise ArchiverError("ARCHIVE_BUCKET is not set: name the S3 bucket for the archives")
    if not re.fullmatch(r"[a-zA-Z0-9._-]{1,255}|arn:aws.*", bucket):
        raise ArchiverError(f"ARCHIVE_BUCKET: {bucket!r} is no name of a bucket")
    if _text(environment, "STATE_TABLE", "archiver-state") in tables:
        raise ArchiverError("STATE_TABLE must not be a source table")
    form = _text(environment, "TIME_FORMAT", "iso")
    if form not in age.FORMATS:
        raise ArchiverError(f"TIME_FORMAT must be one of {', '.join(age.FORMATS)}, got {form!r}")
    prefixes = (
        _prefix(environment, "ARCHIVE_PREFIX", "archives"),
        _prefix(environment, "MANIFEST_PREFIX", "manifests"),
    )
    if (prefixes[0] + "/").startswith(prefixes[1] + "/") or (prefixes[1] + "/").startswith(prefixes[0] + "/"):
        raise ArchiverError("ARCHIVE_PREFIX and MANIFEST_PREFIX must differ, and neither lie in the other")
    found = Settings(
        source_tables=tables,
        archive_bucket=bucket,
        archive_days=_whole(environment, "ARCHIVE_DAYS", 30, 1, 36_500),
        batch_size=_whole(environment, "BATCH_SIZE", 100, 2, 100),
        region=_text(environment, "REGION", environment.get("AWS_REGION", "") or "us-east-1"),
        state_table=_text(environment, "STATE_TABLE", "archiver-state"),
        time_attribute=_text(environment, "TIME_ATTRIBUTE", "createdAt"),
        time_format=form,  # type: ignore[arg-type]  # looked at above
        filter=_filter(environment),
        segments=_whole(environment, "SEGMENTS", 4, 1, 64),
        object_items=_whole(environment, "OBJECT_ITEMS", 10_000, 1, 10_000),
        object_bytes=_whole(environment, "OBJECT_BYTES", 4 * MEBI, 1, 64 * MEBI),
        global_table=_yes(environment, "GLOBAL_TABLE"),
        archive_prefix=prefixes[0],
        manifest_prefix=prefixes[1],
        kms_key_id=_text(environment, "KMS_KEY_ID", "") or None,
        time_reserve=float(_whole(environment, "TIME_RESERVE", 60, 1, 800)),
        dry_run=_yes(environment, "DRY_RUN"),
    )
    if found.segments * found.object_bytes > MOST_BYTES:
        raise ArchiverError(
            f"SEGMENTS times OBJECT_BYTES must be at most {MOST_BYTES}: each segment has an object in memory,"
            " about forty times as large as its JSON"
        )
    return found


def _text(environment: Mapping[str, str], name: str, default: str) -> str:
    return environment.get(name, "").strip() or default


def _whole(environment: Mapping[str, str], name: str, default: int, least: int, most: int) -> int:
    text = _text(environment, name, str(default))
    try:
        number = int(text)
    except ValueError:
        number = least - 1
    if not least <= number <= most:
        raise ArchiverError(f"{name} must be a whole number from {least} to {most}, got {text!r}")
    return number


def _yes(environment: Mapping[str, str], name: str) -> bool:
    text = _text(environment, name, "false").lower()
    if text not in ("true", "false", "1", "0", "yes", "no"):
        raise ArchiverError(f"{name} must be true or false, got {text!r}")
    return text in ("true", "1", "yes")


def _prefix(environment: Mapping[str, str], name: str, default: str) -> str:
    text = _text(environment, name, default).strip("/")
    if not re.fullmatch(r"[a-zA-Z0-9!_.*'()/-]+", text):
        raise ArchiverError(f"{name} must be letters, digits and !_.*'()/-, got {text!r}")
    return text


def _filter(environment: Mapping[str, str]) -> Filter | None:
    expression = _text(environment, "FILTER_EXPRESSION", "")
    names, values = (_object(environment, name) for name in ("FILTER_NAMES", "FILTER_VALUES"))
    if not expression:
        if names or values:
            raise ArchiverError("FILTER_NAMES and FILTER_VALUES go with FILTER_EXPRESSION, which is not set")
        return None
    for name, value in names.items():
        if not name.startswith("#") or not isinstance(value, str):
            raise ArchiverError(f'FILTER_NAMES must be like {{"#status": "status"}}, got {name!r}')
    for name in values:
        if not name.startswith(":"):
            raise ArchiverError(f'FILTER_VALUES must be like {{":archived": "archived"}}, got {name!r}')
        if isinstance(values[name], dict) and len(values[name]) == 1 and values[name].keys() <= items.KINDS:
            raise ArchiverError(f'FILTER_VALUES are plain JSON, "x" and not {{"S": "x"}}: {name}')
    # A prefix of ours, so that no name of the user's can stand for another than the user means.
    if {"#eav_time", ":eav_cutoff"} & (names.keys() | values.keys()):
        raise ArchiverError("#eav_time and :eav_cutoff are the archiver's own: choose other placeholders")
    return Filter(expression, {name: str(value) for name, value in names.items()}, items.decode(values))


def _object(environment: Mapping[str, str], name: str) -> dict[str, Any]:
    text = _text(environment, name, "{}")
    try:
        found = items.loads(text)
    except json.JSONDecodeError as error:
        raise ArchiverError(f"{name} is no JSON: {error}") from None
    except ValueError as error:
        raise ArchiverError(f"{name}: {error}") from None
    if not isinstance(found, dict):
        raise ArchiverError(f"{name} must be a JSON object, got {text[:40]!r}")
    return found
