-- lint: ignore-file search-path: pg_partman 4 sets search_path for the session to what it found, at its end
-- With a SET clause the caller would keep this function's path. The first statement pins it, the last one puts
-- it back.
CREATE OR REPLACE FUNCTION ops.partition_by_time(
    p_parent text,
    p_control text,
    p_interval interval,
    p_history interval,
    p_retention interval,
    p_archive_first boolean,
    p_indexed_by text[] DEFAULT NULL,
    p_sorted_by text[] DEFAULT NULL,
    p_compact_after interval DEFAULT NULL
)
RETURNS void
LANGUAGE plpgsql
AS $$
DECLARE
    v_search_path CONSTANT text := pg_catalog.current_setting('search_path');
    v_version text;
    -- Partitions made ahead: at least four, and at least three days, so that a weekend without maintenance is
    -- no incident.
    v_premake integer := greatest(4, ceil(extract(epoch FROM interval '3 days') / extract(epoch FROM p_interval)));
    v_default regclass;
BEGIN
    PERFORM pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
    IF p_interval < interval '15 minutes' OR p_interval > interval '1 year' THEN
        RAISE invalid_parameter_value USING
            MESSAGE = format('partition interval of %s must be between 15 minutes and 1 year, got %s', p_parent, p_interval);
    END IF;
    SELECT e.extversion INTO STRICT v_version FROM pg_extension AS e WHERE e.extname = 'pg_partman';
    -- lint: ignore dynamic-sql: ops.partman_create_call puts every value in with %L
    EXECUTE format('%s', ops.partman_create_call(
        v_version, p_parent, p_control, p_interval, v_premake, now() - greatest(p_history, p_interval)
    ));
    -- No default partition: a value without a partition is refused by the flush with a reason. Version 4
    -- always makes one.
    SELECT i.inhrelid INTO v_default
    FROM pg_inherits AS i
    INNER JOIN pg_class AS c ON i.inhrelid = c.oid
    WHERE i.inhparent = p_parent::regclass AND pg_get_expr(c.relpartbound, c.oid) = 'DEFAULT';
    IF v_default IS NOT NULL THEN
        EXECUTE format('DROP TABLE %s', v_default);
    END IF;
    UPDATE partman.part_config
    SET
        -- partitions are made by the clock, not by the newest row
        infinite_time_partitions = true,
        ignore_default_data = true,
        -- creation never depends on retention: ops.expire_partitions is a job of its own
        retention = NULL,
        automatic_maintenance = 'off'
    WHERE parent_table = p_parent;
    INSERT INTO ops.partition_policies (
        parent_table, partition_interval, retention, archive_first, indexed_by, sorted_by, compact_after
    )
    VALUES (p_parent, p_interval, p_retention, p_archive_first, p_indexed_by, p_sorted_by, p_compact_after);
    PERFORM ops.prepare_partitions(p_parent);
    PERFORM set_config('search_path', v_search_path, false);
END;
$$;

COMMENT ON FUNCTION ops.partition_by_time(text, text, interval, interval, interval, boolean, text[], text[], interval) IS
'Hands a table partitioned by range of time to pg_partman, with partitions back to p_history ago, and writes its policy down.';

REVOKE ALL ON FUNCTION ops.partition_by_time(
    text, text, interval, interval, interval, boolean, text[], text[], interval
) FROM PUBLIC;
