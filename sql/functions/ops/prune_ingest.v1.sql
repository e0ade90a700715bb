CREATE OR REPLACE FUNCTION ops.prune_ingest()
RETURNS bigint
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_pruned bigint;
    v_count bigint;
BEGIN
    DELETE FROM eav.ingest_checkpoint_log AS c
    USING (SELECT l.source_id, max(l.position) AS position FROM eav.ingest_checkpoint_log AS l GROUP BY l.source_id) AS latest
    WHERE c.source_id = latest.source_id AND c.position < latest.position;
    GET DIAGNOSTICS v_pruned = ROW_COUNT;
    -- Their marks go with them: of a source without a checkpoint all stay, and what is not durable yet stays.
    DELETE FROM eav.ingest_source_marks AS m
    USING (SELECT l.source_id, max(l.position) AS position FROM eav.ingest_checkpoint_log AS l GROUP BY l.source_id) AS latest
    WHERE m.source_id = latest.source_id AND m.position < latest.position;
    GET DIAGNOSTICS v_count = ROW_COUNT;
    v_pruned := v_pruned + v_count;
    DELETE FROM eav.staging_progress AS p
    USING (SELECT l.lane, max(l.progress_id) AS progress_id FROM eav.staging_progress AS l GROUP BY l.lane) AS latest
    WHERE p.lane = latest.lane AND p.progress_id < latest.progress_id;
    GET DIAGNOSTICS v_count = ROW_COUNT;
    v_pruned := v_pruned + v_count;
    DELETE FROM eav.staging_progress_durable AS p
    USING (SELECT l.lane, max(l.progress_id) AS progress_id FROM eav.staging_progress_durable AS l GROUP BY l.lane) AS latest
    WHERE p.lane = latest.lane AND p.progress_id < latest.progress_id;
    GET DIAGNOSTICS v_count = ROW_COUNT;
    RETURN v_pruned + v_count;
END;
$$;

COMMENT ON FUNCTION ops.prune_ingest() IS 'Removes all but the latest checkpoint of each source, with the marks before it, and the latest marker of each lane; returns how many rows.';

REVOKE ALL ON FUNCTION ops.prune_ingest() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION ops.prune_ingest() TO eav_jobs;
