-- SECURITY INVOKER, because it commits: the function runs with the rights of whoever calls.
CREATE OR REPLACE PROCEDURE ops.run_job(
    p_job text,
    p_function regproc,
    p_repeat_for interval DEFAULT '0',
    p_repeat_every interval DEFAULT '100 ms',
    p_scheduler text DEFAULT 'cron',
    p_exclusive boolean DEFAULT true,
    INOUT p_run_id bigint DEFAULT NULL
)
LANGUAGE plpgsql
AS $$
DECLARE
    c_busy CONSTANT bigint := 5000;
    c_deadlocks CONSTANT integer := 5;
    v_until CONSTANT timestamptz := clock_timestamp() + p_repeat_for;
    v_next timestamptz;
    v_pause interval := p_repeat_every;
    v_rows bigint := 0;
    v_moved bigint;
    v_error text;
    v_deadlocks integer := 0;
BEGIN
    PERFORM set_config('search_path', 'pg_catalog, pg_temp', true);
    p_run_id := ops.job_begin(p_job, p_scheduler, p_exclusive);
    COMMIT;
    IF p_run_id < 0 THEN
        RETURN;
    END IF;
    LOOP
        v_next := clock_timestamp() + p_repeat_every;
        BEGIN
            -- lint: ignore dynamic-sql: regproc prints a quoted name of a function that exists
            EXECUTE format('SELECT %s()', p_function) INTO v_moved;
            v_rows := v_rows + coalesce(v_moved, 0);
            v_deadlocks := 0;
        EXCEPTION
            WHEN deadlock_detected THEN
                -- Jobs take what they lock in one order. An application that sets hot values of several entities in one
                -- transaction may take them in another. All is given back, so that it can go on; then once more.
                v_deadlocks := v_deadlocks + 1;
                IF v_deadlocks = c_deadlocks THEN
                    v_error := format('%s times in a row: %s (%s)', c_deadlocks, sqlerrm, sqlstate);
                END IF;
            -- OTHERS leaves out a statement_timeout and pg_cancel_backend().
            WHEN query_canceled OR OTHERS THEN
                v_error := format('%s (%s)', sqlerrm, sqlstate);
        END;
        -- What is done is done, and is seen by others, whatever the next round does.
        COMMIT;
        CONTINUE WHEN v_deadlocks > 0 AND v_error IS NULL;
        -- NULL, unlike 0: there is nothing left to do, until the next run.
        EXIT WHEN v_error IS NOT NULL OR v_moved IS NULL OR clock_timestamp() >= v_until;
        -- More came than a pause should let pile up: none, and then short ones for a while, because who waited for
        -- this brings more.
        v_pause := CASE
            WHEN v_moved >= c_busy THEN interval '0'
            WHEN v_pause = interval '0' THEN p_repeat_every / 16
            ELSE least(v_pause * 2, p_repeat_every)
        END;
        CONTINUE WHEN v_pause = interval '0';
        v_next := least(v_next, clock_timestamp() + v_pause);
        EXIT WHEN v_next >= v_until;
        BEGIN
            PERFORM pg_sleep(greatest(0, extract(EPOCH FROM v_next - clock_timestamp())));
        EXCEPTION
            WHEN query_canceled THEN
                v_error := format('%s (%s)', sqlerrm, sqlstate);
        END;
        COMMIT;
        EXIT WHEN v_error IS NOT NULL;
    END LOOP;
    PERFORM ops.job_end(p_run_id, v_rows, v_error);
    COMMIT;
    IF v_error IS NOT NULL THEN
        RAISE EXCEPTION 'job % failed: %', p_job, v_error;
    END IF;
END;
$$;

-- sqlfluff reads the arguments of a procedure as a list of columns.
COMMENT ON PROCEDURE ops.run_job(text, regproc, interval, interval, text, boolean, bigint) IS -- noqa: layout.spacing
'Runs a function that takes no argument and returns how many rows it moved, again and again for p_repeat_for or until it returns NULL, and commits each time, without a pause after a call that moved 5000 rows, and with short ones after that; a call that PostgreSQL ends for a deadlock is made again; records the run in ops.job_runs. Gives the run_id, negative if skipped.';

REVOKE ALL ON PROCEDURE ops.run_job(text, regproc, interval, interval, text, boolean, bigint) FROM PUBLIC;
GRANT EXECUTE ON PROCEDURE ops.run_job(text, regproc, interval, interval, text, boolean, bigint) TO eav_jobs;
