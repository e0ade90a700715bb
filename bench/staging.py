"""Where a producer should put its values: UNLOGGED slots, logged slots, or straight into the history.

    python -m bench.staging [--rows N] [--rounds N] [--json]

Each contestant takes the same rows, in batches of one transaction each, and in the end they are durable with a
checkpoint: `slots` by COPY into a lane and a flush, `direct` by COPY into eav.entity_values_ts with an entry in
eav.ingest_checkpoint_log in the same transaction, by the producer itself. Direct COPY leaves out what the flush
does beside that (types, tenants, entities, ranges, hot values, rejections): it is what the least of it costs.
Measured on a throw-away cluster with fsync on, after a CHECKPOINT, interleaved; medians count.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import psutil
import psycopg
from rich.console import Console
from rich.table import Table

from local.cluster import temporary_cluster

ROOT = Path(__file__).resolve().parent.parent
Connection = psycopg.Connection[tuple[Any, ...]]
Say = Callable[[str], None]

ENTITIES: Final = 5000
ATTRIBUTES: Final = 1000
BATCH: Final = 5000
"""Rows a transaction."""
LIVE: Final = 200
"""Rows a transaction of a source that waits for each answer, by which its latency is told."""
COLUMNS: Final = "tenant_id, entity_id, attribute_id, observed_at, value_number"


@dataclass(frozen=True)
class Row:
    """One line of the result, medians over the rounds.

    `rate` rows/s of the producer alone, `total` rows/s until they are durable in the history, `wal` bytes a
    row up to there (`wal_staged`: those of staging), `cpu` microseconds of the server's process a row
    (`cpu_staged` likewise; they hold where other work disturbs the rates), `p50` and `p99` milliseconds of one
    small transaction.
    """

    name: str
    replayable: bool
    rate: float
    total: float
    wal_staged: float
    wal: float
    cpu_staged: float
    cpu: float
    p50: float
    p99: float
    rates: list[float]
    totals: list[float]


@dataclass(frozen=True)
class Sample:
    """One measurement of one contestant."""

    rate: float
    total: float
    wal_staged: float
    wal: float
    cpu_staged: float
    cpu: float
    p50: float
    p99: float


def measure(rows: int, rounds: int, say: Say) -> list[Row]:
    """Every contestant in every round, in turn; the first two and the last two take replayable sources."""
    settings: dict[str, Any] = {
        "fsync": True, "full_page_writes": True, "shared_buffers": "1GB", "max_wal_size": "8GB",
    }  # fmt: skip
    with temporary_cluster(settings) as cluster:
        subprocess.run(
            [sys.executable, "-m", "alembic", "upgrade", "head"],
            cwd=ROOT,
            env=os.environ | {"DATABASE_URL": cluster.url()},
            check=True,
            capture_output=True,
        )
        with psycopg.connect(cluster.url(), autocommit=True) as connection:
            contestants = list(_contestants(connection))
            samples: dict[str, list[Sample]] = {one.name: [] for one in contestants}
            for number in range(1, rounds + 1):
                for one in contestants:
                    sample = one.run(connection, rows)
                    samples[one.name].append(sample)
                    say(
                        f"round {number} of {rounds}: {one.name}: {sample.rate:,.0f} rows/s staged,"
                        f" {sample.total:,.0f} to the end, {sample.wal:.0f} WAL bytes a row"
                    )
    return [_row(one, samples[one.name]) for one in contestants]


@dataclass(frozen=True)
class Contestant:
    """A way in: the table (asked for each batch), and what is SET for it."""

    name: str
    replayable: bool
    source_id: int
    durable: bool
    direct: bool

    def run(self, connection: Connection, rows: int) -> Sample:
        """One measurement; leaves the tables empty."""
        connection.execute("TRUNCATE eav.entity_values_ts, eav.ingest_checkpoint_log")
        connection.execute(f"SET synchronous_commit = {'on' if self.durable else 'off'}")
        batches = [_payload(self, first, BATCH) for first in range(1, rows + 1, BATCH)]
        connection.execute("CHECKPOINT")
        before, worked = _lsn(connection), _cpu(connection)
        start = time.perf_counter()
        for number, batch in enumerate(batches, 1):
            self._put(connection, batch, number * BATCH)
        staged = time.perf_counter() - start
        between, worked_between = _lsn(connection), _cpu(connection)
        moved = 0
        while not self.direct and moved < rows:
            moved += _one(connection, "SELECT eav.stage_flush(50000)")
        total = time.perf_counter() - start
        after, worked_after = _lsn(connection), _cpu(connection)
        assert _one(connection, "SELECT count(*) FROM eav.entity_values_ts") == rows
        latencies = sorted(self._latencies(connection, rows))
        return Sample(
            rate=rows / staged,
            total=rows / total,
            wal_staged=(between - before) / rows,
            wal=(after - before) / rows,
            cpu_staged=(worked_between - worked) * 1e6 / rows,
            cpu=(worked_after - worked) * 1e6 / rows,
            p50=latencies[len(latencies) // 2] * 1000,
            p99=latencies[len(latencies) * 99 // 100] * 1000,
        )

    def _latencies(self, connection: Connection, first: int) -> Iterator[float]:
        for number in range(200):
            batch = _payload(self, first + number * LIVE + 1, LIVE)
            start = time.perf_counter()
            self._put(connection, batch, first + (number + 1) * LIVE)
            yield time.perf_counter() - start
        while not self.direct and _one(connection, "SELECT eav.stage_flush(50000)"):
            pass

    def _put(self, connection: Connection, batch: bytes, last: int) -> None:
        with connection.transaction(), connection.cursor() as cursor:
            if self.direct:
                target, columns = "eav.entity_values_ts", COLUMNS
            else:
                target = _one(connection, "SELECT eav.ingest_target(%s)", self.source_id)
                columns = f"source_id, source_offset, {COLUMNS}"
            with cursor.copy(f"COPY {target} ({columns}) FROM STDIN".encode()) as copy:
                copy.write(batch)
            if self.direct:
                cursor.execute(
                    "INSERT INTO eav.ingest_checkpoint_log (source_id, position) VALUES (%s, %s)",
                    (self.source_id, last),
                )


def _contestants(connection: Connection) -> Iterator[Contestant]:
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
    replayed = _one(connection, "SELECT eav.ingest_source('replayed')")
    kept = _one(connection, "SELECT eav.ingest_source('kept', p_durable => true)")
    connection.execute("VACUUM ANALYZE")
    yield Contestant("UNLOGGED slots + flush", True, replayed, durable=False, direct=False)
    yield Contestant("logged slots + flush, replayable", True, kept, durable=False, direct=False)
    yield Contestant("direct COPY + checkpoint, replayable", True, replayed, durable=False, direct=True)
    yield Contestant("logged slots + flush, kept", False, kept, durable=True, direct=False)
    yield Contestant("direct COPY + checkpoint, kept", False, replayed, durable=True, direct=True)


def _payload(contestant: Contestant, first: int, rows: int) -> bytes:
    """Rows as text: the same for all, but that the slots take source and offset along."""
    now = time.time()
    lines = []
    for n in range(first, first + rows):
        at = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now - 60 + n % 50))
        row = f"1\t{n * 7919 % ENTITIES + 1}\t{n % ATTRIBUTES + 1}\t{at}.{n % 1000:03}Z\t{n % 100000 / 100}\n"
        lines.append(row if contestant.direct else f"{contestant.source_id}\t{n}\t{row}")
    return "".join(lines).encode()


def _row(contestant: Contestant, samples: list[Sample]) -> Row:
    middle = {
        name: statistics.median(getattr(one, name) for one in samples)
        for name in ("rate", "total", "wal_staged", "wal", "cpu_staged", "cpu", "p50", "p99")
    }
    return Row(
        contestant.name,
        contestant.replayable,
        **middle,
        rates=[one.rate for one in samples],
        totals=[one.total for one in samples],
    )


def _lsn(connection: Connection) -> int:
    return int(_one(connection, "SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn"))


def _cpu(connection: Connection) -> float:
    """Seconds that the process of this connection has worked."""
    times = psutil.Process(connection.info.backend_pid).cpu_times()
    return float(times.user + times.system)


def _one(connection: Connection, query: str, *params: object) -> Any:
    ((value, *_),) = connection.execute(query.encode(), params or None).fetchall()
    return value


def main(argv: list[str] | None = None) -> int:
    """Measure; prints a table, or JSON."""
    parser = argparse.ArgumentParser(prog="python -m bench.staging", description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, default=300_000, help="rows of each measurement (default 300000)")
    parser.add_argument(
        "--rounds", type=int, default=3, help="interleaved rounds, of which the median counts (default 3)"
    )
    parser.add_argument("--json", action="store_true", help="a JSON array instead of a table")
    options = parser.parse_args(argv)
    if options.rows < BATCH or options.rows % BATCH or options.rounds < 1:
        print(
            f"python -m bench.staging: --rows must be a multiple of {BATCH} and --rounds 1 or more",
            file=sys.stderr,
        )
        return 2
    rows = measure(options.rows, options.rounds, lambda line: print(line, file=sys.stderr, flush=True))
    if options.json:
        print(json.dumps([asdict(row) for row in rows], indent=2))
        return 0
    table = Table(title=f"{options.rows} rows, after a CHECKPOINT, medians of {options.rounds}")
    headings = (
        "way in", "source", "COPY rows/s", "to the end", "WAL bytes a row: COPY", "in all",
        "server us a row: COPY", "in all", f"ms for {LIVE} rows p50", "p99",
    )  # fmt: skip
    for number, heading in enumerate(headings):
        table.add_column(heading, justify="left" if number < 2 else "right")
    for row in rows:
        table.add_row(
            row.name,
            "replayable" if row.replayable else "not replayable",
            *(f"{value:,.0f}" for value in (row.rate, row.total, row.wal_staged, row.wal)),
            *(f"{value:.2f}" for value in (row.cpu_staged, row.cpu, row.p50, row.p99)),
        )
    Console(width=None if sys.stdout.isatty() else 160).print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
