CREATE OR REPLACE FUNCTION ops.expire_partitions()
RETURNS bigint
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_old record;
    v_dropped bigint := 0;
BEGIN
    -- Others queue behind a lock on a partition that is attached.
    PERFORM set_config('lock_timeout', '1s', true);
    -- First those that are read before they go, which takes long and blocks nobody: they are detached.
    FOR v_old IN
        SELECT a.archive_id, a.partition FROM ops.partition_archives AS a WHERE a.status = 'detached' ORDER BY a.ends_at
    LOOP
        BEGIN
            v_dropped := v_dropped + ops.archive_drop(v_old.archive_id)::integer;
        EXCEPTION
            WHEN lock_not_available THEN
                RAISE WARNING 'partition % is in use, it goes at the next run', v_old.partition;
            -- A view that somebody made on it, say: it keeps no other from leaving.
            WHEN OTHERS THEN
                RAISE WARNING 'partition % was not dropped: %', v_old.partition, sqlerrm;
        END;
    END LOOP;
    FOR v_old IN SELECT e.* FROM ops.expiring_partitions() AS e LOOP
        IF v_old.archive_first THEN
            -- Nothing is dropped before it is archived, and nothing of it while it is attached.
            RAISE NOTICE 'partition % is past its retention and kept: the job archive-partitions archives and detaches it', v_old.partition;
            CONTINUE;
        END IF;
        BEGIN
            EXECUTE format('DROP TABLE %s', v_old.partition::regclass);
            v_dropped := v_dropped + 1;
        EXCEPTION
            WHEN lock_not_available THEN
                RAISE WARNING 'partition % is in use, it goes at the next run', v_old.partition;
        END;
    END LOOP;
    PERFORM ops.refresh_value_window();
    RETURN v_dropped;
END;
$$;

COMMENT ON FUNCTION ops.expire_partitions() IS
'Drops partitions past their retention; those that must be archived first only once they are detached and hold exactly what their verified archive holds. Returns how many. Makes none.';

REVOKE ALL ON FUNCTION ops.expire_partitions() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION ops.expire_partitions() TO eav_jobs;
