-- lint: ignore-file plpgsql-check-performance: VOLATILE it is, its one statement is dynamic
CREATE OR REPLACE FUNCTION eav.replay_rejected(
    p_tenant_id bigint,
    p_reason text DEFAULT NULL,
    p_since timestamptz DEFAULT '-infinity',
    p_limit integer DEFAULT 100000
)
RETURNS bigint
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_replayed bigint;
BEGIN
    -- Into the durable lane: these values have no producer that could send them again.
    EXECUTE format(
        $sql$
        WITH taken AS (
            DELETE FROM eav.entity_values_rejected AS r
            USING (
                SELECT q.rejected_id, q.rejected_at
                FROM eav.entity_values_rejected AS q
                WHERE q.tenant_id IS NOT DISTINCT FROM $1 AND q.raw IS NULL AND q.rejected_at >= $3 AND ($2 IS NULL OR q.reason = $2)
                ORDER BY q.rejected_at, q.rejected_id
                LIMIT $4
                FOR UPDATE SKIP LOCKED
            ) AS q
            WHERE r.rejected_id = q.rejected_id AND r.rejected_at = q.rejected_at
            RETURNING r.*
        )

        INSERT INTO %s (
            source_id, source_offset, tenant_id, entity_id, attribute_id, observed_at, value_time, value_bool,
            value_number, value_text, attribute
        )
        SELECT
            t.source_id, t.source_offset, t.tenant_id, t.entity_id, t.attribute_id, t.observed_at, t.value_time, t.value_bool,
            t.value_number, t.value_text, t.attribute
        FROM taken AS t
        $sql$,
        eav.staging_slot(0)::regclass
    ) USING p_tenant_id, p_reason, p_since, p_limit;
    GET DIAGNOSTICS v_replayed = ROW_COUNT;
    RETURN v_replayed;
END;
$$;

COMMENT ON FUNCTION eav.replay_rejected(bigint, text, timestamptz, integer) IS
'Stages rejected values of a tenant again, after what was wrong has been fixed; returns how many. Lines that could not be read stay.';

REVOKE ALL ON FUNCTION eav.replay_rejected(bigint, text, timestamptz, integer) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION eav.replay_rejected(bigint, text, timestamptz, integer) TO eav_jobs;
