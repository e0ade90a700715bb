"""entity_jsonb: the latest event wins, in whatever order events arrive (invariant 4)."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.conftest import Connection, Database
from tests.jobs.waiting import until, waits_for
from tests.sql.staging import NOW, Row, Tenant, copy, drain, flush, make_tenant, minutes, scalar


def hot(connection: Connection, tenant_id: int) -> dict[int, dict[str, object]]:
    return dict(
        connection.execute(
            "SELECT entity_id, hot_attrs FROM eav.entity_jsonb WHERE tenant_id = %s", (tenant_id,)
        ).fetchall()
    )


def check_late_value(database: Database) -> None:
    """An older value that arrives late does not replace a newer one; a newer one does."""
    tenant = make_tenant(database)
    cpu = tenant.attributes["cpu"]
    with database.session() as connection:
        for at, number, expected in (
            (NOW, 5, 5),
            (NOW - minutes(1), 99, 5),
            (NOW, 4, 5),  # of the same moment: the greater, so that order does not matter
            (NOW, 6, 6),
            (NOW + minutes(1), 1, 1),
        ):
            copy(connection, [Row(None, None, tenant.tenant_id, 1, cpu, at, value_number=number)])
            assert flush(connection) == 1
            assert hot(connection, tenant.tenant_id) == {1: {"cpu": expected}}
    assert database.one("SELECT count(*) FROM eav.entity_values_ts") == 5


def test_a_late_value_does_not_replace_a_newer_one(database: Database) -> None:
    check_late_value(database)


Event = tuple[int, str, int, int]
EVENTS = st.lists(
    st.tuples(st.integers(1, 3), st.sampled_from(["cpu", "mem"]), st.integers(-4, 4), st.integers(0, 3)),
    min_size=1,
    max_size=25,
)


@pytest.fixture
def property_session(database: Database) -> Iterator[tuple[Database, Connection]]:
    with database.session() as connection:
        yield database, connection


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    events=EVENTS, cuts=st.sets(st.integers(0, 25)), flushed=st.lists(st.booleans(), min_size=26, max_size=26)
)
def test_any_order_of_events_and_flushes_ends_in_the_same_state(
    property_session: tuple[Database, Connection], events: list[Event], cuts: set[int], flushed: list[bool]
) -> None:
    database, connection = property_session
    number = database.one("SELECT count(*) FROM eav.tenants")
    tenant = make_tenant(
        database,
        f"tenant-{number}",
        attributes=(("cpu", "number", True, "{}"), ("mem", "number", True, "{}")),
    )
    batch: list[Row] = []
    for index, (entity, name, at, value) in enumerate(events):
        batch.append(
            Row(
                None,
                None,
                tenant.tenant_id,
                entity,
                tenant.attributes[name],
                NOW + minutes(at),
                value_number=value,
            )
        )
        if index in cuts:
            copy(connection, batch)
            batch = []
            if flushed[index]:
                flush(connection, 5)
    copy(connection, batch)
    drain(connection, 7)

    latest: dict[int, dict[str, tuple[int, int]]] = {}
    for entity, name, at, value in events:
        attrs = latest.setdefault(entity, {})
        attrs[name] = max(attrs.get(name, (at, value)), (at, value))
    expected = {
        entity: {name: value for name, (_, value) in attrs.items()} for entity, attrs in latest.items()
    }
    assert hot(connection, tenant.tenant_id) == expected
    stored = connection.execute(
        "SELECT entity_id, attribute_id, observed_at, value_number FROM eav.entity_values_ts WHERE tenant_id = %s",
        (tenant.tenant_id,),
    ).fetchall()
    assert sorted(stored) == sorted(
        (entity, tenant.attributes[name], NOW + minutes(at), Decimal(value))
        for entity, name, at, value in events
    )
    # the safety net finds nothing to do
    assert scalar(connection, "SELECT eav.reconcile_hot_attrs(now() - interval '1 hour')") == 0


def test_every_type_is_projected_as_json(database: Database) -> None:
    tenant = make_tenant(
        database,
        attributes=tuple(
            (kind, kind, True, "{}") for kind in ("number", "integer", "text", "boolean", "timestamp")
        ),
    )
    with database.session() as connection:
        connection.execute("SET timezone = 'Asia/Tokyo'")
        rows = [
            Row(attribute="number", value_number=Decimal("0.1234567890123456789")),
            Row(attribute="integer", value_number=2**70),
            Row(attribute="text", value_text='quote " and \U0001f600'),
            Row(attribute="boolean", value_bool=False),
            Row(attribute="timestamp", value_text="2026-11-21T20:55:42.123+02:00"),
        ]
        copy(connection, rows)
        assert flush(connection) == 5
        attrs = scalar(
            connection, "SELECT hot_attrs::text FROM eav.entity_jsonb WHERE tenant_id = %s", tenant.tenant_id
        )
    assert '"number": 0.1234567890123456789' in attrs
    assert f'"integer": {2**70}' in attrs
    assert '"boolean": false' in attrs
    assert '"timestamp": "2026-11-21T18:55:42.123000Z"' in attrs
    assert "\U0001f600" in attrs


def test_cold_attributes_and_rejected_values_are_not_projected(database: Database) -> None:
    tenant = make_tenant(
        database, attributes=(("cpu", "number", True, '{"max": 100}'), ("load", "number", False, "{}"))
    )
    with database.session() as connection:
        copy(
            connection,
            [
                Row(None, None, tenant.tenant_id, 1, tenant.attributes["load"], value_number=1),
                Row(None, None, tenant.tenant_id, 2, tenant.attributes["cpu"], value_number=101),
                Row(None, None, tenant.tenant_id, 3, attribute="cpu", value_number=7),
            ],
        )
        assert flush(connection) == 3
        assert hot(connection, tenant.tenant_id) == {3: {"cpu": 7}}


def test_a_value_that_changes_nothing_writes_nothing(database: Database) -> None:
    tenant = make_tenant(database)
    row = Row(None, None, tenant.tenant_id, 1, tenant.attributes["cpu"], value_number=5)
    with database.session() as connection:
        copy(connection, [row])
        flush(connection)
        before = scalar(connection, "SELECT ctid::text FROM eav.entity_jsonb")
        copy(connection, [row])
        assert flush(connection) == 1
        assert scalar(connection, "SELECT ctid::text FROM eav.entity_jsonb") == before


def upsert(connection: Connection, tenant: Tenant, entity: int, attrs: str, at: datetime = NOW) -> int:
    return int(
        scalar(connection, "SELECT eav.upsert_hot_attrs(%s, %s, %s, %s)", tenant.tenant_id, entity, attrs, at)
    )


def test_upsert_hot_attrs_follows_the_same_rule(database: Database) -> None:
    tenant = make_tenant(database, attributes=(("cpu", "number", True, "{}"), ("state", "text", True, "{}")))
    with database.session() as connection:
        assert upsert(connection, tenant, 1, '{"cpu": 1, "state": "on"}') == 1
        assert upsert(connection, tenant, 1, '{"cpu": 1, "state": "on"}') == 0
        assert upsert(connection, tenant, 1, '{"cpu": 9}', NOW - timedelta(seconds=1)) == 0
        assert upsert(connection, tenant, 1, '{"state": "off"}', NOW + timedelta(seconds=1)) == 1
        assert upsert(connection, tenant, 1, "{}") == 0
        assert hot(connection, tenant.tenant_id) == {1: {"cpu": 1, "state": "off"}}


@pytest.mark.parametrize(
    ("entity", "attrs", "said"),
    [
        (1, '{"load": 1}', "load is not a hot attribute"),
        (1, '{"nonsense": 1}', "nonsense is not a hot attribute"),
        (1, "[1]", "must be a JSON object"),
        (99, '{"cpu": 1}', "has no entity 99"),
    ],
)
def test_upsert_hot_attrs_refuses_what_is_not_known(
    database: Database, entity: int, attrs: str, said: str
) -> None:
    tenant = make_tenant(database)
    with database.session() as connection, pytest.raises(psycopg.Error, match=said):
        upsert(connection, tenant, entity, attrs)


def test_reconcile_repairs_what_diverged(database: Database) -> None:
    tenant = make_tenant(database)
    with database.session() as connection:
        rows = [
            Row(
                None,
                None,
                tenant.tenant_id,
                entity,
                tenant.attributes["cpu"],
                NOW + minutes(at),
                value_number=at + 10,
            )
            for entity, at in itertools.product((1, 2, 3), (-2, -1, 0))
        ]
        copy(connection, rows)
        flush(connection)
        right = hot(connection, tenant.tenant_id)
        connection.execute("DELETE FROM eav.entity_jsonb WHERE entity_id = 1")
        connection.execute(
            """UPDATE eav.entity_jsonb SET hot_attrs = '{"cpu": 0}', hot_times = '{"cpu": 0}' WHERE entity_id = 2"""
        )
        assert scalar(connection, "SELECT eav.reconcile_hot_attrs(now() - interval '1 hour')") == 2
        assert hot(connection, tenant.tenant_id) == right
        assert scalar(connection, "SELECT eav.reconcile_hot_attrs(now() - interval '1 hour')") == 0


def test_flushers_that_meet_on_the_same_entities_do_not_deadlock(database: Database) -> None:
    tenant = make_tenant(database)
    cpu = tenant.attributes["cpu"]
    origins = [database.one("SELECT eav.ingest_source(%s)", f"device-{n}") for n in range(2)]
    with database.session() as first, database.session() as second:
        for number, origin in enumerate(origins):
            entities = range(1, 11) if number else range(10, 0, -1)
            copy(
                first,
                [
                    Row(origin, n, tenant.tenant_id, entity, cpu, NOW + minutes(number), value_number=number)
                    for n, entity in enumerate(entities)
                ],
                origin,
            )
        first.execute("BEGIN")
        assert flush(first, 1) == 10
        moved: list[int] = []
        other = threading.Thread(target=lambda: moved.append(flush(second, 1)))
        other.start()
        until(waits_for(database, second.info.backend_pid, first.info.backend_pid))
        first.execute("COMMIT")
        other.join()
        assert moved == [10]
        assert hot(first, tenant.tenant_id) == {entity: {"cpu": 1} for entity in range(1, 11)}


@dataclass(frozen=True)
class Ring:
    """An application that sets values of several entities in one transaction, in an order of its own."""

    tenant: Tenant
    application: Connection
    other: Connection
    database: Database

    def take(self, entity: int) -> None:
        self.application.execute(
            "SELECT eav.upsert_hot_attrs(%s, %s, %s)", (self.tenant.tenant_id, entity, '{"mem": 1}')
        )

    def value(self, name: str, entity: int) -> Row:
        attribute = self.tenant.attributes[name]
        return Row(None, None, self.tenant.tenant_id, entity, attribute, NOW, value_number=7)

    def close(self, job: str, function: str, *, has: int) -> tuple[str, int]:
        """`job` waits for the application, which then takes an entity that `job` has; how its run went."""
        statement = f"CALL ops.run_job('{job}', '{function}')".encode()
        with ThreadPoolExecutor(1) as pool:
            run = pool.submit(self.other.execute, statement)
            until(waits_for(self.database, self.other.info.backend_pid, self.application.info.backend_pid))
            self.take(has)
            self.application.execute("COMMIT")
            run.result(60)
        ((status, rows),) = self.database.all("SELECT status, rows FROM ops.job_runs WHERE job = %s", job)
        return status, rows


@pytest.fixture
def ring(database: Database) -> Iterator[Ring]:
    tenant = make_tenant(database, attributes=(("cpu", "number", True, "{}"), ("mem", "number", True, "{}")))
    with database.session() as application, database.session() as other:
        # It is the other one that finds the ring, and is ended for it.
        application.execute("SET deadlock_timeout = '30s'")
        other.execute("SET deadlock_timeout = '2s'")
        application.execute("BEGIN")
        yield Ring(tenant, application, other, database)


def test_a_flush_gives_way_to_who_takes_entities_in_another_order(ring: Ring) -> None:
    copy(ring.other, [ring.value("cpu", entity) for entity in (1, 2)])
    ring.take(2)
    assert ring.close("flush", "eav.stage_flush", has=1) == ("ok", 2)
    assert hot(ring.other, ring.tenant.tenant_id) == {entity: {"cpu": 7, "mem": 1} for entity in (1, 2)}
    assert ring.database.one("SELECT count(*) FROM eav.entity_values_ts") == 2


def test_the_safety_net_gives_way_too(ring: Ring) -> None:
    copy(ring.other, [ring.value("cpu", entity) for entity in (1, 2)])
    assert flush(ring.other) == 2
    ring.other.execute("DELETE FROM eav.entity_jsonb")
    ring.take(2)
    assert ring.close("reconcile", "eav.reconcile_hot_portion", has=1) == ("ok", 2)
    assert hot(ring.other, ring.tenant.tenant_id) == {entity: {"cpu": 7, "mem": 1} for entity in (1, 2)}


def test_a_portion_of_the_safety_net_keeps_no_entity_while_it_begins_again(ring: Ring) -> None:
    copy(ring.other, [ring.value("cpu", 2), ring.value("mem", 1)])
    assert flush(ring.other) == 2
    ring.other.execute("DELETE FROM eav.entity_jsonb")
    ring.take(1)
    portion = "SELECT eav.reconcile_hot_portion(NULL, interval '1 hour')"
    # Not the one that the application has, which comes with the next attribute.
    assert scalar(ring.other, portion) == 1
    assert hot(ring.other, ring.tenant.tenant_id) == {2: {"cpu": 7}}
    ring.application.execute("ROLLBACK")
    assert scalar(ring.other, portion) == 1
    assert hot(ring.other, ring.tenant.tenant_id) == {1: {"mem": 7}, 2: {"cpu": 7}}


def test_switching_hot_is_queued(database: Database) -> None:
    tenant = make_tenant(database)
    with database.session() as connection:
        for is_hot in (True, False):
            connection.execute(
                "UPDATE eav.attributes SET is_hot = %s WHERE attribute_id = %s",
                (is_hot, tenant.attributes["load"]),
            )
            queued = connection.execute(
                "SELECT attribute_id, turned_hot, finished_at FROM eav.hot_backfill"
            ).fetchall()
            assert queued == [(tenant.attributes["load"], is_hot, None)]
