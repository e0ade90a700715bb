-- answers: how the runs of each job went in a time window: how many, how long, what they moved, the last
--   error
-- role: eav_jobs
-- scope: none
-- param window = 24 hours: how far back from `until`, 30 days at most
-- param until = now: the end, a time
-- index: none: a scan of at most 14 days of runs; job_runs_job_run_id_idx is for the last run of one job
SELECT
    r.job,
    count(*) AS runs,
    count(*) FILTER (WHERE r.status = 'running') AS running,
    count(*) FILTER (WHERE r.status = 'failed') AS failed,
    count(*) FILTER (WHERE r.status = 'skipped') AS skipped,
    sum(r.rows) AS rows_moved,
    max(r.started_at) AS last_started,
    percentile_cont(0.95) WITHIN GROUP (ORDER BY extract(EPOCH FROM r.finished_at - r.started_at))
        AS seconds_p95,
    (array_agg(r.error ORDER BY r.run_id DESC) FILTER (WHERE r.error IS NOT NULL))[1] AS last_error
FROM ops.job_runs AS r
WHERE
    r.started_at > :'until'::timestamptz - least(:'window'::interval, interval '30 days')
    AND r.started_at <= :'until'::timestamptz
GROUP BY r.job
ORDER BY r.job;
