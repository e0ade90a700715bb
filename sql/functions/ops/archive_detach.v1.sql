CREATE OR REPLACE FUNCTION ops.archive_detach(p_archive_id bigint, p_wait interval DEFAULT '200 ms')
RETURNS void
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    c_most CONSTANT interval := interval '3 seconds';
    v_archive ops.partition_archives;
    v_table regclass;
    v_parent regclass;
    v_pending boolean;
    v_began timestamptz;
BEGIN
    IF p_wait IS NULL OR p_wait < interval '10 ms' OR p_wait > c_most THEN
        RAISE invalid_parameter_value USING
            MESSAGE = format('p_wait must be 10 ms to %s, got %s', c_most, coalesce(p_wait::text, 'NULL'));
    END IF;
    SELECT a.* INTO STRICT v_archive
    FROM ops.partition_archives AS a
    WHERE a.archive_id = p_archive_id AND a.status IN ('verified', 'restored') AND a.leaving_at IS NOT NULL
    FOR UPDATE;
    v_table := ops.archive_table(v_archive);
    SELECT i.inhparent::regclass, i.inhdetachpending INTO v_parent, v_pending
    FROM pg_inherits AS i
    WHERE i.inhrelid = v_table;
    IF v_parent IS NOT NULL THEN
        IF NOT pg_try_advisory_xact_lock(6644087, v_table::oid::integer) THEN
            RAISE lock_not_available USING MESSAGE = format('%s is compacted or archived by another session', v_table);
        END IF;
        -- All waits together last p_wait at most: who comes meanwhile queues behind this lock. Then the caller tries again.
        v_began := clock_timestamp();
        PERFORM set_config('lock_timeout', (extract(EPOCH FROM p_wait) * 1000)::integer::text, true);
        IF v_pending THEN
            EXECUTE format('ALTER TABLE %s DETACH PARTITION %s FINALIZE', v_parent, v_table);
        ELSE
            EXECUTE format('LOCK TABLE ONLY %s IN ACCESS EXCLUSIVE MODE', v_parent);
            PERFORM set_config(
                'lock_timeout', greatest(1, (extract(EPOCH FROM v_began + p_wait - clock_timestamp()) * 1000)::integer)::text, true
            );
            EXECUTE format('ALTER TABLE %s DETACH PARTITION %s', v_parent, v_table);
        END IF;
    END IF;
    UPDATE ops.partition_archives
    SET status = 'detached', detached_at = clock_timestamp()
    WHERE archive_id = p_archive_id;
    PERFORM ops.refresh_value_window();
END;
$$;

COMMENT ON FUNCTION ops.archive_detach(bigint, interval) IS
'Detaches a partition that ops.archive_leave has announced, finishes a DETACH … CONCURRENTLY that was interrupted, or notes that it is detached. Waits for locks p_wait at most, all in all, then raises lock_not_available: try again.';

REVOKE ALL ON FUNCTION ops.archive_detach(bigint, interval) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION ops.archive_detach(bigint, interval) TO eav_jobs;
