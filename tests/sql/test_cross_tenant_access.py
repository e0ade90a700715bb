"""Access across tenants: written down before the first row, for one session, for a while, for reading."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from tests.conftest import Connection, Database
from tests.sql.staging import make_tenant
from tests.sql.walls import outcome, query

OPEN = "SELECT ops.open_cross_tenant('incident 4711: values missing')"
SEEN = "SELECT count(*) FROM eav.entities"
ROLE = "eav_superadmin"


def seen(connection: Connection) -> int:
    """How many of the ten entities it sees."""
    ((count,),) = query(connection, SEEN)
    return int(count)


@pytest.fixture
def tenants(database: Database) -> Database:
    """A database with a tenant of ten entities."""
    make_tenant(database)
    return database


def check_unopened(database: Database) -> list[str]:
    with database.session(ROLE) as connection:
        return ["rows before access was opened"] if seen(connection) else []


def check_same_transaction(database: Database) -> list[str]:
    """However it is asked: at once, in a savepoint, by a cursor that outlives the transaction."""
    found = []
    with database.session(ROLE) as connection:
        query(connection, "BEGIN")
        query(connection, "SAVEPOINT a")
        query(connection, OPEN)
        if seen(connection):
            found.append("rows in the savepoint that opened it")
        query(connection, "RELEASE a")
        if seen(connection):
            found.append("rows in the transaction that opened it")
        query(connection, f"DECLARE c CURSOR WITH HOLD FOR {SEEN}")
        query(connection, "COMMIT")
        if query(connection, "FETCH ALL FROM c") != [(0,)]:
            found.append("rows through a cursor of the transaction that opened it")
    with database.session(ROLE) as connection:  # one statement that opens and reads
        if query(
            connection, f"WITH o AS MATERIALIZED ({OPEN} AS t) SELECT count(*) FROM o, eav.entities"
        ) != [(0,)]:
            found.append("rows in the statement that opened it")
    return found


def check_rolled_back(database: Database) -> list[str]:
    """What is undone opens nothing; what was used stays, whatever is undone later."""
    found = []
    with database.session(ROLE) as connection:
        query(connection, "BEGIN")
        query(connection, OPEN)
        query(connection, "ROLLBACK")
        if seen(connection):
            found.append("rows after the record was rolled back")
        query(connection, "BEGIN")
        query(connection, "SAVEPOINT a")
        query(connection, OPEN)
        query(connection, "ROLLBACK TO a")
        query(connection, "COMMIT")
        if seen(connection):
            found.append("rows after the record was rolled back to a savepoint")
        query(connection, OPEN)
        query(connection, "BEGIN")
        if not seen(connection):
            found.append("no rows in the next transaction")
        for change in ("DELETE FROM {}", "UPDATE {} SET reason = ''", "TRUNCATE {}"):
            state, said = outcome(connection, change.format("ops.cross_tenant_access"))
            found += [f"{change}: {state} {said}"] * (state != "42501")
        query(connection, "ROLLBACK")
    if database.one("SELECT count(*) FROM ops.cross_tenant_access") != 1:
        found.append("the record of an access that was used is gone")
    return found


def check_expiry(database: Database) -> list[str]:
    with database.session(ROLE) as connection:
        query(connection, OPEN)
        found = [] if seen(connection) else ["no rows while access is open"]
        database.all("UPDATE ops.cross_tenant_access SET expires_at = clock_timestamp() RETURNING 1")
        if seen(connection):
            found.append("rows after it expired")
    return found


def check_other_session(database: Database) -> list[str]:
    with database.session(ROLE) as connection, database.session(ROLE) as other:
        query(connection, OPEN)
        if not seen(connection):
            return ["no rows in the session that opened it"]
        return ["rows in another session"] if seen(other) else []


def check_reused_pid(database: Database) -> list[str]:
    """A later session with the same pid, which has read the whole record."""
    found = []
    with database.session(ROLE) as connection, database.session(ROLE) as later:
        query(connection, OPEN)
        ((key,),) = query(connection, "SELECT encode(session_key, 'hex') FROM ops.cross_tenant_access")
        database.all(
            "UPDATE ops.cross_tenant_access SET backend_pid = %s RETURNING 1", later.info.backend_pid
        )
        if seen(later):
            found.append("rows in a later session with the same pid")
        for guess in (str(key), f"\\x{key}", ""):
            query(later, "SELECT set_config('ops.cross_tenant_key', %s, false)", guess)
            if seen(later):
                found.append(f"rows with the key {guess}")
        if seen(connection):
            found.append("rows in a session whose pid is not the record's")
    return found


def check_handed_on(database: Database) -> list[str]:
    """A pool resets a connection before somebody else gets it."""
    with database.session(ROLE) as connection:
        query(connection, OPEN)
        before = seen(connection)
        query(connection, "DISCARD ALL")
        query(connection, f"SET SESSION AUTHORIZATION {ROLE}")
        return (
            ["no rows while access is open"]
            if not before
            else ["rows after a reset"]
            if seen(connection)
            else []
        )


CHECKS: dict[str, Callable[[Database], list[str]]] = {
    check.__name__: check
    for check in (
        check_unopened,
        check_same_transaction,
        check_rolled_back,
        check_expiry,
        check_other_session,
        check_reused_pid,
        check_handed_on,
    )
}


@pytest.mark.parametrize("check", CHECKS)
def test_access_is_one_sessions_for_a_while(tenants: Database, check: str) -> None:
    assert CHECKS[check](tenants) == []


TAKEN_OUT = {
    "check_unopened": ("SELECT EXISTS \\(", "SELECT true OR EXISTS ("),
    "check_same_transaction": ("AND c.opened_in [^\n]*\n", "\n"),
    "check_rolled_back": ("opened_in IS DISTINCT FROM", "opened_in IS NOT DISTINCT FROM"),
    "check_expiry": ("AND c.expires_at [^\n]*\n", "\n"),
    "check_other_session": ("c.backend_pid = [^\n]*\n\\s*AND c.session_key [^\n]*\n", "true\n"),
    "check_reused_pid": ("AND c.session_key [^\n]*\n", "\n"),
    "check_handed_on": ("AND c.session_key [^\n]*\n", "\n"),
}


@pytest.mark.parametrize("check", TAKEN_OUT)
def test_each_condition_is_needed(tenants: Database, check: str) -> None:
    pattern, other = TAKEN_OUT[check]
    with tenants.session() as connection:
        ((body,),) = query(connection, "SELECT pg_get_functiondef('ops.cross_tenant_open'::regproc)")
        changed, count = re.subn(pattern, other, body)
        assert count == 1
        query(connection, changed)
    assert CHECKS[check](tenants) != []


def test_every_walled_table_is_read_and_none_is_written(tenants: Database) -> None:
    tables = [
        name
        for (name,) in tenants.all(
            "SELECT oid::regclass::text FROM pg_class WHERE relrowsecurity AND relnamespace = 'eav'::regnamespace"
        )
    ]
    assert len(tables) >= 6
    with tenants.session(ROLE) as connection:
        query(connection, OPEN)
        for table in tables:
            assert outcome(connection, f"SELECT * FROM {table}")[0] == "ok"
            for write in (
                "DELETE FROM {}",
                "UPDATE {} SET tenant_id = 1",
                "INSERT INTO {} DEFAULT VALUES",
                "TRUNCATE {}",
            ):
                assert outcome(connection, write.format(table))[0] == "42501"


def test_the_record_says_who_from_where_why_and_until_when(tenants: Database) -> None:
    with tenants.session(ROLE) as connection:
        query(connection, "SET application_name = 'psql of Ada'")
        query(connection, "SELECT ops.open_cross_tenant('incident 4711', '20 minutes')")
        assert query(
            connection,
            "SELECT login, reason, application, client, backend_pid = pg_backend_pid(), expires_at - opened_at"
            " BETWEEN '19 minutes' AND '21 minutes' FROM ops.cross_tenant_access",
        ) == [
            (
                ROLE,
                "incident 4711",
                "psql of Ada",
                connection.execute("SELECT inet_client_addr()").fetchall()[0][0],
                True,
                True,
            )
        ]


def test_the_record_is_durable_where_commits_are_not_waited_for(tenants: Database) -> None:
    with tenants.session(ROLE) as connection:
        query(connection, "SET synchronous_commit = off")
        query(connection, "BEGIN")
        query(connection, OPEN)
        assert query(connection, "SHOW synchronous_commit") == [("on",)]
        query(connection, "COMMIT")
        assert query(connection, "SHOW synchronous_commit") == [("off",)]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("NULL", "say why"),
        ("''", "say why"),
        ("'   because   '", "say why"),
        ("'incident 4711', NULL", "up to 8 hours"),
        ("'incident 4711', '0'", "up to 8 hours"),
        ("'incident 4711', '-1 hour'", "up to 8 hours"),
        ("'incident 4711', '8 hours 1 second'", "up to 8 hours"),
        ("'incident 4711', 'infinity'", "invalid input syntax"),
    ],
)
def test_without_a_reason_or_a_limit_it_stays_closed(tenants: Database, arguments: str, said: str) -> None:
    with tenants.session(ROLE) as connection:
        state, text = outcome(connection, f"SELECT ops.open_cross_tenant({arguments})")
        assert state in ("22023", "22007")
        assert said in text
        assert seen(connection) == 0


@pytest.mark.parametrize("role", ["eav_app", "eav_analyst", "eav_ingest", "eav_jobs"])
def test_nobody_else_opens_it(tenants: Database, role: str) -> None:
    with tenants.session(role) as connection:
        assert outcome(connection, OPEN)[0] == "42501"
        assert outcome(connection, "SELECT ops.cross_tenant_open()")[0] == "42501"
