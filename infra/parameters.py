"""PostgreSQL's parameters by the size of the instance: pure functions, values in the units that RDS takes.

Memory is in MiB unless a name says otherwise. Where RDS has a default that fits (shared_buffers at a quarter of
memory, checkpoint logging, WAL compression) it is not repeated here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final, Literal, NamedTuple

PRELOAD: Final = ("pg_stat_statements", "pg_cron", "pgaudit", "auto_explain")
"""shared_preload_libraries; pg_partman's background worker is not among them, the jobs maintain partitions."""


class Size(NamedTuple):
    """Of an instance class."""

    vcpus: int
    memory_gib: int


_STEPS: Final = {
    "large": 1,
    "xlarge": 2,
    "2xlarge": 4,
    "4xlarge": 8,
    "8xlarge": 16,
    "12xlarge": 24,
    "16xlarge": 32,
}
_T4G: Final = {
    "micro": Size(2, 1),
    "small": Size(2, 2),
    "medium": Size(2, 4),
    "large": Size(2, 8),
    "xlarge": Size(4, 16),
    "2xlarge": Size(8, 32),
}
SIZES: Final[Mapping[str, Size]] = {f"db.t4g.{name}": size for name, size in _T4G.items()} | {
    f"db.{family}{generation}g.{name}": Size(2 * step, memory * step)
    for family, memory in (("m", 8), ("r", 16))
    for generation in (6, 7, 8)
    for name, step in _STEPS.items()
}
"""Every Graviton class that RDS offers up to 16xlarge (docs: DB instance classes, hardware specifications)."""


def size_of(instance_class: str) -> Size:
    """vCPUs and memory of a class. Raises ValueError for one that RDS does not have."""
    if instance_class not in SIZES:
        family = instance_class.split(".")[1]
        known = ", ".join(name.split(".")[2] for name in SIZES if name.startswith(f"db.{family}."))
        raise ValueError(f"{instance_class} does not exist: db.{family} has {known}")
    return SIZES[instance_class]


def usable_memory(size: Size) -> int:
    """What the operating system and RDS's own processes leave.

    On a live m7g.large (8 GiB) RDS's formula of one connection for 9 531 392 bytes gave 832, not 901: 92 %. On a
    micro a fixed part shows besides: RDS allows 81 there, 0.72 GiB.
    """
    return int(size.memory_gib * 1024 * 0.92 - 0.2 * 1024)


CONNECTION: Final = 4
"""MiB that a backend takes of its own: catalogue caches of a few hundred partitions, plans, libpq's buffers."""
SHARED: Final = 0.25
"""Part of the memory that RDS gives shared_buffers by default."""


def connections(size: Size) -> int:
    """max_connections: a quarter of what RDS allows by memory, since the proxy pools and the jobs are few."""
    return _within(usable_memory(size) / 1024 * 25, 30, 1000)


STANDBY_AT_LEAST: Final = (
    "max_connections",
    "max_worker_processes",
    "max_wal_senders",
    "max_locks_per_transaction",
)
"""A standby with less than its primary stops replaying (PostgreSQL docs, Hot Standby, Administrator's Overview)."""

SMALLEST_REPLICA: Final = 2
"""A replica has at least the primary's memory over this, or the connections it must allow do not fit."""

ApplyMethod = Literal["immediate", "pending-reboot"]

AT_START: Final = frozenset(
    {
        "autovacuum_max_workers",
        "cron.database_name",
        "max_connections",
        "max_locks_per_transaction",
        "max_logical_replication_workers",
        "max_replication_slots",
        "max_wal_senders",
        "max_worker_processes",
        "rds.logical_replication",
        "shared_preload_libraries",
    }
)
"""Static: RDS refuses to apply them immediately."""

_WITH_THE_REST: Final = frozenset(
    {"password_encryption", "rds.accepted_password_auth_method", "rds.force_ssl"}
)
"""How one logs in does not change under running sessions: next start, though RDS could do it at once."""


def apply_method(name: str) -> ApplyMethod:
    """When a change of this parameter takes effect."""
    return "pending-reboot" if name in AT_START | _WITH_THE_REST else "immediate"


def derive(
    size: Size,
    *,
    major: int,
    database: str,
    storage_gb: int,
    slow_statement_ms: int,
    standby_delay_seconds: int,
    primary: Size | None = None,
) -> dict[str, str]:
    """Values of the parameter group of an instance of `size`; of a replica, where `primary` is given.

    Raises ValueError if a replica is too small for its primary.
    """
    usable = usable_memory(size)
    limits = _limits(size)
    if primary is not None:
        if size.memory_gib * SMALLEST_REPLICA < primary.memory_gib:
            raise ValueError(
                f"a replica needs at least half the primary's memory ({primary.memory_gib} GiB) for as many"
                f" connections, it has {size.memory_gib} GiB"
            )
        above = _limits(primary)
        limits = {name: max(value, above[name]) for name, value in limits.items()}
    parallel = _within(size.vcpus / 4, 1, 4)
    found: dict[str, str | int | float] = {
        # -- who gets in, and what is said of it
        "rds.force_ssl": 1,
        "ssl_min_protocol_version": "TLSv1.2",
        "password_encryption": "scram-sha-256",
        "rds.accepted_password_auth_method": "scram",
        "pgaudit.log": "ddl,role",
        "log_disconnections": 1,
        # -- extensions
        "shared_preload_libraries": ",".join(PRELOAD),
        "cron.database_name": database,
        "pg_stat_statements.track": "all",
        # A function's own statements are where time goes here; ANALYZE would time each row of each query.
        "auto_explain.log_min_duration": max(10 * slow_statement_ms, 5000),
        "auto_explain.log_nested_statements": 1,
        # -- memory
        **limits,
        # A sort of an ordinary query; compaction and bulk loads ask for more themselves.
        "work_mem": _within(usable * 0.25 / limits["max_connections"], 4, 64) * 1024,
        "maintenance_work_mem": _within(usable / 32, 16, 2048) * 1024,
        "autovacuum_work_mem": _within(usable / 96, 16, 1024) * 1024,
        "effective_cache_size": int(usable * 0.7) * 128,
        # -- planner: gp3 reads anywhere alike, and a plan of many partitions costs more to compile than to run
        "random_page_cost": 1.1,
        "effective_io_concurrency": 200,
        "jit": 0,
        "max_parallel_workers": size.vcpus,
        "max_parallel_workers_per_gather": parallel,
        "max_parallel_maintenance_workers": parallel,
        # -- write-ahead log
        **_wal(usable, storage_gb),
        "checkpoint_timeout": 900,
        "checkpoint_completion_target": 0.9,
        # -- replication
        "rds.logical_replication": 1,
        # A blue/green deployment takes a slot for each database besides those of replicas and the warehouse.
        "max_replication_slots": 20,
        "max_logical_replication_workers": 8,
        "hot_standby_feedback": 1,
        "max_standby_streaming_delay": standby_delay_seconds * 1000,
        "max_standby_archive_delay": standby_delay_seconds * 1000,
        # -- autovacuum: a partition takes a day's rows, so that a fifth of it is too late
        "autovacuum_max_workers": _within(size.vcpus / 2, 3, 8),
        "autovacuum_naptime": 15,
        "autovacuum_vacuum_cost_limit": _within(200 * size.vcpus, 400, 3200),
        "autovacuum_vacuum_scale_factor": 0.05,
        "autovacuum_vacuum_insert_scale_factor": 0.1,
        "autovacuum_analyze_scale_factor": 0.05,
        # -- sessions
        # The roles have limits of their own, down to 30 s (migrations/versions/0001), the archive lifts it for its
        # cursor, pg_dump for itself: this is for whoever forgets a psql.
        "idle_in_transaction_session_timeout": 600_000,
        # A worker that died with its machine keeps the lock of the leader for a minute, not for two hours.
        "tcp_keepalives_idle": 30,
        "tcp_keepalives_interval": 10,
        "tcp_keepalives_count": 3,
        # -- what is told of statements
        "log_min_duration_statement": slow_statement_ms,
        "log_lock_waits": 1,
        "log_temp_files": 64 * 1024,
        "track_io_timing": 1,
    }
    if major < 18:
        # From 18 on it is a list of what to log, where RDS keeps its own choice.
        found["log_connections"] = 1
    return {name: str(value) for name, value in sorted(found.items())}


def _limits(size: Size) -> dict[str, int]:
    """What is fixed at the start of a server, and on a replica not below the primary's (STANDBY_AT_LEAST)."""
    return {
        "max_connections": connections(size),
        # Parallel workers, eight appliers of logical replication, pg_cron, and some to spare.
        "max_worker_processes": size.vcpus + 16,
        "max_wal_senders": 20,
        # One transaction over hash and time partitions locks each of them and each of their indexes.
        "max_locks_per_transaction": 256,
    }


def _wal(usable: int, storage_gb: int) -> dict[str, int]:
    """Room for the write-ahead log, in MB.

    Rare checkpoints save full-page writes, which swing every figure three- to sixfold; 16 GB replay in minutes, which a
    failover waits for. A slot that nobody reads may hold a fifth of the disk and is then lost, the disk is not.
    """
    disk = storage_gb * 1024
    most = _within(min(usable / 8, disk / 20), 1024, 16 * 1024)
    return {
        "max_wal_size": most,
        "min_wal_size": most // 4,
        "wal_keep_size": _within(disk / 50, 256, 2048),
        "max_slot_wal_keep_size": disk // 5,
    }


def _within(value: float, least: int, most: int) -> int:
    return max(least, min(most, math.floor(value)))
