"""The publication that change data capture reads.

Locks: SHARE UPDATE EXCLUSIVE on four tables for a moment. Needs CREATE on the database, which the migrating role has.
Undo: consumers lose their publication; their slots must be dropped by hand, or they keep WAL for ever.

Revision: 0008   follows: 0007
"""

from alembic import op

from migrations.steps import policy, run

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with policy(op):
        # Changes of a partition appear as changes of its table, so that a consumer need not know partitions. Without a
        # key, entity_values_ts cannot be updated or deleted from while it is published: it is append-only, and this holds it.
        run(
            op,
            """
            CREATE PUBLICATION eav_cdc
            FOR TABLE eav.entities, eav.attributes, eav.entity_values_ts, eav.entity_jsonb
            WITH (publish = 'insert, update, delete', publish_via_partition_root = true);
            """,
        )


def downgrade() -> None:
    with policy(op):
        run(op, "DROP PUBLICATION eav_cdc")
