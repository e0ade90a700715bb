-- answers: how large each index is over all partitions, of which kind (btree, brin, gin), and how often it
--   was used
-- role: pg_monitor
-- scope: none
-- index: none: the catalogue
SELECT
    t.relname AS table_name,
    m.amname AS kind,
    -- those that each partition has for itself are counted together too
    coalesce(
        r.relname, t.relname || CASE WHEN p.relispartition THEN substr(c.relname, length(p.relname) + 1) END, c.relname
    ) AS index_name,
    count(*) FILTER (WHERE c.relkind = 'i') AS parts,
    sum(pg_total_relation_size(c.oid)) AS bytes,
    coalesce(sum(s.idx_scan), 0)::bigint AS scans
FROM pg_class AS c
INNER JOIN pg_namespace AS n ON c.relnamespace = n.oid
INNER JOIN pg_am AS m ON c.relam = m.oid
INNER JOIN pg_index AS i ON c.oid = i.indexrelid
LEFT JOIN pg_class AS r ON pg_partition_root(c.oid) = r.oid
LEFT JOIN pg_stat_user_indexes AS s ON c.oid = s.indexrelid
INNER JOIN pg_class AS p ON i.indrelid = p.oid
INNER JOIN pg_class AS t ON coalesce(pg_partition_root(i.indrelid), i.indrelid) = t.oid
WHERE c.relkind IN ('i', 'I') AND n.nspname IN ('eav', 'ops')
GROUP BY t.relname, index_name, m.amname
ORDER BY bytes DESC, index_name ASC;
