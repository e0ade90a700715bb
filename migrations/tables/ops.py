"""Schema ops: what operates the platform."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Identity,
    Index,
    Integer,
    Interval,
    LargeBinary,
    Numeric,
    PrimaryKeyConstraint,
    Table,
    Text,
    desc,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, INET, OID

from migrations.tables.base import metadata
from migrations.tables.eav import Xid8, instant

SCHEMA = "ops"

partition_policies = Table(
    "partition_policies",
    metadata,
    Column("parent_table", Text),
    Column("partition_interval", Interval, nullable=False),
    Column("retention", Interval),
    Column("compact_after", Interval),
    Column("maintained_at", DateTime(timezone=True)),
    Column("archive_first", Boolean, nullable=False),
    Column("last_error", Text),
    Column("indexed_by", ARRAY(Text)),
    Column("sorted_by", ARRAY(Text)),
    PrimaryKeyConstraint("parent_table"),
    schema=SCHEMA,
)

cross_tenant_access = Table(
    "cross_tenant_access",
    metadata,
    Column("access_id", BigInteger, Identity(always=True)),
    instant("opened_at"),
    instant("expires_at"),
    Column("opened_in", Xid8, nullable=False),
    Column("backend_pid", Integer, nullable=False),
    Column("login", Text, nullable=False),
    Column("application", Text),
    Column("client", INET),
    Column("reason", Text, nullable=False),
    Column("session_key", LargeBinary, nullable=False),
    PrimaryKeyConstraint("access_id"),
    Index("cross_tenant_access_backend_pid_expires_at_idx", "backend_pid", "expires_at"),
    schema=SCHEMA,
)

job_runs = Table(
    "job_runs",
    metadata,
    Column("run_id", BigInteger, Identity(always=True)),
    instant("started_at"),
    Column("finished_at", DateTime(timezone=True)),
    Column("rows", BigInteger),
    Column("pid", Integer, nullable=False),
    Column("job", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("scheduler", Text, nullable=False),
    Column("host", Text, nullable=False),
    Column("error", Text),
    PrimaryKeyConstraint("run_id"),
    CheckConstraint("status IN ('running', 'ok', 'failed', 'skipped')", name="status"),
    CheckConstraint("scheduler IN ('cron', 'worker', 'cli')", name="scheduler"),
    Index("job_runs_job_run_id_idx", "job", desc("run_id")),
    schema=SCHEMA,
)

compactions = Table(
    "compactions",
    metadata,
    Column("compaction_id", BigInteger, Identity(always=True)),
    instant("started_at"),
    instant("copied_at", nullable=True),
    instant("verified_at", nullable=True),
    instant("finished_at", nullable=True),
    Column("rows", BigInteger),
    Column("late_rows", BigInteger),
    Column("bytes_before", BigInteger, nullable=False),
    Column("index_bytes_before", BigInteger, nullable=False),
    Column("bytes_after", BigInteger),
    Column("index_bytes_after", BigInteger),
    Column("copied_in", Xid8),
    Column("trigger_oid", OID),
    Column("status", Text, nullable=False),
    Column("partition", Text, nullable=False),
    Column("error", Text),
    Column("checksum", Numeric),
    Column("filenodes", ARRAY(BigInteger)),
    Column("older_snapshots", ARRAY(Text)),
    PrimaryKeyConstraint("compaction_id"),
    CheckConstraint("status IN ('copying', 'copied', 'done', 'abandoned')", name="status"),
    Index(
        "compactions_partition_idx",
        "partition",
        unique=True,
        postgresql_where=text("status IN ('copying', 'copied')"),
    ),
    Index("compactions_partition_compaction_id_idx", "partition", desc("compaction_id")),
    schema=SCHEMA,
)
