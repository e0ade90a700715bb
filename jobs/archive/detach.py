"""Partitions whose archive is verified leave their table, when their retention is over."""

from __future__ import annotations

import logging
from datetime import timedelta
from functools import partial
from typing import Any, Final

from psycopg import errors, sql

from jobs import db
from jobs.archive import publish
from jobs.archive.store import Store
from jobs.compact import LOCK_WAIT, PATIENCE, GaveWayError, retrying, unlock
from jobs.errors import JobsError

log = logging.getLogger(__name__)

CONCURRENT_WAIT: Final = timedelta(minutes=1)
"""How long a DETACH … CONCURRENTLY waits for transactions that have the partition; nobody queues behind it."""


def leave(
    connection: db.Connection,
    store: Store,
    table: str | None = None,
    partition: str | None = None,
    patience: timedelta = PATIENCE,
) -> int:
    """Detach what is to leave, of one table or all, oldest first; returns how many partitions.

    Raises JobsError, after all others were done, for those whose files are no longer there.
    """
    rows = connection.execute(
        "SELECT l.archive_id, l.parent_table, l.partition,"
        " EXISTS (SELECT FROM pg_inherits WHERE inhrelid = to_regclass(l.partition) AND inhdetachpending)"
        " FROM ops.archive_leaving(%(partition)s) AS l"
        " WHERE l.parent_table = coalesce(%(table)s, l.parent_table) ORDER BY l.ends_at",
        {"table": table, "partition": partition},
    ).fetchall()
    detached, lost = 0, []
    for archive_id, parent, name, pending in rows:
        # They were read back when they were written, which may be a year ago. What is half detached goes on.
        (record,) = publish.records(connection, "archive_id = %s", archive_id)
        if not pending and (text := publish.lost(connection, store, record)):
            lost.append(f"{text}: it stays attached, and is archived again")
            continue
        try:
            detached += _leave(connection, archive_id, parent, name, patience)
        finally:
            if not connection.closed:
                unlock(connection)
    if lost:
        raise JobsError("; ".join(lost))
    return detached


def _leave(connection: db.Connection, archive_id: int, parent: str, name: str, patience: timedelta) -> bool:
    """Detach one, locked against compactions from the announcement to the end; whether that was done."""
    if not _one(connection, "SELECT ops.archive_leave(%s)", archive_id):
        log.info("%s: it is being compacted, or stays longer: left to the next run", name)
        return False
    concurrently(connection, parent, name)
    try:
        # Detaches it, unless that is done; finishes what was cut short; and notes it.
        step = partial(_one, connection, "SELECT ops.archive_detach(%s, %s)", archive_id, LOCK_WAIT)
        retrying(step, patience)
    except GaveWayError as reason:
        log.info("%s: left to the next run: %s", name, reason)
        return False
    log.info("%s: detached; expire-partitions compares it once more and drops it", name)
    return True


def concurrently(connection: db.Connection, parent: str, name: str) -> bool:
    """Detach without blocking others, if whoever logged in may act as the owner; True if that was done.

    It runs in no transaction and so in no function of the owner's. What it cannot finish the next step does.
    """
    if not _one(
        connection,
        "SELECT pg_has_role(session_user, 'eav_owner', 'MEMBER') AND EXISTS"
        " (SELECT FROM pg_inherits WHERE inhrelid = to_regclass(%s) AND NOT inhdetachpending)",
        name,
    ):
        return False
    with db.another(connection) as owner:
        owner.execute("SET ROLE eav_owner")
        owner.execute("SELECT set_config('lock_timeout', %s, false)", [f"{CONCURRENT_WAIT.seconds}s"])
        try:
            owner.execute(
                sql.SQL("ALTER TABLE {} DETACH PARTITION {} CONCURRENTLY").format(_name(parent), _name(name))
            )
        except (errors.LockNotAvailable, errors.ObjectNotInPrerequisiteState, errors.QueryCanceled) as error:
            log.info("%s: %s", name, db.one_line(error))
            return False
    return True


def _name(qualified: str) -> sql.SQL:
    # As regclass prints it: quoted where it must be.
    return sql.SQL(qualified)


def _one(connection: db.Connection, query: str, *params: object) -> Any:
    row = connection.execute(query.encode(), params).fetchone()
    assert row is not None
    return row[0]
