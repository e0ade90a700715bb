"""The figures of the database that are published as metrics: names, units and dimensions.

jobs/figures.py publishes them, infra/alarms.py and infra/dashboard.py watch them: all have them from here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

NAMESPACE: Final = "EavPlatform/Database"
STACK: Final = "Stack"
"""Dimension of every figure: `dev`, `prod`, or `local`."""

Unit = Literal["Count", "Seconds", "Bytes", "Percent"]


@dataclass(frozen=True)
class Figure:
    """One metric. `by`: its second dimension, with a value of its own for each value of that."""

    name: str
    unit: Unit
    meaning: str
    by: str | None = None


STAGED_ROWS: Final = Figure("StagedRows", "Count", "values staged and not yet durable")
STAGED_AGE: Final = Figure(
    "StagedAge", "Seconds", "how long the oldest staged value has waited; 0 if none is"
)
SINCE_FLUSH: Final = Figure("SinceFlush", "Seconds", "since a flush last made something durable")
REJECTED: Final = Figure("RejectedValues", "Count", "values refused in the last 15 minutes, up to 100 000")
REJECTED_BY_REASON: Final = Figure(
    "RejectedValuesByReason", "Count", "the same by reason; none where none was refused", by="Reason"
)
FRESHNESS: Final = Figure(
    "Freshness",
    "Seconds",
    "how old the newest value may be that a reader does not see: in the `history`, the `hot` values, on a `replica`,"
    " in the `archive` (behind what is due)",
    by="Path",
)

SLOT_RETAINED: Final = Figure(
    "SlotRetainedWal", "Bytes", "WAL that the replication slot furthest behind holds back; 0 without slots"
)
LOGICAL_UNREAD: Final = Figure(
    "LogicalSlotUnread", "Bytes", "changes that the logical slot furthest behind has not read; 0 without"
)
INACTIVE_SLOTS: Final = Figure("InactiveSlots", "Count", "replication slots that nobody reads")
REPLICAS: Final = Figure("ReplicasStreaming", "Count", "replicas that stream from this server")
REPLICA_LAG: Final = Figure(
    "ReplicaReplayLag",
    "Seconds",
    "of the replica furthest behind, as the primary sees it; 0 without replicas",
)
REPLICA_BEHIND: Final = Figure("ReplicaBehind", "Bytes", "WAL that the replica furthest behind has to replay")

PARTITIONS_AHEAD: Final = Figure(
    "PartitionsAhead", "Seconds", "until the table with the fewest has no partition for a new value"
)
PARTITIONS_AHEAD_BY_TABLE: Final = Figure(
    "PartitionsAheadByTable", "Seconds", "the same table by table", by="Table"
)
MAINTENANCE_ERRORS: Final = Figure(
    "PartitionMaintenanceErrors", "Count", "tables whose last partition maintenance failed"
)
DEFAULT_PARTITIONS: Final = Figure(
    "DefaultPartitions", "Count", "default partitions: by design there are none"
)
DEFAULT_ROWS: Final = Figure("DefaultPartitionRows", "Count", "rows in them, as the statistics have it")

JOBS_FAILING: Final = Figure("JobsFailing", "Count", "jobs whose last run that ended has failed")
JOBS_LATE: Final = Figure("JobsLate", "Count", "jobs that did not run in time, or do not come to an end")

ARCHIVES_FAILED: Final = Figure("ArchivesFailed", "Count", "partitions whose last archive has failed")
ARCHIVES_UNSEEN: Final = Figure(
    "ArchivesUnseen", "Count", "detached partitions whose files nobody has looked for in 26 hours"
)

XID_AGE: Final = Figure(
    "TransactionIdAge", "Count", "age of the oldest transaction id; 2 147 483 647 is the end"
)
MULTIXACT_AGE: Final = Figure("MultixactAge", "Count", "the same of multixact ids")
XMIN_AGE: Final = Figure("OldestXminAge", "Count", "transactions since whatever vacuum must keep rows for")
CONNECTIONS: Final = Figure("ConnectionsUsed", "Percent", "sessions of clients, of max_connections")
LONGEST_TRANSACTION: Final = Figure("LongestTransaction", "Seconds", "of the transaction open longest")
LONGEST_IDLE: Final = Figure(
    "LongestIdleInTransaction", "Seconds", "of the session idle longest with a transaction open"
)
BLOCKED: Final = Figure("BlockedSessions", "Count", "sessions that wait for a lock of another")
CACHE_HITS: Final = Figure(
    "CacheHits", "Percent", "reads that memory answered, since statistics were last reset"
)
DEAD_ROWS: Final = Figure(
    "DeadRows", "Percent", "of the worst table with 100 000 rows or more: rows that vacuum has yet to take"
)
UNREAD: Final = Figure("FiguresUnread", "Count", "queries of these figures that failed; theirs are missing")

FIGURES: Final = tuple(value for value in list(globals().values()) if isinstance(value, Figure))
"""All of them, in the order in which they stand here."""

PATHS: Final = ("history", "hot", "replica", "archive")
"""Values of the dimension of FRESHNESS."""
