CREATE OR REPLACE FUNCTION ops.restore_abandon(p_archive_id bigint)
RETURNS void
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_left regclass;
BEGIN
    -- Unless another session is at it. The lock of this session, if it has it, is no obstacle.
    IF NOT pg_try_advisory_xact_lock(6644088, p_archive_id::integer) THEN
        RETURN;
    END IF;
    SELECT to_regclass(ops.restore_table(a.partition, p_archive_id)) INTO v_left
    FROM ops.partition_archives AS a
    WHERE a.archive_id = p_archive_id AND a.restoring_at IS NOT NULL;
    IF v_left IS NOT NULL THEN
        EXECUTE format('DROP TABLE %s', v_left);
    END IF;
    UPDATE ops.partition_archives
    SET restoring_at = NULL, restore_checked_at = NULL
    WHERE archive_id = p_archive_id;
END;
$$;

COMMENT ON FUNCTION ops.restore_abandon(bigint) IS
'Drops what is there of a partition that was restored and not attached. The archive stays.';

REVOKE ALL ON FUNCTION ops.restore_abandon(bigint) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION ops.restore_abandon(bigint) TO eav_jobs;
