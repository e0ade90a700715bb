"""Schema ops: what operates the platform."""

from sqlalchemy import Boolean, Column, DateTime, Interval, PrimaryKeyConstraint, Table, Text

from migrations.tables.base import metadata

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
