CREATE OR REPLACE FUNCTION ops.archive_compare(p_archive_id bigint)
RETURNS boolean
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_archive ops.partition_archives;
    v_table regclass;
    v_marks bigint [];
BEGIN
    SELECT a.* INTO STRICT v_archive
    FROM ops.partition_archives AS a
    WHERE a.archive_id = p_archive_id AND a.status IN ('verified', 'detached', 'restored');
    v_table := ops.archive_table(v_archive);
    IF v_table IS NULL THEN
        RETURN false;
    END IF;
    v_marks := ops.archive_marks(v_table);
    -- A column that was added since is not in the archive, whatever is in it.
    IF ops.archive_columns(v_table, v_archive.parent_table::regclass) <> v_archive.columns
        OR ops.archive_checks(v_archive.columns, v_table::text) <> v_archive.checksums THEN
        RETURN false;
    END IF;
    UPDATE ops.partition_archives
    SET marks = v_marks, compared_at = clock_timestamp()
    WHERE archive_id = p_archive_id;
    RETURN true;
END;
$$;

COMMENT ON FUNCTION ops.archive_compare(bigint) IS
'Whether the partition holds now, by count and checksums, what its archive holds. Reads all of it.';

REVOKE ALL ON FUNCTION ops.archive_compare(bigint) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION ops.archive_compare(bigint) TO eav_jobs;
