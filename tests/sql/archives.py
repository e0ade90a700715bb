"""Archives of old partitions, as far as SQL goes: their files are made up."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

from psycopg.types.json import Jsonb

from jobs import db
from tests.conftest import Database

LONG_AGO = datetime(2020, 3, 1, tzinfo=UTC)
"""Past any retention."""


@contextmanager
def worker(database: Database) -> Iterator[db.Connection]:
    """A connection as the jobs have it."""
    connection = db.connect(database.near, "eav_jobs", "test of archives")
    try:
        yield connection
    finally:
        connection.close()


def old_partition(
    database: Database, day: int = 0, rows: int = 30, parent: str = "eav.entity_values_ts", days: int = 1
) -> str:
    """A partition of 2020 with numbered rows of three tenants; its name."""
    start = LONG_AGO + timedelta(days=day)
    name = f"{parent}_p{start:%Y_%m_%d}"
    with database.session() as connection:
        connection.execute(
            f"CREATE TABLE {name} PARTITION OF {parent}"
            f" FOR VALUES FROM ('{start}') TO ('{start + timedelta(days=days)}');"
            f" ALTER TABLE {name} OWNER TO eav_owner".encode()
        )
    if rows:
        late_rows(database, day, 1, rows, parent)
    return name


def late_rows(
    database: Database, day: int = 0, first: int = 1, last: int = 1, parent: str = "eav.entity_values_ts"
) -> None:
    """Numbered rows for a day of 2020, into whatever table or partition is named."""
    start = LONG_AGO + timedelta(days=day)
    with database.session() as connection:
        if "rejected" in parent:
            connection.execute(
                f"INSERT INTO {parent} (rejected_id, rejected_at, tenant_id, reason, value_number, raw)"
                " OVERRIDING SYSTEM VALUE SELECT n, %s::timestamptz + n * interval '1 second', 1 + n %% 3,"
                " 'malformed', n, sha256(n::text::bytea) FROM generate_series(%s::bigint, %s) AS n".encode(),
                [start, first, last],
            )
        else:
            connection.execute(
                f"INSERT INTO {parent} (tenant_id, entity_id, attribute_id, observed_at, value_number)"
                " SELECT 1 + n * 7 %% 3, 1 + n * 13 %% 50, 1 + n * 11 %% 20,"
                " %s::timestamptz + n %% 997 * interval '1 second', n::numeric(12, 1)"
                " FROM generate_series(%s::bigint, %s) AS n".encode(),
                [start, first, last],
            )


def begun(database: Database, name: str) -> int:
    """An archive that was begun by a session that is gone; its id."""
    with worker(database) as connection:
        ((number,),) = connection.execute("SELECT ops.archive_open(%s)", [name]).fetchall()
    return int(number)


def verified(database: Database, name: str) -> int:
    """An archive that is said to have been read back, and published; its id."""
    with worker(database) as connection:
        number, files = read_back(connection, name)
        connection.execute("SELECT ops.archive_verified(%s, 'none', %s)", [number, files])
        connection.execute("SELECT ops.archive_published(%s, %s)", [number, files])
        connection.execute("SELECT ops.archive_looked(%s)", [number])
    return number


def read_back(connection: db.Connection, name: str, less: int = 0) -> tuple[int, Jsonb]:
    """An archive of which all rows, or so many less, were put where they are read back to; its id and its files."""
    ((number,),) = connection.execute("SELECT ops.archive_open(%s)", [name]).fetchall()
    with connection.transaction():
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        connection.execute("SELECT ops.archive_measure(%s)", [number])
        connection.execute("SELECT ops.archive_cursor(%s)", [number])
        rows = connection.execute("FETCH ALL FROM archive").fetchall()
    connection.execute("SELECT ops.archive_scratch(%s)", [number])
    for row in rows[less:]:
        connection.execute(
            f"INSERT INTO archive_scratch VALUES ({', '.join(['%s'] * len(row))})".encode(), row
        )
    connection.execute("SELECT ops.archive_piece(%s)", [number])
    return int(number), Jsonb([{"key": "made up", "bytes": 0, "rows": len(rows), "sha256": ""}])


def detached(database: Database, name: str) -> int:
    """An archive whose partition was detached; its id."""
    number = verified(database, name)
    with worker(database) as connection:
        assert connection.execute("SELECT ops.archive_leave(%s)", [number]).fetchall() == [(True,)]
        connection.execute("SELECT ops.archive_detach(%s, '3 seconds')", [number])
    return number


def dropped(database: Database, name: str) -> int:
    """An archive whose partition is gone; its id."""
    number = detached(database, name)
    with worker(database) as connection:
        connection.execute("SELECT ops.expire_partitions()")
    assert (
        database.one("SELECT status FROM ops.partition_archives WHERE archive_id = %s", number) == "dropped"
    )
    return number
