CREATE OR REPLACE FUNCTION ops.archive_marks(p_table regclass)
RETURNS bigint[]
LANGUAGE sql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT ARRAY[
        pg_relation_filenode(p_table)::bigint,
        pg_relation_size(p_table),
        coalesce(
            pg_stat_get_tuples_inserted(p_table) + pg_stat_get_tuples_updated(p_table) + pg_stat_get_tuples_deleted(p_table),
            0
        )
    ];
$$;

COMMENT ON FUNCTION ops.archive_marks(regclass) IS
'By which a table that may have changed is told from one that has not, without reading it. A hint: nothing is dropped by it.';

REVOKE ALL ON FUNCTION ops.archive_marks(regclass) FROM PUBLIC;
