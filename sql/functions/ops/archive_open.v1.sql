CREATE OR REPLACE FUNCTION ops.archive_open(p_partition text)
RETURNS bigint
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_table CONSTANT regclass := to_regclass(p_partition);
    v_archive_id bigint;
    v_due record;
    v_columns jsonb;
    v_clash text;
BEGIN
    -- The lock of a compaction: a partition is not swapped while it is exported. It ends with the session.
    IF v_table IS NULL OR NOT pg_try_advisory_lock(6644087, v_table::oid::integer) THEN
        RETURN NULL;
    END IF;
    -- Under the lock: another session may have done it a moment ago.
    SELECT d.parent_table, d.starts_at, d.ends_at INTO v_due
    FROM ops.archivable(p_partition) AS d
    WHERE d.partition = v_table::text;
    IF NOT FOUND THEN
        PERFORM pg_advisory_unlock(6644087, v_table::oid::integer);
        RAISE object_not_in_prerequisite_state USING
            MESSAGE = format('%s is not due for an archive', v_table),
            HINT = 'SELECT * FROM ops.archivable()';
    END IF;
    v_columns := ops.archive_columns(v_table, v_due.parent_table::regclass);
    SELECT string_agg(e.col ->> 'name', ', ') INTO v_clash
    FROM jsonb_array_elements(v_columns) AS e (col)
    WHERE e.col ->> 'name' LIKE '%\_\_exact' OR octet_length(e.col ->> 'name') > 56;
    IF v_clash IS NOT NULL THEN
        PERFORM pg_advisory_unlock(6644087, v_table::oid::integer);
        RAISE feature_not_supported USING
            MESSAGE = format('%s cannot be archived: rename %s (up to 56 bytes, and __exact at the end is the archive''s own)', v_table, v_clash);
    END IF;
    -- Whoever has begun it and is alive without its session finds that it is no longer wanted.
    UPDATE ops.partition_archives
    SET status = 'failed', error = 'interrupted'
    WHERE partition = v_table::text AND status = 'exporting';
    PERFORM ops.archive_replaced(v_table);
    -- The marks before the snapshot: what comes between the two is noticed later.
    INSERT INTO ops.partition_archives (
        begun_at, status, parent_table, partition, starts_at, ends_at, columns, marks, table_bytes, index_bytes, table_oid,
        replaces
    )
    VALUES (
        clock_timestamp(), 'exporting', v_due.parent_table, v_table::text, v_due.starts_at, v_due.ends_at, v_columns,
        ops.archive_marks(v_table), pg_relation_size(v_table), pg_indexes_size(v_table), v_table::oid,
        ARRAY(
            SELECT b.attempt
            FROM ops.partition_archives AS b
            WHERE b.partition = v_table::text AND b.status IN ('verified', 'detached', 'restored', 'superseded')
        )
    )
    RETURNING archive_id INTO v_archive_id;
    RETURN v_archive_id;
END;
$$;

COMMENT ON FUNCTION ops.archive_open(text) IS
'Begins the archive of a partition that is due, locked for this session; NULL if another session has the partition. One that was interrupted is given up.';

REVOKE ALL ON FUNCTION ops.archive_open(text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION ops.archive_open(text) TO eav_jobs;
