CREATE OR REPLACE FUNCTION ops.archive_published(p_archive_id bigint, p_files jsonb)
RETURNS void
LANGUAGE sql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    UPDATE ops.partition_archives
    SET files = p_files, published_at = clock_timestamp(), looked_at = clock_timestamp()
    WHERE archive_id = p_archive_id AND verified_at IS NOT NULL AND published_at IS NULL;
$$;

COMMENT ON FUNCTION ops.archive_published(bigint, jsonb) IS
'Notes that the files of a verified archive are, and were seen, where the table is read. Until then its partition does not leave.';

REVOKE ALL ON FUNCTION ops.archive_published(bigint, jsonb) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION ops.archive_published(bigint, jsonb) TO eav_jobs;
