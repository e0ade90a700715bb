"""The latest hot values of each entity, and the queue of attributes that turned hot or cold.

Locks: new tables; a moment of SHARE ROW EXCLUSIVE on eav.attributes, for its trigger.
Undo: drops the projection, which eav.reconcile_hot_attrs can build again from the history.

Revision: 0004   follows: 0003
"""

from alembic import op

from migrations.steps import as_owner, drop_function, load_function, run

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

# By tenant, so that a tenant's query reads one partition: by entity it would read them all. 32 hold 6 million entities
# each at the design size of 200 million.
PARTITIONS = 32
FUNCTIONS = (
    "eav.hot_newer",
    "eav.hot_replace",
    "eav.merge_hot",
    "eav.value_to_jsonb",
    "eav.upsert_hot_attrs",
    "eav.merge_history",
    "eav.sweep_hot",
    "eav.reconcile_hot_portion",
    "eav.reconcile_hot_attrs",
    "eav.hot_switched",
    "eav.backfill_hot",
    "eav.attribute_value",
    "eav.filter_condition",
    "eav.filter_parts",
    "eav.latest_cold",
    "eav.find_in_order",
    "eav.find_ids",
    "eav.find_plain",
    "eav.check_find",
    "eav.find_entities",
    "eav.count_entities",
)


def upgrade() -> None:
    with as_owner(op):
        run(
            op,
            """
            CREATE TABLE eav.entity_jsonb (
                tenant_id bigint NOT NULL,
                entity_id bigint NOT NULL,
                observed_at timestamptz NOT NULL,
                hot_attrs jsonb NOT NULL,
                hot_volatile jsonb NOT NULL DEFAULT '{}',
                hot_times jsonb NOT NULL,
                CONSTRAINT entity_jsonb_pkey PRIMARY KEY (tenant_id, entity_id)
            ) PARTITION BY HASH (tenant_id);
            COMMENT ON TABLE eav.entity_jsonb IS 'The latest value of every hot attribute of an entity';
            COMMENT ON COLUMN eav.entity_jsonb.hot_attrs IS '{"status": "online", "priority": 8}';
            COMMENT ON COLUMN eav.entity_jsonb.hot_volatile IS
            '{"cpu.percent": 12.5}, the values of volatile attributes: not indexed, so that an update of them touches no index';
            COMMENT ON COLUMN eav.entity_jsonb.hot_times IS 'When each was observed, in microseconds since 1970: a late value does not replace a newer one';
            COMMENT ON COLUMN eav.entity_jsonb.observed_at IS 'The newest of hot_times';
            -- Containment only, and 2.5 times faster at it than jsonb_ops.
            CREATE INDEX entity_jsonb_hot_attrs_idx ON eav.entity_jsonb USING gin (hot_attrs jsonb_path_ops);
            """,
        )
        for number in range(PARTITIONS):
            # Rows are replaced all the time: room on the page keeps updates near their row, and vacuum comes after 2 %
            # of the rows, without pausing, because the GIN pending list and dead rows are what slows reads down.
            run(
                op,
                f"CREATE TABLE eav.entity_jsonb_p{number:02d} PARTITION OF eav.entity_jsonb"
                f" FOR VALUES WITH (MODULUS {PARTITIONS}, REMAINDER {number})"
                " WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02,"
                " autovacuum_analyze_scale_factor = 0.05, autovacuum_vacuum_cost_delay = 0)",
            )
        run(
            op,
            """
            CREATE TABLE eav.hot_backfill (
                attribute_id bigint,
                requested_at timestamptz NOT NULL DEFAULT now(),
                progressed_at timestamptz NOT NULL DEFAULT '-infinity',
                started_at timestamptz,
                tidied_at timestamptz,
                finished_at timestamptz,
                expected_at timestamptz,
                done_until timestamptz,
                done_entity_id bigint,
                entities_total bigint,
                entities_done bigint NOT NULL DEFAULT 0,
                slice interval NOT NULL DEFAULT interval '1 hour',
                share_done real NOT NULL DEFAULT 0,
                turned_hot boolean NOT NULL,
                CONSTRAINT hot_backfill_pkey PRIMARY KEY (attribute_id),
                CONSTRAINT hot_backfill_attribute_id_fkey FOREIGN KEY (attribute_id)
                REFERENCES eav.attributes (attribute_id) ON DELETE CASCADE
            );
            -- Rows stay for good, and every question of hot values asks which are unfinished.
            CREATE INDEX hot_backfill_attribute_id_idx ON eav.hot_backfill (attribute_id) WHERE finished_at IS NULL;
            COMMENT ON TABLE eav.hot_backfill IS
            'Attributes whose values must be brought into, out of, or to another column of eav.entity_jsonb, and how far that is';
            COMMENT ON COLUMN eav.hot_backfill.turned_hot IS 'Its history must be looked through for the newest value of each entity';
            COMMENT ON COLUMN eav.hot_backfill.started_at IS 'Since when no flush goes by what the attribute was before';
            COMMENT ON COLUMN eav.hot_backfill.tidied_at IS 'Since when no entity has the value where it does not belong';
            COMMENT ON COLUMN eav.hot_backfill.done_until IS 'History from the newest back to here is in; a later run goes on from here';
            COMMENT ON COLUMN eav.hot_backfill.slice IS 'How much of history the next step takes: as much as takes about a second';
            COMMENT ON COLUMN eav.hot_backfill.done_entity_id IS 'The last entity tidied, where a later run goes on';
            COMMENT ON COLUMN eav.hot_backfill.entities_done IS 'How many entities were changed';
            COMMENT ON COLUMN eav.hot_backfill.share_done IS 'From 0 to 1, of the bytes to look through';
            COMMENT ON COLUMN eav.hot_backfill.expected_at IS 'When it will be finished, at the rate so far';

            CREATE TABLE eav.hot_reconcile (
                singleton boolean DEFAULT true,
                since timestamptz NOT NULL,
                started_at timestamptz NOT NULL,
                finished_at timestamptz,
                attribute_id bigint,
                tenant_id bigint,
                entity_id bigint,
                corrected bigint NOT NULL DEFAULT 0,
                told boolean NOT NULL DEFAULT false,
                CONSTRAINT hot_reconcile_pkey PRIMARY KEY (singleton),
                CONSTRAINT hot_reconcile_singleton_check CHECK (singleton)
            );
            COMMENT ON TABLE eav.hot_reconcile IS 'How far the round of the safety net is: a later run goes on from here';
            COMMENT ON COLUMN eav.hot_reconcile.attribute_id IS 'The last attribute compared with the history since `since`; NULL when all are';
            COMMENT ON COLUMN eav.hot_reconcile.told IS 'Whoever finished the round was told so: the next call begins another';
            COMMENT ON COLUMN eav.hot_reconcile.tenant_id IS 'With entity_id the last row of eav.entity_jsonb looked at for what should not be there';
            """,
        )
        for name in FUNCTIONS:
            load_function(op, name, 1)
        run(
            op,
            """
            CREATE TRIGGER hot_switched AFTER UPDATE OF is_hot, is_volatile ON eav.attributes
            FOR EACH ROW WHEN ((old.is_hot, old.is_volatile) IS DISTINCT FROM (new.is_hot, new.is_volatile))
            EXECUTE FUNCTION eav.hot_switched();
            """,
        )


def downgrade() -> None:
    with as_owner(op):
        run(op, "DROP TRIGGER hot_switched ON eav.attributes")
        drop_function(op, *reversed(FUNCTIONS))
        run(op, "DROP TABLE eav.hot_reconcile, eav.hot_backfill, eav.entity_jsonb")
