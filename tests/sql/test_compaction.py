"""Compaction: a closed partition is rewritten while rows go on coming, and each of them is there exactly once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from psycopg import errors

from jobs import compact, db
from jobs.compact import Candidate, Compaction, GaveWayError, candidates
from jobs.errors import JobsError
from local.cluster import Cluster
from tests.conftest import Connection, Database, run_alembic
from tests.jobs.waiting import until, waits_for
from tests.sql.staging import Row, drain, make_tenant, scalar
from tests.sql.staging import copy as stage

DAY_AGO = (datetime.now(UTC) - timedelta(days=3)).replace(hour=12, minute=0, second=0, microsecond=0)
"""In a partition that is closed."""
SHORT = timedelta(milliseconds=400)
PUBLISHED = "SELECT schemaname, tablename FROM pg_publication_tables ORDER BY 1, 2"
IN_CLOSED = (
    "SELECT b.partition::text FROM ops.partition_bounds('eav.entity_values_ts') AS b"
    " WHERE b.starts_at <= %s AND b.ends_at > %s"
)


def fill(database: Database, rows: int = 3000, first: int = 1, at: datetime = DAY_AGO) -> str:
    """Numbered rows in the closed partition, in no order; its name."""
    with database.session() as connection:
        connection.execute(
            "INSERT INTO eav.entity_values_ts (tenant_id, entity_id, attribute_id, observed_at, value_number)"
            " SELECT 1 + n * 7 %% 3, 1 + n * 13 %% 50, 1 + n * 11 %% 20,"
            " %s::timestamptz + n %% 997 * interval '1 second', n::numeric(12, 1)"
            " FROM generate_series(%s::bigint, %s) AS n",
            [at, first, first + rows - 1],
        )
    return partition(database, at)


def do(database: Database, *statements: str) -> None:
    """As the superuser."""
    with database.session() as connection:
        for statement in statements:
            connection.execute(statement.encode())


def partition(database: Database, at: datetime = DAY_AGO) -> str:
    return str(database.one(IN_CLOSED, at, at))


def late(database: Database, number: int, at: datetime = DAY_AGO) -> None:
    """One more row for the closed partition."""
    fill(database, 1, number, at)


def numbers(database: Database) -> list[int]:
    """Which rows there are, as often as they are there."""
    return [int(n) for (n,) in database.all("SELECT value_number FROM eav.entity_values_ts ORDER BY 1")]


def leftovers(database: Database) -> list[str]:
    """What must not be there when no compaction is under way."""
    return [
        name
        for (name,) in database.all(
            "SELECT relname FROM pg_class WHERE relname LIKE '%%compacting%%'"
            " UNION ALL SELECT tgname FROM pg_trigger WHERE tgname = 'compacting'"
            " UNION ALL SELECT conname FROM pg_constraint WHERE conname = 'compacting_bounds'"
            " UNION ALL SELECT partition FROM ops.compactions WHERE status IN ('copying', 'copied')"
            " UNION ALL SELECT objid::text FROM pg_locks WHERE locktype = 'advisory' AND classid = 6644087"
            " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
        )
    ]


def indexes(database: Database, name: str) -> dict[str, str]:
    return dict(
        database.all(
            "SELECT c.relname, m.amname FROM pg_index AS i JOIN pg_class AS c ON i.indexrelid = c.oid"
            " JOIN pg_am AS m ON c.relam = m.oid WHERE i.indrelid = %s::regclass",
            name,
        )
    )


@contextmanager
def worker(database: Database) -> Iterator[db.Connection]:
    """A connection as the jobs have it."""
    connection = db.connect(database.near, "eav_jobs", "test of compaction")
    try:
        yield connection
    finally:
        connection.close()


def run(database: Database) -> int:
    with worker(database) as connection:
        return compact.compact(connection)


@contextmanager
def begun(database: Database, patience: timedelta = SHORT) -> Iterator[Compaction]:
    """A compaction of the closed partition whose steps the test takes."""
    with worker(database) as connection:
        (candidate,) = candidates(connection)
        compaction = Compaction(connection, candidate, patience)
        assert compaction.open()
        yield compaction


def status(database: Database) -> list[str]:
    return [s for (s,) in database.all("SELECT status FROM ops.compactions ORDER BY compaction_id")]


# -- what it leaves -----------------------------------------------------------------------------------------


def test_a_closed_partition_is_in_order_and_has_no_btree(database: Database) -> None:
    name = fill(database)
    bare = name.removeprefix("eav.")
    facts = (
        "SELECT relowner::regrole::text, relispartition, relrowsecurity, relacl IS NULL,"
        " pg_get_expr(relpartbound, oid), obj_description(oid, 'pg_class')"
        " FROM pg_class WHERE oid = %s::regclass"
    )
    do(database, f"COMMENT ON TABLE {name} IS 'a day'")
    before = database.all(facts, name)
    values = database.all("SELECT * FROM eav.entity_values_ts ORDER BY value_number")
    assert indexes(database, name) == {f"{bare}_observed_at_idx": "brin", f"{bare}_active_idx": "btree"}

    assert run(database) == 3000

    assert database.all("SELECT * FROM eav.entity_values_ts ORDER BY value_number") == values
    stored = database.all(f"SELECT tenant_id, attribute_id, observed_at FROM {name} ORDER BY ctid")
    assert stored == sorted(stored)
    assert database.all(facts, name) == before
    assert indexes(database, name) == {f"{bare}_observed_at_idx": "brin", f"{bare}_sorted_idx": "brin"}
    assert database.one(
        "SELECT bool_and(indisvalid) AND count(*) = (SELECT count(*) FROM pg_index"
        " WHERE indrelid = 'eav.entity_values_ts'::regclass) FROM pg_inherits JOIN pg_index"
        " ON indexrelid = inhrelid WHERE indrelid = %s::regclass", name
    )  # fmt: skip
    options = dict(
        o.split("=") for o in database.one("SELECT reloptions FROM pg_class WHERE oid = %s::regclass", name)
    )
    assert options["autovacuum_freeze_min_age"] == "0"
    assert "autovacuum_enabled" not in options
    assert database.one(
        "SELECT attstattarget FROM pg_attribute WHERE attrelid = %s::regclass AND attname = 'attribute_id'", name
    ) == 1000  # fmt: skip
    assert leftovers(database) == []
    ((rows, late_rows, state, after, index_after),) = database.all(
        "SELECT rows, late_rows, status, bytes_after, index_bytes_after FROM ops.compactions"
    )
    assert (rows, late_rows, state) == (3000, 0, "done")
    assert (after, index_after) == database.all(
        "SELECT pg_relation_size(%s::regclass), pg_indexes_size(%s::regclass)", name, name
    )[0]
    # Nothing is left to do, and empty partitions are left alone.
    assert run(database) == 0
    assert status(database) == ["done"]


def test_two_rows_that_swapped_a_value_are_noticed(database: Database) -> None:
    fill(database, 100)
    with begun(database) as compaction:
        compaction.copy()
        twin = database.one("SELECT ops.compaction_twin(%s)", compaction._candidate.partition)
        for number in range(1, 21):
            # Each value is there as often as before, in every column.
            swap = (
                f"UPDATE {twin} SET value_number = {2 * number + 1} - value_number"
                f" WHERE value_number IN ({number}, {number + 1})"
            )
            do(database, swap)
            with pytest.raises(errors.DataCorrupted):
                compaction.verify()
            do(database, swap)
        assert compaction.verify() == 100


def test_maintenance_and_alembic_go_on_as_before(database: Database) -> None:
    fill(database)
    published = database.all(PUBLISHED)
    with begun(database) as compaction:
        compaction.copy()
        # The copy holds every tenant's rows: nobody but the owner may read it, and it is not published.
        twin = database.one("SELECT ops.compaction_twin(%s)", compaction._candidate.partition)
        assert database.all(
            "SELECT relowner::regrole::text, relacl FROM pg_class WHERE oid = %s::regclass", twin
        ) == [("eav_owner", None)]
        assert database.all(PUBLISHED) == published
        # In the middle of it as well as afterwards.
        assert run_alembic(database.url, "check").returncode == 0
        assert compaction.verify() == 3000
        compaction.swap()
    with database.session() as connection:
        connection.execute("UPDATE partman.part_config SET premake = premake + 2")
        assert scalar(connection, "SELECT ops.maintain_partitions()") > 0
    assert database.all("SELECT DISTINCT last_error FROM ops.partition_policies") == [(None,)]
    assert run_alembic(database.url, "check").returncode == 0
    assert database.all(PUBLISHED) == published
    # Each partition that was not compacted has its B-tree, those made just now too.
    assert database.one(
        "SELECT count(*) FROM ops.partition_bounds('eav.entity_values_ts') AS b"
        " WHERE NOT EXISTS (SELECT FROM pg_index AS i JOIN pg_class AS c ON i.indexrelid = c.oid"
        " WHERE i.indrelid = b.partition AND c.relname LIKE '%%\\_active\\_idx')"
    ) == 1  # fmt: skip
    assert database.one("SELECT ends_at > now() + interval '3 days' FROM eav.value_window")


def test_partitions_of_an_hour(empty_database: Database) -> None:
    done = run_alembic(empty_database.url, "-x", "partition_interval=1 hour", "upgrade", "head")
    assert done.returncode == 0, done.stderr
    now = datetime.now(UTC)
    for hours in (1, 4, 5):
        fill(empty_database, 500, hours * 1000, now.replace(minute=0) - timedelta(hours=hours))
    closed = [partition(empty_database, now.replace(minute=1) - timedelta(hours=h)) for h in (5, 4, 1)]
    before = numbers(empty_database)
    with worker(empty_database) as connection:
        # The last hour is closed, but its late rows may still come: compact_after.
        assert [one.partition for one in candidates(connection)] == closed[:2]
    assert run(empty_database) == 1000
    assert numbers(empty_database) == before
    with empty_database.session() as connection:
        connection.execute("UPDATE ops.partition_policies SET compact_after = '0'")
    assert run(empty_database) == 500
    with empty_database.session() as connection:
        connection.execute("UPDATE ops.partition_policies SET compact_after = NULL")
        late(empty_database, 1, now - timedelta(hours=9))
    assert run(empty_database) == 0
    assert run_alembic(empty_database.url, "check").returncode == 0
    assert empty_database.one("SELECT ops.maintain_partitions()") == 0


# -- late rows ----------------------------------------------------------------------------------------------


def test_late_rows_land_exactly_once_before_during_and_after(database: Database) -> None:
    name = fill(database, 100)
    with begun(database) as compaction:
        late(database, 101)
        with compaction.beside() as side:
            watch = compaction.watch(side)
        late(database, 102)  # after the snapshot, before the copy
        compaction.fill(watch)
        late(database, 103)
        assert compaction.verify() == 103
        late(database, 104)
        compaction.swap()
    late(database, 105)
    assert numbers(database) == list(range(1, 106))
    assert database.one(f"SELECT count(*) FROM {name}") == 105
    assert database.all("SELECT rows, late_rows FROM ops.compactions") == [(103, 2)]
    assert leftovers(database) == []


def test_a_writer_in_flight_is_waited_for(database: Database) -> None:
    fill(database, 100)
    with database.session() as writer, begun(database, timedelta(seconds=60)) as compaction:
        writer.execute("BEGIN")
        # In a subtransaction, as the flush does it.
        writer.execute("SAVEPOINT s")
        writer.execute(
            "INSERT INTO eav.entity_values_ts (tenant_id, entity_id, attribute_id, observed_at, value_number)"
            " VALUES (1, 1, 1, %s, 101)", [DAY_AGO]
        )  # fmt: skip
        with compaction.beside() as side, pytest.raises(errors.LockNotAvailable):
            compaction.watch(side)
        thread = threading.Thread(target=compaction.copy)
        thread.start()
        until(lambda: waiting(database, writer))
        writer.execute("COMMIT")
        thread.join()
        assert compaction.verify() == 101
        compaction.swap()
    assert numbers(database) == list(range(1, 102))


def waiting(database: Database, holder: Connection) -> bool:
    """Whether anybody waits for `holder`."""
    return bool(
        database.one(
            "SELECT count(*) FROM pg_stat_activity WHERE %s = ANY(pg_blocking_pids(pid))",
            holder.info.backend_pid,
        )
    )


def test_a_writer_that_had_its_id_before_but_writes_after_is_not_lost(database: Database) -> None:
    """Its rows have an older id than the snapshot, so that ids would not tell them from those that were copied."""
    fill(database, 100)
    with database.session() as writer, begun(database) as compaction:
        writer.execute("BEGIN")
        writer.execute("SELECT pg_current_xact_id()")
        with compaction.beside() as side:
            watch = compaction.watch(side)
        writer.execute(
            "INSERT INTO eav.entity_values_ts (tenant_id, entity_id, attribute_id, observed_at, value_number)"
            " VALUES (1, 1, 1, %s, 101)", [DAY_AGO]
        )  # fmt: skip
        compaction.fill(watch)
        writer.execute("COMMIT")
        assert compaction.verify() == 101
        compaction.swap()
    assert numbers(database) == list(range(1, 102))


@pytest.mark.parametrize("isolation", ["REPEATABLE READ", "READ COMMITTED"])
def test_a_snapshot_of_the_wrong_moment_is_refused(database: Database, isolation: str) -> None:
    fill(database, 10)
    with begun(database) as compaction, worker(database) as other:
        with compaction.beside() as side:
            watch = compaction.watch(side)
        late(database, 11)  # the trigger has it: a copy of today's rows would have it twice
        with pytest.raises(errors.InvalidTransactionState, match="snapshot taken while"):
            other.execute(
                f"BEGIN ISOLATION LEVEL {isolation};"
                f" SELECT ops.compaction_copy({compaction.compaction_id}, '{watch}'::xid8)".encode()
            )
        other.execute("ROLLBACK")
        compaction.fill(watch)
        compaction.verify()
        compaction.swap()
    assert numbers(database) == list(range(1, 12))


def test_a_flusher_runs_all_the_time(database: Database) -> None:
    tenant = make_tenant(database)
    name = fill(database, 20000)
    stop = threading.Event()
    sent: list[int] = []

    def flush_late_rows() -> None:
        with database.session() as connection:
            number = 100_000
            while not stop.is_set():
                rows = [
                    Row(
                        None, None, tenant.tenant_id, 1, tenant.attributes["load"], value_number=n,
                        observed_at=DAY_AGO if n % 2 else datetime.now(UTC),
                    )
                    for n in range(number, number + 10)
                ]  # fmt: skip
                stage(connection, rows)
                drain(connection)
                sent.extend(range(number, number + 10))
                number += 10

    flusher = threading.Thread(target=flush_late_rows)
    flusher.start()
    try:
        until(lambda: len(sent) > 50)
        moved = run(database)
        at_the_swap = len(sent)
        until(lambda: len(sent) > at_the_swap + 50)
    finally:
        stop.set()
        flusher.join()
    assert moved >= 20000
    assert status(database) == ["done"]
    assert numbers(database) == [*range(1, 20001), *sent]
    assert database.one(f"SELECT count(*) FROM {name} WHERE value_number >= 100000") == len(sent) / 2
    assert database.one("SELECT count(*) FROM eav.entity_values_rejected") == 0


def test_late_rows_of_a_compacted_partition_are_found_and_many_are_sorted_in(database: Database) -> None:
    name = fill(database)
    assert run(database) == 3000
    late(database, 3001)
    found = (
        "SELECT count(*) FROM eav.entity_values_ts WHERE tenant_id = %s AND attribute_id = %s"
        " AND observed_at >= %s AND observed_at < %s"
    )
    row = database.all("SELECT tenant_id, attribute_id FROM eav.entity_values_ts WHERE value_number = 3001")[
        0
    ]
    with database.session() as connection:
        connection.execute("SET enable_seqscan = off")
        window = (*row, DAY_AGO, DAY_AGO + timedelta(hours=1))
        assert scalar(connection, found, *window) == database.one(
            f"SELECT count(*) FROM {name} WHERE tenant_id = %s AND attribute_id = %s", *row
        )
    # One row does not pay for a rewrite, 2 MiB of them do.
    assert run(database) == 0
    fill(database, 35000, 10001)
    assert run(database) == 38001
    stored = database.all(f"SELECT tenant_id, attribute_id, observed_at FROM {name} ORDER BY ctid")
    assert stored == sorted(stored)
    assert run(database) == 0
    assert numbers(database) == [*range(1, 3002), *range(10001, 45001)]


def test_a_copy_that_somebody_dropped_stops_no_flush(database: Database) -> None:
    fill(database, 100)
    with begun(database) as compaction:
        compaction.copy()
        do(database, "DROP TABLE " + database.one("SELECT ops.compaction_twin(%s)", partition(database)))
        late(database, 101)
        with pytest.raises(errors.DataCorrupted, match="is gone"):
            compaction.verify()
    with pytest.raises(JobsError, match="is gone"):
        run(database)
    assert leftovers(database) == []
    assert run(database) == 101
    assert numbers(database) == list(range(1, 102))


# -- comparing ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "damage",
    [
        "DELETE FROM {copy} WHERE value_number = 7",
        "UPDATE {copy} SET value_number = value_number + 1 WHERE value_number = 7",
        # The same number to every comparison, written in another way.
        "UPDATE {copy} SET value_number = 7.00 WHERE value_number = 7",
        "UPDATE {copy} SET entity_id = entity_id + 1 WHERE value_number = 7",
        "INSERT INTO {copy} SELECT * FROM {copy} WHERE value_number = 7",
        "WITH gone AS (DELETE FROM {copy} WHERE value_number = 7)"
        " INSERT INTO {copy} SELECT * FROM {copy} WHERE value_number = 8",
    ],
)
def test_a_copy_that_differs_is_not_swapped_in(database: Database, damage: str) -> None:
    name = fill(database, 100)
    before = database.one("SELECT %s::regclass::oid", name)
    with begun(database) as compaction:
        compaction.copy()
    twin = database.one("SELECT ops.compaction_twin(%s)", name)
    do(database, damage.format(copy=twin))
    with pytest.raises(JobsError, match=r"^eav\.entity_values_ts_p.*its copy.*nothing is lost"):
        run(database)
    assert database.one("SELECT %s::regclass::oid", name) == before
    assert numbers(database) == list(range(1, 101))
    assert leftovers(database) == []
    ((state, error),) = database.all("SELECT status, error FROM ops.compactions")
    assert state == "abandoned"
    assert "its copy" in error
    assert run(database) == 100


@pytest.mark.parametrize(
    "meddle",
    [
        "DROP TRIGGER compacting ON {partition}",
        "ALTER TABLE {partition} DISABLE TRIGGER compacting",
        "TRUNCATE {copy}",
        "DROP PUBLICATION eav_cdc; TRUNCATE {partition}",
    ],
)
def test_what_was_meddled_with_after_it_was_compared_is_not_swapped_in(
    database: Database, meddle: str
) -> None:
    name = fill(database, 100)
    with begun(database) as compaction:
        compaction.copy()
        compaction.verify()
        twin = database.one("SELECT ops.compaction_twin(%s)", name)
        do(database, meddle.format(partition=name, copy=twin))
        with pytest.raises(errors.DataCorrupted, match="not swapped"):
            compaction.swap()


def test_a_replaying_session_fires_the_trigger_too(database: Database) -> None:
    fill(database, 10)
    with begun(database) as compaction, database.session() as connection:
        compaction.copy()
        connection.execute("SET session_replication_role = replica")
        connection.execute(
            "INSERT INTO eav.entity_values_ts (tenant_id, entity_id, attribute_id, observed_at, value_number)"
            " VALUES (1, 1, 1, %s, 11)", [DAY_AGO]
        )  # fmt: skip
        assert compaction.verify() == 11
        compaction.swap()
    assert numbers(database) == list(range(1, 12))


# -- readers ------------------------------------------------------------------------------------------------


def test_a_reader_is_not_blocked_and_does_not_block_for_ever(database: Database) -> None:
    name = fill(database, 100)
    with database.session() as reader, begun(database) as compaction:
        compaction.copy()
        compaction.verify()
        reader.execute("BEGIN")
        assert scalar(reader, "SELECT count(*) FROM eav.entity_values_ts") == 100
        with pytest.raises(GaveWayError):
            compaction.swap()
        # Nothing is locked, others go on.
        late(database, 101)
        assert scalar(reader, "SELECT count(*) FROM eav.entity_values_ts") == 101
        compaction.close()
        # Another run finds the copy there, and does not make it again.
        copied = database.one("SELECT copied_at FROM ops.compactions")
        with begun(database) as again:
            again.copy()
            again.verify()
            with pytest.raises(GaveWayError):
                again.swap()
            reader.execute("COMMIT")
            assert again.swap() == 101
        assert database.one("SELECT copied_at FROM ops.compactions") == copied
    assert indexes(database, name).keys() == {
        f"{name.removeprefix('eav.')}_{suffix}" for suffix in ("observed_at_idx", "sorted_idx")
    }


def test_who_looks_at_an_older_state_never_finds_the_partition_empty(database: Database) -> None:
    """It holds no lock on the table yet, so that only its snapshot tells."""
    fill(database, 100)
    with database.session() as reader, begun(database) as compaction:
        with compaction.beside() as side:
            watch = compaction.watch(side)
        reader.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        reader.execute("SELECT 1")
        late(database, 101)
        compaction.fill(watch)
        assert compaction.verify() == 101
        with pytest.raises(GaveWayError, match="still reads the database as it was"):
            compaction.swap()
        assert scalar(reader, "SELECT count(*) FROM eav.entity_values_ts") == 100
        reader.execute("COMMIT")
        # A snapshot of later holds up nothing, though a writer that is older makes it look old.
        with database.session() as writer, database.session() as later:
            writer.execute("BEGIN; SELECT pg_current_xact_id()")
            later.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
            later.execute("SELECT 1")
            assert compaction.swap() == 101
            assert scalar(later, "SELECT count(*) FROM eav.entity_values_ts") == 101


def test_a_reader_of_the_partition_itself_makes_the_swap_give_way_too(database: Database) -> None:
    name = fill(database, 100)
    with database.session() as reader, begun(database) as compaction:
        compaction.copy()
        compaction.verify()
        reader.execute("BEGIN")
        reader.execute(f"LOCK TABLE {name} IN ACCESS SHARE MODE".encode())
        with pytest.raises(GaveWayError):
            compaction.swap()
        assert database.one("SELECT count(*) FROM eav.entity_values_ts") == 100


# -- interruptions ------------------------------------------------------------------------------------------

Step = Callable[[Database, Compaction, ExitStack], None]


def ended_after_it_was_opened(database: Database, compaction: Compaction, stack: ExitStack) -> None:
    pass


def ended_with_the_trigger_not_committed(
    database: Database, compaction: Compaction, stack: ExitStack
) -> None:
    side = stack.enter_context(compaction.beside())
    side.execute("BEGIN")
    side.execute("SELECT ops.compaction_watch(%s)", [compaction.compaction_id])
    terminate(database, side)


def ended_before_the_copy(database: Database, compaction: Compaction, stack: ExitStack) -> None:
    compaction.watch(stack.enter_context(compaction.beside()))


def ended_in_the_copy(database: Database, compaction: Compaction, stack: ExitStack) -> None:
    watch = compaction.watch(stack.enter_context(compaction.beside()))
    twin = database.one("SELECT ops.compaction_twin(%s)", partition(database))
    with database.session() as holder:
        holder.execute("BEGIN")
        holder.execute(f"LOCK TABLE {twin} IN SHARE MODE")
        end_while_it_waits(database, compaction, lambda: compaction.fill(watch))


def ended_before_the_comparison(database: Database, compaction: Compaction, stack: ExitStack) -> None:
    compaction.copy()


def ended_in_the_comparison(database: Database, compaction: Compaction, stack: ExitStack) -> None:
    compaction.copy()
    with database.session() as holder:
        holder.execute("BEGIN")
        holder.execute("LOCK TABLE ops.compactions IN EXCLUSIVE MODE")  # for its last statement
        end_while_it_waits(database, compaction, compaction.verify)


def ended_before_the_swap(database: Database, compaction: Compaction, stack: ExitStack) -> None:
    compaction.copy()
    compaction.verify()


def ended_in_the_swap(database: Database, compaction: Compaction, stack: ExitStack) -> None:
    compaction.copy()
    compaction.verify()
    with database.session() as holder:
        holder.execute("BEGIN")
        holder.execute("LOCK TABLE ops.compactions IN EXCLUSIVE MODE")
        swap = "SELECT ops.compaction_swap(%s, '3 seconds')"
        end_while_it_waits(
            database, compaction, lambda: compaction._connection.execute(swap, [compaction.compaction_id])
        )


STEPS: list[Step] = [
    ended_after_it_was_opened,
    ended_with_the_trigger_not_committed,
    ended_before_the_copy,
    ended_in_the_copy,
    ended_before_the_comparison,
    ended_in_the_comparison,
    ended_before_the_swap,
    ended_in_the_swap,
]


def terminate(database: Database, connection: Connection) -> None:
    pid = connection.info.backend_pid
    database.one("SELECT pg_terminate_backend(%s, 10000)", pid)


def end_while_it_waits(database: Database, compaction: Compaction, step: Callable[[], Any]) -> None:
    """End the backend in the middle of a step that a lock holds up there."""
    pid = compaction._connection.info.backend_pid
    failed: list[BaseException] = []

    def take() -> None:
        try:
            step()
        except psycopg.Error as error:
            failed.append(error)

    thread = threading.Thread(target=take)
    thread.start()
    until(waits_for(database, pid))
    terminate(database, compaction._connection)
    thread.join()
    assert len(failed) == 1


@pytest.mark.parametrize("step", STEPS)
def test_a_run_that_is_ended_is_gone_on_with(database: Database, step: Step) -> None:
    name = fill(database, 100)
    with begun(database) as compaction, ExitStack() as stack:
        step(database, compaction, stack)
        terminate(database, compaction._connection)
    late(database, 101)
    assert numbers(database) == list(range(1, 102))
    assert run(database) == 101
    late(database, 102)
    assert numbers(database) == list(range(1, 103))
    assert leftovers(database) == []
    assert status(database)[-1] == "done"
    assert f"{name.removeprefix('eav.')}_sorted_idx" in indexes(database, name)


@pytest.mark.cluster
@pytest.mark.parametrize("number", range(len(STEPS)))
def test_a_crash_of_the_server_at_any_step_costs_nothing(
    killable: Cluster, doomed: Database, number: int
) -> None:
    database = doomed
    name = fill(database, 100)
    with suppress(psycopg.Error), begun(database) as compaction, ExitStack() as stack:
        STEPS[number](database, compaction, stack)
        late(database, 101)
        killable.kill()
    killable.start()
    # What was committed is there, and once.
    assert numbers(database) == list(range(1, 102))
    assert run(database) == 101
    late(database, 102)
    assert numbers(database) == list(range(1, 103))
    assert leftovers(database) == []
    assert f"{name.removeprefix('eav.')}_sorted_idx" in indexes(database, name)


# -- several ------------------------------------------------------------------------------------------------


def test_two_runs_at_once_do_each_partition_once(database: Database) -> None:
    for days in range(3):
        fill(database, 1000, 1 + 1000 * days, DAY_AGO - timedelta(days=days))
    moved: list[int] = []
    runs = [threading.Thread(target=lambda: moved.append(run(database))) for _ in range(2)]
    for one in runs:
        one.start()
    for one in runs:
        one.join()
    assert sum(moved) == 3000
    assert status(database) == ["done"] * 3
    assert numbers(database) == list(range(1, 3001))
    assert leftovers(database) == []


def test_a_partition_that_another_session_is_at_is_left_alone(database: Database) -> None:
    fill(database, 100)
    with begun(database) as compaction:
        compaction.copy()
        assert run(database) == 0
        assert status(database) == ["copied"]
        compaction.verify()
        compaction.swap()
    assert numbers(database) == list(range(1, 101))


def test_a_partition_that_leaves_in_the_middle_takes_its_copy_along(database: Database) -> None:
    name = fill(database, 100)
    with begun(database) as compaction:
        compaction.copy()
    do(database, f"DROP TABLE {name}")
    assert run(database) == 0
    assert leftovers(database) == []
    assert status(database) == ["abandoned"]


def test_what_is_not_due_is_refused(database: Database) -> None:
    today = fill(database, 10, 1, datetime.now(UTC))
    with worker(database) as connection:
        assert candidates(connection) == []
        for name in (today, "eav.entities"):
            with pytest.raises(errors.ObjectNotInPrerequisiteState, match="is not due"):
                connection.execute("SELECT ops.compaction_open(%s::regclass)", [name])
        with pytest.raises(errors.InvalidParameterValue, match="10 ms to"):
            connection.execute("SELECT ops.compaction_swap(1, '1 minute')")


# -- BRIN summaries -----------------------------------------------------------------------------------------


def test_active_partitions_are_summarized_without_autovacuum(database: Database) -> None:
    with database.session() as connection:
        name = partition(database, datetime.now(UTC))
        connection.execute(f"ALTER TABLE {name} SET (autovacuum_enabled = false)".encode())
        fill(database, 10000, 1, datetime.now(UTC).replace(hour=0, minute=0, second=0))
        with worker(database) as jobs:
            assert scalar(jobs, "SELECT ops.summarize_partitions()") >= 2
            assert scalar(jobs, "SELECT ops.summarize_partitions()") == 0
        # Somebody has the table: it is left to the next time, and the others are not.
        fill(database, 10000, 10001, datetime.now(UTC).replace(hour=0, minute=0, second=0))
        connection.execute("BEGIN")
        connection.execute(f"LOCK TABLE {name} IN SHARE UPDATE EXCLUSIVE MODE".encode())
        with worker(database) as jobs:
            assert scalar(jobs, "SELECT ops.summarize_partitions()") == 0
            connection.execute("COMMIT")
            assert scalar(jobs, "SELECT ops.summarize_partitions()") >= 2


# -- plans --------------------------------------------------------------------------------------------------


def test_progress_is_said() -> None:
    candidate = Candidate("eav.t", "eav.t_p1", DAY_AGO, DAY_AGO, 1000, 200, "it is closed")
    assert compact.progress(candidate, 0, 3, 0) == "eav.t_p1: sorting, 3 s"
    assert (
        compact.progress(candidate, 250, 60, 10)
        == "eav.t_p1: 25%, about 50 rows copied, 5 rows/s, 30 s left, then the comparison"
    )
    assert compact.progress(candidate, 1100, 60, 10).startswith("eav.t_p1: 100%, about 200 rows")
    assert "needs up to 2 kB of free disk" in candidate.text()
