CREATE OR REPLACE FUNCTION ops.compactable()
RETURNS TABLE (
    parent_table text,
    partition regclass,
    starts_at timestamptz,
    ends_at timestamptz,
    bytes bigint,
    estimated_rows bigint,
    why text
)
LANGUAGE sql
STABLE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT c.parent_table, c.partition, c.starts_at, c.ends_at, c.bytes, c.estimated_rows, c.why
    FROM (
        SELECT
            p.parent_table,
            b.partition,
            b.starts_at,
            b.ends_at,
            pg_relation_size(b.partition) AS bytes,
            greatest(r.reltuples, 0)::bigint AS estimated_rows,
            CASE
                WHEN o.compaction_id IS NOT NULL THEN 'it was begun'
                WHEN to_regclass(format('%I.%I', n.nspname, r.relname || '_sorted_idx')) IS NULL THEN 'it is closed'
                -- Late rows lie unsorted at the end, and each query of the partition reads them all.
                WHEN pg_relation_size(b.partition) > d.bytes_after + greatest(2097152, d.bytes_after / 100)
                    THEN 'late rows came'
            END AS why
        FROM ops.partition_policies AS p
        CROSS JOIN LATERAL ops.partition_bounds(p.parent_table::regclass) AS b
        INNER JOIN pg_class AS r ON b.partition = r.oid
        INNER JOIN pg_namespace AS n ON r.relnamespace = n.oid
        LEFT JOIN ops.compactions AS o
            ON b.partition::text = o.partition AND o.status IN ('copying', 'copied')
        LEFT JOIN LATERAL (
            SELECT k.bytes_after
            FROM ops.compactions AS k
            WHERE k.partition = b.partition::text AND k.status = 'done'
            ORDER BY k.compaction_id DESC
            LIMIT 1
        ) AS d ON true
        WHERE b.ends_at < now() - p.compact_after AND p.sorted_by IS NOT NULL
            -- One that is about to be detached is left in peace.
            AND NOT EXISTS (
                SELECT
                FROM ops.partition_archives AS a
                WHERE a.partition = b.partition::text AND a.table_oid = b.partition::oid AND a.leaving_at IS NOT NULL
                    AND a.status IN ('verified', 'restored') AND a.ends_at < now() - p.retention
            )
    ) AS c
    WHERE c.why IS NOT NULL AND c.bytes > 0
    ORDER BY c.why <> 'it was begun', c.starts_at;
$$;

COMMENT ON FUNCTION ops.compactable() IS
'The partitions that a compaction is due for: closed for longer than compact_after of their policy and not compacted, or with so many late rows that it pays again.';

REVOKE ALL ON FUNCTION ops.compactable() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION ops.compactable() TO eav_jobs;
