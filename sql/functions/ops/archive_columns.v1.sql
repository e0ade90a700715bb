CREATE OR REPLACE FUNCTION ops.archive_columns(p_table regclass, p_parent regclass)
RETURNS jsonb
LANGUAGE sql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT jsonb_agg(
        jsonb_build_object(
            'name', a.attname,
            'type', format_type(a.atttypid, a.atttypmod),
            'kind', CASE
                WHEN t.typname IN ('int2', 'int4', 'int8', 'bool', 'text', 'bytea', 'float4', 'float8') THEN 'plain'
                WHEN t.typname = 'numeric' THEN 'number'
                -- What a partition is by lies within its bounds: no infinity.
                WHEN t.typname = 'timestamptz' AND a.attname = k.attname THEN 'plain'
                WHEN t.typname IN ('timestamptz', 'timestamp', 'date') THEN 'time'
                ELSE 'other'
            END
        ) ORDER BY a.attnum
    )
    FROM pg_attribute AS a
    INNER JOIN pg_type AS t ON a.atttypid = t.oid
    INNER JOIN pg_partitioned_table AS p ON p.partrelid = p_parent
    INNER JOIN pg_attribute AS k ON p.partrelid = k.attrelid AND p.partattrs[0] = k.attnum
    WHERE a.attrelid = p_table AND a.attnum > 0 AND NOT a.attisdropped;
$$;

COMMENT ON FUNCTION ops.archive_columns(regclass, regclass) IS
'The columns of a partition as its archive has them: name, type, and how its values are written: plain (as they are), number and time (rounded, with the exact text beside where that is not the same), other (as text).';

REVOKE ALL ON FUNCTION ops.archive_columns(regclass, regclass) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION ops.archive_columns(regclass, regclass) TO eav_jobs;
