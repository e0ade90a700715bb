-- answers: up to which offset each source is durable, and since when; the one that moved last comes first
-- role: eav_jobs
-- scope: none
-- param rows = 100: how many at most
-- index: ingest_checkpoint_log_pkey: the last entry of each source
SELECT
    s.source,
    s.partition,
    s.lane,
    c.position,
    c.flushed_at,
    clock_timestamp() - c.flushed_at AS age
FROM eav.ingest_sources AS s
LEFT JOIN eav.ingest_checkpoint AS c ON s.source_id = c.source_id
ORDER BY c.flushed_at DESC NULLS LAST, s.source_id DESC
LIMIT :'rows';
