-- The staging design of the source document, kept as it describes it, so that anyone can run it beside ours: an UNLOGGED
-- table, and a flush that copies the oldest p_limit rows and then deletes the oldest p_limit rows.
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
);

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
        INSERT INTO entity_values_ts
        SELECT
            entity_id, tenant_id, attribute_id, value, value_int, value_decimal, value_bool, value_timestamp, ingested_at
        FROM entity_values_ingest
        ORDER BY ingested_at
        LIMIT p_limit
        RETURNING 1
    )

    SELECT count(*) INTO v_count FROM moved;
    -- Another statement, another snapshot: rows that were committed in between have moved into the window.
    DELETE FROM entity_values_ingest
    WHERE ctid IN (SELECT ctid FROM entity_values_ingest ORDER BY ingested_at LIMIT p_limit);
    RETURN v_count;
END;
$$;
