"""A database whose contents are known to Python too, so that a query's answer can be computed apart from it."""

from __future__ import annotations

import json
import random
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from tests.conftest import Connection, Database

TENANT, OTHER = 1, 2
ENTITIES = 60
STEP = timedelta(minutes=30)
STEPS = 192
"""Four days: as many partitions, and one more."""
BASE = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
"""The newest value is just before it."""
OLD = BASE - timedelta(days=45)
"""Longer ago than any query may look."""

Hot = dict[str, Any]


@dataclass(frozen=True)
class Value:
    """A stored value of one of the two tenants."""

    tenant_id: int
    entity_id: int
    attribute: str
    observed_at: datetime
    value: Any


@dataclass
class Known:
    """The database, and what is in it."""

    database: Database
    values: list[Value] = field(default_factory=list, repr=False)
    hot: dict[tuple[int, int], Hot] = field(default_factory=dict, repr=False)
    hot_at: dict[tuple[int, int], datetime] = field(default_factory=dict, repr=False)
    rejected: Counter[tuple[int | None, str]] = field(default_factory=Counter, repr=False)

    def of(
        self, attribute: str, window: timedelta = timedelta(hours=24), tenant_id: int = TENANT
    ) -> list[Value]:
        """The values of an attribute in the window that ends at BASE."""
        return [
            v
            for v in self.values
            if (v.tenant_id, v.attribute) == (tenant_id, attribute) and BASE - window < v.observed_at <= BASE
        ]

    def last(self, attribute: str, window: timedelta = timedelta(hours=24)) -> dict[int, Value]:
        """The newest of them for each entity."""
        return {v.entity_id: v for v in sorted(self.of(attribute, window), key=lambda v: v.observed_at)}


TYPES = {
    "temperature": ("number", False, "value_number"),
    "note": ("text", False, "value_text"),
    "seen": ("timestamp", False, "value_time"),
    "status": ("text", True, "value_text"),
    "priority": ("integer", True, "value_number"),
    "online": ("boolean", True, "value_bool"),
}


def seed(database: Database) -> Known:
    """Two tenants that are known, value by value, among two hundred that are only there to be in the way."""
    known = Known(database)
    dice = random.Random(20261121)
    with database.session() as connection:
        ids = _tenants(connection)
        _old_partition(connection)
        for tenant_id in (TENANT, OTHER):
            _history(known, tenant_id, dice)
            _hot(connection, known, tenant_id, dice)
        with connection.cursor().copy(
            "COPY eav.entity_values_ts (tenant_id, entity_id, attribute_id, observed_at, value_time, value_bool,"
            " value_number, value_text) FROM STDIN"
        ) as copy:
            for v in known.values:
                column = TYPES[v.attribute][2]
                cells = (
                    v.value if column == c else None
                    for c in ("value_time", "value_bool", "value_number", "value_text")
                )
                copy.write_row(
                    (v.tenant_id, v.entity_id, ids[v.tenant_id, v.attribute], v.observed_at, *cells)
                )
        _crowd(connection)
        _rejected(connection, known, ids)
        _operations(connection)
        for table in (
            "entity_values_ts",
            "entity_jsonb",
            "entity_values_rejected",
            "ingest_checkpoint_log",
            "attributes",
        ):
            connection.execute(f"ANALYZE eav.{table}")
    return known


def _tenants(connection: Connection) -> dict[tuple[int, str], int]:
    ids: dict[tuple[int, str], int] = {}
    for tenant_id in (TENANT, OTHER):
        connection.execute("SELECT eav.tenant_add(%s, %s)", [f"tenant {tenant_id}", tenant_id])
        connection.execute(
            "INSERT INTO eav.entities (tenant_id, entity_id) SELECT %s, e FROM generate_series(1, %s) AS e",
            [tenant_id, ENTITIES],
        )
        for name, (data_type, is_hot, _) in TYPES.items():
            row = connection.execute(
                "INSERT INTO eav.attributes (tenant_id, name, data_type, is_hot) VALUES (%s, %s, %s, %s)"
                " RETURNING attribute_id",
                [tenant_id, name, data_type, is_hot],
            ).fetchone()
            assert row is not None
            ids[tenant_id, name] = row[0]
    return ids


def _old_partition(connection: Connection) -> None:
    """As one that was made 45 days ago would be there."""
    day = OLD.date()
    connection.execute(
        f"CREATE TABLE eav.entity_values_ts_old PARTITION OF eav.entity_values_ts"
        f" FOR VALUES FROM ('{day} 00:00:00+00') TO ('{day + timedelta(days=1)} 00:00:00+00')"
    )
    connection.execute("ALTER TABLE eav.entity_values_ts_old OWNER TO eav_owner")


def _history(known: Known, tenant_id: int, dice: random.Random) -> None:
    for entity_id in range(1, ENTITIES + 1):
        for step in range(STEPS):
            at = BASE - step * STEP - timedelta(seconds=entity_id)
            degrees = Decimal(dice.randrange(-1000, 4000)) / 100 + tenant_id * 1000
            known.values.append(Value(tenant_id, entity_id, "temperature", at, degrees))
        known.values.append(Value(tenant_id, entity_id, "temperature", OLD, Decimal(99999)))
        # Not every entity has one, and not every one is recent.
        if entity_id % 3:
            at = BASE - timedelta(hours=entity_id)
            known.values.append(Value(tenant_id, entity_id, "note", at, f"note {entity_id} of {tenant_id}"))
            known.values.append(Value(tenant_id, entity_id, "seen", at, at - timedelta(minutes=1)))


def _hot(connection: Connection, known: Known, tenant_id: int, dice: random.Random) -> None:
    for entity_id in range(1, ENTITIES + 1):
        attrs: Hot = {"status": dice.choice(["online", "online", "offline"]), "priority": dice.randrange(10)}
        if entity_id % 2:
            attrs["online"] = attrs["status"] == "online"
        known.hot[tenant_id, entity_id] = attrs
        known.hot_at[tenant_id, entity_id] = BASE - timedelta(seconds=entity_id)
        connection.execute(
            "SELECT eav.upsert_hot_attrs(%s, %s, %s, %s)",
            [tenant_id, entity_id, json.dumps(attrs), known.hot_at[tenant_id, entity_id]],
        )


def _crowd(connection: Connection) -> None:
    """Enough rows of others that reading all of them is the worse plan."""
    connection.execute(
        "INSERT INTO eav.entity_values_ts (tenant_id, entity_id, attribute_id, observed_at, value_number)"
        " SELECT 100 + t, e, 1000 + t * 10 + a, %s::timestamptz - s * interval '2 hours', t"
        " FROM generate_series(1, 100) AS t, generate_series(1, 4) AS e, generate_series(1, 5) AS a,"
        " generate_series(0, 40) AS s",
        [BASE],
    )
    connection.execute(
        "INSERT INTO eav.entity_jsonb (tenant_id, entity_id, observed_at, hot_attrs, hot_times)"
        ' SELECT 100 + t, e, %s, \'{"status": "online"}\', \'{"status": 0}\''
        " FROM generate_series(1, 400) AS t, generate_series(1, 60) AS e",
        [BASE],
    )


def _rejected(connection: Connection, known: Known, ids: dict[tuple[int, str], int]) -> None:
    rows: list[tuple[Any, ...]] = []
    for tenant_id, reason, count in (
        (TENANT, "wrong_type", 5), (TENANT, "out_of_range", 3), (OTHER, "wrong_type", 400),
        *((t, "in_future", 10) for t in range(100, 300)),
    ):  # fmt: skip
        known.rejected[tenant_id, reason] = count
        attribute = ids.get((tenant_id, "temperature"))
        rows += [(tenant_id, attribute, reason, f"{reason} {n}", None) for n in range(1, count + 1)]
    rows += [(None, None, "malformed", None, b"\xff\x00{cut")] * 2
    known.rejected[None, "malformed"] = 2
    with connection.cursor().copy(
        "COPY eav.entity_values_rejected (tenant_id, attribute_id, reason, value_text, raw, rejected_at) FROM STDIN"
    ) as copy:
        copy.set_types(["bigint", "bigint", "text", "text", "bytea", "timestamptz"])
        for number, row in enumerate(rows):
            copy.write_row((*row, BASE - timedelta(minutes=1, microseconds=len(rows) - number)))
    # Too long ago to count.
    connection.execute(
        "INSERT INTO eav.entity_values_rejected (tenant_id, reason, rejected_at) VALUES (%s, 'wrong_type', %s)",
        [TENANT, BASE - timedelta(hours=30)],
    )


def _operations(connection: Connection) -> None:
    """Two sources with checkpoints, staged rows in two lanes, and runs of two jobs."""
    connection.execute("SELECT eav.ingest_source('telemetry.ndjson'), eav.ingest_source('feed', '7', true)")
    connection.execute(
        "INSERT INTO eav.ingest_checkpoint_log (source_id, position, flushed_at)"
        " SELECT s.source_id, p, %s::timestamptz - (500 - p) * interval '1 second' - s.source_id * interval '1 hour'"
        " FROM eav.ingest_sources AS s, generate_series(1, 500) AS p",
        [BASE],
    )
    connection.execute("SELECT eav.ingest_source('silent')")
    connection.execute(
        "INSERT INTO eav.hot_backfill (attribute_id, turned_hot, started_at, tidied_at, share_done)"
        " SELECT attribute_id, true, %s, %s, 0.25 FROM eav.attributes WHERE tenant_id = %s AND name = 'status'",
        [BASE, BASE, TENANT],
    )
    for lane, rows in ((0, 3), (2, 7)):
        connection.execute(
            f"INSERT INTO eav.staging_{lane}_0 (tenant_id, staged_at)"
            f" SELECT 1, now() - interval '90 seconds' FROM generate_series(1, {rows})"
        )
    connection.execute(
        """
        INSERT INTO ops.job_runs (started_at, finished_at, rows, pid, job, status, scheduler, host, error)
        SELECT
            %(base)s::timestamptz - n * interval '1 minute',
            %(base)s::timestamptz - n * interval '1 minute' + n * interval '10 ms',
            n, 1, 'flush', CASE n WHEN 7 THEN 'failed' WHEN 8 THEN 'skipped' ELSE 'ok' END, 'worker', 'local',
            CASE n WHEN 7 THEN 'it broke' END
        FROM generate_series(1, 21) AS n
        UNION ALL
        SELECT %(base)s::timestamptz - interval '2 days', %(base)s, 1, 1, 'reconcile', 'ok', 'cli', 'local', NULL
        """,
        {"base": BASE},
    )
