"""The command line of the archiver: `python -m archiver --help`."""

from __future__ import annotations

import argparse
import logging
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import orjson
from rich import filesize
from rich.console import Console
from rich.table import Table

from archiver import aws, restore, run, settings, state, verify
from archiver.errors import ArchiverError
from archiver.settings import Settings
from jobs.stopping import stopping

NOT_YET: Final = 3
"""The exit code of a command that has to be run again."""
MOST_PROBLEMS: Final = 20
"""Lines about what went wrong."""
SAY_EVERY: Final = 2.0
"""Seconds between two lines of progress."""

EPILOG: Final = f"""\
settings are environment variables:
{chr(10).join(f"  {name:<18} {text}" for name, text in settings.DESCRIBED.items())}
and boto3's own: AWS_PROFILE, AWS_ENDPOINT_URL …

exit codes: 0 done; 1 something went wrong (said on standard error); 2 wrong usage; 3 run it again: the time limit came,
another run is at it, or objects in an archive class are not ready; 130 interrupted"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    args = parser().parse_args(argv)
    # What went wrong is in the results, and said once.
    logging.getLogger("archiver").addHandler(logging.NullHandler())
    try:
        code: int = args.run(args)
        sys.stdout.flush()
    except ArchiverError as error:
        print(f"python -m archiver {args.command}: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print(f"python -m archiver {args.command}: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # Whoever read our output has seen enough. What is left must not be written at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    return code


def parser() -> argparse.ArgumentParser:
    """All commands and their options."""
    top = argparse.ArgumentParser(
        prog="python -m archiver",
        description="Moves old items of DynamoDB tables to S3, proves that they are there before they leave, and brings"
        " them back.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, what: Callable[[argparse.Namespace], int], text: str) -> argparse.ArgumentParser:
        one = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        one.set_defaults(run=what)
        one.add_argument("--json", action="store_true", help="one JSON object on standard output")
        return one

    one = command(
        "run", run_command, "archive what is older than ARCHIVE_DAYS, and go on where an earlier run stopped"
    )
    one.add_argument("--dry-run", action="store_true", help="count what would be archived, write nothing")
    one.add_argument(
        "--time-limit", type=_seconds, metavar="SECONDS",
        help="stop cleanly after so many seconds; the next run goes on there",
    )  # fmt: skip

    one = command("verify", verify_command, "compare the archive with its manifests")
    one.add_argument("--day", metavar="YYYY-MM-DD", help="only what was archived on that day (UTC)")

    one = command("restore", restore_command, "bring items back from the archive into a table")
    one.add_argument("--table", required=True, metavar="T", help="the table to write to; it must be there")
    what = one.add_mutually_exclusive_group(required=True)
    what.add_argument("--all", action="store_true", help="the whole archive")
    what.add_argument("--day", metavar="YYYY-MM-DD", help="what was archived on that day (UTC)")
    what.add_argument("--object", action="append", metavar="NAME", help="an archive object; may be repeated")
    what.add_argument(
        "--key", action="append", metavar="VALUE",
        help="one item, by its hash key, and its range key with a second --key; numbers as N:7, binary as B:base64",
    )  # fmt: skip
    one.add_argument(
        "--filter", metavar="JMESPATH", help="of those only the items that match: status == 'archived'"
    )
    one.add_argument("--from-table", metavar="T", help="of those only the ones that came from this table")
    one.add_argument(
        "--overwrite", choices=("never", "older", "always"), default="never",
        help="what of items with the same key that are in the table: left alone (default), replaced if older, replaced",
    )  # fmt: skip
    one.add_argument(
        "--dry-run", action="store_true", help="count what would be restored, write and request nothing"
    )
    one.add_argument(
        "--unproven", action="store_true",
        help="also items not known to have left by the archiver's hand: where manifests or STATE_TABLE are lost",
    )  # fmt: skip
    one.add_argument(
        "--thaw-days", type=_days, default=7, metavar="N", help="how long a requested object stays (7)"
    )
    one.add_argument(
        "--thaw-tier", choices=("Expedited", "Standard", "Bulk"), default="Standard", help="how fast it comes"
    )

    command("setup", setup_command, "make the table that the archiver keeps its place in (STATE_TABLE)")
    return top


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 10**9:
        raise argparse.ArgumentTypeError(f"{text!r} is no positive number of seconds")
    return value


def _days(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 0 < int(text) < 10**5:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of days, 1 or more")
    return int(text)


def _connect(found: Settings) -> aws.Aws:
    return aws.connect(found.region, connections=found.segments + 1)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _problems(command: str, problems: Sequence[str]) -> None:
    """A line each. What is wrong with one object may be with each of thousands."""
    for problem in problems[:MOST_PROBLEMS]:
        _say(f"python -m archiver {command}: {problem}")
    if len(problems) > MOST_PROBLEMS:
        _say(f"python -m archiver {command}: and {len(problems) - MOST_PROBLEMS:,} more: --json has them all")


class Progress:
    """Says how far it is, now and then, on standard error."""

    def __init__(self) -> None:
        self._began = self._said = time.monotonic()

    def say(self, text: str) -> None:
        """A line, unless the last one was just now."""
        now = time.monotonic()
        if now - self._said >= SAY_EVERY:
            self._said = now
            _say(f"{now - self._began:6.0f} s  {text}")


def run_command(args: argparse.Namespace) -> int:
    """`run`."""
    environment = {**os.environ, "DRY_RUN": "true"} if args.dry_run else os.environ
    found = settings.from_environment(environment)
    end = time.monotonic() + args.time_limit if args.time_limit else None
    progress = Progress()

    def progressed(table: str, stats: run.Stats) -> None:
        progress.say(
            f"{table}: {stats.scanned:,} scanned, {stats.archived:,} archived, {stats.deleted:,} deleted,"
            f" {stats.kept:,} changed meanwhile"
        )

    began = time.monotonic()
    with stopping() as stop:
        clients = _connect(found)
        results = run.run(
            run.Context(
                clients,
                found,
                # What Lambda needs a reserve for does not end us.
                time_left=(lambda: end - time.monotonic() + found.time_reserve)
                if end
                else (lambda: float("inf")),
                stopped=stop.is_set,
                progressed=progressed,
            )
        )
    seconds = time.monotonic() - began
    calls = sum(clients.calls.values())
    if args.json:
        _json(
            {
                "dry_run": found.dry_run,
                "seconds": round(seconds, 3),
                "api_calls": dict(sorted(clients.calls.items())),
                "tables": [one.facts() for one in results],
            }
        )
    else:
        _run_table(found, results, seconds, calls)
    _problems("run", [problem for one in results for problem in one.problems])
    if any(one.problems for one in results):
        return 1
    return 0 if all(one.finished for one in results) else NOT_YET


def _run_table(found: Settings, results: Sequence[run.Result], seconds: float, calls: int) -> None:
    made = Table(title="dry run: nothing was written" if found.dry_run else None, title_justify="left")
    for column in (
        "table",
        "scanned",
        "archived",
        "bytes",
        "deleted",
        "changed meanwhile",
        "left alone",
        "ended",
    ):
        made.add_column(column, justify="left" if column in ("table", "ended") else "right")
    for one in results:
        stats = one.stats
        ended = "finished" if one.finished else ("failed" if one.problems else one.reason)
        made.add_row(
            one.table, f"{stats.scanned:,}", f"{stats.archived:,}", filesize.decimal(stats.bytes), f"{stats.deleted:,}",
            f"{stats.kept:,}", f"{stats.unreadable + stats.unsafe:,}", ended,
        )  # fmt: skip
    _print(made)
    _say(f"{seconds:.1f} s, {calls:,} requests")
    if not found.dry_run and any(not one.finished and not one.problems for one in results):
        _say("not all is done: run it again, it goes on where it is")


def verify_command(args: argparse.Namespace) -> int:
    """`verify`."""
    found = settings.from_environment(os.environ, source=False)
    progress = Progress()
    findings = verify.verify(
        _connect(found),
        found,
        args.day,
        lambda so_far: progress.say(f"{so_far.objects:,} objects, {so_far.items:,} items"),
    )
    if args.json:
        _json(findings.facts())
    else:
        _facts(
            {
                "objects": f"{findings.objects:,} with {findings.items:,} items,"
                f" {filesize.decimal(findings.bytes)}",
                "read, and as written": f"{findings.read:,}",
                "in an archive class, by S3's checksum": f"{findings.frozen:,}",
                "deletes under way": f"{len(findings.unfinished):,}",
                "given up before any delete": f"{len(findings.abandoned):,}",
                "without a manifest, of another maker": f"{len(findings.foreign):,}",
                "problems": f"{len(findings.problems):,}",
            }
        )
    _problems("verify", findings.problems)
    return int(bool(findings.problems))


def restore_command(args: argparse.Namespace) -> int:
    """`restore`."""
    found = settings.from_environment(os.environ, source=False)
    wanted = restore.Wanted(
        objects=args.object or (),
        day=args.day,
        key=restore.parse_key(args.key) if args.key else None,
        filter=args.filter,
        source_table=args.from_table,
    )
    progress = Progress()
    work = restore.Restore(
        _connect(found),
        found,
        args.table,
        wanted,
        args.overwrite,
        dry_run=args.dry_run,
        unproven=args.unproven,
        thaw_days=args.thaw_days,
        thaw_tier=args.thaw_tier,
        progressed=lambda so_far: progress.say(
            f"{so_far.objects:,} objects, {so_far.restored:,} items restored"
        ),
    )
    report = work.run()
    if args.json:
        _json({"dry_run": args.dry_run, **report.facts()})
    else:
        _facts(
            {
                f"{'would be ' if args.dry_run else ''}restored": f"{report.restored:,} items"
                f" of {report.objects:,} objects",
                "there already, the same": f"{report.identical:,}",
                "there in another version, left alone": f"{report.newer:,}",
                "not restored: changed or deleted while archived": f"{report.not_ours:,}",
                "objects without a manifest, of another maker": f"{len(report.unverified):,}",
                "objects whose deletes are under way": f"{len(report.unfinished):,}",
                "objects given up before any delete": f"{len(report.abandoned):,}",
                "left for later: a newer version is not ready": f"{report.held:,}",
                "objects requested from an archive class": f"{len(report.requested):,}",
                "objects that were requested and are not ready": f"{len(report.waiting):,}",
                "problems": f"{len(report.problems):,}",
            }
        )
    _problems("restore", report.problems)
    if report.problems:
        return 1
    if not report.ready:
        _say("not all objects are ready: run the same command again in some hours")
        return NOT_YET
    if args.from_table and not (report.objects or report.abandoned or report.unfinished or report.not_ours):
        _say(f"python -m archiver restore: none of these archives is of the table {args.from_table}")
        return 1
    if args.object and report.abandoned and not report.restored:
        _say(
            f"python -m archiver restore: nothing was deleted for {', '.join(report.abandoned)}: see --unproven"
        )
        return 1
    if args.key and not (report.restored or report.identical or report.newer):
        _say(f"python -m archiver restore: the archive has no item {' '.join(args.key)} that left its table")
        return 1
    return 0


def setup_command(args: argparse.Namespace) -> int:
    """`setup`."""
    found = settings.from_environment({"ARCHIVE_BUCKET": "not-needed", **os.environ}, source=False)
    made = state.create_table(_connect(found).dynamodb, found.state_table)
    if args.json:
        _json({"state_table": found.state_table, "made": made})
    else:
        print(f"the state table {found.state_table} {'is made' if made else 'was there'}")
    return 0


def _json(value: Any) -> None:
    print(orjson.dumps(value).decode())


def _print(table: Table) -> None:
    Console(width=None if sys.stdout.isatty() else 160, highlight=False).print(table)


def _facts(facts: Mapping[str, str]) -> None:
    width = max(map(len, facts))
    print("\n".join(f"{name:<{width}}  {value}" for name, value in facts.items()))
