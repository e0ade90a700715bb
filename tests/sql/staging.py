"""How tests put values into staging: as a producer does, by eav.ingest_target and one transaction a batch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from psycopg import sql

from tests.conftest import Connection, Database

COLUMNS = (
    "source_id, source_offset, tenant_id, entity_id, attribute_id, observed_at, value_number, value_time,"
    " value_bool, value_text, attribute, reason, raw"
)
NOW = datetime.now(UTC).replace(microsecond=0)


@dataclass(frozen=True)
class Row:
    """One staged value, in the order of COLUMNS."""

    source_id: int | None = None
    source_offset: int | None = None
    tenant_id: int | None = 1
    entity_id: int | None = 1
    attribute_id: int | None = None
    observed_at: datetime | None = NOW
    value_number: Decimal | float | None = None
    value_time: datetime | None = None
    value_bool: bool | None = None
    value_text: str | None = None
    attribute: str | None = None
    reason: str | None = None
    raw: bytes | None = None


def copy(connection: Connection, rows: Iterable[Row], source_id: int | None = None) -> str:
    """Stage `rows` in the transaction that is open, or in one of their own; returns the slot."""
    with connection.transaction(), connection.cursor() as cursor:
        ((target,),) = cursor.execute("SELECT eav.ingest_target(%s)", (source_id,)).fetchall()
        table = sql.Identifier(*target.split("."))
        with cursor.copy(sql.SQL("COPY {} (" + COLUMNS + ") FROM STDIN").format(table)) as stream:
            for row in rows:
                stream.write_row(astuple(row))
    return str(target)


def copy_big(
    connection: Connection, tenant_id: int, attribute_id: int, start: int, source_id: int | None = None
) -> str:
    """Stage 20 000 numbered rows, about 2.5 MiB: a slot is turned after 2. Returns the slot."""
    with connection.transaction():
        slot = scalar(connection, "SELECT eav.ingest_target(%s)", source_id)
        connection.execute(
            f"INSERT INTO {slot} (source_id, source_offset, tenant_id, entity_id"
            ", attribute_id, observed_at, value_number)"
            " SELECT %s, n, %s, n %% 10 + 1, %s, now(), n FROM generate_series(%s::bigint, %s) AS n".encode(),
            (source_id, tenant_id, attribute_id, start, start + 19999),
        )
    return str(slot)


def drain(connection: Connection, limit: int = 50000) -> int:
    """Flush until nothing is left; the rows moved."""
    total = 0
    while moved := flush(connection, limit):
        total += moved
    return total


def flush(connection: Connection, limit: int = 50000) -> int:
    """One flush; the rows moved."""
    ((moved,),) = connection.execute("SELECT eav.stage_flush(%s)", (limit,)).fetchall()
    return int(moved)


def scalar(connection: Connection, query: Any, *params: Any) -> Any:
    """The first column of the only row."""
    ((value, *_),) = connection.execute(query, params or None).fetchall()
    return value


@dataclass(frozen=True)
class Tenant:
    """A tenant with entities 1 to 10, and the ids of its attributes by name."""

    tenant_id: int
    attributes: dict[str, int]


def make_tenant(
    database: Database,
    name: str = "acme",
    *,
    auto_register: bool = False,
    attributes: Sequence[tuple[str, str, bool, str]] = (
        ("cpu", "number", True, "{}"),
        ("load", "number", False, "{}"),
    ),
) -> Tenant:
    """A tenant with attributes given as (name, data type, is hot, validation)."""
    with database.session() as connection:
        tenant_id = scalar(connection, "SELECT eav.tenant_add(%s, NULL, %s)", name, auto_register)
        connection.execute(
            "INSERT INTO eav.entities (tenant_id, entity_id) SELECT %s, generate_series(1, 10)", (tenant_id,)
        )
        ids = {
            attribute: scalar(
                connection,
                "INSERT INTO eav.attributes (tenant_id, name, data_type, is_hot, validation)"
                " VALUES (%s, %s, %s, %s, %s) RETURNING attribute_id",
                tenant_id,
                attribute,
                data_type,
                is_hot,
                validation,
            )
            for attribute, data_type, is_hot, validation in attributes
        }
    return Tenant(tenant_id, ids)


def source(database: Database, name: str = "events.ndjson", partition: str = "0") -> int:
    """The id of a registered source."""
    return int(database.one("SELECT eav.ingest_source(%s, %s)", name, partition))


def minutes(count: float) -> timedelta:
    """A length of time."""
    return timedelta(minutes=count)


def stored(database: Database) -> list[int]:
    """Every number in the history, sorted, repeated as often as it is there."""
    return [int(n) for (n,) in database.all("SELECT value_number FROM eav.entity_values_ts ORDER BY 1")]


def rejected(database: Database) -> Counter[str]:
    """How many values were rejected, by reason."""
    return Counter(
        dict(database.all("SELECT reason, count(*) FROM eav.entity_values_rejected GROUP BY reason"))
    )
