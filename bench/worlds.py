"""Databases that several rows measure in, each made once and dropped after its last row."""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, ClassVar

from bench.load import catalogue
from bench.server import ROOT, Bench, Connection, one
from bench.sizes import HOT_ATTRIBUTES

REFERENCE = ROOT / "bench" / "reference"
BATCH = 20_000
"""Rows a transaction of a producer, as `python -m jobs ingest` has it."""
LIMIT = 50_000
"""Rows a flush, as the schedule has it, and the reference's own default."""


class World(ABC):
    """A database with the catalogue and both designs in it. `build` fills it."""

    database: ClassVar[str]

    def __init__(self, bench: Bench) -> None:
        self.bench = bench

    def open(self) -> None:
        """Make the database."""
        self.bench.create_database(self.database)
        self.build()

    def close(self) -> None:
        """Drop it."""
        self.bench.drop_database(self.database)

    @abstractmethod
    def build(self) -> None:
        """Fill the database; not measured."""

    def connect(self, role: str | None = None, **options: Any) -> Connection:
        """A connection to it."""
        return self.bench.connect(self.database, role, **options)

    def load_reference(self, connection: Connection, *parts: str) -> None:
        """The reference's tables and functions."""
        for part in parts:
            connection.execute((REFERENCE / f"{part}.sql").read_bytes())


class Flow(World):
    """5 K active entities, an empty history: what a flush moves, and how fast."""

    database = "bench_flow"

    def build(self) -> None:
        """The catalogue and eight sources, two in each lane."""
        with self.connect() as connection:
            catalogue(connection, self.bench.sizes.active_entities)
            self.load_reference(connection, "flush")
            self.sources = sources(connection)
        self.staged = 0

    def stage(self, connection: Connection, rows: int, start: datetime | None = None) -> None:
        """`rows` values in staging, in transactions of BATCH, evenly over the sources and so over the lanes."""
        stage(connection, self.sources, self.staged, rows, start)
        self.staged += rows


class History(World):
    """A partition that holds many rows already, in both designs: last month's; and this month's, which is empty.

    Filled in bulk, in order of time, and indexed afterwards. The reference's entity index is left out at first.
    """

    database = "bench_history"

    def __init__(self, bench: Bench, rows: int | None = None) -> None:
        super().__init__(bench)
        self.rows = rows or bench.sizes.history
        self.compacted = False

    def build(self) -> None:
        """Both designs at the same time, on a connection each."""
        with self.connect() as connection:
            catalogue(connection, self.bench.sizes.active_entities)
            self.load_reference(connection, "flush")
            self.sources = sources(connection)
            self.month: datetime = one(connection, "SELECT date_trunc('month', now()) - interval '1 month'")
            self.this_month: datetime = one(connection, "SELECT date_trunc('month', now())")
            self.ours = str(
                one(
                    connection,
                    "SELECT b.partition::text FROM ops.partition_bounds('eav.entity_values_ts') AS b"
                    " WHERE b.starts_at = %s",
                    self.month,
                )
            )
            self.reference = f"reference.entity_values_ts_{self.month:%Y_%m}"
            connection.execute("DROP INDEX reference.idx_entity_values_ts_entity_time")
        # The last day of the month is left for what is flushed into it.
        self.step = (self.this_month - self.month - timedelta(days=1)) / self.rows
        self.filled_to = self.month + self.rows * self.step
        self.staged = 0
        self.staged_reference = 0
        start = time.perf_counter()
        together(self._fill_ours, self._fill_reference)
        self.bench.say(f"{self.rows:,} rows in each design's partition: {time.perf_counter() - start:,.0f} s")

    def stage(self, connection: Connection, rows: int, start: datetime | None = None) -> datetime:
        """Staged rows behind those that the partition holds (or from `start` on); returns where they begin."""
        begin = start or self.filled_to + self.staged * timedelta(milliseconds=1)
        stage(connection, self.sources, self.staged, rows, begin - self.staged * timedelta(milliseconds=1))
        self.staged += rows
        return begin

    def stage_reference(self, connection: Connection, rows: int) -> None:
        """As many rows in the reference's staging table, behind those that its partition holds."""
        begin = self.filled_to + self.staged_reference * timedelta(milliseconds=1)
        first = self.staged_reference
        stage_reference(connection, first, rows, begin - first * timedelta(milliseconds=1))
        self.staged_reference += rows

    def entities_of(self, tenant: int, count: int) -> list[int]:
        """The first entities of a tenant, at most so many."""
        with self.connect() as connection:
            return [
                int(entity)
                for (entity,) in connection.execute(
                    "SELECT entity_id FROM eav.entities WHERE tenant_id = %s ORDER BY entity_id LIMIT %s",
                    (tenant, count),
                )
            ]

    def add_entity_index(self) -> None:
        """The index that the reference's latest value of an entity needs."""
        with self.connect() as connection:
            connection.execute(
                "CREATE INDEX IF NOT EXISTS idx_entity_values_ts_entity_time ON reference.entity_values_ts"
                " (tenant_id, entity_id, attribute_id, ingested_at)"
            )

    def vacuum(self) -> None:
        """What autovacuum does of itself after so many inserts, now and for both."""
        with self.connect() as connection:
            connection.execute(f"VACUUM ANALYZE {self.ours}, {self.reference}".encode())

    def _fill_ours(self) -> None:
        with self.connect() as connection:
            fill_partition(
                connection,
                "eav.entity_values_ts",
                self.ours,
                "INSERT INTO {table} (tenant_id, entity_id, attribute_id, observed_at, value_number)"
                " SELECT tenant_id, entity_id, attribute_id, observed_at, value"
                " FROM bench.load(1, %s, %s, %s)",
                (self.rows, self.month, self.step),
            )

    def _fill_reference(self) -> None:
        with self.connect() as connection:
            fill_partition(
                connection,
                "reference.entity_values_ts",
                self.reference,
                "INSERT INTO {table} (tenant_id, entity_id, attribute_id, ingested_at, value_decimal)"
                " SELECT tenant_id, entity_id, attribute_id, observed_at, value"
                " FROM bench.load(1, %s, %s, %s)",
                (self.rows, self.month, self.step),
            )


class Entities(World):
    """The hot projection of many entities, in both designs: eight tags and six values that change all the time."""

    database = "bench_entities"

    def __init__(self, bench: Bench, entities: int | None = None) -> None:
        super().__init__(bench)
        self.entities = entities or bench.sizes.entities
        self.event = 0

    def build(self) -> None:
        """Filled in bulk, GIN indexes made afterwards, which is much faster, then vacuumed."""
        with self.connect() as connection:
            catalogue(connection, self.entities, hot=HOT_ATTRIBUTES, tagged=True)
            self.load_reference(connection, "flush", "hot")
            indexes = connection.execute(
                "SELECT indexrelid::regclass::text, pg_get_indexdef(indexrelid) FROM pg_index"
                " WHERE indrelid IN ('eav.entity_jsonb'::regclass, 'reference.entity_jsonb'::regclass)"
                " AND NOT indisprimary"
            ).fetchall()
            for name, _ in indexes:
                connection.execute(f"DROP INDEX {name}".encode())
        start = time.perf_counter()
        together(self._fill_ours, self._fill_reference)
        with self.connect() as connection:
            for _, definition in indexes:
                # The definition of a partitioned index says ONLY, which would leave its partitions without.
                connection.execute(definition.replace(" ON ONLY ", " ON ").encode())
            connection.execute("VACUUM ANALYZE eav.entity_jsonb, reference.entity_jsonb")
        self.bench.say(f"{self.entities:,} entities in each projection: {time.perf_counter() - start:,.0f} s")

    def _fill_ours(self) -> None:
        with self.connect() as connection:
            connection.execute(
                b"INSERT INTO eav.entity_jsonb (tenant_id, entity_id, observed_at, hot_attrs, hot_times, hot_volatile)"
                b" SELECT bench.tenant_of(v.n), v.n, '2026-01-01', v.attrs - bench.volatile_names(),"
                b" (SELECT jsonb_object_agg(k, 1767225600000000) FROM jsonb_object_keys(v.attrs) AS k),"
                b" v.attrs - (SELECT array_agg(k) FROM jsonb_object_keys(v.attrs) AS k"
                b" WHERE k <> ALL(bench.volatile_names()))"
                b" FROM (SELECT n, bench.hot_values(n) AS attrs"
                b"   FROM generate_series(1, %s::bigint) AS n OFFSET 0) AS v",
                (self.entities,),
            )
            connection.execute(
                "UPDATE eav.attributes SET is_volatile = true WHERE is_hot AND name = ANY(bench.volatile_names())"
            )
            connection.execute("UPDATE eav.hot_backfill SET tidied_at = now(), finished_at = now()")
            connection.execute("VACUUM ANALYZE eav.attributes, eav.hot_backfill")

    def _fill_reference(self) -> None:
        with self.connect() as connection:
            connection.execute(
                "INSERT INTO reference.entity_jsonb (entity_id, tenant_id, hot_attrs)"
                " SELECT n, bench.tenant_of(n), bench.hot_values(n) FROM generate_series(1, %s::bigint) AS n",
                (self.entities,),
            )


def active_partition(connection: Connection) -> str:
    """A partition of the history that is not closed, with the indexes that the flush has to keep."""
    return str(
        one(
            connection,
            "SELECT inhrelid::regclass FROM pg_inherits WHERE inhparent = 'eav.entity_values_ts'::regclass"
            " ORDER BY inhrelid DESC LIMIT 1",
        )
    )


def sources(connection: Connection) -> list[int]:
    """Eight sources, two in each lane that is not logged."""
    return [int(one(connection, "SELECT eav.ingest_source('bench', %s)", str(n))) for n in range(8)]


def stage(
    connection: Connection, source_ids: list[int], first: int, rows: int, start: datetime | None = None
) -> None:
    """Rows `first + 1` to `first + rows` of the load into staging, a transaction for each BATCH.

    Row n is of `start + n` milliseconds; without `start`, the last of them is of now.
    """
    start = start or one(connection, "SELECT now()") - (first + rows) * timedelta(milliseconds=1)
    for number, begin in enumerate(range(first, first + rows, BATCH)):
        source = source_ids[number % len(source_ids)]
        slot = one(connection, "SELECT eav.ingest_target(%s)", source)
        connection.execute(
            f"INSERT INTO {slot} (source_id, source_offset, tenant_id, entity_id, attribute_id, observed_at,"
            " value_number) SELECT %s, n, tenant_id, entity_id, attribute_id, observed_at, value"
            " FROM bench.load(%s, %s, %s, '1 ms')".encode(),
            (source, begin + 1, min(begin + BATCH, first + rows), start),
        )


def stage_reference(connection: Connection, first: int, rows: int, start: datetime | None = None) -> None:
    """The same rows in the reference's staging table, in the same transactions."""
    start = start or one(connection, "SELECT now()") - (first + rows) * timedelta(milliseconds=1)
    for begin in range(first, first + rows, BATCH):
        connection.execute(
            "INSERT INTO reference.entity_values_ingest"
            " (tenant_id, entity_id, attribute_id, ingested_at, value_decimal)"
            " SELECT tenant_id, entity_id, attribute_id, observed_at, value"
            " FROM bench.load(%s, %s, %s, '1 ms')",
            (begin + 1, min(begin + BATCH, first + rows), start),
        )


def fill_partition(
    connection: Connection, parent: str, partition: str, insert: str, params: tuple[object, ...]
) -> None:
    """Fill an empty partition without indexes and make its parent's indexes afterwards, which is much faster.

    `insert` names the partition as {table}.
    """
    bound = one(
        connection, "SELECT pg_get_expr(relpartbound, oid) FROM pg_class WHERE oid = %s::regclass", partition
    )
    definitions = [
        (str(name), str(definition))
        for name, definition in connection.execute(
            "SELECT indexrelid::regclass::text, pg_get_indexdef(indexrelid) FROM pg_index"
            " WHERE indrelid = %s::regclass AND NOT indisprimary",
            (partition,),
        )
    ]
    connection.execute(f"ALTER TABLE {parent} DETACH PARTITION {partition}".encode())
    for name, _ in definitions:
        connection.execute(f"DROP INDEX {name}".encode())
    connection.execute(insert.format(table=partition).encode(), params)
    for _, definition in definitions:
        connection.execute(definition.encode())
    connection.execute(f"VACUUM ANALYZE {partition}".encode())
    connection.execute(f"ALTER TABLE {parent} ATTACH PARTITION {partition} {bound}".encode())


def together(*work: Callable[[], None]) -> None:
    """Each in a thread of its own; raises what the first of them raised."""
    failures: list[BaseException] = []

    def guarded(task: Callable[[], None]) -> None:
        try:
            task()
        except BaseException as error:  # noqa: BLE001  (raised again below)
            failures.append(error)

    # Daemons: an interrupt ends the server, which ends them.
    threads = [threading.Thread(target=guarded, args=(task,), daemon=True) for task in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
