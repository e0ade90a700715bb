-- answers: which tables have dead rows that vacuum has not taken yet, with their partitions, and when it was there
--   last; what holds it back is in server_health
-- role: pg_monitor
-- scope: none
-- param rows = 100: how many at most
-- index: none: statistics of the server
SELECT
    c.relnamespace::regnamespace AS schema_name,
    coalesce(r.relname, c.relname) AS table_name,
    sum(t.n_live_tup)::bigint AS live_rows,
    sum(t.n_dead_tup)::bigint AS dead_rows,
    100.0 * sum(t.n_dead_tup) / nullif(sum(t.n_live_tup) + sum(t.n_dead_tup), 0) AS dead_percent,
    max(greatest(t.last_vacuum, t.last_autovacuum)) AS vacuumed_at,
    max(greatest(t.last_analyze, t.last_autoanalyze)) AS analyzed_at
FROM pg_stat_user_tables AS t
INNER JOIN pg_class AS c ON t.relid = c.oid
LEFT JOIN pg_class AS r ON pg_partition_root(c.oid) = r.oid
WHERE t.schemaname IN ('eav', 'ops')
GROUP BY c.relnamespace, coalesce(r.relname, c.relname)
ORDER BY dead_rows DESC, table_name ASC
LIMIT :'rows';
