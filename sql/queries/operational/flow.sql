-- answers: when the flush last made something durable, and since when attributes wait for their hot values to be moved
-- role: eav_jobs
-- scope: none
-- index: by staging_progress_pkey the last entry of each lane; hot_backfill_attribute_id_idx: what is unfinished
WITH m AS (
    SELECT max(s.flushed_at) AS flushed_at FROM eav.staging_marker AS s
),

h AS (
    SELECT min(b.requested_at) FILTER (WHERE b.finished_at IS NULL) AS backfill_since FROM eav.hot_backfill AS b
)

SELECT
    m.flushed_at,
    h.backfill_since
FROM m
CROSS JOIN h;
