"""The flush of a backlog into an empty partition, beside the reference's and beside a plain INSERT … SELECT."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from bench.model import Line, Row, Step, at_least
from bench.server import Connection, one
from bench.worlds import BATCH, LIMIT, Flow, World, active_partition, stage_reference, together
from local.errors import LocalError

UNIT = "rows/s"
UNLIMITED = 2**31 - 1


class Flush(Row):
    """DESIGN: flush with a backlog; by two; at any backlog; beside a snapshot; beside a plain copy."""

    name = "flush"
    title = "flush of a backlog into an empty partition"
    state = "after a CHECKPOINT, each"
    world = Flow

    @property
    def flow(self) -> Flow:
        """The database."""
        return self.within(Flow)

    def prepare(self) -> None:
        """A table with the columns and indexes of the history, for the plain copy."""
        with self.flow.connect() as connection:
            connection.execute(
                f"CREATE TABLE bench.plain (LIKE {active_partition(connection)} INCLUDING INDEXES)".encode()
            )

    def steps(self) -> Sequence[Step]:
        """Reference, ours in five ways, the plain copy."""
        rows, small = self.bench.sizes.staged, self.bench.sizes.staged_small
        return (
            lambda: {"reference, one flusher": self._reference(rows)},
            lambda: {"ours, one flusher": self._ours(rows)},
            lambda: {"ours, two flushers": self._ours(rows, flushers=2)},
            lambda: {"ours, one flusher, a snapshot held": self._beside_a_snapshot(rows)},
            lambda: {"ours, one flusher, small backlog": self._ours_small(small)},
            lambda: {"ours, one flusher, no limit": self._ours(rows, limit=UNLIMITED)},
            lambda: {"plain INSERT … SELECT": self._plain(rows)},
        )

    def lines(self) -> Sequence[Line]:
        """As DESIGN has them, and the limit that is not needed."""
        rows, small = self.bench.sizes.staged, self.bench.sizes.staged_small
        one_flusher = "ours, one flusher"
        return (
            Line(
                f"flush, {rows:,} staged, one flusher",
                one_flusher,
                UNIT,
                "reference, one flusher",
                bar=at_least(10),
            ),
            Line(
                f"flush, {rows:,} staged, two flushers",
                "ours, two flushers",
                UNIT,
                "reference, one flusher",
                bar=at_least(16),
            ),
            Line(
                f"flush at {rows:,} staged over {small:,}",
                one_flusher,
                UNIT,
                "ours, one flusher, small backlog",
                bar=at_least(0.9),
            ),
            Line(
                "flush with a snapshot held for the whole run",
                "ours, one flusher, a snapshot held",
                UNIT,
                one_flusher,
                bar=at_least(0.9),
            ),
            Line(
                "flush with validation and checkpoint",
                one_flusher,
                UNIT,
                "plain INSERT … SELECT",
                bar=at_least(0.75),
            ),
            Line("flush without a limit a call", "ours, one flusher, no limit", UNIT, one_flusher),
        )

    def notes(self) -> dict[str, Any]:
        """What does not show in a rate."""
        return {
            "rows a producer transaction": BATCH,
            "p_limit": LIMIT,
            "every row of ours counted in the table after each flush": True,
        }

    def clean(self) -> None:
        """The tables are emptied."""
        with self.flow.connect() as connection:
            connection.execute(
                "DROP TABLE bench.plain; TRUNCATE eav.entity_values_ts, reference.entity_values_ts"
            )

    def _ours(self, rows: int, flushers: int = 1, limit: int = LIMIT) -> float:
        with self.flow.connect() as connection:
            connection.execute("TRUNCATE eav.entity_values_ts")
            self.flow.stage(connection, rows)
            self.bench.checkpoint()
            seconds = drain(self.flow, rows, flushers, limit)
            stored = int(one(connection, "SELECT count(*) FROM eav.entity_values_ts"))
            if stored != rows:
                raise LocalError(f"python -m bench: {rows:,} values were staged and {stored:,} stored")
        return rows / seconds

    def _ours_small(self, rows: int) -> float:
        """The median of five, since one is over too soon to tell."""
        return sorted(self._ours(rows) for _ in range(5))[2]

    def _beside_a_snapshot(self, rows: int) -> float:
        with self.flow.connect() as holder:
            holder.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
            holder.execute("SELECT count(*) FROM eav.tenants")
            return self._ours(rows)

    def _plain(self, rows: int) -> float:
        with self.flow.connect() as connection:
            connection.execute("TRUNCATE bench.plain")
            connection.execute("CREATE UNLOGGED TABLE bench.staged (LIKE eav.staging_1_0)")
            connection.execute(
                "INSERT INTO bench.staged (batch, staged_at, source_id, source_offset, tenant_id, entity_id,"
                " attribute_id, observed_at, value_number)"
                " SELECT pg_current_xact_id(), now(), 1, n, tenant_id, entity_id, attribute_id, observed_at, value"
                " FROM bench.load(1, %s, now() - %s * interval '1 ms', '1 ms')",
                (rows, rows),
            )
            self.bench.checkpoint()
            start = time.perf_counter()
            connection.execute(
                "INSERT INTO bench.plain SELECT tenant_id, entity_id, attribute_id, observed_at, value_time,"
                " value_bool, value_number, value_text FROM bench.staged"
            )
            seconds = time.perf_counter() - start
            connection.execute("DROP TABLE bench.staged")
        return rows / seconds

    def _reference(self, rows: int) -> float:
        with self.flow.connect() as connection:
            connection.execute("TRUNCATE reference.entity_values_ts, reference.entity_values_ingest")
            stage_reference(connection, self.flow.staged, rows)
            self.bench.checkpoint()
            return rows / drain_reference(connection, rows)


def drain(world: World, rows: int, flushers: int = 1, limit: int = LIMIT) -> float:
    """Seconds until that many flushers, calling again and again, have moved `rows`."""
    connections = [world.connect() for _ in range(flushers)]
    moved = [0] * flushers

    def flush(number: int, connection: Connection) -> None:
        while sum(moved) < rows:
            moved[number] += int(one(connection, "SELECT eav.stage_flush(%s)", limit))

    try:
        start = time.perf_counter()
        together(*(lambda n=n, c=c: flush(n, c) for n, c in enumerate(connections)))
        return time.perf_counter() - start
    finally:
        for connection in connections:
            connection.close()


def drain_reference(connection: Connection, rows: int, limit: int = LIMIT) -> float:
    """Seconds until the reference's flush has moved `rows`; nobody writes meanwhile, so it loses none."""
    start = time.perf_counter()
    moved = 0
    while moved < rows:
        moved += int(one(connection, "SELECT reference.stage_flush(%s)", limit))
    return time.perf_counter() - start
