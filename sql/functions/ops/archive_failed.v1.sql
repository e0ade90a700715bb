CREATE OR REPLACE FUNCTION ops.archive_failed(p_archive_id bigint, p_error text)
RETURNS void
LANGUAGE sql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    UPDATE ops.partition_archives
    SET status = 'failed', error = left(p_error, 2000)
    WHERE archive_id = p_archive_id AND status = 'exporting';
$$;

COMMENT ON FUNCTION ops.archive_failed(bigint, text) IS
'Gives up an archive that is not verified, once its objects are cleared away. The partition stays, and is due again.';

REVOKE ALL ON FUNCTION ops.archive_failed(bigint, text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION ops.archive_failed(bigint, text) TO eav_jobs;
