"""What lies where in the bucket: verified files in the folders of their tables, and nothing else there."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, LiteralString

from psycopg import sql
from psycopg.types.json import Jsonb

from jobs import db
from jobs.archive.store import DamagedError, File, Store, StoreError

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Record:
    """An archive and its files, as ops.partition_archives has them."""

    archive_id: int
    parent_table: str
    partition: str
    starts_at: datetime
    attempt: str
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
            one["key"].startswith(store.settings.folders) for one in self.files
        )

    def moved(self, store: Store) -> Jsonb:
        """Move its files there; returns them as they are now. Raises DamagedError, StoreError."""
        return Jsonb([
            vars(store.move(File(**one), self.key(store, number)))
            for number, one in enumerate(self.files, 1)
        ])  # fmt: skip

    def put_aside(self, store: Store) -> list[File]:
        """Move them aside, wherever and however each is: who reads the folder is to see none. Raises StoreError."""
        files = []
        for number, file in enumerate((File(**one) for one in self.files), 1):
            key = self.key(store, number)
            aside = aside_of(key)
            there = [one for one in dict.fromkeys((file.key, key)) if one != aside and store.exists(one)]
            for one in there:
                store.put_aside(one, aside)
            if there or store.exists(aside):
                files.append(replace(file, key=aside, version_id=None))
            else:
                log.warning(
                    "%s: the superseded archive %d has lost %s", self.partition, self.archive_id, file.key
                )
                files.append(file)
        return files


def records(connection: db.Connection, condition: LiteralString, *params: object) -> list[Record]:
    """Archives with files that fulfil a condition in SQL, oldest first."""
    query = sql.SQL(
        "SELECT archive_id, parent_table, partition, starts_at, attempt::text, bucket, files"
        " FROM ops.partition_archives AS a WHERE files IS NOT NULL AND {} ORDER BY archive_id"
    )
    rows = connection.execute(query.format(sql.SQL(condition)), params).fetchall()
    return [Record(*row) for row in rows]


def live(connection: db.Connection, store: Store) -> list[Record]:
    """Archives whose files are to be in this folder, where the tables are read."""
    found = records(connection, "status NOT IN ('superseded', 'failed') AND published_at IS NOT NULL")
    return [one for one in found if one.ours(store)]


def aside_of(key: str) -> str:
    """Where a published file goes that is superseded.

    >>> aside_of("a/table=s.t/year=2020/month=03/p-1.parquet")
    'a/_superseded/table=s.t/year=2020/month=03/p-1.parquet'
    """
    prefix, _, rest = key.partition("table=")
    return f"{prefix}_superseded/table={rest}"


def publish(connection: db.Connection, store: Store, archive_id: int | None = None) -> list[str]:
    """Copy verified files to the folders of their tables: those of one archive, or all where that was cut short.

    Returns what is lost: archives whose files are gone, and their partitions too. Raises DamagedError if the files of
    `archive_id` are gone, StoreError.
    """
    unpublished = (
        "status IN ('verified', 'detached', 'restored', 'dropped') AND published_at IS NULL"
        " AND archive_id = coalesce(%s, archive_id)"
    )
    lost = []
    for one in records(connection, unpublished, archive_id):
        try:
            if not one.ours(store):
                raise DamagedError("it was begun in another bucket, or under another prefix")
            files = one.moved(store)
        except DamagedError as error:
            row = connection.execute(
                "SELECT ops.archive_damaged(%s, %s)", [one.archive_id, str(error)]
            ).fetchone()
            assert row is not None
            if archive_id is not None:
                raise
            if row[0]:
                log.warning("%s: %s: it is archived again", one.partition, error)
            else:
                lost.append(f"{one.partition}: {error}, and so is the partition: its rows are lost")
            continue
        connection.execute("SELECT ops.archive_published(%s, %s)", [one.archive_id, files])
    return lost


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
        " AND n.status IN ('verified', 'detached', 'restored', 'dropped') AND n.published_at IS NULL)",
    )
    for one in (each for each in superseded if each.ours(store)):
        try:
            files = Jsonb([vars(file) for file in one.put_aside(store)])
        except StoreError as error:
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
    """What is gone of an archive, if anything: it is noted then, and archived again. Raises StoreError."""
    there = (
        store if one.bucket == store.settings.bucket else Store(replace(store.settings, bucket=one.bucket))
    )
    gone = there.missing([File(**each) for each in one.files])
    if not gone:
        connection.execute("SELECT ops.archive_looked(%s)", [one.archive_id])
        return None
    text = f"{one.partition}: s3://{one.bucket}/{gone[0]} is gone or damaged"
    connection.execute("SELECT ops.archive_damaged(%s, %s)", [one.archive_id, text])
    log.warning("%s: it stays, and is archived again", text)
    return text
