-- answers: which partitions are compacted now (how far, how fast, until when), which are due, and how the last
--   ones went
-- role: eav_jobs
-- scope: none
-- param rows = 100: how many at most
-- index: none: a row a partition, and the catalogue
SELECT
    c.partition_name,
    c.status,
    c.why,
    c.started_at,
    c.took,
    c.copied,
    c.row_count,
    c.late_rows,
    c.bytes_before,
    c.bytes_after,
    c.error,
    (c.row_count * c.copied / nullif(extract(EPOCH FROM c.took), 0))::bigint AS rows_per_second,
    -- sorting comes first, so that the start looks slower than it is
    CASE WHEN c.status = 'copying' AND c.copied > 0 THEN c.took * (1 / c.copied - 1) END AS copied_in_at_most
FROM (
    SELECT
        k.compaction_id,
        k.partition AS partition_name,
        k.status,
        d.why,
        k.started_at,
        coalesce(k.finished_at, clock_timestamp()) - k.started_at AS took,
        CASE
            WHEN k.status = 'copying'
                THEN
                    least(
                        1,
                        coalesce(pg_relation_size(to_regclass(ops.compaction_twin(k.partition))), 0)
                        / greatest(k.bytes_before, 1)::double precision
                    )
            ELSE 1
        END AS copied,
        coalesce(k.rows, d.estimated_rows) AS row_count,
        k.late_rows,
        k.bytes_before + k.index_bytes_before AS bytes_before,
        k.bytes_after + k.index_bytes_after AS bytes_after,
        k.error
    FROM ops.compactions AS k
    LEFT JOIN ops.compactable() AS d ON k.partition = d.partition::text AND k.status IN ('copying', 'copied')
    UNION ALL
    SELECT
        NULL AS compaction_id,
        d.partition::text AS partition_name,
        'due' AS status,
        d.why,
        NULL AS started_at,
        NULL AS took,
        0 AS copied,
        d.estimated_rows AS row_count,
        NULL AS late_rows,
        d.bytes + pg_indexes_size(d.partition) AS bytes_before,
        NULL AS bytes_after,
        NULL AS error
    FROM ops.compactable() AS d
    WHERE d.why <> 'it was begun'
) AS c
ORDER BY c.status = 'due' DESC, c.compaction_id DESC, c.partition_name ASC
LIMIT :'rows';
