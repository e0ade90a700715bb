"""Attributes that turn hot, cold or volatile while writes go on, and the safety net."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.conftest import Connection, Database
from tests.sql.staging import NOW, Row, Tenant, copy, drain, flush, make_tenant, minutes, scalar

STEP = "SELECT eav.backfill_hot()"


def work(connection: Connection) -> int:
    """Step after step until the queue is empty; how many."""
    steps = 0
    while scalar(connection, STEP) is not None:
        steps += 1
    return steps


def switch(connection: Connection, tenant: Tenant, name: str, **columns: bool) -> None:
    for column, value in columns.items():
        connection.execute(
            f"UPDATE eav.attributes SET {column} = %s WHERE attribute_id = %s".encode(),
            (value, tenant.attributes[name]),
        )


def rows(connection: Connection) -> dict[int, tuple[dict[str, Any], dict[str, Any], set[str]]]:
    """Tags, volatile values and the names that have a time, by entity."""
    return {
        entity: (tags, volatile, set(times))
        for entity, tags, volatile, times in connection.execute(
            "SELECT entity_id, hot_attrs, hot_volatile, hot_times FROM eav.entity_jsonb"
        )
    }


def value(tenant: Tenant, name: str, entity: int, number: float, back: timedelta = timedelta(0)) -> Row:
    return Row(None, None, tenant.tenant_id, entity, tenant.attributes[name], NOW - back, value_number=number)


def history(connection: Connection, tenant: Tenant) -> None:
    """Values of `load` over two days, the newest of entity n at n hours ago, is n."""
    copy(
        connection,
        [
            value(tenant, "load", entity, number, timedelta(hours=entity * 4) + back)
            for entity in range(1, 11)
            for number, back in ((entity, timedelta(0)), (99, timedelta(minutes=5)), (98, timedelta(hours=3)))
        ],
    )
    drain(connection)


@pytest.fixture
def past(database: Database) -> Database:
    """With partitions for the last days, as a database has that is not of today."""
    with database.session() as connection:
        for day in range(1, 6):
            start = (NOW - timedelta(days=day)).date()
            there = scalar(
                connection,
                "SELECT EXISTS (SELECT FROM ops.partition_bounds('eav.entity_values_ts')"
                " WHERE %s::timestamptz BETWEEN starts_at AND ends_at)",
                f"{start} 12:00+00",
            )
            if not there:
                connection.execute(
                    f"CREATE TABLE eav.past_{day} PARTITION OF eav.entity_values_ts"
                    f" FOR VALUES FROM ('{start} 00:00+00') TO ('{start + timedelta(days=1)} 00:00+00')".encode()
                )
        connection.execute("SELECT ops.refresh_value_window()")
    return database


@pytest.mark.parametrize("volatile", [False, True])
def test_what_turns_hot_gets_the_newest_of_all_history(past: Database, volatile: bool) -> None:
    tenant = make_tenant(past)
    with past.session() as connection:
        history(connection, tenant)
        assert rows(connection) == {}
        connection.execute("SELECT eav.retire_attribute(%s)", (tenant.attributes["load"],))
        switch(connection, tenant, "load", is_volatile=volatile, is_hot=True)
        work(connection)
        expected = {"load": 0}
        for entity, (tags, changing, times) in rows(connection).items():
            expected["load"] = entity
            assert (tags, changing) == (({}, expected) if volatile else (expected, {}))
            assert times == {"load"}
        assert len(rows(connection)) == 10
        ((share, finished, done),) = connection.execute(
            "SELECT share_done, finished_at IS NOT NULL, entities_done FROM eav.hot_backfill"
        ).fetchall()
        assert (share, finished) == (1, True)
        assert done >= 10


def test_what_is_newer_comes_first_and_can_be_seen_coming(past: Database) -> None:
    tenant = make_tenant(past)
    with past.session() as connection:
        history(connection, tenant)
        switch(connection, tenant, "load", is_hot=True)
        shares, sizes = [], []
        while scalar(connection, STEP) is not None:
            ((share, expected_at),) = connection.execute(
                "SELECT share_done, expected_at FROM eav.hot_backfill WHERE tidied_at IS NOT NULL"
                " UNION ALL SELECT 0, NULL LIMIT 1"
            ).fetchall()
            shares.append(share)
            found = sorted(rows(connection))
            assert found == list(range(1, len(found) + 1))
            sizes.append(len(found))
            assert expected_at is not None or share == 0
        assert shares == sorted(shares)
        assert shares[-1] == 1
        assert len(set(sizes)) > 2, "one step did it all: nothing is shown"


def test_a_runner_that_is_killed_half_way_is_gone_on_from(past: Database) -> None:
    tenant = make_tenant(past)
    with past.session() as connection:
        history(connection, tenant)
        switch(connection, tenant, "load", is_hot=True)
        until = "SELECT done_until, started_at, tidied_at FROM eav.hot_backfill"
        while not rows(connection):
            scalar(connection, STEP)
        before, had = connection.execute(until).fetchall(), rows(connection)
        with past.session() as runner:
            runner.execute("BEGIN")
            scalar(runner, STEP)
            connection.execute("SELECT pg_terminate_backend(%s)", (runner.info.backend_pid,))
            with pytest.raises(psycopg.OperationalError):
                runner.execute("COMMIT")
        assert connection.execute(until).fetchall() == before
        assert rows(connection) == had
        work(connection)
        assert {entity: tags["load"] for entity, (tags, _, _) in rows(connection).items()} == {
            entity: entity for entity in range(1, 11)
        }


def test_two_runners_take_different_attributes(past: Database) -> None:
    tenant = make_tenant(past, attributes=(("load", "number", False, "{}"), ("cpu", "number", False, "{}")))
    with past.session() as first, past.session() as second:
        switch(first, tenant, "load", is_hot=True)
        switch(first, tenant, "cpu", is_hot=True)
        for _ in range(2):  # past the barrier, which waits for everybody
            scalar(first, STEP)
        first.execute("BEGIN")
        second.execute("BEGIN")
        assert scalar(first, STEP) == 0
        assert scalar(second, STEP) == 0
        with past.session() as third:
            assert scalar(third, STEP) is None
        first.execute("COMMIT")
        second.execute("COMMIT")
        work(first)
        assert scalar(first, "SELECT count(*) FROM eav.hot_backfill WHERE finished_at IS NULL") == 0


@pytest.mark.parametrize("volatile", [False, True])
def test_what_turns_cold_is_taken_out(past: Database, volatile: bool) -> None:
    tenant = make_tenant(past, attributes=(("load", "number", True, "{}"), ("cpu", "number", True, "{}")))
    with past.session() as connection:
        switch(connection, tenant, "load", is_volatile=volatile)
        work(connection)
        copy(
            connection,
            [value(tenant, "load", n, n) for n in (1, 2)] + [value(tenant, "cpu", 2, 7, minutes(1))],
        )
        drain(connection)
        switch(connection, tenant, "load", is_hot=False)
        work(connection)
        assert rows(connection) == {2: ({"cpu": 7}, {}, {"cpu"})}
        assert scalar(connection, "SELECT observed_at FROM eav.entity_jsonb") == NOW - minutes(1)


def check_flush_under_way(database: Database, **after: bool) -> dict[int, Any]:
    """A flush that goes by what the attribute was ends after it was switched and the queue was asked for work."""
    tenant = make_tenant(database)
    with database.session() as flusher, database.session() as runner:
        copy(runner, [value(tenant, "cpu", 1, 1)])
        drain(runner)
        copy(runner, [value(tenant, "cpu", 2, 2)])
        flusher.execute("BEGIN")
        assert flush(flusher) == 1
        switch(runner, tenant, "cpu", **after)
        for _ in range(2):
            scalar(runner, STEP)  # gives up waiting for the flush, once a step
        flusher.execute("COMMIT")
        work(runner)
        return rows(runner)


def test_a_flush_under_way_does_not_bring_a_cold_value_back(database: Database) -> None:
    assert check_flush_under_way(database, is_hot=False) == {}


def test_a_flush_under_way_does_not_leave_a_value_in_the_wrong_column(database: Database) -> None:
    assert check_flush_under_way(database, is_volatile=True) == {n: ({}, {"cpu": n}, {"cpu"}) for n in (1, 2)}


def test_without_the_barrier_a_cold_value_comes_back(database: Database) -> None:
    with database.session() as connection:
        connection.execute(
            "CREATE OR REPLACE FUNCTION eav.lock_catalog(p_exclusive boolean) RETURNS void LANGUAGE sql AS 'SELECT'"
        )
    assert check_flush_under_way(database, is_hot=False) != {}


MOVES = st.lists(
    st.one_of(
        st.tuples(st.just("value"), st.integers(1, 3), st.integers(-5, 5), st.integers(0, 3)),
        st.tuples(st.just("flush")),
        st.tuples(st.just("step")),
        st.tuples(st.just("hot"), st.booleans()),
        st.tuples(st.just("volatile"), st.booleans()),
        st.tuples(st.just("reconcile")),
    ),
    min_size=1,
    max_size=30,
)


@pytest.fixture
def live(database: Database) -> Iterator[tuple[Database, Connection]]:
    with database.session() as connection:
        yield database, connection


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(moves=MOVES)
def test_any_order_of_values_switches_and_steps_ends_right(
    live: tuple[Database, Connection], moves: list[tuple[Any, ...]]
) -> None:
    database, connection = live
    number = database.one("SELECT count(*) FROM eav.tenants")
    tenant = make_tenant(database, f"tenant-{number}", attributes=(("cpu", "number", True, "{}"),))
    newest: dict[int, tuple[int, int]] = {}
    is_hot, is_volatile = True, False
    for move, *what in moves:
        if move == "value":
            entity, at, reading = what
            copy(connection, [value(tenant, "cpu", entity, reading, -minutes(at) + minutes(6))])
            newest[entity] = max(newest.get(entity, (at, reading)), (at, reading))
        elif move == "flush":
            drain(connection)
        elif move == "step":
            scalar(connection, STEP)
        elif move == "hot":
            is_hot = what[0]
            switch(connection, tenant, "cpu", is_hot=is_hot)
        elif move == "volatile":
            is_volatile = what[0]
            switch(connection, tenant, "cpu", is_volatile=is_volatile)
        else:
            scalar(connection, "SELECT eav.reconcile_hot_portion()")
    drain(connection)
    work(connection)
    expected = {
        entity: (*(({}, kept) if is_volatile else (kept, {})), {"cpu"})
        for entity, (_, reading) in newest.items()
        if (kept := {"cpu": reading}) and is_hot
    }
    found = {
        entity: (tags, volatile, set(times))
        for entity, tags, volatile, times in connection.execute(
            "SELECT entity_id, hot_attrs, hot_volatile, hot_times FROM eav.entity_jsonb WHERE tenant_id = %s",
            (tenant.tenant_id,),
        )
    }
    assert found == expected
    assert scalar(connection, "SELECT eav.reconcile_hot_attrs(now() - interval '1 hour')") == 0


def test_values_that_come_in_meanwhile_are_all_there_and_seen(database: Database) -> None:
    """A flusher and a reader beside a runner, while the attribute goes from column to column."""
    tenant = make_tenant(database)
    stop = threading.Event()
    gone: list[Any] = []
    last = 0

    def read() -> None:
        with database.session("eav_app") as reader:
            reader.execute("SELECT set_config('app.tenant_id', %s, false)", (str(tenant.tenant_id),))
            while not stop.is_set():
                seen = reader.execute(
                    """SELECT entity_id FROM eav.find_entities('{"cpu": {"gte": 0}}')"""
                ).fetchall()
                if len(seen) != 10:
                    gone.append(seen)

    with database.session() as connection, database.session() as runner:
        copy(connection, [value(tenant, "cpu", n, 0, minutes(5)) for n in range(1, 11)])
        drain(connection)
        reader = threading.Thread(target=read)
        reader.start()
        try:
            for turn in range(6):
                switch(connection, tenant, "cpu", is_volatile=turn % 2 == 0)
                working = threading.Thread(target=work, args=(runner,))
                working.start()
                while working.is_alive():
                    last += 1
                    copy(
                        connection,
                        [
                            value(tenant, "cpu", n, last, minutes(4) - timedelta(milliseconds=last))
                            for n in range(1, 11)
                        ],
                    )
                    drain(connection)
                working.join()
        finally:
            stop.set()
            reader.join()
        assert gone == []
        assert rows(connection) == {n: ({"cpu": last}, {}, {"cpu"}) for n in range(1, 11)}


def test_volatile_values_are_updated_without_touching_an_index(database: Database) -> None:
    tenant = make_tenant(database)
    with database.session() as connection:
        switch(connection, tenant, "cpu", is_volatile=True)
        work(connection)
        for turn in range(5):
            copy(connection, [value(tenant, "cpu", n, turn, -timedelta(seconds=turn)) for n in range(1, 11)])
            drain(connection)
        connection.execute("SELECT pg_stat_force_next_flush()")
        ((updated, hot),) = connection.execute(
            "SELECT sum(n_tup_upd), sum(n_tup_hot_upd) FROM pg_stat_user_tables"
            " WHERE relname LIKE 'entity\\_jsonb\\_p%'"
        ).fetchall()
        assert (updated, hot) == (40, 40)


def test_the_safety_net_mends_what_is_missing_stale_or_should_not_be_there(database: Database) -> None:
    tenant = make_tenant(
        database,
        attributes=(
            ("cpu", "number", True, "{}"),
            ("load", "number", False, "{}"),
            ("hum", "number", True, "{}"),
        ),
    )
    with database.session() as connection:
        switch(connection, tenant, "hum", is_volatile=True)
        work(connection)
        copy(connection, [value(tenant, name, n, n) for n in range(1, 6) for name in ("cpu", "hum", "load")])
        drain(connection)
        right = rows(connection)
        assert right[3] == ({"cpu": 3}, {"hum": 3}, {"cpu", "hum"})
        micros = scalar(connection, "SELECT hot_times -> 'cpu' FROM eav.entity_jsonb WHERE entity_id = 1")
        for entity, tags, volatile, times in (
            (1, {}, {"hum": 1}, {"hum": micros}),  # missing
            (2, {"cpu": 0}, {"hum": 2}, {"cpu": 0, "hum": micros}),  # stale
            (3, {"cpu": 3, "load": 9}, {"hum": 3, "gone": 1}, {"cpu": micros, "hum": micros, "load": 1}),
            (4, {"cpu": 4, "hum": 4}, {}, {"cpu": micros, "hum": micros}),  # in the wrong column
        ):
            connection.execute(
                "UPDATE eav.entity_jsonb SET hot_attrs = %s, hot_volatile = %s, hot_times = %s WHERE entity_id = %s",
                (json.dumps(tags), json.dumps(volatile), json.dumps(times), entity),
            )
        assert scalar(connection, "SELECT eav.reconcile_hot_attrs()") == 4
        assert rows(connection) == right
        assert scalar(connection, "SELECT eav.reconcile_hot_attrs()") == 0


def test_a_round_of_the_safety_net_is_committed_in_portions(database: Database) -> None:
    tenants = [make_tenant(database, f"tenant-{n}") for n in range(3)]
    with database.session() as connection:
        copy(connection, [value(tenant, "cpu", n, n) for tenant in tenants for n in (1, 2)])
        drain(connection)
        connection.execute("DELETE FROM eav.entity_jsonb")
        portion = "SELECT eav.reconcile_hot_portion(NULL, interval '1 microsecond')"
        corrected: list[int] = []
        while (count := scalar(connection, portion)) is not None:
            corrected.append(count)
        assert sum(corrected) == 6
        assert len(corrected) > 6, "one step a call"
        assert scalar(connection, "SELECT corrected FROM eav.hot_reconcile") == 6
        assert scalar(connection, portion) == 0  # another round
