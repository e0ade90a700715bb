CREATE OR REPLACE FUNCTION ops.job_begin(p_job text, p_scheduler text, p_exclusive boolean DEFAULT true)
RETURNS bigint
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_free boolean := true;
    v_run_id bigint;
BEGIN
    -- A lock of the session: it outlives the commits of the run, and ends with the backend however that ends.
    IF p_exclusive THEN
        v_free := pg_try_advisory_lock(hashtextextended('ops.job:' || p_job, 0));
    END IF;
    -- Who holds the lock knows that no other run of the job is alive. Without it a run is dead when its backend is
    -- gone, or when the server was started after it.
    IF v_free THEN
        UPDATE ops.job_runs AS r
        SET status = 'failed', finished_at = clock_timestamp(), error = 'interrupted: its connection ended'
        WHERE r.job = p_job AND r.status = 'running'
            AND (
                p_exclusive
                OR r.started_at < pg_postmaster_start_time()
                OR NOT EXISTS (SELECT FROM pg_stat_activity AS a WHERE a.pid = r.pid)
            );
    END IF;
    INSERT INTO ops.job_runs (job, status, scheduler, started_at, finished_at, host, pid)
    VALUES (
        p_job,
        CASE WHEN v_free THEN 'running' ELSE 'skipped' END,
        p_scheduler,
        clock_timestamp(),
        CASE WHEN NOT v_free THEN clock_timestamp() END,
        coalesce(host(inet_client_addr()), 'local'),
        pg_backend_pid()
    )
    RETURNING run_id INTO v_run_id;
    RETURN CASE WHEN v_free THEN v_run_id ELSE -v_run_id END;
END;
$$;

COMMENT ON FUNCTION ops.job_begin(text, text, boolean) IS
'Records the start of a run and returns its run_id; minus the run_id when another run of an exclusive job holds it (skipped).';

REVOKE ALL ON FUNCTION ops.job_begin(text, text, boolean) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION ops.job_begin(text, text, boolean) TO eav_jobs;
