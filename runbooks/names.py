"""The runbooks by name, and what calls for each.

An alarm names its runbook from here (infra/alarms.py), and the runbook of that name says what to do: one list, so that
neither can be without the other.
"""

from __future__ import annotations

from typing import Final, Literal

RunbookName = Literal[
    "archive-storage",
    "archiver-failing",
    "blocked-sessions",
    "connections-exhausted",
    "database-overloaded",
    "database-storage",
    "database-unavailable",
    "ingest-behind",
    "items-throttled",
    "jobs-failing",
    "nat-saturated",
    "notices-undelivered",
    "partition-archives",
    "partitions-ahead",
    "proxy-saturated",
    "rejected-values",
    "replica-lag",
    "replication-slots",
    "staging-backlog",
    "stream-throttled",
    "table-bloat",
    "transaction-wraparound",
    "warehouse-capacity",
    "warehouse-unavailable",
    "workers-down",
]

TRIGGERS: Final[dict[RunbookName, str]] = {
    "archive-storage": "S3 answers requests to an archive bucket with errors",
    "archiver-failing": "the archiver of items fails, is slow, or has not finished for a day",
    "blocked-sessions": "sessions wait for locks, or a transaction stays open for long",
    "connections-exhausted": "sessions near max_connections",
    "database-overloaded": "CPU, memory, disk or the load of the database are at their limit",
    "database-storage": "the disk of the database fills up, with data or with WAL",
    "database-unavailable": "no figures come from the database: it is gone, refuses us, or its publisher fails",
    "ingest-behind": "records wait in the stream, or none come",
    "items-throttled": "DynamoDB throttles or fails requests to the items or the archiver's state",
    "jobs-failing": "a job failed in its last run, or did not run in time",
    "nat-saturated": "a NAT gateway drops packets or has no port left",
    "notices-undelivered": "a message of an alarm reached nobody",
    "partition-archives": "a partition is not archived, or its archive was not looked for",
    "partitions-ahead": "a table has few partitions ahead, or a default partition, or its maintenance fails",
    "proxy-saturated": "sessions wait for the proxy, or it reaches no database",
    "rejected-values": "more values are refused than usual",
    "replica-lag": "a replica is behind, or does not stream",
    "replication-slots": "a replication slot holds WAL back, or nobody reads it",
    "staging-backlog": "values are staged and do not become durable",
    "stream-throttled": "Kinesis refuses writes or reads for a while",
    "table-bloat": "dead rows stay, or vacuum cannot take them",
    "transaction-wraparound": "the oldest transaction id nears the end of the numbers",
    "warehouse-capacity": "the warehouse is short of disk, CPU or sessions, or near what may be spent a day",
    "warehouse-unavailable": "Redshift says that the cluster is not healthy",
    "workers-down": "a service of tasks has fewer than it should, or they are short of CPU or memory",
}
