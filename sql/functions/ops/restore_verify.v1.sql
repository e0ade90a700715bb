CREATE OR REPLACE FUNCTION ops.restore_verify(p_archive_id bigint)
RETURNS bigint
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_archive ops.partition_archives;
    v_new regclass;
    v_index regclass;
    v_shared jsonb;
    v_checks jsonb;
    v_wrong text;
BEGIN
    SELECT a.* INTO STRICT v_archive
    FROM ops.partition_archives AS a
    WHERE a.archive_id = p_archive_id AND a.restoring_at IS NOT NULL;
    v_new := ops.restore_table(v_archive.partition, p_archive_id)::regclass;
    v_shared := ops.restore_columns(v_new, v_archive.columns);
    -- As they were: a type may have become wider since.
    v_checks := ops.archive_checks(v_shared, format(
        '(SELECT %s FROM %s AS t)',
        (
            SELECT string_agg(format('t.%1$I::%2$s AS %1$I', e.col ->> 'name', e.col ->> 'type'), ', ')
            FROM jsonb_array_elements(v_shared) AS e (col)
        ),
        v_new
    ));
    SELECT string_agg(c.name, ', ' ORDER BY c.name) INTO v_wrong
    FROM jsonb_each(v_checks -> 'columns') AS c (name, checks)
    WHERE c.checks <> v_archive.checksums -> 'columns' -> c.name;
    IF v_checks -> 'rows' <> v_archive.checksums -> 'rows' OR v_wrong IS NOT NULL
        -- The hash of a row is that of all its columns.
        OR jsonb_array_length(v_shared) = jsonb_array_length(v_archive.columns)
        AND v_checks -> 'sum' <> v_archive.checksums -> 'sum' THEN
        RAISE data_corrupted USING MESSAGE = format(
            '%s has %s rows in its archive, restored were %s%s: not attached',
            v_archive.partition, v_archive.checksums ->> 'rows', v_checks ->> 'rows',
            coalesce(', and these columns differ: ' || v_wrong, '')
        );
    END IF;
    FOR v_index IN
        SELECT i.indexrelid::regclass
        FROM pg_index AS i
        INNER JOIN pg_class AS c ON i.indexrelid = c.oid
        INNER JOIN pg_am AS m ON c.relam = m.oid
        WHERE i.indrelid = v_new AND m.amname = 'brin'
    LOOP
        PERFORM brin_summarize_new_values(v_index);
        EXECUTE format('ALTER INDEX %s SET (autosummarize = on)', v_index);
    END LOOP;
    EXECUTE format('ANALYZE %s', v_new);
    UPDATE ops.partition_archives SET restore_checked_at = clock_timestamp() WHERE archive_id = p_archive_id;
    RETURN (v_checks ->> 'rows')::bigint;
END;
$$;

COMMENT ON FUNCTION ops.restore_verify(bigint) IS
'Compares what was restored with the checks of its archive, and returns the rows. Raises data_corrupted if they differ.';

REVOKE ALL ON FUNCTION ops.restore_verify(bigint) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION ops.restore_verify(bigint) TO eav_jobs;
