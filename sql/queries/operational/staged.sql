-- answers: what is staged and not yet durable, lane by lane (0 is the durable one), and how long the oldest
--   has waited; the bytes are those of the slots, which keep flushed rows until they are emptied
-- role: eav_jobs
-- scope: none
-- index: none: the slots have none, and all that is staged is counted
SELECT
    l.lane,
    count(s.batch) AS staged,
    min(s.staged_at) AS oldest,
    clock_timestamp() - min(s.staged_at) AS age,
    (
        SELECT sum(pg_relation_size(c.oid))
        FROM pg_class AS c
        INNER JOIN pg_namespace AS n ON c.relnamespace = n.oid
        WHERE n.nspname = 'eav' AND c.relname ~ format('^staging_%s_[0-9]$', l.lane)
    ) AS slot_bytes
FROM generate_series(0, 4) AS l (lane)
LEFT JOIN eav.entity_values_ingest AS s ON l.lane = s.lane
GROUP BY l.lane
ORDER BY l.lane;
