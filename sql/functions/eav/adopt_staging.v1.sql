CREATE OR REPLACE FUNCTION eav.adopt_staging()
RETURNS bigint
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_slot regclass;
    v_adopted bigint;
BEGIN
    FOR v_slot IN
        SELECT format('eav.staging_%s_%s', l, s)::regclass FROM generate_series(0, 4) AS l, generate_series(0, 2) AS s
    LOOP
        EXECUTE format('LOCK TABLE %s IN ACCESS EXCLUSIVE MODE', v_slot);
    END LOOP;
    -- What was acknowledged and is not durable yet: by the old server's marker, or staged since it was written.
    INSERT INTO eav.staging_0_0 (
        source_id, source_offset, tenant_id, entity_id, attribute_id, observed_at, value_time, value_bool,
        value_number, value_text, attribute, reason, raw
    )
    SELECT
        s.source_id, s.source_offset, s.tenant_id, s.entity_id, s.attribute_id, s.observed_at, s.value_time,
        s.value_bool, s.value_number, s.value_text, s.attribute, s.reason, s.raw
    FROM (
        SELECT a.* FROM eav.staging_0_0 AS a
        UNION ALL
        SELECT b.* FROM eav.staging_0_1 AS b
        UNION ALL
        SELECT c.* FROM eav.staging_0_2 AS c
    ) AS s
    LEFT JOIN eav.staging_marker AS m ON m.lane = 0
    WHERE m.lane IS NULL OR s.batch > m.through OR s.batch = ANY(m.except_for) OR s.staged_at > m.flushed_at;
    GET DIAGNOSTICS v_adopted = ROW_COUNT;
    DELETE FROM eav.staging_0_0 WHERE batch <> pg_current_xact_id();
    TRUNCATE eav.staging_0_1, eav.staging_0_2, eav.staging_progress_durable, eav.staging_progress;
    -- As after a crash: the producers of the other lanes go back to their checkpoint.
    FOR v_slot IN
        SELECT format('eav.staging_%s_%s', l, s)::regclass FROM generate_series(1, 4) AS l, generate_series(0, 2) AS s
    LOOP
        EXECUTE format('TRUNCATE %s', v_slot);
    END LOOP;
    RETURN v_adopted;
END;
$$;

COMMENT ON FUNCTION eav.adopt_staging() IS
'Once after a restore or a logical move to another server, whose transaction ids are others: keeps what the durable lane holds, and empties the rest, as a crash would. Returns the rows kept.';

REVOKE ALL ON FUNCTION eav.adopt_staging() FROM PUBLIC;
