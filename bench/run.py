"""One run: rows in turn, each in rounds of reference, ours, reference, ours; figures, lines and verdicts."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import psycopg

from bench import docs
from bench.model import Figure, Row, judge
from bench.rows.archiver import Archiver
from bench.rows.flow import EndToEnd, EndToEndIngest, PgQ
from bench.rows.flush import Flush
from bench.rows.history import (
    ColdActive,
    ColdCompacted,
    Compaction,
    Filled,
    FilledLean,
    Size,
    SizeActive,
    SizeCompacted,
)
from bench.rows.hot import HotRead, HotWrite
from bench.rows.migrate import Migrate
from bench.server import Bench
from bench.worlds import World
from local.errors import LocalError

# In this order: rows that share a database stand together, and it is dropped after the last of them.
ROWS: tuple[type[Row], ...] = (
    Flush,
    Size,
    EndToEnd,
    EndToEndIngest,
    PgQ,
    FilledLean,
    Filled,
    ColdActive,
    SizeActive,
    Compaction,
    ColdCompacted,
    SizeCompacted,
    HotWrite,
    HotRead,
    Migrate,
    Archiver,
)


def names() -> list[str]:
    """What `--only` knows."""
    return [row.name for row in ROWS]


def chosen(only: Sequence[str] | None) -> list[type[Row]]:
    """The rows of these names, in the table's order. Raises LocalError for a name that is none."""
    if unknown := sorted(set(only or ()) - set(names())):
        raise LocalError(
            f"python -m bench: there is no row {', '.join(unknown)}: choose from {', '.join(names())}"
        )
    return [row for row in ROWS if not only or row.name in only]


def run(bench: Bench, rows: Sequence[type[Row]]) -> dict[str, Any]:
    """Measure them; returns what the JSON file holds."""
    began = time.monotonic()
    found: dict[str, Any] = {"about": bench.about(), "rows": []}
    world: World | None = None
    failed: dict[type[World], str] = {}
    for number, kind in enumerate(rows):
        wanted = kind.world
        if wanted is not None and not isinstance(world, wanted) and wanted not in failed:
            world = wanted(bench)
            bench.say(f"making the database of {kind.name}")
            try:
                world.open()
            except (LocalError, psycopg.Error) as error:
                failed[wanted] = f"its database could not be made: {str(error).splitlines()[0]}"
        reason = failed.get(wanted) if wanted is not None else None
        found["rows"].append(measure(bench, kind(bench, world), f"{number + 1} of {len(rows)}", reason))
        following = rows[number + 1] if number + 1 < len(rows) else None
        if world is not None and (reason or following is None or following.world is not type(world)):
            world.close()
            world = None
    found["about"]["seconds"] = round(time.monotonic() - began)
    return found


def completed(result: dict[str, Any], earlier: dict[str, Any]) -> dict[str, Any]:
    """`result` with those rows of an earlier one that it has not, each with when it was measured. Raises LocalError."""
    docs.check_same(earlier, result["about"], ("sizes", "rounds"))
    known = {row["name"] for row in result["rows"]}
    when = {key: earlier["about"][key] for key in ("date", "commit")}
    kept = [{"measured": when, **row} for row in earlier["rows"] if row["name"] not in known]
    order = names()
    return result | {"rows": sorted([*result["rows"], *kept], key=lambda row: order.index(row["name"]))}


def measure(bench: Bench, row: Row, place: str, failed: str | None = None) -> dict[str, Any]:
    """One row; what keeps it from being measured is said in its place, and the run goes on."""
    result: dict[str, Any] = {"name": row.name, "title": row.title, "state": row.state}
    bench.say(f"row {place}: {row.name}: {row.title} ({row.state})")
    if reason := failed or row.missing():
        bench.say(f"  left out: {reason}")
        return result | {"left_out": reason, "figures": {}, "lines": []}
    began = time.monotonic()
    checkpoints = bench.checkpoints()
    figures: dict[str, Figure] = {}
    try:
        row.prepare()
        rounds = 1 if row.once else bench.rounds
        for number in range(1, rounds + 1):
            for step in row.steps():
                for name, value in step().items():
                    figures.setdefault(name, Figure()).rounds.append(value)
                    bench.say(f"  round {number} of {rounds}: {name}: {value:,.4g}")
        row.clean()
    except (LocalError, psycopg.Error) as error:
        # What was measured before is worth keeping, and the failure is part of the result.
        result["failed"] = str(error).splitlines()[0]
        bench.say(f"  failed: {result['failed']}")
    return result | {
        "seconds": round(time.monotonic() - began, 1),
        "checkpoints": bench.checkpoints() - checkpoints,
        "notes": row.notes(),
        "figures": {name: figure.as_dict() for name, figure in figures.items()},
        "lines": [judge(line, figures) for line in row.lines()],
    }
