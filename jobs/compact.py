"""The job `compact`: closed partitions are rewritten in order and swapped in, one after the other, oldest first.

What each step does, and why no row is lost or doubled, is in the functions `ops.compaction_*`. A run that is ended at
any moment leaves a partition that is whole, and a record in ops.compactions that the next run goes on with, or clears
away.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final

import psycopg
from psycopg import errors

from jobs import db
from jobs.errors import JobsError

log = logging.getLogger(__name__)

WORK_MEM: Final = "256MB"
"""Memory of the sort; the rest of it goes to temporary files."""
LOCK_WAIT: Final = timedelta(milliseconds=200)
"""How long others may have to queue behind one try for a lock. Less than deadlock_timeout."""
PATIENCE: Final = timedelta(minutes=10)
"""How long one step tries for its locks, until the partition is left to the next run."""
PAUSE_FIRST: Final = 0.25
PAUSE_MOST: Final = 10.0
SAY_EVERY: Final = 5.0
"""Seconds."""


@dataclass(frozen=True)
class Candidate:
    """A partition that is due: a row of ops.compactable()."""

    parent_table: str
    partition: str
    starts_at: datetime
    ends_at: datetime
    bytes: int
    estimated_rows: int
    why: str

    def text(self) -> str:
        """For people, with the disk that it takes: the copy, and the temporary files of the sort."""
        return (
            f"{self.partition}: {self.why}; about {self.estimated_rows:,} rows, {size(self.bytes)};"
            f" needs up to {size(2 * self.bytes)} of free disk for a while"
        )


class GaveWayError(Exception):
    """The locks were not to be had for as long as we try: what is done stays, the next run goes on."""


def candidates(connection: db.Connection) -> list[Candidate]:
    """What is due, in the order it is done in."""
    rows = connection.execute(
        "SELECT parent_table, partition::text, starts_at, ends_at, bytes, estimated_rows, why FROM ops.compactable()"
    ).fetchall()
    return [Candidate(*row) for row in rows]


def plan(connection: db.Connection) -> list[str]:
    """What a run would do, a line a partition."""
    return [one.text() for one in candidates(connection)]


def compact(connection: db.Connection) -> int:
    """Compact every partition that is due; returns the rows of those that were.

    Raises JobsError, after all others were done, if a partition could not be.
    """
    clear_away(connection)
    due = candidates(connection)
    moved, failures = 0, []
    for number, candidate in enumerate(due, 1):
        log.info("%d of %d: %s", number, len(due), candidate.text())
        try:
            moved += Compaction(connection, candidate).run()
        except GaveWayError as reason:
            log.info("%s: left to the next run: %s", candidate.partition, reason)
        except errors.DataCorrupted as error:
            failures.append(db.one_line(error))
        except psycopg.Error as error:
            # A full disk or a missing right stops the other partitions too.
            if db.lost(error) or isinstance(
                error, errors.OperatorIntervention | errors.InsufficientResources
            ):
                raise
            failures.append(f"{candidate.partition}: {db.one_line(error)}")
    if failures:
        raise JobsError("; ".join(failures))
    return moved


def clear_away(connection: db.Connection) -> None:
    """Take back what is left of compactions whose partition is gone meanwhile."""
    rows = connection.execute(
        "SELECT compaction_id, partition FROM ops.compactions"
        " WHERE status IN ('copying', 'copied') AND to_regclass(partition) IS NULL"
    ).fetchall()
    for compaction_id, partition in rows:
        log.info("%s is gone: its copy is dropped", partition)
        with _giving_way():
            retrying(partial(_abandon, connection, compaction_id, "the partition is gone"))


@contextmanager
def _giving_way() -> Iterator[None]:
    try:
        yield
    except GaveWayError as reason:
        log.info("left to the next run: %s", reason)


def retrying(step: Callable[[], Any], patience: timedelta = PATIENCE) -> Any:
    """The result of `step`, which gives up a lock that it cannot have soon, tried again and again.

    Raises GaveWayError after `patience`.
    """
    until = time.monotonic() + patience.total_seconds()
    pause = PAUSE_FIRST
    said = False
    while True:
        try:
            return step()
        except errors.LockNotAvailable as error:
            reason = db.one_line(error)
        if time.monotonic() + pause > until:
            raise GaveWayError(reason)
        if not said:
            log.info("waiting: %s", reason)
            said = True
        # Not in step with others that try again.
        time.sleep(pause * random.uniform(0.5, 1.0))
        pause = min(pause * 2, PAUSE_MOST)


def _abandon(connection: db.Connection, compaction_id: int, why: str) -> None:
    connection.execute("SELECT ops.compaction_abandon(%s, %s, %s)", [compaction_id, why, LOCK_WAIT])


class Compaction:
    """One partition, step by step, on `connection` and, for a moment, on a second one beside it."""

    def __init__(
        self, connection: db.Connection, candidate: Candidate, patience: timedelta = PATIENCE
    ) -> None:
        self._connection = connection
        self._candidate = candidate
        self._patience = patience
        self.compaction_id: int | None = None

    def run(self) -> int:
        """All steps; returns the rows, 0 if another session is at it. Raises GaveWayError, psycopg.Error."""
        if not self.open():
            log.info("%s: another run is at it, or has done it", self._candidate.partition)
            return 0
        try:
            self.copy()
            self.verify()
            return self.swap()
        except errors.DataCorrupted as error:
            reason = db.one_line(error)
            with _giving_way():
                retrying(lambda: _abandon(self._connection, self._number, reason), self._patience)
            raise
        finally:
            if not self._connection.closed:
                self.close()

    @property
    def _number(self) -> int:
        assert self.compaction_id is not None
        return self.compaction_id

    def open(self) -> bool:
        """Lock the partition against other runs, and find what one that was interrupted left."""
        try:
            self.compaction_id = self._one(
                "SELECT ops.compaction_open(%s::regclass)", self._candidate.partition
            )
        except (errors.ObjectNotInPrerequisiteState, errors.UndefinedTable):
            # Another run has done it since we looked, or it has left.
            return False
        return self.compaction_id is not None

    def close(self) -> None:
        """Let go of the lock."""
        unlock(self._connection)

    def copy(self) -> None:
        """Copy what is there, unless an earlier run has, and from then on whatever comes late as well."""
        status, twin = self._row(
            "SELECT status, to_regclass(ops.compaction_twin(partition)) IS NOT NULL FROM ops.compactions"
            " WHERE compaction_id = %s",
            self._number,
        )
        if status == "copied":
            log.info("%s: the copy is there", self._candidate.partition)
            return
        if twin:
            # An earlier run ended in the middle of its copy.
            retrying(lambda: _abandon(self._connection, self._number, "interrupted"), self._patience)
            self.close()
            if not self.open():
                raise GaveWayError("another run is at it")
        with self.beside() as side:
            try:
                watch = retrying(lambda: self.watch(side), self._patience)
                with self._progress(side):
                    self.fill(watch)
            finally:
                if not self._connection.closed:
                    self._connection.rollback()

    @contextmanager
    def beside(self) -> Iterator[db.Connection]:
        """A second connection like the first one."""
        with db.another(self._connection) as side:
            yield side

    def watch(self, side: db.Connection) -> str:
        """Make the copy and the trigger on `side`, and take the snapshot between the two while nobody writes.

        Returns the id of that transaction; this connection's transaction is open with the snapshot.
        """
        with side.transaction():
            side.execute("SELECT set_config('lock_timeout', %s, true)", [f"{_milliseconds(LOCK_WAIT)}ms"])
            row = side.execute("SELECT ops.compaction_watch(%s)::text", [self._number]).fetchone()
            assert row is not None
            # A later transaction that has ended: only then does a snapshot list the one of `side` as under way, which
            # is how ops.compaction_copy knows the moment it was taken at.
            self._connection.execute("SELECT pg_current_xact_id()")
            self._connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
            self._connection.execute("SELECT pg_current_snapshot()")
        watch: str = row[0]
        return watch

    def fill(self, watch: str) -> None:
        """Copy what the snapshot shows, and let the snapshot go."""
        self._connection.execute("SELECT set_config('work_mem', %s, true)", [WORK_MEM])
        # Should this process die, the server is not to copy on for long.
        self._connection.execute("SELECT set_config('client_connection_check_interval', '2s', true)")
        self._connection.execute("SELECT ops.compaction_copy(%s, %s::xid8)", [self._number, watch])
        self._connection.execute("COMMIT")

    def verify(self) -> int:
        """Compare partition and copy. Raises errors.DataCorrupted."""
        rows: int = self._one("SELECT ops.compaction_verify(%s)", self._number)
        log.info("%s: %s rows compared, the copy has the same", self._candidate.partition, f"{rows:,}")
        return rows

    def swap(self) -> int:
        """Put the copy in the partition's place. Raises GaveWayError."""
        rows: int = retrying(
            lambda: self._one("SELECT ops.compaction_swap(%s, %s)", self._number, LOCK_WAIT), self._patience
        )
        before, after = self._row(
            "SELECT bytes_before + index_bytes_before, bytes_after + index_bytes_after FROM ops.compactions"
            " WHERE compaction_id = %s",
            self._number,
        )
        log.info("%s: done, %s became %s", self._candidate.partition, size(before), size(after))
        return rows

    def _one(self, query: str, *params: object) -> Any:
        return self._row(query, *params)[0]

    def _row(self, query: str, *params: object) -> tuple[Any, ...]:
        row = self._connection.execute(query.encode(), params).fetchone()
        assert row is not None
        return row

    @contextmanager
    def _progress(self, side: db.Connection) -> Iterator[None]:
        """Say every few seconds how far the copy is, asked for on `side`."""
        ended = threading.Event()
        thread = threading.Thread(target=self._watch_progress, args=(side, ended), daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def _watch_progress(self, side: db.Connection, ended: threading.Event) -> None:
        began = time.monotonic()
        wrote: float | None = None
        while not ended.wait(SAY_EVERY):
            try:
                row = side.execute(
                    "SELECT coalesce(pg_relation_size(to_regclass(ops.compaction_twin(partition))), 0)"
                    " FROM ops.compactions WHERE compaction_id = %s",
                    [self._number],
                ).fetchone()
            except psycopg.Error:
                return
            written, now = row[0] if row else 0, time.monotonic()
            if written and wrote is None:
                # It began at some moment since the last look.
                wrote = now - SAY_EVERY / 2
            log.info("%s", progress(self._candidate, written, now - began, now - (wrote or now)))


def progress(candidate: Candidate, written: int, seconds: float, writing: float) -> str:
    """How far a copy is of which `written` bytes are there after `seconds`, the last `writing` of them with any.

    Sorting comes before writing, and nothing is known of its end.
    """
    if not written or not writing:
        return f"{candidate.partition}: sorting, {seconds:.0f} s"
    share = min(1.0, written / max(candidate.bytes, 1))
    rows = share * candidate.estimated_rows
    return (
        f"{candidate.partition}: {share:.0%}, about {rows:,.0f} rows copied, {rows / writing:,.0f} rows/s,"
        f" {writing * (1 - share) / share:.0f} s left, then the comparison"
    )


def unlock(connection: db.Connection) -> None:
    """Let go of the partitions that this session has locked, for a compaction or an archive."""
    connection.execute(
        "SELECT pg_advisory_unlock(classid::integer, objid::integer) FROM pg_locks"
        " WHERE locktype = 'advisory' AND pid = pg_backend_pid() AND classid = 6644087 AND objsubid = 2"
    )


def _milliseconds(wait: timedelta) -> int:
    return round(wait.total_seconds() * 1000)


def size(count: float) -> str:
    """Bytes for people.

    >>> size(512), size(3_400_000_000)
    ('512 B', '3.4 GB')
    """
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"
