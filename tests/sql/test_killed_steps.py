"""A flusher, a producer or an ingester dies at a known statement: nothing is lost, nothing doubled.

Each is brought to a stand by a lock that the test holds, seen through pg_blocking_pids, and ended there: by
pg_terminate_backend, or by SIGKILL, upon which the postmaster takes everything down and recovers.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest

from local.cluster import Cluster
from tests.conftest import Connection, Database
from tests.jobs.conftest import lines, values
from tests.jobs.test_ingest import position, process
from tests.jobs.waiting import until
from tests.sql.staging import NOW, Row, copy, drain, flush, make_tenant, rejected, scalar, stored

pytestmark = pytest.mark.cluster

Ender = Callable[[Database, int], None]


def terminate(database: Database, pid: int) -> None:
    assert database.one("SELECT pg_terminate_backend(%s, 10000)", pid)


def kill(database: Database, pid: int) -> None:
    """As the kernel does when memory is short: every backend goes, and the server recovers."""
    with database.session() as witness:
        os.kill(pid, signal.SIGKILL)
        until(lambda: not alive(witness))
    until(lambda: answers(database))


def alive(connection: Connection) -> bool:
    with contextlib.suppress(psycopg.OperationalError):
        return bool(scalar(connection, "SELECT true"))
    return False


def answers(database: Database) -> bool:
    with contextlib.suppress(psycopg.OperationalError):
        return bool(database.one("SELECT true"))
    return False


ENDERS = pytest.mark.parametrize("end", [terminate, kill], ids=["terminated", "kill -9"])


@contextmanager
def holding(database: Database, *statements: str) -> Iterator[int]:
    """A session that holds locks until the end; its backend's pid."""
    connection = database.connect()
    try:
        connection.execute("BEGIN")
        for statement in statements:
            connection.execute(statement.encode())
        yield connection.info.backend_pid
    finally:
        connection.close()


def lock(table: str, mode: str = "SHARE") -> str:
    """SHARE lets others read the table and holds up who would write to it."""
    return f"LOCK TABLE eav.{table} IN {mode} MODE"


def end_at(
    database: Database, locks: Sequence[str], work: Callable[[Connection], object], end: Ender
) -> None:
    """Ends the backend of `work` when it waits for these locks."""
    died: list[psycopg.Error] = []

    def run(connection: Connection) -> None:
        try:
            work(connection)
        except psycopg.Error as error:
            died.append(error)

    with closing(database.connect()) as victim:
        pid = victim.info.backend_pid
        thread = threading.Thread(target=run, args=(victim,))
        with holding(database, *locks) as holder:
            thread.start()
            with database.session() as watcher:
                until(lambda: scalar(watcher, "SELECT pg_blocking_pids(%s)", pid) == [holder])
            end(database, pid)
            thread.join(30)
        assert len(died) == 1, "it did its work and was not ended"
        assert isinstance(died[0], psycopg.OperationalError)


FLUSH_STEPS = {
    "before it begins": ["SELECT eav.lock_catalog(true)"],
    "reading its marker": [lock("staging_progress", "ACCESS EXCLUSIVE")],
    "reading a slot": [lock("staging_1_0", "ACCESS EXCLUSIVE")],
    "registering an entity": [lock("entities")],
    "storing values": [lock("entity_values_ts")],
    "storing values in their partition": ["LOCK TABLE ONLY {partition} IN SHARE MODE"],
    "registering an attribute": [lock("attributes")],
    "keeping rejected values": [lock("entity_values_rejected")],
    "merging hot values": [lock("entity_jsonb")],
    "merging one entity's hot values": ["SELECT FROM eav.entity_jsonb FOR UPDATE"],
    "writing the checkpoint": [lock("ingest_checkpoint_log")],
    "writing the durable lane's marker": [lock("staging_progress_durable")],
    # By then it has truncated the slots that it could.
    "writing the marker, slots truncated": [lock("staging_progress")],
}


@dataclass
class Sources:
    """A replayable source and one of the durable lane, with some rows of every kind."""

    database: Database
    tenant_id: int
    cpu: int

    def send(self, upto: int) -> None:
        """From where each of them is: offsets to `upto`, all of which are numbers but every tenth."""
        with self.database.session("eav_ingest") as connection:
            for name, durable, base in (("log", False, 0), ("kept", True, 10_000)):
                origin = scalar(connection, "SELECT eav.ingest_source(%s, '0', %s)", name, durable)
                start = scalar(connection, "SELECT eav.ingest_position(%s)", name)
                for offset in range(start + 1, upto + 1):
                    text = "no number" if offset % 10 == 0 else None
                    copy(
                        connection,
                        [
                            Row(
                                origin, offset, self.tenant_id, base + offset % 7 + (upto if offset % 2 else 0),
                                None if offset % 3 == 0 else self.cpu, NOW,
                                value_number=None if text else base + offset, value_text=text,
                                attribute=f"cpu{upto}" if offset % 3 == 0 else None,
                            )
                        ],
                        origin,
                    )  # fmt: skip

    def check(self, upto: int) -> None:
        numbers = [base + n for base in (0, 10_000) for n in range(1, upto + 1) if n % 10]
        assert stored(self.database) == numbers
        assert rejected(self.database) == {"wrong_type": 2 * (upto // 10)}
        hot = self.database.all("SELECT entity_id, (hot_attrs ->> 'cpu')::bigint FROM eav.entity_jsonb")
        latest = self.database.all(
            "SELECT entity_id, max(value_number)::bigint FROM eav.entity_values_ts WHERE attribute_id = %s GROUP BY 1",
            self.cpu,
        )
        assert sorted(hot) == sorted(latest)
        assert [position(self.database, name) for name in ("log", "kept")] == [upto, upto]


@ENDERS
@pytest.mark.parametrize("locks", FLUSH_STEPS.values(), ids=FLUSH_STEPS.keys())
def test_a_flusher_that_dies(doomed: Database, locks: list[str], end: Ender) -> None:
    tenant = make_tenant(doomed, auto_register=True)
    sources = Sources(doomed, tenant.tenant_id, tenant.attributes["cpu"])
    sources.send(20)
    with doomed.session() as connection:
        flush(connection)
        # The slots turn, with flushed rows in them: the flush that dies finds some to truncate.
        for lane in range(5):
            scalar(connection, "SELECT nextval(%s::regclass)", f"eav.staging_turn_{lane}")
    before = stored(doomed)
    partition = doomed.one("SELECT DISTINCT tableoid::regclass::text FROM eav.entity_values_ts")
    sources.send(40)
    end_at(doomed, [one.format(partition=partition) for one in locks], flush, end)
    # All of it or nothing: what it had done is undone, and nothing waits for it.
    assert stored(doomed) == before
    sources.send(60)
    with doomed.session() as connection:
        drain(connection)
    sources.check(60)


@ENDERS
def test_a_flusher_whose_commit_is_done_and_whose_answer_never_comes(
    killable: Cluster, doomed: Database, end: Ender
) -> None:
    tenant = make_tenant(doomed, auto_register=True)
    sources = Sources(doomed, tenant.tenant_id, tenant.attributes["cpu"])
    sources.send(20)
    with waiting_for_a_standby(doomed):
        died = threading.Event()

        def work(connection: Connection) -> None:
            with contextlib.suppress(psycopg.OperationalError):
                connection.execute("BEGIN; SELECT pg_current_xact_id()")  # keeps its synchronous_commit
                assert flush(connection) == 40
                connection.execute("COMMIT")
            died.set()

        with closing(doomed.connect()) as victim:
            thread = threading.Thread(target=work, args=(victim,))
            thread.start()
            pid = victim.info.backend_pid
            until(lambda: wait_event(doomed, pid) == "SyncRep")
            end(doomed, pid)
            thread.join(30)
        assert died.is_set()
    # It was on disk before anybody was asked to acknowledge it.
    assert len(stored(doomed)) == 36
    sources.send(30)
    with doomed.session() as connection:
        drain(connection)
    sources.check(30)


def wait_event(database: Database, pid: int) -> str | None:
    found: str | None = database.one("SELECT max(wait_event) FROM pg_stat_activity WHERE pid = %s", pid)
    return found


@contextmanager
def waiting_for_a_standby(database: Database) -> Iterator[None]:
    """Commits reach the disk and then wait for a standby that there is not."""

    def apply(statement: str) -> None:
        with database.session() as connection:
            connection.execute("SET synchronous_commit = local")
            connection.execute(statement.encode())
            connection.execute("SELECT pg_reload_conf()")

    apply("ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
    try:
        until(lambda: database.one("SHOW synchronous_standby_names") == "nobody")
        yield
    finally:
        apply("ALTER SYSTEM RESET synchronous_standby_names")
        until(lambda: database.one("SHOW synchronous_standby_names") == "")


ALL_SLOTS = [lock(f"staging_{lane}_{slot}") for lane in range(5) for slot in range(3)]
ALL_LANES = [f"SELECT pg_advisory_xact_lock(6644086, {lane})" for lane in range(5)]
PRODUCER_STEPS = {
    "registering its source": [lock("ingest_sources")],
    "asking for its position": ALL_LANES,
    "asking for its slot": [lock("ingest_sources", "ACCESS EXCLUSIVE")],
    "in the middle of its COPY": ALL_SLOTS,
}


@ENDERS
@pytest.mark.parametrize("locks", PRODUCER_STEPS.values(), ids=PRODUCER_STEPS.keys())
def test_a_producer_that_dies(doomed: Database, locks: list[str], end: Ender) -> None:
    tenant = make_tenant(doomed, auto_register=True)
    sources = Sources(doomed, tenant.tenant_id, tenant.attributes["cpu"])

    def produce(connection: Connection) -> None:
        origin = scalar(connection, "SELECT eav.ingest_source('log')")
        at = scalar(connection, "SELECT eav.ingest_position('log')") + 1
        copy(connection, [Row(origin, at, tenant.tenant_id, 1, sources.cpu, value_number=at)], origin)

    end_at(doomed, locks, produce, end)
    sources.send(20)
    with doomed.session() as connection:
        drain(connection)
    sources.check(20)


@ENDERS
def test_a_producer_that_dies_before_it_commits_while_a_flush_passes(doomed: Database, end: Ender) -> None:
    tenant = make_tenant(doomed, auto_register=True)
    sources = Sources(doomed, tenant.tenant_id, tenant.attributes["cpu"])
    sources.send(20)
    with doomed.session() as connection, closing(doomed.connect()) as victim:
        victim.execute("BEGIN")
        for name in ("log", "kept"):
            origin = scalar(connection, "SELECT eav.ingest_source(%s, '0', %s)", name, name == "kept")
            copy(victim, [Row(origin, 21, tenant.tenant_id, 1, sources.cpu, value_number=-1)], origin)
        assert drain(connection) == 40
        end(doomed, victim.info.backend_pid)
        with pytest.raises(psycopg.OperationalError):
            victim.execute("COMMIT")
    # Of the replayable source a crash may take the flush that nobody waited for, too; never a part of it.
    sources.send(30)
    with doomed.session() as connection:
        drain(connection)
    sources.check(30)


@ENDERS
@pytest.mark.parametrize("kept", [True, False], ids=["durable lane", "replayable"])
def test_a_producer_whose_commit_is_done_and_whose_answer_never_comes(
    doomed: Database, kept: bool, end: Ender
) -> None:
    tenant = make_tenant(doomed)
    origin = doomed.one("SELECT eav.ingest_source('s', '0', %s)", kept)
    rows = [Row(origin, n, tenant.tenant_id, 1, tenant.attributes["cpu"], value_number=n) for n in (1, 2, 3)]
    with waiting_for_a_standby(doomed), closing(doomed.connect()) as victim:
        pid = victim.info.backend_pid
        victim.execute(f"SET synchronous_commit = {'on' if kept else 'off'}".encode())  # as an ingester does

        def work() -> None:
            with contextlib.suppress(psycopg.OperationalError):
                copy(victim, rows, origin)

        thread = threading.Thread(target=work)
        thread.start()
        if kept:
            until(lambda: wait_event(doomed, pid) == "SyncRep")
        else:
            thread.join(30)
        end(doomed, pid)
        thread.join(30)
    # The database knows what the producer does not. Only a crash empties the UNLOGGED lanes.
    assert position(doomed, "s") == (3 if kept or end is terminate else 0)
    with doomed.session() as connection:
        copy(connection, rows[position(doomed, "s") :], origin)
        drain(connection)
    assert stored(doomed) == [1, 2, 3]


COPYING, AT_LAST = "in the middle of its COPY", "waiting for the flush"
INGESTER_STEPS = {
    "registering its source": [lock("ingest_sources")],
    "asking for its position": ALL_LANES,
    "asking for its slot": [lock("ingest_sources", "ACCESS EXCLUSIVE")],
    COPYING: ALL_SLOTS,
    "asking for the ids of attributes": [lock("attributes", "ACCESS EXCLUSIVE")],
    AT_LAST: [lock("entity_values_rejected", "ACCESS EXCLUSIVE")],
}


@pytest.mark.parametrize(
    ("step", "stream"),
    [
        *((step, False) for step in INGESTER_STEPS),
        *((step, True) for step in ("asking for its position", COPYING)),
    ],
)
def test_an_ingester_that_is_killed(doomed: Database, tmp_path: Path, step: str, stream: bool) -> None:
    doomed.one("SELECT eav.tenant_add('one', 1, true)")
    path = tmp_path / "values.ndjson"
    path.write_text(lines(1, 60))
    arguments = ["ingest", "-" if stream else str(path), "--source", "s", "--batch", "20"]
    with holding(doomed, *INGESTER_STEPS[step]) as holder, process(doomed, *arguments, "--wait") as running:
        assert running.stdin is not None
        if stream:
            running.stdin.write(path.read_bytes())
            running.stdin.flush()
        backend = (
            "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'eav ingest%%'"
            " AND %s = ANY(pg_blocking_pids(pid))"
        )
        until(lambda: doomed.one(backend, holder) == 1)
        running.kill()
        running.wait(30)
    until(
        lambda: (
            doomed.one("SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'eav ingest%%'")
            == 0
        )
    )
    with process(doomed, *arguments, "--flush") as running:
        _, err = running.communicate(lines(1, 90).encode() if stream else None, timeout=60)
    assert running.returncode == 0, err
    assert values(doomed) == list(range(1, 91 if stream else 61))
