"""What the demo shows: results of queries as tables, and where everything is at the end."""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Final

from psycopg import conninfo, sql
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from local import queries
from local.queries import Connection

COUNTED: Final = 256 * 1024 * 1024
"""Bytes of a table up to which its rows are counted; of a larger one they are estimated."""


def show_table(
    console: Console, title: str, columns: dict[str, str], rows: list[tuple[Any, ...]], note: str = ""
) -> None:
    """Print a table whose `columns` map headings to "left" or "right", `note` beside its title."""
    made = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading, side in columns.items():
        made.add_column(heading, justify="right" if side == "right" else "left", overflow="fold")
    for row in rows:
        made.add_row(*(escape(text(cell)) for cell in row))
    # Not as the table's own title, which is wrapped to the table's width.
    aside = f"   [dim]{escape(note)}[/dim]" if note else ""
    console.print(f"[bold]{escape(title)}[/bold]{aside}", end="", soft_wrap=True)
    console.print(made if rows else "\n  nothing\n")


def text(value: Any) -> str:
    """A cell for people."""
    match value:
        case None:
            return ""
        case bool():
            return "yes" if value else "no"
        case int():
            return f"{value:,}"
        case float() | Decimal():
            return f"{value:,.1f}"
        case datetime():
            return f"{value:%H:%M:%S}"
        case timedelta():
            return duration(value)
    return str(value)


def duration(value: timedelta) -> str:
    """The two largest units of it: `4 d 3 h`, `2.5 s`."""
    seconds = value.total_seconds()
    if seconds < 60:
        return f"{seconds:.1f} s"
    parts = []
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            parts.append(f"{int(seconds // size)} {unit}")
            seconds %= size
    return " ".join(parts[:2])


def size(number: float) -> str:
    """Bytes for people: `12.3 MiB`."""
    number = float(number)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if number < 1024:
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1024
    return f"{number:.1f} TiB"


def gather(connection: Connection, tenant_id: int) -> dict[str, Any]:
    """What is where now: database, tables, partitions, staged, stored, rejected, runs. Raises psycopg.Error."""
    parts = conninfo.conninfo_to_dict(connection.info.dsn)
    row = connection.execute(
        "SELECT current_setting('server_version'), pg_database_size(current_database())"
    ).fetchone()
    assert row is not None

    def ask(name: str, **given: str) -> list[dict[str, Any]]:
        return queries.run(connection, queries.load(name), tenant_id=tenant_id, **given).dicts()

    tables = []
    for found in ask("table_sizes"):
        total = int(found["table_bytes"] + found["index_bytes"] + found["other_bytes"])
        name = f"{found['schema_name']}.{found['table_name']}"
        rows = _count(connection, found) if total <= COUNTED else found["estimated_rows"]
        tables.append({"table": name, "partitions": found["partitions"], "rows": rows, "bytes": total})
    staged = ask("staged")
    return {
        "server": {
            "version": row[0],
            "host": parts.get("host"),
            "port": parts.get("port"),
            "database": connection.info.dbname,
            "bytes": row[1],
        },
        "tables": tables,
        "partitions": ask("partitions_ahead"),
        "staged": sum(lane["staged"] for lane in staged),
        "attributes": ask("tenant_attributes"),
        "rejected": {found["reason"]: found["refused"] for found in ask("rejected_by_reason")},
        "jobs": ask("job_runs", window="15 minutes"),
    }


def _count(connection: Connection, found: dict[str, Any]) -> int:
    with connection.transaction():
        # The owner is the one whom no row-level security binds.
        connection.execute("SET LOCAL ROLE eav_owner")
        row = connection.execute(
            sql.SQL("SELECT count(*) FROM {}").format(
                sql.Identifier(found["schema_name"], found["table_name"])
            )
        ).fetchone()
    assert row is not None
    number: int = row[0]
    return number


def show(console: Console, facts: dict[str, Any], origin: str) -> None:
    """The closing report."""
    where, run = facts["where"], facts["run"]

    def say(label: str, line: str) -> None:
        console.print(f"{label:<11} {line}", markup=False, soft_wrap=True)

    console.rule("what is where", align="left")
    server = where["server"]
    say("server", origin)
    say(
        "database",
        f"{server['database']} at {server['host']}:{server['port']}, {size(server['bytes'])};"
        f" tenant {facts['tenant']['name']} (id {facts['tenant']['id']})",
    )
    say(
        "this run",
        f"{run['sampled']:,} values sampled live in {run['seconds']:.1f} s ({run['values_per_second']:,.0f}/s),"
        f" {run['stored']:,} stored, {run['rejected']:,} rejected and kept",
    )
    if run["age_median"] is not None:
        say(
            "freshness",
            f"values were {run['age_median']:.2f} s old to a reader (median; at most {run['age_max']:.2f} s),"
            " sampled every 0.5 s",
        )
    stored = sum(found["count"] for found in where["attributes"])
    say("last 24 h", f"{stored:,} values of {len(where['attributes'])} attributes stored")
    rejected = ", ".join(f"{count:,} {reason}" for reason, count in sorted(where["rejected"].items()))
    say("", f"{rejected or 'none'} rejected, of this tenant")
    say("staged now", f"{where['staged']:,} values")
    if archive := facts["archive"]:
        say(
            "archive",
            f"{archive['deleted']:,} of {archive['items']:,} items of the DynamoDB table {archive['table']} left for"
            f" s3://{archive['bucket']} in this run; {archive['verified_items']:,} are there in"
            f" {archive['objects']:,} objects, verified; {archive['restored']:,} came back",
        )
    else:
        say("archive", "none: no AWS emulator is up")
    console.print()
    # Slots keep what is flushed until they are emptied: their rows are not what is staged.
    kept = [t for t in where["tables"] if not t["table"].startswith("eav.staging_")]
    largest = [t for t in kept if t["rows"] or t["partitions"]][:8]
    show_table(
        console,
        "tables",
        {"table": "left", "partitions": "right", "rows": "right", "bytes": "right"},
        [(t["table"], t["partitions"] or None, t["rows"], size(t["bytes"])) for t in largest],
    )
    show_table(
        console,
        "partitions by time",
        {"table": "left", "each": "left", "partitions": "right", "ahead": "left", "kept for": "left"},
        [
            (p["parent_table"], p["partition_interval"], p["partitions"], p["ahead"], p["retention"])
            for p in where["partitions"]
        ],
    )
    show_table(
        console,
        "job runs of the last 15 minutes",
        {"job": "left", **dict.fromkeys(("runs", "failed", "skipped", "rows", "p95 s"), "right")},
        [
            (
                j["job"],
                j["runs"],
                j["failed"],
                j["skipped"],
                int(j["rows_moved"] or 0),
                _seconds(j),
            )
            for j in where["jobs"]
        ],
    )
    _next(console, facts["tenant"]["id"])


def _seconds(job: dict[str, Any]) -> str:
    return "" if job["seconds_p95"] is None else f"{job['seconds_p95']:.2f}"


def _next(console: Console, tenant_id: int) -> None:
    console.rule("what to try next", align="left")
    scope = f"-v tenant_id={tenant_id} -v attribute=host.cpu.percent"
    steps = (
        ("the database", ["make psql"]),
        ("a query of sql/queries", [
            f".venv/bin/python -m local psql {scope} -f sql/queries/scope.psql \\",
            "    -f sql/queries/analytical/attribute_distribution.sql",
        ]),
        ("the jobs, and how they went", ["export DATABASE_URL=$(make url)", ".venv/bin/python -m jobs list"]),
        ("more telemetry, by hand", [
            ".venv/bin/python -m jobs telemetry --seconds 30 --tenant this-host \\",
            "    | .venv/bin/python -m jobs ingest --flush -",
        ]),
        ("the archive of old items", [
            'eval "$(make aws-env)"; export ARCHIVE_BUCKET=eav-archive',
            ".venv/bin/python -m archiver verify",
            ".venv/bin/python -m archiver restore --all --table host-files-restored",
        ]),
        ("the schedule, until Ctrl-C", [".venv/bin/python -m jobs worker"]),
        ("all tests; then stop the server", ["make test", "make down"]),
    )  # fmt: skip
    for title, commands in steps:
        console.print(f"  [dim]# {title}[/dim]")
        for line in commands:
            console.print(f"  {line}", markup=False, highlight=False, soft_wrap=True)
