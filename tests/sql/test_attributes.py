"""Attributes are the tenant's own and outlive no value; values are appended, never changed."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from tests.conftest import Connection, Database
from tests.sql.staging import NOW, Row, Tenant, copy, drain, flush, make_tenant
from tests.sql.walls import ROLES, acting, outcome, query

CHANGES = {
    "dropped": "DELETE FROM eav.attributes WHERE attribute_id = {0}",
    "renamed": "UPDATE eav.attributes SET name = 'other' WHERE attribute_id = {0}",
    "retyped": "UPDATE eav.attributes SET data_type = 'text' WHERE attribute_id = {0}",
    "given away": "UPDATE eav.attributes SET tenant_id = 99 WHERE attribute_id = {0}",
    "renumbered": "UPDATE eav.attributes SET attribute_id = DEFAULT WHERE attribute_id = {0}",
}


def stage(connection: Connection, tenant: Tenant, attribute: str = "cpu") -> None:
    """One value, not flushed."""
    copy(
        connection,
        [Row(tenant_id=tenant.tenant_id, attribute_id=tenant.attributes[attribute], value_number=1)],
    )


def check_with_values(database: Database) -> list[str]:
    """Nobody, the owner included, changes what its values mean."""
    tenant = make_tenant(database)
    make_tenant(database, "heir", attributes=())
    found = []
    with database.session() as connection:
        stage(connection, tenant)
        drain(connection)
        for role in ("eav_owner", connection.info.user):
            for what, statement in CHANGES.items():
                with acting(connection, role):
                    state, said = outcome(connection, statement.format(tenant.attributes["cpu"]))
                    if state != "23001" or "has values" not in said or "retire_attribute" not in said:
                        found.append(f"{what} by {role}: {state} {said}")
    return found


def wait_until_blocked(
    database: Database, blocked: Connection, by: Connection, done: Callable[[], bool]
) -> bool:
    """True when `blocked` waits for `by`; False when it is done instead."""
    with database.session() as watcher:
        while not done():
            ((waits,),) = query(
                watcher,
                "SELECT %s = ANY(pg_blocking_pids(%s))",
                by.info.backend_pid,
                blocked.info.backend_pid,
            )
            if waits:
                return True
    return False


def check_race_with_a_flush(database: Database) -> list[str]:
    """While a flush that stores the first value is under way, a change waits for it and is refused then."""
    tenant = make_tenant(database)
    with (
        database.session() as flusher,
        database.session() as owner,
        ThreadPoolExecutor(1) as pool,
    ):
        stage(flusher, tenant)
        query(flusher, "BEGIN")
        assert flush(flusher) == 1
        future = pool.submit(outcome, owner, CHANGES["dropped"].format(tenant.attributes["cpu"]))
        waited = wait_until_blocked(database, owner, flusher, future.done)
        query(flusher, "COMMIT")
        state, said = future.result(60)
    orphans = database.one(
        "SELECT count(*) FROM eav.entity_values_ts AS v"
        " WHERE NOT EXISTS (SELECT FROM eav.attributes AS a WHERE a.attribute_id = v.attribute_id)"
    )
    return (
        []
        if (waited, state, orphans) == (True, "23001", 0)
        else [f"{waited} {state} {said} {orphans} orphans"]
    )


def check_race_with_a_change(database: Database) -> list[str]:
    """The other way round: a flush waits for a change under way, and rejects what has no attribute then."""
    tenant = make_tenant(database)
    with (
        database.session() as flusher,
        database.session() as owner,
        ThreadPoolExecutor(1) as pool,
    ):
        stage(flusher, tenant)
        query(owner, "BEGIN")
        query(owner, CHANGES["dropped"].format(tenant.attributes["cpu"]))
        future = pool.submit(flush, flusher)
        waited = wait_until_blocked(database, flusher, owner, future.done)
        query(owner, "COMMIT")
        moved = future.result(60)
    stored = database.one("SELECT count(*) FROM eav.entity_values_ts")
    reasons = database.all("SELECT reason FROM eav.entity_values_rejected")
    expected = (True, 1, 0, [("unknown_attribute",)])
    return [] if (waited, moved, stored, reasons) == expected else [f"{waited} {moved} {stored} {reasons}"]


def check_append_only(database: Database) -> list[str]:
    """Values are not changed or deleted by anybody: not in the table, not in the partition that holds them."""
    tenant = make_tenant(database)
    found = []
    with database.session() as connection:
        stage(connection, tenant)
        drain(connection)
        ((partition,),) = query(connection, "SELECT tableoid::regclass::text FROM eav.entity_values_ts")
        for role in (*ROLES, "eav_owner", connection.info.user):
            expected = "42501" if role in ROLES else "55000"
            for table in ("eav.entity_values_ts", partition):
                for statement in (f"DELETE FROM {table}", f"UPDATE {table} SET value_number = 2"):
                    with acting(connection, role, str(tenant.tenant_id)):
                        state, said = outcome(connection, statement)
                        if state != expected:
                            found.append(f"{statement} by {role}: {state} {said}")
    return found


CHECKS: dict[str, Callable[[Database], list[str]]] = {
    check.__name__: check
    for check in (check_with_values, check_race_with_a_flush, check_race_with_a_change, check_append_only)
}
NO_LOCK = (
    "CREATE OR REPLACE FUNCTION eav.lock_catalog(p_exclusive boolean) RETURNS void LANGUAGE sql AS 'SELECT'"
)
TAKEN_OUT = {
    "the trigger": ("check_with_values", "DROP TRIGGER attributes_guard ON eav.attributes"),
    "the lock, dropped during a flush": ("check_race_with_a_flush", NO_LOCK),
    "the lock, flushed during a drop": ("check_race_with_a_change", NO_LOCK),
    "the publication": ("check_append_only", "ALTER PUBLICATION eav_cdc DROP TABLE eav.entity_values_ts"),
    "no identity": ("check_append_only", "ALTER TABLE {partition} REPLICA IDENTITY FULL"),
}


@pytest.mark.parametrize("check", CHECKS)
def test_values_keep_their_meaning(database: Database, check: str) -> None:
    assert CHECKS[check](database) == []


@pytest.mark.parametrize("guard", TAKEN_OUT)
def test_each_guard_is_needed(database: Database, guard: str) -> None:
    check, statement = TAKEN_OUT[guard]
    partition = database.one(
        "SELECT b.partition::text FROM ops.partition_bounds('eav.entity_values_ts') AS b"
        " WHERE %s BETWEEN b.starts_at AND b.ends_at - interval '1 second'",
        NOW,
    )
    with database.session() as connection:
        query(connection, statement.format(partition=partition))
    assert CHECKS[check](database) != []


def test_without_values_it_may_be_anything(database: Database) -> None:
    tenant = make_tenant(database)
    with database.session() as connection:
        for statement in (CHANGES["renamed"], CHANGES["retyped"], CHANGES["dropped"]):
            with acting(connection, "eav_owner"):
                assert outcome(connection, statement.format(tenant.attributes["cpu"])) == ("ok", "")


def test_the_application_adds_changes_and_retires_its_own(database: Database) -> None:
    tenant = make_tenant(database)
    other = make_tenant(database, "other")
    with database.session() as connection, acting(connection, "eav_app", str(tenant.tenant_id)):
        ((added,),) = query(
            connection,
            "INSERT INTO eav.attributes (tenant_id, name, data_type, unit, is_hot, validation)"
            " VALUES (eav.current_tenant(), 'disk', 'number', 'byte', true, '{\"min\": 0}') RETURNING attribute_id",
        )
        changed = query(
            connection,
            "UPDATE eav.attributes SET unit = 'kibibyte', validation = '{\"max\": 9}' WHERE attribute_id = %s"
            " RETURNING unit, min_value, max_value",
            added,
        )
        assert changed == [("kibibyte", None, 9)]
        ((first,),) = query(connection, "SELECT eav.retire_attribute(%s)", added)
        ((again,),) = query(connection, "SELECT eav.retire_attribute(%s)", added)
        assert first == again
        assert first is not None
        state, said = outcome(connection, f"SELECT eav.retire_attribute({other.attributes['cpu']})")
        assert state == "P0002"
        assert "no attribute has the id" in said
        for what in ("dropped", "renamed", "retyped", "given away"):
            state, _ = outcome(connection, CHANGES[what].format(tenant.attributes["cpu"]))
            assert state == "42501", what


def test_what_is_retired_keeps_its_values_and_takes_no_more(database: Database) -> None:
    tenant = make_tenant(database)
    with database.session() as connection:
        stage(connection, tenant)
        drain(connection)
        query(connection, "SELECT eav.retire_attribute(%s)", tenant.attributes["cpu"])
        stage(connection, tenant)
        drain(connection)
    assert database.one("SELECT count(*) FROM eav.entity_values_ts") == 1
    assert database.all("SELECT reason FROM eav.entity_values_rejected") == [("retired_attribute",)]


def test_turning_hot_or_cold_is_queued_and_starts_over(database: Database) -> None:
    tenant = make_tenant(database)
    queue = "SELECT turned_hot, finished_at, done_entity_id, entities_done FROM eav.hot_backfill"
    with database.session() as connection:

        def switch(hot: bool, name: str = "load") -> None:
            with connection.transaction():
                query(connection, "SET LOCAL SESSION AUTHORIZATION eav_app")
                query(connection, "SELECT set_config('app.tenant_id', %s, true)", str(tenant.tenant_id))
                query(connection, "UPDATE eav.attributes SET is_hot = %s WHERE name = %s", hot, name)

        switch(True, "cpu")  # it is hot already
        assert query(connection, queue) == []
        switch(True)
        assert query(connection, queue) == [(True, None, None, 0)]
        query(
            connection,
            "UPDATE eav.hot_backfill SET finished_at = now(), done_entity_id = 5, entities_done = 5",
        )
        switch(True)
        assert query(connection, f"SELECT q.finished_at IS NULL FROM ({queue}) AS q") == [(False,)]
        switch(False)
        assert query(connection, queue) == [(False, None, None, 0)]
        with pytest.raises(psycopg.errors.InsufficientPrivilege), acting(connection, "eav_app", "1"):
            query(connection, "DELETE FROM eav.hot_backfill")
