"""The one schedule: what runs, how often and how. pg_cron and the worker both run what is declared here."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from typing import Final

from jobs import compact
from jobs.db import Connection

MINUTE: Final = timedelta(minutes=1)
HOUR: Final = timedelta(hours=1)
DAY: Final = timedelta(days=1)


@dataclass(frozen=True)
class Job:
    """A job: either `function`, a SQL function that takes no argument and returns rows moved, or `action`.

    It runs `every` so often; one that runs daily does so `at` a time of day (UTC). A function is called
    again every `repeat_every` within a run, until `repeat_for` is over or it returns NULL: one that does is
    `until_done`, and somebody who runs it by hand wants all of it. `timeout` ends a run of the worker.
    A job that is `exclusive` never runs twice at the same time: a second run is recorded as skipped.
    `plan` says what a run would do, a line each, and does nothing.
    """

    name: str
    every: timedelta
    summary: str
    function: str | None = None
    action: Callable[[Connection], int] | None = None
    at: time | None = None
    repeat_for: timedelta = timedelta(0)
    repeat_every: timedelta = timedelta(milliseconds=100)
    timeout: timedelta = timedelta(minutes=10)
    exclusive: bool = True
    plan: Callable[[Connection], list[str]] | None = None
    until_done: bool = False

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z][a-z0-9-]{0,40}", self.name):
            raise ValueError(f"{self.name!r} is no name of a job: lower-case letters, digits and hyphens")
        if (self.function is None) == (self.action is None):
            raise ValueError(f"{self.name}: a job has either a function or an action")
        if self.function is not None and not re.fullmatch(r"[a-z_]+\.[a-z_0-9]+", self.function):
            raise ValueError(f"{self.name}: {self.function!r} is not schema.function")
        if (self.every == DAY) != (self.at is not None):
            raise ValueError(f"{self.name}: a daily job has a time of day, and no other has")
        # What cron can say: a whole part of a minute, an hour or a day.
        if not any(unit % self.every == timedelta(0) for unit in (MINUTE, HOUR, DAY)):
            raise ValueError(
                f"{self.name}: every {self.every} is no whole part of a minute, an hour or a day"
            )
        if self.every < timedelta(seconds=1) or self.every.microseconds:
            raise ValueError(f"{self.name}: every {self.every} is not in whole seconds; see repeat_every")
        if self.repeat_for > self.every:
            raise ValueError(f"{self.name}: a run may not repeat for longer than until the next one")

    def when(self) -> str:
        """How often, for people: `every 10 min`, `daily at 03:10 UTC`."""
        if self.at is not None:
            return f"daily at {self.at:%H:%M} UTC"
        seconds = int(self.every.total_seconds())
        for unit, size in (("h", 3600), ("min", 60), ("s", 1)):
            if seconds % size == 0:
                return f"every {seconds // size} {unit}"
        raise AssertionError


LANES: Final = 5
"""Lanes of staging: a flush has at least one to itself, so that more flushers would find nothing to do."""
FLUSHERS: Final = 2


def schedule(flushers: int = FLUSHERS) -> tuple[Job, ...]:
    """All jobs, with 1 to `LANES` flushers, which share a backlog lane by lane. Raises ValueError."""
    if not 1 <= flushers <= LANES:
        raise ValueError(f"1 to {LANES} flushers can share the lanes of staging, got {flushers}")
    return tuple(_flusher(number) for number in range(1, flushers + 1)) + _OTHERS


def _flusher(number: int) -> Job:
    return Job(
        "flush" if number == 1 else f"flush-{number}",
        timedelta(seconds=1),
        "staged values become durable, ten times a second"
        if number == 1
        else "another flusher, which shares a backlog with the first",
        function="eav.stage_flush",
        repeat_for=timedelta(seconds=1),
    )


def _archive(connection: Connection) -> int:
    from jobs.archive import run  # it takes half a second, and most commands do without

    return run.archive(connection)


def _archive_plan(connection: Connection) -> list[str]:
    from jobs.archive import run

    return run.plan(connection)


_OTHERS: Final = (
    Job(
        "maintain-partitions",
        HOUR,
        "partitions are made ahead, table by table",
        function="ops.maintain_partitions",
    ),
    Job(
        "expire-partitions",
        DAY,
        "partitions past their retention leave, once archived",
        function="ops.expire_partitions",
        at=time(3, 10),
        # It reads what it drops once more.
        timeout=DAY,
    ),
    Job(
        "archive-partitions",
        DAY,
        "closed partitions are archived, those past their retention detached",
        action=_archive,
        plan=_archive_plan,
        at=time(1, 10),
        timeout=DAY,
    ),
    Job(
        "reconcile",
        HOUR,
        "hot values are compared with the history and mended",
        function="eav.reconcile_hot_portion",
        repeat_for=30 * MINUTE,
        repeat_every=timedelta(milliseconds=10),
        timeout=HOUR,
        until_done=True,
    ),
    Job(
        "backfill",
        MINUTE,
        "attributes that turned hot, cold or volatile get their values moved",
        function="eav.backfill_hot",
        repeat_for=timedelta(seconds=55),
        repeat_every=timedelta(milliseconds=10),
        timeout=5 * MINUTE,
        until_done=True,
    ),
    Job(
        "summarize",
        5 * MINUTE,
        "BRIN indexes learn of the newest values",
        function="ops.summarize_partitions",
    ),
    Job(
        "compact",
        HOUR,
        "closed partitions are rewritten in order",
        action=compact.compact,
        plan=compact.plan,
        timeout=DAY,
    ),
    Job("prune-ingest", 10 * MINUTE, "superseded checkpoints are deleted", function="ops.prune_ingest"),
    # Hourly, not daily: a flush every second is 86 400 runs a day.
    Job("prune-runs", HOUR, "old records of runs are deleted", function="ops.prune_job_runs"),
)

SCHEDULE: Final = schedule()


def find(name: str) -> Job | None:
    """The job of that name, one of as many flushers as there can be."""
    return next((job for job in schedule(LANES) if job.name == name), None)


def next_run(job: Job, last_started: datetime | None, now: datetime) -> datetime:
    """When the job is due: `now` or earlier means at once. A run that was missed is due, once.

    >>> noon = datetime(2026, 11, 21, 12, tzinfo=UTC)
    >>> next_run(SCHEDULE[2], noon, noon).isoformat()
    '2026-11-21T13:00:00+00:00'
    >>> next_run(SCHEDULE[3], noon, noon).isoformat()
    '2026-11-22T03:10:00+00:00'
    """
    if last_started is None:
        return now
    if job.at is None:
        # A clock that was set back must not stop the job.
        return min(last_started, now) + job.every
    today = datetime.combine(now.astimezone(UTC).date(), job.at, UTC)
    latest = today if today <= now else today - DAY
    return latest if last_started < latest else latest + DAY
