-- The staging and the history of the source document ("Implementation Notes & Technical Details"), kept as it describes
-- them, so that anyone can run them beside ours. Where each part comes from:
--
-- * entity_values_ingest: its section 2.1, "UNLOGGED Table Performance": UNLOGGED, no indexes, no foreign keys.
-- * stage_flush: 2.1, "Batch Flush Function", as it stands there: the oldest p_limit rows are copied, then the oldest
--   p_limit rows are deleted, by two statements. Under concurrent writers these are not the same rows.
-- * entity_values_ts: 2.3, "Time-Based Partitioning": monthly ranges of ingested_at (it has pg_partman make them, one
--   ahead of two; here a query writes the same partitions down).
-- * BRIN (ingested_at) with the default of 128 pages a range: 2.4, "BRIN Index Characteristics".
-- * B-tree (tenant_id, attribute_id, ingested_at), idx_entity_values_ts_attr_time: 2.2, "Pattern 2", and its plan.
-- * B-tree (tenant_id, entity_id, attribute_id, ingested_at): 2.2, "Pattern 3", asks for the latest value of each
--   entity and shows a plan with an index condition on entity_id, which neither index above can give. Without this
--   one that query reads every value of the attribute in its window. What it costs is measured apart: the row
--   "filled-lean" of `make bench` leaves it out.
CREATE SCHEMA reference;

CREATE UNLOGGED TABLE reference.entity_values_ingest (
    entity_id bigint NOT NULL,
    tenant_id bigint NOT NULL,
    attribute_id bigint NOT NULL,
    value text,
    value_int bigint,
    value_decimal numeric,
    value_bool boolean,
    value_timestamp timestamptz,
    ingested_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE reference.entity_values_ts (
    entity_id bigint NOT NULL,
    tenant_id bigint NOT NULL,
    attribute_id bigint NOT NULL,
    value text,
    value_int bigint,
    value_decimal numeric,
    value_bool boolean,
    value_timestamp timestamptz,
    ingested_at timestamptz NOT NULL
) PARTITION BY RANGE (ingested_at);

CREATE INDEX idx_entity_values_ts_brin ON reference.entity_values_ts USING brin (ingested_at);
CREATE INDEX idx_entity_values_ts_attr_time ON reference.entity_values_ts (tenant_id, attribute_id, ingested_at);
CREATE INDEX idx_entity_values_ts_entity_time ON reference.entity_values_ts
(tenant_id, entity_id, attribute_id, ingested_at);

DO $$
DECLARE
    v_month timestamptz;
BEGIN
    FOR v_month IN
        SELECT m FROM generate_series(
            date_trunc('month', now()) - interval '4 months', date_trunc('month', now()) + interval '2 months', '1 month'
        ) AS m
    LOOP
        EXECUTE format(
            'CREATE TABLE reference.%I PARTITION OF reference.entity_values_ts FOR VALUES FROM (%L) TO (%L)',
            'entity_values_ts_' || to_char(v_month, 'YYYY_MM'), v_month, v_month + interval '1 month'
        );
    END LOOP;
END;
$$;

CREATE FUNCTION reference.stage_flush(p_limit integer DEFAULT 50000)
RETURNS integer
LANGUAGE plpgsql
SET search_path = reference, pg_temp
AS $$
DECLARE
    v_count integer;
BEGIN
    SET LOCAL synchronous_commit = off;
    WITH moved AS (
        INSERT INTO entity_values_ts (
            entity_id, tenant_id, attribute_id, value, value_int, value_decimal, value_bool, value_timestamp, ingested_at
        )
        SELECT
            entity_id, tenant_id, attribute_id, value, value_int, value_decimal, value_bool, value_timestamp, ingested_at
        FROM entity_values_ingest
        ORDER BY ingested_at
        LIMIT p_limit
        RETURNING entity_id, tenant_id, attribute_id, value_decimal
    )

    SELECT count(*) INTO v_count FROM moved;
    -- Another statement, another snapshot: rows that were committed in between have moved into the window.
    DELETE FROM entity_values_ingest
    WHERE ctid IN (SELECT ctid FROM entity_values_ingest ORDER BY ingested_at LIMIT p_limit);
    RETURN v_count;
END;
$$;
