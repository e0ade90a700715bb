-- answers: which partitions are archived, which are due, detached or restored, and how the last archives went
-- role: eav_jobs
-- scope: none
-- param rows = 100: how many at most
-- index: none: a row a partition, and the catalogue
SELECT
    c.partition_name,
    c.status,
    c.why,
    c.starts_at,
    c.begun_at,
    c.verified_at,
    c.detached_at,
    c.keep_until,
    c.row_count,
    c.table_bytes,
    c.parquet_bytes,
    c.error
FROM (
    SELECT
        a.archive_id,
        a.partition AS partition_name,
        a.status,
        CASE
            WHEN a.restoring_at IS NOT NULL THEN 'it is being restored'
            WHEN a.status NOT IN ('verified', 'detached', 'restored') THEN NULL
            WHEN a.differs_at IS NOT NULL THEN 'it differs: it is archived again'
            WHEN a.published_at IS NULL THEN 'its files are not published yet'
            WHEN a.status = 'detached' THEN 'expire-partitions drops it'
            WHEN a.leaving_at IS NOT NULL THEN 'it waits to be detached'
        END AS why,
        a.starts_at,
        a.begun_at,
        a.verified_at,
        a.detached_at,
        a.keep_until,
        a.rows AS row_count,
        a.table_bytes,
        a.parquet_bytes,
        a.error
    FROM ops.partition_archives AS a
    UNION ALL
    SELECT
        NULL AS archive_id,
        d.partition AS partition_name,
        'due' AS status,
        d.why,
        d.starts_at,
        NULL AS begun_at,
        NULL AS verified_at,
        NULL AS detached_at,
        NULL AS keep_until,
        d.estimated_rows AS row_count,
        d.bytes AS table_bytes,
        NULL AS parquet_bytes,
        NULL AS error
    FROM ops.archivable() AS d
) AS c
ORDER BY c.status = 'due' DESC, c.archive_id DESC, c.starts_at ASC
LIMIT :'rows';
