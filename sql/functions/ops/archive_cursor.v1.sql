CREATE OR REPLACE FUNCTION ops.archive_cursor(p_archive_id bigint)
RETURNS text
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
-- All of it is read: no plan that begins fast.
SET cursor_tuple_fraction = 1
SET enable_indexscan = off
SET enable_bitmapscan = off
AS $$
DECLARE
    v_archive ops.partition_archives;
    v_order text;
    v_cursor refcursor := refcursor 'archive';
BEGIN
    IF current_setting('transaction_isolation') <> 'repeatable read' THEN
        RAISE invalid_transaction_state USING
            MESSAGE = 'ops.archive_cursor needs the REPEATABLE READ snapshot that ops.archive_measure sums up';
    END IF;
    SELECT a.* INTO STRICT v_archive
    FROM ops.partition_archives AS a
    WHERE a.archive_id = p_archive_id AND a.status = 'exporting';
    IF ops.archive_table(v_archive) IS NULL THEN
        RAISE undefined_table USING MESSAGE = format('%s is gone, or another table has its name', v_archive.partition);
    END IF;
    -- For the transaction, because the rows are made when they are fetched.
    PERFORM set_config('timezone', 'UTC', true), set_config('datestyle', 'ISO, YMD', true),
        set_config('intervalstyle', 'postgres', true), set_config('extra_float_digits', '1', true),
        set_config('bytea_output', 'hex', true);
    SELECT string_agg(
        format('t.%I', s.name) || CASE WHEN a.attcollation <> 0 THEN ' COLLATE "C"' ELSE '' END, ', ' ORDER BY s.place
    ) INTO v_order
    FROM unnest(ops.archive_order(v_archive.parent_table)) WITH ORDINALITY AS s (name, place)
    INNER JOIN pg_attribute AS a ON a.attrelid = v_archive.partition::regclass AND s.name = a.attname;
    -- lint: ignore dynamic-sql: the columns are quoted one by one
    OPEN v_cursor NO SCROLL FOR EXECUTE format(
        'SELECT %s FROM %s AS t%s', ops.archive_written(v_archive.columns), v_archive.partition::regclass,
        coalesce(' ORDER BY ' || v_order, '')
    );
    RETURN v_cursor::text;
END;
$$;

COMMENT ON FUNCTION ops.archive_cursor(bigint) IS
'Opens a cursor on the rows of a partition as they are archived, in order, and returns its name: who may archive reads a partition by no other way, and no grant is left behind.';

REVOKE ALL ON FUNCTION ops.archive_cursor(bigint) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION ops.archive_cursor(bigint) TO eav_jobs;
