"""`python -m jobs run backfill`: attributes that turned hot, cold or volatile, worked until none is left."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Final

from jobs import db, runs
from jobs.schedule import Job

NAME: Final = "backfill"
ROUND: Final = timedelta(seconds=2)
"""How long between two lines of progress."""


@dataclass(frozen=True)
class Work:
    """An attribute in eav.hot_backfill that is not finished."""

    attribute_id: int
    step: str
    share_done: float
    expected_at: datetime | None

    def line(self, now: datetime) -> str:
        """One line for people.

        >>> now = datetime(2026, 11, 22, tzinfo=UTC)
        >>> Work(7, "history", 0.25, now + timedelta(minutes=5)).line(now)
        'attribute 7: history, 25 % done, about 300 s left'
        """
        left = (
            ""
            if self.expected_at is None
            else f", about {max((self.expected_at - now).total_seconds(), 0):.0f} s left"
        )
        return f"attribute {self.attribute_id}: {self.step}, {100 * self.share_done:.0f} % done{left}"


def queue(connection: db.Connection) -> list[Work]:
    """What is left to do, the oldest request first."""
    rows = connection.execute(
        "SELECT attribute_id, CASE WHEN started_at IS NULL THEN 'waiting for flushes under way'"
        " WHEN tidied_at IS NULL THEN 'entities' ELSE 'history' END, share_done, expected_at"
        " FROM eav.hot_backfill WHERE finished_at IS NULL ORDER BY requested_at, attribute_id"
    ).fetchall()
    return [Work(*row) for row in rows]


def run(
    connection: db.Connection, job: Job, *, url: str, say: Callable[[str], None] | None = None
) -> runs.Run:
    """Run after run until the queue is empty, with progress on standard error; the last run, with the rows of all.

    Raises what `runs.run` raises.
    """
    say = say or (lambda line: print(line, file=sys.stderr, flush=True))
    total = 0
    while True:
        found = runs.run(connection, replace(job, repeat_for=ROUND), "cli", url=url)
        total += found.rows or 0
        with db.translated(url):
            left = queue(connection)
        if found.status != "ok" or not left:
            return replace(found, rows=total)
        for work in left:
            say(f"{NAME}: {work.line(datetime.now(UTC))}")
