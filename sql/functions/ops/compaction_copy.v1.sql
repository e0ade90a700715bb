CREATE OR REPLACE FUNCTION ops.compaction_copy(p_compaction_id bigint, p_watch xid8)
RETURNS bigint
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
-- A sort of the whole: by an index it would read the table row by row.
SET enable_indexscan = off
SET enable_bitmapscan = off
AS $$
DECLARE
    v_old regclass;
    v_new regclass;
    v_rows bigint;
    v_columns text;
    v_sorted_by text;
BEGIN
    -- Whatever this snapshot shows was there before the trigger, and nothing that the trigger will see.
    IF current_setting('transaction_isolation') <> 'repeatable read'
        OR p_watch NOT IN (SELECT pg_snapshot_xip(pg_current_snapshot())) THEN
        RAISE invalid_transaction_state USING
            MESSAGE = 'ops.compaction_copy needs a REPEATABLE READ snapshot taken while the transaction of ops.compaction_watch was open';
    END IF;
    SELECT o.partition::regclass INTO STRICT v_old
    FROM ops.compactions AS o
    WHERE o.compaction_id = p_compaction_id AND o.status = 'copying';
    v_new := to_regclass(ops.compaction_twin(v_old::text));
    IF v_new IS NULL THEN
        RAISE invalid_transaction_state USING MESSAGE = format('there is no copy of %s to fill: its transaction was rolled back', v_old);
    END IF;
    SELECT string_agg(format('%I', a.attname), ', ' ORDER BY a.attnum) INTO v_columns
    FROM pg_attribute AS a
    WHERE a.attrelid = v_old AND a.attnum > 0 AND NOT a.attisdropped;
    SELECT string_agg(format('%I', s.name), ', ' ORDER BY s.place) INTO v_sorted_by
    FROM ops.partition_policies AS p
    INNER JOIN pg_inherits AS i ON p.parent_table::regclass = i.inhparent
    CROSS JOIN LATERAL unnest(p.sorted_by) WITH ORDINALITY AS s (name, place)
    WHERE i.inhrelid = v_old;
    -- lint: ignore dynamic-sql: both lists of columns are quoted one by one
    EXECUTE format('INSERT INTO %s (%s) SELECT %s FROM %s ORDER BY %s', v_new, v_columns, v_columns, v_old, v_sorted_by);
    GET DIAGNOSTICS v_rows = ROW_COUNT;
    UPDATE ops.compactions
    SET status = 'copied', copied_at = clock_timestamp(), rows = v_rows, copied_in = pg_current_xact_id()
    WHERE compaction_id = p_compaction_id;
    RETURN v_rows;
END;
$$;

COMMENT ON FUNCTION ops.compaction_copy(bigint, xid8) IS
'Copies a partition as this transaction''s snapshot shows it, sorted, and returns the rows. Takes temporary disk of about the size of the partition.';

REVOKE ALL ON FUNCTION ops.compaction_copy(bigint, xid8) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION ops.compaction_copy(bigint, xid8) TO eav_jobs;
