"""What the tests of the archive of partitions share."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from jobs import db
from jobs.archive import owner, run
from jobs.archive.arrow import Arrow
from jobs.archive.export import Export
from jobs.archive.settings import required
from jobs.archive.store import Store
from tests.conftest import Database
from tests.jobs.buckets import Bucket
from tests.jobs.waiting import until
from tests.sql.archives import late_rows, worker

Jobs = Callable[..., int]
VALUES, REJECTED = "eav.entity_values_ts", "eav.entity_values_rejected"


def status(database: Database) -> list[str]:
    return [s for (s,) in database.all("SELECT status FROM ops.partition_archives ORDER BY archive_id")]


def rows_of(database: Database, table: str) -> list[bytes]:
    """Each row as it goes over the wire: every bit of every value, the scale of a number too."""
    return sorted(bytes(one) for (one,) in database.all(f"SELECT record_send(ROW(t.*)) FROM {table} AS t"))


def archive(database: Database, **chosen: Any) -> int:
    with worker(database) as connection:
        return run.archive(connection, **chosen)


def adopt(database: Database) -> int:
    """Take the folder over, and archive what is due."""
    with db.connect(database.url, "eav_owner", "test of archives") as connection:
        owner.take_over(connection, Store(required()))
    return archive(database)


def expire(database: Database) -> int:
    with worker(database) as connection:
        return int(connection.execute("SELECT ops.expire_partitions()").fetchall()[0][0])


def away(database: Database) -> None:
    """Archive, detach and drop what is due."""
    archive(database)
    assert expire(database) == 1


def small(monkeypatch: pytest.MonkeyPatch, row_group: int = 100, part_bytes: int = 2**30) -> None:
    """Row groups and files of a few rows."""
    init = Export.__init__

    def made(self: Export, *args: Any, **options: Any) -> None:
        init(self, *args, **(options | {"row_group": row_group, "part_bytes": part_bytes}))

    monkeypatch.setattr(Export, "__init__", made)
    rows = Arrow.rows
    monkeypatch.setattr(Arrow, "rows", lambda self, cursor: rows(self, cursor, row_group))


def at_peace(database: Database, bucket: Bucket) -> None:
    """Nothing is left of any run: no table, grant, temporary file, or object that no record names."""
    assert database.all("SELECT relname FROM pg_class WHERE relname ~ 'restoring|archive_scratch'") == []
    assert database.all(
        "SELECT oid::regclass FROM pg_class WHERE relispartition AND relacl IS NOT NULL"
        " UNION ALL SELECT attrelid::regclass FROM pg_attribute AS a JOIN pg_class AS c ON a.attrelid = c.oid"
        " WHERE relispartition AND attacl IS NOT NULL"
    ) == []  # fmt: skip
    assert (
        database.all(
            "SELECT 1 FROM ops.partition_archives WHERE status = 'exporting' OR restoring_at IS NOT NULL"
        )
        == []
    )
    assert list(Path(tempfile.gettempdir()).glob("eav-archive-*")) == []
    recorded = database.all(
        "SELECT f ->> 'key' FROM ops.partition_archives, jsonb_array_elements(files) AS f WHERE status <> 'superseded'"
    )
    assert sorted(bucket.keys("partitions/table=")) == sorted(key for (key,) in recorded)
    assert bucket.keys("partitions/_unverified/") == []
    uploads = bucket.client.list_multipart_uploads(Bucket=bucket.environment["ARCHIVE_BUCKET"])
    assert uploads.get("Uploads", []) == []


def kept(database: Database) -> None:
    """What is of 2020 is archived, and does not leave."""
    with database.session() as connection:
        connection.execute(
            "UPDATE ops.partition_policies SET retention = '100 years', archive_after = '2 years'"
        )


def leaving(database: Database) -> None:
    """What is of 2020 is to leave."""
    with database.session() as connection:
        connection.execute("UPDATE ops.partition_policies SET retention = '1 year'")


def due(database: Database, name: str) -> bool:
    """Whether it is to be archived, which depends on statistics that come a moment later."""
    return bool(database.one("SELECT count(*) > 0 FROM ops.archivable(%s)", name))


class KilledError(BaseException):
    """As SIGKILL would: nothing is caught, nothing is put right."""


def killed(*arguments: Any, **options: Any) -> None:
    """What a process does that is killed."""
    raise KilledError


def archived_again(database: Database, day: int = 0, first: int = 31, last: int = 33) -> None:
    """Late rows come, and an archive with them is made."""
    late_rows(database, day, first, last)
    until(partial(due, database, f"{VALUES}_p2020_03_{1 + day:02}"))
    archive(database)
