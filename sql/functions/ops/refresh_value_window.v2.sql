CREATE OR REPLACE FUNCTION ops.refresh_value_window()
RETURNS void
LANGUAGE sql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    -- The unbroken run of partitions around this moment: behind a gap a value would find no partition.
    WITH bounds AS (
        SELECT
            b.starts_at,
            b.ends_at,
            sum((b.starts_at IS DISTINCT FROM b.previous_end)::integer) OVER (ORDER BY b.starts_at) AS run
        FROM (
            SELECT p.starts_at, p.ends_at, lag(p.ends_at) OVER (ORDER BY p.starts_at) AS previous_end
            FROM ops.partition_bounds('eav.entity_values_ts') AS p
            -- One that is about to be detached takes no more values.
            WHERE NOT EXISTS (
                SELECT
                FROM ops.partition_archives AS a
                INNER JOIN ops.partition_policies AS o ON a.parent_table = o.parent_table
                WHERE a.partition = p.partition::text AND a.table_oid = p.partition::oid AND a.leaving_at IS NOT NULL AND a.status IN ('verified', 'restored')
                    -- Unless it was given more time meanwhile.
                    AND a.ends_at < now() - o.retention
            )
        ) AS b
    ),

    current_run AS (
        SELECT min(b.starts_at) AS starts_at, max(b.ends_at) AS ends_at
        FROM bounds AS b
        GROUP BY b.run
        HAVING min(b.starts_at) <= now() AND max(b.ends_at) > now()
    )

    INSERT INTO eav.value_window AS w (singleton, starts_at, ends_at)
    SELECT true, coalesce(r.starts_at, 'infinity'), coalesce(r.ends_at, '-infinity')
    FROM (SELECT) AS always
    LEFT JOIN current_run AS r ON true
    ON CONFLICT (singleton) DO UPDATE
        SET starts_at = excluded.starts_at, ends_at = excluded.ends_at
        WHERE (w.starts_at, w.ends_at) IS DISTINCT FROM (excluded.starts_at, excluded.ends_at);
$$;

COMMENT ON FUNCTION ops.refresh_value_window() IS
'Writes down, for the flush, which times have a partition of eav.entity_values_ts.';

REVOKE ALL ON FUNCTION ops.refresh_value_window() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION ops.refresh_value_window() TO eav_jobs;
