"""The worker: who leads, who follows, what holds up what, and how it ends."""

from __future__ import annotations

import io
import json
import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from jobs import cron
from jobs.errors import ConnectionLostError, JobsError
from jobs.events import Events
from jobs.schedule import SCHEDULE, Job
from jobs.stopping import stopping
from jobs.worker import Worker
from local.cluster import Cluster
from tests.conftest import ROOT, Database
from tests.jobs.conftest import lines, values
from tests.jobs.waiting import until, waits_for


class Process:
    """`python -m jobs worker --json`, with its events."""

    def __init__(self, database: Database, log: Path) -> None:
        self._log = log
        with log.open("wb") as out:
            self.running = subprocess.Popen(
                [sys.executable, "-m", "jobs", "worker", "--json"],
                cwd=ROOT,
                env=os.environ | {"DATABASE_URL": database.url},
                stderr=out,
            )

    def events(self, name: str) -> list[dict[str, Any]]:
        return [
            one for line in self._log.read_text().splitlines() if (one := json.loads(line))["event"] == name
        ]

    def end(self, number: signal.Signals) -> int:
        self.running.send_signal(number)
        return self.running.wait(30)


@contextmanager
def worker(database: Database, log: Path) -> Iterator[Process]:
    process = Process(database, log)
    try:
        yield process
    finally:
        process.running.kill()
        process.running.wait()


def test_a_signal_at_any_moment_sets_the_event() -> None:
    # Where the handler itself set it, this ended at one of the first ten: the main thread holds the event's lock.
    for _ in range(200):
        with stopping() as stop:
            asking = threading.Timer(random.uniform(0, 0.002), os.kill, (os.getpid(), signal.SIGTERM))
            asking.start()
            while not stop.wait(0):
                pass
            asking.join()


def flushes(database: Database) -> int:
    found: int = database.one("SELECT count(*) FROM ops.job_runs WHERE job = 'flush' AND status = 'ok'")
    return found


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_cleanly(database: Database, tmp_path: Path, number: signal.Signals) -> None:
    with worker(database, tmp_path / "log") as process:
        until(lambda: flushes(database) > 0)
        assert process.end(number) == 0
        assert process.events("stopped")
    assert database.all("SELECT job FROM ops.job_runs WHERE status IN ('running', 'failed')") == []
    assert {job for (job,) in database.all("SELECT job FROM ops.job_runs")} >= {
        "flush",
        "maintain-partitions",
    }


def test_another_takes_over_when_the_leader_is_killed(database: Database, tmp_path: Path) -> None:
    with worker(database, tmp_path / "one") as one:
        until(lambda: one.events("leading"))
        with worker(database, tmp_path / "two") as two:
            until(lambda: two.events("standby"))
            assert not two.events("leading")
            one.end(signal.SIGKILL)
            until(lambda: two.events("leading"))
            before = flushes(database)
            until(lambda: flushes(database) > before)
            assert two.end(signal.SIGTERM) == 0


def test_a_follower_ends_at_once(database: Database, tmp_path: Path) -> None:
    with worker(database, tmp_path / "one") as one, worker(database, tmp_path / "two") as two:
        pair = [one, two]
        until(lambda: sum(len(process.events("leading")) for process in pair) == 1)
        (follower,) = (process for process in pair if not process.events("leading"))
        until(lambda: follower.events("standby"))
        assert follower.end(signal.SIGTERM) == 0


@pytest.mark.cluster
def test_it_goes_on_by_itself_after_a_crash_of_the_server(
    crashing: tuple[Cluster, Database], tmp_path: Path
) -> None:
    cluster, database = crashing
    with worker(database, tmp_path / "log") as process:
        until(lambda: flushes(database) > 0)
        cluster.kill()
        until(lambda: process.events("disconnected"))
        cluster.start()
        until(lambda: len(process.events("leading")) == 2)
        before = flushes(database)
        until(lambda: flushes(database) > before)
        # A run that the crash ended is not taken for one that goes on.
        assert (
            database.one("SELECT count(*) FROM ops.job_runs WHERE job = 'flush' AND status = 'running'") <= 1
        )
        assert process.end(signal.SIGTERM) == 0


@contextmanager
def leading(database: Database, *schedule: Job) -> Iterator[io.StringIO]:
    """A worker in this process, with a schedule of its own; what it says."""
    said, stop = io.StringIO(), threading.Event()
    with ExitStack() as stack:
        thread = threading.Thread(
            target=Worker(database.url, Events(as_json=True, stream=said), stop, schedule).run
        )
        thread.start()
        stack.callback(thread.join, 60)
        stack.callback(stop.set)
        yield said
    assert not thread.is_alive()


SECOND = timedelta(seconds=1)


@pytest.fixture
def probe(database: Database) -> Database:
    """A quick function, one that waits for advisory lock 1, and one that fails."""
    with database.session() as connection:
        connection.execute("""
        CREATE SCHEMA probe;
        CREATE FUNCTION probe.quick() RETURNS bigint LANGUAGE sql RETURN 1::bigint;
        CREATE FUNCTION probe.slow() RETURNS bigint LANGUAGE plpgsql AS
        $$ BEGIN PERFORM pg_advisory_xact_lock(1); RETURN 1; END $$;
        CREATE FUNCTION probe.failing() RETURNS bigint LANGUAGE plpgsql AS $$ BEGIN RAISE 'on purpose'; END $$;
        GRANT USAGE ON SCHEMA probe TO eav_jobs;
        """)
    return database


def count(database: Database, job: str, status: str) -> int:
    found: int = database.one("SELECT count(*) FROM ops.job_runs WHERE job = %s AND status = %s", job, status)
    return found


def test_a_slow_job_holds_up_no_other_and_is_cancelled_at_the_end(probe: Database) -> None:
    quick = Job("quick", SECOND, "", function="probe.quick")
    slow = Job("slow", SECOND, "", function="probe.slow")
    with probe.session() as holder:
        holder.execute("SELECT pg_advisory_lock(1)")
        with leading(probe, slow, quick):
            until(lambda: count(probe, "slow", "running") == 1)
            pid = probe.one("SELECT pid FROM ops.job_runs WHERE job = 'slow'")
            until(waits_for(probe, pid))
            before = count(probe, "quick", "ok")
            until(lambda: count(probe, "quick", "ok") >= before + 2)
    assert [row[0] for row in probe.all("SELECT status FROM ops.job_runs WHERE job = 'slow'")] == ["failed"]
    assert "canceling statement" in probe.one("SELECT error FROM ops.job_runs WHERE job = 'slow'")


def test_a_job_that_fails_or_is_missing_is_said_and_tried_again(probe: Database) -> None:
    failing = Job("failing", SECOND, "", function="probe.failing")
    missing = Job("missing", SECOND, "", function="probe.nothing")
    quick = Job("quick", SECOND, "", function="probe.quick")
    with leading(probe, failing, missing, quick) as said:
        until(lambda: count(probe, "failing", "failed") >= 2 and count(probe, "quick", "ok") >= 2)
        until(lambda: "probe.nothing" in said.getvalue())
    assert "on purpose" in said.getvalue()


def test_a_lost_job_connection_is_made_again(probe: Database) -> None:
    with leading(probe, Job("quick", SECOND, "", function="probe.quick")):
        until(lambda: count(probe, "quick", "ok") > 0)
        pid = probe.one("SELECT pid FROM ops.job_runs ORDER BY run_id LIMIT 1")
        probe.one("SELECT pg_terminate_backend(%s, 30000)", pid)
        until(lambda: len(probe.all("SELECT DISTINCT pid FROM ops.job_runs WHERE status = 'ok'")) == 2)


def test_once_runs_what_is_due_and_says_whether_it_went_well(probe: Database) -> None:
    hour = timedelta(hours=1)
    quick, failing = (Job(name, hour, "", function=f"probe.{name}") for name in ("quick", "failing"))
    said = io.StringIO()
    for schedule, well in (((quick,), True), ((quick, failing), False)):
        one = Worker(probe.url, Events(as_json=True, stream=said), threading.Event(), schedule)
        assert one.once() is well
    assert probe.all("SELECT job, status FROM ops.job_runs ORDER BY run_id") == [
        ("quick", "ok"),
        ("failing", "failed"),
    ]


def test_an_ingester_waits_for_the_flush_of_a_worker(
    database: Database, jobs: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "x.ndjson"
    path.write_text(lines(1, 100))
    with leading(database, *(job for job in SCHEDULE if job.name == "flush")):
        until(lambda: flushes(database) > 0)
        assert jobs("ingest", path, "--json") == 0
        assert json.loads(capsys.readouterr().out)["settled"]
        assert values(database) == list(range(1, 101))


@pytest.mark.cluster
def test_the_schedule_goes_into_pg_cron_and_out_again(crashing: tuple[Cluster, Database]) -> None:
    cluster, database = crashing
    if "pg_cron" not in cluster.binaries.preload:
        pytest.skip("pg_cron is not installed here")
    assert cron.show(database.url) == []
    put = cron.apply(database.url)
    with database.session("eav_jobs") as connection:
        connection.execute("SELECT cron.schedule('eav-stale', '* * * * *', 'SELECT 1')")
        connection.execute("SELECT cron.schedule('of others', '0 0 1 1 *', 'SELECT 1')")
    assert cron.apply(database.url) == put
    assert {one.name: one for one in cron.show(database.url)} == {one.name: one for one in put}
    with database.session("eav_jobs") as connection:
        # Until pg_cron was seen to run something, the worker does; then it leaves all of it to pg_cron.
        connection.execute("SELECT cron.unschedule('eav-flush')")
        database.all("DELETE FROM ops.job_runs RETURNING 1")
        assert cron.running(connection) == frozenset()
        connection.execute("CALL ops.run_job('prune-runs', 'ops.prune_job_runs', p_scheduler => 'cron')")
        assert cron.running(connection) == {one.name.removeprefix("eav-") for one in put} - {"flush"}
    assert sorted(cron.remove(database.url)) == sorted(one.name for one in put if one.name != "eav-flush")
    assert database.all("SELECT jobname FROM cron.job") == [("of others",)]


def test_pg_cron_that_is_not_there_is_one_line(database: Database) -> None:
    home = database.one("SELECT current_setting('cron.database_name', true)")
    wanted = "does not run pg_cron" if home is None else f"works in the database {home}, not in"
    with pytest.raises(JobsError, match=wanted):
        cron.apply(database.url)
    assert cron.show(database.url) == []
    assert cron.remove(database.url) == []


def test_a_server_that_is_not_there_at_first_is_said(database: Database) -> None:
    with pytest.raises(ConnectionLostError, match="Connection refused"):
        Worker("postgresql://u@127.0.0.1:1/eav", Events(as_json=True), threading.Event()).run()
