CREATE OR REPLACE FUNCTION eav.ingest_outcome(
    p_source_id bigint, p_after bigint, p_through bigint, p_since timestamptz
)
RETURNS TABLE (durable bigint, flushing boolean, reason text, rejected bigint)
LANGUAGE sql
STABLE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT
        (SELECT max(c.position) FROM eav.ingest_checkpoint_log AS c WHERE c.source_id = p_source_id),
        coalesce((
            -- Under a pg_cron that knows no seconds a run takes nearly a minute.
            SELECT r.status <> 'failed' AND r.started_at > clock_timestamp()
                - CASE r.status WHEN 'running' THEN interval '2 minutes' ELSE interval '10 seconds' END
            FROM ops.job_runs AS r
            WHERE r.job = 'flush'
            ORDER BY r.run_id DESC
            LIMIT 1
        ), false),
        v.reason,
        v.rejected
    FROM (VALUES (1)) AS one (row)
    LEFT JOIN (
        SELECT r.reason, count(*) AS rejected
        FROM eav.entity_values_rejected AS r
        WHERE r.source_id = p_source_id AND r.rejected_at >= p_since
            AND r.source_offset > p_after AND r.source_offset <= p_through
        GROUP BY r.reason
    ) AS v ON true;
$$;

COMMENT ON FUNCTION eav.ingest_outcome(bigint, bigint, bigint, timestamptz) IS
'What became of a source''s lines from p_after to p_through: up to which offset it is durable, whether a flush is at work, and how many were rejected since p_since, a row a reason (one row with NULL if none).';

REVOKE ALL ON FUNCTION eav.ingest_outcome(bigint, bigint, bigint, timestamptz) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION eav.ingest_outcome(bigint, bigint, bigint, timestamptz) TO eav_ingest;
