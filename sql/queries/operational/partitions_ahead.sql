-- answers: for how long there are partitions ahead, table by table, and how the last maintenance went
-- role: eav_jobs
-- scope: none
-- index: none: the catalogue
SELECT
    p.parent_table,
    p.partition_interval,
    p.retention,
    p.maintained_at,
    p.last_error,
    count(b.partition) AS partitions,
    min(b.starts_at) AS oldest,
    max(b.ends_at) - now() AS ahead,
    count(b.partition) FILTER (WHERE b.ends_at < now() - p.retention) AS past_retention
FROM ops.partition_policies AS p
LEFT JOIN LATERAL ops.partition_bounds(p.parent_table::regclass) AS b ON true
GROUP BY p.parent_table
ORDER BY ahead, p.parent_table;
