"""The two documents of an archive: the object with the items, and its manifest; and where they are.

An archive object has the shape that older tools read (`archiveDate`, `itemCount`, `cutoffDays`, `items`), and more.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Final, Literal, get_args

import orjson

from archiver import age, items
from archiver.errors import ArchiverError, VerificationError

FORMAT: Final = "eav-platform/dynamodb-archive/1"
"""What tells our objects from others of the same shape: ours count for nothing without their manifest."""
MANIFEST_FORMAT: Final = "eav-platform/dynamodb-archive-manifest/1"

Status = Literal["begun", "complete"]


@dataclass(frozen=True)
class Source:
    """Where items came from."""

    table: str
    key: tuple[str, ...]
    """Names of the key attributes: hash, and range if there is one."""
    time_attribute: str
    time_format: age.Format

    def facts(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "table": self.table,
            "keySchema": self.key,
            "timeAttribute": self.time_attribute,
            "timeFormat": self.time_format,
        }

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> Source:
        """The inverse of `facts`. Raises KeyError, ValueError."""
        found = cls(facts["table"], tuple(facts["keySchema"]), facts["timeAttribute"], facts["timeFormat"])
        texts = (found.table, *found.key, found.time_attribute, found.time_format)
        if not found.key or not all(isinstance(one, str) and one for one in texts):
            raise ValueError("its source is none")
        return found

    def key_of(self, item: Mapping[str, Any]) -> dict[str, Any]:
        """The item's key, as DynamoDB wants it."""
        return {name: item[name] for name in self.key}


@dataclass(frozen=True)
class Manifest:
    """What is known of an archive object, written before the object itself, and again when all is done.

    `begun`: the object is being written, read back, or its items deleted; the state table knows how far that is.
    `complete`: the items left the table, except `kept` ones.
    """

    key: str
    """Name of the archive object."""
    source: Source
    archived_at: str
    cutoff: str
    cutoff_days: int
    item_count: int
    size: int
    digest: str
    keys: tuple[tuple[str, ...], ...]
    """Of each item, in the order of the object: see `items.key_text`."""
    status: Status = "begun"
    kept: Mapping[int, str] = field(default_factory=dict)
    """Number of an item, from 0, that did not leave, and why: it was `changed` or `gone` when its turn came. What the
    archive has of it is not the last word on it, and is not restored."""

    def completed(self, kept: Mapping[int, str]) -> Manifest:
        """The last version of it."""
        return replace(self, status="complete", kept=dict(kept))

    def body(self) -> bytes:
        """As stored."""
        return orjson.dumps(
            {
                "format": MANIFEST_FORMAT,
                "object": self.key,
                "order": order_of(self.key),
                "status": self.status,
                "source": self.source.facts(),
                "archiveDate": self.archived_at,
                "cutoff": self.cutoff,
                "cutoffDays": self.cutoff_days,
                "itemCount": self.item_count,
                "bytes": self.size,
                "sha256": self.digest,
                "kept": [{"item": index, "why": why} for index, why in sorted(self.kept.items())],
                "keys": self.keys,
            }
        )


def read_manifest(name: str, body: bytes) -> Manifest:
    """The inverse of `Manifest.body`. Raises ArchiverError, with `name`."""
    try:
        found = orjson.loads(body)
        if not isinstance(found, dict):
            raise ValueError("it is no JSON object")
        if found["format"] != MANIFEST_FORMAT or found["status"] not in get_args(Status):
            raise ValueError("it is of another format")
        manifest = Manifest(
            key=found["object"],
            source=Source.of(found["source"]),
            archived_at=found["archiveDate"],
            cutoff=found["cutoff"],
            cutoff_days=found["cutoffDays"],
            item_count=found["itemCount"],
            size=found["bytes"],
            digest=found["sha256"],
            keys=tuple(tuple(one) for one in found["keys"]),
            status=found["status"],
            kept={one["item"]: one["why"] for one in found["kept"]},
        )
        _check(manifest)
    except (ValueError, KeyError, TypeError) as error:
        missing = "it has no " if isinstance(error, KeyError) else ""
        raise ArchiverError(f"{name} is no manifest: {missing}{error}") from None
    return manifest


def _check(manifest: Manifest) -> None:
    """Whoever restores goes by it. Raises ValueError for what cannot be."""
    for what, number in (("itemCount", manifest.item_count), ("bytes", manifest.size)):
        if type(number) is not int or number < 0:
            raise ValueError(f"its {what} is {number!r}")
    if not isinstance(manifest.digest, str) or not re.fullmatch(r"[0-9a-f]{64}", manifest.digest):
        raise ValueError("its sha256 is none")
    if not isinstance(manifest.key, str):
        raise ValueError("it names no object")
    if len(manifest.keys) != manifest.item_count:
        raise ValueError(f"its itemCount is {manifest.item_count}, and it names {len(manifest.keys)}")
    if any(
        len(one) != len(manifest.source.key) or not all(isinstance(t, str) for t in one)
        for one in manifest.keys
    ):
        raise ValueError("it names keys that are none")
    if any(type(index) is not int or not 0 <= index < manifest.item_count for index in manifest.kept):
        raise ValueError("it keeps items that it has not")
    if not all(isinstance(why, str) for why in manifest.kept.values()):
        raise ValueError("it does not say why it keeps items")


@dataclass(frozen=True)
class Archive:
    """An archive object that was read."""

    items: tuple[items.Item, ...]
    source: Source | None
    """None if another maker wrote it; one of ours counts for nothing without its manifest."""
    archived_at: str
    cutoff: str = ""
    cutoff_days: int = 0
    manifest_name: str = ""

    def manifest(self, key: str, digest: str, size: int) -> Manifest:
        """The manifest of this object, one of ours, which is called `key` and was read back."""
        source = self.source
        assert source is not None
        return Manifest(
            key=key,
            source=source,
            archived_at=self.archived_at,
            cutoff=self.cutoff,
            cutoff_days=self.cutoff_days,
            item_count=len(self.items),
            size=size,
            digest=digest,
            keys=tuple(tuple(items.key_text(one[name]) for name in source.key) for one in self.items),
        )


def write_archive(
    source: Source,
    encoded: Sequence[bytes],
    types: Mapping[int, items.Types],
    at: datetime,
    cutoff: datetime,
    days: int,
    manifest: str,
) -> bytes:
    """The object: `encoded` are the items' plain forms as JSON, `types` the notes of those that have any."""
    head = orjson.dumps(
        {
            "archiveDate": age.iso(at),
            "itemCount": len(encoded),
            "cutoffDays": days,
            "cutoff": age.iso(cutoff),
            "format": FORMAT,
            "manifest": manifest,
            "source": source.facts(),
            "types": {str(index): notes for index, notes in types.items()},
        }
    )
    return b"".join((head[:-1], b',"items":[', b",\n".join(encoded), b"]}"))


def read_archive(name: str, body: bytes) -> Archive:
    """An archive object, ours or one of the documented shape. Raises VerificationError, with `name`."""
    try:
        found = items.loads(body)
        if not isinstance(found, dict) or not isinstance(found.get("items"), list):
            raise ValueError("it is no JSON object with a list of items")
        ours = found.get("format") == FORMAT
        types = found["types"] if ours else {}
        plain = found["items"]
        if float(found["itemCount"]) != len(plain):
            raise ValueError(f"it says {found['itemCount']} items and has {len(plain)}")
        return Archive(
            tuple(items.decode(one, types.get(str(index))) for index, one in enumerate(plain)),
            Source.of(found["source"]) if ours else None,
            str(found.get("archiveDate", "")),
            str(found.get("cutoff", "")),
            int(found["cutoffDays"]) if ours else 0,
            str(found.get("manifest", "")),
        )
    except KeyError as error:
        raise VerificationError(f"{name} is no archive: it has no {error}") from None
    except (TypeError, AttributeError) as error:
        raise VerificationError(f"{name} is no archive: it is of another shape: {error}") from None
    except (ValueError, RecursionError) as error:
        raise VerificationError(f"{name} is no archive: {error}") from None


def table_of(key: str) -> str | None:
    """The table that an archive object is of, by its name; None if another maker named it.

    >>> table_of("archives/2024/01/20/archive-1705716000000-my-orders-0-n1705716000000-3f2a4b5c.json")
    'my-orders'
    """
    found = _OURS.search(key)
    return found and found[1]


def order_of(key: str) -> int:
    """What orders archive objects, by their name: of two that have an item the later one has the larger number.

    It is the number that the state table gave it. Objects of other makers, and ours from before there were numbers,
    have only the clock of who wrote them, to which the numbers keep: see `State.next_order`.

    >>> order_of("archives/2024/01/20/archive-1705716000000-my-orders-0-n1705716000007-3f2a4b5c.json")
    1705716000007
    >>> order_of("archives/2024/01/20/archive-1705716000000.json")
    1705716000000
    """
    ours = _OURS.search(key)
    if ours and ours[2]:
        return int(ours[2])
    clock = re.search(r"/archive-(\d+)[^/]*$", key)
    return int(clock[1]) if clock else 0


_OURS: Final = re.compile(r"/archive-\d+-([^/]+)-\d+(?:-n(\d+))?-[0-9a-f]{8}\.json$")


def archive_key(prefix: str, table: str, at: datetime, segment: int, order: int, unique: str) -> str:
    """By the day (UTC) and the millisecond that the clock said; `order` is above the clock: see `order_of`.

    >>> archive_key("archives", "orders", datetime(2024, 1, 20, 2, tzinfo=UTC), 0, 1705716000007, "3f2a4b5c")
    'archives/2024/01/20/archive-1705716000000-orders-0-n1705716000007-3f2a4b5c.json'
    """
    clock = round(at.timestamp() * 1000)
    return f"{prefix}/{at:%Y/%m/%d}/archive-{clock}-{table}-{segment}-n{order}-{unique}.json"


def manifest_key(key: str, archive_prefix: str, manifest_prefix: str) -> str:
    """Where the manifest of an archive object is: the same name, under the other prefix."""
    return f"{manifest_prefix}/{key.removeprefix(archive_prefix + '/')}"


def day_prefix(prefix: str, day: str) -> str:
    """`archives/2024/01/20/` for `2024-01-20`. Raises ArchiverError."""
    try:
        moment = datetime.strptime(day, "%Y-%m-%d").replace(tzinfo=UTC)
    except ValueError:
        raise ArchiverError(f"{day!r} is no day: write it like 2024-01-20") from None
    if not re.fullmatch(r"\d{4}-\d{2}-\d{2}", day):
        raise ArchiverError(f"{day!r} is no day: write it like 2024-01-20")
    return f"{prefix}/{moment:%Y/%m/%d}/"
