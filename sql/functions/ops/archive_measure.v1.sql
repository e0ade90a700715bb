CREATE OR REPLACE FUNCTION ops.archive_measure(p_archive_id bigint)
RETURNS jsonb
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_archive ops.partition_archives;
BEGIN
    SELECT a.* INTO STRICT v_archive
    FROM ops.partition_archives AS a
    WHERE a.archive_id = p_archive_id AND a.status = 'exporting';
    IF ops.archive_table(v_archive) IS NULL THEN
        RAISE undefined_table USING MESSAGE = format('%s is gone, or another table has its name', v_archive.partition);
    END IF;
    UPDATE ops.partition_archives
    SET checksums = ops.archive_checks(v_archive.columns, v_archive.partition::regclass::text)
    WHERE archive_id = p_archive_id
    RETURNING checksums INTO v_archive.checksums;
    RETURN v_archive.checksums;
END;
$$;

COMMENT ON FUNCTION ops.archive_measure(bigint) IS
'Writes down, and returns, the checks (ops.archive_checks) of a partition as this transaction''s snapshot shows it.';

REVOKE ALL ON FUNCTION ops.archive_measure(bigint) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION ops.archive_measure(bigint) TO eav_jobs;
