"""The figures of the database, for people, and as metrics: `python -m jobs figures`, and a Lambda function.

Metrics are lines of CloudWatch's embedded metric format on standard output. From the log of a function, or of a task
with the awslogs driver, CloudWatch takes them by itself: no right, no endpoint in the VPC, and a tenth of the price of
PutMetricData. The queries are those of sql/queries/operational that a person runs.

They are not a job of the schedule: what tells of a scheduler that stands still must not be run by it.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import psycopg

from jobs import db, names
from jobs.errors import JobsError
from jobs.names import Figure
from jobs.schedule import DAY, HOUR, SCHEDULE, Job

log = logging.getLogger(__name__)

QUERIES: Final = Path(__file__).parents[1] / "sql" / "queries" / "operational"
TIMEOUT: Final = timedelta(seconds=15)
"""Of one query."""
BUDGET: Final = timedelta(seconds=40)
"""Of all of them: what is left of the minute is for the connection and for the answer."""
MARGIN: Final = timedelta(minutes=5)
"""How much later than the schedule says a job may begin, so that a restart of the worker is no alarm."""
MANY_ROWS: Final = 100_000
"""A smaller table is all dead rows now and then, and does no harm by it."""

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Reading:
    """What a figure is now. `of`: the value of its second dimension, if it has one."""

    figure: Figure
    value: float
    of: str | None = None


# -- what rows of a query mean -------------------------------------------------------------------------------


def staged(rows: Sequence[Row]) -> list[Reading]:
    """Of staged.sql: a row a lane."""
    return [
        Reading(names.STAGED_ROWS, sum(row["staged"] for row in rows)),
        Reading(names.STAGED_AGE, max((_seconds(row["age"]) for row in rows), default=0.0)),
    ]


def flow(rows: Sequence[Row], now: datetime) -> list[Reading]:
    """Of flow.sql. No figure where nothing was ever flushed."""
    at = rows[0]["flushed_at"]
    return [] if at is None else [Reading(names.SINCE_FLUSH, _since(at, now))]


def rejected(rows: Sequence[Row]) -> list[Reading]:
    """Of rejected_lately.sql: a row a reason."""
    return [
        Reading(names.REJECTED, sum(row["rejected"] for row in rows)),
        *(Reading(names.REJECTED_BY_REASON, row["rejected"], row["reason"]) for row in rows),
    ]


def slots(rows: Sequence[Row]) -> list[Reading]:
    """Of replication_slots.sql: a row a slot. A slot that was never used holds nothing back and has no figure."""
    logical = [row for row in rows if row["slot_type"] == "logical"]
    return [
        Reading(names.SLOT_RETAINED, _most(row["retained_bytes"] for row in rows)),
        Reading(names.LOGICAL_UNREAD, _most(row["unread_bytes"] for row in logical)),
        Reading(names.INACTIVE_SLOTS, sum(not row["active"] for row in rows)),
    ]


def replicas(rows: Sequence[Row]) -> list[Reading]:
    """Of replica_lag.sql: a row a replica or reader of changes. Without a lag it has caught up and nothing happens."""
    streaming = [
        row for row in rows if row["kind"] == "physical" and row["state"] in ("streaming", "catchup")
    ]
    return [
        Reading(names.REPLICAS, sum(row["state"] == "streaming" for row in streaming)),
        Reading(names.REPLICA_LAG, max((_seconds(row["replay_lag"]) for row in streaming), default=0.0)),
        Reading(names.REPLICA_BEHIND, _most(row["behind_bytes"] for row in streaming)),
    ]


def partitions(rows: Sequence[Row]) -> list[Reading]:
    """Of partitions_ahead.sql: a row a table. One without partitions has none ahead."""
    ahead = {row["parent_table"]: _seconds(row["ahead"]) for row in rows}
    return [
        *([Reading(names.PARTITIONS_AHEAD, min(ahead.values()))] if ahead else []),
        *(Reading(names.PARTITIONS_AHEAD_BY_TABLE, value, table) for table, value in ahead.items()),
        Reading(names.MAINTENANCE_ERRORS, sum(row["last_error"] is not None for row in rows)),
    ]


def defaults(rows: Sequence[Row]) -> list[Reading]:
    """Of default_partitions.sql: a row a default partition."""
    return [
        Reading(names.DEFAULT_PARTITIONS, len(rows)),
        Reading(names.DEFAULT_ROWS, sum(row["estimated_rows"] for row in rows)),
    ]


def jobs(rows: Sequence[Row], now: datetime, schedule: Sequence[Job] = SCHEDULE) -> list[Reading]:
    """Of job_states.sql: a row a job that ever ran. How many flushers share the work is the operator's choice."""
    states = {row["job"]: row for row in rows}
    known = {job.name: job for job in schedule}
    needed = [job for job in schedule if job.name in states or not job.name.startswith("flush-")]
    return [
        Reading(
            names.JOBS_FAILING,
            sum(state["last_end"] == "failed" for name, state in states.items() if name in known),
        ),
        Reading(names.JOBS_LATE, sum(late(job, states.get(job.name), now) for job in needed)),
    ]


def late(job: Job, state: Row | None, now: datetime) -> bool:
    """Whether a job was not begun when it should have been, or goes on for longer than it may.

    A run that was skipped counts as begun: it says that the scheduler lives and that another run goes on.
    """
    if state is None or state["begun_at"] is None:
        return True
    waits = DAY + 2 * HOUR if job.at is not None else 2 * job.every
    running = state["running_since"]
    stuck = running is not None and now - running > job.timeout + MARGIN
    idle = now - state["begun_at"] > waits + MARGIN and running is None
    return stuck or idle


def archives(rows: Sequence[Row]) -> list[Reading]:
    """Of archive_health.sql, but for the freshness."""
    return [
        Reading(names.ARCHIVES_FAILED, rows[0]["failed"]),
        Reading(names.ARCHIVES_UNSEEN, rows[0]["unseen"]),
    ]


def server(rows: Sequence[Row]) -> list[Reading]:
    """Of server_health.sql. No share of hits where nothing was ever read."""
    row = rows[0]
    found = [
        Reading(names.XID_AGE, row["xid_age"]),
        Reading(names.MULTIXACT_AGE, row["multixact_age"]),
        Reading(names.XMIN_AGE, row["oldest_xmin_age"]),
        Reading(names.CONNECTIONS, 100 * row["connections"] / row["max_connections"]),
        Reading(names.LONGEST_TRANSACTION, _seconds(row["longest_transaction"])),
        Reading(names.LONGEST_IDLE, _seconds(row["longest_idle_in_transaction"])),
        Reading(names.BLOCKED, row["blocked_sessions"]),
    ]
    if row["cache_hit_percent"] is not None:
        found.append(Reading(names.CACHE_HITS, float(row["cache_hit_percent"])))
    return found


def tables(rows: Sequence[Row]) -> list[Reading]:
    """Of table_health.sql: a row a table."""
    shares = (row["dead_percent"] for row in rows if row["live_rows"] + row["dead_rows"] >= MANY_ROWS)
    return [Reading(names.DEAD_ROWS, _most(shares))]


def freshness(answers: Mapping[str, Sequence[Row]], now: datetime) -> list[Reading]:
    """How fresh each way to read is, from the answers that there are.

    Hot values move in the transaction that moves the history, and lag further while an attribute waits for those from
    before it turned hot. A replica is behind the history by what it has not replayed.
    """
    found: dict[str, float] = {}
    if "staged" in answers:
        history = found["history"] = _value(staged(answers["staged"]), names.STAGED_AGE)
        if "flow" in answers:
            since = answers["flow"][0]["backfill_since"]
            found["hot"] = max(history, 0.0 if since is None else _since(since, now))
        if "replica_lag" in answers:
            lag = replicas(answers["replica_lag"])
            if _value(lag, names.REPLICAS):
                found["replica"] = history + _value(lag, names.REPLICA_LAG)
    if "archive_health" in answers:
        found["archive"] = _seconds(answers["archive_health"][0]["overdue"])
    return [Reading(names.FRESHNESS, value, path) for path, value in found.items()]


MEANINGS: Final[dict[str, Callable[[Sequence[Row], datetime], list[Reading]]]] = {
    "staged": lambda rows, now: staged(rows),
    "flow": flow,
    "rejected_lately": lambda rows, now: rejected(rows),
    "replication_slots": lambda rows, now: slots(rows),
    "replica_lag": lambda rows, now: replicas(rows),
    "partitions_ahead": lambda rows, now: partitions(rows),
    "default_partitions": lambda rows, now: defaults(rows),
    "job_states": jobs,
    "archive_health": lambda rows, now: archives(rows),
    "server_health": lambda rows, now: server(rows),
    "table_health": lambda rows, now: tables(rows),
}
"""Query (a file of QUERIES) → what its rows mean. The order is that of asking: what matters most comes first."""


def readings(answers: Mapping[str, Sequence[Row]], now: datetime, failed: int = 0) -> list[Reading]:
    """Every figure that these answers give, in the order of names.FIGURES."""
    found = [one for name, rows in answers.items() for one in MEANINGS[name](rows, now)]
    found += [*freshness(answers, now), Reading(names.UNREAD, failed)]
    order = {figure: place for place, figure in enumerate(names.FIGURES)}
    return sorted(found, key=lambda one: (order[one.figure], one.of or ""))


# -- asking ----------------------------------------------------------------------------------------------------


def ask(connection: db.Connection) -> tuple[dict[str, list[Row]], list[str]]:
    """The answers by query, and a line for each query that failed: one that does leaves the others standing.

    Raises psycopg.Error if the connection is lost, and JobsError if nothing could be asked.
    """
    answers: dict[str, list[Row]] = {}
    problems: list[str] = []
    began = datetime.now(UTC)
    for name in MEANINGS:
        left = BUDGET - (datetime.now(UTC) - began)
        if left <= timedelta(0):
            problems.append(f"{name}: no time was left")
            continue
        try:
            connection.execute(
                "SELECT set_config('statement_timeout', %s, false)",
                [str(int(min(left, TIMEOUT).total_seconds() * 1000) or 1)],
            )
            cursor = connection.execute(query(name), {"rows": "1000"})
            columns = [column.name for column in cursor.description or ()]
            answers[name] = [dict(zip(columns, row, strict=True)) for row in cursor]
        except psycopg.Error as error:
            if db.lost(error):
                raise
            problems.append(f"{name}: {db.one_line(error)}")
    if not answers:
        raise JobsError(f"no figure could be read: {'; '.join(problems)}")
    return answers, problems


def query(name: str) -> bytes:
    """The text of a query of QUERIES, with its parameters as psycopg writes them."""
    text = (QUERIES / f"{name}.sql").read_text(encoding="utf-8").replace("%", "%%")
    return re.sub(r"(?<!:):'([a-z_]+)'", r"%(\1)s", text).encode()


def read(url: str) -> tuple[list[Reading], list[str]]:
    """The figures now, and what could not be read. Raises JobsError."""
    with db.translated(url), db.connect(url, "eav_monitor", "eav figures") as connection:
        answers, problems = ask(connection)
        return readings(answers, datetime.now(UTC), len(problems)), problems


# -- publishing ------------------------------------------------------------------------------------------------


def embedded(found: Iterable[Reading], stack: str, now: datetime) -> list[str]:
    """The lines of embedded metric format: one for the figures of the stack, one for each value of a dimension.

    A line holds at most 100 metrics, which https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/
    CloudWatch_Embedded_Metric_Format_Specification.html says; there are fewer figures than that.
    """
    lines: dict[tuple[str, str] | None, list[Reading]] = {}
    for one in found:
        key = None if one.figure.by is None else (one.figure.by, one.of or "")
        lines.setdefault(key, []).append(one)
    return [_line(key, group, stack, now) for key, group in lines.items()]


def _line(key: tuple[str, str] | None, group: Sequence[Reading], stack: str, now: datetime) -> str:
    dimensions = {names.STACK: stack} | ({} if key is None else {key[0]: key[1]})
    return json.dumps(
        {
            "_aws": {
                "Timestamp": int(now.timestamp() * 1000),
                "CloudWatchMetrics": [
                    {
                        "Namespace": names.NAMESPACE,
                        "Dimensions": [list(dimensions)],
                        "Metrics": [{"Name": one.figure.name, "Unit": one.figure.unit} for one in group],
                    }
                ],
            },
            **dimensions,
            **{one.figure.name: one.value for one in group},
        },
        default=float,
        separators=(",", ":"),
    )


def stack_name(environment: Mapping[str, str] = os.environ) -> str:
    """EAV_STACK, or `local`."""
    return environment.get("EAV_STACK") or "local"


def publish(found: Sequence[Reading], stack: str) -> None:
    """Write them to standard output."""
    for line in embedded(found, stack, datetime.now(UTC)):
        print(line)
    sys.stdout.flush()


def handler(event: object, context: object) -> dict[str, int]:
    """As a Lambda function. Publishes what it could read; raises JobsError if that was not all."""
    found, problems = read(db.database_url())
    publish(found, stack_name())
    if problems:
        raise JobsError("; ".join(problems))
    return {"figures": len(found)}


# -- small things ----------------------------------------------------------------------------------------------


def _seconds(value: timedelta | None) -> float:
    return 0.0 if value is None else max(value.total_seconds(), 0.0)


def _since(at: datetime, now: datetime) -> float:
    return max((now - at).total_seconds(), 0.0)


def _most(values: Iterable[Any]) -> float:
    return max((float(value) for value in values if value is not None), default=0.0)


def _value(found: Sequence[Reading], figure: Figure) -> float:
    return next(one.value for one in found if one.figure is figure)
