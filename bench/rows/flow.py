"""End to end: from producers through staging and the flush, everything on, to values that a reader sees."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from bench.load import STRIDE, catalogue, tenant_slots
from bench.model import Figures, Line, Row, Step, at_least, at_most
from bench.server import ROOT, Connection, one
from bench.sizes import ATTRIBUTES, HOT_ATTRIBUTES
from bench.traffic import MARKERS, PRODUCERS, Order, Reader, Traffic, repeating, run_traffic, worker
from bench.worlds import World, active_partition
from local.cluster import temporary_folder
from local.errors import LocalError
from local.packages import add_extension

CLAIM: Final = 10_000
"""Values a second that the source document says its design sustains (section 3.1)."""
UNIT = "values/s"


class Live(World):
    """5 K active entities, hot attributes, an empty history."""

    database = "bench_live"

    def build(self) -> None:
        """The catalogue, two sources in lanes of their own, and the reference."""
        with self.connect() as connection:
            catalogue(connection, self.bench.sizes.active_entities, hot=HOT_ATTRIBUTES)
            self.load_reference(connection, "flush")
            self.sources = [
                int(one(connection, "SELECT eav.ingest_source('bench', %s)", str(n)))
                for n in range(PRODUCERS)
            ]
            connection.execute(
                f"CREATE TABLE bench.moved (LIKE {active_partition(connection)} INCLUDING INDEXES)".encode()
            )
        self.batches = 0

    def orders(self, kind: str, seconds: float, rate: float | None = None) -> list[Order]:
        """For each producer; batches are numbered on from those before."""
        sizes = self.bench.sizes
        first = self.batches
        self.batches += 1_000_000
        return [
            Order(
                url=self.bench.url(self.database),
                kind=kind,
                number=number,
                source_id=self.sources[number],
                entities=sizes.active_entities,
                batch=sizes.batch,
                window=sizes.window,
                seconds=seconds,
                rate=None if rate is None else rate / PRODUCERS,
                first_batch=first,
            )
            for number in range(PRODUCERS)
        ]

    def reader(self, table: str = "eav.entity_values_ts") -> Reader:
        """Of that table."""
        if table.startswith("reference."):
            return Reader(self, table, "ingested_at", "value_decimal")
        return Reader(self, table, "observed_at", "value_number")

    def empty(self) -> None:
        """As after the making, but for hot values."""
        with self.connect() as connection:
            connection.execute(
                "TRUNCATE eav.entity_values_ts, bench.moved, reference.entity_values_ts, reference.entity_values_ingest"
            )


class LiveRow(Row):
    """A row with producers."""

    world = Live

    @property
    def live(self) -> Live:
        """The database."""
        return self.within(Live)


class EndToEnd(LiveRow):
    """DESIGN: end to end, 2 producers, everything on, 5 K active entities."""

    name = "end-to-end"
    title = "two producers, `python -m jobs worker`, validation, hot attributes and checkpoint on"
    state = "after a CHECKPOINT, each"

    def steps(self) -> Sequence[Step]:
        """The reference under the same load, then ours."""
        return (self._reference, self._ours)

    def lines(self) -> Sequence[Line]:
        """Over the reference's claim; the lag by itself; and over the reference as it does here."""
        claim = f"claim of {CLAIM:,} values/s"
        return (
            Line("end to end, two producers", "ours", UNIT, CLAIM, claim, at_least(25)),
            Line("commit to visible, p99", "ours, lag p99", "ms", bar=at_most(250)),
            Line("commit to visible, p50", "ours, lag p50", "ms"),
            Line("end to end, over the reference under the same load", "ours", UNIT, "reference"),
            Line("rows that the reference lost or doubled on balance", "reference, rows astray", "%"),
        )

    def notes(self) -> dict[str, Any]:
        """How it is driven."""
        sizes = self.bench.sizes
        return {
            "producers": f"{PRODUCERS} processes, binary COPY of prepared buffers",
            "rows a transaction": sizes.batch,
            "batches of a producer that may be staged and not visible": sizes.window,
            "flusher of ours": "python -m jobs worker",
            "flusher of the reference": "SELECT stage_flush(50000) every 100 ms; it has no hot attributes here",
            "every row of ours counted at the end": True,
        }

    def _ours(self) -> Figures:
        self.live.empty()
        with worker(self.bench, self.live):
            time.sleep(1)
            self.bench.checkpoint()
            traffic = run_traffic(
                self.live, self.live.orders("ours", self.bench.sizes.seconds), self.live.reader()
            )
            with self.live.connect() as connection:
                stored = int(one(connection, "SELECT count(*) FROM eav.entity_values_ts"))
                rejected = int(one(connection, "SELECT count(*) FROM eav.entity_values_rejected"))
        if (stored, rejected) != (traffic.rows, 0):
            raise LocalError(
                f"python -m bench: {traffic.rows:,} values were sent, {stored:,} stored, {rejected:,} rejected"
            )
        return figures("ours", traffic)

    def _reference(self) -> Figures:
        self.live.empty()
        self.bench.checkpoint()
        with repeating(self.live, lambda c: one(c, "SELECT reference.stage_flush(50000)"), 0.1):
            traffic = run_traffic(
                self.live,
                self.live.orders("reference", self.bench.sizes.seconds),
                self.live.reader("reference.entity_values_ts"),
            )
        with self.live.connect() as connection:
            stored = int(
                one(
                    connection,
                    "SELECT (SELECT count(*) FROM reference.entity_values_ts)"
                    " + (SELECT count(*) FROM reference.entity_values_ingest)",
                )
            )
        return {
            **figures("reference", traffic),
            "reference, rows astray": abs(stored - traffic.rows) / traffic.rows * 100,
        }


class EndToEndIngest(LiveRow):
    """The same with the real ingester, which parses NDJSON."""

    name = "ingest"
    title = "two `python -m jobs ingest` of NDJSON files, `python -m jobs worker`, everything on"
    state = "after a CHECKPOINT, each"

    def steps(self) -> Sequence[Step]:
        """Ours alone: the reference describes no ingester."""
        return (self._ours,)

    def lines(self) -> Sequence[Line]:
        """Over the claim."""
        return (
            Line(
                "end to end, two `jobs ingest`, start-up and parsing included",
                "ours",
                UNIT,
                CLAIM,
                f"claim of {CLAIM:,} values/s",
            ),
        )

    def notes(self) -> dict[str, Any]:
        """How long the files are."""
        return {"lines of each file": self.bench.sizes.lines}

    def _ours(self) -> Figures:
        self.live.empty()
        lines = self.bench.sizes.lines
        first = self.live.batches
        self.live.batches += 1
        with temporary_folder() as folder, worker(self.bench, self.live), ExitStack() as stack:
            files = [folder / f"values-{first}-{number}.ndjson" for number in range(PRODUCERS)]
            for number, file in enumerate(files):
                write_lines(file, number * lines, lines, self.bench.sizes.active_entities)
            self.bench.checkpoint()
            start = time.perf_counter()
            processes = [
                stack.enter_context(
                    subprocess.Popen(
                        [sys.executable, "-m", "jobs", "ingest", "--wait", "--json", str(file)],
                        cwd=ROOT,
                        env=self.bench.environment(self.live.database),
                        stdout=subprocess.DEVNULL,
                        stderr=subprocess.PIPE,
                        text=True,
                    )
                )
                for file in files
            ]
            try:
                errors = [process.communicate()[1] for process in processes]
            finally:
                for process in processes:
                    process.terminate()
            seconds = time.perf_counter() - start
            for process, error in zip(processes, errors, strict=True):
                if process.returncode:
                    raise LocalError(f"python -m jobs ingest failed: {error.strip().splitlines()[-1]}")
            with self.live.connect() as connection:
                stored = int(one(connection, "SELECT count(*) FROM eav.entity_values_ts"))
        if stored != lines * PRODUCERS:
            raise LocalError(f"python -m bench: {lines * PRODUCERS:,} lines, {stored:,} values stored")
        return {"ours": stored / seconds}


class PgQ(LiveRow):
    """PgQ as a second peer: how fast events move to a table."""

    name = "pgq"
    title = "moving events to a table: PgQ (postgresql-15-pgq3) beside staging and flush"
    state = "after a CHECKPOINT, each"

    def missing(self) -> str | None:
        """The extension must be on the server; where we may, it is installed."""
        return add_extension(self.bench.cluster.binaries, "pgq", "pgq3", self.bench.say)

    def prepare(self) -> None:
        """A queue with one consumer."""
        with self.live.connect() as connection:
            connection.execute("CREATE EXTENSION IF NOT EXISTS pgq")
            connection.execute("SELECT pgq.create_queue('bench')")
            connection.execute("SELECT pgq.register_consumer('bench', 'mover')")
            for name, value in (
                ("ticker_max_count", "50000"),
                ("ticker_max_lag", "100 milliseconds"),
                ("ticker_idle_period", "100 milliseconds"),
            ):
                connection.execute("SELECT pgq.set_queue_config('bench', %s, %s)", (name, value))

    def steps(self) -> Sequence[Step]:
        """PgQ, then ours, driven alike."""
        return (self._pgq, self._ours)

    def lines(self) -> Sequence[Line]:
        """For information."""
        return (
            Line("moving events, over PgQ", "ours", "events/s", "PgQ"),
            Line("the same, commit to visible p99", "ours, lag p99", "ms", "PgQ, lag p99"),
        )

    def notes(self) -> dict[str, Any]:
        """How it is driven."""
        return {
            "how": "PgQ takes no COPY: events are made inside the server, a statement a batch that calls"
            " pgq.insert_event for each row; ours by INSERT … SELECT of the same rows into staging",
            "PgQ": "ticker every 50 ms, one consumer: next_batch, INSERT … SELECT from get_batch_events,"
            " finish_batch in one transaction; the target has the indexes of the history; no validation, no hot values",
            "ours": "python -m jobs worker, everything on",
            "rows a transaction": self.bench.sizes.batch,
        }

    def clean(self) -> None:
        """The queue is dropped."""
        with self.live.connect() as connection:
            connection.execute("SELECT pgq.drop_queue('bench', true)")

    def _ours(self) -> Figures:
        self.live.empty()
        with worker(self.bench, self.live):
            self.bench.checkpoint()
            orders = self.live.orders("ours-inserted", self.bench.sizes.seconds)
            return figures("ours", run_traffic(self.live, orders, self.live.reader()))

    def _pgq(self) -> Figures:
        self.live.empty()
        self.bench.checkpoint()
        with (
            repeating(self.live, lambda c: one(c, "SELECT pgq.ticker()"), 0.05),
            repeating(self.live, move, 0.01),
        ):
            orders = self.live.orders("pgq", self.bench.sizes.seconds)
            return figures("PgQ", run_traffic(self.live, orders, self.live.reader("bench.moved")))


def move(connection: Connection) -> None:
    """One batch of PgQ's consumer, if there is one."""
    with connection.transaction():
        connection.execute("SET LOCAL synchronous_commit = off")
        batch = one(connection, "SELECT pgq.next_batch('bench', 'mover')")
        if batch is None:
            return
        connection.execute(
            "INSERT INTO bench.moved (tenant_id, entity_id, attribute_id, observed_at, value_number)"
            " SELECT p.v[1]::bigint, p.v[2]::bigint, p.v[3]::bigint, p.v[4]::timestamptz, p.v[5]::numeric"
            " FROM (SELECT string_to_array(ev_data, ',') AS v FROM pgq.get_batch_events(%s) OFFSET 0) AS p",
            (batch,),
        )
        connection.execute("SELECT pgq.finish_batch(%s)", (batch,))


def figures(name: str, traffic: Traffic) -> Figures:
    """Rate and lag."""
    found = {name: traffic.rate}
    if traffic.lags:
        found |= {f"{name}, lag p50": traffic.lag(0.5), f"{name}, lag p99": traffic.lag(0.99)}
    return found


def write_lines(file: Path, first: int, count: int, entities: int) -> None:
    """`count` values as NDJSON, of the times that end with now."""
    slots = tenant_slots()
    start = datetime.now(UTC) - timedelta(milliseconds=count)
    with file.open("w", encoding="utf-8") as stream:
        for n in range(first, first + count):
            entity = n * STRIDE % entities
            at = (start + timedelta(milliseconds=n - first)).isoformat(timespec="milliseconds")
            stream.write(
                f'{{"tenant_id": {slots[entity % len(slots)]}, "entity_id": {entity + 1}, "attribute":'
                f' {json.dumps(f"a{n * 31 % (ATTRIBUTES - MARKERS) + 1}")}, "observed_at": "{at}",'
                f' "value": {n % 1000 / 10}}}\n'
            )
