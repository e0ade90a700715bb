"""A steady load for minutes, and everything that could grow, over time: a slow leak shows as a slope."""

from __future__ import annotations

import csv
import statistics
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import psutil
from rich.console import Console
from rich.table import Table

from bench import docs, pictures, report
from bench.model import figure_text
from bench.rows.flow import Live
from bench.server import Bench, Connection, Say, running
from bench.sizes import FULL, WAL_BYTES, check_disk
from bench.timing import percentile
from bench.traffic import run_traffic, worker
from local.errors import LocalError

BATCH: Final = 1_000
ROW_BYTES: Final = 160
WARM_UP: Final = 1 / 3
"""Share of the run before anything is judged: caches fill, sizes find their level."""
GROWTH: Final = 0.10
"""More than that over what is judged, and steadily so, counts as growing."""
STEADY: Final = 0.75
"""Share of all pairs of samples of which the later one is larger, for a rise to be steady; 0.5 is no trend."""
ENOUGH: Final = 20


@dataclass(frozen=True)
class Metric:
    """Something that is sampled. `pruned_minutes`: something empties it so often, so that it is a saw in between."""

    name: str
    title: str
    unit: str
    pruned_minutes: float = 0.0
    falls: bool = False
    """It would be bad if it fell, not if it rose."""
    smallest: float = 0.0
    """A change of less than that is none."""


MIB: Final = 2**20
METRICS: Final = (
    Metric("rate", "values that became visible", "values/s", falls=True),
    Metric("lag_p50_ms", "commit to visible, p50", "ms", smallest=20),
    Metric("lag_p99_ms", "commit to visible, p99", "ms", smallest=50),
    Metric("wal_bytes_a_value", "WAL", "bytes a value", smallest=20),
    Metric("staging_mib", "staging slots", "MiB", smallest=4),
    Metric("history_bytes_a_value", "history with indexes", "bytes a value", smallest=5),
    Metric("index_bytes_a_value", "indexes of the history", "bytes a value", smallest=5),
    Metric("hot_mib", "hot projection of the same entities", "MiB", smallest=4),
    Metric("hot_dead_rows", "dead rows of the hot projection", "rows", smallest=20_000),
    Metric("pg_class_dead_rows", "dead rows of pg_class", "rows", smallest=500),
    Metric("catalogue_mib", "system catalogue", "MiB", smallest=2),
    Metric("checkpoint_log_mib", "checkpoints of sources", "MiB", pruned_minutes=10, smallest=1),
    Metric("progress_mib", "markers of staging", "MiB", pruned_minutes=10, smallest=1),
    Metric("job_runs_mib", "records of runs", "MiB", pruned_minutes=14 * 24 * 60, smallest=1),
    Metric("server_private_mib", "private memory of all server processes", "MiB", smallest=20),
    Metric("largest_backend_mib", "private memory of the largest of them", "MiB", smallest=10),
    Metric("worker_mib", "private memory of the worker", "MiB", smallest=10),
)

SAMPLE: Final = """
    SELECT
        pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::bigint AS wal,
        (SELECT sum(pg_relation_size(c.oid)) FROM pg_class AS c
         WHERE c.relnamespace = 'eav'::regnamespace AND c.relname ~ '^staging_\\d+_\\d+$')::bigint AS staging,
        (SELECT sum(pg_total_relation_size(t.relid)) FROM pg_partition_tree('eav.entity_values_ts') AS t
         WHERE t.isleaf)::bigint AS history,
        (SELECT sum(pg_indexes_size(t.relid)) FROM pg_partition_tree('eav.entity_values_ts') AS t
         WHERE t.isleaf)::bigint AS indexes,
        (SELECT sum(pg_total_relation_size(t.relid)) FROM pg_partition_tree('eav.entity_jsonb') AS t
         WHERE t.isleaf)::bigint AS hot,
        (SELECT sum(s.n_dead_tup) FROM pg_partition_tree('eav.entity_jsonb') AS t
         INNER JOIN pg_stat_all_tables AS s ON s.relid = t.relid)::bigint AS hot_dead,
        (SELECT s.n_dead_tup FROM pg_stat_all_tables AS s WHERE s.relid = 'pg_class'::regclass) AS pg_class_dead,
        (SELECT sum(pg_total_relation_size(c.oid)) FROM pg_class AS c
         WHERE c.relnamespace = 'pg_catalog'::regnamespace AND c.relkind = 'r')::bigint AS catalogue,
        pg_total_relation_size('eav.ingest_checkpoint_log') AS checkpoint_log,
        pg_total_relation_size('eav.staging_progress')
            + pg_total_relation_size('eav.staging_progress_durable') AS progress,
        pg_total_relation_size('ops.job_runs') AS job_runs
"""
SIZES: Final = {
    "staging_mib": "staging",
    "hot_mib": "hot",
    "catalogue_mib": "catalogue",
    "checkpoint_log_mib": "checkpoint_log",
    "progress_mib": "progress",
    "job_runs_mib": "job_runs",
}


@dataclass
class Sampler:
    """What was seen since the last sample, and the samples."""

    bench: Bench
    live: Live
    worker_pid: int
    every: float
    say: Say
    samples: list[dict[str, Any]] = field(default_factory=list)
    _committed: dict[tuple[int, int], float] = field(default_factory=dict)
    _seen: dict[tuple[int, int], float] = field(default_factory=dict)
    _visible: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def sent(self, producer: int, number: int, at: float) -> None:
        """A batch was committed."""
        with self._lock:
            self._committed[producer, number] = at

    def saw(self, producer: int, number: int, at: float) -> None:
        """A batch became visible."""
        with self._lock:
            self._seen[producer, number] = at
            self._visible += 1

    def run(self, done: threading.Event) -> None:
        """A sample every so many seconds until `done`."""
        began = time.monotonic()
        before: tuple[float, int, int] | None = None
        with self.live.connect(application_name="bench sampler") as connection:
            while not done.wait(self.every):
                sizes = _row(connection)
                now = time.monotonic()
                with self._lock:
                    visible = self._visible
                    pairs = self._committed.keys() & self._seen.keys()
                    lags = [max(0.0, self._seen.pop(key) - self._committed.pop(key)) for key in pairs]
                sample: dict[str, Any] = {"seconds": round(now - began, 1), "values": visible * BATCH}
                if before is not None and visible > before[1]:
                    sample["rate"] = (visible - before[1]) * BATCH / (now - before[0])
                    sample["wal_bytes_a_value"] = (sizes["wal"] - before[2]) / ((visible - before[1]) * BATCH)
                before = (now, visible, sizes["wal"])
                if lags:
                    sample["lag_p50_ms"] = percentile(lags, 0.5) * 1000
                    sample["lag_p99_ms"] = percentile(lags, 0.99) * 1000
                if visible:
                    sample["history_bytes_a_value"] = sizes["history"] / (visible * BATCH)
                    sample["index_bytes_a_value"] = sizes["indexes"] / (visible * BATCH)
                sample |= {name: sizes[column] / MIB for name, column in SIZES.items()}
                sample |= {"hot_dead_rows": sizes["hot_dead"], "pg_class_dead_rows": sizes["pg_class_dead"]}
                sample |= self._memory()
                self.samples.append(sample)
                if len(self.samples) % max(1, round(60 / self.every)) == 0:
                    self.say(
                        f"  {sample['seconds'] / 60:.0f} min: {sample.get('rate', 0):,.0f} values/s, lag p99"
                        f" {sample.get('lag_p99_ms', float('nan')):.0f} ms, server"
                        f" {sample.get('server_private_mib', 0):.0f} MiB"
                    )

    def _memory(self) -> dict[str, float]:
        postmaster = self.bench.cluster.postmaster()
        if postmaster is None:
            return {}
        private = [_private(process) for process in (postmaster, *postmaster.children(recursive=True))]
        try:
            of_worker = _private(psutil.Process(self.worker_pid))
        except psutil.NoSuchProcess:
            of_worker = 0.0
        return {
            "server_private_mib": sum(private),
            "largest_backend_mib": max(private),
            "worker_mib": of_worker,
        }


def _row(connection: Connection) -> dict[str, int]:
    cursor = connection.execute(SAMPLE)
    row = cursor.fetchone()
    assert row is not None
    assert cursor.description is not None
    return {column.name: int(value or 0) for column, value in zip(cursor.description, row, strict=True)}


def _private(process: psutil.Process) -> float:
    """MiB that no other process shares: shared buffers are not in it, which each backend touches bit by bit."""
    try:
        return float(process.memory_full_info().uss) / MIB
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return 0.0


def judge(metric: Metric, samples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Whether a metric grows: Theil-Sen slope, and the share of pairs of samples that rise, after the warm-up."""
    found: dict[str, Any] = {"name": metric.name, "title": metric.title, "unit": metric.unit}
    points = [
        (sample["seconds"], float(sample[metric.name]))
        for sample in samples
        if sample.get(metric.name) is not None
    ]
    if points:
        end = points[-1][0]
        points = [point for point in points if point[0] >= end * WARM_UP]
    if len(points) < ENOUGH:
        return found | {"verdict": "too short to tell"}
    points = points[:: max(1, len(points) // 300)]
    pairs = [
        ((later[1] - earlier[1]) / (later[0] - earlier[0]))
        for number, earlier in enumerate(points)
        for later in points[number + 1 :]
    ]
    slope = statistics.median(pairs)
    middle = statistics.median(value for _, value in points)
    minutes = (points[-1][0] - points[0][0]) / 60
    change = slope * minutes * 60
    rising = sum(pair > 0 for pair in pairs) / len(pairs)
    falling = sum(pair < 0 for pair in pairs) / len(pairs)
    found |= {
        "median": middle,
        "max": max(value for _, value in points),
        "per_hour": slope * 3600,
        "change": change,
        "minutes": round(minutes, 1),
    }
    large = abs(change) > max(GROWTH * abs(middle), metric.smallest)
    if metric.falls:
        return found | {"verdict": "falls" if large and falling > STEADY and change < 0 else "steady"}
    if large and change > 0 and rising > STEADY:
        saw = metric.pruned_minutes and minutes < 2 * metric.pruned_minutes
        return found | {"verdict": "grows until it is pruned" if saw else "grows"}
    return found | {"verdict": "steady"}


def measure(bench: Bench, minutes: float, rate: int, every: float) -> dict[str, Any]:
    """Run the load; returns what the JSON file holds."""
    live = Live(bench)
    live.open()
    reader = live.reader()
    done = threading.Event()
    began = time.monotonic()
    with worker(bench, live) as process:
        sampler = Sampler(bench, live, process.pid, every, bench.say)
        reader.on_seen = sampler.saw
        thread = threading.Thread(target=sampler.run, args=(done,), daemon=True)
        thread.start()
        bench.say(f"{rate:,} values/s for {minutes:g} minutes")
        try:
            traffic = run_traffic(live, live.orders("ours", minutes * 60, rate), reader, sampler.sent)
        finally:
            done.set()
            thread.join(30)
    with live.connect() as connection:
        ((stored, rejected),) = connection.execute(
            "SELECT (SELECT count(*) FROM eav.entity_values_ts), (SELECT count(*) FROM eav.entity_values_rejected)"
        ).fetchall()
    result = {
        "about": bench.about() | {"seconds": round(time.monotonic() - began)},
        "minutes": minutes,
        "rate_wanted": rate,
        "rows": traffic.rows,
        "stored": stored,
        "rejected": rejected,
        "rate": traffic.rate,
        "lag_p50_ms": traffic.lag(0.5),
        "lag_p99_ms": traffic.lag(0.99),
        "samples": sampler.samples,
        "metrics": [judge(metric, sampler.samples) for metric in METRICS],
    }
    if (stored, rejected) != (traffic.rows, 0):
        raise LocalError(
            f"python -m bench: {traffic.rows:,} values were sent, {stored:,} stored, {rejected:,} rejected"
        )
    return result


def command(minutes: float, rate: int, every: float, output: Path | None, say: Say) -> int:
    """`python -m bench sustained`: 0 if nothing grows, 1 if something does."""
    if minutes <= 0 or rate < 2 or every <= 0:
        raise LocalError("python -m bench: --minutes and --every must be more than 0, --rate 2 or more")
    say(check_disk(int(minutes * 60 * rate * ROW_BYTES) + WAL_BYTES))
    # No limit to what may be staged: a backlog is what this is to find.
    sizes = replace(FULL, batch=BATCH, window=10**9, seconds=minutes * 60)
    with running(sizes, 1, say, {"checkpoint_timeout": "5min"}) as bench:
        result = measure(bench, minutes, rate, every)
    path = docs.write_result("sustained", result, output)
    write_csv(result, path.with_suffix(".csv"))
    pictures.draw_sustained(result, path.with_suffix(".svg"))
    table = Table(title=f"{result['rows']:,} values in {minutes:g} minutes, all stored once")
    for heading in ("what", "median", "highest", "change an hour", "verdict"):
        table.add_column(heading, justify="left" if heading in ("what", "verdict") else "right")
    for metric in result["metrics"]:
        table.add_row(*_cells(metric))
    Console(width=None if sys.stdout.isatty() else 140).print(table)
    print(f"JSON: {path}, with a CSV and an SVG beside it; for docs/benchmarks.md: python -m bench docs")
    return 1 if any(metric["verdict"] in ("grows", "falls") for metric in result["metrics"]) else 0


def write_csv(result: Mapping[str, Any], path: Path) -> None:
    """The samples, a line each."""
    names = ["seconds", "values", *(metric.name for metric in METRICS)]
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, names)
        writer.writeheader()
        writer.writerows(result["samples"])


def markdown(result: Mapping[str, Any]) -> str:
    """For docs/benchmarks.md."""
    lines = [
        "| what | median | highest | change an hour | verdict |",
        "| --- | ---: | ---: | ---: | --- |",
        *("| " + " | ".join(_cells(metric)) + " |" for metric in result["metrics"]),
    ]
    return "\n".join(
        [
            report.machine(result["about"]),
            "",
            f"{result['rate_wanted']:,} values/s wanted for {result['minutes']:g} minutes:"
            f" {result['rate']:,.0f} values/s became visible, {result['rows']:,} in all, each stored once;"
            f" commit to visible p50 {result['lag_p50_ms']:.0f} ms, p99 {result['lag_p99_ms']:.0f} ms.",
            "",
            *lines,
        ]
    )


def _cells(metric: Mapping[str, Any]) -> tuple[str, ...]:
    if "median" not in metric:
        return (metric["title"], "", "", "", metric["verdict"])
    unit = metric["unit"]
    return (
        metric["title"],
        figure_text(metric["median"], unit),
        figure_text(metric["max"], unit),
        figure_text(metric["per_hour"], unit),
        metric["verdict"],
    )
