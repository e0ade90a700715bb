-- lint: ignore-file plpgsql-check-performance: it makes a table and a trigger, by dynamic SQL
CREATE OR REPLACE FUNCTION ops.compaction_watch(p_compaction_id bigint)
RETURNS xid8
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_old regclass;
    v_new regclass;
    v_twin text;
    v_name text;
    v_policy ops.partition_policies;
    v_storage text;
    v_column record;
    v_index record;
BEGIN
    IF pg_current_xact_id_if_assigned() IS NOT NULL THEN
        RAISE invalid_transaction_state USING
            MESSAGE = 'ops.compaction_watch must be the first statement of its transaction that writes';
    END IF;
    SELECT o.partition::regclass INTO STRICT v_old
    FROM ops.compactions AS o
    WHERE o.compaction_id = p_compaction_id AND o.status = 'copying';
    SELECT c.relname INTO v_name FROM pg_class AS c WHERE c.oid = v_old;
    SELECT p.* INTO STRICT v_policy
    FROM ops.partition_policies AS p
    INNER JOIN pg_inherits AS i ON p.parent_table::regclass = i.inhparent
    WHERE i.inhrelid = v_old;
    IF ARRAY(
        SELECT a.attname FROM pg_attribute AS a WHERE a.attrelid = v_old AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum
    ) <> ARRAY(
        SELECT a.attname FROM pg_attribute AS a
        WHERE a.attrelid = v_policy.parent_table::regclass AND a.attnum > 0 AND NOT a.attisdropped
        ORDER BY a.attnum
    ) THEN
        RAISE feature_not_supported USING MESSAGE = format('%s has its columns in another order than its table', v_old);
    END IF;
    v_twin := ops.compaction_twin(v_old::text);
    -- Waits for the writers in flight. Only after that is this transaction given its id: a snapshot that lists the id
    -- as one under way was taken when nobody wrote, and shows none of what the trigger will see.
    EXECUTE format('LOCK TABLE %s IN SHARE ROW EXCLUSIVE MODE', v_old);
    PERFORM pg_current_xact_id();

    SELECT
        coalesce(' WITH (' || (SELECT string_agg(o, ', ') FROM unnest(c.reloptions) AS o) || ')', '')
        || coalesce(' TABLESPACE ' || quote_ident(t.spcname), '')
    INTO v_storage
    FROM pg_class AS c
    LEFT JOIN pg_tablespace AS t ON c.reltablespace = t.oid
    WHERE c.oid = v_old;
    -- LIKE the parent: with its indexes, so that they are adopted and not built when it is attached. The CHECK spares
    -- that the scan.
    -- lint: ignore dynamic-sql: a quoted name, and storage parameters and bounds as the catalogue prints them
    EXECUTE format(
        'CREATE TABLE %s (LIKE %s INCLUDING ALL, CONSTRAINT compacting_bounds CHECK (%s))%s',
        v_twin, v_policy.parent_table::regclass, pg_get_partition_constraintdef(v_old), v_storage
    );
    v_new := v_twin::regclass;
    -- Autovacuum would hold a lock against the swap; it comes afterwards, at once, and freezes what it sees.
    EXECUTE format(
        'ALTER TABLE %s SET (autovacuum_enabled = false, autovacuum_freeze_min_age = 0, '
        || 'autovacuum_vacuum_insert_scale_factor = 0, autovacuum_vacuum_insert_threshold = 10000)',
        v_new
    );
    FOR v_column IN
        SELECT a.attname, coalesce(a.attstattarget, -1) AS target
        FROM pg_attribute AS a
        WHERE a.attrelid = v_old AND a.attnum > 0 AND NOT a.attisdropped AND coalesce(a.attstattarget, -1) >= 0
    LOOP
        EXECUTE format(
            'ALTER TABLE %s ALTER COLUMN %I SET STATISTICS %s',
            v_new, v_column.attname, v_column.target::integer
        );
    END LOOP;
    FOR v_index IN
        SELECT i.indexrelid
        FROM pg_index AS i
        INNER JOIN pg_class AS c ON i.indexrelid = c.oid
        INNER JOIN pg_am AS m ON c.relam = m.oid
        WHERE i.indrelid = v_new AND m.amname = 'brin'
    LOOP
        -- It is summarized once, when the copy is there.
        EXECUTE format('ALTER INDEX %s SET (autosummarize = off)', v_index.indexrelid::regclass);
    END LOOP;
    -- lint: ignore dynamic-sql: the columns are quoted one by one
    EXECUTE format(
        'CREATE INDEX %I ON %s USING brin (%s) WITH (pages_per_range = 64)',
        v_name || '_compacting_sorted_idx', v_new,
        (SELECT string_agg(format('%I', s.name), ', ' ORDER BY s.place) FROM unnest(v_policy.sorted_by) WITH ORDINALITY AS s (name, place))
    );
    EXECUTE format(
        'CREATE TRIGGER compacting AFTER INSERT ON %s FOR EACH ROW EXECUTE FUNCTION ops.compaction_mirror()', v_old
    );
    -- Also for a session that applies changes as a replica, which fires no other triggers.
    EXECUTE format('ALTER TABLE %s ENABLE ALWAYS TRIGGER compacting', v_old);
    RETURN pg_current_xact_id();
END;
$$;

COMMENT ON FUNCTION ops.compaction_watch(bigint) IS
'Makes the empty copy of a partition and the trigger that brings it what comes late. Before this transaction commits another one, REPEATABLE READ, must take the snapshot that ops.compaction_copy copies. Returns the id of this transaction.';

REVOKE ALL ON FUNCTION ops.compaction_watch(bigint) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION ops.compaction_watch(bigint) TO eav_jobs;
