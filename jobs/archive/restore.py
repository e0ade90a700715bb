"""`restore-partition`: an archive becomes an attached partition again, for a while."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from psycopg import errors

from jobs import db
from jobs.archive import arrow
from jobs.archive.export import Candidate, Says, downloaded
from jobs.archive.folder import temporary
from jobs.archive.settings import Settings
from jobs.archive.store import DamagedError, File, NotYetError, Store, StoreError
from jobs.compact import LOCK_WAIT, GaveWayError, retrying
from jobs.errors import JobsError

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Archive:
    """A row of ops.partition_archives, one that was verified."""

    archive_id: int
    parent_table: str
    partition: str
    starts_at: datetime
    ends_at: datetime
    rows: int
    table_bytes: int
    parquet_bytes: int
    status: str
    verified_at: datetime
    keep_until: datetime | None
    bucket: str
    files: list[dict[str, Any]]


def archives(
    connection: db.Connection, partition: str | None = None, archive_id: int | None = None
) -> list[Archive]:
    """Those that were verified, of one partition or all, by table and time."""
    rows = connection.execute(
        "SELECT archive_id, parent_table, partition, starts_at, ends_at, rows, table_bytes, parquet_bytes, status,"
        " verified_at, keep_until, bucket, files FROM ops.partition_archives"
        " WHERE verified_at IS NOT NULL AND archive_id = coalesce(%(id)s, archive_id)"
        " AND coalesce(%(partition)s, partition) IN (partition, split_part(partition, '.', 2))"
        " ORDER BY parent_table, starts_at, archive_id",
        {"partition": partition, "id": archive_id},
    ).fetchall()
    return [Archive(*row) for row in rows]


def choose(connection: db.Connection, partition: str, archive_id: int | None = None) -> Archive:
    """The archive of a partition. Raises JobsError if there is none, or a choice."""
    found = [
        one
        for one in archives(connection, partition, archive_id)
        if one.status != "superseded" or archive_id is not None
    ]
    if not found:
        raise JobsError(
            f"there is no verified archive of {partition!r}: see python -m jobs restore-partition --list"
        )
    if len(found) > 1:
        ids = ", ".join(str(one.archive_id) for one in found)
        raise JobsError(f"{partition} has several archives ({ids}): choose with --archive ID")
    return found[0]


def restore(connection: db.Connection, settings: Settings, archive: Archive, keep: timedelta) -> int:
    """Bring an archive back, for `keep`; returns its rows.

    Raises NotYetError while it is fetched from Glacier, DamagedError if it is not what was written, JobsError if the
    partition is there, psycopg.Error.
    """
    files = [File(**one) for one in archive.files]
    store = Store(Settings(archive.bucket, settings.prefix, settings.kms_key_id))
    how = _open(connection, archive)
    try:
        if how == "load":
            store.thaw(files)
            connection.execute("SELECT ops.restore_make(%s)", [archive.archive_id])
            _load(connection, store, archive, files)
        step = partial(
            _one, connection, "SELECT ops.restore_attach(%s, %s, %s)", archive.archive_id, keep, LOCK_WAIT
        )
        rows: int = retrying(step)
    except GaveWayError as reason:
        raise JobsError(f"{archive.partition} could not be attached: {reason}; run this again") from None
    except errors.DataCorrupted as error:
        _abandon(connection, archive)
        raise DamagedError(db.one_line(error)) from None
    except (StoreError, DamagedError, NotYetError):
        _abandon(connection, archive)
        raise
    finally:
        if not connection.closed:
            connection.execute("SELECT pg_advisory_unlock(6644088, %s)", [archive.archive_id])
    log.info("%s: attached, %s rows, kept for %d days", archive.partition, f"{rows:,}", keep.days)
    return rows


def _open(connection: db.Connection, archive: Archive) -> str:
    try:
        how: str | None = _one(connection, "SELECT ops.restore_open(%s)", archive.archive_id)
    except errors.ObjectNotInPrerequisiteState as error:
        raise JobsError(db.one_line(error)) from None
    if how is None:
        raise JobsError(f"{archive.partition} is being restored by another run")
    return how


def _abandon(connection: db.Connection, archive: Archive) -> None:
    connection.execute("SELECT ops.restore_abandon(%s)", [archive.archive_id])


def _load(connection: db.Connection, store: Store, archive: Archive, files: list[File]) -> None:
    says = Says(
        Candidate(
            archive.parent_table, archive.partition, archive.starts_at, archive.ends_at, archive.table_bytes,
            archive.rows, archive.archive_id, "",
        ),
        "restored",
    )  # fmt: skip
    with temporary() as folder, arrow.beside(connection) as beside:
        scratch = beside.one(f"SELECT ops.archive_scratch({archive.archive_id})")
        for group in downloaded(store, files, folder):
            beside.load(scratch, group)
            beside.one(f"SELECT ops.restore_piece({archive.archive_id})")
            says.at(group.num_rows)
    rows = _one(connection, "SELECT ops.restore_verify(%s)", archive.archive_id)
    log.info("%s: %s rows compared, they are those that were archived", archive.partition, f"{rows:,}")


def _one(connection: db.Connection, query: str, *params: object) -> Any:
    row = connection.execute(query.encode(), params).fetchone()
    assert row is not None
    return row[0]
