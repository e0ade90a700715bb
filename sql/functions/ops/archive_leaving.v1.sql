CREATE OR REPLACE FUNCTION ops.archive_leaving(p_partition text DEFAULT NULL)
RETURNS TABLE (archive_id bigint, parent_table text, partition text, ends_at timestamptz)
LANGUAGE sql
STABLE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT a.archive_id, a.parent_table, a.partition, a.ends_at
    FROM ops.partition_archives AS a
    INNER JOIN ops.partition_policies AS p ON a.parent_table = p.parent_table
    WHERE a.status IN ('verified', 'restored')
        AND coalesce(p_partition, a.partition) = a.partition
        AND (
            a.ends_at < now() - p.retention AND a.published_at IS NOT NULL AND a.differs_at IS NULL
            AND coalesce(a.keep_until, '-infinity') < now()
            AND (a.leaving_at IS NOT NULL OR a.marks = ops.archive_marks(ops.archive_table(a)))
            -- What is half detached is seen by nobody: there is no way but on.
            OR EXISTS (
                SELECT FROM pg_inherits AS i WHERE i.inhrelid = ops.archive_table(a) AND i.inhdetachpending
            )
        )
    ORDER BY a.parent_table, a.ends_at;
$$;

COMMENT ON FUNCTION ops.archive_leaving(text) IS
'The archives whose partitions are past their retention, have not changed since as far as one can tell without reading them, and are to be detached.';

REVOKE ALL ON FUNCTION ops.archive_leaving(text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION ops.archive_leaving(text) TO eav_jobs;
