"""Schema eav: the catalogue, the history of values, the hot projection, and staging."""

from sqlalchemy import (
    REAL,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Computed,
    DateTime,
    ForeignKeyConstraint,
    Identity,
    Index,
    Integer,
    Interval,
    LargeBinary,
    Numeric,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.dialects.postgresql.base import ischema_names
from sqlalchemy.types import UserDefinedType

from migrations.tables.base import metadata

SCHEMA = "eav"
LANES = 5
SLOTS = 3


class Xid8(UserDefinedType[str]):
    """The 64-bit id of a transaction."""

    cache_ok = True

    def get_col_spec(self, **_: object) -> str:
        """The name of the type in DDL."""
        return "xid8"


ischema_names["xid8"] = Xid8  # so that reflection knows the type, which SQLAlchemy does not


def instant(name: str, *, nullable: bool = False) -> Column[object]:
    """A `timestamptz` column."""
    return Column(name, DateTime(timezone=True), nullable=nullable)


def value_columns() -> list[Column[object]]:
    """The four columns of which exactly one holds a value."""
    return [
        instant("value_time", nullable=True),
        Column("value_bool", Boolean),
        Column("value_number", Numeric),
        Column("value_text", Text),
    ]


tenants = Table(
    "tenants",
    metadata,
    Column("tenant_id", BigInteger, Identity(always=False)),
    instant("created_at"),
    Column("max_attributes", Integer, nullable=False),
    Column("auto_register", Boolean, nullable=False),
    Column("name", Text, nullable=False),
    PrimaryKeyConstraint("tenant_id"),
    UniqueConstraint("name"),
    CheckConstraint("tenant_id > 0", name="tenant_id"),
    CheckConstraint("name <> '' AND length(name) <= 200", name="name"),
    CheckConstraint("max_attributes >= 0", name="max_attributes"),
    schema=SCHEMA,
)

attributes = Table(
    "attributes",
    metadata,
    Column("attribute_id", BigInteger, Identity(always=True)),
    Column("tenant_id", BigInteger, nullable=False),
    instant("created_at"),
    instant("retired_at", nullable=True),
    Column("is_hot", Boolean, nullable=False),
    Column("is_volatile", Boolean, nullable=False),
    Column("name", Text, nullable=False),
    Column("data_type", Text, nullable=False),
    Column("unit", Text),
    Column("validation", JSONB, nullable=False),
    Column("min_value", Numeric, Computed("(validation ->> 'min')::numeric", persisted=True)),
    Column("max_value", Numeric, Computed("(validation ->> 'max')::numeric", persisted=True)),
    Column("max_length", Integer, Computed("(validation ->> 'max_length')::integer", persisted=True)),
    Column("allowed", JSONB, Computed("validation -> 'enum'", persisted=True)),
    Column("schema", JSONB, Computed("eav.compile_schema(validation -> 'schema')", persisted=True)),
    PrimaryKeyConstraint("attribute_id"),
    UniqueConstraint("tenant_id", "name"),
    ForeignKeyConstraint(["tenant_id"], [tenants.c.tenant_id]),
    schema=SCHEMA,
)

entities = Table(
    "entities",
    metadata,
    Column("tenant_id", BigInteger, nullable=False),
    Column("entity_id", BigInteger, nullable=False),
    instant("created_at"),
    Column("name", Text),
    PrimaryKeyConstraint("tenant_id", "entity_id"),
    ForeignKeyConstraint(["tenant_id"], [tenants.c.tenant_id]),
    schema=SCHEMA,
)

entity_values_ts = Table(
    "entity_values_ts",
    metadata,
    Column("tenant_id", BigInteger, nullable=False),
    Column("entity_id", BigInteger, nullable=False),
    Column("attribute_id", BigInteger, nullable=False),
    instant("observed_at"),
    *value_columns(),
    Index("entity_values_ts_observed_at_idx", "observed_at", postgresql_using="brin"),
    schema=SCHEMA,
    postgresql_partition_by="RANGE (observed_at)",
)

entity_values_rejected = Table(
    "entity_values_rejected",
    metadata,
    Column("rejected_id", BigInteger, Identity(always=True)),
    instant("rejected_at"),
    Column("source_id", BigInteger),
    Column("source_offset", BigInteger),
    Column("tenant_id", BigInteger),
    Column("entity_id", BigInteger),
    Column("attribute_id", BigInteger),
    instant("observed_at", nullable=True),
    *value_columns(),
    Column("reason", Text, nullable=False),
    Column("attribute", Text),
    Column("raw", LargeBinary),
    PrimaryKeyConstraint("rejected_id", "rejected_at"),
    Index("entity_values_rejected_tenant_id_reason_idx", "tenant_id", "reason"),
    schema=SCHEMA,
    postgresql_partition_by="RANGE (rejected_at)",
)

value_window = Table(
    "value_window",
    metadata,
    Column("singleton", Boolean),
    instant("starts_at"),
    instant("ends_at"),
    PrimaryKeyConstraint("singleton"),
    CheckConstraint("singleton", name="singleton"),
    schema=SCHEMA,
)

entity_jsonb = Table(
    "entity_jsonb",
    metadata,
    Column("tenant_id", BigInteger, nullable=False),
    Column("entity_id", BigInteger, nullable=False),
    instant("observed_at"),
    Column("hot_attrs", JSONB, nullable=False),
    Column("hot_volatile", JSONB, nullable=False),
    Column("hot_times", JSONB, nullable=False),
    PrimaryKeyConstraint("tenant_id", "entity_id"),
    Index(
        "entity_jsonb_hot_attrs_idx",
        "hot_attrs",
        postgresql_using="gin",
        postgresql_ops={"hot_attrs": "jsonb_path_ops"},
    ),
    schema=SCHEMA,
    postgresql_partition_by="HASH (tenant_id)",
)

hot_backfill = Table(
    "hot_backfill",
    metadata,
    Column("attribute_id", BigInteger),
    instant("requested_at"),
    instant("progressed_at"),
    instant("started_at", nullable=True),
    instant("tidied_at", nullable=True),
    instant("finished_at", nullable=True),
    instant("expected_at", nullable=True),
    instant("done_until", nullable=True),
    Column("done_entity_id", BigInteger),
    Column("entities_total", BigInteger),
    Column("entities_done", BigInteger, nullable=False),
    Column("slice", Interval, nullable=False),
    Column("share_done", REAL, nullable=False),
    Column("turned_hot", Boolean, nullable=False),
    PrimaryKeyConstraint("attribute_id"),
    ForeignKeyConstraint(["attribute_id"], [attributes.c.attribute_id], ondelete="CASCADE"),
    Index("hot_backfill_attribute_id_idx", "attribute_id", postgresql_where=text("finished_at IS NULL")),
    schema=SCHEMA,
)

hot_reconcile = Table(
    "hot_reconcile",
    metadata,
    Column("singleton", Boolean),
    instant("since"),
    instant("started_at"),
    instant("finished_at", nullable=True),
    Column("attribute_id", BigInteger),
    Column("tenant_id", BigInteger),
    Column("entity_id", BigInteger),
    Column("corrected", BigInteger, nullable=False),
    Column("told", Boolean, nullable=False),
    PrimaryKeyConstraint("singleton"),
    CheckConstraint("singleton", name="singleton"),
    schema=SCHEMA,
)

ingest_sources = Table(
    "ingest_sources",
    metadata,
    Column("source_id", BigInteger, Identity(always=True)),
    instant("created_at"),
    Column("lane", SmallInteger, nullable=False),
    Column("source", Text, nullable=False),
    Column("partition", Text, nullable=False),
    Column("fingerprint", Text),
    PrimaryKeyConstraint("source_id"),
    UniqueConstraint("source", "partition"),
    schema=SCHEMA,
)

ingest_checkpoint_log = Table(
    "ingest_checkpoint_log",
    metadata,
    Column("source_id", BigInteger, nullable=False),
    Column("position", BigInteger, nullable=False),
    instant("flushed_at"),
    PrimaryKeyConstraint("source_id", "position"),
    schema=SCHEMA,
)

ingest_source_marks = Table(
    "ingest_source_marks",
    metadata,
    Column("source_id", BigInteger, nullable=False),
    Column("position", BigInteger, nullable=False),
    instant("covered_until", nullable=True),
    Column("ended", Boolean, nullable=False),
    Column("mark", Text, nullable=False),
    PrimaryKeyConstraint("source_id", "position"),
    schema=SCHEMA,
)

ingest_gaps = Table(
    "ingest_gaps",
    metadata,
    Column("source_id", BigInteger, nullable=False),
    Column("position", BigInteger, nullable=False),
    instant("noticed_at"),
    Column("gap_from", Text, nullable=False),
    Column("gap_to", Text, nullable=False),
    Column("why", Text, nullable=False),
    PrimaryKeyConstraint("source_id", "position"),
    schema=SCHEMA,
)

for _name in ("staging_progress", "staging_progress_durable"):
    Table(
        _name,
        metadata,
        Column("progress_id", BigInteger, Identity(always=True)),
        instant("flushed_at"),
        Column("through", Xid8, nullable=False),
        Column("except_for", ARRAY(Xid8), nullable=False),
        instant("emptied_at"),
        Column("lane", SmallInteger, nullable=False),
        Column("plan", JSONB),
        PrimaryKeyConstraint("lane", "progress_id"),
        schema=SCHEMA,
        prefixes=[] if _name.endswith("durable") else ["UNLOGGED"],
    )

for _lane in range(LANES):
    for _slot in range(SLOTS):
        Table(
            f"staging_{_lane}_{_slot}",
            metadata,
            Column("batch", Xid8, nullable=False),
            Column("source_id", BigInteger),
            Column("source_offset", BigInteger),
            Column("tenant_id", BigInteger),
            Column("entity_id", BigInteger),
            Column("attribute_id", BigInteger),
            instant("observed_at", nullable=True),
            instant("staged_at"),
            *value_columns(),
            Column("attribute", Text),
            Column("reason", Text),
            Column("raw", LargeBinary),
            schema=SCHEMA,
            prefixes=["UNLOGGED"] if _lane else [],
        )
