CREATE OR REPLACE FUNCTION ops.restore_columns(p_table regclass, p_columns jsonb)
RETURNS jsonb
LANGUAGE sql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT jsonb_agg(e.col || jsonb_build_object('generated', a.attgenerated <> '') ORDER BY e.place)
    FROM jsonb_array_elements(p_columns) WITH ORDINALITY AS e (col, place)
    INNER JOIN pg_attribute AS a ON a.attrelid = p_table AND e.col ->> 'name' = a.attname
    WHERE a.attnum > 0 AND NOT a.attisdropped;
$$;

COMMENT ON FUNCTION ops.restore_columns(regclass, jsonb) IS
'Those of the archived columns (ops.archive_columns) that the table still has.';

REVOKE ALL ON FUNCTION ops.restore_columns(regclass, jsonb) FROM PUBLIC;
