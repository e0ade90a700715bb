"""The commands `archive-partitions` and `restore-partition`."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

import orjson

from jobs import db
from jobs.archive.settings import required
from jobs.errors import JobsError
from jobs.progress import say_progress
from jobs.schedule import Job, find

if TYPE_CHECKING:
    from jobs.archive.restore import Archive

# Arrow and boto3 take half a second to import: not for `python -m jobs list`.

Runner = Callable[[Job, bool, bool], int]
"""Runs a job, or says what it would do: the job, dry, as JSON; returns the exit code."""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser], runner: Runner) -> None:
    """The options of both commands."""
    one = commands.add_parser(
        "archive-partitions",
        help="closed partitions to Parquet in S3, read back and compared; past their retention detached",
        description="Archive what is due: closed partitions of tables with archive_first (ops.partition_policies)."
        " The same as `run archive-partitions`, of some partitions if you name them. ARCHIVE_BUCKET names the bucket,"
        " PARTITION_PREFIX the folder in it (default partitions), KMS_KEY_ID the key, GLUE_DATABASE the database of"
        " --ddl (default archive); all else is boto3's own.",
    )
    one.add_argument("--table", metavar="T", help="only of this table (eav.entity_values_ts)")
    one.add_argument("--partition", metavar="P", help="only this one, as soon as it is closed")
    what = one.add_mutually_exclusive_group()
    what.add_argument("--dry-run", action="store_true", help="say what it would do, and do nothing")
    what.add_argument(
        "--adopt",
        action="store_true",
        help="take over the folder after this database was restored, moved or lost: archives that it has no record of"
        " are known again, or set aside if their partition is here",
    )
    what.add_argument(
        "--ddl",
        choices=("glue", "spectrum"),
        help="print the table as Glue (boto3's create_table) or Redshift knows it",
    )
    one.add_argument("--json", action="store_true", help="JSON")
    one.set_defaults(run=partial(archive_partitions, runner=runner))

    one = commands.add_parser(
        "restore-partition",
        help="bring an archived partition back, attached, for a while",
        epilog="exit codes: 0 it is attached; 1 it is not; 3 it is being fetched from Glacier: run it again later",
    )
    one.add_argument("partition", nargs="?", metavar="PARTITION", help="its name, as --list says it")
    one.add_argument(
        "--list", action="store_true", help="the archives there are, and where their partitions are"
    )
    one.add_argument("--archive", type=int, metavar="ID", help="which, if there are several")
    one.add_argument(
        "--keep",
        type=int,
        default=30,
        metavar="DAYS",
        help="how long it stays, whatever its retention (default 30)",
    )
    one.add_argument("--json", action="store_true", help="JSON")
    one.set_defaults(run=restore_partition)


def archive_partitions(args: argparse.Namespace, runner: Runner) -> int:
    """`archive-partitions`."""
    if args.ddl:
        return _ddl(args)
    from jobs.archive import run

    url = db.database_url()
    partition = args.partition
    if partition is not None:
        with db.translated(url), db.connect(url, "eav_jobs", "eav jobs archive-partitions") as connection:
            partition = _known(connection, partition)
    chosen: dict[str, Any] = {"table": args.table, "partition": partition}
    job = find(run.NAME)
    assert job is not None
    job = replace(job, action=partial(run.archive, **chosen), plan=partial(run.plan, **chosen))
    if not args.dry_run:
        required()
    if args.adopt:
        _adopt(url)
    return runner(job, args.dry_run, args.json)


def _adopt(url: str) -> None:
    from jobs.archive import owner
    from jobs.archive.store import Store

    say_progress()
    with db.translated(url), db.connect(url, "eav_owner", "eav jobs archive-partitions") as connection:
        owner.take_over(connection, Store(required()))


def _known(connection: db.Connection, partition: str) -> str:
    row = connection.execute(
        "SELECT coalesce(to_regclass(%(name)s), to_regclass('eav.' || %(name)s))::text", {"name": partition}
    ).fetchone()
    if row is None or row[0] is None:
        raise JobsError(
            f"there is no partition {partition!r}: name it as in eav.entity_values_ts_p2026_01_31"
        )
    return str(row[0])


def _ddl(args: argparse.Namespace) -> int:
    from jobs.archive import catalogue

    settings = required()
    url = db.database_url()
    with db.translated(url), db.connect(url, "eav_jobs", "eav jobs archive-partitions") as connection:
        names = [args.table] if args.table else catalogue.tables(connection)
        found = [catalogue.table(connection, name) for name in names]
    if args.ddl == "spectrum":
        print(
            "\n\n".join([catalogue.schema(settings), *(catalogue.spectrum(one, settings) for one in found)])
        )
    else:
        made = [catalogue.glue(one, settings) for one in found]
        print(orjson.dumps(made[0] if args.table else made, option=orjson.OPT_INDENT_2).decode())
    return 0


def restore_partition(args: argparse.Namespace) -> int:
    """`restore-partition`."""
    from jobs.archive import restore

    if args.list == bool(args.partition):
        raise JobsError("name a partition, or ask for them with --list")
    if args.keep < 1:
        raise JobsError(f"--keep must be 1 day or more, got {args.keep}")
    url = db.database_url()
    settings = None if args.list else required()
    say_progress()
    with db.translated(url), db.connect(url, "eav_jobs", "eav jobs restore-partition") as connection:
        if settings is None:
            return _list(restore.archives(connection), as_json=args.json)
        archive = restore.choose(connection, args.partition, args.archive)
        rows = restore.restore(connection, settings, archive, timedelta(days=args.keep))
    if args.json:
        print(
            orjson.dumps(
                {"partition": archive.partition, "archive_id": archive.archive_id, "rows": rows}
            ).decode()
        )
    else:
        print(f"{archive.partition}: attached, {rows:,} rows; it stays for {args.keep} days")
    return 0


def _list(found: list[Archive], *, as_json: bool) -> int:
    from jobs.compact import size

    if as_json:
        print(orjson.dumps([vars(one) for one in found]).decode())
        return 0
    if not found:
        print("nothing is archived")
    for one in found:
        until = f" until {one.keep_until:%Y-%m-%d}" if one.status == "restored" and one.keep_until else ""
        print(
            f"{one.archive_id:>6}  {one.partition}  {one.starts_at:%Y-%m-%d %H:%M} to {one.ends_at:%Y-%m-%d %H:%M}"
            f"  {one.rows:,} rows, {size(one.table_bytes)} as table, {size(one.parquet_bytes)} as Parquet"
            f"  {one.status}{until}"
        )
    return 0
