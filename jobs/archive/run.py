"""The job `archive-partitions`: what is due is archived, verified, and past its retention detached."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from os import environ
from typing import Final

import psycopg
import pyarrow as pa
from psycopg import errors

from jobs import db
from jobs.archive import detach, folder, owner, publish
from jobs.archive.export import Candidate, Export
from jobs.archive.settings import NO_BUCKET, settings
from jobs.archive.store import Store, StoreError
from jobs.errors import ConnectionLostError, JobsError

log = logging.getLogger(__name__)

NAME = "archive-partitions"
STAY: Final = "they stay: PARTITIONS_LEAVE is not true"


def candidates(
    connection: db.Connection, table: str | None = None, partition: str | None = None
) -> list[Candidate]:
    """What is due, of one table or all, oldest first; a partition that is named is due as soon as it is closed."""
    rows = connection.execute(
        "SELECT parent_table, partition, starts_at, ends_at, bytes, estimated_rows, archive_id, why"
        " FROM ops.archivable(%(partition)s)"
        " WHERE parent_table = coalesce(%(table)s, parent_table) AND partition = coalesce(%(partition)s, partition)",
        {"table": table, "partition": partition},
    ).fetchall()
    return [Candidate(*row) for row in rows]


def plan(connection: db.Connection, table: str | None = None, partition: str | None = None) -> list[str]:
    """What a run would do, a line a partition."""
    found = settings()
    what = "it is detached" if found and found.leave else STAY
    return [one.text() for one in candidates(connection, table, partition)] + [
        f"{name}: past its retention, and archived: {what}" for name in leaving(connection, table, partition)
    ]


def leaving(connection: db.Connection, table: str | None = None, partition: str | None = None) -> list[str]:
    """Partitions past their retention whose archive is verified."""
    rows = connection.execute(
        "SELECT partition FROM ops.archive_leaving(%(partition)s)"
        " WHERE parent_table = coalesce(%(table)s, parent_table)",
        {"table": table, "partition": partition},
    ).fetchall()
    return [name for (name,) in rows]


def archive(
    connection: db.Connection,
    table: str | None = None,
    partition: str | None = None,
    environment: Mapping[str, str] = environ,
) -> int:
    """Archive what is due, and detach what may leave; returns the rows that were archived.

    Without a bucket it says so and does nothing. Raises JobsError, after all others were done, if a partition could not
    be archived; at once if the bucket cannot be used.
    """
    found = settings(environment)
    if found is None:
        log.info(NO_BUCKET)
        return 0
    store = Store(found)
    with owner.ours(connection, store):
        return _archive(connection, store, table, partition)


def _archive(connection: db.Connection, store: Store, table: str | None, partition: str | None) -> int:
    failures = clear_away(connection, store)
    due = candidates(connection, table, partition)
    rows = 0
    for number, candidate in enumerate(due, 1):
        log.info("%d of %d: %s", number, len(due), candidate.text())
        try:
            rows += one(connection, store, candidate)
            publish.set_aside(connection, store)
        except (StoreError, ConnectionLostError):
            raise
        except OSError as error:
            # A full disk here stops the others, too.
            raise JobsError(
                f"{candidate.partition}: {error.filename or 'a file'}: {error.strerror or error}"
            ) from None
        except pa.ArrowException as error:
            failures.append(f"{candidate.partition}: {str(error).splitlines()[0]}")
        except JobsError as error:
            text = str(error)
            failures.append(text if candidate.partition in text else f"{candidate.partition}: {text}")
        except psycopg.Error as error:
            # A full disk or a missing right stops the other partitions too.
            if db.lost(error) or isinstance(
                error, errors.OperatorIntervention | errors.InsufficientResources
            ):
                raise
            failures.append(f"{candidate.partition}: {db.one_line(error)}")
    failures += leave(connection, store, table, partition)
    if failures:
        raise JobsError("; ".join(failures))
    return rows


def leave(
    connection: db.Connection, store: Store, table: str | None = None, partition: str | None = None
) -> list[str]:
    """Detach what may leave, if the settings say so; returns what kept a partition from it."""
    if store.settings.leave:
        try:
            detach.leave(connection, store, table, partition)
        except StoreError:
            raise
        except JobsError as error:
            return [str(error)]
    elif stay := leaving(connection, table, partition):
        log.info("%s: past their retention and archived, %s", ", ".join(stay), STAY)
    return []


def one(connection: db.Connection, store: Store, candidate: Candidate) -> int:
    """Archive a partition, unless it has only seemed to have changed; returns the rows that were archived."""
    if candidate.why == "rows may have come since":
        log.info("%s: compared with its archive", candidate.partition)
        row = connection.execute("SELECT ops.archive_compare(%s)", [candidate.archive_id]).fetchone()
        if row is not None and row[0]:
            log.info("%s: compared, it is as it was archived", candidate.partition)
            return 0
    return Export(connection, store, candidate).run()


def clear_away(connection: db.Connection, store: Store) -> list[str]:
    """Finish, or take back, what is left of runs that were killed, and of restores; returns what is lost for good."""
    folder.clear()
    connection.execute("SELECT ops.archive_settle()")
    lost = publish.publish(connection, store)
    publish.clear(connection, store)
    publish.set_aside(connection, store)
    publish.look_after(connection, store)
    for (archive_id,) in connection.execute(
        "SELECT archive_id FROM ops.partition_archives WHERE restoring_at IS NOT NULL"
    ).fetchall():
        connection.execute("SELECT ops.restore_abandon(%s)", [archive_id])
    return lost
