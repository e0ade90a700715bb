CREATE OR REPLACE FUNCTION ops.expiring_partitions()
RETURNS TABLE (parent_table text, partition regclass, ends_at timestamptz, archive_first boolean)
LANGUAGE sql
STABLE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT p.parent_table, b.partition, b.ends_at, p.archive_first
    FROM ops.partition_policies AS p
    CROSS JOIN LATERAL ops.partition_bounds(p.parent_table::regclass) AS b
    WHERE b.ends_at < now() - p.retention
    ORDER BY p.parent_table, b.ends_at;
$$;

COMMENT ON FUNCTION ops.expiring_partitions() IS
'The partitions past their retention. Those with archive_first stay until a verified archive of them exists.';

REVOKE ALL ON FUNCTION ops.expiring_partitions() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION ops.expiring_partitions() TO eav_jobs;
