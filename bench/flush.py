"""The flush, measured on a throw-away cluster with fsync on."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg

from local.cluster import temporary_cluster

ROOT = Path(__file__).resolve().parent.parent
Connection = psycopg.Connection[tuple[Any, ...]]
Say = Callable[[str], None]

ATTRIBUTES = 1000
ENTITIES = 5000
LIMIT = 50_000

STAGED_VALUES = (
    f"1, n %% {ENTITIES} + 1, n %% {ATTRIBUTES} + 1, now() - interval '1 hour' + n * interval '1 ms',"
    " (n %% 1000) / 10.0"
    " FROM generate_series(1, %s::bigint) AS n"
)


@dataclass
class Result:
    """Rows a second, one figure a round."""

    rates: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        """The figure that counts."""
        return statistics.median(self.rates)

    def as_dict(self) -> dict[str, Any]:
        """For --json."""
        return {"rows_per_second": self.median, "rounds": self.rates}


def measure(rows: int, rounds: int, say: Say) -> dict[str, Result]:
    """Rows a second of each design; the reference's history has no index at all, ours has all of its own."""
    with temporary_cluster(
        {"fsync": True, "full_page_writes": True, "shared_buffers": "2GB", "max_wal_size": "8GB"}
    ) as cluster:
        url = cluster.url()
        subprocess.run(
            [sys.executable, "-m", "alembic", "upgrade", "head"],
            cwd=ROOT,
            env=os.environ | {"DATABASE_URL": url},
            check=True,
            capture_output=True,
        )
        with psycopg.connect(url, autocommit=True) as connection, psycopg.connect(url) as holder:
            prepare(connection)
            contestants: dict[str, Callable[[], float]] = {
                "ours": lambda: ours(connection, rows),
                "ours, a snapshot held": lambda: beside_a_snapshot(holder, lambda: ours(connection, rows)),
                "plain INSERT … SELECT, same indexes": lambda: plain(connection, rows),
                "the reference flush, no indexes": lambda: reference(connection, rows),
            }
            results = {name: Result() for name in contestants}
            for round_number in range(1, rounds + 1):
                for name, contestant in contestants.items():
                    seconds = contestant()
                    results[name].rates.append(rows / seconds)
                    say(f"round {round_number} of {rounds}: {name}: {rows / seconds:,.0f} rows/s")
    return results


def prepare(connection: Connection) -> None:
    """A tenant with its catalogue, and the reference's tables."""
    connection.execute("SELECT eav.tenant_add('bench', 1)")
    connection.execute(
        "INSERT INTO eav.attributes (tenant_id, name, data_type)"
        " SELECT 1, 'a' || n, 'number' FROM generate_series(1, %s) AS n",
        (ATTRIBUTES,),
    )
    connection.execute(
        "INSERT INTO eav.entities (tenant_id, entity_id) SELECT 1, n FROM generate_series(1, %s) AS n",
        (ENTITIES,),
    )
    connection.execute("SELECT eav.ingest_source('bench')")
    connection.execute((ROOT / "bench" / "reference" / "flush.sql").read_bytes())
    connection.execute(
        "CREATE TABLE plain (LIKE eav.entity_values_ts);"
        " CREATE INDEX ON plain USING brin (observed_at) WITH (pages_per_range = 32, autosummarize = on);"
        " CREATE INDEX ON plain (tenant_id, attribute_id, observed_at)"
    )
    connection.execute("VACUUM ANALYZE")


def ours(connection: Connection, rows: int) -> float:
    """Seconds to flush, with validation, checkpoint and emptying of the slot."""
    connection.execute("TRUNCATE eav.entity_values_ts")
    slot = one(connection, "SELECT eav.ingest_target(1)")
    connection.execute(
        f"INSERT INTO {slot} (source_id, source_offset, tenant_id, entity_id, attribute_id, observed_at, value_number)"
        f" SELECT 1, n, {STAGED_VALUES}".encode(),
        (rows,),
    )
    return drain(connection, "SELECT eav.stage_flush(%s)", rows)


def beside_a_snapshot(holder: Connection, work: Callable[[], float]) -> float:
    """The same with another session in REPEATABLE READ the whole time."""
    holder.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
    holder.execute("SELECT count(*) FROM eav.tenants")
    try:
        return work()
    finally:
        holder.rollback()


def plain(connection: Connection, rows: int) -> float:
    """Seconds of the least that any flush must do."""
    connection.execute("TRUNCATE plain")
    connection.execute("CREATE UNLOGGED TABLE staged (LIKE eav.staging_1_0)")
    connection.execute(
        "INSERT INTO staged (batch, staged_at,"
        " source_id, source_offset, tenant_id, entity_id, attribute_id, observed_at,"
        f" value_number) SELECT pg_current_xact_id(), now(), 1, n, {STAGED_VALUES}".encode(),
        (rows,),
    )
    connection.execute("CHECKPOINT")
    start = time.perf_counter()
    connection.execute(
        "INSERT INTO plain"
        " SELECT tenant_id, entity_id, attribute_id, observed_at, value_time, value_bool, value_number,"
        " value_text FROM staged"
    )
    seconds = time.perf_counter() - start
    connection.execute("DROP TABLE staged")
    return seconds


def reference(connection: Connection, rows: int) -> float:
    """Seconds of the reference's flush, until its staging table is empty."""
    connection.execute("TRUNCATE reference.entity_values_ts, reference.entity_values_ingest")
    connection.execute(
        "INSERT INTO reference.entity_values_ingest (tenant_id, entity_id, attribute_id, ingested_at, value_decimal)"
        f" SELECT {STAGED_VALUES}".encode(),
        (rows,),
    )
    return drain(connection, "SELECT reference.stage_flush(%s)", rows)


def drain(connection: Connection, flush: str, rows: int) -> float:
    """Seconds until `flush`, called again and again with LIMIT, has moved `rows`."""
    connection.execute("CHECKPOINT")
    start = time.perf_counter()
    moved = 0
    while moved < rows:
        moved += one(connection, flush, LIMIT)
    return time.perf_counter() - start


def one(connection: Connection, query: str, *params: object) -> Any:
    """The first column of the only row."""
    ((value, *_),) = connection.execute(query.encode(), params or None).fetchall()
    return value
