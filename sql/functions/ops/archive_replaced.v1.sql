CREATE OR REPLACE FUNCTION ops.archive_replaced(p_table regclass)
RETURNS void
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
AS $$
    UPDATE ops.partition_archives
    SET status = 'dropped', dropped_at = clock_timestamp(), marks = NULL, leaving_at = NULL, error = 'dropped by other hands'
    WHERE partition = p_table::text AND table_oid <> p_table::oid AND status IN ('verified', 'detached', 'restored');
$$;

COMMENT ON FUNCTION ops.archive_replaced(regclass) IS
'Notes of archived tables of that name that are gone, since this one has it, that they are in the archive only.';

REVOKE ALL ON FUNCTION ops.archive_replaced(regclass) FROM PUBLIC;
