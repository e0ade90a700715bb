CREATE OR REPLACE FUNCTION ops.archive_set_aside(p_archive_id bigint, p_files jsonb)
RETURNS void
LANGUAGE sql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    UPDATE ops.partition_archives
    SET files = p_files, set_aside_at = clock_timestamp()
    WHERE archive_id = p_archive_id AND status = 'superseded';
$$;

COMMENT ON FUNCTION ops.archive_set_aside(bigint, jsonb) IS
'Notes where the files of an archive are that a newer one has superseded: no longer where the table is read.';

REVOKE ALL ON FUNCTION ops.archive_set_aside(bigint, jsonb) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION ops.archive_set_aside(bigint, jsonb) TO eav_jobs;
