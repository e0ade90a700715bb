CREATE OR REPLACE FUNCTION ops.archive_settle()
RETURNS void
LANGUAGE sql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    -- By a run that was killed right after DETACH … CONCURRENTLY, or by other hands: seen by nobody, and not forgotten.
    UPDATE ops.partition_archives AS a
    SET status = 'detached', detached_at = clock_timestamp()
    WHERE a.status IN ('verified', 'restored')
        AND EXISTS (SELECT FROM pg_class AS c WHERE c.oid = ops.archive_table(a) AND NOT c.relispartition);
    -- The partition is gone while it was exported.
    UPDATE ops.partition_archives
    SET status = 'failed', error = 'the partition is gone'
    WHERE status = 'exporting' AND to_regclass(partition) IS NULL;
$$;

COMMENT ON FUNCTION ops.archive_settle() IS
'Brings the records of archives up to what has become of their partitions.';

REVOKE ALL ON FUNCTION ops.archive_settle() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION ops.archive_settle() TO eav_jobs;
