CREATE OR REPLACE FUNCTION ops.compaction_swap(p_compaction_id bigint, p_wait interval DEFAULT '200 ms')
RETURNS bigint
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    c_most CONSTANT interval := interval '3 seconds';
    v_compaction ops.compactions;
    v_old regclass;
    v_new regclass;
    v_parent regclass;
    v_name text;
    v_bounds text;
    v_comment text;
    v_older text;
    v_began timestamptz;
    v_bytes bigint;
    v_walled boolean;
    v_parent_indexes oid [];
    v_index_names name [];
    v_index record;
BEGIN
    IF p_wait IS NULL OR p_wait < interval '10 ms' OR p_wait > c_most THEN
        RAISE invalid_parameter_value USING
            MESSAGE = format('p_wait must be 10 ms to %s, got %s', c_most, coalesce(p_wait::text, 'NULL'));
    END IF;
    SELECT o.* INTO STRICT v_compaction FROM ops.compactions AS o WHERE o.compaction_id = p_compaction_id;
    v_old := to_regclass(v_compaction.partition);
    v_new := to_regclass(ops.compaction_twin(v_compaction.partition));
    SELECT i.inhparent::regclass, c.relname, pg_get_expr(c.relpartbound, c.oid), obj_description(c.oid, 'pg_class'),
        c.relrowsecurity
    INTO v_parent, v_name, v_bounds, v_comment, v_walled
    FROM pg_class AS c
    INNER JOIN pg_inherits AS i ON c.oid = i.inhrelid
    WHERE c.oid = v_old;
    IF v_compaction.status <> 'copied' OR v_compaction.verified_at IS NULL OR v_parent IS NULL OR v_new IS NULL THEN
        RAISE data_corrupted USING MESSAGE = format('the copy of %s was not verified: not swapped', v_compaction.partition);
    END IF;
    -- Before any lock, so that nobody waits in vain.
    SELECT s.session INTO v_older
    FROM (
        SELECT format('pid %s', a.pid) AS session
        FROM pg_stat_activity AS a
        INNER JOIN pg_locks AS l ON a.pid = l.pid AND l.locktype = 'virtualxid' AND l.granted
        WHERE a.backend_xmin IS NOT NULL
            AND age(a.backend_xmin) >= age(v_compaction.copied_in::xid)
            AND format('%s %s', a.pid, l.virtualtransaction) = ANY(v_compaction.older_snapshots)
        UNION ALL
        -- A replica's snapshots, by its feedback: on its own connection, or on its slot.
        SELECT format('replica %s', a.application_name)
        FROM pg_stat_activity AS a
        WHERE a.datid IS NULL AND a.usesysid IS NOT NULL AND age(a.backend_xmin) >= age(v_compaction.copied_in::xid)
        UNION ALL
        SELECT format('slot %s', s.slot_name)
        FROM pg_replication_slots AS s
        WHERE s.active AND s.slot_type = 'physical' AND age(s.xmin) >= age(v_compaction.copied_in::xid)
    ) AS s
    LIMIT 1;
    IF v_older IS NOT NULL THEN
        RAISE lock_not_available USING
            MESSAGE = format('%s still reads the database as it was before the copy: %s', v_older, v_compaction.partition);
    END IF;

    -- All waits together last p_wait at most: who comes meanwhile queues behind this lock. Then the caller tries again.
    v_began := clock_timestamp();
    PERFORM set_config('lock_timeout', (extract(EPOCH FROM p_wait) * 1000)::integer::text, true);
    EXECUTE format('LOCK TABLE ONLY %s IN ACCESS EXCLUSIVE MODE', v_parent);
    PERFORM set_config(
        'lock_timeout', greatest(1, (extract(EPOCH FROM v_began + p_wait - clock_timestamp()) * 1000)::integer)::text, true
    );
    EXECUTE format('LOCK TABLE %s, %s IN ACCESS EXCLUSIVE MODE', v_old, v_new);
    -- Nobody writes now. Whatever came since both were compared came to both, if the trigger was there all the time
    -- and neither was truncated or rewritten.
    IF v_compaction.filenodes <> ARRAY[pg_relation_filenode(v_old)::bigint, pg_relation_filenode(v_new)::bigint]
        OR NOT EXISTS (
            SELECT
            FROM pg_trigger AS t
            WHERE t.oid = v_compaction.trigger_oid AND t.tgrelid = v_old AND t.tgenabled = 'A'
        ) THEN
        RAISE data_corrupted USING
            MESSAGE = format('%s was changed while it was compacted (truncated, rewritten, or its trigger): not swapped', v_old);
    END IF;

    SELECT array_agg(p.inhparent), array_agg(c.relname) INTO v_parent_indexes, v_index_names
    FROM pg_index AS i
    INNER JOIN pg_inherits AS p ON i.indexrelid = p.inhrelid
    INNER JOIN pg_class AS c ON i.indexrelid = c.oid
    WHERE i.indrelid = v_old;
    v_bytes := pg_relation_size(v_new);
    EXECUTE format('DROP TABLE %s', v_old);
    EXECUTE format('ALTER TABLE %s RENAME TO %I', v_new, v_name);
    -- lint: ignore dynamic-sql: the bounds as the catalogue prints them
    EXECUTE format('ALTER TABLE %s ATTACH PARTITION %s %s', v_parent, v_new, v_bounds);
    EXECUTE format('ALTER TABLE %s DROP CONSTRAINT compacting_bounds', v_new);
    EXECUTE format('ALTER TABLE %s RESET (autovacuum_enabled)', v_new);
    IF v_comment IS NOT NULL THEN
        EXECUTE format('COMMENT ON TABLE %s IS %L', v_new, v_comment);
    END IF;
    IF v_walled THEN
        EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY', v_new);
    END IF;
    FOR v_index IN
        SELECT
            i.indexrelid,
            coalesce(
                (SELECT u.name FROM unnest(v_parent_indexes, v_index_names) AS u (parent, name) WHERE u.parent = p.inhparent),
                v_name || '_sorted_idx'
            ) AS name
        FROM pg_index AS i
        LEFT JOIN pg_inherits AS p ON i.indexrelid = p.inhrelid
        WHERE i.indrelid = v_new
    LOOP
        EXECUTE format('ALTER INDEX %s RENAME TO %I', v_index.indexrelid::regclass, v_index.name);
        EXECUTE format('ALTER INDEX %s SET (autosummarize = on)', v_index.indexrelid::regclass);
    END LOOP;
    -- To its archive it is the same table.
    UPDATE ops.partition_archives
    SET table_oid = v_new::oid
    WHERE partition = v_compaction.partition AND table_oid = v_old::oid;
    UPDATE ops.compactions
    SET status = 'done', finished_at = clock_timestamp(), bytes_after = v_bytes, index_bytes_after = pg_indexes_size(v_new), error = NULL
    WHERE compaction_id = p_compaction_id;
    RETURN v_compaction.rows;
END;
$$;

COMMENT ON FUNCTION ops.compaction_swap(bigint, interval) IS
'Puts the verified copy in the place of the partition; returns its rows. Waits for locks p_wait at most, all in all, then raises lock_not_available: try again.';

REVOKE ALL ON FUNCTION ops.compaction_swap(bigint, interval) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION ops.compaction_swap(bigint, interval) TO eav_jobs;
