"""One run of a job, and what is known of earlier ones."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

import psycopg

from jobs import db
from jobs.errors import JobsError
from jobs.schedule import Job

Status = Literal["running", "ok", "failed", "skipped"]
Scheduler = Literal["cron", "worker", "cli"]


@dataclass(frozen=True)
class Run:
    """A row of ops.job_runs."""

    run_id: int
    job: str
    status: Status
    rows: int | None
    started_at: datetime
    finished_at: datetime | None
    error: str | None
    scheduler: Scheduler

    @property
    def seconds(self) -> float | None:
        """How long it took."""
        return None if self.finished_at is None else (self.finished_at - self.started_at).total_seconds()


def run(connection: db.Connection, job: Job, scheduler: Scheduler, *, url: str, repeat: bool = True) -> Run:
    """Run a job once, `repeat` within the run as it is declared, and say how that went, failed or not.

    Raises ConnectionLostError if the connection was lost, JobsError if the run could not even be recorded.
    """
    with db.translated(url):
        connection.execute(
            "SELECT set_config('statement_timeout', %s, false)",
            [str(int(job.timeout.total_seconds() * 1000))],
        )
        try:
            run_id = (
                _call(connection, job, scheduler, repeat)
                if job.function
                else _act(connection, job, scheduler)
            )
        except psycopg.Error as error:
            if db.lost(error):
                raise
            # The procedure has recorded the error before it raised it.
            found = _last(connection, job.name)
            if found is not None and found.status == "running":
                # Unless it was cancelled once more on the way there: the postmaster sends the signal of one request
                # for cancelling twice, to the process and to its group.
                connection.execute("SELECT ops.job_end(%s, 0, %s)", [found.run_id, db.one_line(error)])
                found = _last(connection, job.name)
            if found is None or found.status != "failed":
                raise
            return found
        row = connection.execute(
            "SELECT run_id, job, status, rows, started_at, finished_at, error, scheduler"
            " FROM ops.job_runs WHERE run_id = %s",
            [run_id],
        ).fetchone()
        assert row is not None
        return Run(*row)


def _call(connection: db.Connection, job: Job, scheduler: Scheduler, repeat: bool) -> int:
    row = connection.execute(
        "CALL ops.run_job(%s, %s::regproc, %s, %s, %s, %s)",
        [
            job.name,
            job.function,
            job.repeat_for if repeat or job.until_done else job.repeat_for * 0,
            job.repeat_every,
            scheduler,
            job.exclusive,
        ],
    ).fetchone()
    assert row is not None
    run_id: int = row[0]
    return abs(run_id)


def _act(connection: db.Connection, job: Job, scheduler: Scheduler) -> int:
    assert job.action is not None
    row = connection.execute(
        "SELECT ops.job_begin(%s, %s, %s)", [job.name, scheduler, job.exclusive]
    ).fetchone()
    assert row is not None
    run_id: int = row[0]
    if run_id < 0:
        return -run_id
    rows, failure = 0, None
    try:
        rows = job.action(connection)
    except JobsError as error:
        failure = str(error)
    except psycopg.Error as error:
        if db.lost(error):
            raise
        failure = db.one_line(error)
    except Exception as error:
        # A mistake of ours: it goes on to whoever sees to such, and the record does not say that the job still runs.
        text = f"{type(error).__name__}: {error}"
        connection.execute("SELECT ops.job_end(%s, %s, %s)", [run_id, 0, text])
        raise
    connection.execute("SELECT ops.job_end(%s, %s, %s)", [run_id, rows, failure])
    return run_id


def _last(connection: db.Connection, name: str) -> Run | None:
    row = connection.execute(
        "SELECT run_id, job, status, rows, started_at, finished_at, error, scheduler"
        " FROM ops.job_runs WHERE job = %s AND pid = pg_backend_pid()"
        " ORDER BY run_id DESC LIMIT 1",
        [name],
    ).fetchone()
    return None if row is None else Run(*row)


def last_runs(connection: db.Connection, *, started: bool = False) -> dict[str, Run]:
    """The last run of each job; with `started` the last one that was not skipped."""
    rows = connection.execute(
        "SELECT DISTINCT ON (job) run_id, job, status, rows, started_at, finished_at, error, scheduler"
        " FROM ops.job_runs WHERE status <> 'skipped' OR NOT %s"
        " ORDER BY job, run_id DESC",
        [started],
    ).fetchall()
    return {row[1]: Run(*row) for row in rows}
