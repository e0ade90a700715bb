-- answers: what is missing of which source, as its ingester noticed and somebody accepted; the newest first
-- role: eav_jobs
-- scope: none
-- param rows = 100: how many at most
-- index: none: there is a row for each time that somebody gave --accept-gap
SELECT
    g.noticed_at,
    s.source,
    s.partition,
    g.position AS behind_offset,
    g.gap_from,
    g.gap_to,
    g.why
FROM eav.ingest_gaps AS g
INNER JOIN eav.ingest_sources AS s ON g.source_id = s.source_id
ORDER BY g.noticed_at DESC, g.source_id DESC
LIMIT :'rows';
