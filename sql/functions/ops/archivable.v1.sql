CREATE OR REPLACE FUNCTION ops.archivable(p_partition text DEFAULT NULL)
RETURNS TABLE (
    parent_table text,
    partition text,
    starts_at timestamptz,
    ends_at timestamptz,
    bytes bigint,
    estimated_rows bigint,
    archive_id bigint,
    why text
)
LANGUAGE sql
STABLE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT c.parent_table, c.partition, c.starts_at, c.ends_at, c.bytes, c.estimated_rows, c.archive_id, c.why
    FROM (
        SELECT
            p.parent_table,
            b.partition::text,
            b.starts_at,
            b.ends_at,
            pg_relation_size(b.partition) AS bytes,
            greatest(r.reltuples, 0)::bigint AS estimated_rows,
            coalesce(o.archive_id, a.archive_id) AS archive_id,
            CASE
                WHEN o.archive_id IS NOT NULL THEN 'it was begun'
                WHEN a.archive_id IS NULL THEN 'it is closed'
                WHEN a.differs_at IS NOT NULL THEN 'its files are not as they were'
                WHEN a.marks IS DISTINCT FROM ops.archive_marks(b.partition) THEN 'rows may have come since'
            END AS why
        FROM ops.partition_policies AS p
        CROSS JOIN LATERAL ops.partition_bounds(p.parent_table::regclass) AS b
        INNER JOIN pg_class AS r ON b.partition = r.oid
        LEFT JOIN ops.partition_archives AS o ON b.partition::text = o.partition AND o.status = 'exporting'
        LEFT JOIN ops.partition_archives AS a
            ON b.partition::text = a.partition AND b.partition::oid = a.table_oid AND a.status IN ('verified', 'detached', 'restored')
        WHERE p.archive_first AND b.ends_at < now()
            AND (
                b.partition::text = p_partition
                OR p_partition IS NULL AND b.ends_at < now() - coalesce(p.archive_after, p.retention)
            )
        UNION ALL
        SELECT
            a.parent_table,
            a.partition,
            a.starts_at,
            a.ends_at,
            pg_relation_size(r.oid),
            greatest(r.reltuples, 0)::bigint,
            coalesce(o.archive_id, a.archive_id),
            'it is detached and not as it was archived'
        FROM ops.partition_archives AS a
        INNER JOIN pg_class AS r ON ops.archive_table(a) = r.oid
        LEFT JOIN ops.partition_archives AS o ON a.partition = o.partition AND o.status = 'exporting'
        WHERE a.status = 'detached' AND a.differs_at IS NOT NULL AND NOT r.relispartition
            AND coalesce(p_partition, a.partition) = a.partition
    ) AS c
    WHERE c.why IS NOT NULL
    ORDER BY c.parent_table, c.starts_at;
$$;

COMMENT ON FUNCTION ops.archivable(text) IS
'The partitions that an archive is due for, oldest first: closed for longer than archive_after of their policy and not archived, or changed since. With p_partition that one, as soon as it is closed.';

REVOKE ALL ON FUNCTION ops.archivable(text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION ops.archivable(text) TO eav_jobs;
