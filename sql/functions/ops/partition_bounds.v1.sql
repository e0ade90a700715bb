CREATE OR REPLACE FUNCTION ops.partition_bounds(p_parent regclass)
RETURNS TABLE (partition regclass, starts_at timestamptz, ends_at timestamptz)
LANGUAGE sql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT b.partition, b.bound[1]::timestamptz, b.bound[2]::timestamptz
    FROM (
        SELECT
            i.inhrelid::regclass AS partition,
            regexp_match(pg_get_expr(c.relpartbound, c.oid), $re$FROM \('(.+)'\) TO \('(.+)'\)$re$) AS bound
        FROM pg_inherits AS i
        INNER JOIN pg_class AS c ON i.inhrelid = c.oid
        WHERE i.inhparent = p_parent AND NOT i.inhdetachpending
    ) AS b
    WHERE b.bound IS NOT NULL
    ORDER BY b.bound[1]::timestamptz;
$$;

COMMENT ON FUNCTION ops.partition_bounds(regclass) IS
'The time ranges of a table partitioned by one timestamptz column, oldest first, from the catalogue itself.';

REVOKE ALL ON FUNCTION ops.partition_bounds(regclass) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION ops.partition_bounds(regclass) TO eav_jobs;
