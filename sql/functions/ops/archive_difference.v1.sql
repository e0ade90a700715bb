CREATE OR REPLACE FUNCTION ops.archive_difference(p_archive_id bigint)
RETURNS text
LANGUAGE sql
STABLE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE
        WHEN a.checksums IS NULL THEN 'what was exported was not summed up'
        -- Of no rows nothing is read back.
        WHEN a.read_back IS NULL AND a.checksums -> 'rows' = '0' OR a.read_back = a.checksums THEN NULL
        WHEN a.read_back IS NULL OR a.read_back -> 'rows' <> a.checksums -> 'rows' THEN format(
            '%s rows were exported, %s read back', a.checksums ->> 'rows', coalesce(a.read_back ->> 'rows', 'none')
        )
        ELSE coalesce(
            (
                SELECT 'other values were read back in ' || string_agg(c.name, ', ' ORDER BY c.name)
                FROM jsonb_each(a.checksums -> 'columns') AS c (name, pair)
                WHERE a.read_back -> 'columns' -> c.name IS DISTINCT FROM c.pair
            ),
            'values have changed rows'
        )
    END
    FROM ops.partition_archives AS a
    WHERE a.archive_id = p_archive_id;
$$;

COMMENT ON FUNCTION ops.archive_difference(bigint) IS
'What differs between the rows that were exported and those that were read back; NULL if nothing does.';

REVOKE ALL ON FUNCTION ops.archive_difference(bigint) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION ops.archive_difference(bigint) TO eav_jobs;
