-- answers: whether partitions reach the archive: how many failed last, whose files nobody has looked for in 26 hours
--   (the job does daily), and for how long the oldest has waited that is due and not archived
-- role: eav_jobs
-- scope: none
-- index: none: a row a partition, and the catalogue
SELECT
    (
        SELECT count(*)
        FROM (
            SELECT DISTINCT ON (a.partition) a.status
            FROM ops.partition_archives AS a
            ORDER BY a.partition ASC, a.archive_id DESC
        ) AS l
        WHERE l.status = 'failed'
    ) AS failed,
    (
        SELECT count(*)
        FROM ops.partition_archives AS a
        -- only of a partition that is still here and is to leave does it matter
        WHERE a.status = 'detached' AND coalesce(a.looked_at, a.detached_at) < now() - interval '26 hours'
    ) AS unseen,
    (
        SELECT coalesce(max(now() - b.ends_at - coalesce(p.archive_after, p.retention)), interval '0')
        FROM ops.partition_policies AS p
        CROSS JOIN LATERAL ops.partition_bounds(p.parent_table::regclass) AS b
        WHERE
            p.archive_first
            AND b.ends_at < now() - coalesce(p.archive_after, p.retention)
            AND NOT EXISTS (
                SELECT
                FROM ops.partition_archives AS a
                WHERE
                    a.partition = b.partition::text AND a.table_oid = b.partition::oid
                    AND a.status IN ('verified', 'detached', 'restored')
            )
    ) AS overdue;
