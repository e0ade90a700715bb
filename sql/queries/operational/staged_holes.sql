-- answers: of which sources staged offsets do not follow on the checkpoint: blank lines, or a producer skipped some
-- role: eav_jobs
-- scope: none
-- param rows = 100: how many at most
-- index: none for what is staged, all of which is read; durable values keep no offset, so that nothing counts them
SELECT
    s.source,
    s.partition,
    i.staged_rows,
    i.first_offset,
    i.last_offset,
    c.position AS durable_offset,
    i.last_offset - coalesce(c.position, 0) - i.staged_rows AS missing
FROM (
    SELECT
        v.source_id,
        count(*) AS staged_rows,
        min(v.source_offset) AS first_offset,
        max(v.source_offset) AS last_offset
    FROM eav.entity_values_ingest AS v
    WHERE v.source_offset IS NOT NULL
    GROUP BY v.source_id
) AS i
INNER JOIN eav.ingest_sources AS s ON i.source_id = s.source_id
LEFT JOIN eav.ingest_checkpoint AS c ON i.source_id = c.source_id
WHERE i.last_offset - coalesce(c.position, 0) <> i.staged_rows
ORDER BY abs(i.last_offset - coalesce(c.position, 0) - i.staged_rows) DESC, i.source_id DESC
LIMIT :'rows';
