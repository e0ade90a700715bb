CREATE OR REPLACE FUNCTION ops.archive_cleared(p_archive_id bigint)
RETURNS void
LANGUAGE sql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    UPDATE ops.partition_archives SET cleared_at = clock_timestamp() WHERE archive_id = p_archive_id AND status = 'failed';
$$;

COMMENT ON FUNCTION ops.archive_cleared(bigint) IS
'Notes that what an archive that failed had uploaded is deleted.';

REVOKE ALL ON FUNCTION ops.archive_cleared(bigint) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION ops.archive_cleared(bigint) TO eav_jobs;
