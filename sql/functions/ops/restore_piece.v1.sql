-- lint: ignore-file plpgsql-check: the temporary table is made by ops.archive_scratch
CREATE OR REPLACE FUNCTION ops.restore_piece(p_archive_id bigint)
RETURNS bigint
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
-- As the texts were written.
SET timezone = 'UTC'
SET datestyle = 'ISO, YMD'
SET intervalstyle = 'postgres'
AS $$
DECLARE
    v_new regclass;
    v_columns jsonb;
    v_rows bigint;
BEGIN
    SELECT ops.restore_table(a.partition, p_archive_id)::regclass, a.columns INTO STRICT v_new, v_columns
    FROM ops.partition_archives AS a
    WHERE a.archive_id = p_archive_id AND a.restoring_at IS NOT NULL;
    PERFORM ops.archive_own_scratch();
    -- lint: ignore dynamic-sql: the columns are quoted one by one
    EXECUTE format(
        'INSERT INTO %1$s (%2$s) SELECT %2$s FROM (SELECT %3$s FROM pg_temp.archive_scratch AS s) AS r', v_new,
        (
            SELECT string_agg(format('%I', e.col ->> 'name'), ', ' ORDER BY e.place)
            FROM jsonb_array_elements(ops.restore_columns(v_new, v_columns)) WITH ORDINALITY AS e (col, place)
            WHERE NOT (e.col -> 'generated')::boolean
        ),
        ops.archive_read(v_columns)
    );
    GET DIAGNOSTICS v_rows = ROW_COUNT;
    TRUNCATE pg_temp.archive_scratch;
    -- Whatever was compared before was another table.
    UPDATE ops.partition_archives SET restore_checked_at = NULL WHERE archive_id = p_archive_id;
    RETURN v_rows;
END;
$$;

COMMENT ON FUNCTION ops.restore_piece(bigint) IS
'Puts the rows that were loaded by ops.archive_scratch, which is emptied, into the table that is restored; returns how many.';

REVOKE ALL ON FUNCTION ops.restore_piece(bigint) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION ops.restore_piece(bigint) TO eav_jobs;
