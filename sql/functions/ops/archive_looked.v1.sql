CREATE OR REPLACE FUNCTION ops.archive_looked(p_archive_id bigint)
RETURNS void
LANGUAGE sql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    UPDATE ops.partition_archives SET looked_at = clock_timestamp() WHERE archive_id = p_archive_id;
$$;

COMMENT ON FUNCTION ops.archive_looked(bigint) IS
'Notes that the files of an archive were there and whole: without that, and lately, its partition is not dropped.';

REVOKE ALL ON FUNCTION ops.archive_looked(bigint) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION ops.archive_looked(bigint) TO eav_jobs;
