CREATE OR REPLACE FUNCTION ops.restore_attach(p_archive_id bigint, p_keep interval, p_wait interval DEFAULT '200 ms')
RETURNS bigint
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
AS $$
DECLARE
    c_most CONSTANT interval := interval '3 seconds';
    v_archive ops.partition_archives;
    v_parent regclass;
    v_table regclass;
    v_name text;
    v_index record;
    v_renamed boolean := false;
BEGIN
    IF p_wait IS NULL OR p_wait < interval '10 ms' OR p_wait > c_most THEN
        RAISE invalid_parameter_value USING
            MESSAGE = format('p_wait must be 10 ms to %s, got %s', c_most, coalesce(p_wait::text, 'NULL'));
    END IF;
    SELECT a.* INTO STRICT v_archive FROM ops.partition_archives AS a WHERE a.archive_id = p_archive_id FOR UPDATE;
    v_parent := v_archive.parent_table::regclass;
    PERFORM set_config('lock_timeout', (extract(EPOCH FROM p_wait) * 1000)::integer::text, true);
    IF v_archive.status = 'detached' AND ops.archive_table(v_archive) IS NOT NULL THEN
        v_table := ops.archive_table(v_archive);
    ELSIF v_archive.restore_checked_at > v_archive.restoring_at THEN
        v_table := ops.restore_table(v_archive.partition, p_archive_id)::regclass;
        v_name := (parse_ident(v_archive.partition))[2];
        EXECUTE format('ALTER TABLE %s RENAME TO %I', v_table, v_name);
        v_renamed := true;
    ELSE
        RAISE object_not_in_prerequisite_state USING
            MESSAGE = format('%s was not restored and compared: not attached', v_archive.partition);
    END IF;
    -- Readers and writers of the table go on.
    -- lint: ignore dynamic-sql: names as the catalogue prints them
    EXECUTE format(
        'ALTER TABLE %s ATTACH PARTITION %s FOR VALUES FROM (%L) TO (%L)', v_parent, v_table, v_archive.starts_at, v_archive.ends_at
    );
    IF v_renamed THEN
        EXECUTE format('ALTER TABLE %s DROP CONSTRAINT restoring_bounds', v_table);
        EXECUTE format('ALTER TABLE %s RESET (autovacuum_enabled)', v_table);
        FOR v_index IN
            SELECT i.indexrelid::regclass AS index, replace(c.relname, format('restoring_%s', p_archive_id), v_name) AS name
            FROM pg_index AS i
            INNER JOIN pg_class AS c ON i.indexrelid = c.oid
            WHERE i.indrelid = v_table AND c.relname LIKE 'restoring\_%'
        LOOP
            EXECUTE format('ALTER INDEX %s RENAME TO %I', v_index.index::regclass, v_index.name);
        END LOOP;
        -- As its siblings: nobody is granted anything on a partition.
        IF (
            SELECT bool_or(c.relrowsecurity)
            FROM pg_inherits AS i
            INNER JOIN pg_class AS c ON i.inhrelid = c.oid
            WHERE i.inhparent = v_parent
        ) THEN
            EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY', v_table);
        END IF;
    END IF;
    PERFORM ops.archive_replaced(v_table);
    IF v_archive.status = 'superseded' THEN
        -- An older one was chosen: what came after it gives way, in the folder too.
        UPDATE ops.partition_archives
        SET status = 'superseded'
        WHERE partition = v_archive.partition AND status = 'dropped' AND v_archive.attempt = ANY(replaces);
        UPDATE ops.partition_archives SET published_at = NULL, set_aside_at = NULL WHERE archive_id = p_archive_id;
    END IF;
    UPDATE ops.partition_archives
    SET status = 'restored', restored_at = clock_timestamp(), keep_until = clock_timestamp() + p_keep,
        -- One that was only detached has been compared with nothing now.
        marks = CASE WHEN v_renamed THEN ops.archive_marks(v_table) END, restoring_at = NULL, restore_checked_at = NULL,
        table_oid = v_table::oid, leaving_at = NULL, detached_at = NULL, dropped_at = NULL,
        -- Files that are damaged stay so.
        differs_at = CASE WHEN NOT v_renamed THEN differs_at END
    WHERE archive_id = p_archive_id;
    PERFORM ops.refresh_value_window();
    RETURN v_archive.rows;
END;
$$;

COMMENT ON FUNCTION ops.restore_attach(bigint, interval, interval) IS
'Attaches what ops.restore_verify has compared, or a partition that is detached and not dropped, for p_keep; returns its rows. Raises lock_not_available after p_wait: try again.';

REVOKE ALL ON FUNCTION ops.restore_attach(bigint, interval, interval) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION ops.restore_attach(bigint, interval, interval) TO eav_jobs;
