CREATE OR REPLACE FUNCTION ops.archive_damaged(p_archive_id bigint, p_error text)
RETURNS boolean
LANGUAGE sql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    WITH damaged AS (
        UPDATE ops.partition_archives AS a
        SET
            status = CASE WHEN ops.archive_table(a) IS NULL THEN 'failed' ELSE a.status END,
            differs_at = clock_timestamp(), error = left(p_error, 2000), leaving_at = NULL
        WHERE a.archive_id = p_archive_id
            AND (
                a.status IN ('verified', 'detached', 'restored') AND ops.archive_table(a) IS NOT NULL
                -- There is nothing of it anywhere.
                OR a.status IN ('verified', 'detached', 'restored', 'dropped') AND a.published_at IS NULL
            )
        RETURNING a.status
    )

    SELECT count(*) FILTER (WHERE d.status <> 'failed') > 0 FROM damaged AS d;
$$;

COMMENT ON FUNCTION ops.archive_damaged(bigint, text) IS
'Notes that the files of an archive are not as they should be: its partition is archived again, and does not leave before. False if there is no partition any more.';

REVOKE ALL ON FUNCTION ops.archive_damaged(bigint, text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION ops.archive_damaged(bigint, text) TO eav_jobs;
