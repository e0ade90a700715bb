"""`python -m local demo`: live telemetry of this very host through ingest, flush, hot projection, archive, queries."""

from __future__ import annotations

import argparse
import json
import math
import signal
import statistics
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import FrameType
from typing import Any, Final

import psutil
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from jobs import db
from jobs.errors import JobsError
from local import demo_report, queries
from local.cli import DOWN
from local.demo_archive import archive_items
from local.demo_jobs import Jobs, Process
from local.demo_report import show_table, size
from local.errors import LocalError
from local.server import Server, current_server

TENANT: Final = "this-host"
HOST: Final = 1
"""The entity that `jobs telemetry` makes of the host."""
HOT: Final = ("process.name", "process.status", "host.cpu.percent", "host.memory.percent", "host.load.1m")
"""What is filtered by, or looked at all the time."""
WINDOW: Final = "5 minutes"
POLL: Final = 0.25


def main(argv: Sequence[str] | None = None) -> int:
    """Run the demo; returns the exit code. Raises LocalError, with one line for the user."""
    options = _parser().parse_args(argv)
    server = current_server()
    if server is None:
        raise LocalError(DOWN)
    # --json leaves standard output to the one object.
    console = Console(stderr=options.json, highlight=False)
    before = signal.signal(signal.SIGTERM, _terminated)
    try:
        facts = Demo(server, options.seconds, console).run()
    except JobsError as error:
        raise LocalError(str(error)) from None
    finally:
        signal.signal(signal.SIGTERM, before)
    if options.json:
        print(json.dumps(facts, default=_plain))
    else:
        demo_report.show(console, facts, server.origin)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m local demo",
        description="Sample this host live for some seconds, and take the values through the whole platform:"
        " ingest, flush, hot projection, partitions, archive, queries. Each run adds its own samples.",
        epilog="exit codes: 0 done; 1 it could not (one line on standard error says why); 130 interrupted",
    )
    parser.add_argument(
        "--seconds", type=_positive, default=10.0, metavar="N", help="how long to sample (default 10)"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    return parser


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is no positive number of seconds")
    return value


def _terminated(number: int, frame: FrameType | None) -> None:
    """So that what was started is ended on SIGTERM too."""
    raise SystemExit(128 + number)


def _plain(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else str(value)


@dataclass
class Demo:
    """One run, step by step."""

    server: Server
    seconds: float
    console: Console
    jobs: Jobs = field(init=False)
    connection: db.Connection = field(init=False)
    tenant_id: int = field(init=False)
    shown: list[dict[str, Any]] = field(default_factory=list)
    ages: list[float] = field(default_factory=list)

    def run(self) -> dict[str, Any]:
        """All of it; what was found. Raises LocalError, JobsError."""
        self.jobs = Jobs(self.server.url)
        url = self.server.url
        with db.translated(url), closing(db.connect(url, None, "eav demo")) as self.connection:
            self.tenant_id = int(self.jobs.run("tenant", "add", TENANT, "--auto-register"))
            self._say(f"tenant {TENANT} has the id {self.tenant_id}; what it sends is registered as it comes")
            began = time.monotonic()
            with self.jobs.worker() as worker:
                sampled = self._sample(worker)
                bad = self._send_bad_lines()
                self._maintain()
            archive = archive_items(self._say)
            self._queries()
            seconds = time.monotonic() - began
            return {
                "tenant": {"name": TENANT, "id": self.tenant_id},
                "run": {
                    "sampled": sampled["lines"],
                    "stored": sampled["accepted"] + bad["accepted"],
                    "rejected": sum((*sampled["rejected"].values(), *bad["rejected"].values())),
                    "rejected_by_reason": bad["rejected"],
                    "seconds": sampled["seconds"],
                    "values_per_second": sampled["lines_per_second"],
                    "age_median": statistics.median(self.ages) if self.ages else None,
                    "age_max": max(self.ages, default=None),
                    "whole_seconds": round(seconds, 1),
                },
                "archive": archive,
                "queries": self.shown,
                "where": demo_report.gather(self.connection, self.tenant_id),
            }

    # -- the data ------------------------------------------------------------------------------------------

    def _sample(self, worker: Process) -> dict[str, Any]:
        """Pipe live samples into ingest while the worker flushes; ingest's own report."""
        self._say(
            f"python -m jobs telemetry --seconds {self.seconds:g} --tenant {TENANT} | python -m jobs ingest -"
            "   (and python -m jobs worker beside it)"
        )
        columns = (TextColumn("    {task.description}"), BarColumn(), TimeRemainingColumn())
        hot: list[str] | None = None
        with (
            self.jobs.stream(TENANT, self.seconds) as (source, sink),
            Progress(
                *columns, console=self.console, transient=True, disable=not self.console.is_terminal
            ) as progress,
        ):
            began = time.monotonic()
            bar = progress.add_task("sampling", total=self.seconds)
            while sink.popen.poll() is None:
                passed = time.monotonic() - began
                worker.check()
                if passed > self.seconds + 60:
                    raise LocalError(
                        "python -m jobs ingest did not end: is anything else locking eav tables?"
                    )
                if hot is None and passed >= min(1.0, self.seconds / 2):
                    hot = self._turn_hot()
                if hot is not None and source.popen.poll() is None:
                    self._look_at_age(passed, progress, bar)
                progress.update(bar, completed=passed)
                time.sleep(POLL)
            sampled: dict[str, Any] = sink.output()
        self._say(
            f"{sampled['lines']:,} values sampled, {sampled['accepted']:,} accepted, each one "
            + ("durable" if sampled["settled"] else "staged, not yet flushed")
        )
        if not sampled["settled"]:
            raise LocalError("nothing has flushed what was staged: see python -m jobs list")
        if hot is None:
            hot = self._turn_hot()
        if hot is None:
            raise LocalError(f"nothing registered {', '.join(HOT)}: does {TENANT} still register by itself?")
        self._say(f"turned hot while values came in: {', '.join(hot) or 'nothing, all were'}")
        return sampled

    def _turn_hot(self) -> list[str] | None:
        """Mark attributes hot, as an application does; those that were not, None until all are registered."""
        with self.connection.transaction():
            self.connection.execute("SET LOCAL ROLE eav_app")
            self.connection.execute("SELECT set_config('app.tenant_id', %s, true)", [str(self.tenant_id)])
            found = self.connection.execute(
                "SELECT count(*) FROM eav.attributes WHERE name = ANY(%s)", [list(HOT)]
            ).fetchone()
            if found != (len(HOT),):
                return None
            rows = self.connection.execute(
                "UPDATE eav.attributes SET is_hot = true WHERE name = ANY(%s) AND NOT is_hot RETURNING name",
                [list(HOT)],
            ).fetchall()
            return sorted(name for (name,) in rows)

    def _look_at_age(self, passed: float, progress: Progress, bar: Any) -> None:
        # Not what an earlier run has left.
        rows = self._ask("freshness", attribute="host.cpu.percent", window=f"{passed:.3f} seconds").dicts()
        if rows:
            self.ages.append(max(0.0, rows[0]["age"].total_seconds()))
            progress.update(bar, description=f"sampling; a reader sees values {self.ages[-1]:.2f} s old")

    def _send_bad_lines(self) -> dict[str, Any]:
        """Three lines that are wrong in three ways."""
        line = {
            "tenant_id": self.tenant_id,
            "entity_id": HOST,
            "attribute": "host.cpu.percent",
            "observed_at": datetime.now(UTC).isoformat(),
            "value": "very hot",
        }
        lines = [
            json.dumps(line),
            json.dumps(line | {"observed_at": "2099-01-01T00:00:00Z", "value": 12.5}),
            json.dumps(line)[:40],
        ]
        self._say("three bad lines | python -m jobs ingest -   (text for a number, from 2099, cut off)")
        found: dict[str, Any] = self.jobs.run_json("ingest", "--wait", "-", stdin="\n".join(lines).encode())
        reasons = ", ".join(sorted(found["rejected"]))
        self._say(f"{sum(found['rejected'].values())} rejected and kept, with a reason each: {reasons}")
        return found

    def _maintain(self) -> None:
        for name, does in (
            ("maintain-partitions", "partitions made"),
            ("reconcile", "entities brought up to their history"),
        ):
            found = self.jobs.run_json("run", name)
            if found["status"] == "skipped":
                self._say(f"python -m jobs run {name}: the worker is at it")
            else:
                self._say(f"python -m jobs run {name}: {found['rows']:,} {does}")

    # -- the queries -----------------------------------------------------------------------------------------

    def _queries(self) -> None:
        """What an application, an analyst and whoever is on call ask, with the answers of this moment."""
        self._show(
            "processes by status", "hot_value_counts",
            {"status": "left", "processes": "right"},
            lambda r: (r["hot_value"], r["entities"]),
            attribute="process.status",
        )  # fmt: skip
        me = json.dumps({"process.name": psutil.Process().name()})
        self._show(
            f"processes with hot_attrs @> {me}, and their memory (cold)", "hot_with_cold",
            {"entity": "left", "status": "left", "memory": "right", "at": "left"},
            lambda r: (
                str(r["entity_id"]), r["hot_attrs"].get("process.status"), size(r["latest"]), r["observed_at"]
            ),
            filter=me, attribute="process.memory.rss_bytes", window=WINDOW, rows=5,
        )  # fmt: skip
        self._show(
            "top processes by memory", "top_entities",
            {"process": "left", "status": "left", "memory": "right", "at": "left"},
            lambda r: (*_named(r["hot_attrs"]), size(r["latest"]), r["observed_at"]),
            attribute="process.memory.rss_bytes", window=WINDOW, rows=6,
        )  # fmt: skip
        self._show(
            f"CPU of processes, percent, last {WINDOW}", "attribute_distribution",
            dict.fromkeys(("values", "processes", "p50", "p90", "p95", "p99", "max"), "right"),
            lambda r: (r["count"], r["entities"], r["p50"], r["p90"], r["p95"], r["p99"], r["max"]),
            attribute="process.cpu.percent", window=WINDOW,
        )  # fmt: skip
        self._show(
            "CPU of the host, percent", "attribute_history",
            {"from": "left", "values": "right", "avg": "right", "max": "right", "": "left"},
            lambda r: (r["starts_at"], r["count"], r["avg"], r["max"], "█" * round(float(r["avg"]) / 5)),
            attribute="host.cpu.percent", step="2 seconds", window="20 seconds",
        )  # fmt: skip
        self._show(
            f"rejected in the last {WINDOW}, any tenant (recorded in ops.cross_tenant_access)",
            "rejected_everywhere",
            {"tenant": "left", "reason": "left", "lines": "right", "newest": "left"},
            lambda r: (r["tenant_id"] and str(r["tenant_id"]), r["reason"], r["refused"], r["newest"]),
            window=WINDOW, rows=6,
        )  # fmt: skip

    def _show(self, title: str, name: str, columns: dict[str, str], row: Any, **given: object) -> None:
        began = time.perf_counter()
        found = self._ask(name, **given)
        milliseconds = (time.perf_counter() - began) * 1000
        query = queries.load(name)
        self.shown.append({"query": name, "milliseconds": round(milliseconds, 1), "rows": found.dicts()})
        path = query.path.relative_to(queries.FOLDER)
        note = f"{path} as {query.role}, {milliseconds:.1f} ms"
        show_table(self.console, title, columns, [row(one) for one in found.dicts()], note)

    def _ask(self, name: str, **given: object) -> queries.Rows:
        return queries.run(
            self.connection,
            queries.load(name),
            tenant_id=self.tenant_id,
            why="demo: lines of no tenant",
            **given,
        )

    def _say(self, line: str) -> None:
        self.console.print(f"==> {line}", markup=False, soft_wrap=True)


def _named(hot_attrs: dict[str, Any] | None) -> tuple[Any, Any]:
    known = hot_attrs or {}
    return known.get("process.name"), known.get("process.status")
