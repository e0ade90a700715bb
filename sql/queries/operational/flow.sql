-- answers: when the flush last made something durable, and since when attributes wait for their hot values to be moved
-- role: eav_jobs
-- scope: none
-- index: by staging_progress_pkey the last entry of each lane; hot_backfill_attribute_id_idx: what is unfinished
SELECT
    (SELECT max(m.flushed_at) FROM eav.staging_marker AS m) AS flushed_at,
    (SELECT min(h.requested_at) FROM eav.hot_backfill AS h WHERE h.finished_at IS NULL) AS backfill_since;
