"""Values and callers that could stop, deadlock or mislead the flush: each did once."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta

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


def test_staging_copied_from_another_server_is_refused_until_it_is_adopted(database: Database) -> None:
    """A restored dump brings markers whose transaction ids the new server has not reached."""
    tenant = make_tenant(database)
    cpu = tenant.attributes["cpu"]
    origin = source(database)
    with database.session() as connection:
        copy(connection, [Row(None, 1, tenant.tenant_id, 1, cpu, value_number=1)])
        assert flush(connection) == 1
        for table, lane in (("staging_progress", 1), ("staging_progress_durable", 0)):
            connection.execute(
                f"INSERT INTO eav.{table} (lane, through, except_for, emptied_at)"
                " VALUES (%s, '999999999999', '{}', now())".encode(),
                (lane,),
            )
        copy(connection, [Row(None, 2, tenant.tenant_id, 1, cpu, value_number=2)])
        copy(connection, [Row(origin, 3, tenant.tenant_id, 1, cpu, value_number=3)], origin)
        with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="copied from another server"):
            flush(connection)
        assert scalar(connection, "SELECT eav.adopt_staging()") == 1
        assert drain(connection) == 1
        # the replayable source starts again behind its checkpoint, as after a crash
        assert scalar(connection, "SELECT eav.ingest_position('events.ndjson')") == 0
    assert stored(database) == [1, 2]


def test_a_value_that_no_check_foresaw_is_quarantined_and_stops_nobody(database: Database) -> None:
    tenant = make_tenant(database)
    load = tenant.attributes["load"]
    with database.session() as connection:
        connection.execute(
            "CREATE FUNCTION public.unforeseen() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
            " IF new.value_number = 666 THEN RAISE program_limit_exceeded USING MESSAGE = 'too much'; END IF;"
            " RETURN new; END $$;"
            "CREATE TRIGGER unforeseen BEFORE INSERT ON eav.entity_values_ts"
            " FOR EACH ROW EXECUTE FUNCTION public.unforeseen()"
        )
        for batch in ((1, 2), (3, 666, 4), (5,)):
            copy(connection, [Row(None, n, tenant.tenant_id, 1, load, value_number=n) for n in batch])
        other = source(database)
        copy(connection, [Row(other, 9, tenant.tenant_id, 1, load, value_number=9)], other)
        assert drain(connection) == 7
        assert scalar(connection, "SELECT position FROM eav.ingest_checkpoint") == 9
    assert stored(database) == [1, 2, 5, 9]
    assert rejected(database) == {"quarantined": 3}


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (Row(attribute="hot", value_text="x" * 4097), "out_of_range"),
        (Row(attribute="enum", value_text="x" * 4097), "out_of_range"),
        (Row(attribute="when", value_text="2026-11-21T00:00:00Z" + " " * 100_000), "wrong_type"),
    ],
)
def test_a_text_too_long_for_its_purpose_is_rejected(database: Database, row: Row, reason: str) -> None:
    make_tenant(
        database,
        attributes=(
            ("hot", "text", True, "{}"),
            ("enum", "text", False, '{"enum": ["a"]}'),
            ("when", "timestamp", False, "{}"),
        ),
    )
    with database.session() as connection:
        copy(connection, [row])
        assert flush(connection) == 1
    assert rejected(database) == {reason: 1}


def test_a_reason_of_any_length_is_kept_short(database: Database) -> None:
    with database.session() as connection:
        reason = "".join(chr(33 + (n * 7919) % 90) for n in range(6000))
        copy(connection, [Row(None, None, None, None, reason=reason, raw=b"x")])
        assert flush(connection) == 1
    assert database.one("SELECT length(reason) FROM eav.entity_values_rejected") == 100


@pytest.mark.parametrize("when", ["infinity", "-infinity", "4713-01-01 00:00:00+00 BC"])
def test_a_time_that_json_cannot_say_is_rejected(database: Database, when: str) -> None:
    tenant = make_tenant(database, attributes=(("when", "timestamp", True, "{}"),))
    with database.session() as connection:
        connection.execute(
            "INSERT INTO eav.staging_0_0 (tenant_id, entity_id, attribute_id, observed_at, value_time)"
            " VALUES (%s, 1, %s, now(), %s)",
            (tenant.tenant_id, tenant.attributes["when"], when),
        )
        assert flush(connection) == 1
    assert rejected(database) == {"out_of_range": 1}


def test_flushers_with_values_by_id_and_by_name_do_not_deadlock(database: Database) -> None:
    tenant = make_tenant(database)
    cpu = tenant.attributes["cpu"]
    origins = [source(database, f"device-{n}") for n in range(2)]
    with database.session() as connection:
        connection.execute(
            "INSERT INTO eav.entities (tenant_id, entity_id) SELECT %s, generate_series(11, 400)",
            (tenant.tenant_id,),
        )
        errors: list[BaseException] = []
        for turn in range(5):
            for number, origin in enumerate(origins):
                copy(
                    connection,
                    [
                        Row(
                            origin, None, tenant.tenant_id, entity,
                            cpu if (entity <= 200) == (number == 0) else None,
                            NOW + timedelta(seconds=turn * 2 + number),
                            value_number=turn,
                            attribute=None if (entity <= 200) == (number == 0) else "cpu",
                        )
                        for entity in range(1, 401)
                    ],
                    origin,
                )  # fmt: skip

            def work() -> None:
                try:
                    with database.session() as own:
                        flush(own, 1)
                except psycopg.Error as error:
                    errors.append(error)

            threads = [threading.Thread(target=work) for _ in range(2)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        assert not errors
        drain(connection)
        assert scalar(connection, "SELECT count(*) FROM eav.entity_values_ts") == 4000


def test_a_short_lane_does_not_wait_for_the_backlog_of_another(database: Database) -> None:
    tenant = make_tenant(database)
    load = tenant.attributes["load"]
    origins = [source(database, f"device-{n}") for n in range(4)]
    with database.session() as connection:
        for number, origin in enumerate(origins[:3]):
            for start in (0, 20000):
                copy_big(connection, tenant.tenant_id, load, number * 100_000 + start, origin)
        copy(connection, [Row(None, None, tenant.tenant_id, 1, load, value_number=-1)])
        copy(connection, [Row(origins[3], 1, tenant.tenant_id, 1, load, value_number=-2)], origins[3])
        flush(connection, 10_000)
        assert stored(database)[:2] == [-2, -1]
        drain(connection)
    assert len(stored(database)) == 120_002


def check_turn_of_a_backlog(database: Database) -> None:
    """A long lane is flushed once a second, though short ones hold all that a flush may move."""
    tenant = make_tenant(database)
    load = tenant.attributes["load"]
    long, short = (source(database, f"device-{n}") for n in range(2))
    with database.session() as connection:
        copy_big(connection, tenant.tenant_id, load, 100_000, long)
        for number in range(1, 101):
            copy(connection, [Row(short, number, tenant.tenant_id, 1, load, value_number=-number)], short)
        # Of the long one at least a transaction, which is all of it.
        assert 20_000 < flush(connection, 50) <= 20_050
        # It had its turn just now.
        copy_big(connection, tenant.tenant_id, load, 200_000, long)
        connection.execute("UPDATE eav.staging_progress SET flushed_at = now() + interval '1 hour'")
        assert flush(connection, 50) == 50


def test_a_backlog_has_its_turn_however_much_is_in_short_lanes(database: Database) -> None:
    check_turn_of_a_backlog(database)


def test_the_largest_limit_is_a_limit(database: Database) -> None:
    with database.session() as connection:
        assert flush(connection, 2_147_483_647) == 0
        copy(connection, [Row(attribute="x", value_number=1)])
        assert flush(connection, 2_147_483_647) == 1


def test_a_transaction_that_wrote_something_keeps_its_synchronous_commit(database: Database) -> None:
    with database.session() as connection:
        connection.execute("BEGIN")
        connection.execute("SELECT pg_current_xact_id()")
        flush(connection)
        assert scalar(connection, "SHOW synchronous_commit") == "on"
        connection.execute("ROLLBACK")
        connection.execute("BEGIN")
        flush(connection)
        assert scalar(connection, "SHOW synchronous_commit") == "off"
        connection.execute("COMMIT")
        assert scalar(connection, "SHOW synchronous_commit") == "on"


def test_of_two_first_fingerprints_one_wins_and_the_other_is_refused(database: Database) -> None:
    origin = source(database)
    with database.session() as first, database.session() as second:
        first.execute("BEGIN")
        assert scalar(first, "SELECT eav.ingest_source('events.ndjson', '0', false, '3:aaa')") == origin
        outcome: list[object] = []

        def register() -> None:
            try:
                outcome.append(
                    scalar(second, "SELECT eav.ingest_source('events.ndjson', '0', false, '3:bbb')")
                )
            except psycopg.Error as error:
                outcome.append(error.sqlstate)

        other = threading.Thread(target=register)
        other.start()
        until(waits_for(database, second.info.backend_pid, first.info.backend_pid))
        first.execute("COMMIT")
        other.join()
        assert outcome == ["EAV01"]


def test_a_replayable_source_does_not_become_durable_by_asking(database: Database) -> None:
    source(database)
    with (
        database.session() as connection,
        pytest.raises(psycopg.errors.InvalidParameterValue, match="replayed"),
    ):
        connection.execute("SELECT eav.ingest_source('events.ndjson', '0', true)")


def test_an_attribute_is_not_dropped_under_an_older_snapshot(database: Database) -> None:
    tenant = make_tenant(database)
    with database.session() as connection:
        connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        with pytest.raises(psycopg.errors.InvalidTransactionState, match="READ COMMITTED only"):
            connection.execute(
                "DELETE FROM eav.attributes WHERE attribute_id = %s", (tenant.attributes["load"],)
            )


def test_rejected_values_register_no_entities(database: Database) -> None:
    tenant = make_tenant(database, auto_register=True)
    with database.session() as connection:
        copy(
            connection,
            [
                Row(
                    None,
                    None,
                    tenant.tenant_id,
                    entity,
                    tenant.attributes["cpu"],
                    datetime(1999, 1, 1, tzinfo=UTC),
                    1,
                )
                for entity in range(100, 105)
            ],
        )
        assert flush(connection) == 5
        assert scalar(connection, "SELECT count(*) FROM eav.entities WHERE entity_id >= 100") == 0


def test_values_rejected_without_a_tenant_can_be_replayed(database: Database) -> None:
    with database.session() as connection:
        copy(connection, [Row(None, None, None, 1, attribute="cpu", value_number=1)])
        assert flush(connection) == 1
        assert scalar(connection, "SELECT eav.replay_rejected(NULL)") == 1
        assert flush(connection) == 1


@pytest.mark.parametrize(
    ("attrs", "at", "said"),
    [
        ('{"cpu": "high"}', NOW, "cpu is refused: wrong_type"),
        ('{"cpu": true}', NOW, "cpu is refused: wrong_type"),
        ('{"cpu": 1}', NOW + minutes(60), "in the future"),
    ],
)
def test_upsert_hot_attrs_checks_type_and_time(
    database: Database, attrs: str, at: datetime, said: str
) -> None:
    tenant = make_tenant(database)
    with database.session() as connection, pytest.raises(psycopg.errors.InvalidParameterValue, match=said):
        connection.execute("SELECT eav.upsert_hot_attrs(%s, 1, %s, %s)", (tenant.tenant_id, attrs, at))


def test_reconcile_locks_nothing_that_is_right(database: Database) -> None:
    tenant = make_tenant(database)
    cpu = tenant.attributes["cpu"]
    with database.session() as reconciler, database.session() as flusher:
        copy(flusher, [Row(None, None, tenant.tenant_id, 1, cpu, value_number=1)])
        flush(flusher)
        reconciler.execute("BEGIN")
        assert scalar(reconciler, "SELECT eav.reconcile_hot_attrs()") == 0
        copy(flusher, [Row(None, None, tenant.tenant_id, 1, cpu, NOW + minutes(1), value_number=2)])
        flusher.execute("SET lock_timeout = '5s'")
        assert flush(flusher) == 1
        reconciler.execute("COMMIT")


def test_a_first_batch_by_name_is_not_joined_row_by_row(database: Database) -> None:
    """Without statistics the planner took the exceptions for a handful: four minutes for 40 000 of them."""
    tenant = make_tenant(database, auto_register=True, attributes=())
    with database.session() as connection:
        connection.execute(
            "INSERT INTO eav.staging_0_0 (tenant_id, entity_id, attribute, observed_at, value_number)"
            " SELECT %s, n %% 1000, 'a' || n %% 50, now(), n FROM generate_series(1, 40000) AS n",
            (tenant.tenant_id,),
        )
        connection.execute("SET statement_timeout = '90s'")
        assert flush(connection) == 40_000
        assert scalar(connection, "SELECT count(*) FROM eav.attributes") == 50
    assert rejected(database) == {}


def big_catalogue(connection: Connection, tenant_id: int, attributes: int) -> int:
    """So many numbers with long names, so that reading all is dearer than looking one up; returns the first id."""
    connection.execute("SET session_replication_role = replica")
    first = scalar(
        connection,
        "WITH made AS ("
        " INSERT INTO eav.attributes (tenant_id, name, data_type)"
        " SELECT %s, repeat('a', 150) || n, 'number' FROM generate_series(1, %s::integer) AS n"
        " RETURNING attribute_id"
        ") SELECT min(attribute_id) FROM made",
        tenant_id,
        attributes,
    )
    connection.execute("RESET session_replication_role")
    connection.execute("ANALYZE eav.attributes")
    return int(first)


@pytest.mark.parametrize(("rows", "reads_all"), [(400, False), (4000, True)])
def test_the_catalogue_is_read_if_that_is_cheaper_than_looking_up(
    database: Database, rows: int, reads_all: bool
) -> None:
    tenant = make_tenant(database)
    with database.session() as connection:
        first = big_catalogue(connection, tenant.tenant_id, 3000)
        copy(
            connection,
            [
                Row(None, None, tenant.tenant_id, 1, first + number % 3000, value_number=number)
                for number in range(rows)
            ],
        )
        connection.execute("BEGIN")
        assert flush(connection) == rows
        scans = scalar(
            connection,
            "SELECT seq_scan FROM pg_stat_xact_user_tables WHERE relid = 'eav.attributes'::regclass",
        )
        connection.execute("COMMIT")
    assert scans == int(reads_all)


def test_exceptions_beside_a_big_catalogue_are_not_compared_one_by_one(database: Database) -> None:
    """Where attributes are looked up one by one, 20 000 rows and 20 000 exceptions were too: 400 M comparisons."""
    tenant = make_tenant(database)
    with database.session() as connection:
        big_catalogue(connection, tenant.tenant_id, 30_000)
        assert scalar(connection, "SELECT pg_relation_size('eav.attributes')") > 300 * 20_000
        connection.execute(
            "INSERT INTO eav.staging_0_0 (tenant_id, entity_id, attribute_id, observed_at, value_text)"
            " SELECT %s, 1, %s, now(), n FROM generate_series(1, 20000) AS n",
            (tenant.tenant_id, tenant.attributes["load"]),
        )
        connection.execute("SET statement_timeout = '15s'")
        assert flush(connection) == 20_000
    assert rejected(database) == {"wrong_type": 20_000}


SETTINGS = ("enable_hashjoin", "enable_nestloop", "enable_sort", "lock_timeout", "synchronous_commit", "jit")


def test_a_flush_leaves_the_settings_of_its_session_alone(database: Database) -> None:
    tenant = make_tenant(database, auto_register=True)
    with database.session() as connection, database.session() as other:
        big_catalogue(connection, tenant.tenant_id, 1000)
        connection.execute("SET lock_timeout = '3s'")
        connection.execute("SET enable_nestloop = off")
        # A transaction that has written keeps its synchronous_commit, too.
        connection.execute("BEGIN")
        connection.execute("SELECT pg_current_xact_id()")
        before = [scalar(connection, f"SHOW {name}") for name in SETTINGS]

        def after() -> list[str]:
            return [scalar(connection, f"SHOW {name}") for name in SETTINGS]

        load = tenant.attributes["load"]
        for row in (
            Row(None, None, tenant.tenant_id, 1, load, value_number=1),
            Row(None, None, tenant.tenant_id, 1, tenant.attributes["cpu"], value_number=1),
            Row(None, None, tenant.tenant_id, 77, attribute="new", value_number=1),
            Row(None, None, tenant.tenant_id, 1, load, value_text="no number"),
        ):
            copy(other, [row])
            assert flush(connection) == 1
            assert after() == before
        connection.execute("COMMIT")
        with database.session() as holder:
            holder.execute("BEGIN")
            for lane in range(5):
                holder.execute("SELECT pg_advisory_xact_lock(6644086, %s)", (lane,))
            copy(other, [Row(None, None, tenant.tenant_id, 1, load, value_number=2)])
            connection.execute("BEGIN")
            connection.execute("SELECT pg_current_xact_id()")
            assert flush(connection) == 0  # it waited in vain
            assert after() == before
            connection.execute("COMMIT")


def test_an_enormous_transaction_is_flushed_without_a_list_of_its_hot_rows(database: Database) -> None:
    tenant = make_tenant(database, auto_register=True)
    cpu, load = tenant.attributes["cpu"], tenant.attributes["load"]
    path = ROOT / "sql" / "functions" / "eav" / "flush_lanes.v1.sql"
    text = path.read_text()
    assert text.count("c_places CONSTANT bigint := 1000000;") == 1
    with database.session() as connection:
        connection.execute(
            text.replace("c_places CONSTANT bigint := 1000000;", "c_places CONSTANT bigint := 3;").encode()
        )
        copy(
            connection,
            [
                Row(None, None, tenant.tenant_id, 1, cpu, NOW, value_number=1),
                Row(None, None, tenant.tenant_id, 1, cpu, NOW + minutes(1), value_text="no number"),
                Row(None, None, tenant.tenant_id, 2, load, NOW, value_number=2),
                Row(None, None, tenant.tenant_id, 77, cpu, NOW, value_number=3),
                Row(None, None, tenant.tenant_id, 3, None, NOW, attribute="cpu", value_number=4),
            ],
        )
        assert flush(connection) == 5
        assert connection.execute(
            "SELECT entity_id, (hot_attrs || hot_volatile)->'cpu' FROM eav.entity_jsonb ORDER BY entity_id"
        ).fetchall() == [(1, 1), (3, 4), (77, 3)]
    assert stored(database) == [1, 2, 3, 4]
    assert rejected(database) == {"wrong_type": 1}
