"""The scheduler where pg_cron is not: one worker leads and runs the schedule, others stand by."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

import psycopg

from jobs import alive, cron, db, runs
from jobs.errors import ConnectionLostError, JobsError
from jobs.events import Events
from jobs.schedule import SCHEDULE, Job, next_run

POLL: Final = 1.0
"""Seconds between two looks at who leads."""
GRACE: Final = 5.0
"""Seconds that a step may take to end after a stop was asked for; then it is cancelled."""
HEARTBEAT: Final = 60.0
PAUSE_MOST: Final = 10.0

Runner = Callable[[db.Connection, Job], runs.Run]


class Worker:
    """Runs the schedule until `stop` is set, whatever happens to the server meanwhile.

    Who holds the session advisory lock `ops.worker` leads; the lock ends with its connection, so that a
    leader that dies is followed within seconds. Each job has a thread and a connection of its own: a slow
    one holds up no other. Jobs that pg_cron runs in this database are left to it. `beat` is called at every turn of
    the loop, leading, standing by, or without a server.
    """

    def __init__(
        self,
        url: str,
        events: Events,
        stop: threading.Event,
        schedule: tuple[Job, ...] = SCHEDULE,
        beat: alive.Beat = alive.silent,
    ) -> None:
        self._url = url
        self.events = events
        self._stop = stop
        self._beat = beat
        self._schedule = schedule
        self._rows: dict[str, int] = {}

    def run(self) -> None:
        """Lead or stand by until `stop` is set. Raises JobsError if the server refuses us, or is not there at first."""
        with db.connect(self._url, "eav_jobs", "eav worker"):
            pause = 0.1
        while not self._stop.is_set():
            self._beat()
            try:
                with db.connect(self._url, "eav_jobs", "eav worker") as connection:
                    if self._await_turn(connection):
                        pause = 0.1
                        self._lead(connection)
            except ConnectionLostError as error:
                self.events.say("disconnected", f"{error}; trying again", error=str(error))
                self._stop.wait(pause)
                pause = min(pause * 2, PAUSE_MOST)
        self.events.say("stopped", "stopped")

    def once(self) -> bool:
        """Run each job that is due, once and in order; whether none of them failed. Raises JobsError."""
        well = True
        with db.connect(self._url, "eav_jobs", "eav worker") as connection:
            elsewhere, last = self._look(connection)
            for job in self._schedule:
                now = datetime.now(UTC)
                if job.name in elsewhere:
                    self.events.say("left", f"{job.name}: pg_cron runs it", job=job.name)
                elif next_run(job, last.get(job.name), now) > now:
                    self.events.say("not due", f"{job.name}: not due", job=job.name)
                elif not self._stop.is_set():
                    found = runs.run(connection, job, "worker", url=self._url)
                    self.report(job, found, always=True)
                    well = well and found.status != "failed"
        return well

    def _await_turn(self, connection: db.Connection) -> bool:
        """Wait for the lock; False if we are to stop. Asks repeatedly: a waiting query holds a snapshot."""
        said = False
        while not self._stop.is_set():
            self._beat()
            with db.translated(self._url):
                row = connection.execute(
                    "SELECT pg_try_advisory_lock(hashtextextended('ops.worker', 0))"
                ).fetchone()
            assert row is not None
            if row[0]:
                return True
            if not said:
                self.events.say("standby", "another worker leads; standing by")
                said = True
            self._stop.wait(POLL)
        return False

    def _look(self, connection: db.Connection) -> tuple[frozenset[str], dict[str, datetime]]:
        """What pg_cron runs, and when each job was last started."""
        with db.translated(self._url):
            last = {
                name: found.started_at for name, found in runs.last_runs(connection, started=True).items()
            }
            return cron.running(connection), last

    def _lead(self, connection: db.Connection) -> None:
        """Run the jobs until we are to stop, or the connection that holds the lock is lost."""
        elsewhere, last = self._look(connection)
        ours = [job for job in self._schedule if job.name not in elsewhere]
        names = ", ".join(job.name for job in ours) or "nothing"
        left = f"; pg_cron runs {', '.join(sorted(elsewhere))}" if elsewhere else ""
        self.events.say(
            "leading", f"leading: {names}{left}", jobs=[job.name for job in ours], cron=sorted(elsewhere)
        )
        halt = threading.Event()
        crew = [_Thread(self._url, job, last.get(job.name), halt, self) for job in ours]
        for one in crew:
            one.start()
        try:
            self._watch(connection, elsewhere, crew)
        finally:
            halt.set()
            self._dismiss(crew)

    def _watch(self, connection: db.Connection, elsewhere: frozenset[str], crew: list[_Thread]) -> None:
        """Return when we are to stop or begin anew; raise when we lead no more."""
        beat = time.monotonic() + HEARTBEAT
        while not self._stop.wait(POLL):
            self._beat()
            with db.translated(self._url):
                now_elsewhere = cron.running(connection)
            if now_elsewhere != elsewhere:
                self.events.say("schedule", "pg_cron's share of the schedule has changed")
                # The lock is given back with the connection, and taken again with the next one.
                return
            if not all(one.is_alive() for one in crew):
                self.events.say("error", "a job's thread ended by an error of its own; starting again")
                return
            if time.monotonic() >= beat:
                beat += HEARTBEAT
                moved, self._rows = self._rows, {}
                text = (
                    ", ".join(f"{name} {rows:,}" for name, rows in sorted(moved.items()) if rows) or "no rows"
                )
                self.events.say("heartbeat", f"leading; in the last minute: {text}", rows=moved)

    def _dismiss(self, crew: list[_Thread]) -> None:
        deadline = time.monotonic() + GRACE
        for one in crew:
            one.join(max(0.0, deadline - time.monotonic()))
        for one in crew:
            if one.is_alive():
                self.events.say(
                    "cancel", f"{one.job.name}: cancelled, it took too long to end", job=one.job.name
                )
                one.cancel()
        for one in crew:
            one.join(GRACE)

    def report(self, job: Job, found: runs.Run, *, always: bool = False) -> None:
        """Say how a run went; of a run that moved nothing, only if `always`."""
        self._rows[job.name] = self._rows.get(job.name, 0) + (found.rows or 0)
        took = f" in {found.seconds:.2f} s" if found.seconds is not None else ""
        facts = {"job": job.name, "run_id": found.run_id, "rows": found.rows, "seconds": found.seconds}
        if found.status == "failed":
            self.events.say("failed", f"{job.name}: failed{took}: {found.error}", **facts, error=found.error)
        elif found.status == "skipped":
            if always or job.every.total_seconds() >= 60:
                self.events.say("skipped", f"{job.name}: skipped, another run of it is going on", **facts)
        elif always or found.rows or job.every.total_seconds() >= 60:
            self.events.say("ran", f"{job.name}: {found.rows or 0:,} rows{took}", **facts)


class _Thread(threading.Thread):
    """One job: waits until it is due, runs it, and does so again."""

    def __init__(
        self, url: str, job: Job, last: datetime | None, halt: threading.Event, worker: Worker
    ) -> None:
        super().__init__(name=job.name, daemon=True)
        self.job = job
        self._url = url
        self._last = last
        self._halt = halt
        self._worker = worker
        self._connection: db.Connection | None = None

    def run(self) -> None:
        """Run the job whenever it is due, until halted."""
        pause = 0.1
        try:
            while not self._halt.is_set():
                now = datetime.now(UTC)
                wait = (next_run(self.job, self._last, now) - now).total_seconds()
                if wait > 0 and self._halt.wait(min(wait, 60.0)):
                    break
                if wait > 60:
                    continue
                self._last = datetime.now(UTC)
                try:
                    self._once()
                    pause = 0.1
                except JobsError as error:
                    self._disconnect()
                    # The leading thread sees a lost connection as well, and says so.
                    if not isinstance(error, ConnectionLostError):
                        self._worker.events.say("error", f"{self.job.name}: {error}", job=self.job.name)
                    self._halt.wait(pause)
                    pause = min(pause * 2, PAUSE_MOST)
        finally:
            self._disconnect()

    def cancel(self) -> None:
        """End the step that is going on."""
        connection = self._connection
        if connection is not None:
            with contextlib.suppress(psycopg.Error):
                connection.cancel_safe(timeout=GRACE)

    def _once(self) -> None:
        if self._connection is None:
            self._connection = db.connect(self._url, "eav_jobs", f"eav worker {self.job.name}")
        self._worker.report(self.job, runs.run(self._connection, self.job, "worker", url=self._url))

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
