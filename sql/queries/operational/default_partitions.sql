-- answers: which tables have a default partition, and how many rows are in it as the statistics have it; there are
--   none by design, because rows in one keep the partitions of their time from being made
-- role: pg_monitor
-- scope: none
-- index: none: the catalogue
SELECT
    i.inhparent::regclass AS table_name,
    i.inhrelid::regclass AS default_partition,
    greatest(c.reltuples::bigint, t.n_live_tup, 0) AS estimated_rows
FROM pg_inherits AS i
INNER JOIN pg_class AS c ON i.inhrelid = c.oid
LEFT JOIN pg_stat_all_tables AS t ON i.inhrelid = t.relid
WHERE
    pg_get_expr(c.relpartbound, c.oid) = 'DEFAULT'
    AND c.relnamespace::regnamespace::text IN ('eav', 'ops', 'workload', 'analytics', 'metrics')
ORDER BY estimated_rows DESC, table_name ASC;
