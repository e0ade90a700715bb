CREATE OR REPLACE FUNCTION ops.archive_order(p_parent text)
RETURNS text[]
LANGUAGE sql
STABLE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT coalesce(
        p.sorted_by,
        (
            SELECT array_agg(a.attname::text ORDER BY k.place)
            FROM pg_index AS i
            CROSS JOIN LATERAL unnest(i.indkey::smallint[]) WITH ORDINALITY AS k (attnum, place)
            INNER JOIN pg_attribute AS a ON i.indrelid = a.attrelid AND k.attnum = a.attnum
            WHERE i.indrelid = p.parent_table::regclass AND i.indisprimary
        ),
        '{}'
    )
    FROM ops.partition_policies AS p
    WHERE p.parent_table = p_parent;
$$;

COMMENT ON FUNCTION ops.archive_order(text) IS
'The columns that an archive of the table is sorted by: those of its compaction, else of its primary key.';

REVOKE ALL ON FUNCTION ops.archive_order(text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION ops.archive_order(text) TO eav_jobs;
