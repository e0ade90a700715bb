CREATE OR REPLACE FUNCTION ops.archive_adopt(p_about jsonb, p_attempt uuid, p_bucket text, p_files jsonb)
RETURNS bigint
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_partition CONSTANT text := p_about ->> 'partition';
    v_rows CONSTANT bigint := p_about -> 'checksums' ->> 'rows';
    v_wrong text;
    v_archive_id bigint;
BEGIN
    -- What a file says of itself becomes SQL of the owner's when it is restored: names are quoted there, types are not.
    SELECT format('column %s of type %s', e.col ->> 'name', e.col ->> 'type') INTO v_wrong
    FROM jsonb_array_elements(p_about -> 'columns') AS e (col)
    WHERE to_regtype(e.col ->> 'type') IS NULL
        OR (e.col ->> 'kind' IN ('plain', 'number', 'time', 'other')) IS NOT TRUE
        OR (octet_length(e.col ->> 'name') BETWEEN 1 AND 56) IS NOT TRUE
    LIMIT 1;
    IF NOT EXISTS (
        SELECT FROM ops.partition_policies AS p WHERE p.parent_table = p_about ->> 'table' AND p.archive_first
    ) THEN
        v_wrong := format('table %s, which is not archived here', p_about ->> 'table');
    ELSIF (v_partition = (SELECT format('%I.%I', i.ident[1], i.ident[2]) FROM (SELECT parse_ident(v_partition) AS ident) AS i)) IS NOT TRUE THEN
        v_wrong := format('partition %s', v_partition);
    ELSIF v_rows IS DISTINCT FROM (SELECT coalesce(sum((f.file ->> 'rows')::bigint), 0) FROM jsonb_array_elements(p_files) AS f (file)) THEN
        v_wrong := format('%s rows, which are not those of its files', v_rows);
    END IF;
    IF v_wrong IS NOT NULL THEN
        RAISE invalid_parameter_value USING MESSAGE = format('no archive of this database: %s', v_wrong);
    END IF;
    -- It is there, and is archived again.
    IF to_regclass(v_partition) IS NOT NULL THEN
        RETURN NULL;
    END IF;
    INSERT INTO ops.partition_archives (
        attempt, status, parent_table, partition, starts_at, ends_at, begun_at, verified_at, published_at, dropped_at,
        rows, table_bytes, index_bytes, parquet_bytes, table_oid, bucket, columns, checksums, read_back, files
    )
    SELECT
        p_attempt, 'dropped', p_about ->> 'table', v_partition, (p_about ->> 'starts_at')::timestamptz,
        (p_about ->> 'ends_at')::timestamptz, (p_about ->> 'exported_at')::timestamptz,
        (p_about ->> 'exported_at')::timestamptz, clock_timestamp(), clock_timestamp(), v_rows,
        coalesce((p_about ->> 'table_bytes')::bigint, 0), coalesce((p_about ->> 'index_bytes')::bigint, 0),
        (SELECT sum((f.file ->> 'bytes')::bigint) FROM jsonb_array_elements(p_files) AS f (file)), 0, p_bucket,
        p_about -> 'columns', p_about -> 'checksums', p_about -> 'checksums', p_files
    RETURNING archive_id INTO v_archive_id;
    UPDATE ops.partition_archives
    SET status = 'superseded'
    WHERE partition = v_partition AND status = 'dropped'
        AND attempt::text IN (SELECT r.attempt FROM jsonb_array_elements_text(p_about -> 'replaces') AS r (attempt));
    RETURN v_archive_id;
END;
$$;

COMMENT ON FUNCTION ops.archive_adopt(jsonb, uuid, text, jsonb) IS
'Makes the record of an archive anew from what its files say (their footer, p_about), if its partition is nowhere else; NULL if it is in the database. Raises invalid_parameter_value if it cannot be one of this database''s.';

REVOKE ALL ON FUNCTION ops.archive_adopt(jsonb, uuid, text, jsonb) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION ops.archive_adopt(jsonb, uuid, text, jsonb) TO eav_jobs;
