"""The command line of the jobs: `python -m jobs --help`."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
from collections.abc import Sequence
from typing import Any, Final

import orjson
from rich.console import Console
from rich.table import Table

from jobs import alive, backfill, cron, db, figures, runs, telemetry, tenants
from jobs.archive import command as archive_command
from jobs.errors import JobsError
from jobs.events import Events, Progress
from jobs.ingest import command as ingest_command
from jobs.progress import say_progress
from jobs.schedule import FLUSHERS, LANES, SCHEDULE, Job, find, schedule
from jobs.stopping import stopping
from jobs.worker import Worker

EPILOG: Final = """\
DATABASE_URL names the database: export DATABASE_URL=$(make url)
On RDS it needs no password: DATABASE_IAM_AUTH=true logs in with a token of IAM, DATABASE_SECRET_ARN with
the secret of that name; both with sslmode=verify-full.

exit codes: 0 done; 1 it failed (one line on standard error says why); 2 wrong usage; 130 interrupted"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    args = parser().parse_args(argv)
    try:
        code: int = args.run(args)
        sys.stdout.flush()
    except JobsError as error:
        print(f"python -m jobs {args.command}: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print(f"python -m jobs {args.command}: interrupted", file=sys.stderr)
        return 128 + signal.SIGINT
    except BrokenPipeError:
        # Whoever read our output has seen enough. What is left must not be written at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    return code


def parser() -> argparse.ArgumentParser:
    """All commands and their options."""
    top = argparse.ArgumentParser(
        prog="python -m jobs",
        description="Everything that moves data: ingest, the scheduled jobs, and who runs them.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    one = commands.add_parser("list", help="the schedule, and how the last run of each job went")
    one.add_argument("--json", action="store_true", help="a JSON array")
    one.set_defaults(run=list_jobs)

    one = commands.add_parser(
        "run", help="one run of one job, now", epilog="exit codes: 0 it ran, or was skipped; 1 it failed"
    )
    one.add_argument("name", metavar="NAME", help="a job of `list`")
    one.add_argument(
        "--dry-run",
        action="store_true",
        help="say what it would do, and do nothing",
    )
    one.add_argument("--json", action="store_true", help="one JSON object")
    one.set_defaults(run=run_job)

    one = commands.add_parser(
        "worker",
        help="the scheduler loop",
        description="Run the schedule until SIGTERM or SIGINT. Of several workers one leads, the others stand"
        " by. Jobs that pg_cron runs are left to it.",
        epilog="exit codes: 0 stopped when asked to; 1 the server refuses us, or with --once a job failed",
    )
    one.add_argument("--once", action="store_true", help="run each job that is due, once, and end")
    _flushers_option(one)
    alive.add_option(one)
    one.add_argument("--json", action="store_true", help="events as JSON lines (standard error)")
    one.set_defaults(run=work)

    one = commands.add_parser("cron", help="the schedule in pg_cron, where the server has it")
    what = one.add_mutually_exclusive_group(required=True)
    what.add_argument("--apply", action="store_true", help="put the schedule in, take stale jobs out")
    what.add_argument("--show", action="store_true", help="what is in")
    what.add_argument("--remove", action="store_true", help="take all of it out; the worker takes over")
    _flushers_option(one)
    one.add_argument("--json", action="store_true", help="a JSON array")
    one.set_defaults(run=cron_jobs)

    one = commands.add_parser(
        "figures",
        help="the state of the database in figures, as the alarms watch it",
        description="What is staged, behind, late, failed or running out. docs/monitoring.md says what each means.",
        epilog="exit codes: 0 all were read; 1 some were not",
    )
    how = one.add_mutually_exclusive_group()
    how.add_argument("--json", action="store_true", help="a JSON array")
    how.add_argument(
        "--publish",
        action="store_true",
        help="lines of CloudWatch's embedded metric format, for a log that it reads (EAV_STACK names the stack)",
    )
    one.set_defaults(run=show_figures)

    _tenant_parser(commands)
    ingest_command.add_parser(commands)
    telemetry.add_parser(commands)
    archive_command.add_parser(commands, execute)
    return top


def _flushers_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--flushers", type=int, choices=range(1, LANES + 1), default=FLUSHERS, metavar="N",
        help=f"flushers that share a backlog, 1 to {LANES} (default {FLUSHERS}), one a core to spare",
    )  # fmt: skip


def _tenant_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    tenant = commands.add_parser("tenant", help="add and list tenants")
    actions = tenant.add_subparsers(dest="action", required=True, metavar="ACTION")
    one = actions.add_parser(
        "add", help="add a tenant, or find it by its name; prints its id and nothing else"
    )
    one.add_argument("name", metavar="NAME")
    one.add_argument("--id", type=int, metavar="N", help="its id (default: the next one)")
    one.add_argument(
        "--auto-register",
        action="store_true",
        help="unknown entities and attributes are registered by the flush instead of rejected",
    )
    one.set_defaults(run=tenant_add)
    one = actions.add_parser("list", help="all tenants")
    one.add_argument("--json", action="store_true", help="a JSON array")
    one.set_defaults(run=tenant_list)


def _show(value: Any) -> None:
    print(orjson.dumps(value, default=str).decode())


def _table(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[object]], right: Sequence[str] = ()
) -> None:
    made = Table(title=title, title_justify="left")
    for column in columns:
        made.add_column(column, justify="right" if column in right else "left", overflow="fold")
    for row in rows:
        made.add_row(*(str(cell) for cell in row))
    Console(width=None if sys.stdout.isatty() else 200).print(made)


def list_jobs(args: argparse.Namespace) -> int:
    """`list`."""
    url = db.database_url()
    with db.translated(url), db.connect(url, "eav_jobs", "eav jobs list") as connection:
        last = runs.last_runs(connection)
        by_cron = cron.running(connection)
    facts = [_facts(job, last.get(job.name), job.name in by_cron) for job in SCHEDULE]
    if args.json:
        _show(facts)
        return 0
    rows = [
        (
            one["name"], one["schedule"], one["runs_in"], one["summary"],
            f"{one['started_at']:%Y-%m-%d %H:%M:%S}" if one["started_at"] else "never",
            one["status"] or "",
            f"{one['rows']:,}" if one["rows"] is not None else "",
            f"{one['seconds']:.2f}" if one["seconds"] is not None else "",
            one["error"] or "",
        )
        for one in facts
    ]  # fmt: skip
    columns = ("job", "when", "by", "does", "last run (UTC)", "status", "rows", "seconds", "error")
    _table("jobs", columns, rows, right=("rows", "seconds"))
    return 0


def _facts(job: Job, last: runs.Run | None, by_cron: bool) -> dict[str, Any]:
    return {
        "name": job.name,
        "schedule": job.when(),
        "summary": job.summary,
        "runs_in": "pg_cron" if by_cron else "worker",
        "run_id": last and last.run_id,
        "started_at": last and last.started_at,
        "status": last and last.status,
        "rows": last and last.rows,
        "seconds": last and last.seconds,
        "error": last and last.error,
    }


def run_job(args: argparse.Namespace) -> int:
    """`run NAME`."""
    job = find(args.name)
    if job is None:
        raise JobsError(
            f"there is no job {args.name!r}: choose from {', '.join(one.name for one in SCHEDULE)}"
        )
    return execute(job, args.dry_run, args.json)


def execute(job: Job, dry: bool, as_json: bool) -> int:
    """One run of a job, or what it would do; returns the exit code."""
    url = db.database_url()
    if dry:
        return dry_run(job, url, as_json=as_json)
    say_progress()
    with db.connect(url, "eav_jobs", f"eav jobs run {job.name}") as connection:
        found = (
            backfill.run(connection, job, url=url)
            if job.name == backfill.NAME
            else runs.run(connection, job, "cli", url=url, repeat=False)
        )
    if as_json:
        _show(_facts(job, found, by_cron=False))
    else:
        took = f" in {found.seconds:.2f} s" if found.seconds is not None else ""
        detail = {"failed": f": {found.error}", "skipped": ": another run of it is going on"}.get(
            found.status, f", {found.rows or 0:,} rows{took}"
        )
        print(f"{job.name}: {found.status}{detail}")
    return int(found.status == "failed")


def dry_run(job: Job, url: str, *, as_json: bool) -> int:
    """`run NAME --dry-run`."""
    if job.plan is None:
        named = ", ".join(one.name for one in SCHEDULE if one.plan)
        raise JobsError(f"{job.name} has no dry run; these have: {named}")
    with db.translated(url), db.connect(url, "eav_jobs", f"eav jobs run {job.name}") as connection:
        lines = job.plan(connection)
    if as_json:
        _show(lines)
    else:
        print("\n".join(lines) if lines else f"{job.name}: nothing to do")
    return 0


def work(args: argparse.Namespace) -> int:
    """`worker`."""
    url = db.database_url()
    events = Events(as_json=args.json)
    logger, progress = logging.getLogger("jobs"), Progress(events)
    logger.addHandler(progress)
    logger.setLevel(logging.INFO)
    try:
        with stopping() as stop:
            worker = Worker(url, events, stop, schedule(args.flushers), alive.beat(args.alive))
            if args.once:
                return int(not worker.once())
            worker.run()
            return 0
    finally:
        logger.removeHandler(progress)


def cron_jobs(args: argparse.Namespace) -> int:
    """`cron`."""
    url = db.database_url()
    if args.remove:
        names = cron.remove(url)
        if args.json:
            _show(names)
        else:
            print(f"taken out of pg_cron: {', '.join(names)}" if names else "nothing of ours is in pg_cron")
        return 0
    found = cron.apply(url, schedule(args.flushers)) if args.apply else cron.show(url)
    if args.json:
        _show([{"name": one.name, "schedule": one.schedule, "command": one.command} for one in found])
    elif not found:
        print("nothing of ours is in pg_cron here: python -m jobs cron --apply, or python -m jobs worker")
    else:
        _table(
            "in pg_cron",
            ("job", "schedule (UTC)", "command"),
            [(e.name, e.schedule, e.command) for e in found],
        )
    return 0


def show_figures(args: argparse.Namespace) -> int:
    """`figures`."""
    found, problems = figures.read(db.database_url())
    if args.publish:
        figures.publish(found, figures.stack_name())
    elif args.json:
        _show([{"figure": o.figure.name, "of": o.of, "value": o.value, "unit": o.figure.unit} for o in found])
    else:
        rows = [
            (o.figure.name, o.of or "", f"{o.value:,.0f}" if o.value >= 100 else f"{o.value:,.4g}",
             o.figure.unit.lower(), o.figure.meaning)
            for o in found
        ]  # fmt: skip
        _table("figures", ("figure", "of", "value", "unit", "meaning"), rows, right=("value",))
    for line in problems:
        print(f"python -m jobs figures: {line}", file=sys.stderr)
    return int(bool(problems))


def tenant_add(args: argparse.Namespace) -> int:
    """`tenant add`."""
    print(tenants.add(db.database_url(), args.name, args.id, auto_register=args.auto_register))
    return 0


def tenant_list(args: argparse.Namespace) -> int:
    """`tenant list`."""
    found = tenants.all_tenants(db.database_url())
    if args.json:
        _show([vars(one) for one in found])
        return 0
    rows = [
        (one.tenant_id, one.name, "yes" if one.auto_register else "no", f"{one.attributes:,}",
         f"{one.created_at:%Y-%m-%d %H:%M:%S}")
        for one in found
    ]  # fmt: skip
    columns = ("id", "name", "registers by itself", "attributes", "created (UTC)")
    _table("tenants", columns, rows, right=("id", "attributes"))
    return 0
