-- answers: how each job is: when it was begun last (also where that was skipped), when it last ended well, how its
--   last end was, and since when a run of it goes on
-- role: eav_jobs
-- scope: none
-- index: by job_runs_job_run_id_idx, from job to job and from the newest run back to the one that is asked for
WITH RECURSIVE j AS (
    SELECT min(r.job) AS job FROM ops.job_runs AS r
    UNION ALL
    SELECT
        (
            SELECT min(r.job)
            FROM ops.job_runs AS r
            WHERE r.job > j.job
        )
    FROM j
    WHERE j.job IS NOT NULL
)

SELECT
    j.job,
    b.begun_at,
    w.ended_well_at,
    e.status AS last_end,
    e.error AS last_error,
    g.running_since
FROM j
LEFT JOIN LATERAL (
    SELECT r.started_at AS begun_at
    FROM ops.job_runs AS r
    WHERE r.job = j.job
    ORDER BY r.run_id DESC
    LIMIT 1
) AS b ON true
LEFT JOIN LATERAL (
    SELECT r.finished_at AS ended_well_at
    FROM ops.job_runs AS r
    WHERE r.job = j.job AND r.status = 'ok'
    ORDER BY r.run_id DESC
    LIMIT 1
) AS w ON true
LEFT JOIN LATERAL (
    SELECT
        r.status,
        r.error
    FROM ops.job_runs AS r
    WHERE r.job = j.job AND r.status IN ('ok', 'failed')
    ORDER BY r.run_id DESC
    LIMIT 1
) AS e ON true
LEFT JOIN LATERAL ( -- noqa: structure.subquery
    -- of a job one run is going on; skipped ones may have come since, a flush every second
    SELECT min(n.started_at) FILTER (WHERE n.status = 'running') AS running_since
    FROM (
        SELECT
            r.status,
            r.started_at
        FROM ops.job_runs AS r
        WHERE r.job = j.job
        ORDER BY r.run_id DESC
        LIMIT 1000
    ) AS n
) AS g ON true
WHERE j.job IS NOT NULL
ORDER BY j.job;
