"""Compaction of closed partitions, and BRIN summaries that are kept current.

Locks: a new table only.
Undo: drops the record of compactions. Compacted partitions stay as they are, without their B-tree. One that is being
compacted keeps its copy and its trigger: run the downgrade when none is (ops.compactions, status copying or copied).

Revision: 0010   follows: 0009
"""

from alembic import op

from migrations.steps import as_owner, drop_function, load_function, run

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

FUNCTIONS = (
    "ops.summarize_partitions",
    "ops.compactable",
    "ops.compaction_twin",
    "ops.compaction_mirror",
    "ops.compaction_open",
    "ops.compaction_watch",
    "ops.compaction_copy",
    "ops.compaction_verify",
    "ops.compaction_swap",
    "ops.compaction_abandon",
)


def upgrade() -> None:
    with as_owner(op):
        run(
            op,
            """
            CREATE TABLE ops.compactions (
                compaction_id bigint GENERATED ALWAYS AS IDENTITY,
                started_at timestamptz NOT NULL,
                copied_at timestamptz,
                verified_at timestamptz,
                finished_at timestamptz,
                rows bigint,
                late_rows bigint,
                bytes_before bigint NOT NULL,
                index_bytes_before bigint NOT NULL,
                bytes_after bigint,
                index_bytes_after bigint,
                copied_in xid8,
                trigger_oid oid,
                status text NOT NULL,
                partition text NOT NULL,
                error text,
                checksum numeric,
                filenodes bigint[],
                older_snapshots text[],
                CONSTRAINT compactions_pkey PRIMARY KEY (compaction_id),
                CONSTRAINT compactions_status_check CHECK (status IN ('copying', 'copied', 'done', 'abandoned'))
            );
            COMMENT ON TABLE ops.compactions IS 'Each time a partition was rewritten in order, or is being so';
            COMMENT ON COLUMN ops.compactions.status IS
            'copying, copied (it is compared, and waits for the swap), done, abandoned (see error): the next run begins it again';
            COMMENT ON COLUMN ops.compactions.rows IS 'As compared last, those that came late while it went on included';
            COMMENT ON COLUMN ops.compactions.late_rows IS 'How many of the rows came after the copy was begun';
            COMMENT ON COLUMN ops.compactions.checksum IS
            'Sum of hash_record_extended over the rows, the same of the partition and of its copy';
            COMMENT ON COLUMN ops.compactions.copied_in IS 'The transaction that made the copy: who does not see it holds the swap up';
            COMMENT ON COLUMN ops.compactions.older_snapshots IS
            'Sessions (pid, virtual transaction) that looked at the database before the copy was there';
            CREATE UNIQUE INDEX compactions_partition_idx ON ops.compactions (partition)
            WHERE status IN ('copying', 'copied');
            CREATE INDEX compactions_partition_compaction_id_idx ON ops.compactions (partition, compaction_id DESC);
            GRANT SELECT ON ops.compactions TO eav_jobs;
            """,
        )
        for name in FUNCTIONS:
            load_function(op, name, 1)


def downgrade() -> None:
    with as_owner(op):
        drop_function(op, *reversed(FUNCTIONS))
        run(op, "DROP TABLE ops.compactions")
