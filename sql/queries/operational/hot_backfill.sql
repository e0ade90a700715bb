-- answers: which attributes turned hot, cold or volatile, how far their values are, and when they will be there
-- role: eav_jobs
-- scope: none
-- param rows = 100: how many at most
-- index: none: a row for each attribute that ever switched
SELECT
    b.attribute_id,
    b.entities_done,
    b.requested_at,
    b.expected_at,
    b.done_until AS history_done_back_to,
    nullif(b.progressed_at, '-infinity') AS progressed_at,
    CASE
        WHEN b.finished_at IS NOT NULL THEN 'finished'
        WHEN b.started_at IS NULL THEN 'waiting for flushes under way'
        WHEN b.tidied_at IS NULL THEN 'entities'
        ELSE 'history'
    END AS step,
    round((b.share_done * 100)::numeric, 1) AS percent_done
FROM eav.hot_backfill AS b
ORDER BY b.finished_at DESC NULLS FIRST, b.requested_at ASC
LIMIT :'rows';
