"""Two tenants whose data can be told apart: what tenant 2 has carries a marker. And how to act as a role."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import psycopg
from psycopg import sql

from tests.conftest import Connection, Database
from tests.sql.staging import Row, copy, drain

MARKERS = ("SECRET", "2222222")
SECRET_ENTITY = 2222222001
OWNER = "eav_owner"
TENANT_ROLES = ("eav_app", "eav_analyst")
ROLES = (*TENANT_ROLES, "eav_ingest", "eav_jobs", "eav_monitor", "eav_superadmin")


def query(connection: Connection, text: str, *params: Any) -> list[tuple[Any, ...]]:
    """The rows of a query made up by a test."""
    cursor = connection.execute(text, params or None)
    return cursor.fetchall() if cursor.description else []


def seed(database: Database) -> None:
    """Tenants 1 and 2 with entities, attributes, values, hot values, rejected and staged rows, statistics."""
    with database.session() as connection:
        query(connection, "SELECT eav.tenant_add('tenant-one', 1), eav.tenant_add('SECRET-TENANT-2', 2)")
        for tenant, mark, base in ((1, "", 0), (2, "SECRET-", SECRET_ENTITY - 1)):
            query(
                connection,
                "INSERT INTO eav.entities (tenant_id, entity_id, name)"
                " SELECT %s, %s + n, %s || (n %% 3) FROM generate_series(1, 30) AS n",
                *(tenant, base, f"{mark}entity-"),
            )
            attributes = connection.execute(
                "INSERT INTO eav.attributes (tenant_id, name, data_type, is_hot, unit, validation) VALUES"
                " (%(tenant)s, %(mark)s || 'temp', 'number', true, %(mark)s || 'kelvin', '{}'),"
                " (%(tenant)s, %(mark)s || 'note', 'text', false, NULL,"
                " jsonb_build_object('enum', jsonb_build_array(%(mark)s || 'on'))) RETURNING attribute_id",
                {"tenant": tenant, "mark": mark},
            ).fetchall()
            (temp,), (note,) = attributes
            value = 2222222.5 if tenant == 2 else 1.5
            good = [
                row
                for n in range(1, 31)
                for row in (
                    Row(tenant_id=tenant, entity_id=base + n, attribute_id=temp, value_number=value),
                    Row(tenant_id=tenant, entity_id=base + n, attribute_id=note, value_text=f"{mark}on"),
                )
            ]
            bad = [
                Row(tenant_id=tenant, entity_id=base + 1, attribute=f"{mark}unknown", value_text=f"{mark}x"),
                Row(tenant_id=tenant, attribute=f"{mark}", reason="invalid_json", raw=f"{mark}raw".encode()),
            ]
            copy(connection, good + bad)
            drain(connection)
            copy(connection, [*good[:2], *bad])
        query(connection, "SELECT eav.ingest_source('feed')")
        connection.execute("ANALYZE")


@contextmanager
def acting(connection: Connection, role: str, tenant: str | None = None) -> Iterator[list[str]]:
    """Inside: logged in as `role`, app.tenant_id set to `tenant`, in a (sub)transaction that is rolled back.

    Yields the notices that arrive meanwhile.
    """
    notices: list[str] = []

    def listen(notice: psycopg.errors.Diagnostic) -> None:
        notices.append(f"{notice.message_primary} {notice.message_detail}")

    connection.add_notice_handler(listen)
    try:
        with connection.transaction(force_rollback=True):
            connection.execute(sql.SQL("SET LOCAL SESSION AUTHORIZATION {}").format(sql.Identifier(role)))
            if tenant is not None:
                query(connection, "SELECT set_config('app.tenant_id', %s, true)", tenant)
            yield notices
    finally:
        connection.remove_notice_handler(listen)


def outcome(connection: Connection, statement: str) -> tuple[str, str]:
    """('ok', all it returned) or (SQLSTATE, all it said) of one statement, in a savepoint of its own."""
    # CALL: of a procedure that commits, so not in a transaction
    around: AbstractContextManager[object] = (
        nullcontext() if statement.startswith("CALL") else connection.transaction()
    )
    try:
        with around, connection.cursor() as cursor:
            if statement.startswith("COPY"):
                with cursor.copy(statement) as stream:
                    return "ok", b"".join(bytes(block) for block in stream).decode()
            cursor.execute(statement)
            return "ok", "\n".join(map(str, cursor.fetchall())) if cursor.description else ""
    except psycopg.Error as error:
        d = error.diag
        return d.sqlstate or "?", " | ".join(
            filter(None, (str(error), d.message_detail, d.message_hint, d.context, d.internal_query))
        )


def leaks(text: str) -> bool:
    """Whether anything of tenant 2 is in it."""
    return any(marker in text for marker in MARKERS)


def relations(connection: Connection) -> list[tuple[str, str]]:
    """(schema.name, kind) of everything with rows or a state, system schemas left out."""
    return query(
        connection,
        "SELECT format('%I.%I', n.nspname, c.relname), c.relkind::text FROM pg_class AS c"
        " JOIN pg_namespace AS n ON c.relnamespace = n.oid WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')"
        " AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_' ORDER BY 1",
    )
