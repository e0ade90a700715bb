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
    FOR v_old IN SELECT e.* FROM ops.expiring_partitions() AS e LOOP
        IF v_old.archive_first THEN
            -- Nothing is dropped before it is archived, and nothing is archived yet.
            RAISE NOTICE 'partition % is past its retention and kept: it has no verified archive', v_old.partition;
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
'Drops partitions past their retention, except those that must be archived first; returns how many. Makes none.';

REVOKE ALL ON FUNCTION ops.expire_partitions() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION ops.expire_partitions() TO eav_jobs;
