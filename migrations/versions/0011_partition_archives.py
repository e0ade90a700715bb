"""Archives of partitions: what was exported, read back and compared, before a partition is detached and dropped.

Locks: a new table; a column of ops.partition_policies, for a moment.
Undo: drops the record of archives, and partitions with archive_first are kept for ever again. Files stay where they
are. It refuses while partitions are detached or in the archive only.

Revision: 0011   follows: 0010
"""

from alembic import op

from migrations.steps import as_owner, drop_function, load_function, run

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

FUNCTIONS = (
    "ops.archive_table",
    "ops.archive_replaced",
    "ops.archive_sum",
    "ops.archive_identity",
    "ops.archive_claim",
    "ops.archive_take_over",
    "ops.archive_adopt",
    "ops.archive_taken_over",
    "ops.archive_settle",
    "ops.archive_looked",
    "ops.archive_columns",
    "ops.archive_written",
    "ops.archive_read",
    "ops.archive_checks",
    "ops.archive_marks",
    "ops.archive_order",
    "ops.archivable",
    "ops.archive_open",
    "ops.archive_cursor",
    "ops.archive_measure",
    "ops.archive_scratch",
    "ops.archive_own_scratch",
    "ops.archive_piece",
    "ops.archive_difference",
    "ops.archive_verified",
    "ops.archive_published",
    "ops.archive_damaged",
    "ops.archive_failed",
    "ops.archive_cleared",
    "ops.archive_set_aside",
    "ops.archive_compare",
    "ops.archive_leaving",
    "ops.archive_leave",
    "ops.archive_detach",
    "ops.archive_drop",
    "ops.restore_table",
    "ops.restore_columns",
    "ops.restore_open",
    "ops.restore_make",
    "ops.restore_piece",
    "ops.restore_verify",
    "ops.restore_attach",
    "ops.restore_abandon",
)
CHANGED = (
    "ops.refresh_value_window",
    "ops.expire_partitions",
    "ops.compactable",
    "ops.compaction_verify",
    "ops.compaction_swap",
)


def upgrade() -> None:
    with as_owner(op):
        run(
            op,
            """
            ALTER TABLE ops.partition_policies ADD COLUMN archive_after interval;
            COMMENT ON COLUMN ops.partition_policies.archive_after IS
            'How long after its end a partition with archive_first is archived; NULL: when its retention is over';
            UPDATE ops.partition_policies SET archive_after = '1 month' WHERE archive_first;
            -- What a tenant sent is not thrown away because it was refused.
            UPDATE ops.partition_policies SET archive_first = true, archive_after = '1 month'
            WHERE parent_table = 'eav.entity_values_rejected';

            CREATE TABLE ops.partition_archives (
                archive_id bigint GENERATED ALWAYS AS IDENTITY,
                starts_at timestamptz NOT NULL,
                ends_at timestamptz NOT NULL,
                begun_at timestamptz NOT NULL,
                verified_at timestamptz,
                published_at timestamptz,
                compared_at timestamptz,
                looked_at timestamptz,
                leaving_at timestamptz,
                detached_at timestamptz,
                differs_at timestamptz,
                dropped_at timestamptz,
                cleared_at timestamptz,
                set_aside_at timestamptz,
                restoring_at timestamptz,
                restore_checked_at timestamptz,
                restored_at timestamptz,
                keep_until timestamptz,
                rows bigint,
                table_bytes bigint NOT NULL,
                index_bytes bigint NOT NULL,
                parquet_bytes bigint,
                attempt uuid NOT NULL DEFAULT gen_random_uuid(),
                table_oid oid NOT NULL,
                status text NOT NULL,
                parent_table text NOT NULL,
                partition text NOT NULL,
                bucket text,
                error text,
                columns jsonb NOT NULL,
                checksums jsonb,
                read_back jsonb,
                files jsonb,
                marks bigint[],
                replaces uuid[] NOT NULL,
                CONSTRAINT partition_archives_attempt_key UNIQUE (attempt),
                CONSTRAINT partition_archives_pkey PRIMARY KEY (archive_id),
                CONSTRAINT partition_archives_status_check CHECK (
                    status IN ('exporting', 'verified', 'detached', 'dropped', 'restored', 'superseded', 'failed')
                )
            );
            COMMENT ON TABLE ops.partition_archives IS 'Each archive of a partition: its files, what they were compared by, and where the partition is';
            COMMENT ON COLUMN ops.partition_archives.status IS
            'exporting, verified (the partition is attached), detached, dropped (only the archive is left), restored (attached again), superseded by a newer one, failed';
            COMMENT ON COLUMN ops.partition_archives.columns IS 'The columns as ops.archive_columns says them: from this the partition is made again';
            COMMENT ON COLUMN ops.partition_archives.checksums IS 'Of the rows as they were exported: ops.archive_checks';
            COMMENT ON COLUMN ops.partition_archives.read_back IS 'Of the rows as they were read back: the same';
            COMMENT ON COLUMN ops.partition_archives.files IS 'The objects, in order: key, bytes, rows, sha256, version_id';
            COMMENT ON COLUMN ops.partition_archives.attempt IS 'In the names of its objects: that of no other archive, in whatever copy of the database';
            COMMENT ON COLUMN ops.partition_archives.table_oid IS 'The table that was archived: there may be another one of its name';
            COMMENT ON COLUMN ops.partition_archives.replaces IS 'Attempts of the archives of the same partition before';
            COMMENT ON COLUMN ops.partition_archives.looked_at IS 'When its files were last looked for, and found';
            COMMENT ON COLUMN ops.partition_archives.published_at IS 'When its files were copied to where the table is read';
            COMMENT ON COLUMN ops.partition_archives.cleared_at IS 'When the objects of an archive that failed were deleted';
            COMMENT ON COLUMN ops.partition_archives.marks IS 'By which a partition that may have changed since is noticed: ops.archive_marks';
            COMMENT ON COLUMN ops.partition_archives.leaving_at IS 'Since when no more values are taken, because the partition is going to be detached';
            COMMENT ON COLUMN ops.partition_archives.differs_at IS 'When a detached partition, or the files of an archive, were found not to be as they were: it is archived again';
            COMMENT ON COLUMN ops.partition_archives.set_aside_at IS 'When the files of a superseded archive were moved to where no table is read';
            COMMENT ON COLUMN ops.partition_archives.restoring_at IS 'Since when it is being restored';
            COMMENT ON COLUMN ops.partition_archives.keep_until IS 'Until when a restored partition stays';
            CREATE UNIQUE INDEX partition_archives_partition_idx ON ops.partition_archives (partition)
            WHERE status IN ('verified', 'detached', 'restored');
            CREATE UNIQUE INDEX partition_archives_exporting_idx ON ops.partition_archives (partition)
            WHERE status = 'exporting';
            CREATE INDEX partition_archives_parent_table_starts_at_idx ON ops.partition_archives (parent_table, starts_at);
            GRANT SELECT ON ops.partition_archives TO eav_jobs;

            CREATE TABLE ops.archive_stores (
                claimed_at timestamptz NOT NULL,
                adopting_at timestamptz,
                mark uuid NOT NULL,
                mark_before uuid NOT NULL,
                bucket text NOT NULL,
                prefix text NOT NULL,
                identity bigint[] NOT NULL,
                CONSTRAINT archive_stores_pkey PRIMARY KEY (bucket, prefix)
            );
            COMMENT ON TABLE ops.archive_stores IS 'The folders that this database archives to, and the mark that it last left there: ops.archive_claim';
            COMMENT ON COLUMN ops.archive_stores.adopting_at IS 'Since when it is being taken over: no run archives there until that is done';
            COMMENT ON COLUMN ops.archive_stores.identity IS 'Of this database, when it wrote there: ops.archive_identity';
            GRANT SELECT ON ops.archive_stores TO eav_jobs;
            """,
        )
        for name in FUNCTIONS:
            load_function(op, name, 1)
        for name in CHANGED:
            load_function(op, name, 2)


def downgrade() -> None:
    with as_owner(op):
        run(
            op,
            """
            DO $$ BEGIN
                IF EXISTS (SELECT FROM ops.partition_archives WHERE status IN ('detached', 'dropped')) THEN
                    RAISE object_not_in_prerequisite_state USING
                        MESSAGE = 'partitions are in the archive only, and this would forget which: restore them first',
                        HINT = 'python -m jobs restore-partition --list';
                END IF;
            END $$;
            """,
        )
        for name in CHANGED:
            load_function(op, name, 1)
        drop_function(op, *reversed(FUNCTIONS))
        run(
            op,
            """
            DROP TABLE ops.archive_stores;
            DROP TABLE ops.partition_archives;
            ALTER TABLE ops.partition_policies DROP COLUMN archive_after;
            UPDATE ops.partition_policies SET archive_first = false WHERE parent_table = 'eav.entity_values_rejected';
            """,
        )
