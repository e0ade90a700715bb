"""What lies where in the bucket: verified files in the folders of their tables, and nothing else there."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final, LiteralString

import psycopg
import pyarrow as pa
from psycopg import errors, sql
from psycopg.types.json import Jsonb

from jobs import db
from jobs.archive import parquet
from jobs.archive.store import DamagedError, File, GoneError, Store, StoreError
from jobs.errors import JobsError

log = logging.getLogger(__name__)

FOOTER: Final = 4 * 2**20
"""Bytes at the end of a file that hold its footer: some kilobytes, and about one for each of its row groups."""
_NAME: Final = re.compile(
    r"-(?P<attempt>[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})-(?P<number>\d+)\.parquet$"
)
ADOPT: Final = (
    "give this one a PARTITION_PREFIX of its own; or, if it is the one to go on there,"
    " take the folder over: python -m jobs archive-partitions --adopt"
)


@dataclass(frozen=True)
class Record:
    """An archive and its files, as ops.partition_archives has them."""

    archive_id: int
    parent_table: str
    partition: str
    starts_at: datetime
    attempt: str
    status: str
    bucket: str
    files: list[dict[str, Any]]

    def key(self, store: Store, number: int) -> str:
        """Where its file is published; the attempt tells it from those of every other archive."""
        month = self.starts_at.astimezone(UTC)
        name = self.partition.rsplit(".", 1)[-1].strip('"')
        return (
            f"{store.settings.folder(self.parent_table)}"
            f"year={month:%Y}/month={month:%m}/{name}-{self.attempt}-{number}.parquet"
        )

    def ours(self, store: Store) -> bool:
        """Whether its files are in this folder: another one may be another database's, and nothing is changed there."""
        return self.bucket == store.settings.bucket and all(
            one["key"].startswith(f"{store.settings.prefix}/") for one in self.files
        )

    def moved(self, store: Store, aside: bool = False) -> Jsonb:
        """Move its files there, or aside; returns them as they are now. Raises DamagedError, StoreError."""
        keys = (self.key(store, number) for number in range(1, len(self.files) + 1))
        return Jsonb([
            vars(store.move(File(**one), aside_of(key) if aside else key))
            for one, key in zip(self.files, keys, strict=True)
        ])  # fmt: skip


def records(connection: db.Connection, condition: LiteralString, *params: object) -> list[Record]:
    """Archives with files that fulfil a condition in SQL, oldest first."""
    query = sql.SQL(
        "SELECT archive_id, parent_table, partition, starts_at, attempt::text, status, bucket, files"
        " FROM ops.partition_archives AS a WHERE files IS NOT NULL AND {} ORDER BY archive_id"
    )
    rows = connection.execute(query.format(sql.SQL(condition)), params).fetchall()
    return [Record(*row) for row in rows]


def aside_of(key: str) -> str:
    """Where a published file goes that is superseded.

    >>> aside_of("a/table=s.t/year=2020/month=03/p-1.parquet")
    'a/_superseded/table=s.t/year=2020/month=03/p-1.parquet'
    """
    prefix, _, rest = key.partition("table=")
    return f"{prefix}_superseded/table={rest}"


def claim(connection: db.Connection, store: Store, *, adopt: bool = False) -> None:
    """Make sure that no other database archives to this folder, a copy of this one above all; or take it over.

    Raises JobsError if another one does, StoreError.
    """
    settings = store.settings
    # Runs at once would change the mark under each other.
    connection.execute("SELECT pg_advisory_lock(6644089, 0)")
    try:
        row = connection.execute(
            "SELECT ops.archive_claim(%s, %s, %s, %s)::text",
            [settings.bucket, settings.prefix, store.mark(), adopt],
        ).fetchone()
        assert row is not None
        store.leave_mark(row[0])
        if adopt:
            take_over(connection, store)
    except errors.ObjectNotInPrerequisiteState as error:
        raise JobsError(f"{db.one_line(error)}: {ADOPT}") from None
    finally:
        if not connection.closed:
            connection.execute("SELECT pg_advisory_unlock(6644089, 0)")


def take_over(connection: db.Connection, store: Store) -> None:
    """Make records and folders agree: after the database went back in time, or was lost, files say what they are.

    What a record names and is aside is brought back. Of what no record names, an archive whose partition is not in the
    database gets its record; one whose partition is there goes aside: it is archived again. Raises StoreError.
    """
    live = records(connection, "status NOT IN ('superseded', 'failed') AND published_at IS NOT NULL")
    named: set[str] = set()
    for one in live:
        for file in (File(**each) for each in one.files if one.ours(store)):
            named.add(file.key)
            aside = aside_of(file.key)
            if not store.exists(file.key) and store.exists(aside):
                store.move(replace(file, key=aside, version_id=None), file.key)
                log.info("%s: %s is back where it was", one.partition, file.key)
    unknown: dict[str, list[tuple[int, str]]] = {}
    for key in store.keys(f"{store.settings.prefix}/table="):
        found = _NAME.search(key)
        if key not in named and found:
            unknown.setdefault(found["attempt"], []).append((int(found["number"]), key))
        elif key not in named:
            log.warning("%s: no file of an archive, it stays", key)
    for attempt, numbered in unknown.items():
        keys = [key for _, key in sorted(numbered)]
        try:
            rows = _known_again(connection, store, attempt, keys)
        except (StoreError, JobsError, pa.ArrowException, errors.DataError) as error:
            text = db.one_line(error) if isinstance(error, psycopg.Error) else str(error).splitlines()[0]
            # In Glacier, say: it is read when it is back.
            log.warning("%s: it stays, unknown: %s", keys[0], text)
            continue
        if rows is None:
            for key in keys:
                store.put_aside(key, aside_of(key))
        what = "its partition is here, it is aside now" if rows is None else f"{rows:,} rows, known again"
        log.info("%s: %s", keys[0], what)


def _known_again(connection: db.Connection, store: Store, attempt: str, keys: list[str]) -> int | None:
    """The rows of files that have their record again, None if their partition is in the database."""
    files, about = [], None
    for key in keys:
        metadata = parquet.footer(store.tail(key, FOOTER))
        about = parquet.about(metadata)
        if about is None:
            raise JobsError("another program has written it")
        files.append(store.described(key, metadata.num_rows))
    row = connection.execute(
        "SELECT ops.archive_adopt(%s, %s, %s, %s)",
        [Jsonb(about), attempt, store.settings.bucket, Jsonb([vars(file) for file in files])],
    ).fetchone()
    assert row is not None
    return None if row[0] is None else sum(file.rows for file in files)


def publish(connection: db.Connection, store: Store, archive_id: int | None = None) -> None:
    """Copy verified files to the folders of their tables: those of one archive, or all where that was cut short.

    Raises DamagedError if the files of `archive_id` are gone, StoreError.
    """
    unpublished = "verified_at IS NOT NULL AND published_at IS NULL AND archive_id = coalesce(%s, archive_id)"
    for one in records(connection, unpublished, archive_id):
        try:
            if not one.ours(store):
                raise DamagedError("it was begun in another bucket, or under another prefix")
            files = one.moved(store)
        except DamagedError as error:
            connection.execute("SELECT ops.archive_damaged(%s, %s)", [one.archive_id, str(error)])
            if archive_id is not None:
                raise
            log.warning("%s: %s: it is archived again", one.partition, error)
            continue
        connection.execute("SELECT ops.archive_published(%s, %s)", [one.archive_id, files])


def clear(connection: db.Connection, store: Store) -> None:
    """Delete what archives that failed had uploaded, and once more a day later: a run may outlive its session."""
    rows = connection.execute(
        "SELECT archive_id, attempt::text FROM ops.partition_archives WHERE status = 'failed'"
        " AND (cleared_at IS NULL OR cleared_at < begun_at + interval '1 day' AND begun_at < now() - interval '1 day')"
    ).fetchall()
    for archive_id, attempt in rows:
        store.clear(store.settings.staging(attempt))
        connection.execute("SELECT ops.archive_cleared(%s)", [archive_id])


def set_aside(connection: db.Connection, store: Store) -> None:
    """Move the files of archives that a newer one has superseded to where no table is read."""
    superseded = records(
        connection,
        "status = 'superseded' AND set_aside_at IS NULL AND NOT EXISTS (SELECT FROM ops.partition_archives AS n"
        " WHERE n.partition = a.partition AND n.archive_id > a.archive_id"
        " AND n.verified_at IS NOT NULL AND n.published_at IS NULL)",
    )
    for one in (each for each in superseded if each.ours(store)):
        try:
            files = one.moved(store, aside=True)
        except GoneError as error:
            log.warning("the superseded archive %d has lost its files: %s", one.archive_id, error)
            files = Jsonb(one.files)
        except (StoreError, DamagedError) as error:
            # In Glacier, say, or another run is at it. It is in nobody's way but a reader's.
            log.warning(
                "the files of the superseded archive %d stay where they are: %s", one.archive_id, error
            )
            continue
        connection.execute("SELECT ops.archive_set_aside(%s, %s)", [one.archive_id, files])


def look_after(connection: db.Connection, store: Store) -> None:
    """Look for the files of partitions that are detached, and so about to be dropped. Raises StoreError."""
    for one in records(connection, "status = 'detached' AND published_at IS NOT NULL AND differs_at IS NULL"):
        lost(connection, store, one)


def lost(connection: db.Connection, store: Store, one: Record) -> str | None:
    """What is gone of an archive, if anything: then it is noted, and its partition archived again."""
    there = (
        store if one.bucket == store.settings.bucket else Store(replace(store.settings, bucket=one.bucket))
    )
    gone = there.missing([File(**each) for each in one.files])
    if not gone:
        return None
    text = f"{one.partition}: s3://{one.bucket}/{gone[0]} is gone or cut short"
    connection.execute("SELECT ops.archive_damaged(%s, %s)", [one.archive_id, text])
    log.warning("%s: it stays, and is archived again", text)
    return text
