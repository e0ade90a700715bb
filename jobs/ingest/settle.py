"""After staging: wait until the flush has taken the lines, and count what it rejected."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from jobs import db
from jobs.ingest.run import Result

STALLED: Final = 30.0
"""Seconds without any progress after which nobody waits any longer."""


@dataclass(frozen=True)
class Outcome:
    """What the database says of a source's new lines: `rejected` counts by reason, at ingest or later."""

    durable: int
    flushing: bool
    rejected: Counter[str] = field(default_factory=Counter)

    def settled(self, result: Result) -> bool:
        """Whether every line is durable or rejected."""
        return self.durable >= result.last


def now(connection: db.Connection) -> datetime:
    """The server's clock."""
    row = connection.execute("SELECT clock_timestamp()").fetchone()
    assert row is not None
    found: datetime = row[0]
    return found


def outcome(connection: db.Connection, result: Result, since: datetime) -> Outcome:
    """How far the flush is with the lines that came now, since `since` by the server's clock."""
    rows = connection.execute(
        "SELECT durable, flushing, reason, rejected FROM eav.ingest_outcome(%s, %s, %s, %s)",
        [result.source_id, result.skipped, result.last, since],
    ).fetchall()
    durable, flushing, _, _ = rows[0]
    rejected = Counter({reason: count for _, _, reason, count in rows if reason is not None})
    return Outcome(durable or 0, flushing, rejected)


def settle(
    url: str,
    result: Result,
    since: datetime,
    *,
    flush: bool,
    wait: bool | None,
    progress: Callable[[str], None],
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Outcome:
    """The outcome of a source's lines: at once, or when they are settled.

    `flush` flushes here and now until they are; `wait` waits for somebody else's flush, None if there is
    one. It gives up when nothing moves for `STALLED` seconds. Raises JobsError.
    """
    with ExitStack() as stack, db.translated(url):
        connection = stack.enter_context(db.connect(url, "eav_ingest", "eav ingest"))
        flusher = stack.enter_context(db.connect(url, "eav_jobs", "eav ingest --flush")) if flush else None
        found = outcome(connection, result, since)
        if not flush and not (found.flushing if wait is None else wait):
            return found
        moved_at, durable = clock(), found.durable
        while not found.settled(result) and clock() - moved_at < STALLED:
            progress(f"{result.source}: {found.durable:,} of {result.last:,} lines durable")
            if flusher is None:
                sleep(0.1)
            elif flusher.execute("SELECT eav.stage_flush()").fetchone() == (0,):
                # Another flush has our rows in hand, or an open transaction keeps them back.
                sleep(0.05)
            else:
                moved_at = clock()  # perhaps only rows of others, which are before ours
            found = outcome(connection, result, since)
            if found.durable > durable:
                moved_at, durable = clock(), found.durable
        return found
