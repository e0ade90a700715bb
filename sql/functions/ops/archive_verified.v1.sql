CREATE OR REPLACE FUNCTION ops.archive_verified(p_archive_id bigint, p_bucket text, p_files jsonb)
RETURNS bigint
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_archive ops.partition_archives;
    v_before ops.partition_archives;
    v_rows bigint;
    v_differs text;
BEGIN
    SELECT a.* INTO STRICT v_archive
    FROM ops.partition_archives AS a
    WHERE a.archive_id = p_archive_id AND a.status = 'exporting'
    FOR UPDATE;
    v_rows := (v_archive.checksums ->> 'rows')::bigint;
    v_differs := coalesce(
        ops.archive_difference(p_archive_id),
        (
            SELECT format('its files are said to have %s rows', coalesce(sum((f.file ->> 'rows')::bigint), 0))
            FROM jsonb_array_elements(p_files) AS f (file)
            HAVING coalesce(sum((f.file ->> 'rows')::bigint), 0) <> v_rows
        )
    );
    IF v_differs IS NOT NULL THEN
        RAISE data_corrupted USING
            MESSAGE = format('%s: %s: not verified, the partition stays, nothing is lost', v_archive.partition, v_differs);
    END IF;
    UPDATE ops.partition_archives
    SET status = 'superseded'
    WHERE partition = v_archive.partition AND status IN ('verified', 'detached', 'restored')
    RETURNING * INTO v_before;
    UPDATE ops.partition_archives
    SET status = CASE WHEN v_before.detached_at IS NULL THEN 'verified' ELSE 'detached' END,
        verified_at = clock_timestamp(),
        rows = v_rows,
        bucket = p_bucket,
        files = p_files,
        parquet_bytes = coalesce((SELECT sum((f.file ->> 'bytes')::bigint) FROM jsonb_array_elements(p_files) AS f (file)), 0),
        leaving_at = v_before.leaving_at,
        detached_at = v_before.detached_at,
        restored_at = v_before.restored_at,
        keep_until = v_before.keep_until,
        error = NULL
    WHERE archive_id = p_archive_id;
    RETURN v_rows;
END;
$$;

COMMENT ON FUNCTION ops.archive_verified(bigint, text, jsonb) IS
'Makes an archive the one of its partition, if what was read back from its files (by ops.archive_piece) is what was exported, and returns the rows; raises data_corrupted if not.';

REVOKE ALL ON FUNCTION ops.archive_verified(bigint, text, jsonb) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION ops.archive_verified(bigint, text, jsonb) TO eav_jobs;
