-- lint: ignore-file plpgsql-check-performance: it makes a table, by dynamic SQL
CREATE OR REPLACE FUNCTION ops.restore_make(p_archive_id bigint)
RETURNS void
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
AS $$
DECLARE
    v_archive ops.partition_archives;
    v_left regclass;
    v_new text;
    v_key text;
    v_sorted_by text [];
    v_index record;
BEGIN
    SELECT a.* INTO STRICT v_archive FROM ops.partition_archives AS a WHERE a.archive_id = p_archive_id;
    -- Another session may be filling it.
    IF NOT pg_try_advisory_xact_lock(6644088, p_archive_id::integer) OR v_archive.verified_at IS NULL THEN
        RAISE object_not_in_prerequisite_state USING MESSAGE = format('call ops.restore_open(%s) first', p_archive_id);
    END IF;
    v_new := ops.restore_table(v_archive.partition, p_archive_id);
    v_left := to_regclass(v_new);
    IF v_left IS NOT NULL THEN
        EXECUTE format('DROP TABLE %s', v_left);
    END IF;
    SELECT k.attname INTO STRICT v_key
    FROM pg_partitioned_table AS p
    INNER JOIN pg_attribute AS k ON p.partrelid = k.attrelid AND p.partattrs[0] = k.attnum
    WHERE p.partrelid = v_archive.parent_table::regclass;
    -- With the indexes of its table, so that they are adopted and not built when it is attached. The CHECK spares that
    -- the scan. Autovacuum would hold a lock against it; it comes afterwards, at once, and freezes what it sees.
    -- lint: ignore dynamic-sql: names as the catalogue prints them, or quoted
    EXECUTE format(
        'CREATE TABLE %1$s (LIKE %2$s INCLUDING ALL EXCLUDING IDENTITY,'
        || ' CONSTRAINT restoring_bounds CHECK (%3$I IS NOT NULL AND %3$I >= %4$L AND %3$I < %5$L))'
        || ' WITH (autovacuum_enabled = false, autovacuum_freeze_min_age = 0,'
        || ' autovacuum_vacuum_insert_scale_factor = 0, autovacuum_vacuum_insert_threshold = 10000)',
        v_new, v_archive.parent_table::regclass, v_key, v_archive.starts_at, v_archive.ends_at
    );
    FOR v_index IN
        SELECT i.indexrelid
        FROM pg_index AS i
        INNER JOIN pg_class AS c ON i.indexrelid = c.oid
        INNER JOIN pg_am AS m ON c.relam = m.oid
        WHERE i.indrelid = v_new::regclass AND m.amname = 'brin'
    LOOP
        -- It is summarized once, when all rows are there.
        EXECUTE format('ALTER INDEX %s SET (autosummarize = off)', v_index.indexrelid::regclass);
    END LOOP;
    SELECT p.sorted_by INTO v_sorted_by FROM ops.partition_policies AS p WHERE p.parent_table = v_archive.parent_table;
    IF v_sorted_by IS NOT NULL THEN
        -- lint: ignore dynamic-sql: the columns are quoted one by one
        EXECUTE format(
            'CREATE INDEX %I ON %s USING brin (%s) WITH (pages_per_range = 64)', format('restoring_%s_sorted_idx', p_archive_id), v_new,
            (SELECT string_agg(format('%I', s.name), ', ' ORDER BY s.place) FROM unnest(v_sorted_by) WITH ORDINALITY AS s (name, place))
        );
    END IF;
    UPDATE ops.partition_archives
    SET restoring_at = clock_timestamp(), restore_checked_at = NULL
    WHERE archive_id = p_archive_id;
END;
$$;

COMMENT ON FUNCTION ops.restore_make(bigint) IS
'Makes the empty table that the rows of an archive are put into; what an interrupted run left is dropped.';

REVOKE ALL ON FUNCTION ops.restore_make(bigint) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION ops.restore_make(bigint) TO eav_jobs;
