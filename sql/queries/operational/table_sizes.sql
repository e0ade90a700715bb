-- answers: how large each table is with its partitions: rows as the statistics estimate them, bytes of the
--   table, of its indexes, of long values
-- role: pg_monitor
-- scope: none
-- index: none: the catalogue
SELECT
    n.nspname AS schema_name,
    coalesce(r.relname, c.relname) AS table_name,
    count(*) FILTER (WHERE c.relispartition) AS partitions,
    sum(greatest(c.reltuples, 0)) FILTER (WHERE c.relkind = 'r')::bigint AS estimated_rows,
    sum(pg_relation_size(c.oid)) AS table_bytes,
    sum(pg_indexes_size(c.oid)) AS index_bytes,
    sum(pg_table_size(c.oid) - pg_relation_size(c.oid)) AS other_bytes
FROM pg_class AS c
INNER JOIN pg_namespace AS n ON c.relnamespace = n.oid
LEFT JOIN pg_class AS r ON pg_partition_root(c.oid) = r.oid
WHERE c.relkind IN ('r', 'p') AND n.nspname IN ('eav', 'ops')
GROUP BY n.nspname, coalesce(r.relname, c.relname)
ORDER BY sum(pg_total_relation_size(c.oid)) DESC, table_name ASC;
