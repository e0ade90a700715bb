-- lint: ignore-file plpgsql-check: the temporary table is made by ops.archive_scratch
CREATE OR REPLACE FUNCTION ops.archive_piece(p_archive_id bigint)
RETURNS bigint
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_columns jsonb;
    v_checks jsonb;
BEGIN
    SELECT a.columns INTO STRICT v_columns FROM ops.partition_archives AS a WHERE a.archive_id = p_archive_id;
    PERFORM ops.archive_own_scratch();
    v_checks := ops.archive_checks(
        v_columns, format('(SELECT %s FROM pg_temp.archive_scratch AS s)', ops.archive_read(v_columns))
    );
    TRUNCATE pg_temp.archive_scratch;
    UPDATE ops.partition_archives AS a
    SET read_back = ops.archive_sum(a.read_back, v_checks)
    WHERE a.archive_id = p_archive_id AND a.status = 'exporting';
    RETURN (v_checks ->> 'rows')::bigint;
END;
$$;

COMMENT ON FUNCTION ops.archive_piece(bigint) IS
'Adds the checks (ops.archive_checks) of the rows made again from what was loaded by ops.archive_scratch, which is emptied, to what was read back; returns the rows.';

REVOKE ALL ON FUNCTION ops.archive_piece(bigint) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION ops.archive_piece(bigint) TO eav_jobs;
