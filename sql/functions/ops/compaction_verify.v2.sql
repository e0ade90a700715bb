CREATE OR REPLACE FUNCTION ops.compaction_verify(p_compaction_id bigint)
RETURNS bigint
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_old regclass;
    v_new regclass;
    v_index regclass;
    v_checked text;
    v_rows bigint;
    v_rows_copy bigint;
    v_checksum numeric;
    v_checksum_copy numeric;
BEGIN
    SELECT o.partition::regclass, to_regclass(ops.compaction_twin(o.partition)) INTO STRICT v_old, v_new
    FROM ops.compactions AS o
    WHERE o.compaction_id = p_compaction_id AND o.status = 'copied';
    IF v_new IS NULL THEN
        RAISE data_corrupted USING MESSAGE = format('the copy of %s is gone', v_old);
    END IF;
    FOR v_index IN
        SELECT i.indexrelid::regclass
        FROM pg_index AS i
        INNER JOIN pg_class AS c ON i.indexrelid = c.oid
        INNER JOIN pg_am AS m ON c.relam = m.oid
        WHERE i.indrelid = v_new AND m.amname = 'brin'
    LOOP
        PERFORM brin_summarize_new_values(v_index);
    END LOOP;
    EXECUTE format('ANALYZE %s', v_new);
    -- Each row a hash over the columns by name, seeded with the number's scale, because 1.0 and 1.00 hash the same; the
    -- sum does not depend on the order. It is hashed once more, because hash_record_extended is 31 times what it has plus
    -- the next column: a sum of it is made of the columns' sums, whoever's value is in which row. One statement, one
    -- snapshot: what comes meanwhile comes to both or to neither.
    SELECT format(
        'SELECT count(*) AS rows, sum(hashint8extended(hash_record_extended(ROW(%s), %s), 0)) AS checksum',
        string_agg(format('%I', a.attname), ', ' ORDER BY a.attname),
        coalesce(
            string_agg(format('coalesce(scale(%I), -1)', a.attname), ' + ' ORDER BY a.attname)
            FILTER (WHERE a.atttypid = 'numeric'::regtype),
            '0'
        )
    ) INTO v_checked
    FROM pg_attribute AS a
    WHERE a.attrelid = v_old AND a.attnum > 0 AND NOT a.attisdropped;
    -- lint: ignore dynamic-sql: the columns are quoted one by one
    EXECUTE format(
        'SELECT o.rows, n.rows, o.checksum, n.checksum FROM (%s FROM %s) AS o CROSS JOIN (%s FROM %s) AS n',
        v_checked, v_old, v_checked, v_new
    ) INTO v_rows, v_rows_copy, v_checksum, v_checksum_copy;
    IF (v_rows, v_checksum) IS DISTINCT FROM (v_rows_copy, v_checksum_copy) THEN
        RAISE data_corrupted USING MESSAGE = format(
            '%s has %s rows with the checksum %s, its copy %s rows with %s: not swapped, nothing is lost',
            v_old, v_rows, coalesce(v_checksum, 0), v_rows_copy, coalesce(v_checksum_copy, 0)
        );
    END IF;
    UPDATE ops.compactions AS o
    SET verified_at = clock_timestamp(), checksum = v_checksum, rows = v_rows, late_rows = coalesce(o.late_rows, 0) + v_rows - o.rows,
        filenodes = ARRAY[pg_relation_filenode(v_old)::bigint, pg_relation_filenode(v_new)::bigint],
        trigger_oid = (SELECT t.oid FROM pg_trigger AS t WHERE t.tgrelid = v_old AND t.tgname = 'compacting'),
        -- Who looks at the database as it was before the copy was there would find the partition empty after the swap.
        -- (Autovacuum has no user.)
        older_snapshots = ARRAY(
            SELECT format('%s %s', a.pid, l.virtualtransaction)
            FROM pg_stat_activity AS a
            INNER JOIN pg_locks AS l ON a.pid = l.pid AND l.locktype = 'virtualxid' AND l.granted
            WHERE a.backend_xmin IS NOT NULL AND a.usesysid IS NOT NULL AND a.pid <> pg_backend_pid()
                AND a.datname = current_database()
                AND age(a.backend_xmin) >= age(o.copied_in::xid)
        )
    WHERE o.compaction_id = p_compaction_id;
    RETURN v_rows;
END;
$$;

COMMENT ON FUNCTION ops.compaction_verify(bigint) IS
'Compares a partition with its copy in one snapshot, count and checksum, late rows included, and returns the rows. Raises data_corrupted if they differ.';

REVOKE ALL ON FUNCTION ops.compaction_verify(bigint) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION ops.compaction_verify(bigint) TO eav_jobs;
