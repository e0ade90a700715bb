"""Whose a folder of the archive is: one database's, which notices its copies, and takes a folder over if asked."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Final
from uuid import UUID

import psycopg
import pyarrow as pa
from psycopg import errors
from psycopg.types.json import Jsonb

from jobs import db
from jobs.archive import parquet, publish
from jobs.archive.publish import aside_of, live
from jobs.archive.store import DamagedError, File, Store
from jobs.errors import JobsError

log = logging.getLogger(__name__)

ADOPT: Final = (
    "give this one a PARTITION_PREFIX of its own; or, if it is the one to go on there,"
    " take the folder over: python -m jobs archive-partitions --adopt"
)
PATIENCE: Final = 60.0
"""Seconds that a run waits for another one that is just leaving its mark."""
FOOTER: Final = 4 * 2**20
"""Bytes at the end of a file that hold its footer: some kilobytes, and about one for each of its row groups."""
FOREIGN: Final = UUID(int=0)
"""For a mark that is none of ours, whatever it is."""
_RUNS, _MARK = 0, 1
_NAME: Final = re.compile(
    r"-(?P<attempt>[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})-(?P<number>\d+)\.parquet$"
)


@contextmanager
def ours(connection: db.Connection, store: Store) -> Iterator[None]:
    """Whatever changes something in the folder: several runs of this database, or one take-over.

    Raises JobsError if the folder is another database's, a copy of this one above all, or taken over now.
    """
    with _locked(connection, _RUNS, shared=True, why="the folder is being taken over, by --adopt"):
        with _locked(connection, _MARK, shared=False, why="another run is leaving its mark"):
            claim(connection, store)
        yield


def claim(connection: db.Connection, store: Store) -> None:
    """Change the mark of the folder, if it is ours. Raises JobsError if not, StoreError."""
    settings = store.settings
    known = connection.execute(
        "SELECT FROM ops.archive_stores WHERE bucket = %s AND prefix = %s", [settings.bucket, settings.prefix]
    ).fetchall()
    found = _mark(store)
    if found is None and not known and store.any(settings.tables):
        found = FOREIGN
    try:
        mark = _uuid(connection, "archive_claim(%s, %s, %s)", settings.bucket, settings.prefix, found)
        store.leave_mark(str(mark), first=found is None and not known)
    except errors.ObjectNotInPrerequisiteState as error:
        raise JobsError(f"{db.one_line(error)}: {ADOPT}") from None


def _mark(store: Store) -> UUID | None:
    text = store.mark()
    if text is None:
        return None
    try:
        return UUID(text)
    except ValueError:
        return FOREIGN


def _uuid(connection: db.Connection, call: str, *params: object) -> UUID:
    row = connection.execute(f"SELECT ops.{call}".encode(), params).fetchone()
    assert row is not None
    found: UUID = row[0]
    return found


@contextmanager
def _locked(connection: db.Connection, what: int, *, shared: bool, why: str) -> Iterator[None]:
    suffix = "_shared" if shared else ""
    until = time.monotonic() + (0 if shared or what == _RUNS else PATIENCE)
    while connection.execute(
        f"SELECT pg_try_advisory_lock{suffix}(6644089, %s)".encode(), [what]
    ).fetchall() != [(True,)]:
        if time.monotonic() > until:
            raise JobsError(f"{why}: run this again later")
        time.sleep(0.1)
    try:
        yield
    finally:
        if not connection.closed:
            connection.execute(f"SELECT pg_advisory_unlock{suffix}(6644089, %s)".encode(), [what])


def take_over(connection: db.Connection, store: Store) -> None:
    """Make records and folder agree: after the database went back in time, was moved or lost, files say what they are.

    What a record names and is aside is brought back. An archive that no record names gets one: it is to be restored if
    its partition is not here, else it goes aside, and the partition is archived again. `connection` is the owner's,
    since types and rows of files are taken on their word. Raises JobsError if a run is under way, StoreError.
    """
    settings = store.settings
    with _locked(connection, _RUNS, shared=False, why="runs of this database archive to the folder now"):
        connection.execute("SELECT ops.archive_take_over(%s, %s)", [settings.bucket, settings.prefix])
        connection.execute("SELECT ops.archive_settle()")
        bring_back(connection, store)
        know_again(connection, store)
        publish.set_aside(connection, store)
        mark = _uuid(
            connection, "archive_taken_over(%s, %s, %s)", settings.bucket, settings.prefix, _mark(store)
        )
        store.leave_mark(str(mark))


def bring_back(connection: db.Connection, store: Store) -> None:
    """Bring back what records name, and somebody who knew more has set aside. Raises StoreError."""
    for one in live(connection, store):
        for file in (File(**each) for each in one.files):
            aside = replace(file, key=aside_of(file.key), version_id=None)
            if store.exists(file.key) or not store.exists(aside.key):
                continue
            if store.missing([aside]):
                log.warning("%s: %s is not what was archived, it stays", one.partition, aside.key)
                continue
            try:
                store.move(aside, file.key)
            except DamagedError as error:
                log.warning("%s: %s", one.partition, error)
            else:
                log.info("%s: %s is back where it was", one.partition, file.key)


def know_again(connection: db.Connection, store: Store) -> None:
    """Make records of the archives that no record names. Raises StoreError, psycopg.Error if the connection is lost."""
    named = {each["key"] for one in live(connection, store) for each in one.files}
    unknown: dict[str, list[tuple[int, str]]] = {}
    for key in store.keys(store.settings.tables):
        found = _NAME.search(key)
        if key not in named and found:
            unknown.setdefault(found["attempt"], []).append((int(found["number"]), key))
        elif key not in named:
            log.warning("%s: no file of an archive, it stays", key)
    for attempt, numbered in unknown.items():
        keys = [key for _, key in sorted(numbered)]
        try:
            status = _known_again(connection, store, attempt, keys)
        except (JobsError, pa.ArrowException, ValueError, psycopg.Error) as error:
            if isinstance(error, psycopg.Error) and db.lost(error):
                raise
            text = db.one_line(error) if isinstance(error, psycopg.Error) else str(error).splitlines()[0]
            # In Glacier, say: it is read when it is back.
            log.warning("%s: it stays, unknown: %s", keys[0], text)
            continue
        log.info("%s: known again: %s", keys[0], status)


def _known_again(connection: db.Connection, store: Store, attempt: str, keys: list[str]) -> str:
    """The status of an archive that has its record again."""
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
    status: str = row[0]
    return status
