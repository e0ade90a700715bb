-- lint: ignore-file search-path: pg_partman 4 sets search_path for the session to what it found, at its end
-- With a SET clause the caller would keep this function's path. The first statement pins it, the last one puts
-- it back; until then every name has its schema, those of types too: a caller's pg_temp.text would run its
-- checks as the owner.
CREATE OR REPLACE FUNCTION ops.maintain_partitions()
RETURNS bigint
LANGUAGE plpgsql
SECURITY DEFINER
AS $$
DECLARE
    v_search_path CONSTANT pg_catalog.text := pg_catalog.current_setting('search_path');
    v_policy pg_catalog.record;
    v_before bigint;
    v_made bigint := 0;
BEGIN
    -- Not 'pg_catalog, pg_temp', which means the same: pg_partman puts 'partman, pg_temp' before what it
    -- finds, and only while pg_catalog is not named does it stay before pg_temp.
    PERFORM pg_catalog.set_config('search_path', 'pg_temp', true);
    -- Table by table, each in its own block: one set that pg_partman stumbles over does not stop the others.
    FOR v_policy IN SELECT p.parent_table FROM ops.partition_policies AS p ORDER BY p.parent_table LOOP
        BEGIN
            SELECT count(*) INTO v_before FROM ops.partition_bounds(v_policy.parent_table::regclass);
            PERFORM partman.run_maintenance(p_parent_table := v_policy.parent_table, p_jobmon := false);
            PERFORM ops.prepare_partitions(v_policy.parent_table);
            SELECT v_made + count(*) - v_before INTO v_made
            FROM ops.partition_bounds(v_policy.parent_table::regclass);
            UPDATE ops.partition_policies
            SET maintained_at = clock_timestamp(), last_error = NULL
            WHERE parent_table = v_policy.parent_table;
        EXCEPTION
            WHEN OTHERS THEN
                UPDATE ops.partition_policies SET last_error = sqlerrm WHERE parent_table = v_policy.parent_table;
                RAISE WARNING 'partitions of % were not maintained: %', v_policy.parent_table, sqlerrm;
        END;
    END LOOP;
    PERFORM ops.refresh_value_window();
    PERFORM set_config('search_path', v_search_path, false);
    RETURN v_made;
END;
$$;

COMMENT ON FUNCTION ops.maintain_partitions() IS
'Makes partitions ahead, table by table; returns how many. A table that fails is said in ops.partition_policies.last_error.';

REVOKE ALL ON FUNCTION ops.maintain_partitions() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION ops.maintain_partitions() TO eav_jobs;
