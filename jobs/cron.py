"""The schedule in pg_cron, where the server has it: named jobs `eav-<name>` of the role eav_jobs."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from psycopg import errors, sql

from jobs import db
from jobs.errors import JobsError
from jobs.schedule import HOUR, MINUTE, SCHEDULE, Job

PREFIX: Final = "eav-"
SECONDS_SINCE: Final = (1, 5)
"""The first version of pg_cron that knows `10 seconds`."""
PROOF: Final = timedelta(minutes=3)
"""Who has run nothing for so long does not run the schedule."""


@dataclass(frozen=True)
class Entry:
    """A row of cron.job."""

    name: str
    schedule: str
    command: str


# pg_cron never forgets a run by itself.
HISTORY: Final = Entry(
    f"{PREFIX}prune-cron-history",
    "17 * * * *",
    "DELETE FROM cron.job_run_details WHERE end_time < now() - interval '1 day'",
)


def entry(job: Job, version: tuple[int, ...]) -> Entry:
    """What pg_cron of `version` is to do for a job with a function; its times are UTC.

    Up to 1.4 a minute is its finest: a job that runs more often repeats within a run of nearly a minute.
    pg_cron sends a command as one query, so that nothing can be SET before a procedure that commits: a
    job's timeout holds in the worker only.
    """
    assert job.function is not None
    repeat_for, repeat_every = job.repeat_for, job.repeat_every
    seconds = int(job.every.total_seconds())
    if job.at is not None:
        schedule = f"{job.at.minute} {job.at.hour} * * *"
    elif job.every < MINUTE and version >= SECONDS_SINCE:
        schedule = f"{seconds} seconds"
    elif job.every <= MINUTE:
        schedule = "* * * * *"
        if job.every < MINUTE:
            repeat_every = repeat_every if repeat_for else job.every
            repeat_for = MINUTE - timedelta(seconds=1)
    elif job.every < HOUR:
        schedule = f"*/{seconds // 60} * * * *"
    else:
        schedule = "0 * * * *" if job.every == HOUR else f"0 */{seconds // 3600} * * *"
    command = (
        f"CALL ops.run_job('{job.name}', '{job.function}', '{_interval(repeat_for)}',"
        f" '{_interval(repeat_every)}', 'cron', {str(job.exclusive).lower()})"
    )
    return Entry(PREFIX + job.name, schedule, command)


def entries(version: tuple[int, ...], schedule: tuple[Job, ...] = SCHEDULE) -> list[Entry]:
    """All that pg_cron is to do: jobs without a function are left to the worker."""
    return [*(entry(job, version) for job in schedule if job.function is not None), HISTORY]


def _interval(value: timedelta) -> str:
    return f"{round(value.total_seconds() * 1000)} ms"


def parse_version(text: str) -> tuple[int, ...]:
    """`1.4-1` is (1, 4).

    >>> parse_version("1.4-1"), parse_version("1.6")
    ((1, 4), (1, 6))
    """
    return tuple(int(part) for part in text.partition("-")[0].split("."))


def running(connection: db.Connection) -> frozenset[str]:
    """Names of the jobs that pg_cron runs in this database; none if it has not run any for `PROOF`.

    That jobs are in cron.job does not mean that a server without the library loaded would run them, and who
    is no superuser cannot ask what is loaded: what counts is what it did.
    """
    if not _visible(connection):
        return frozenset()
    row = connection.execute(
        # The flush runs at least once a minute: the newest few hundred rows hold more than that.
        "SELECT bool_or(r.scheduler = 'cron' AND r.started_at > clock_timestamp() - %s)"
        " FROM (SELECT scheduler, started_at FROM ops.job_runs ORDER BY run_id DESC LIMIT 1000) AS r",
        [PROOF],
    ).fetchone()
    if row is None or not row[0]:
        return frozenset()
    rows = connection.execute(
        "SELECT jobname FROM cron.job"
        " WHERE active AND database = current_database() AND starts_with(jobname, %s)",
        [PREFIX],
    ).fetchall()
    return frozenset(name.removeprefix(PREFIX) for (name,) in rows)


def _visible(connection: db.Connection) -> bool:
    row = connection.execute(
        "SELECT to_regclass('cron.job') IS NOT NULL"
        " AND has_schema_privilege(to_regnamespace('cron'), 'USAGE')"
    ).fetchone()
    return row is not None and bool(row[0])


def apply(url: str, schedule: tuple[Job, ...] = SCHEDULE) -> list[Entry]:
    """Put the schedule into pg_cron, and take out of it what is no longer declared. Safe to repeat.

    Makes the extension and grants its use to eav_jobs where that is still to be done. Raises JobsError.
    """
    with db.translated(url):
        version = _install(url)
        with db.connect(url, "eav_jobs", "eav jobs cron") as connection, connection.transaction():
            wanted = entries(version, schedule)
            for one in wanted:
                connection.execute(
                    "SELECT cron.schedule(%s::text, %s::text, %s::text)",
                    [one.name, one.schedule, one.command],
                )
            _unschedule(connection, keep=[one.name for one in wanted])
            return wanted


def show(url: str) -> list[Entry]:
    """What pg_cron is set to do for us now; nothing without pg_cron."""
    with db.translated(url), db.connect(url, "eav_jobs", "eav jobs cron") as connection:
        if not _visible(connection):
            return []
        rows = connection.execute(
            "SELECT jobname, schedule, command FROM cron.job WHERE starts_with(jobname, %s) ORDER BY jobname",
            [PREFIX],
        ).fetchall()
        return [Entry(*row) for row in rows]


def remove(url: str) -> list[str]:
    """Take the schedule out of pg_cron; the names that were in it. The worker takes over by itself."""
    with db.translated(url), db.connect(url, "eav_jobs", "eav jobs cron") as connection:
        return _unschedule(connection, keep=[]) if _visible(connection) else []


def _unschedule(connection: db.Connection, keep: list[str]) -> list[str]:
    rows = connection.execute(
        "SELECT jobname, cron.unschedule(jobid) FROM cron.job"
        " WHERE starts_with(jobname, %s) AND jobname <> ALL(%s) AND username = current_user",
        [PREFIX, keep],
    ).fetchall()
    return [name for name, _ in rows]


def _install(url: str) -> tuple[int, ...]:
    """The version of pg_cron in this database, made there if need be."""
    with db.connect(url, None, "eav jobs cron") as connection:
        row = connection.execute(
            "SELECT (SELECT setting FROM pg_settings WHERE name = 'cron.database_name'), current_database(),"
            " current_user, pg_has_role('pg_read_all_settings', 'MEMBER'),"
            " (SELECT extversion FROM pg_extension WHERE extname = 'pg_cron'),"
            " has_schema_privilege('eav_jobs', to_regnamespace('cron'), 'USAGE')"
        ).fetchone()
        assert row is not None
        home, database, user, reads_settings, version, granted = row
        if home is None and reads_settings:
            raise JobsError(
                "this server does not run pg_cron (shared_preload_libraries): use python -m jobs worker"
            )
        if home not in (None, database):
            raise JobsError(f"pg_cron of this server works in the database {home}, not in {database}")
        if version is None or not granted:
            try:
                connection.execute("CREATE EXTENSION IF NOT EXISTS pg_cron")
                connection.execute("GRANT USAGE ON SCHEMA cron TO eav_jobs")
            except errors.InsufficientPrivilege:
                raise JobsError(
                    f"{user} may not set up pg_cron: have a superuser run, in {database},"
                    " CREATE EXTENSION pg_cron; GRANT USAGE ON SCHEMA cron TO eav_jobs;"
                ) from None
            row = connection.execute(
                sql.SQL("SELECT extversion FROM pg_extension WHERE extname = 'pg_cron'")
            ).fetchone()
            assert row is not None
            version = row[0]
        return parse_version(version)
