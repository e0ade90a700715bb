CREATE OR REPLACE FUNCTION ops.archive_adopt(p_about jsonb, p_attempt uuid, p_bucket text, p_files jsonb)
RETURNS text
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_parent CONSTANT text := p_about ->> 'table';
    v_partition CONSTANT text := p_about ->> 'partition';
    v_from CONSTANT timestamptz := (p_about ->> 'starts_at')::timestamptz;
    v_to CONSTANT timestamptz := (p_about ->> 'ends_at')::timestamptz;
    v_rows CONSTANT bigint := (p_about -> 'checksums' ->> 'rows')::bigint;
    v_status text;
    v_wrong text;
BEGIN
    SELECT a.status INTO v_status FROM ops.partition_archives AS a WHERE a.attempt = p_attempt;
    IF v_status = 'superseded' THEN
        UPDATE ops.partition_archives SET set_aside_at = NULL WHERE attempt = p_attempt;
        RETURN v_status;
    END IF;
    -- What a file says of itself becomes SQL of the owner's when it is restored: names are quoted there, types are not.
    -- So a type is one of PostgreSQL's own and nothing else: no comment, no domain, no function of somebody's.
    SELECT format('column %s of type %s', e.col ->> 'name', e.col ->> 'type') INTO v_wrong
    FROM jsonb_array_elements(p_about -> 'columns') AS e (col)
    CROSS JOIN LATERAL (
        SELECT
            CASE
                WHEN e.col ->> 'type' ~ '^[a-z][a-z0-9_ ]*(\([0-9]+(,-?[0-9]+)?\))?( with(out)? time zone)?(\[\])*$'
                    THEN to_regtype(e.col ->> 'type')
            END AS type_oid
    ) AS c
    LEFT JOIN pg_type AS t ON c.type_oid = t.oid AND t.typnamespace = 'pg_catalog'::regnamespace AND t.typtype IN ('b', 'r', 'm')
    WHERE t.oid IS NULL
        OR (e.col ->> 'kind' IN ('plain', 'number', 'time', 'other')) IS NOT TRUE
        OR (e.col ->> 'name' !~ '[\x01-\x1f\x7f]' AND octet_length(e.col ->> 'name') BETWEEN 1 AND 56) IS NOT TRUE
    LIMIT 1;
    IF v_wrong IS NOT NULL THEN
        NULL;
    ELSIF NOT EXISTS (SELECT FROM ops.partition_policies AS p WHERE p.parent_table = v_parent AND p.archive_first) THEN
        v_wrong := format('table %s, which is not archived here', v_parent);
    ELSIF (v_partition !~ '[\x01-\x1f\x7f]' AND starts_with(v_partition, v_parent || '_')) IS NOT TRUE
        OR parse_ident(v_partition) <> ARRAY[split_part(v_parent, '.', 1), split_part(v_partition, '.', 2)] THEN
        v_wrong := format('partition %s of %s', v_partition, v_parent);
    ELSIF (v_from < v_to AND v_to < now() AND isfinite(v_from)) IS NOT TRUE THEN
        v_wrong := format('from %s to %s', v_from, v_to);
    ELSIF v_rows IS DISTINCT FROM (SELECT coalesce(sum((f.file ->> 'rows')::bigint), 0) FROM jsonb_array_elements(p_files) AS f (file)) THEN
        v_wrong := format('%s rows, which are not those of its files', v_rows);
    ELSIF jsonb_typeof(p_about -> 'columns') <> 'array' OR jsonb_array_length(p_about -> 'columns') = 0 THEN
        v_wrong := 'no columns';
    END IF;
    IF v_wrong IS NOT NULL THEN
        RAISE invalid_parameter_value USING MESSAGE = format('no archive of this database: %s', v_wrong);
    END IF;
    IF v_status IS NOT NULL THEN
        -- Its objects were copied to another folder.
        UPDATE ops.partition_archives SET bucket = p_bucket, files = p_files WHERE attempt = p_attempt AND verified_at IS NOT NULL;
        RETURN v_status;
    END IF;
    INSERT INTO ops.partition_archives (
        attempt, status, parent_table, partition, starts_at, ends_at, begun_at, verified_at, published_at, dropped_at,
        rows, table_bytes, index_bytes, parquet_bytes, table_oid, bucket, columns, checksums, read_back, files, replaces
    )
    SELECT
        p_attempt,
        -- If its partition is here that one counts, and is archived again.
        CASE
            WHEN to_regclass(v_partition) IS NOT NULL OR EXISTS (
                SELECT FROM ops.partition_archives AS n WHERE p_attempt = ANY(n.replaces) AND n.status = 'dropped'
            ) THEN 'superseded'
            ELSE 'dropped'
        END,
        v_parent, v_partition, v_from, v_to, (p_about ->> 'exported_at')::timestamptz,
        (p_about ->> 'exported_at')::timestamptz, clock_timestamp(), clock_timestamp(), v_rows,
        coalesce((p_about ->> 'table_bytes')::bigint, 0), coalesce((p_about ->> 'index_bytes')::bigint, 0),
        (SELECT sum((f.file ->> 'bytes')::bigint) FROM jsonb_array_elements(p_files) AS f (file)), 0, p_bucket,
        p_about -> 'columns', p_about -> 'checksums', p_about -> 'checksums', p_files,
        ARRAY(SELECT r.attempt::uuid FROM jsonb_array_elements_text(p_about -> 'replaces') AS r (attempt))
    RETURNING status INTO v_status;
    UPDATE ops.partition_archives AS a
    SET status = 'superseded'
    FROM ops.partition_archives AS n
    WHERE n.attempt = p_attempt AND n.status = 'dropped' AND a.attempt = ANY(n.replaces) AND a.status = 'dropped'
        AND a.partition = n.partition;
    RETURN v_status;
END;
$$;

COMMENT ON FUNCTION ops.archive_adopt(jsonb, uuid, text, jsonb) IS
'Makes the record of an archive anew from what its files say (their footer, p_about): dropped, or superseded if its partition is here, or a newer archive of it is known; returns which. Raises invalid_parameter_value if it cannot be one of this database''s. For the owner only.';

REVOKE ALL ON FUNCTION ops.archive_adopt(jsonb, uuid, text, jsonb) FROM PUBLIC;
