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
    PrimaryKeyConstraint,
    Table,
    Text,
    desc,
)
from sqlalchemy.dialects.postgresql import INET

from migrations.tables.base import metadata
from migrations.tables.eav import Xid8, instant

SCHEMA = "ops"

partition_policies = Table(
    "partition_policies",
    metadata,
    Column("parent_table", Text),
    Column("partition_interval", Interval, nullable=False),
    Column("retention", Interval),
    Column("maintained_at", DateTime(timezone=True)),
    Column("archive_first", Boolean, nullable=False),
    Column("last_error", Text),
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
