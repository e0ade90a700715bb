"""The history of values and the values that were refused, both in partitions by time under pg_partman.

Locks: new tables only. The width of a partition of eav.entity_values_ts is a setting of this revision
(-x partition_interval=…, or EAV_PARTITION_INTERVAL): a month for a small stack, a day, or an hour at the design load.
Undo: drops both tables with their rows.

Revision: 0003   follows: 0002
"""

import os
import re

from alembic import op
from alembic.util import CommandError

from migrations.steps import as_owner, drop_function, load_function, run, setting

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

FUNCTIONS = (
    "ops.partman_create_call",
    "ops.partition_bounds",
    "ops.prepare_partitions",
    "ops.partition_by_time",
    "ops.release_partitions",
    "ops.refresh_value_window",
    "ops.maintain_partitions",
    "ops.expiring_partitions",
    "ops.expire_partitions",
    "eav.attributes_guard",
    "eav.retire_attribute",
)


def partition_interval() -> str:
    """The interval as PostgreSQL writes it; a whole number of minutes, hours, days, weeks, months or a year."""
    value = setting("partition_interval", os.environ.get("EAV_PARTITION_INTERVAL", "1 day"))
    if not re.fullmatch(r"[1-9]\d{0,3} (minute|hour|day|week|month|year)s?", value):
        raise CommandError(f"partition_interval must be like '1 hour', '1 day' or '1 month', got {value!r}")
    return value


def upgrade() -> None:
    interval = partition_interval()
    with as_owner(op):
        run(
            op,
            """
            CREATE TABLE ops.partition_policies (
                parent_table text,
                partition_interval interval NOT NULL,
                retention interval,
                compact_after interval,
                maintained_at timestamptz,
                archive_first boolean NOT NULL,
                last_error text,
                indexed_by text[],
                sorted_by text[],
                CONSTRAINT partition_policies_pkey PRIMARY KEY (parent_table)
            );
            COMMENT ON TABLE ops.partition_policies IS 'What is partitioned by time, how long it stays, and how its maintenance went';
            COMMENT ON COLUMN ops.partition_policies.archive_first IS 'A partition leaves only after its archive was verified';
            COMMENT ON COLUMN ops.partition_policies.compact_after IS
            'How long after its end a partition is compacted, so that late rows are in; NULL: never';
            COMMENT ON COLUMN ops.partition_policies.sorted_by IS
            'The order that a partition is rewritten in when it is compacted';
            COMMENT ON COLUMN ops.partition_policies.indexed_by IS
            'The columns of the B-tree that new partitions get, and have until they are compacted; NULL: none';

            -- Eight columns and no more: a ninth makes the row header 8 bytes longer, on 26 billion rows a month.
            CREATE TABLE eav.entity_values_ts (
                tenant_id bigint NOT NULL,
                entity_id bigint NOT NULL,
                attribute_id bigint NOT NULL,
                observed_at timestamptz NOT NULL,
                value_time timestamptz,
                value_bool boolean,
                value_number numeric,
                value_text text
            ) PARTITION BY RANGE (observed_at);
            COMMENT ON TABLE eav.entity_values_ts IS
            'Every value, once: partitions by event time, appended by the flush only. Exactly one value_ column is set';

            -- Which blocks hold a time range: 1/1000 of a B-tree, and appended rows keep it selective.
            CREATE INDEX entity_values_ts_observed_at_idx ON eav.entity_values_ts
            USING brin (observed_at) WITH (pages_per_range = 32, autosummarize = on);
            -- The B-tree of the attribute is not an index of the whole table: each partition has its
            -- own until it is compacted (ops.prepare_partitions). What each index costs: docs/decisions.md.
            -- 10 000 attributes: a hundred most common values are too few to tell a rare one from a frequent one.
            ALTER TABLE eav.entity_values_ts ALTER COLUMN attribute_id SET STATISTICS 1000;

            CREATE TABLE eav.entity_values_rejected (
                rejected_id bigint GENERATED ALWAYS AS IDENTITY,
                rejected_at timestamptz NOT NULL DEFAULT now(),
                source_id bigint,
                source_offset bigint,
                tenant_id bigint,
                entity_id bigint,
                attribute_id bigint,
                observed_at timestamptz,
                value_time timestamptz,
                value_bool boolean,
                reason text NOT NULL,
                attribute text,
                value_number numeric,
                value_text text,
                raw bytea,
                CONSTRAINT entity_values_rejected_pkey PRIMARY KEY (rejected_id, rejected_at)
            ) PARTITION BY RANGE (rejected_at);
            COMMENT ON TABLE eav.entity_values_rejected IS
            'Values that could not be stored, with the reason and where they came from; eav.replay_rejected tries them again';
            COMMENT ON COLUMN eav.entity_values_rejected.raw IS 'The line itself, when it could not be read as a value (first 64 KiB)';
            CREATE INDEX entity_values_rejected_tenant_id_reason_idx ON eav.entity_values_rejected (tenant_id, reason);

            CREATE TABLE eav.value_window (
                singleton boolean DEFAULT true,
                starts_at timestamptz NOT NULL,
                ends_at timestamptz NOT NULL,
                CONSTRAINT value_window_pkey PRIMARY KEY (singleton),
                CONSTRAINT value_window_singleton_check CHECK (singleton)
            );
            COMMENT ON TABLE eav.value_window IS 'The times that have a partition of eav.entity_values_ts; the flush rejects others';
            """,
        )
        for name in FUNCTIONS:
            load_function(op, name, 1)
        run(
            op,
            f"""
            SELECT ops.partition_by_time(
                'eav.entity_values_ts', 'observed_at', '{interval}', '7 days', '12 months', true,
                '{{attribute_id}}', '{{tenant_id,attribute_id,observed_at}}', '2 hours'
            );
            SELECT ops.partition_by_time('eav.entity_values_rejected', 'rejected_at', '1 month', '1 month', '3 months', false);
            SELECT ops.maintain_partitions();

            CREATE TRIGGER attributes_guard BEFORE UPDATE OR DELETE ON eav.attributes
            FOR EACH ROW EXECUTE FUNCTION eav.attributes_guard();
            """,
        )


def downgrade() -> None:
    with as_owner(op):
        run(
            op,
            """
            DROP TRIGGER attributes_guard ON eav.attributes;
            SELECT ops.release_partitions('eav.entity_values_rejected');
            SELECT ops.release_partitions('eav.entity_values_ts');
            """,
        )
        drop_function(op, *reversed(FUNCTIONS))
        run(
            op,
            "DROP TABLE eav.value_window, eav.entity_values_rejected, eav.entity_values_ts, ops.partition_policies",
        )
