"""`python -m jobs ingest`: the command line of it."""

from __future__ import annotations

import argparse
import gc
import os
import stat
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import orjson
from rich.console import Console

from jobs import db
from jobs.errors import JobsError
from jobs.ingest import report, settle
from jobs.ingest.feed import Feed, FileFeed, Limits, StreamFeed
from jobs.ingest.lines import StreamSource
from jobs.ingest.load import AttributeCache, Stage
from jobs.ingest.run import Patience, Result, ingest

EPILOG: Final = """\
One JSON object a line:
  {"tenant_id": 1, "entity_id": 42, "attribute": "cpu.percent", "observed_at": "2026-11-21T20:55:42.123Z",
  "value": 12.5}

A file is a source named like the file, and a line's number its offset: run it again and it goes on where it
stopped, after whatever happened. A stream (-) is kept as it comes; with --source it must begin with the
same line each time. Lines that are no value are kept as rejected values, with a reason, and never stop the
others.

exit codes: 0 all lines are in the database (rejected ones too, unless --strict); 1 they are not, or a line
at the end of a
file is cut off; 2 wrong usage; 130 interrupted"""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `ingest` to the commands."""
    parser = commands.add_parser(
        "ingest",
        help="NDJSON from files or standard input into staging, resumable",
        description="Stage values from NDJSON files (also .gz), or from standard input (-).",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=command)
    parser.add_argument("file", nargs="+", metavar="FILE", help="a file, or - for standard input")
    parser.add_argument("--source", metavar="NAME", help="name of the source (default: the file's name)")
    waiting = parser.add_mutually_exclusive_group()
    waiting.add_argument(
        "--wait",
        action=argparse.BooleanOptionalAction,
        help="wait until the flush has taken all (default: if one is running)",
    )
    waiting.add_argument("--flush", action="store_true", help="flush, too, until all is durable")
    parser.add_argument("--strict", action="store_true", help="exit with 1 if any value was rejected")
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object")
    parser.add_argument(
        "--retry", type=_seconds, default=60.0, metavar="SECONDS",
        help="how long to try again when the server is lost (default 60)",
    )  # fmt: skip
    parser.add_argument(
        "--batch",
        type=_count,
        default=Limits.rows,
        metavar="LINES",
        help="lines a transaction (default 20000)",
    )
    parser.add_argument(
        "--max-line", type=_count, default=Limits.line, metavar="BYTES",
        help="a longer line is rejected as malformed (default 1048576)",
    )  # fmt: skip


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is no number of seconds")
    return value


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is less than 1")
    return value


def command(args: argparse.Namespace) -> int:
    """Ingest what the arguments name; returns the exit code. Raises JobsError."""
    if args.source is not None and len(args.file) > 1:
        raise JobsError("--source names one source: give one FILE with it")
    if args.source == "":
        raise JobsError("--source is empty: give it a name")
    url = db.database_url()
    # Rows hold no cycles: looking for some through hundreds of thousands of tuples costs a tenth of the time.
    gc.set_threshold(100_000, 50, 100)
    errors = Console(stderr=True)
    limits = Limits(rows=args.batch, line=args.max_line)
    reports: list[report.Report] = []
    failure: JobsError | None = None
    cache = AttributeCache()
    with report.Progress(errors) as progress:
        for name in args.file:
            try:
                reports.append(_one(url, _feed(name, args.source, limits), args, progress, cache))
            except JobsError as error:
                # What was done before is still reported.
                failure = error
                break
    if reports:
        _print(reports, as_json=args.json)
    for one in reports:
        if one.result.cut_off is not None:
            errors.print(one.result.cut_off, markup=False, highlight=False, soft_wrap=True)
    if failure is not None:
        raise failure
    wrong = any(one.result.cut_off is not None for one in reports)
    strict = args.strict and any(one.rejected for one in reports)
    return int(wrong or strict)


def _feed(name: str, source: str | None, limits: Limits) -> Feed:
    path = Path(name)
    try:
        regular = name != "-" and stat.S_ISREG(path.stat().st_mode)
        if name != "-" and path.is_dir():
            raise JobsError(f"cannot read {name}: it is a folder")
        if regular:
            return FileFeed(path, source, limits)
        descriptor = sys.stdin.fileno() if name == "-" else os.open(path, os.O_RDONLY)
    except OSError as error:
        raise JobsError(f"cannot read {name}: {error.strerror}") from None
    return StreamFeed(
        StreamSource(descriptor),
        source or f"stdin-{uuid.uuid4()}",
        replayable=source is not None,
        limits=limits,
    )


def _one(
    url: str, feed: Feed, args: argparse.Namespace, progress: report.Progress, cache: AttributeCache
) -> report.Report:
    @contextmanager
    def open_stage(feed: Feed) -> Iterator[Stage]:
        with db.translated(url), db.connect(url, "eav_ingest", f"eav ingest {feed.name}"[:63]) as connection:
            yield Stage(
                connection,
                feed.name,
                durable=not feed.replayable,
                fingerprint=feed.fingerprint,
                cache=cache,
                url=url,
            )

    progress.begin(feed.name)
    with db.translated(url), db.connect(url, "eav_ingest", "eav ingest") as connection:
        since = settle.now(connection)
    result: Result = ingest(feed, open_stage, patience=Patience(args.retry), progress=progress.lines)
    outcome = settle.settle(url, result, since, flush=args.flush, wait=args.wait, progress=progress.say)
    return report.Report(result, outcome)


def _print(reports: list[report.Report], *, as_json: bool) -> None:
    if as_json:
        print(orjson.dumps(report.as_dict(reports)).decode())
    else:
        report.show(Console(width=None if sys.stdout.isatty() else 160), reports)
