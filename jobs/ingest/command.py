"""`python -m jobs ingest`: the command line of it."""

from __future__ import annotations

import argparse
import gc
import os
import stat
import sys
import time
import uuid
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Final

import orjson
from rich.console import Console

from jobs import alive, db
from jobs.errors import JobsError
from jobs.ingest import parallel, report, settle
from jobs.ingest.feed import FileFeed, StreamFeed
from jobs.ingest.lines import StreamSource
from jobs.ingest.load import AttributeCache, open_stage
from jobs.ingest.run import Patience, Result, ingest
from jobs.ingest.source import Limits, Source
from jobs.stopping import stopping

SCHEME: Final = "kinesis://"

EPILOG: Final = """\
One JSON object a line:
  {"tenant_id": 1, "entity_id": 42, "attribute": "cpu.percent", "observed_at": "2026-11-21T20:55:42.123Z",
  "value": 12.5}

A file is a source named like the file, and a line's number its offset: run it again and it goes on where it
stopped, after whatever happened. A stream (-) is kept as it comes; with --source it must begin with the
same line each time. Lines that are no value are kept as rejected values, with a reason, and never stop the
others.

A Kinesis stream is kinesis://NAME; each shard is a partition of it. It is read from its beginning, then from where
the database is, until it is caught up, or on and on with --follow. Start as many processes as you like: each takes
shards that are free. Credentials, region and endpoint are boto3's (AWS_PROFILE, AWS_DEFAULT_REGION,
AWS_ENDPOINT_URL). Records that the stream has forgotten before they were read are a gap: it stops there.

exit codes: 0 all lines are in the database (rejected ones too, unless --strict); 1 they are not, or a line
at the end of a file is cut off; 2 wrong usage; 3 something of the source is missing (see --accept-gap);
130 interrupted (a stream with --follow that is told to stop by SIGTERM or SIGINT: 0)"""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `ingest` to the commands."""
    parser = commands.add_parser(
        "ingest",
        help="NDJSON from files, standard input or a Kinesis stream into staging, resumable",
        description="Stage values from NDJSON files (also .gz), standard input (-), or a stream (kinesis://NAME).",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=command)
    parser.add_argument(
        "file", nargs="+", metavar="FILE", help="a file, - for standard input, or kinesis://NAME"
    )
    parser.add_argument(
        "--source", metavar="NAME", help="name of the source (default: the file's name, or kinesis://NAME)"
    )
    parser.add_argument(
        "--jobs", type=_count, metavar="N",
        help="files at once, each in a process (default 1); shards of a stream at once (default: all that are free)",
    )  # fmt: skip
    parser.add_argument(
        "--binary",
        action="store_true",
        help="COPY in the binary format: 40 %% less work for the server, twice as much for this process",
    )
    parser.add_argument(
        "--accept-gap",
        action="store_true",
        help="go on where something of a source is missing, and record it in eav.ingest_gaps",
    )
    streams = parser.add_argument_group("of a Kinesis stream")
    streams.add_argument(
        "--shard",
        action="append",
        default=[],
        metavar="ID",
        help="only this shard; may be given several times",
    )
    until = streams.add_mutually_exclusive_group()
    until.add_argument("--follow", action="store_true", help="wait for more, until SIGTERM or SIGINT")
    until.add_argument(
        "--until-caught-up", action="store_true", help="end when there is no more (the default)"
    )
    alive.add_option(streams)
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
    _check(args)
    url = db.database_url()
    tune()
    errors = Console(stderr=True)
    done = report.Done()
    began = time.monotonic()
    with report.Progress(errors) as progress:
        if args.file[0].startswith(SCHEME):
            _stream(url, args, progress, done)
        elif (args.jobs or 1) > 1 and len(args.file) > 1:
            parallel.run(url, args, progress, done, errors)
        else:
            cache = AttributeCache()
            for name in args.file:
                try:
                    done.reports.append(one_file(url, name, args, progress.lines, progress.say, cache))
                except JobsError as error:
                    # What was done before is still reported.
                    done.failure = error
                    break
    together = time.monotonic() - began if done.at_once else None
    if done.reports:
        _print(done.reports, together, as_json=args.json)
    for one in done.reports:
        if one.result.cut_off is not None:
            errors.print(one.result.cut_off, markup=False, highlight=False, soft_wrap=True)
    if done.failure is not None:
        raise done.failure
    if done.interrupted:
        raise KeyboardInterrupt
    wrong = any(one.result.cut_off is not None for one in done.reports)
    strict = args.strict and any(one.rejected for one in done.reports)
    return int(wrong or strict)


def _check(args: argparse.Namespace) -> None:
    streams = sum(name.startswith(SCHEME) for name in args.file)
    if args.source is not None and len(args.file) > 1:
        raise JobsError("--source names one source: give one FILE with it")
    if args.source == "":
        raise JobsError("--source is empty: give it a name")
    if streams and len(args.file) > 1:
        raise JobsError("give one kinesis:// stream and nothing else, or files")
    if not streams and (args.shard or args.follow or args.until_caught_up or args.alive):
        raise JobsError(
            "--shard, --follow, --until-caught-up and --alive are of a stream: give kinesis://NAME"
        )
    if (args.jobs or 1) > 1 and "-" in args.file:
        raise JobsError("--jobs is for files: standard input can be read by one process only")
    if len(set(args.file)) < len(args.file) and (args.jobs or 1) > 1:
        raise JobsError("--jobs: a file is named twice")


def tune() -> None:
    """Set up a process that ingests."""
    # Rows hold no cycles: looking for some through hundreds of thousands of tuples costs a tenth of the time.
    gc.set_threshold(100_000, 50, 100)


def _feed(name: str, source: str | None, limits: Limits) -> Source:
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


def one_file(
    url: str,
    name: str,
    args: argparse.Namespace,
    lines: Callable[[int, str], None],
    say: Callable[[str], None],
    cache: AttributeCache,
) -> report.Report:
    """Ingest one file or stream of lines, and see what became of it. Raises JobsError."""
    feed = _feed(name, args.source, Limits(rows=args.batch, line=args.max_line))
    lines(0, f"{report.BEGIN}{feed.name}")
    since = _now(url)
    result: Result = ingest(
        feed,
        lambda source: open_stage(url, source, cache, as_binary=args.binary),
        patience=Patience(args.retry),
        progress=lines,
        accept_gap=args.accept_gap,
    )
    outcome = settle.settle(url, result, since, flush=args.flush, wait=args.wait, progress=say)
    return report.Report(result, outcome)


def _now(url: str) -> datetime:
    with db.translated(url), db.connect(url, "eav_ingest", "eav ingest") as connection:
        return settle.now(connection)


def _stream(url: str, args: argparse.Namespace, progress: report.Progress, done: report.Done) -> None:
    # Here, because importing boto3 takes longer than most commands do.
    from jobs.ingest.kinesis import Stream
    from jobs.ingest.shards import MOST, Fleet

    name = args.file[0].removeprefix(SCHEME)
    if not name:
        raise JobsError(f"{SCHEME} names no stream: give {SCHEME}NAME")
    source = args.source or args.file[0]
    progress.begin(source)
    since = _now(url)
    with stopping() as stop:
        stream = Stream(name, retry=args.retry, stop=stop, say=lambda text: progress.lines(0, text))
        fleet = Fleet(
            url,
            stream,
            source,
            wanted=frozenset(args.shard),
            follow=args.follow,
            at_once=args.jobs or MOST,
            retry=args.retry,
            accept_gap=args.accept_gap,
            limits=Limits(rows=args.batch, line=args.max_line),
            as_binary=args.binary,
            progress=progress.lines,
            beat=alive.beat(args.alive),
        )
        fleet.run()
        done.at_once = True
        done.failure = fleet.failure
        done.interrupted = fleet.interrupted and not args.follow
    for result in fleet.results:
        # Whoever is told to stop, or failed, does not wait for others.
        wait = False if fleet.interrupted or fleet.failure else args.wait
        outcome = settle.settle(
            url, result, since, flush=args.flush and wait is not False, wait=wait, progress=progress.say
        )
        done.reports.append(report.Report(result, outcome))


def _print(reports: list[report.Report], seconds: float | None, *, as_json: bool) -> None:
    if as_json:
        print(orjson.dumps(report.as_dict(reports, seconds)).decode())
    else:
        report.show(Console(width=None if sys.stdout.isatty() else 160), reports, seconds)
