"""Where producers put values: sources, checkpoints, and slots that rotate.

Lane 0 is durable: its slots are logged. Lanes 1 to 4 are UNLOGGED, for sources that can be replayed. A lane has three
slots: one is written to, one may still be held by a late writer, one is empty.

Locks: new tables only.
Undo: drops what is staged. Flush first: SELECT eav.stage_flush() until it returns 0.

Revision: 0005   follows: 0004
"""

from alembic import op

from migrations.steps import as_owner, drop_function, load_function, run

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

LANES = 5
SLOTS = 3
FUNCTIONS = (
    "eav.staging_slot",
    "eav.lock_lane",
    "eav.ingest_source",
    "eav.ingest_fingerprint",
    "eav.ingest_target",
    "eav.ingest_position",
    "ops.prune_ingest",
)


def slot_names() -> list[tuple[int, str]]:
    """(lane, table) of every slot."""
    return [(lane, f"staging_{lane}_{slot}") for lane in range(LANES) for slot in range(SLOTS)]


def upgrade() -> None:
    with as_owner(op):
        run(
            op,
            """
            CREATE TABLE eav.ingest_sources (
                source_id bigint GENERATED ALWAYS AS IDENTITY,
                created_at timestamptz NOT NULL DEFAULT now(),
                lane smallint NOT NULL,
                source text NOT NULL,
                partition text NOT NULL,
                fingerprint text,
                CONSTRAINT ingest_sources_pkey PRIMARY KEY (source_id),
                CONSTRAINT ingest_sources_source_partition_key UNIQUE (source, partition),
                CONSTRAINT ingest_sources_source_check CHECK (source <> '')
            );
            COMMENT ON TABLE eav.ingest_sources IS 'Streams, files and other producers, and the lane that each stages its values in';
            COMMENT ON COLUMN eav.ingest_sources.lane IS '0 = durable (logged slots), 1 to 4 = replayable (UNLOGGED slots)';
            COMMENT ON COLUMN eav.ingest_sources.fingerprint IS 'length:sha256 of what the source began with, to notice another one of the same name';

            CREATE TABLE eav.ingest_checkpoint_log (
                source_id bigint NOT NULL,
                position bigint NOT NULL,
                flushed_at timestamptz NOT NULL DEFAULT now(),
                CONSTRAINT ingest_checkpoint_log_pkey PRIMARY KEY (source_id, position)
            );
            COMMENT ON TABLE eav.ingest_checkpoint_log IS
            'Written in the transaction that makes values durable. Appended, not updated: ten updates a second of one row would be found through all its dead versions as long as anybody holds an old snapshot';

            CREATE VIEW eav.ingest_checkpoint WITH (security_invoker = true) AS
            SELECT s.source_id, s.source, s.partition, s.lane, c.position, c.flushed_at
            FROM eav.ingest_sources AS s
            CROSS JOIN LATERAL (
                SELECT l.position, l.flushed_at
                FROM eav.ingest_checkpoint_log AS l
                WHERE l.source_id = s.source_id
                ORDER BY l.position DESC
                LIMIT 1
            ) AS c;
            COMMENT ON VIEW eav.ingest_checkpoint IS 'Up to which offset each source is durable';
            """,
        )
        for table, kind in (("staging_progress", "UNLOGGED "), ("staging_progress_durable", "")):
            run(
                op,
                f"""
                CREATE {kind}TABLE eav.{table} (
                    progress_id bigint GENERATED ALWAYS AS IDENTITY,
                    flushed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
                    through xid8 NOT NULL,
                    except_for xid8[] NOT NULL,
                    emptied_at timestamptz NOT NULL,
                    lane smallint NOT NULL,
                    plan jsonb,
                    CONSTRAINT {table}_pkey PRIMARY KEY (lane, progress_id)
                );
                COMMENT ON TABLE eav.{table} IS
                'Which transactions'' rows of a lane are durable already. It shares the fate of the slots: a crash empties both or neither';
                COMMENT ON COLUMN eav.{table}.through IS 'Rows of transactions up to this one are flushed, except those of except_for';
                COMMENT ON COLUMN eav.{table}.plan IS 'The cuts that are left of the last look at the lane, see eav.plan_lane';
                """,
            )
        for lane in range(LANES):
            run(op, f"CREATE SEQUENCE eav.staging_turn_{lane} MINVALUE 0 START 1")
        for lane, slot in slot_names():
            run(
                op,
                f"""
                CREATE {"UNLOGGED " if lane else ""}TABLE eav.{slot} (
                    batch xid8 NOT NULL DEFAULT pg_current_xact_id(),
                    source_id bigint,
                    source_offset bigint,
                    tenant_id bigint,
                    entity_id bigint,
                    attribute_id bigint,
                    observed_at timestamptz,
                    value_time timestamptz,
                    staged_at timestamptz NOT NULL DEFAULT now(),
                    value_bool boolean,
                    value_number numeric,
                    value_text text,
                    attribute text,
                    reason text,
                    raw bytea
                )
                -- emptied by TRUNCATE, never by vacuum
                WITH (autovacuum_enabled = false);
                COMMENT ON TABLE eav.{slot} IS 'Staging slot of lane {lane}: ask eav.ingest_target() which slot to write to';
                GRANT INSERT (source_id, source_offset, tenant_id, entity_id, attribute_id, observed_at, value_time,
                    value_bool, value_number, value_text, attribute, reason, raw) ON eav.{slot} TO eav_ingest;
                """,
            )
        columns = (
            "s.batch, s.source_id, s.source_offset, s.tenant_id, s.entity_id, s.attribute_id, s.observed_at, s.value_time,"
            " s.staged_at, s.value_bool, s.value_number, s.value_text, s.attribute, s.reason, s.raw"
        )
        parts = " UNION ALL ".join(
            f"""
            SELECT {lane}::smallint AS lane, {columns}
            FROM eav.{slot} AS s
            LEFT JOIN eav.staging_marker AS m ON m.lane = {lane}
            WHERE m.lane IS NULL OR s.batch > m.through OR s.batch = ANY(m.except_for)
            """
            for lane, slot in slot_names()
        )
        run(
            op,
            f"""
            CREATE VIEW eav.staging_marker WITH (security_invoker = true) AS
            SELECT l.lane::smallint AS lane, m.through, m.except_for, m.emptied_at, m.flushed_at, m.plan
            FROM generate_series(0, {LANES - 1}) AS l (lane)
            CROSS JOIN LATERAL (
                (SELECT p.* FROM eav.staging_progress AS p
                WHERE l.lane > 0 AND p.lane = l.lane ORDER BY p.lane DESC, p.progress_id DESC LIMIT 1)
                UNION ALL
                (SELECT d.* FROM eav.staging_progress_durable AS d
                WHERE l.lane = 0 AND d.lane = l.lane ORDER BY d.lane DESC, d.progress_id DESC LIMIT 1)
            ) AS m;
            COMMENT ON VIEW eav.staging_marker IS 'How far each lane is flushed';

            -- With the rights of its owner: who may look at the backlog gets some of its columns, and nothing of the slots.
            CREATE VIEW eav.entity_values_ingest AS {parts};
            COMMENT ON VIEW eav.entity_values_ingest IS 'What is staged right now and not yet durable, in all slots';
            """,
        )
        for name in FUNCTIONS:
            load_function(op, name, 1)
        run(
            op,
            """
            GRANT SELECT ON eav.staging_marker, eav.staging_progress, eav.staging_progress_durable,
                eav.ingest_sources, eav.ingest_checkpoint, eav.ingest_checkpoint_log TO eav_jobs;
            -- How much is staged, since when and whose; not what: across tenants nobody reads values without a record of it.
            GRANT SELECT (lane, batch, source_id, source_offset, tenant_id, observed_at, staged_at)
            ON eav.entity_values_ingest TO eav_jobs;
            """,
        )


def downgrade() -> None:
    with as_owner(op):
        drop_function(op, *reversed(FUNCTIONS))
        run(op, "DROP VIEW eav.entity_values_ingest, eav.staging_marker")
        run(op, f"DROP TABLE {', '.join(f'eav.{slot}' for _, slot in slot_names())}")
        run(op, f"DROP SEQUENCE {', '.join(f'eav.staging_turn_{lane}' for lane in range(LANES))}")
        run(op, "DROP VIEW eav.ingest_checkpoint")
        run(
            op,
            "DROP TABLE eav.staging_progress, eav.staging_progress_durable, eav.ingest_checkpoint_log, eav.ingest_sources",
        )
