"""The walk over the archive finds what is not as it was written."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Any

import pytest

from archiver.verify import Findings, verify
from tests.archiver.world import BUCKET, World, item


@pytest.fixture
def archived(world: World) -> World:
    """Ten items in the archive, in several objects."""
    world.put(*[item(number) for number in range(10)])
    world.run()
    return world


def checksum(body: bytes) -> Any:
    """Arguments of a put."""
    digest = base64.b64encode(hashlib.sha256(body).digest()).decode()
    return {"ChecksumAlgorithm": "SHA256", "ChecksumSHA256": digest}


def walk(world: World, day: str | None = None) -> Findings:
    return verify(world.aws, world.settings, day)


def test_an_archive_as_it_was_written(archived: World) -> None:
    found = walk(archived)
    many = len(archived.objects())
    assert (found.objects, found.items, found.read, found.problems) == (many, 10, many, [])
    assert found.bytes == sum(map(len, archived.objects().values()))
    assert found.unfinished == found.abandoned == found.foreign == []
    assert walk(archived, "2024-01-20").objects == many
    assert walk(archived, "2024-01-19").objects == 0


@pytest.mark.parametrize("damage", ["changed", "truncated", "gone"])
def test_damage(archived: World, damage: str) -> None:
    name, body = min(archived.objects().items())
    if damage == "gone":
        archived.s3.delete_object(Bucket=BUCKET, Key=name)
    else:
        body = body.replace(b"o0000", b"o1000") if damage == "changed" else body[:-1]
        archived.s3.put_object(Bucket=BUCKET, Key=name, Body=body)
    found = walk(archived)
    assert len(found.problems) == 1
    assert name in found.problems[0]
    assert ("is not there" if damage == "gone" else "is not what was written") in found.problems[0]
    assert found.read == found.objects - 1


def test_a_manifest_that_is_none(archived: World) -> None:
    name = min(archived.objects("manifests/"))
    archived.s3.put_object(Bucket=BUCKET, Key=name, Body=b"{}")
    found = walk(archived)
    assert f"{name} is no manifest" in found.problems[0]
    assert name.replace("manifests/", "archives/") in found.problems[1], "which has lost its manifest"
    assert len(found.problems) == 2


def test_a_manifest_that_says_another_number(archived: World) -> None:
    name, body = min(archived.objects("manifests/").items())
    archived.s3.put_object(
        Bucket=BUCKET, Key=name, Body=json.dumps({**json.loads(body), "itemCount": 99}).encode()
    )
    assert "its itemCount is 99, and it names " in walk(archived).problems[0]


def test_objects_in_an_archive_class_are_checked_by_what_s3_knows(archived: World) -> None:
    name, body = min(archived.objects().items())
    archived.s3.put_object(
        Bucket=BUCKET,
        Key=name,
        Body=body,
        StorageClass="GLACIER",
        **checksum(body),
    )
    found = walk(archived)
    assert (found.frozen, found.read, found.problems) == (1, found.objects - 1, [])
    archived.s3.put_object(
        Bucket=BUCKET,
        Key=name,
        Body=body[:-1],
        StorageClass="GLACIER",
        **checksum(body[:-1]),
    )
    assert name in walk(archived).problems[0]


def test_what_has_no_manifest(archived: World) -> None:
    foreign = "archives/2024/01/20/archive-1.json"
    archived.s3.put_object(Bucket=BUCKET, Key=foreign, Body=b'{"itemCount": 0, "items": []}')
    garbage = "archives/2024/01/20/archive-2.json"
    archived.s3.put_object(Bucket=BUCKET, Key=garbage, Body=b"x")
    found = walk(archived)
    assert found.foreign == [foreign]
    assert [garbage in one for one in found.problems] == [True]


def test_deletes_under_way_and_given_up(world: World) -> None:
    world.put(*[item(number) for number in range(4)])
    world.line.plan = lambda number, operation: (
        "kill after" if operation == "TransactWriteItems" and world.calls()[operation] == 2 else None
    )
    assert world.try_run() is None
    world.calm()
    assert walk(world).unfinished == list(world.objects())
    world.run()
    world.put(item(1))
    world.line.plan = lambda number, operation: "kill after" if operation == "PutObject" else None
    assert world.try_run() is None
    world.calm()
    found = walk(world)
    assert (len(found.unfinished), len(found.abandoned), found.problems) == (0, 1, [])
