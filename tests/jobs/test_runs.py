"""ops.run_job: what it records, commits, repeats and refuses; and the runs as Python sees them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from jobs import db, runs
from jobs.errors import ConnectionLostError, JobsError
from jobs.schedule import Job
from tests.conftest import Connection, Database
from tests.jobs.waiting import until, waits_for

CALL = "CALL ops.run_job('step', 'probe.step', %s, '1 ms', 'cli', %s)"


@pytest.fixture
def probe(database: Database) -> Database:
    """A function that notes each call, waits while somebody holds advisory lock 1, and fails on demand."""
    with database.session() as connection:
        connection.execute("""
            CREATE SCHEMA probe;
            CREATE TABLE probe.calls (number int GENERATED ALWAYS AS IDENTITY);
            CREATE TABLE probe.failing (at int);
            CREATE TABLE probe.much (at int);
            CREATE FUNCTION probe.step() RETURNS bigint LANGUAGE plpgsql AS $$
            DECLARE v_number int;
            BEGIN
                INSERT INTO probe.calls DEFAULT VALUES RETURNING number INTO v_number;
                IF EXISTS (SELECT FROM probe.failing WHERE at = v_number) THEN RAISE 'on purpose'; END IF;
                IF v_number > 1 THEN PERFORM pg_advisory_xact_lock_shared(1); END IF;
                RETURN CASE WHEN EXISTS (SELECT FROM probe.much WHERE at = v_number) THEN 5000 ELSE 10 END;
            END $$;
            GRANT USAGE ON SCHEMA probe TO eav_jobs;
            GRANT ALL ON ALL TABLES IN SCHEMA probe TO eav_jobs;
        """)
    return database


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as made:
        yield made


def call(connection: Connection, repeat_for: str = "0", exclusive: bool = True) -> int:
    row = connection.execute(CALL, [repeat_for, exclusive]).fetchone()
    assert row is not None
    number: int = row[0]
    return number


def recorded(database: Database) -> list[tuple[Any, ...]]:
    return database.all("SELECT status, rows, error, finished_at IS NULL FROM ops.job_runs ORDER BY run_id")


def locks(database: Database) -> int:
    found: int = database.one(
        "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND database ="
        " (SELECT oid FROM pg_database WHERE datname = current_database())"
    )
    return found


def test_a_run_is_recorded_and_its_lock_given_back(probe: Database) -> None:
    with probe.session("eav_jobs") as connection:
        run_id = call(connection)
        assert locks(probe) == 0
    assert run_id > 0
    assert recorded(probe) == [("ok", 10, None, False)]


def test_each_step_is_committed_while_the_run_goes_on(probe: Database, pool: ThreadPoolExecutor) -> None:
    with probe.session() as holder, probe.session("eav_jobs") as connection:
        holder.execute("SELECT pg_advisory_lock(1)")
        done: Future[int] = pool.submit(call, connection, "100 ms")
        until(waits_for(probe, connection.info.backend_pid))
        assert probe.one("SELECT count(*) FROM probe.calls") == 1
        assert recorded(probe) == [("running", None, None, True)]
        holder.execute("SELECT pg_advisory_unlock(1)")
        done.result(30)
    (status, rows, error, running), *others = recorded(probe)
    assert (status, error, running, others) == ("ok", None, False, [])
    assert rows == 10 * probe.one("SELECT count(*) FROM probe.calls") >= 20


def test_a_second_run_is_skipped_while_the_first_goes_on(probe: Database, pool: ThreadPoolExecutor) -> None:
    with probe.session() as holder, probe.session("eav_jobs") as one, probe.session("eav_jobs") as two:
        call(one)
        holder.execute("SELECT pg_advisory_lock(1)")
        done = pool.submit(call, one)
        until(waits_for(probe, one.info.backend_pid))
        assert call(two) < 0
        assert [row[0] for row in recorded(probe)] == ["ok", "running", "skipped"]
        holder.execute("SELECT pg_advisory_unlock(1)")
        done.result(30)
        assert call(two) > 0


def test_runs_that_are_not_exclusive_go_on_side_by_side(probe: Database, pool: ThreadPoolExecutor) -> None:
    with probe.session() as holder, probe.session("eav_jobs") as one, probe.session("eav_jobs") as two:
        call(one)
        holder.execute("SELECT pg_advisory_lock(1)")
        done = [pool.submit(call, connection, "0", False) for connection in (one, two)]
        for connection in (one, two):
            until(waits_for(probe, connection.info.backend_pid))
        assert [row[0] for row in recorded(probe)] == ["ok", "running", "running"]
        holder.execute("SELECT pg_advisory_unlock(1)")
        assert all(future.result(30) > 0 for future in done)


def test_a_failed_step_ends_the_run_and_keeps_the_steps_before(probe: Database) -> None:
    probe.all("INSERT INTO probe.failing VALUES (3) RETURNING 1")
    with probe.session("eav_jobs") as connection:
        with pytest.raises(psycopg.errors.RaiseException, match="job step failed: on purpose"):
            call(connection, "1 min")
        assert probe.one("SELECT count(*) FROM probe.calls") == 2
        assert recorded(probe) == [("failed", 20, "on purpose (P0001)", False)]
        assert locks(probe) == 0
        assert call(connection) > 0


@pytest.fixture
def meeting(probe: Database) -> Callable[[int], None]:
    """Makes the next so many steps end as one does that PostgreSQL chose out of a ring."""

    def make(times: int) -> None:
        probe.all("SELECT setval('probe.ended', 1, false)")
        with probe.session() as connection:
            connection.execute(
                f"""
                CREATE OR REPLACE FUNCTION probe.step() RETURNS bigint LANGUAGE plpgsql AS $$ BEGIN
                    INSERT INTO probe.calls DEFAULT VALUES;
                    IF nextval('probe.ended') <= {times} THEN RAISE deadlock_detected; END IF;
                    RETURN 10;
                END $$
            """.encode()
            )

    with probe.session() as connection:
        connection.execute("CREATE SEQUENCE probe.ended; GRANT ALL ON probe.ended TO eav_jobs")
    return make


def test_a_step_that_a_deadlock_ends_is_done_again(probe: Database, meeting: Callable[[int], None]) -> None:
    meeting(4)
    with probe.session("eav_jobs") as connection:
        call(connection)
    assert recorded(probe) == [("ok", 10, None, False)]
    assert probe.one("SELECT count(*) FROM probe.calls") == 1


def test_not_for_ever(probe: Database, meeting: Callable[[int], None]) -> None:
    meeting(1000)
    with (
        probe.session("eav_jobs") as connection,
        pytest.raises(psycopg.errors.RaiseException, match="5 times in a row: deadlock_detected"),
    ):
        call(connection)
    ((status, rows, error, open_),) = recorded(probe)
    assert (status, rows, open_) == ("failed", 0, False)
    assert "40P01" in error
    assert locks(probe) == 0


def test_a_timeout_is_recorded(probe: Database) -> None:
    with probe.session() as holder, probe.session("eav_jobs") as connection:
        call(connection)
        holder.execute("SELECT pg_advisory_lock(1)")
        connection.execute("SET statement_timeout = '200ms'")
        with pytest.raises(psycopg.errors.RaiseException, match="statement timeout"):
            call(connection)
    assert recorded(probe)[1][0] == "failed"


def test_a_step_is_committed_before_the_pause_after_it(probe: Database, pool: ThreadPoolExecutor) -> None:
    with probe.session("eav_jobs") as connection:
        done = pool.submit(
            connection.execute, "CALL ops.run_job('step', 'probe.step', '1 hour', '30 minutes', 'cli')"
        )
        pid = connection.info.backend_pid
        until(lambda: probe.one("SELECT wait_event FROM pg_stat_activity WHERE pid = %s", pid) == "PgSleep")
        assert probe.one("SELECT count(*) FROM probe.calls") == 1
        probe.one("SELECT pg_cancel_backend(%s)", pid)
        with pytest.raises(psycopg.errors.RaiseException, match="user request"):
            done.result(30)
    assert [row[:2] for row in recorded(probe)] == [("failed", 10)]


def test_much_work_is_followed_by_no_pause_and_then_by_short_ones(
    probe: Database, pool: ThreadPoolExecutor
) -> None:
    probe.all("INSERT INTO probe.much VALUES (1) RETURNING 1")
    with probe.session("eav_jobs") as connection:
        done = pool.submit(
            connection.execute, "CALL ops.run_job('step', 'probe.step', '1 hour', '20 seconds', 'cli')"
        )
        # The second at once, the third after a sixteenth of the pause.
        until(lambda: probe.one("SELECT count(*) FROM probe.calls") == 3, timeout=15)
        probe.one("SELECT pg_cancel_backend(%s)", connection.info.backend_pid)
        with pytest.raises(psycopg.errors.RaiseException, match="user request"):
            done.result(30)


def test_a_run_whose_connection_died_is_marked_by_the_next(probe: Database, pool: ThreadPoolExecutor) -> None:
    with probe.session() as holder, probe.session("eav_jobs") as dying, probe.session("eav_jobs") as next_one:
        call(dying)
        holder.execute("SELECT pg_advisory_lock(1)")
        done = pool.submit(call, dying)
        until(waits_for(probe, dying.info.backend_pid))
        holder.execute("SELECT pg_terminate_backend(%s, 30000)", [dying.info.backend_pid])
        with pytest.raises(psycopg.OperationalError):
            done.result(30)
        assert recorded(probe)[1][0] == "running"
        holder.execute("SELECT pg_advisory_unlock(1)")
        call(next_one)
    assert [row[0] for row in recorded(probe)] == ["ok", "failed", "ok"]
    assert recorded(probe)[1][2] == "interrupted: its connection ended"


@pytest.mark.parametrize("role", ["eav_app", "eav_ingest", "eav_analyst"])
def test_only_eav_jobs_runs_jobs(probe: Database, role: str) -> None:
    with probe.session(role) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
        call(connection)
    assert recorded(probe) == []


def test_a_run_ends_only_on_the_connection_that_began_it(probe: Database) -> None:
    with probe.session("eav_jobs") as one, probe.session("eav_jobs") as two:
        ((run_id,),) = one.execute("SELECT ops.job_begin('step', 'cli')").fetchall()
        with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState):
            two.execute("SELECT ops.job_end(%s, 1)", [run_id])
        one.execute("SELECT ops.job_end(%s, 1)", [run_id])
    assert recorded(probe) == [("ok", 1, None, False)]


def test_pruning_keeps_what_matters_and_the_last_run_of_each_job(database: Database) -> None:
    database.all("""
        INSERT INTO ops.job_runs (job, status, rows, scheduler, host, pid, started_at)
        SELECT job, status, rows, 'cli', 'local', 1, now() - age
        FROM (VALUES
            ('a', 'ok', 5, interval '15 days'), ('a', 'ok', 0, '2 hours'), ('a', 'skipped', null, '2 hours'),
            ('a', 'ok', 5, '2 hours'), ('a', 'failed', 0, '2 hours'), ('a', 'running', null, '20 days'),
            ('a', 'ok', 0, '1 minute'), ('b', 'ok', 0, '20 days')
        ) AS v (job, status, rows, age)
        RETURNING 1
    """)
    with database.session("eav_jobs") as connection:
        assert connection.execute("SELECT ops.prune_job_runs(p_limit := 1)").fetchone() == (3,)
    left = database.all("SELECT job, status, rows FROM ops.job_runs ORDER BY run_id")
    assert left == [
        ("a", "ok", 5),
        ("a", "failed", 0),
        ("a", "running", None),
        ("a", "ok", 0),
        ("b", "ok", 0),
    ]


JOB = Job("step", timedelta(hours=1), "a test", function="probe.step", timeout=timedelta(seconds=30))


def test_python_sees_how_a_run_went(probe: Database) -> None:
    probe.all("INSERT INTO probe.failing VALUES (2) RETURNING 1")
    with db.connect(probe.url, "eav_jobs", "test") as connection:
        found = runs.run(connection, JOB, "worker", url=probe.url)
        assert (found.status, found.rows, found.scheduler) == ("ok", 10, "worker")
        found = runs.run(connection, JOB, "worker", url=probe.url)
        assert (found.status, found.rows, found.error) == ("failed", 0, "on purpose (P0001)")
        assert runs.last_runs(connection)["step"].status == "failed"


def test_an_action_in_python_is_recorded_like_a_function(probe: Database) -> None:
    def fail(connection: Connection) -> int:
        raise JobsError("no bucket")

    def divide(connection: Connection) -> int:
        connection.execute("SELECT 1 / 0")
        return 1

    with db.connect(probe.url, "eav_jobs", "test") as connection:
        for action, status, error in ((lambda _: 7, "ok", None), (fail, "failed", "no bucket")):
            job = Job("act", timedelta(hours=1), "a test", action=action)
            found = runs.run(connection, job, "cli", url=probe.url)
            assert (found.status, found.error) == (status, error)
        found = runs.run(connection, Job("act", timedelta(hours=1), "", action=divide), "cli", url=probe.url)
        assert (found.status, found.error) == ("failed", "division by zero")
    assert locks(probe) == 0


def test_a_run_that_is_cancelled_once_more_while_it_ends_is_no_run_that_goes_on(
    probe: Database, pool: ThreadPoolExecutor
) -> None:
    """The postmaster sends the signal of one request twice, and the second may come that late."""
    probe.all("INSERT INTO probe.calls DEFAULT VALUES RETURNING 1")
    with (
        db.connect(probe.url, "eav_jobs", "test") as connection,
        probe.session() as lock,
        probe.session() as row,
    ):
        pid = connection.info.backend_pid
        lock.execute("SELECT pg_advisory_lock(1)")
        run = pool.submit(runs.run, connection, JOB, "worker", url=probe.url)
        until(waits_for(probe, pid, lock.info.backend_pid))
        with row.transaction():
            row.execute("SELECT FROM ops.job_runs FOR UPDATE")
            probe.one("SELECT pg_cancel_backend(%s)", pid)
            until(waits_for(probe, pid, row.info.backend_pid))
            probe.one("SELECT pg_cancel_backend(%s)", pid)
            until(lambda: not waits_for(probe, pid)() or "CALL" not in doing(probe, pid))
        found = run.result(60)
    assert found.status == "failed"
    assert "canceling statement" in str(found.error)
    assert locks(probe) == 0


def doing(database: Database, pid: int) -> str:
    return str(database.one("SELECT query FROM pg_stat_activity WHERE pid = %s", pid))


def test_a_lost_connection_is_no_failed_job(probe: Database) -> None:
    with db.connect(probe.url, "eav_jobs", "test") as connection:
        probe.one("SELECT pg_terminate_backend(%s, 30000)", connection.info.backend_pid)
        with pytest.raises(ConnectionLostError):
            runs.run(connection, JOB, "worker", url=probe.url)
