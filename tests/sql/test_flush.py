"""The flush is lossless, exact and steady, whatever happens beside it (invariants 2, 3 and 11)."""

from __future__ import annotations

import itertools
import threading
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import psycopg
import pytest

from tests.conftest import ROOT, Connection, Database
from tests.jobs.waiting import until, waits_for
from tests.sql.staging import (
    NOW,
    Row,
    copy,
    copy_big,
    drain,
    flush,
    make_tenant,
    minutes,
    rejected,
    scalar,
    source,
    stored,
)

WRITERS = 4
BATCHES = 40
BATCH = 50


def under_load(
    database: Database, stage: Callable[[Connection, int, list[int]], None], flush_once: str
) -> None:
    """Four producers commit numbered rows while two flushers run, until everything is staged and flushed once more."""
    numbers = itertools.count(1)
    numbering = threading.Lock()
    producing = threading.Event()
    producing.set()
    failures: list[Exception] = []

    def produce(writer: int) -> None:
        with database.session() as connection:
            for _ in range(BATCHES):
                with numbering:
                    batch = list(itertools.islice(numbers, BATCH))
                stage(connection, writer, batch)

    def keep_flushing() -> None:
        with database.session() as connection:
            while producing.is_set():
                connection.execute(flush_once.encode())

    def guarded(work: Callable[..., None], *args: object) -> None:
        try:
            work(*args)
        except Exception as error:  # noqa: BLE001  (it is shown by the assertion below)
            failures.append(error)

    producers = [threading.Thread(target=guarded, args=(produce, n)) for n in range(WRITERS)]
    flushers = [threading.Thread(target=guarded, args=(keep_flushing,)) for _ in range(2)]
    for thread in producers + flushers:
        thread.start()
    for thread in producers:
        thread.join()
    producing.clear()
    for thread in flushers:
        thread.join()
    assert not failures, failures


def check_lossless_under_load(database: Database) -> None:
    tenant = make_tenant(database)
    sources = [source(database, f"producer-{n}") for n in range(WRITERS)]

    def stage(connection: Connection, writer: int, batch: list[int]) -> None:
        rows = [
            Row(sources[writer], n, tenant.tenant_id, n % 10 + 1, tenant.attributes["cpu"], value_number=n)
            for n in batch
        ]
        copy(connection, rows, sources[writer])

    under_load(database, stage, "SELECT eav.stage_flush(500)")
    with database.session() as connection:
        drain(connection)
    assert stored(database) == list(range(1, WRITERS * BATCHES * BATCH + 1))
    assert database.one("SELECT count(*) FROM eav.entity_values_ingest") == 0


def test_lossless_with_four_writers_and_two_flushers(database: Database) -> None:
    check_lossless_under_load(database)


def test_the_reference_flush_loses_and_doubles_rows_in_the_same_test(database: Database) -> None:
    with database.session() as connection:
        connection.execute((ROOT / "bench" / "reference" / "flush.sql").read_bytes())

    def stage(connection: Connection, writer: int, batch: list[int]) -> None:
        with connection.cursor() as cursor:
            cursor.executemany(
                "INSERT INTO reference.entity_values_ingest (entity_id, tenant_id, attribute_id, value_decimal)"
                " VALUES (1, 1, 1, %s)",
                [(n,) for n in batch],
            )

    under_load(database, stage, "SELECT reference.stage_flush(500)")
    with database.session() as connection:
        while scalar(connection, "SELECT reference.stage_flush()"):
            pass
    counts = Counter(int(n) for (n,) in database.all("SELECT value_decimal FROM reference.entity_values_ts"))
    lost = set(range(1, WRITERS * BATCHES * BATCH + 1)) - set(counts)
    doubled = [n for n, count in counts.items() if count > 1]
    assert lost or doubled


def numbered(tenant_id: int, attribute_id: int, *numbers: int, source_id: int | None = None) -> list[Row]:
    return [Row(source_id, n, tenant_id, n % 10 + 1, attribute_id, value_number=n) for n in numbers]


def check_late_committer(database: Database) -> None:
    """A producer that began first and commits last holds nobody up, and is not forgotten."""
    tenant = make_tenant(database)
    cpu = tenant.attributes["cpu"]
    with database.session() as late, database.session() as quick, database.session() as flusher:
        late.execute("BEGIN")
        copy(late, numbered(tenant.tenant_id, cpu, 1, 2))
        with late.transaction():  # a savepoint: its rows have a transaction id of their own
            copy(late, numbered(tenant.tenant_id, cpu, 3))
        copy(quick, numbered(tenant.tenant_id, cpu, 4, 5))
        assert flush(flusher) == 2
        assert stored(database) == [4, 5]
        assert flush(flusher) == 0
        with late.transaction():
            copy(late, numbered(tenant.tenant_id, cpu, 6))
        late.execute("COMMIT")
        assert flush(flusher) == 4
        assert flush(flusher) == 0
    assert stored(database) == [1, 2, 3, 4, 5, 6]


def test_a_late_committer_holds_nobody_up_and_is_not_forgotten(database: Database) -> None:
    check_late_committer(database)


def test_rows_of_a_rolled_back_batch_are_not_flushed(database: Database) -> None:
    tenant = make_tenant(database)
    with database.session() as producer, database.session() as flusher:
        producer.execute("BEGIN")
        copy(producer, numbered(tenant.tenant_id, tenant.attributes["cpu"], 1))
        assert flush(flusher) == 0
        producer.execute("ROLLBACK")
        copy(producer, numbered(tenant.tenant_id, tenant.attributes["cpu"], 2))
        assert flush(flusher) == 1
    assert stored(database) == [2]


def check_own_rows(database: Database) -> None:
    """Staged and flushed in one transaction: the rows wait for the next flush, with those added later."""
    tenant = make_tenant(database)
    cpu = tenant.attributes["cpu"]
    with database.session() as connection, database.session() as other:
        connection.execute("BEGIN")
        copy(connection, numbered(tenant.tenant_id, cpu, 1))
        copy(other, numbered(tenant.tenant_id, cpu, 2))  # a later transaction, finished before this one
        assert flush(connection) == 1
        copy(connection, numbered(tenant.tenant_id, cpu, 3))
        connection.execute("COMMIT")
        assert flush(connection) == 2
        assert flush(connection) == 0
    assert stored(database) == [1, 2, 3]


def test_rows_of_the_flushing_transaction_itself_wait(database: Database) -> None:
    check_own_rows(database)


def test_a_flush_that_is_rolled_back_moves_nothing(database: Database) -> None:
    tenant = make_tenant(database)
    origin = source(database)
    with database.session() as connection:
        copy(connection, numbered(tenant.tenant_id, tenant.attributes["cpu"], 1, 2, source_id=origin), origin)
        connection.execute("BEGIN")
        assert flush(connection) == 2
        connection.execute("ROLLBACK")
        assert stored(database) == []
        assert scalar(connection, "SELECT count(*) FROM eav.entity_values_ingest") == 2
        assert scalar(connection, "SELECT count(*) FROM eav.ingest_checkpoint") == 0
        assert flush(connection) == 2
    assert stored(database) == [1, 2]


def test_a_second_flusher_does_not_wait_for_the_first(database: Database) -> None:
    tenant = make_tenant(database)
    with database.session() as first, database.session() as second:
        copy(first, numbered(tenant.tenant_id, tenant.attributes["cpu"], 1))
        first.execute("BEGIN")
        assert flush(first) == 1
        second.execute("SET statement_timeout = '10s'")
        assert flush(second) == 0
        first.execute("COMMIT")
    assert stored(database) == [1]


def test_two_flushers_share_a_backlog_of_several_lanes(database: Database) -> None:
    tenant = make_tenant(database)
    origins = [source(database, f"device-{n}") for n in range(4)]
    with database.session() as first, database.session() as second:
        for number, origin in enumerate(origins):
            rows = numbered(
                tenant.tenant_id, tenant.attributes["load"], *range(number * 100, number * 100 + 100)
            )
            copy(first, rows, origin)
        first.execute("BEGIN")
        taken = flush(first, 25)  # enough in one lane
        assert 0 < taken < 400
        rest = 0
        while moved := flush(second, 1000):
            rest += moved
        assert rest > 0
        first.execute("COMMIT")
        rest += drain(second)
        assert taken + rest == 400
    assert stored(database) == list(range(400))


def test_a_flusher_that_finds_all_taken_waits_for_its_share(database: Database) -> None:
    tenant = make_tenant(database)
    origins = [source(database, f"device-{n}") for n in range(2)]
    load = tenant.attributes["load"]
    with database.session() as first, database.session() as second, database.session() as producer:
        for number, origin in enumerate(origins):
            copy(producer, numbered(tenant.tenant_id, load, number), origin)
        first.execute("BEGIN")
        assert flush(first) == 2  # both lanes
        for number, origin in enumerate(origins, 2):
            copy(producer, numbered(tenant.tenant_id, load, number), origin)
        # What it finds when it does not get a lane in time.
        assert flush(second) == 0
        moved: list[int] = []

        def keep_flushing() -> None:
            while not moved:
                if taken := flush(second):
                    moved.append(taken)

        other = threading.Thread(target=keep_flushing)
        other.start()
        until(waits_for(database, second.info.backend_pid, first.info.backend_pid))
        first.execute("COMMIT")
        other.join(30)
        assert sum(moved) + drain(first) == 2
    assert stored(database) == [0, 1, 2, 3]


@pytest.mark.parametrize("level", ["REPEATABLE READ", "SERIALIZABLE"])
@pytest.mark.parametrize("call", ["eav.stage_flush()", "eav.ingest_position('events.ndjson')"])
def test_an_older_snapshot_is_refused(database: Database, level: str, call: str) -> None:
    with database.session() as connection:
        connection.execute(f"BEGIN ISOLATION LEVEL {level}".encode())
        with pytest.raises(psycopg.errors.InvalidTransactionState, match="needs READ COMMITTED"):
            connection.execute(f"SELECT {call}".encode())


@pytest.mark.parametrize("limit", ["0", "-1", "NULL"])
def test_a_bad_limit_is_refused(database: Database, limit: str) -> None:
    with (
        database.session() as connection,
        pytest.raises(psycopg.errors.InvalidParameterValue, match="1 or more"),
    ):
        connection.execute(f"SELECT eav.stage_flush({limit})".encode())


def check_limit_and_checkpoint(database: Database) -> None:
    """A limited flush moves whole batches, oldest first, and the checkpoint never runs ahead of the rows."""
    tenant = make_tenant(database)
    origin = source(database)
    with database.session() as connection, database.session() as flusher:
        for start in range(1, 1001, 100):
            numbers = range(start, start + 100)
            copy(
                connection,
                numbered(tenant.tenant_id, tenant.attributes["load"], *numbers, source_id=origin),
                origin,
            )
        assert scalar(connection, "SELECT eav.ingest_position('events.ndjson')") == 1000
        moved = 0
        while step := flush(flusher, 250):
            assert step <= 250
            moved += step
            checkpoint = scalar(connection, "SELECT position FROM eav.ingest_checkpoint")
            assert stored(database) == list(range(1, checkpoint + 1))
            assert scalar(connection, "SELECT count(*) FROM eav.entity_values_ingest") == 1000 - moved
            assert scalar(connection, "SELECT eav.ingest_position('events.ndjson')") == 1000
        assert moved == 1000
        # one transaction larger than the limit goes as a whole: half of it could not be checkpointed
        copy(
            connection,
            numbered(tenant.tenant_id, tenant.attributes["load"], *range(1001, 1101), source_id=origin),
            origin,
        )
        assert flush(flusher, 10) == 100


def test_the_limit_is_kept_and_the_checkpoint_is_exact(database: Database) -> None:
    check_limit_and_checkpoint(database)


def test_limited_flushes_look_through_a_backlog_once(database: Database) -> None:
    tenant = make_tenant(database)
    with database.session() as connection, database.session() as flusher, database.session() as watcher:
        for start in range(1, 10001, 100):
            slot = copy(
                connection, numbered(tenant.tenant_id, tenant.attributes["load"], *range(start, start + 100))
            )

        def rows_read() -> int:
            flusher.execute("SELECT pg_stat_force_next_flush()")
            read: int = scalar(
                watcher, "SELECT seq_tup_read FROM pg_stat_all_tables WHERE relid = %s::regclass", slot
            )
            return read

        assert flush(flusher, 100) == 100
        after_one = rows_read()
        assert after_one >= 10000
        for _ in range(10):
            assert flush(flusher, 100) == 100
        assert rows_read() - after_one < 10000
        assert drain(flusher, 100) == 8900
    assert stored(database) == list(range(1, 10001))


def test_a_step_of_another_size_needs_a_new_look(database: Database) -> None:
    tenant = make_tenant(database)
    load = tenant.attributes["load"]
    with database.session() as late, database.session() as connection, database.session() as flusher:
        late.execute("BEGIN")
        copy(late, numbered(tenant.tenant_id, load, *range(1, 11)))
        for start in range(11, 1001, 10):
            copy(connection, numbered(tenant.tenant_id, load, *range(start, start + 10)))
        assert flush(flusher, 100) == 100
        late.execute("COMMIT")
        # after a smaller one, a larger one, one that is not limited; and rows that came meanwhile
        assert flush(flusher, 20) == 20
        copy(connection, numbered(tenant.tenant_id, load, *range(1001, 1011)))
        assert flush(flusher, 500) == 500
        assert stored(database)[:1] == [1]
        assert flush(flusher, 50) == 50
        assert flush(flusher) == 340
        assert flush(flusher) == 0
    assert stored(database) == list(range(1, 1011))


def test_a_slot_that_was_rewritten_is_planned_again(database: Database) -> None:
    tenant = make_tenant(database)
    load = tenant.attributes["load"]
    with database.session() as connection, database.session() as flusher:
        connection.execute("BEGIN")
        copy(connection, numbered(tenant.tenant_id, load, *range(1, 101)))
        connection.execute("ROLLBACK")  # dead rows before all others
        for start in range(1, 1001, 100):
            slot = copy(connection, numbered(tenant.tenant_id, load, *range(start, start + 100)))
        assert flush(flusher, 300) == 300
        connection.execute(f"VACUUM FULL {slot}".encode())
        assert flush(flusher, 300) == 300
        assert drain(flusher, 300) == 400
    assert stored(database) == list(range(1, 1001))


def test_a_limited_flush_beside_a_late_committer(database: Database) -> None:
    tenant = make_tenant(database)
    load = tenant.attributes["load"]
    with database.session() as late, database.session() as quick, database.session() as flusher:
        late.execute("BEGIN")
        copy(late, numbered(tenant.tenant_id, load, *range(1, 101)))
        for start in range(101, 1001, 100):
            copy(quick, numbered(tenant.tenant_id, load, *range(start, start + 100)))
        assert flush(flusher, 300) == 300
        late.execute("COMMIT")
        # its transaction is older than what was flushed already
        assert flush(flusher, 100) == 100
        assert set(range(1, 101)) <= set(stored(database))
        assert drain(flusher, 250) == 600
    assert stored(database) == list(range(1, 1001))


def slot_bytes(connection: Connection) -> int:
    return int(
        scalar(
            connection,
            "SELECT sum(pg_relation_size(c.oid)) FROM pg_class c WHERE c.relnamespace = 'eav'::regnamespace"
            " AND c.relkind = 'r' AND c.relname ~ '^staging_[0-9]_[0-9]$'",
        )
    )


def test_slots_turn_and_are_emptied(database: Database) -> None:
    tenant = make_tenant(database)
    origin = source(database)
    used = set()
    with database.session() as connection:
        for start in range(0, 100000, 20000):
            used.add(copy_big(connection, tenant.tenant_id, tenant.attributes["load"], start, origin))
            drain(connection)
        assert len(used) > 1
        assert slot_bytes(connection) < 8 * 2**20
    assert stored(database) == list(range(100000))


def check_no_truncate_under_a_writer(database: Database) -> None:
    """A producer still at work in an old slot: the flush neither waits for it nor empties the slot under it."""
    tenant = make_tenant(database)
    load = tenant.attributes["load"]
    with database.session() as producer, database.session() as late, database.session() as flusher:
        flusher.execute("SET statement_timeout = '60s'")
        late.execute("BEGIN")
        slot = copy(late, numbered(tenant.tenant_id, load, 1))
        for start in range(100000, 180000, 20000):
            copy_big(producer, tenant.tenant_id, load, start)
            drain(flusher)
        assert copy(producer, numbered(tenant.tenant_id, load, 2)) != slot
        late.execute("COMMIT")
        assert drain(flusher) == 2
    assert stored(database)[:2] == [1, 2]


def test_a_slot_is_not_emptied_under_a_writer(database: Database) -> None:
    check_no_truncate_under_a_writer(database)


def check_stale_target(database: Database) -> None:
    """A producer that keeps writing to a slot that has turned is not lost either."""
    tenant = make_tenant(database)
    load = tenant.attributes["load"]
    with database.session() as connection, database.session() as stale:
        slot = copy_big(connection, tenant.tenant_id, load, 100000)
        stale.execute("BEGIN")
        stale.execute(
            f"INSERT INTO {slot} (tenant_id, entity_id, attribute_id, observed_at, value_number)"
            " VALUES (%s, 1, %s, now(), 1)".encode(),
            (tenant.tenant_id, load),
        )
        assert drain(connection) == 20000
        assert copy(connection, numbered(tenant.tenant_id, load, 2)) != slot
        stale.execute("COMMIT")
        assert drain(connection) == 2
    assert stored(database)[:2] == [1, 2]


def test_a_producer_with_an_old_target_loses_nothing(database: Database) -> None:
    check_stale_target(database)


def test_idle_slots_are_emptied_without_new_rows(database: Database) -> None:
    tenant = make_tenant(database)
    with database.session() as connection:
        copy(connection, numbered(tenant.tenant_id, tenant.attributes["load"], 1, 2, 3))
        assert flush(connection) == 3
        assert slot_bytes(connection) > 0
        assert flush(connection) == 0
        assert slot_bytes(connection) == 0
        copy(connection, numbered(tenant.tenant_id, tenant.attributes["load"], 4))
        assert flush(connection) == 1


def test_a_held_snapshot_keeps_nothing_back(database: Database) -> None:
    tenant = make_tenant(database)
    origin = source(database)
    with database.session() as holder, database.session() as connection:
        holder.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        holder.execute("SELECT count(*) FROM eav.entity_values_ts")
        for start in range(0, 200000, 20000):
            copy_big(connection, tenant.tenant_id, tenant.attributes["load"], start, origin)
            assert drain(connection) == 20000
        # nothing of what was flushed is still in staging's files, though the snapshot could see it in its tables
        assert slot_bytes(connection) < 8 * 2**20
        assert scalar(holder, "SELECT count(*) FROM eav.entity_values_ts") == 0
        holder.execute("COMMIT")


def test_position_waits_for_a_flush_that_is_moving_the_rows(database: Database) -> None:
    """Between reading the checkpoint and reading the slots, TRUNCATE would make rows invisible in both."""
    tenant = make_tenant(database)
    origin = source(database)
    with database.session() as flusher, database.session() as asker:
        copy(flusher, [Row(origin, 7, tenant.tenant_id, 1, tenant.attributes["cpu"], value_number=7)], origin)
        flusher.execute("BEGIN")
        assert flush(flusher) == 1
        answers: list[int] = []
        asking = threading.Thread(
            target=lambda: answers.append(scalar(asker, "SELECT eav.ingest_position('events.ndjson')"))
        )
        asking.start()
        until(waits_for(database, asker.info.backend_pid, flusher.info.backend_pid))
        flusher.execute("COMMIT")
        asking.join()
        assert answers == [7]


def test_position_of_an_unknown_source_is_zero(database: Database) -> None:
    assert database.one("SELECT eav.ingest_position('never-seen')") == 0


def test_a_target_for_an_unknown_source_is_refused(database: Database) -> None:
    with (
        database.session() as connection,
        pytest.raises(psycopg.errors.NoDataFound, match="no source has the id 99"),
    ):
        connection.execute("SELECT eav.ingest_target(99)")


def test_the_same_source_with_other_content_is_refused(database: Database) -> None:
    with database.session() as connection:
        first = scalar(connection, "SELECT eav.ingest_source('a', '0', false, '9:aaa')")
        assert scalar(connection, "SELECT eav.ingest_source('a', '0', false, '9:aaa')") == first
        with pytest.raises(psycopg.Error, match="ingested before with other content") as caught:
            connection.execute("SELECT eav.ingest_source('a', '0', false, '9:bbb')")
        assert caught.value.sqlstate == "EAV01"


def test_sources_spread_over_the_lanes(database: Database) -> None:
    with database.session() as connection:
        for number in range(8):
            source(database, f"device-{number}")
        lanes = connection.execute(
            "SELECT lane, count(*) FROM eav.ingest_sources GROUP BY lane ORDER BY lane"
        ).fetchall()
        assert lanes == [(1, 2), (2, 2), (3, 2), (4, 2)]
        durable = scalar(connection, "SELECT eav.ingest_source('till', '0', true)")
        assert scalar(connection, "SELECT eav.ingest_target(%s)", durable).startswith("eav.staging_0_")


@pytest.fixture
def catalogue(database: Database) -> tuple[Database, dict[str, int]]:
    tenant = make_tenant(
        database,
        attributes=(
            ("number", "number", False, '{"min": 0, "max": 100}'),
            ("integer", "integer", False, "{}"),
            ("text", "text", False, '{"max_length": 5}'),
            ("enum", "text", False, '{"enum": ["on", "off"]}'),
            ("boolean", "boolean", False, "{}"),
            ("timestamp", "timestamp", False, "{}"),
            ("retired", "number", False, "{}"),
        ),
    )
    with database.session() as connection:
        connection.execute("SELECT eav.retire_attribute(%s)", (tenant.attributes["retired"],))
    return database, tenant.attributes


GOOD: list[dict[str, object]] = [
    {"attribute": "number", "value_number": 0},
    {"attribute": "number", "value_number": Decimal("99.999999999999999999999")},
    {"attribute": "integer", "value_number": 10**30},
    {"attribute": "text", "value_text": "\U0001f600"},
    {"attribute": "text", "value_text": ""},
    {"attribute": "enum", "value_text": "on"},
    {"attribute": "boolean", "value_bool": False},
    {"attribute": "timestamp", "value_time": datetime(1, 1, 1, tzinfo=UTC)},
    {"attribute": "timestamp", "value_text": "2026-11-21T20:55:42.123Z"},
    {"attribute": "number", "value_number": 1, "observed_at": NOW - timedelta(days=6)},
    {"attribute": "number", "value_number": 1, "observed_at": NOW + minutes(4)},
]

BAD: list[tuple[str, dict[str, object]]] = [
    ("unknown_tenant", {"tenant_id": 999, "attribute": "number", "value_number": 1}),
    ("unknown_entity", {"entity_id": 999, "attribute": "number", "value_number": 1}),
    ("unknown_attribute", {"attribute": "nonsense", "value_number": 1}),
    ("unknown_attribute", {"attribute_id": 999999, "value_number": 1}),
    ("retired_attribute", {"attribute": "retired", "value_number": 1}),
    ("missing_field", {"tenant_id": None, "attribute": "number", "value_number": 1}),
    ("missing_field", {"entity_id": None, "attribute": "number", "value_number": 1}),
    ("missing_field", {"value_number": 1}),
    ("missing_field", {"attribute": "number", "value_number": 1, "observed_at": None}),
    ("missing_field", {"attribute": "number"}),
    ("wrong_type", {"attribute": "number", "value_text": "12"}),
    ("wrong_type", {"attribute": "number", "value_bool": True}),
    ("wrong_type", {"attribute": "number", "value_number": 1, "value_text": "1"}),
    ("wrong_type", {"attribute": "integer", "value_number": Decimal("1.5")}),
    ("wrong_type", {"attribute": "integer", "value_number": Decimal("NaN")}),
    ("wrong_type", {"attribute": "integer", "value_number": Decimal("Infinity")}),
    ("wrong_type", {"attribute": "text", "value_number": 1}),
    ("wrong_type", {"attribute": "boolean", "value_number": 1}),
    ("wrong_type", {"attribute": "timestamp", "value_number": 1}),
    ("wrong_type", {"attribute": "timestamp", "value_text": "yesterday"}),
    ("wrong_type", {"attribute": "timestamp", "value_text": "2026-13-45T00:00:00Z"}),
    ("out_of_range", {"attribute": "number", "value_number": Decimal("100.0000001")}),
    ("out_of_range", {"attribute": "number", "value_number": -1}),
    ("out_of_range", {"attribute": "number", "value_number": Decimal("NaN")}),
    ("out_of_range", {"attribute": "text", "value_text": "too long"}),
    ("out_of_range", {"attribute": "enum", "value_text": "perhaps"}),
    ("too_old", {"attribute": "number", "value_number": 1, "observed_at": datetime(1970, 1, 1, tzinfo=UTC)}),
    ("too_old", {"attribute": "number", "value_number": 1, "observed_at": NOW - timedelta(days=30)}),
    ("in_future", {"attribute": "number", "value_number": 1, "observed_at": NOW + minutes(30)}),
    (
        "in_future",
        {"attribute": "number", "value_number": 1, "observed_at": datetime(2099, 1, 1, tzinfo=UTC)},
    ),
    ("malformed", {"reason": "malformed", "raw": b"\x00\xff{", "tenant_id": None, "entity_id": None}),
]


@pytest.mark.parametrize("by_id", [False, True], ids=["by name", "by id"])
def test_every_kind_of_value_goes_where_it_belongs(
    catalogue: tuple[Database, dict[str, int]], by_id: bool
) -> None:
    database, ids = catalogue

    def as_row(fields: dict[str, object]) -> Row:
        resolved = ids.get(str(fields.get("attribute")))
        if by_id and resolved is not None:
            fields = {k: v for k, v in fields.items() if k != "attribute"} | {"attribute_id": resolved}
        return Row(**fields)  # type: ignore[arg-type]

    rows = [as_row(fields) for fields in GOOD] + [as_row(fields) for _, fields in BAD]
    with database.session() as connection:
        copy(connection, rows)
        assert flush(connection) == len(rows)
    assert rejected(database) == Counter(reason for reason, _ in BAD)
    assert database.one("SELECT count(*) FROM eav.entity_values_ts") == len(GOOD)
    assert database.one("SELECT max(value_number) FROM eav.entity_values_ts") == 10**30
    # nothing is ever in a default partition: there is none
    assert database.one("SELECT count(*) FROM pg_class WHERE pg_get_expr(relpartbound, oid) = 'DEFAULT'") == 0


def test_a_rejected_value_keeps_all_of_itself(catalogue: tuple[Database, dict[str, int]]) -> None:
    database, ids = catalogue
    origin = source(database)
    with database.session() as connection:
        copy(
            connection,
            [
                Row(origin, 41, 1, 3, ids["number"], NOW, value_text="twelve"),
                Row(
                    origin,
                    42,
                    reason="malformed",
                    raw=b"\xff\x00",
                    tenant_id=None,
                    entity_id=None,
                    observed_at=None,
                ),
            ],
            origin,
        )
        flush(connection)
        kept = connection.execute(
            "SELECT source_id, source_offset, tenant_id, entity_id, attribute_id, observed_at, reason, value_text, raw"
            " FROM eav.entity_values_rejected ORDER BY source_offset"
        ).fetchall()
        assert kept == [
            (origin, 41, 1, 3, ids["number"], NOW, "wrong_type", "twelve", None),
            (origin, 42, None, None, None, None, "malformed", None, b"\xff\x00"),
        ]
        assert scalar(connection, "SELECT position FROM eav.ingest_checkpoint") == 42


def test_rejected_values_are_replayed_after_the_fix(catalogue: tuple[Database, dict[str, int]]) -> None:
    database, _ = catalogue
    with database.session() as connection:
        copy(
            connection,
            [
                Row(attribute="later", value_number=5),
                Row(entity_id=77, attribute="number", value_number=6),
                Row(attribute="number", value_number=7000),
            ],
        )
        assert flush(connection) == 3
        assert rejected(database) == {"unknown_attribute": 1, "unknown_entity": 1, "out_of_range": 1}
        connection.execute(
            "INSERT INTO eav.attributes (tenant_id, name, data_type) VALUES (1, 'later', 'number')"
        )
        connection.execute("INSERT INTO eav.entities (tenant_id, entity_id) VALUES (1, 77)")
        assert scalar(connection, "SELECT eav.replay_rejected(1, 'unknown_attribute')") == 1
        assert scalar(connection, "SELECT eav.replay_rejected(2)") == 0
        assert scalar(connection, "SELECT eav.replay_rejected(1)") == 2
        assert scalar(connection, "SELECT eav.replay_rejected(1)") == 0
        assert flush(connection) == 3
    assert stored(database) == [5, 6]
    assert rejected(database) == {"out_of_range": 1}


def test_a_tenant_may_register_by_itself(database: Database) -> None:
    tenant = make_tenant(database, auto_register=True, attributes=())
    with database.session() as connection:
        copy(
            connection,
            [
                Row(None, 1, tenant.tenant_id, 500, attribute="speed", value_number=1),
                Row(None, 2, tenant.tenant_id, 501, attribute="speed", value_number=Decimal("2.5")),
                Row(None, 3, tenant.tenant_id, 501, attribute="speed", value_text="fast"),
                Row(None, 4, tenant.tenant_id, 501, attribute="state", value_text="on"),
                Row(None, 5, tenant.tenant_id, 501, attribute="ok", value_bool=True),
                Row(None, 6, tenant.tenant_id, 501, attribute="x" * 201, value_bool=True),
                Row(
                    None,
                    7,
                    tenant.tenant_id,
                    501,
                    attribute="ancient",
                    value_number=1,
                    observed_at=NOW - timedelta(days=900),
                ),
            ],
        )
        assert flush(connection) == 7
        types = dict(connection.execute("SELECT name, data_type FROM eav.attributes").fetchall())
        assert types == {"speed": "number", "state": "text", "ok": "boolean"}
        assert scalar(connection, "SELECT count(*) FROM eav.entities WHERE entity_id >= 500") == 2
    assert rejected(database) == {"wrong_type": 1, "unknown_attribute": 2}


def test_self_registration_stops_at_the_limit_of_the_tenant(database: Database) -> None:
    tenant = make_tenant(database, auto_register=True, attributes=())
    with database.session() as connection:
        connection.execute("UPDATE eav.tenants SET max_attributes = 5")
        for start in (0, 4):
            copy(
                connection,
                [
                    Row(None, n, tenant.tenant_id, 1, attribute=f"a{n}", value_number=n)
                    for n in range(start, start + 4)
                ],
            )
            assert flush(connection) == 4
        assert scalar(connection, "SELECT count(*) FROM eav.attributes") == 5
    assert rejected(database) == {"unknown_attribute": 3}


def test_two_flushers_may_register_the_same_things(database: Database) -> None:
    tenant = make_tenant(database, auto_register=True, attributes=())
    origins = [source(database, f"device-{n}") for n in range(2)]
    with database.session() as first, database.session() as second:
        for number, origin in enumerate(origins):
            rows = [
                Row(origin, n, tenant.tenant_id, n, attribute=f"a{n}", value_number=number * 100 + n)
                for n in range(50)
            ]
            copy(first, rows, origin)
        first.execute("BEGIN")
        taken = flush(first, 1)
        assert taken == 50
        moved: list[int] = []
        other = threading.Thread(target=lambda: moved.append(flush(second)))
        other.start()
        until(waits_for(database, second.info.backend_pid, first.info.backend_pid))
        first.execute("COMMIT")
        other.join()
        assert moved == [50]
    assert stored(database) == sorted([*range(50), *range(100, 150)])
    assert rejected(database) == {}


def test_a_partition_that_is_gone_rejects_its_values_instead_of_blocking(database: Database) -> None:
    tenant = make_tenant(database)
    with database.session() as connection:
        oldest = scalar(
            connection, "SELECT partition::text FROM ops.partition_bounds('eav.entity_values_ts') LIMIT 1"
        )
        connection.execute(f"DROP TABLE {oldest}".encode())
        start = scalar(connection, "SELECT starts_at FROM eav.value_window")
        copy(
            connection,
            [
                Row(None, 1, tenant.tenant_id, 1, tenant.attributes["cpu"], start, value_number=1),
                Row(None, 2, tenant.tenant_id, 1, tenant.attributes["cpu"], NOW, value_number=2),
            ],
        )
        assert flush(connection) == 2
    assert stored(database) == [2]
    assert rejected(database) == {"too_old": 1}


def test_without_a_partition_for_now_the_flush_makes_one(database: Database) -> None:
    tenant = make_tenant(database)
    with database.session() as connection:
        for (name,) in connection.execute(
            "SELECT partition::text FROM ops.partition_bounds('eav.entity_values_ts')"
            " WHERE ends_at > now() + interval '1 day'"
        ).fetchall():
            connection.execute(f"DROP TABLE {name}".encode())
        connection.execute("UPDATE eav.value_window SET ends_at = now()")
        copy(connection, numbered(tenant.tenant_id, tenant.attributes["cpu"], 1))
        assert flush(connection) == 1
        assert scalar(connection, "SELECT ends_at > now() + interval '3 days' FROM eav.value_window")
    assert stored(database) == [1]


def test_partition_maintenance_leaves_the_search_path_alone(database: Database) -> None:
    with database.session() as connection:
        connection.execute("SET search_path = ops, public")
        connection.execute("SELECT ops.maintain_partitions()")
        assert scalar(connection, "SHOW search_path") == "ops, public"


def test_one_broken_set_does_not_stop_the_others(database: Database) -> None:
    with database.session() as connection:
        connection.execute(
            "UPDATE partman.part_config SET partition_interval = 'nonsense'"
            " WHERE parent_table = 'eav.entity_values_rejected'"
        )
        for (name,) in connection.execute(
            "SELECT partition::text FROM ops.partition_bounds('eav.entity_values_ts')"
            " WHERE starts_at > now() + interval '2 days'"
        ).fetchall():
            connection.execute(f"DROP TABLE {name}".encode())
        assert scalar(connection, "SELECT ops.maintain_partitions()") > 0
        errors = dict(
            connection.execute(
                "SELECT parent_table, last_error IS NOT NULL FROM ops.partition_policies"
            ).fetchall()
        )
        assert errors == {"eav.entity_values_rejected": True, "eav.entity_values_ts": False}


def test_retention_drops_what_needs_no_archive_and_never_anything_else(database: Database) -> None:
    with database.session() as connection:
        connection.execute(
            "UPDATE ops.partition_policies SET archive_first = false"
            " WHERE parent_table = 'eav.entity_values_rejected'"
        )
        connection.execute(
            "CREATE TABLE eav.old_rejected PARTITION OF eav.entity_values_rejected"
            " FOR VALUES FROM ('2020-01-01') TO ('2020-02-01')"
        )
        connection.execute(
            "CREATE TABLE eav.old_values PARTITION OF eav.entity_values_ts"
            " FOR VALUES FROM ('2020-01-01') TO ('2020-02-01')"
        )
        due = connection.execute(
            "SELECT partition::text FROM ops.expiring_partitions() ORDER BY 1"
        ).fetchall()
        assert due == [("eav.old_rejected",), ("eav.old_values",)]
        assert scalar(connection, "SELECT ops.expire_partitions()") == 1
        assert scalar(connection, "SELECT to_regclass('eav.old_rejected')") is None
        assert scalar(connection, "SELECT to_regclass('eav.old_values')") is not None
        assert scalar(connection, "SELECT ops.expire_partitions()") == 0


@pytest.mark.parametrize(
    ("version", "kind"), [("4.7.2", "native"), ("5.0.1", "range"), ("5.2.4", "range"), ("10.0.0", "range")]
)
def test_the_call_fits_the_version_of_partman(database: Database, version: str, kind: str) -> None:
    call = database.one(
        "SELECT ops.partman_create_call(%s, 'eav.t', 'at', interval '1 month', 4, '2026-11-01 00:00+00')",
        version,
    )
    assert f"p_type := '{kind}'" in call
    assert "p_interval := '1 mon'" in call
    assert ("p_default_table := false" in call) is (kind == "range")


def test_pruning_keeps_the_latest_checkpoint_and_marker(database: Database) -> None:
    tenant = make_tenant(database)
    origin = source(database)
    with database.session() as connection:
        for number in range(1, 6):
            copy(
                connection,
                numbered(tenant.tenant_id, tenant.attributes["cpu"], number, source_id=origin),
                origin,
            )
            copy(connection, numbered(tenant.tenant_id, tenant.attributes["cpu"], 100 + number))
            drain(connection)
        assert scalar(connection, "SELECT ops.prune_ingest()") > 0
        assert scalar(connection, "SELECT ops.prune_ingest()") == 0
        assert scalar(connection, "SELECT position FROM eav.ingest_checkpoint") == 5
        assert flush(connection) == 0
    assert stored(database) == [1, 2, 3, 4, 5, 101, 102, 103, 104, 105]
