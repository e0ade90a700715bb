CREATE OR REPLACE FUNCTION ops.job_end(p_run_id bigint, p_rows bigint, p_error text DEFAULT NULL)
RETURNS void
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_job text;
    v_key bigint;
BEGIN
    UPDATE ops.job_runs AS r
    SET status = CASE WHEN p_error IS NULL THEN 'ok' ELSE 'failed' END,
        finished_at = clock_timestamp(), rows = p_rows, error = left(p_error, 2000)
    WHERE r.run_id = p_run_id AND r.status = 'running' AND r.pid = pg_backend_pid()
    RETURNING r.job INTO v_job;
    IF v_job IS NULL THEN
        RAISE EXCEPTION 'run % is not a run of this connection that is going on', p_run_id
            USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;
    -- Only if it is held: letting go of a lock one does not have is a warning in the log.
    v_key := hashtextextended('ops.job:' || v_job, 0);
    PERFORM pg_advisory_unlock(v_key)
    FROM pg_locks AS l
    WHERE l.locktype = 'advisory' AND l.pid = pg_backend_pid() AND l.objsubid = 1
        AND l.database = (SELECT d.oid FROM pg_database AS d WHERE d.datname = current_database())
        AND l.classid = ((v_key >> 32) & 4294967295)::oid AND l.objid = (v_key & 4294967295)::oid;
END;
$$;

COMMENT ON FUNCTION ops.job_end(bigint, bigint, text) IS
'Records the end of a run that ops.job_begin started on this connection: ok, or failed when there is an error.';

REVOKE ALL ON FUNCTION ops.job_end(bigint, bigint, text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION ops.job_end(bigint, bigint, text) TO eav_jobs;
