CREATE OR REPLACE FUNCTION ops.prepare_partitions(p_parent text)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_indexed_by CONSTANT text [] := (SELECT p.indexed_by FROM ops.partition_policies AS p WHERE p.parent_table = p_parent);
    v_child record;
    v_column record;
BEGIN
    FOR v_child IN
        SELECT
            b.partition,
            c.reloptions IS NULL AS is_bare,
            pg_relation_size(b.partition) = 0 AS is_empty,
            format('%s_active_idx', c.relname) AS index_name,
            to_regclass(format('%I.%I', n.nspname, c.relname || '_active_idx')) IS NOT NULL AS is_indexed
        FROM ops.partition_bounds(p_parent::regclass) AS b
        INNER JOIN pg_class AS c ON b.partition = c.oid
        INNER JOIN pg_namespace AS n ON c.relnamespace = n.oid
    LOOP
        -- Rows are only ever inserted: vacuum for the visibility map and freezing by number of rows, not by share,
        -- and never wait for a share of a large partition. Storage parameters are not inherited from the parent.
        IF v_child.is_bare THEN
            EXECUTE format(
                'ALTER TABLE %s SET (autovacuum_vacuum_insert_scale_factor = 0, '
                || 'autovacuum_vacuum_insert_threshold = 5000000, autovacuum_analyze_scale_factor = 0.05)',
                v_child.partition::regclass
            );
        END IF;
        -- Not an index of the parent: that would be built again on a partition that was compacted. Only on an empty
        -- partition, where it takes no time: nobody waits for it.
        IF v_indexed_by IS NOT NULL AND v_child.is_empty AND NOT v_child.is_indexed THEN
            -- lint: ignore dynamic-sql: the columns are quoted one by one
            EXECUTE format(
                'CREATE INDEX %I ON %s (%s)',
                v_child.index_name, v_child.partition::regclass,
                (SELECT string_agg(format('%I', s.name), ', ' ORDER BY s.place) FROM unnest(v_indexed_by) WITH ORDINALITY AS s (name, place))
            );
        END IF;
        -- Neither are statistics targets.
        FOR v_column IN
            SELECT o.attname, coalesce(o.attstattarget, -1) AS target
            FROM pg_attribute AS o
            INNER JOIN pg_attribute AS a ON o.attname = a.attname
            WHERE o.attrelid = p_parent::regclass AND a.attrelid = v_child.partition AND o.attnum > 0
                AND coalesce(o.attstattarget, -1) >= 0
                AND coalesce(o.attstattarget, -1) <> coalesce(a.attstattarget, -1)
        LOOP
            EXECUTE format(
                'ALTER TABLE %s ALTER COLUMN %I SET STATISTICS %s',
                v_child.partition::regclass, v_column.attname, v_column.target::integer
            );
        END LOOP;
    END LOOP;
END;
$$;

COMMENT ON FUNCTION ops.prepare_partitions(text) IS
'Gives new partitions what they do not inherit: storage parameters, statistics targets, and while they are empty the B-tree by ops.partition_policies.indexed_by.';

REVOKE ALL ON FUNCTION ops.prepare_partitions(text) FROM PUBLIC;
