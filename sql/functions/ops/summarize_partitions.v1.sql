CREATE OR REPLACE FUNCTION ops.summarize_partitions()
RETURNS bigint
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_index regclass;
    v_ranges bigint := 0;
BEGIN
    -- Less than deadlock_timeout, after which it would cancel an autovacuum that it waits for; that one summarizes too.
    PERFORM set_config('lock_timeout', '200ms', true);
    FOR v_index IN
        SELECT i.indexrelid::regclass
        FROM ops.partition_policies AS p
        CROSS JOIN LATERAL ops.partition_bounds(p.parent_table::regclass) AS b
        INNER JOIN pg_index AS i ON b.partition = i.indrelid
        INNER JOIN pg_class AS c ON i.indexrelid = c.oid
        INNER JOIN pg_am AS m ON c.relam = m.oid
        -- Those that rows still come to. Of older ones, which hold thousands of ranges, autovacuum does the few late rows.
        WHERE m.amname = 'brin' AND i.indisvalid AND pg_relation_size(b.partition) > 0
            AND b.ends_at > now() - coalesce(p.compact_after, '0') - interval '1 day'
        ORDER BY b.starts_at DESC
    LOOP
        BEGIN
            v_ranges := v_ranges + brin_summarize_new_values(v_index);
        EXCEPTION
            WHEN lock_not_available THEN
                NULL;
        END;
    END LOOP;
    RETURN v_ranges;
END;
$$;

COMMENT ON FUNCTION ops.summarize_partitions() IS
'Brings the BRIN indexes of the partitions that rows still come to up to date, without waiting for an autovacuum; returns how many ranges were summarized.';

REVOKE ALL ON FUNCTION ops.summarize_partitions() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION ops.summarize_partitions() TO eav_jobs;
