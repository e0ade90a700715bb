-- lint: ignore-file plpgsql-check: the temporary table is made by ops.archive_scratch
CREATE OR REPLACE FUNCTION ops.archive_piece(p_archive_id bigint)
RETURNS jsonb
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
    RETURN v_checks;
END;
$$;

COMMENT ON FUNCTION ops.archive_piece(bigint) IS
'The checks (ops.archive_checks) of the rows made again from what was loaded by ops.archive_scratch, which is emptied.';

REVOKE ALL ON FUNCTION ops.archive_piece(bigint) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION ops.archive_piece(bigint) TO eav_jobs;
