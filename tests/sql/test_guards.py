"""Each guard is needed: with it taken out of the function, the check that watches over it fails."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from dataclasses import dataclass

import psycopg
import pytest

from tests.conftest import ROOT, Database
from tests.jobs.waiting import until, waits_for
from tests.sql import archives
from tests.sql.archives import late_rows, old_partition
from tests.sql.staging import Row, copy, copy_big, drain, flush, make_tenant, scalar, stored
from tests.sql.test_flush import (
    check_late_committer,
    check_limit_and_checkpoint,
    check_lossless_under_load,
    check_own_rows,
)
from tests.sql.test_flush_hardening import check_turn_of_a_backlog
from tests.sql.test_hot import check_late_value


def check_row_committed_during_a_flush(database: Database) -> None:
    """A producer that still writes to a slot that has turned, and commits while a flush is half way."""
    tenant = make_tenant(database)
    load, cpu = tenant.attributes["load"], tenant.attributes["cpu"]
    with (
        database.session() as late,
        database.session() as flusher,
        database.session() as blocker,
    ):
        # A slot that has turned and still holds rows, because a producer was at work in it.
        late.execute("BEGIN")
        slot = copy(late, [Row(None, None, tenant.tenant_id, 1, load, value_number=1)])
        copy_big(flusher, tenant.tenant_id, load, 100000)
        drain(flusher)
        late.execute("COMMIT")
        # The next flush has taken its snapshot and stops before it would empty the slot.
        blocker.execute("SELECT eav.upsert_hot_attrs(%s, 1, %s)", (tenant.tenant_id, '{"cpu": 0}'))
        blocker.execute("BEGIN")
        blocker.execute("SELECT FROM eav.entity_jsonb FOR UPDATE")
        copy(flusher, [Row(None, None, tenant.tenant_id, 1, cpu, value_number=2)])
        flushing = threading.Thread(target=flush, args=(flusher,))
        flushing.start()
        until(waits_for(database, flusher.info.backend_pid, blocker.info.backend_pid))
        late.execute(
            f"INSERT INTO {slot} (tenant_id, entity_id, attribute_id, observed_at, value_number)"
            " VALUES (%s, 1, %s, now(), 3)".encode(),
            (tenant.tenant_id, load),
        )
        blocker.execute("COMMIT")
        flushing.join()
        drain(flusher)
    assert stored(database)[:3] == [1, 2, 3]


def test_a_row_committed_during_a_flush_is_kept(database: Database) -> None:
    check_row_committed_during_a_flush(database)


def check_books(database: Database) -> None:
    """A row that is neither stored nor rejected stops the flush."""
    make_tenant(database)
    with database.session() as connection:
        copy(connection, [Row(attribute="nonsense", value_number=1)])
        assert flush(connection) == 1
    assert database.one("SELECT count(*) FROM eav.entity_values_rejected") == 1


def test_books_that_do_not_balance_roll_the_flush_back(database: Database) -> None:
    take_out(
        database,
        Guard(
            "flush_exceptions",
            "j.verdict IS NOT NULL\n            RETURNING 1",
            "false\n            RETURNING 1",
        ),
    )
    make_tenant(database)
    with database.session() as connection:
        copy(connection, [Row(attribute="nonsense", value_number=1), Row(attribute="cpu", value_number=2)])
        with pytest.raises(psycopg.errors.DataCorrupted, match="rolled back, nothing is lost"):
            flush(connection)
        assert scalar(connection, "SELECT count(*) FROM eav.entity_values_ingest") == 2
    assert stored(database) == []


def check_nothing_leaves_without_an_archive(database: Database) -> None:
    """Partitions past their retention: one that was never archived, and one that is archived and attached."""
    names = [old_partition(database, 0), old_partition(database, 1)]
    archives.verified(database, names[1])
    with archives.worker(database) as connection:
        connection.execute("SELECT ops.expire_partitions()")
    assert [database.one("SELECT to_regclass(%s)::text", name) for name in names] == names


def check_archive_that_reads_otherwise(database: Database) -> None:
    """An archive of which one row was not read back."""
    name = old_partition(database)
    with archives.worker(database) as connection:
        number, files = archives.read_back(connection, name, less=1)
        with contextlib.suppress(psycopg.errors.DataCorrupted):
            connection.execute("SELECT ops.archive_verified(%s, 'none', %s)", [number, files])
    assert database.one("SELECT status FROM ops.partition_archives") == "exporting"


def check_late_row_is_not_dropped(database: Database) -> None:
    """A row that comes to a partition after its archive."""
    name = old_partition(database)
    archives.detached(database, name)
    late_rows(database, 0, 31, 31, name)
    with archives.worker(database) as connection:
        connection.execute("SELECT ops.expire_partitions()")
    assert database.one("SELECT to_regclass(%s)::text", name) == name
    assert database.one("SELECT count(*) FROM ops.archivable()") == 1


def check_late_row_behind_an_old_snapshot(database: Database) -> None:
    """The same, and whoever drops looks at the table as it was before."""
    name = old_partition(database)
    archives.detached(database, name)
    with archives.worker(database) as connection:
        connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        connection.execute("SELECT 1")
        late_rows(database, 0, 31, 31, name)
        with contextlib.suppress(psycopg.errors.InvalidTransactionState):
            connection.execute("SELECT ops.expire_partitions()")
        connection.execute("COMMIT")
    assert database.one("SELECT to_regclass(%s)::text", name) == name


def check_row_committed_during_a_drop(database: Database) -> None:
    """A row that is committed while the drop is under way."""
    name = old_partition(database)
    archives.detached(database, name)
    with database.session() as writer, archives.worker(database) as dropper:
        writer.execute("BEGIN")
        writer.execute(f"INSERT INTO {name} SELECT * FROM {name} LIMIT 1".encode())
        dropping = threading.Thread(target=dropper.execute, args=("SELECT ops.expire_partitions()",))
        dropping.start()
        until(waits_for(database, dropper.info.backend_pid, writer.info.backend_pid))
        writer.execute("COMMIT")
        dropping.join()
    assert database.one("SELECT to_regclass(%s)::text", name) == name
    assert database.one(f"SELECT count(*) FROM {name}") == 31


@pytest.mark.parametrize(
    "check",
    [
        check_nothing_leaves_without_an_archive,
        check_archive_that_reads_otherwise,
        check_late_row_is_not_dropped,
        check_late_row_behind_an_old_snapshot,
        check_row_committed_during_a_drop,
    ],
)
def test_no_row_leaves_that_is_not_archived(database: Database, check: Callable[[Database], None]) -> None:
    check(database)


@dataclass(frozen=True)
class Guard:
    """A piece of a function, and what stands in its place without the guard."""

    function: str
    text: str
    without: str
    schema: str = "eav"
    version: int = 1


def take_out(database: Database, guard: Guard) -> None:
    path = ROOT / "sql" / "functions" / guard.schema / f"{guard.function}.v{guard.version}.sql"
    source = path.read_text()
    assert source.count(guard.text) == 1, f"{path.name} must hold this once: {guard.text}"
    with database.session() as connection:
        connection.execute(source.replace(guard.text, guard.without).encode())


@pytest.mark.parametrize(
    ("guard", "check"),
    [
        pytest.param(
            Guard("flush_lanes", "array(SELECT pg_snapshot_xip(v_snapshot)) ||", "'{}'::xid8[] ||"),
            check_late_committer,
            id="transactions under way are remembered",
        ),
        pytest.param(
            Guard("flush_lanes", "|| pg_current_xact_id_if_assigned(), NULL", "|| NULL::xid8, NULL"),
            check_own_rows,
            id="rows of the flushing transaction wait",
        ),
        pytest.param(
            Guard(
                "batch_condition",
                "format(' AND (s.batch > %L::xid8 OR s.batch = ANY(%L::xid8[]))', p_old_through, p_old_except)",
                "''",
            ),
            check_own_rows,
            id="what is flushed is not flushed again",
        ),
        pytest.param(
            Guard("flush_lanes", "IF NOT pg_try_advisory_xact_lock(6644086, v_lane) THEN", "IF false THEN"),
            check_lossless_under_load,
            id="one flusher a lane",
        ),
        pytest.param(
            Guard("flush_lanes", "v_taken[v_lane] > 0 AND v_planned + v_count > p_limit", "false"),
            check_limit_and_checkpoint,
            id="the limit is kept",
        ),
        pytest.param(
            Guard(
                "flush_lanes",
                "AND v_available >= p_limit AND (v_recent OR v_some_long)",
                "AND v_available >= p_limit",
            ),
            check_turn_of_a_backlog,
            id="a long lane has its turn",
        ),
        pytest.param(
            Guard("empty_slots", "IF NOT v_unflushed THEN", "IF true THEN"),
            check_row_committed_during_a_flush,
            id="a slot with unflushed rows is not emptied",
        ),
        pytest.param(
            Guard("hot_newer", "OR n.value > p_old_times -> n.key", "OR true"),
            check_late_value,
            id="only a newer value replaces",
        ),
        pytest.param(
            Guard("expire_partitions", "IF v_old.archive_first THEN", "IF false THEN", "ops", 2),
            check_nothing_leaves_without_an_archive,
            id="nothing is dropped before it is archived",
        ),
        pytest.param(
            Guard(
                "archive_verified",
                "ops.archive_difference(p_archive_id),",
                "NULL,",
                "ops",
            ),
            check_archive_that_reads_otherwise,
            id="an archive is verified by what was read back",
        ),
        pytest.param(
            Guard("archive_drop", "IF NOT ops.archive_compare(p_archive_id) THEN", "IF false THEN", "ops"),
            check_late_row_is_not_dropped,
            id="what is dropped is what was archived",
        ),
        pytest.param(
            Guard(
                "archive_drop", "current_setting('transaction_isolation') <> 'read committed'", "false", "ops"
            ),
            check_late_row_behind_an_old_snapshot,
            id="rows behind the snapshot are seen before the drop",
        ),
        pytest.param(
            Guard(
                "archive_drop",
                "EXECUTE format('LOCK TABLE %s IN ACCESS EXCLUSIVE MODE', v_table);",
                "",
                "ops",
            ),
            check_row_committed_during_a_drop,
            id="nobody writes between the comparison and the drop",
        ),
    ],
)
def test_without_the_guard_the_check_fails(
    database: Database, guard: Guard, check: Callable[[Database], None]
) -> None:
    take_out(database, guard)
    with pytest.raises(AssertionError):
        check(database)
