CREATE OR REPLACE FUNCTION ops.prune_job_runs(
    p_keep interval DEFAULT '14 days', p_keep_idle interval DEFAULT '1 hour', p_limit integer DEFAULT 10000
)
RETURNS bigint
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_last CONSTANT bigint [] := ARRAY(SELECT max(r.run_id) FROM ops.job_runs AS r GROUP BY r.job);
    v_batch bigint;
    v_pruned bigint := 0;
BEGIN
    -- A flush every second is 86 400 runs a day, and nearly all of an idle system moved nothing: those go first.
    LOOP
        DELETE FROM ops.job_runs
        WHERE run_id IN (
            SELECT r.run_id
            FROM ops.job_runs AS r
            WHERE r.status <> 'running' AND r.run_id <> ALL(v_last)
                AND (
                    r.started_at < now() - p_keep
                    OR (
                        r.started_at < now() - p_keep_idle
                        AND (r.status = 'skipped' OR (r.status = 'ok' AND coalesce(r.rows, 0) = 0))
                    )
                )
            LIMIT p_limit
            FOR UPDATE SKIP LOCKED
        );
        GET DIAGNOSTICS v_batch = ROW_COUNT;
        v_pruned := v_pruned + v_batch;
        EXIT WHEN v_batch < p_limit;
    END LOOP;
    RETURN v_pruned;
END;
$$;

COMMENT ON FUNCTION ops.prune_job_runs(interval, interval, integer) IS
'Deletes runs older than p_keep, and those that did nothing after p_keep_idle; the last run of each job stays. Returns how many.';

REVOKE ALL ON FUNCTION ops.prune_job_runs(interval, interval, integer) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION ops.prune_job_runs(interval, interval, integer) TO eav_jobs;
